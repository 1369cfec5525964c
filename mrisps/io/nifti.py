"""Images to NIfTI, with the affine transform to the patient's coordinates.

DICOM and ISMRMRD count to the left, to the back and to the head (LPS), NIfTI to the right, to the front and to the head
(RAS). The voxel axes are (y, x, slice): i counts rows.

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

from mrisps.atomic import write_bytes
from mrisps.errors import FileError, MrispsError
from mrisps.io.acquisition import Geometry
from mrisps.io.files import check_is_file
from mrisps.io.image_volume import ImageVolume

__all__ = ["NiftiHeader", "affine_of", "nifti_header", "write_nifti"]

_SCANNER = 1  # NIFTI_XFORM_SCANNER_ANAT
_TOLERANCE_MM = 1e-2
_DAMAGED = (OSError, ValueError, EOFError, TypeError, KeyError, IndexError, OverflowError, MemoryError, zlib.error)


def affine_of(geometries: Sequence[Geometry | None], shape: tuple[int, int]) -> NDArray[np.float64] | None:
    """Affine transform (4, 4) from voxel numbers (row, column, slice) of images (y, x) to millimetres in RAS.

    Pixel [n_y // 2, n_x // 2] of a slice is at its position: that is where a centred transform puts the origin. None if
    a geometry is unknown, or the slices are not parallel and at one distance.
    """
    known = [geometry for geometry in geometries if geometry is not None]
    if not known or len(known) < len(geometries):
        return None
    frames = np.asarray([(g.y_direction, g.x_direction, g.field_of_view_mm) for g in known])
    positions = np.asarray([geometry.position_mm for geometry in known])
    y, x, fov = frames[0]
    step = np.asarray(known[0].slice_direction) * fov[2] if len(known) == 1 else positions[1] - positions[0]
    expected = positions[0] + np.arange(len(known))[:, np.newaxis] * step
    is_regular = np.allclose(frames, frames[0], atol=1e-4) and np.abs(positions - expected).max() < _TOLERANCE_MM
    if not is_regular or not np.linalg.norm(step) > 0:
        return None
    rows, columns = y * fov[0] / shape[0], x * fov[1] / shape[1]
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
    """Read the header of a ``.nii`` or ``.nii.gz`` file, not its images; a FileError if it is none."""
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
    """Write images as NIfTI-1, float32 or complex64 (y, x, slice); the result says what could not be carried over.

    A name that ends in ``.nii.gz`` is compressed; one without ``.nii`` is refused with a FileError.
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
    write_bytes(path, gzip.compress(content, mtime=0) if path.name.lower().endswith(".gz") else content)
    return tuple(lost)


def _nibabel() -> ModuleType:
    try:
        import nibabel
    except ImportError as error:
        raise MrispsError("NIfTI needs the package nibabel: pip install 'mrisps[nifti]'") from error
    module: ModuleType = nibabel
    return module
