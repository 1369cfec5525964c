"""`KspaceFile`: what every source of k-space gives, whatever its format. `mrisps.io.open` picks the format."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Self

from mrisps.errors import FileError
from mrisps.io.acquisition import Acquisition, Scalar
from mrisps.io.files import sha256_of
from mrisps.io.ismrmrd_header import IsmrmrdHeader

__all__ = ["KspaceFile"]


class KspaceFile(ABC):
    """K-space, opened for reading: a file, or arrays in memory. Slices are read when asked for, and not transformed.

    Attributes
    ----------
    path
        The file.
    format
        ``"fastMRI"``, ``"ISMRMRD"`` and so on.
    n_slices
        How many slices can be read: slices of the body times contrasts, repetitions and so on; see `Acquisition.labels`.
    n_coils
        Number of coils.
    shape
        (y, x) of the k-space of a slice.
    recon_shape
        (y, x) of the central crop that the file asks for.
    contrast
        The file's name for it.
    header, header_xml
        The ISMRMRD header, and the whole text that it comes from.
    attributes
        Further texts and numbers.
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
        for index in range(self.n_slices):
            yield self.read_slice(index)

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
