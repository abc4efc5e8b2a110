"""The figures of a study."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ferbench.evaluation.statistics import expected_best
from ferbench.records.study import Range, StudyRecord, TrialRow, direction
from ferbench.report.canvas import LABEL, Drawing, Margins, add_heading, blank, extent, png, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SLICES_IN_A_ROW = 4
_WITH_LABEL = Margins(left=Margins.left + LABEL)
_COLORS = {"complete": "#3b6ea5", "pruned": "#c0c0c0", "baseline": "#d1495b"}


def study_drawings(record: StudyRecord) -> dict[str, Drawing]:
    """What draws each figure, by file name; those for which there are too few trials are left out."""
    judged = [t for t in record.trials if judged_value(t) is not None]
    if not judged:
        return {}
    found = {
        "history.png": styled(_history, record, judged),
        "budget.png": styled(_budget, record, judged),
        "slices.png": styled(_slices, record, judged),
    }
    if any(len(t.curve) > 1 for t in judged):
        found["curves.png"] = styled(_curves, record, judged)
    if record.importances:
        found["importance.png"] = styled(_importance, record)
    if len(record.spec.objectives) > 1:
        found["pareto.png"] = styled(_pareto, record)
    return found


def judged_value(trial: TrialRow) -> float | None:
    """What a trial shows of its first objective: its value, or a pruned one's best epoch; None: nothing."""
    if trial.values:
        return trial.values[0]
    return max(trial.curve) if trial.state == "pruned" and trial.curve else None


def front(record: StudyRecord) -> list[TrialRow]:
    """The completed trials that no other one betters in one objective without being worse in another (Pareto)."""
    signs = np.array([1 if direction(o) == "maximize" else -1 for o in record.spec.objectives])
    done = [t for t in record.trials if t.state == "complete"]
    values = np.array([t.values for t in done]).reshape(len(done), len(signs)) * signs
    beaten = [bool(((values >= own).all(1) & (values > own).any(1)).any()) for own in values]
    return sorted((t for t, b in zip(done, beaten, strict=True) if not b), key=lambda t: -t.values[0])


def best_so_far(values: Sequence[float]) -> list[float]:
    """The largest value up to each."""
    return np.maximum.accumulate(values).tolist()


def _values(trials: Sequence[TrialRow]) -> list[float]:
    return [v for t in trials if (v := judged_value(t)) is not None]


def _title(record: StudyRecord) -> str:
    return f"val {record.spec.objectives[0].replace('_', ' ').replace('macro f1', 'macro-F1')}"


def _mark_baseline(axes: Axes, record: StudyRecord) -> None:
    baseline = record.trial(0)
    if baseline is not None and baseline.values:
        axes.axhline(baseline.values[0], color=_COLORS["baseline"], lw=1, ls="--", label="baseline (trial 0)")


def _history(record: StudyRecord, trials: Sequence[TrialRow]) -> bytes:
    canvas, (axes,) = blank(6.6, 3, margins=replace(_WITH_LABEL, bottom=Margins.bottom + LABEL))
    values = _values(trials)
    for state, marker in (("complete", "o"), ("pruned", "x")):
        chosen = [(i, v) for i, (t, v) in enumerate(zip(trials, values, strict=True)) if t.state == state]
        if chosen:
            label = "complete" if state == "complete" else "pruned (its best epoch)"
            places, shown = zip(*chosen, strict=True)
            axes.scatter(places, shown, marker=marker, color=_COLORS[state], s=28, label=label)
    axes.step(range(len(values)), best_so_far(values), where="post", color="0.25", lw=1.5, label="best so far")
    _mark_baseline(axes, record)
    axes.set(title=f"{record.name}: every trial", xlabel="trial, in order", ylabel=_title(record))
    canvas.legend(loc="lower center", ncols=4, fontsize=8.5)
    return png(canvas)


def _budget(record: StudyRecord, trials: Sequence[TrialRow]) -> bytes:
    canvas, (spent, draws) = blank(3.9, 3.1, columns=2, margins=replace(_WITH_LABEL, columns=_WITH_LABEL.left))
    values = _values(trials)
    epochs = np.cumsum([len(t.curve) for t in trials])
    spent.step(epochs, best_so_far(values), where="post", color=_COLORS["complete"], lw=2)
    _mark_baseline(spent, record)
    spent.set(title=f"{record.name}: best so far", xlabel="epochs over all trials", ylabel=_title(record))
    expected = expected_best(values)
    draws.plot(range(1, len(expected) + 1), expected, color=_COLORS["complete"], lw=2)
    _mark_baseline(draws, record)
    draws.set(title="expected best of n trials (arXiv 1909.03004)", xlabel="trials", ylabel=_title(record))
    return png(canvas)


