"""HDF5 with errors that name file and field, and with writing that survives a full disk.

Two things h5py leaves to its caller. Reading: a damaged or hostile file raises one of four exception types, and links
or external storage may lead to other files; here both end as a `FileError`. Writing: when the disk is full, the HDF5
library can neither finish nor close the file, and the process crashes with a segmentation fault at its end. So HDF5
writes into a Python object that keeps the first error to itself, and the caller gets that error once the file is
closed.
"""

import contextlib
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import h5py
import numpy as np
from numpy.typing import NDArray

from mrisps.atomic import atomic_path
from mrisps.errors import FileError
from mrisps.io.acquisition import Scalar

__all__ = ["Hdf5Reader", "Hdf5Writer"]

# What h5py raises for damaged content; TypeError and ValueError come from types and shapes that numpy does not have.
_H5PY_ERRORS = (OSError, RuntimeError, KeyError, TypeError, ValueError)

# A header may claim any size. One read must stay below this; a slice of 64 coils of 1024 x 1024 is half a GiB.
_MAX_READ_BYTES = 8 << 30
_RECORD_CHUNK = 64


class Hdf5Reader:
    """An HDF5 file opened for reading; data sets by name, read in parts.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    FileError
        The file does not exist, cannot be read, or is not (or no longer) an HDF5 file.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        try:
            if not self.path.exists():
                raise FileError(self.path, "does not exist")
            if not self.path.is_file():
                raise FileError(self.path, "is not a regular file")
            self._file = h5py.File(self.path, "r")
        except OSError as error:
            raise FileError(self.path, _why_not_open(self.path, error)) from error

    def __enter__(self) -> "Hdf5Reader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. Harmless when done twice."""
        self._file.close()

    def names(self) -> tuple[str, ...]:
        """Names at the top level of the file."""
        with self._naming(None):
            return tuple(str(name) for name in self._file)

    def has(self, name: str) -> bool:
        """Whether the file has this name: at the top level, or ``group/name`` below it."""
        with self._naming(name):
            return self._item(name) is not None

    def layout(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Shape and element type of every data set at the top level of this file; groups and links are left out."""
        layout: dict[str, tuple[tuple[int, ...], str]] = {}
        for name in self.names():
            with self._naming(name):
                if self._file.get(name, getclass=True, getlink=True) is h5py.HardLink:
                    item = self._file[name]
                    if isinstance(item, h5py.Dataset):
                        dtype = "text" if h5py.check_string_dtype(item.dtype) else str(item.dtype)
                        layout[name] = (tuple(item.shape or ()), dtype)
        return layout

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a data set."""
        with self._naming(name):
            return tuple(int(n) for n in self._dataset(name).shape)

    def dtype(self, name: str) -> np.dtype[np.generic]:
        """Type of a data set's elements."""
        with self._naming(name):
            dtype: np.dtype[np.generic] = np.dtype(self._dataset(name).dtype)
            return dtype

    def read_records(self, name: str, rows: slice) -> NDArray[np.void]:
        """Read some of the records of a one-dimensional data set, with all their members.

        Members of variable length come as an array of arrays. There is no way to leave members out: of those of variable length
        that are not asked for, the HDF5 library reads the content, too, and never frees it.

        Raises
        ------
        FileError
            The data set is missing, damaged or stored outside this file, its elements are no records, or they are larger than
            8 GiB.
        """
        shape, dtype = self.shape(name), self.dtype(name)
        if dtype.names is None or len(shape) != 1:
            raise FileError(self.path, f"expected records, got {dtype} {shape}", field=name)
        n_bytes = len(range(*rows.indices(shape[0]))) * dtype.itemsize
        if n_bytes > _MAX_READ_BYTES:
            raise FileError(self.path, f"{n_bytes / (1 << 30):.1f} GiB in one piece", field=name)
        with self._naming(name):
            records: NDArray[np.void] = self._dataset(name)[rows]
            return records

    def read_record_member(self, name: str, member: str) -> NDArray[np.void]:
        """Read one member, of fixed length, of all records of a one-dimensional data set.

        Where the data set lies in the file as it is, in chunks without compression, the member is taken out of the chunks; the
        content of members of variable length, which lies elsewhere, is then not touched. Otherwise all is read, in blocks.

        Raises
        ------
        FileError
            As `read_records`; the records have no such member, or it is of variable length.
        """
        shape, dtype = self.shape(name), self.dtype(name)
        if dtype.names is None or member not in dtype.names or len(shape) != 1 or dtype.fields is None:
            raise FileError(self.path, f"expected records with {member}, got {dtype} {shape}", field=name)
        if dtype.fields[member][0].hasobject or shape[0] * dtype.itemsize > _MAX_READ_BYTES:
            raise FileError(
                self.path, f"expected a member of fixed length, got {dtype} {shape}", field=f"{name}/{member}"
            )
        with self._naming(name):
            dataset = self._dataset(name)
            kind = dataset.id.get_type()
            plain = dataset.chunks is not None and dataset.id.get_create_plist().get_nfilters() == 0
            n_chunk = dataset.chunks[0] if plain else _RECORD_CHUNK
            names = [kind.get_member_name(index).decode("utf-8", "replace") for index in range(kind.get_nmembers())]
            index = names.index(member)
            layout, offset = kind.get_member_type(index).dtype, kind.get_member_offset(index)
            values: NDArray[np.void] = np.zeros(shape[0], layout)
            for start in range(0, shape[0], n_chunk):
                part = values[start : start + n_chunk]
                if plain:
                    _, content = dataset.id.read_direct_chunk((start,))
                    rows = np.frombuffer(content, np.uint8).reshape(n_chunk, kind.get_size())[: len(part)]
                    part[:] = np.ascontiguousarray(rows[:, offset : offset + layout.itemsize]).view(layout)[:, 0]
                else:
                    part[:] = dataset[start : start + n_chunk][member]
            return values

    def read(self, name: str, index: int | None = None) -> NDArray[np.generic]:
        """Read a whole data set, or the part at ``index`` of its first axis.

        Raises
        ------
        FileError
            The data set is missing, damaged, stored outside this file, or larger than 8 GiB.
        """
        shape, dtype = self.shape(name), self.dtype(name)
        n_bytes = math.prod(shape if index is None else shape[1:]) * dtype.itemsize
        if n_bytes > _MAX_READ_BYTES:
            raise FileError(
                self.path, f"{n_bytes / (1 << 30):.1f} GiB in one piece: shape {shape}, {dtype}", field=name
            )
        with self._naming(name):
            return np.asarray(self._dataset(name)[() if index is None else index])

    def read_text(self, name: str) -> bytes:
        """Read a data set that is one text; a scalar and an array of one element both occur.

        Raises
        ------
        FileError
            It is missing, damaged, or something else.
        """
        values = self.read(name)
        value = values.reshape(-1)[0] if values.size == 1 else None
        if isinstance(value, str):
            value = value.encode("utf-8")
        if not isinstance(value, bytes):
            raise FileError(self.path, f"expected one text, got {values.dtype} {values.shape}", field=name)
        return value

    def attributes(self) -> tuple[dict[str, Scalar], tuple[str, ...]]:
        """Read the attributes of the file.

        Returns
        -------
        dict
            Those that are a single text or number.
        tuple
            The names of the others.
        """
        with self._naming("attributes"):
            names = [str(name) for name in self._file.attrs]
        scalars: dict[str, Scalar] = {}
        others: list[str] = []
        for name in names:
            with self._naming(f"attribute {name}"):
                value = _scalar(self._file.attrs[name])
            if value is None:
                others.append(name)
            else:
                scalars[name] = value
        return scalars, tuple(others)

    def _item(self, name: str) -> h5py.Group | h5py.Dataset | None:
        """What has this name, or None; no step of the way may leave the file."""
        item: h5py.Group | h5py.Dataset = self._file
        for step in name.split("/"):
            if not isinstance(item, h5py.Group) or step not in tuple(item):
                return None
            if not isinstance(item.get(step, getlink=True), h5py.HardLink):  # soft ones may lead on to external ones
                raise FileError(self.path, "is a link, possibly to another file, which is not followed", field=name)
            item = item[step]
        return item

    def _dataset(self, name: str) -> h5py.Dataset:
        dataset = self._item(name)
        if dataset is None:
            raise FileError(self.path, f"is missing; the file has: {', '.join(self.names()) or 'nothing'}", field=name)
        if not isinstance(dataset, h5py.Dataset):
            raise FileError(self.path, "is not a data set", field=name)
        if dataset.external or dataset.is_virtual:
            raise FileError(self.path, "is stored in another file, which is not followed", field=name)
        if dataset.shape is None:
            raise FileError(self.path, "is empty", field=name)
        return dataset

    @contextlib.contextmanager
    def _naming(self, field: str | None) -> Iterator[None]:
        try:
            yield
        except _H5PY_ERRORS as error:
            why = error.args[0] if isinstance(error, KeyError) and error.args else error  # str(KeyError) adds quotes
            raise FileError(self.path, f"cannot be read: {why}", field=field) from error
        except MemoryError as error:
            raise FileError(self.path, "does not fit into memory", field=field) from error


class Hdf5Writer:
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
        self._stack = contextlib.ExitStack()
        self._sink: _Sink | None = None
        self._hdf5: h5py.File | None = None

    def __enter__(self) -> "Hdf5Writer":
        with contextlib.ExitStack() as stack:
            temporary = stack.enter_context(atomic_path(self.path))
            raw = stack.enter_context(temporary.open("w+b", buffering=0))
            self._sink = _Sink(raw)
            stack.enter_context(_checked_at_end(self._sink))  # after HDF5 has closed, before the file is renamed
            # v108: attributes may be larger than 64 kB, and every HDF5 since 2008 reads the file.
            self._hdf5 = stack.enter_context(h5py.File(self._sink, "w", libver=("v108", "v110")))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        self._hdf5 = None
        return self._stack.__exit__(kind, error, trace)

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
        self._position = 0
        self._size = 0
        self._error: BaseException | None = None

    def check(self) -> None:
        if self._error is not None:
            raise self._error

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # the base takes any buffer; HDF5 gives these
        view = memoryview(buffer).cast("B")
        content = b""
        if self._error is None:
            try:
                self._raw.seek(self._position)
                content = self._raw.read(len(view))
            except BaseException as error:
                self._error = error
        view[:] = content.ljust(
            len(view), b"\0"
        )  # never fewer bytes than HDF5 asked for: what was dropped reads as zero
        self._position += len(view)
        return len(view)

    def write(self, content: bytes | bytearray | memoryview) -> int:  # type: ignore[override]  # the base takes any buffer; HDF5 gives these
        view = memoryview(content).cast("B")
        self._size = max(self._size, self._position + len(view))
        if self._error is None:
            try:
                self._raw.seek(self._position)
                rest = view
                while rest:  # a raw write may take only a part
                    rest = rest[self._raw.write(rest) :]
            except BaseException as error:  # also Ctrl-C: HDF5 must not see it either, `check` raises it
                self._error = error
        self._position += len(view)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        self._size = self._position if size is None else size
        if self._error is None:
            try:
                self._raw.truncate(self._size)
            except BaseException as error:
                self._error = error
        return self._size


@contextlib.contextmanager
def _checked_at_end(sink: _Sink) -> Iterator[None]:
    yield
    sink.check()


def _scalar(value: object) -> Scalar | None:
    """Turn what h5py gives for an attribute into a Python text or number; None if it is neither."""
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(())[()]
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    return value if isinstance(value, str | bool | int | float) else None


def _why_not_open(path: Path, error: OSError) -> str:
    text = str(error)
    if "truncated" in text:
        return f"is truncated: {text}"
    if "signature not found" in text:
        return "is not an HDF5 file" if path.stat().st_size else "is empty (0 bytes)"
    return f"cannot be opened: {error.strerror or text}"
