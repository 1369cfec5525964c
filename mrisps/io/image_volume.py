"""Stacks of images with their place in the patient: reconstructions and DICOM series, to be written in other formats."""

from collections.abc import Callable, Mapping, Sequence
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
_PART: Mapping[str, Callable[..., NDArray[np.generic]]] = {
    "magnitude": np.abs,
    "phase": np.angle,
    "real": np.real,
    "imaginary": np.imag,
}


@dataclass(frozen=True, eq=False)
class ImageVolume:
    """Images of one size.

    Parameters
    ----------
    pixels
        float32 or complex64 (slice, y, x), finite.
    geometries
        Where each slice lies: pixel [n_y // 2, n_x // 2] is at ``position_mm``. None where that is unknown.
    source, header, attributes
        The file or folder; the header of the measurement, where there is one; further texts and numbers.

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
        """Give one part of the images; a ValueError if they have none. Real images have a magnitude and are their real part."""
        is_complex = np.iscomplexobj(self.pixels)
        if name not in IMAGE_PARTS or (not is_complex and name in ("phase", "imaginary")):
            known = ", ".join(IMAGE_PARTS if is_complex else ("magnitude", "real"))
            raise ValueError(f"part: expected one of {known}, got {name!r}")
        return self if name == "complex" else replace(self, pixels=_PART[name](self.pixels).astype(np.float32))


def cropped_geometry(acquisition: Acquisition, whole: tuple[int, int], shape: tuple[int, ...]) -> Geometry | None:
    """Where the image lies whose central crop from ``whole`` to ``shape`` (y, x) was taken: a smaller field of view.

    Pixel [n_y // 2, n_x // 2] stays where it was, but for an odd crop of an even image: there the centre moves by one
    pixel.
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

    A FileError if the raw file has another number of slices, or a slice cannot be read.
    """
    if raw.n_slices != n_slices:
        raise FileError(raw.path, f"has {raw.n_slices} slices, the images are {n_slices}", field="slice")
    return tuple(cropped_geometry(record, record.shape, shape) for record in raw.slices())