def draw_studies(records: Sequence[StudyRecord]) -> bytes:
    """A PNG of all studies beside each other: the best so far by epochs spent, and the best that one expects of n."""
    canvas, (spent, draws) = blank(4.4, 3.3, columns=2, margins=_WITH_LABEL)
    for record in records:
        trials = [t for t in record.trials if judged_value(t) is not None]
        if trials:
            epochs = np.cumsum([len(t.curve) for t in trials])
            (line,) = spent.step(epochs, best_so_far(_values(trials)), where="post", label=record.name)
            expected = expected_best(_values(trials))
            draws.plot(range(1, len(expected) + 1), expected, color=line.get_color())
    spent.set(title="best so far", xlabel="epochs over all trials", ylabel="first objective on val")
    draws.set(title="expected best of n trials (arXiv 1909.03004)", xlabel="trials")
    spent.legend(fontsize=8.5)
    return png(canvas)


def _slices(record: StudyRecord, trials: Sequence[TrialRow]) -> bytes:
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

    fields = list(record.spec.space)
    rows = math.ceil(len(fields) / _SLICES_IN_A_ROW)
    columns = min(_SLICES_IN_A_ROW, len(fields))
    canvas, grid = blank(2.2, 1.7, columns, rows, replace(_WITH_LABEL, top=0.15 + LABEL, columns=0.5, rows=0.6))
    for axes, name in zip(grid, fields, strict=False):
        dimension = record.spec.space[name]
        points = [
            (t.params[name], score, t) for t, score in zip(trials, _values(trials), strict=True) if name in t.params
        ]
        names = [] if isinstance(dimension, Range) else [str(c) for c in dimension.choices]
        for value, score, trial in points:
            color = _COLORS["baseline"] if trial.number == 0 else _COLORS[trial.state]
            place = value if isinstance(dimension, Range) else dimension.choices.index(value)
            axes.scatter([place], [score], color=color, marker="x" if trial.state == "pruned" else "o", s=18)
        if names:
            axes.set_xticks(range(len(names)), names)
            axes.set_xlim(-0.5, len(names) - 0.5)
        elif isinstance(dimension, Range):
            axes.set_xlim(dimension.low, dimension.high)
            if dimension.log:
                axes.set_xscale("log")
                # not as powers of ten, whose markup nothing here reads
                axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
                if dimension.high < 30 * dimension.low:
                    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axes.xaxis.set_minor_formatter(NullFormatter())
            else:
                axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.set_xlabel(name, fontsize=9)
    for axes in grid[len(fields) :]:
        axes.set_visible(False)
    for axes in grid[::_SLICES_IN_A_ROW]:
        axes.set_ylabel(_title(record))
    add_heading(canvas, f"{record.name}: each field (crosses: pruned; red: baseline)", size=10.5)
    return png(canvas)


def _curves(record: StudyRecord, trials: Sequence[TrialRow]) -> bytes:
    canvas, (axes,) = blank(6.6, 3, margins=replace(_WITH_LABEL, top=Margins.top + LABEL))
    for trial in trials:
        epochs = range(1, len(trial.curve) + 1)
        color = _COLORS["baseline"] if trial.number == 0 else _COLORS[trial.state]
        axes.plot(
            epochs, trial.curve, color=color, lw=1.4, marker="x" if trial.state == "pruned" else None, markevery=[-1]
        )
        if trial.unpruned:
            axes.plot(range(1, len(trial.unpruned) + 1), trial.unpruned, color=color, lw=0.9, ls=":")
    rest = "; dotted: as it would have gone on" if any(t.unpruned for t in trials) else ""
    axes.set(
        title=f"{record.name}: every trial\n(grey: pruned at the cross{rest}; red: baseline)",
        xlabel="epoch",
        ylabel=_title(record),
    )
    return png(canvas)


def _importance(record: StudyRecord) -> bytes:
    import pandas as pd
    import seaborn as sns

    titles = {"ped_anova": "PED-ANOVA", "fanova": "fANOVA"}
    rows = [
        {"field": field, "share": share, "by": titles.get(name, name)}
        for name, shares in record.importances.items()
        for field, share in shares.items()
    ]
    margins = Margins(left=0.2 + extent(record.spec.space, 9)[0])
    canvas, (axes,) = blank(5.6, 0.4 * len(record.spec.space), margins=margins)
    sns.barplot(pd.DataFrame(rows), x="share", y="field", hue="by", palette=["#3b6ea5", "#e0a458"], ax=axes)
    axes.set(title=f"{record.name}: share of {_title(record)} that each field explains", xlabel="share", ylabel="")
    axes.legend(title="")
    return png(canvas)


def _pareto(record: StudyRecord) -> bytes:
    canvas, (axes,) = blank(6.2, 3.6, margins=_WITH_LABEL)
    done, best = [t for t in record.trials if t.state == "complete"], front(record)
    axes.scatter([t.values[1] for t in done], [t.values[0] for t in done], color="0.7", s=24, label="trials")
    axes.plot([t.values[1] for t in best], [t.values[0] for t in best], "o-", color=_COLORS["complete"], label="front")
    for trial in best:
        axes.annotate(str(trial.number), (trial.values[1], trial.values[0]), xytext=(5, 4), textcoords="offset points")
    other = record.spec.objectives[1].replace("images_per_second", "images/s at inference")
    axes.set(title=f"{record.name}: none is better in both", xlabel=other, ylabel=_title(record))
    axes.legend()
    return png(canvas)
