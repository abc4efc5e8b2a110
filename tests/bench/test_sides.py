"""Both sides of the comparison do the same work on the same images."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ferbench.bench.sides import Conventional, ModelAlone, Ours, PillowFaces, matrix_rate
from ferbench.environment import Arithmetic
from ferbench.recipe import AugmentRecipe
from ferbench.training.batches import Batches

from .conftest import CPU

OFF = AugmentRecipe.model_validate(dict.fromkeys(AugmentRecipe.model_fields, 0.0))


def test_conventional_images_are_ours_where_nothing_is_changed(drawn, spec_of):
    recipe = spec_of(**{"model.input_size": 48}).recipe
    faces = PillowFaces(drawn.val, recipe.model, OFF)
    theirs = torch.stack([faces[i][0] for i in range(len(faces))])
    ours = torch.cat(list(Batches.of(drawn.val, 7, recipe.model, recipe.training, CPU).evaluation(48)))
    torch.testing.assert_close(theirs, ours)
    assert [faces[i][1] for i in range(len(faces))] == drawn.val.labels.tolist()


def test_conventional_augmentation_is_the_recipes(drawn, spec_of):
    model = spec_of(**{"model.input_size": 48}).recipe.model
    still = PillowFaces(drawn.val, model, OFF)
    mirrored = PillowFaces(drawn.val, model, OFF.model_copy(update={"flip": 1.0}))
    torch.testing.assert_close(mirrored[3][0], still[3][0].flip(-1))
    erased = PillowFaces(drawn.val, model, OFF.model_copy(update={"erase": 1.0, "erase_size": 0.5}))
    assert 0 < (erased[3][0] != still[3][0]).float().mean() <= 0.55
    torch.manual_seed(0)
    shifted = PillowFaces(drawn.val, model, OFF.model_copy(update={"shift": 0.25}))
    assert not torch.equal(shifted[3][0], still[3][0])
    assert PillowFaces(drawn.val, spec_of().recipe.model, OFF)[0][0].shape == (1, 16, 16)


@pytest.mark.parametrize("ema", [0.0, 0.9])
@pytest.mark.parametrize("name", ["sgd", "adamw", "muon"])
def test_every_side_trains_the_whole_network(name, ema, drawn, spec_of):
    spec = spec_of(**{"optimizer.name": name, "training.ema_decay": ema})
    ours, alone = Ours(spec, drawn, CPU), ModelAlone(spec, drawn, CPU)
    theirs = Conventional(spec, drawn, Arithmetic(CPU.device, "fp32"))
    assert ours.images_per_second(2) > 0
    for side in (alone, theirs):
        before = [p.clone() for p in side._network.parameters()]
        assert side.images_per_second(2) > 0
        assert not any(torch.equal(a, b) for a, b in zip(before, side._network.parameters(), strict=True))


def test_ours_trains_as_many_batches_as_it_is_asked_to(drawn, spec_of):
    ours = Ours(spec_of(), drawn, CPU)
    # 20 batches of 8 are more images than there are: some come again
    for batches, images in ((1, 8), (3, 24), (20, 160), (20, 160)):
        ours.images_per_second(batches)
        assert len(ours.trainer.train) == images


def test_conventional_counts_no_batch_that_was_ready_before(drawn, spec_of, monkeypatch):
    from ferbench.bench import sides

    monkeypatch.setattr(sides, "usable_cores", lambda: 1)
    theirs = Conventional(spec_of(), drawn, Arithmetic(CPU.device, "fp32"))
    steps, drawn_batches = [], []
    real, loader = theirs._step, theirs._batches
    monkeypatch.setattr(theirs, "_step", lambda images, labels: steps.append(len(images)) or real(images, labels))
    monkeypatch.setattr(theirs, "_batches", (drawn_batches.append(b) or b for b in loader))
    clock = iter([0.0, 1.0, 2.0, 5.0])
    monkeypatch.setattr(sides.time, "perf_counter", lambda: next(clock))
    # the loader's one process keeps two batches ahead, which are dropped; one is trained on before the time is taken
    assert theirs.images_per_second(3) == 3 * 8 / 3.0
    assert steps == [8, 8, 8, 8] and len(drawn_batches) == 6


def test_matrix_rate_counts_multiply_accumulates(monkeypatch):
    from ferbench.bench import sides

    clock = iter(np.arange(10.0))
    monkeypatch.setattr(sides.time, "perf_counter", lambda: next(clock))
    # three products of 2048^3 in one second
    assert matrix_rate(CPU) == pytest.approx(3 * 2048**3 / 1e9)
