"""Making a reconstruction again from what its file says, and comparing."""

import glob
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mrisps.campaign.batch_item import BATCH_FOLDER
from mrisps.campaign.record import Record, read_record, read_record_file, record_file
from mrisps.errors import FileError, MrispsError
from mrisps.io.files import sha256_of
from mrisps.io.result_file import DATA_SETS, ResultFile
from mrisps.model import SmoothPlusSparse
from mrisps.model.shipped import shipped_weights
from mrisps.reconstruction.run import Progress
from mrisps.reconstruction.weights import DERIVED, Weights, find_weights
from mrisps.threads import available_cores

__all__ = ["Verification", "find_input", "find_made_with", "verify_file"]


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
    record: Record,
    source: Path,
    weights: Weights,
    *,
    device: str | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Make a reconstruction again, from the recipe that it carries, and compare. Sets the number of threads of this process.

    Parameters
    ----------
    record, source, weights
        Of the reconstruction; its input; what it was made with.
    device, threads
        Where to compute, and with how many threads; by default as the output was made.
    progress
        As for :meth:`mrisps.reconstruction.run.Run.write`.

    Raises
    ------
    FileError
        The input or the weights are not those that the output was made from, or the output was changed since: says which.
    """
    output = record.path
    _check_unchanged(record)
    expected, sha256 = record.text("input", "sha256"), sha256_of(source)
    if sha256 != expected:
        raise FileError(
            source, f"is not the input of {output.name}: SHA-256 {sha256[:12]}..., made from {expected[:12]}..."
        )
    expected, found = record.text("weights", "sha256"), weights.model.fingerprint()
    if found != expected:
        raise FileError(
            output, f"was made with other weights: {expected[:12]}..., these are {found[:12]}...", field="weights"
        )
    run = record.run(weights, device)
    recorded = record.part("machine").get("threads")
    if threads is not None:
        torch.set_num_threads(threads)
    elif type(recorded) is int and recorded > 0:  # a number from a file: no more than there are
        torch.set_num_threads(min(recorded, available_cores()))
    with tempfile.TemporaryDirectory(prefix="mrisps-verify-") as folder:
        again = Path(folder) / "again.h5"
        run.write(source, again, input_sha256=sha256, progress=progress)
        return Verification(_differences(output, again), _changes(record, read_record(again)))


def find_input(record: Record) -> Path:
    """The input of a reconstruction: where the JSON beside it says, or a file of its name and content near it or near here."""
    name, sha256 = record.text("input", "name"), record.text("input", "sha256")
    places = []
    beside = record_file(record.path)
    if beside.is_file():
        places.append(Path(str(read_record_file(beside)["input_path"])))
    for folder in (Path.cwd(), *record.path.absolute().parents[:2]):
        places += [folder / Path(name).name, *sorted(folder.glob(f"*/{glob.escape(Path(name).name)}"))]
    for place in places:
        if place.is_file() and place.resolve() != record.path.resolve() and sha256_of(place) == sha256:
            return place
    raise FileError(
        record.path,
        f"was made from {name}, SHA-256 {sha256[:12]}..., which is not found near it or here: name it with --input",
    )


def find_made_with(record: Record, wanted: str | None = None) -> Weights:
    """The weights that a reconstruction was made with: those that are named or in a file, ``wanted``, or have the hash it states.

    Raises
    ------
    MrispsError
        None of those that are at hand have the hash.
    """
    name, expected = record.text("weights", "name"), record.text("weights", "sha256")
    if wanted is not None:
        model = SmoothPlusSparse.load(wanted)
        if model.fingerprint() != expected:
            raise FileError(wanted, f"are not the weights of {record.path.name}: its have {expected[:12]}...")
        return Weights(name, model)
    if name == DERIVED:
        found = find_weights(DERIVED, record.recipe(), record.recipe().name)
        if found.model.fingerprint() == expected:
            return found
    for candidate in _weights_near(record, name):
        try:
            model = SmoothPlusSparse.load(candidate)
        except FileError:
            continue
        if model.fingerprint() == expected:
            return Weights(name, model)
    raise MrispsError(
        f"{record.path}: made with the weights {name!r} of SHA-256 {expected[:12]}..., which are not at hand: name them with "
        "--weights"
    )


def _weights_near(record: Record, name: str) -> Iterator[Path]:
    yield from shipped_weights().values()
    for folder in (Path.cwd(), *record.path.absolute().parents[:4]):  # outputs of a manifest lie in subfolders
        yield from sorted((folder / BATCH_FOLDER).glob("weights-*.safetensors"))
        if (folder / Path(name).name).is_file():
            yield folder / Path(name).name


def _check_unchanged(record: Record) -> None:
    beside = record_file(record.path)
    if not beside.is_file():
        return
    written = read_record_file(beside)["output"]
    if isinstance(written, Mapping) and written.get("sha256") not in (None, sha256_of(record.path)):
        data_sets = written.get("data_sets")
        data_sets = data_sets if isinstance(data_sets, Mapping) else {}
        with ResultFile(record.path) as file:
            now = file.digests()
        changed = [name for name in sorted({*data_sets, *now}) if data_sets.get(name) != now.get(name)]
        what = f"data sets {', '.join(changed)}" if changed else "attributes only"
        raise FileError(record.path, f"was changed after it was made: not as {beside.name} says ({what})")


def _differences(before: Path, after: Path) -> dict[str, float]:
    differences: dict[str, float] = {}
    with ResultFile(before) as old, ResultFile(after) as new:
        for name in DATA_SETS:
            shapes = [file.layout().get(name) for file in (old, new)]
            if shapes[0] != shapes[1]:
                raise FileError(before, "is not there, or of another shape or type, when it is made again", field=name)
            if shapes[0] is None:
                continue
            largest = peak = 0.0
            identical = True
            for index in range(old.n_slices):
                one, other = old.read(name, index), new.read(name, index)
                if one.tobytes() != other.tobytes():
                    identical = False
                    wide = one.astype(np.complex128), other.astype(np.complex128)
                    largest = max(largest, float(np.abs(wide[0] - wide[1]).max()))
                peak = max(peak, float(np.abs(one).max()))
            # bytes may differ with equal values, +0 and -0: not identical, and the smallest number that says so
            differences[name] = 0.0 if identical else max(largest / (peak or 1.0), float(np.finfo(np.float64).tiny))
    return differences


def _changes(record: Record, again: Record) -> tuple[str, ...]:
    changes = []
    for part in ("software", "machine"):
        then, now = record.part(part), again.part(part)
        changes += [
            f"{key}: {then.get(key)} then, {now.get(key)} now"
            for key in sorted({*then, *now})
            if then.get(key) != now.get(key)
        ]
    if record.recipe().sha256() != record.part("recipe").get("sha256"):
        changes.append("the recipe's values do not have the hash that was written down with them")
    return tuple(changes)
