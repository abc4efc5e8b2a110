from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ferbench import workers
from ferbench.records.study import Limit, TrialRow
from ferbench.study.plan import StudyPlan, plan_studies
from ferbench.study.read import row_of

SPACE = """
[space]
"optimizer.name" = { choices = ["adamw", "sgd"] }
"optimizer.lr" = { low = 1e-4, high = 0.1, log = true }
"optimizer.beta2" = { low = 0.9, high = 0.9999, when = { "optimizer.name" = ["adamw"] } }
"training.label_smoothing" = { low = 0.0, high = 0.2 }

[sampler]
startup_trials = 4

[pruner]
startup_trials = 3
"""

# Stands in for the worker: learns in no time, the better the nearer its rate is to 0.01. It does what the file `orders`
# says when a line of it is "NUMBER EPOCH WORD": the trial of that number, once, before that epoch.
FAKE_WORKER = """
import json, math, os, signal, sys, time
from pathlib import Path

job = json.loads(sys.stdin.readline())
place, number = Path({place!r}), Path(job["folder"]).name
if job["task"] == "probe":
    lines = (place / "log").read_text().count(chr(10)) if (place / "log").exists() else 0
    with (place / "probes").open("a") as file:
        file.write(str(job["spec"]["recipe"]["training"]["batch_size"]) + " " + str(lines) + chr(10))
    sys.exit(0)
recipe = job["spec"]["recipe"]
epochs = job["spec"]["budget"]["epochs"] or recipe["training"]["epochs"]
final = 0.7 - 0.1 * abs(math.log10(recipe["optimizer"]["lr"]) + 2) - recipe["training"]["label_smoothing"] / 10
checkpoint = Path(job["folder"]) / "checkpoint.pt"
done = int(checkpoint.read_text()) if checkpoint.exists() else 0

def say(event, **facts):
    sys.stdout.write(json.dumps({{"event": event, **facts}}) + chr(10))
    sys.stdout.flush()

def log(*words):
    with (place / "log").open("a") as file:
        file.write(" ".join(map(str, words)) + chr(10))

def obey(epoch):
    for line in (place / "orders").read_text().splitlines() if (place / "orders").exists() else ():
        who, when, word = line.split()
        mark = place / f"obeyed-{{who}}-{{when}}"
        if (who, int(when)) == (number, epoch) and (word.endswith("always") or not mark.exists()):
            mark.touch()
            if word.startswith("kill"):
                os.kill(os.getpid(), signal.SIGKILL)
            elif word == "fail":
                say("failed", reason="ValueError: no such layer")
                sys.exit(1)
            elif word == "diverge":
                say("pruned", reason="training diverged: the loss is nan in epoch 1")
                sys.exit(0)
            elif word == "refuse":
                say("refused", reason="--device cuda:9: this machine has 0 GPUs")
                sys.exit(1)
            elif word == "sleep":
                time.sleep(600)
            elif word == "rest":
                while not (place / "go").exists():
                    time.sleep(0.05)

log("begin", number, os.getpid(), time.time())
for epoch in range(1, epochs + 1):
    obey(epoch)
    if epoch > done:
        log("epoch", number, epoch)
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        checkpoint.write_text(str(epoch))
    value = final * (1 - 0.5 ** epoch)
    say("epoch", epoch=epoch, val_accuracy=value, val_macro_f1=value / 2)
    if sys.stdin.readline().strip() == "prune":
        log("end", number, time.time())
        say("pruned", reason=None)
        sys.exit(0)
costs = {{"parameters": 1000.0 + 1e6 * recipe["training"]["label_smoothing"], "images_per_second": 50.0}}
first, *others = job["objectives"]
log("end", number, time.time())
say("done", values=[value if first == "accuracy" else value / 2, *(costs[o] for o in others)], best_epoch=epochs)
"""


