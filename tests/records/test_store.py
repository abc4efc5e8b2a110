from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ferbench.errors import InputError
from ferbench.recipe import ImbalanceRecipe
from ferbench.records.record import RunRecord, failed_record
from ferbench.records.store import Store, read_record, weights_digest
from ferbench.spec import RunSpec


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "results")


@pytest.fixture
def done(store, spec, finished, predictions) -> RunRecord:
    """A run that is in the store."""
    record = finished(spec)
    store.write_run(record, predictions)
    return record


def other(spec: RunSpec, seed: int = 4) -> RunSpec:
    return spec.model_copy(update={"seed": seed})


# records


def test_a_run_comes_back_as_it_was(store, spec, done, predictions):
    assert store.record(spec) == done
    assert store.records() == [done]
    for split in predictions:
        stored = store.predictions(spec, split.split)
        assert np.array_equal(stored.probabilities, split.probabilities)
        assert np.array_equal(stored.ids, split.ids)


def test_files_are_where_the_spec_says(store, spec, done):
    folder = store.root / "runs/faces/quick" / spec.id
    assert store.folder(spec) == folder
    assert sorted(p.name for p in folder.iterdir()) == ["record.json", "test.npz", "val.npz"]


def test_records_come_in_the_order_of_their_folders(store, spec, finished):
    specs = [other(spec, seed) for seed in (2, 0, 1)]
    for s in specs:
        store.write_record(finished(s))
    assert [r.spec.seed for r in store.records()] == [0, 1, 2]


def test_no_results_folder_is_said_and_an_empty_one_is_fine(store):
    with pytest.raises(InputError, match="no results folder"):
        store.records()
    store.root.mkdir()
    assert store.records() == []


def changed(record: RunRecord, *path: str | int, value: Any) -> dict[str, Any]:
    """A record's JSON with one field set, or removed by a value of `...`."""
    table = json.loads(record.model_dump_json())
    *parents, last = path
    place = table
    for part in parents:
        place = place[part]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return table


@pytest.mark.parametrize(
    ("path", "value", "fragments"),
    [
        (("schema_version",), 2, ["schema_version = 2"]),
        (("schema_version",), "1", ["schema_version = '1'"]),
        (("status",), "fine", ["status = 'fine'"]),
        (("best_epoch",), "1", ["best_epoch = '1'", "integer"]),
        (("best_epoch",), 1.0, ["best_epoch = 1.0", "integer"]),
        (("history", 0, "lr"), "0.1", ["history.0.lr = '0.1'", "number"]),
        (("history", 0, "lr"), None, ["history.0.lr = None"]),
        (("spec", "seed"), -1, ["spec.seed = -1"]),
        (("spec", "recipe", "optimizer", "lr"), ..., ["'spec.recipe.optimizer.lr' is missing"]),
        (("scores", "val", "n"), True, ["scores.val.n = True"]),
        (("environment", "threads"), ..., ["'environment.threads' is missing"]),
        (("colour",), "red", ["unknown field 'colour'"]),
        (("environment", "device_type"), "tpu", ["environment.device_type = 'tpu'"]),
    ],
)
def test_other_schemas_are_refused(store, spec, done, path, value, fragments):
    file = store.folder(spec) / "record.json"
    file.write_text(json.dumps(changed(done, *path, value=value)))
    for read in (lambda: read_record(file), store.records, lambda: store.is_done(spec)):
        with pytest.raises(InputError) as caught:
            read()
        message = str(caught.value)
        assert message.startswith(f"{file}: ") and "\n" not in message
        assert all(f in message for f in fragments)


@pytest.mark.parametrize(
    ("content", "fragment"),
    [
        (b"", "not JSON"),
        (b'{"id": ', "not JSON"),
        (b"\xff\xfe\xfa binary", "not JSON"),
        (b'{"id": "gr\xfcn"}', "not JSON"),
        (b"[]", "RunRecord"),
        (b"null", "RunRecord"),
        (b'{"id": 3}', "id = 3"),
    ],
)
def test_unreadable_records_are_one_line(content, fragment, tmp_path):
    file = tmp_path / "record.json"
    file.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_record(file)
    message = str(caught.value)
    assert message.startswith(f"{file}: ") and "\n" not in message and fragment in message


