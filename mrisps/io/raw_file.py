"""Files that are lists of readouts (ISMRMRD, twix): which line goes where.

A reader fills the table of readouts without the samples. `RawFile` checks the table, sorts it into images, and puts the
samples on the grid when an image is asked for.

Three-dimensional k-space is transformed along its readout, after which every position along the readout is a problem of
its own. Partitions become the rows (y) of a slice and lines its columns (x); only the positions inside the
reconstructed field of view are slices. Nothing else is transformed.

More than 400 lines, because checks, images and grid all work on the one table of readouts.
"""

import tempfile
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Literal, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from mrisps.errors import FileError
from mrisps.io.acquisition import Acquisition, Geometry, triple
from mrisps.io.ismrmrd_header import IsmrmrdHeader
from mrisps.io.kspace_file import KspaceFile, complex64

__all__ = ["COUNTERS", "Average", "Ints", "RawFile", "Volume", "flagged", "has_kind", "readout_table"]

Ints: TypeAlias = NDArray[np.int64]
Average = Literal["mean", "separate"]
_T = TypeVar("_T", bound=np.generic)

# What a readout is for. All but the first four kinds are left out of images.
_KINDS = (
    *("imaging", "calibration", "calibration and imaging", "noise", "navigation", "phase correction", "feedback"),
    *("dummy", "surface coil correction", "phase stabilisation", "synchronisation"),
)
COUNTERS = ("line", "partition", "average", "slice", "contrast", "phase", "repetition", "set")
"""The counters of a readout. Images differ in the last five of them."""
_IMAGE_COUNTERS = ("contrast", "set", "phase", "repetition", "slice")  # the slice counts fastest

_INTEGERS = ("kind", "encoding", *COUNTERS, "n_coils", "n_samples", "center_sample", "discard_pre", "discard_post")
_TRIPLES = ("position_mm", "y_direction", "x_direction", "slice_direction")
# center_sample has the zero frequency; discard_pre and discard_post samples at the ends are no data; is_reversed: taken
# backwards (EPI); dwell_us is the time a sample, 0 stands for unknown; positions and directions in patient coordinates (LPS).
_READOUT = np.dtype(
    [*((n, "i8") for n in _INTEGERS), ("is_reversed", "?"), ("dwell_us", "f8"), *((n, "f8", 3) for n in _TRIPLES)]
)
_CHUNK_BYTES = 1 << 26
_MAX_IMAGE_BYTES = 64 << 30
_IN_MEMORY_BYTES = 1 << 30


def readout_table(
    flags: NDArray[np.uint64], kind_of_bit: Mapping[int, str], columns: Mapping[str, NDArray[np.generic]]
) -> NDArray[np.void]:
    """The table of readouts. The first bit that is set in the flags decides what a readout is for; imaging, where none is.

    A ValueError or TypeError for a column of another shape or kind of number.
    """
    table: NDArray[np.void] = np.zeros(len(flags), _READOUT)
    for bit, kind in reversed(list(kind_of_bit.items())):
        table["kind"][flagged(flags, bit)] = _KINDS.index(kind)
    for name, values in columns.items():
        np.copyto(table[name], values, casting="same_kind")
    return table


def flagged(flags: NDArray[np.uint64], bit: int) -> NDArray[np.bool_]:
    """Where a bit is set."""
    return np.asarray((flags >> np.uint64(bit)) & np.uint64(1) != 0, np.bool_)


def has_kind(table: NDArray[np.void], *kinds: str) -> NDArray[np.bool_]:
    """Which readouts are for one of these purposes, for example ``"noise"``."""
    return np.isin(table["kind"], [_KINDS.index(kind) for kind in kinds])


@dataclass(frozen=True, eq=False)
class _Image:
    """The readouts of one image: the counters that all of them share, and their numbers, ascending."""

    labels: Mapping[str, int]
    imaging: Ints
    calibration: Ints


@dataclass(frozen=True, eq=False)
class Volume:
    """One image: k-space and calibration (coil, y, x, z) with y as the readout, mask (y, x, z), else as in `Acquisition`."""

    kspace: NDArray[np.complex64]
    mask: NDArray[np.bool_]
    calibration: NDArray[np.complex64] | None
    noise_scan: NDArray[np.complex64] | None
    labels: Mapping[str, int]
    geometry: Geometry | None


