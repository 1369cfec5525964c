"""`mrisps recon`: k-space files to images."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mrisps.cli.common import (
    FAILURE,
    UsageError,
    fail,
    make_folder,
    memory_errors,
    note,
    one_line,
    result,
    usage_errors,
)
from mrisps.cli.options import (
    AcceptUnconverged,
    ArrayAxes,
    ArrayVariable,
    Device,
    Output,
    Overwrite,
    RecipeName,
    Scale,
    SetValues,
    Uncentred,
    Weights,
    checked_device,
    chosen_layout,
    chosen_recipe,
    chosen_weights,
    input_files,
    output_files,
)
from mrisps.cli.terminal import SolverProgress
from mrisps.errors import FileError, MrispsError

if TYPE_CHECKING:
    from mrisps.io.arrays import ArrayLayout
    from mrisps.model import SmoothPlusSparse
    from mrisps.reconstruction.recipe import Recipe
    from mrisps.reconstruction.reconstruct import FileResult
    from mrisps.sampling import SamplingMask

__all__ = ["check_mask_option", "recon"]

FROM_ZEROS = "from-zeros"
FOLDER_SUFFIXES = (".h5", ".hdf5", ".mrd", ".dat", ".cfl")
"""What is taken from a folder: arrays only when they are named."""


def _output_name(path: Path) -> str:
    return path.name if path.suffix.lower() in (".h5", ".hdf5") else f"{path.stem}.h5"


@dataclasses.dataclass(frozen=True)
class SliceChoice:
    """Slices as ``3``, ``0:10``, ``5:`` or ``:10`` (the end is not included)."""

    start: int
    stop: int | None

    @classmethod
    def parse(cls, text: str) -> "SliceChoice":
        """From the option's text."""
        first, colon, last = text.partition(":")
        numbers = [part.strip() for part in (first, last)]
        if not all(part == "" or (part.isascii() and part.isdigit()) for part in numbers) or (
            not colon and not numbers[0]
        ):
            raise UsageError(f"--slices: expected a number or START:STOP, counted from 0, got {text!r}")
        start = int(numbers[0] or 0)
        stop = start + 1 if not colon else int(numbers[1]) if numbers[1] else None
        if stop is not None and stop <= start:
            raise UsageError(f"--slices: {text!r} has no slice in it")
        return cls(start, stop)

    def of(self, path: Path, n_slices: int) -> range:
        """The slices of a file that has so many."""
        stop = n_slices if self.stop is None else self.stop
        if self.start >= n_slices or stop > n_slices:
            last = "" if stop == self.start + 1 else f" to {stop - 1}"
            raise FileError(path, f"has the slices 0 to {n_slices - 1}, not {self.start}{last}", field="slices")
        return range(self.start, stop)


