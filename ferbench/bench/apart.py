"""Something in a process of its own, so that its speed and memory owe nothing to what else is measured."""

from __future__ import annotations

import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, set_start_method
from multiprocessing.context import BaseContext
from typing import Any, Self

from ferbench.workers import FORKS

_made: Any = None
"""In such a process: what it was started for."""


class Apart:
    """An object in a process of its own, which does nothing unless it is asked to; the end of the block ends it.

    Args:
        make: makes the object there; it, its arguments, and what is asked and answered are pickled.
        context: how the process is started; by default it finds torch imported.
    """

    def __init__(self, make: Callable[..., object], *arguments: object, context: BaseContext | None = None) -> None:
        self._pool = ProcessPoolExecutor(1, context or _with_torch(), _end_quietly)
        self._begun = self._pool.submit(_make, make, arguments)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def ask(self, method: str, *arguments: object) -> Any:
        """What a method of the object returns.

        Raises:
            BrokenProcessPool: the process was killed.
            Exception: whatever making the object or the method has raised.
        """
        self._begun.result()
        return self._pool.submit(_ask, method, arguments).result()


def _end_quietly() -> None:
    # on Ctrl-C, of which the parent tells
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _make(make: Callable[..., object], arguments: tuple[object, ...]) -> None:
    global _made
    # a loader's own processes start as they do by default, not as this one did
    set_start_method(None, force=True)
    _made = make(*arguments)


def _ask(method: str, arguments: tuple[object, ...]) -> Any:
    return getattr(_made, method)(*arguments)


def _with_torch() -> BaseContext:
    if not FORKS:
        return get_context("spawn")
    context = get_context("forkserver")
    # nothing of ours: it would be looked for in the current folder first
    context.set_forkserver_preload(["torch", "timm", "torchvision"])
    return context
