"""Siemens' raw data, ``meas_*.dat`` ("twix"), of the software lines VB and VD/VE/XA.

A file of VD and later has measurements: adjustments, and last the image. A measurement is a protocol, as text, and then
measurement blocks, a header with counters each and the samples of all channels; a block marked ACQEND is the last. In VB there
is one measurement, and every channel has a header of its own.

Every step from one block to the next is checked, and samples are mapped.

Source: siemens_to_ismrmrd, ``main.cpp``, for the sample time of noise scans and the relative receiver bandwidth.
"""

import struct
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mrisps.errors import FileError
from mrisps.io.files import release_pages
from mrisps.io.ismrmrd_header import IsmrmrdHeader
from mrisps.io.raw_file import RawFile
from mrisps.io.readouts import CALIBRATION, CALIBRATION_AND_IMAGING, COUNTERS, IMAGING, NOISE, RawGrid, Readouts
from mrisps.io.twix_layout import TwixProtocol, directions_of, mapped, measurements_of, protocol_of, twix_headers

__all__ = ["TwixFile"]

_FIELD_OF = MappingProxyType(
    {
        **{"line": "Lin", "partition": "Par", "average": "Ave", "slice": "Sli", "contrast": "Eco", "phase": "Phs"},
        **{"repetition": "Rep", "set": "Set", "n_coils": "UsedChannels", "n_samples": "SamplesInScan"},
        **{"center_sample": "CenterCol", "is_reversed": "REFLECT"},
    }
)
_KIND_OF_FLAG = {
    **{"SYNCDATA": 10, "NOISEADJSCAN": NOISE, "RTFEEDBACK": 6, "HPFEEDBACK": 6, "PHASCOR": 5},
    **{"REFPHASESTABSCAN": 9, "PHASESTABSCAN": 9, "RETRO_DUMMYSCAN": 7, "CT_NORMALIZE": 8, "noname60": 4},
    **{"PATREFANDIMASCAN": CALIBRATION_AND_IMAGING, "PATREFSCAN": CALIBRATION},
}
_RELATIVE_BANDWIDTH = 0.793
_MAX_BLOCKS = 1 << 24
_CALIBRATION_MODES = {2: "embedded", 4: "separate", 8: "separate", 16: "separate", 32: "separate", 64: "separate"}


