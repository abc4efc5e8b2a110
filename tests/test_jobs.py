"""Plans, and workers that go wrong; the worker here is a shell script, so nothing is trained."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ferbench import workers
from ferbench.data import load
from ferbench.errors import InputError
from ferbench.jobs import estimate, run_many
from ferbench.listener import Silence
from ferbench.plan import Plan, make_plan
from ferbench.progress import Progress
from ferbench.records.record import failed_record
from ferbench.records.store import Store
from ferbench.worker import _do


@pytest.fixture
def plan(faces: Path, tmp_path: Path) -> Plan:
    """Two runs of one recipe."""
    return make_plan("plain_cnn", source=faces, seeds=(0, 1), results=tmp_path / "results")


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Callable[[], int]]:
    """Put a shell script in the worker's place; it has read its job when the script begins, and knows its seed."""

    def install(script: str) -> Callable[[], int]:
        program, starts = tmp_path / "python", tmp_path / "starts"
        seed = """seed=$(echo "$job" | sed 's/.*"seed":\\([0-9]*\\).*/\\1/')"""
        probe = """case "$job" in '{"task":"probe"'*) echo $(wc -l < starts) >> probes; exit 0;; esac"""
        begin = f"#!/bin/sh\nread -r job\n{seed}\ncd {tmp_path}\ntouch starts\n{probe}\necho started >> starts"
        program.write_text(f"{begin}\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(program))
        monkeypatch.setattr(workers, "FORKS", False)
        return lambda: len(starts.read_text().split()) if starts.exists() else 0

    return install


class Notes(Silence):
    """What a listener is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def on_start(self, spec: Any, images: int) -> None:
        self.told.append(("start", spec.seed, images))

    def on_note(self, spec: Any, text: str) -> None:
        self.told.append(("note", spec.seed, text))

    def on_batch(self, spec: Any, epoch: int, images: int) -> None:
        self.told.append(("batch", spec.seed, epoch, images))

    def on_epoch(self, spec: Any, row: dict[str, Any]) -> None:
        self.told.append(("epoch", spec.seed, row))

    def on_end(self, spec: Any, record: Any) -> None:
        self.told.append(("end", spec.seed, record and record.status))


def say(**event: Any) -> str:
    return f"echo '{json.dumps(event)}'"


def wait_for(condition: str) -> str:
    """A line that waits for what another worker does, and ends the script if that does not happen."""
    return f"i=0; until {condition}; do i=$((i + 1)); [ $i -lt 600 ] || exit 99; sleep 0.05; done"


# plans


def test_plan_is_every_model_strategy_and_seed(faces):
    plan = make_plan("plain_cnn,resnet*", source=faces, imbalance="none,focal", seeds=(0, 7), device="cpu")
    asked = [(s.recipe.model.name, s.recipe.imbalance.strategy, s.seed) for s in plan.specs]
    networks = ("plain_cnn", "resnet18", "resnet34", "resnet50")
    assert asked == [(m, i, s) for m in networks for i in ("none", "focal") for s in (0, 7)]
    assert {s.data.fingerprint for s in plan.specs} == {load(faces).fingerprint}
    assert {s.budget.name for s in plan.specs} == {"full"}


def test_the_same_run_asked_for_twice_is_one(faces):
    assert len(make_plan("plain_cnn,plain*", source=faces, seeds=(0, 0)).specs) == 1


@pytest.mark.parametrize(
    ("wanted", "fragments"),
    [
        ({"budget": "quick", "overrides": {"training.epochs": 3}}, ["--set epochs", "budget quick sets epochs = "]),
        ({"budget": "quick", "overrides": {"epochs": 3}}, ["--set epochs", "--budget full"]),
        ({"budget": "demo", "overrides": {"batch_size": 8}}, ["--set batch_size", "budget demo sets batch_size = "]),
        ({"seeds": (0, -1)}, ["seed -1"]),
        ({"seeds": (2**32,)}, ["seed 4294967296"]),
        ({"seeds": ()}, ["no seed"]),
        ({"seeds": 0}, ["seeds = 0: a list of whole numbers is expected"]),
        ({"seeds": ["0"]}, ["seeds = ['0']: a list"]),
        ({"seeds": "0,1"}, ["seeds = '0,1': a list"]),
        ({"seeds": [True]}, ["seeds = [True]: a list"]),
        ({"budget": "quik"}, ["did you mean quick"]),
        ({"imbalance": "focl"}, ["focl", "focal"]),
        ({"overrides": {"model.stem_stride": 2}}, ["plain_cnn", "stem_stride = 2"]),
        ({"init": "imagnet"}, ["model.init = imagnet: no such file"]),
        ({"imbalance": "posthoc_class_bias", "tta": "flip"}, ["--tta flip: post-hoc strategies have no other views"]),
    ],
)
def test_impossible_plans_are_refused(wanted, fragments, faces):
    with pytest.raises(InputError) as caught:
        make_plan("plain_cnn", source=faces, **wanted)
    message = str(caught.value)
    assert "\n" not in message and all(f in message for f in fragments)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (" , ", "no model given .--models all."),
        ("timm:resnet19", "unknown model 'timm:resnet19' .did you mean timm:resnet18 or"),
    ],
)
def test_models_that_are_none_are_refused(wanted, message, faces):
    with pytest.raises(InputError, match=message):
        make_plan(wanted, source=faces)
    assert len(make_plan("plain_cnn,", source=faces).specs) == 1


def test_full_budget_leaves_epochs_to_the_recipe(faces):
    plan = make_plan("plain_cnn", source=faces, overrides={"training.epochs": 3, "batch_size": 8})
    assert (plan.specs[0].epochs, plan.specs[0].batch_size) == (3, 8)


# workers


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("kill -KILL $$", "the worker was killed by signal 9 (out of memory?)"),
        ("kill -SEGV $$", "the worker was killed by signal 11;"),
        ("exit 3", "the worker ended with exit code 3;"),
        # an end without a last word is a failure, whatever the code
        ("exit 0", "the worker ended with exit code 0;"),
        (say(event="batch", epoch=1, images=32) + "\nkill -KILL $$", "killed by signal 9"),
    ],
)
def test_worker_that_dies_is_a_failed_run_and_the_rest_goes_on(script, reason, plan, worker):
    starts, notes = worker(script), Notes()
    records = run_many(plan, notes)
    assert [r.status for r in records] == ["failed", "failed"]
    assert all(reason in r.reason and "worker.log" in r.reason for r in records)
    assert starts() == 2
    assert [t for t in notes.told if t[0] in ("start", "end")] == [
        ("start", 0, 210), ("end", 0, "failed"), ("start", 1, 210), ("end", 1, "failed"),
    ]  # fmt: skip
    assert plan.store.records() == records
    # a failed run is missing still
    assert len(plan.missing()) == 2


def test_worker_killed_after_its_last_file_has_done_its_run(plan, worker, finished, predictions, tmp_path):
    spec = plan.specs[0]
    other = Store(tmp_path / "other")
    other.write_run(finished(spec), predictions)
    worker(f"[ $seed = 1 ] || cp {other.folder(spec)}/* {plan.store.folder(spec)}/\nkill -KILL $$")
    first, second = run_many(plan, Notes())
    assert (first.status, second.status) == ("ok", "failed")
    # what was there before says nothing of a worker that dies
    worker("kill -KILL $$")
    assert [r.status for r in run_many(plan, Notes(), redo=True)] == ["failed", "failed"]
    assert plan.store.record(spec).status == "ok"


def test_run_that_dies_is_recorded_where_it_ran(plan, worker, environment):
    worker(say(event="started", environment=environment.model_dump()) + "\nkill -KILL $$")
    assert [r.environment for r in run_many(plan, Notes())] == [environment, environment]


def test_refused_device_is_bad_usage_and_no_failed_run(plan, worker):
    worker(say(event="refused", reason="--device cuda:9: this machine has 0 GPUs"))
    for command in (lambda: run_many(plan, Notes()), lambda: list(estimate(plan, plan.specs))):
        with pytest.raises(InputError, match="cuda:9"):
            command()
    assert not plan.store.root.exists() or plan.store.records() == []


def test_what_the_worker_tells_is_passed_on(plan, worker):
    row = {"epoch": 1, "lr": 0.1}
    note, batch = say(event="note", text="fp32"), say(event="batch", epoch=1, images=32)
    worker("\n".join([note, batch, say(event="epoch", **row), say(event="busy")]))
    notes = Notes()
    assert run_many(replace(plan, specs=plan.specs[:1]), notes) == []
    passed_on = [("note", 0, "fp32"), ("batch", 0, 1, 32), ("epoch", 0, row)]
    assert notes.told == [("start", 0, 210), *passed_on, ("end", 0, None)]
    # somebody else is at it: no record of ours
    assert not plan.store.has_record(plan.specs[0])


def test_line_cut_short_by_a_crash_is_no_event(plan, worker):
    worker(say(event="batch", epoch=1, images=32) + """\nprintf '{"event": "epo'\nexit 3""")
    notes = Notes()
    (record,) = run_many(replace(plan, specs=plan.specs[:1]), notes)
    assert "exit code 3" in record.reason
    assert [t[0] for t in notes.told] == ["start", "batch", "end"]


def test_worker_that_is_gone_before_it_is_told_its_job_is_a_failed_run(plan, monkeypatch):
    def start_late(*words: Any, **options: Any) -> subprocess.Popen:
        process = popen(*words, **options)
        process.wait()
        return process

    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", start_late)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    monkeypatch.setattr(workers, "FORKS", False)
    assert ["exit code 1;" in r.reason for r in run_many(plan, Silence())] == [True, True]


def test_last_words_are_in_the_log(plan, worker):
    worker("echo boom >&2\nexit 1")
    run_many(plan, Silence())
    assert (plan.store.folder(plan.specs[0]) / "worker.log").read_text() == "boom\n"


def test_done_runs_are_not_started(plan, worker, finished, predictions):
    done, missing = plan.specs
    plan.store.write_run(finished(done), predictions)
    starts = worker("exit 1")
    assert [(r.spec.seed, r.status) for r in run_many(plan, Silence())] == [(0, "ok"), (1, "failed")]
    assert starts() == 1
    assert plan.missing() == [missing]
    run_many(plan, Silence(), redo=True)
    assert starts() == 3


def test_failed_redo_leaves_what_was_there(plan, worker, finished, predictions):
    for spec in plan.specs:
        plan.store.write_run(finished(spec), predictions)
    worker(say(event="failed", reason="no memory"))
    records = run_many(plan, Silence(), redo=True)
    assert [(r.status, r.reason) for r in records] == [("failed", "no memory")] * 2
    assert [r.status for r in plan.store.records()] == ["ok", "ok"]
    assert plan.missing() == []


# several at once


@pytest.fixture
def four(faces: Path, tmp_path: Path) -> Plan:
    return make_plan("plain_cnn", source=faces, seeds=(0, 1, 2, 3), results=tmp_path / "results")


def test_as_many_runs_as_asked_for_are_at_work_and_no_more(four, worker):
    together = wait_for("[ $(wc -l < starts) -ge $((seed / 2 * 2 + 2)) ]")
    worker(f"{together}\n{say(event='batch', epoch=1, images=32)}\nexit $((seed + 1))")
    notes, at_work = Notes(), []
    records = run_many(four, notes, at_once=2)
    for kind, *_ in notes.told:
        at_work.append((at_work or [0])[-1] + {"start": 1, "end": -1}.get(kind, 0))
    assert max(at_work) == 2 and at_work[-1] == 0
    # in the order of the plan, each with what its own worker said
    assert [r.spec.seed for r in records] == [0, 1, 2, 3]
    assert [r.reason.partition(";")[0][-11:] for r in records] == [f"exit code {n}" for n in (1, 2, 3, 4)]
    assert sorted(t for t in notes.told if t[0] == "batch") == [("batch", seed, 1, 32) for seed in range(4)]


def test_more_than_there_are_runs_is_all_of_them(plan, worker):
    starts = worker(wait_for("[ $(wc -l < starts) -ge 2 ]") + "\nexit 3")
    assert ["exit code 3;" in r.reason for r in run_many(plan, Silence(), at_once=100)] == [True, True]
    assert starts() == 2


def test_what_runs_compute_in_is_timed_before_they_share_the_device(faces, tmp_path, worker):
    words = {"source": faces, "results": tmp_path / "results", "imbalance": "none,focal"}
    plan = make_plan("plain_cnn,resnet18", seeds=(0, 1), **words)
    starts = worker("exit 3")
    run_many(plan, Silence(), at_once=1)
    assert not (tmp_path / "probes").exists() and starts() == 8
    (tmp_path / "starts").write_text("")
    run_many(plan, Silence(), redo=True, at_once=2)
    # each network once, whatever its seeds and strategies, when nothing had been started
    assert (tmp_path / "probes").read_text().split() == ["0", "0"] and starts() == 8


def test_a_place_is_taken_as_soon_as_it_is_free(four, worker):
    # the first run waits for the last one's start
    worker(f"[ $seed != 0 ] || {{ {wait_for('[ $(wc -l < starts) -ge 4 ]')}; }}\nexit 3")
    assert ["exit code 3;" in r.reason for r in run_many(four, Silence(), at_once=2)] == [True] * 4


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_refused_device_ends_all_runs(four, worker, tmp_path):
    all_are_here = wait_for("[ $(ls pids | wc -l) -ge 3 ]")
    refused = say(event="refused", reason="--device cuda:9: this machine has 0 GPUs")
    worker(f"mkdir -p pids; touch pids/$$\n{all_are_here}\n[ $seed = 1 ] && {refused}\nexec sleep 600")
    with pytest.raises(InputError, match="cuda:9"):
        run_many(four, Silence(), at_once=3)
    pids = [int(p.name) for p in (tmp_path / "pids").iterdir()]
    assert [is_gone(pid) for pid in pids] == [True, True, True]
    assert four.store.records() == []


def test_interrupt_ends_all_runs_before_it_leaves(four, worker, tmp_path):
    all_are_here = wait_for("[ $(ls pids | wc -l) -ge 3 ]")
    worker(f"mkdir -p pids; touch pids/$$\n{all_are_here}\n{say(event='epoch', epoch=1)}\nexec sleep 600")

    class Impatient(Silence):
        def on_epoch(self, spec: Any, row: dict[str, Any]) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_many(four, Impatient(), at_once=3)
    pids = [int(p.name) for p in (tmp_path / "pids").iterdir()]
    assert [is_gone(pid) for pid in pids] == [True, True, True]


@pytest.mark.parametrize("at_once", [0, -1])
def test_no_run_at_once_is_refused(at_once, plan, worker):
    starts = worker("exit 3")
    with pytest.raises(InputError, match=f"{at_once} runs at once"):
        run_many(plan, Silence(), at_once=at_once)
    assert starts() == 0


# what is shown of them

ROW = {"epoch": 1, "input_size": 48, "train_loss": 1.5, "val_accuracy": 0.25, "val_macro_f1": 0.125}


def epoch(number: int) -> str:
    # 210 images each
    return say(event="epoch", **{**ROW, "epoch": number}, seconds=0.5, images_per_second=420.0)


def test_every_line_names_its_run(plan, worker, capsys):
    worker(f"{epoch(1)}\nexit 3")
    with Progress(2) as bars:
        run_many(plan, bars, at_once=2)
    lines = capsys.readouterr().err.splitlines()
    for seed in (0, 1):
        own = [line for line in lines if f"plain_cnn seed {seed}" in line]
        assert [fragment in line for fragment, line in zip(("/2] ", "epoch 1/", "exit code 3"), own, strict=True)]


def test_epochs_that_are_judged_on_test_say_so(faces, tmp_path, worker, capsys):
    worker(f"{epoch(1)}\nexit 3")
    plan = make_plan("plain_cnn", source=faces, protocol="oracle", results=tmp_path / "results")
    with Progress(1) as bars:
        run_many(plan, bars)
    assert "test 25.00%" in capsys.readouterr().err


def test_a_terminal_has_a_bar_for_each_run_at_work(plan, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "150")
    with Progress(2) as bars:
        bars.on_start(plan.specs[0], 210)
        bars.on_start(plan.specs[1], 210)
        bars._live.refresh()
        capsys.readouterr()
        bars.on_batch(plan.specs[1], 1, 105)
        bars._live.refresh()
        shown = capsys.readouterr().err.splitlines()
        bars.on_end(plan.specs[0], None)
        capsys.readouterr()
        bars._live.refresh()
        later = capsys.readouterr().err.splitlines()
    first, second, runs = (line for line in shown if "━" in line)
    assert "plain_cnn seed 0" in first and "starting" in first
    assert "plain_cnn seed 1" in second and "epoch 1/" in second
    assert "0/2" in runs
    assert ["plain_cnn seed 1" in line for line in later if "━" in line] == [True, False]


def test_images_of_a_checkpoints_epochs_are_not_counted(plan, worker, monkeypatch):
    batch = say(event="batch", epoch=3, images=32)
    # two epochs from a checkpoint, two trained now
    worker("\n".join([epoch(1), epoch(2), batch, epoch(3), epoch(4), "exit 3"]))
    clock = SimpleNamespace(perf_counter=iter([10.0, 14.0]).__next__)
    monkeypatch.setattr("ferbench.progress.time", clock)
    with Progress(2) as bars:
        run_many(plan, bars, at_once=2)
    assert bars.images_per_second == 2 * 2 * 210 / 4


# estimates


def test_one_measurement_serves_all_seeds(plan, worker):
    starts = worker(say(event="estimate", seconds=12.5))
    assert list(estimate(plan, plan.specs)) == [(spec, 12.5) for spec in plan.specs]
    assert starts() == 1


@pytest.mark.parametrize(
    ("script", "said"),
    [(say(event="failed", reason="no weights"), "no weights"), ("exit 4", "the worker ended with exit code 4")],
)
def test_what_cannot_be_estimated_says_why(script, said, plan, worker):
    worker(script)
    assert [answer for _, answer in estimate(plan, plan.specs)] == [said, said]
    assert not plan.store.root.exists()


# protocols and views


def test_each_kind_of_views_follows_the_run_it_looks_with(faces, tmp_path):
    plan = make_plan("plain_cnn", source=faces, seeds=(0, 1), tta="flip, random:3", results=tmp_path)
    assert [(s.seed, s.tta) for s in plan.specs] == [
        (0, "none"), (1, "none"), (0, "flip"), (0, "random:3"), (1, "flip"), (1, "random:3"),
    ]  # fmt: skip
    assert {s.trained.id for s in plan.specs} == {s.id for s in plan.specs if s.tta == "none"}


@pytest.mark.parametrize("tta", ["flop", "random:0", "random:101", "random", ""])
def test_unknown_views_are_refused(tta, faces, tmp_path):
    with pytest.raises(InputError, match=f"--tta '{tta}': expected none, flip, ten-crop or random:N"):
        make_plan("plain_cnn", source=faces, tta=tta, results=tmp_path)


def test_views_wait_for_their_run(faces, tmp_path, worker):
    """With room for both at once."""
    plan = make_plan("plain_cnn", source=faces, tta="flip", results=tmp_path / "results")
    order = """case "$job" in *'"tta":"flip"'*) echo views >> order;; *) sleep 0.3; echo trained >> order;; esac\n"""
    worker(order + "exit 1")
    run_many(plan, Silence(), at_once=2)
    assert (tmp_path / "order").read_text().split() == ["trained", "views"]


def test_views_of_a_run_that_another_process_is_at_are_left_to_it(faces, tmp_path, worker):
    plan = make_plan("plain_cnn", source=faces, tta="flip", results=tmp_path / "results")
    starts = worker(say(event="busy"))
    assert run_many(plan, Silence()) == []
    assert starts() == 1


def test_old_failure_of_a_run_that_another_process_is_at_is_no_failure_of_this_command(plan, worker, environment):
    for spec in plan.specs:
        plan.store.write_failure(failed_record(spec, "killed by signal 9", environment))
    worker(say(event="busy"))
    assert run_many(plan, Silence()) == []


def test_what_starts_from_a_run_that_another_process_is_at_is_left_to_it(faces, tmp_path, worker):
    """To the last: views of a classifier on the frozen backbone of that run."""
    plan = make_plan("plain_cnn", source=faces, imbalance="crt", tta="flip", results=tmp_path / "results")
    assert len(plan.specs) == 3
    starts = worker(say(event="busy"))
    assert run_many(plan, Silence()) == []
    assert starts() == 1


def test_protocol_decides_the_images_and_the_facts_that_are_stored(faces, tmp_path, worker):
    plan = make_plan("plain_cnn", source=faces, protocol="stratified", results=tmp_path / "results")
    (spec,) = plan.specs
    assert spec.data.protocol == "stratified"
    assert spec.data.fingerprint == plan.dataset.fingerprint == load(faces, protocol="stratified").fingerprint
    assert spec.id != make_plan("plain_cnn", source=faces, results=tmp_path / "results").specs[0].id
    worker(say(event="busy"))
    run_many(plan, Silence())
    facts = plan.store.facts(spec.data)
    assert sum(facts.counts["train"].values()) == len(plan.dataset.train)
    assert facts.test_twins == []


def test_unknown_protocol(faces, tmp_path):
    with pytest.raises(InputError, match="unknown protocol 'strat'"):
        make_plan("plain_cnn", source=faces, protocol="strat", results=tmp_path)


# recipes of published systems


def test_published_system_runs_under_its_own_protocol_unless_told(faces, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr("torch.hub.download_url_to_file", lambda *a, **k: (_ for _ in ()).throw(OSError("no network")))
    plan = make_plan("papers/efficientnet_b2", source=faces, results=tmp_path)
    (spec,) = plan.specs
    assert spec.data.protocol == "folder-naive"
    assert spec.recipe.imbalance.strategy == "inverse"
    # without the weights it starts from scratch, and says so
    assert spec.recipe.model.init == "scratch"
    followed, scratch = plan.notes[spec.id]
    assert "papers/efficientnet_b2 follows arXiv 2601.18228; no source gives model.input_size" in followed
    assert "runs from scratch, nothing frozen: ImageNet weights of efficientnet_b2 are not here" in scratch
    assert "/" not in scratch.partition(" runs ")[2]
    assert spec.recipe.training.freeze_epochs == 0
    assert plan.job(spec, "run").notes == [followed, scratch]
    # likewise where scratch is asked for: a backbone frozen as it was drawn would learn nothing
    asked = make_plan("papers/efficientnet_b2", source=faces, init="scratch", results=tmp_path)
    assert asked.specs == plan.specs
    assert asked.notes[spec.id] == (followed, "papers/efficientnet_b2 runs from scratch, nothing frozen")
    # its record is what others copy that are made of it
    made = make_plan("papers/efficientnet_b2", source=faces, imbalance="posthoc_class_bias", results=tmp_path)
    assert made.notes[made.specs[0].root.id] == (followed, scratch)
    ours = make_plan("papers/efficientnet_b2", source=faces, protocol="official", imbalance="none", results=tmp_path)
    assert ours.specs[0].data.protocol == "official"
    assert ours.specs[0].recipe.imbalance.strategy == "none"


def test_published_system_takes_weights_that_are_there(faces, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "efficientnet_v2_s-dd5fe13b.pth").touch()
    plan = make_plan("papers/insideout", source=faces, results=tmp_path)
    (spec,) = plan.specs
    assert spec.recipe.model.init == "imagenet"
    assert spec.recipe.training.freeze_epochs == 5
    assert len(plan.notes[spec.id]) == 1


def test_recipes_of_different_protocols_need_one(faces, tmp_path):
    with pytest.raises(
        InputError, match=r"different protocols .papers/vggnet: oracle, plain_cnn: official.: choose one"
    ):
        make_plan("papers/vggnet,plain_cnn", source=faces, results=tmp_path)
    plan = make_plan("papers/vggnet,plain_cnn", source=faces, protocol="official", results=tmp_path)
    assert {s.data.protocol for s in plan.specs} == {"official"}


# the worker's own part


class Events:
    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, Any]]] = []

    def tell(self, event: str, **facts: Any) -> None:
        self.told.append((event, facts))

    on_batch = on_epoch = None


def test_worker_leaves_a_claimed_run_alone(plan):
    events, spec = Events(), plan.specs[0]
    with plan.store.claim(spec) as claimed:
        assert claimed
        assert _do(plan.job(spec, "run"), events)
    assert events.told == [("busy", {})]
    assert not plan.store.has_record(spec)


def test_worker_does_not_repeat_what_was_done_meanwhile(plan, finished, predictions):
    events, spec = Events(), plan.specs[0]
    plan.store.write_run(finished(spec), predictions)
    assert _do(plan.job(spec, "run"), events)
    assert events.told == [("done", {})]


def test_worker_says_why_it_failed(plan, capsys):
    other = plan.specs[0].data.model_copy(update={"fingerprint": "0123abcd"})
    spec, events = plan.specs[0].model_copy(update={"data": other}), Events()
    plan.store.write(plan.store.folder(spec) / "checkpoint.pt", b"of a redo that was stopped")
    assert not _do(plan.job(spec, "run", redo=True), events)
    assert [event for event, _ in events.told] == ["started", "failed"]
    assert "not 0123abcd" in events.told[1][1]["reason"]
    assert (plan.store.folder(spec) / "checkpoint.pt").exists()
    # the log has the whole story
    assert "Traceback" in capsys.readouterr().err
