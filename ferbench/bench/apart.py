"""Something in a process of its own, so that its speed and memory owe nothing to what else is measured."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing import get_context, parent_process, set_start_method
from multiprocessing.context import BaseContext
from typing import Any

from ferbench.errors import RunFailedError
from ferbench.workers import FORKS

Ask = Callable[..., Any]
"""Calls a method of the object, by name, with arguments; returns or raises what it does."""

_object: Any = None
"""In such a process: what it was started for."""


@contextmanager
def apart(make: Callable[..., object], *arguments: object, context: BaseContext | None = None) -> Iterator[Ask]:
    """A way to ask an object in a process of its own, which is idle unless it is asked to; it ends with the block.

    Args:
        make: makes the object there; it, its arguments, and what is asked and answered are pickled.
        context: how the process is started; by default it finds torch imported.

    Raises:
        RunFailedError: the process was killed; `Ask` raises it too.
    """
    with ProcessPoolExecutor(1, context or _with_torch(), _belong_to_parent) as pool:
        pid = _answer(pool, os.getpid)
        try:
            # before the block, whose first times would else be those of a busy machine
            _answer(pool, _make, make, arguments)
            yield lambda method, *words: _answer(pool, _ask, method, words)
        except BaseException:
            # nobody waits for what it is at
            _end(pid)
            raise


def _answer(pool: ProcessPoolExecutor, function: Callable[..., Any], *arguments: object) -> Any:
    try:
        return pool.submit(function, *arguments).result()
    except BrokenProcessPool:
        raise RunFailedError("the process was killed (out of memory?)") from None


def _with_torch() -> BaseContext:
    if not FORKS:
        return get_context("spawn")
    context = get_context("forkserver")
    # nothing of ours: it would be looked for in the current folder first
    context.set_forkserver_preload(["torch", "timm", "torchvision"])
    return context


def _belong_to_parent() -> None:
    # with the processes that it starts it is a group, which Ctrl-C does not reach; the parent hears it, and ends them
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    if parent := parent_process():
        parent.join()
    _end(os.getpid())


def _end(pid: int) -> None:
    """End such a process and those that it has started, at once."""
    with suppress(ProcessLookupError):
        if hasattr(os, "killpg"):
            os.killpg(pid, signal.SIGKILL)
        else:
            os.kill(pid, signal.SIGTERM)


def _make(make: Callable[..., object], arguments: tuple[object, ...]) -> None:
    global _object
    # a loader's own processes start as they do by default, not as this one did
    set_start_method(None, force=True)
    _object = make(*arguments)


def _ask(method: str, arguments: tuple[object, ...]) -> Any:
    return getattr(_object, method)(*arguments)
