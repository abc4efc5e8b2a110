"""The loop of a study, with a stand-in for the worker: real processes and storages, nothing trained."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from sqlalchemy.exc import OperationalError

from ferbench.cli import main
from ferbench.errors import InputError, RunFailedError
from ferbench.progress import StudyProgress
from ferbench.records.store import CHECKPOINT
from ferbench.records.study import Promotion, TrialRow, best_of
from ferbench.report import check, write
from ferbench.report.studies import pruning
from ferbench.study import promote as promotion
from ferbench.study.attempts import retry, seconds
from ferbench.study.audit import finish_pruned
from ferbench.study.find import ledgers, studies
from ferbench.study.ledger import Ledger
from ferbench.study.plan import StudyPlan, plan_studies
from ferbench.study.read import read_study, write_study
from ferbench.study.search import sampler_of
from ferbench.study.storage import JOURNAL, open_journal
from ferbench.study.tune import tune
from ferbench.workers import Workers

EPOCHS = 17


def final(row: TrialRow) -> float:
    """What the stand-in says of a trial that goes to its end."""
    import math

    lr, smoothing = row.params["optimizer.lr"], row.params["training.label_smoothing"]
    return (0.7 - 0.1 * abs(math.log10(lr) + 2) - smoothing / 10) * (1 - 0.5**EPOCHS)


def test_study_from_the_baseline_to_its_limit(planned, fake, rows, ears):
    plan, heard = planned(8), ears()
    tune(plan, heard)
    found = rows(plan)
    assert [r.number for r in found] == list(range(8))
    assert found[0].params == plan.space.start
    assert {r.state for r in found} <= {"complete", "pruned"}
    done = [r for r in found if r.state == "complete"]
    assert [r.values for r in done] == [[pytest.approx(final(r))] for r in done]
    assert best_of(found) == max(done, key=final)
    assert all(len(r.curve) == EPOCHS and r.best_epoch == EPOCHS for r in done)
    assert [e.number for e in heard.ends] == list(range(8)) and heard.trials == [(n, 1) for n in range(8)]
    # asked again it has nothing to do, and with a higher limit it goes on
    tune(planned(8), again := ears())
    assert again.trials == []
    tune(planned(10), more := ears())
    assert more.trials == [(8, 1), (9, 1)]


def test_hopeless_trials_are_pruned_after_the_warm_up_and_no_earlier(planned, fake, rows, ears):
    plan = planned(20)
    tune(plan, ears())
    pruned = [r for r in rows(plan) if r.state == "pruned"]
    assert len(pruned) >= 3
    # after three trials, and 30 % of 17 epochs is 5
    assert min(r.number for r in pruned) >= 3
    assert all(5 < len(r.curve) < EPOCHS for r in pruned)
    assert all(len(r.curve) == EPOCHS for r in rows(plan) if r.state == "complete")
    record = read_study(plan.name, plan.ledger)
    whole = sorted(final(r) for r in record.trials)
    # in this world curves do not cross: what was pruned was in the lower half when it was
    assert all(final(r) < whole[-1] for r in pruned)
    assert record.importances.keys() == {"ped_anova", "fanova"}
    assert max(record.importances["fanova"], key=record.importances["fanova"].get) == "optimizer.lr"


def test_finished_pruned_trials_tell_what_was_missed(planned, fake, rows, ears):
    plan = planned(12)
    tune(plan, ears(), keep_pruned=True)
    pruned = [r for r in rows(plan) if r.state == "pruned"]
    assert pruned
    before = fake.trained()
    finish_pruned(plan, ears())
    record = read_study(plan.name, plan.ledger)
    for row in pruned:
        (found,) = (t for t in record.trials if t.number == row.number)
        assert found.state == "pruned" and found.curve == row.curve
        assert found.unpruned[: len(row.curve)] == row.curve
        assert found.unpruned[-1] == pytest.approx(final(row)) == found.unpruned_value
    assert not list(plan.folder.rglob(CHECKPOINT))
    # from the kept checkpoints: no epoch is trained twice
    assert set(fake.trained().values()) == {1} and len(fake.trained()) > len(before)
    finish_pruned(plan, again := ears())
    assert again.trials == []


def test_same_seed_same_study(planned, fake, tmp_path, rows, ears):
    first, second = planned(9), planned(9, results=tmp_path / "other")
    for plan in (first, second):
        tune(plan, ears())
    assert [r.params for r in rows(first)] == [r.params for r in rows(second)]


def test_killed_worker_costs_its_trial_an_epoch(planned, fake, rows, ears):
    fake.order("2 9 kill\n4 1 kill\n")
    plan, heard = planned(7), ears()
    tune(plan, heard)
    assert len(rows(plan)) == 7 and "failed" not in {r.state for r in rows(plan)}
    assert Counter(a for _, a in heard.trials) == {1: 7, 2: 2}
    # gone on with from the checkpoint: no epoch twice, none left out
    assert set(fake.trained().values()) == {1}
    killed = {r.number: r for r in rows(plan) if r.attempts == 2}
    assert set(killed) == {2, 4} and len(killed[2].curve) == EPOCHS
    # in the storage the attempt that was killed has failed
    failed = plan.ledger.study.get_trials(states=(TrialState.FAIL,))
    assert len(failed) == 2
    # and what came of it all is what an undisturbed study finds
    undisturbed = planned(7, results=plan.store.root.parent / "undisturbed")
    fake.order("")
    tune(undisturbed, ears())
    assert [(r.params, r.values) for r in rows(plan)] == [(r.params, r.values) for r in rows(undisturbed)]


def test_what_kills_its_worker_again_and_again_fails(planned, fake, rows, ears):
    fake.order("1 2 kill-always\n")
    plan, heard = planned(3), ears()
    tune(plan, heard)
    row = rows(plan)[1]
    assert row.state == "failed" and row.attempts == 3
    assert row.reason == "the worker was killed by signal 9 (out of memory?), 3 times"
    assert [r.state for r in rows(plan) if r.number != row.number] == ["complete", "complete"]


def test_failure_is_a_failed_trial_and_divergence_a_bad_one(planned, fake, rows, ears):
    fake.order("1 1 fail\n2 1 diverge\n")
    plan = planned(4)
    tune(plan, ears())
    states = [(r.state, r.reason) for r in rows(plan)][1:3]
    assert states == [
        ("failed", "ValueError: no such layer"),
        ("pruned", "training diverged: the loss is nan in epoch 1"),
    ]
    assert len(rows(plan)) == 4


def test_checkpoints_of_pruned_trials_stay_but_of_those_that_diverged(planned, fake, rows, ears):
    fake.order("1 3 diverge\n")
    plan = planned(12)
    tune(plan, ears(), keep_pruned=True)
    pruned = {r.number for r in rows(plan) if r.state == "pruned" and r.reason is None}
    assert pruned and {int(p.parent.name) for p in plan.folder.rglob(CHECKPOINT)} == pruned


def test_refused_device_ends_the_study_and_hands_the_trial_back(planned, fake, rows, ears):
    fake.order("0 1 refuse\n")
    plan = planned(2)
    with pytest.raises(InputError, match="cuda:9"):
        tune(plan, ears())
    assert [(r.number, r.state, r.attempts) for r in rows(plan)] == [(0, "waiting", 1)]
    tune(planned(2), ears())
    assert [r.state for r in rows(plan)] == ["complete", "complete"]


def test_interrupt_hands_trials_back(planned, fake, rows, ears):
    plan = planned(5, workers=2)

    class Impatient(ears):
        def on_trial_epoch(self, number, row):
            if number == 2 and row["epoch"] == 7:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(plan, Impatient())
    assert not plan.ledger.study.get_trials(states=(TrialState.RUNNING,))
    pids = [int(words[2]) for words in fake.told() if words[0] == "begin"]
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    tune(planned(5), heard := ears())
    assert (2, 1) in heard.trials
    assert [r.attempts for r in rows(plan)] == [1] * 5
    # seven epochs of trial 2 were trained, and are not again; the eighth may have begun
    assert all(count == 1 for (_, epoch), count in fake.trained().items() if int(epoch) <= 7)


def test_as_many_at_once_as_asked_for(planned, fake, rows, ears):
    plan = planned(8, workers=4)
    tune(plan, ears())
    assert len(rows(plan)) == 8 and {r.attempts for r in rows(plan)} == {1}
    times = [(float(words[-1]), 1 if words[0] == "begin" else -1) for words in fake.told() if words[0] != "epoch"]
    at_once = [sum(step for when, step in times if when <= now) for now, _ in times]
    assert 2 <= max(at_once) <= 4


def test_what_trials_compute_in_is_timed_before_they_share_the_device(planned, study_file, fake, ears):
    tune(planned(2), ears())
    assert fake.probed() == []
    told = len(fake.told())
    more = '[space]\n"training.batch_size" = { choices = [32, 64, 128] }\n'
    study_file.write_text(study_file.read_text().replace("[space]\n", more))
    sized = planned(3, workers=2, name="sized")
    tune(sized, ears())
    # every batch size that is searched, once, before the first trial begins
    assert sorted(fake.probed()) == [("128", told), ("32", told), ("64", told)]
    # a study that is over starts nothing
    tune(planned(3, workers=2, name="sized"), ears())
    assert len(fake.probed()) == 3


@pytest.mark.parametrize(
    ("unit", "amount", "least", "most"), [("epochs", 60, 60, 60 + EPOCHS - 1), ("seconds", 1, 1, 9)]
)
def test_other_units_of_the_limit(planned, fake, unit, amount, least, most, rows, ears):
    plan = planned(amount, unit=unit)
    tune(plan, ears())
    found = rows(plan)
    spent = sum(len(r.curve) for r in found) if unit == "epochs" else sum(r.seconds for r in found)
    # a row's seconds are rounded to tenths
    lost = 0.05 * len(found) if unit == "seconds" else 0
    assert least <= round(spent + lost, 6) and spent <= most


def test_study_of_nothing_but_failures_gives_up(planned, fake, rows, ears):
    fake.order("".join(f"{n} 1 fail\n" for n in range(20)))
    plan = planned(200, unit="epochs")
    with pytest.raises(RunFailedError, match="5 trials failed one after the other, the last: ValueError: no such la"):
        tune(plan, ears())
    assert [r.state for r in rows(plan)] == ["failed"] * 5


def test_study_whose_workers_are_all_killed_gives_up_and_leaves_no_checkpoints(planned, fake, rows, ears):
    fake.order("".join(f"{n} 2 kill-always\n" for n in range(20)))
    plan = planned(200, unit="epochs")
    with pytest.raises(RunFailedError, match=r"5 trials failed one after the other, the last: the worker was killed"):
        tune(plan, ears())
    assert [(r.state, r.attempts) for r in rows(plan)] == [("failed", 3)] * 5
    assert not list(plan.folder.rglob(CHECKPOINT))


def test_trial_that_failed_is_exit_code_1(planned, fake, tmp_path, words):
    fake.order("1 1 fail\n")
    line = words(tmp_path / "results", 3)
    out, err = (process := fake.start(*line)).communicate(timeout=120)
    assert process.returncode == 1, err
    assert (
        "ferbench: plain_cnn: trials failed: 1; worker.log in the folder of each says more" in err
        and "best val accuracy" in out
    )
    # what has failed before is no failure of this command
    process = fake.start(*words(tmp_path / "results", 4))
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err


def test_study_that_gives_up_leaves_the_next_its_turn(planned, fake, tmp_path, words):
    fake.order("".join(f"{n} 1 fail\n" for n in range(5)))
    beside = tmp_path / "vgg16.toml"
    beside.write_text((tmp_path / "plain_cnn.toml").read_text())
    line = words(tmp_path / "results", 6)
    process = fake.start(*(f"{word},{beside}" if word == tmp_path / "plain_cnn.toml" else word for word in line))
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1, err
    assert "ferbench: plain_cnn: 5 trials failed one after the other, the last: ValueError: no such layer" in err
    assert "vgg16: best val accuracy" in out and "Traceback" not in err
    written = {str(p.relative_to(tmp_path / "results" / "studies")) for p in tmp_path.rglob("README.md")}
    assert written == {"plain_cnn/README.md", "vgg16/README.md"}


def test_study_whose_values_make_no_recipe_gives_up(planned, fake, rows, ears, monkeypatch):
    plan = planned(200)

    def refuse(params):
        raise InputError("they do not go together")

    monkeypatch.setattr(plan.space, "recipe", refuse)
    with pytest.raises(RunFailedError, match="5 trials failed one after the other, the last: they do not go together"):
        tune(plan, ears())
    assert [(r.state, r.reason) for r in rows(plan)] == [("failed", "they do not go together")] * 5


def test_trial_that_another_machine_took_for_dead_is_left_to_it(planned, fake, rows, ears):
    """As after a suspended laptop: the storage has another attempt, and what comes of this one is void."""
    plan = planned(2)

    class Meanwhile(ears):
        def on_trial_epoch(self, number, row):
            if (number, row["epoch"]) == (1, 4) and len(self.trials) == 2:
                (running,) = plan.ledger.study.get_trials(states=(TrialState.RUNNING,))
                retry(plan.ledger.study, running)
                plan.ledger.study.tell(running.number, state=TrialState.FAIL)

    tune(plan, Meanwhile())
    assert [(r.number, r.state, r.attempts) for r in rows(plan)] == [(0, "complete", 1), (1, "complete", 2)]
    assert len(plan.ledger.study.get_trials()) == 3


def test_lost_attempt_leaves_the_checkpoint_to_the_one_that_took_its_place(planned, fake, ears):
    plan = planned(2)

    class Meanwhile(ears):
        def on_trial_epoch(self, number, row):
            if (number, row["epoch"], len(self.trials)) == (1, 4, 2):
                (running,) = plan.ledger.study.get_trials(states=(TrialState.RUNNING,))
                retry(plan.ledger.study, running)
                plan.ledger.study.tell(running.number, state=TrialState.FAIL)

    tune(plan, Meanwhile())
    # the second attempt went on from it
    assert set(fake.trained().values()) == {1}


def test_no_trial_is_held_while_what_it_computes_in_is_timed(planned, fake, ears, monkeypatch):
    plan = planned(3, workers=2)
    held = []
    probe = Workers.probe
    monkeypatch.setattr(Workers, "probe", lambda *a: (held.append(plan.ledger.study.get_trials()), probe(*a)))
    tune(plan, ears())
    assert held and {t.state for trials in held for t in trials} == {TrialState.WAITING}


def test_epochs_of_a_trial_whose_bar_has_gone_are_not_shown(planned):
    plan = planned(2)
    with StudyProgress(plan.name, plan.ledger.spec, plan.ledger.limit) as bars:
        bars.on_trial_epoch(7, {"epoch": 1, "val_accuracy": 0.5, "val_macro_f1": 0.5})


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Tokyo"])
def test_seconds_of_a_trial_at_work_are_those_since_it_began(planned, monkeypatch, zone):
    with monkeypatch.context() as patch:
        patch.setenv("TZ", zone)
        time.tzset()
        plan = planned(2)
        plan.ledger.ask(plan.space)
        (row, *_) = read_study(plan.name, plan.ledger).trials
        # less than an hour, and more than none
        time.sleep(0.1)
        assert 0 < seconds(plan.ledger.trials()[0]) < 60 and row.state == "running"
    time.tzset()


def test_killed_while_it_was_proposed_the_baseline_is_the_baseline(planned, fake, rows, ears, monkeypatch):
    plan = planned(3)
    # as if the process had died after `ask` and before any value was proposed
    plan.ledger.study.ask()
    tune(planned(3), ears())
    first = rows(plan)[0]
    assert (first.number, first.attempts, first.params) == (0, 2, plan.space.start)
    undisturbed = planned(3, results=plan.store.root.parent / "undisturbed")
    tune(undisturbed, ears())
    assert [r.params for r in rows(plan)] == [r.params for r in rows(undisturbed)]


def test_killed_while_it_was_proposed_a_trial_is_proposed_again(planned, fake, rows, ears):
    plan = planned(4)
    first = plan.ledger.ask(plan.space)
    plan.ledger.complete(first, [0.5], {"curve": [0.5]})
    plan.ledger.study.sampler = sampler_of(plan.ledger.spec, 1)
    plan.ledger.study.ask()
    tune(planned(4), ears())
    proposed = [tuple(r.params.items()) for r in rows(plan)]
    assert len(set(proposed)) == 4 and rows(plan)[1].attempts == 2


@pytest.mark.parametrize("content", [b'{"a": 1}\n', b"\xff\xfe\n", None])
def test_what_is_no_journal_is_named(planned, content):
    path = planned(2, name="whole").store.root / "studies" / "plain_cnn" / JOURNAL
    path.parent.mkdir(exist_ok=True)
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(InputError, match=f"{JOURNAL}: no journal of a study"):
        open_journal(path.parent)


def test_study_that_was_half_made_is_made_whole(planned, fake, rows, ears):
    whole = planned(2, name="whole")
    folder = whole.store.root / "studies" / "plain_cnn"
    storage, _ = open_journal(folder)
    optuna.create_study(storage=storage, study_name="plain_cnn", direction="maximize")
    # neither of the two is in the way of the others
    broken = whole.store.root / "studies" / "broken"
    broken.mkdir()
    (broken / JOURNAL).touch()
    assert set(ledgers(whole.store, "*", None)) == {"plain_cnn-whole"}
    plan = planned(2)
    tune(plan, ears())
    assert [r.state for r in rows(plan)] == ["complete", "complete"]
    assert rows(plan)[0].params == plan.space.start


def test_lock_that_a_dead_process_left_is_waited_for_and_taken(planned, fake, ears, monkeypatch, tmp_path):
    """With a relative results folder, as it is by default."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("optuna.storages.journal._file.JournalFileSymlinkLock.__init__.__defaults__", (1,))
    plan = planned(1, results="results")
    lock = Path("results/studies/plain_cnn") / f"{JOURNAL}.lock"
    lock.symlink_to((plan.folder / JOURNAL).resolve())
    tune(planned(1, results="results"), ears())
    assert not lock.is_symlink()


