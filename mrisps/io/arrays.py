"""K-space in plain arrays, ``.npy``, ``.npz`` and ``.mat``. What the axes are has to be stated: nothing is guessed.

The statement is an `ArrayLayout`, given by the caller or lying beside the file as a TOML text of the same name with
``.toml`` appended: ``brain.mat.toml`` for ``brain.mat``, with the lines

    axes = "y,x,coil"
    centred = true
    variable = "full_kspace_data"
"""

import contextlib
import math
import struct
import tokenize
import tomllib
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mrisps.errors import FileError, SettingsError
from mrisps.io.acquisition import Acquisition
from mrisps.io.files import check_is_file, release_pages
from mrisps.io.kspace_file import KspaceFile, complex64
from mrisps.io.matlab import chosen, mat_variables, read_mat
from mrisps.settings import from_plain, settings

__all__ = ["AXES", "ArrayFile", "ArrayLayout", "MappedKspace", "centered", "read_array", "variables_of"]

AXES = ("y", "x", "coil", "slice", "contrast", "phase", "repetition", "set", "average")
"""What an axis may be. y is the readout. All after the coils are slices of their own."""

_MAX_SIDECAR_BYTES = 1 << 16
# What damaged or hostile content raises in numpy and zipfile; each call below reads nothing but the given file.
_DAMAGED = (
    *(OSError, ValueError, EOFError, KeyError, SyntaxError, TypeError, IndexError, AttributeError, NotImplementedError),
    *(RuntimeError, MemoryError, OverflowError, zlib.error, zipfile.BadZipFile, struct.error, tokenize.TokenError),
)


