"""The stored schema of a data set under a protocol: what a table of results must know of its images."""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel, ConfigDict

from ferbench.evaluation.metrics import Scores, clean_scores, score
from ferbench.evaluation.predictions import Predictions
from ferbench.spec import DataKey


class DataFacts(BaseModel):
    """What is known of the images of a track; no pixel is in it."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, use_attribute_docstrings=True)

    data: DataKey
    counts: dict[str, dict[str, int]]
    """Split -> class -> images, before a budget takes its share."""
    test_twins: list[int]
    """Which test images, by their number in the ids, have a pixel-identical twin in train or val."""


def scores_with_clean(splits: list[Predictions], facts: DataFacts | None) -> dict[str, Scores]:
    """Scores by split, and as "clean" those of the test images without a twin, as far as facts tell them apart.

    Args:
        splits: predictions.
        facts: of their data set; None: not known.
    """
    scores = {p.split: score(p) for p in splits}
    test = next((p for p in splits if p.split == "test"), None)
    if facts and test:
        scores |= clean_scores(test, ~np.isin(np.arange(len(test)), facts.test_twins))
    return scores
