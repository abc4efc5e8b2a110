"""Worker processes at work side by side, and what they tell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from selectors import EVENT_READ, DefaultSelector
from types import TracebackType
from typing import IO, Any, Generic, Protocol, Self, TypeVar, cast

from ferbench.errors import InputError
from ferbench.forkserver import Forked, ForkServer, python
from ferbench.worker import Job

TaskT = TypeVar("TaskT")

FORKS = sys.platform == "linux"
"""Whether workers are forked; elsewhere a process with threads in system libraries can't be forked safely."""


class Process(Protocol):
    """A worker's process."""

    stdin: IO[bytes]
    stdout: IO[bytes]

    def kill(self) -> object:
        """End it at once, if it has not ended."""

    def wait(self) -> int:
        """Its exit code once it has ended; negative: the signal that killed it."""


@dataclass
class Worker(Generic[TaskT]):
    """A worker at its job."""

    task: TaskT
    """What its starter knows it by."""
    process: Process
    end: ExitStack
    """Ends the process when it is closed."""
    begun: bytes = b""
    """A line whose end is still to come."""

    def tell(self, word: str) -> None:
        """Write a line to its stdin; a worker that is gone hears nothing."""
        with suppress(BrokenPipeError):
            self.process.stdin.write(word.encode() + b"\n")
            self.process.stdin.flush()

    @property
    def exit_code(self) -> int:
        """Of a worker that has nothing more to tell; negative: the signal that killed it."""
        return self.process.wait()


class Workers(Generic[TaskT]):
    """The workers of one process, heard by one thread; what ends the block, Ctrl-C too, ends them on its way out.

    Args:
        environment: variables of theirs beside this process's own.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._pipes, self._all = DefaultSelector(), ExitStack()
        self._environment = {**os.environ, **(environment or {})}
        self._server: ForkServer | None = None
        # after the workers, of whose ends it tells
        self._all.callback(self._close_server)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._all.close()
        self._pipes.close()

    @property
    def at_work(self) -> list[TaskT]:
        """The tasks of those that have not ended."""
        return [key.data.task for key in self._pipes.get_map().values()]

    def start(self, job: Job, log: Path | None, task: TaskT) -> None:
        """Have a new worker do a job.

        Args:
            log: where its standard error goes; None: nowhere.
            task: what the caller knows it by.
        """
        end = self._all.enter_context(ExitStack())
        process = end.enter_context(self._process(log))
        worker = Worker(task, process, end)
        self._pipes.register(process.stdout, EVENT_READ, worker)
        # one that is gone before it has read its job is told by its exit code
        worker.tell(job.model_dump_json())

    def probe(self, job: Job, log: Path | None = None) -> None:
        """Have what a job computes in timed while no other is at work: beside them the wrong one may win.

        Args:
            log: as in `start`.

        Raises:
            InputError: the device is not there.
        """
        # nobody hears of it but the loop below
        self.start(job.model_copy(update={"task": "probe"}), log, cast(TaskT, None))
        while self.at_work:
            for _, event in self.hear():
                if event is not None and event["event"] == "refused":
                    raise InputError(event["reason"])

    @contextmanager
    def _process(self, log: Path | None) -> Iterator[Process]:
        """A worker that waits for its job; it does not outlive the block."""
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)
        with open(log or "/dev/null", "ab") as errors:  # noqa: PTH123 - one call for a path and the null device
            process = self._fork(errors) if FORKS else _spawn(self._environment, errors)
        try:
            yield process
        finally:
            process.kill()
            process.wait()
            # what it has not read of its job is flushed once more, in vain
            for stream in (process.stdin, process.stdout):
                with suppress(BrokenPipeError):
                    stream.close()

    def _fork(self, errors: IO[bytes]) -> Forked:
        if self._server is None or self._server.is_gone:
            self._close_server()
            self._server = ForkServer(self._environment, errors)
        return self._server.fork(errors)

    def _close_server(self) -> None:
        if self._server is not None:
            self._server.close()

    def hear(self, timeout: float | None = None) -> Iterator[tuple[Worker[TaskT], dict[str, Any] | None]]:
        """Wait until workers say something or end, and yield each event; None when a worker has ended.

        Args:
            timeout: seconds after which there need be none.
        """
        for key, _ in self._pipes.select(timeout):
            worker, heard = key.data, os.read(key.fd, 1 << 16)
            *lines, worker.begun = (worker.begun + heard).split(b"\n")
            for line in lines:
                yield worker, json.loads(line)
            if not heard:
                self._pipes.unregister(key.fileobj)
                worker.process.wait()
                yield worker, None
                worker.end.close()


def _spawn(environment: Mapping[str, str], errors: IO[bytes]) -> Process:
    process = subprocess.Popen(
        python("worker.main"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        env=environment,
        # Ctrl-C goes to the parent alone, which then stops the worker
        start_new_session=True,
    )
    return cast(Process, process)


def death(code: int) -> str:
    """How a worker ended that could not say it itself, by its exit code."""
    if code >= 0:
        return f"the worker ended with exit code {code}"
    return f"the worker was killed by signal {-code}" + (" (out of memory?)" if code == -9 else "")
