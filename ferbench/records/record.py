"""The stored schema of a run: what was asked for, what happened, what it cost and where."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final, Literal, Self

from pydantic import model_validator

from ferbench.evaluation.metrics import Scores
from ferbench.records.stored import Stored
from ferbench.spec import RunSpec

SCHEMA_VERSION: Final = 1


class EpochRow(Stored):
    """One epoch of the history."""

    epoch: int
    """From 1."""
    lr: float
    """The head's learning rate at the epoch's end."""
    train_loss: float
    """Mean over the epoch's images of the loss that was minimised."""
    val_accuracy: float
    val_macro_f1: float
    val_nll: float
    """Mean negative log-likelihood, nats."""
    seconds: float
    """Wall-clock time of training in this epoch, evaluation left out."""
    images_per_second: float
    """Training images over those seconds."""
    input_size: int | None = None
    """Side of the training and val images, pixels; None: from before it was recorded, when val had the full size."""


class Throughput(Stored):
    """Inference speed at one batch size, images already on the device."""

    batch_size: int
    images_per_second: float
    """Batch size over the median time of a batch."""
    rounds: int
    """Timed batches, each between two synchronisations, after a warm-up of the same kind."""


class Cost(Stored):
    """What a run used."""

    train_seconds: float
    """Training, without evaluation, summed over the epochs."""
    total_seconds: float
    """Wall clock from the data to the last score, over all sittings."""
    images_per_second: float
    """Training images of all epochs over train_seconds."""
    peak_memory_bytes: int
    """Device memory on a GPU, resident set of the worker process on a CPU."""
    parameters: int
    macs: int
    """Multiply-accumulates for one image."""
    inference: list[Throughput]


class ArithmeticUsed(Stored):
    """What forward and backward passes were computed in."""

    precision: Literal["fp32", "bf16", "fp16"]
    channels_last: bool
    """Memory order NHWC instead of NCHW."""
    probe: dict[str, float]
    """Training images/s of the candidates when this machine was asked; empty where the recipe left no choice."""


class Environment(Stored):
    """Where a run happened."""

    ferbench: str
    commit: str | None
    """Git commit of the source, "+dirty" behind it where files were changed; None outside a clone."""
    python: str
    torch: str
    torchvision: str
    timm: str
    numpy: str
    scikit_learn: str
    platform: str
    device: str
    """Name of the GPU or CPU."""
    device_type: Literal["cpu", "cuda"]
    threads: int
    """CPU threads used for arithmetic; results on a CPU depend on it."""


class RunRecord(Stored):
    """One run, finished or failed."""

    schema_version: Literal[1] = SCHEMA_VERSION
    id: str
    spec: RunSpec
    status: Literal["ok", "failed"]
    reason: str | None
    """Why it failed, in a line; None when it did not."""
    finished_at: str
    """UTC, ISO 8601."""
    best_epoch: int | None
    """The epoch that val chose; predictions are its."""
    history: list[EpochRow]
    scores: dict[str, Scores]
    """By split, "val" and "test", and "clean" for the test images without a twin; under protocol oracle
    also "honest", test at the epoch that val would have chosen; empty when failed."""
    cost: Cost | None
    environment: Environment
    arithmetic: ArithmeticUsed | None = None
    """None: the run failed, or is from before this was recorded and computed in what its recipe says."""
    source_finished_at: str | None = None
    """When the run had ended whose weights or predictions this one starts from; None: it starts from none, or is from
    before this was recorded."""
    init_digest: str | None = None
    """Of the content of the weights file that training started from, see `store.weights_digest`; None: of no file, or
    from before this was recorded."""
    notes: list[str]
    """What the reader must know: how the data were read, what the device forced."""

    @model_validator(mode="after")
    def _ok_has_scores(self) -> Self:
        if self.status == "ok" and not {"val", "test"} <= self.scores.keys():
            raise ValueError("status is ok, but there are no scores of val and test")
        return self


SHARED = "shared the device"
"""In a note of a run that had others beside it."""


def derived_record(
    record: RunRecord, spec: RunSpec, scores: dict[str, Scores], *notes: str, **changes: Any
) -> RunRecord:
    """The record of what was made of a finished run without training; all else is that run's, its own notes too."""
    told = {"id": spec.id, "spec": spec, "finished_at": utc_now(), "scores": scores, "notes": [*record.notes, *notes]}
    return record.model_copy(update={**told, "source_finished_at": record.finished_at, **changes})


def failed_record(spec: RunSpec, reason: str, environment: Environment) -> RunRecord:
    """The record of a run that did not end well."""
    return RunRecord(
        id=spec.id,
        spec=spec,
        status="failed",
        reason=reason,
        finished_at=utc_now(),
        best_epoch=None,
        history=[],
        scores={},
        cost=None,
        environment=environment,
        notes=[],
    )


def utc_now() -> str:
    """Now, as records write it."""
    return datetime.now(UTC).isoformat(timespec="seconds")
