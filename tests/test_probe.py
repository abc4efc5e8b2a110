from __future__ import annotations

import json

import pytest
import torch

from ferbench import environment, probe
from ferbench.data.cache import cache_folder
from ferbench.environment import Arithmetic
from ferbench.inputs import load_budget, load_recipe
from ferbench.probe import choose_arithmetic
from ferbench.spec import DataKey, RunSpec

CPU = torch.device("cpu")


def spec_of(**overrides: object) -> RunSpec:
    recipe = load_recipe("plain_cnn", overrides={"model.input_size": 16, **overrides})
    key = DataKey(name="faces", fingerprint="f00d", protocol="official")
    return RunSpec(recipe=recipe, seed=0, budget=load_budget("quick"), data=key)


@pytest.fixture
def bf16(monkeypatch):
    monkeypatch.setattr(environment, "_cpu_has_bf16", lambda: True)


@pytest.fixture
def seconds(monkeypatch, tmp_path):
    """Lets the test say how long a step of each candidate takes; the names asked for are returned."""
    monkeypatch.setenv("FERBENCH_CACHE", str(tmp_path))
    asked: list[str] = []

    def script(table: dict[str, list[float]]) -> list[str]:
        def step(network: object, images: torch.Tensor, arithmetic: Arithmetic) -> float:
            asked.append(str(arithmetic))
            return table[str(arithmetic)][asked.count(str(arithmetic)) - 1]

        monkeypatch.setattr(probe, "_seconds", step)
        return asked

    return script


NAMES = ["bf16 channels_last", "bf16 contiguous", "fp32 channels_last", "fp32 contiguous"]


def test_fastest_of_what_the_device_has_is_taken(seconds, bf16):
    # the first step of each warms up; of the others the median counts, so one hiccup does no harm, up or down
    asked = seconds(dict(zip(NAMES, ([9, 2, 2, 2], [9, 2, 2, 2], [9, 1, 8, 1], [1, 4, 4, 0.1]), strict=True)))
    choice = choose_arithmetic(spec_of(), 7, CPU)
    assert (choice.arithmetic.name, choice.arithmetic.channels_last) == ("fp32", True)
    assert asked == NAMES * 4
    # 32 images in a step of a second
    assert choice.images_per_second == dict(zip(NAMES, (16.0, 16.0, 32.0, 8.0), strict=True))


def test_what_has_no_room_is_not_taken_and_asked_again(monkeypatch, tmp_path, bf16):
    monkeypatch.setenv("FERBENCH_CACHE", str(tmp_path))
    full = True

    def step(network: object, images: torch.Tensor, arithmetic: Arithmetic) -> float:
        if full:
            raise torch.OutOfMemoryError
        return 1.0

    monkeypatch.setattr(probe, "_seconds", step)
    assert set(choose_arithmetic(spec_of(), 7, CPU).images_per_second.values()) == {0.0}
    full = False
    assert set(choose_arithmetic(spec_of(), 7, CPU).images_per_second.values()) == {32.0}


def test_large_batches_are_timed_by_a_part_of_them(seconds, bf16):
    seconds({name: [2.0] * 4 for name in NAMES})
    spec = spec_of(**{"training.batch_size": 256}).model_copy(update={"budget": load_budget("full")})
    choice = choose_arithmetic(spec, 7, CPU)
    assert set(choice.images_per_second.values()) == {probe.CPU_BATCH / 2}


@pytest.mark.parametrize(("step", "rounds"), [(1.0, 3), (0.125, 8), (0.01, probe.MOST_ROUNDS)])
def test_short_steps_are_timed_more_often(step, rounds, seconds, bf16):
    asked = seconds({name: [step] * 99 for name in NAMES})
    choose_arithmetic(spec_of(), 7, CPU)
    assert len(asked) == 4 * (1 + rounds)


@pytest.mark.parametrize(("later", "taken"), [(0.98, True), (0.95, False)])
def test_a_difference_within_the_noise_changes_nothing(later, taken, seconds, monkeypatch):
    monkeypatch.setattr(environment, "_cpu_has_bf16", lambda: False)
    seconds({"fp32 channels_last": [1.0] * 4, "fp32 contiguous": [later] * 4})
    assert choose_arithmetic(spec_of(), 7, CPU).arithmetic.channels_last is taken


def test_machine_is_asked_once_for_each_network_and_batch(seconds, bf16):
    asked = seconds({name: [1.0] * 99 for name in NAMES})
    first = choose_arithmetic(spec_of(), 7, CPU)
    assert choose_arithmetic(spec_of(**{"optimizer.lr": 0.5}), 7, CPU) == first
    assert len(asked) == 16
    choose_arithmetic(spec_of(**{"model.input_size": 32}), 7, CPU)
    assert len(asked) == 32
    for file in (cache_folder() / "probes").iterdir():
        file.write_text("{", encoding="ascii")
    assert choose_arithmetic(spec_of(), 7, CPU) == first
    assert len(asked) == 48


def test_stored_measurement_of_other_candidates_is_not_used(seconds, bf16):
    asked = seconds({name: [1.0] * 99 for name in NAMES})
    choose_arithmetic(spec_of(), 7, CPU)
    (file,) = (cache_folder() / "probes").iterdir()
    file.write_text(json.dumps({NAMES[0]: 1.0}), encoding="ascii")
    choose_arithmetic(spec_of(), 7, CPU)
    assert len(asked) == 32


@pytest.mark.parametrize(
    ("precision", "order", "expected"),
    [
        ("fp32", True, ["fp32 channels_last"]),
        ("fp16", False, ["fp16 contiguous"]),
        ("auto", True, ["bf16 channels_last", "fp32 channels_last"]),
        ("bf16", "auto", ["bf16 channels_last", "bf16 contiguous"]),
    ],
)
def test_recipe_fixes_what_it_names(precision, order, expected, seconds, bf16):
    asked = seconds({name: [1.0] * 4 for name in NAMES})
    spec = spec_of(**{"training.precision.cpu": precision, "training.channels_last": order})
    choice = choose_arithmetic(spec, 7, CPU)
    assert str(choice.arithmetic) == expected[0]
    assert sorted(set(asked)) == (sorted(expected) if len(expected) > 1 else [])
    assert list(choice.images_per_second) == (expected if len(expected) > 1 else [])


def test_without_bf16_it_is_no_candidate(seconds, monkeypatch):
    monkeypatch.setattr(environment, "_cpu_has_bf16", lambda: False)
    seconds({name: [1.0] * 4 for name in NAMES})
    assert list(choose_arithmetic(spec_of(), 7, CPU).images_per_second) == NAMES[2:]


def test_real_steps_are_timed_and_said(monkeypatch, tmp_path):
    monkeypatch.setenv("FERBENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(environment, "_cpu_has_bf16", lambda: False)
    choice = choose_arithmetic(spec_of(), 7, CPU)
    assert all(rate > 0 for rate in choice.images_per_second.values())
    assert "probe, images/s: fp32 channels_last" in str(choice)
