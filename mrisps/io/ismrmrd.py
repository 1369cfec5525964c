"""ISMRMRD (MRD) raw data: lists of readouts in HDF5, with an XML header.

A group, usually ``/dataset``, has the data set ``data``, whose records are an acquisition each (``head``, ``traj``,
``data``), and ``xml``. Heads are read at once, without the samples; samples in blocks when an image is asked for, never
one acquisition after the other. The reading is done with h5py directly, so that links to other files are refused.

Source: S. J. Inati et al., *ISMRM Raw Data Format: A Proposed Standard for MRI Raw Datasets*, Magn Reson Med 77 (2017);
https://ismrmrd.readthedocs.io.
"""

from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from mrisps.io.acquisition import Scalar
from mrisps.io.hdf5 import Hdf5Reader
from mrisps.io.ismrmrd_header import IsmrmrdHeader, parsed_header
from mrisps.io.raw_file import COUNTERS, Average, Ints, RawFile, flagged, has_kind, readout_table

__all__ = ["IsmrmrdFile", "ismrmrd_groups"]

_FIELD_OF = {"line": "kspace_encode_step_1", "partition": "kspace_encode_step_2"}  # in ``idx``; others have our name
_HEAD_FIELD_OF = {
    **{"encoding": "encoding_space_ref", "n_coils": "active_channels", "n_samples": "number_of_samples"},
    **{"center_sample": "center_sample", "discard_pre": "discard_pre", "discard_post": "discard_post"},
    **{
        "position_mm": "position",
        "y_direction": "read_dir",
        "x_direction": "phase_dir",
        "slice_direction": "slice_dir",
    },
}
# Bits of ``flags`` (in the standard counted from 1) that make a readout something else than imaging; the first decides.
_KIND_OF_BIT = {
    **{18: "noise", 22: "navigation", 23: "phase correction", 25: "feedback", 27: "feedback", 26: "dummy"},
    **{28: "surface coil correction", 29: "phase stabilisation", 30: "phase stabilisation"},
    **{19: "calibration", 20: "calibration and imaging"},
}
_REVERSE, _COMPRESSED = 21, range(52, 56)
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
    _record = "acquisition"
    _field_of = MappingProxyType({**_FIELD_OF, **_HEAD_FIELD_OF, "is_reversed": "flags"})

    def __init__(
        self, path: Path | str, *, encoding: int = 0, average: Average = "mean", group: str | None = None
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
        super().close()
        self._file.close()

    def _read_metadata(self, encoding: int, average: Average, group: str | None) -> None:
        groups = ismrmrd_groups(self._file)
        chosen = groups[0] if group is None and len(groups) == 1 else group
        if chosen not in groups:
            message = (
                f"expected {group or 'one group'} with acquisitions (data and xml), has: {', '.join(groups) or 'none'}"
            )
            raise self._error("group", message)
        self._group = str(chosen)
        self._interpret(self._file.read_text(f"{chosen}/xml"), self._read_heads(), encoding, average)

    def _interpret(
        self, header_xml: bytes, heads: NDArray[np.void], encoding: int = 0, average: Average = "mean"
    ) -> None:
        """Set all attributes from the header's text and the heads of the acquisitions."""
        self.header_xml = header_xml
        header = parsed_header(self.path, header_xml, f"{self._group}/xml", encoding)
        if header.trajectory != "cartesian":
            raise self._error("trajectory", f"is {header.trajectory or 'not stated'}; only Cartesian is supported")
        self._sort(self._table(heads), header, encoding=encoding, average=average)
        if header.n_coils not in (None, self.n_coils):
            message = f"the header says {header.n_coils}, the acquisitions have {self.n_coils}"
            raise self._error("receiverChannels", message)
        attributes: dict[str, Scalar] = {**header.user_parameters, **self.attributes}
        acquisition = attributes.get("acquisition")  # what fastMRI's files call the contrast; our writer keeps it
        self.contrast = acquisition if isinstance(acquisition, str) else header.protocol_name
        self.image_is_real = attributes.get("image_is_real") == 1
        if header.patient_id is not None:
            attributes["patient_id"] = header.patient_id
        self.attributes = MappingProxyType(attributes)
        self.notes = (*self._notes(header, encoding), *self.notes)

    def _read_heads(self) -> NDArray[np.void]:
        name = f"{self._group}/data"
        (n_values, *_) = self._file.shape(name) or (0,)
        if not 0 < n_values <= _MAX_ACQUISITIONS:
            raise self._error(name, f"has {n_values} acquisitions, expected 1 to {_MAX_ACQUISITIONS}")
        if "data" not in (self._file.dtype(name).names or ()):
            raise self._error(name, f"expected records with head and data, got {self._file.dtype(name)}")
        return self._file.read_record_member(name, "head")

    def _table(self, head: NDArray[np.void]) -> NDArray[np.void]:
        try:
            flags = head["flags"].astype(np.uint64)
            dwell = np.nan_to_num(head["sample_time_us"].astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
            columns = {ours: head["idx"][_FIELD_OF.get(ours, ours)] for ours in COUNTERS}
            columns |= {ours: head[theirs] for ours, theirs in _HEAD_FIELD_OF.items()}
            columns |= {"is_reversed": flagged(flags, _REVERSE), "dwell_us": dwell}
            readouts = readout_table(flags, _KIND_OF_BIT, columns)
            on_grid = has_kind(readouts, "imaging", "calibration", "calibration and imaging")
            with_trajectory = (head["trajectory_dimensions"] > 0) & on_grid
        except (ValueError, TypeError, IndexError) as error:  # a member is missing, or of another type or shape
            raise self._error(f"{self._group}/data/head", f"the acquisition header is damaged: {error}") from error
        everything = np.arange(len(head))
        for bit in _COMPRESSED:
            message = f"its samples are compressed (flag {bit + 1}), which is not supported"
            self._refuse(everything, flagged(flags, bit), "flags", message)
        message = "has a trajectory, but the header says Cartesian"
        self._refuse(everything, with_trajectory, "trajectory_dimensions", message)
        return readouts

    def _samples(self, numbers: Ints) -> NDArray[np.complex64]:
        """Samples (readout, coil, sample) of readouts of one size."""
        first, name = self.readouts[numbers[0]], f"{self._group}/data"
        n_coils, n_samples = int(first["n_coils"]), int(first["n_samples"])
        n_floats = 2 * n_coils * n_samples
        if len(numbers) * n_floats * 4 > _MAX_BLOCK_BYTES:
            raise self._error(name, f"{len(numbers)} acquisitions of {n_coils} x {n_samples} in one piece")
        values = np.empty((len(numbers), n_floats), np.float32)
        done = 0
        for rows in _strided_runs(numbers):
            block = self._file.read_records(name, rows)["data"]
            lengths = np.fromiter((np.size(part) for part in block), np.int64, len(block))
            expected = f"{n_coils} channels of {n_samples} samples: {n_floats}"
            message = f"has {{}} numbers, the head says {expected}"
            self._refuse(numbers[done : done + len(block)], lengths != n_floats, "data", message, lengths)
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
        (n_y, n_x, _), crop = header.recon_matrix, header.crop
        if crop != (n_y, n_x):
            fov = f"its field of view has {crop[0]} x {crop[1]} of the encoded size"
            yield f"the header asks for {n_y} x {n_x} pixels; {fov}"
        if self._geometry(self.images[0]) is None:
            yield "the position or the directions of the slices are unknown or contradict each other"
        if has_kind(self.readouts, "noise").any() and (self.readouts["dwell_us"] <= 0).any():
            yield "the noise scan is not used: its sample time, or that of the image, is unknown"


def ismrmrd_groups(source: Path | str | Hdf5Reader) -> tuple[str, ...]:
    """Names of the groups at the top level of an HDF5 file that have acquisitions; a FileError if it cannot be read."""
    if not isinstance(source, Hdf5Reader):
        with Hdf5Reader(source) as file:
            return ismrmrd_groups(file)

    def has(*paths: str) -> bool:
        return all(map(source.has, paths))

    return tuple(g for g in source.names() if has(f"{g}/data", f"{g}/xml") and not has(f"{g}/header"))


def _strided_runs(numbers: Ints) -> Iterator[slice]:
    """Ascending numbers as slices with a step: interleaved slices are then read in one piece, too."""
    start = 0
    while start < len(numbers):
        steps = np.diff(numbers[start:])
        step = int(steps[0]) if len(steps) else 1
        other = np.flatnonzero(steps != step)
        n = 1 + (len(steps) if len(other) == 0 else int(other[0]))
        yield slice(int(numbers[start]), int(numbers[start + n - 1]) + 1, step)
        start += n
