"""Published results on FER2013 and whether they can be what they say; baselines/published.toml holds them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ferbench.report.cells import MISSING, percent
from ferbench.report.entries import Entry
from ferbench.report.leaderboard import Leaderboard
from ferbench.report.table import table
from ferbench.spec import ProtocolName
from ferbench.toml import read_toml, shipped, validated

TEST_SIZES = (3589, 7178)
"""PublicTest or PrivateTest alone, and both."""

How = Literal["rounded", "truncated"]


class Claim(BaseModel):
    """One published number and the protocol behind it."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, use_attribute_docstrings=True)

    system: str
    source: str
    accuracy: str = Field(pattern=r"^\d{1,2}(\.\d+)?$")
    """Per cent, with the digits that were printed."""
    macro_f1: float | None = None
    init: str
    selected_on: str = "unknown"
    """Where the epoch or configuration was chosen."""
    tested_on: str
    n: int | None = None
    """Test images, where that is known."""
    tta: str = "unknown"
    """Views of each test image."""
    protocol: ProtocolName | None = None
    """Ours that is nearest."""
    ours: str | None = None
    """Our model of the same architecture."""
    remarks: str


class _Published(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    claim: list[Claim]


def published() -> list[Claim]:
    """The claims of baselines/published.toml."""
    path = shipped("baselines", "published.toml")
    return validated(_Published, read_toml(path), path.name).claim


def attainable(accuracy: str, n: int) -> tuple[int, How] | None:
    """(k, how) where k right of n images print as this accuracy in per cent, rounded or else truncated; else None."""
    digits = len(accuracy.partition(".")[2])
    unit = Fraction(1, 10**digits)
    printed = Fraction(accuracy)
    # the count nearest to what is printed; halves are rounded up
    k = math.floor(printed * n / 100 + Fraction(1, 2))
    if printed - unit / 2 <= Fraction(100 * k, n) < printed + unit / 2:
        return k, "rounded"
    k = math.ceil(printed * n / 100)
    return (k, "truncated") if Fraction(100 * k, n) < printed + unit else None


def check(claim: Claim) -> str:
    """Which test sizes the accuracy can come from, in a few words such as "4937/7178 only"."""
    found = {n: attainable(claim.accuracy, n) for n in TEST_SIZES}
    words = [
        f"{k}/{n}" + ("" if how == "rounded" else " if truncated")
        for n, hit in found.items()
        if hit
        for k, how in [hit]
    ]
    if len(words) == len(TEST_SIZES):
        # twice the images can give whatever half of them can
        return words[0]
    return f"{words[0]} only" if words else "none of 3,589 and 7,178"


def is_impossible(claim: Claim, n: int = TEST_SIZES[0]) -> bool:
    """Whether no number of right images among n gives the accuracy, rounded or truncated."""
    return attainable(claim.accuracy, n) is None


HEADERS = (
    "system", "accuracy, %", "k/n", "macro-F1", "init", "selected on", "tested on", "TTA", "protocol", "ours, %",
    "source",
)  # fmt: skip
WORDS = tuple(h for h in HEADERS if h not in ("accuracy, %", "macro-F1", "ours, %"))


def rows(board: Leaderboard) -> list[list[str]]:
    """The claims as cells under HEADERS, with our own numbers from a leaderboard."""
    return [
        [
            c.system,
            c.accuracy,
            check(c) if c.n else MISSING,
            MISSING if c.macro_f1 is None else f"{c.macro_f1:.3f}",
            c.init,
            c.selected_on,
            c.tested_on,
            c.tta,
            c.protocol or "unknown",
            _own(c, board),
            c.source,
        ]
        for c in published()
    ]


def _own(claim: Claim, board: Leaderboard) -> str:
    """The best accuracy of the same architecture under the nearest protocol at full budget, and what gave it."""
    found: list[Entry] = [
        entry
        for track in board.tracks
        if track.data.name == "fer2013" and track.budget.name == "full" and track.data.protocol == claim.protocol
        for entry in track.entries
        if entry.model == claim.ours
    ]
    return f"{percent(found[0].test['accuracy'])} ({found[0].label}, {found[0].init})" if found else MISSING


def section(board: Leaderboard) -> Iterator[str]:
    """The part of results/README.md about published results."""
    flagged = [c for c in published() if is_impossible(c)]
    yield "## Published results, and how they came about\n"
    yield (
        "As their sources say. k/n: k right of n test images print as this accuracy, rounded or truncated. Only: no "
        "number of right ones among the 3,589 of one split does: "
        f"{' and '.join(f'{c.accuracy} % ({c.system})' for c in flagged)}. Protocol: ours that is nearest; a "
        "number that was chosen on the images it is tested on is too good. ours: the best of the same architecture "
        "under that protocol at full budget here. None comes with an interval, several seeds or a paired test.\n"
    )
    yield f"{table(HEADERS, rows(board), WORDS)}\n"
    yield "\n".join(f"- {c.system}: {c.remarks}." for c in published() if c.remarks) + "\n"


def to_lines(board: Leaderboard) -> list[str]:
    """The claims as text for a terminal, a paragraph each."""
    lines = []
    for claim, cells in zip(published(), rows(board), strict=True):
        facts = [f"{head} {cell}" for head, cell in zip(HEADERS[2:], cells[2:], strict=True) if cell != MISSING]
        flag = "  (impossible on the 3,589 images of one test split)" if is_impossible(claim) else ""
        lines += [f"{claim.system}: {claim.accuracy} %{flag}", f"  {'; '.join(facts)}"]
        lines += [f"  {claim.remarks}"] if claim.remarks else []
    if not any(_own(claim, board) != MISSING for claim in published()):
        lines.append("ours: no run yet of one of these architectures under its protocol at full budget")
    return lines
