"""Three-dimensional k-space with a fully sampled readout as two-dimensional slices: one inverse transform along the readout.

After it, every position along the readout is an independent two-dimensional problem in the two phase-encoding directions.
Partitions become the rows (y) of a slice and lines its columns (x); only the positions inside the reconstructed field of view
are slices.
"""

import tempfile

import numpy as np
from numpy.typing import NDArray

from mrisps.errors import FileError
from mrisps.io.acquisition import Acquisition, Geometry, triple
from mrisps.io.kspace_file import KspaceFile
from mrisps.io.raw_file import RawFile, Volume

__all__ = ["VolumeSlices"]

_IN_MEMORY_BYTES = 1 << 30


class VolumeSlices(KspaceFile):
    """The slices of three-dimensional k-space in an open file, which is closed with this object; see `KspaceFile`.

    A volume that is larger than 1 GiB is kept in a temporary file while its slices are read, and one of them is in memory.
    """

    def __init__(self, file: RawFile) -> None:
        self._file = file
        for name in ("path", "format", "n_coils", "contrast", "image_is_real", "header", "header_xml", "attributes"):
            setattr(self, name, getattr(file, name))
        self._sizes = file.header.encoded_matrix
        (n_y, n_x, n_z), crop = self._sizes, file.header.crop
        first = n_y // 2 - crop[0] // 2
        self._rows = range(first, first + crop[0])
        self.n_slices = file.n_slices * len(self._rows)
        self.shape = (n_z, n_x)
        self.recon_shape = (min(n_z, file.header.recon_matrix[2]), crop[1])
        size = f"{len(self._rows)} positions along the readout are slices of {n_z} partitions x {n_x} lines"
        self.notes = (*file.notes, f"three-dimensional: {size}")
        self._volume: tuple[int, Volume] | None = None

    def close(self) -> None:
        """Close the file. Harmless when done twice."""
        self._volume = None
        self._file.close()

    def read_slice(self, index: int) -> Acquisition:
        """Read one position along the readout; the first one of a volume reads and transforms all of it.

        A FileError also where the readouts do not cover their whole length.
        """
        self._check_index(index)
        number, position = divmod(index, len(self._rows))
        if self._volume is None or self._volume[0] != number:
            self._volume = None  # before the next one is read
            self._volume = (number, self._transformed(number))
        volume, row = self._volume[1], self._rows[position]
        calibration = volume.calibration
        return Acquisition(
            kspace=np.ascontiguousarray(volume.kspace[:, row].transpose(0, 2, 1)),  # (coil, z, x)
            source=self.path,
            slice_index=index,
            n_slices=self.n_slices,
            mask=np.ascontiguousarray(volume.mask[row].T),
            image_is_real=self.image_is_real,
            contrast=self.contrast,
            recon_shape=self.recon_shape,
            attributes=self.attributes,
            calibration=None if calibration is None else np.ascontiguousarray(calibration[:, row].transpose(0, 2, 1)),
            noise_scan=volume.noise_scan,
            labels={**volume.labels, "readout": row},
            geometry=None if volume.geometry is None else self._geometry(volume.geometry, row),
        )

    def _transformed(self, number: int) -> Volume:
        volume = self._file.read_volume(number, _zeros((self.n_coils, *self._sizes)))
        if not (volume.mask == volume.mask.any(axis=0)).all():
            raise self._error("number_of_samples", "the readouts are partial, a volume needs whole ones")
        for part in (volume.kspace, volume.calibration):
            if part is not None:
                for coil in range(len(part)):  # in place: one coil more than the volume is in memory
                    part[coil] = _inverse_transform(part[coil])
        return volume

    def _geometry(self, volume: Geometry, row: int) -> Geometry:
        n_y, (fov_y, fov_x, fov_z) = self._sizes[0], volume.field_of_view_mm
        step, from_centre = fov_y / n_y, row - n_y // 2
        places = zip(volume.position_mm, volume.y_direction, strict=True)
        position = triple(at + from_centre * step * along for at, along in places)
        directions = volume.slice_direction, volume.x_direction, volume.y_direction
        return Geometry((fov_z, fov_x, step), position, *directions)


def _zeros(shape: tuple[int, ...]) -> NDArray[np.complex64]:
    """In memory, or in a temporary file that vanishes with the array."""
    if 8 * int(np.prod(shape, dtype=object)) <= _IN_MEMORY_BYTES:
        return np.zeros(shape, np.complex64)
    try:
        with tempfile.TemporaryFile() as stream:  # the mapping outlives it
            return np.memmap(stream, np.complex64, "w+", shape=shape)
    except OSError as error:
        raise FileError(tempfile.gettempdir(), f"has no room for a volume {shape}: {error.strerror}") from error


def _inverse_transform(kspace: NDArray[np.complex64]) -> NDArray[np.complex64]:
    """Centred orthonormal inverse transform along the first axis."""
    image = np.fft.ifft(np.fft.ifftshift(kspace, axes=0), axis=0, norm="ortho")
    return np.fft.fftshift(image, axes=0).astype(np.complex64)
