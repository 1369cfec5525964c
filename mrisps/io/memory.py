"""K-space in arrays of a running program: `MemoryKspace`, so that arrays and files take one path."""

import hashlib
from pathlib import Path
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mrisps.errors import FileError
from mrisps.io.acquisition import Acquisition, misfit, shown
from mrisps.io.arrays import centered
from mrisps.io.kspace_file import KspaceFile, complex64

__all__ = ["ArrayOrTensor", "MemoryKspace"]


@runtime_checkable
class Tensor(Protocol):
    """What is used of a PyTorch tensor."""

    def detach(self) -> "Tensor": ...
    def cpu(self) -> "Tensor": ...
    def resolve_conj(self) -> "Tensor": ...
    def resolve_neg(self) -> "Tensor": ...


ArrayOrTensor: TypeAlias = NDArray[np.generic] | Tensor
"""A NumPy array, or a PyTorch tensor on any device."""


class MemoryKspace(KspaceFile):
    """K-space in arrays, with what belongs to it; see `KspaceFile` for the attributes. The arrays are not changed.

    Parameters
    ----------
    kspace
        complex64 or complex128, (y, x), (coil, y, x) or (slice, coil, y, x), NumPy or PyTorch; zero where nothing was
        acquired. Rows are the readout direction. complex128 is rounded to complex64.
    mask
        What was acquired: bool, or numbers 0 and 1, (x,) for whole columns, (y, x), or (slice, y, x), with the zero
        frequency where ``kspace`` has it. None: not stated.
    maps
        Coil sensitivities, complex, (coil, y, x), (set, coil, y, x), or (slice, set, coil, y, x). As many sets as there
        are slices are refused: they might be meant as one set for each slice.
    noise
        Samples without signal, complex, (coil, sample), scaled like ``kspace``.
    centred
        True: the zero frequency is at n // 2. False: it is at 0, as in the result of a plain fft2.
    image_is_real
        The underlying image is real.
    name
        Stands for a file name in messages and in results.

    Raises
    ------
    ValueError
        An argument is no array, or has another element type or shape. Samples that are NaN, infinite or all zero are
        found when a slice is read, which also raises a ValueError.
    """

    format = "array"

    def __init__(
        self,
        kspace: ArrayOrTensor,
        *,
        mask: ArrayOrTensor | None = None,
        maps: ArrayOrTensor | None = None,
        noise: ArrayOrTensor | None = None,
        centred: bool = True,
        image_is_real: bool = False,
        name: str = "array",
    ) -> None:
        array = _numpy("kspace", kspace)
        if wrong := misfit(array, "complex", ("y", "x"), ("coil", "y", "x"), ("slice", "coil", "y", "x")):
            raise ValueError(f"kspace: {wrong}")
        self._kspace = array.reshape((1,) * (4 - array.ndim) + array.shape)  # (slice, coil, y, x)
        self.n_slices, self.n_coils, n_y, n_x = self._kspace.shape
        self.shape = (n_y, n_x)
        self.path = Path(name)
        self._centred, self.image_is_real = centred, image_is_real
        self._mask = None if mask is None else self._checked_mask(_numpy("mask", mask))
        self._maps = None if maps is None else self._checked_maps(_numpy("maps", maps))
        self._noise = None if noise is None else _numpy("noise", noise)
        if noise is not None and (wrong := misfit(self._noise, "complex", (self.n_coils, "sample"))):
            raise ValueError(f"noise: {wrong}")
        rounded = () if array.dtype == np.complex64 else (f"{array.dtype} is rounded to complex64",)
        self.notes = (*(("no mask",) if mask is None else ()), *rounded)

    def close(self) -> None:
        """Do nothing: the arrays belong to the caller."""

    def sha256(self) -> str:
        """Compute the SHA-256 of all arrays with their shapes and element types."""
        digest = hashlib.sha256(f"{self._centred} {self.image_is_real}".encode())
        for array in (self._kspace, self._mask, self._maps, self._noise):
            digest.update(b"none" if array is None else shown(array).encode())
            if array is not None:
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def read_slice(self, index: int) -> Acquisition:
        """Give one slice.

        Raises
        ------
        ValueError
            There is no such slice; samples are NaN or infinite, all zero, or not zero where the mask says that nothing
            was acquired.
        """
        try:
            self._check_index(index)
            mask, maps = self._mask, self._maps
            kspace = complex64(self._kspace[index])
            return Acquisition(
                kspace=kspace if self._centred else centered(kspace),
                source=self.path,
                slice_index=index,
                n_slices=self.n_slices,
                mask=None if mask is None else mask[index % len(mask)],
                image_is_real=self.image_is_real,
                sensitivity_maps=None if maps is None else complex64(maps[index % len(maps)]),
                noise_scan=None if self._noise is None else complex64(self._noise),
            )
        except FileError as error:
            raise ValueError(f"{error.field}: {error.message}") from error

    def _checked_mask(self, mask: NDArray[np.generic]) -> NDArray[np.bool_]:
        """As bool (slice or 1, x) or (slice or 1, y, x), centred."""
        n_y, n_x = self.shape
        if wrong := misfit(mask, "numbers", (n_x,), (n_y, n_x), (self.n_slices, n_y, n_x)):
            raise ValueError(f"mask: {wrong}")
        if not np.isin(mask, (0, 1)).all():
            raise ValueError("mask: expected only 0 and 1")
        acquired = mask.astype(np.bool_)
        if not self._centred:
            acquired = np.fft.fftshift(acquired, axes=(-1,) if acquired.ndim == 1 else (-2, -1))
        return acquired if acquired.ndim == 3 else acquired[np.newaxis]

    def _checked_maps(self, maps: NDArray[np.generic]) -> NDArray[np.generic]:
        """As (slice or 1, set, coil, y, x)."""
        image, n = (self.n_coils, *self.shape), self.n_slices
        if wrong := misfit(maps, "complex", image, ("set", *image), (n, "set", *image)):
            raise ValueError(f"maps: {wrong}")
        if maps.ndim == 4 and len(maps) == n > 1:
            either = f"may be {n} sets or one set for each of the {n} slices"
            raise ValueError(f"maps: {shown(maps)} {either}; give (slice, set, coil, y, x)")
        return maps.reshape((1,) * (5 - maps.ndim) + maps.shape)


def _numpy(name: str, value: ArrayOrTensor) -> NDArray[np.generic]:
    if isinstance(value, Tensor):
        value = np.asarray(value.detach().cpu().resolve_conj().resolve_neg())
    if not isinstance(value, np.ndarray):
        raise ValueError(f"{name}: expected a NumPy array or a PyTorch tensor, got {type(value).__name__}")
    return value
