"""The commit of a clone; of nothing but the standard library, since setup.py loads it where nothing is installed."""

from __future__ import annotations

import subprocess
from pathlib import Path

COMMIT_FILE = "commit.txt"
"""In a built package: what `commit_of` said of the clone."""


def commit_of(root: Path) -> str | None:
    """A clone's commit, "+dirty" behind it if code or inputs changed since; None: no clone, or git is not here."""
    if not (root / ".git").exists():
        return None
    try:
        head = _git(root, "rev-parse", "--short=12", "HEAD").strip()
        dirty = _git(root, "status", "--porcelain", "--", "ferbench", "baselines").strip()
    except (OSError, subprocess.SubprocessError):
        return None
    return head + ("+dirty" if dirty else "")


def _git(root: Path, *words: str) -> str:
    return subprocess.run(
        ["git", "-C", str(root), *words], capture_output=True, text=True, check=True, timeout=10
    ).stdout
