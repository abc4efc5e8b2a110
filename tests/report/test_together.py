from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from ferbench.report import together
from ferbench.report.together import done_together


@pytest.fixture(autouse=True)
def three_cores(monkeypatch):
    monkeypatch.setattr(together, "usable_cores", lambda: 3)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 8])
def test_results_come_in_the_order_of_the_tasks(n):
    # more than a pipe holds at once
    assert done_together([partial(bytes.__mul__, b"%d" % i, 100_000) for i in range(n)]) == [
        b"%d" % i * 100_000 for i in range(n)
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux alone")
def test_every_core_has_its_share():
    pids = done_together([os.getpid] * 6)
    assert pids[:3] == pids[3:] and len(set(pids)) == 3 and pids[0] == os.getpid()


def test_an_error_is_raised_here(capfd):
    with pytest.raises(ZeroDivisionError):
        done_together([int, int, lambda: 1 // 0])
    # once, not by its process too
    assert capfd.readouterr().err == ""


def test_what_a_killed_process_leaves_is_done_here():
    here = os.getpid()

    def task() -> int:
        if os.getpid() != here:
            os.kill(os.getpid(), signal.SIGKILL)
        return os.getpid()

    assert done_together([task] * 5) == [here] * 5


@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux alone")
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


def test_what_is_cut_off_is_done_here():
    """A helper that dies in the middle of its message."""
    here = os.getpid()

    class Deadly:
        def __reduce__(self):
            os.kill(os.getpid(), signal.SIGKILL)

    def task() -> object:
        return "done" if os.getpid() == here else Deadly()

    assert done_together([task] * 3) == ["done"] * 3
