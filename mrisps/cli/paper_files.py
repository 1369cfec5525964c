"""`mrisps convert-paper-slices` and `mrisps convert-weights`: the paper's files to ours."""

from pathlib import Path
from typing import Annotated

import typer

from mrisps.cli.common import UsageError, counted, note, result
from mrisps.cli.files import new_file
from mrisps.cli.options import Overwrite, option

__all__ = ["convert_paper_slices", "convert_weights"]


def convert_paper_slices(
    source: Annotated[
        Path, typer.Argument(metavar="SRC", help="One of the paper's .npz slices, or a folder with them.")
    ],
    destination: Annotated[Path, typer.Argument(metavar="DST", help="Folder for the fastMRI files; made if missing.")],
    acceleration: Annotated[
        str,
        option("--acceleration 8|16|none", "Apply the paper's mask of this acceleration; `none` keeps all of k-space."),
    ] = "8",
    overwrite: Overwrite = False,
) -> None:
    """Turn the paper's slices into fastMRI files.

    From npz with uncentred k-space to HDF5 with centred k-space, of the same image.
    The folders below SRC (pd, pdfs) are kept, and give the contrast.
    """
    from mrisps.io import paper_slices

    choices: dict[str, paper_slices.Acceleration | None] = {"8": 8, "16": 16, "none": None}
    if acceleration not in choices:
        raise UsageError(f"--acceleration: expected 8, 16 or none, got {acceleration!r}")
    if not source.exists():
        raise UsageError(f"{source}: does not exist")
    for path in paper_slices.paper_outputs(source, destination).values():
        new_file(path, overwrite)
    written = paper_slices.convert_paper_slices(
        source, destination, acceleration=choices[acceleration], progress=lambda done, total, path: result(str(path))
    )
    note(f"{counted(len(written), 'file')} written")


def convert_weights(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="One of the authors' .pth checkpoints.")],
    destination: Annotated[Path, typer.Argument(metavar="DST", help="The .safetensors file to write.")],
    overwrite: Overwrite = False,
) -> None:
    """Turn the authors' .pth into .safetensors.

    Nothing in the file is executed."""
    from mrisps.model import SmoothPlusSparse

    if not source.is_file():
        raise UsageError(f"{source}: {'is not a regular file' if source.exists() else 'does not exist'}")
    if destination.suffix != ".safetensors":
        raise UsageError(f"{destination}: expected a file name ending in .safetensors")
    new_file(destination, overwrite)
    model = SmoothPlusSparse.load(source)
    model.save(destination)
    config = model.config
    result(
        f"{destination}: {config.regulariser}, {config.patch_size} x {config.patch_size} patches, {config.n_free_atoms} free and "
        f"{config.n_synthesis_atoms} synthesis atoms, sha256 {model.fingerprint()}"
    )
