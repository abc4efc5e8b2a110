"""`python -m ferbench`."""

from __future__ import annotations

from ferbench.cli import main

main()
