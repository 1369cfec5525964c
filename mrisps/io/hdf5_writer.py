"""Writing HDF5 so that it survives a full disk.

When the disk is full, the HDF5 library can neither finish nor close the file, and the process crashes with a segmentation
fault at its end. So HDF5 writes into a Python object that keeps the first error to itself, and the caller gets that error
once the file is closed.
"""

import contextlib
import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, TypeVar

import h5py
import numpy as np
from numpy.typing import NDArray

from mrisps.atomic import atomic_path
from mrisps.io.acquisition import Scalar
from mrisps.io.writers import AtomicWriter

__all__ = ["Hdf5Writer"]

_RECORD_CHUNK = 64
_T = TypeVar("_T")


class Hdf5Writer(AtomicWriter):
    """An HDF5 file that appears under its name, complete, when the ``with`` block ends without an exception.

    Parameters
    ----------
    path
        The destination; what is there stays until the block has ended well.

    Raises
    ------
    FileError
        The file cannot be written: folder missing or read-only, disk full.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._sink: _Sink | None = None
        self._hdf5: h5py.File | None = None

    def _open(self, stack: contextlib.ExitStack) -> None:
        temporary = stack.enter_context(atomic_path(self.path))
        raw = stack.enter_context(temporary.open("w+b", buffering=0))
        self._sink = _Sink(raw)
        stack.enter_context(_checked_at_end(self._sink))  # after HDF5 has closed, before the file is renamed
        # v108: attributes may be larger than 64 kB, and every HDF5 since 2008 reads the file.
        self._hdf5 = stack.enter_context(h5py.File(self._sink, "w", libver=("v108", "v110")))

    def create(self, name: str, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> None:
        """Make room for a data set that is written part after part; each part of the first axis is one chunk."""
        chunks = (1, *shape[1:]) if len(shape) > 1 and math.prod(shape[1:]) * dtype.itemsize < 1 << 32 else None
        self._file.create_dataset(name, shape=shape, dtype=dtype, chunks=chunks)
        self._check()

    def write_part(self, name: str, index: int, values: NDArray[np.generic]) -> None:
        """Write the part at ``index`` of the first axis."""
        self._file[name][index] = values
        self._check()

    def write(self, name: str, values: NDArray[np.generic] | bytes) -> None:
        """Write a whole data set."""
        self._file.create_dataset(name, data=values)
        self._check()

    def create_records(self, name: str, dtype: np.dtype[np.void]) -> None:
        """Make room for records that are appended block after block; groups in the name are made."""
        self._file.create_dataset(name, shape=(0,), maxshape=(None,), dtype=dtype, chunks=(_RECORD_CHUNK,))
        self._check()

    def append_records(self, name: str, records: NDArray[np.void]) -> None:
        """Append records."""
        dataset = self._file[name]
        n_before = dataset.shape[0]
        dataset.resize(n_before + len(records), axis=0)
        dataset[n_before:] = records
        self._check()

    def write_texts(self, name: str, texts: Sequence[bytes]) -> None:
        """Write a one-dimensional data set of texts of variable length."""
        # called ASCII whatever they are: the HDF5 library has no conversion between the two, and C++ programs ask for ASCII
        self._file.create_dataset(name, data=np.asarray(texts, dtype=object), dtype=h5py.string_dtype("ascii"))
        self._check()

    def set_attributes(self, attributes: Mapping[str, Scalar]) -> None:
        """Write attributes of the file."""
        for name, value in attributes.items():
            self._file.attrs[name] = value
        self._check()

    @property
    def _file(self) -> h5py.File:
        if self._hdf5 is None:
            raise ValueError(f"{self.path} is not open: use `with`")
        return self._hdf5

    def _check(self) -> None:
        """Raise the first error of the disk, if there was one: there is no use in going on."""
        if self._sink is not None:
            self._sink.check()


class _Sink(io.RawIOBase):
    """The file HDF5 writes to. The first error is kept, everything after it is dropped; `check` raises it."""

    def __init__(self, raw: BinaryIO | io.FileIO) -> None:
        super().__init__()
        self._raw = raw
        self._position = self._size = 0
        self._error: BaseException | None = None

    def check(self) -> None:
        if self._error is not None:
            raise self._error

    def readable(self) -> bool:
        return True

    writable = seekable = readable

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # the base takes any buffer; HDF5 gives these
        view = memoryview(buffer).cast("B")
        content = self._try(lambda: self._raw.read(len(view)))
        view[:] = (content or b"").ljust(len(view), b"\0")  # never fewer bytes than asked for: what was dropped is zero
        self._position += len(view)
        return len(view)

    def write(self, content: bytes | bytearray | memoryview) -> int:  # type: ignore[override]  # the base takes any buffer; HDF5 gives these
        view = memoryview(content).cast("B")

        def write_all() -> None:
            rest = view
            while rest:  # a raw write may take only a part
                rest = rest[self._raw.write(rest) :]

        self._size = max(self._size, self._position + len(view))
        self._try(write_all)
        self._position += len(view)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        self._size = self._position if size is None else size
        self._try(lambda: self._raw.truncate(self._size))
        return self._size

    def _try(self, action: Callable[[], _T]) -> _T | None:
        """Do something at the present position. None after an error; Ctrl-C is one too, HDF5 must not see it."""
        if self._error is not None:
            return None
        try:
            self._raw.seek(self._position)
            return action()
        except BaseException as error:
            self._error = error
            return None


@contextlib.contextmanager
def _checked_at_end(sink: _Sink) -> Iterator[None]:
    yield
    sink.check()
