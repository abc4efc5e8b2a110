"""The figures beside the leaderboard, and the only place that draws."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

from ferbench.records.record import EpochRow, RunRecord
from ferbench.report.canvas import LABEL, Drawing, Margins, add_heading, add_legend, blank, png, styled
from ferbench.report.diagrams import draw_confusion, draw_reliability, draw_strategies
from ferbench.report.entries import Entry
from ferbench.report.leaderboard import Leaderboard, Track
from ferbench.report.looks import Looks, looks_of
from ferbench.report.placement import Box, free_box
from ferbench.report.strategies import treated

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

Kind = Literal["curves", "parameters", "speed", "strategies", "confusion", "reliability"]
LEGEND_ABOVE = 12
"""With more entries than this, points are told apart by a legend: there is no room for a name at each."""
ALL_DRAWN = 40
"""With more entries than this (all models with all strategies are 35), figures show the best `LEGEND_ABOVE`."""
MATRICES = 5
"""As many of the best entries have a reliability curve and a confusion matrix; of a larger
track only the first has a matrix."""
SEEDS_DRAWN = 10
"""With more seeds than this, their curves would cover the means."""
_CLEAR = 8
"""Pixels around a point that names leave free."""


@dataclass(frozen=True)
class Figure:
    """One figure of a track: its file name and what it shows."""

    name: str
    kind: Kind
    entries: tuple[Entry, ...]
    which: str = ""
    """Words for which of the track's entries these are; "" where it is all."""


def figures(whole: Track) -> list[Figure]:
    """The figures that a track has, without drawing them."""
    if not whole.entries or whole.data.protocol == "oracle":
        return []
    track = _drawn(whole)
    n, n_all = len(track.entries), len(whole.entries)
    which = f" (the best {n} of {n_all:,})" if n < n_all else ""
    trained = tuple(e for e in track.entries if e.is_trained)
    found = [Figure(f"{track.slug}-curves.png", "curves", trained, which)] if trained else []
    sized = tuple(e for e in track.entries if e.parameters)
    if sized:
        found.append(Figure(f"{track.slug}-parameters.png", "parameters", sized, which))
    found += _speed_figures(track, which)
    held = tuple(e for entries in treated(whole).values() for e in entries)
    if held:
        found.append(Figure(f"{track.slug}-strategies.png", "strategies", held))
    weighed = tuple(e for e in whole.entries[:MATRICES] if e.evidence)
    if weighed:
        few = f" (the best {len(weighed)} of {n_all:,})" if len(weighed) < n_all else ""
        found.append(Figure(f"{track.slug}-reliability.png", "reliability", weighed, few))
    best = track.entries[: 1 if which else MATRICES]
    return found + [Figure(f"{track.slug}-confusion-{e.slug}.png", "confusion", (e,)) for e in best]


def _drawn(track: Track) -> Track:
    """The track with the entries that its figures show."""
    return track.best(LEGEND_ABOVE) if len(track.entries) > ALL_DRAWN else track


def _speed_figures(track: Track, which: str) -> list[Figure]:
    # a speed means something on one device only
    devices = sorted({e.device for e in track.entries if e.inference})
    names = [f"{track.slug}-speed.png"] if len(devices) == 1 else [f"{track.slug}-speed-{i}.png" for i in range(1, 99)]
    return [
        Figure(name, "speed", tuple(e for e in track.entries if e.inference and e.device == device), which)
        for name, device in zip(names, devices, strict=False)
    ]


def drawings(board: Leaderboard, records: Sequence[RunRecord]) -> dict[str, Drawing]:
    """By its name under results/figures/, what draws each figure; histories come from the board's records."""
    by_id = {r.id: r for r in records}
    drawers: dict[Kind, Callable[[Track, Figure, dict[str, RunRecord]], bytes]] = {
        "curves": _draw_curves,
        "parameters": _draw_parameters,
        "speed": _draw_speed,
        "confusion": lambda track, figure, _: draw_confusion(track, figure.entries[0]),
        "strategies": lambda track, figure, _: draw_strategies(replace(track, entries=figure.entries)),
        "reliability": lambda track, figure, _: draw_reliability(track, figure.entries, figure.which),
    }
    return {f.name: styled(drawers[f.kind], _drawn(t), f, by_id) for t in board.tracks for f in figures(t)}


def _add_legend(canvas: Canvas, track: Track, entries: Sequence[Entry], *, dashes: bool) -> None:
    """A legend at the right: a line per entry, or where that is too much one per colour and one per marker."""
    from matplotlib.lines import Line2D

    looks, crowded = looks_of(track), len(entries) > LEGEND_ABOVE
    rows: dict[str, dict[str, Any]] = {}
    for entry in entries:
        look = looks[entry.slug]
        style = {"linestyle": look.dash} if dashes else {"marker": look.marker, "linestyle": "", "markersize": 7}
        if crowded:
            rows.setdefault(look.model, {"color": look.color, "lw": 5})
            rows.setdefault(look.treatment, {"color": "0.3", **style})
        else:
            rows[entry.label] = {"color": look.color, "lw": 1.8, **style}
    if crowded:
        rows = dict(sorted(rows.items(), key=lambda row: (row[1]["color"] == "0.3", row[0])))
    add_legend(canvas, [Line2D([], [], **style) for style in rows.values()], list(rows))


