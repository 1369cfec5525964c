"""Siemens' raw data, ``meas_*.dat`` ("twix"), of the software lines VB and VD/VE/XA.

A file of VD and later has measurements: adjustments, and last the image. A measurement is a protocol, as text, and then
measurement blocks, a header with counters each and the samples of all channels; a block marked ACQEND is the last. In
VB there is one measurement, and every channel has a header of its own.

The layouts of headers come from the package `twixtools`. Its reader is not used: it follows lengths in the file without
looking, and would never end on a damaged one. Here every step from one block to the next is checked, and samples are
mapped.

Source: twixtools 0.24 (P. Ehses), ``mdh_def.py``, ``hdr_def.py``; siemens_to_ismrmrd, ``main.cpp``, for the axes of the
quaternion, the sample time of noise scans, and the relative receiver bandwidth.
"""

import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from mrisps.errors import FileError, MrispsError
from mrisps.io.files import check_is_file, release_pages
from mrisps.io.ismrmrd_header import IsmrmrdHeader
from mrisps.io.raw_file import COUNTERS, Average, Ints, RawFile, flagged, has_kind, readout_table

__all__ = ["TwixFile", "twix_headers"]

# Our counters, in the block's ``Counter``; our other names, in the block.
_COUNTER_OF = {
    **{"line": "Lin", "partition": "Par", "average": "Ave", "slice": "Sli", "contrast": "Eco", "phase": "Phs"},
    **{"repetition": "Rep", "set": "Set"},
}
_FIELD_OF = {"n_coils": "UsedChannels", "n_samples": "SamplesInScan", "center_sample": "CenterCol"}
_KIND_OF_FLAG = {
    **{"SYNCDATA": "synchronisation", "NOISEADJSCAN": "noise", "RTFEEDBACK": "feedback", "HPFEEDBACK": "feedback"},
    **{
        "PHASCOR": "phase correction",
        "REFPHASESTABSCAN": "phase stabilisation",
        "PHASESTABSCAN": "phase stabilisation",
    },
    **{"RETRO_DUMMYSCAN": "dummy", "CT_NORMALIZE": "surface coil correction", "noname60": "navigation"},
    **{"PATREFANDIMASCAN": "calibration and imaging", "PATREFSCAN": "calibration"},
}
_RELATIVE_BANDWIDTH = 0.793
_CALIBRATION_MODES = {2: "embedded", 4: "separate", 8: "separate", 16: "separate", 32: "separate", 64: "separate"}
_MAX_BLOCKS = 1 << 24
_MAX_ENTRIES = 64
_MAX_PROTOCOL_BYTES = 1 << 26


@dataclass(frozen=True, eq=False)
class TwixHeaders:
    """Element types of the header of a block, and of that of a channel in it (VB: the same one); bits of ``EvalInfoMask``."""

    block: np.dtype[np.void]
    channel: np.dtype[np.void]
    flags: MappingProxyType[str, int]
    is_vb: bool

    @property
    def n_front(self) -> int:
        """Bytes before the first channel."""
        return 0 if self.is_vb else self.block.itemsize


def twix_headers(is_vb: bool) -> TwixHeaders:
    """The layouts, from the package twixtools; a MrispsError if it is not installed."""
    try:
        from twixtools import mdh_def
    except ImportError as error:
        raise MrispsError("Siemens twix files need the package twixtools: pip install 'mrisps[twix]'") from error
    block = mdh_def.VB17_header if is_vb else mdh_def.Scan_header
    channel = mdh_def.VB17_header if is_vb else mdh_def.Channel_header
    return TwixHeaders(np.dtype(block), np.dtype(channel), MappingProxyType(dict(mdh_def.mask_dict)), is_vb)


