"""How `ferbench report` grows with the number of runs.

`pytest tests/benchmarks/test_report_growth.py --benchmark-enable`; in a normal test run a small report is made once.
"""

from __future__ import annotations

import itertools
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from ferbench.inputs import load_recipe
from ferbench.knobs import strategy_defaults
from ferbench.recipe import Recipe
from ferbench.records.record import RunRecord
from ferbench.records.store import Store
from ferbench.report import write
from ferbench.spec import RunSpec

COMMITTED = Store(Path(__file__).parents[2] / "results")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    sizes = (1_000, 3_000, 10_000) if metafunc.config.getoption("benchmark_enable") else (200,)
    metafunc.parametrize("n", sizes)


def grid() -> Iterator[tuple[Recipe, int]]:
    """Every model with every strategy and five seeds."""
    for model in itertools.count():
        for strategy in strategy_defaults():
            recipe = load_recipe(f"timm:net_{model}", strategy=strategy)
            yield from ((recipe, seed) for seed in range(5))


def study() -> Iterator[tuple[Recipe, int]]:
    """One model with a recipe for each run."""
    recipe = load_recipe("plain_cnn")
    for i in itertools.count():
        changes = {"lr": 0.01 + i * 1e-6, "momentum": (i * 7919 % 1000) / 1000}
        yield recipe.model_copy(update={"optimizer": recipe.optimizer.model_copy(update=changes)}), 0


def perturbed(base: RunRecord, recipe: Recipe, seed: int, by: float) -> RunRecord:
    """An invented run, as large as a real one."""
    spec = RunSpec(recipe=recipe, seed=seed, budget=base.spec.budget, data=base.spec.data)
    test = base.scores["test"]
    values = {name: value + by for name, value in test.values.items()}
    scores = {**base.scores, "test": test.model_copy(update={"values": values})}
    return base.model_copy(update={"id": spec.id, "spec": spec, "scores": scores, "source_finished_at": None})


@pytest.mark.benchmark(group="report of n runs")
@pytest.mark.parametrize("runs", [grid, study])
def test_report(benchmark, runs, n, tmp_path):
    draw, store = random.Random(0), Store(tmp_path)
    bases = [r for r in COMMITTED.records() if r.status == "ok"]
    for (recipe, seed), base in zip(itertools.islice(runs(), n), itertools.cycle(bases), strict=False):
        record = perturbed(base, recipe, seed, draw.gauss(0, 0.03))
        folder = store.folder(record.spec)
        folder.mkdir(parents=True)
        # without the wait for the disk of Store.write_record
        (folder / "record.json").write_text(record.model_dump_json(indent=1))
    benchmark.pedantic(write, args=(store,), rounds=3)
    table = pd.read_csv(tmp_path / "leaderboard.csv")
    assert table["n_seeds"].sum() == n
    # pytest would keep three sessions' tens of thousands of files
    shutil.rmtree(tmp_path)
