"""Plain values as JSON texts, in attributes of our files and headers."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from mrisps.errors import FileError

__all__ = ["JsonValue", "from_json", "to_json"]

JsonValue: TypeAlias = "bool | int | float | str | Sequence[JsonValue] | Mapping[str, JsonValue] | None"
"""What goes into a JSON text. Numbers that are not finite become null."""


def to_json(value: JsonValue) -> str:
    """Write a value as JSON with sorted keys."""
    plain = json.loads(json.dumps(value, default=dict), parse_constant=lambda _: None)
    return json.dumps(plain, sort_keys=True)


def from_json(text: str, path: Path, field: str) -> JsonValue:
    """Read a JSON text of a file; a FileError if it is none, or nested too deeply."""
    try:
        value: JsonValue = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FileError(path, f"is no valid JSON: {error}", field=field) from error
    return value
