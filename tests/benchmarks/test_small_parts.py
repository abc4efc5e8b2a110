"""Timings of the small parts: `tox -e bench`. In a normal test run each is called once, and nothing is timed."""

from __future__ import annotations

import numpy as np
import pytest

GROUP_AUGMENT = "augment 128 faces"


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.Generator(np.random.PCG64(0)).integers(0, 256, (128, 48, 48), dtype=np.uint8)


@pytest.mark.benchmark(group=GROUP_AUGMENT)
def test_batched_augmentation(benchmark, images):
    import torch

    from ferbench.inputs import load_recipe
    from ferbench.training.augment import augmented

    batch = torch.from_numpy(images)[:, None].float().div(255)
    generator = torch.Generator().manual_seed(0)
    result = benchmark(augmented, batch, 48, load_recipe("plain_cnn").augment, generator)
    assert result.shape == (128, 1, 48, 48)


@pytest.mark.benchmark(group=GROUP_AUGMENT)
def test_conventional_augmentation(benchmark, images):
    """The same changes image by image with torchvision and Pillow, as trainers commonly do."""
    import torch
    from PIL import Image
    from torchvision import transforms as t

    pipeline = t.Compose(
        [
            t.RandomHorizontalFlip(),
            t.RandomAffine(12, translate=(0.1, 0.1), scale=(0.9, 1.12)),
            t.ColorJitter(0.1, 0.2),
            t.ToTensor(),
            t.RandomErasing(0.25, scale=(0.02, 0.15)),
        ]
    )
    pictures = [Image.fromarray(i) for i in images]
    result = benchmark(lambda: torch.stack([pipeline(p) for p in pictures]))
    assert result.shape == (128, 1, 48, 48)


def test_scores_of_3589_predictions(benchmark):
    from ferbench.evaluation.metrics import score
    from ferbench.evaluation.predictions import predictions_of

    random = np.random.Generator(np.random.PCG64(0))
    labels = random.integers(0, 7, 3589).astype(np.uint8)
    predictions = predictions_of(
        "test", "abcdefg", [str(i) for i in range(3589)], labels, random.normal(size=(3589, 7))
    )
    assert benchmark(score, predictions).n == 3589


def test_cached_data_set(benchmark):
    from ferbench.data import load

    load("synthetic")
    assert len(benchmark(load, "synthetic").train) == 2400
