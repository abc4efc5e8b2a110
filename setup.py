"""Beside pyproject.toml: a built package holds the commit that it was built from."""

from __future__ import annotations

import runpy
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent


class BuildWithCommit(build_py):
    """Copies the modules, and notes the clone's commit beside them."""

    def run(self) -> None:
        """Do so; an editable install runs from the clone, which knows better."""
        super().run()
        known = runpy.run_path(str(ROOT / "ferbench" / "_commit.py"))
        noted = Path(self.build_lib) / "ferbench" / known["COMMIT_FILE"]
        # of an earlier build
        noted.unlink(missing_ok=True)
        if not self.editable_mode and (commit := known["commit_of"](ROOT)):
            noted.write_text(commit, encoding="utf-8")


setup(cmdclass={"build_py": BuildWithCommit})
