"""The record that a raw-data reader gives: one slice of k-space and what the file says about it."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from mrisps.errors import FileError

__all__ = ["Acquisition", "Geometry", "Scalar", "alike", "misfit", "shown", "triple"]

Scalar = str | float | int | bool
"""What an attribute of a file may be."""

Triple = NDArray[np.float64]
_KINDS = {"complex": "c", "real or complex": "fc", "real": "fiu", "floating": "f", "integers": "bui", "numbers": "buif"}
_SMALLEST, _LARGEST = 1e-30, 1e38  # of k-space: beyond, sums and squares leave the range of single precision


def triple(values: Iterable[float]) -> tuple[float, float, float]:
    """Three numbers as Python's own, for `Geometry`; a ValueError for another number of them."""
    first, second, third = (float(value) for value in values)
    return first, second, third


def shown(array: object) -> str:
    """Element type and shape of an array, or the type of something else, for messages."""
    dtype, shape = getattr(array, "dtype", None), getattr(array, "shape", ())
    return type(array).__name__ if dtype is None else f"{dtype} {shape}"


def misfit(array: object, kind: str, *shapes: tuple[int | str, ...]) -> str:
    """What is wrong with an array (or a data set), an empty text if nothing: its element type, its shape, or it is empty.

    The kind is one of `_KINDS` or an element type; a name in a shape stands for any number.
    """
    dtype, shape = getattr(array, "dtype", None), getattr(array, "shape", ())
    is_kind = dtype is not None and (dtype.kind in _KINDS[kind] if kind in _KINDS else dtype == kind)
    for wanted in shapes:
        same = len(wanted) == len(shape) and all(
            isinstance(n, str) or m == n for m, n in zip(shape, wanted, strict=True)
        )
        if is_kind and same and 0 not in shape:
            return ""
    expected = " or ".join(str(s).replace("'", "") for s in shapes)
    return f"expected {kind} {expected}, got {shown(array)}"


@dataclass(frozen=True)
class Geometry:
    """Where an image lies in the patient, in mm and in the patient's coordinates (LPS, as in DICOM and ISMRMRD).

    Parameters
    ----------
    field_of_view_mm
        Of the encoded image: along y (rows), along x (columns), and through the slice.
    position_mm
        Centre of the image.
    y_direction, x_direction, slice_direction
        Unit vectors of increasing row, increasing column, and through the slice.
    """

    field_of_view_mm: tuple[float, float, float]
    position_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    y_direction: tuple[float, float, float] = (1.0, 0.0, 0.0)
    x_direction: tuple[float, float, float] = (0.0, 1.0, 0.0)
    slice_direction: tuple[float, float, float] = (0.0, 0.0, 1.0)

    @classmethod
    def of(
        cls, fov: Triple, position: Triple, y: Triple, x: Triple, through: Triple | None = None
    ) -> "Geometry | None":
        """From arrays of three; None if a number is not finite, or the directions are not orthonormal (to 1e-3)."""
        with np.errstate(over="ignore", invalid="ignore"):
            axes = np.asarray([y, x, np.cross(y, x) if through is None else through], np.float64)
            is_finite = bool(np.isfinite([fov, position, *axes]).all())
            if not is_finite or not np.abs(axes @ axes.T - np.eye(3)).max() <= 1e-3:
                return None
        return cls(triple(fov), triple(position), *(triple(axis) for axis in axes))


