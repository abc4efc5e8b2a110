"""Speed tables are computed from the stored samples."""

from __future__ import annotations

import pytest

from ferbench.errors import InputError
from ferbench.records.bench import BenchRecord, BenchRow, rounded
from ferbench.records.store import Store
from ferbench.report import check, write
from ferbench.report.speed import render, tables


@pytest.fixture
def bench(environment):
    def build(
        suite: str, rows: dict[str, dict[str, list[float]]], subject: str = "plain_cnn", **settings
    ) -> BenchRecord:
        return BenchRecord(
            suite=suite,
            subject=subject,
            finished_at="2026-01-01T00:00:00+00:00",
            environment=environment,
            settings=settings,
            rows=[BenchRow(name=name, samples=samples) for name, samples in rows.items()],
        )

    return build


@pytest.fixture
def training(bench):
    rates = {
        "ferbench": [100.0, 50.0, 90.0],
        "conventional fp32": [50.0, 20.0, 45.0],
        # too slow for more than its first step
        "conventional autocast": [9.0],
        "model alone": [100.0, 100.0, 100.0],
    }
    rows = {name: {"images/s": samples} for name, samples in rates.items()}
    rows |= {"matrix product": {"GMAC/s": [60.0]}, "validation": {"images/s": [300.0]}}
    settings = {"arithmetic": "fp32 contiguous", "batch size": 64, "input size": 48, "MACs": 100_000_000}
    return bench("training", rows, **settings, **{"train images": 9000, "val images": 600})


def cells(record: BenchRecord) -> dict[str, str]:
    (table,) = tables([record])
    (row,) = table.rows
    return dict(zip(table.headers, row, strict=True))


def test_training_by_hand(training):
    row = cells(training)
    assert (row["ferbench"], row["conventional fp32"], row["model alone"]) == ("90.0", "45.0", "100")
    # the median of each round's own ratio: 2, 2.5, 2
    assert row["ours / fp32"] == "2.00 (2.00 to 2.50)"
    # 1, 0.5, 0.9
    assert row["ours / alone"] == "0.90 (0.50 to 1.00)"
    assert row["ours / autocast"] == "10.0"
    # 90 images/s x 3 x 0.1 GMAC of 60 GMAC/s
    assert row["MFU"] == "45%"
    # 600 / 300 = 2 s beside 9000 / 90 = 100 s
    assert row["validation"] == "2.0%"


def test_inference_by_hand(bench):
    times = [float(t) for t in range(1, 102)]
    rows = {"eager": {"ready s": [1.0], "ms at 32": times, "MB at 32": [412.4]}, "onnxruntime": {}}
    (table,) = tables([bench("inference", rows, arithmetic="bf16 contiguous", **{"input size": 40})])
    eager, onnx = (dict(zip(table.headers, row, strict=True)) for row in table.rows)
    assert (eager["pixels"], eager["arithmetic"], eager["engine"]) == ("40", "bf16 contiguous", "eager")
    assert (onnx["pixels"], onnx["arithmetic"], onnx["engine"]) == ("40", "fp32", "onnxruntime")
    assert (eager["p50, ms"], eager["p99, ms"], eager["passes"]) == ("51.00", "100.00", "101")
    assert (eager["images/s"], eager["peak memory, MB"]) == ("627", "412")
    assert onnx["images/s"] == "–"


def test_growth_by_hand(bench):
    # 1, 9 and 2 ms an image against 2.1, 9 and 1 in the same rounds
    (table,) = tables([bench("growth", {"1000": {"s": [1.0, 9.0, 2.0]}, "3000": {"s": [6.3, 27.0, 3.0]}})])
    expected = [["2.0", "2.000", "1.00 (1.00 to 1.00)"], ["6.3", "2.100", "1.00 (0.50 to 2.10)"]]
    assert [row[2:] for row in table.rows] == expected


def test_accuracy_by_hand(bench):
    rows = {"run": {"s": [60.0, 120.4], "val accuracy": [0.4, 0.6512]}}
    (table,) = tables([bench("accuracy", rows, target=0.65, epochs=10)])
    assert table.rows[0][1:] == ["65%", "", "120", "2 of 10", "65.12%"]


def test_start_shows_the_worst_memory(bench):
    rows = {"first load": {"s": [3.0, 1.0, 2.0], "MB": [200.0, 300.0]}, "help": {"s": [0.25]}}
    (table,) = tables([bench("start", rows, images=35887)])
    assert table.rows == [
        ["first load", "2.00", "1.00 to 3.00", "300", "35,887"],
        ["help", "0.25", "0.25 to 0.25", "–", "–"],
    ]


def test_each_suite_and_machine_has_its_own_table(training, bench):
    elsewhere = training.model_copy(
        update={"environment": training.environment.model_copy(update={"device": "another CPU", "commit": "abc"})}
    )
    other = training.model_copy(update={"subject": "vgg16"})
    text = render([elsewhere, other, training, bench("growth", {"1000": {"s": [1.0]}})])
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## growth: a CPU, 2 threads, torch 1.0",
        "## training: a CPU, 2 threads, torch 1.0",
        "## training: another CPU, 2 threads, torch 1.0",
    ]
    assert "Commit abc." in text and "Commit unknown." in text


def test_stored_and_published(training, tmp_path):
    store = Store(tmp_path)
    path = store.write_bench(training)
    assert path.relative_to(tmp_path).as_posix() == "bench/a-cpu/training-plain_cnn.json"
    assert store.benches() == [training]
    assert tmp_path / "speed.md" in write(store)
    assert check(store) == []
    store.write_bench(training.model_copy(update={"settings": {**training.settings, "MACs": 200_000_000}}))
    assert len(store.benches()) == 1
    assert check(store) == ["speed.md"]
    path.write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match=r"training-plain_cnn.json: field 'suite' is missing"):
        store.benches()


def test_what_failed_takes_no_place_of_what_did_not(training, tmp_path):
    store = Store(tmp_path)
    first, *rest = training.rows
    failed = training.model_copy(update={"rows": [BenchRow(name=first.name, samples={}, note="failed: full"), *rest]})
    assert store.write_bench(failed) and store.write_bench(failed)
    path = store.write_bench(training)
    assert store.write_bench(failed) is None
    assert store.benches() == [training]
    path.write_text("torn", encoding="utf-8")
    assert store.write_bench(failed) == path


def test_a_name_from_timm_is_fit_for_a_path(training):
    assert training.model_copy(update={"subject": "timm:a/b.c"}).id == "a-cpu/training-timm_a_b.c"


def test_samples_keep_five_digits():
    assert rounded([123456.0, 0.0123456789]) == [123460.0, 0.012346]
