"""What is measured apart has a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from multiprocessing import get_context, get_start_method
from pathlib import Path

import pytest

from ferbench.bench.apart import apart
from ferbench.errors import RunFailedError
from ferbench.workers import FORKS

pytestmark = pytest.mark.usefixtures("tests_found_in_processes")


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


class Long:
    """Takes a minute to make, or to use, and has the user's Ctrl-C pressed meanwhile."""

    def __init__(self, user: int, *, is_made_long: bool) -> None:
        self._user = user
        if is_made_long:
            self.use()

    def use(self) -> None:
        os.kill(self._user, signal.SIGINT)
        time.sleep(60)


def has_ended(pid: int, seconds: float = 20.0) -> bool:
    """Whether a process ends in that time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not Path(f"/proc/{pid}").exists():
            return True
        time.sleep(0.05)
    return False


def test_object_lives_in_one_process_until_the_end_of_the_block():
    with apart(Counter, 3) as ask, apart(Counter, 5) as other:
        assert [ask("add", 2), ask("add", 2)] == [5, 7]
        pid, has_torch = ask("where")
        assert pid not in (os.getpid(), other("where")[0])
        assert has_torch == FORKS
        # its loaders start their processes as they do here
        assert ask("starts") == get_start_method()
    assert has_ended(pid)


def test_fresh_process_has_imported_nothing():
    with apart(Counter, 0, context=get_context("spawn")) as ask:
        assert not ask("where")[1]


def test_what_goes_wrong_there_is_raised_here():
    with pytest.raises(ValueError, match="invalid literal"), apart(Counter, "x"):
        pass
    with apart(Counter, 0) as ask:
        with pytest.raises(TypeError):
            ask("add", "x")
        assert ask("add", 1) == 1
        for _ in range(2):
            with pytest.raises(RunFailedError, match=r"^the process was killed \(out of memory\?\)$"):
                ask("die")


@pytest.mark.parametrize("is_made_long", [True, False])
def test_interrupt_does_not_wait_for_what_the_process_is_at(is_made_long):
    start = time.monotonic()
    # what is started in the background may ignore Ctrl-C
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), apart(partial(Long, is_made_long=is_made_long), os.getpid()) as ask:
            ask("use")
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - start < 50


def test_process_ends_with_its_parent(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(
        "import sys, time\n"
        "sys.path.append(sys.argv[1])\n"
        "from ferbench.bench.apart import apart\n"
        "from tests.bench.test_apart import Counter\n"
        "if __name__ == '__main__':\n"
        "    with apart(Counter, 0) as ask:\n"
        "        print(ask('where')[0], flush=True)\n"
        "        time.sleep(300)\n"
    )
    command = [sys.executable, script, Path(__file__).parents[2]]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        pid = int(parent.stdout.readline())
        assert not has_ended(pid, 0.5)
        parent.kill()
    assert has_ended(pid)
