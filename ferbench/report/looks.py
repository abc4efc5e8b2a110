"""What tells entries apart in figures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ferbench.report.entries import Entry

_MARKERS = "os^Dv<>phX"
_DASHES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (6, 1.5, 1, 1.5)), (0, (8, 2)), (0, (2, 2)), (0, (6, 1, 1, 1, 1, 1)))  # fmt: skip  # noqa: E501


@dataclass(frozen=True)
class Looks:
    """Colour, marker and dashes of an entry in a figure."""

    color: tuple[float, float, float]
    marker: str
    dash: Any


def looks_of(entries: Sequence[Entry]) -> dict[str, Looks]:
    """By entry's slug: colours stand for models, markers and dashes for strategies and recipes.

    With a single model colours stand for the treatments too; where dashes are used up they begin again, paler.
    """
    import matplotlib as mpl

    # told apart by colour-blind readers too (arXiv 2107.02270)
    palette: list[Any] = mpl.color_sequences["petroff10"]
    models = sorted({e.model for e in entries})
    treatments = _treatments(entries)
    order = sorted(set(treatments.values()))
    looks = {}
    for entry in entries:
        m, t = models.index(entry.model), order.index(treatments[entry.slug])
        color = palette[(m if len(models) > 1 else t) % len(palette)]
        if len(models) > 1 and t >= len(_DASHES):
            color = tuple((1 + part) / 2 for part in mpl.colors.to_rgb(color))
        looks[entry.slug] = Looks(color, _MARKERS[t % len(_MARKERS)], _DASHES[t % len(_DASHES)])
    return looks


def _treatments(entries: Sequence[Entry]) -> dict[str, tuple[int, bool, str]]:
    """By entry's slug, a key that sorts each family's first recipe before any second one, and no strategy first."""
    families: dict[tuple[str, str], list[Entry]] = defaultdict(list)
    for entry in sorted(entries, key=lambda e: (e.variant != "scratch", e.variant)):
        families[entry.model, entry.strategy].append(entry)
    return {e.slug: (i, e.strategy != "none", e.strategy) for family in families.values() for i, e in enumerate(family)}
