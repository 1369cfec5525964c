"""What an output says of its making, the same as JSON beside it, and making it again to compare.

Everything here comes from files, which may be old, damaged or hostile: it is parsed and checked, never executed.
"""

import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from mrisps.atomic import write_text
from mrisps.errors import FileError, SettingsError
from mrisps.io.arrays import ArrayLayout
from mrisps.io.hdf5 import Hdf5Reader
from mrisps.io.json_text import JsonValue
from mrisps.io.manifest import sha256_of
from mrisps.model import SmoothPlusSparse
from mrisps.reconstruction.choices import FROM_ZEROS, SliceChoice
from mrisps.reconstruction.recipe import Recipe
from mrisps.reconstruction.run import Run
from mrisps.reconstruction.weights import Weights
from mrisps.sampling import SamplingMask
from mrisps.settings import from_plain

__all__ = [
    "DATA_SETS",
    "Record",
    "Verification",
    "read_record",
    "read_record_file",
    "record_file",
    "verify_file",
    "write_record_file",
]

DATA_SETS = ("reconstruction", "image", "smooth", "sparse", "cost_map")
"""The data sets of a reconstruction, as far as it has them."""

_MAX_RECORD_BYTES = 1 << 28
Facts = dict[str, JsonValue]


@dataclass(frozen=True)
class Record:
    """What a reconstruction says of its making.

    Parameters
    ----------
    path
        Of the reconstruction.
    provenance
        Software, recipe, weights, input, machine, options, slices, times; see :meth:`mrisps.reconstruction.run.Run.record`.
    certificates
        One a slice.
    """

    path: Path
    provenance: Facts
    certificates: tuple[Facts, ...]

    def part(self, key: str) -> Facts:
        """An object inside the provenance.

        Raises
        ------
        FileError
            It is missing, or something else.
        """
        value = self.provenance.get(key)
        if not isinstance(value, dict):
            raise FileError(self.path, "is missing or no object", field=f"provenance.{key}")
        return value

    def text(self, part: str, key: str) -> str:
        """A text inside an object of the provenance.

        Raises
        ------
        FileError
            It is missing, or something else.
        """
        value = self.part(part).get(key)
        if not isinstance(value, str):
            raise FileError(self.path, f"expected a text, got {value!r}", field=f"provenance.{part}.{key}")
        return value

    def recipe(self) -> Recipe:
        """The recipe, made again from its values.

        Raises
        ------
        FileError
            A key is unknown or missing, or a value is wrong.
        """
        plain = {key: value for key, value in self.part("recipe").items() if key != "sha256"}
        try:
            return from_plain(Recipe, plain)
        except SettingsError as error:
            raise FileError(self.path, error.message, field=f"provenance.recipe.{error.key}") from error

    def mask(self) -> SamplingMask | Literal["from-zeros"] | None:
        """The mask that was given, or the rule for one, where one was.

        Raises
        ------
        FileError
            It is damaged.
        """
        value = self.part("options").get("mask")
        if not isinstance(value, dict):
            return FROM_ZEROS if value == FROM_ZEROS else None
        try:
            return SamplingMask.from_record(value)
        except ValueError as error:
            raise FileError(self.path, str(error), field="provenance.options.mask") from error

    def slices(self) -> range:
        """The slices of the input.

        Raises
        ------
        FileError
            They are no run of numbers.
        """
        value = self.provenance.get("slices")
        if isinstance(value, list) and value and all(type(number) is int and number >= 0 for number in value):
            numbers = [number for number in value if isinstance(number, int)]
            chosen = range(numbers[0], numbers[-1] + 1)
            if numbers == list(chosen):
                return chosen
        raise FileError(self.path, f"expected consecutive numbers, got {value!r:.60}", field="provenance.slices")


def read_record(output: Path) -> Record:
    """Read provenance and certificates of a reconstruction.

    Raises
    ------
    FileError
        The file cannot be read, or does not have them.
    """
    with Hdf5Reader(output) as file:
        attributes, _ = file.attributes()
    for name in ("provenance", "certificate"):
        if name not in attributes:
            raise FileError(output, "is missing: this is no reconstruction of ours", field=f"attribute {name}")
    made = _parsed(output, "attribute provenance", str(attributes["provenance"]))
    if not isinstance(made, dict):
        raise FileError(output, "expected an object", field="attribute provenance")
    listed = _parsed(output, "attribute certificate", str(attributes["certificate"]))
    certificates = tuple(entry for entry in listed if isinstance(entry, dict)) if isinstance(listed, list) else ()
    if not certificates or not isinstance(listed, list) or len(certificates) != len(listed):
        raise FileError(output, "expected a list of objects", field="attribute certificate")
    return Record(output, made, certificates)


