"""`mrisps to-dicom`: reconstructions and MRD images as DICOM; and the options that `mrisps recon --dicom` shares with it."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from mrisps.cli.common import UsageError, result
from mrisps.cli.options import Overwrite, option

if TYPE_CHECKING:
    from mrisps.io.dicom_writer import Mark

__all__ = ["IdentityOptions", "MarkLevel", "checked_mark", "to_dicom", "write_dicom"]

MarkLevel = Annotated[
    str,
    option(
        "--mark unusable|check|none",
        "Burn the verdict into the pixels of images with this verdict or a graver one.",
    ),
]


@dataclass(frozen=True)
class IdentityOptions:
    """Whose images these are."""

    reference: Annotated[
        Path | None,
        option(
            "--reference FILE.dcm",
            "DICOM file of the same exam, for patient and study. Default: the ISMRMRD header of the measurement says them.",
        ),
    ] = None
    anonymous: Annotated[bool, option("--anonymous", "Write DICOM without patient, dates and names of places.")] = False


def to_dicom(
    source: Annotated[Path, typer.Argument(metavar="IN", help="A reconstruction (.h5), or a file with MRD images.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder for the DICOM files; made if missing.")],
    identity: IdentityOptions,
    keep: Annotated[bool, option("--keep", "Write images although the verdict on one is `unusable`.")] = False,
    mark: MarkLevel = "unusable",
    secondary_capture: Annotated[
        bool, option("--secondary-capture", "Write Secondary Capture: images without a place in the patient.")
    ] = False,
    overwrite: Overwrite = False,
) -> None:
    """Write a reconstruction as DICOM.

    Each kind of image becomes a series of MR Image Storage.

    The files are DIR/reconstruction/0001.dcm and so on, also smooth, sparse and cost_map. All are written, or none. Without
    patient name and identity, in the header of the measurement or in --reference, nothing is written unless --anonymous is
    given. Images whose place in the patient is unknown are refused, unless --secondary-capture is given.
    """
    if not source.is_file():
        raise UsageError(f"{source}: {'is not a regular file' if source.exists() else 'does not exist'}")
    write_dicom(source, folder, identity, keep, mark, secondary_capture, overwrite)


def write_dicom(
    source: Path,
    folder: Path,
    identity: IdentityOptions,
    keep: bool,
    mark: str = "unusable",
    secondary_capture: bool = False,
    overwrite: bool = False,
) -> None:
    """Write the files, and print a line for each series.

    Raises
    ------
    UsageError
        ``--mark`` is unknown.
    """
    from mrisps.reconstruction.export import to_dicom as convert

    written = convert(
        source,
        folder,
        reference=identity.reference,
        anonymous=identity.anonymous,
        keep=keep,
        mark=checked_mark(mark),
        secondary_capture=secondary_capture,
        overwrite=overwrite,
    )
    for parent in dict.fromkeys(path.parent for path in written):
        n = sum(path.parent == parent for path in written)
        result(f"{parent}: {n} image{'s' if n > 1 else ''}")


def checked_mark(mark: str) -> "Mark":
    """The level of ``--mark``.

    Raises
    ------
    UsageError
        There is no such level.
    """
    from mrisps.io.dicom_writer import Mark

    known = next((level for level in get_args(Mark) if level == mark), None)
    if known is None:
        raise UsageError(f"--mark: expected one of {', '.join(get_args(Mark))}, got {mark!r}")
    level: Mark = known
    return level
