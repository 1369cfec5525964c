"""`mrisps recon`: k-space files to images."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mrisps.cli.common import UsageError, counted, memory_errors
from mrisps.cli.files import Done, do_each, input_files, make_folder, output_files, show_plan
from mrisps.cli.options import (
    ArrayOptions,
    KspaceOptions,
    RunOptions,
    SliceNumbers,
    WriteOptions,
    chosen_slices,
    option,
)
from mrisps.cli.terminal import SolverProgress
from mrisps.cli.to_dicom import IdentityOptions, write_dicom
from mrisps.status import in_words

if TYPE_CHECKING:
    from mrisps.reconstruction.run import Run
    from mrisps.reconstruction.slice_result import FileResult

__all__ = ["recon"]


def recon(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="IN",
            help="Files with k-space: fastMRI or ISMRMRD HDF5, Siemens twix .dat, BART .cfl, arrays; or folders of them.",
        ),
    ],
    writing: WriteOptions,
    options: RunOptions,
    kspace: KspaceOptions,
    arrays: ArrayOptions,
    identity: IdentityOptions,
    slices: SliceNumbers = None,
    keep_maps: Annotated[
        bool,
        option(
            "--keep-maps", "Keep coil maps in DIR/maps, and take those that are there for the same data and settings."
        ),
    ] = False,
    report: Annotated[
        bool, option("--report", "Also write DIR/NAME.html: all images to look at in a browser, as `mrisps view`.")
    ] = False,
    dicom: Annotated[
        Path | None, option("--dicom DIR2", "Also write DICOM files to DIR2/NAME, as `mrisps to-dicom` does.")
    ] = None,
) -> None:
    """Reconstruct undersampled k-space.

    Every input file becomes DIR/NAME.h5 with the data set `reconstruction` (what fastmri.evaluate reads), `image` if it is
    complex, `smooth`, `sparse` and `cost_map`, all in the units of the input, and the attributes `provenance` and
    `certificate`. A file that fails does not stop the others.

    The verdict says whether an image can be right: `good`, `check` or `unusable`, with reasons. An unusable image is not
    written unless --keep is given.

    Exit code 0: every slice is finished, none is unusable. 1: a file failed, a slice did not converge, or is unusable. 2: the
    command is wrong, nothing was done.
    """
    from mrisps.campaign.sources import KSPACE_SUFFIXES

    output = writing.output
    choice, layout = chosen_slices(slices), arrays.layout()
    maps_folder = output / "maps" if keep_maps else None
    run = replace(kspace.run(options), slices=choice, layout=layout, maps_folder=maps_folder)
    files = input_files(inputs, KSPACE_SUFFIXES)
    named = {path: path.name if path.suffix.lower() in (".h5", ".hdf5") else f"{path.stem}.h5" for path in files}
    pages = {path: output / f"{path.stem}.html" for path in files if report}
    outputs = [[output / named[path], *([pages[path]] if report else [])] for path in files]
    output_files(files, outputs, writing.overwrite)
    if dicom is None and identity != IdentityOptions():
        raise UsageError("--reference, --anonymous: need --dicom, too")
    if writing.dry_run:
        show_plan(run, files)
        return
    make_folder(output)

    def do(source: Path) -> Done:
        page = pages.get(source)
        who = None if dicom is None else identity
        done = _reconstruct(run, source, output / named[source], page, writing.keep, who)
        if dicom is not None:
            write_dicom(done.path, dicom / source.stem, identity, writing.keep, overwrite=writing.overwrite)
        line = _summary(done) + (f"; report {page}" if page else "")
        return Done(line, done.verdict, done.n_finished == len(done.certificates), done.notes)

    do_each(run, files, do, writing.accept_unconverged)


def _reconstruct(
    run: "Run", source: Path, destination: Path, page: Path | None, keep: bool, identity: IdentityOptions | None
) -> "FileResult":
    """Reconstruct one file, and write its report.

    Where DICOM is wanted, an unknown patient is found before anything is computed.
    """
    from mrisps.io.dicom_exam import exam_of
    from mrisps.reconstruction.grey_image import GreyImage
    from mrisps.reports.results import write_pages

    with (
        run.open(source) as file,
        memory_errors(run.device),
        SolverProgress(source.name, run.recipe.solver.tolerance) as progress,
    ):
        if identity is not None and not isinstance(file, GreyImage):
            exam_of(source, file.header, identity.reference, identity.anonymous)
        done = run.write(file, destination, keep=keep, progress=progress.update)
    if page is not None:
        write_pages(destination, page)
    return done


def _summary(done: "FileResult") -> str:
    """One line for a file."""
    n_slices = len(done.certificates)
    iterations = [int(str(certificate["n_iterations"])) for certificate in done.certificates]
    span = f"{min(iterations)} to {max(iterations)}" if min(iterations) != max(iterations) else f"{iterations[0]}"
    seconds = sum(float(str(certificate["seconds"])) for certificate in done.certificates)
    facts = done.certificates[0].get("mask")
    sampling = ""
    if isinstance(facts, Mapping):
        acceleration = facts["realised_acceleration"]
        sampling = ", fully sampled" if acceleration == 1 else f", acceleration {acceleration:.2f}"
    state = slices_state(n_slices, in_words([certificate.get("status") for certificate in done.certificates]))
    return f"{done.path}: {done.verdict.level.upper()}: {state}, {span} iterations, {seconds:.1f} s{sampling}"


def slices_state(n_slices: int, state: str) -> str:
    """How many slices there are, and what became of them."""
    return f"{counted(n_slices, 'slice')} {state}"
