"""A process that has imported torch and forks workers, so that only the first of them waits for the imports.

They take some five seconds of a CPU core, longer than a short trial trains on a GPU. Unlike multiprocessing's, this
server never imports the caller's main module: `ferbench.run` may stand in a script without a guard.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
import subprocess
import sys
import traceback
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, NoReturn

_INT = struct.Struct("i")


def python(function: str) -> list[str]:
    """A command line that calls a function of ours, `module.function`, in a process of its own."""
    # the package's own folder comes last on the path: a plain clone works, and nothing is shadowed
    root, (module, name) = str(Path(__file__).resolve().parents[1]), function.split(".")
    path = f"import sys; sys.path.append({root!r})"
    return [sys.executable, "-c", f"{path}; from ferbench.{module} import {name}; {name}()"]


class Forked:
    """A forked worker; as much of `subprocess.Popen` as its starter needs."""

    def __init__(self, stdin: IO[bytes], stdout: IO[bytes], status: IO[bytes], server: ForkServer) -> None:
        self.stdin, self.stdout = stdin, stdout
        # the server writes the process's id to it, later its exit code
        self._status, self._server = status, server
        self._pid: int | None = None
        self._code: int | None = None

    def kill(self) -> None:
        """End it at once, if it has not ended."""
        if self._code is not None:
            return
        if self._pid is None and not select.select([self._status], [], [], 0)[0]:
            # the server is still at its imports
            self._server.kill()
        elif self._knows_pid():
            assert self._pid
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)

    def wait(self) -> int:
        """Its exit code once it has ended; negative: the signal that killed it."""
        if self._code is None:
            # without a server that could tell, what ended the server is the best guess
            code = self._read() if self._knows_pid() else None
            self._code = self._server.wait() if code is None else code
            self._status.close()
        return self._code

    def _knows_pid(self) -> bool:
        self._pid = self._pid or self._read()
        return self._pid is not None

    def _read(self) -> int | None:
        said = self._status.read(_INT.size)
        return _INT.unpack(said)[0] if said else None


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

    def fork(self, errors: IO[bytes]) -> Forked:
        """A new worker, whose standard error is `errors`; if the server is gone, one that has ended."""
        (its_in, our_out), (our_in, its_out), (status, its_status) = os.pipe(), os.pipe(), os.pipe()
        with suppress(BrokenPipeError, ConnectionResetError):
            socket.send_fds(self._line, [b"fork"], [its_in, its_out, errors.fileno(), its_status])
        for end in (its_in, its_out, its_status):
            os.close(end)
        return Forked(os.fdopen(our_out, "wb"), os.fdopen(our_in, "rb"), os.fdopen(status, "rb", buffering=0), self)

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


def serve() -> NoReturn:
    """Fork a worker for each message on the socket that is stdin, and tell how each ended; ends with the parent."""
    from ferbench.worker import prepare

    prepare()
    line = socket.socket(fileno=os.dup(0))
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
            if not fds:
                os._exit(0)
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
        os.write(status, _INT.pack(number))
    if last:
        os.close(status)
