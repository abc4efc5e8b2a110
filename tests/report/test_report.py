from __future__ import annotations

import gc
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ferbench.errors import InputError
from ferbench.evaluation.metrics import score
from ferbench.records.store import Store
from ferbench.report import check, write
from ferbench.report.evidence import weigh_all
from ferbench.report.leaderboard import build
from ferbench.report.terminal import show


def test_write_then_check(store):
    assert check(store)[:2] == ["README.md", "leaderboard.csv"]
    paths = write(store)
    assert all(p.is_file() for p in paths)
    assert [p.relative_to(store.root).as_posix() for p in paths][:3] == [
        "README.md", "leaderboard.csv", "figures/fer2013-full-curves.png",
    ]  # fmt: skip
    assert check(store) == []


def test_readme_links_exactly_the_figures(store):
    write(store)
    text = (store.root / "README.md").read_text(encoding="utf-8")
    linked = {part.partition(")")[0] for part in text.split("](")[1:] if not part.startswith("#")}
    assert linked == {f"figures/{p.name}" for p in (store.root / "figures").iterdir()}


def test_check_finds_stale_text_and_missing_figures(store, make_run):
    write(store)
    with (store.root / "README.md").open("a", encoding="utf-8") as file:
        file.write("\n")
    (store.root / "figures" / "fer2013-full-curves.png").unlink()
    assert check(store) == ["README.md", "figures/fer2013-full-curves.png"]
    write(store)
    store.write_run(*make_run(budget="quick"))
    assert check(store)[:2] == ["README.md", "leaderboard.csv"]


def test_writing_twice_gives_the_same_bytes(store):
    first = {p: p.read_bytes() for p in write(store)}
    assert {p: p.read_bytes() for p in write(store)} == first


def test_records_are_read_once(store):
    reads = []

    class Counting(Store):
        def records(self):
            reads.append(self.root)
            return super().records()

    write(Counting(store.root))
    assert check(Counting(store.root)) == []
    assert len(reads) == 2


@pytest.mark.parametrize("on", [True, False])
def test_garbage_collection_is_left_as_it_was(on, store, tmp_path):
    was_on = gc.isenabled()
    try:
        (gc.enable if on else gc.disable)()
        write(store)
        assert gc.isenabled() is on
        with pytest.raises(InputError):
            check(Store(tmp_path / "absent"))
        assert gc.isenabled() is on
    finally:
        (gc.enable if was_on else gc.disable)()


def test_no_record_outlives_its_report(store):
    """Not even until the garbage is collected, which takes a second for 10,000 records."""
    program = (
        "import gc, sys\n"
        "from ferbench.records.record import RunRecord\nfrom ferbench.records.store import Store\n"
        "from ferbench.report import together, write\n"
        "together.usable_cores = lambda: 1\n"
        "gc.disable()\n"
        "write(Store(sys.argv[1]))\n"
        "print(sum(isinstance(thing, RunRecord) for thing in gc.get_objects()))\n"
    )
    done = subprocess.run([sys.executable, "-c", program, store.root], capture_output=True, text=True, check=True)
    assert done.stdout == "0\n"


def test_check_looks_at_studies(tmp_path):
    shutil.copytree(Path(__file__).parents[2] / "results" / "studies", tmp_path / "studies")
    store = Store(tmp_path)
    (name,) = [s.name for s in store.studies()]
    write(store)
    assert check(store) == []
    (tmp_path / "studies" / name / "README.md").unlink()
    (tmp_path / "studies" / name / "trials.csv").write_text("spoiled")
    (tmp_path / "studies" / name / "history.png").unlink()
    assert check(store) == [f"studies/{name}/{file}" for file in ("README.md", "trials.csv", "history.png")]


def test_classes_may_have_any_name(tmp_path, runs):
    """What stands between dollars is no formula."""
    store, names = Store(tmp_path), ("a$\\frac$", "b_$x^$", "|c|")
    for record, splits in runs[:1]:
        renamed = [replace(p, classes=names) for p in splits]
        scores = {p.split: score(p) for p in renamed}
        store.write_run(record.model_copy(update={"scores": scores}), renamed)
    write(store)
    assert check(store) == []


def test_readme_of_another_is_never_replaced(tmp_path):
    (tmp_path / "README.md").write_text("# My thesis\n")
    with pytest.raises(InputError, match=r"README.md is not from `ferbench report`: move it"):
        write(Store(tmp_path))
    assert [p.name for p in tmp_path.iterdir()] == ["README.md"]
    assert (tmp_path / "README.md").read_text() == "# My thesis\n"


def test_no_results_folder(tmp_path):
    with pytest.raises(InputError, match="no results folder"):
        write(Store(tmp_path / "absent"))


def test_terminal_shows_every_model_and_failure(capsys, records, make_failure):
    show(build([*records, make_failure("[red]gave up", strategy="focal")]))
    shown = capsys.readouterr().out
    assert shown.partition("\n")[0].endswith(": this command's runs")
    assert all(word in shown for word in ("ResNet-18", "VGG16-BN", "Plain CNN", "90.00 ± 14.14", "[red]gave up"))


def test_terminal_shows_intervals_and_groups_and_breaks_no_name(capsys, store, make_run):
    name = {"strategy": "posthoc_logit_adjustment", "overrides": {"model.input_size": 24}}
    store.write_run(*make_run("vgg16", 1, **name))
    show(weigh_all(build(store.records()), store))
    lines = capsys.readouterr().out.splitlines()
    heads = lines[2].split()
    assert [heads[i] for i in (0, 1, 2, -1)] == ["rank", "group", "seeds", "model"]
    (line,) = (line for line in lines if line.endswith("VGG16-BN (input_size=24) + posthoc_logit_adjustment"))
    assert re.search(r"\d+\.\d to \d+\.\d", line)


def test_import_takes_neither_torch_nor_pandas_nor_matplotlib():
    code = (
        "import sys, ferbench.report, ferbench.report.rescore, ferbench.report.terminal; "
        "print([m for m in ('torch', 'pandas', 'matplotlib', 'seaborn', 'sklearn', 'rich') if m in sys.modules])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_reporting_and_scoring_load_no_torch(store):
    code = (
        "import sys\n"
        "from ferbench.records.store import Store\nfrom ferbench.report import check, write\n"
        "from ferbench.report.rescore import rescore\n"
        f"store = Store({str(store.root)!r}); write(store)\n"
        "assert check(store) == [] and rescore(store, write=False) == []\n"
        "assert 'torch' not in sys.modules"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
