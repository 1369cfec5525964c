"""`mrisps convert`: k-space and images from one format to another."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mrisps.cli.common import UsageError, new_file, note, result, usage_errors
from mrisps.cli.options import ArrayAxes, ArrayVariable, Overwrite, Uncentred, chosen_layout
from mrisps.errors import FileError

if TYPE_CHECKING:
    from mrisps.io.arrays import ArrayLayout
    from mrisps.io.image_volume import ImageVolume

__all__ = ["convert"]

_KSPACE = {".h5": "fastmri", ".hdf5": "fastmri", ".mrd": "mrd", ".cfl": "cfl", ".npy": "npy"}
_IMAGES = {".nii": "nifti", ".gz": "nifti", ".mrd": "mrd-images", ".h5": "reconstruction", ".hdf5": "reconstruction"}
_PICTURES = ("png", "tif", "npy")
_KSPACE_FORMATS = ("fastmri", "mrd", "cfl", "npy")
_IMAGE_FORMATS = ("nifti", "mrd-images", "reconstruction", *_PICTURES)


def convert(
    source: Annotated[
        Path,
        typer.Argument(metavar="IN", help="k-space, a reconstruction of ours, a DICOM file, or a folder of those."),
    ],
    destination: Annotated[
        Path, typer.Argument(metavar="OUT", help="The file to write; a folder for png, tif and npy images.")
    ],
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="FORMAT",
            help="k-space: fastmri, mrd, cfl, npy. Images: nifti, mrd-images, reconstruction, png, tif, npy. By default the "
            "one that OUT's name says: .h5, .mrd, .cfl, .npy, .nii, .nii.gz.",
        ),
    ] = None,
    axes: ArrayAxes = None,
    variable: ArrayVariable = None,
    uncentred: Uncentred = False,
    place_from: Annotated[
        Path | None,
        typer.Option(
            "--place-from",
            metavar="RAW",
            help="Raw file whose position and orientation the images have (for nifti, mrd-images).",
        ),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Convert k-space or images to another format.

    Formats of the input are recognised by what is in it: fastMRI HDF5, ISMRMRD (MRD), Siemens twix .dat, BART .cfl; arrays
    (.npy, .npz, .mat) with --axes, or with a text beside them (docs/files.md). One slice at a time is in memory. Samples are
    not changed. What the new format cannot carry is listed; it is not an error.
    """
    with usage_errors():
        if not source.exists():
            raise UsageError(f"{source}: does not exist")
        layout = chosen_layout(axes, variable, uncentred)
    if source.is_dir() or _is_dicom(source):
        from mrisps.io.dicom import read_dicom_series

        _convert_images(read_dicom_series(source), destination, to, place_from, overwrite)
    elif _has_images(source):
        from mrisps.io.image_volume import read_reconstruction

        _convert_images(read_reconstruction(source), destination, to, place_from, overwrite)
    else:
        _convert_kspace(source, destination, to, layout, overwrite)


def _convert_kspace(
    source: Path, destination: Path, to: str | None, layout: "ArrayLayout | None", overwrite: bool
) -> None:
    from mrisps.io.conversion import KSPACE_FORMATS, convert_kspace
    from mrisps.io.open import open_kspace

    name = to or _KSPACE.get(destination.suffix.lower())
    chosen = next((known for known in KSPACE_FORMATS if known == name), None)
    if chosen is None:
        raise UsageError(_unknown(destination, to, "k-space", _KSPACE_FORMATS, _IMAGE_FORMATS))
    if chosen == "cfl" and destination.suffix.lower() != ".cfl":
        raise UsageError(f"{destination}: expected a file name ending in .cfl")
    companions = {"cfl": destination.with_suffix(".hdr"), "npy": destination.with_name(destination.name + ".toml")}
    for path in (destination, *([companions[chosen]] if chosen in companions else [])):
        new_file(path, overwrite)
    with open_kspace(source, layout) as file:
        report = convert_kspace(file, destination, chosen)
    for line in report.notes:
        note(f"{source}: {line}")
    for line in report.lost:
        note(f"not carried over: {line}")
    result(str(destination))
    note(f"{report.n_slices} slice{'s' if report.n_slices > 1 else ''} written")


