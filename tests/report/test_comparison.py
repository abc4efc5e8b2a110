from __future__ import annotations

import re

import numpy as np
import pytest

from ferbench.errors import InputError
from ferbench.evaluation.metrics import score
from ferbench.evaluation.predictions import predictions_of
from ferbench.evaluation.statistics import mcnemar
from ferbench.records.store import Store
from ferbench.report.comparison import compare_entries

CLASSES = ("angry", "happy", "sad")
LABELS = np.repeat(np.arange(3, dtype=np.uint8), (100, 60, 40))


def with_answers(run, wrong: list[int]):
    """A run that has the test images right but for those, and says "angry" there ("happy" on angry ones)."""
    record, (val, _) = run
    predicted = LABELS.copy()
    predicted[wrong] = np.where(LABELS[wrong] == 0, 1, 0)
    ids = [f"test-{i:05d}" for i in range(len(LABELS))]
    test = predictions_of("test", CLASSES, ids, LABELS, 4.0 * np.eye(3)[predicted])
    return record.model_copy(update={"scores": {"val": score(val), "test": score(test)}}), [val, test]


@pytest.fixture
def duel(tmp_path, make_run) -> Store:
    """VGG16 has sad images 160 to 179 wrong besides what ResNet-18 has wrong: 0 to 4; ResNet-18 alone 5 and 6."""
    store = Store(tmp_path / "duel")
    store.write_run(*with_answers(make_run("resnet18", 0), list(range(7))))
    store.write_run(*with_answers(make_run("vgg16", 0), [*range(5), *range(160, 180)]))
    return store


# 193 of 200 against 175: 9 points; discordant 20 and 2
def test_the_better_one_in_a_sentence(duel):
    result = compare_entries(duel, "resnet18", "vgg16")
    assert result.result.p == mcnemar(20, 2) < 0.001
    assert re.fullmatch(
        r"ResNet-18 is 9\.0 points better than VGG16-BN in accuracy, 95 % interval \d+\.\d to \d+\.\d, "
        r"p < 0\.001 \(McNemar, mid-p\)\.",
        result.sentence(),
    )
    # whichever is named first
    assert compare_entries(duel, "vgg16", "resnet18").sentence() == result.sentence()


def test_class_that_makes_the_difference(duel):
    lines = compare_entries(duel, "resnet18", "vgg16").to_lines()
    head = "Recall by class, ResNet-18 less VGG16-BN, in points; classes that differ (Holm over 3 classes): sad +50.0"
    assert head in lines
    # recalls of sad 40/40 and 20/40
    line = next(line for line in lines if line.startswith("  sad"))
    assert "recall 100.0 and  50.0 %" in line
    assert "40 images" in line
    angry = next(line for line in lines if line.startswith("  angry"))
    assert "( -2.0" in angry
    happy = next(line for line in lines if line.startswith("  happy"))
    assert "p = 1.000" in happy


def test_alike_is_not_separable(duel, make_run):
    duel.write_run(*with_answers(make_run("plain_cnn", 0), list(range(3, 12))))
    sentence = compare_entries(duel, "resnet18", "plain_cnn").sentence()
    assert sentence.startswith(
        "ResNet-18 and Plain CNN are not separable in accuracy: ResNet-18 leads by 1.0 points, 95 % "
    )


def test_lower_is_better_for_a_calibration_score(duel):
    sentence = compare_entries(duel, "vgg16", "resnet18", metric="nll").sentence()
    assert re.match(r"ResNet-18 is 0\.\d+ better than VGG16-BN in NLL, 95 % interval 0\.\d+ to 0\.\d+, p <", sentence)


def test_entries_by_label_slug_and_track(duel, make_run):
    run = with_answers(make_run("vgg16", 0, strategy="focal"), list(range(40)))
    duel.write_run(*run)
    by_label = compare_entries(duel, "ResNet-18", "VGG16-BN + focal", track="fer2013-full")
    assert by_label.entries[1].slug == "vgg16-focal"
    assert compare_entries(duel, "resnet18-none", "vgg16-focal").sentence() == by_label.sentence()


def test_a_models_name_is_not_its_other_views(duel, make_run):
    record, splits = with_answers(make_run("resnet18", 0), [1, 2])
    spec = record.spec.model_copy(update={"tta": "flip"})
    duel.write_run(record.model_copy(update={"id": spec.id, "spec": spec}), splits)
    assert compare_entries(duel, "resnet18", "vgg16").entries[0].variant == ""
    assert compare_entries(duel, "resnet18", "ResNet-18 (TTA flip)").entries[1].slug == "resnet18-none-TTA_flip"


def test_errors(duel, make_run):
    for a, b, words, message in [
        ("resnet18", "resnet", {}, "no entry 'resnet' in any track .nearest: resnet18-none.*all 2: leaderboard.csv"),
        ("resnet18", "resnet18", {}, "the same entry of fer2013-full"),
        ("resnet18", "vgg16", {"track": "fer2013-fll"}, "no track 'fer2013-fll' .known: fer2013-full"),
        ("resnet18", "vgg16", {"metric": "acuracy"}, "unknown metric 'acuracy' .did you mean accuracy"),
    ]:
        with pytest.raises(InputError, match=message):
            compare_entries(duel, a, b, **words)


