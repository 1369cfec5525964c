"""`KspaceFile`: what every source of k-space gives, whatever its format. `mrisps.io.open` picks the format."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from mrisps.errors import FileError
from mrisps.io.acquisition import Acquisition, Scalar
from mrisps.io.files import sha256_of
from mrisps.io.ismrmrd_header import IsmrmrdHeader

__all__ = ["KspaceFile", "complex64"]


class KspaceFile(ABC):
    """K-space, opened for reading: a file, or arrays in memory. Slices are read when asked for, and not transformed.

    Attributes
    ----------
    path, format
        The file; ``"fastMRI"``, ``"ISMRMRD"`` and so on.
    n_slices
        How many slices can be read: slices of the body times contrasts, repetitions and so on; see
        `Acquisition.labels`.
    n_coils, shape
        Number of coils, and (y, x) of the k-space of a slice.
    recon_shape, contrast, image_is_real, attributes
        As in `Acquisition`.
    header, header_xml
        The ISMRMRD header, and the whole text that it comes from.
    notes
        What is missing or unusual, what was left out.
    """

    path: Path
    format: str
    n_slices: int
    n_coils: int
    shape: tuple[int, int]
    recon_shape: tuple[int, int] | None = None
    contrast: str | None = None
    image_is_real: bool = False
    header: IsmrmrdHeader | None = None
    header_xml: bytes | None = None
    attributes: Mapping[str, Scalar] = MappingProxyType({})
    notes: tuple[str, ...] = ()

    @abstractmethod
    def read_slice(self, index: int) -> Acquisition:
        """Read the slice of this number, from 0 to n_slices - 1.

        Raises
        ------
        FileError
            There is no such slice, the file is closed, or the slice is no valid `Acquisition`.
        """

    @abstractmethod
    def close(self) -> None:
        """Close the file. Harmless when done twice."""

    def slices(self) -> Iterator[Acquisition]:
        """Read all slices, one after the other."""
        return map(self.read_slice, range(self.n_slices))

    def sha256(self) -> str:
        """Compute the SHA-256 of the file, or of the arrays, as 64 hexadecimal digits."""
        return sha256_of(self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _error(self, field: str, message: str) -> FileError:
        return FileError(self.path, message, field=field)

    def _check_index(self, index: int) -> None:
        if not 0 <= index < self.n_slices:
            raise self._error("slice", f"expected 0 to {self.n_slices - 1}, got {index}")


def complex64(array: NDArray[np.generic]) -> NDArray[np.complex64]:
    """Copy as complex64 in C order; what is too large becomes infinite, which `Acquisition` refuses."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.array(array, np.complex64, order="C")
