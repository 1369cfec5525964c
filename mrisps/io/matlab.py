"""Arrays of numbers in MATLAB's ``.mat`` files, version 5 (the default of ``save``) and 7.3 (HDF5).

Only numeric arrays are read, real or complex; anything else in a file is passed over. SciPy's reader is not used: on some
damaged files of version 5 it ends the process with a segmentation fault.

Source: MathWorks, *MAT-File Format*, "Level 5 MAT-File Format".
"""

import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from mrisps.errors import FileError
from mrisps.io.hdf5 import Hdf5Reader

__all__ = ["read_mat"]

_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
_MATRIX, _COMPRESSED = 14, 15
_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_NUMERIC_CLASSES = range(6, 16)  # mxDOUBLE_CLASS to mxUINT64_CLASS
_COMPLEX, _SINGLE_CLASS = 0x0800, 7
_MAX_BYTES = 16 << 30
_MAX_DIMENSIONS = 32


class _DamagedError(ValueError):
    """Something in the file cannot be."""


@dataclass(frozen=True, eq=False)
class _Element:
    """A data element: its type, and the bytes of its content."""

    kind: int
    content: memoryview


def read_mat(path: Path, variable: str | None) -> NDArray[np.generic]:
    """Read one array of numbers, in MATLAB's order of dimensions.

    Parameters
    ----------
    path
        The file.
    variable
        Its name; None: the only one there is.

    Raises
    ------
    FileError
        The file is damaged, of another version, or does not have the array; there are several and none was named.
    """
    try:
        with path.open("rb") as stream:
            start = stream.read(520)
            if _HDF5_MAGIC in start:
                return _read_73(path, variable)
            if path.stat().st_size > _MAX_BYTES:
                raise FileError(path, f"is larger than {_MAX_BYTES} bytes")
            stream.seek(0)
            content = stream.read()
    except OSError as error:
        raise FileError(path, f"cannot be read: {error.strerror}") from error
    order = {b"IM": "<", b"MI": ">"}.get(content[126:128])
    if len(content) < 128 or order is None:
        raise FileError(path, "is no MAT file of version 5 or 7.3")
    try:
        arrays = {name: parts for name, *parts in _arrays(memoryview(content)[128:], order)}
        name = chosen(path, list(arrays), variable)
        return _array(arrays[name][0], order)
    except (_DamagedError, struct.error, zlib.error, ValueError, OverflowError, MemoryError) as error:
        raise FileError(path, f"is no readable MAT file: {error}", field=variable) from error


def chosen(path: Path, names: list[str], variable: str | None) -> str:
    """The array that is meant: the one of this name, or the only one.

    Raises
    ------
    FileError
        There is none of that name, or there are several.
    """
    if variable is None and len(names) == 1:
        return names[0]
    if variable not in names:
        wanted = "one array" if variable is None else variable
        raise FileError(path, f"expected {wanted}, the file has: {', '.join(names) or 'none'}", field="variable")
    return str(variable)


def _elements(content: memoryview, order: str) -> Iterator[_Element]:
    """The data elements one after the other."""
    position = 0
    while position + 8 <= len(content):
        kind, n_bytes = struct.unpack_from(f"{order}II", content, position)
        if kind >> 16:  # a short one, in four of its eight bytes
            kind, n_bytes = kind & 0xFFFF, kind >> 16
            if n_bytes > 4:
                raise _DamagedError(f"a short data element of {n_bytes} bytes")
            yield _Element(kind, content[position + 4 : position + 4 + n_bytes])
            position += 8
            continue
        if position + 8 + n_bytes > len(content):
            raise _DamagedError(
                f"is truncated: a data element of {n_bytes} bytes, of which {len(content) - position - 8} are there"
            )
        yield _Element(kind, content[position + 8 : position + 8 + n_bytes])
        position += 8 + (n_bytes if kind == _COMPRESSED else -(-n_bytes // 8) * 8)


def _arrays(content: memoryview, order: str) -> Iterator[tuple[str, list[_Element]]]:
    """Name and parts (flags, dimensions, name, real, imaginary) of the numeric arrays."""
    for element in _elements(content, order):
        matrix = element
        if element.kind == _COMPRESSED:
            inflater = zlib.decompressobj()
            inner = inflater.decompress(element.content, _MAX_BYTES)
            if not inflater.eof:
                raise _DamagedError("compressed data end too early, or are too large")
            matrix = next(_elements(memoryview(inner), order), element)
        if matrix.kind != _MATRIX:
            continue
        parts = list(_elements(matrix.content, order)) if len(matrix.content) else []
        if len(parts) < 4 or len(parts[0].content) < 8:
            continue
        (flags,) = struct.unpack_from(f"{order}I", parts[0].content)
        if flags & 0xFF in _NUMERIC_CLASSES and parts[2].kind == 1:
            yield bytes(parts[2].content).decode("latin-1"), parts


def _array(parts: list[_Element], order: str) -> NDArray[np.generic]:
    (flags,) = struct.unpack_from(f"{order}I", parts[0].content)
    shape = tuple(int(n) for n in _numbers(parts[1], order))
    if len(shape) > _MAX_DIMENSIONS or min(shape, default=-1) < 0:
        raise _DamagedError(f"dimensions {shape}")
    real = _numbers(parts[3], order)
    if len(real) != math.prod(shape):
        raise _DamagedError(f"{len(real)} numbers for an array of shape {shape}")
    if not flags & _COMPLEX:
        return real.reshape(shape, order="F")
    if len(parts) < 5 or len(imaginary := _numbers(parts[4], order)) != len(real):
        raise _DamagedError("the imaginary part is missing or has another size")
    joined = np.empty(len(real), np.complex64 if flags & 0xFF == _SINGLE_CLASS else np.complex128)
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is found out by who uses it
        joined.real, joined.imag = real, imaginary
    return joined.reshape(shape, order="F")


def _numbers(element: _Element, order: str) -> NDArray[np.generic]:
    if element.kind not in _TYPES:
        raise _DamagedError(f"a data element of type {element.kind}")
    return np.frombuffer(element.content, np.dtype(order + _TYPES[element.kind]))


def _read_73(path: Path, variable: str | None) -> NDArray[np.generic]:
    with Hdf5Reader(path) as file:
        name = chosen(path, list(file.layout()), variable)
        values = file.read(name)
    if values.dtype.names is not None and set(values.dtype.names) == {"real", "imag"}:
        records = cast("NDArray[np.void]", values)
        real, imag = records["real"], records["imag"]
        joined = np.empty(values.shape, np.result_type(real.dtype, np.complex64))
        joined.real, joined.imag = real, imag
        values = joined
    return values.T  # MATLAB's first index is the fastest
