from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ferbench.data.dataset import Split
from ferbench.environment import Arithmetic
from ferbench.inputs import load_recipe
from ferbench.recipe import AugmentRecipe
from ferbench.training import batches as batches_module
from ferbench.training.augment import augmented
from ferbench.training.batches import Batches
from ferbench.training.treatment import Pasting

OFF = AugmentRecipe.model_validate(dict.fromkeys(AugmentRecipe.model_fields, 0.0))


def split_of(n: int, side: int = 16, votes: np.ndarray | None = None) -> Split:
    images = np.random.default_rng(0).integers(0, 256, (n, side, side)).astype(np.uint8)
    return Split(images, (np.arange(n) % 4).astype(np.uint8), ("",) * n, votes)


def batches_of(split: Split, batch_size: int = 0, channels_last: bool = True, **overrides: object) -> Batches:
    recipe = load_recipe("plain_cnn", overrides={"model.input_size": 16, "training.batch_size": 16, **overrides})
    return Batches.of(
        split, 4, recipe.model, recipe.training, Arithmetic(torch.device("cpu"), "fp32", channels_last), batch_size
    )


def test_targets_are_smoothed():
    batches = batches_of(split_of(4), label_smoothing=0.2)
    expected = torch.full((4, 4), 0.05) + 0.8 * torch.eye(4)
    torch.testing.assert_close(batches.targets, expected)


def test_votes_are_the_targets_where_there_are_some():
    votes = np.array([[0.5, 0.5, 0, 0], [0, 0, 0.1, 0.9]], np.float32)
    batches = batches_of(split_of(2, votes=votes), label_smoothing=0.1)
    expected = torch.tensor([[0.475, 0.475, 0.025, 0.025], [0.025, 0.025, 0.115, 0.835]])
    torch.testing.assert_close(batches.targets, expected)


def test_batch_size_is_the_recipes_unless_told():
    assert batches_of(split_of(4)).batch_size == 16
    assert batches_of(split_of(4), 3).batch_size == 3


@pytest.mark.parametrize(("images", "batches"), [(16, 1), (17, 1), (18, 2), (32, 2), (33, 2), (34, 3), (2, 1)])
def test_a_last_batch_of_one_image_does_not_count(images, batches):
    assert batches_of(split_of(images)).n_train_batches == batches


def test_evaluation_gives_every_image_once_in_order():
    split = split_of(37)
    batches = batches_of(split, **{"model.mean": 0.5, "model.std": 0.25})
    inputs = list(batches.evaluation(16))
    assert [len(b) for b in inputs] == [16, 16, 5]
    expected = (torch.from_numpy(split.images)[:, None] / 255 - 0.5) / 0.25
    torch.testing.assert_close(torch.cat(inputs), expected)
    assert batches.images.dtype == torch.uint8


def test_evaluation_resizes():
    split = split_of(3, side=24)
    (inputs,) = batches_of(split, **{"model.mean": 0.0, "model.std": 1.0}).evaluation(16)
    whole = torch.from_numpy(split.images)[:, None] / 255
    torch.testing.assert_close(inputs, F.interpolate(whole, (16, 16), mode="bilinear", align_corners=False))


def train_on(batches: Batches, order: list[int], size: int = 16, n_coins: int = 99) -> list:
    coins = [0.1] * n_coins
    return list(batches.training(torch.tensor(order), size, OFF, torch.Generator().manual_seed(0), coins))


def test_training_follows_the_order():
    split = split_of(20)
    batches = batches_of(split)
    order = np.random.default_rng(1).permutation(20)
    inputs, targets = (torch.cat(parts) for parts in zip(*train_on(batches, order.tolist()), strict=True))
    torch.testing.assert_close(targets, batches.targets[order])
    torch.testing.assert_close(inputs, torch.cat(list(batches.evaluation(16)))[order], rtol=0, atol=1e-4)


def test_a_batch_without_a_coin_is_left_out():
    assert [len(x) for x, _ in train_on(batches_of(split_of(17)), list(range(17)), n_coins=1)] == [16]


