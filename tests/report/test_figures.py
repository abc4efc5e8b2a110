from __future__ import annotations

import io
import itertools
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from PIL import Image

from ferbench.knobs import strategy_defaults
from ferbench.records.store import Store
from ferbench.records.study import Range
from ferbench.report import diagrams, study_figures
from ferbench.report.canvas import styled
from ferbench.report.evidence import weigh_all
from ferbench.report.figures import drawings, figures
from ferbench.report.leaderboard import Leaderboard, build
from ferbench.report.looks import looks_of
from ferbench.report.placement import Box, free_box

figures_module = sys.modules["ferbench.report.figures"]
"""The package has a function of this name."""

NAMES = [
    "fer2013-full-curves.png",
    "fer2013-full-parameters.png",
    "fer2013-full-speed.png",
    "fer2013-full-confusion-resnet18-none.png",
    "fer2013-full-confusion-vgg16-none.png",
    "fer2013-full-confusion-plain_cnn-none.png",
]


def pngs(board, records):
    return {name: draw() for name, draw in drawings(board, records).items()}


def test_figures_are_png_files_of_the_expected_names(store):
    files = pngs(build(store.records()), store.records())
    assert list(files) == NAMES
    for content in files.values():
        image = Image.open(io.BytesIO(content))
        assert image.format == "PNG"
        assert min(image.size) > 200
        # neither date nor program in the file
        assert "Software" not in image.info
        assert len(content) < 120_000


def test_each_device_has_its_own_speeds(make_run):
    records = [make_run(device="A")[0], make_run("vgg16", device="B")[0]]
    (track,) = build(records).tracks
    found = [(f.name, [e.model for e in f.entries]) for f in figures(track) if f.kind == "speed"]
    assert found == [("fer2013-full-speed-1.png", ["resnet18"]), ("fer2013-full-speed-2.png", ["vgg16"])]


def test_track_without_results_has_no_figures(make_failure):
    assert figures(build([make_failure("x")]).tracks[0]) == []


@pytest.mark.parametrize("happy", ["happy", "a class that has a very long name"])
def test_no_word_leaves_its_figure(happy, tmp_path, monkeypatch, make_run):
    canvases = []
    for module in (figures_module, diagrams):
        monkeypatch.setattr(module, "png", canvases.append)
    store = Store(tmp_path)
    for strategy, seed in itertools.product(("none", "focal", "inverse"), (0, 1)):
        store.write_run(*make_run(strategy=strategy, seed=seed, protocol="stratified-naive"))
    for strategy in itertools.islice(strategy_defaults(), 12):
        store.write_run(*make_run("vgg16", strategy=strategy, overrides={"optimizer.lr": 0.123}))
    records = store.records()
    board = weigh_all(build(records), store)
    classes = {split: {"angry": 2, happy: 2, "sad": 1} for split in ("val", "test")}
    pngs(Leaderboard(tuple(replace(track, support=classes) for track in board.tracks)), records)
    assert len(canvases) == sum(len(figures(track)) for track in board.tracks) > 12
    names = {*classes["test"], *strategy_defaults()}
    assert [words_outside(canvas, names) for canvas in canvases] == [[]] * len(canvases)


def words_outside(canvas, names):
    """Words that a figure does not show whole; of those at ticks, these names."""
    FigureCanvasAgg(canvas).draw()
    axes = [axis for axes in canvas.axes for axis in (axes.xaxis, axes.yaxis)]
    # a number out of view is there too
    numbers = {t for axis in axes for t in axis.get_majorticklabels() if t.get_text() not in names}
    boxes = [
        (t.get_text(), t.get_window_extent()) for t in canvas.findobj(Text) if t.get_text().strip() and t not in numbers
    ]
    paper = canvas.bbox.padded(0.5)
    return [w for w, b in boxes if b.x0 < paper.x0 or b.x1 > paper.x1 or b.y0 < paper.y0 or b.y1 > paper.y1]


@pytest.mark.parametrize("n", [1, 2, 7, 12, 25])
@pytest.mark.parametrize("title", ["VGG16-BN", "An ensemble of very many networks, each with a name of some length"])
def test_a_matrix_has_room_for_its_title_and_scale(title, n, monkeypatch, records):
    canvases = []
    monkeypatch.setattr(diagrams, "png", canvases.append)
    track = build(records).tracks[0]
    names = [f"class {i}" for i in range(n)]
    entry = replace(track.entries[0], title=title, confusion=tuple((1,) * n for _ in range(n)))
    styled(diagrams.draw_confusion, replace(track, support={"test": dict.fromkeys(names, n)}), entry)()
    (canvas,) = canvases
    assert words_outside(canvas, [*names, "0", "100"]) == []