def test_stored_studies_and_open_ones_are_found(planned, fake, ears):
    for name in ("one", "two"):
        plan = planned(1, name=name)
        tune(plan, ears())
        write_study(plan.store, plan.name, plan.ledger)
    (plan.folder / JOURNAL).unlink()
    assert [r.name for r in studies(plan.store, "*", None)] == ["plain_cnn-one", "plain_cnn-two"]
    with pytest.raises(InputError, match="with its storage in"):
        ledgers(plan.store, "*-two", None)
    with pytest.raises(InputError, match=r"study plain_cnn-two has only its study\.json here; journal"):
        ledgers(plan.store, "plain_cnn-two", None)


def test_study_that_cannot_be_read_is_in_no_other_s_way(planned, fake, ears):
    plan = planned(1, name="one")
    tune(plan, ears())
    write_study(plan.store, plan.name, plan.ledger)
    folder = plan.folder.parent
    for name, file in (("torn", JOURNAL), ("old", "study.json")):
        (folder / name).mkdir()
        (folder / name / file).write_bytes(b"\xff\xfe\n")
    assert [r.name for r in studies(plan.store, "plain*", None)] == [plan.name]
    assert set(ledgers(plan.store, "plain*", None)) == {plan.name}
    for name, file in (("torn", JOURNAL), ("old", "study.json")):
        with pytest.raises(InputError, match=f"{name}/{file}"):
            studies(plan.store, f"plain*,{name}", None)
    # one that is half made is none
    (folder / "torn" / JOURNAL).write_bytes(b"")
    for find in (studies, ledgers):
        with pytest.raises(InputError, match="no study 'torn'"):
            find(plan.store, "torn", None)


