"""Every suite measures something real, on little data."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import get_args

import pytest
import torch

from ferbench import bench
from ferbench.bench import accuracy, growth, inference, parts, run_suite, start, training
from ferbench.bench.accuracy import measure_time_to_accuracy
from ferbench.bench.growth import measure_growth
from ferbench.bench.inference import Task, measure_inference
from ferbench.bench.parts import WHOLE, measure_parts
from ferbench.bench.sides import Conventional, ModelAlone, Ours, Validation
from ferbench.bench.start import measure_start
from ferbench.bench.training import measure_training
from ferbench.cli.bench import Suites
from ferbench.cli.bench import bench as bench_command
from ferbench.data.dataset import Dataset
from ferbench.environment import Arithmetic
from ferbench.errors import InputError, Interrupted, RunFailedError
from ferbench.plan import make_plan
from ferbench.probe import Choice
from ferbench.records.bench import BenchRow, Suite
from ferbench.report.speed import render, tables

from .conftest import CPU


def samples(record) -> dict[str, dict[str, int]]:
    return {row.name: {unit: len(values) for unit, values in row.samples.items()} for row in record.rows}


def test_training_times_every_side_in_every_round(drawn, spec_of):
    record = measure_training(spec_of(), drawn, "cpu", rounds=2, seconds=0.01)
    assert samples(record) == {
        "ferbench": {"images/s": 2},
        "conventional fp32": {"images/s": 2},
        "conventional autocast": {"images/s": 2},
        "model alone": {"images/s": 2},
        "matrix product": {"GMAC/s": 2},
        "validation": {"images/s": 2},
    }
    assert record.settings["arithmetic"] == "fp32 channels_last"
    assert (record.settings["train images"], record.settings["val images"]) == (70, 35)
    assert record.subject == "plain_cnn" and record.environment.device_type == "cpu"
    # mirror images are no part of training
    twice = measure_training(spec_of(**{"model.flip_tta": True}), drawn, "cpu", rounds=1, seconds=0.01)
    assert twice.settings["MACs"] == record.settings["MACs"]


class Told:
    """A side whose speed is the number of its process."""

    def __init__(self, *_) -> None: ...

    def images_per_second(self, batches: int) -> float:
        return os.getpid()


def test_each_side_has_a_process_of_its_own(drawn, spec_of, tests_found_in_processes, monkeypatch):
    for side in ("Ours", "Conventional", "ModelAlone", "Validation"):
        monkeypatch.setattr(training, side, Told)
    with training._sides(spec_of(), drawn, CPU) as sides:
        processes = [speed(1) for speed in sides.values()]
    assert len({*processes, os.getpid()}) == 6


def test_ours_and_the_model_alone_keep_freed_memory_and_the_conventional_loop_does_not(drawn, spec_of, monkeypatch):
    kept = []
    monkeypatch.setattr(training, "keep_freed_memory", lambda: kept.append(True))
    expected = {Ours: 1, ModelAlone: 1, Validation: 1, Conventional: 0}
    for side, times in expected.items():
        kept.clear()
        training._made(side, spec_of(), drawn, CPU)
        assert len(kept) == times, side


def test_a_side_that_is_too_slow_is_timed_by_its_first_step(drawn, spec_of, monkeypatch):
    monkeypatch.setattr(training, "SLOW_STEP", 0.0)
    record = measure_training(spec_of(), drawn, "cpu", rounds=3, seconds=0.01)
    assert samples(record)["conventional autocast"] == {"images/s": 1}
    assert "too slow" in record.row("conventional autocast").note


@pytest.mark.parametrize(("decay", "clip"), [(0.0, 1.0), (0.9, 0.0)])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_parts_are_timed_beside_the_loop(precision, decay, clip, drawn, spec_of, monkeypatch):
    arithmetic = Arithmetic(torch.device("cpu"), precision, channels_last=True)
    monkeypatch.setattr(parts, "choose_arithmetic", lambda *_: Choice(arithmetic, {}))
    spec = spec_of(**{"training.ema_decay": decay, "optimizer.clip_norm": clip})
    record = measure_parts(spec, drawn, "cpu", rounds=2, seconds=0.01)
    averages = ["weight average"] if decay else []
    names = [WHOLE, "images: order, augmentation", "forward, loss, backward, clipping", "optimizer", *averages]
    assert samples(record) == {name: {"ms": 2} for name in names}
    assert all(value > 0 for row in record.rows for values in row.samples.values() for value in values)
    (table,) = tables([record])
    shares = [float(row[-1].rstrip("%")) for row in table.rows]
    assert shares[0] == 100 and sum(shares[1:]) == pytest.approx(100, abs=0.5)


def test_command_line_and_records_name_the_same_suites():
    assert [suite.value for suite in Suites] == list(get_args(Suite))


def test_what_is_not_installed_has_not_failed():
    assert not BenchRow(name="onnxruntime", samples={}, note="not installed: onnx").has_failed
    assert not BenchRow(name="eager", samples={"ms at 1": [1.0]}, note="failed once").has_failed
    assert BenchRow(name="eager", samples={}, note="failed: the process was killed (out of memory?)").has_failed


def test_growth_times_each_size_in_turns(drawn, spec_of, monkeypatch):
    monkeypatch.setattr(growth, "SIZES", (16, 40, 500))
    record = measure_growth(spec_of(), drawn, "cpu", rounds=2)
    assert samples(record) == {"16": {"s": 2}, "40": {"s": 2}, "70": {"s": 2}}


def test_inference_runs_each_engine_alone(spec_of, monkeypatch):
    monkeypatch.setattr(inference, "ENGINES", ("eager", "onnxruntime"))
    # an export must not lose the second view
    record = measure_inference(spec_of(**{"model.flip_tta": True}), 7, "cpu", seconds=0.01)
    found = samples(record)
    expected = {"ready s": 1, **{f"MB at {b}": 1 for b in (1, 32, 256)}, **{f"ms at {b}": 10 for b in (1, 32, 256)}}
    assert expected.keys() == found["eager"].keys()
    assert all(found["eager"][unit] >= n for unit, n in expected.items())
    row = record.row("onnxruntime")
    if row.samples:
        assert float(row.note.split()[2]) < 1e-4, row.note
        # torch is not in that process
        assert row.samples["MB at 1"][0] < record.row("eager").samples["MB at 1"][0]
    else:
        assert "not installed" in row.note


def test_engines_take_turns_at_each_batch_size(spec_of, monkeypatch):
    asked = []

    @contextmanager
    def recording(make, task, context=None):
        def ask(method, *words):
            asked.append((task.engine, method, *words[:1]))
            return [1.0]

        yield ask

    monkeypatch.setattr(inference, "apart", recording)
    monkeypatch.setattr(inference, "ENGINES", ("eager", "compiled"))
    record = measure_inference(spec_of(), 7, "cpu", seconds=0.01)
    both = ("eager", "compiled")
    turns = [(e, "passes", 32) for e in both] * inference.TURNS + [(e, "peak_megabytes") for e in both]
    assert asked[: len(both)] == [(e, "ready_seconds") for e in both]
    at_32 = len(both) + len(turns)
    assert asked[at_32 : at_32 + len(turns)] == turns
    assert samples(record)["eager"]["ms at 256"] == inference.TURNS


def test_engine_that_cannot_run_says_why(spec_of, monkeypatch):
    task = Task("eager", spec_of().recipe.model, 7, "nowhere", "fp32", True, "")
    with ExitStack() as processes:
        row = inference._Timed(task, processes).row()
        assert row.note.startswith("failed: RuntimeError: ") and row.has_failed
        monkeypatch.setattr(inference, "find_spec", lambda name: None)
        row = inference._Timed(replace(task, engine="onnxruntime", device="cpu"), processes).row()
    assert row.note == "not installed: onnx, onnxscript, onnxruntime (the extra onnx)" and not row.samples


def test_start_times_commands_and_loads(drawn):
    record = measure_start(drawn, rounds=1)
    assert samples(record) == {
        "ferbench --help": {"s": 1},
        "ferbench list models": {"s": 1},
        "competition CSV, first load": {"s": 1, "MB": 1},
        "competition CSV, cached": {"s": 1, "MB": 1},
    }
    assert record.settings["images"] == 126


def test_start_needs_data_that_fit_the_competitions_table(drawn):
    odd = Dataset("odd", "x", tuple("abcdefgh"), drawn.train, drawn.val, None, "0", False)
    with pytest.raises(InputError, match=r"odd: .*48x48 images of 7 classes"):
        measure_start(odd, rounds=1)


@pytest.mark.parametrize(("target", "note", "epochs"), [(0.0, "reached", 1), (1.0, "not reached", 2)])
def test_time_to_accuracy_counts_from_the_start_of_the_process(target, note, epochs, faces, tmp_path):
    overrides = {"model.input_size": 16, "training.epochs": 2, "training.start_size": 0}
    plan = make_plan(
        "plain_cnn", source=faces, budget="full", overrides=overrides, results=tmp_path / "r", device="cpu"
    )
    before = accuracy.process_age()
    record = measure_time_to_accuracy(plan, plan.specs[0], target)
    (row,) = record.rows
    assert row.note == note
    assert len(row.samples["s"]) == len(row.samples["val accuracy"]) == epochs
    assert before < row.samples["s"][0] <= accuracy.process_age()
    assert not (tmp_path / "r").exists(), "a benchmark leaves no run"


def test_recipes_of_one_model_have_records_of_their_own(faces, tmp_path, monkeypatch):
    evened = []
    measure = parts.measure_parts
    monkeypatch.setattr(parts, "measure_parts", lambda spec, *args: evened.append(spec) or measure(spec, *args))
    words = {"models": "plain_cnn,plain_cnn_fast", "seeds": (0,), "target": 0.0, "rounds": 1, "seconds": 0.01}
    for overrides in ({"model.input_size": 16}, {"model.input_size": 16, "mixup": 0.2}):
        words["overrides"] = overrides
        done = list(run_suite("parts", **words, source=faces, results=tmp_path / "r", device="cpu"))
        assert len(done) == 2
    assert sorted(p.stem for p in (tmp_path / "r").rglob("*.json")) == [
        "parts-plain_cnn_input_size_16",
        "parts-plain_cnn_input_size_16_mixup_0.2",
        "parts-plain_cnn_plain_cnn_fast_input_size_16",
        "parts-plain_cnn_plain_cnn_fast_input_size_16_mixup_0.2",
    ]
    record = done[1][0]
    assert record.subject == "plain_cnn (plain_cnn_fast, input_size=16, mixup=0.2)"
    changes = record.settings["changes"].split(", ")
    assert {"model.input_size = 16", "augment.mixup = 0.2", "optimizer.name = muon"} < set(changes)
    # evened out
    assert not any("start_size" in c or "epochs" in c for c in changes)
    assert f"- {record.subject}: `{record.settings['changes']}`" in render([record])
    recipes = [spec.recipe for spec in evened]
    # one size and one stage, but mixing where it is asked for
    assert {r.training.start_size for r in recipes} == {0}
    assert [r.augment.mixup for r in recipes] == [0.0, 0.0, 0.2, 0.2]


def test_target_is_reached_at_the_whole_size_and_later_runs_do_not_count_earlier_ones(faces, tmp_path, monkeypatch):
    overrides = {"model.input_size": 32, "training.epochs": 3, "training.start_size": 16, "training.growth": 1.0}
    words = {"models": "plain_cnn", "overrides": overrides, "seeds": (0, 1), "target": 0.0, "rounds": 1, "seconds": 1.0}
    suite = run_suite("accuracy", **words, source=faces, results=tmp_path / "r", device="cpu")
    # by a clock that only these runs' epochs and beginnings look at: the process is 100 s old when the first begins
    ages = iter([100.0, 100.0, 101.0, 102.0, 103.0, 110.0, 111.0, 112.0, 113.0])
    for module in (accuracy, bench):
        monkeypatch.setattr(module, "process_age", lambda: next(ages))
    rows = [record.rows[0] for record, _ in suite]
    assert [r.note for r in rows] == ["reached", "reached"]
    assert [r.samples["s"] for r in rows] == [[101.0, 102.0, 103.0]] * 2


def test_suite_that_breaks_says_which_recipe_broke_it_and_keeps_what_was_measured(faces, tmp_path, monkeypatch):
    measure = parts.measure_parts

    def breaks_vgg(spec, *args):
        if spec.recipe.model.name == "vgg16":
            raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate")
        return measure(spec, *args)

    monkeypatch.setattr(parts, "measure_parts", breaks_vgg)
    words = {"models": "plain_cnn,vgg16", "overrides": {"model.input_size": 16}, "seeds": (0,), "target": 0.0}
    suite = run_suite("parts", **words, rounds=1, seconds=0.01, source=faces, results=tmp_path / "r", device="cpu")
    _, path = next(suite)
    with pytest.raises(RunFailedError, match=r"^bench parts: .*vgg16.*: OutOfMemoryError: CUDA out of memory. Tried"):
        next(suite)
    assert path.exists()


def test_failed_run_or_load_takes_no_records_place(faces, tmp_path, monkeypatch):
    words = {"models": "plain_cnn", "overrides": {}, "seeds": (0,), "target": 0.5, "rounds": 1, "seconds": 1.0}
    words |= {"source": faces, "results": tmp_path / "r", "device": "cpu"}
    monkeypatch.setattr(accuracy, "run_many", lambda plan, clock: clock.on_end(None, Failed("OutOfMemoryError: no")))
    with pytest.raises(RunFailedError, match=r"^bench accuracy: .*plain_cnn.*: OutOfMemoryError: no$"):
        list(run_suite("accuracy", **words))
    monkeypatch.setattr(start.subprocess, "run", broken)
    with pytest.raises(RunFailedError, match=r"^bench start: commands and loads: CalledProcessError: Command"):
        list(run_suite("start", **words))
    assert not (tmp_path / "r").exists()


def test_stop_signal_says_that_what_was_measured_is_stored(monkeypatch):
    def stopped(*_, **__):
        raise Interrupted(143)

    monkeypatch.setattr(bench, "run_suite", stopped)
    with pytest.raises(Interrupted, match=r"^stopped; what was measured before is stored$") as stop:
        bench_command(Suites.start)
    assert stop.value.exit_code == 143


@dataclass
class Failed:
    reason: str


def broken(*args, **kwargs):
    raise subprocess.CalledProcessError(1, ["ferbench"])


def test_command_stores_what_it_measured(ferbench, tmp_path):
    done = ferbench("bench", "start", "--data", "synthetic", "--rounds", "1")
    assert done.returncode == 0, done.stderr
    (file,) = (tmp_path / "results" / "bench").glob("*/start-ferbench.json")
    assert str(file.relative_to(tmp_path)) in done.stdout
    assert "what ferbench --help  s 0." in done.stdout
    assert ferbench("report").returncode == 0
    assert "## start: " in (tmp_path / "results" / "speed.md").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing"], "nothing"),
        (["training", "--models", "vgg"], "did you mean vgg16"),
        (["training", "--rounds", "0"], "rounds"),
        (["training", "--seconds", "0"], "seconds"),
        (["accuracy", "--target", "65"], "target"),
        (["training", "--device", "cuda:99"], "cuda:99"),
        (["parts", "--models", "POSTHOC.toml"], "bench parts: posthoc_class_bias starts from a finished run"),
    ],
)
def test_bad_usage_is_one_message_and_exit_code_2(words, message, ferbench, tmp_path):
    (tmp_path / "POSTHOC.toml").write_text(
        "[model]\nname = 'plain_cnn'\n[imbalance]\nstrategy = 'posthoc_class_bias'\n"
    )
    done = ferbench("bench", *words, "--data", "synthetic")
    assert done.returncode == 2
    assert message in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "results").exists()


def test_onnx_process_is_free_of_torch():
    code = "import sys, ferbench.bench.inference; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
