from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from multiprocessing.util import Finalize
from pathlib import Path

import pytest

from ferbench.report import together
from ferbench.report.together import done_together

forked = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux alone")


@pytest.fixture(autouse=True)
def three_cores(monkeypatch):
    monkeypatch.setattr(together, "usable_cores", lambda: 3)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 8])
def test_results_come_in_the_order_of_the_tasks(n):
    # more than a pipe holds at once
    assert done_together([partial(bytes.__mul__, b"%d" % i, 100_000) for i in range(n)]) == [
        b"%d" % i * 100_000 for i in range(n)
    ]


@forked
def test_whoever_is_free_takes_the_next(tmp_path):
    def task(i: int) -> int:
        # two are held up until all others are done, which one process is left to do
        (tmp_path / str(i)).touch()
        wait_until(lambda: i > 1 or len(list(tmp_path.iterdir())) == 9)
        return os.getpid()

    first, second, *others = done_together([partial(task, i) for i in range(9)])
    assert len({first, second, *others}) == 3 and len(set(others)) == 1


def test_an_error_is_raised_here(capfd):
    with pytest.raises(ZeroDivisionError):
        done_together([int, int, lambda: 1 // 0])
    # once, not by its process too
    assert capfd.readouterr().err == ""


@forked
def test_what_a_killed_process_leaves_is_done_here(tmp_path):
    here = os.getpid()

    def task() -> int:
        if os.getpid() != here:
            (tmp_path / "reached").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        wait_until((tmp_path / "reached").exists)
        return os.getpid()

    assert done_together([task] * 5) == [here] * 5


@forked
def test_no_process_outlives_its_parent(tmp_path):
    """The parent is killed while its helpers wait to be heard: more than a pipe holds."""
    program = (
        "import os, time\n"
        "from pathlib import Path\n"
        "from ferbench.report import together\n"
        "together.usable_cores = lambda: 3\n"
        "here = os.getpid()\n"
        "def task():\n"
        f"    (Path({str(tmp_path)!r}) / str(os.getpid())).touch()\n"
        f"    while len(list(Path({str(tmp_path)!r}).iterdir())) < 3:\n"
        "        time.sleep(0.01)\n"
        "    time.sleep(600 if os.getpid() == here else 0)\n"
        "    return b'.' * 1_000_000\n"
        "together.done_together([task] * 3)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program]) as parent:
        wait_until(lambda: len(list(tmp_path.iterdir())) == 3)
        parent.kill()
    pids = [int(p.name) for p in tmp_path.iterdir()]
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


def wait_until(comes_true):
    for _ in range(600):
        if comes_true():
            return
        time.sleep(0.05)
    raise AssertionError("it did not come true in half a minute")


def test_an_error_here_ends_the_others(tmp_path):
    here = os.getpid()

    def task() -> int:
        if os.getpid() == here:
            raise ZeroDivisionError
        time.sleep(600)
        return 0

    start = time.monotonic()
    with pytest.raises(ZeroDivisionError):
        done_together([task] * 3)
    assert time.monotonic() - start < 60


@forked
def test_fewer_processes_do_where_there_are_no_more(monkeypatch):
    made = []

    def helper(*args):
        if made:
            raise BlockingIOError
        made.append(together_helper(*args))
        return made[0]

    together_helper = together._helper
    monkeypatch.setattr(together, "_helper", helper)
    assert done_together([int] * 5) == [0] * 5
    assert not made[0][0].is_alive()


@forked
def test_helpers_end_in_silence(tmp_path, capfd):
    """Though the program answers to SIGTERM, and they take their time to end."""
    here = os.getpid()

    def task() -> None:
        if os.getpid() != here:
            Finalize(None, time.sleep, args=(600,), exitpriority=1)
        (tmp_path / str(os.getpid())).touch()
        wait_until(lambda: len(list(tmp_path.iterdir())) == 3)

    before = signal.signal(signal.SIGTERM, lambda *_: 1 // 0)
    try:
        done_together([task] * 3)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert capfd.readouterr().err == ""


@forked
def test_what_is_cut_off_is_done_here(tmp_path):
    """A helper that dies in the middle of its message."""
    here = os.getpid()

    class Deadly:
        def __reduce__(self):
            os.kill(os.getpid(), signal.SIGKILL)

    def task() -> object:
        (tmp_path / str(os.getpid())).touch()
        wait_until(lambda: len(list(tmp_path.iterdir())) == 3)
        return "done" if os.getpid() == here else Deadly()

    assert done_together([task] * 3) == ["done"] * 3
