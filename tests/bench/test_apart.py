"""What is measured apart has a process of its own."""

from __future__ import annotations

import os
import signal
import sys
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, get_start_method

import pytest

from ferbench.bench.apart import Apart
from ferbench.workers import FORKS


class Counter:
    def __init__(self, start: int) -> None:
        self.value = int(start)

    def add(self, n: int) -> int:
        self.value += n
        return self.value

    def where(self) -> tuple[int, bool]:
        return os.getpid(), "torch" in sys.modules

    def starts(self) -> str:
        return get_start_method()

    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def test_object_lives_in_one_process_until_the_end_of_the_block():
    with Apart(Counter, 3) as counter, Apart(Counter, 5) as other:
        assert [counter.ask("add", 2), counter.ask("add", 2)] == [5, 7]
        pid, has_torch = counter.ask("where")
        assert pid not in (os.getpid(), other.ask("where")[0])
        assert has_torch == FORKS
        # its loaders start their processes as they do here
        assert counter.ask("starts") == get_start_method()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_fresh_process_has_imported_nothing():
    with Apart(Counter, 0, context=get_context("spawn")) as counter:
        assert not counter.ask("where")[1]


def test_what_goes_wrong_there_is_raised_here():
    with Apart(Counter, "x") as broken, pytest.raises(ValueError, match="invalid literal"):
        broken.ask("add", 1)
    with Apart(Counter, 0) as counter:
        with pytest.raises(TypeError):
            counter.ask("add", "x")
        assert counter.ask("add", 1) == 1
        with pytest.raises(BrokenProcessPool):
            counter.ask("die")
