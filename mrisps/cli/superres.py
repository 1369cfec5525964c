"""`mrisps superres`: images that were blurred and downsampled."""

from typing import Annotated

import typer

from mrisps.cli.images import Bits, ColourToGrey, Format, ImageFiles, Parts, run_images
from mrisps.cli.options import AcceptUnconverged, Device, Output, Overwrite, RecipeName, Scale, SetValues, Weights

__all__ = ["superres"]


def superres(
    inputs: ImageFiles,
    recipe: RecipeName,
    output: Output,
    weights: Weights = None,
    noise_std: Annotated[
        float | None,
        typer.Option(
            "--noise-std",
            metavar="X",
            help="Standard deviation of the noise in the input, white being 1, for the certificate's misfit. How strongly the "
            "prior acts is set by beta and lam of the recipe. Default: the recipe's.",
        ),
    ] = None,
    device: Device = "cpu",
    scale: Scale = None,
    changes: SetValues = None,
    file_format: Format = None,
    bits: Bits = 8,
    parts: Parts = False,
    colour_to_grey: ColourToGrey = False,
    overwrite: Overwrite = False,
    accept_unconverged: AcceptUnconverged = False,
) -> None:
    """Raise the resolution of grey images.

    The input is taken to be a sharp image after the recipe's blur and downsampling (see `mrisps recipes show`). Pixels are
    numbers from 0 (black) to 1 (white): 8-bit files are divided by 255, 16-bit ones by 65535, floating-point files are
    taken as they are. Every image becomes DIR/NAME in the same format, with provenance and certificate in DIR/NAME.json.

    Exit code 0: every image converged. 1: an image failed or did not converge. 2: the command is wrong, nothing was done.
    """
    run_images(
        "superres",
        inputs,
        recipe,
        output,
        weights=weights,
        device=device,
        noise_std=noise_std,
        scale=scale,
        changes=changes,
        file_format=file_format,
        bits=bits,
        parts=parts,
        colour_to_grey=colour_to_grey,
        overwrite=overwrite,
        accept_unconverged=accept_unconverged,
    )
