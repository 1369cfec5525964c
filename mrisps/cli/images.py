"""`mrisps denoise` and `mrisps superres`: image files in, image files and a JSON sidecar out."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mrisps.cli.common import UsageError, memory_errors, usage_errors
from mrisps.cli.files import Done, do_each, input_files, make_folder, output_files, show_plan
from mrisps.cli.options import RunOptions, WriteOptions, option
from mrisps.cli.terminal import SolverProgress
from mrisps.status import in_words

if TYPE_CHECKING:
    from mrisps.reconstruction.run import Run

__all__ = ["denoise", "superres"]

SUFFIXES = (".png", ".tif", ".tiff", ".npy")
PART_NAMES = ("smooth", "sparse", "cost_map")

ImageFiles = Annotated[
    list[Path], typer.Argument(metavar="IN", help="Grey images: PNG, TIFF or NPY files, or folders of them.")
]


@dataclass(frozen=True)
class ImageOptions:
    """How images are read and written."""

    file_format: Annotated[
        str | None, option("--format png|tif|npy", "Format of the results. Default: that of the input.")
    ] = None
    bits: Annotated[int, option("--bits 8|16", "Bits of a PNG result.")] = 8
    parts: Annotated[
        bool,
        option(
            "--parts",
            "Also write NAME_smooth, NAME_sparse and NAME_cost_map, as float32 TIFF where the result is a PNG (which has no "
            "negative values).",
        ),
    ] = False
    colour_to_grey: Annotated[
        bool, option("--colour-to-grey", "Convert colour images (ITU-R BT.601 luma) instead of refusing them.")
    ] = False

    def __post_init__(self) -> None:
        formats = [suffix[1:] for suffix in SUFFIXES]
        if self.file_format is not None and self.file_format not in formats:
            raise UsageError(f"--format: expected one of {', '.join(formats)}, got {self.file_format!r}")
        if self.bits not in (8, 16):
            raise UsageError(f"--bits: expected 8 or 16, got {self.bits}")

    def outputs(self, source: Path, folder: Path) -> list[Path]:
        """The image, its sidecar, and its parts."""
        suffix = source.suffix.lower() if self.file_format is None else f".{self.file_format}"
        part_suffix = ".tif" if suffix == ".png" else suffix
        parts = [f"{source.stem}_{name}{part_suffix}" for name in PART_NAMES if self.parts]
        return [folder / name for name in (f"{source.stem}{suffix}", f"{source.stem}.json", *parts)]


def denoise(
    inputs: ImageFiles,
    writing: WriteOptions,
    options: RunOptions,
    images: ImageOptions,
    sigma: Annotated[
        float | None,
        option(
            "--sigma,--noise-std X",
            "Standard deviation of the noise, white being 1. It chooses recipe and scale; with --recipe it is for the "
            "certificate's misfit alone: how strongly is denoised is then set by beta and lam of the recipe.",
        ),
    ] = None,
) -> None:
    """Denoise grey images.

    Give --sigma, or a --recipe that states the noise. Pixels are numbers from 0 (black) to 1 (white): 8-bit files are divided
    by 255, 16-bit ones by 65535, floating-point files are taken as they are. Every image becomes DIR/NAME in the same format,
    with provenance and certificate in DIR/NAME.json.

    Exit code 0: every image is finished. 1: an image failed or did not converge. 2: the command is wrong, nothing was done.
    """
    recipe, scale = None, None
    if options.recipe_name is None:
        from mrisps.reconstruction.api import denoising_recipe

        if sigma is None:
            raise UsageError("--sigma: give the standard deviation of the noise (white is 1), or a --recipe")
        with usage_errors("sigma"):
            recipe, scale = denoising_recipe(sigma)
    _write_all(options.run("denoise", recipe, noise_std=sigma, scale=scale), inputs, writing, images)


def superres(
    inputs: ImageFiles,
    writing: WriteOptions,
    options: RunOptions,
    images: ImageOptions,
    factor: Annotated[
        int | None, option("--factor 2|4", "How many times more pixels along each side, about; or give a --recipe.")
    ] = None,
    noise_std: Annotated[
        float | None,
        option(
            "--noise-std X",
            "Standard deviation of the noise in the input, white being 1, for the certificate's misfit. How strongly the prior "
            "acts is set by beta and lam of the recipe. Default: the recipe's.",
        ),
    ] = None,
) -> None:
    """Raise the resolution of grey images.

    The input is taken to be a sharp image after the recipe's blur and downsampling (see `mrisps recipes show`). Pixels are
    numbers from 0 (black) to 1 (white): 8-bit files are divided by 255, 16-bit ones by 65535, floating-point files are
    taken as they are. Every image becomes DIR/NAME in the same format, with provenance and certificate in DIR/NAME.json.

    Exit code 0: every image is finished. 1: an image failed or did not converge. 2: the command is wrong, nothing was done.
    """
    recipe = None
    if (factor is None) == (options.recipe_name is None):
        raise UsageError("--factor, --recipe: give one of them")
    if factor is not None:
        from mrisps.reconstruction.api import superres_recipe

        with usage_errors("factor"):
            recipe = superres_recipe(factor)
    _write_all(options.run("superres", recipe, noise_std=noise_std), inputs, writing, images)


def _write_all(run: "Run", inputs: Sequence[Path], writing: WriteOptions, images: ImageOptions) -> None:
    from dataclasses import replace

    run = replace(run, colour_to_grey=images.colour_to_grey)
    files = input_files(inputs, SUFFIXES)
    for path in files:
        if path.suffix.lower() not in SUFFIXES:
            raise UsageError(f"{path}: expected a file name ending in {', '.join(SUFFIXES)}")
    outputs = [images.outputs(path, writing.output) for path in files]
    output_files(files, outputs, writing.overwrite)
    if writing.dry_run:
        show_plan(run, files)
        return
    make_folder(writing.output)
    paths = dict(zip(files, outputs, strict=True))

    def do(source: Path) -> Done:
        return _write(run, source, paths[source], images.bits, writing.keep)

    do_each(run, files, do, writing.accept_unconverged)


def _write(run: "Run", source: Path, paths: Sequence[Path], bits: int, keep: bool) -> Done:
    """Reconstruct one image; its files appear together, or none of them."""
    import numpy as np

    from mrisps.atomic import write_together
    from mrisps.io.images import image_bytes
    from mrisps.reconstruction.together import UnusableResultError

    destination, sidecar, *parts = paths
    with (
        run.open(source) as image,
        memory_errors(run.device),
        SolverProgress(source.name, run.recipe.solver.tolerance) as progress,
    ):
        (made,) = run.results(image, progress=progress.update)
        record = {
            "provenance": run.record(image),
            "certificate": made.certificate,
            "output": {"name": destination.name, "parts": [path.name for path in parts]},
        }
    if made.verdict.level == "unusable" and not keep:
        raise UnusableResultError(f"is unusable, nothing is written: {'; '.join(made.verdict.reasons)}")
    pictures = dict(zip(parts, made.parts.values(), strict=False)) | {destination: made.image}
    depth: Literal[8, 16] = 8 if bits == 8 else 16
    contents = {path: image_bytes(path, part.astype(np.float32), bits=depth) for path, part in pictures.items()}
    text = json.dumps(record, indent=2, sort_keys=True, allow_nan=False) + "\n"
    write_together({**contents, sidecar: text.encode()})
    low, high = (" x ".join(map(str, shape)) for shape in (made.problem.y.shape[-2:], made.image.shape))
    state = in_words([made.certificate["status"]])
    line = (
        f"{destination}: {made.verdict.level.upper()}: {high if low == high else f'{low} -> {high}'}, {state}, "
        f"{made.certificate['n_iterations']} iterations, {float(str(made.certificate['seconds'])):.1f} s"
    )
    return Done(line, made.verdict, made.finished)
