"""Work that is shared among the cores of a machine."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from ferbench.environment import usable_cores

ResultT = TypeVar("ResultT")

_MOST = 32_768
"""Tasks whose numbers a pipe of Linux holds while nobody reads them."""


def done_together(tasks: Sequence[Callable[[], ResultT]]) -> list[ResultT]:
    """What each task gives; on Linux every core takes the next one whenever it is free, in a process forked from this.

    What a process took that does not come to its end is done here again, so that its error is raised here too.
    """
    # a process that may have no children, such as a pool's, works alone
    can_fork = sys.platform == "linux" and not multiprocessing.current_process().daemon and len(tasks) <= _MOST
    n = min(usable_cores(), len(tasks)) if can_fork else 1
    if n < 2:
        return [task() for task in tasks]
    with _numbers(len(tasks)) as numbers:
        helpers: list[tuple[BaseProcess, Connection]] = []
        try:
            # where no more processes are to be had, fewer do
            with suppress(OSError):
                helpers += (_helper(tasks, numbers) for _ in range(n - 1))
            results = _done(tasks, numbers)
            for _, ours in helpers:
                try:
                    results |= ours.recv()
                except (EOFError, OSError):
                    continue
        finally:
            for process, ours in helpers:
                ours.close()
                # not by a signal that this program may answer
                process.kill()
                process.join()
    return [results[i] if i in results else task() for i, task in enumerate(tasks)]


@contextmanager
def _numbers(n: int) -> Iterator[int]:
    """The end of a pipe from which any process may read the number of the next task, two bytes, and then nothing."""
    # a lock would stay locked where a process is killed while it holds it
    source, sink = os.pipe()
    try:
        os.write(sink, b"".join(i.to_bytes(2) for i in range(n)))
        os.close(sink)
        yield source
    finally:
        os.close(source)


def _done(tasks: Sequence[Callable[[], ResultT]], numbers: int) -> dict[int, ResultT]:
    """Results by the numbers of the tasks that this process came to do."""
    results = {}
    while number := os.read(numbers, 2):
        i = int.from_bytes(number)
        results[i] = tasks[i]()
    return results


def _helper(tasks: Sequence[Callable[[], Any]], numbers: int) -> tuple[BaseProcess, Connection]:
    """A process at work on the tasks, and where its results will come from."""
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe(duplex=False)
    process = fork.Process(target=_send, args=(ours, theirs, tasks, numbers), daemon=True)
    process.start()
    # each end is held by one process, so that either hears of the other's death
    theirs.close()
    return process, ours


def _send(ours: Connection, theirs: Connection, tasks: Sequence[Callable[[], Any]], numbers: int) -> None:
    ours.close()
    try:
        theirs.send(_done(tasks, numbers))
    except BaseException:
        # told where its tasks are done again; Ctrl-C reaches both processes
        return
