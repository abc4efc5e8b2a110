from __future__ import annotations

import io

import pytest
from PIL import Image

from ferbench.records.store import Store
from ferbench.report.figures import draw, figures
from ferbench.report.leaderboard import build
from ferbench.report.placement import Box, free_box

NAMES = [
    "fer2013-full-curves.png",
    "fer2013-full-parameters.png",
    "fer2013-full-speed.png",
    "fer2013-full-confusion-resnet18-none.png",
    "fer2013-full-confusion-vgg16-none.png",
    "fer2013-full-confusion-plain_cnn-none.png",
]


def test_figures_are_png_files_of_the_expected_names(store):
    files = draw(build(store.records()), store)
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


def test_many_entries_are_drawn_with_a_legend(tmp_path, make_run):
    store = Store(tmp_path)
    for strategy in ("none", "focal", "inverse", "sqrt_inverse", "balanced_sampling"):
        for model in ("resnet18", "vgg16", "plain_cnn"):
            store.write_run(*make_run(model, strategy=strategy))
    board = build(store.records())
    assert len(draw(board, store)) == 3 + 15


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
