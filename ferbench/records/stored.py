"""What is stored as JSON: the base of its schemas, and how it is read."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from ferbench.errors import InputError
from ferbench.toml import validated

StoredT = TypeVar("StoredT", bound=BaseModel)


class Stored(BaseModel):
    """A table of JSON: frozen, each field of its type, none unknown."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, use_attribute_docstrings=True)


def from_json(kind: type[StoredT], text: str | bytes, where: str) -> StoredT:
    """The checked value of stored JSON.

    Raises:
        InputError: it is none, or a field is missing, unknown or wrong; a line that names the first fault.
    """
    # half the time of the way below, whose messages name the fault
    with suppress(ValidationError):
        return kind.model_validate_json(text)
    try:
        table = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not JSON: {error}") from None
    return validated(kind, table, where)