def _draw_curves(track: Track, figure: Figure, records: dict[str, RunRecord]) -> bytes:
    from matplotlib.ticker import MaxNLocator

    looks = looks_of(track)
    canvas, (left, right) = blank(3.6, 3, 2, margins=Margins(top=Margins.top + LABEL))
    for entry in figure.entries:
        runs, look = [records[i] for i in entry.runs], looks[entry.slug]
        _curve(left, runs, lambda r: 100 * r.val_accuracy, look)
        _curve(right, runs, lambda r: r.train_loss, look)
        chosen = [r.history[r.best_epoch - 1] for r in runs if r.best_epoch and len(r.history) >= r.best_epoch]
        spots = ([r.epoch for r in chosen], [100 * r.val_accuracy for r in chosen])
        left.plot(*spots, "o", color=look.color, markersize=5, markeredgecolor="white", zorder=4)
    left.set_title("val accuracy, %  (dots: the epochs chosen)")
    several = len({e.strategy for e in figure.entries}) > 1
    right.set_title("training loss" + ("  (strategies minimise different ones)" if several else ""))
    for axes in (left, right):
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _add_legend(canvas, track, figure.entries, dashes=True)
    add_heading(canvas, f"{track.title}{figure.which}")
    return png(canvas)


def _curve(axes: Axes, runs: list[RunRecord], value: Callable[[EpochRow], float], look: Looks) -> None:
    """The mean over seeds as far as all of them went, and each of a few seeds as a thin line."""
    seeds = [[value(row) for row in r.history] for r in runs]
    shared = min(map(len, seeds))
    mean = [fmean(column) for column in zip(*(s[:shared] for s in seeds), strict=True)]
    style = {"color": look.color, "linestyle": look.dash}
    # a curve of a single epoch is a point
    axes.plot(range(1, shared + 1), mean, lw=1.8, marker="." if shared < 3 else "", **style)
    for seed in seeds if 1 < len(seeds) <= SEEDS_DRAWN else []:
        axes.plot(range(1, len(seed) + 1), seed, lw=0.7, alpha=0.4, **style)


def _draw_parameters(track: Track, figure: Figure, records: dict[str, RunRecord]) -> bytes:
    points = [(e, (e.parameters or 0) / 1e6) for e in figure.entries]
    return _scatter(track, figure, points, "parameters, millions")


def _draw_speed(track: Track, figure: Figure, records: dict[str, RunRecord]) -> bytes:
    size = max(s for e in figure.entries for s in e.inference)
    points = [(e, e.inference[size]) for e in figure.entries if size in e.inference]
    return _scatter(track, figure, points, f"inference at batch {size}, images/s on {figure.entries[0].device}")


def _scatter(track: Track, figure: Figure, points: Sequence[tuple[Entry, float]], x_label: str) -> bytes:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    looks = looks_of(track)
    canvas, (axes,) = blank(6.5, 3.7, margins=Margins(top=Margins.top + LABEL))
    axes.set_xscale("log")
    for entry, x in points:
        score, look = entry.test["accuracy"], looks[entry.slug]
        bar = None if score.sd is None else 100 * score.sd
        axes.errorbar(
            x, 100 * score.mean, bar, color=look.color, marker=look.marker, markersize=8, markeredgecolor="white",
            capsize=3, elinewidth=1.2, linestyle="",
        )  # fmt: skip
    _widen(axes, [x for _, x in points])
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.10g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(x_label)
    bars = any(e.test["accuracy"].sd is not None for e, _ in points)
    axes.set_title("test accuracy, %" + ("  (bars: ± sd over seeds)" if bars else ""))
    if len(points) > LEGEND_ABOVE:
        _add_legend(canvas, track, [e for e, _ in points], dashes=False)
    else:
        _name_points(axes, points)
    add_heading(canvas, f"{track.title}{figure.which}")
    return png(canvas)


def _widen(axes: Axes, xs: list[float]) -> None:
    """Room on all sides for the labels, at least a factor of two on the x axis."""
    span = max(max(xs) / min(xs), 2.0) ** 0.28
    axes.set_xlim(min(xs) / span, max(xs) * span)
    low, high = axes.get_ylim()
    room = max(0.18 * (high - low), 0.4)
    axes.set_ylim(low - room, high + room)


def _name_points(axes: Axes, points: Sequence[tuple[Entry, float]]) -> None:
    """Put each point's name at the nearest free place, with a thin line to it where that is not close by."""
    # places are in pixels: nothing may move any more
    spots = [(x, 100 * e.test["accuracy"].mean) for e, x in points]
    pixels = [tuple(map(float, axes.transData.transform(spot))) for spot in spots]
    scale = axes.transData.transform((spots[0][0], 1))[1] - axes.transData.transform((spots[0][0], 0))[1]
    bars = [100 * (e.test["accuracy"].sd or 0) * scale for e, _ in points]
    taken = [Box(x, y, x, y).padded(_CLEAR) for x, y in pixels]
    taken += [Box(x, y - bar, x, y + bar).padded(4) for (x, y), bar in zip(pixels, bars, strict=True)]
    inside = Box(*axes.get_window_extent().extents)
    for (entry, _), spot, (x, y) in zip(points, spots, pixels, strict=True):
        text = axes.annotate(entry.label, spot, (0, 0), textcoords="figure pixels", fontsize=8.5, color="0.15")
        extent = text.get_window_extent()
        box = free_box((x, y), extent.width, extent.height, taken, inside)
        text.set_position((box.x0, box.y0))
        taken.append(box.padded(1))
        end = box.nearest(x, y)
        if math.dist((x, y), end) > 2 * _CLEAR:
            line = {"arrowstyle": "-", "color": "0.6", "lw": 0.7, "shrinkA": 0, "shrinkB": 4}
            axes.annotate("", spot, end, textcoords="figure pixels", arrowprops=line)
