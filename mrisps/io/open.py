"""One way to open k-space in any format: `open_kspace` gives a `KspaceFile`, which gives an `Acquisition` a slice."""

from pathlib import Path

from mrisps.errors import FileError
from mrisps.io.arrays import ArrayFile, ArrayLayout
from mrisps.io.bart import BartFile
from mrisps.io.fastmri import FastmriFile
from mrisps.io.files import check_is_file
from mrisps.io.hdf5 import HDF5_MAGIC
from mrisps.io.ismrmrd import IsmrmrdFile, ismrmrd_groups
from mrisps.io.kspace_file import KspaceFile
from mrisps.io.twix import TwixFile

__all__ = ["KSPACE_SUFFIXES", "open_kspace"]

_HDF5_SUFFIXES = (".h5", ".hdf5", ".mrd")
_ARRAY_SUFFIXES = (".npy", ".npz", ".mat")
KSPACE_SUFFIXES = (*_HDF5_SUFFIXES, ".dat", ".cfl", ".hdr", *_ARRAY_SUFFIXES)
"""File name endings, in small letters, of what `open_kspace` may read."""


def open_kspace(path: Path | str, layout: ArrayLayout | None = None) -> KspaceFile:
    """Open a file with k-space; the format is recognised by what is in the file, then by its name.

    The layout says what the axes of an array file (``.npy``, ``.npz``, ``.mat``) are, unless that is stated beside it.
    A FileError if the file does not exist, is of no format that is known here, or is not what its format asks for.
    """
    path = Path(path)
    check_is_file(path)
    try:
        with path.open("rb") as stream:
            is_hdf5 = stream.read(8) == HDF5_MAGIC
    except OSError as error:
        raise FileError(path, f"cannot be read: {error.strerror}") from error
    suffix = path.suffix.lower()
    if suffix in _ARRAY_SUFFIXES or layout is not None:  # before the content: MATLAB's files of version 7.3 are HDF5
        return ArrayFile(path, layout)
    if is_hdf5 or suffix in _HDF5_SUFFIXES:
        return IsmrmrdFile(path) if ismrmrd_groups(path) else FastmriFile(path)
    if suffix in (".cfl", ".hdr"):
        return BartFile(path)
    if suffix == ".dat":
        return TwixFile(path)
    raise FileError(path, f"is no k-space of a format that is known here: {', '.join(KSPACE_SUFFIXES)}")