def test_missing_record_is_one_line(store, spec):
    with pytest.raises(InputError, match=r"record\.json: No such file"):
        store.record(spec)


# done or not


def test_done_needs_the_record_and_both_predictions(store, spec, done):
    assert store.is_done(spec)
    assert not store.is_done(other(spec))
    for name in ("record.json", "val.npz", "test.npz"):
        file = store.folder(spec) / name
        content = file.read_bytes()
        file.unlink()
        assert not store.is_done(spec), name
        file.write_bytes(content)
    assert store.is_done(spec)


def test_the_record_comes_last(store, spec, done, predictions, monkeypatch):
    """Also where an older run is replaced, whose record must not stand beside the new one's predictions."""
    put = Path.replace

    def fail(path: Path, target: Path) -> Path:
        if target.name == "record.json":
            raise OSError("power failure")
        return put(path, target)

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="power failure"):
        store.write_run(done, predictions, b"weights")
    assert sorted(p.name for p in store.folder(spec).iterdir()) == ["test.npz", "val.npz", "weights.safetensors"]
    assert not store.is_done(spec) and not store.has_record(spec)


def test_full_disk_leaves_the_older_run(store, spec, done, predictions, monkeypatch):
    before = {p.name: p.read_bytes() for p in store.folder(spec).iterdir()}
    fsync, written = os.fsync, []

    def full(file: int) -> None:
        written.append(file)
        if len(written) == 3:
            raise OSError("no space left on device")
        fsync(file)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        store.write_run(done.model_copy(update={"notes": ["new"]}), predictions, b"weights")
    assert {p.name: p.read_bytes() for p in store.folder(spec).iterdir()} == before
    assert store.is_done(spec)


def test_what_was_made_of_a_run_is_done_until_that_is_done_again(store, spec, finished, predictions):
    """To the last: views of a classifier on the frozen backbone of a run."""
    recipe = spec.recipe.model_copy(update={"imbalance": ImbalanceRecipe(strategy="crt", params={})})
    classifier = spec.model_copy(update={"recipe": recipe})
    views = classifier.model_copy(update={"tta": "flip"})
    first, again = (finished(classifier.source).model_copy(update={"finished_at": f"2026-01-0{i}"}) for i in (1, 2))
    made = finished(classifier).model_copy(
        update={"finished_at": "2026-01-03", "source_finished_at": first.finished_at}
    )
    seen = finished(views).model_copy(update={"source_finished_at": made.finished_at})
    for record in (first, made, seen):
        store.write_run(record, predictions)
    assert store.is_done(classifier) and store.is_done(views)
    store.write_run(again, predictions)
    assert store.is_done(classifier.source) and not store.is_done(classifier) and not store.is_done(views)
    # without a record of the run, as where one folder alone was sent, nothing says that it is old
    (store.folder(classifier.source) / "record.json").unlink()
    assert store.is_done(views)


def test_done_from_a_weights_file_until_it_has_another_content(store, spec, finished, predictions, tmp_path):
    file = tmp_path / "weights.pth"
    file.write_bytes(b"first")
    model = spec.recipe.model.model_copy(update={"init": str(file)})
    begun = spec.model_copy(update={"recipe": spec.recipe.model_copy(update={"model": model})})
    record = finished(begun).model_copy(update={"init_digest": weights_digest(str(file))})
    store.write_run(record, predictions)
    assert store.is_done(begun)
    file.write_bytes(b"second")
    assert not store.is_done(begun)
    # of a record from before this was kept, or without the file, nothing can be said
    store.write_record(record.model_copy(update={"init_digest": None}))
    assert store.is_done(begun)
    assert weights_digest("scratch") is None and weights_digest(str(tmp_path / "gone")) is None


