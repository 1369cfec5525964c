"""Stacks of images with their place in the patient: reconstructions and DICOM series, to be written in other formats."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mrisps.errors import FileError
from mrisps.io.acquisition import Geometry, Scalar
from mrisps.io.fastmri import read_volume
from mrisps.io.hdf5 import Hdf5Reader
from mrisps.io.ismrmrd_header import IsmrmrdHeader
from mrisps.io.kspace_file import KspaceFile

__all__ = ["ImageVolume", "geometries_of", "is_reconstruction", "read_reconstruction"]


@dataclass(frozen=True, eq=False)
class ImageVolume:
    """Images of one size.

    Parameters
    ----------
    pixels
        float32 or complex64 (slice, y, x), finite.
    geometries
        Where each slice lies: pixel [n_y // 2, n_x // 2] is at ``position_mm``. None where that is unknown.
    source
        The file or folder.
    header
        Of the measurement, where there is one.
    attributes
        Further texts and numbers.

    Raises
    ------
    ValueError
        The arguments do not fit together.
    """

    pixels: NDArray[np.float32] | NDArray[np.complex64]
    geometries: Sequence[Geometry | None]
    source: Path
    header: IsmrmrdHeader | None = None
    attributes: Mapping[str, Scalar] | None = None

    def __post_init__(self) -> None:
        if self.pixels.ndim != 3 or self.pixels.size == 0 or len(self.geometries) != len(self.pixels):
            raise ValueError(f"pixels: expected (slice, y, x) and a geometry a slice, got shape {self.pixels.shape}")


def is_reconstruction(path: Path) -> bool:
    """Whether an HDF5 file has reconstructed images and no k-space.

    Raises
    ------
    FileError
        The file cannot be read.
    """
    with Hdf5Reader(path) as file:
        return file.has("reconstruction") and not file.has("kspace")


def read_reconstruction(path: Path | str) -> ImageVolume:
    """Read the images of one of our own outputs: complex ones if it has them, else the magnitude.

    Raises
    ------
    FileError
        The file cannot be read, or has no images, or they are not finite.
    """
    with Hdf5Reader(path) as file:
        attributes, _ = file.attributes()
        is_complex = file.has("image")
        text = file.read_text("ismrmrd_header") if file.has("ismrmrd_header") else None
        if is_complex:
            pixels = file.read("image")
            if pixels.ndim != 3 or pixels.dtype.kind != "c" or pixels.size == 0 or not np.isfinite(pixels).all():
                raise FileError(
                    path, f"expected finite complex (slice, y, x), got {pixels.dtype} {pixels.shape}", field="image"
                )
    try:
        header = None if text is None else IsmrmrdHeader.from_xml(text)
    except ValueError as error:
        raise FileError(path, str(error), field="ismrmrd_header") from error
    images = pixels.astype(np.complex64) if is_complex else read_volume(path, ("reconstruction",))
    geometries = _read_geometries(Path(path), attributes.pop("geometry", None), len(images))
    return ImageVolume(images, geometries, Path(path), header, attributes)


def geometries_of(raw: KspaceFile, shape: tuple[int, int], n_slices: int) -> tuple[Geometry | None, ...]:
    """Where the images of a raw file lie, if they are central crops of this shape (y, x).

    Raises
    ------
    FileError
        The raw file has another number of slices, or a slice cannot be read.
    """
    if raw.n_slices != n_slices:
        raise FileError(raw.path, f"has {raw.n_slices} slices, the images are {n_slices}", field="slice")
    geometries = []
    for record in raw.slices():
        geometry = record.geometry
        if geometry is not None:
            y, x, z = geometry.field_of_view_mm
            geometry = replace(
                geometry, field_of_view_mm=(y * shape[0] / record.shape[0], x * shape[1] / record.shape[1], z)
            )
        geometries.append(geometry)
    return tuple(geometries)


def _read_geometries(path: Path, text: Scalar | None, n_slices: int) -> tuple[Geometry | None, ...]:
    if text is None:
        return (None,) * n_slices
    try:
        entries = json.loads(str(text))
        geometries = tuple(None if entry is None else _geometry(entry) for entry in entries)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise FileError(path, f"is no list of geometries: {error}", field="attribute geometry") from error
    if len(geometries) != n_slices:
        raise FileError(path, f"has {len(geometries)} entries, there are {n_slices} slices", field="attribute geometry")
    return geometries


def _geometry(entry: Mapping[str, Sequence[float]]) -> Geometry:
    names = ("field_of_view_mm", "position_mm", "y_direction", "x_direction", "slice_direction")
    fov, position, y, x, through = (_triple(entry[name]) for name in names)
    return Geometry(fov, position, y, x, through)


def _triple(values: Sequence[float]) -> tuple[float, float, float]:
    first, second, third = (float(value) for value in values)
    return first, second, third
