"""Strategies against none, on invented predictions of 600 images."""

from __future__ import annotations

import numpy as np
import pytest

from ferbench.evaluation.metrics import score
from ferbench.evaluation.predictions import predictions_of
from ferbench.evaluation.resampling import resample
from ferbench.evaluation.statistics import compare, pooled_spread
from ferbench.records.store import Store
from ferbench.report.diagrams import by_gain
from ferbench.report.evidence import weigh_all
from ferbench.report.figures import drawings, figures
from ferbench.report.leaderboard import build
from ferbench.report.markdown import render
from ferbench.report.strategies import section, treated

LABELS = np.repeat(np.arange(3, dtype=np.uint8), (350, 200, 50))
CLASSES = ("angry", "happy", "sad")


def with_skill(run, skill, noise: int, rare: float = 0.0):
    """A run as good as `skill`, and better by `rare` at the rarest class."""
    record, _ = run
    splits = []
    for split in ("val", "test"):
        random = np.random.Generator(np.random.PCG64([noise, split == "test"]))
        logits = 2 * (random.normal(size=(600, 3)) + (skill * np.eye(3) + rare * np.diag([0, 0, 1.0]))[LABELS])
        splits.append(predictions_of(split, CLASSES, [f"{split}-{i:05d}" for i in range(600)], LABELS, logits))
    return record.model_copy(update={"scores": {p.split: score(p) for p in splits}}), splits


@pytest.fixture
def store(tmp_path, make_run):
    """Focal is far ahead, inverse far behind, LDAM has the same predictions as none; of VGG16 there is focal alone."""
    found = Store(tmp_path / "results")
    for strategy, skill, noise in (("none", 1.0, 0), ("focal", 2.5, 1), ("inverse", 0.2, 2), ("ldam", 1.0, 0)):
        for seed in (0, 1):
            found.write_run(*with_skill(make_run("resnet18", seed, strategy=strategy), skill, 10 * noise + seed))
    found.write_run(*with_skill(make_run("vgg16", 0, strategy="focal"), 2.0, 50))
    return found


@pytest.fixture
def track(store):
    (found,) = weigh_all(build(store.records()), store).tracks
    return found


def test_strategies_with_the_same_gain_are_in_the_order_of_their_names(tmp_path, make_run):
    """Sets have another order in every process."""
    tied, found = ["cmo", "drs", "drw", "focal", "inverse", "ldam", "mek", "remix"], Store(tmp_path / "tied")
    for strategy in ("none", *reversed(tied)):
        found.write_run(*with_skill(make_run("resnet18", 0, strategy=strategy), 1.0, 0))
    (track,) = weigh_all(build(found.records()), found).tracks
    assert by_gain(treated(track)) == tied


def test_gains_are_paired_with_the_same_recipe_without_a_strategy(track, store):
    models = treated(track)
    # VGG16 has nothing to be held against
    assert list(models) == ["ResNet-18"]
    assert {e.strategy for e in models["ResNet-18"]} == {"focal", "inverse", "ldam"}
    entries = {e.strategy: e for e in track.entries if e.model == "resnet18"}
    seeds = {s: [store.predictions_at(p, "test") for p in e.places] for s, e in entries.items()}
    own, plain = resample([seeds["focal"], seeds["none"]])
    found = entries["focal"].evidence.gains["macro_f1"]
    draws = resample([[store.predictions_at(p, "test") for p in e.places] for e in track.entries])
    expected = compare(own, plain, "macro_f1", pooled_spread(draws, "macro_f1"))
    assert found.difference == pytest.approx(expected.difference)
    np.testing.assert_allclose(found.interval, expected.interval, atol=0.01)
    assert entries["none"].evidence.gains == {}


def test_gains_are_over_the_seeds_that_both_have(tmp_path, make_run):
    store = Store(tmp_path / "seeds")
    for strategy, seeds, skill in (("none", (0, 1), 1.0), ("focal", (1,), 2.0), ("inverse", (0, 1), 2.0)):
        for seed in seeds:
            # seed 0 of none is far better than seed 1
            own = skill + (2.0 if (strategy, seed) == ("none", 0) else 0.0)
            store.write_run(*with_skill(make_run("resnet18", seed, strategy=strategy), own, 10 * len(strategy) + seed))
    (track,) = weigh_all(build(store.records()), store).tracks
    entries = {e.strategy: e for e in track.entries}
    scores = {(s, seed): score(store.predictions_at(place, "test")).values["accuracy"]
              for s, e in entries.items() for seed, place in zip(e.seeds, e.places, strict=True)}  # fmt: skip
    gain = entries["focal"].evidence.gains["accuracy"].difference
    assert gain == pytest.approx(scores["focal", 1] - scores["none", 1])
    both = entries["inverse"].evidence.gains["accuracy"].difference
    assert both == pytest.approx(np.mean([scores["inverse", s] - scores["none", s] for s in (0, 1)]))


def test_section_says_what_helped_what_hurt_and_what_cannot_be_told(track):
    text = "\n".join(section(track))
    assert "rarest class (sad)" in text
    (verdict,) = (line for line in text.splitlines() if line.startswith("ResNet-18: "))
    said = dict(part.split("** ") for part in verdict.removeprefix("ResNet-18: **").rstrip(".").split("; **"))
    assert said["accuracy"].startswith("helped by focal (+")
    assert "hurt by inverse (-" in said["macro-F1"] and said["macro-F1"].endswith(
        "no difference that can be told for 1 of 3"
    )
    rows = [line for line in text.splitlines() if line.startswith("| ResNet-18")]
    # by macro-F1
    assert [row.split("|")[2].strip() for row in rows] == ["focal", "ldam", "inverse"]
    assert "+0.0" in rows[1]


def test_heat_map_stands_in_the_report(track, store):
    names = [f.name for f in figures(track)]
    assert f"{track.slug}-strategies.png" in names
    board = weigh_all(build(store.records()), store)
    assert drawings(board, store.records())[f"{track.slug}-strategies.png"]().startswith(b"\x89PNG")
    text = render(board, store.records())
    assert "### Imbalance strategies" in text and f"figures/{track.slug}-strategies.png" in text


def test_one_strategy_has_no_section(tmp_path, make_run):
    store = Store(tmp_path / "few")
    for strategy in ("none", "focal"):
        store.write_run(*with_skill(make_run("resnet18", 0, strategy=strategy), 1.0, 0))
    (track,) = weigh_all(build(store.records()), store).tracks
    assert treated(track) == {} and list(section(track)) == []
    assert not [f for f in figures(track) if f.kind == "strategies"]