class TwixFile(RawFile):
    """A Siemens raw-data file opened for reading; see `RawFile`. The last measurement is the image.

    Parameters
    ----------
    average
        ``"mean"``: averages are averaged. ``"separate"``: each is a slice of its own.

    Raises
    ------
    FileError
        The file is truncated or of an unknown version, a length in it is wrong, the protocol lacks the size of the
        grid, the trajectory is not Cartesian; or as in `RawFile`. The measurement block, counted from 0, and its field
        are named.
    MrispsError
        The package twixtools is not installed.
    """

    format = "twix"
    _record = "measurement block"
    _field_of = MappingProxyType({**_COUNTER_OF, **_FIELD_OF, "is_reversed": "REFLECT"})

    def __init__(self, path: Path | str, *, average: Average = "mean") -> None:
        self.path = Path(path)
        self._bytes: NDArray[np.uint8] | None = self._mapped()
        is_vb, measurements = self._measurements()
        self._headers = twix_headers(is_vb)
        start, end = measurements[-1]
        n_protocol, protocol = self._protocol(start, end)
        trajectory = protocol.number("sKSpace.ucTrajectory")
        if trajectory not in (None, 1):
            raise self._error("sKSpace.ucTrajectory", f"is {trajectory:g}; only Cartesian (1) is supported")
        self._offsets, heads = self._walk(start + n_protocol, end)
        flags = heads["EvalInfoMask"].astype(np.uint64)
        readouts = self._table(heads, flags, protocol)
        self._sort(readouts, self._header(readouts, heads, protocol), average=average)
        if self.n_z > 1:
            message = f"is three-dimensional ({self.n_z} partitions), which is not supported for twix files"
            raise self._error("Par", message)
        self.contrast = self.header.protocol_name
        line, n = "VB" if is_vb else "VD or later", len(measurements)
        self.notes = (f"software line {line}, measurement {n} of {n}", *self.notes)
        if flagged(flags, self._headers.flags["RAWDATACORRECTION"]).any():
            self.notes = (*self.notes, "the scanner's raw data correction factors are not applied")

    def close(self) -> None:
        """Close the file. Harmless when done twice."""
        super().close()
        self._bytes = None

    def _mapped(self) -> NDArray[np.uint8]:
        check_is_file(self.path)
        try:
            if self.path.stat().st_size < 64:
                raise FileError(self.path, f"is no Siemens raw data: {self.path.stat().st_size} bytes")
            return np.memmap(self.path, np.uint8, "r")
        except (OSError, ValueError) as error:
            raise FileError(self.path, f"cannot be read: {error}") from error

    def _content(self) -> NDArray[np.uint8]:
        if self._bytes is None:
            raise FileError(self.path, "is closed")
        return self._bytes

    def _unpack(self, layout: str, at: int) -> tuple[int, ...]:
        return struct.unpack_from(layout, self._content().data, at)

    def _measurements(self) -> tuple[bool, list[tuple[int, int]]]:
        """Whether the software is VB, and first byte and end of every measurement."""
        first, second = self._unpack("<II", 0)
        size, measurements = len(self._content()), []
        if 10_000 <= first < size and 1 <= second <= 32:  # VB: the length of the protocol
            return True, [(0, size)]
        if first >= 10_000 or not 1 <= second <= _MAX_ENTRIES:
            version = "is no Siemens raw data of a known version (VB, VD and later)"
            raise FileError(self.path, f"{version}: it begins with {first}, {second}")
        for number in range(second):  # VD and later: a table of measurements
            at = 8 + 152 * number
            if at + 24 > size:
                raise self._error("table of measurements", f"is truncated: {size} bytes")
            start, length = self._unpack("<QQ", at + 8)
            length = length or size - min(start, size)
            if start < 8 or start + 16 > size or start + length > size:
                where = f"measurement {number}: bytes {start} to {start + length} of {size}"
                raise self._error("table of measurements", f"{where}: the file is truncated or damaged")
            measurements.append((start, start + length))
        return False, measurements

    def _protocol(self, start: int, end: int) -> "tuple[int, _Protocol]":
        """Length of the protocol of a measurement, and what it says."""
        n_bytes, _ = self._unpack("<II", start)
        if not 8 <= n_bytes <= _MAX_PROTOCOL_BYTES or start + n_bytes > end:
            raise self._error("protocol", f"its length is {n_bytes} bytes, of {end - start}")
        # names of the parts and their lengths are binary, and no hindrance to finding a line
        return n_bytes, _Protocol(bytes(self._content()[start : start + n_bytes]).decode("latin-1"))

    def _walk(self, position: int, end: int) -> tuple[Ints, NDArray[np.void]]:
        """Positions and headers of the blocks of a measurement, without the last one, which is marked as the end."""
        layout, offsets = self._headers, list[int]()
        fields = dict(layout.block.fields or {})
        places = [
            (struct.Struct(kind), fields[name][1])
            for kind, name in (("<Q", "EvalInfoMask"), ("<H", "SamplesInScan"), ("<H", "UsedChannels"))
        ]
        view = self._content().data
        while True:
            if position + layout.block.itemsize > end:
                message = f"the file is truncated: it ends at byte {end}, before ACQEND"
                raise self._readout_error(len(offsets), "FlagsAndDMALength", message)
            flags, n_samples, n_channels = (kind.unpack_from(view, position + at)[0] for kind, at in places)
            if flags >> layout.flags["ACQEND"] & 1:
                break
            if flags >> layout.flags["SYNCDATA"] & 1:
                n_bytes = self._unpack("<I", position)[0] % (1 << 25)
            else:
                n_bytes = layout.n_front + n_channels * (layout.channel.itemsize + 8 * n_samples)
            if n_bytes < layout.block.itemsize or len(offsets) > _MAX_BLOCKS:
                message = f"its length cannot be {n_bytes} bytes"
                raise self._readout_error(len(offsets), "FlagsAndDMALength", message)
            offsets.append(position)
            position += n_bytes
        if not offsets:
            raise FileError(self.path, "has no measurement blocks")
        starts = np.asarray(offsets, np.int64)
        heads = self._content()[starts[:, np.newaxis] + np.arange(layout.block.itemsize)]
        return starts, heads.view(layout.block).reshape(-1)

    def _table(self, heads: NDArray[np.void], flags: NDArray[np.uint64], protocol: "_Protocol") -> NDArray[np.void]:
        bits, place = self._headers.flags, heads["SliceData"]
        phase, read, through = _directions(place["Quaternion"].astype(np.float64))
        columns: dict[str, NDArray[np.generic]] = {
            "is_reversed": flagged(flags, bits["REFLECT"]),
            "dwell_us": np.asarray((protocol.number("sRXSPEC.alDwellTime[0]") or 0.0) / 1000),
            "discard_pre": heads["CutOff"]["Pre"],
            "discard_post": heads["CutOff"]["Post"],
            "position_mm": np.stack([place["SlicePos"][axis] for axis in ("Sag", "Cor", "Tra")], axis=1),
            "y_direction": read,
            "x_direction": phase,
            "slice_direction": through,
        }
        columns |= {ours: heads["Counter"][_COUNTER_OF[ours]] for ours in COUNTERS}
        columns |= {ours: heads[theirs] for ours, theirs in _FIELD_OF.items()}
        table = readout_table(flags, {bits[name]: kind for name, kind in _KIND_OF_FLAG.items()}, columns)
        noise = has_kind(table, "noise")
        n = np.maximum(table["n_samples"][noise], 1)
        # siemens_to_ismrmrd, compute_noise_sample_in_us
        table["dwell_us"][noise] = 1e7 / n / 130 if self._headers.is_vb else np.floor(76800 / n) / 10
        return table

    def _header(self, readouts: NDArray[np.void], heads: NDArray[np.void], protocol: "_Protocol") -> IsmrmrdHeader:
        """What an ISMRMRD header of the same measurement says."""
        imaging = np.flatnonzero(has_kind(readouts, "imaging", "calibration and imaging"))
        if len(imaging) == 0:
            raise FileError(self.path, "has no imaging readouts")
        centers = {name: heads[name][imaging] for name in ("CenterLin", "CenterPar")}
        for name, values in centers.items():
            message = f"is {{}}, but {values[0]} in the blocks before it"
            self._refuse(imaging, values != values[0], name, message, values)
        n_y = max(int(readouts["n_samples"][imaging[0]]), self._size(protocol, "iRoFTLength", "", 0))
        n_x = self._size(protocol, "iPEFTLength", "sKSpace.lPhaseEncodingLines")
        is_3d = protocol.number("sKSpace.ucDimension") == 4
        n_z = self._size(protocol, "i3DFTLength", "sKSpace.lPartitions") if is_3d else 1
        n_base = self._size(protocol, "iBaseResolution", "sKSpace.lBaseResolution", n_y)
        along_x = 1 + (protocol.number("sKSpace.dPhaseOversamplingForDialog") or 0.0)
        if not 1 <= along_x < 16:
            raise self._error("sKSpace.dPhaseOversamplingForDialog", f"expected a fraction >= 0, got {along_x - 1}")
        names = ("dReadoutFOV", "dPhaseFOV", "dThickness")
        y, x, z = (protocol.number(f"sSliceArray.asSlice[0].{name}") or 0.0 for name in names)
        is_known = y > 0 and x > 0
        factors = protocol.number("sPat.lAccelFactPE"), protocol.number("sPat.lAccelFact3D")
        mode = protocol.number("sPat.ucRefScanMode")
        last_line, last_partition = (int(readouts[name][imaging].max()) for name in ("line", "partition"))
        partitions = (0, max(n_z - 1, last_partition), int(centers["CenterPar"][0]))
        return IsmrmrdHeader(
            encoded_matrix=(n_y, n_x, n_z),
            recon_matrix=(n_base, max(1, round(n_x / along_x)), n_z),
            encoded_fov_mm=(y * n_y / n_base, x * along_x, z) if is_known else None,
            recon_fov_mm=(y, x, z) if is_known else None,
            line_limits=(0, max(n_x - 1, last_line), int(centers["CenterLin"][0])),
            partition_limits=partitions if any(partitions) else None,
            n_coils=int(readouts["n_coils"][imaging[0]]),
            field_strength_t=protocol.number("sProtConsistencyInfo.flNominalB0"),
            relative_receiver_noise_bandwidth=_RELATIVE_BANDWIDTH,
            calibration_mode=None if mode is None else _CALIBRATION_MODES.get(int(mode)),
            acceleration=None if factors[0] is None else (max(1, int(factors[0])), max(1, int(factors[1] or 1))),
            patient_position=protocol.text("tPatientPosition"),
            protocol_name=protocol.text("tProtocolName"),
        )

    def _size(self, protocol: "_Protocol", name: str, other: str, default: int | None = None) -> int:
        value = protocol.parameter(name)
        value = protocol.number(other) if value is None else value
        if value is None and default is not None:
            return default
        if value is None or not 1 <= value <= 1 << 16 or value != int(value):
            raise self._error(f"{name} or {other}", f"expected a number from 1 to 65536, got {value}")
        return int(value)

    def _samples(self, numbers: Ints) -> NDArray[np.complex64]:
        """Samples (readout, coil, sample) of readouts of one size."""
        content, first = self._content(), self.readouts[numbers[0]]
        n_coils, n_samples = int(first["n_coils"]), int(first["n_samples"])
        channel = np.dtype([("head", self._headers.channel), ("data", "<c8", (n_samples,))])
        values = np.empty((len(numbers), n_coils, n_samples), np.complex64)
        for index, number in enumerate(numbers):
            start = int(self._offsets[number]) + self._headers.n_front
            values[index] = np.frombuffer(content, channel, n_coils, start)["data"]
        release_pages(content)
        return values