def test_training_size_may_be_another():
    assert [x.shape[2:] for x, _ in train_on(batches_of(split_of(4)), [0, 1, 2, 3], size=8)] == [(8, 8)]


@pytest.mark.parametrize(
    ("at_once", "together"),
    [(0, [16] * 4 + [11]), (2 * 16 * 16**2 - 1, [16] * 4 + [11]), (3 * 16 * 16**2, [48, 27]), (2**20, [75])],
)
def test_batches_augmented_together_are_those_of_one_by_one(at_once, together, monkeypatch):
    order = np.random.default_rng(1).permutation(75).tolist()
    alone = batches_of(split_of(75))
    seen = []
    monkeypatch.setattr(
        batches_module, "augmented", lambda images, *rest: seen.append(len(images)) or augmented(images, *rest)
    )
    given = train_on(dataclasses.replace(alone, augmented_at_once=at_once), order)
    assert seen == together
    assert [len(x) for x, _ in given] == [16, 16, 16, 16, 11]
    for (inputs, targets), (expected, labels) in zip(given, train_on(alone, order), strict=True):
        assert torch.equal(inputs, expected)
        assert torch.equal(targets, labels)


def test_a_batch_without_a_coin_is_not_augmented():
    """Or a training would draw other numbers than before from then on."""
    states = []
    for images in (16, 17):
        generator = torch.Generator().manual_seed(0)
        some = OFF.model_copy(update={"shift": 0.1})
        list(batches_of(split_of(images)).training(torch.arange(images), 16, some, generator, [0.1]))
        states.append(generator.get_state())
    assert torch.equal(*states)


def test_images_of_batches_augmented_together_are_mixed_with_their_own_batch():
    """Each batch is of one class, so a mixture with another batch would show in the targets."""
    split = split_of(64)
    order = torch.from_numpy(np.argsort(split.labels, kind="stable"))
    mixup = OFF.model_copy(update={"mixup": 1.0})
    batches = dataclasses.replace(batches_of(split), augmented_at_once=2**20)
    given = list(batches.training(order, 16, mixup, torch.Generator().manual_seed(0), [0.1] * 4))
    for label, (_, targets) in enumerate(given):
        assert (targets.argmax(1) == label).all()
        torch.testing.assert_close(targets, batches.targets[order[label * 16]].expand(16, 4))


def test_patches_come_from_the_partners_in_a_share_of_the_batches():
    split = split_of(64)
    batches, mixing = batches_of(split), Pasting(torch.ones(64), 1.0, 0.5)
    order, partners = torch.arange(64), torch.full((64,), 3)
    generator = torch.Generator().manual_seed(0)
    given = list(batches.training(order, 16, OFF, generator, [0.1, 0.9, 0.4, 0.5], mixing, partners))
    changed = [not torch.equal(targets, batches.targets[i * 16 : i * 16 + 16]) for i, (_, targets) in enumerate(given)]
    assert changed == [True, False, True, False]
    # image 3 is of class 3: what is gained is its, and what is lost the image's own
    gained = given[0][1] - batches.targets[:16]
    assert (gained[:, 3] >= -1e-6).all() and gained[:, 3].max() > 0.1


def test_other_batches_are_mixed_as_the_recipe_says():
    """The coin decides about patches first; what is left of it tells mixup from CutMix."""
    both = OFF.model_copy(update={"mixup": 1.0, "cutmix": 1.0})
    batches, mixing = batches_of(split_of(32)), Pasting(torch.ones(32), 1.0, 0.5)
    order = torch.arange(32)

    def given(coin: float, mixing: Pasting | None) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        return next(iter(batches.training(order, 16, both, generator, [coin], mixing, order)))[0]

    assert torch.equal(given(0.6, mixing), given(0.2, None))
    assert torch.equal(given(0.9, mixing), given(0.8, None))
    assert not torch.equal(given(0.6, mixing), given(0.9, mixing))
