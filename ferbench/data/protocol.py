"""Which images a run may learn from."""

from __future__ import annotations

import math

import numpy as np

from ferbench.data.dataset import Split


def training_subset(split: Split, fraction: float) -> Split:
    """A share of each class's images, at least one of each, in canonical order.

    The choice is the same for every model and seed, and a smaller share is contained in a larger one.
    """
    if fraction >= 1:
        return split
    shuffled = np.random.Generator(np.random.PCG64(0)).permutation(len(split))
    chosen = [
        members[: math.ceil(fraction * len(members))]
        for code in np.unique(split.labels)
        for members in [shuffled[split.labels[shuffled] == code]]
    ]
    return split.take(np.sort(np.concatenate(chosen)))
