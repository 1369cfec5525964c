"""Files that are lists of readouts (ISMRMRD, twix): which line goes where.

`RawFile` checks the table of readouts, sorts them into images, and puts their samples on the grid when an image is asked for.
Nothing is transformed.
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mrisps.errors import FileError
from mrisps.io.acquisition import Acquisition, Geometry, triple
from mrisps.io.ismrmrd_header import IsmrmrdHeader
from mrisps.io.kspace_file import KspaceFile
from mrisps.io.readouts import (
    CALIBRATION,
    CALIBRATION_AND_IMAGING,
    IMAGING,
    KINDS,
    NOISE,
    Ints,
    RawGrid,
    Readouts,
)

__all__ = ["RawFile", "RawImage", "Volume"]

_IMAGE_COUNTERS = ("contrast", "set", "phase", "repetition", "slice")  # the slice counts fastest
_CHUNK_BYTES = 1 << 26
_MAX_IMAGE_BYTES = 64 << 30


@dataclass(frozen=True, eq=False)
class RawImage:
    """The readouts of one image: the counters that all of them share, and their numbers, ascending."""

    labels: Mapping[str, int]
    imaging: Ints
    calibration: Ints


@dataclass(frozen=True, eq=False)
class Volume:
    """Three-dimensional k-space, before the transform along the readout that makes slices of it.

    Parameters
    ----------
    kspace
        complex64 (coil, y, x, z), the k-space centre at n // 2, zero where nothing was acquired; y is the readout.
    mask
        bool (y, x, z): what was acquired.
    calibration
        complex64 (coil, y, x, z), or None; see `Acquisition`.
    noise_scan, labels, geometry
        See `Acquisition`; the geometry is that of the whole volume.
    """

    kspace: NDArray[np.complex64]
    mask: NDArray[np.bool_]
    calibration: NDArray[np.complex64] | None
    noise_scan: NDArray[np.complex64] | None
    labels: Mapping[str, int]
    geometry: Geometry | None


class RawFile(KspaceFile):
    """A file that is a list of readouts, opened for reading; see `KspaceFile` for the common attributes.

    Readouts are put at their encoded indices with the k-space centre at n // 2; what the file leaves out is zero. Noise scans and
    calibration lines that were measured apart go into their own fields; navigators, phase correction, feedback and dummy
    readouts are left out, and counted in ``notes``. Calibration lines belong to the image if the header says that they are
    embedded in it or interleaved with it.

    Attributes
    ----------
    readouts : Readouts
        All readouts of the file.
    images : tuple of RawImage
        Ordered by contrast, set, phase, repetition, (average,) and slice, the slice counting fastest.
    n_z : int
        Partitions of a three-dimensional measurement; 1 otherwise.
    image_is_real : bool
        The file states that the image is real.
    """

    header: IsmrmrdHeader
    readouts: Readouts
    images: tuple["RawImage", ...]
    n_z: int
    image_is_real = False

    @abstractmethod
    def _samples(self, numbers: Ints) -> NDArray[np.complex64]:
        """Read the readouts of these numbers, ascending and of one size: complex64 (readout, coil, sample)."""

    def read_slice(self, index: int) -> Acquisition:
        """Read one slice of a two-dimensional measurement.

        Raises
        ------
        FileError
            There is no such slice; the file is three-dimensional or closed; samples are missing, not finite, or all zero.
        """
        self._check_index(index)
        if self.n_z > 1:
            message = (
                f"is three-dimensional ({self.n_z} partitions): a slice needs the transform along the readout first"
            )
            raise self._error(self.readouts.field_names["partition"], message)
        image = self.read_volume(index)
        mask = image.mask[..., 0]
        columns = np.asarray(mask.any(axis=0), np.bool_)
        return Acquisition(
            kspace=image.kspace[..., 0],
            source=self.path,
            slice_index=index,
            n_slices=self.n_slices,
            mask=columns if (mask == columns).all() else mask,
            image_is_real=self.image_is_real,
            contrast=self.contrast,
            recon_shape=self.recon_shape,
            attributes=self.attributes,
            calibration=None if image.calibration is None else image.calibration[..., 0],
            noise_scan=image.noise_scan,
            readout_oversampling=self.header.readout_oversampling,
            labels=image.labels,
            geometry=image.geometry,
        )

    def read_volume(self, index: int, out: NDArray[np.complex64] | None = None) -> Volume:
        """Read one image of a three-dimensional measurement (or of a two-dimensional one, as one partition).

        Parameters
        ----------
        out
            Where to put k-space, zeros (coil, y, x, z) complex64, for example mapped from a file; by default in memory.

        Raises
        ------
        FileError
            There is no such image; the file is closed; samples are missing or not finite.
        """
        self._check_index(index)
        image = self.images[index]
        kspace, mask = self._placed(image.imaging, out)
        calibration = self._placed(image.calibration, None)[0] if len(image.calibration) else None
        return Volume(kspace, mask, calibration, self._noise(image), image.labels, self._geometry(image))

    def _sort(
        self,
        readouts: Readouts,
        grid: RawGrid,
        header: IsmrmrdHeader,
        *,
        encoding: int = 0,
        average: Literal["mean", "separate"] = "mean",
    ) -> None:
        """Check the readouts and sort them into images; sets all attributes but path, header text and contrast.

        Raises
        ------
        FileError
            There is no imaging readout; a readout has no coil, another number of coils or samples than the first, was taken
            backwards, lies outside the grid or the header's limits; a line was acquired twice. The readout is named.
        """
        self.readouts, self.grid, self.header, self._average = readouts, grid, header, average
        here = readouts.encoding == encoding
        only = readouts.where(CALIBRATION) & here
        imaging = readouts.where(IMAGING, CALIBRATION_AND_IMAGING) & here
        if not imaging.any():
            raise FileError(self.path, f"has no imaging readouts: {self._counted(here) or 'nothing at all'}")
        for_calibration = readouts.where(CALIBRATION, CALIBRATION_AND_IMAGING) & here
        if header.calibration_mode in ("embedded", "interleaved"):
            imaging, for_calibration = imaging | only, np.zeros_like(only)
        elif not only.any():
            for_calibration = only  # the lines are in k-space; there is nothing apart
        self._check(np.flatnonzero(imaging), "imaging")
        self._check(np.flatnonzero(for_calibration), "calibration")
        self.n_coils = int(readouts.n_coils[imaging][0])
        n_bytes = 8 * self.n_coils * grid.n_y * grid.n_x * grid.n_z
        if n_bytes > _MAX_IMAGE_BYTES:
            raise self._error("encodedSpace", f"{n_bytes / (1 << 30):.0f} GiB for one image")
        self.images = self._sorted(np.flatnonzero(imaging), np.flatnonzero(for_calibration))
        self.n_slices, self.n_z = len(self.images), grid.n_z
        self.shape, self.recon_shape = (grid.n_y, grid.n_x), header.crop
        dwell = float(readouts.dwell_us[self.images[0].imaging[0]])
        self.attributes = MappingProxyType({"sample_time_us": dwell} if dwell > 0 else {})
        self.notes = self._notes_of_readouts(here)

    def _noise(self, image: "RawImage") -> NDArray[np.complex64] | None:
        """Noise readouts (coil, sample), scaled to the noise of an image; None if there are none, or a dwell time is unknown.

        The variance of noise is proportional to the bandwidth that is received, 1 / dwell time for an image and relative
        bandwidth / dwell time for a noise scan, whose edges the receiver's filter takes away.

        Source: P. Kellman, E. R. McVeigh, *Image Reconstruction in SNR Units*, Magn Reson Med 54 (2005), equation 2;
        ISMRMRD, ``relativeReceiverNoiseBandwidth``.
        """
        numbers = np.flatnonzero(self.readouts.where(NOISE))
        data_dwell = float(self.readouts.dwell_us[image.imaging[0]])
        if len(numbers) == 0 or data_dwell <= 0 or (self.readouts.dwell_us[numbers] <= 0).any():
            return None
        relative_bandwidth = self.header.relative_receiver_noise_bandwidth or 1.0
        if not relative_bandwidth > 0:
            raise self._error("relativeReceiverNoiseBandwidth", f"expected a number > 0, got {relative_bandwidth}")
        self._require(numbers, "n_coils", self.readouts.n_coils, self.n_coils)
        parts = []
        for number in numbers:  # few, and not always of one length
            scale = np.sqrt(self.readouts.dwell_us[number] / (data_dwell * relative_bandwidth))
            part = self._samples(np.asarray([number]))[0]
            self._check_finite(part[np.newaxis], np.asarray([number]))
            with np.errstate(over="ignore", invalid="ignore"):  # what becomes infinite is refused by Acquisition
                parts.append((part * np.float32(scale)).astype(np.complex64))
        return np.concatenate(parts, axis=1)

    def _geometry(self, image: "RawImage") -> Geometry | None:
        """Where an image lies; None if the field of view is unknown or the directions are not orthonormal."""
        first, readouts, field_of_view_mm = image.imaging[0], self.readouts, self.header.encoded_fov_mm
        directions = np.stack(
            [axis[first] for axis in (readouts.y_direction, readouts.x_direction, readouts.slice_direction)]
        )
        position = readouts.position_mm[first]
        if field_of_view_mm is None or not np.isfinite(directions).all() or not np.isfinite(position).all():
            return None
        if np.abs(directions @ directions.T - np.eye(3)).max() > 1e-3:
            return None
        y, x, through = (triple(direction) for direction in directions)
        return Geometry(field_of_view_mm, triple(position), y, x, through)

    def _check(self, numbers: Ints, what: str) -> None:
        readouts, grid = self.readouts, self.grid
        if len(numbers) == 0:
            return
        if readouts.is_reversed[numbers].any():
            bad = numbers[readouts.is_reversed[numbers]][0]
            raise readouts.error(bad, "is_reversed", "is a line that was read backwards (EPI), which is not supported")
        n_coils, n_samples = readouts.n_coils[numbers[0]], readouts.n_samples[numbers[0]]
        if n_coils < 1 or n_samples < 1:
            raise readouts.error(numbers[0], "n_coils" if n_coils < 1 else "n_samples", "is 0")
        for name, values, expected in (
            ("n_coils", readouts.n_coils, n_coils),
            ("n_samples", readouts.n_samples, n_samples),
        ):
            self._require(numbers, name, values, int(expected))
        first, last = self._rows(numbers)
        bad = (first < 0) | (last > grid.n_y) | (first >= last)
        if bad.any():
            number = numbers[bad][0]
            message = (
                f"{n_samples} samples around sample {readouts.center_sample[number]} do not fit into {grid.n_y} rows whose "
                f"centre is row {grid.n_y // 2}"
            )
            raise readouts.error(number, "center_sample", message)
        for name, (minimum, maximum) in grid.limits.items():
            counter = readouts.counters[name][numbers]
            bad = (counter < minimum) | (counter > maximum)
            if bad.any():
                message = f"is {counter[bad][0]}, the header says {minimum} to {maximum}"
                raise readouts.error(numbers[bad][0], name, message)
        for name, index, size in zip(("line", "partition"), self._columns(numbers), (grid.n_x, grid.n_z), strict=True):
            bad = (index < 0) | (index >= size)
            if bad.any():
                message = (
                    f"{readouts.counters[name][numbers][bad][0]} is index {index[bad][0]} of {size} of the {what} grid"
                )
                raise readouts.error(numbers[bad][0], name, message)

    def _require(self, numbers: Ints, name: str, values: Ints, expected: int) -> None:
        bad = values[numbers] != expected
        if bad.any():
            message = f"is {values[numbers][bad][0]}, but {expected} in the readouts before it"
            raise self.readouts.error(numbers[bad][0], name, message)

    def _rows(self, numbers: Ints) -> tuple[Ints, Ints]:
        """First and last + 1 row of the samples of readouts."""
        readouts = self.readouts
        start = self.grid.n_y // 2 - readouts.center_sample[numbers]
        first = start + readouts.discard_pre[numbers]
        return first, start + readouts.n_samples[numbers] - readouts.discard_post[numbers]

    def _columns(self, numbers: Ints) -> tuple[Ints, Ints]:
        """Indices along x and z of readouts."""
        counters, grid = self.readouts.counters, self.grid
        x = counters["line"][numbers] - grid.center_line + grid.n_x // 2
        return x, counters["partition"][numbers] - grid.center_partition + grid.n_z // 2

    def _sorted(self, imaging: Ints, calibration: Ints) -> tuple[RawImage, ...]:
        counters = self.readouts.counters
        names = _IMAGE_COUNTERS if self._average == "mean" else (*_IMAGE_COUNTERS[:-1], "average", "slice")
        keys = np.stack([counters[name] for name in names], axis=1)  # (readout, counter)
        kinds, image_of = np.unique(keys[imaging], axis=0, return_inverse=True)
        image_of = image_of.reshape(-1)
        order = np.argsort(image_of, kind="stable")
        parts = np.split(imaging[order], np.cumsum(np.bincount(image_of, minlength=len(kinds)))[:-1])
        images = []
        for kind, numbers in zip(kinds, parts, strict=True):
            self._refuse_twice(numbers)
            images.append(
                RawImage(
                    labels=MappingProxyType(dict(zip(names, map(int, kind), strict=True))),
                    imaging=numbers,
                    calibration=self._calibration_of(kind, keys, calibration),
                )
            )
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
        counters = self.readouts.counters
        lines = np.stack([counters[name][numbers] for name in ("average", "partition", "line")])  # (counter, readout)
        order = np.lexsort(lines[::-1])
        same = (lines[:, order[1:]] == lines[:, order[:-1]]).all(axis=0)
        if same.any():
            before, again = numbers[order[:-1][same][0]], numbers[order[1:][same][0]]
            message = (
                f"line {counters['line'][again]} of this image was acquired before, by {self.readouts.record} {before}"
            )
            raise self.readouts.error(again, "line", message)

    def _placed(
        self, numbers: Ints, out: NDArray[np.complex64] | None
    ) -> tuple[NDArray[np.complex64], NDArray[np.bool_]]:
        """Put readouts on the grid, in pieces of 64 MiB: k-space (coil, y, x, z), and what was acquired (y, x, z)."""
        grid, readouts = self.grid, self.readouts
        shape = (self.n_coils, grid.n_y, grid.n_x, grid.n_z)
        kspace = np.zeros(shape, np.complex64) if out is None else out
        counts = np.zeros(shape[1:], np.int32)
        n_chunk = max(1, _CHUNK_BYTES // (8 * self.n_coils * int(readouts.n_samples[numbers[0]])))
        for start in range(0, len(numbers), n_chunk):
            chunk = numbers[start : start + n_chunk]
            values = self._samples(chunk)  # (readout, coil, sample)
            self._check_finite(values, chunk)
            first, last = self._rows(chunk)
            x, z = self._columns(chunk)
            average = readouts.counters["average"][chunk]
            keys = np.stack([first, last, readouts.discard_pre[chunk], average], axis=1)
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

    def _check_finite(self, values: NDArray[np.complex64], numbers: Ints) -> None:
        if not np.isfinite(values).all():
            bad = numbers[~np.isfinite(values).all(axis=(1, 2))][0]
            raise self.readouts.error(bad, "data", "has NaN or infinite samples")

    def _counted(self, here: NDArray[np.bool_]) -> str:
        kinds, counts = np.unique(self.readouts.kind[here], return_counts=True)
        texts = [f"{count} {KINDS[kind]}" for kind, count in zip(kinds, counts, strict=True)]
        n_elsewhere = int(np.count_nonzero(~here))
        return ", ".join(texts + ([f"{n_elsewhere} of other encoding spaces"] if n_elsewhere else []))

    def _notes_of_readouts(self, here: NDArray[np.bool_]) -> tuple[str, ...]:
        readouts = self.readouts
        notes = [f"readouts: {self._counted(here)}"]
        others = sorted(set(map(int, readouts.kind[here])) - {IMAGING, CALIBRATION, CALIBRATION_AND_IMAGING, NOISE})
        if others:
            notes.append(f"left out: {', '.join(KINDS[kind] for kind in others)}")
        n_averages = len(
            np.unique(readouts.counters["average"][np.concatenate([image.imaging for image in self.images])])
        )
        if n_averages > 1:
            what = "each line is the mean of its averages" if self._average == "mean" else "one image each"
            notes.append(f"{n_averages} averages: {what}")
        lengths = {len(image.imaging) for image in self.images}
        if len(lengths) > 1:
            notes.append(f"the images have from {min(lengths)} to {max(lengths)} readouts")
        n_lines = sorted({"slice", "repetition", "contrast", "set", "phase"} & self.grid.limits.keys())
        for name in n_lines:
            minimum, maximum = self.grid.limits[name]
            found = len({image.labels[name] for image in self.images})
            if found < maximum - minimum + 1:
                notes.append(f"{name}: the header says {minimum} to {maximum}, the file has {found} of them")
        return tuple(notes)
