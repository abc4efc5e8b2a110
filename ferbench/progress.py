"""What a person sees while runs go on: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import (
    Progress as Bars,
)

if TYPE_CHECKING:
    from rich.progress import TaskID

    from ferbench.records.record import RunRecord
    from ferbench.records.study import Limit, StudySpec, TrialRow, Value
    from ferbench.spec import RunSpec


def run_label(spec: RunSpec) -> str:
    """What a person calls a run: `resnet18 focal seed 0`."""
    strategy = spec.recipe.imbalance.strategy
    views = "" if spec.tta == "none" else f" {spec.tta}"
    return f"{spec.recipe.model.name}{'' if strategy == 'none' else ' ' + strategy} seed {spec.seed}{views}"


@dataclass
class _Shown:
    """A run at work and its bar."""

    task: TaskID
    label: str
    images: int
    """Of an epoch."""
    epochs: int
    scores: str = ""
    """Of the last epoch."""
    trains: bool = False
    """Whether it is past what a checkpoint holds."""


class Progress:
    """A `Listener` that shows what it hears on standard error, a bar for each run at work."""

    def __init__(self, n_runs: int) -> None:
        self.console = Console(stderr=True, highlight=False)
        self._n_runs, self._started, self._done = n_runs, 0, 0
        self._at_work: dict[str, _Shown] = {}
        self._trained_images, self._since, self._until = 0, 0.0, 0.0
        shown = self.console.is_terminal
        self._runs = Bars(
            TextColumn("[bold]runs"), BarColumn(24), MofNCompleteColumn(), TimeElapsedColumn(),
            console=self.console, disable=not shown,
        )  # fmt: skip
        self._epoch = Bars(
            TextColumn("{task.description}"), BarColumn(24), TextColumn("{task.fields[facts]}"), TimeRemainingColumn(),
            console=self.console, disable=not shown,
        )  # fmt: skip
        self._runs_task = self._runs.add_task("runs", total=n_runs)
        self._live: Any = None

    def __enter__(self) -> Self:
        self._since = time.perf_counter()
        if self.console.is_terminal and self._n_runs:
            from rich.console import Group
            from rich.live import Live

            self._live = Live(Group(self._epoch, self._runs), console=self.console, refresh_per_second=5)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._until = time.perf_counter()
        if self._live is not None:
            self._live.stop()

    @property
    def images_per_second(self) -> float:
        """Training images of all epochs trained in this block over its wall clock."""
        return self._trained_images / (self._until - self._since)

    def on_start(self, spec: RunSpec, images: int) -> None:
        """Show the run's bar."""
        self._started += 1
        label, images = run_label(spec), max(images, 1)
        task = self._epoch.add_task(f"[bold]{label}", total=spec.own_epochs * images or None, facts="starting")
        self._at_work[spec.id] = _Shown(task, label, images, spec.own_epochs)
        if not self.console.is_terminal:
            what = f"{spec.epochs} epochs" if spec.source == spec else "from a trained run"
            self.console.print(f"[{self._started}/{self._n_runs}] {label}: {what}")

    def on_note(self, spec: RunSpec, text: str) -> None:
        """Show a line about the run."""
        self.console.print(f"    {run_label(spec)}: {text}", soft_wrap=True, markup=False)

    def on_batch(self, spec: RunSpec, epoch: int, images: int) -> None:
        """Move the run's bar."""
        run = self._at_work[spec.id]
        run.trains = True
        facts = f"epoch {epoch}/{run.epochs}{run.scores}"
        self._epoch.update(run.task, completed=(epoch - 1) * run.images + images, facts=facts)

    def on_epoch(self, spec: RunSpec, row: dict[str, Any]) -> None:
        """Show an epoch's numbers."""
        run = self._at_work[spec.id]
        # the epochs of a checkpoint are told first, before any batch
        if run.trains:
            self._trained_images += round(row["seconds"] * row["images_per_second"])
        at = "" if row["input_size"] == spec.recipe.model.input_size else f" at {row['input_size']} pixels"
        # an oracle's epochs are judged on test
        split = "test" if spec.data.protocol == "oracle" else "val"
        run.scores = (
            f"  loss {row['train_loss']:.3f}  {split} {row['val_accuracy']:.2%}{at}  macro-F1 {row['val_macro_f1']:.3f}"
            f"  {row['images_per_second']:,.0f} images/s"
        )
        facts = f"epoch {row['epoch']}/{run.epochs}{run.scores}"
        self._epoch.update(run.task, completed=row["epoch"] * run.images, facts=facts)
        if not self.console.is_terminal:
            self.console.print(f"    {run.label}: {facts}", soft_wrap=True)

    def on_end(self, spec: RunSpec, record: RunRecord | None) -> None:
        """Leave a line for the run."""
        run = self._at_work.pop(spec.id)
        self._epoch.remove_task(run.task)
        self._done += 1
        self._runs.update(self._runs_task, completed=self._done)
        self.console.print(_verdict(run.label, record), soft_wrap=True, markup=False)


