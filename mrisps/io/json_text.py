"""Plain values as JSON texts, in attributes of our files and headers."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from mrisps.errors import FileError

__all__ = ["JsonValue", "from_json", "to_json"]

JsonValue: TypeAlias = "bool | int | float | str | Sequence[JsonValue] | Mapping[str, JsonValue] | None"
"""What goes into a JSON text. Numbers that are not finite become null."""


def to_json(value: JsonValue) -> str:
    """Write a value as JSON with sorted keys."""
    return json.dumps(_finite(value), allow_nan=False, sort_keys=True)


def from_json(text: str, path: Path, field: str) -> JsonValue:
    """Read a JSON text of a file; a FileError if it is none, or nested too deeply."""
    try:
        value: JsonValue = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FileError(path, f"is no valid JSON: {error}", field=field) from error
    return value


def _finite(value: JsonValue) -> JsonValue:
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_finite(item) for item in value]
    return value
