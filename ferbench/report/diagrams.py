"""Figures of what entries do on test: confusion matrices, reliability, and what strategies change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ferbench.evaluation.metrics import METRICS, Array
from ferbench.report.canvas import LABEL, Margins, add_heading, blank, extent, png
from ferbench.report.entries import Entry
from ferbench.report.evidence import GAINS
from ferbench.report.leaderboard import Track
from ferbench.report.looks import looks_of
from ferbench.report.strategies import gain, is_sure, treated

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh

_ANGLE = 35
"""Degrees by which names below a confusion matrix are turned."""


def draw_confusion(track: Track, entry: Entry) -> bytes:
    """A PNG of an entry's confusion matrix on test."""
    classes = track.classes
    counts = np.array(entry.confusion)
    percent = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    several = f" over {len(entry.seeds)} seeds" if len(entry.seeds) > 1 else ""
    title = [entry.label, track.title, f"% of the true class, and images{several}"]
    # as high as the words beside the scale of colours
    side = max(0.74 * len(classes), 2)
    left, bottom = extent(classes, 9)[0], extent(classes, 9, _ANGLE)[1]
    # of the scale of colours, or what of the title stands out
    right = max(0.07 * side + 0.6, extent(title, 10)[0] - side + 0.1)
    margins = Margins(left=left + LABEL + 0.2, right=right, bottom=bottom + LABEL + 0.2, top=0.68)
    canvas, (axes,) = blank(side, side, margins=margins)
    cells = [[f"{p:.1f}\n{n:,}" for p, n in zip(*row, strict=True)] for row in zip(percent, counts, strict=True)]
    mesh = _heat_map(axes, percent, np.array(cells), "Blues", (0, 100))
    axes.set_xticks(_middles(classes), classes, rotation=_ANGLE)
    axes.set_yticks(_middles(classes), classes)
    scale = canvas.colorbar(mesh, axes.inset_axes((1.04, 0.125, 0.03, 0.75)), label="% of the true class")
    scale.outline.set_visible(False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title("\n".join(title), fontsize=10)
    return png(canvas)


def draw_strategies(track: Track) -> bytes:
    """A PNG of what each imbalance strategy changes for each model, a panel per metric."""
    models = treated(track)
    names = list(models)
    order = by_gain(models)
    margins = Margins(left=extent(order, 9)[0] + 0.2, bottom=0.3, top=Margins.top + 2 * LABEL, columns=0.15)
    width = max(1.5, extent(names, 9)[0] + 0.15)
    canvas, panels = blank(width * len(names), 0.34 * len(order), len(GAINS), margins=margins)
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
        _heat_map(axes, better * values, words, "RdBu", (-limit, limit))
        axes.set_xticks(_middles(names), names)
        axes.set_yticks(_middles(order), order if axes is panels[0] else [""] * len(order))
        axes.set_title(METRICS[metric].title, fontsize=9.5)
    add_heading(
        canvas,
        f"{track.title}: against no strategy, points\n(ECE: hundredths; blue is better, *: the interval leaves 0 out)",
        size=10,
    )
    return png(canvas)


def by_gain(models: Mapping[str, Sequence[Entry]]) -> list[str]:
    """The strategies of several models' entries, by their mean gain and then by name."""
    strategies = {e.strategy for entries in models.values() for e in entries}
    return sorted(strategies, key=lambda s: (-round(_mean_gain(models, s), 12), s))


def _heat_map(axes: Axes, values: Array, words: npt.NDArray[Any], colors: str, limits: tuple[float, float]) -> QuadMesh:
    """Coloured cells with words in them, the first row above; one without a word stays paper."""
    # what seaborn's does, without the second that its import takes
    mesh = axes.pcolormesh(np.ma.masked_invalid(values), cmap=colors, edgecolor="white", linewidth=1)
    mesh.set_clim(*limits)
    grey = np.asarray(mesh.to_rgba(values))[..., :3] @ (0.299, 0.587, 0.114)
    for (row, column), word in np.ndenumerate(words):
        if word:
            axes.text(
                column + 0.5, row + 0.5, word, color="white" if grey[row, column] < 0.55 else "0.15", fontsize=8,
                linespacing=1.35, ha="center", va="center",
            )  # fmt: skip
    axes.invert_yaxis()
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return mesh


def _middles(names: Sequence[str]) -> list[float]:
    return [i + 0.5 for i in range(len(names))]


def _mean_gain(models: Mapping[str, Sequence[Entry]], strategy: str) -> float:
    return float(
        np.mean([gain(e, "macro_f1") for entries in models.values() for e in entries if e.strategy == strategy])
    )


def draw_reliability(track: Track, entries: Sequence[Entry], which: str) -> bytes:
    """A PNG of how often entries' predictions are right by their confidence, before and after the temperature."""
    looks = looks_of(entries)
    margins = Margins(left=Margins.left + LABEL, top=Margins.top + LABEL)
    canvas, (before, after) = blank(4.5, 3.4, 2, margins=margins)
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
    add_heading(canvas, f"{track.title}{which}: test images in bins of equal size")
    return png(canvas)
