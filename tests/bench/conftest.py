from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from ferbench.bench.training import OVERRIDES
from ferbench.data.dataset import Dataset
from ferbench.data.synthetic import generate
from ferbench.environment import Arithmetic
from ferbench.inputs import load_budget, load_recipe
from ferbench.spec import DataKey, RunSpec

CPU = Arithmetic(torch.device("cpu"), "fp32", channels_last=True)
SMALL = {
    **OVERRIDES,
    "model.input_size": 16,
    "training.batch_size": 8,
    "training.precision.cpu": "fp32",
    "training.channels_last": True,
}


@pytest.fixture(scope="session")
def drawn() -> Dataset:
    return generate(seed=5, train=70, val=35, test=21)


@pytest.fixture
def tests_found_in_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process started here can import the tests, in whatever folder; last, so that ferbench is the installed one."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(Path(__file__).parents[2])])


@pytest.fixture
def spec_of(drawn):
    def build(**overrides: Any) -> RunSpec:
        recipe = load_recipe("plain_cnn", overrides={**SMALL, **overrides})
        key = DataKey(name=drawn.name, fingerprint=drawn.fingerprint, protocol="official")
        return RunSpec(recipe=recipe, seed=0, budget=load_budget("full"), data=key)

    return build