def test_database_that_goes_away_while_studies_are_looked_for(planned, tmp_path, monkeypatch):
    def gone(*_):
        raise OperationalError("SELECT", {}, Exception("server closed the connection"))

    plan = planned(1, storage=f"sqlite:///{tmp_path}/a.db")
    monkeypatch.setattr("ferbench.study.find.open_ledger", gone)
    for find in (studies, ledgers):
        with pytest.raises(InputError, match="--storage: lost: server closed"):
            find(plan.store, "*", f"sqlite:///{tmp_path}/a.db")


def test_report_holds_studies_beside_each_other(planned, fake, ears):
    for name in ("one", "two"):
        plan = planned(3, name=name)
        tune(plan, ears())
        write_study(plan.store, plan.name, plan.ledger)
    names = {str(path.relative_to(plan.store.root)) for path in write(plan.store)}
    assert {"figures/studies.png", "studies/plain_cnn-one/README.md", "studies/plain_cnn-two/trials.csv"} <= names
    text = (plan.store.root / "README.md").read_text()
    assert "figures/studies.png" in text and "| plain_cnn-two " in text
    assert check(plan.store) == []


@pytest.mark.parametrize("fate", ["fail", "kill"])
def test_audit_leaves_what_fails_for_another_time(planned, fake, ears, fate):
    plan = planned(12)
    tune(plan, ears(), keep_pruned=True)
    pruned = [t.number for t in read_study(plan.name, plan.ledger).trials if t.state == "pruned"]
    fake.order(f"{pruned[0]} {EPOCHS} {fate}\n")
    assert not finish_pruned(plan, ears())
    record = read_study(plan.name, plan.ledger)
    assert record.trial(pruned[0]).unpruned is None
    assert pruning(record).finished == len(pruned) - 1
    # the order is obeyed once
    assert finish_pruned(plan, again := ears())
    assert [number for number, _ in again.trials] == pruned[:1]
    assert pruning(read_study(plan.name, plan.ledger)).finished == len(pruned)