def test_failed_run_has_a_record_but_is_not_done(store, spec, environment, finished, predictions):
    store.write_record(failed_record(spec, "out of memory", environment))
    assert store.has_record(spec) and not store.is_done(spec)
    # not even with predictions of an earlier, better time
    for split in predictions:
        store.write(store.folder(spec) / f"{split.split}.npz", split.to_bytes())
    assert not store.is_done(spec)
    assert store.record(spec).reason == "out of memory"
    store.write_run(finished(spec), predictions)
    assert store.is_done(spec)
    assert [r.status for r in store.records()] == ["ok"]


def test_failure_is_stored_over_no_run_that_is_done(store, spec, done, environment):
    store.write_failure(failed_record(spec, "out of memory", environment))
    assert store.is_done(spec) and store.record(spec).status == "ok"
    store.write_failure(failed_record(other(spec), "out of memory", environment))
    assert store.record(other(spec)).reason == "out of memory"
    # its scores are there, whatever else is missing
    (store.folder(spec) / "val.npz").unlink()
    store.write_failure(failed_record(spec, "out of memory", environment))
    assert not store.is_done(spec) and store.record(spec).status == "ok"
    (store.folder(spec) / "record.json").write_text("torn")
    store.write_failure(failed_record(spec, "out of memory", environment))
    assert store.record(spec).reason == "out of memory"


@pytest.mark.parametrize("name", ["copy", "plain_cnn-none-s0-00000000"])
def test_copied_folder_is_no_other_seed(store, spec, done, name):
    folder = store.folder(spec)
    shutil.copytree(folder, folder.with_name(name))
    with pytest.raises(InputError, match=rf"{name}/record.json: is of {spec.id}, whose folder has that name: a copy"):
        store.records()


# whole or not at all


def test_a_file_takes_its_place_at_the_end(store):
    path = store.root / "a/b.txt"
    store.write(path, b"old")
    with store.writing(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert [p.name for p in path.parent.iterdir()] == ["b.txt"]


def test_an_error_while_writing_leaves_the_old_file(store):
    path = store.root / "b.txt"
    store.write(path, b"old")
    with pytest.raises(RuntimeError), store.writing(path) as file:
        file.write(b"half of the n")
        raise RuntimeError
    assert path.read_bytes() == b"old"
    assert [p.name for p in store.root.iterdir()] == ["b.txt"]
    store.write(path, b"new")
    assert path.read_bytes() == b"new"
    assert [p.name for p in store.root.iterdir()] == ["b.txt"]


def test_a_leftover_of_a_record_is_no_record(store, spec, done):
    folder = store.folder(other(spec))
    folder.mkdir()
    (folder / "record.json.partial").write_text("{")
    assert store.records() == [done]


# claims


CLAIM = """
import sys
from ferbench.spec import RunSpec
from ferbench.records.store import Store
with Store(sys.argv[1]).claim(RunSpec.model_validate_json(sys.argv[2])) as claimed:
    print(claimed, flush=True)
    sys.stdin.read()
"""


def claiming(store: Store, spec: RunSpec) -> subprocess.Popen[str]:
    """Another process that claims a run and keeps it until its stdin closes."""
    words = [sys.executable, "-c", CLAIM, str(store.root), spec.model_dump_json()]
    return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_a_claim_excludes_other_processes_until_it_ends(store, spec):
    with store.claim(spec) as claimed:
        assert claimed
        assert claiming(store, spec).communicate("")[0] == "False\n"
    with claiming(store, spec) as holder:
        assert holder.stdout.readline() == "True\n"
        with store.claim(spec) as claimed:
            assert not claimed
        with store.claim(other(spec)) as claimed:
            assert claimed, "another run is free"
        holder.kill()
        holder.wait()
        with store.claim(spec) as claimed:
            assert claimed, "a claim dies with its process"


def test_a_claim_ends_with_an_error(store, spec):
    with pytest.raises(RuntimeError), store.claim(spec):
        raise RuntimeError
    with store.claim(spec) as claimed:
        assert claimed
