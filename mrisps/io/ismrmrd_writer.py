"""Writing ISMRMRD (MRD) files: raw data and images, which the C++ library reads, too."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mrisps.errors import FileError
from mrisps.io.acquisition import Acquisition, Geometry, Scalar, alike, shown
from mrisps.io.hdf5_writer import Hdf5Writer
from mrisps.io.ismrmrd_header import IsmrmrdHeader, Limits, rewritten
from mrisps.io.ismrmrd_images import write_mrd_images
from mrisps.io.json_text import JsonValue, to_json

__all__ = ["ISMRMRD_CARRIES", "write_ismrmrd", "write_ismrmrd_images"]

ISMRMRD_CARRIES = frozenset(
    {
        *("mask", "image_is_real", "contrast", "attributes", "recon_shape", "readout_oversampling", "calibration"),
        *("noise_scan", "labels", "geometry"),
    }
)
_GROUP = "dataset"
_COUNTERS = ("average", "slice", "contrast", "phase", "repetition", "set")
_FIRST_IN_SLICE, _LAST_IN_SLICE, _NOISE, _CALIBRATION, _LAST_IN_MEASUREMENT = (1 << bit for bit in (6, 7, 18, 19, 24))
_MAX_COUNT = (1 << 16) - 1


def write_ismrmrd(
    path: Path | str,
    records: Iterable[Acquisition],
    header: IsmrmrdHeader,
    header_xml: bytes | None = None,
    *,
    provenance: Mapping[str, JsonValue] | None = None,
) -> tuple[str, ...]:
    """Write slices as ISMRMRD; the result says what it could not carry.

    Columns that the mask calls acquired become acquisitions; without a mask, those that are not zero. Lines are
    numbered as in the header, if its limits have room for them, else from the left edge of the grid.

    The text from which the header comes is kept, but for the encoding. The provenance becomes the user parameter
    ``mrisps_provenance``, as JSON. A FileError also if the sizes are beyond 65535, or lines beyond the header's limits.
    """
    lost: tuple[str, ...] = ()
    counts: dict[str, list[int]] = {name: [] for name in _COUNTERS}
    relative_bandwidth = header.relative_receiver_noise_bandwidth or 1.0
    with Hdf5Writer(path) as file:
        for first, record in alike(records):
            rows, columns, is_whole = _acquired(record)
            if record is first:
                acquisitions = _Acquisitions(file, first, columns, header.line_limits)
            if not is_whole:
                lost = ("mask: of single samples; whole readouts were written, with zeros where nothing was acquired",)
            for name in _COUNTERS:
                counts[name].append(_count(record, name))
            if record is first and record.noise_scan is not None:
                acquisitions.add_noise(record, record.noise_scan, relative_bandwidth)
            if record.calibration is not None:
                lines = np.flatnonzero((record.calibration != 0).any(axis=(0, 1)))
                acquisitions.add(record, record.calibration, slice(0, record.shape[0]), lines, _CALIBRATION)
            acquisitions.add(record, record.kspace, rows, columns)
        parameters: dict[str, Scalar] = {**first.attributes, "image_is_real": int(first.image_is_real)}
        parameters.pop("mrisps_provenance", None)
        parameters.pop("sample_time_us", None)  # in every acquisition
        if first.contrast is not None:
            parameters["acquisition"] = first.contrast
        if provenance is not None:
            parameters["mrisps_provenance"] = to_json(provenance)
        has_apart = first.calibration is not None and header.acceleration is None
        written = replace(
            header,
            encoded_matrix=(*first.shape, 1),
            line_limits=acquisitions.limits,
            partition_limits=(0, 0, 0),
            counter_limits={name: (min(values), max(values), 0) for name, values in counts.items()},
            n_coils=first.n_coils,
            trajectory="cartesian",
            user_parameters={**header.user_parameters, **parameters},
            n_encodings=1,
            acceleration=(1, 1) if has_apart else header.acceleration,
            calibration_mode="separate" if has_apart else header.calibration_mode,
        )
        file.write_texts(f"{_GROUP}/xml", [written.to_xml() if header_xml is None else rewritten(header_xml, written)])
    return lost


def _acquired(record: Acquisition) -> tuple[slice, NDArray[np.int64], bool]:
    """Rows and columns to be written, whole readouts or the same part of all, and whether all of it was acquired."""
    mask = record.full_mask()
    if mask is None:
        mask = np.broadcast_to((record.kspace != 0).any(axis=(0, 1)), record.shape)
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    part = slice(int(rows[0]), int(rows[-1]) + 1)
    return part, columns, bool(mask[part][:, columns].all())


class _Acquisitions:
    """The acquisitions of a file that is being written, and the limits of their lines."""

    def __init__(self, file: Hdf5Writer, first: Acquisition, columns: NDArray[np.int64], limits: Limits | None) -> None:
        from ismrmrd.hdf5 import acquisition_dtype, acquisition_header_dtype

        n_x = first.shape[1]
        if max(*first.shape, first.n_coils, first.n_slices) > _MAX_COUNT:
            size = f"{first.n_coils} coils of {first.shape[0]} x {n_x}"
            raise FileError(file.path, f"{size}: at most {_MAX_COUNT} can be written")
        if limits is None or not _fits(columns - n_x // 2 + limits[2], limits, n_x):
            limits = (0, n_x - 1, n_x // 2)
        self.limits = limits
        self._file, self._n = file, 0
        self._dtype, self._head_dtype = np.dtype(acquisition_dtype), acquisition_header_dtype
        file.create_records(f"{_GROUP}/data", self._dtype)

    def add(
        self,
        record: Acquisition,
        kspace: NDArray[np.complex64],
        rows: slice,
        columns: NDArray[np.int64],
        flags: int = 0,
    ) -> None:
        """Append lines of k-space (coil, y, x): calibration lines with flags, or those of the image."""
        n_y, n_x = record.shape
        lines = columns - n_x // 2 + self.limits[2]
        if not _fits(lines, self.limits, n_x):
            message = f"slice {record.slice_index} has lines from {lines.min()} to {lines.max()}, the header has {self.limits[:2]}"
            raise FileError(self._file.path, message, field="kspace_encode_step_1")
        heads = self._heads(record, len(columns), rows.stop - rows.start)
        heads["center_sample"] = n_y // 2 - rows.start
        heads["idx"]["kspace_encode_step_1"] = lines
        for name in _COUNTERS:
            heads["idx"][name] = _count(record, name)
        heads["flags"] = flags
        if not flags:
            is_last = record.slice_index + 1 == record.n_slices
            heads["flags"][0] |= np.uint64(_FIRST_IN_SLICE)
            heads["flags"][-1] |= np.uint64(_LAST_IN_SLICE | (_LAST_IN_MEASUREMENT if is_last else 0))
        self._append(
            heads, np.ascontiguousarray(kspace[:, rows][:, :, columns].transpose(2, 0, 1))
        )  # (line, coil, sample)

    def add_noise(self, record: Acquisition, noise: NDArray[np.complex64], relative_bandwidth: float) -> None:
        """Append the noise scan, in readouts with the sample time that makes its scale that of the image."""
        for start in range(0, noise.shape[1], _MAX_COUNT):
            part = np.ascontiguousarray(noise[np.newaxis, :, start : start + _MAX_COUNT])
            heads = self._heads(record, 1, part.shape[2])
            heads["flags"] = _NOISE
            heads["sample_time_us"] *= relative_bandwidth
            self._append(heads, part)

    def _heads(self, record: Acquisition, n: int, n_samples: int) -> NDArray[np.void]:
        heads: NDArray[np.void] = np.zeros(n, self._head_dtype)
        heads["version"] = 1
        heads["scan_counter"] = self._n + np.arange(n)
        heads["number_of_samples"] = n_samples
        heads["available_channels"] = heads["active_channels"] = record.n_coils
        dwell = record.attributes.get("sample_time_us")
        heads["sample_time_us"] = dwell if isinstance(dwell, int | float) and dwell > 0 else 0.0
        _set_place(heads, record.geometry)
        return heads

    def _append(self, heads: NDArray[np.void], samples: NDArray[np.complex64]) -> None:
        records = np.empty(len(heads), self._dtype)
        records["head"] = heads
        nothing = np.zeros(0, np.float32)
        for index, floats in enumerate(samples.view(np.float32).reshape(len(heads), -1)):
            records["traj"][index], records["data"][index] = nothing, floats
        self._file.append_records(f"{_GROUP}/data", records)
        self._n += len(heads)


def write_ismrmrd_images(
    path: Path | str,
    images: NDArray[np.float32] | NDArray[np.complex64],
    geometries: Sequence[Geometry | None],
    header: IsmrmrdHeader | None = None,
) -> None:
    """Write images as ISMRMRD, in the group ``dataset/image_0`` as the C++ library does.

    Images are float32 or complex64 (slice, y, x), with one geometry a slice; where it is None, the field of view is
    that of the header, or 0 for unknown. The header is written as ``dataset/xml``. A ValueError if the arguments do not
    fit together, a FileError if images are not finite.
    """
    from ismrmrd.hdf5 import image_header_dtype

    is_complex = images.dtype == np.complex64
    is_known = is_complex or images.dtype == np.float32
    if images.ndim != 3 or images.size == 0 or not is_known or len(geometries) != len(images):
        expected = "expected float32 or complex64 (slice, y, x) and as many geometries"
        raise ValueError(f"images: {expected}, got {shown(images)}")
    if not np.isfinite(images).all():
        raise FileError(path, "has NaN or infinite pixels, not written")
    n_slices, n_y, n_x = images.shape
    heads: NDArray[np.void] = np.zeros(n_slices, image_header_dtype)
    heads["version"] = heads["channels"] = 1
    heads["data_type"] = 7 if is_complex else 5  # ISMRMRD_CXFLOAT, ISMRMRD_FLOAT
    heads["image_type"] = 5 if is_complex else 1  # complex, magnitude
    heads["matrix_size"] = (n_y, n_x, 1)  # x of ISMRMRD is the readout, our y
    heads["slice"] = heads["image_index"] = np.arange(n_slices)
    if header is not None and header.recon_fov_mm is not None:
        heads["field_of_view"] = header.recon_fov_mm
    for index, geometry in enumerate(geometries):
        _set_place(heads[index : index + 1], geometry)
        if geometry is not None:
            heads["field_of_view"][index] = geometry.field_of_view_mm
    pixels = images.transpose(0, 2, 1)[:, np.newaxis, np.newaxis]  # (image, channel, z, y, x) of ISMRMRD
    if is_complex:
        pixels = np.ascontiguousarray(pixels).view([("real", "<f4"), ("imag", "<f4")])
    text = None if header is None else header.to_xml()
    write_mrd_images(Path(path), zip(heads, pixels, [b""] * n_slices, strict=True), text)


def _count(record: Acquisition, counter: str) -> int:
    return record.labels.get(counter, record.slice_index if counter == "slice" else 0)


def _set_place(heads: NDArray[np.void], geometry: Geometry | None) -> None:
    if geometry is not None:
        heads["position"], heads["read_dir"] = geometry.position_mm, geometry.y_direction
        heads["phase_dir"], heads["slice_dir"] = geometry.x_direction, geometry.slice_direction


def _fits(lines: NDArray[np.int64], limits: Limits, n_x: int) -> bool:
    """Whether line numbers are within limits, and these on the grid."""
    low, high, center = limits
    on_grid = low - center + n_x // 2 >= 0 and high - center + n_x // 2 < n_x
    return bool(on_grid and lines.min() >= low and lines.max() <= high)