def test_audits_at_once_train_a_trial_once(planned, fake, ears, faces):
    plan = planned(12)
    tune(plan, ears(), keep_pruned=True)
    pruned = [t.number for t in read_study(plan.name, plan.ledger).trials if t.state == "pruned"]
    fake.order("".join(f"{n} {EPOCHS} rest\n" for n in pruned[:1]))
    before = len(fake.told())
    line = ("tune", "audit", plan.name, "--data", faces, "--device", "cpu", "--results", plan.store.root)
    audits = [fake.start(*line)]
    fake.wait_until(lambda: len(fake.told()) > before)
    audits.append(second := fake.start(*line))
    # it does the others, and waits for the one that the first is at
    assert any(f"waiting for trials that other processes are at: {pruned[0]}" in said for said in second.stderr)
    fake.go()
    for audit in audits:
        _, err = audit.communicate(timeout=120)
        assert audit.returncode == 0, err
    assert Counter(words[1] for words in fake.told()[before:] if words[0] == "begin") == {str(n): 1 for n in pruned}
    assert set(fake.trained().values()) == {1}
    assert pruning(read_study(plan.name, plan.ledger)).finished == len(pruned)


def test_audit_takes_a_trial_that_diverges_for_ended(planned, fake, ears):
    plan = planned(12)
    tune(plan, ears(), keep_pruned=True)
    pruned = [t.number for t in read_study(plan.name, plan.ledger).trials if t.state == "pruned"]
    assert len(pruned) > 1
    fake.order(f"{pruned[0]} {EPOCHS} diverge\n")
    finish_pruned(plan, ears())
    record = read_study(plan.name, plan.ledger)
    first, *others = (record.trial(n) for n in pruned)
    assert (first.unpruned_value, len(first.unpruned)) == (None, EPOCHS - 1)
    assert all(t.unpruned_value == pytest.approx(final(t)) for t in others)