def _convert_images(
    volume: "ImageVolume", destination: Path, to: str | None, place_from: Path | None, overwrite: bool
) -> None:
    from dataclasses import replace

    name = to or _IMAGES.get(destination.suffix.lower())
    if name not in _IMAGE_FORMATS:
        raise UsageError(_unknown(destination, to, "images", _IMAGE_FORMATS, _KSPACE_FORMATS))
    if place_from is not None:
        from mrisps.io.image_volume import geometries_of
        from mrisps.io.open import open_kspace

        n_slices, n_y, n_x = volume.pixels.shape
        with open_kspace(place_from) as raw:
            volume = replace(volume, geometries=geometries_of(raw, (n_y, n_x), n_slices))
    if name in _PICTURES:
        _write_pictures(volume, destination, name, overwrite)
        return
    new_file(destination, overwrite)
    lost: tuple[str, ...] = ()
    if name == "nifti":
        from mrisps.io.nifti import write_nifti

        lost = write_nifti(destination, volume)
    elif name == "mrd-images":
        from mrisps.io.ismrmrd_writer import write_ismrmrd_images

        write_ismrmrd_images(destination, volume.pixels, volume.geometries, volume.header)
        if None in volume.geometries:
            lost = ("position and orientation: unknown",)
    else:
        from mrisps.io.fastmri import ReconstructionWriter

        attributes = dict(volume.attributes or {})
        with ReconstructionWriter(
            destination, len(volume.pixels), attributes=attributes, header=volume.header
        ) as writer:
            for index, (image, geometry) in enumerate(zip(volume.pixels, volume.geometries, strict=True)):
                writer.write_slice(index, image, geometry=geometry)
    for line in lost:
        note(f"not carried over: {line}")
    result(str(destination))
    note(f"{len(volume.pixels)} slice{'s' if len(volume.pixels) > 1 else ''} written")


def _write_pictures(volume: "ImageVolume", folder: Path, kind: str, overwrite: bool) -> None:
    """One grey image a slice; all divided by the largest magnitude of the volume for png, as they are otherwise."""
    import numpy as np

    from mrisps.cli.common import make_folder
    from mrisps.io.images import write_image

    magnitudes = np.abs(volume.pixels).astype(np.float32)
    top = float(magnitudes.max()) if kind == "png" else 1.0
    paths = [folder / f"{volume.source.stem}_{index:03d}.{kind}" for index in range(len(magnitudes))]
    for path in paths:
        new_file(path, overwrite)
    make_folder(folder)
    for path, magnitude in zip(paths, magnitudes, strict=True):
        write_image(path, magnitude / np.float32(top or 1.0), bits=16)
        result(str(path))
    if kind == "png":
        note(f"not carried over: scale: 65535 stands for {top:g}, the largest value of all slices")
    if np.iscomplexobj(volume.pixels):
        note("not carried over: phase: the images are magnitudes")
    note("not carried over: position and orientation")


def _unknown(destination: Path, to: str | None, what: str, known: tuple[str, ...], others: tuple[str, ...]) -> str:
    if to in others:
        hint = "images are made of it by `mrisps recon`" if what == "k-space" else "k-space cannot be made of images"
        return f"--to {to}: the input is {what}; {hint}"
    option = f"--to {to}" if to is not None else f"{destination}"
    return f"{option}: expected one of {', '.join(known)} for {what}; give it with --to"


def _is_dicom(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            start = stream.read(132)
    except OSError as error:
        raise FileError(path, f"cannot be read: {error.strerror}") from error
    return start[128:] == b"DICM" or path.suffix.lower() in (".dcm", ".ima")


def _has_images(path: Path) -> bool:
    if path.suffix.lower() not in (".h5", ".hdf5"):
        return False
    from mrisps.io.image_volume import is_reconstruction

    return is_reconstruction(path)
