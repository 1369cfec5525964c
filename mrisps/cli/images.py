"""`mrisps denoise` and `mrisps superres`: image files in, image files and a JSON sidecar out."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mrisps.cli.common import FAILURE, UsageError, fail, make_folder, memory_errors, named, note, result
from mrisps.cli.files import input_files, output_files
from mrisps.cli.options import (
    AcceptUnconverged,
    Device,
    Keep,
    Output,
    Overwrite,
    RecipeName,
    Scale,
    SetValues,
    Threads,
    Weights,
    chosen_run,
)
from mrisps.cli.terminal import SolverProgress
from mrisps.errors import MrispsError

if TYPE_CHECKING:
    from mrisps.reconstruction.run import Run
    from mrisps.reconstruction.slice_result import SliceResult

__all__ = ["denoise", "superres"]

SUFFIXES = (".png", ".tif", ".tiff", ".npy")
FORMATS = ("png", "tif", "tiff", "npy")
PART_NAMES = ("smooth", "sparse", "cost_map")

ImageFiles = Annotated[
    list[Path], typer.Argument(metavar="IN", help="Grey images: PNG, TIFF or NPY files, or folders of them.")
]
Format = Annotated[
    str | None,
    typer.Option("--format", metavar="png|tif|npy", help="Format of the results. Default: that of the input."),
]
Bits = Annotated[int, typer.Option("--bits", metavar="8|16", help="Bits of a PNG result.")]
Parts = Annotated[
    bool,
    typer.Option(
        "--parts",
        help="Also write NAME_smooth, NAME_sparse and NAME_cost_map, as float32 TIFF where the result is a PNG (which has "
        "no negative values).",
    ),
]
ColourToGrey = Annotated[
    bool, typer.Option("--colour-to-grey", help="Convert colour images (ITU-R BT.601 luma) instead of refusing them.")
]


@dataclass(frozen=True)
class _Outputs:
    image: Path
    sidecar: Path
    parts: tuple[Path, ...]

    @property
    def all(self) -> list[Path]:
        return [self.image, self.sidecar, *self.parts]


def denoise(
    inputs: ImageFiles,
    recipe: RecipeName,
    output: Output,
    weights: Weights = None,
    noise_std: Annotated[
        float | None,
        typer.Option(
            "--noise-std",
            metavar="X",
            help="Standard deviation of the noise, white being 1, for the certificate's misfit. How strongly is denoised is "
            "set by beta and lam of the recipe. Default: the recipe's.",
        ),
    ] = None,
    device: Device = "cpu",
    threads: Threads = None,
    scale: Scale = None,
    changes: SetValues = None,
    file_format: Format = None,
    bits: Bits = 8,
    parts: Parts = False,
    colour_to_grey: ColourToGrey = False,
    keep: Keep = False,
    overwrite: Overwrite = False,
    accept_unconverged: AcceptUnconverged = False,
) -> None:
    """Denoise grey images.

    Pixels are numbers from 0 (black) to 1 (white): 8-bit files are divided by 255, 16-bit ones by 65535, floating-point
    files are taken as they are. Every image becomes DIR/NAME in the same format, with provenance and certificate in
    DIR/NAME.json.

    Exit code 0: every image converged. 1: an image failed or did not converge. 2: the command is wrong, nothing was done.
    """
    run = chosen_run(
        "denoise",
        recipe,
        changes,
        weights=weights,
        device=device,
        noise_std=noise_std,
        scale=scale,
        colour_to_grey=colour_to_grey,
    )
    _write_all(run, inputs, output, _Writing(file_format, bits, parts, keep, overwrite), accept_unconverged)


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
    threads: Threads = None,
    scale: Scale = None,
    changes: SetValues = None,
    file_format: Format = None,
    bits: Bits = 8,
    parts: Parts = False,
    colour_to_grey: ColourToGrey = False,
    keep: Keep = False,
    overwrite: Overwrite = False,
    accept_unconverged: AcceptUnconverged = False,
) -> None:
    """Raise the resolution of grey images.

    The input is taken to be a sharp image after the recipe's blur and downsampling (see `mrisps recipes show`). Pixels are
    numbers from 0 (black) to 1 (white): 8-bit files are divided by 255, 16-bit ones by 65535, floating-point files are
    taken as they are. Every image becomes DIR/NAME in the same format, with provenance and certificate in DIR/NAME.json.

    Exit code 0: every image converged. 1: an image failed or did not converge. 2: the command is wrong, nothing was done.
    """
    run = chosen_run(
        "superres",
        recipe,
        changes,
        weights=weights,
        device=device,
        noise_std=noise_std,
        scale=scale,
        colour_to_grey=colour_to_grey,
    )
    _write_all(run, inputs, output, _Writing(file_format, bits, parts, keep, overwrite), accept_unconverged)


@dataclass(frozen=True)
class _Writing:
    """How results are written."""

    file_format: str | None
    bits: int
    parts: bool
    keep: bool
    overwrite: bool

    def __post_init__(self) -> None:
        if self.file_format is not None and self.file_format not in FORMATS:
            raise UsageError(f"--format: expected one of {', '.join(FORMATS)}, got {self.file_format!r}")
        if self.bits not in (8, 16):
            raise UsageError(f"--bits: expected 8 or 16, got {self.bits}")


def _write_all(run: "Run", inputs: Sequence[Path], output: Path, writing: _Writing, accept_unconverged: bool) -> None:
    """Reconstruct image files; a file that fails does not stop the others."""
    files = input_files(inputs, SUFFIXES)
    for path in files:
        if path.suffix.lower() not in SUFFIXES:
            raise UsageError(f"{path}: expected a file name ending in {', '.join(SUFFIXES)}")
    outputs = [_outputs(path, output, writing.file_format, writing.parts) for path in files]
    output_files(files, [paths.all for paths in outputs], writing.overwrite)
    make_folder(output)
    n_failed = n_unconverged = n_unusable = 0
    for source, paths in zip(files, outputs, strict=True):
        try:
            made, summary = _write(run, source, paths, 8 if writing.bits == 8 else 16, writing.keep)
        except (MrispsError, ValueError) as error:
            fail(named(source, error))
            n_failed += 1
            continue
        n_unconverged += not made.converged
        n_unusable += made.verdict.level == "unusable"
        for line in made.verdict.reasons:
            note(f"{made.verdict.level}: {source.name}: {line}")
        result(summary)
    if len(files) > 1:
        unconverged = f", {n_unconverged} of them did NOT CONVERGE" if n_unconverged else ""
        note(f"{len(files) - n_failed} of {len(files)} images written{unconverged}; {n_failed} failed")
    if n_failed or n_unusable or (n_unconverged and not accept_unconverged):
        raise typer.Exit(FAILURE)


def _outputs(source: Path, folder: Path, file_format: str | None, parts: bool) -> _Outputs:
    suffix = source.suffix.lower() if file_format is None else f".{file_format}"
    part_suffix = ".tif" if suffix == ".png" else suffix
    return _Outputs(
        folder / f"{source.stem}{suffix}",
        folder / f"{source.stem}.json",
        tuple(folder / f"{source.stem}_{name}{part_suffix}" for name in PART_NAMES) if parts else (),
    )


def _write(run: "Run", source: Path, paths: _Outputs, bits: Literal[8, 16], keep: bool) -> "tuple[SliceResult, str]":
    """What came of one image, and a line that says it; its files appear together, or none of them."""
    import numpy as np

    from mrisps.atomic import write_together
    from mrisps.io.images import image_bytes
    from mrisps.reconstruction.reconstruct import UnusableResultError

    with (
        run.open(source) as image,
        memory_errors(run.device),
        SolverProgress(source.name, run.recipe.solver.tolerance) as progress,
    ):
        (made,) = run.results(image, progress=progress.update)
        record = {
            "provenance": run.record(image),
            "certificate": made.certificate,
            "output": {"name": paths.image.name, "parts": [path.name for path in paths.parts]},
        }
    if made.verdict.level == "unusable" and not keep:
        raise UnusableResultError(f"is unusable, nothing is written: {'; '.join(made.verdict.reasons)}")
    pictures = dict(zip(paths.parts, made.parts.values(), strict=False)) | {paths.image: made.image}
    contents = {path: image_bytes(path, part.astype(np.float32), bits=bits) for path, part in pictures.items()}
    text = json.dumps(record, indent=2, sort_keys=True, allow_nan=False) + "\n"
    write_together({**contents, paths.sidecar: text.encode()})
    low, high = (" x ".join(map(str, shape)) for shape in (made.problem.y.shape[-2:], made.image.shape))
    sizes = high if low == high else f"{low} -> {high}"
    return made, (
        f"{paths.image}: {made.verdict.level.upper()}: {sizes}, {'converged' if made.converged else 'NOT CONVERGED'}, "
        f"{made.certificate['n_iterations']} iterations, {float(str(made.certificate['seconds'])):.1f} s"
    )
