"""Settings: frozen dataclasses whose values are checked, from Python, from JSON and from ``KEY=VALUE`` texts.

    @settings
    @dataclass(frozen=True)
    class Example:
        tolerance: Positive = 1e-3
        levels: Annotated[int, Range(ge=1, le=6)] = 1

Whatever is wrong is a :class:`mrisps.errors.SettingsError` with the path of the key: ``solver.levels: expected an integer <=
6, got 9``. pydantic checks the types and the ranges. Rules between several fields are in ``__post_init__``.

The hash of settings has to outlive changes of the classes. A new field gets ``field(default=..., metadata=LATER)``: while it
has its default, it is not in the hash. A field that is removed goes into the class variable ``GONE``, with the value that stands
for what the code does now: it stays in the hash, and old records that have this value can still be read.
"""

import functools
import hashlib
import inspect
import json
import typing
from collections.abc import Collection, Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass
from types import MappingProxyType, NoneType, UnionType
from typing import Annotated, TypeVar

from annotated_types import Interval as Range
from pydantic import ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError, WrapValidator
from pydantic import ValidatorFunctionWrapHandler as Check
from pydantic.dataclasses import dataclass as checked_dataclass

from mrisps.errors import SettingsError

__all__ = [
    "LATER",
    "Count",
    "Fraction",
    "Index",
    "NonNegative",
    "Number",
    "Positive",
    "Range",
    "Sha256",
    "Text",
    "fingerprint",
    "from_plain",
    "identity",
    "settings",
    "to_plain",
    "with_values",
]

T = TypeVar("T")

LATER: Mapping[str, bool] = MappingProxyType({"later": True})
"""Metadata of a field that older recipes do not have: left out of the hash while it has its default."""


def _as_given(value: object, check: Check) -> object:
    """An integer stays one: 8 and 8.0 are written differently, and so have different hashes."""
    checked = check(value)
    return value if type(value) is int else checked


Number = Annotated[float, Field(allow_inf_nan=False), WrapValidator(_as_given)]
"""A finite number."""
Positive = Annotated[Number, Range(gt=0)]
NonNegative = Annotated[Number, Range(ge=0)]
Fraction = Annotated[Number, Range(ge=0, le=1)]
Count = Annotated[int, Range(ge=1)]
Index = Annotated[int, Range(ge=0)]
Text = Annotated[str, StringConstraints(pattern=r"\S")]
"""A text that is not empty."""
Sha256 = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]


def settings(kind: type[T]) -> type[T]:
    """Check the fields of a frozen dataclass whenever an object of it is made; to be written above ``@dataclass(frozen=True)``."""
    checked = checked_dataclass(kind, frozen=True, config=ConfigDict(strict=True, extra="forbid"))
    plain_init = checked.__init__

    @functools.wraps(plain_init)
    def init(self: object, *arguments: object, **values: object) -> None:
        try:
            plain_init(self, *arguments, **values)
        except ValidationError as error:
            raise _in_our_words(checked, error) from error

    checked.__init__ = init  # type: ignore[method-assign]  # the one place where pydantic's errors become ours
    checked.__doc__ = kind.__doc__
    hints = typing.get_type_hints(kind)
    plain = [given.replace(annotation=hints[name]) for name, given in inspect.signature(kind).parameters.items()]
    # what help() and notebooks show: types without their rules
    checked.__signature__ = inspect.Signature(plain)  # type: ignore[attr-defined]  # shown by help()
    return typing.cast(type[T], checked)


def from_plain(kind: type[T], plain: Mapping[str, object]) -> T:
    """Make settings from the plain values of a JSON object.

    Raises
    ------
    SettingsError
        A key is unknown or missing, or a value has the wrong type or range.
    """
    try:
        made: T = TypeAdapter(kind).validate_json(json.dumps(_without_gone(kind, plain), default=str))
        return made
    except ValidationError as error:
        raise _in_our_words(kind, error) from error
    except RecursionError as error:
        raise SettingsError("settings", "are nested too deeply") from error


def to_plain(record: object) -> dict[str, object]:
    """Plain values, as JSON has them: objects, lists, texts, numbers, true, false and null."""
    plain: dict[str, object] = json.loads(json.dumps(asdict(record)))  # type: ignore[call-overload]  # a dataclass
    return plain


def with_values(record: T, texts: Mapping[str, str]) -> T:
    """A copy with some values replaced.

    Parameters
    ----------
    record
        The settings.
    texts
        Path of a key -> value as text, for example ``{"solver.tolerance": "1e-4", "crop": "48,48", "mask": "none"}``.

    Raises
    ------
    SettingsError
        A key is unknown, or a value has the wrong type or range.
    """
    plain = to_plain(record)
    for path, text in texts.items():
        kind, place, part = type(record), plain, record
        *outer, last = path.split(".")
        for key in outer:
            _hint(kind, key, path)
            part = getattr(part, key)
            if not is_dataclass(part):
                raise SettingsError(path, f"{key} is {part!r}, it has no keys")
            kind, place = type(part), typing.cast(dict[str, object], place[key])
        value = _read(text, _alternatives(_hint(kind, last, path)))
        if value != place[last] or isinstance(value, bool):  # 8.0 instead of 8 would be another hash
            place[last] = value
    return from_plain(type(record), plain)


