"""The parts of Siemens' raw-data files: the table of measurements, the text of a protocol, the layouts of headers.

The layouts come from the package `twixtools`. Its reader is not used: it follows lengths in the file without looking, and
would never end on a damaged one.

Source: twixtools 0.24 (P. Ehses), ``mdh_def.py``, ``hdr_def.py``; siemens_to_ismrmrd, ``main.cpp``, for which axis of the
quaternion is which.
"""

import math
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from mrisps.errors import FileError, MrispsError
from mrisps.io.files import check_is_file

__all__ = [
    *("TwixHeaders", "TwixProtocol", "directions_of", "mapped", "measurements_of", "protocol_of", "twix_headers"),
]

_MAX_ENTRIES = 64
_MAX_PROTOCOL_BYTES = 1 << 26


@dataclass(frozen=True, eq=False)
class TwixHeaders:
    """Layouts of the headers in a file.

    Parameters
    ----------
    block, channel
        Element types of the header of a block, and of that of a channel in it. VB: there is no header of the whole block.
    flags
        Bit of ``EvalInfoMask`` by name.
    """

    block: np.dtype[np.void]
    channel: np.dtype[np.void]
    flags: Mapping[str, int]
    is_vb: bool

    @property
    def n_front(self) -> int:
        """Bytes before the first channel."""
        return 0 if self.is_vb else self.block.itemsize

    def flag(self, mask: NDArray[np.uint64], name: str) -> NDArray[np.bool_]:
        """Where a flag is set."""
        return np.asarray((mask >> np.uint64(self.flags[name])) & np.uint64(1) != 0, np.bool_)


def twix_headers(is_vb: bool) -> TwixHeaders:
    """The layouts, from the package twixtools.

    Raises
    ------
    MrispsError
        It is not installed.
    """
    try:
        from twixtools import mdh_def
    except ImportError as error:
        raise MrispsError("Siemens twix files need the package twixtools: pip install 'mrisps[twix]'") from error
    block = mdh_def.VB17_header if is_vb else mdh_def.Scan_header
    channel = mdh_def.VB17_header if is_vb else mdh_def.Channel_header
    return TwixHeaders(np.dtype(block), np.dtype(channel), MappingProxyType(dict(mdh_def.mask_dict)), is_vb)


class TwixProtocol:
    """The text of a protocol: ``name = value`` lines of the sequence, and XProtocol parameters."""

    def __init__(self, text: str) -> None:
        self._text = text

    def number(self, name: str) -> float | None:
        """A number of the sequence's protocol, for example ``sKSpace.lPartitions``; None if there is none."""
        found = re.search(rf"^{re.escape(name)}[ \t]*=[ \t]*([-+.\w]{{1,40}})", self._text, re.MULTILINE)
        return None if found is None else _as_number(found.group(1))

    def parameter(self, name: str) -> float | None:
        """A number of the XProtocol, for example ``iPEFTLength``."""
        pattern = rf'<Param(?:Long|Double)\."{re.escape(name)}">[ \t\r\n]*{{[ \t\r\n]*([-+.\w]{{1,40}})'
        found = re.search(pattern, self._text)
        return None if found is None else _as_number(found.group(1))

    def text(self, name: str) -> str | None:
        """A text of either."""
        key, blank = re.escape(name), r"[ \t\r\n]*"
        begin = rf'(?:^{key}[ \t]*=[ \t]*"{{1,2}}|<ParamString\."{key}">{blank}{{{blank}")'
        pattern = begin + r'([^"\n]{1,200})"'
        found = re.search(pattern, self._text, re.MULTILINE)
        return None if found is None else found.group(1)


def _as_number(text: str) -> float | None:
    try:
        value = float(int(text, 16)) if text.startswith("0x") else float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def mapped(path: Path) -> NDArray[np.uint8]:
    try:
        check_is_file(path)
        if path.stat().st_size < 64:
            raise FileError(path, f"is no Siemens raw data: {path.stat().st_size} bytes")
        return np.memmap(path, np.uint8, "r")
    except (OSError, ValueError) as error:
        raise FileError(path, f"cannot be read: {error}") from error


def measurements_of(path: Path, content: NDArray[np.uint8]) -> tuple[bool, list[tuple[int, int]]]:
    """Whether the software is VB, and first byte and end of every measurement."""
    first, second = struct.unpack_from("<II", content.data, 0)
    size = len(content)
    if first < 10_000 and 1 <= second <= _MAX_ENTRIES:  # VD and later: a table of measurements
        measurements = []
        for number in range(second):
            at = 8 + 152 * number
            if at + 24 > size:
                raise FileError(path, f"is truncated: {size} bytes", field="table of measurements")
            start, length = struct.unpack_from("<QQ", content.data, at + 8)
            length = length or size - min(start, size)
            if start < 8 or start + 16 > size or start + length > size:
                message = f"measurement {number}: bytes {start} to {start + length} of {size}: the file is truncated or damaged"
                raise FileError(path, message, field="table of measurements")
            measurements.append((start, start + length))
        return False, measurements
    if 10_000 <= first < size and 1 <= second <= 32:  # VB: the length of the protocol
        return True, [(0, size)]
    raise FileError(
        path, f"is no Siemens raw data of a known version (VB, VD and later): it begins with {first}, {second}"
    )


def protocol_of(path: Path, content: NDArray[np.uint8], start: int, end: int) -> tuple[int, TwixProtocol]:
    """Length of the protocol of a measurement, and what it says."""
    n_bytes, _ = struct.unpack_from("<II", content.data, start)
    if not 8 <= n_bytes <= _MAX_PROTOCOL_BYTES or start + n_bytes > end:
        raise FileError(path, f"its length is {n_bytes} bytes, of {end - start}", field="protocol")
    # names of the parts and their lengths are binary, and no hindrance to finding a line
    return n_bytes, TwixProtocol(bytes(content[start : start + n_bytes]).decode("latin-1"))


def directions_of(quaternion: NDArray[np.float64]) -> Iterator[NDArray[np.float64]]:
    """Phase, readout and slice direction, each (readout, 3), from quaternions (readout, 4) with the scalar first."""
    with np.errstate(over="ignore", invalid="ignore"):  # damaged ones are found out later, by not being orthonormal
        r, i, j, k = quaternion.T
        yield np.stack([1 - 2 * (j * j + k * k), 2 * (i * j + k * r), 2 * (i * k - j * r)], axis=1)
        yield np.stack([2 * (i * j - k * r), 1 - 2 * (i * i + k * k), 2 * (j * k + i * r)], axis=1)
        yield np.stack([2 * (i * k + j * r), 2 * (j * k - i * r), 1 - 2 * (i * i + j * j)], axis=1)
