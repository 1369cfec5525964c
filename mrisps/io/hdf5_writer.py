"""Writing HDF5 so that it survives a full disk.

When the disk is full, the HDF5 library can neither finish nor close the file, and the process crashes with a segmentation
fault at its end. So HDF5 writes into a Python object that keeps the first error to itself, and the caller gets that error
once the file is closed.
"""

import contextlib
import io
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO, Self, TypeVar

import h5py
import numpy as np
from numpy.typing import NDArray

from mrisps.atomic import atomic_path
from mrisps.io.acquisition import Scalar

__all__ = ["Hdf5Writer"]

_RECORD_CHUNK = 64
_T = TypeVar("_T")


class Hdf5Writer(contextlib.ExitStack):
    """An HDF5 file that appears under its name, complete, when the ``with`` block ends without an exception.

    What is there stays until then. A FileError if the folder is missing or read-only, or the disk is full.
    """

    def __init__(self, path: Path | str) -> None:
        super().__init__()
        self.path = Path(path)
        self._opened: tuple[h5py.File, _Sink] | None = None

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            temporary = stack.enter_context(atomic_path(self.path))
            sink = _Sink(stack.enter_context(temporary.open("w+b", buffering=0)))
            # after HDF5 has closed, before the file is renamed
            stack.push(lambda kind, *_: sink.check() if kind is None else None)
            # v108: attributes may be larger than 64 kB, and every HDF5 since 2008 reads the file
            self._opened = stack.enter_context(h5py.File(sink, "w", libver=("v108", "v110"))), sink
            self.push(stack.pop_all())
        return self

    def create(self, name: str, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> None:
        """Make room for a data set that is written part after part; each part of the first axis is one chunk."""
        chunks = (1, *shape[1:]) if len(shape) > 1 and math.prod(shape[1:]) * dtype.itemsize < 1 << 32 else None
        self._do(lambda file: file.create_dataset(name, shape=shape, dtype=dtype, chunks=chunks))

    def write_part(self, name: str, index: int, values: NDArray[np.generic]) -> None:
        """Write the part at ``index`` of the first axis."""
        self._do(lambda file: file[name].__setitem__(index, values))

    def write(self, name: str, values: NDArray[np.generic] | bytes) -> None:
        """Write a whole data set."""
        self._do(lambda file: file.create_dataset(name, data=values))

    def create_records(self, name: str, dtype: np.dtype[np.void]) -> None:
        """Make room for records that are appended block after block; groups in the name are made."""
        options = {"maxshape": (None,), "chunks": (_RECORD_CHUNK,)}
        self._do(lambda file: file.create_dataset(name, shape=(0,), dtype=dtype, **options))

    def append_records(self, name: str, records: NDArray[np.void]) -> None:
        """Append records."""

        def append(file: h5py.File) -> None:
            n_before = len(file[name])
            file[name].resize(n_before + len(records), axis=0)
            file[name][n_before:] = records

        self._do(append)

    def write_texts(self, name: str, texts: list[bytes]) -> None:
        """Write a one-dimensional data set of texts of variable length."""
        # called ASCII whatever they are: the HDF5 library has no conversion between the two, and C++ programs ask for ASCII
        kind, data = h5py.string_dtype("ascii"), np.asarray(texts, dtype=object)
        self._do(lambda file: file.create_dataset(name, data=data, dtype=kind))

    def set_attributes(self, attributes: Mapping[str, Scalar]) -> None:
        """Write attributes of the file."""
        self._do(lambda file: file.attrs.update(attributes))

    def _do(self, action: Callable[[h5py.File], object]) -> None:
        """Do something, and raise the first error of the disk, if there was one: there is no use in going on."""
        if self._opened is None:
            raise ValueError(f"{self.path} is not open: use `with`")
        file, sink = self._opened
        action(file)
        sink.check()


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
