"""Arrays of numbers in MATLAB's ``.mat`` files, version 5 (the default of ``save``) and 7.3 (HDF5).

Only numeric arrays are read, real or complex; anything else in a file is passed over. SciPy's reader is not used: on
some damaged files of version 5 it ends the process with a segmentation fault.

Source: MathWorks, *MAT-File Format*, "Level 5 MAT-File Format".
"""

import contextlib
import itertools
import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mrisps.errors import FileError
from mrisps.io.hdf5 import HDF5_MAGIC, Hdf5Reader

__all__ = ["chosen", "mat_variables", "read_mat"]

_MATRIX, _COMPRESSED = 14, 15
_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
# mxDOUBLE_CLASS to mxUINT64_CLASS
_CLASSES = dict(
    enumerate(("float64", "float32", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"), 6)
)
_COMPLEX = 0x0800
_MAX_BYTES = 16 << 30
_MAX_DIMENSIONS = 32
_HEAD_BYTES = 1 << 12  # flags, dimensions and name of a compressed array are in this many bytes, or it is passed over


class _Element(NamedTuple):
    """A data element: its type, and the bytes of its content."""

    kind: int
    content: memoryview


class _Array(NamedTuple):
    """A numeric array in a file, whose numbers have not been read."""

    shape: tuple[int, ...]
    dtype: str
    element: _Element


def mat_variables(path: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape, in MATLAB's order of dimensions, and element type of the numeric arrays in a file, without reading their numbers."""
    if _is_73(path):
        with Hdf5Reader(path) as file:
            return {
                name: (shape[::-1], "complex" if _is_complex(file.dtype(name)) else dtype)
                for name, (shape, dtype) in file.layout().items()
            }
    with _naming(path, None):
        return {name: (array.shape, array.dtype) for name, array in _mapped(path)[1].items()}


def read_mat(path: Path, variable: str | None) -> NDArray[np.generic]:
    """Read one array of numbers, in MATLAB's order of dimensions; the variable None stands for the only one there is.

    A FileError if the file is damaged, of another version, or does not have the array, or has several and none was
    named.
    """
    if not _is_73(path):
        with _naming(path, variable):
            order, arrays = _mapped(path)
            return _values(arrays[chosen(path, list(arrays), variable)], order)
    with Hdf5Reader(path) as file:
        values = file.read(chosen(path, list(file.layout()), variable))
    if _is_complex(values.dtype):
        parts = [np.asarray(values[name]) for name in ("real", "imag")]  # type: ignore[call-overload]  # records
        values = _joined(parts[0], parts[1], str(np.result_type(parts[0].dtype, np.complex64)))
    return values.T  # MATLAB's first index is the fastest


def chosen(path: Path, names: list[str], variable: str | None) -> str:
    """The array that is meant: the one of this name, or the only one. A FileError if there is none, or are several."""
    if variable is None and len(names) == 1:
        return names[0]
    has = f"the file has: {', '.join(names) or 'none'}"
    if variable is None:
        raise FileError(path, f"expected one array, {has}", field="variable")
    if variable not in names:
        raise FileError(path, f"is missing; {has}", field=variable)
    return variable


def _is_73(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return HDF5_MAGIC in stream.read(520)
    except OSError as error:
        raise FileError(path, f"cannot be read: {error.strerror}") from error


def _is_complex(dtype: np.dtype[np.generic]) -> bool:
    return set(dtype.names or ()) == {"real", "imag"}


def _joined(real: NDArray[np.generic], imaginary: NDArray[np.generic], dtype: str) -> NDArray[np.generic]:
    joined = np.empty(real.shape, dtype)
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is found out by who uses it
        joined.real, joined.imag = real, imaginary
    return joined


@contextlib.contextmanager
def _naming(path: Path, variable: str | None) -> Iterator[None]:
    try:
        yield
    except (struct.error, zlib.error, ValueError, OverflowError, MemoryError, OSError) as error:
        raise FileError(path, f"is no readable MAT file: {error}", field=variable) from error


def _mapped(path: Path) -> tuple[str, dict[str, _Array]]:
    """Byte order and numeric arrays of a file of version 5; their content stays in the file."""
    n_bytes = path.stat().st_size
    content = np.memmap(path, np.uint8, "r").data if n_bytes else memoryview(b"")
    order = {b"IM": "<", b"MI": ">"}.get(bytes(content[126:128]))
    if n_bytes < 128 or order is None:
        raise FileError(path, "is no MAT file of version 5 or 7.3")
    return order, dict(_arrays(content[128:], order))


def _elements(content: memoryview, order: str) -> Iterator[_Element]:
    """The data elements one after the other."""
    position = 0
    while position + 8 <= len(content):
        kind, n_bytes = struct.unpack_from(f"{order}II", content, position)
        start, step = position + 8, 8
        if kind >> 16:  # a short one, in four of its eight bytes
            kind, n_bytes, start = kind & 0xFFFF, kind >> 16, position + 4
            if n_bytes > 4:
                raise ValueError(f"a short data element of {n_bytes} bytes")
        else:
            step += n_bytes if kind == _COMPRESSED else -(-n_bytes // 8) * 8
        if start + n_bytes > len(content):
            there = len(content) - start
            raise ValueError(f"is truncated: a data element of {n_bytes} bytes, of which {there} are there")
        yield _Element(kind, content[start : start + n_bytes])
        position += step


def _arrays(content: memoryview, order: str) -> Iterator[tuple[str, _Array]]:
    """Names of the numeric arrays, and what their first bytes say."""
    for element in _elements(content, order):
        start = element.content
        if element.kind == _COMPRESSED:
            head = zlib.decompressobj().decompress(element.content, _HEAD_BYTES)
            if len(head) < 8 or struct.unpack_from(f"{order}I", head)[0] != _MATRIX:
                continue
            start = memoryview(head)[8:]
        elif element.kind != _MATRIX:
            continue
        parts = list(itertools.islice(_elements(start, order), 3)) if len(start) else []
        if len(parts) < 3 or len(parts[0].content) < 8:
            continue
        (flags,) = struct.unpack_from(f"{order}I", parts[0].content)
        dtype = _CLASSES.get(flags & 0xFF)
        if dtype is None or parts[2].kind != 1:
            continue
        if flags & _COMPLEX:
            dtype = "complex64" if dtype == "float32" else "complex128"
        shape = tuple(int(n) for n in _numbers(parts[1], order))
        if len(shape) > _MAX_DIMENSIONS or min(shape, default=-1) < 0:
            raise ValueError(f"dimensions {shape}")
        yield bytes(parts[2].content).decode("latin-1"), _Array(shape, dtype, element)


def _values(array: _Array, order: str) -> NDArray[np.generic]:
    content = array.element.content
    if array.element.kind == _COMPRESSED:
        inflater = zlib.decompressobj()
        inner = inflater.decompress(content, _MAX_BYTES)
        if not inflater.eof:
            raise ValueError("compressed data end too early, or are too large")
        content = next(_elements(memoryview(inner), order), array.element).content
    parts = list(_elements(content, order))[3:]
    is_complex, n = array.dtype.startswith("complex"), math.prod(array.shape)
    if len(parts) < 1 + is_complex:
        raise ValueError("the array has no numbers, or no imaginary part")
    real, *imaginary = (_numbers(part, order) for part in parts[: 1 + is_complex])
    for numbers in (real, *imaginary):
        if len(numbers) != n:
            raise ValueError(f"{len(numbers)} numbers for an array of shape {array.shape}")
    values = _joined(real, imaginary[0], array.dtype) if is_complex else real
    return values.reshape(array.shape, order="F")


def _numbers(element: _Element, order: str) -> NDArray[np.generic]:
    if element.kind not in _TYPES:
        raise ValueError(f"a data element of type {element.kind}")
    return np.frombuffer(element.content, np.dtype(order + _TYPES[element.kind]))
