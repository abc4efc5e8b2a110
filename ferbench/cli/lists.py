"""`ferbench list`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class Kind(StrEnum):
    """What `ferbench list` can show."""

    models = "models"
    strategies = "strategies"
    recipes = "recipes"
    metrics = "metrics"
    protocols = "protocols"
    budgets = "budgets"
    fields = "fields"


def list_(kind: Annotated[Kind, typer.Argument(help="What to list.")]) -> None:
    """List models, strategies, recipes, metrics, protocols, budgets, or the fields of a recipe with their defaults."""
    for row in _rows(kind):
        print("  ".join(row).rstrip())


def _rows(kind: Kind) -> list[list[str]]:
    rows: list[tuple[str, ...]]
    if kind is Kind.models:
        from ferbench.models import MODELS

        rows = [(m.name, f"{m.parameters / 1e6:6.2f} M", f"{m.macs / 1e6:6.1f} MMAC", m.paper) for m in MODELS if m.parameters and m.macs]  # fmt: skip  # noqa: E501
        rows.append(("timm:NAME", "", "", "any network of pytorch-image-models"))
    elif kind is Kind.strategies:
        from ferbench.training.imbalance import STRATEGIES

        rows = [(s.name, s.formula, s.paper) for s in STRATEGIES]
    elif kind is Kind.metrics:
        from ferbench.evaluation.metrics import METRICS

        rows = [(m.name, "higher is better" if m.higher_is_better else "lower is better", m.description) for m in METRICS]  # fmt: skip  # noqa: E501
    elif kind is Kind.protocols:
        from ferbench.data.protocol import PROTOCOLS

        rows = [(p.name, p.title) for p in PROTOCOLS]
    elif kind is Kind.budgets:
        from ferbench.inputs import budgets, load_budget

        rows = [
            (
                name,
                f"{b.fraction:.0%} of the images",
                f"{b.epochs or 'own'} epochs",
                f"batches of {b.batch_size or 'own size'}",
                about,
            )
            for name, about in budgets().items()
            for b in [load_budget(name)]
        ]
    elif kind is Kind.fields:
        from ferbench.inputs import described_fields

        # as --set takes them: false, not False
        rows = [(n, "" if default is None else str(default).lower(), said) for n, default, said in described_fields()]
    else:
        from ferbench.inputs import recipe_names
        from ferbench.toml import shipped

        rows = [(name, str(shipped("baselines", f"{name}.toml"))) for name in recipe_names()]
    widths = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
    return [[cell.ljust(w) for cell, w in zip(row, widths, strict=True)] for row in rows]
