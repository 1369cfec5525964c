"""Write a stack of images in the formats that hold images: our own HDF5, NIfTI, MRD images, pictures."""

from pathlib import Path

import numpy as np

from mrisps.io.files import make_folder
from mrisps.io.image_volume import ImagePart, ImageVolume
from mrisps.io.images import write_image
from mrisps.io.ismrmrd_writer import write_ismrmrd_images
from mrisps.io.nifti import write_nifti
from mrisps.io.result_file import ResultWriter

__all__ = ["KINDS", "PICTURES", "kind_of", "picture_paths", "write_volume"]

PICTURES = ("png", "tif", "npy")
_WITH_PHASE = ("mrd-images", "reconstruction")
KINDS = ("nifti", *_WITH_PHASE, *PICTURES)
"""What `write_volume` writes."""

_BY_SUFFIX = {
    **{".nii": "nifti", ".gz": "nifti", ".mrd": "mrd-images", ".h5": "reconstruction", ".hdf5": "reconstruction"},
    **{".png": "png", ".tif": "tif", ".tiff": "tif", ".npy": "npy"},
}


def kind_of(path: Path) -> str | None:
    """The format that a file name stands for; None if it does not say."""
    return _BY_SUFFIX.get(path.suffix.lower())


def picture_paths(volume: ImageVolume, destination: Path, kind: str) -> list[Path]:
    """The files that pictures of a stack become: the destination itself for one slice with a file name, else a folder of them."""
    if len(volume.pixels) == 1 and kind_of(destination) == kind:
        return [destination]
    return [destination / f"{volume.source.stem}_{index:03d}.{kind}" for index in range(len(volume.pixels))]


def write_volume(
    volume: ImageVolume, destination: Path, kind: str | None = None, part: ImagePart | None = None
) -> tuple[str, ...]:
    """Write a stack of images; the result says what the format could not carry.

    Parameters
    ----------
    volume
        The images.
    destination
        File, or folder for pictures. PNG files are 16 bits deep: 65535 stands for the largest value of all slices.
    kind
        One of `KINDS`; None: what the file name says.
    part
        What is written of complex images. None: all of them for ``"mrd-images"`` and ``"reconstruction"``, otherwise
        the magnitude, because few programs read complex NIfTI.

    Raises
    ------
    ValueError
        The format is unknown, the images have no such part, the format cannot have it, or a picture is asked for of
        several slices under one file name.
    FileError
        A file cannot be written.
    """
    kind = kind_of(destination) if kind is None else kind
    if kind not in KINDS:
        expected = f"one of {', '.join(KINDS)}, or a file name that says it"
        raise ValueError(f"format: expected {expected}, got {destination.name!r}")
    lost = []
    if part is None and np.iscomplexobj(volume.pixels) and kind not in _WITH_PHASE:
        lost.append("phase: the images are magnitudes")
    volume = volume.part(part or ("complex" if kind in _WITH_PHASE else "magnitude"))
    if kind in PICTURES and np.iscomplexobj(volume.pixels):
        raise ValueError(f"part: {kind} has no complex images, expected magnitude, phase, real or imaginary")
    if kind == "nifti":
        lost += write_nifti(destination, volume)
    elif kind == "mrd-images":
        write_ismrmrd_images(destination, volume.pixels, volume.geometries, volume.header)
        lost += ["position and orientation: unknown"] if None in volume.geometries else []
    elif kind == "reconstruction":
        with ResultWriter(destination, len(volume.pixels), attributes=volume.attributes, header=volume.header) as file:
            for index, (image, geometry) in enumerate(zip(volume.pixels, volume.geometries, strict=True)):
                file.write_slice(index, image, geometry=geometry)
    else:
        lost += _write_pictures(volume, destination, kind)
    return tuple(lost)


def _write_pictures(volume: ImageVolume, destination: Path, kind: str) -> list[str]:
    paths = picture_paths(volume, destination, kind)
    if len(paths) > 1 and kind_of(destination) == kind:
        raise ValueError(f"{destination}: {len(paths)} slices do not go into one picture; name a folder")
    images = np.real(volume.pixels)
    top = float(images.max()) if kind == "png" and images.max() > 0 else 1.0
    if paths[0] != destination:
        make_folder(destination)
    for path, image in zip(paths, images, strict=True):
        write_image(path, image / np.float32(top), bits=16)
    lost = [f"scale: 65535 stands for {top:g}, the largest value of all slices"] if kind == "png" else []
    if kind == "png" and images.min() < 0:
        lost.append("negative values: they are black")
    return [*lost, "position and orientation"]