@settings
@dataclass(frozen=True)
class ArrayLayout:
    """What the axes of an array are.

    They are in the order of the array, each one of `AXES`; y and x must be among them. ``centred``: the zero frequency
    is at n // 2; else it is at 0, as in the result of a plain fft2. ``variable`` is the name of the array in an
    ``.npz`` or ``.mat`` file; None: the only one.
    """

    axes: tuple[str, ...]
    centred: bool = True
    variable: str | None = None

    def __post_init__(self) -> None:
        axes = set(self.axes)
        if not axes <= set(AXES) or len(axes) < len(self.axes) or not {"y", "x"} <= axes:
            known = f"y, x and others of {', '.join(AXES)}"
            raise ValueError(f"axes: expected {known}, each once, got {','.join(self.axes)!r}")

    @classmethod
    def parse(cls, axes: str, *, centred: bool = True, variable: str | None = None) -> "ArrayLayout":
        """Make one from a text like ``"coil,y,x"``."""
        return cls(tuple(axis.strip() for axis in axes.split(",")), centred, variable)

    @classmethod
    def beside(cls, path: Path) -> "ArrayLayout | None":
        """Read the statement beside a file; None if there is none. A FileError for an unknown key or a wrong value."""
        sidecar = path.with_name(path.name + ".toml")
        if not sidecar.is_file():
            return None
        try:
            with sidecar.open("rb") as stream:
                table = tomllib.loads(stream.read(_MAX_SIDECAR_BYTES).decode("utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise FileError(sidecar, f"is no readable TOML: {error}") from error
        if isinstance(axes := table.get("axes"), str):
            table["axes"] = [axis.strip() for axis in axes.split(",")]
        try:
            return from_plain(cls, table)
        except SettingsError as error:
            raise FileError(sidecar, error.message, field=error.key) from error


class MappedKspace(KspaceFile):
    """K-space that is one array, in memory or mapped; see `KspaceFile` for the attributes."""

    _array: NDArray[np.generic] | None
    _centred = True

    def _map(
        self, array: NDArray[np.generic], axes: Sequence[str], counters: Sequence[str], notes: Sequence[str]
    ) -> None:
        """Take an array with these axes; the first of the counters counts fastest. Axes that are missing have size 1."""
        order = ("y", "x", "coil", *counters)
        missing = [axis for axis in order if axis not in axes]
        array = array.reshape(*array.shape, *([1] * len(missing)), order="A")
        self._array = array.transpose([(*axes, *missing).index(axis) for axis in order])
        n_y, n_x, self.n_coils, *counts = self._array.shape
        self.shape, self.n_slices = (n_y, n_x), math.prod(counts)
        self._counts = dict(zip(counters, counts, strict=True))
        self.notes = ("no header: field of view and crop are unknown", "no mask", *notes)

    def close(self) -> None:
        """Close the file. Harmless when done twice."""
        self._array = None

    def read_slice(self, index: int) -> Acquisition:
        """Read one slice."""
        self._check_index(index)
        if self._array is None:
            raise FileError(self.path, "is closed")
        position = [int(at) for at in np.unravel_index(index, tuple(self._counts.values()), order="F")]
        where: tuple[slice | int, ...] = (slice(None), slice(None), slice(None), *position)
        kspace = complex64(self._array[where].transpose(2, 0, 1))  # (coil, y, x)
        release_pages(self._array)
        return Acquisition(
            kspace=kspace if self._centred else centered(kspace),
            source=self.path,
            slice_index=index,
            n_slices=self.n_slices,
            labels=dict(zip(self._counts, position, strict=True)),
        )


class ArrayFile(MappedKspace):
    """K-space in an array file. ``.npy`` is mapped, the others are read whole. Of the counters, the first of `AXES` is fastest.

    The layout None stands for the statement beside the file. A FileError if there is none; if the file is damaged, has
    Python objects, not the variable, or other axes than stated; if the values are not complex.
    """

    format = "array"

    def __init__(self, path: Path | str, layout: ArrayLayout | None = None) -> None:
        self.path = Path(path)
        layout = ArrayLayout.beside(self.path) if layout is None else layout
        if layout is None:
            message = f"what the axes are is not stated: give --axes, or write it to {self.path.name}.toml"
            raise self._error("axes", message)
        array = read_array(self.path, layout.variable)
        if array.dtype.kind != "c":
            raise self._error(layout.variable or "array", f"expected complex numbers, got {array.dtype}")
        if array.ndim != len(layout.axes) or array.size == 0:
            raise self._error("axes", f"expected {','.join(layout.axes)}, got an array of shape {array.shape}")
        self._centred = layout.centred
        notes = [] if layout.centred else ["the zero frequency was moved to the centre"]
        if array.dtype != np.complex64:
            notes.append(f"{array.dtype} is rounded to complex64")
        self._map(array, layout.axes, AXES[3:], notes)


def centered(kspace: NDArray[np.generic]) -> NDArray[np.complex64]:
    """Move the zero frequency of (..., y, x) k-space from [0, 0] to the centre, for the same image.

    With kspace = fft2(image) and kspace_c = fftshift(fft2(ifftshift(image))),

        kspace_c = fftshift( kspace * exp(2 pi i f_y (n_y // 2) / n_y) * exp(2 pi i f_x (n_x // 2) / n_x) ),

    because shifting the image by n // 2 multiplies its spectrum by a phase. For even sizes that is a checkerboard of +1
    and -1: nothing is rounded, and what was zero stays zero.
    """
    phase_y, phase_x = (_shift_phase(n) for n in kspace.shape[-2:])
    with np.errstate(over="ignore", invalid="ignore"):
        moved: NDArray[np.complex128] = kspace.astype(np.complex128) * phase_y[:, np.newaxis] * phase_x  # (..., y, x)
    return complex64(np.fft.fftshift(moved, axes=(-2, -1)))


def _shift_phase(n: int) -> NDArray[np.complex128]:
    """Spectrum of a shift by n // 2: exp(2 pi i f (n // 2) / n)."""
    frequencies = np.arange(n)
    if n % 2 == 0:
        return (1 - 2 * (frequencies % 2)).astype(np.complex128)
    phase: NDArray[np.complex128] = np.exp(2j * np.pi * frequencies * (n // 2) / n)
    return phase


def variables_of(path: Path | str) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and element type of the arrays in an ``.npy``, ``.npz`` or ``.mat`` file, without reading their numbers.

    The one array of an ``.npy`` file has the name ``""``. A FileError if the file is missing or damaged.
    """
    path = Path(path)
    with _naming(path, None):
        if path.suffix.lower() == ".mat":
            return mat_variables(path)
        if path.suffix.lower() == ".npy":
            array = _read_npy(path)
            return {"": (array.shape, str(array.dtype))}
        with zipfile.ZipFile(path) as archive:
            return {name: _npz_header(path, archive, name) for name in _npz_names(archive)}


def read_array(path: Path, variable: str | None = None, max_bytes: int = 64 << 30) -> NDArray[np.generic]:
    """Read one array of an ``.npy``, ``.npz`` or ``.mat`` file; that of an ``.npy`` file is mapped.

    The variable None stands for the only one. An array of an ``.npz`` file may have ``max_bytes`` at most: a small
    archive may expand to any size. A FileError if the file is missing or damaged, has no such array, or several and
    none was named.
    """
    with _naming(path, variable):
        if path.suffix.lower() == ".npy":
            return _read_npy(path)
        if path.suffix.lower() == ".mat":
            return read_mat(path, variable)
        with zipfile.ZipFile(path) as archive:
            name = chosen(path, _npz_names(archive), variable)
            _npz_header(path, archive, name, max_bytes)
            with archive.open(f"{name}.npy") as member:
                return np.asarray(np.lib.format.read_array(member, allow_pickle=False))


@contextlib.contextmanager
def _naming(path: Path, variable: str | None) -> Iterator[None]:
    check_is_file(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # remarks on the age of a format
            yield
    except _DAMAGED as error:
        raise FileError(path, f"is no readable {path.suffix[1:].upper()} file: {error}", field=variable) from error


def _read_npy(path: Path) -> NDArray[np.generic]:
    if zipfile.is_zipfile(path):
        raise FileError(path, "is an NPZ archive, expected one NPY array")
    array: NDArray[np.generic] = np.lib.format.open_memmap(path, mode="r")  # np.load leaves a damaged archive open
    return array


def _npz_names(archive: zipfile.ZipFile) -> list[str]:
    return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]


def _npz_header(
    path: Path, archive: zipfile.ZipFile, name: str, max_bytes: float = math.inf
) -> tuple[tuple[int, ...], str]:
    """Shape and element type, checked against the size of the content."""
    info = archive.getinfo(f"{name}.npy")
    if info.file_size > max_bytes:
        raise FileError(path, f"expected at most {max_bytes} bytes, got {info.file_size}", field=name)
    with archive.open(info) as member:
        is_first = np.lib.format.read_magic(member) == (1, 0)
        read_header = np.lib.format.read_array_header_1_0 if is_first else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(member)
    if int(np.prod(shape, dtype=object)) * dtype.itemsize > info.file_size:
        raise FileError(path, f"{shape} {dtype} is more than the {info.file_size} bytes there are", field=name)
    return shape, str(dtype)
