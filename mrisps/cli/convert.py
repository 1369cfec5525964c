"""`mrisps convert`: k-space and images from one format to another."""

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mrisps.cli.common import UsageError, counted, note, result, usage_errors
from mrisps.cli.files import new_file
from mrisps.cli.options import ArrayOptions, Overwrite, option
from mrisps.errors import FileError

if TYPE_CHECKING:
    from mrisps.io.arrays import ArrayLayout
    from mrisps.io.image_volume import ImageVolume

__all__ = ["convert"]

_KSPACE = {".h5": "fastmri", ".hdf5": "fastmri", ".mrd": "mrd", ".cfl": "cfl", ".npy": "npy"}


def convert(
    source: Annotated[
        Path,
        typer.Argument(metavar="IN", help="k-space, a reconstruction of ours, a DICOM file, or a folder of those."),
    ],
    destination: Annotated[
        Path, typer.Argument(metavar="OUT", help="The file to write; a folder for png, tif and npy images.")
    ],
    arrays: ArrayOptions,
    to: Annotated[
        str | None,
        option(
            "--to FORMAT",
            "k-space: fastmri, mrd, cfl, npy. Images: nifti, mrd-images, reconstruction, png, tif, npy. By default the "
            "one that OUT's name says: .h5, .mrd, .cfl, .npy, .nii, .nii.gz.",
        ),
    ] = None,
    place_from: Annotated[
        Path | None,
        option("--place-from RAW", "Raw file whose position and orientation the images have (for nifti, mrd-images)."),
    ] = None,
    part: Annotated[
        str | None,
        option(
            "--part PART",
            "Of complex images: magnitude, phase (radians), real, imaginary, complex. By default the magnitude for nifti, "
            "png, tif and npy, and complex for mrd-images and reconstruction.",
        ),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Convert k-space or images to another format.

    Formats of the input are recognised by what is in it: fastMRI HDF5, ISMRMRD (MRD), Siemens twix .dat, BART .cfl; arrays
    (.npy, .npz, .mat) with --axes, or with a text beside them (docs/files.md). One slice at a time is in memory. Samples are
    not changed. What the new format cannot carry is listed; it is not an error.
    """
    if not source.exists():
        raise UsageError(f"{source}: does not exist")
    layout = arrays.layout()
    if source.is_dir() or _is_dicom(source):
        from mrisps.io.dicom import read_dicom_series

        _convert_images(read_dicom_series(source), destination, to, part, place_from, overwrite)
    elif _has_images(source):
        from mrisps.io.result_file import ResultFile

        with ResultFile(source) as file:
            _convert_images(file.volume(), destination, to, part, place_from, overwrite)
    elif part is not None:
        raise UsageError("--part: only images have parts, the input is k-space")
    else:
        _convert_kspace(source, destination, to, layout, overwrite)


def _convert_kspace(
    source: Path, destination: Path, to: str | None, layout: "ArrayLayout | None", overwrite: bool
) -> None:
    from mrisps.io.conversion import KSPACE_FORMATS, convert_kspace
    from mrisps.io.open import open_kspace
    from mrisps.io.write_images import KINDS

    name = to or _KSPACE.get(destination.suffix.lower())
    chosen = next((known for known in KSPACE_FORMATS if known == name), None)
    if chosen is None:
        raise UsageError(_unknown(destination, to, "k-space", KSPACE_FORMATS, KINDS))
    if chosen == "cfl" and destination.suffix.lower() != ".cfl":
        raise UsageError(f"{destination}: expected a file name ending in .cfl")
    companions = {"cfl": destination.with_suffix(".hdr"), "npy": destination.with_name(destination.name + ".toml")}
    for path in (destination, *([companions[chosen]] if chosen in companions else [])):
        new_file(path, overwrite)
    with open_kspace(source, layout) as file:
        lost = convert_kspace(file, destination, chosen)
        for line in file.notes:
            note(f"{source}: {line}")
        n_slices = file.n_slices
    for line in lost:
        note(f"not carried over: {line}")
    result(str(destination))
    note(f"{counted(n_slices, 'slice')} written")


def _convert_images(
    volume: "ImageVolume",
    destination: Path,
    to: str | None,
    part: str | None,
    place_from: Path | None,
    overwrite: bool,
) -> None:
    from dataclasses import replace

    from mrisps.io.conversion import KSPACE_FORMATS
    from mrisps.io.image_volume import IMAGE_PARTS, geometries_of
    from mrisps.io.write_images import KINDS, PICTURES, kind_of, picture_paths, write_volume

    kind = kind_of(destination) if to is None else to
    if kind not in KINDS:
        raise UsageError(_unknown(destination, to, "images", KINDS, KSPACE_FORMATS))
    chosen_part = next((known for known in IMAGE_PARTS if known == part), None)
    if chosen_part != part:
        raise UsageError(f"--part: expected {', '.join(IMAGE_PARTS)}, got {part!r}")
    if place_from is not None:
        from mrisps.io.open import open_kspace

        n_slices, n_y, n_x = volume.pixels.shape
        with open_kspace(place_from) as raw:
            volume = replace(volume, geometries=geometries_of(raw, (n_y, n_x), n_slices))
    paths = picture_paths(volume, destination, kind) if kind in PICTURES else [destination]
    for path in paths:
        new_file(path, overwrite)
    with usage_errors():
        lost = write_volume(volume, destination, kind, chosen_part)
    for line in lost:
        note(f"not carried over: {line}")
    for path in paths:
        result(str(path))
    note(f"{counted(len(volume.pixels), 'slice')} written")


def _unknown(destination: Path, to: str | None, what: str, known: Collection[str], others: Collection[str]) -> str:
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
    from mrisps.io.result_file import ResultFile

    return ResultFile.is_result(path)
