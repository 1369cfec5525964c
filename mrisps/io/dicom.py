"""DICOM magnitude series: images for training and denoising.

Source: DICOM PS3.3, C.7.6.2 (image plane) and C.11.1 (modality LUT).
"""

import contextlib
import struct
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mrisps.errors import FileError, MrispsError
from mrisps.io.acquisition import Geometry
from mrisps.io.files import check_is_file
from mrisps.io.image_volume import ImageVolume

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["read_dicom_series"]

_MAX_PIXELS = 1 << 28
# What damaged content makes pydicom raise: it has no exception class of its own for that.
_DAMAGED = (
    *(OSError, ValueError, EOFError, KeyError, TypeError, AttributeError, IndexError, NotImplementedError),
    *(RuntimeError, MemoryError, OverflowError, UnicodeError, AssertionError, struct.error, zlib.error),
)


def read_dicom_series(path: Path | str, series: str | None = None) -> ImageVolume:
    """Read a series of single-frame grey images, sorted by their position along the slice direction.

    Pixels are stored values times slope plus intercept, float32. The path is one file, or a folder, all of whose files
    are read; the series is a SeriesInstanceUID, or None for the only one there is.

    Raises
    ------
    FileError
        There is no DICOM file, more than one series, or one of the files is damaged, has no or several frames, colour,
        another size than the first, or lacks the position, or two are at the same position.
    """
    path = Path(path)
    files = sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
    read = [(file, *opened) for file in files if (opened := _dataset(file, required=file == path)) is not None]
    found = sorted({uid for _, _, uid in read})
    if not read:
        raise FileError(path, "has no DICOM files")
    if series is None and len(found) > 1:
        raise FileError(path, f"expected one series, has {len(found)}: {', '.join(found)}", field="SeriesInstanceUID")
    chosen = [(file, dataset) for file, dataset, uid in read if series in (None, uid)]
    if not chosen:
        raise FileError(path, f"has no series {series}; it has {', '.join(found)}", field="SeriesInstanceUID")
    slices = [(file, _pixels(file, dataset), _geometry(file, dataset)) for file, dataset in chosen]
    shape, through = slices[0][1].shape, slices[0][2].slice_direction
    for file, pixels, geometry in slices:
        if pixels.shape != shape:
            raise FileError(file, f"has (Rows, Columns) {pixels.shape}, the first image {shape}", field="Rows")
        if not np.allclose(geometry.slice_direction, through, atol=1e-3):
            raise FileError(file, "is not parallel to the first image", field="ImageOrientationPatient")
    slices.sort(key=lambda image: float(np.dot(image[2].position_mm, through)))
    gaps = np.diff([np.dot(geometry.position_mm, through) for _, _, geometry in slices])
    if len(gaps) and gaps.min() < 1e-3:
        second = slices[1 + int(np.argmin(gaps))][0]
        raise FileError(second, "is at the position of another image", field="ImagePositionPatient")
    with _naming(chosen[0][0], "SeriesDescription"):
        names = {"acquisition": "SeriesDescription", "modality": "Modality"}
        attributes = {ours: str(chosen[0][1].get(name, "")) for ours, name in names.items()}
    _, images, geometries = zip(*slices, strict=True)
    return ImageVolume(np.stack(images), geometries, path, attributes=attributes)


@contextlib.contextmanager
def _naming(file: Path, field: str | None) -> Iterator[None]:
    """Turn what pydicom raises into the error of a file, and its remarks on what does not conform into nothing."""
    from pydicom.errors import BytesLengthException, InvalidDicomError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except InvalidDicomError as error:
        raise FileError(file, "is no DICOM file") from error
    except (*_DAMAGED, BytesLengthException) as error:
        raise FileError(file, f"cannot be read: {error}", field=field) from error


def _dataset(file: Path, required: bool) -> "tuple[Dataset, str] | None":
    """What is in a file, and the series it belongs to; None for another kind of file in a folder."""
    try:
        import pydicom
    except ImportError as error:
        raise MrispsError("DICOM needs the package pydicom: pip install 'mrisps[dicom]'") from error
    check_is_file(file)
    with _naming(file, None):
        if not required:
            with file.open("rb") as stream:
                if stream.read(132)[128:] != b"DICM":
                    return None
        dataset = pydicom.dcmread(file)
        uid = str(dataset.get("SeriesInstanceUID", ""))
        return (dataset, uid) if required or "PixelData" in dataset else None


def _pixels(file: Path, dataset: "Dataset") -> NDArray[np.float32]:
    with _naming(file, "PixelData"), np.errstate(over="ignore", invalid="ignore"):
        n_frames, n_rows, n_columns = (int(dataset.get(name, 1) or 1) for name in ("NumberOfFrames", "Rows", "Columns"))
        kind = str(dataset.get("PhotometricInterpretation", "")) or "unknown kind"
        if n_frames != 1 or kind != "MONOCHROME2" or n_rows * n_columns > _MAX_PIXELS:
            raise FileError(file, f"expected one grey frame, got {n_frames} of {kind}", field="PixelData")
        stored = np.asarray(dataset.pixel_array, np.float64)
        slope, intercept = float(dataset.get("RescaleSlope", 1)), float(dataset.get("RescaleIntercept", 0))
        pixels = (stored * slope + intercept).astype(np.float32)
    if pixels.ndim != 2 or pixels.size == 0 or not np.isfinite(pixels).all():
        raise FileError(file, f"expected finite (y, x), got {pixels.shape}", field="PixelData")
    return pixels


def _geometry(file: Path, dataset: "Dataset") -> Geometry:
    values: dict[str, NDArray[np.float64]] = {}
    for name, n in (("ImageOrientationPatient", 6), ("ImagePositionPatient", 3), ("PixelSpacing", 2)):
        with _naming(file, name):
            values[name] = np.asarray([float(value) for value in dataset.get(name) or ()])
        if values[name].shape != (n,) or not np.isfinite(values[name]).all():
            raise FileError(file, f"expected {n} numbers, got {values[name].size}", field=name)
    with _naming(file, "SliceThickness"):
        n_y, n_x = int(dataset.get("Rows", 0)), int(dataset.get("Columns", 0))
        thickness = float(dataset.get("SpacingBetweenSlices") or dataset.get("SliceThickness") or 0)
    x, y = values["ImageOrientationPatient"].reshape(2, 3)  # x: of increasing column
    spacing_y, spacing_x = values["PixelSpacing"]
    center = values["ImagePositionPatient"] + y * spacing_y * (n_y // 2) + x * spacing_x * (n_x // 2)
    geometry = Geometry.of(np.asarray([spacing_y * n_y, spacing_x * n_x, thickness]), center, y, x, np.cross(x, y))
    if geometry is None:
        raise FileError(file, "the directions are not orthonormal", field="ImageOrientationPatient")
    return geometry
