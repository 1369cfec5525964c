"""Three-dimensional k-space with a fully sampled readout as two-dimensional slices: one inverse transform along the readout.

After it, every position along the readout is an independent two-dimensional problem in the two phase-encoding directions.
Partitions become the rows (y) of a slice and lines its columns (x); only the positions inside the reconstructed field of view
are slices.
"""

import tempfile
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from mrisps.errors import FileError
from mrisps.io.acquisition import Acquisition, Geometry
from mrisps.io.kspace_file import KspaceFile
from mrisps.io.raw_file import RawFile, Volume

__all__ = ["VolumeSlices"]

_IN_MEMORY_BYTES = 1 << 30


class VolumeSlices(KspaceFile):
    """The slices of three-dimensional k-space; see `KspaceFile` for the attributes.

    A volume that is larger than 1 GiB is kept in a temporary file while its slices are read, and one of them is in memory.

    Parameters
    ----------
    file
        The file, open; closed with this object.
    """

    def __init__(self, file: RawFile) -> None:
        self._file = file
        n_y, n_x, n_z = file.header.encoded_matrix
        crop = file.header.crop
        self._rows = range(n_y // 2 - crop[0] // 2, n_y // 2 - crop[0] // 2 + crop[0])
        self.path, self.format = file.path, file.format
        self.n_slices = file.n_slices * len(self._rows)
        self.n_coils = file.n_coils
        self.shape = (n_z, n_x)
        self.recon_shape = (min(n_z, file.header.recon_matrix[2]), crop[1])
        self.contrast = file.contrast
        self.header = file.header
        self.header_xml = file.header_xml
        self.attributes = file.attributes
        self.notes = (
            *file.notes,
            f"three-dimensional: {len(self._rows)} positions along the readout are slices of {n_z} partitions x {n_x} lines",
        )
        self._volume: tuple[int, Volume] | None = None

    def close(self) -> None:
        """Close the file. Harmless when done twice."""
        self._volume = None
        self._file.close()

    def read_slice(self, index: int) -> Acquisition:
        """Read one position along the readout; the first one of a volume reads and transforms all of it.

        Raises
        ------
        FileError
            There is no such slice; the readouts do not cover their whole length; or as in `RawFile.read_volume`.
        """
        self._check_index(index)
        number, position = divmod(index, len(self._rows))
        if self._volume is None or self._volume[0] != number:
            self._volume = None  # before the next one is read
            self._volume = (number, self._transformed(number))
        volume, row = self._volume[1], self._rows[position]
        kspace = np.ascontiguousarray(volume.kspace[:, row].transpose(0, 2, 1))  # (coil, z, x)
        calibration = volume.calibration
        return Acquisition(
            kspace=kspace,
            source=self.path,
            slice_index=index,
            n_slices=self.n_slices,
            mask=np.ascontiguousarray(volume.mask[row].T),
            image_is_real=self._file.image_is_real,
            contrast=self.contrast,
            recon_shape=self.recon_shape,
            attributes=self.attributes,
            calibration=None if calibration is None else np.ascontiguousarray(calibration[:, row].transpose(0, 2, 1)),
            noise_scan=volume.noise_scan,
            labels=MappingProxyType({**volume.labels, "readout": row}),
            geometry=None if volume.geometry is None else self._geometry(volume.geometry, row),
        )

    def _transformed(self, number: int) -> Volume:
        n_y, n_x, n_z = self._file.header.encoded_matrix
        shape = (self.n_coils, n_y, n_x, n_z)
        volume = self._file.read_volume(number, _zeros(shape))
        if not (volume.mask == volume.mask.any(axis=0)).all():
            raise self._error("number_of_samples", "the readouts are partial, a volume needs whole ones")
        for part in (volume.kspace, volume.calibration):
            if part is not None:
                for coil in range(len(part)):  # in place: one coil more than the volume is in memory
                    part[coil] = _inverse_transform(part[coil])
        return volume

    def _geometry(self, volume: Geometry, row: int) -> Geometry:
        n_y = self._file.header.encoded_matrix[0]
        fov_y, fov_x, fov_z = volume.field_of_view_mm
        step = fov_y / n_y
        x, y, z = (
            at + (row - n_y // 2) * step * along
            for at, along in zip(volume.position_mm, volume.y_direction, strict=True)
        )
        return Geometry(
            (fov_z, fov_x, step),
            (x, y, z),
            volume.slice_direction,
            volume.x_direction,
            slice_direction=volume.y_direction,
        )


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