def record_file(output: Path) -> Path:
    """Where the JSON of an output is: ``DIR/NAME.json`` beside ``DIR/NAME.h5``."""
    return output.with_suffix(".json")


def write_record_file(output: Path, source: Path) -> Path:
    """Write what an output says of itself as JSON beside it, with checksums of the file and of each data set.

    Parameters
    ----------
    output
        A complete reconstruction.
    source
        The input; its absolute path is written down, so that it is found again.

    Raises
    ------
    FileError
        The output cannot be read, or the JSON cannot be written.
    """
    record = read_record(output)
    content: Facts = {
        "output": {
            "name": output.name,
            "bytes": output.stat().st_size,
            "sha256": sha256_of(output),
            "data_sets": dict(_digests(output)),
        },
        "input_path": str(source.resolve()),
        "provenance": record.provenance,
        "certificates": list(record.certificates),
    }
    path = record_file(output)
    write_text(path, json.dumps(content, indent=1) + "\n")
    return path


def read_record_file(path: Path) -> Facts:
    """Read what :func:`write_record_file` wrote: ``output``, ``input_path``, ``provenance``, ``certificates``.

    Raises
    ------
    FileError
        It cannot be read, or is something else.
    """
    try:
        if path.stat().st_size > _MAX_RECORD_BYTES:
            raise FileError(path, f"is larger than {_MAX_RECORD_BYTES} bytes")
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise FileError(path, f"is no text: {error}") from error
    except OSError as error:
        raise FileError(path, f"cannot be read: {error.strerror}") from error
    content = _parsed(path, None, text)
    if not isinstance(content, dict):
        raise FileError(path, "expected an object")
    for key, kind in (("output", dict), ("input_path", str), ("provenance", dict), ("certificates", list)):
        if not isinstance(content.get(key), kind):
            raise FileError(path, "is missing or of the wrong type", field=key)
    return content


@dataclass(frozen=True)
class Verification:
    """What came of making a reconstruction again.

    Parameters
    ----------
    differences
        For every data set the largest difference of a pixel over the largest pixel; 0.0 exactly where all bytes are the same.
    changes
        What is not as it was when the output was made: versions, processor, threads. Reasons for a difference.
    """

    differences: Mapping[str, float]
    changes: tuple[str, ...]

    @property
    def is_identical(self) -> bool:
        """Whether every data set has the same bytes."""
        return not any(self.differences.values())

    @property
    def largest(self) -> float:
        """The largest difference."""
        return max(self.differences.values())


def verify_file(
    output: Path,
    source: Path,
    model: SmoothPlusSparse,
    *,
    device: str | None = None,
    progress: Callable[[int, int, int, float], None] | None = None,
) -> Verification:
    """Make a reconstruction again, from the recipe that it carries, and compare.

    Sets the number of threads of this process to what the output was made with.

    Parameters
    ----------
    output
        The reconstruction.
    source
        Its input.
    model
        The weights.
    device
        Where to compute; by default where the output was made.
    progress
        As for :meth:`mrisps.reconstruction.run.Run.write`.

    Raises
    ------
    FileError
        The input or the weights are not those that the output was made from, or the output was changed since: says which.
    """
    record = read_record(output)
    _check_unchanged(record)
    expected, found_input = record.text("input", "sha256"), sha256_of(source)
    if found_input != expected:
        raise FileError(
            source, f"is not the input of {output.name}: SHA-256 {found_input[:12]}..., made from {expected[:12]}..."
        )
    expected, found = record.text("weights", "sha256"), model.fingerprint()
    if found != expected:
        raise FileError(
            output, f"was made with other weights: {expected[:12]}..., these are {found[:12]}...", field="weights"
        )
    recipe, options = record.recipe(), record.part("options")
    scale, layout = options.get("scale"), options.get("layout")
    threads = record.part("machine").get("threads")
    if isinstance(threads, int) and threads > 0:
        torch.set_num_threads(threads)
    place = record.text("machine", "device") if device is None else device
    with tempfile.TemporaryDirectory(prefix="mrisps-verify-") as folder:
        again = Path(folder) / "again.h5"
        slices = record.slices()
        run = Run(
            recipe,
            Weights(record.text("weights", "name"), model),
            mask=record.mask(),
            undersample=options.get("undersample") is True,
            scale=float(scale) if isinstance(scale, int | float) else None,
            crop=options.get("crop") is not False,
            slices=SliceChoice(slices.start, slices.stop),
            layout=_layout(output, layout) if isinstance(layout, dict) else None,
            device=place,
        )
        run.write(source, again, input_sha256=found_input, progress=progress)
        differences = _compare(output, again)
        now = read_record(again).provenance
    return Verification(differences, _changes(record, recipe, now))


