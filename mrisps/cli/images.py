"""What `mrisps denoise` and `mrisps superres` share: image files in, image files and a JSON sidecar out."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mrisps.cli.common import FAILURE, UsageError, fail, make_folder, memory_errors, note, one_line, result
from mrisps.cli.options import checked_device, chosen_recipe, chosen_weights, input_files, output_files
from mrisps.cli.terminal import SolverProgress
from mrisps.errors import FileError, MrispsError

if TYPE_CHECKING:
    from mrisps.model import SmoothPlusSparse
    from mrisps.reconstruction.recipe import Recipe

__all__ = ["Bits", "ColourToGrey", "Format", "ImageFiles", "Parts", "run_images"]

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


def run_images(
    task: Literal["denoise", "superres"],
    inputs: Sequence[Path],
    recipe_name: str,
    output: Path,
    *,
    weights: str | None,
    device: str,
    noise_std: float | None,
    scale: float | None,
    changes: Sequence[str] | None,
    file_format: str | None,
    bits: int,
    parts: bool,
    colour_to_grey: bool,
    overwrite: bool,
    accept_unconverged: bool,
) -> None:
    """Reconstruct image files; a file that fails does not stop the others."""
    recipe = chosen_recipe(recipe_name, changes, task)
    for name, value, least in (("--noise-std", noise_std, "at least 0"), ("--scale", scale, "> 0")):
        if value is not None and not (0 <= value < float("inf") and (value > 0 or least != "> 0")):
            raise UsageError(f"{name}: expected a number {least}, got {value}")
    if file_format is not None and file_format not in FORMATS:
        raise UsageError(f"--format: expected one of {', '.join(FORMATS)}, got {file_format!r}")
    if bits not in (8, 16):
        raise UsageError(f"--bits: expected 8 or 16, got {bits}")
    files = input_files(inputs, SUFFIXES)
    for path in files:
        if path.suffix.lower() not in SUFFIXES:
            raise UsageError(f"{path}: expected a file name ending in {', '.join(SUFFIXES)}")
    outputs = [_outputs(path, output, file_format, parts) for path in files]
    output_files(files, [paths.all for paths in outputs], overwrite)
    device = checked_device(device)
    model, weights_name = chosen_weights(weights, recipe, recipe_name)
    make_folder(output)

    n_failed = n_unconverged = 0
    for source, paths in zip(files, outputs, strict=True):
        try:
            converged, summary = _run_file(
                source,
                paths,
                recipe,
                model,
                weights_name,
                device=device,
                noise_std=noise_std,
                scale=scale,
                bits=8 if bits == 8 else 16,
                colour_to_grey=colour_to_grey,
            )
        except (MrispsError, ValueError) as error:
            named = error if isinstance(error, FileError) else FileError(source, one_line(error))
            fail(named)
            n_failed += 1
            continue
        n_unconverged += not converged
        result(summary)
    if len(files) > 1:
        unconverged = f", {n_unconverged} of them did NOT CONVERGE" if n_unconverged else ""
        note(f"{len(files) - n_failed} of {len(files)} images written{unconverged}; {n_failed} failed")
    if n_failed or (n_unconverged and not accept_unconverged):
        raise typer.Exit(FAILURE)


def _outputs(source: Path, folder: Path, file_format: str | None, parts: bool) -> _Outputs:
    suffix = source.suffix.lower() if file_format is None else f".{file_format}"
    part_suffix = ".tif" if suffix == ".png" else suffix
    return _Outputs(
        folder / f"{source.stem}{suffix}",
        folder / f"{source.stem}.json",
        tuple(folder / f"{source.stem}_{name}{part_suffix}" for name in PART_NAMES) if parts else (),
    )


def _run_file(
    source: Path,
    paths: _Outputs,
    recipe: "Recipe",
    model: "SmoothPlusSparse",
    weights: str,
    *,
    device: str,
    noise_std: float | None,
    scale: float | None,
    bits: Literal[8, 16],
    colour_to_grey: bool,
) -> tuple[bool, str]:
    """Whether it converged, and a line that says what became of the file."""
    import numpy as np

    from mrisps.atomic import write_text
    from mrisps.io.images import read_image, write_image
    from mrisps.reconstruction.problem import denoising_problem, super_resolution_problem, to_array
    from mrisps.reconstruction.reconstruct import provenance, reconstruct, slice_certificate

    image = read_image(source, color_to_grey=colour_to_grey)
    make = denoising_problem if recipe.task == "denoise" else super_resolution_problem
    problem = make(image, recipe, noise_std=noise_std, scale=scale, device=device)
    with memory_errors(device), SolverProgress(source.name, recipe.solver.tolerance) as progress:
        solved = reconstruct(
            problem,
            model,
            recipe,
            progress=lambda iteration, residual: progress.update(0, 1, iteration, residual),
        )
    certificate = slice_certificate(problem, solved)
    record = {
        "provenance": provenance(recipe, model, weights, source, device),
        "certificate": certificate,
        "output": {"name": paths.image.name, "parts": [path.name for path in paths.parts]},
    }
    text = json.dumps(record, indent=2, sort_keys=True, allow_nan=False)
    restored = to_array(solved.image).astype(np.float32)
    for path, part in zip(paths.parts, (solved.smooth, solved.sparse, solved.cost_map), strict=False):
        write_image(path, to_array(part).astype(np.float32))
    write_image(paths.image, restored, bits=bits)
    write_text(paths.sidecar, text + "\n")
    converged = solved.converged
    sizes = " x ".join(map(str, restored.shape))
    if restored.shape != image.shape:
        sizes = f"{' x '.join(map(str, image.shape))} -> {sizes}"
    seconds = float(str(certificate["seconds"]))
    return converged, (
        f"{paths.image}: {sizes}, {'converged' if converged else 'NOT CONVERGED'}, "
        f"{certificate['n_iterations']} iterations, {seconds:.1f} s"
    )