@pytest.mark.parametrize("low", [0.002, 1e-7])
def test_a_study_of_one_field_has_room_and_numbers(low, monkeypatch):
    canvases = []
    monkeypatch.setattr(study_figures, "png", canvases.append)
    (study,) = (s for s in Store(Path(__file__).parents[2] / "results").studies() if s.name == "plain_cnn")
    space = {"optimizer.lr": Range(low=low, high=0.009, log=True)}
    spec = study.spec.model_copy(update={"space": space})
    study_figures.study_drawings(study.model_copy(update={"spec": spec}))["slices.png"]()
    (canvas,) = canvases
    assert words_outside(canvas, []) == []
    axis = canvas.axes[0].xaxis
    shown = [t.get_text() for t in axis.get_majorticklabels() if low <= t.get_position()[0] <= 0.009]
    assert len(shown) >= 2 and all(float(text.replace("−", "-")) > 0 for text in shown)


def test_of_many_entries_those_without_a_strategy_are_drawn_first(tmp_path, make_run):
    store = Store(tmp_path)
    for strategy in ("none", "focal", "inverse", "sqrt_inverse", "balanced_sampling"):
        for model in ("resnet18", "vgg16", "plain_cnn"):
            store.write_run(*make_run(model, strategy=strategy))
    board = build(store.records())
    for figure in figures(board.tracks[0])[:3]:
        assert figure.which == " (12 of 15: the best without a strategy, and the best others)"
        looks = looks_of(figure.entries).values()
        assert len({(look.color, look.dash) for look in looks}) == 12
        assert len({(look.color, look.marker) for look in looks}) == 12
        assert sum(e.strategy == "none" for e in figure.entries) == 3
        assert [e.rank for e in figure.entries] == sorted(e.rank for e in figure.entries)
    assert len(pngs(board, store.records())) == 3 + figures_module.MATRICES


@pytest.mark.parametrize("drawn", [2, 3])
def test_of_a_large_track_the_best_are_drawn(drawn, monkeypatch, records):
    monkeypatch.setattr(figures_module, "LARGE", drawn)
    monkeypatch.setattr(figures_module, "MOST_NAMED", drawn)
    monkeypatch.setattr(figures_module, "MATRICES", 2)
    (track,) = build(records).tracks
    best = ["resnet18", "vgg16", "plain_cnn"][:drawn]
    curves, parameters, speed, *matrices = figures(track)
    for figure in (curves, parameters, speed):
        assert [e.model for e in figure.entries] == best
        assert figure.which == (" (the best 2 of 3)" if drawn == 2 else "")
    assert [e.model for f in matrices for e in f.entries] == best[: 1 if drawn == 2 else 2]
    assert list(pngs(build(records), records)) == [f.name for f in figures(track)]


@pytest.mark.parametrize(("limit", "lines"), [(1, 1), (2, 1 + 2)])
def test_curves_of_many_seeds_are_their_mean(limit, lines, monkeypatch, records):
    from matplotlib.figure import Figure

    monkeypatch.setattr(figures_module, "SEEDS_DRAWN", limit)
    axes = Figure().subplots()
    look = looks_of(build(records).tracks[0].entries)["resnet18-none"]
    figures_module._curve(axes, records[:2], lambda row: row.val_accuracy, look)
    assert len(axes.lines) == lines
    mean = axes.lines[0].get_ydata()
    pairs = zip(*([row.val_accuracy for row in r.history] for r in records[:2]), strict=True)
    assert list(mean) == pytest.approx([sum(pair) / 2 for pair in pairs])


def test_names_cover_neither_each_other_nor_points():
    inside = Box(0, 0, 400, 300)
    spots = [(100 + 6 * i, 100 + 5 * i) for i in range(6)]
    points = [Box(x, y, x, y).padded(5) for x, y in spots]
    taken = list(points)
    for spot in spots:
        box = free_box(spot, 60, 12, taken, inside)
        assert all(box.shared(other) == 0 for other in taken)
        assert box.shared(inside) == pytest.approx(60 * 12)
        taken.append(box)