@pytest.fixture
def promote(planned, fake, ears, faces, tmp_path, monkeypatch) -> Callable[[], object]:
    """The exit code of promoting a trial of a small study."""
    plan = planned(2)
    tune(plan, ears())
    words = ["--out", tmp_path / "mine", "--results", plan.store.root, "--data", faces, "--trial", "1", "--force"]
    monkeypatch.setattr(sys, "argv", ["ferbench", "tune", "promote", plan.name, *map(str, words)])
    monkeypatch.setattr(signal, "signal", lambda *_: None)

    def exit_code():
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code

    return exit_code


def test_failed_run_of_a_promotion_is_exit_code_1(promote, monkeypatch, capsys):
    # as where another process is at all of them
    monkeypatch.setattr(promotion, "run_many", lambda *_, **__: [])
    assert promote() == 1
    begins, failed = capsys.readouterr().err.splitlines()
    assert begins == "plain_cnn: trial 1 on seeds 1, 2, 3, then the baseline"
    assert re.fullmatch("ferbench: plain_cnn-.*: another process is at it", failed)


def verdict(record, chosen, plan, *_, **__):
    """As if the runs of a promotion had been trained."""
    ids = [run.id for run in plan.specs]
    noted = Promotion(trial=1, value=0.5, date="2026-01-01", commit=None, runs=ids[:3], baseline_runs=ids[3:])
    return promotion.Verdict(noted, 0.5, 0.4)


def test_recipe_is_written_after_the_promotion_is_noted(promote, planned, tmp_path, monkeypatch, capsys):
    def gone(*_):
        raise OperationalError("UPDATE", {}, Exception("server closed the connection"))

    monkeypatch.setattr(promotion, "try_again", verdict)
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "note_promotion", gone)
        assert promote() == 2 and "--storage: lost" in capsys.readouterr().err
    assert not (tmp_path / "mine" / "plain_cnn.toml").exists()
    assert promote() == 0 and (tmp_path / "mine" / "plain_cnn.toml").is_file()
    assert planned(2).ledger.promotion.is_recipe is True


