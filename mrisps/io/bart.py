"""BART's files: ``NAME.cfl``, complex64 with the first index fastest, and ``NAME.hdr``, a text with the dimensions.

K-space in BART is centred, and its dimensions have fixed meanings: 0 readout, 1 and 2 phase encoding, 3 coils, and from 4
on sets of maps, echo times, and so on.

Source: the Berkeley Advanced Reconstruction Toolbox, ``src/misc/mri.h`` and ``src/misc/io.c``; https://mrirecon.github.io/bart.
"""

import contextlib
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mrisps.atomic import atomic_path
from mrisps.errors import FileError
from mrisps.io.acquisition import Acquisition
from mrisps.io.arrays import MappedKspace
from mrisps.io.json_text import JsonValue, to_json
from mrisps.io.writers import SliceWriter

__all__ = ["BartFile", "CflWriter", "read_cfl", "read_hdr"]

_READOUT, _PHASE_1, _PHASE_2, _COIL = range(4)
_SLICE = 13
# Dimensions that are images of their own, by our name for the counter.
_COUNTERS = {5: "contrast", 10: "repetition", 11: "phase", _SLICE: "slice", 14: "average"}
_MAX_DIMENSIONS = 16
_MAX_HDR_BYTES = 1 << 20
_MAX_SAMPLES = 1 << 40


def read_hdr(path: Path | str) -> tuple[int, ...]:
    """Read the dimensions in a ``.hdr`` file.

    Raises
    ------
    FileError
        The file cannot be read, or has no line with 1 to 16 positive numbers after ``# Dimensions``.
    """
    path = Path(path)
    try:
        with path.open("rb") as stream:
            content = stream.read(_MAX_HDR_BYTES)
    except OSError as error:
        raise FileError(path, f"cannot be read: {error.strerror}") from error
    lines = content.decode("utf-8", errors="replace").splitlines()
    headings = [index for index, line in enumerate(lines) if line.strip() == "# Dimensions"]
    words = lines[headings[0] + 1].split() if headings and headings[0] + 1 < len(lines) else []
    if not 1 <= len(words) <= _MAX_DIMENSIONS or not all(
        w.isascii() and w.isdigit() and 0 < len(w) < 13 for w in words
    ):
        raise FileError(
            path, f"expected 1 to {_MAX_DIMENSIONS} positive numbers, got {' '.join(words)[:80]!r}", field="Dimensions"
        )
    dimensions = tuple(int(word) for word in words)
    if 0 in dimensions or math.prod(dimensions) > _MAX_SAMPLES:
        raise FileError(path, f"expected positive numbers of a sensible size, got {dimensions}", field="Dimensions")
    return dimensions


def read_cfl(path: Path | str) -> NDArray[np.complex64]:
    """Map the array in a ``.cfl`` file, whose ``.hdr`` lies beside it, in BART's order of dimensions (read-only).

    Parameters
    ----------
    path
        ``NAME.cfl``, ``NAME.hdr`` or, as in BART's commands, ``NAME``.

    Raises
    ------
    FileError
        One of the two files cannot be read, or the size of the data is not what the dimensions say.
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

    Dimension 0 is y, 1 is x, 3 the coils; echoes (5), time (10, 11), slices (13) and averages (14) are slices of their own. If
    dimension 0 is 1, dimensions 1 and 2 are y and x: k-space that was transformed along the readout already.

    Raises
    ------
    FileError
        As `read_cfl`; there are partitions or another dimension that is not supported.
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
                known = ", ".join(map(str, sorted(_COUNTERS)))
                message = f"has size {size}; only {known} may be larger than 1"
                if dimension == _PHASE_2:
                    message = (
                        f"{size} partitions: transform along the readout first (bart fft -i 1), then slice by slice"
                    )
                raise self._error(f"dimension {dimension}", message)
        kept = [dimension for dimension in sizes if dimension in axes]
        array = array.reshape([sizes[dimension] for dimension in kept], order="F")
        self._map(array, [axes[dimension] for dimension in kept], tuple(_COUNTERS.values()), notes)


class CflWriter(SliceWriter):
    """Writes k-space as ``NAME.cfl`` and ``NAME.hdr``; slices become dimension 13.

    Parameters
    ----------
    path
        ``NAME.cfl``.
    provenance
        Where the data come from; written as JSON below the dimensions.
    """

    def __init__(self, path: Path | str, n_slices: int, *, provenance: Mapping[str, JsonValue] | None = None) -> None:
        data, self._header = _pair(path)
        super().__init__(data, n_slices)
        self._provenance = provenance

    def _open(self, stack: contextlib.ExitStack) -> None:
        header = stack.enter_context(atomic_path(self._header))
        data = stack.enter_context(atomic_path(self.path))
        self._stream = stack.enter_context(data.open("wb"))
        self._header_stream = stack.enter_context(header.open("wb"))

    def _create(self, first: Acquisition) -> None:
        pass

    def _write(self, record: Acquisition, first: Acquisition) -> None:
        # BART's first index is the fastest: (y, x, 1, coil) there is (coil, 1, x, y) in C's order
        kspace = np.ascontiguousarray(record.kspace.transpose(0, 2, 1))
        self._stream.write(kspace.astype("<c8", copy=False).tobytes())

    def _end(self, first: Acquisition) -> None:
        dimensions = [*first.shape, 1, first.n_coils, *([1] * (_MAX_DIMENSIONS - 4))]
        dimensions[_SLICE] = self.n_slices
        lines = ["# Dimensions", " ".join(map(str, dimensions)) + " "]
        if self._provenance is not None:
            lines += ["# Provenance", to_json(self._provenance)]
        self._header_stream.write(("\n".join(lines) + "\n").encode("utf-8"))


def _pair(path: Path | str) -> tuple[Path, Path]:
    path = Path(path)
    stem = path.with_suffix("") if path.suffix.lower() in (".cfl", ".hdr") else path
    return stem.with_name(stem.name + ".cfl"), stem.with_name(stem.name + ".hdr")
