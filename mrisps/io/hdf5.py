"""Reading HDF5 with errors that name file and field.

A damaged or hostile file makes h5py raise one of five exception types, and links or external storage may lead to other
files: here both end as a `FileError`.
"""

import contextlib
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import h5py
import numpy as np
from numpy.typing import NDArray

from mrisps.errors import FileError
from mrisps.io.acquisition import Scalar, misfit
from mrisps.io.files import check_is_file

__all__ = ["HDF5_MAGIC", "Hdf5Reader"]

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"

# What h5py raises for damaged content; TypeError and ValueError come from types and shapes that numpy does not have.
_H5PY_ERRORS = (OSError, RuntimeError, KeyError, TypeError, ValueError)
# A header may claim any size. One read must stay below this; a slice of 64 coils of 1024 x 1024 is half a GiB.
_MAX_READ_BYTES = 8 << 30
_BLOCK = 64
_T = TypeVar("_T")


class Hdf5Reader(contextlib.ExitStack):
    """An HDF5 file opened for reading; data sets by name, in parts. Whatever cannot be read is a FileError."""

    def __init__(self, path: Path | str) -> None:
        super().__init__()
        self.path = Path(path)
        check_is_file(self.path)
        try:
            self._file = self.enter_context(h5py.File(self.path, "r"))
        except OSError as error:
            why = f"cannot be opened: {error.strerror or error}"
            if "truncated" in str(error):
                why = f"is truncated: {error}"
            elif "signature not found" in str(error):
                why = "is not an HDF5 file" if self.path.stat().st_size else "is empty (0 bytes)"
            raise FileError(self.path, why) from error

    def names(self, group: str | None = None) -> tuple[str, ...]:
        """Names at the top level of the file, or in a group; none where that is no group."""
        with self._naming(group):
            item = self._file if group is None else self._item(group)
            return tuple(str(name) for name in item) if isinstance(item, h5py.Group) else ()

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
        return self._of(name, lambda dataset: tuple(int(n) for n in dataset.shape))

    def dtype(self, name: str) -> np.dtype[np.generic]:
        """Type of a data set's elements."""
        return self._of(name, lambda dataset: np.dtype(dataset.dtype))

    def check(self, name: str, kind: str, *shapes: tuple[int | str, ...]) -> tuple[int, ...]:
        """Shape of a data set; a FileError if `misfit` finds something wrong."""
        if wrong := self._of(name, lambda dataset: misfit(dataset, kind, *shapes)):
            raise FileError(self.path, wrong, field=name)
        return self.shape(name)

    def read_records(self, name: str, rows: slice) -> NDArray[np.void]:
        """Read some of the records of a one-dimensional data set; members of variable length are arrays of arrays.

        There is no way to leave members out: of those of variable length that are not asked for, the HDF5 library reads
        the content, too, and never frees it.
        """
        shape, dtype = self.shape(name), self.dtype(name)
        if dtype.names is None or len(shape) != 1:
            raise FileError(self.path, f"expected records, got {dtype} {shape}", field=name)
        self._check_size(name, len(range(*rows.indices(shape[0]))) * dtype.itemsize)
        return self._of(name, lambda dataset: dataset[rows])

    def read_record_member(self, name: str, member: str) -> NDArray[np.void]:
        """Read one member, of fixed length, of all records of a one-dimensional data set.

        Where the data set lies in chunks without compression, the member is taken out of the chunks; the content of
        members of variable length, which lies elsewhere, is then not touched. Otherwise all is read, in blocks.
        """
        shape, dtype = self.shape(name), self.dtype(name)
        if dtype.fields is None or member not in dtype.fields or len(shape) != 1:
            raise FileError(self.path, f"expected records with {member}, got {dtype} {shape}", field=name)
        if dtype.fields[member][0].hasobject:
            raise FileError(self.path, f"expected a member of fixed length, got {dtype}", field=f"{name}/{member}")
        self._check_size(name, shape[0] * dtype.itemsize)
        with self._naming(name):
            dataset = self._dataset(name)
            kind = dataset.id.get_type()
            plain = dataset.chunks is not None and dataset.id.get_create_plist().get_nfilters() == 0
            n_chunk = dataset.chunks[0] if plain else _BLOCK
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
        """Read a whole data set, or the part at ``index`` of its first axis; at most 8 GiB."""
        shape, dtype = self.shape(name), self.dtype(name)
        self._check_size(name, math.prod(shape if index is None else shape[1:]) * dtype.itemsize)
        return self._of(name, lambda dataset: np.asarray(dataset[() if index is None else index]))

    def read_text(self, name: str) -> bytes:
        """Read a data set that is one text; a scalar and an array of one element both occur."""
        values = self.read(name)
        value = values.reshape(-1)[0] if values.size == 1 else None
        if isinstance(value, str):
            value = value.encode("utf-8")
        if not isinstance(value, bytes):
            raise FileError(self.path, f"expected one text, got {values.dtype} {values.shape}", field=name)
        return value

    def attributes(self) -> tuple[dict[str, Scalar], tuple[str, ...]]:
        """Read the attributes of the file that are a single text or number, and the names of the others."""
        with self._naming("attributes"):
            names = [str(name) for name in self._file.attrs]
        scalars: dict[str, Scalar] = {}
        for name in names:
            with self._naming(f"attribute {name}"):
                value = _scalar(self._file.attrs[name])
            if value is not None:
                scalars[name] = value
        return scalars, tuple(name for name in names if name not in scalars)

    def _check_size(self, name: str, n_bytes: int) -> None:
        if n_bytes > _MAX_READ_BYTES:
            message = f"{n_bytes / (1 << 30):.1f} GiB in one piece: {self.dtype(name)} {self.shape(name)}"
            raise FileError(self.path, message, field=name)

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
        why = None
        if dataset is None:
            why = f"is missing; the file has: {', '.join(self.names()) or 'nothing'}"
        elif not isinstance(dataset, h5py.Dataset):
            why = "is not a data set"
        elif dataset.external or dataset.is_virtual:
            why = "is stored in another file, which is not followed"
        elif dataset.shape is None:
            why = "is empty"
        if why is not None:
            raise FileError(self.path, why, field=name)
        return dataset

    def _of(self, name: str, ask: Callable[[h5py.Dataset], _T]) -> _T:
        with self._naming(name):
            return ask(self._dataset(name))

    @contextlib.contextmanager
    def _naming(self, field: str | None) -> Iterator[None]:
        try:
            yield
        except _H5PY_ERRORS as error:
            why = error.args[0] if isinstance(error, KeyError) and error.args else error  # str(KeyError) adds quotes
            raise FileError(self.path, f"cannot be read: {why}", field=field) from error
        except MemoryError as error:
            raise FileError(self.path, "does not fit into memory", field=field) from error


def _scalar(value: object) -> Scalar | None:
    """What h5py gives for an attribute as a Python text or number; None if it is neither."""
    if isinstance(value, np.ndarray | np.generic) and value.size == 1:
        value = value.reshape(-1)[0].item() if value.dtype.kind != "O" else value.reshape(-1)[0]
    if isinstance(value, bytes):
        value = value.decode("utf-8", errors="replace")
    return value if isinstance(value, str | bool | int | float) else None