def fingerprint(record: object, leave_out: Collection[str] = ()) -> str:
    """SHA-256 of all values but those of the keys to leave out; see the top of this module for fields that come and go."""
    kept = {key: value for key, value in identity(record).items() if key not in leave_out}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def identity(record: object) -> dict[str, object]:
    """The values that the hash is of: these stay what they are while settings mean the same, whatever fields come and go."""
    kept = dict(getattr(record, "GONE", {}))
    for entry in fields(record):  # type: ignore[arg-type]  # a dataclass
        content = getattr(record, entry.name)
        default = entry.default if entry.default_factory is MISSING else entry.default_factory()
        if not (entry.metadata.get("later") and content == default):
            kept[entry.name] = identity(content) if is_dataclass(content) else content
    plain: dict[str, object] = json.loads(json.dumps(kept))
    return plain


def _without_gone(kind: object, plain: object) -> object:
    """Plain values without the fields that are gone. One with another value than the code stands for stays: it is unknown."""
    if not isinstance(plain, Mapping):
        return plain
    gone = {key: value for other in _alternatives(kind) for key, value in getattr(other, "GONE", {}).items()}
    hints = _hints(kind)
    return {
        key: _without_gone(hints.get(key), value)
        for key, value in plain.items()
        if not (key in gone and gone[key] == value)
    }


def _alternatives(hint: object) -> tuple[object, ...]:
    # `Literal[...] | None` is a typing.Union, `int | None` a types.UnionType
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, UnionType) else (hint,)


def _hints(kind: object) -> dict[str, object]:
    """Key -> type of the fields of a dataclass, or of the one among the alternatives of a type."""
    for other in _alternatives(kind):
        if is_dataclass(other):
            hints = typing.get_type_hints(other)
            return {entry.name: hints[entry.name] for entry in fields(other)}
    return {}


def _hint(kind: object, key: str, path: str) -> object:
    hints = _hints(kind)
    if key not in hints:
        raise SettingsError(path, f"unknown key; known here: {', '.join(hints)}")
    return hints[key]


def _read(text: str, kinds: tuple[object, ...]) -> object:
    """The value that a text stands for, or the text, where it stands for none of these kinds."""
    if NoneType in kinds and text.lower() == "none":
        return None
    if bool in kinds and text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in kinds:
        if kind in (int, float):
            try:
                return int(text) if kind is int else float(text)
            except ValueError:
                continue
        if typing.get_origin(kind) is tuple:
            return [_read(item.strip(), typing.get_args(kind)[:1]) for item in text.split(",")]
    return text


def _in_our_words(kind: type, error: ValidationError) -> SettingsError:
    # an unknown key first: it is why another one is missing
    first = min(error.errors(include_url=False), key=lambda entry: entry["type"] != "unexpected_keyword_argument")
    place, value, cause = list(first["loc"]), first["input"], first.get("ctx", {}).get("error")
    if place and isinstance(place[0], int):  # an argument without its name
        place[0] = [*_hints(kind), *map(str, range(place[0] + 1))][place[0]]
    keys = [str(key) for key in place if not isinstance(key, int)]
    known, hint = _hints(kind), typing.cast(object, kind)
    for key in keys:
        known, hint = _hints(hint), _hints(hint).get(key)
    if cause is not None:  # what a __post_init__ raised
        name, _, message = str(cause).partition(": ")
        keys, place = [*keys, name], [*place, name]
    elif first["type"] == "missing":
        message = "is missing"
    elif first["type"] == "unexpected_keyword_argument":
        message = f"unknown key; known here: {', '.join(known)}"
    else:
        message = first["msg"].replace("Input should be ", "expected ")
        for words, ours in _WORDS.items():
            message = message.replace(words, ours)
        if int in (*_alternatives(hint), *typing.get_args(hint)):
            message = message.replace("a number", "an integer")
        message += f", got {value!r:.80}"
    if len(keys) < len(place):
        message += f" (element {place[-1]})"
    return SettingsError(".".join(keys) or kind.__name__, message)


_WORDS = {
    "greater than or equal to": "a number >=",
    "greater than": "a number >",
    "less than or equal to": "a number <=",
    "less than": "a number <",
    "a valid ": "a ",
    "a integer": "an integer",
    "a boolean": "True or False",
    "an instance of ": "",
    "String should ": "expected a text to ",
    "Tuple should ": "expected a tuple to ",
}
