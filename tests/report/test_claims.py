from __future__ import annotations

import pytest

from ferbench.models import MODELS
from ferbench.report.claims import attainable, check, is_impossible, published, section
from ferbench.report.leaderboard import Leaderboard, build


def test_flags_exactly_the_two_that_3589_images_cannot_give():
    assert {c.accuracy for c in published() if is_impossible(c)} == {"68.78", "75.97"}


@pytest.mark.parametrize(
    ("accuracy", "words"),
    [
        ("68.78", "4937/7178 only"),
        ("75.97", "5453/7178 only"),
        ("73.28", "2630/3589"),
        ("73.70", "2645/3589"),
        ("71.16", "2554/3589"),
        # of the counts that print as 75.2 the nearest
        ("75.2", "2699/3589"),
        # 2864/3589 = 79.7994 %
        ("79.79", "2864/3589 if truncated"),
    ],
)
def test_counts_behind_the_figures(accuracy, words):
    claim = next(c for c in published() if c.accuracy == accuracy)
    assert check(claim) == words


@pytest.mark.parametrize(
    ("accuracy", "n", "found"),
    [
        # 2/3 = 66.666..., 1/3 = 33.333...
        ("66.67", 3, (2, "rounded")),
        ("66.66", 3, (2, "truncated")),
        ("33.33", 3, (1, "rounded")),
        ("33.34", 3, None),
        ("66.7", 3, (2, "rounded")),
        ("67", 3, (2, "rounded")),
        ("66", 3, (2, "truncated")),
        # 1/8 = 12.5: halves go up
        ("13", 8, (1, "rounded")),
        ("12", 8, (1, "truncated")),
        ("50.00", 2, (1, "rounded")),
    ],
)
def test_attainable_by_hand(accuracy, n, found):
    assert attainable(accuracy, n) == found


@pytest.mark.parametrize("n", [7, 3589])
def test_attainable_is_what_trying_every_count_finds(n):
    rounded = {f"{int(1000 * k / n + 0.5) / 10:.1f}" for k in range(n)}
    for tenth in range(0, 1000, 7):
        accuracy = f"{tenth / 10:.1f}"
        found = attainable(accuracy, n)
        assert (found is not None and found[1] == "rounded") == (accuracy in rounded), accuracy


def test_our_models_are_ours():
    assert {c.ours for c in published() if c.ours} <= set(MODELS.names)


def test_our_own_number_stands_beside_the_claim(make_run):
    records = [make_run("resnet18", seed)[0] for seed in (0, 1)]
    oracle = [make_run("resnet18", seed, protocol="oracle")[0] for seed in (0, 1)]
    line = next(
        row for row in "\n".join(section(build(records + oracle))).splitlines() if "ResNet18 with tricks" in row
    )
    assert "90.00 ± 14.14 (ResNet-18, scratch)" in line
    # not where it is under another protocol
    line = next(row for row in "\n".join(section(build(records))).splitlines() if "ResNet18 with tricks" in row)
    assert "90.00" not in line


def test_every_claim_is_in_the_table():
    text = "\n".join(section(Leaderboard(())))
    assert all(f"| {c.accuracy} " in text or f" {c.accuracy} |" in text for c in published())
    assert len(published()) == 13