class Told:
    """What a listener is told."""

    def __init__(self) -> None:
        self.trials: list[tuple[int, int]] = []
        self.ends: list[TrialRow] = []
        self.waits: list[list[int]] = []

    def on_trial(self, number: int, params: dict[str, Any], attempt: int) -> None:
        self.trials.append((number, attempt))

    def on_trial_epoch(self, number: int, row: dict[str, Any]) -> None: ...

    def on_trial_end(self, trial: TrialRow, best: TrialRow | None) -> None:
        self.ends.append(trial)

    def on_wait(self, numbers: list[int]) -> None:
        self.waits.append(numbers)


class Fake:
    """The stand-in for the worker: what it is told to do, and what it did."""

    def __init__(self, place: Path) -> None:
        self._place, self._python = place, sys.executable
        place.mkdir()
        (place / "worker.py").write_text(FAKE_WORKER.format(place=str(place)))
        self.program = place / "python"
        self.program.write_text(f"#!/bin/sh\nexec {sys.executable} -S {place / 'worker.py'}\n")
        self.program.chmod(0o755)

    def order(self, text: str) -> None:
        """Lines of "NUMBER EPOCH WORD"; see FAKE_WORKER."""
        (self._place / "orders").write_text(text)

    def go(self) -> None:
        """End the rest of those that rest."""
        (self._place / "go").touch()

    def told(self) -> list[list[str]]:
        """The words of each line of its log."""
        log = self._place / "log"
        return [line.split() for line in log.read_text().splitlines()] if log.exists() else []

    def probed(self) -> list[tuple[str, int]]:
        """The batch size of each probe, and how many lines the log had then."""
        file = self._place / "probes"
        return [(b, int(n)) for b, n in map(str.split, file.read_text().splitlines())] if file.exists() else []

    def trained(self) -> Counter[tuple[str, str]]:
        """How often each epoch of each trial was trained."""
        return Counter((number, epoch) for kind, number, epoch, *_ in self.told() if kind == "epoch")

    def start(self, *words: str | Path) -> subprocess.Popen[str]:
        """The command line in a process of its own whose workers are stand-ins."""
        code = (
            "import sys\nfrom ferbench import workers\nfrom ferbench.cli import main\n"
            f"workers.FORKS = False\nsys.executable = {str(self.program)!r}\n"
            f"sys.argv = {['ferbench', *map(str, words)]!r}\nmain()"
        )
        return subprocess.Popen(
            [self._python, "-c", code],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "COLUMNS": "200"},
            # a test run in a shell's background inherits Ctrl-C as ignored
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        )

    @staticmethod
    def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
        """Wait for what another process does."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "it did not happen"
            time.sleep(0.05)


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    found = Fake(tmp_path / "fake")
    monkeypatch.setattr(sys, "executable", str(found.program))
    monkeypatch.setattr(workers, "FORKS", False)
    return found


@pytest.fixture
def ears() -> type[Told]:
    """A kind of listener that remembers."""
    return Told


@pytest.fixture
def words(study_file: Path, faces: Path) -> Callable[..., list[str | Path]]:
    """The command line of the study that `planned` plans."""

    def build(results: Path, trials: int, *more: str) -> list[str | Path]:
        fixed = ["tune", "--models", study_file, "--data", faces, "--budget", "full", "--device", "cpu"]
        return [*fixed, "--results", results, "--trials", str(trials), *more]

    return build


@pytest.fixture
def rows() -> Callable[[StudyPlan], list[TrialRow]]:
    """The trials of a study as its storage has them."""
    return lambda plan: [row_of(t) for t in plan.ledger.trials()]


@pytest.fixture
def study_file(tmp_path: Path) -> Path:
    path = tmp_path / "plain_cnn.toml"
    path.write_text(SPACE)
    return path


Planner = Callable[..., StudyPlan]


@pytest.fixture
def planned(study_file: Path, faces: Path, tmp_path: Path) -> Planner:
    """Plan the study of `study_file` on a few faces; trials have the 17 epochs of the recipe."""

    def plan(trials: float = 6, unit: str = "trials", **changes: Any) -> StudyPlan:
        wanted = {"source": faces, "results": tmp_path / "results", "budget": "full", "devices": "cpu"}
        limit = Limit.model_validate({"unit": unit, "amount": trials})
        (study,) = plan_studies(str(study_file), limit=limit, **{**wanted, **changes})
        return study

    return plan
