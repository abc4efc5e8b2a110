"""The stored schema of a data set under a protocol: what a table of results must know of its images."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ferbench.records.stored import Stored
from ferbench.spec import DataKey


class DataFacts(Stored):
    """What is known of the images of a track; no pixel is in it."""

    data: DataKey
    counts: dict[str, dict[str, int]]
    """Split -> class -> images, before a budget takes its share."""
    test_twins: list[int]
    """Which test images, by their number in the ids, have a pixel-identical twin in train or val."""

    @property
    def is_clean(self) -> npt.NDArray[np.bool_]:
        """[N] for each test image, whether it has no twin."""
        n_test = sum(self.counts["test"].values())
        return ~np.isin(np.arange(n_test), self.test_twins)