def test_recipe_that_cannot_be_written_is_not_noted_as_written(promote, planned, tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device", "plain_cnn.toml")

    monkeypatch.setattr(promotion, "try_again", verdict)
    with monkeypatch.context() as patch:
        patch.setattr(promotion, "write_recipe", full)
        assert promote() == 2 and "plain_cnn.toml: No space left" in capsys.readouterr().err
    assert planned(2).ledger.promotion.is_recipe is False
    # before anything is trained
    monkeypatch.setattr(promotion, "try_again", lambda *_, **__: pytest.fail("was trained"))
    (tmp_path / "mine").rmdir()
    (tmp_path / "mine").write_text("")
    assert promote() == 2
    assert f"--out {tmp_path / 'mine'}: File exists, expected a folder" in capsys.readouterr().err


# several processes


def test_killed_process_is_gone_on_with(planned, fake, tmp_path, rows, words):
    fake.order("1 6 sleep\n")
    line = words(tmp_path / "results", 4)
    process = fake.start(*line)
    fake.wait_until(lambda: ("1", "5") in fake.trained())
    process.kill()
    process.communicate()
    again = fake.start(*line)
    out, err = again.communicate(timeout=120)
    assert again.returncode == 0, err
    assert "trial 1, attempt 2" in err and "best val accuracy" in out
    plan = planned(4)
    assert [(r.state, r.attempts) for r in rows(plan)][:2] == [("complete", 1), ("complete", 2)]
    assert len(rows(plan)) == 4 and set(fake.trained().values()) == {1}


def test_processes_share_the_trials_of_a_journal(planned, fake, tmp_path, rows, words):
    line = words(tmp_path / "results", 12, "--workers", "2")
    processes = [fake.start(*line) for _ in range(2)]
    for process in processes:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    plan = planned(12)
    assert [r.number for r in rows(plan)] == list(range(12))
    assert {r.attempts for r in rows(plan)} == {1}
    assert set(fake.trained().values()) == {1}
    assert Counter(words[1] for words in fake.told() if words[0] == "begin") == {str(n): 1 for n in range(12)}


def test_a_living_process_keeps_its_trial(planned, fake):
    """The other one waits for it, and does not do it again."""
    holder = planned(2)
    asked = [holder.ledger.ask(holder.space) for _ in range(2)]
    assert [a.slot for a in asked] == [0, 1]
    other = planned(2)
    assert other.ledger.ask(other.space) is None and not other.ledger.is_over()
    holder.ledger.complete(asked[0], [0.5], {"curve": [0.5]})
    assert other.ledger.ask(other.space) is None and not other.ledger.is_over()
    holder.ledger.hand_back(asked[1], "stopped", 1.5, killed=False)
    taken = other.ledger.ask(other.space)
    assert (taken.slot, taken.attempt, taken.params, taken.seconds_before) == (1, 1, asked[1].params, 1.5)


@pytest.mark.parametrize("sampler", ["tpe", "random", "gp"])
def test_machines_that_ask_at_once_propose_different_trials(planned, study_file, tmp_path, monkeypatch, sampler):
    study_file.write_text(study_file.read_text().replace("[sampler]\n", f'[sampler]\nname = "{sampler}"\n'))
    database = f"sqlite:///{tmp_path}/shared.db"
    one, other = planned(9, storage=database), planned(9, storage=database)
    one.ledger.complete(one.ledger.ask(one.space), [0.5], {"curve": [0.5]})
    asking = one.ledger.study.ask
    asked = []

    def ask():
        # in the moment before, the other machine asks too
        if not asked:
            asked.append(other.ledger.ask(other.space))
        return asking()

    monkeypatch.setattr(one.ledger.study, "ask", ask)
    asked.append(one.ledger.ask(one.space))
    assert [a.slot for a in asked] == [1, 2] and asked[0].params != asked[1].params
    # what was proposed hangs on the trials before and on the number alone
    alone = planned(9, results=tmp_path / "alone")
    alone.ledger.complete(alone.ledger.ask(alone.space), [0.5], {"curve": [0.5]})
    assert [alone.ledger.ask(alone.space).params for _ in asked] == [a.params for a in asked]


def test_a_trial_too_many_stays_away(planned, tmp_path, rows, monkeypatch):
    """Two machines ask at once for the last one, and later look for trials of dead machines."""
    database = f"sqlite:///{tmp_path}/shared.db"
    one, other = (planned(2, storage=database, heartbeat_seconds=1) for _ in range(2))
    one.ledger.complete(one.ledger.ask(one.space), [0.5], {"curve": [0.5]})
    monkeypatch.setattr(other.ledger, "_is_next", lambda: True)
    last = one.ledger.ask(one.space)
    assert other.ledger.ask(other.space) is None
    monkeypatch.undo()
    one.ledger.complete(last, [0.5], {"curve": [0.5]})
    assert other.ledger.is_over()
    clock = time.monotonic
    for seconds_later in (0, 100, 200):
        monkeypatch.setattr(time, "monotonic", lambda later=seconds_later: clock() + later)
        assert other.ledger.ask(other.space) is None
    assert [r.state for r in rows(other)] == ["complete", "complete"]
    # under a higher limit another takes its place
    higher = planned(3, storage=database)
    assert (asked := higher.ledger.ask(higher.space)).attempt == 1 and asked.slot == 3


def test_what_was_begun_under_a_higher_limit_waits_for_it(planned, fake, rows):
    higher = planned(3)
    asked = [higher.ledger.ask(higher.space) for _ in range(3)]
    higher.ledger.complete(asked[0], [0.5], {"curve": [0.5]})
    # the later one comes first in the queue
    for trial in (asked[2], asked[1]):
        higher.ledger.hand_back(trial, "stopped", 1.5, killed=False)
    lower = planned(2)
    taken = lower.ledger.ask(lower.space)
    assert (taken.slot, taken.params) == (1, asked[1].params)
    assert lower.ledger.ask(lower.space) is None and not lower.ledger.is_over()
    lower.ledger.complete(taken, [0.5], {"curve": [0.5]})
    assert lower.ledger.ask(lower.space) is None and lower.ledger.is_over()
    assert [r.state for r in rows(lower)] == ["complete", "complete", "waiting"]
    again = planned(3)
    taken = again.ledger.ask(again.space)
    assert (taken.slot, taken.attempt, taken.params, taken.seconds_before) == (2, 1, asked[2].params, 1.5)


def test_choices_are_trained_as_they_are_and_ranges_in_four_digits(planned, study_file, fake, rows, ears):
    space = """[space]
"optimizer.lr" = { choices = [0.002, 0.00123456, 0.00123457] }
"training.ema_decay" = { low = 0.0, high = 0.99996 }
"imbalance.strategy" = { choices = ["none", "focal"] }
"imbalance.params.gamma" = { choices = [0.5, 2.0], when = { "imbalance.strategy" = ["focal"] } }
"""
    study_file.write_text(space)
    plan = planned(8, workers=2)
    tune(plan, ears())
    found = rows(plan)
    assert {r.state for r in found} == {"complete"}
    rates = {r.params["optimizer.lr"] for r in found}
    assert rates > {0.002} and rates <= {0.002, 0.00123456, 0.00123457}
    decays = [r.params["training.ema_decay"] for r in found[1:]]
    assert all(d == float(f"{d:.4g}") for d in decays) and len(set(decays)) == 7
    assert any("imbalance.params.gamma" in r.params for r in found)


def test_line_torn_by_a_crash_is_cut_off(planned, fake, rows, ears):
    plan = planned(3)
    tune(plan, ears())
    journal = plan.folder / JOURNAL
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"op_code":4,"worker_id":"dead')
    tune(planned(4), ears())
    assert [r.number for r in rows(planned(4))] == [0, 1, 2, 3]
    assert journal.read_bytes().startswith(whole)
    assert all(json.loads(line) for line in journal.read_text().splitlines())


# what a study is


def test_changed_study_is_refused_or_forked(planned, fake, study_file, ears):
    tune(planned(2), ears())
    study_file.write_text(study_file.read_text().replace("high = 0.1,", "high = 0.2,"))
    with pytest.raises(InputError) as caught:
        planned(2)
    assert "space.optimizer.lr.high = 0.1, not 0.2: --fork starts a new study" in str(caught.value)
    fork = planned(2, fork=True)
    assert fork.name == "plain_cnn-2"
    tune(fork, ears())
    # the changed file now finds its own, also without being asked to fork, and so does the old one
    assert planned(2).name == "plain_cnn-2"
    study_file.write_text(study_file.read_text().replace("high = 0.2,", "high = 0.1,"))
    assert planned(2).name == "plain_cnn"
    assert planned(2, name="beside").name == "plain_cnn-beside"


@pytest.mark.parametrize("storage", [None, "sqlite:///{}/other.db"])
def test_stored_study_without_its_storage_is_never_replaced(planned, fake, ears, tmp_path, storage):
    """As in a fresh clone, which has the committed study.json and no journal."""
    first = planned(1)
    tune(first, ears())
    write_study(first.store, first.name, first.ledger)
    (first.folder / JOURNAL).unlink()
    stored = (first.folder / "study.json").read_bytes()
    where = {"storage": storage and storage.format(tmp_path)}
    with pytest.raises(InputError, match=r"study\.json without its storage, .*: --fork starts .* --name NAME"):
        planned(2, **where)
    # as optuna-dashboard leaves one where there is none
    (first.folder / JOURNAL).touch()
    with pytest.raises(InputError, match="without its storage"):
        planned(2, **where)
    fork = planned(1, fork=True, **where)
    tune(fork, ears())
    write_study(fork.store, fork.name, fork.ledger)
    # the same command goes on with it, also without being asked to fork
    assert [planned(2, fork=f, **where).name for f in (True, False)] == ["plain_cnn-2"] * 2
    assert planned(2, name="beside", **where).name == "plain_cnn-beside"
    assert (first.folder / "study.json").read_bytes() == stored


def test_two_studies_of_one_name_are_refused_before_either_is_made(study_file, faces, tmp_path):
    fixed = {"source": faces, "results": tmp_path / "results", "budget": "full", "devices": "cpu"}
    with pytest.raises(InputError, match="two different studies would be called plain_cnn: --fork numbers them"):
        plan_studies(f"plain_cnn,{study_file}", **fixed)
    assert not (tmp_path / "results").exists()
    assert [p.name for p in plan_studies(f"plain_cnn,{study_file}", fork=True, **fixed)] == ["plain_cnn", "plain_cnn-2"]


def test_database_keeps_out_of_the_folder_of_a_journal(planned, tmp_path):
    """Before anything is stored of the journal's study."""
    planned(1)
    database = f"sqlite:///{tmp_path}/shared.db"
    with pytest.raises(InputError, match=r"study plain_cnn goes on from the journal in .*plain_cnn, .*: --fork starts"):
        planned(1, storage=database)
    assert planned(1, storage=database, fork=True).name == "plain_cnn-2"


def test_database_of_another_optuna_is_named(planned, tmp_path):
    database = f"{tmp_path}/old.db"
    planned(1, storage=f"sqlite:///{database}")
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'v2.4.0.a'")
    with pytest.raises(InputError, match=r"^--storage sqlite:.*old\.db: .*optuna storage upgrade"):
        planned(1, storage=f"sqlite:///{database}")


def test_study_whose_journal_is_empty_is_told_from_one_that_is_not_there(planned):
    plan = planned(1)
    write_study(plan.store, plan.name, plan.ledger)
    (plan.folder / JOURNAL).write_bytes(b"")
    with pytest.raises(InputError, match=f"plain_cnn has only its study.json here; {JOURNAL}, .*, holds no study"):
        ledgers(plan.store, "plain_cnn", None)
    with pytest.raises(
        InputError, match=r"no study 'plain_\*' with its storage in .* \(there are: none; ferbench tune"
    ):
        ledgers(plan.store, "plain_*", None)


def test_limit_of_a_study_stays_until_another_is_given(planned, study_file, faces, tmp_path):
    fixed = {"source": faces, "results": tmp_path / "results", "devices": "cpu"}

    def limit(budget="full", models=f"{study_file},vgg16"):
        return plan_studies(models, budget=budget, **fixed)[0].ledger.limit.amount

    limit("short", "vgg16")
    # where a study is refused no other is made
    with pytest.raises(InputError, match="study vgg16 was begun with budget"):
        limit()
    assert not (tmp_path / "results" / "studies" / "plain_cnn").exists()
    # trials of studies/defaults.toml
    assert limit(models=str(study_file)) == 40
    assert planned(50).ledger.limit.amount == 50
    assert limit(models=str(study_file)) == 50


def test_stored_study_is_not_replaced_by_another_of_a_database(planned, fake, study_file, tmp_path):
    first = planned(1)
    write_study(first.store, first.name, first.ledger)
    (first.folder / JOURNAL).unlink()
    study_file.write_text(study_file.read_text().replace("high = 0.1,", "high = 0.2,"))
    database = f"sqlite:///{tmp_path}/shared.db"
    planned(1, storage=database, results=tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"is another one in .*study\.json than in its storage: --fork"):
        planned(1, storage=database)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"protocol": "oracle"}, "--protocol oracle: a study must not choose on test"),
        ({"workers": 0}, "--workers 0: at least 1"),
        ({"overrides": {"optimizer.lr": 0.1}}, "--set optimizer.lr: the study searches it"),
        ({"overrides": {"lr": 0.1}}, "--set lr: the study searches it"),
        ({"overrides": {"epochs": 3}, "budget": "quick"}, "budget quick sets epochs"),
        ({"devices": "gpu"}, "--device gpu"),
        ({"name": "a/b"}, "--name 'a/b'"),
        ({"storage": "nonsense"}, "--storage: a URL such as"),
        ({"storage": "sqlite:////nowhere/at/all.db"}, "cannot be reached"),
        ({"storage": "postgresql://u:secret@host:port/x"}, "--storage: a URL such as"),
        ({"storage": "u:secret"}, "--storage: a URL such as"),
        ({"storage": "postgresql+nodriver://u:secret@localhost/x"}, "its driver is not installed"),
        ({"storage": "postgresql+psycopg://u:secret@localhost:1/x"}, "cannot be reached"),
    ],
)
def test_impossible_studies_are_refused_in_a_line(planned, changes, said):
    with pytest.raises(InputError) as caught:
        planned(2, **changes)
    message = str(caught.value)
    assert said in message and "\n" not in message and "secret" not in message


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ('"imbalance.strategy" = { choices = ["none", "crt"] }', "crt starts from a finished run"),
        ('"imbalance.strategy" = { choices = ["none", "focal+ldam"] }', "both have loss of their own"),
        ('"imbalance.strategy" = { choices = ["none", "drs+effective_number"] }', "corrects twice"),
    ],
)
def test_strategies_that_a_trial_cannot_have(planned, study_file, space, said):
    study_file.write_text(f"[space]\n{space}\n")
    with pytest.raises(InputError, match=said):
        planned(2)


