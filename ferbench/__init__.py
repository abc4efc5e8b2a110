"""ferbench: a benchmark suite for facial emotion recognition on FER2013 that can be believed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ferbench._version import VERSION as __version__
from ferbench.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from ferbench.records.record import RunRecord

__all__ = ["InputError", "__version__", "leaderboard", "run"]


def run(
    models: str | Sequence[str] = "all",
    *,
    data: str | Path | None = None,
    labels: str | None = None,
    imbalance: str | Sequence[str] | None = None,
    seeds: Sequence[int] = (0,),
    budget: str | None = None,
    protocol: str | None = None,
    init: str | None = None,
    tta: str | Sequence[str] = "none",
    overrides: Mapping[str, Any] | None = None,
    allow_double_correction: bool = False,
    results: str | Path = "results",
    device: str = "auto",
    jobs_per_gpu: int = 1,
    redo: bool = False,
    progress: bool = True,
) -> list[RunRecord]:
    """The records of every model x strategy x seed, old ones included; what is done is not done again.

    Args:
        models: names, globs, recipe files or "all".
        data: FER2013 in any edition or another folder of faces; None takes FERBENCH_DATA, the registered path, or the
            built-in synthetic faces.
        labels: "ferplus=FILE" or "ferplus-soft=FILE" for FER+ votes.
        imbalance: strategies, globs or "all"; None leaves each recipe's own, mostly none.
        seeds: one run each.
        budget: "full", "short", "quick" or "demo"; None is "full", or "demo" for the synthetic faces.
        protocol: how splits are made and used, as `ferbench list protocols`; None is "official", or the recipes' own.
        init: replaces the recipes' own: "scratch", "imagenet" or a weights file.
        tta: kinds of test-time augmentation ("flip", "ten-crop", "random:N"), each a run beside the one it looks with.
        allow_double_correction: whether strategies may make up twice for how frequent classes are.
        overrides: recipe fields by dotted name, such as {"optimizer.lr": 0.05}.
        results: the results folder.
        device: "auto", "cpu", "cuda" or "cuda:N".
        jobs_per_gpu: runs at once on the device: one small network rarely fills a GPU.
        redo: do again what is done.
        progress: show bars on standard error.

    Raises:
        InputError: bad usage or data, in one line. A run that fails is no error: its record says why.
    """
    from ferbench.jobs import run_many
    from ferbench.listener import Silence
    from ferbench.plan import make_plan

    plan = make_plan(
        models if isinstance(models, str) else ",".join(models),
        source=data,
        labels=labels,
        imbalance=imbalance if imbalance is None or isinstance(imbalance, str) else ",".join(imbalance),
        seeds=seeds,
        budget=budget,
        protocol=protocol,
        init=init,
        tta=tta if isinstance(tta, str) else ",".join(tta),
        overrides=dict(overrides or {}),
        allow_double_correction=allow_double_correction,
        results=results,
        device=device,
    )
    if not progress:
        return run_many(plan, Silence(), redo=redo, at_once=jobs_per_gpu)
    from ferbench.progress import Progress

    with Progress(len(plan.todo(redo=redo))) as bars:
        return run_many(plan, bars, redo=redo, at_once=jobs_per_gpu)


def leaderboard(results: str | Path = "results") -> pd.DataFrame:
    """One row for each model, strategy, init and recipe of a results folder, ranked within its track."""
    from ferbench.report.leaderboard import leaderboard as build

    return build(results)
