"""`mrisps batch`: a folder or a manifest of k-space files to images, with a ledger, so that it can be killed and goes on."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from mrisps.cli.common import FAILURE, INTERRUPTED, UsageError, fail, note, usage_errors
from mrisps.cli.compare import ManifestRoot
from mrisps.cli.options import (
    AcceptUnconverged,
    Device,
    Keep,
    MaskFile,
    NoCrop,
    Output,
    Overwrite,
    RecipeName,
    Scale,
    SetValues,
    Undersample,
    Weights,
    chosen_run,
)
from mrisps.cli.terminal import BatchProgress
from mrisps.errors import MrispsError
from mrisps.journal import JournalInUseError
from mrisps.reconstruction.choices import FROM_ZEROS

if TYPE_CHECKING:
    from mrisps.campaign.batch import BatchResult
    from mrisps.campaign.loop import Stop
    from mrisps.campaign.sources import SourceFile

__all__ = ["batch"]


def batch(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="IN_DIR|MANIFEST",
            help="Folder with k-space files (fastMRI or ISMRMRD HDF5, Siemens twix .dat, BART .cfl), or a manifest (.toml, see "
            "`mrisps manifest`), whose checksums are then checked.",
        ),
    ],
    recipe_name: RecipeName,
    output: Output,
    weights: Weights = None,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers", min=1, help="Processes. Default: one for each core; with --device cuda one for each GPU."
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            "--threads", min=1, help="Threads of each process. Default: cores / workers. They change the last digits."
        ),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            "--scheduler",
            metavar="ADDRESS|local",
            help="Work on a Dask cluster: its scheduler's address, such as tcp://host:8786; or `local`, a cluster of --workers "
            "processes here. Needs the extra `batch`.",
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume/--no-resume",
            help="Do only what is missing, has failed, or whose input, recipe, weights, options or software changed; or do "
            "everything again.",
        ),
    ] = True,
    root: ManifestRoot = None,
    include_test: Annotated[
        bool, typer.Option("--include-test", help="Also the files of a manifest's split `test`, which are held out.")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Go on as files arrive in the folder, until Ctrl-C.")] = False,
    settle: Annotated[
        float,
        typer.Option(
            "--settle",
            min=0,
            metavar="SECONDS",
            help="With --watch: a file is complete when it has not changed for so long.",
        ),
    ] = 5.0,
    mask: MaskFile = None,
    undersample: Undersample = False,
    scale: Scale = None,
    changes: SetValues = None,
    no_crop: NoCrop = False,
    device: Device = "cpu",
    thresholds_file: Annotated[
        Path | None,
        typer.Option(
            "--thresholds",
            metavar="FILE",
            help="TOML with the thresholds of the report's flags; see docs/many-files.md.",
        ),
    ] = None,
    report: Annotated[bool, typer.Option("--report/--no-report", help="Write DIR/report.html at the end.")] = True,
    overwrite: Overwrite = False,
    keep: Keep = False,
    accept_unconverged: AcceptUnconverged = False,
) -> None:
    """Reconstruct many files, resumably, in parallel.

    Each file is what `mrisps recon` makes of it. Written to DIR: NAME.h5 and NAME.json (what it was made from), report.html, and
    DIR/_batch with the ledger, a log for each file, and the weights. One command at a time may work on DIR. Killed at any moment,
    the same command goes on; a file that failed does not stop the others and is tried again then.

    Ctrl-C: the files in work are finished, no others are begun; again: they are given up.

    Exit code 0: every slice converged, none is unusable. 1: a file failed, a slice did not converge or is unusable, or the disk is
    full. 2: the command is wrong, nothing was done. 130: interrupted.
    """
    from mrisps.campaign.batch import open_ledger, remove_partial_files, run_batch
    from mrisps.campaign.batch_item import Job
    from mrisps.campaign.batch_report import write_report
    from mrisps.campaign.loop import Stop
    from mrisps.campaign.sources import WatchedFolder
    from mrisps.campaign.workers import DaskWorkers, LocalWorkers, devices_of
    from mrisps.reports.flags import Thresholds

    with usage_errors():
        sources = _sources(source, root, include_test, watch, output)
        thresholds = Thresholds() if thresholds_file is None else Thresholds.read(thresholds_file)
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
    )
    with usage_errors():
        devices, n_threads = devices_of(run.device, workers, threads, on_cluster=scheduler is not None)
    mask_file = None if mask in (None, FROM_ZEROS) else Path(str(mask))
    job = Job.of(run, output, mask=mask_file, keep=keep, threads=n_threads)
    stop = Stop()
    try:
        with open_ledger(job.folder) as ledger:
            remove_partial_files(job.folder)
            with _stopping(stop, watch), BatchProgress() as progress:
                done = run_batch(
                    [] if watch else sources,
                    job,
                    LocalWorkers(devices, n_threads)
                    if scheduler is None
                    else DaskWorkers(scheduler, len(devices), n_threads),
                    ledger,
                    progress,
                    stop=stop,
                    watched=WatchedFolder(source, settle) if watch else None,
                    redo=not resume,
                    overwrite=overwrite,
                )
            if stop.now and scheduler is None:  # the processes are gone, and leave what they were writing
                remove_partial_files(job.folder)
            _print_summary(done, job.folder)
            if report:
                write_report(job.folder, ledger.records, run.recipe.name, thresholds)
                note(f"report: {output / 'report.html'}")
    except JournalInUseError as error:
        raise UsageError(f"{output}: another batch works on this folder") from error
    if stop.now or (done.n_left and stop.soon and not watch and not done.disk_full):
        raise typer.Exit(INTERRUPTED)
    if done.disk_full or done.failed or done.n_unusable or (done.n_unconverged and not accept_unconverged):
        raise typer.Exit(FAILURE)


def _sources(source: Path, root: Path | None, include_test: bool, watch: bool, output: Path) -> "list[SourceFile]":
    """What there is to do."""
    from mrisps.campaign.sources import sources_of

    if not source.is_dir() and source.exists() and source.suffix != ".toml":
        raise UsageError(f"{source}: expected a folder or a manifest (.toml); for single files there is `mrisps recon`")
    place = source if source.is_dir() else source.parent if root is None else root
    if output.resolve() == place.resolve():
        raise UsageError(f"{output}: is the folder of the inputs; choose another --output")
    if watch and not source.is_dir():
        raise UsageError("--watch: is for folders, not for manifests")
    return sources_of([source], root=root, include_test=include_test, may_be_empty=watch)


@contextmanager
def _stopping(stop: "Stop", watch: bool) -> Iterator[None]:
    """Ctrl-C asks the batch to end; a second one ends it."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        if stop.soon:
            stop.now = True
            return
        stop.soon = True
        note("ending after the files in work; Ctrl-C again to give them up" if not watch else "the watch ends")

    if threading.current_thread() is not threading.main_thread():  # only there can a handler be set
        yield
        return
    earlier = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, earlier)


def _print_summary(done: "BatchResult", folder: Path) -> None:
    """What was done, what was not, and why."""
    from mrisps.campaign.batch_work import log_file

    made = [entry for entry in done.entries.values() if entry.state == "done"]
    n_reused = sum(entry.reused for entry in made)
    unconverged = f", {done.n_unconverged} of them with slices that did NOT CONVERGE" if done.n_unconverged else ""
    unusable = f", {done.n_unusable} of them with slices that are UNUSABLE" if done.n_unusable else ""
    left = f", {done.n_left} not begun or given up" if done.n_left else ""
    note(
        f"{len(made) - n_reused} files reconstructed, {len(done.known) + n_reused} were up to date{unconverged}{unusable}; "
        f"{len(done.failed)} failed{left}"
    )
    for name, entry in done.failed.items():
        note(f"  failed: {entry.error} (log: {log_file(folder, name)})")
    if done.disk_full:
        fail(MrispsError(done.disk_full))
