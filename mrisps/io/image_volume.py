"""Stacks of images with their place in the patient: reconstructions and DICOM series, to be written in other formats."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from mrisps.errors import FileError
from mrisps.io.acquisition import Acquisition, Geometry, Scalar, triple
from mrisps.io.ismrmrd_header import IsmrmrdHeader
from mrisps.io.kspace_file import KspaceFile

__all__ = ["IMAGE_PARTS", "ImagePart", "ImageVolume", "cropped_geometry", "geometries_of"]

ImagePart = Literal["complex", "magnitude", "phase", "real", "imaginary"]
IMAGE_PARTS: tuple[ImagePart, ...] = get_args(ImagePart)
"""Parts of a complex image; the phase is in radians."""


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
        if not np.isfinite(self.pixels).all():
            raise ValueError("pixels: has NaN or infinite values")

    def part(self, name: ImagePart) -> "ImageVolume":
        """Give one part of the images. Of real images, ``"complex"`` and ``"real"`` are the images themselves.

        Raises
        ------
        ValueError
            There is no such part.
        """
        pixels = self.pixels
        if name not in IMAGE_PARTS or (not np.iscomplexobj(pixels) and name in ("phase", "imaginary")):
            known = ", ".join(IMAGE_PARTS if np.iscomplexobj(pixels) else ("magnitude", "real"))
            raise ValueError(f"part: expected one of {known}, got {name!r}")
        if name == "complex":
            return self
        if name == "magnitude":
            chosen = np.abs(pixels)
        elif name == "phase":
            chosen = np.angle(pixels)
        else:
            chosen = np.real(pixels) if name == "real" else np.imag(pixels)
        return replace(self, pixels=chosen.astype(np.float32))


def cropped_geometry(acquisition: Acquisition, whole: tuple[int, int], shape: tuple[int, ...]) -> Geometry | None:
    """Where the image lies whose central crop from ``whole`` to ``shape`` (y, x) was taken: a smaller field of view.

    Pixel [n_y // 2, n_x // 2] stays where it was, but for an odd crop of an even image: there the centre moves by one pixel.
    """
    geometry = acquisition.geometry
    if geometry is None:
        return None
    encoded = geometry.field_of_view_mm
    pixel = [encoded[i] / acquisition.shape[i] for i in range(2)]
    y, x = (((n - m) // 2 + m // 2 - n // 2) * step for n, m, step in zip(whole, shape, pixel, strict=True))
    position = np.asarray(geometry.position_mm) + y * np.asarray(geometry.y_direction)
    return replace(
        geometry,
        field_of_view_mm=(pixel[0] * shape[0], pixel[1] * shape[1], encoded[2]),
        position_mm=triple(position + x * np.asarray(geometry.x_direction)),
    )


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
