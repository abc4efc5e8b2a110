"""Work that is shared among the cores of a machine."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from ferbench.environment import usable_cores

ResultT = TypeVar("ResultT")


def done_together(tasks: Sequence[Callable[[], ResultT]]) -> list[ResultT]:
    """What each task gives; on Linux every core does its share of them, in a process forked from this one.

    A share whose process does not come to its end is done here again, so that its error is raised here too.
    """
    # a process that may have no children, such as a pool's, works alone
    can_fork = sys.platform == "linux" and not multiprocessing.current_process().daemon
    n = max(1, min(usable_cores(), len(tasks))) if can_fork else 1
    shares = [tasks[i::n] for i in range(n)]
    helpers = [_helper(share) for share in shares[1:]]
    try:
        results = [[task() for task in shares[0]]]
        for share, (_, ours) in zip(shares[1:], helpers, strict=True):
            try:
                results.append(ours.recv())
            except (EOFError, OSError):
                results.append([task() for task in share])
    finally:
        for process, ours in helpers:
            ours.close()
            process.terminate()
            process.join()
    return [results[i % n][i // n] for i in range(len(tasks))]


def _helper(share: Sequence[Callable[[], Any]]) -> tuple[BaseProcess, Connection]:
    """A process at work on a share, and where its results will come from."""
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe(duplex=False)
    process = fork.Process(target=_send, args=(ours, theirs, share), daemon=True)
    process.start()
    # each end is held by one process, so that either hears of the other's death
    theirs.close()
    return process, ours


def _send(ours: Connection, theirs: Connection, share: Sequence[Callable[[], Any]]) -> None:
    ours.close()
    try:
        theirs.send([task() for task in share])
    except BaseException:
        # told where the share is done again; Ctrl-C reaches both processes
        return
