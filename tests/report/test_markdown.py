from __future__ import annotations

import random
import shlex
import sys

import pytest

from ferbench import variants
from ferbench.inputs import load_budget, load_recipe, parse_override
from ferbench.records.record import ArithmeticUsed
from ferbench.report import markdown
from ferbench.report.commands import run_commands
from ferbench.report.evidence import weigh_all
from ferbench.report.frame import frame
from ferbench.report.leaderboard import build
from ferbench.report.markdown import render
from ferbench.report.remarks import half_width
from ferbench.report.summary import in_short
from ferbench.report.table import escape, table


def text_of(records):
    return render(build(records), records)


def row_of(text: str, word: str) -> list[str]:
    line = next(line for line in text.splitlines() if line.startswith("|") and word in line)
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_table_aligns_and_escapes():
    assert table(["model", "n"], [["a|b", "1"], ["c", "23"]], ["model"]).splitlines() == [
        "| model |   n |",
        "| ----- | --: |",
        "| a\\|b  |   1 |",
        "| c     |  23 |",
    ]


@pytest.mark.parametrize(
    ("raw", "shown"),
    [("a|b", "a\\|b"), ("a\\b", "a\\\\b"), ("a\nb", "a b"), ("<b>&", "&lt;b>&amp;"), ("`x`*y*", "\\`x\\`\\*y\\*")],
)
def test_escape(raw, shown):
    assert escape(raw) == shown


def test_ranking_row(records):
    text = text_of(records)
    assert row_of(text, "ResNet-18")[:8] == [
        "1", "ResNet-18", "none", "2", "90.00 ± 14.14", "0.800 ± 0.283", "83.33 ± 23.57", "87.50 ± 17.68",
    ]  # fmt: skip
    assert row_of(text, "ResNet-18")[9:] == [
        "11.00", "94.00", "1.2 min", "110", "28,160", "scratch", "Test GPU",
    ]  # fmt: skip


def test_page_begins_with_the_answer(store, records):
    board = weigh_all(build(records), store)
    (answer,) = in_short(board)
    assert answer.startswith("**In short**, [FER2013, budget full](#fer2013-budget-full): the highest test accuracy is")
    assert "that of ResNet-18, 90.00 ± 14.14 % (95 % interval " in answer
    assert "lead over VGG16-BN, Plain CNN may be chance. Not trained by their own recipes yet: Eff" in answer
    assert render(board, records).index(answer) < render(board, records).index("| rank")


def test_what_is_not_ranked_or_is_drawn_has_no_answer(make_run):
    for changes in ({"data": "synthetic", "budget": "demo"}, {"protocol": "oracle"}):
        assert list(in_short(build([make_run(**changes)[0]]))) == []
    assert list(in_short(build([]))) == []


def test_page_of_several_tracks_links_them(make_run):
    text = text_of([make_run()[0], make_run(budget="quick")[0]])
    assert "- [FER2013, budget quick](#fer2013-budget-quick)\n" in text
    assert "](#fer2013-budget-full)" not in text_of([make_run(data="synthetic", budget="demo")[0]])


def test_budgets_say_what_their_results_are_no_more_than(make_run):
    said = "6 epochs: it ranks recipes for short trainings, not for long ones."
    assert said in text_of([make_run(budget="short")[0]])
    assert ": it " not in text_of([make_run()[0]]).partition("Data fingerprint")[0]


def test_class_table(records):
    part = text_of(records).split("### F1 by class")[1]
    assert row_of(part, "model") == ["model", "angry", "happy", "sad"]
    assert row_of(part, "Plain CNN") == ["Plain CNN", "1.000", "0.667", "0.667"]
    assert row_of(part, "test images") == ["test images", "2", "2", "1"]


def test_half_width_of_a_run_on_fer2013():
    # 1.96 sqrt(.73 x .27 / 3589)
    assert half_width(0.73, 3589) == pytest.approx(0.014525, abs=1e-6)


def test_single_seeds_are_warned_about(records, make_run):
    assert "One seed is one draw" not in text_of(records)
    # accuracy 4 of 5: 1.96 sqrt(.8 x .2 / 5) = .3506
    assert "about ±35.06 points" in text_of([make_run("vgg16")[0]])


