from __future__ import annotations

from collections import OrderedDict
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ferbench.records.store import Store
from ferbench.training import checkpoint as checkpoint_module
from ferbench.training.checkpoint import Checkpoint

STATE = {
    "epoch": 3,
    "rate": 0.1,
    "nothing": None,
    "weights": OrderedDict(a=torch.arange(3.0)),
    "history": [{"loss": 1.0}],
}


@pytest.fixture
def checkpoint(tmp_path) -> Checkpoint:
    return Checkpoint(tmp_path / "run/checkpoint.pt", "key", Store(tmp_path).writing)


def test_state_comes_back(checkpoint):
    assert checkpoint.load() is None
    assert checkpoint.save(lambda: STATE)
    loaded = checkpoint.load()
    assert torch.equal(loaded["weights"].pop("a"), torch.arange(3.0))
    assert loaded == {**STATE, "weights": OrderedDict()}


def test_another_key_is_another_run(checkpoint, tmp_path):
    checkpoint.save(lambda: STATE)
    for key in ("other", "key ", ""):
        assert Checkpoint(checkpoint.path, key, Store(tmp_path).writing).load() is None


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9, 0.999])
def test_a_cut_file_is_no_checkpoint(kept, checkpoint):
    checkpoint.save(lambda: STATE)
    content = checkpoint.path.read_bytes()
    checkpoint.path.write_bytes(content[: int(kept * len(content))])
    assert checkpoint.load() is None


class Other:
    """Something that only pickle could bring back."""


@pytest.mark.parametrize("content", [[1, 2], None, {"key": "key"}, {"state": {}}, {"key": "key", "state": Other()}])
def test_other_content_is_no_checkpoint(content, checkpoint):
    checkpoint.path.parent.mkdir()
    torch.save(content, checkpoint.path)
    assert checkpoint.load() is None


def test_a_state_that_cannot_be_written_leaves_the_old_one(checkpoint, monkeypatch):
    checkpoint.save(lambda: {"epoch": 1})
    monkeypatch.setattr(checkpoint_module, "MOST_TIME_SPENT_SAVING", 1.0)

    def broken() -> dict[str, Any]:
        raise MemoryError

    with pytest.raises(MemoryError):
        checkpoint.save(broken)
    assert checkpoint.load() == {"epoch": 1}


def test_saving_takes_a_tenth_of_the_time_at_most(checkpoint, monkeypatch):
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(checkpoint_module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    asked: list[float] = []

    def state_after(seconds: float) -> dict[str, Any]:
        asked.append(clock.now)
        clock.now += seconds
        return {"at": clock.now}

    # 2 s to save, from 100 to 102: not again before 18 s more have passed
    assert checkpoint.save(lambda: state_after(2.0))
    for now, saved in [(102.0, False), (119.9, False), (120.0, True), (130.0, False)]:
        clock.now = now
        assert checkpoint.save(lambda: state_after(2.0)) == saved
    # the state is not even put together when it is not saved
    assert asked == [100.0, 120.0]
    assert checkpoint.load() == {"at": 122.0}
    # a quick save is soon allowed again: 0.1 s, so 0.9 s later
    clock.now = 140.0
    assert checkpoint.save(lambda: state_after(0.1))
    clock.now = 141.1
    assert checkpoint.save(lambda: state_after(0.1))
