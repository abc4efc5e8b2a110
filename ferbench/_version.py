"""The version, alone in a module so that the build can read it without importing anything."""

from __future__ import annotations

VERSION = "0.1.0"