class _Protocol:
    """The text of a protocol: ``name = value`` lines of the sequence, and XProtocol parameters. None for what is not there."""

    def __init__(self, text: str) -> None:
        self._text = text

    def number(self, name: str) -> float | None:
        """A number of the sequence's protocol, for example ``sKSpace.lPartitions``."""
        return self._number(rf"^{re.escape(name)}[ \t]*=[ \t]*([-+.\w]{{1,40}})")

    def parameter(self, name: str) -> float | None:
        """A number of the XProtocol, for example ``iPEFTLength``."""
        return self._number(rf'<Param(?:Long|Double)\."{re.escape(name)}">[ \t\r\n]*{{[ \t\r\n]*([-+.\w]{{1,40}})')

    def text(self, name: str) -> str | None:
        """A text of either."""
        key, blank = re.escape(name), r"[ \t\r\n]*"
        begin = rf'(?:^{key}[ \t]*=[ \t]*"{{1,2}}|<ParamString\."{key}">{blank}{{{blank}")'
        found = re.search(begin + r'([^"\n]{1,200})"', self._text, re.MULTILINE)
        return None if found is None else found.group(1)

    def _number(self, pattern: str) -> float | None:
        found = re.search(pattern, self._text, re.MULTILINE)
        try:
            text = "" if found is None else found.group(1)
            value = float(int(text, 16)) if text.startswith("0x") else float(text)
        except ValueError:
            return None
        return value if math.isfinite(value) else None


def _directions(quaternion: NDArray[np.float64]) -> Iterator[NDArray[np.float64]]:
    """Phase, readout and slice direction, each (readout, 3), from quaternions (readout, 4) with the scalar first."""
    with np.errstate(over="ignore", invalid="ignore"):  # damaged ones are found out later, by not being orthonormal
        r, i, j, k = quaternion.T
        yield np.stack([1 - 2 * (j * j + k * k), 2 * (i * j + k * r), 2 * (i * k - j * r)], axis=1)
        yield np.stack([2 * (i * j - k * r), 1 - 2 * (i * i + k * k), 2 * (j * k + i * r)], axis=1)
        yield np.stack([2 * (i * k + j * r), 2 * (j * k - i * r), 1 - 2 * (i * i + j * j)], axis=1)
