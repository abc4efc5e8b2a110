"""The file a stopped run goes on from: tensors and plain values only, in place whole or not at all."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import torch

MOST_TIME_SPENT_SAVING = 0.1
"""Share of the time after which an epoch's end is skipped: a fast GPU epoch must not wait for the disk."""


@dataclass
class Checkpoint:
    """One run's checkpoint file."""

    path: Path
    key: str
    """Names the run and what its bits depend on; a file with another key is not used."""
    writing: Callable[[Path], AbstractContextManager[BinaryIO]]
    """Opens a file that takes its place at the end of the block."""
    _last_end: float = field(default=0.0, init=False)
    _last_cost: float = field(default=0.0, init=False)

    def load(self) -> dict[str, Any] | None:
        """The saved state, or None where there is none that fits."""
        if not self.path.is_file():
            return None
        try:
            stored = torch.load(self.path, map_location="cpu", weights_only=True)
            return stored["state"] if stored["key"] == self.key else None
        except Exception:
            # a file that cannot be read costs the epochs in it, never the run
            return None

    def save(self, state: Callable[[], dict[str, Any]]) -> bool:
        """Whether the state was written; it is not while saving takes more than its share of the time."""
        start = time.monotonic()
        if start - self._last_end < self._last_cost * (1 / MOST_TIME_SPENT_SAVING - 1):
            return False
        with self.writing(self.path) as file:
            torch.save({"key": self.key, "state": state()}, file)
        self._last_end = time.monotonic()
        self._last_cost = self._last_end - start
        return True
