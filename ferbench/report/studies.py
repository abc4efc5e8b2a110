"""What studies found: a folder's README.md, trials.csv and figures, and their section of results/README.md."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ferbench.evaluation.resampling import resample
from ferbench.evaluation.statistics import Comparison, compare
from ferbench.records.record import RunRecord
from ferbench.records.store import Store
from ferbench.records.study import StudyRecord, TrialRow, Value
from ferbench.report.cells import MISSING, duration, p_value
from ferbench.report.entries import Spread, spread
from ferbench.report.study_figures import front, judged_value, study_drawings
from ferbench.report.table import escape, table
from ferbench.toml import flat_fields

_FIGURES = {
    "history.png": "every trial and the best so far",
    "budget.png": "the best so far against what was spent, and the best one expects of n trials",
    "curves.png": "learning curves",
    "importance.png": "importance of the fields",
    "slices.png": "every trial by each field",
    "pareto.png": "the front of the objectives",
}


ALL_STUDIES = "studies.png"
"""Figure of all studies of a results folder, where there are several."""


@dataclass(frozen=True)
class Pruning:
    """What pruning saved, and what it may have missed."""

    pruned: int
    epochs: int
    """Trained over all trials."""
    whole: int
    """Would have been without pruning."""
    finished: int
    """Pruned trials that were gone on with afterwards."""
    best: TrialRow | None
    """The best trial, each pruned one by its whole curve."""

    @property
    def saved(self) -> float:
        """Share of the epochs."""
        return 1 - self.epochs / self.whole if self.whole else 0.0


def pruning(record: StudyRecord) -> Pruning:
    """Of a study; a trial that searched its epochs counts as if it had the study's."""
    pruned = [t for t in record.trials if t.state == "pruned" and t.reason is None]
    extra = sum(max(len(t.unpruned or ()) or record.spec.epochs, len(t.curve)) - len(t.curve) for t in pruned)
    epochs = sum(len(t.curve) for t in record.trials)
    known = [t for t in record.trials if t.values or t.unpruned_value is not None]
    best = max(known, key=whole_value, default=None)
    return Pruning(len(pruned), epochs, epochs + extra, sum(t.unpruned is not None for t in pruned), best)


def whole_value(trial: TrialRow) -> float:
    """The first objective of a trial that went, or would have gone, to its end."""
    assert trial.values or trial.unpruned_value is not None
    return trial.values[0] if trial.values else trial.unpruned_value or 0.0


@dataclass(frozen=True)
class Retrained:
    """What a promoted trial is worth on fresh seeds."""

    winner: dict[str, Spread]
    """Split -> first objective over the seeds."""
    baseline: dict[str, Spread]
    optimism: float
    """The study's value less the retrained mean on val."""
    test: Comparison | None
    """Winner less baseline on test; None: predictions are missing."""


def retrained(record: StudyRecord, runs: Mapping[str, RunRecord], store: Store) -> Retrained | None:
    """What fresh seeds say of the promoted trial; None: nothing was promoted, or its runs are not there."""
    promotion = record.promotion
    if promotion is None:
        return None
    groups = [
        [runs[i] for i in ids if i in runs and runs[i].status == "ok"]
        for ids in (promotion.runs, promotion.baseline_runs)
    ]
    if not all(groups):
        return None
    metric = record.spec.objectives[0]
    winner, baseline = (
        {s: spread([r.scores[s].values[metric] for r in group]) for s in ("val", "test")} for group in groups
    )
    try:
        draws = resample([[store.predictions(r.spec, "test") for r in group] for group in groups])
        test = compare(draws[0], draws[1], metric)
    except (OSError, ValueError):
        test = None
    return Retrained(winner, baseline, promotion.value - winner["val"].mean, test)


def study_texts(record: StudyRecord, runs: Mapping[str, RunRecord], store: Store) -> dict[str, bytes]:
    """The files of a study's folder beside study.json and the figures, by name."""
    text = "\n\n".join(_page(record, retrained(record, runs, store), list(study_drawings(record))))
    return {"README.md": f"{text}\n".encode(), "trials.csv": _csv(record)}


