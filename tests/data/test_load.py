"""Which data `load` takes, and what `register` keeps."""

from __future__ import annotations

import os

import pytest

from ferbench import data
from ferbench.data import load
from ferbench.errors import InputError


def test_data_come_from_the_argument_then_the_environment_then_the_registration(table, tree, tmp_path, monkeypatch):
    monkeypatch.setenv("FERBENCH_CONFIG", str(tmp_path / "config"))
    assert data.resolve() == "synthetic"
    assert data.register(tree).edition == "folders"
    assert data.resolve() == str(tree)
    assert load().edition == "folders"
    monkeypatch.setenv("FERBENCH_DATA", str(table))
    assert load().edition == "competition-csv"
    assert load(tree).edition == "folders"
    assert data.resolve("synthetic:4") == "synthetic:4"


def test_registration_is_kept_only_of_what_can_be_read(tmp_path, monkeypatch):
    monkeypatch.setenv("FERBENCH_CONFIG", str(tmp_path / "config"))
    (tmp_path / "bad").write_text("nonsense")
    with pytest.raises(InputError, match="unknown format"):
        data.register(tmp_path / "bad")
    assert data.resolve() == "synthetic"

    (tmp_path / "faces").mkdir()
    monkeypatch.setenv("FERBENCH_DATA", " ")
    # an empty path would be the current folder
    for blank in ("", " "):
        with pytest.raises(InputError, match=f"^data: nothing at '{blank}'"):
            data.register(blank)


def test_registration_stays_where_the_next_one_fails(table, tmp_path, monkeypatch):
    monkeypatch.setenv("FERBENCH_CONFIG", str(tmp_path / "config"))
    data.register(table)
    odd = os.fsdecode(b"fac\xe9s")
    with pytest.raises(InputError):
        data.register(tmp_path / odd)
    assert data.resolve() == str(table)
    assert [p.name for p in (tmp_path / "config").iterdir()] == ["data"]


def test_names_that_are_no_text_are_refused(table, tmp_path):
    odd = tmp_path / os.fsdecode(b"fac\xe9s.csv")
    try:
        table.rename(odd)
    except OSError:
        pytest.skip("this file system holds names in Unicode only")
    with pytest.raises(InputError, match=r"fac\\udce9s.csv' is not UTF-8: rename it"):
        load(odd)


def test_a_registered_data_set_can_be_forgotten(tree, tmp_path, monkeypatch):
    monkeypatch.setenv("FERBENCH_CONFIG", str(tmp_path / "config"))
    data.register(tree)
    assert data.forget() and data.resolve() == "synthetic"
    assert not data.forget()


def test_synthetic_faces_can_be_registered(tmp_path, monkeypatch):
    monkeypatch.setenv("FERBENCH_CONFIG", str(tmp_path / "config"))
    data.register("synthetic:3")
    assert data.resolve() == "synthetic:3"
    with pytest.raises(InputError, match="whole number"):
        data.register(f"synthetic:{'9' * 5000}")


def test_relative_path_is_registered_as_absolute(table, tmp_path, monkeypatch):
    monkeypatch.setenv("FERBENCH_CONFIG", str(tmp_path / "config"))
    monkeypatch.chdir(table.parent)
    data.register(table.name)
    monkeypatch.chdir("/")
    assert data.resolve() == str(table)


@pytest.mark.parametrize("origin", ["data", "FERBENCH_DATA", "data registered by `ferbench data add`"])
def test_path_to_nothing_is_refused_with_where_it_came_from(origin, table, tmp_path, monkeypatch):
    monkeypatch.setenv("FERBENCH_CONFIG", str(tmp_path / "config"))
    gone = str(tmp_path / "gone")
    if origin == "FERBENCH_DATA":
        monkeypatch.setenv("FERBENCH_DATA", gone)
    elif origin != "data":
        table.rename(gone)
        data.register(gone)
        (tmp_path / "gone").unlink()
    with pytest.raises(InputError) as caught:
        load(gone if origin == "data" else None)
    assert str(caught.value) == f"{origin}: nothing at {gone!r}"
