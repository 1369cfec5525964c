"""DICOM magnitude series: images for training and denoising.

Source: DICOM PS3.3, C.7.6.2 (image plane) and C.11.1 (modality LUT).
"""

import struct
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mrisps.errors import FileError, MrispsError
from mrisps.io.acquisition import Geometry
from mrisps.io.image_volume import ImageVolume

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["read_dicom_series"]

_MAX_PIXELS = 1 << 28
# What damaged content makes pydicom raise: it has no exception class of its own for that.
_DAMAGED = (
    *(OSError, ValueError, EOFError, KeyError, TypeError, AttributeError, IndexError, NotImplementedError),
    *(RuntimeError, MemoryError, OverflowError, UnicodeError, struct.error),
)


def read_dicom_series(path: Path | str, series: str | None = None) -> ImageVolume:
    """Read a series of single-frame grey images, sorted by their position along the slice direction.

    Pixels are stored values times slope plus intercept, float32.

    Parameters
    ----------
    path
        A folder, all of whose files are read, or one file.
    series
        SeriesInstanceUID; None: the only one there is.

    Raises
    ------
    FileError
        There is no DICOM file, more than one series, or one of the files is damaged, has no or several frames, colour,
        another size than the first, or lacks the position, or two are at the same position.
    MrispsError
        The package pydicom is not installed.
    """
    path = Path(path)
    files = sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
    read = [(file, dataset) for file in files if (dataset := _dataset(file, required=file == path)) is not None]
    found = sorted({str(dataset.get("SeriesInstanceUID", "")) for _, dataset in read})
    if not read:
        raise FileError(path, "has no DICOM files")
    if series is None and len(found) > 1:
        raise FileError(path, f"expected one series, has {len(found)}: {', '.join(found)}", field="SeriesInstanceUID")
    chosen = [(file, dataset) for file, dataset in read if series is None or dataset.get("SeriesInstanceUID") == series]
    if not chosen:
        raise FileError(path, f"has no series {series}; it has {', '.join(found)}", field="SeriesInstanceUID")
    slices = [(file, _pixels(file, dataset), _geometry(file, dataset)) for file, dataset in chosen]
    shape, through = slices[0][1].shape, slices[0][2].slice_direction
    for file, pixels, geometry in slices:
        if pixels.shape != shape:
            raise FileError(
                file, f"is {pixels.shape[0]} x {pixels.shape[1]}, the first is {shape[0]} x {shape[1]}", field="Rows"
            )
        if not np.allclose(geometry.slice_direction, through, atol=1e-3):
            raise FileError(file, "is not parallel to the first image", field="ImageOrientationPatient")
    along = np.asarray([np.dot(geometry.position_mm, through) for _, _, geometry in slices])
    order = np.argsort(along, kind="stable")
    if len(order) > 1 and np.diff(along[order]).min() < 1e-3:
        second = slices[order[1 + int(np.argmin(np.diff(along[order])))]][0]
        raise FileError(second, "is at the position of another image", field="ImagePositionPatient")
    return ImageVolume(
        pixels=np.stack([slices[index][1] for index in order]),
        geometries=tuple(slices[index][2] for index in order),
        source=path,
        attributes={
            "acquisition": str(chosen[0][1].get("SeriesDescription", "")),
            "modality": str(chosen[0][1].get("Modality", "")),
        },
    )


def _dataset(file: Path, required: bool) -> "Dataset | None":
    try:
        import pydicom
        from pydicom.errors import InvalidDicomError
    except ImportError as error:
        raise MrispsError("DICOM needs the package pydicom: pip install 'mrisps[dicom]'") from error
    if not file.is_file():
        raise FileError(file, "does not exist")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # remarks on values that do not conform; those that are used are checked below
            dataset = pydicom.dcmread(file)
    except InvalidDicomError as error:
        if required:
            raise FileError(file, "is no DICOM file") from error
        return None  # a folder may hold other files, too
    except _DAMAGED as error:
        raise FileError(file, f"cannot be read: {error}") from error
    return dataset if required or "PixelData" in dataset else None


def _pixels(file: Path, dataset: "Dataset") -> NDArray[np.float32]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            n_frames, n_rows, n_columns = (
                int(dataset.get(name, 1) or 1) for name in ("NumberOfFrames", "Rows", "Columns")
            )
            kind = str(dataset.get("PhotometricInterpretation", ""))
            if n_frames != 1 or kind != "MONOCHROME2" or n_rows * n_columns > _MAX_PIXELS:
                raise FileError(
                    file, f"expected one grey frame, got {n_frames} of {kind or 'unknown kind'}", field="PixelData"
                )
            stored = np.asarray(dataset.pixel_array, np.float64)
            slope, intercept = (
                float(dataset.get(name, default)) for name, default in (("RescaleSlope", 1), ("RescaleIntercept", 0))
            )
            pixels = (stored * slope + intercept).astype(np.float32)
    except _DAMAGED as error:
        raise FileError(file, f"cannot be decoded: {error}", field="PixelData") from error
    if pixels.ndim != 2 or pixels.size == 0 or not np.isfinite(pixels).all():
        raise FileError(file, f"expected finite (y, x), got {pixels.shape}", field="PixelData")
    return pixels


def _geometry(file: Path, dataset: "Dataset") -> Geometry:
    values: dict[str, NDArray[np.float64]] = {}
    for name, n in (("ImageOrientationPatient", 6), ("ImagePositionPatient", 3), ("PixelSpacing", 2)):
        try:
            values[name] = np.asarray([float(value) for value in dataset.get(name) or ()])
        except _DAMAGED as error:
            raise FileError(file, f"expected {n} numbers: {error}", field=name) from error
        if values[name].shape != (n,) or not np.isfinite(values[name]).all():
            raise FileError(file, f"expected {n} numbers, got {values[name].size}", field=name)
    x, y = values["ImageOrientationPatient"].reshape(2, 3)  # x: of increasing column
    if np.abs(np.array([x @ x - 1, y @ y - 1, x @ y])).max() > 1e-3:
        raise FileError(file, "the directions are not orthonormal", field="ImageOrientationPatient")
    n_y, n_x = int(dataset.get("Rows", 0)), int(dataset.get("Columns", 0))
    spacing_y, spacing_x = values["PixelSpacing"]
    center = values["ImagePositionPatient"] + y * spacing_y * (n_y // 2) + x * spacing_x * (n_x // 2)
    try:
        thickness = float(dataset.get("SpacingBetweenSlices") or dataset.get("SliceThickness") or 0)
    except _DAMAGED:
        thickness = 0.0
    fov = (float(spacing_y) * n_y, float(spacing_x) * n_x, thickness)
    return Geometry(fov, _triple(center), _triple(y), _triple(x), _triple(np.cross(x, y)))


def _triple(values: NDArray[np.float64]) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in values)
    return x, y, z
