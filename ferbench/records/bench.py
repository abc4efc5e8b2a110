"""The stored schema of a speed benchmark: raw samples, so that every table is computed from them."""

from __future__ import annotations

import re
from typing import Final, Literal

from ferbench.records.record import Environment
from ferbench.records.stored import Stored

BENCH_VERSION: Final = 1

Suite = Literal["training", "parts", "inference", "start", "growth", "accuracy"]


class BenchRow(Stored):
    """One thing that was timed."""

    name: str
    """A side of the comparison, an engine, a command."""
    samples: dict[str, list[float]]
    """By unit ("images/s", "ms", "MB"), in the order they were taken; rounds of different rows alternate."""
    note: str = ""
    """Why there is no sample, or what the reader must know."""

    @property
    def has_failed(self) -> bool:
        """Whether it was tried and broke, other than what is not installed or not for this device."""
        return not self.samples and self.note.startswith("failed")


class BenchRecord(Stored):
    """One benchmark of one subject on one machine; a newer one takes its place, see `Store.write_bench`."""

    schema_version: Literal[1] = BENCH_VERSION
    suite: Suite
    subject: str
    """The model, with what tells its recipe from the shipped one in brackets, or "ferbench"."""
    finished_at: str
    """UTC, ISO 8601."""
    environment: Environment
    settings: dict[str, float | int | str]
    """What the numbers depend on: batch size, input size, precision, images."""
    rows: list[BenchRow]

    @property
    def id(self) -> str:
        """Machine, suite and subject, fit for a path: `amd-epyc-2-cores/training-plain_cnn`."""
        machine = re.sub(r"[^a-z0-9]+", "-", self.environment.device.lower()).strip("-")
        return f"{machine}/{self.suite}-{re.sub(r'[^A-Za-z0-9_.]+', '_', self.subject).strip('_')}"

    @property
    def has_failed(self) -> bool:
        """Whether anything in it has."""
        return any(row.has_failed for row in self.rows)

    def row(self, name: str) -> BenchRow | None:
        """The row of that name, if it is there."""
        return next((r for r in self.rows if r.name == name), None)


def rounded(samples: list[float]) -> list[float]:
    """Samples to five significant digits, all that a clock is good for."""
    return [float(f"{s:.5g}") for s in samples]
