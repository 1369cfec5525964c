"""What a result file says of its making: the run that made it, and the same as JSON beside it.

Everything here comes from files, which may be old, damaged or hostile: it is parsed and checked, never executed.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mrisps.atomic import write_text
from mrisps.errors import FileError, SettingsError
from mrisps.io.arrays import ArrayLayout
from mrisps.io.files import sha256_of
from mrisps.io.json_text import JsonValue, from_json
from mrisps.io.result_file import ResultFile
from mrisps.reconstruction.choices import FROM_ZEROS, SliceChoice
from mrisps.reconstruction.recipe import Recipe
from mrisps.reconstruction.run import Run
from mrisps.reconstruction.weights import Weights
from mrisps.sampling import SamplingMask
from mrisps.settings import from_plain

__all__ = ["Record", "read_record", "read_record_file", "record_file", "write_record_file"]

_MAX_RECORD_BYTES = 1 << 28
Facts = Mapping[str, JsonValue]


@dataclass(frozen=True)
class Record:
    """What a result file says of its making.

    Parameters
    ----------
    path
        The result file.
    provenance
        Software, recipe, weights, input, machine, options, slices, times; see :meth:`mrisps.reconstruction.run.Run.record`.
    certificates
        One a slice.
    """

    path: Path
    provenance: Facts
    certificates: tuple[Facts, ...]

    def part(self, key: str) -> Facts:
        """An object inside the provenance; a FileError if it is missing, or something else."""
        value = self.provenance.get(key)
        if not isinstance(value, Mapping):
            raise FileError(self.path, "is missing or no object", field=f"provenance.{key}")
        return value

    def text(self, part: str, key: str) -> str:
        """A text inside an object of the provenance; a FileError if it is missing, or something else."""
        value = self.part(part).get(key)
        if not isinstance(value, str):
            raise FileError(self.path, f"expected a text, got {value!r}", field=f"provenance.{part}.{key}")
        return value

    def recipe(self) -> Recipe:
        """The recipe, made again from its values; a FileError if a key is unknown or missing, or a value is wrong."""
        plain = {key: value for key, value in self.part("recipe").items() if key != "sha256"}
        try:
            return from_plain(Recipe, plain)
        except SettingsError as error:
            raise FileError(self.path, error.message, field=f"provenance.recipe.{error.key}") from error

    def run(self, weights: Weights, device: str | None = None) -> Run:
        """The run that made the file, by default where it was made; a FileError names a value that is missing or wrong."""
        options = self.part("options")
        scale, layout = options.get("scale"), options.get("layout")
        slices = self._slices()
        try:
            return Run(
                self.recipe(),
                weights,
                mask=self._mask(options),
                undersample=options.get("undersample") is True,
                scale=float(scale) if isinstance(scale, int | float) else None,
                crop=options.get("crop") is not False,
                slices=SliceChoice(slices.start, slices.stop),
                layout=from_plain(ArrayLayout, layout) if isinstance(layout, Mapping) else None,
                device=self.text("machine", "device") if device is None else device,
            )
        except (SettingsError, ValueError) as error:
            raise FileError(self.path, str(error), field="provenance.options") from error

    def _mask(self, options: Facts) -> SamplingMask | Literal["from-zeros"] | None:
        value = options.get("mask")
        if not isinstance(value, Mapping):
            return FROM_ZEROS if value == FROM_ZEROS else None
        try:
            return SamplingMask.from_record(dict(value))
        except ValueError as error:
            raise FileError(self.path, str(error), field="provenance.options.mask") from error

    def _slices(self) -> range:
        value = self.provenance.get("slices")
        if isinstance(value, list) and value and all(type(number) is int and number >= 0 for number in value):
            chosen = range(value[0], value[-1] + 1)
            if value == list(chosen):
                return chosen
        raise FileError(self.path, f"expected consecutive numbers, got {value!r:.60}", field="provenance.slices")


def read_record(output: Path) -> Record:
    """Read provenance and certificates of a result file; a FileError if it cannot be read, or does not have them."""
    with ResultFile(output) as file:
        if file.provenance is None or not file.certificates:
            name = "provenance" if file.provenance is None else "certificate"
            raise FileError(output, "is missing: this is no result of ours", field=f"attribute {name}")
        return Record(output, file.provenance, file.certificates)


def record_file(output: Path) -> Path:
    """Where the JSON of an output is: ``DIR/NAME.json`` beside ``DIR/NAME.h5``."""
    return output.with_suffix(".json")


def write_record_file(output: Path, source: Path) -> Record:
    """Write what a result file says of itself as JSON beside it, with checksums of the file and of each data set.

    The absolute path of the input, ``source``, is written down, so that it is found again.
    """
    record = read_record(output)
    with ResultFile(output) as file:
        data_sets = file.digests()
    content: Facts = {
        "output": {
            "name": output.name,
            "bytes": output.stat().st_size,
            "sha256": sha256_of(output),
            "data_sets": data_sets,
        },
        "input_path": str(source.resolve()),
        "provenance": record.provenance,
        "certificates": list(record.certificates),
    }
    write_text(record_file(output), json.dumps(content, indent=1) + "\n")
    return record


def read_record_file(path: Path) -> Facts:
    """Read what :func:`write_record_file` wrote: ``output``, ``input_path``, ``provenance``, ``certificates``."""
    try:
        if path.stat().st_size > _MAX_RECORD_BYTES:
            raise FileError(path, f"is larger than {_MAX_RECORD_BYTES} bytes")
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise FileError(path, f"is no text: {error}") from error
    except OSError as error:
        raise FileError(path, f"cannot be read: {error.strerror}") from error
    content = from_json(text, path, "content")
    if not isinstance(content, dict):
        raise FileError(path, "expected an object")
    for key, kind in (("output", dict), ("input_path", str), ("provenance", dict), ("certificates", list)):
        if not isinstance(content.get(key), kind):
            raise FileError(path, "is missing or of the wrong type", field=key)
    return content
