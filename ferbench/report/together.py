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
    n = max(1, min(usable_cores(), len(tasks))) if sys.platform == "linux" else 1
    shares = [tasks[i::n] for i in range(n)]
    helpers = [_helper(share) for share in shares[1:]]
    results = [[task() for task in shares[0]]]
    for share, (process, ours) in zip(shares[1:], helpers, strict=True):
        try:
            results.append(ours.recv())
        except EOFError:
            results.append([task() for task in share])
        process.join()
    return [results[i % n][i // n] for i in range(len(tasks))]


def _helper(share: Sequence[Callable[[], Any]]) -> tuple[BaseProcess, Connection]:
    """A process at work on a share, and where its results will come from."""
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe(duplex=False)
    process = fork.Process(target=_send, args=(theirs, share), daemon=True)
    process.start()
    # the process alone holds the other end: if it dies, ours ends
    theirs.close()
    return process, ours


def _send(pipe: Connection, share: Sequence[Callable[[], Any]]) -> None:
    try:
        results = [task() for task in share]
    except BaseException:
        # told where the share is done again; Ctrl-C reaches both processes
        return
    pipe.send(results)
