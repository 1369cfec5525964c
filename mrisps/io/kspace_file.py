"""One way to open k-space in any format: `open_kspace` gives a `KspaceFile`, which gives an `Acquisition` a slice."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from mrisps.errors import FileError
from mrisps.io.acquisition import Acquisition, Scalar
from mrisps.io.ismrmrd_header import IsmrmrdHeader

if TYPE_CHECKING:
    from mrisps.io.arrays import ArrayLayout

__all__ = ["KSPACE_SUFFIXES", "KspaceFile", "open_kspace"]

KSPACE_SUFFIXES = (".h5", ".hdf5", ".mrd", ".dat", ".cfl", ".hdr", ".npy", ".npz", ".mat")
"""File name endings, in small letters, of what `open_kspace` may read."""

_ARRAY_SUFFIXES = (".npy", ".npz", ".mat")
_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"


class KspaceFile(Protocol):
    """A file with k-space, opened for reading. Slices are read when asked for; a reader transforms nothing.

    Attributes
    ----------
    path : Path
    format : str
        ``"fastMRI"``, ``"ISMRMRD"`` and so on.
    n_slices : int
        How many slices can be read: slices of the body times contrasts, repetitions and so on; see `Acquisition.labels`.
    n_coils : int
    shape : tuple of int
        (y, x) of the k-space of a slice.
    recon_shape : tuple of int or None
        (y, x) of the central crop that the file asks for.
    contrast : str or None
        The file's name for it.
    header : IsmrmrdHeader or None
    header_xml : bytes or None
        The whole header as it is in the file, from which ``header`` comes.
    attributes : Mapping
        Further texts and numbers.
    notes : tuple of str
        What is missing or unusual, what was left out.
    """

    path: Path
    format: str
    n_slices: int
    n_coils: int
    shape: tuple[int, int]
    recon_shape: tuple[int, int] | None
    contrast: str | None
    header: IsmrmrdHeader | None
    header_xml: bytes | None
    attributes: Mapping[str, Scalar]
    notes: tuple[str, ...]

    @abstractmethod
    def read_slice(self, index: int) -> Acquisition:
        """Read the slice of this number, from 0 to n_slices - 1.

        Raises
        ------
        FileError
            There is no such slice, it cannot be read, or it is not what it should be.
        """

    @abstractmethod
    def close(self) -> None:
        """Close the file. Harmless when done twice."""

    def slices(self) -> Iterator[Acquisition]:
        """Read all slices, one after the other."""
        for index in range(self.n_slices):
            yield self.read_slice(index)

    def __enter__(self) -> "KspaceFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_index(self, index: int) -> None:
        if not 0 <= index < self.n_slices:
            raise FileError(self.path, f"expected 0 to {self.n_slices - 1}, got {index}", field="slice")


def open_kspace(path: Path | str, layout: "ArrayLayout | None" = None) -> KspaceFile:
    """Open a file with k-space; the format is recognised by what is in the file, then by its name.

    Parameters
    ----------
    path
        The file.
    layout
        What the axes of an array file (``.npy``, ``.npz``, ``.mat``) are, unless that is stated beside it.

    Raises
    ------
    FileError
        The file does not exist, is of no format that is known here, or is not what its format asks for.
    """
    path = Path(path)
    if not path.is_file():
        raise FileError(path, "is not a regular file" if path.exists() else "does not exist")
    try:
        with path.open("rb") as stream:
            start = stream.read(8)
    except OSError as error:
        raise FileError(path, f"cannot be read: {error.strerror}") from error
    suffix = path.suffix.lower()
    if suffix in _ARRAY_SUFFIXES or layout is not None:  # before the content: MATLAB's files of version 7.3 are HDF5
        from mrisps.io.arrays import ArrayFile

        return ArrayFile(path, layout)
    if start == _HDF5_MAGIC or suffix in (".h5", ".hdf5", ".mrd"):
        return _open_hdf5(path)
    if suffix in (".cfl", ".hdr"):
        from mrisps.io.bart import BartFile

        return BartFile(path)
    if suffix == ".dat":
        from mrisps.io.twix import TwixFile

        return TwixFile(path)
    raise FileError(path, f"is no k-space of a format that is known here: {', '.join(KSPACE_SUFFIXES)}")


def _open_hdf5(path: Path) -> KspaceFile:
    from mrisps.io.fastmri import FastmriFile
    from mrisps.io.ismrmrd import IsmrmrdFile, ismrmrd_groups

    if ismrmrd_groups(path):
        return IsmrmrdFile(path)
    return FastmriFile(path)
