"""Figures of what entries do on test: confusion matrices, reliability, and what strategies change."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ferbench.evaluation.metrics import METRICS
from ferbench.report.canvas import blank, png
from ferbench.report.entries import Entry
from ferbench.report.evidence import GAINS
from ferbench.report.leaderboard import Track
from ferbench.report.looks import looks_of
from ferbench.report.strategies import gain, is_sure, treated


def draw_confusion(track: Track, entry: Entry) -> bytes:
    """A PNG of an entry's confusion matrix on test."""
    import seaborn as sns

    classes = track.classes
    counts = np.array(entry.confusion)
    percent = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = 0.74 * len(classes)
    canvas, (axes,) = blank(side + 2.3, side + 1.3)
    cells = [[f"{p:.1f}\n{n:,}" for p, n in zip(*row, strict=True)] for row in zip(percent, counts, strict=True)]
    sns.heatmap(
        percent, annot=np.array(cells), fmt="", cmap="Blues", vmin=0, vmax=100, square=True, linewidths=1,
        xticklabels=classes, yticklabels=classes, ax=axes, annot_kws={"fontsize": 8, "linespacing": 1.35},
        cbar_kws={"label": "% of the true class", "shrink": 0.75},
    )  # fmt: skip
    axes.tick_params(length=0)
    axes.tick_params(axis="x", rotation=35)
    axes.tick_params(axis="y", rotation=0)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    several = f", counts over {len(entry.seeds)} seeds" if len(entry.seeds) > 1 else ""
    axes.set_title(f"{entry.label}\n{track.title}: % of the true class and images{several}", fontsize=10)
    return png(canvas)


def draw_strategies(track: Track) -> bytes:
    """A PNG of what each imbalance strategy changes for each model, a panel per metric."""
    import seaborn as sns

    models = treated(track)
    names = list(models)
    order = sorted({e.strategy for entries in models.values() for e in entries}, key=lambda s: -_mean_gain(models, s))
    canvas, panels = blank(3 + 1.6 * len(GAINS) * max(len(names), 1), 1.6 + 0.34 * len(order), len(GAINS))
    for axes, metric in zip(panels, GAINS, strict=True):
        values = np.full((len(order), len(names)), np.nan)
        words = np.full(values.shape, "", dtype=object)
        for column, entries in enumerate(models.values()):
            for entry in entries:
                row = order.index(entry.strategy)
                values[row, column] = 100 * gain(entry, metric)
                words[row, column] = f"{values[row, column]:+.1f}{'*' if is_sure(entry, metric) else ''}"
        limit = max(float(np.nanmax(np.abs(values))), 1.0)
        better = 1 if METRICS[metric].higher_is_better else -1
        sns.heatmap(
            better * values, annot=words, fmt="", cmap="vlag_r", vmin=-limit, vmax=limit, linewidths=1, cbar=False,
            xticklabels=names, yticklabels=order if axes is panels[0] else False, ax=axes, annot_kws={"fontsize": 8},
        )  # fmt: skip
        axes.tick_params(length=0)
        axes.tick_params(axis="y", rotation=0)
        axes.set_title(METRICS[metric].title, fontsize=9.5)
    canvas.suptitle(
        f"{track.title}: against no strategy, points (ECE: hundredths; blue is better, *: the interval leaves 0 out)",
        x=0.01, ha="left", fontsize=10,
    )  # fmt: skip
    return png(canvas)


def _mean_gain(models: dict[str, list[Entry]], strategy: str) -> float:
    return float(
        np.mean([gain(e, "macro_f1") for entries in models.values() for e in entries if e.strategy == strategy])
    )


def draw_reliability(track: Track, entries: Sequence[Entry], which: str) -> bytes:
    """A PNG of how often entries' predictions are right by their confidence, before and after the temperature."""
    looks = looks_of(track)
    canvas, (before, after) = blank(10.5, 4.6, 2)
    for axes, bins, title in (
        (before, "before_bins", "as trained"),
        (after, "after_bins", "one temperature, from val"),
    ):
        axes.plot([0, 1], [0, 1], color="0.6", lw=1, linestyle=":", label="calibrated")
        for entry in entries:
            assert entry.evidence is not None
            look, shown = looks[entry.slug], getattr(entry.evidence.calibration, bins)
            line = {"color": look.color, "linestyle": look.dash, "marker": look.marker, "markersize": 4, "lw": 1.4}
            axes.plot(shown.confidence, shown.accuracy, label=entry.label, **line)
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", title=title)
    before.set_ylabel("share that is right")
    before.legend(loc="upper left", fontsize=8.5)
    canvas.suptitle(f"{track.title}{which}: test images in bins of equal size", x=0.01, ha="left", fontsize=11)
    return png(canvas)