def recon(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="IN",
            help="Files with k-space: fastMRI or ISMRMRD HDF5, Siemens twix .dat, BART .cfl, arrays; or folders of them.",
        ),
    ],
    recipe_name: RecipeName,
    output: Output,
    weights: Weights = None,
    device: Device = "cpu",
    mask: Annotated[
        str | None,
        typer.Option(
            "--mask",
            metavar="FILE|from-zeros",
            help="Which samples were acquired, for files that do not say it: .npy or .json (see `mrisps mask`), or "
            "`from-zeros`: the columns of k-space that are not zero.",
        ),
    ] = None,
    undersample: Annotated[
        bool, typer.Option("--undersample", help="Undersample fully sampled k-space with the recipe's mask rule first.")
    ] = False,
    scale: Scale = None,
    changes: SetValues = None,
    slices: Annotated[
        str | None,
        typer.Option(
            "--slices", metavar="N|START:STOP", help="Only these slices, counted from 0; STOP is not included."
        ),
    ] = None,
    no_crop: Annotated[
        bool,
        typer.Option("--no-crop", help="Keep the whole field of view; do not cut to the size in the file's header."),
    ] = False,
    axes: ArrayAxes = None,
    variable: ArrayVariable = None,
    uncentred: Uncentred = False,
    keep_maps: Annotated[
        bool,
        typer.Option(
            "--keep-maps",
            help="Keep coil maps in DIR/maps, and take those that are there for the same data and settings.",
        ),
    ] = False,
    report: Annotated[
        bool, typer.Option("--report", help="Also write DIR/NAME.html: images of the middle slice, mask, certificates.")
    ] = False,
    overwrite: Overwrite = False,
    accept_unconverged: AcceptUnconverged = False,
) -> None:
    """Reconstruct undersampled k-space.

    Data of several coils need a recipe for them, such as `multicoil`. Every input file becomes DIR/NAME.h5 with the data
    set `reconstruction` (what fastmri.evaluate reads), `image` if it is complex, `smooth`, `sparse` and `cost_map`, all in
    the units of the input (of its noise, where that was whitened), and the attributes `provenance` and `certificate`. A
    file that fails does not stop the others.

    Exit code 0: every slice converged. 1: a file failed, or a slice did not converge. 2: the command is wrong, nothing
    was done.
    """
    recipe = chosen_recipe(recipe_name, changes, "mri")
    choice = None if slices is None else SliceChoice.parse(slices)
    with usage_errors():
        check_mask_option(mask)
        if undersample and recipe.mask is None:
            raise UsageError(f"--undersample: recipe {recipe.name} has no mask rule")
        if undersample and mask is not None:
            raise UsageError("--undersample and --mask: give one of them, not both")
        if scale is not None and not 0 < scale < float("inf"):
            raise UsageError(f"--scale: expected a number > 0, got {scale}")
        layout = chosen_layout(axes, variable, uncentred)
    files = input_files(inputs, FOLDER_SUFFIXES)
    outputs = [[output / _output_name(path), *([output / f"{path.stem}.html"] if report else [])] for path in files]
    output_files(files, outputs, overwrite)
    device = checked_device(device)
    model, weights_name = chosen_weights(weights, recipe, recipe_name)
    make_folder(output)

    failures: list[str] = []
    n_unconverged = 0
    for source, (destination, *page) in zip(files, outputs, strict=True):
        try:
            done, given = _reconstruct(
                source,
                destination,
                recipe,
                model,
                weights_name,
                mask=mask,
                undersample=undersample,
                scale=scale,
                crop=not no_crop,
                choice=choice,
                layout=layout,
                device=device,
                maps_folder=output / "maps" if keep_maps else None,
            )
            for line in done.notes:
                note(f"note: {source.name}: {line}")
            if page:
                _write_report(source, done, page[0], recipe, given, undersample, layout)
        except (MrispsError, ValueError) as error:
            failure = _named(source, error)
            fail(failure)
            failures.append(one_line(failure))
            continue
        n_missed = len(done.certificates) - done.n_converged
        n_unconverged += n_missed > 0
        result(_summary(done, page))
    if len(files) > 1:
        _print_totals(len(files), failures, n_unconverged)
    if failures or (n_unconverged and not accept_unconverged):
        raise typer.Exit(FAILURE)


def check_mask_option(mask: str | None) -> None:
    """Refuse a --mask that is neither `from-zeros` nor a file that may have one."""
    if mask is None or mask == FROM_ZEROS:
        return
    path = Path(mask)
    if path.suffix not in (".npy", ".json"):
        raise UsageError(f"--mask: expected a .npy or .json file or {FROM_ZEROS}, got {mask!r}")
    if not path.is_file():
        raise UsageError(f"--mask: {path}: {'is not a regular file' if path.exists() else 'does not exist'}")


def _reconstruct(
    source: Path,
    destination: Path,
    recipe: "Recipe",
    model: "SmoothPlusSparse",
    weights: str,
    *,
    mask: str | None,
    undersample: bool,
    scale: float | None,
    crop: bool,
    choice: SliceChoice | None,
    layout: "ArrayLayout | None",
    device: str,
    maps_folder: Path | None,
) -> "tuple[FileResult, SamplingMask | None]":
    from mrisps.io.open import open_slices
    from mrisps.reconstruction.reconstruct import mask_from_zeros, reconstruct_file
    from mrisps.sampling import read_mask

    with open_slices(source, layout) as file:
        n_slices, shape = file.n_slices, file.shape
    slices = range(n_slices) if choice is None else choice.of(source, n_slices)
    given = None
    if mask == FROM_ZEROS:
        given = mask_from_zeros(source, slices, layout)
    elif mask is not None:
        given = read_mask(Path(mask), shape)
    with memory_errors(device), SolverProgress(source.name, recipe.solver.tolerance) as progress:
        done = reconstruct_file(
            source,
            destination,
            recipe,
            model,
            weights=weights,
            mask=given,
            undersample=undersample,
            scale=scale,
            crop=crop,
            slices=slices,
            layout=layout,
            device=device,
            maps_folder=maps_folder,
            progress=progress.update,
        )
    return done, given