def test_a_models_name_is_its_shipped_recipe(duel, make_run):
    for rate in (0.5, 0.7):
        duel.write_run(*with_answers(make_run("vgg16", 0, overrides={"optimizer.lr": rate}), [1]))
        duel.write_run(*with_answers(make_run("plain_cnn", 0, overrides={"optimizer.lr": rate}), [1]))
    assert compare_entries(duel, "resnet18", "vgg16").entries[1].differs == {}
    assert compare_entries(duel, "resnet18", "vgg16-none-lr_0.5").entries[1].differs == {"optimizer.lr": 0.5}
    several = "'plain_cnn' is several entries of fer2013-full: plain_cnn-none-lr_0.[57], plain_cnn-none-lr_0.[57]$"
    with pytest.raises(InputError, match=several):
        compare_entries(duel, "resnet18", "plain_cnn")


def test_views_of_the_same_trainings_are_compared_over_the_seeds_that_both_have(duel, make_run):
    duel.write_run(*with_answers(make_run("resnet18", 1), [1]))
    record, splits = with_answers(make_run("resnet18", 1), [1, 2])
    spec = record.spec.model_copy(update={"tta": "flip"})
    duel.write_run(record.model_copy(update={"id": spec.id, "spec": spec}), splits)
    result = compare_entries(duel, "resnet18", "resnet18-none-TTA_flip")
    assert [e.seeds for e in result.entries] == [(1,), (1,)]
    assert result.result.difference == pytest.approx(1 / 200)
    # against another training all seeds count
    assert compare_entries(duel, "resnet18", "vgg16").entries[0].seeds == (0, 1)


def test_entries_of_two_tracks_are_not_compared(duel, make_run):
    duel.write_run(*with_answers(make_run("plain_cnn", 0, budget="quick"), [1]))
    told = "not in one track: resnet18 is in fer2013-full; plain_cnn is in fer2013-quick"
    with pytest.raises(InputError, match=told):
        compare_entries(duel, "resnet18", "plain_cnn")


def test_one_seed_is_told_to_be_one_draw(duel, make_run):
    assert any("One seed is one draw" in line for line in compare_entries(duel, "resnet18", "vgg16").to_lines())
    for model in ("resnet18", "vgg16"):
        duel.write_run(*with_answers(make_run(model, 1), [1]))
    assert not any("One seed" in line for line in compare_entries(duel, "resnet18", "vgg16").to_lines())


def test_seeds_vary_as_those_of_the_table_do(duel, make_run):
    alone = compare_entries(duel, "resnet18", "vgg16")
    assert alone.several == 0
    # other entries of one seed, or of another budget, say nothing of it
    duel.write_run(*with_answers(make_run("plain_cnn", 0), list(range(3))))
    for seed in (0, 1):
        duel.write_run(*with_answers(make_run("plain_cnn", seed, budget="quick"), list(range(60 * seed))))
    assert compare_entries(duel, "resnet18", "vgg16").result == alone.result
    # 3 and 56 of 200 wrong: with seeds like that, 9 points are nothing
    duel.write_run(*with_answers(make_run("plain_cnn", 1), list(range(56))))
    among = compare_entries(duel, "resnet18", "vgg16")
    assert (among.several, among.result.test, alone.result.test) == (1, "paired bootstrap", "McNemar, mid-p")
    assert alone.result.p < 0.001 < 0.2 < among.result.p
    assert among.result.difference == alone.result.difference
    told = "In the difference seeds are taken to vary as in the one entry of this table with several seeds"
    assert [any(told in line for line in found.to_lines()) for found in (among, alone)] == [True, False]
    # recalls too: the seeds differ in angry images, 97 and 44 of 100 right, and in no sad one
    widths = [{c.name: np.ptp(c.comparison.interval) for c in found.classes} for found in (alone, among)]
    assert widths[1]["angry"] > 5 * widths[0]["angry"] and widths[1]["sad"] == pytest.approx(widths[0]["sad"])
    # of views of the same trainings seed by seed
    record, splits = with_answers(make_run("plain_cnn", 1), list(range(50)))
    spec = record.spec.model_copy(update={"tta": "flip"})
    duel.write_run(record.model_copy(update={"id": spec.id, "spec": spec}), splits)
    assert compare_entries(duel, "plain_cnn", "plain_cnn-none-TTA_flip").several == 0


def test_predictions_of_other_images_are_refused(duel, make_run):
    record, splits = with_answers(make_run("plain_cnn", 0), [1])
    duel.write_run(record, [splits[0], splits[1].take(np.arange(150))])
    with pytest.raises(InputError, match="their predictions are of different images"):
        compare_entries(duel, "resnet18", "plain_cnn")
