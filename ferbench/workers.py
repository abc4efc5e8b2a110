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
from typing import IO, Any, Generic, Self, TypeVar

from ferbench.worker import Job

TaskT = TypeVar("TaskT")


@dataclass
class Worker(Generic[TaskT]):
    """A worker at its job."""

    task: TaskT
    """What its starter knows it by."""
    process: subprocess.Popen[bytes]
    end: ExitStack
    """Ends the process when it is closed."""
    begun: bytes = b""
    """A line whose end is still to come."""

    def tell(self, word: str) -> None:
        """Write a line to its stdin; a worker that is gone hears nothing."""
        assert self.process.stdin
        with suppress(BrokenPipeError):
            self.process.stdin.write(word.encode() + b"\n")
            self.process.stdin.flush()

    @property
    def exit_code(self) -> int:
        """Of a worker that has nothing more to tell; negative: the signal that killed it."""
        return self.process.wait()


class Workers(Generic[TaskT]):
    """The workers of one process, heard by one thread; what ends the block, Ctrl-C too, ends them on its way out."""

    def __init__(self) -> None:
        self._pipes, self._all = DefaultSelector(), ExitStack()

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

    def start(self, job: Job, log: Path | None, task: TaskT, environment: Mapping[str, str] | None = None) -> None:
        """Have a new worker do a job.

        Args:
            log: where its standard error goes; None: nowhere.
            task: what the caller knows it by.
            environment: variables beside this process's own.
        """
        end = self._all.enter_context(ExitStack())
        process, pipe = end.enter_context(worker_process(job, log, environment))
        self._pipes.register(pipe, EVENT_READ, Worker(task, process, end))

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


@contextmanager
def worker_process(
    job: Job, log: Path | None, environment: Mapping[str, str] | None = None
) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes]]]:
    """A worker at its job and the pipe with its events, one a line; it does not outlive the block."""
    # the package's own folder comes last on the path: a plain clone works, and nothing is shadowed
    root = str(Path(__file__).resolve().parents[1])
    code = f"import sys; sys.path.append({root!r}); from ferbench.worker import main; main()"
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
    with open(log or "/dev/null", "ab") as errors:  # noqa: PTH123 - one call for a path and the null device
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, **(environment or {})},
            # Ctrl-C goes to the parent alone, which then stops the worker
            start_new_session=True,
        )
        try:
            assert process.stdin and process.stdout
            # a worker that is gone before it has read its job is told by its exit code
            with suppress(BrokenPipeError):
                process.stdin.write(job.model_dump_json().encode() + b"\n")
                process.stdin.flush()
            yield process, process.stdout
        finally:
            process.kill()
            process.wait()
            # what it has not read of its job is flushed once more, in vain
            for stream in (process.stdin, process.stdout):
                if stream:
                    with suppress(BrokenPipeError):
                        stream.close()


def death(code: int) -> str:
    """How a worker ended that could not say it itself, by its exit code."""
    if code >= 0:
        return f"the worker ended with exit code {code}"
    return f"the worker was killed by signal {-code}" + (" (out of memory?)" if code == -9 else "")
