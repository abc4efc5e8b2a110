"""Strategies by name, several as one ("ldam+drw"), and which go together."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from ferbench.errors import InputError
from ferbench.spec import AND
from ferbench.training.imbalance import STRATEGIES, Strategy


def strategy_of(name: str) -> Strategy:
    """The strategy of a name, or of several names with + between them ("ldam+drw").

    Raises:
        InputError: a name is unknown, or two parts do the same.
    """
    parts = [STRATEGIES[part] for part in name.split(AND)]
    whole = parts[0]
    for part in parts[1:]:
        whole = _joined(whole, part)
    return replace(whole, name=name)


def _joined(a: Strategy, b: Strategy) -> Strategy:
    both: dict[str, Any] = {
        "title": f"{a.title} + {b.title}",
        "paper": f"{a.paper}; {b.paper}",
        "formula": f"{a.formula}; {b.formula}",
    }
    for part in (a, b):
        if part.posthoc or part.decoupled or part.name == "none":
            raise InputError(f"strategy {a.name}{AND}{b.name}: {part.name} goes with no other")
    for field in fields(Strategy)[4:]:
        of_a, of_b = getattr(a, field.name), getattr(b, field.name)
        if of_a and of_b:
            raise InputError(f"strategy {a.name}{AND}{b.name}: both have {field.name.replace('_', ' ')} of their own")
        both[field.name] = of_a or of_b
    return Strategy(f"{a.name}{AND}{b.name}", **both)


def select_strategies(patterns: str) -> list[Strategy]:
    """The strategies that a comma list of names, globs and sums ("ldam+drw") picks, each once.

    Raises:
        InputError: a name is unknown, a glob picks nothing, or a sum makes no strategy.
    """
    words = [word.strip() for word in patterns.split(",")]
    picked = [[strategy_of(w)] if AND in w else STRATEGIES.select([w]) for w in words if w]
    rows = {row.name: row for group in picked for row in group}
    return list(rows.values()) or STRATEGIES.select(patterns)


def check_corrections(strategy: Strategy) -> None:
    """Refuse to make up twice for how frequent classes are.

    Raises:
        InputError: it does.
    """
    if len(strategy.corrections) > 1:
        raise InputError(
            f"strategy {strategy.name} corrects twice, by {' and by '.join(strategy.corrections)}: rare classes would "
            "be favoured, not balanced (--allow-double-correction runs it)"
        )
