"""ISMRMRD (MRD) raw data: lists of readouts in HDF5, with an XML header.

A group, usually ``/dataset``, has the data set ``data``, whose records are an acquisition each (``head``, ``traj``,
``data``), and ``xml``. Heads are read at once, without the samples; samples in blocks when an image is asked for, never
one acquisition after the other. The reading is done with h5py directly, so that links to other files are refused.

Source: S. J. Inati et al., *ISMRM Raw Data Format: A Proposed Standard for MRI Raw Datasets*, Magn Reson Med 77 (2017);
https://ismrmrd.readthedocs.io.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mrisps.errors import FileError
from mrisps.io.acquisition import Scalar
from mrisps.io.hdf5 import Hdf5Reader
from mrisps.io.ismrmrd_header import IsmrmrdHeader
from mrisps.io.raw_file import RawFile
from mrisps.io.readouts import CALIBRATION, CALIBRATION_AND_IMAGING, COUNTERS, IMAGING, NOISE, RawGrid, Readouts

__all__ = ["IsmrmrdFile", "ismrmrd_groups"]

_FIELD_OF = MappingProxyType(
    {
        **{"line": "kspace_encode_step_1", "partition": "kspace_encode_step_2", "n_coils": "active_channels"},
        **{"n_samples": "number_of_samples", "is_reversed": "flags"},
    }
)
_REVERSE = 22
# Bits of ``flags``, counted from 1, that make a readout something else than imaging; the first that is set decides.
_KIND_OF_FLAG = {
    **{19: NOISE, 23: 4, 24: 5, 26: 6, 28: 6, 27: 7, 29: 8, 30: 9, 31: 9},
    **{20: CALIBRATION, 21: CALIBRATION_AND_IMAGING},
}
_COMPRESSED = range(53, 57)
_HEAD_FIELDS = (
    *("flags", "number_of_samples", "active_channels", "discard_pre", "discard_post", "center_sample"),
    *("encoding_space_ref", "trajectory_dimensions", "sample_time_us", "position", "read_dir", "phase_dir"),
    *("slice_dir", "idx"),
)
_MAX_ACQUISITIONS = 1 << 24
_MAX_BLOCK_BYTES = 8 << 30


class IsmrmrdFile(RawFile):
    """An ISMRMRD file opened for reading; see `RawFile`. Calibration lines are those with flag 20.

    Parameters
    ----------
    encoding
        Which encoding space to read.
    average
        ``"mean"``: averages are averaged. ``"separate"``: each is a slice of its own.
    group
        The group with the data; None: the only one.

    Raises
    ------
    FileError
        The file is damaged; the header is missing, no valid XML, or contradicts the acquisitions; the trajectory is not
        Cartesian; or as in `RawFile`. The acquisition, counted from 0, and its field are named.
    """

    format = "ISMRMRD"

    def __init__(
        self,
        path: Path | str,
        *,
        encoding: int = 0,
        average: Literal["mean", "separate"] = "mean",
        group: str | None = None,
    ) -> None:
        self._file = Hdf5Reader(path)
        self.path = self._file.path
        try:
            self._read_metadata(encoding, average, group)
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Close the file. Harmless when done twice."""
        self._file.close()

    def _read_metadata(self, encoding: int, average: Literal["mean", "separate"], group: str | None) -> None:
        self._group = self._choose_group(group)
        self._interpret(self._file.read_text(f"{self._group}/xml"), self._read_heads, encoding, average)

    def _interpret(
        self,
        header_xml: bytes,
        read_heads: Callable[[], NDArray[np.void]],
        encoding: int = 0,
        average: Literal["mean", "separate"] = "mean",
    ) -> None:
        """Set all attributes from the header's text and the heads of the acquisitions."""
        self.header_xml: bytes = header_xml
        try:
            header = IsmrmrdHeader.from_xml(self.header_xml, encoding)
        except ValueError as error:
            raise FileError(self.path, str(error), field=f"{self._group}/xml") from error
        if header.trajectory != "cartesian":
            raise self._error("trajectory", f"is {header.trajectory or 'not stated'}; only Cartesian is supported")
        self._sort(self._readouts_of(read_heads()), self._grid(header), header, encoding=encoding, average=average)
        attributes: dict[str, Scalar] = {**header.user_parameters, **self.attributes}
        acquisition = attributes.get("acquisition")  # what fastMRI's files call the contrast; our writer keeps it
        self.contrast = acquisition if isinstance(acquisition, str) else header.protocol_name
        self.image_is_real = attributes.get("image_is_real") == 1
        if header.patient_id is not None:
            attributes["patient_id"] = header.patient_id
        self.attributes = MappingProxyType(attributes)
        self.notes = (*self._notes(header, encoding), *self.notes)
        if header.n_coils not in (None, self.n_coils):
            message = f"the header says {header.n_coils}, the acquisitions have {self.n_coils}"
            raise self._error("receiverChannels", message)

    def _choose_group(self, group: str | None) -> str:
        groups = ismrmrd_groups(self._file)
        if group is None and len(groups) == 1:
            return groups[0]
        if group not in groups:
            known = ", ".join(groups) or "none"
            wanted = "one group" if group is None else group
            raise self._error("group", f"expected {wanted} with acquisitions (data and xml), has: {known}")
        return str(group)

    def _grid(self, header: IsmrmrdHeader) -> RawGrid:
        n_y, n_x, n_z = header.encoded_matrix
        if header.line_limits is None:
            raise self._error(_FIELD_OF["line"], "is missing: the line of the k-space centre is unknown")
        limits = {"line": header.line_limits, **header.counter_limits}
        if header.partition_limits is not None:
            limits["partition"] = header.partition_limits
        if n_z > 1 and header.partition_limits is None:
            raise self._error(_FIELD_OF["partition"], "is missing: the partition of the k-space centre is unknown")
        center_partition = 0 if header.partition_limits is None else header.partition_limits[2]
        return RawGrid(
            n_y=n_y,
            n_x=n_x,
            n_z=n_z,
            center_line=header.line_limits[2],
            center_partition=center_partition,
            limits={name: (low, high) for name, (low, high, _) in limits.items() if name in COUNTERS},
        )

    def _read_heads(self) -> NDArray[np.void]:
        name = f"{self._group}/data"
        n_values = self._file.shape(name)[0]
        if not 0 < n_values <= _MAX_ACQUISITIONS:
            raise self._error(name, f"has {n_values} acquisitions, expected 1 to {_MAX_ACQUISITIONS}")
        if "data" not in (self._file.dtype(name).names or ()):
            raise self._error(name, f"expected records with head and data, got {self._file.dtype(name)}")
        return self._file.read_record_member(name, "head")

    def _readouts_of(self, head: NDArray[np.void]) -> Readouts:
        name = f"{self._group}/data"
        fields = head.dtype.names or ()
        counters = head["idx"].dtype.names or () if "idx" in fields else ()
        missing = [field for field in _HEAD_FIELDS if field not in fields]
        missing += [field for ours in COUNTERS if (field := _FIELD_OF.get(ours, ours)) not in counters]
        if missing:
            raise self._error(f"{name}/head", f"the acquisition header lacks {', '.join(missing)}")
        try:
            return self._readouts(head)
        except (ValueError, TypeError) as error:  # a member of another type or shape
            raise self._error(f"{name}/head", f"the acquisition header is damaged: {error}") from error

    def _readouts(self, head: NDArray[np.void]) -> Readouts:
        n = len(head)

        def integers(values: NDArray[np.generic]) -> NDArray[np.int64]:
            if values.dtype.kind not in "ui":
                raise TypeError(f"expected integers, got {values.dtype}")
            return values.astype(np.int64).reshape(n)

        def triples(field: str) -> NDArray[np.float64]:
            return head[field].astype(np.float64).reshape(n, 3)

        flags = head["flags"].astype(np.uint64).reshape(n)

        def flagged(flag: int) -> NDArray[np.bool_]:
            return np.asarray((flags >> np.uint64(flag - 1)) & np.uint64(1) != 0, np.bool_)

        kind = np.full(n, IMAGING, np.int64)
        for flag, value in reversed(_KIND_OF_FLAG.items()):
            kind[flagged(flag)] = value
        readouts = Readouts(
            source=self.path,
            record="acquisition",
            field_names=_FIELD_OF,
            kind=kind,
            encoding=integers(head["encoding_space_ref"]),
            counters={ours: integers(head["idx"][_FIELD_OF.get(ours, ours)]) for ours in COUNTERS},
            n_coils=integers(head["active_channels"]),
            n_samples=integers(head["number_of_samples"]),
            center_sample=integers(head["center_sample"]),
            discard_pre=integers(head["discard_pre"]),
            discard_post=integers(head["discard_post"]),
            is_reversed=flagged(_REVERSE),
            dwell_us=np.nan_to_num(
                head["sample_time_us"].astype(np.float64).reshape(n), nan=0.0, posinf=0.0, neginf=0.0
            ),
            position_mm=triples("position"),
            y_direction=triples("read_dir"),
            x_direction=triples("phase_dir"),
            slice_direction=triples("slice_dir"),
        )
        for flag in _COMPRESSED:
            if flagged(flag).any():
                message = f"its samples are compressed (flag {flag}), which is not supported"
                raise readouts.error(np.flatnonzero(flagged(flag))[0], "flags", message)
        with_trajectory = integers(head["trajectory_dimensions"]) > 0
        with_trajectory &= readouts.where(IMAGING, CALIBRATION, CALIBRATION_AND_IMAGING)
        if with_trajectory.any():
            message = "has a trajectory, but the header says Cartesian"
            raise readouts.error(np.flatnonzero(with_trajectory)[0], "trajectory_dimensions", message)
        return readouts

    def _samples(self, numbers: NDArray[np.int64]) -> NDArray[np.complex64]:
        """Samples (readout, coil, sample) of readouts of one size."""
        readouts, name = self.readouts, f"{self._group}/data"
        n_coils, n_samples = int(readouts.n_coils[numbers[0]]), int(readouts.n_samples[numbers[0]])
        n_floats = 2 * n_coils * n_samples
        if len(numbers) * n_floats * 4 > _MAX_BLOCK_BYTES:
            raise self._error(name, f"{len(numbers)} acquisitions of {n_coils} x {n_samples} in one piece")
        values = np.empty((len(numbers), n_floats), np.float32)
        done = 0
        for rows in _strided_runs(numbers):
            block = self._file.read_records(name, rows)["data"]
            lengths = np.fromiter((np.size(part) for part in block), np.int64, len(block))
            if (lengths != n_floats).any():
                bad = int(np.flatnonzero(lengths != n_floats)[0])
                message = (
                    f"has {lengths[bad]} numbers, the head says {n_coils} channels of {n_samples} samples: {n_floats}"
                )
                raise readouts.error(numbers[done + bad], "data", message)
            part = values[done : done + len(block)]
            if block.dtype != object:
                part[:] = block
            elif n_floats:
                np.concatenate(list(block), out=part.reshape(-1), casting="same_kind")
            done += len(block)
        return values.view(np.complex64).reshape(len(numbers), n_coils, n_samples)

    def _notes(self, header: IsmrmrdHeader, encoding: int) -> Iterator[str]:
        if header.n_encodings > 1:
            yield f"encoding {encoding} of {header.n_encodings}"
        if header.encoded_fov_mm is None or header.recon_fov_mm is None:
            yield "the header has no fields of view: readout oversampling is unknown"
        if header.crop != header.recon_matrix[:2]:
            yield (
                f"the header asks for {header.recon_matrix[0]} x {header.recon_matrix[1]} pixels; its field of view has "
                f"{header.crop[0]} x {header.crop[1]} of the encoded size"
            )
        if self._geometry(self.images[0]) is None:
            yield "the position or the directions of the slices are unknown or contradict each other"
        if self.readouts.where(NOISE).any() and (self.readouts.dwell_us <= 0).any():
            yield "the noise scan is not used: its sample time, or that of the image, is unknown"


def ismrmrd_groups(source: Path | str | Hdf5Reader) -> tuple[str, ...]:
    """Names of the groups at the top level of an HDF5 file that have acquisitions.

    Raises
    ------
    FileError
        The file cannot be read.
    """
    if not isinstance(source, Hdf5Reader):
        with Hdf5Reader(source) as file:
            return ismrmrd_groups(file)
    return tuple(
        name
        for name in source.names()
        if source.has(f"{name}/data") and source.has(f"{name}/xml") and not source.has(f"{name}/header")
    )


def _strided_runs(numbers: NDArray[np.int64]) -> Iterator[slice]:
    """Ascending numbers as slices with a step: interleaved slices are then read in one piece, too."""
    start = 0
    while start < len(numbers):
        if start + 1 == len(numbers):
            yield slice(int(numbers[start]), int(numbers[start]) + 1)
            return
        step = int(numbers[start + 1] - numbers[start])
        steps = np.diff(numbers[start:])
        other = np.flatnonzero(steps != step)
        n = 1 + (len(steps) if len(other) == 0 else int(other[0]))
        yield slice(int(numbers[start]), int(numbers[start + n - 1]) + 1, step)
        start += n
