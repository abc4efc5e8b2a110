"""Optuna's samplers and pruners, as studies name them."""

from __future__ import annotations

from optuna.pruners import BasePruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler

from ferbench.records.study import StudySpec


def sampler_of(spec: StudySpec, seed: int) -> BaseSampler:
    """What proposes a study's next trial."""
    startup = spec.sampler.startup_trials
    if spec.sampler.name == "random":
        return RandomSampler(seed=seed)
    if spec.sampler.name == "gp":
        return GPSampler(seed=seed, n_startup_trials=startup)
    return TPESampler(seed=seed, n_startup_trials=startup)


def pruner_of(spec: StudySpec) -> BasePruner:
    """What ends a study's trials early."""
    if spec.pruner.name == "none" or len(spec.objectives) > 1:
        return NopPruner()
    return MedianPruner(spec.pruner.startup_trials, n_warmup_steps=round(spec.pruner.warmup * spec.epochs))
