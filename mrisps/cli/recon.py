"""`mrisps recon`: k-space files to images."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mrisps.cli.common import (
    FAILURE,
    fail,
    make_folder,
    memory_errors,
    named,
    note,
    one_line,
    result,
)
from mrisps.cli.files import input_files, output_files
from mrisps.cli.options import (
    AcceptUnconverged,
    ArrayAxes,
    ArrayVariable,
    Device,
    Keep,
    MaskFile,
    NoCrop,
    Output,
    Overwrite,
    RecipeName,
    Scale,
    SetValues,
    SliceNumbers,
    Threads,
    Uncentred,
    Undersample,
    Weights,
    chosen_run,
)
from mrisps.cli.terminal import SolverProgress
from mrisps.errors import MrispsError

if TYPE_CHECKING:
    from mrisps.reconstruction.run import Run
    from mrisps.reconstruction.slice_result import FileResult, SliceResult

__all__ = ["recon"]

FOLDER_SUFFIXES = (".h5", ".hdf5", ".mrd", ".dat", ".cfl")
"""What is taken from a folder: arrays only when they are named."""


def _output_name(path: Path) -> str:
    return path.name if path.suffix.lower() in (".h5", ".hdf5") else f"{path.stem}.h5"


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
    threads: Threads = None,
    mask: MaskFile = None,
    undersample: Undersample = False,
    scale: Scale = None,
    changes: SetValues = None,
    slices: SliceNumbers = None,
    no_crop: NoCrop = False,
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
    keep: Keep = False,
    overwrite: Overwrite = False,
    accept_unconverged: AcceptUnconverged = False,
) -> None:
    """Reconstruct undersampled k-space.

    Data of several coils need a recipe for them, such as `multicoil`. Every input file becomes DIR/NAME.h5 with the data
    set `reconstruction` (what fastmri.evaluate reads), `image` if it is complex, `smooth`, `sparse` and `cost_map`, all in
    the units of the input, and the attributes `provenance` and `certificate`. A
    file that fails does not stop the others.

    The verdict says whether an image can be right: `good`, `check` or `unusable`, with reasons. An unusable image is not
    written unless --keep is given.

    Exit code 0: every slice converged, none is unusable. 1: a file failed, a slice did not converge, or is unusable. 2: the
    command is wrong, nothing was done.
    """
    run = chosen_run(
        "mri",
        recipe_name,
        changes,
        weights=weights,
        device=device,
        mask=mask,
        undersample=undersample,
        scale=scale,
        crop=not no_crop,
        slices=slices,
        axes=axes,
        variable=variable,
        uncentred=uncentred,
        maps_folder=output / "maps" if keep_maps else None,
    )
    files = input_files(inputs, FOLDER_SUFFIXES)
    outputs = [[output / _output_name(path), *([output / f"{path.stem}.html"] if report else [])] for path in files]
    output_files(files, outputs, overwrite)
    make_folder(output)

    failures: list[str] = []
    n_unconverged = n_unusable = 0
    for source, (destination, *page) in zip(files, outputs, strict=True):
        try:
            done = _reconstruct(run, source, destination, mask, page[0] if page else None, keep)
        except (MrispsError, ValueError) as error:
            failure = named(source, error)
            fail(failure)
            failures.append(one_line(failure))
            continue
        for line in done.notes:
            note(f"note: {source.name}: {line}")
        for line in done.verdict.reasons:
            note(f"{done.verdict.level}: {source.name}: {line}")
        n_unconverged += done.n_converged < len(done.certificates)
        n_unusable += done.verdict.level == "unusable"
        result(_summary(done, page))
    if len(files) > 1:
        unconverged = f", {n_unconverged} of them with slices that did NOT CONVERGE" if n_unconverged else ""
        note(f"{len(files) - len(failures)} of {len(files)} files reconstructed{unconverged}; {len(failures)} failed")
        for line in failures:
            note(f"  failed: {line}")
    if failures or n_unusable or (n_unconverged and not accept_unconverged):
        raise typer.Exit(FAILURE)


def _reconstruct(
    run: "Run", source: Path, destination: Path, mask: str | None, page: Path | None, keep: bool
) -> "FileResult":
    """Reconstruct one file, and write its report: the middle slice in pictures."""
    from mrisps.atomic import write_text
    from mrisps.io.files import sha256_of
    from mrisps.io.kspace_file import KspaceFile
    from mrisps.reconstruction.result import report_page
    from mrisps.sampling import read_mask

    with (
        run.open(source) as file,
        memory_errors(run.device),
        SolverProgress(source.name, run.recipe.solver.tolerance) as progress,
    ):
        if isinstance(file, KspaceFile) and mask not in (None, "from-zeros"):
            run = run.with_mask(read_mask(Path(str(mask)), file.shape))
        slices, sha256 = run.chosen(file), sha256_of(source)
        middle: list[SliceResult] = []

        def watch(made: "SliceResult") -> None:
            if page is not None and made.index == slices[len(slices) // 2]:
                middle.append(made)

        done = run.write(file, destination, input_sha256=sha256, keep=keep, progress=progress.update, watch=watch)
        if page is not None:
            record = {**run.resolved(file).record(file, input_sha256=sha256), "slices": list(slices)}
            write_text(page, report_page(middle[0], done.certificates, slices, record, source.name, done.notes))
    return done


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
    verdict = done.verdict.level.upper()
    return f"{done.path}: {verdict}: {slices} {state}, {span} iterations, {seconds:.1f} s{sampling}{written}"