class RawFile(KspaceFile):
    """A file that is a list of readouts, opened for reading; see `KspaceFile` for the common attributes.

    Readouts are put at their encoded indices with the k-space centre at n // 2; what the file leaves out is zero. Noise
    scans and calibration lines that were measured apart go into their own fields; navigators, phase correction,
    feedback and dummy readouts are left out, and counted in ``notes``. Calibration lines belong to the image if the
    header says that they are embedded in it or interleaved with it.

    ``readouts`` is the table of all readouts, ``images`` are in the order of contrast, set, phase, repetition,
    (average,) and slice, and ``n_z`` is the number of partitions, 1 in two dimensions. A volume that is larger than
    1 GiB is kept in a temporary file while its slices are read.

    A FileError names the readout that has no coil, another number of coils or samples than the first, was taken
    backwards, or lies outside the grid or the header's limits, and the line that was acquired twice.
    """

    _record: ClassVar[str]  # what the format calls a readout
    _field_of: ClassVar[Mapping[str, str]]  # the format's names for ours, for messages
    header: IsmrmrdHeader
    readouts: NDArray[np.void]
    images: tuple[_Image, ...]
    n_z: int
    _positions = range(1)  # positions along the readout that are slices of a volume
    _volume: tuple[int, Volume] | None = None

    def close(self) -> None:
        """Close the file. Harmless when done twice."""
        self._volume = None

    @abstractmethod
    def _samples(self, numbers: Ints) -> NDArray[np.complex64]:
        """Read the readouts of these numbers, ascending and of one size: complex64 (readout, coil, sample)."""

    def read_slice(self, index: int) -> Acquisition:
        """Read one slice; the first one of a volume reads and transforms all of it."""
        self._check_index(index)
        number, position = divmod(index, len(self._positions))
        is_3d, row = self.n_z > 1, self._positions[position]
        image = self._transformed(number) if is_3d else self.read_volume(number)

        def cut(part: NDArray[_T]) -> NDArray[_T]:  # (..., y, x, z) to (..., z, x), or (..., y, x) of the one partition
            return np.ascontiguousarray(part[..., row, :, :].swapaxes(-1, -2)) if is_3d else part[..., 0]

        mask = cut(image.mask)
        columns = np.asarray(mask.any(axis=0), np.bool_)
        return Acquisition(
            kspace=cut(image.kspace),
            source=self.path,
            slice_index=index,
            n_slices=self.n_slices,
            mask=columns if not is_3d and (mask == columns).all() else mask,
            image_is_real=self.image_is_real,
            contrast=self.contrast,
            recon_shape=self.recon_shape,
            attributes=self.attributes,
            calibration=None if image.calibration is None else cut(image.calibration),
            noise_scan=image.noise_scan,
            readout_oversampling=1.0 if is_3d else self.header.readout_oversampling,
            labels={**image.labels, "readout": row} if is_3d else image.labels,
            geometry=self._across(image.geometry, row) if is_3d else image.geometry,
        )

    def read_volume(self, index: int, out: NDArray[np.complex64] | None = None) -> Volume:
        """Read one of the images, without any transform, into ``out``: zeros (coil, y, x, z) complex64, by default in memory."""
        image = self.images[index]
        kspace, mask = self._placed(image.imaging, out)
        calibration = self._placed(image.calibration, None)[0] if len(image.calibration) else None
        return Volume(kspace, mask, calibration, self._noise(image), image.labels, self._geometry(image))

    def _transformed(self, number: int) -> Volume:
        """A volume after the inverse transform along the readout."""
        if self._volume is None or self._volume[0] != number:
            self._volume = None  # before the next one is read
            volume = self.read_volume(number, _zeros((self.n_coils, *self.header.encoded_matrix)))
            if not (volume.mask == volume.mask.any(axis=0)).all():
                raise self._error(self._field_of["n_samples"], "the readouts are partial, a volume needs whole ones")
            for coil in (coil for part in (volume.kspace, volume.calibration) if part is not None for coil in part):
                # in place: one coil more than the volume is in memory
                image = np.fft.ifft(np.fft.ifftshift(coil, axes=0), axis=0, norm="ortho")
                coil[:] = np.fft.fftshift(image, axes=0)
            self._volume = (number, volume)
        return self._volume[1]

    def _across(self, volume: Geometry | None, row: int) -> Geometry | None:
        """Where the slice of a volume at one row lies."""
        if volume is None:
            return None
        n_y, (fov_y, fov_x, fov_z) = self.header.encoded_matrix[0], volume.field_of_view_mm
        step = fov_y / n_y
        places = zip(volume.position_mm, volume.y_direction, strict=True)
        position = triple(at + (row - n_y // 2) * step * along for at, along in places)
        directions = volume.slice_direction, volume.x_direction, volume.y_direction
        return Geometry((fov_z, fov_x, step), position, *directions)

    def _sort(
        self, readouts: NDArray[np.void], header: IsmrmrdHeader, *, encoding: int = 0, average: Average = "mean"
    ) -> None:
        """Check the readouts and sort them into images; sets all attributes but path, header text and contrast."""
        self.readouts, self.header, self._average = readouts, header, average
        n_y, n_x, self.n_z = header.encoded_matrix
        here = readouts["encoding"] == encoding
        only, both = has_kind(readouts, "calibration") & here, has_kind(readouts, "calibration and imaging") & here
        imaging = has_kind(readouts, "imaging") & here | both
        if not imaging.any():
            raise FileError(self.path, f"has no imaging readouts: {self._counted(here) or 'nothing at all'}")
        limits = {"line": header.line_limits, "partition": header.partition_limits, **header.counter_limits}
        for name in ("line", "partition") if self.n_z > 1 else ("line",):
            if limits[name] is None:
                raise self._error(self._field_of[name], f"is missing: the {name} of the k-space centre is unknown")
        self._limits = {name: triple for name in COUNTERS if (triple := limits.get(name)) is not None}
        for_calibration = only | both
        if header.calibration_mode in ("embedded", "interleaved"):
            imaging, for_calibration = imaging | only, np.zeros_like(only)
        elif not only.any():
            for_calibration = only  # the lines are in k-space; there is nothing apart
        self._check(np.flatnonzero(imaging), "imaging")
        self._check(np.flatnonzero(for_calibration), "calibration")
        self.n_coils = int(readouts["n_coils"][imaging][0])
        n_bytes = 8 * self.n_coils * n_y * n_x * self.n_z
        if n_bytes > _MAX_IMAGE_BYTES:
            raise self._error("encodedSpace", f"{n_bytes / (1 << 30):.0f} GiB for one image")
        self.images = self._sorted(np.flatnonzero(imaging), np.flatnonzero(for_calibration))
        self.shape, self.recon_shape, self.notes = (n_y, n_x), header.crop, self._notes_of_readouts(here)
        if self.n_z > 1:
            first = n_y // 2 - header.crop[0] // 2
            self._positions = range(first, first + header.crop[0])
            self.shape, self.recon_shape = (self.n_z, n_x), (min(self.n_z, header.recon_matrix[2]), header.crop[1])
            rows = f"{len(self._positions)} positions along the readout"
            self.notes = (*self.notes, f"three-dimensional: {rows} are slices of {self.n_z} partitions x {n_x} lines")
        self.n_slices = len(self.images) * len(self._positions)
        dwell = float(readouts["dwell_us"][self.images[0].imaging[0]])
        self.attributes = MappingProxyType({"sample_time_us": dwell} if dwell > 0 else {})

    def _noise(self, image: _Image) -> NDArray[np.complex64] | None:
        """Noise readouts (coil, sample), scaled to the noise of an image; None if there are none, or a dwell time is unknown.

        The variance of noise is proportional to the bandwidth that is received, 1 / dwell time for an image and
        relative bandwidth / dwell time for a noise scan, whose edges the receiver's filter takes away.

        Source: P. Kellman, E. R. McVeigh, *Image Reconstruction in SNR Units*, Magn Reson Med 54 (2005), equation 2;
        ISMRMRD, ``relativeReceiverNoiseBandwidth``.
        """
        numbers, dwell = np.flatnonzero(has_kind(self.readouts, "noise")), self.readouts["dwell_us"]
        data_dwell = float(dwell[image.imaging[0]])
        if len(numbers) == 0 or data_dwell <= 0 or (dwell[numbers] <= 0).any():
            return None
        relative = self.header.relative_receiver_noise_bandwidth or 1.0
        if not relative > 0:
            raise self._error("relativeReceiverNoiseBandwidth", f"expected a number > 0, got {relative}")
        self._require(numbers, "n_coils", self.n_coils)
        scales = np.sqrt(dwell[numbers] / (data_dwell * relative)).astype(np.float32)
        with np.errstate(over="ignore", invalid="ignore"):  # what becomes infinite is refused by Acquisition
            # few, and not always of one length
            parts = [self._checked_samples(np.asarray([n]))[0] * s for n, s in zip(numbers, scales, strict=True)]
        return complex64(np.concatenate(parts, axis=1))

    def _geometry(self, image: _Image) -> Geometry | None:
        """Where an image lies; None if the field of view is unknown or the directions are not orthonormal."""
        fov, place = self.header.encoded_fov_mm, self.readouts[image.imaging[0]]
        return None if fov is None else Geometry.of(np.asarray(fov), *(place[name] for name in _TRIPLES))

    def _readout_error(self, number: int | np.integer, field: str, message: str) -> FileError:
        return self._error(self._field_of.get(field, field), f"{self._record} {int(number)}: {message}")

    def _refuse(
        self, numbers: Ints, bad: NDArray[np.bool_], field: str, message: str, *values: NDArray[np.generic]
    ) -> None:
        """Name the first bad one of these readouts; its values go into the message."""
        if bad.any():
            first = int(np.argmax(bad))
            raise self._readout_error(numbers[first], field, message.format(*(column[first] for column in values)))

    def _require(self, numbers: Ints, name: str, expected: int) -> None:
        values = self.readouts[name][numbers]
        message = f"is {{}}, but {expected} in the readouts before it"
        self._refuse(numbers, values != expected, name, message, values)

    def _check(self, numbers: Ints, what: str) -> None:
        if len(numbers) == 0:
            return
        table, (n_y, n_x, n_z) = self.readouts[numbers], self.header.encoded_matrix
        backwards = "is a line that was read backwards (EPI), which is not supported"
        self._refuse(numbers, table["is_reversed"], "is_reversed", backwards)
        for name in ("n_coils", "n_samples"):
            self._refuse(numbers[:1], table[name][:1] < 1, name, "is 0")
            self._require(numbers, name, int(table[name][0]))
        first, last = self._rows(numbers)
        message = f"{{}} samples around sample {{}} do not fit into {n_y} rows whose centre is row {n_y // 2}"
        bad = (first < 0) | (last > n_y) | (first >= last)
        self._refuse(numbers, bad, "center_sample", message, table["n_samples"], table["center_sample"])
        for name, (low, high, _) in self._limits.items():
            bad = (table[name] < low) | (table[name] > high)
            self._refuse(numbers, bad, name, f"is {{}}, the header says {low} to {high}", table[name])
        for name, index, size in zip(("line", "partition"), self._columns(numbers), (n_x, n_z), strict=True):
            message = f"{{}} is index {{}} of {size} of the {what} grid"
            self._refuse(numbers, (index < 0) | (index >= size), name, message, table[name], index)

    def _rows(self, numbers: Ints) -> tuple[Ints, Ints]:
        """First and last + 1 row of the samples of readouts."""
        table = self.readouts[numbers]
        start = self.header.encoded_matrix[0] // 2 - table["center_sample"]
        return start + table["discard_pre"], start + table["n_samples"] - table["discard_post"]

    def _columns(self, numbers: Ints) -> tuple[Ints, Ints]:
        """Indices along x and z of readouts."""
        table, (_, n_x, n_z) = self.readouts[numbers], self.header.encoded_matrix
        center_line, center_partition = (self._limits.get(name, (0, 0, 0))[2] for name in ("line", "partition"))
        return table["line"] - center_line + n_x // 2, table["partition"] - center_partition + n_z // 2

    def _sorted(self, imaging: Ints, calibration: Ints) -> tuple[_Image, ...]:
        names = _IMAGE_COUNTERS if self._average == "mean" else (*_IMAGE_COUNTERS[:-1], "average", "slice")
        keys = np.stack([self.readouts[name] for name in names], axis=1)  # (readout, counter)
        kinds, image_of = np.unique(keys[imaging], axis=0, return_inverse=True)
        image_of = image_of.reshape(-1)
        order = np.argsort(image_of, kind="stable")
        parts = np.split(imaging[order], np.cumsum(np.bincount(image_of, minlength=len(kinds)))[:-1])
        images = []
        for kind, numbers in zip(kinds, parts, strict=True):
            self._refuse_twice(numbers)
            labels = MappingProxyType(dict(zip(names, map(int, kind), strict=True)))
            images.append(_Image(labels, numbers, self._calibration_of(kind, keys, calibration)))
        return tuple(images)

    def _calibration_of(self, kind: Ints, keys: Ints, calibration: Ints) -> Ints:
        """Those with the counters of the image; if there are none, the first ones of its slice."""
        if len(calibration) == 0:
            return calibration
        same: Ints = calibration[(keys[calibration] == kind).all(axis=1)]
        if len(same) == 0:
            of_slice = calibration[keys[calibration, -1] == kind[-1]]
            same = of_slice if len(of_slice) == 0 else of_slice[(keys[of_slice] == keys[of_slice[0]]).all(axis=1)]
        self._refuse_twice(same)
        return same

    def _refuse_twice(self, numbers: Ints) -> None:
        lines = np.stack([self.readouts[name][numbers] for name in ("average", "partition", "line")])
        order = np.lexsort(lines[::-1])
        same = (lines[:, order[1:]] == lines[:, order[:-1]]).all(axis=0)  # (counter, readout)
        before, again = numbers[order[:-1]], numbers[order[1:]]
        message = f"line {{}} of this image was acquired before, by {self._record} {{}}"
        self._refuse(again, same, "line", message, self.readouts["line"][again], before)

    def _placed(
        self, numbers: Ints, out: NDArray[np.complex64] | None
    ) -> tuple[NDArray[np.complex64], NDArray[np.bool_]]:
        """Put readouts on the grid, in pieces of 64 MiB: k-space (coil, y, x, z), and what was acquired (y, x, z)."""
        shape = (self.n_coils, *self.header.encoded_matrix)
        kspace = np.zeros(shape, np.complex64) if out is None else out
        counts = np.zeros(shape[1:], np.int32)
        n_chunk = max(1, _CHUNK_BYTES // (8 * self.n_coils * int(self.readouts["n_samples"][numbers[0]])))
        for start in range(0, len(numbers), n_chunk):
            chunk = numbers[start : start + n_chunk]
            values = self._checked_samples(chunk)  # (readout, coil, sample)
            first, last = self._rows(chunk)
            x, z = self._columns(chunk)
            table = self.readouts[chunk]
            keys = np.stack([first, last, table["discard_pre"], table["average"]], axis=1)
            for key in np.unique(keys, axis=0):  # one, where nothing is averaged and all readouts are alike
                here = (keys == key).all(axis=1)
                row, end, skip, _ = (int(value) for value in key)
                part = values[here][:, :, skip : skip + end - row].transpose(1, 2, 0)  # (coil, y, readout)
                target = (slice(None), slice(row, end), x[here], z[here])
                kspace[target] = part if not counts[target[1:]].any() else kspace[target] + part
                counts[target[1:]] += 1
        if counts.max() > 1:
            kspace /= np.maximum(counts, 1)
        return kspace, counts > 0

    def _checked_samples(self, numbers: Ints) -> NDArray[np.complex64]:
        values = self._samples(numbers)
        bad = np.asarray(~np.isfinite(values).all(axis=(1, 2)), np.bool_)
        self._refuse(numbers, bad, "data", "has NaN or infinite samples")
        return values

    def _counted(self, here: NDArray[np.bool_]) -> str:
        kinds, counts = np.unique(self.readouts["kind"][here], return_counts=True)
        texts = [f"{count} {_KINDS[kind]}" for kind, count in zip(kinds, counts, strict=True)]
        n_elsewhere = int(np.count_nonzero(~here))
        return ", ".join(texts + ([f"{n_elsewhere} of other encoding spaces"] if n_elsewhere else []))

    def _notes_of_readouts(self, here: NDArray[np.bool_]) -> tuple[str, ...]:
        notes = [f"readouts: {self._counted(here)}"]
        others = [_KINDS[kind] for kind in np.unique(self.readouts["kind"][here]) if kind > 3]
        if others:
            notes.append(f"left out: {', '.join(others)}")
        numbers = np.concatenate([image.imaging for image in self.images])
        n_averages = len(np.unique(self.readouts["average"][numbers]))
        if n_averages > 1:
            what = "each line is the mean of its averages" if self._average == "mean" else "one image each"
            notes.append(f"{n_averages} averages: {what}")
        lengths = {len(image.imaging) for image in self.images}
        if len(lengths) > 1:
            notes.append(f"the images have from {min(lengths)} to {max(lengths)} readouts")
        for name in sorted(self._limits.keys() & set(_IMAGE_COUNTERS)):
            low, high, _ = self._limits[name]
            found = len({image.labels[name] for image in self.images})
            if found < high - low + 1:
                notes.append(f"{name}: the header says {low} to {high}, the file has {found} of them")
        return tuple(notes)


def _zeros(shape: tuple[int, ...]) -> NDArray[np.complex64]:
    """In memory, or in a temporary file that vanishes with the array."""
    if 8 * int(np.prod(shape, dtype=object)) <= _IN_MEMORY_BYTES:
        return np.zeros(shape, np.complex64)
    try:
        with tempfile.TemporaryFile() as stream:  # the mapping outlives it
            return np.memmap(stream, np.complex64, "w+", shape=shape)
    except OSError as error:
        raise FileError(tempfile.gettempdir(), f"has no room for a volume {shape}: {error.strerror}") from error
