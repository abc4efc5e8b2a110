"""Which figures are beside the leaderboard; those of learning, size and speed are drawn here."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING, Literal

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
MOST_NAMED = 12
"""Entries that curves and points are drawn of: there is no room for more names."""
LARGE = 40
"""With more entries than this only the first has a confusion matrix; all models with all strategies are 35."""
MATRICES = 5
"""As many of the best entries have a reliability curve and a confusion matrix."""
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
    n_all = len(whole.entries)
    trained = [e for e in whole.entries if e.is_trained]
    found = [Figure(f"{whole.slug}-curves.png", "curves", *_some(trained))] if trained else []
    sized = [e for e in whole.entries if e.parameters]
    if sized:
        found.append(Figure(f"{whole.slug}-parameters.png", "parameters", *_some(sized)))
    found += _speed_figures(whole)
    held = tuple(e for entries in treated(whole).values() for e in entries)
    if held:
        found.append(Figure(f"{whole.slug}-strategies.png", "strategies", held))
    weighed = tuple(e for e in whole.entries[:MATRICES] if e.evidence)
    if weighed:
        few = f" (the best {len(weighed)} of {n_all:,})" if len(weighed) < n_all else ""
        found.append(Figure(f"{whole.slug}-reliability.png", "reliability", weighed, few))
    best = whole.entries[: 1 if n_all > LARGE else MATRICES]
    return found + [Figure(f"{whole.slug}-confusion-{e.slug}.png", "confusion", (e,)) for e in best]


def _some(entries: Sequence[Entry]) -> tuple[tuple[Entry, ...], str]:
    """Those that are drawn, and words for which they are where it is not all."""
    if len(entries) <= MOST_NAMED:
        return tuple(entries), ""
    # what strategies change has a figure of its own
    places = sorted(range(len(entries)), key=lambda i: entries[i].strategy != "none")[:MOST_NAMED]
    drawn = tuple(entries[i] for i in sorted(places))
    plain = sum(e.strategy == "none" for e in drawn)
    if len({e.strategy == "none" for e in entries}) == 1:
        words = f"the best {MOST_NAMED} of {len(entries):,}"
    else:
        others = "" if plain == MOST_NAMED else ", and the best others"
        words = f"{MOST_NAMED} of {len(entries):,}: the best without a strategy{others}"
    return drawn, f" ({words})"


def _speed_figures(track: Track) -> list[Figure]:
    # a speed means something on one device only
    devices = sorted({e.device for e in track.entries if e.inference})
    names = [f"{track.slug}-speed.png"] if len(devices) == 1 else [f"{track.slug}-speed-{i}.png" for i in range(1, 99)]
    return [
        Figure(name, "speed", *_some([e for e in track.entries if e.inference and e.device == device]))
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
    return {f.name: styled(drawers[f.kind], t, f, by_id) for t in board.tracks for f in figures(t)}


def _add_legend(canvas: Canvas, looks: Mapping[str, Looks], entries: Sequence[Entry]) -> None:
    """A legend at the right, a line per entry."""
    from matplotlib.lines import Line2D

    lines = [Line2D([], [], color=looks[e.slug].color, linestyle=looks[e.slug].dash, lw=1.8) for e in entries]
    add_legend(canvas, lines, [e.label for e in entries])


def _draw_curves(track: Track, figure: Figure, records: dict[str, RunRecord]) -> bytes:
    from matplotlib.ticker import MaxNLocator

    looks = looks_of(figure.entries)
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
    _add_legend(canvas, looks, figure.entries)
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

    looks = looks_of(figure.entries)
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
