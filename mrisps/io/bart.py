"""BART's files: ``NAME.cfl``, complex64 with the first index fastest, and ``NAME.hdr``, a text with the dimensions.

K-space in BART is centred, and its dimensions have fixed meanings: 0 readout, 1 and 2 phase encoding, 3 coils, and from
4 on sets of maps, echo times, and so on.

Source: the Berkeley Advanced Reconstruction Toolbox, ``src/misc/mri.h`` and ``src/misc/io.c``;
https://mrirecon.github.io/bart.
"""

import itertools
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mrisps.atomic import atomic_path
from mrisps.errors import FileError
from mrisps.io.acquisition import Acquisition, alike
from mrisps.io.arrays import MappedKspace
from mrisps.io.json_text import JsonValue, to_json

__all__ = ["BartFile", "read_cfl", "read_hdr", "write_cfl"]

_READOUT, _PHASE_1, _PHASE_2, _COIL = range(4)
_SLICE = 13
# Dimensions that are images of their own, by our name for the counter.
_COUNTERS = {5: "contrast", 10: "repetition", 11: "phase", _SLICE: "slice", 14: "average"}
_MAX_DIMENSIONS = 16
_MAX_HDR_BYTES = 1 << 20
_MAX_SAMPLES = 1 << 40


def read_hdr(path: Path | str) -> tuple[int, ...]:
    """Read the 1 to 16 dimensions in a ``.hdr`` file; a FileError if it has none."""
    path = Path(path)
    try:
        with path.open("rb") as stream:
            lines = stream.read(_MAX_HDR_BYTES).decode("utf-8", errors="replace").splitlines()
    except OSError as error:
        raise FileError(path, f"cannot be read: {error.strerror}") from error
    after = (line for heading, line in itertools.pairwise(lines) if heading.strip() == "# Dimensions")
    words = next(after, "").split()
    if not 1 <= len(words) <= _MAX_DIMENSIONS or not all(re.fullmatch("[0-9]{1,12}", word) for word in words):
        message = f"expected 1 to {_MAX_DIMENSIONS} positive numbers, got {' '.join(words)[:80]!r}"
        raise FileError(path, message, field="Dimensions")
    dimensions = tuple(int(word) for word in words)
    if not 1 <= math.prod(dimensions) <= _MAX_SAMPLES:
        raise FileError(path, f"expected positive numbers of a sensible size, got {dimensions}", field="Dimensions")
    return dimensions


def read_cfl(path: Path | str) -> NDArray[np.complex64]:
    """Map the array in a ``.cfl`` file, whose ``.hdr`` lies beside it, in BART's order of dimensions (read-only).

    The path is ``NAME.cfl``, ``NAME.hdr`` or, as in BART's commands, ``NAME``. A FileError if one of the two files
    cannot be read, or the size of the data is not what the dimensions say.
    """
    data, header = _pair(path)
    dimensions = read_hdr(header)
    n_expected = 8 * math.prod(dimensions)
    try:
        n_bytes = data.stat().st_size
        if n_bytes != n_expected:
            shape = " x ".join(map(str, dimensions))
            raise FileError(data, f"has {n_bytes} bytes, {shape} complex numbers have {n_expected}", field="Dimensions")
        return np.memmap(data, np.dtype("<c8"), "r", shape=dimensions, order="F")
    except (OSError, ValueError) as error:
        raise FileError(data, f"cannot be read: {error}") from error


class BartFile(MappedKspace):
    """K-space in BART's layout.

    Dimension 0 is y, 1 is x, 3 the coils; echoes (5), time (10, 11), slices (13) and averages (14) are slices of their
    own. If dimension 0 is 1, dimensions 1 and 2 are y and x: k-space that was transformed along the readout already. A
    FileError if there are partitions or another dimension that is not supported.
    """

    format = "BART"

    def __init__(self, path: Path | str) -> None:
        self.path = _pair(path)[0]
        array = read_cfl(self.path)
        sizes = dict(enumerate(array.shape))
        axes = {_READOUT: "y", _PHASE_1: "x", _COIL: "coil", **_COUNTERS}
        notes = []
        if sizes[_READOUT] == 1 and sizes.get(_PHASE_2, 1) > 1:
            axes = {_PHASE_1: "y", _PHASE_2: "x", _COIL: "coil", **_COUNTERS}
            notes.append("the readout is transformed already: y and x are the dimensions 1 and 2")
        for dimension, size in sizes.items():
            if size > 1 and dimension not in axes:
                message = f"has size {size}; only {', '.join(map(str, _COUNTERS))} may be larger than 1"
                if dimension == _PHASE_2:
                    message = (
                        f"{size} partitions: transform along the readout first (bart fft -i 1), then slice by slice"
                    )
                raise self._error(f"dimension {dimension}", message)
        kept = [dimension for dimension in sizes if dimension in axes]
        array = array.reshape([sizes[dimension] for dimension in kept], order="F")
        self._map(array, [axes[dimension] for dimension in kept], tuple(_COUNTERS.values()), notes)


def write_cfl(
    path: Path | str, records: Iterable[Acquisition], *, provenance: Mapping[str, JsonValue] | None = None
) -> tuple[str, ...]:
    """Write k-space as ``NAME.cfl`` and ``NAME.hdr``, with the slices as dimension 13; the provenance follows."""
    data, header = _pair(path)
    with atomic_path(header) as new_header, atomic_path(data) as new_data:
        with new_data.open("wb") as stream:
            for first, record in alike(records):  # noqa: B007 - used below
                # BART's first index is the fastest: (y, x, 1, coil) there is (coil, 1, x, y) in C's order
                stream.write(record.kspace.transpose(0, 2, 1).astype("<c8", copy=False).tobytes())
        dimensions = [*first.shape, 1, first.n_coils, *([1] * (_MAX_DIMENSIONS - 4))]
        dimensions[_SLICE] = first.n_slices
        lines = ["# Dimensions", " ".join(map(str, dimensions)) + " "]
        if provenance is not None:
            lines += ["# Provenance", to_json(provenance)]
        new_header.write_bytes(("\n".join(lines) + "\n").encode("utf-8"))
    return ()


def _pair(path: Path | str) -> tuple[Path, Path]:
    path = Path(path)
    stem = path.with_suffix("") if path.suffix.lower() in (".cfl", ".hdr") else path
    return stem.with_name(stem.name + ".cfl"), stem.with_name(stem.name + ".hdr")
