"""Writing ISMRMRD (MRD) files: raw data and images, which the C++ library reads, too."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mrisps.errors import FileError
from mrisps.io.acquisition import Acquisition, Geometry, Scalar
from mrisps.io.hdf5_writer import Hdf5Writer
from mrisps.io.ismrmrd_header import IsmrmrdHeader, Limits, rewritten
from mrisps.io.json_text import JsonValue, to_json
from mrisps.io.writers import SliceWriter

__all__ = ["IsmrmrdWriter", "write_ismrmrd_images"]

_GROUP = "dataset"
_COUNTERS = ("average", "slice", "contrast", "phase", "repetition", "set")
_FIRST_IN_SLICE, _LAST_IN_SLICE, _LAST_IN_MEASUREMENT = 7, 8, 25
_NOISE, _CALIBRATION = 19, 20
_MAX_COUNT = (1 << 16) - 1


class IsmrmrdWriter(SliceWriter):
    """Writes raw data as ISMRMRD.

    Columns that the mask calls acquired become acquisitions; without a mask, those that are not zero. Lines are numbered as in
    the header, if its limits have room for them, else from the left edge of the grid.

    Parameters
    ----------
    header
        Of the data.
    header_xml
        The whole header from which ``header`` comes: kept, but for the encoding.
    provenance
        Where the data come from; becomes the user parameter ``mrisps_provenance``, as JSON.

    Raises
    ------
    FileError
        The file cannot be written; the sizes are beyond 65535.
    """

    carries = frozenset(
        {
            *("mask", "image_is_real", "contrast", "attributes", "recon_shape", "readout_oversampling", "calibration"),
            *("noise_scan", "labels", "geometry"),
        }
    )

    def __init__(
        self,
        path: Path | str,
        n_slices: int,
        header: IsmrmrdHeader,
        header_xml: bytes | None = None,
        *,
        provenance: Mapping[str, JsonValue] | None = None,
    ) -> None:
        super().__init__(path, n_slices)
        self._header, self._header_xml = header, header_xml
        self._provenance = provenance
        self._file = Hdf5Writer(self.path)
        self._n_acquisitions = 0
        self._limits: dict[str, tuple[int, int]] = {}
        self._line_limits: Limits | None = None

    def _open(self, stack: contextlib.ExitStack) -> None:
        stack.enter_context(self._file)

    def _write(self, record: Acquisition, first: Acquisition) -> None:
        labels = {"slice": record.slice_index, **record.labels}
        for name in _COUNTERS:
            value = labels.get(name, 0)
            low, high = self._limits.get(name, (value, value))
            self._limits[name] = (min(low, value), max(high, value))
        if record.noise_scan is not None and self._n_written == 0:
            self._write_noise(record, record.noise_scan)
        if record.calibration is not None:
            columns = np.flatnonzero((record.calibration != 0).any(axis=(0, 1)))
            self._write_lines(
                record, record.calibration, slice(0, record.shape[0]), columns, labels, [1 << (_CALIBRATION - 1)]
            )
        rows, columns = self._acquired(record)
        self._write_lines(record, record.kspace, rows, columns, labels, None)

    def _create(self, first: Acquisition) -> None:
        from ismrmrd.hdf5 import acquisition_dtype

        if max(*first.shape, first.n_coils, self.n_slices) > _MAX_COUNT:
            message = (
                f"{first.n_coils} coils of {first.shape[0]} x {first.shape[1]}: at most {_MAX_COUNT} can be written"
            )
            raise FileError(self.path, message)
        n_x = first.shape[1]
        _, columns = self._acquired(first)
        limits = self._header.line_limits
        if limits is None or not _fits(columns - n_x // 2 + limits[2], limits, n_x):
            limits = (0, n_x - 1, n_x // 2)
        self._line_limits = limits
        self._file.create_records(f"{_GROUP}/data", np.dtype(acquisition_dtype))

    def _acquired(self, record: Acquisition) -> tuple[slice, NDArray[np.int64]]:
        """Rows and columns to be written: whole readouts, or the same part of all."""
        mask = record.full_mask()
        if mask is None:
            mask = (record.kspace != 0).any(axis=(0, 1)) & np.ones(record.shape, np.bool_)
        columns = np.flatnonzero(mask.any(axis=0))
        rows = np.flatnonzero(mask.any(axis=1))
        part = slice(int(rows[0]), int(rows[-1]) + 1)
        if not mask[part][:, columns].all():
            self.lost = ("mask: of single samples; whole readouts were written, with zeros where nothing was acquired",)
        return part, columns

    def _write_lines(
        self,
        record: Acquisition,
        kspace: NDArray[np.complex64],
        rows: slice,
        columns: NDArray[np.int64],
        labels: Mapping[str, int],
        flags: Sequence[int] | None,
    ) -> None:
        limits = self._line_limits or (0, 0, 0)
        n_y, n_x = record.shape
        lines = columns - n_x // 2 + limits[2]
        if not _fits(lines, limits, n_x):
            message = (
                f"slice {record.slice_index} has lines from {lines.min()} to {lines.max()}, the header has {limits[:2]}"
            )
            raise FileError(self.path, message, field="kspace_encode_step_1")
        heads = self._heads(record, len(columns), rows.stop - rows.start)
        heads["center_sample"] = n_y // 2 - rows.start
        heads["idx"]["kspace_encode_step_1"] = lines
        for name in _COUNTERS:
            heads["idx"][name] = labels.get(name, 0)
        if flags is None:
            heads["flags"][0] |= np.uint64(1 << (_FIRST_IN_SLICE - 1))
            last = _LAST_IN_SLICE, *([_LAST_IN_MEASUREMENT] if self._n_written + 1 == self.n_slices else [])
            heads["flags"][-1] |= np.uint64(sum(1 << (flag - 1) for flag in last))
        else:
            heads["flags"] = flags[0]
        samples = np.ascontiguousarray(kspace[:, rows][:, :, columns].transpose(2, 0, 1))  # (line, coil, sample)
        self._append(heads, samples)

    def _write_noise(self, record: Acquisition, noise: NDArray[np.complex64]) -> None:
        """The noise scan, in pieces of at most one readout, with the sample time that makes its scale that of the image."""
        relative = self._header.relative_receiver_noise_bandwidth or 1.0
        n_noise = noise.shape[1]
        for start in range(0, n_noise, _MAX_COUNT):
            part = np.ascontiguousarray(noise[np.newaxis, :, start : start + _MAX_COUNT])
            heads = self._heads(record, 1, part.shape[2])
            heads["flags"] = 1 << (_NOISE - 1)
            heads["sample_time_us"] *= relative
            self._append(heads, part)

    def _heads(self, record: Acquisition, n: int, n_samples: int) -> NDArray[np.void]:
        from ismrmrd.hdf5 import acquisition_header_dtype

        heads: NDArray[np.void] = np.zeros(n, acquisition_header_dtype)
        heads["version"] = 1
        heads["scan_counter"] = self._n_acquisitions + np.arange(n)
        heads["number_of_samples"] = n_samples
        heads["available_channels"] = heads["active_channels"] = record.n_coils
        heads["sample_time_us"] = _sample_time(record)
        geometry = record.geometry
        if geometry is not None:
            heads["position"] = geometry.position_mm
            heads["read_dir"], heads["phase_dir"] = geometry.y_direction, geometry.x_direction
            heads["slice_dir"] = geometry.slice_direction
        return heads

    def _append(self, heads: NDArray[np.void], samples: NDArray[np.complex64]) -> None:
        from ismrmrd.hdf5 import acquisition_dtype

        floats = samples.view(np.float32).reshape(len(heads), -1)
        records = np.empty(len(heads), acquisition_dtype)
        records["head"] = heads
        nothing = np.zeros(0, np.float32)
        for index in range(len(heads)):
            records["traj"][index] = nothing
            records["data"][index] = floats[index]
        self._file.append_records(f"{_GROUP}/data", records)
        self._n_acquisitions += len(heads)

    def _end(self, first: Acquisition) -> None:
        parameters: dict[str, Scalar] = {**first.attributes, "image_is_real": int(first.image_is_real)}
        parameters.pop("mrisps_provenance", None)
        parameters.pop("sample_time_us", None)  # in every acquisition
        if first.contrast is not None:
            parameters["acquisition"] = first.contrast
        if self._provenance is not None:
            parameters["mrisps_provenance"] = to_json(self._provenance)
        header = replace(
            self._header,
            encoded_matrix=(*first.shape, 1),
            line_limits=self._line_limits,
            partition_limits=(0, 0, 0),
            counter_limits={name: (low, high, 0) for name, (low, high) in self._limits.items()},
            n_coils=first.n_coils,
            trajectory="cartesian",
            user_parameters={**self._header.user_parameters, **parameters},
            n_encodings=1,
        )
        if first.calibration is not None and header.acceleration is None:
            header = replace(header, acceleration=(1, 1), calibration_mode="separate")
        text = header.to_xml() if self._header_xml is None else rewritten(self._header_xml, header)
        self._file.write_texts(f"{_GROUP}/xml", [text])


def write_ismrmrd_images(
    path: Path | str,
    images: NDArray[np.float32] | NDArray[np.complex64],
    geometries: Sequence[Geometry | None],
    header: IsmrmrdHeader | None = None,
) -> None:
    """Write images as ISMRMRD, in the group ``dataset/image_0`` as the C++ library does.

    Parameters
    ----------
    images
        (slice, y, x), real or complex.
    geometries
        One a slice; where it is None, the field of view is that of the header, or 0 for unknown.
    header
        Of the measurement; written as ``dataset/xml``.

    Raises
    ------
    ValueError
        The arguments do not fit together.
    FileError
        The images are not finite, or the file cannot be written.
    """
    from ismrmrd.hdf5 import image_header_dtype

    if (
        images.ndim != 3
        or images.size == 0
        or images.dtype not in (np.float32, np.complex64)
        or len(geometries) != len(images)
    ):
        raise ValueError(
            f"images: expected float32 or complex64 (slice, y, x) and as many geometries, got {images.shape}"
        )
    if not np.isfinite(images).all():
        raise FileError(path, "has NaN or infinite pixels, not written")
    n_slices, n_y, n_x = images.shape
    heads: NDArray[np.void] = np.zeros(n_slices, image_header_dtype)
    is_complex = images.dtype == np.complex64
    heads["version"] = 1
    heads["data_type"] = 7 if is_complex else 5  # ISMRMRD_CXFLOAT, ISMRMRD_FLOAT
    heads["image_type"] = 5 if is_complex else 1  # complex, magnitude
    heads["matrix_size"] = (n_y, n_x, 1)  # x of ISMRMRD is the readout, our y
    heads["channels"] = 1
    heads["slice"] = heads["image_index"] = np.arange(n_slices)
    if header is not None and header.recon_fov_mm is not None:
        heads["field_of_view"] = header.recon_fov_mm
    for head, geometry in zip(heads, geometries, strict=True):
        if geometry is not None:
            head["field_of_view"], head["position"] = geometry.field_of_view_mm, geometry.position_mm
            head["read_dir"], head["phase_dir"] = geometry.y_direction, geometry.x_direction
            head["slice_dir"] = geometry.slice_direction
    pixels = images.transpose(0, 2, 1)[:, np.newaxis, np.newaxis]  # (image, channel, z, y, x) of ISMRMRD
    if is_complex:
        pixels = np.ascontiguousarray(pixels).view([("real", "<f4"), ("imag", "<f4")])
    with Hdf5Writer(path) as file:
        if header is not None:
            file.write_texts(f"{_GROUP}/xml", [header.to_xml()])
        file.write(f"{_GROUP}/image_0/data", np.ascontiguousarray(pixels))
        file.write(f"{_GROUP}/image_0/header", heads)
        file.write_texts(f"{_GROUP}/image_0/attributes", [b""] * n_slices)


def _sample_time(record: Acquisition) -> float:
    value = record.attributes.get("sample_time_us")
    return float(value) if isinstance(value, int | float) and value > 0 else 0.0


def _fits(lines: NDArray[np.int64], limits: Limits, n_x: int) -> bool:
    """Whether line numbers are within limits, and these on the grid."""
    low, high, center = limits
    on_grid = low - center + n_x // 2 >= 0 and high - center + n_x // 2 < n_x
    return bool(on_grid and lines.min() >= low and lines.max() <= high)