class TwixFile(RawFile):
    """A Siemens raw-data file opened for reading; see `RawFile`. The last measurement is the image.

    Parameters
    ----------
    average
        ``"mean"``: averages are averaged. ``"separate"``: each is a slice of its own.

    Raises
    ------
    FileError
        The file is truncated or of an unknown version, a length in it is wrong, the protocol lacks the size of the grid, the
        trajectory is not Cartesian; or as in `RawFile`. The measurement block, counted from 0, and its field are named.
    MrispsError
        The package twixtools is not installed.
    """

    format = "twix"

    def __init__(self, path: Path | str, *, average: Literal["mean", "separate"] = "mean") -> None:
        self.path = Path(path)
        self._bytes: NDArray[np.uint8] | None = mapped(self.path)
        is_vb, measurements = measurements_of(self.path, self._bytes)
        self._headers = twix_headers(is_vb)
        start, end = measurements[-1]
        n_protocol, protocol = protocol_of(self.path, self._bytes, start, end)
        trajectory = protocol.number("sKSpace.ucTrajectory")
        if trajectory not in (None, 1):
            raise self._error("sKSpace.ucTrajectory", f"is {trajectory:g}; only Cartesian (1) is supported")
        self._offsets, heads = self._walk(start + n_protocol, end)
        readouts = self._readouts(heads, protocol)
        header = self._header(readouts, heads, protocol)
        self._sort(readouts, self._grid(header, heads, readouts), header, average=average)
        if self.n_z > 1:
            message = f"is three-dimensional ({self.n_z} partitions), which is not supported for twix files"
            raise self._error("Par", message)
        self.contrast = self.header.protocol_name
        notes = [
            f"software line {'VB' if is_vb else 'VD or later'}, measurement {len(measurements)} of {len(measurements)}"
        ]
        if self._headers.flag(heads["EvalInfoMask"], "RAWDATACORRECTION").any():
            notes.append("the scanner's raw data correction factors are not applied")
        self.notes = (*notes, *self.notes)

    def close(self) -> None:
        """Close the file. Harmless when done twice."""
        self._bytes = None

    def _walk(self, position: int, end: int) -> tuple[NDArray[np.int64], NDArray[np.void]]:
        """Positions and headers of the blocks of a measurement, without the last one, which is marked as the end."""
        content, layout = self._content(), self._headers
        names = ("EvalInfoMask", "SamplesInScan", "UsedChannels")
        at_flags, at_samples, at_channels = (
            (layout.block.fields[name][1] for name in names) if layout.block.fields else (0, 0, 0)
        )
        is_end, is_sync = 1 << layout.flags["ACQEND"], 1 << layout.flags["SYNCDATA"]
        view = content.data
        offsets: list[int] = []
        while True:
            number = len(offsets)
            if position + layout.block.itemsize > end:
                raise self._block_error(
                    number, "FlagsAndDMALength", f"the file is truncated: it ends at byte {end}, before ACQEND"
                )
            (flags,) = struct.unpack_from("<Q", view, position + at_flags)
            if flags & is_end:
                break
            (n_samples,) = struct.unpack_from("<H", view, position + at_samples)
            (n_channels,) = struct.unpack_from("<H", view, position + at_channels)
            if flags & is_sync:
                n_bytes = struct.unpack_from("<I", view, position)[0] % (1 << 25)
            else:
                n_bytes = layout.n_front + n_channels * (layout.channel.itemsize + 8 * n_samples)
            if n_bytes < layout.block.itemsize or number > _MAX_BLOCKS:
                raise self._block_error(number, "FlagsAndDMALength", f"its length cannot be {n_bytes} bytes")
            offsets.append(position)
            position += n_bytes
        if not offsets:
            raise FileError(self.path, "has no measurement blocks")
        starts = np.asarray(offsets, np.int64)
        heads = content[starts[:, np.newaxis] + np.arange(layout.block.itemsize)].view(layout.block).reshape(-1)
        return starts, heads

    def _readouts(self, heads: NDArray[np.void], protocol: TwixProtocol) -> Readouts:
        layout, flags = self._headers, heads["EvalInfoMask"].astype(np.uint64)
        kind = np.full(len(heads), IMAGING, np.int64)
        for name, value in reversed(_KIND_OF_FLAG.items()):
            kind[layout.flag(flags, name)] = value
        kind[layout.flag(flags, "PATREFANDIMASCAN") & (kind == CALIBRATION)] = CALIBRATION_AND_IMAGING
        n_samples = heads["SamplesInScan"].astype(np.int64)
        dwell_ns = protocol.number("sRXSPEC.alDwellTime[0]") or 0.0
        dwell = np.full(len(heads), dwell_ns / 1000)
        noise = kind == NOISE
        if noise.any():  # siemens_to_ismrmrd, compute_noise_sample_in_us
            n = np.maximum(n_samples[noise], 1)
            dwell[noise] = 1e7 / n / 130 if layout.is_vb else np.floor(76800 / n) / 10
        place = heads["SliceData"]
        quaternion = place["Quaternion"].astype(np.float64)  # scalar first
        phase, read, through = directions_of(quaternion)
        return Readouts(
            source=self.path,
            record="measurement block",
            field_names=_FIELD_OF,
            kind=kind,
            encoding=np.zeros(len(heads), np.int64),
            counters={name: heads["Counter"][_FIELD_OF[name]].astype(np.int64) for name in COUNTERS},
            n_coils=heads["UsedChannels"].astype(np.int64),
            n_samples=n_samples,
            center_sample=heads["CenterCol"].astype(np.int64),
            discard_pre=heads["CutOff"]["Pre"].astype(np.int64),
            discard_post=heads["CutOff"]["Post"].astype(np.int64),
            is_reversed=layout.flag(flags, "REFLECT"),
            dwell_us=dwell,
            position_mm=np.stack(
                [place["SlicePos"][axis].astype(np.float64) for axis in ("Sag", "Cor", "Tra")], axis=1
            ),
            y_direction=read,
            x_direction=phase,
            slice_direction=through,
        )

    def _header(self, readouts: Readouts, heads: NDArray[np.void], protocol: TwixProtocol) -> IsmrmrdHeader:
        """What an ISMRMRD header of the same measurement says."""
        imaging = np.flatnonzero(readouts.where(IMAGING, CALIBRATION_AND_IMAGING))
        if len(imaging) == 0:
            raise FileError(self.path, "has no imaging readouts")
        n_y = max(int(readouts.n_samples[imaging[0]]), self._size(protocol, "iRoFTLength", "", 0))
        n_x = self._size(protocol, "iPEFTLength", "sKSpace.lPhaseEncodingLines")
        is_3d = protocol.number("sKSpace.ucDimension") == 4
        n_z = self._size(protocol, "i3DFTLength", "sKSpace.lPartitions") if is_3d else 1
        n_base = self._size(protocol, "iBaseResolution", "sKSpace.lBaseResolution", n_y)
        oversampling = n_y / n_base
        along_x = 1 + (protocol.number("sKSpace.dPhaseOversamplingForDialog") or 0.0)
        if not 1 <= along_x < 16:
            raise self._error("sKSpace.dPhaseOversamplingForDialog", f"expected a fraction >= 0, got {along_x - 1}")
        fov = [protocol.number(f"sSliceArray.asSlice[0].{name}") for name in ("dReadoutFOV", "dPhaseFOV", "dThickness")]
        y, x, z = (0.0 if value is None else value for value in fov)
        center = int(heads["CenterLin"][imaging[0]])
        counters = readouts.counters["line"][imaging]
        patterns = (protocol.number("sPat.lAccelFactPE"), protocol.number("sPat.lAccelFact3D"))
        mode = protocol.number("sPat.ucRefScanMode")
        return IsmrmrdHeader(
            encoded_matrix=(n_y, n_x, n_z),
            recon_matrix=(n_base, max(1, round(n_x / along_x)), n_z),
            encoded_fov_mm=(y * oversampling, x * along_x, z) if y > 0 and x > 0 else None,
            recon_fov_mm=(y, x, z) if y > 0 and x > 0 else None,
            line_limits=(0, max(n_x - 1, int(counters.max())), center),
            n_coils=int(readouts.n_coils[imaging[0]]),
            field_strength_t=protocol.number("sProtConsistencyInfo.flNominalB0"),
            relative_receiver_noise_bandwidth=_RELATIVE_BANDWIDTH,
            calibration_mode=_CALIBRATION_MODES.get(int(mode)) if mode is not None else None,
            acceleration=(max(1, int(patterns[0])), max(1, int(patterns[1] or 1))) if patterns[0] is not None else None,
            patient_position=protocol.text("tPatientPosition"),
            protocol_name=protocol.text("tProtocolName"),
        )

    def _grid(self, header: IsmrmrdHeader, heads: NDArray[np.void], readouts: Readouts) -> RawGrid:
        imaging = np.flatnonzero(readouts.where(IMAGING, CALIBRATION_AND_IMAGING))
        for name in ("CenterLin", "CenterPar"):
            centers = heads[name][imaging]
            if (centers != centers[0]).any():
                bad = imaging[centers != centers[0]][0]
                raise readouts.error(bad, name, f"is {heads[name][bad]}, but {centers[0]} in the blocks before it")
        n_y, n_x, n_z = header.encoded_matrix
        return RawGrid(n_y, n_x, n_z, int(heads["CenterLin"][imaging[0]]), int(heads["CenterPar"][imaging[0]]), {})

    def _size(self, protocol: TwixProtocol, name: str, other: str, default: int | None = None) -> int:
        value = protocol.parameter(name)
        value = protocol.number(other) if value is None else value
        if value is None and default is not None:
            return default
        if value is None or not 1 <= value <= 1 << 16 or value != int(value):
            raise self._error(f"{name} or {other}", f"expected a number from 1 to 65536, got {value}")
        return int(value)

    def _samples(self, numbers: NDArray[np.int64]) -> NDArray[np.complex64]:
        """Samples (readout, coil, sample) of readouts of one size."""
        content, layout, readouts = self._content(), self._headers, self.readouts
        n_coils, n_samples = int(readouts.n_coils[numbers[0]]), int(readouts.n_samples[numbers[0]])
        channel = np.dtype([("head", layout.channel), ("data", "<c8", (n_samples,))])
        values = np.empty((len(numbers), n_coils, n_samples), np.complex64)
        for index, number in enumerate(numbers):
            first = int(self._offsets[number]) + layout.n_front
            values[index] = np.frombuffer(content, channel, n_coils, first)["data"]
        release_pages(content)
        return values

    def _content(self) -> NDArray[np.uint8]:
        if self._bytes is None:
            raise FileError(self.path, "is closed")
        return self._bytes

    def _block_error(self, number: int, field: str, message: str) -> FileError:
        return FileError(self.path, f"measurement block {number}: {message}", field=field)
