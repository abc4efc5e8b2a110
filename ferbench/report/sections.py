"""Parts of a track in results/README.md beside its ranking: classes, calibration, the oracle's table, failures."""

from __future__ import annotations

from collections.abc import Iterator

from ferbench.evaluation.metrics import METRICS
from ferbench.report.cells import MISSING, percent, signed, unit
from ferbench.report.leaderboard import Track
from ferbench.report.oracle import inflations
from ferbench.report.table import escape, table


def class_table(track: Track) -> str:
    """F1 by class of every entry."""
    classes = track.classes
    rows = [[e.label, *(f"{e.per_class[c].f1:.3f}" for c in classes)] for e in track.entries]
    rows.append(["test images", *(f"{track.support['test'][c]:,}" for c in classes)])
    return table(["model", *classes], rows, ["model"])


def calibration(track: Track) -> Iterator[str]:
    """Paragraphs on the calibration of the entries whose predictions are there."""
    entries = [(e, e.evidence.calibration) for e in track.entries if e.evidence]
    if not entries:
        return
    yield "### Calibration\n"
    yield (
        "Of the test probabilities, before and after dividing the logits by one temperature fitted on val (T, mean "
        "over seeds). NLL in nats; ECE: 15 bins with equally many images. Lower is better.\n"
    )
    shown = ("nll", "brier", "ece")
    headers = ["model", *(METRICS[m].title for m in shown), "T", *(f"{METRICS[m].title} after" for m in shown)]
    rows = [
        [e.label, *(unit(e.test.get(m)) for m in shown), f"{c.temperature:.2f}", *(f"{c.after[m]:.3f}" for m in shown)]
        for e, c in entries
    ]
    yield f"{table(headers, rows, ['model'])}\n"


def oracle(track: Track) -> Iterator[str]:
    """Paragraphs on what choosing on test adds."""
    yield (
        "**Not results:** the epoch was chosen by looking at the test images, as LetheSec's ResNet18 and WuJie1010's "
        "VGG19 did (usef-kh/fer chose on PrivateTest too, but reports PublicTest). The table says by how many points "
        "that inflates the accuracy: chosen on val are the same trainings at the epoch that val would have chosen."
    )
    rows = [
        [
            i.oracle.label,
            str(len(i.oracle.seeds)),
            percent(i.oracle.test["accuracy"]),
            percent(i.honest),
            MISSING if i.points is None else signed(i.points),
        ]
        for i in inflations(track)
    ]
    headers = ["model", "seeds", "chosen on test, %", "chosen on val, %", "inflation, points"]
    yield table(headers, rows, ["model"])


def ensembles(track: Track) -> Iterator[str]:
    """A paragraph on what each ensemble averages."""
    lines = [
        f"- {escape(e.label)}: {', '.join(f'{m.weight} x `{m.run}`' for m in e.ensemble.members)}"
        for e in track.entries
        if e.ensemble
    ]
    if lines:
        yield "What ensembles average, as often as val chose it:\n\n" + "\n".join(lines)


def failure_table(track: Track) -> str:
    """The runs that failed."""
    rows = [[f.id, f.model, f.strategy, str(f.seed), f.reason] for f in track.failures]
    return table(["run", "model", "strategy", "seed", "reason"], rows, ("run", "model", "strategy", "reason"))
