"""Imbalance strategies after training: a shift of the classes' log-probabilities, from stored predictions alone."""

from __future__ import annotations

import importlib
import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ferbench.data.protocol import subset_counts
from ferbench.errors import InputError
from ferbench.evaluation.metrics import compute, scores_by_split
from ferbench.evaluation.predictions import Predictions, softmax
from ferbench.records.places import PREDICTED_SPLITS
from ferbench.records.record import RunRecord, derived_record
from ferbench.records.store import Store
from ferbench.spec import RunSpec
from ferbench.training.formulas import Counts, Params, log_prior
from ferbench.training.imbalance import STRATEGIES

Shift = npt.NDArray[np.float64]
"""[K], added to log-probabilities."""

STEPS = 41
"""Values that are tried for each number, from 0 (or from -most) to the most."""


def logit_adjustment(val: Predictions, counts: Counts, params: Params) -> Shift:
    """-tau log pi (Menon et al. 2021, arXiv 2007.07314), tau with the best macro-F1 on val; of equals the smallest."""
    taus = np.linspace(0, params["most"], STEPS)
    scores = [compute(shifted(val, -tau * log_prior(counts)), "macro_f1")["macro_f1"] for tau in taus]
    return -taus[int(np.argmax(scores))] * log_prior(counts)


def class_bias(val: Predictions, counts: Counts, params: Params) -> Shift:
    """A number for each class, found one class after the other while macro-F1 on val rises."""
    bias = np.zeros(len(val.classes))
    best, before = compute(val, "macro_f1")["macro_f1"], -math.inf
    while best > before:
        before = best
        for c in range(len(bias)):
            # nearest to nothing first: of equals the smallest change
            for value in sorted(np.linspace(-params["most"], params["most"], STEPS), key=abs):
                trial = np.where(np.arange(len(bias)) == c, value, bias)
                score = compute(shifted(val, trial), "macro_f1")["macro_f1"]
                if score > best + 1e-12:
                    best, bias = score, trial
    return bias


def shifted(predictions: Predictions, shift: Shift) -> Predictions:
    """The predictions with a shift of their log-probabilities."""
    return replace(predictions, probabilities=softmax(predictions.log_probabilities + shift))


def adjust(spec: RunSpec, store: Store) -> RunRecord:
    """The stored record of a run's predictions under a strategy after training; its cost and history are that run's.

    Raises:
        InputError: the run is not done, or its predictions or the facts of its data are not there.
    """
    trained, strategy = spec.trained, STRATEGIES[spec.recipe.imbalance.strategy]
    facts = store.facts(spec.data)
    if not store.is_done(trained) or facts is None:
        raise InputError(f"{trained.id}, which {strategy.name} starts from, has not ended well")
    record = store.record(trained)
    predictions = [store.predictions(trained, split) for split in PREDICTED_SPLITS]
    counts = subset_counts(np.array(list(facts.counts["train"].values())), spec.budget.fraction)
    module, function = strategy.posthoc.split(":")
    shift = getattr(importlib.import_module(module), function)(predictions[0], counts, spec.recipe.imbalance.params)
    after = [shifted(p, shift) for p in predictions]
    told = ", ".join(f"{name} {value:+.2f}" for name, value in zip(predictions[0].classes, shift, strict=True))
    note = f"predictions of {trained.id}, log-probabilities shifted as val chose: {told}"
    adjusted = derived_record(record, spec, scores_by_split(after, facts.is_clean), note)
    store.write_run(adjusted, after)
    return adjusted