def _check_unchanged(record: Record) -> None:
    beside = record_file(record.path)
    if not beside.is_file():
        return
    written = read_record_file(beside)["output"]
    if isinstance(written, dict) and written.get("sha256") not in (None, sha256_of(record.path)):
        data_sets = written.get("data_sets")
        data_sets = data_sets if isinstance(data_sets, dict) else {}
        now = _digests(record.path)
        changed = [name for name in sorted({*data_sets, *now}) if data_sets.get(name) != now.get(name)]
        what = f"data sets {', '.join(changed)}" if changed else "attributes only"
        raise FileError(record.path, f"was changed after it was made: not as {beside.name} says ({what})")


def _compare(before: Path, after: Path) -> dict[str, float]:
    differences: dict[str, float] = {}
    with Hdf5Reader(before) as old, Hdf5Reader(after) as new:
        names = [name for name in DATA_SETS if old.has(name) or new.has(name)]
        for name in names:
            if not (old.has(name) and new.has(name)) or (old.shape(name), old.dtype(name)) != (
                new.shape(name),
                new.dtype(name),
            ):
                raise FileError(before, "is not there, or of another shape or type, when it is made again", field=name)
            largest = peak = 0.0
            identical = True
            for index in range(old.shape(name)[0]):
                one, other = old.read(name, index), new.read(name, index)
                if one.tobytes() != other.tobytes():
                    identical = False
                    wide = one.astype(np.complex128), other.astype(np.complex128)
                    largest = max(largest, float(np.abs(wide[0] - wide[1]).max()))
                peak = max(peak, float(np.abs(one).max()))
            # bytes may differ with equal values, +0 and -0: not identical, and the smallest number that says so
            differences[name] = 0.0 if identical else max(largest / (peak or 1.0), float(np.finfo(np.float64).tiny))
    return differences


def _changes(record: Record, recipe: Recipe, now: Mapping[str, JsonValue]) -> tuple[str, ...]:
    changes = []
    for part in ("software", "machine"):
        then, present = record.part(part), now[part]
        for key in sorted({*then, *present} if isinstance(present, dict) else then):
            value = present.get(key) if isinstance(present, dict) else None
            if then.get(key) != value:
                changes.append(f"{key}: {then.get(key)} then, {value} now")
    if recipe.sha256() != record.part("recipe").get("sha256"):
        changes.append("the recipe's values do not have the hash that was written down with them")
    return tuple(changes)


def _digests(path: Path) -> dict[str, str]:
    """SHA-256 of each data set: type, shape, and bytes in C order."""
    digests = {}
    with Hdf5Reader(path) as file:
        for name in DATA_SETS:
            if file.has(name):
                shape = file.shape(name)
                digest = hashlib.sha256(f"{file.dtype(name).str}{shape}".encode())
                for index in range(shape[0]):
                    digest.update(np.ascontiguousarray(file.read(name, index)).tobytes())
                digests[name] = digest.hexdigest()
    return digests


def _parsed(path: Path, field: str | None, text: str) -> JsonValue:
    try:
        value: JsonValue = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FileError(path, f"is no JSON: {error}", field=field) from error
    return value


def _layout(path: Path, plain: Mapping[str, JsonValue]) -> ArrayLayout:
    try:
        return from_plain(ArrayLayout, plain)
    except SettingsError as error:
        raise FileError(path, str(error), field="provenance.options.layout") from error
