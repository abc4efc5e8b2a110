from __future__ import annotations

import os
import signal
import sys
from functools import partial

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