def test_condition_on_what_the_budget_decides(faces, tmp_path):
    from ferbench.study.plan import plan_studies

    file = tmp_path / "plain_cnn.toml"
    both = "when = { 'training.batch_size' = [%s] } }"
    file.write_text(
        "[space]\n'training.batch_size' = { choices = [32, 64] }\n"
        f"'optimizer.momentum' = {{ low = 0.5, high = 0.95, {both % '32'}\n"
        f"'optimizer.lr' = {{ low = 1e-4, high = 0.1, log = true, {both % '64'}\n"
    )
    (plan,) = plan_studies(str(file), source=faces, budget="quick", results=tmp_path / "results")
    # batches of 32: what counts with them counts, what counts with others does not
    assert list(plan.space.dimensions) == ["optimizer.momentum"]
    file.write_text("[space]\n'training.batch_size' = { choices = [32, 64] }\n")
    with pytest.raises(InputError, match="budget quick leaves nothing to search"):
        plan_studies(str(file), source=faces, budget="quick", results=tmp_path / "results")


def test_what_the_budget_decides_is_not_searched(faces, tmp_path):
    from ferbench.study.plan import plan_studies

    (plan,) = plan_studies("plain_cnn", source=faces, budget="quick", results=tmp_path)
    assert "training.batch_size" not in plan.space.dimensions
    assert "budget quick sets batch_size = 32: it is not searched" in plan.notes