def section(records: Sequence[StudyRecord], runs: Mapping[str, RunRecord], store: Store) -> Iterator[str]:
    """Paragraphs of results/README.md."""
    yield "## Studies\n"
    yield (
        "Searches of recipes by `ferbench tune`, on train and val alone. What a study found best it has chosen, so its "
        "value is too good and no result: **optimism** is that value less the mean of the same recipe trained again on "
        "other seeds. Values are of the study's first objective, on val unless test is named.\n"
    )
    headers = ["study", "trial", "objective", "trials", "pruned", "epochs", "baseline", "best", "retrained", "optimism"]
    headers += ["baseline retrained", "better on test by", "95 %"]
    rows = [_row(record, retrained(record, runs, store)) for record in records]
    yield table(headers, rows, ["study", "trial", "objective"]) + "\n"
    if len(records) > 1:
        yield f"![studies: best so far, and expected of n trials](figures/{ALL_STUDIES})\n"
    yield "\n".join(f"- [{escape(r.name)}](studies/{r.name}/README.md): {_verdict(r)}" for r in records) + "\n"


def _row(record: StudyRecord, again: Retrained | None) -> list[str]:
    best, baseline, spent = record.best, record.trial(0), pruning(record)
    spec = record.spec
    each = f"{spec.epochs} epochs of {spec.budget.fraction:.0%}"
    cells = [record.name, each, spec.objectives[0], str(len(record.trials)), str(spent.pruned), str(spent.epochs)]
    cells += [_number(t.values[0] if t and t.values else None) for t in (baseline, best)]
    if again is None:
        return cells + [MISSING] * 5
    cells += [_told(again.winner["val"]), f"{again.optimism:+.4f}", _told(again.baseline["val"])]
    if again.test is None:
        return [*cells, MISSING, MISSING]
    return [*cells, f"{again.test.difference:+.4f}", " to ".join(f"{end:+.4f}" for end in again.test.interval)]


def _number(value: float | None) -> str:
    return MISSING if value is None else f"{value:.4f}"


def _told(score: Spread) -> str:
    return f"{score.mean:.4f}" + ("" if score.sd is None else f" ± {score.sd:.4f}")


def _verdict(record: StudyRecord) -> str:
    spent = pruning(record)
    if not spent.pruned:
        return f"{spent.epochs} epochs, none saved by pruning."
    said = f"pruning saved {spent.whole - spent.epochs} of {spent.whole} epochs ({spent.saved:.0%})"
    if spent.finished < spent.pruned or spent.best is None or record.best is None:
        return f"{said}; `ferbench tune audit` would say what it missed."
    if spent.best.number == record.best.number:
        return f"{said} and missed nothing: none of the {spent.pruned} pruned trials would have become the best."
    lost = whole_value(spent.best) - record.best.values[0]
    return f"{said}; pruned trial {spent.best.number} would have been better than the best by {lost:.4f}."


def headline(record: StudyRecord) -> str:
    """The study's best trial in a line."""
    best, baseline = record.best, record.trial(0)
    if best is None:
        return f"{record.name}: no trial has completed"
    told = f"{record.name}: best val {record.spec.objectives[0]} {best.values[0]:.4f} (trial {best.number})"
    if baseline is not None and baseline.values:
        told += f", baseline {baseline.values[0]:.4f}"
    return f"{told}; chosen by the study, so too good: `ferbench tune promote` trains it again"


def best_lines(record: StudyRecord) -> list[str]:
    """The best trial's values, and the front of several objectives, as text for a terminal."""
    lines, best, spec = [headline(record)], record.best, record.spec
    base = dict(flat_fields(spec.baseline.model_dump()))
    for field, value in ({} if best is None else best.params).items():
        lines.append(f"  {field} = {_value(value)} (baseline {_value(base.get(field))})")
    if len(spec.objectives) > 1:
        lines.append(f"  front of {', '.join(spec.objectives)}:")
        lines += [f"    trial {t.number}: {', '.join(f'{v:.6g}' for v in t.values)}" for t in front(record)]
    return lines