@dataclass(frozen=True, eq=False)
class Acquisition:
    """One slice: k-space, and what the file states about it. Nothing here is guessed.

    Parameters
    ----------
    kspace
        complex64 (coil, y, x). The zero frequency is at [n_y // 2, n_x // 2]; samples that were not acquired are zero.
        Rows are the readout direction: undersampling along x leaves out whole columns.
    source, slice_index, n_slices
        The file, the number of the slice in it from 0, and how many slices it has.
    mask
        bool (x,) for whole columns or (y, x), centred like ``kspace``, true where acquired. None: the file does not
        say.
    target
        float32 (y, x): the reference image, possibly a central crop.
    image_is_real
        The file states that the image is real.
    contrast
        The file's name for it, for example ``"CORPD_FBK"``.
    recon_shape
        (y, x) of the central crop that the file asks a reconstruction to have.
    attributes
        Further attributes of the file.
    sensitivity_maps
        complex64 (set, coil, y, x): coil sensitivities of the file; one set, or two (soft SENSE).
    calibration
        complex64 (coil, y, x): calibration lines that were measured apart from the image, zero elsewhere.
    noise_scan
        complex64 (coil, sample): samples without signal, scaled to the standard deviation of the noise in ``kspace``.
    readout_oversampling
        Encoded over reconstructed field of view along y: 2 where the image is the central half of the rows.
    labels
        Counters of this slice in the file: ``slice``, ``contrast``, ``repetition``, ``phase``, ``set`` and the like.
    geometry
        Where the image lies. None: the file does not say, or contradicts itself.

    Raises
    ------
    FileError
        A field has the wrong shape or type, is empty, or is not finite; k-space is zero everywhere, or too large or
        small for single precision; the mask acquires nothing, or k-space is not zero where the mask says that nothing
        was acquired.
    """

    kspace: NDArray[np.complex64]
    source: Path
    slice_index: int = 0
    n_slices: int = 1
    mask: NDArray[np.bool_] | None = None
    target: NDArray[np.float32] | None = None
    image_is_real: bool = False
    contrast: str | None = None
    recon_shape: tuple[int, int] | None = None
    attributes: Mapping[str, Scalar] = field(default_factory=dict)
    sensitivity_maps: NDArray[np.complex64] | None = None
    calibration: NDArray[np.complex64] | None = None
    noise_scan: NDArray[np.complex64] | None = None
    readout_oversampling: float = 1.0
    labels: Mapping[str, int] = field(default_factory=dict)
    geometry: Geometry | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "source", Path(self.source))
        object.__setattr__(self, "attributes", MappingProxyType(dict(self.attributes)))
        object.__setattr__(self, "labels", MappingProxyType(dict(self.labels)))
        if not 0 <= self.slice_index < self.n_slices:
            raise self._error("slice", f"expected 0 to {self.n_slices - 1}, got {self.slice_index}")
        self._check("kspace", "complex64", ("coil", "y", "x"))
        if not self.kspace.any():
            raise self._error("kspace", "every sample is zero")
        parts = self.kspace.real, self.kspace.imag
        largest = max(abs(float(edge)) for part in parts for edge in (part.min(), part.max()))
        if not _SMALLEST <= largest <= _LARGEST:
            allowed = f"in single precision, scale it to {_SMALLEST:g} to {_LARGEST:g}"
            raise self._error("kspace", f"its largest part is {largest:.1e}: {allowed}")
        shape = self.kspace.shape
        self._check("mask", "bool", shape[2:], shape[1:])
        self._check("target", "float32", ("y", "x"))
        self._check("sensitivity_maps", "complex64", ("set", *shape))
        self._check("calibration", "complex64", shape)
        self._check("noise_scan", "complex64", (shape[0], "sample"))
        if self.mask is not None:
            if not self.mask.any():
                raise self._error("mask", "is zero everywhere: nothing was acquired")
            n_outside = int(np.count_nonzero((self.kspace != 0).any(axis=0) & ~self.mask))
            if n_outside:
                message = f"{n_outside} samples are not zero where the mask says that nothing was acquired"
                raise self._error("kspace", message)
        if self.recon_shape is not None and min(self.recon_shape) < 1:
            raise self._error("recon_shape", f"expected two positive numbers, got {self.recon_shape}")
        if not 1 <= self.readout_oversampling < 16:
            message = f"expected a number from 1 to 16, got {self.readout_oversampling}"
            raise self._error("readout_oversampling", message)

    @property
    def n_coils(self) -> int:
        """Number of coils."""
        return int(self.kspace.shape[0])

    @property
    def shape(self) -> tuple[int, int]:
        """Size of the encoded image (y, x)."""
        return int(self.kspace.shape[1]), int(self.kspace.shape[2])

    def full_mask(self) -> NDArray[np.bool_] | None:
        """Give the mask as bool (y, x), or None where the file does not state one."""
        return None if self.mask is None else np.broadcast_to(self.mask, self.shape).copy()

    def acquired(self) -> NDArray[np.bool_]:
        """Which samples were acquired, as bool (x,) for whole columns, else (y, x): the mask, or what is not zero in any coil.

        What is not zero describes the slice for people, and is no mask: zeros may also have been measured, or be
        outside the encoded range. Columns count as whole if 99 % of their samples are not zero, between the first and
        the last row that is not zero: a few zeros may be measured, and rows at the edges are zero where an echo is
        partial.
        """
        if self.mask is not None:
            is_columns = self.mask.ndim == 1 or bool((self.mask == self.mask[:1]).all())
            return self.mask[0] if is_columns and self.mask.ndim == 2 else self.mask
        samples = np.asarray((self.kspace != 0).any(axis=0))  # (y, x)
        columns = np.asarray(samples.any(axis=0))
        rows = np.flatnonzero(samples.any(axis=1))
        inside = samples[rows[0] : rows[-1] + 1, columns]
        return columns if np.count_nonzero(inside) >= 0.99 * inside.size else samples

    def _error(self, name: str, message: str) -> FileError:
        where = f" (slice {self.slice_index})" if self.n_slices > 1 else ""
        return FileError(self.source, message + where, field=name)

    def _check(self, name: str, kind: str, *shapes: tuple[int | str, ...]) -> None:
        array = getattr(self, name)
        if array is None and name != "kspace":
            return
        if wrong := misfit(array, kind, *shapes):
            raise self._error(name, wrong)
        n_bad = array.size - int(np.count_nonzero(np.isfinite(array)))
        if n_bad:
            raise self._error(name, f"{n_bad} of {array.size} samples are NaN or infinite")


def alike(records: Iterable[Acquisition]) -> Iterator[tuple[Acquisition, Acquisition]]:
    """The first slice beside each one. A ValueError if shapes differ, or if there are not as many as the first one says."""
    first, number, expected = None, 0, None
    for number, record in enumerate(records, 1):
        first = first or record
        shapes = (record.kspace.shape, None if record.target is None else record.target.shape)
        expected = expected or shapes
        if number > first.n_slices or shapes != expected:
            message = f"slice {number - 1} of {first.n_slices}: expected k-space and target {expected}, got {shapes}"
            raise ValueError(message)
        yield first, record
    if first is None or number < first.n_slices:
        raise ValueError(f"slices: expected {1 if first is None else first.n_slices}, {number} were written")