def test_several_objectives_have_a_front_and_no_pruning(planned, fake, ears):
    plan = planned(10, objectives=["macro_f1", "parameters"])
    tune(plan, ears())
    record = read_study(plan.name, plan.ledger)
    assert {t.state for t in record.trials} == {"complete"}
    from ferbench.report.study_figures import front

    chosen = front(record)
    for t in record.trials:
        better = [o for o in record.trials if o.values[0] > t.values[0] and o.values[1] < t.values[1]]
        assert not (better and t in chosen)
    assert record.best in chosen and chosen == sorted(chosen, key=lambda t: -t.values[0])
    assert plan.ledger.study.directions == [
        optuna.study.StudyDirection.MAXIMIZE, optuna.study.StudyDirection.MINIMIZE,
    ]  # fmt: skip


def test_a_trial_begins_on_the_device_with_the_fewest(planned, fake):
    plan = planned(4, devices="cpu,cuda:1")
    assert plan.devices == ("cpu", "cuda:1")
    assert [plan.free_device(busy) for busy in ([], ["cpu"], ["cuda:1"], ["cpu", "cuda:1", "cuda:1"])] == [
        "cpu", "cuda:1", "cpu", "cpu",
    ]  # fmt: skip


def test_trials_side_by_side_are_on_devices_of_their_own(planned, fake, ears, monkeypatch):
    """The baseline takes long; each of the others begins when the other device is free."""
    plan = planned(4, devices="cpu,cuda:1", workers=2)
    fake.order("0 3 rest\n")
    begun: dict[int, str] = {}
    job = StudyPlan.job

    def noted(self, number, params, device):
        begun.setdefault(number, device)
        return job(self, number, params, device)

    monkeypatch.setattr(StudyPlan, "job", noted)
    monkeypatch.setattr(StudyPlan, "probes", lambda self: [])

    class Ears(ears):
        def on_trial_end(self, trial, best):
            super().on_trial_end(trial, best)
            if len(self.ends) == 3:
                fake.go()

    tune(plan, Ears())
    assert begun == {0: "cpu", 1: "cuda:1", 2: "cuda:1", 3: "cuda:1"}


def test_a_database_that_goes_away_is_told_in_a_line(planned, fake, monkeypatch):
    from ferbench.cli.tune import _go_on

    def gone(*_):
        raise OperationalError("SELECT", {}, Exception("server closed the connection"))

    plan = planned(4)
    monkeypatch.setattr(plan.ledger, "ask", gone)
    monkeypatch.setattr(plan.ledger, "trials", gone)
    with pytest.raises(InputError, match="--storage: lost: server closed the connection; the same command"):
        _go_on(plan, False)


def test_a_study_of_another_version_is_told_in_a_line(planned, fake):
    plan = planned(4)
    table = json.loads(plan.ledger.study.user_attrs["spec"])
    del table["pruner"]
    plan.ledger.study.set_user_attr("spec", json.dumps(table))
    with pytest.raises(InputError, match="study plain_cnn, spec: field 'pruner' is missing"):
        studies(plan.store, "*", None)


def test_journal_is_opened_by_others(planned, fake, ears):
    """As optuna-dashboard does."""
    plan = planned(2)
    tune(plan, ears())
    storage, _ = open_journal(plan.folder)
    (summary,) = optuna.get_all_study_summaries(storage)
    assert summary.study_name == plan.name and summary.n_trials == 2


def test_stop_signal_ends_everything(planned, fake, tmp_path, rows, words):
    fake.order("1 3 sleep\n")
    process = fake.start(*words(tmp_path / "results", 4))
    fake.wait_until(lambda: ("1", "2") in fake.trained())
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    plan = planned(4)
    assert [(r.number, r.state) for r in rows(plan)] == [(0, "complete"), (1, "waiting")]
    # what is known so far is written
    assert (plan.folder / "study.json").is_file()