def test_seeds_that_computed_otherwise_are_told(make_run):
    def computed(seed, precision):
        used = precision and ArithmeticUsed(precision=precision, channels_last=True, probe={})
        return make_run("vgg16", seed)[0].model_copy(update={"arithmetic": used})

    text = text_of([computed(0, "bf16"), computed(1, "fp32")])
    assert "The seeds of VGG16-BN did not compute in the same precision: bf16 (seed 0), fp32 (seed 1)." in text
    (row,) = frame(build([computed(0, "bf16"), computed(1, "fp32")])).to_dict("records")
    assert row["precision"] == "bf16; fp32"
    for other in ("bf16", None):
        assert "the same precision" not in text_of([computed(0, "bf16"), computed(1, other)])


def test_shortened_recipes_and_shared_devices_are_told(make_run):
    short = make_run("vgg16", overrides={"training.epochs": 3})[0]
    crowded = make_run("plain_cnn")[0].model_copy(update={"notes": ["up to 4 runs shared the device: slower"]})
    text = text_of([make_run()[0], short, crowded])
    assert "sizes than their models' own recipes: VGG16-BN (epochs=3). Their ranks" in text
    assert "so that their times and speeds are worse than alone: Plain CNN." in text
    text = text_of([make_run()[0]])
    assert "own recipes: " not in text and "worse than alone" not in text


def test_a_single_entry_has_no_ranks_and_groups(store):
    records = [r for r in store.records() if r.spec.recipe.model.name == "vgg16"]
    text = render(weigh_all(build(records), store), records)
    assert "95 % of accuracy" in text
    assert "95 % of ranks" not in text and "Holm" not in text


def test_protocol_and_budget_in_words(make_run):
    text = text_of([make_run(budget="quick")[0]])
    assert "PrivateTest (test) is looked at once per run" in text
    quick = load_budget("quick")
    words = f"{100 * quick.fraction:g} % of each class's training images, {quick.epochs} epochs in batches of "
    assert f"{words}{quick.batch_size}: it shows that everything runs, not what a model can do" in text
    assert "`f00d`" in text
    other = text_of([make_run(data="faces")[0]])
    assert "PrivateTest" not in other
    assert "the epoch is chosen on val" in other
    assert "all training images, each recipe's own number of epochs" in other


def test_synthetic_data_are_called_so(make_run):
    assert "say nothing about FER2013" in text_of([make_run(data="synthetic", budget="demo")[0]])


def test_failed_runs_are_shown(records, make_failure):
    text = text_of([*records, make_failure("gave up | CUDA\nerror", strategy="focal")])
    assert "gave up \\| CUDA error" in text
    assert "resnet18-focal-s0-" in text


def test_a_large_track_shows_the_first_and_says_where_all_are(monkeypatch, records, make_run, make_failure):
    failures = [make_failure(f"reason {i}", strategy="focal", overrides={"optimizer.lr": 0.01 + i}) for i in range(3)]
    every = [*records, *failures]
    assert "The first" not in text_of(every)
    monkeypatch.setattr(markdown, "ROWS", 2)
    monkeypatch.setattr(sys.modules["ferbench.report.figures"], "LARGE", 2)
    monkeypatch.setattr(sys.modules["ferbench.report.figures"], "MOST_NAMED", 1)
    text = text_of(every)
    assert "learning curves (the best 1 of 3)](" in text
    assert "The first 2 of 3 entries by rank; all are in `leaderboard.csv`." in text
    assert "The first 2 of 3 runs; all are in `runs/`." in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert [any(word in line for line in tables) for word in ("ResNet-18", "VGG16-BN", "Plain CNN")] == [1, 1, 0]
    shown = sorted(failures, key=lambda r: r.id)[:2]
    assert [f.id in text for f in failures] == [f in shown for f in failures]
    # commands for what is shown, environments of all
    assert "--models vgg16,resnet18 --imbalance none --seeds 0,1" in text and "plain_cnn --imbalance" not in text
    assert [f"optimizer.lr={f.spec.recipe.optimizer.lr}" in text for f in failures] == [f in shown for f in failures]
    assert "- 9 runs: ferbench 1" in text


def test_confusion_matrices_of_the_best_are_called_so(monkeypatch, records):
    assert "<summary>Confusion matrices</summary>" in text_of(records)
    monkeypatch.setattr(sys.modules["ferbench.report.figures"], "MATRICES", 2)
    text = text_of(records)
    assert "<summary>Confusion matrices (the best 2 of 3)</summary>" in text
    assert text.count("confusion matrix](") == 2


