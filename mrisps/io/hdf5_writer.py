"""Writing HDF5 so that it survives a full disk.

When the disk is full, the HDF5 library can neither finish nor close the file, and the process crashes with a
segmentation fault at its end. So HDF5 writes into a Python object that keeps the first error to itself, and the caller
gets that error once the file is closed.
"""

import contextlib
import io
import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Self, TypeVar

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
            sink = stack.enter_context(_Sink(temporary, "w+"))
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


class _Sink(io.FileIO):
    """The file HDF5 writes to. The first error is kept, everything after it is dropped; `check` raises it."""

    error: BaseException | None = None

    def check(self) -> None:
        if self.error is not None:
            raise self.error

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # the base takes any buffer; HDF5 gives these
        view = memoryview(buffer).cast("B")
        n_read = self._try(partial(super().readinto, view)) or 0
        view[n_read:] = bytes(len(view) - n_read)  # never fewer bytes than asked for: what was dropped is zero
        return len(view)

    def write(self, content: bytes | bytearray | memoryview) -> int:  # type: ignore[override]  # the base takes any buffer; HDF5 gives these
        rest = view = memoryview(content).cast("B")
        while rest and self.error is None:  # a raw write may take only a part
            rest = rest[self._try(partial(super().write, rest)) or 0 :]
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        self._try(partial(super().truncate, size))
        return size or 0

    def _try(self, action: Callable[[], _T]) -> _T | None:
        """None after an error; Ctrl-C is one too, HDF5 must not see it."""
        try:
            return action() if self.error is None else None
        except BaseException as error:
            self.error = error
            return None
