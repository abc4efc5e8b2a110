"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Sequence


def escape(text: str) -> str:
    """The text so that Markdown shows it as it is, also inside a table; a line break becomes a space."""
    for character in ("\\", "|", "`", "*", "[", "]", "~"):
        text = text.replace(character, f"\\{character}")
    return " ".join(text.replace("&", "&amp;").replace("<", "&lt;").split())


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], words: Sequence[str]) -> str:
    """A Markdown table, padded so that it also reads well as text; cells are escaped here.

    Args:
        headers: the columns' headings.
        rows: the cells, one per heading.
        words: the headings of columns that hold words; the others hold numbers and are right-aligned.
    """
    cells = [[escape(cell) for cell in row] for row in (headers, *rows)]
    widths = [max(3, *(len(row[i]) for row in cells)) for i in range(len(headers))]
    right = [h not in words for h in headers]
    rule = ["-" * (w - 1) + ":" if r else "-" * w for w, r in zip(widths, right, strict=True)]
    lines = [
        [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)]
        for row in [cells[0], rule, *cells[1:]]
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