def test_no_runs():
    assert "no runs yet" in render(build([]), [])


def test_order_of_records_does_not_matter(records, make_run, make_failure):
    records = [*records, make_run(budget="quick")[0], make_failure("x", strategy="focal"), make_run(init="imagenet")[0]]
    text = text_of(records)
    for seed in range(3):
        random.Random(seed).shuffle(records)
        assert text_of(records) == text


def test_command_of_a_product(records):
    assert run_commands(r.spec for r in records) == [
        "ferbench run --models plain_cnn,vgg16,resnet18 --imbalance none --seeds 0,1 --budget full --data PATH"
    ]


def test_shipped_recipe_is_read_once_for_all_seeds(monkeypatch, make_run):
    specs = [make_run(seed=0)[0].spec.model_copy(update={"seed": seed}) for seed in range(20)]
    read = []
    monkeypatch.setattr(variants, "load_recipe", lambda *a, **k: read.append(a) or load_recipe(*a, **k))
    assert len(run_commands(specs)) == len(read) == 1


def test_commands_of_what_is_no_product(make_run):
    asked = [("resnet18", 0, "none"), ("resnet18", 1, "none"), ("resnet18", 0, "focal"), ("vgg16", 0, "focal")]
    specs = [make_run(m, s, strategy=t, data="synthetic", budget="demo")[0].spec for m, s, t in asked]
    lines = run_commands(specs)
    made = set()
    for line in lines:
        words = shlex.split(line)
        options = dict(zip(words[2::2], words[3::2], strict=True))
        assert options["--data"] == "synthetic"
        made |= {
            (m, int(s), t)
            for m in options["--models"].split(",")
            for s in options["--seeds"].split(",")
            for t in options["--imbalance"].split(",")
        }
    assert made == set(asked)
    assert len(lines) == 2


def test_command_spells_out_a_changed_recipe(make_run):
    changes = {"optimizer.lr": 0.01, "schedule.name": "constant", "imbalance.params.gamma": 2.0}
    spec = make_run(strategy="focal", init="imagenet", overrides=changes, data="ferplus-majority")[0].spec
    (line,) = run_commands([spec])
    words = shlex.split(line)
    again = dict(parse_override(words[i + 1]) for i, word in enumerate(words) if word == "--set")
    assert load_recipe("resnet18", strategy="focal", overrides=again) == spec.recipe
    assert line.endswith("--data PATH --labels ferplus=FILE")


def test_commands_set_nothing_that_the_budget_sets(make_run):
    changes = {"training.epochs": 12, "training.batch_size": 128, "optimizer.lr": 0.01}
    (line,) = run_commands([make_run(budget="quick", overrides=changes)[0].spec])
    assert "--set optimizer.lr=0.01" in line and "training." not in line
    (full,) = run_commands([make_run(overrides=changes)[0].spec])
    assert "--set training.epochs=12" in full


def test_command_of_a_double_correction_can_be_given(make_run):
    twice, once = (make_run(strategy=s)[0].spec for s in ("balanced_softmax+drw", "ldam+drw"))
    (line,) = run_commands([twice])
    assert "--imbalance balanced_softmax+drw " in line and " --allow-double-correction " in line
    assert "--allow" not in run_commands([once])[0]


def test_only_the_two_kinds_of_ferplus_have_labels(make_run):
    (line,) = run_commands([make_run(data="ferplus_mine")[0].spec])
    assert line.endswith("--data PATH")


def test_recipes_are_explained_but_for_what_the_budget_decides(make_run):
    changes = {"optimizer.lr": 0.01, "training.epochs": 7, "augment.flip": 0.0, "augment.zoom": 0.0}
    text = text_of([make_run(budget="quick", overrides=changes)[0]])
    assert "`augment.zoom = 0.0`" in text and "training.epochs" not in text


def test_recipes_are_explained(make_run):
    changes = {"optimizer.lr": 0.01, "training.epochs": 7, "augment.flip": 0.0}
    text = text_of([make_run("plain_cnn")[0], make_run("plain_cnn", overrides=changes)[0]])
    assert "`training.epochs = 7`" in text


def test_environments_are_counted(records):
    assert "- 6 runs: ferbench 1 (commit abc), Python 1, torch 1, Test GPU (cuda), 4 threads" in text_of(records)
