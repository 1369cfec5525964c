"""Images to NIfTI, with the affine transform to the patient's coordinates.

DICOM and ISMRMRD count to the left, to the back and to the head (LPS), NIfTI to the right, to the front and to the head (RAS).
The voxel axes are (y, x, slice): i counts rows.

Source: NIfTI-1.1, section on the "sform"; https://nifti.nimh.nih.gov.
"""

import gzip
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from mrisps.atomic import atomic_path
from mrisps.errors import FileError, MrispsError
from mrisps.io.acquisition import Geometry
from mrisps.io.files import check_is_file
from mrisps.io.image_volume import ImageVolume

__all__ = ["NiftiHeader", "affine_of", "nifti_header", "write_nifti"]

_SCANNER = 1  # NIFTI_XFORM_SCANNER_ANAT
_TOLERANCE_MM = 1e-2
_DAMAGED = (OSError, ValueError, EOFError, TypeError, KeyError, IndexError, OverflowError, MemoryError, zlib.error)


def affine_of(geometries: Sequence[Geometry | None], shape: tuple[int, int]) -> NDArray[np.float64] | None:
    """Affine transform from voxel numbers (row, column, slice) to millimetres in RAS.

    Pixel [n_y // 2, n_x // 2] of a slice is at its position: that is where a centred transform puts the origin.

    Parameters
    ----------
    geometries
        One a slice.
    shape
        (y, x).

    Returns
    -------
    ndarray or None
        (4, 4); None if a geometry is unknown, or the slices are not parallel and at one distance.
    """
    known = [geometry for geometry in geometries if geometry is not None]
    if not known or len(known) < len(geometries):
        return None
    first = known[0]
    positions = np.asarray([geometry.position_mm for geometry in known])
    same = all(
        np.allclose(np.asarray(a), np.asarray(b), atol=1e-4)
        for geometry in known
        for a, b in (
            (geometry.y_direction, first.y_direction),
            (geometry.x_direction, first.x_direction),
            (geometry.field_of_view_mm, first.field_of_view_mm),
        )
    )
    step = np.asarray(first.slice_direction) * first.field_of_view_mm[2]
    if len(known) > 1:
        step = positions[1] - positions[0]
        expected = positions[0] + np.arange(len(known))[:, np.newaxis] * step
        same = same and bool(np.abs(positions - expected).max() < _TOLERANCE_MM)
    if not same or not np.linalg.norm(step) > 0:
        return None
    rows = np.asarray(first.y_direction) * first.field_of_view_mm[0] / shape[0]
    columns = np.asarray(first.x_direction) * first.field_of_view_mm[1] / shape[1]
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = rows, columns, step
    affine[:3, 3] = positions[0] - rows * (shape[0] // 2) - columns * (shape[1] // 2)
    affine[:2] *= -1  # LPS to RAS
    return affine


@dataclass(frozen=True, eq=False)
class NiftiHeader:
    """What a NIfTI file says of its images: shape, element type, size of a voxel, and affine transform to RAS, if known."""

    shape: tuple[int, ...]
    dtype: str
    voxel_mm: tuple[float, ...]
    affine: NDArray[np.float64] | None


def nifti_header(path: Path | str) -> NiftiHeader:
    """Read the header of a ``.nii`` or ``.nii.gz`` file, not its images.

    Raises
    ------
    FileError
        The file is missing or no NIfTI file.
    MrispsError
        The package nibabel is not installed.
    """
    nibabel = _nibabel()
    path = Path(path)
    check_is_file(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # remarks on what does not conform
            image = nibabel.load(path)
            known = bool(image.header["sform_code"] or image.header["qform_code"])
            return NiftiHeader(
                shape=tuple(map(int, image.shape)),
                dtype=str(image.header.get_data_dtype()),
                voxel_mm=tuple(map(float, image.header.get_zooms())),
                affine=np.asarray(image.affine, np.float64) if known else None,
            )
    except (*_DAMAGED, nibabel.filebasedimages.ImageFileError, nibabel.spatialimages.HeaderDataError) as error:
        raise FileError(path, f"is no readable NIfTI file: {error}") from error


def write_nifti(path: Path | str, volume: ImageVolume) -> tuple[str, ...]:
    """Write images as NIfTI-1, float32 or complex64 (y, x, slice); ``.nii.gz`` is compressed.

    Returns
    -------
    tuple of str
        What could not be carried over.

    Raises
    ------
    FileError
        The file cannot be written, or its name does not end in ``.nii`` or ``.nii.gz``.
    MrispsError
        The package nibabel is not installed.
    """
    nibabel = _nibabel()
    path = Path(path)
    if not path.name.lower().endswith((".nii", ".nii.gz")):
        raise FileError(path, "expected a name ending in .nii or .nii.gz")
    n_y, n_x = volume.pixels.shape[1:]
    affine = affine_of(volume.geometries, (n_y, n_x))
    image = nibabel.Nifti1Image(np.moveaxis(volume.pixels, 0, -1), affine)
    image.header.set_xyzt_units("mm")
    lost = []
    if affine is None:
        lost.append("position and orientation: unknown, or the slices are not parallel and at one distance")
        fov = None if volume.header is None else volume.header.recon_fov_mm
        if fov is None:
            lost.append("size of the pixels: unknown, written as 1 mm")
        else:
            image.header.set_zooms((fov[0] / n_y, fov[1] / n_x, fov[2] or 1.0))
    else:
        image.set_sform(affine, _SCANNER)
        image.set_qform(affine, _SCANNER)
    content = image.to_bytes()
    if path.name.lower().endswith(".gz"):
        content = gzip.compress(content, mtime=0)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    return tuple(lost)


def _nibabel() -> ModuleType:
    try:
        import nibabel
    except ImportError as error:
        raise MrispsError("NIfTI needs the package nibabel: pip install 'mrisps[nifti]'") from error
    module: ModuleType = nibabel
    return module
