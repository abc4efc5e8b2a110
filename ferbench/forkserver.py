"""A process that has imported torch and forks workers, so that only the first of them waits for the imports.

They take some five seconds of a CPU core, longer than a short trial trains on a GPU. Unlike multiprocessing's, this
server never imports the caller's main module: `ferbench.run` may stand in a script without a guard.
"""

from __future__ import annotations

import io
import os
import select
import signal
import socket
import subprocess
import sys
import traceback
from array import array
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, NoReturn

_UNKNOWN = -(2**31)
"""In place of a number that has not been told."""


def python(function: str) -> list[str]:
    """A command line that calls a function of ours, `module.function`, in a process of its own."""
    # this very package, wherever the process would find another, and nothing of the current folder (-P)
    own, (module, name) = str(Path(__file__).with_name("__init__.py").resolve()), function.split(".")
    package = (
        f"import sys, importlib.util as u; s = u.spec_from_file_location('ferbench', {own!r}); "
        "p = sys.modules['ferbench'] = u.module_from_spec(s); s.loader.exec_module(p)"
    )
    return [sys.executable, "-P", "-c", f"{package}; from ferbench.{module} import {name}; {name}()"]


class Forked:
    """A forked worker; as much of `subprocess.Popen` as its starter needs."""

    def __init__(self, stdin: IO[bytes], stdout: IO[bytes], status: io.FileIO, server: ForkServer) -> None:
        self.stdin, self.stdout = stdin, stdout
        self._status, self._server = status, server
        # the server writes both; Ctrl-C must not come between a number's being read and its being kept
        self._pid, self._code = array("i", [_UNKNOWN]), array("i", [_UNKNOWN])

    def kill(self) -> None:
        """End it at once, if it has not ended."""
        if self._code[0] != _UNKNOWN:
            return
        if not self._server.is_ready:
            # nobody is forked yet, and nobody will be
            self._server.kill()
        # what can be read after the process's id is its end
        if self._is_told(self._pid) and not _is_readable(self._status):
            with suppress(ProcessLookupError):
                os.kill(self._pid[0], signal.SIGKILL)

    def wait(self) -> int:
        """Its exit code once it has ended; negative: the signal that killed it."""
        if not self._is_told(self._pid):
            self._code[0] = self._server.wait()
        elif not self._is_told(self._code):
            # the server was killed
            _wait_for(self._pid[0])
            self._code[0] = -signal.SIGKILL
        self._status.close()
        return self._code[0]

    def _is_told(self, number: array[int]) -> bool:
        if number[0] == _UNKNOWN and not self._status.closed:
            self._status.readinto(number)
        return number[0] != _UNKNOWN


def _is_readable(file: io.FileIO | socket.socket) -> bool:
    # select refuses file descriptors over 1,024
    poll = select.poll()
    poll.register(file, select.POLLIN)
    return any(event & select.POLLIN for _, event in poll.poll(0))


def _wait_for(pid: int) -> None:
    """Wait until a process that is not this one's child has ended."""
    # it is gone, or the kernel is too old to tell
    with suppress(OSError), open(os.pidfd_open(pid), "rb") as process:  # noqa: PTH123 - no path
        select.select([process], [], [])


class ForkServer:
    """The process that forks; it ends with this one, its workers by what they hear on stdin.

    Args:
        environment: of the workers.
        errors: where it writes what goes wrong before it can fork.
    """

    def __init__(self, environment: Mapping[str, str], errors: IO[bytes]) -> None:
        self._line, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its:
            self._process = subprocess.Popen(
                python("forkserver.serve"),
                stdin=its.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env=environment,
                # Ctrl-C goes to the parent alone, which then stops the workers
                start_new_session=True,
            )

    @property
    def is_gone(self) -> bool:
        """Whether it has ended."""
        return self._process.poll() is not None

    @property
    def is_ready(self) -> bool:
        """Whether it is past its imports."""
        return _is_readable(self._line)

    def fork(self, errors: IO[bytes]) -> Forked:
        """A new worker, whose standard error is `errors`; if the server is gone, one that has ended."""
        (its_in, our_out), (our_in, its_out), (status, its_status) = _pipe(), _pipe(), _pipe()
        with its_in, its_out, its_status, suppress(BrokenPipeError, ConnectionResetError):
            ends = [its_in, its_out, errors, its_status]
            socket.send_fds(self._line, [b"fork"], [end.fileno() for end in ends])
        return Forked(our_out, our_in, status, self)

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    def wait(self) -> int:
        """Its exit code once it has ended."""
        return self._process.wait()

    def close(self) -> None:
        """End it; what it forked goes on."""
        self._line.close()
        self.kill()
        self.wait()


def _pipe() -> tuple[io.FileIO, io.FileIO]:
    reader, writer = os.pipe()
    return io.FileIO(reader, "r"), io.FileIO(writer, "w")


def serve() -> NoReturn:
    """Fork a worker for each message on the socket that is stdin, and tell how each ended; ends with the parent."""
    from ferbench.worker import prepare

    # what cannot be imported fails again in each worker, and is in its log
    with suppress(Exception):
        prepare()
    line = socket.socket(fileno=os.dup(0))
    # it stays unread
    line.send(b"ready")
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    awake, alarm = os.pipe()
    os.set_blocking(alarm, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(alarm)
    at_work: dict[int, int] = {}
    while True:
        ready = select.select([line.fileno(), awake], [], [])[0]
        if awake in ready:
            os.read(awake, 1 << 12)
            while at_work and (ended := os.waitpid(-1, os.WNOHANG))[0]:
                _tell(at_work.pop(ended[0]), os.waitstatus_to_exitcode(ended[1]), last=True)
        if line.fileno() in ready:
            _, fds, *_ = socket.recv_fds(line, 16, 4)
            if len(fds) < 4:
                # the parent is gone, or too many files are open
                os._exit(1 if fds else 0)
            *streams, status = fds
            pid = os.fork()
            if pid == 0:
                _work(streams, [line.fileno(), awake, alarm, status, *at_work.values()])
            for stream in streams:
                os.close(stream)
            at_work[pid] = status
            _tell(status, pid)


def _work(streams: list[int], foreign: list[int]) -> NoReturn:
    """Be a worker: stdin, stdout and stderr are `streams`; what is the server's is closed."""
    from ferbench.worker import main

    try:
        # a session is what the system shares the CPU out to
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for own, stream in enumerate(streams):
            os.dup2(stream, own)
        for end in (*streams, *foreign):
            os.close(end)
        main()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(1)


def _tell(status: int, number: int, *, last: bool = False) -> None:
    # the parent may be gone
    with suppress(BrokenPipeError):
        os.write(status, array("i", [number]))
    if last:
        os.close(status)
