"""The record that a raw-data reader gives: one slice of k-space and what the file says about it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from mrisps.errors import FileError

__all__ = ["Acquisition", "Geometry", "Scalar", "triple"]

Scalar = str | float | int | bool
"""What an attribute of a file may be."""

_SMALLEST, _LARGEST = 1e-30, 1e38  # of k-space: beyond, sums and squares leave the range of single precision


def triple(values: Iterable[float]) -> tuple[float, float, float]:
    """Three numbers as Python's own, for `Geometry`; a ValueError for another number of them."""
    first, second, third = (float(value) for value in values)
    return first, second, third


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


@dataclass(frozen=True, eq=False)
class Acquisition:
    """One slice: k-space, and what the file states about it. Nothing here is guessed.

    Parameters
    ----------
    kspace
        complex64, (coil, y, x). Centred: the zero frequency is at [n_y // 2, n_x // 2]. Zero where nothing was
        acquired. Rows are the readout direction, as in fastMRI; undersampling along x leaves out whole columns.
    source
        The file.
    slice_index
        Number of the slice in the file, from 0.
    n_slices
        How many slices the file has.
    mask
        bool, (x,) for whole columns or (y, x), centred like ``kspace``, true where acquired. None: the file does not
        say.
    target
        float32, (y, x): the reference image, possibly a central crop. None: the file has none.
    image_is_real
        The file states that the underlying image is real.
    contrast
        The file's name for it, for example ``"CORPD_FBK"``.
    recon_shape
        (y, x): size of the central crop that the file asks a reconstruction to have. None: the file does not say.
    attributes
        Further attributes of the file.
    sensitivity_maps
        complex64, (set, coil, y, x): coil sensitivities that the file brings along; one set, or two (soft SENSE).
    calibration
        complex64, (coil, y, x): calibration lines that were measured apart from the image (a reference scan), zero elsewhere,
        on the grid of ``kspace``. Calibration lines that also belong to the image are in ``kspace``.
    noise_scan
        complex64, (coil, sample): samples without signal, scaled so that their standard deviation is that of ``kspace`` (the
        reader accounts for another bandwidth).
    readout_oversampling
        Encoded over reconstructed field of view along y: 2 where the image is the central half of the rows.
    labels
        Counters of this slice in the file: ``slice``, ``contrast``, ``repetition``, ``phase``, ``set``, ``average``,
        ``partition`` and the like.
    geometry
        Where the image lies. None: the file does not say, or contradicts itself.

    Raises
    ------
    FileError
        A field has the wrong shape or type, is empty, or is not finite; k-space is zero everywhere, or too large or small for
        single precision; the mask acquires nothing, or k-space is not zero where the mask says that nothing was acquired.
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
        self._check_kspace()
        if self.mask is not None:
            self._check_mask(self.mask)
        if self.target is not None:
            self._check_target(self.target)
        if self.recon_shape is not None and min(self.recon_shape) < 1:
            raise self._error("recon_shape", f"expected two positive numbers, got {self.recon_shape}")
        n_sets = () if self.sensitivity_maps is None else self.sensitivity_maps.shape[:1]
        self._check_companion("sensitivity_maps", self.sensitivity_maps, (*n_sets, *self.kspace.shape))
        self._check_companion("calibration", self.calibration, self.kspace.shape)
        n_samples = () if self.noise_scan is None else self.noise_scan.shape[1:]
        self._check_companion("noise_scan", self.noise_scan, (self.n_coils, *n_samples))
        if not 1 <= self.readout_oversampling < 16:
            raise self._error(
                "readout_oversampling", f"expected a number from 1 to 16, got {self.readout_oversampling}"
            )

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

        What is not zero describes the slice for people, and is no mask: zeros may also have been measured, or be outside the
        encoded range. Columns count as whole if 99 % of their samples are not zero, between the first and the last row that is
        not zero: a few zeros may be measured, and rows at the edges are zero where an echo is partial.
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

    def _check_kspace(self) -> None:
        kspace = self.kspace
        if not isinstance(kspace, np.ndarray) or kspace.ndim != 3 or kspace.dtype != np.complex64:
            raise self._error("kspace", f"expected complex64 (coil, y, x), got {_describe(kspace)}")
        if kspace.size == 0:
            raise self._error("kspace", f"is empty: shape {kspace.shape}")
        if not np.isfinite(kspace).all():
            n_bad = int(np.count_nonzero(~np.isfinite(kspace)))
            raise self._error("kspace", f"{n_bad} of {kspace.size} samples are NaN or infinite")
        if not kspace.any():
            raise self._error("kspace", "every sample is zero")
        largest = max(abs(float(edge)) for part in (kspace.real, kspace.imag) for edge in (part.min(), part.max()))
        if not _SMALLEST <= largest <= _LARGEST:
            raise self._error(
                "kspace",
                f"its largest part is {largest:.1e}: in single precision, scale it to {_SMALLEST:g} to {_LARGEST:g}",
            )

    def _check_mask(self, mask: NDArray[np.bool_]) -> None:
        n_y, n_x = self.shape
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_ or mask.shape not in ((n_x,), (n_y, n_x)):
            raise self._error("mask", f"expected bool ({n_x},) or ({n_y}, {n_x}), got {_describe(mask)}")
        if not mask.any():
            raise self._error("mask", "is zero everywhere: nothing was acquired")
        n_outside = int(np.count_nonzero((self.kspace != 0).any(axis=0) & ~mask))
        if n_outside:
            raise self._error(
                "kspace", f"{n_outside} samples are not zero where the mask says that nothing was acquired"
            )

    def _check_companion(self, name: str, array: NDArray[np.complex64] | None, shape: tuple[int, ...]) -> None:
        if array is None:
            return
        if not isinstance(array, np.ndarray) or array.dtype != np.complex64 or array.shape != shape or array.size == 0:
            raise self._error(name, f"expected complex64 {shape}, got {_describe(array)}")
        if not np.isfinite(array).all():
            raise self._error(name, "has NaN or infinite samples")

    def _check_target(self, target: NDArray[np.float32]) -> None:
        if not isinstance(target, np.ndarray) or target.ndim != 2 or target.dtype != np.float32 or target.size == 0:
            raise self._error("target", f"expected float32 (y, x), got {_describe(target)}")
        if not np.isfinite(target).all():
            raise self._error("target", "has NaN or infinite pixels")


def _describe(array: object) -> str:
    if isinstance(array, np.ndarray):
        return f"{array.dtype} {array.shape}"
    return type(array).__name__