def _page(record: StudyRecord, again: Retrained | None, figures: list[str]) -> Iterator[str]:
    spec, limit = record.spec, record.limit
    states = Counter(t.state for t in record.trials)
    yield f"# Study {escape(record.name)}"
    yield "Generated by `ferbench tune`; do not edit it. All trials: [trials.csv](trials.csv), [study.json](study.json)"
    yield (
        f"Model {escape(spec.model)}, {escape(spec.data.name)} under protocol {spec.data.protocol} (fingerprint "
        f"`{spec.data.fingerprint}`), without its test split. Objective: val {', '.join(spec.objectives)} at the epoch "
        f"that val {spec.baseline.training.select} chooses. Each trial: {spec.epochs} epochs of "
        f"{spec.budget.fraction:.0%} of the training images (budget {spec.budget.name}), training seed {spec.seed}."
    )
    yield (
        f"Sampler {spec.sampler.name} ({spec.sampler.startup_trials} random trials first), pruner {spec.pruner.name} "
        f"({_pruner_words(record)}). Limit: {limit.amount:g} {limit.unit}. Trials: "
        + ", ".join(f"{count} {state}" for state, count in states.items())
        + f"; {pruning(record).epochs} epochs in {duration(sum(t.seconds for t in record.trials))} of a device."
    )
    yield f"In short: {_verdict(record)}"
    yield from _winner(record)
    if again is not None:
        yield from _worth(record, again)
    if len(spec.objectives) > 1:
        rows = [[str(t.number), *(f"{v:.6g}" for v in t.values)] for t in front(record)]
        yield "## Front"
        yield table(["trial", *spec.objectives], rows, [])
    yield "## Figures"
    yield from (f"![{escape(record.name)}: {_FIGURES[name]}]({name})" for name in _FIGURES if name in figures)


def _pruner_words(record: StudyRecord) -> str:
    pruner = record.spec.pruner
    if pruner.name == "none" or len(record.spec.objectives) > 1:
        return "no trial is pruned"
    return f"after {pruner.startup_trials} trials, not before epoch {round(pruner.warmup * record.spec.epochs) + 1}"


def _winner(record: StudyRecord) -> Iterator[str]:
    best, baseline = record.best, record.trial(0)
    if best is None:
        return
    yield f"## Best trial: {best.number}"
    base = dict(flat_fields(record.spec.baseline.model_dump()))
    rows = [[name, _value(base.get(name)), _value(best.params.get(name, base.get(name)))] for name in record.spec.space]
    scores = [_number(t.values[0] if t and t.values else None) for t in (baseline, best)]
    rows.append([f"val {record.spec.objectives[0]}", *scores])
    yield table(["field", "baseline", f"trial {best.number}"], rows, ["field"])


def _worth(record: StudyRecord, again: Retrained) -> Iterator[str]:
    assert record.promotion is not None
    seeds = len(again.winner["val"].values)
    yield "## Trained again"
    yield (
        f"Trial {record.promotion.trial} and the baseline on {seeds} other seeds under the study's budget. The study's "
        f"value was {record.promotion.value:.4f}: its optimism is {again.optimism:+.4f}."
        + {True: " Its recipe was written.", False: " The baseline stayed.", None: ""}[record.promotion.is_recipe]
    )
    rows = [
        [name, _told(scores["val"]), _told(scores["test"])]
        for name, scores in ((f"trial {record.promotion.trial}", again.winner), ("baseline", again.baseline))
    ]
    objective = record.spec.objectives[0]
    yield table(["recipe", f"val {objective}", f"test {objective}"], rows, ["recipe"])
    if again.test is not None:
        low, high = again.test.interval
        yield (
            f"On test the trial is better by {again.test.difference:+.4f} (95 % interval {low:+.4f} to {high:+.4f}, "
            f"p {p_value(again.test.p)}, {again.test.test})."
        )


def _value(value: Value | None) -> str:
    return MISSING if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _csv(record: StudyRecord) -> bytes:
    """A line per trial, unrounded."""
    text, spec = io.StringIO(), record.spec
    writer = csv.writer(text, lineterminator="\n")
    facts = ["shown", "best_epoch", "epochs", "seconds", "attempts", "reason"]
    writer.writerow(["trial", "state", *spec.objectives, *facts, *spec.space, "curve", "unpruned"])
    for t in record.trials:
        values: list[Any] = [*t.values] or [""] * len(spec.objectives)
        values += [judged_value(t), t.best_epoch, len(t.curve), t.seconds, t.attempts, t.reason]
        values += [t.params.get(name, "") for name in spec.space]
        curves = [json.dumps(t.curve), "" if t.unpruned is None else json.dumps(t.unpruned)]
        writer.writerow([t.number, t.state, *values, *curves])
    return text.getvalue().encode()