def _named(source: Path, error: BaseException) -> MrispsError:
    """The error with the name of the file, where it does not have one."""
    if isinstance(error, FileError):
        return error
    text = one_line(error)
    return MrispsError(text) if text.startswith(str(source)) else FileError(source, text)


def _summary(done: "FileResult", page: Sequence[Path]) -> str:
    """One line for a file."""
    certificates = done.certificates
    n_slices = len(certificates)
    n_missed = n_slices - done.n_converged
    state = (
        "converged"
        if n_missed == 0
        else f"NOT CONVERGED: {n_missed} of {n_slices}"
        if n_slices > 1
        else "NOT CONVERGED"
    )
    iterations = [int(str(certificate["n_iterations"])) for certificate in certificates]
    span = f"{min(iterations)} to {max(iterations)}" if min(iterations) != max(iterations) else f"{iterations[0]}"
    seconds = sum(float(str(certificate["seconds"])) for certificate in certificates)
    facts = certificates[0].get("mask")
    sampling = ""
    if isinstance(facts, dict):
        acceleration = facts["realised_acceleration"]
        sampling = ", fully sampled" if acceleration == 1 else f", acceleration {acceleration:.2f}"
    written = f"; report {page[0]}" if page else ""
    slices = f"{n_slices} slice{'s' if n_slices > 1 else ''}"
    return f"{done.path}: {slices} {state}, {span} iterations, {seconds:.1f} s{sampling}{written}"


def _print_totals(n_files: int, failures: Sequence[str], n_unconverged: int) -> None:
    unconverged = f", {n_unconverged} of them with slices that did NOT CONVERGE" if n_unconverged else ""
    note(f"{n_files - len(failures)} of {n_files} files reconstructed{unconverged}; {len(failures)} failed")
    for failure in failures:
        note(f"  failed: {failure}")


def _write_report(
    source: Path,
    done: "FileResult",
    page: Path,
    recipe: "Recipe",
    mask: "SamplingMask | None",
    undersample: bool,
    layout: "ArrayLayout | None",
) -> None:
    """Show the middle slice of what was written, and the certificates of all."""
    import json

    import numpy as np

    from mrisps.atomic import write_text
    from mrisps.io.hdf5 import Hdf5Reader
    from mrisps.io.open import open_slices
    from mrisps.quality.metrics import center_crop
    from mrisps.reconstruction.problem import mri_problem, to_array
    from mrisps.reports.html import render
    from mrisps.reports.reconstruction import ReconstructionContent, reconstruction_report

    position = len(done.certificates) // 2
    with Hdf5Reader(done.path) as file:
        names = ("image" if file.has("image") else "reconstruction", "smooth", "sparse", "cost_map")
        image, smooth, sparse, cost_map = (file.read(name, position) for name in names)
        provenance = json.loads(str(file.attributes()[0]["provenance"]))
    slices = provenance["slices"]
    with open_slices(source, layout) as raw:
        acquisition = raw.read_slice(slices[position])
    problem = mri_problem(acquisition, recipe, mask=mask, undersample=undersample, scale=1.0)
    zero_filled = np.abs(to_array(problem.operator.adjoint(problem.y), (image.shape[0], image.shape[1])))
    target = acquisition.target
    if target is not None and all(n >= m for n, m in zip(target.shape, image.shape, strict=True)):
        target = center_crop(target, (image.shape[0], image.shape[1]))
    content = ReconstructionContent(
        name=source.name,
        slice_name=f"slice {slices[position]}",
        image=image,
        smooth=smooth,
        sparse=sparse,
        cost_map=cost_map,
        zero_filled=zero_filled.astype(np.float32),
        target=target,
        mask=None if problem.mask is None else problem.mask.array2d(),
        certificates=done.certificates,
        certificate=done.certificates[position],
        slices=slices,
        provenance=provenance,
        notes=done.notes,
    )
    write_text(page, render(reconstruction_report(content)))