def _verdict(label: str, record: RunRecord | None) -> str:
    if record is None:
        return f"– {label}: another process is at it"
    if record.status == "failed" or record.cost is None:
        return f"✗ {label}: {record.reason}"
    val, test = (record.scores[s].values for s in ("val", "test"))
    both = "" if record.spec.source == record.spec else " with the run it starts from"
    return (
        f"✓ {label}: val {val['accuracy']:.2%}, test {test['accuracy']:.2%} "
        f"(macro-F1 {test['macro_f1']:.3f}), epoch {record.best_epoch}, {record.cost.total_seconds:,.0f} s{both}"
    )


class StudyProgress:
    """A `TrialListener` that shows what it hears on standard error: a line per trial, and a bar for each at work."""

    def __init__(self, name: str, spec: StudySpec, limit: Limit) -> None:
        self.console = Console(stderr=True, highlight=False)
        self._name, self._spec, self._limit = name, spec, limit
        self._bars = Bars(
            TextColumn("{task.description}"), BarColumn(24), TextColumn("{task.fields[facts]}"),
            console=self.console, disable=not self.console.is_terminal, transient=True,
        )  # fmt: skip
        self._at_work: dict[int, TaskID] = {}

    def __enter__(self) -> Self:
        limit = f"{self._limit.amount:g} {self._limit.unit}"
        what = f"val {self._spec.objectives[0]}" + "".join(f", {o}" for o in self._spec.objectives[1:])
        self.console.print(
            f"{self._name}: {limit}, each of {self._spec.epochs} epochs of {self._spec.budget.fraction:.0%}, for {what}"
        )
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bars.stop()

    def on_trial(self, number: int, params: dict[str, Value], attempt: int) -> None:
        """Show the trial's values."""
        again = f", attempt {attempt}" if attempt > 1 else ""
        values = ", ".join(f"{field.rpartition('.')[2]} {_short(value)}" for field, value in params.items())
        what = "trial 0 (baseline)" if number == 0 else f"trial {number}"
        self.console.print(f"{self._name} {what}{again}: {values}", soft_wrap=True, markup=False)
        self._at_work[number] = self._bars.add_task(what, total=self._spec.epochs, facts="starting")

    def on_trial_epoch(self, number: int, row: dict[str, Any]) -> None:
        """Move its bar."""
        # two attempts of one may be at work until the one that was taken for dead ends, and the bar with it
        if number in self._at_work:
            facts = f"epoch {row['epoch']}  val {row['val_accuracy']:.2%}  macro-F1 {row['val_macro_f1']:.3f}"
            self._bars.update(self._at_work[number], completed=row["epoch"], facts=facts)

    def on_trial_end(self, trial: TrialRow, best: TrialRow | None) -> None:
        """Leave a line for it."""
        task = self._at_work.pop(trial.number, None)
        if task is not None:
            self._bars.remove_task(task)
        so_far = "" if best is None else f"  best {best.values[0]:.4f} (trial {best.number})"
        self.console.print(f"{self._outcome(trial)}{so_far}", soft_wrap=True, markup=False)

    def _outcome(self, trial: TrialRow) -> str:
        label, cost = f"{self._name} trial {trial.number}", f"{len(trial.curve)} epochs, {trial.seconds:,.0f} s"
        if trial.state == "complete":
            values = ", ".join(
                f"{name} {_short(v)}" for name, v in zip(self._spec.objectives, trial.values, strict=True)
            )
            return f"✓ {label}: {values} at epoch {trial.best_epoch}, {cost}"
        if trial.state == "pruned":
            last = f" at {trial.curve[-1]:.4f}" if trial.curve else ""
            return f"– {label}: pruned{last}, {cost}{f' ({trial.reason})' if trial.reason else ''}"
        return f"✗ {label}: {trial.reason or 'its worker was killed; it is tried again'}"

    def on_wait(self, numbers: list[int]) -> None:
        """Say for what."""
        trials = ", ".join(map(str, numbers))
        self.console.print(f"{self._name}: waiting for trials that other processes are at: {trials}")


def _short(value: Value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
