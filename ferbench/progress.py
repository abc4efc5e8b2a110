"""What a person sees while runs go on: two bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

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

    from ferbench.recipe import RunSpec
    from ferbench.records.record import RunRecord


def run_label(spec: RunSpec) -> str:
    """What a person calls a run: `resnet18 focal seed 0`."""
    strategy = spec.recipe.imbalance.strategy
    return f"{spec.recipe.model.name}{'' if strategy == 'none' else ' ' + strategy} seed {spec.seed}"


class Progress:
    """A `jobs.Listener` that shows what it hears on standard error."""

    def __init__(self, n_runs: int) -> None:
        self.console = Console(stderr=True, highlight=False)
        self._n_runs, self._done = n_runs, 0
        self._label, self._images, self._epochs = "", 1, 1
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
        self._task: TaskID | None = None
        self._live: Any = None

    def __enter__(self) -> Self:
        if self.console.is_terminal and self._n_runs:
            from rich.console import Group
            from rich.live import Live

            self._live = Live(Group(self._epoch, self._runs), console=self.console, refresh_per_second=5)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def on_start(self, spec: RunSpec, images: int) -> None:
        """Show the run's bar."""
        self._label, self._images, self._epochs = run_label(spec), max(images, 1), spec.epochs
        if self._task is not None:
            self._epoch.remove_task(self._task)
        total = self._epochs * self._images
        self._task = self._epoch.add_task(f"[bold]{self._label}", total=total, facts="starting")
        if not self.console.is_terminal:
            self.console.print(f"[{self._done + 1}/{self._n_runs}] {self._label}: {self._epochs} epochs")

    def on_batch(self, epoch: int, images: int) -> None:
        """Move the run's bar."""
        assert self._task is not None
        old = self._epoch.tasks[0].fields["facts"].partition("  ")[2]
        facts = f"epoch {epoch}/{self._epochs}" + (f"  {old}" if old else "")
        self._epoch.update(self._task, completed=(epoch - 1) * self._images + images, facts=facts)

    def on_epoch(self, row: dict[str, Any]) -> None:
        """Show an epoch's numbers."""
        assert self._task is not None
        facts = (
            f"epoch {row['epoch']}/{self._epochs}  loss {row['train_loss']:.3f}  val {row['val_accuracy']:.2%}  "
            f"macro-F1 {row['val_macro_f1']:.3f}  {row['images_per_second']:,.0f} images/s"
        )
        self._epoch.update(self._task, completed=row["epoch"] * self._images, facts=facts)
        if not self.console.is_terminal:
            self.console.print(f"    {facts}", soft_wrap=True)

    def on_end(self, spec: RunSpec, record: RunRecord | None) -> None:
        """Leave a line for the run."""
        self._done += 1
        self._runs.update(self._runs_task, completed=self._done)
        self.console.print(self._verdict(record), soft_wrap=True, markup=False)

    def _verdict(self, record: RunRecord | None) -> str:
        if record is None:
            return f"– {self._label}: another process is at it"
        if record.status == "failed" or record.cost is None:
            return f"✗ {self._label}: {record.reason}"
        val, test = (record.scores[s].values for s in ("val", "test"))
        return (
            f"✓ {self._label}: val {val['accuracy']:.2%}, test {test['accuracy']:.2%} "
            f"(macro-F1 {test['macro_f1']:.3f}), epoch {record.best_epoch}, {record.cost.total_seconds:,.0f} s"
        )
