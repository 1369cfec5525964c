"""`mrisps batch`: a folder or a manifest of k-space files to images, with a ledger, so that it can be killed and goes on."""

import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from mrisps.cli.common import (
    FAILURE,
    INTERRUPTED,
    UsageError,
    fail,
    make_folder,
    note,
    usage_errors,
)
from mrisps.cli.options import (
    AcceptUnconverged,
    Device,
    Output,
    Overwrite,
    RecipeName,
    Scale,
    SetValues,
    Weights,
    check_mask_option,
    checked_device,
    chosen_recipe,
    chosen_weights,
)
from mrisps.cli.terminal import BatchProgress
from mrisps.errors import MrispsError
from mrisps.journal import JournalInUseError
from mrisps.reconstruction.choices import FROM_ZEROS

if TYPE_CHECKING:
    from mrisps.campaign.batch import BatchResult, Item, WatchedFolder
    from mrisps.campaign.loop import Record, Stop, Workers
    from mrisps.campaign.sources import Source
    from mrisps.model import SmoothPlusSparse
    from mrisps.reconstruction.recipe import Recipe
    from mrisps.reports.run import Thresholds

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
            help="Do only what is missing, has failed, or whose input, recipe or weights changed; or do everything again.",
        ),
    ] = True,
    root: Annotated[
        Path | None,
        typer.Option("--root", metavar="DIR", help="Folder that the paths of a manifest are below. Default: its own."),
    ] = None,
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
    mask: Annotated[
        str | None,
        typer.Option("--mask", metavar="FILE|from-zeros", help="As for `mrisps recon`."),
    ] = None,
    undersample: Annotated[
        bool, typer.Option("--undersample", help="Undersample fully sampled k-space with the recipe's mask rule first.")
    ] = False,
    scale: Scale = None,
    changes: SetValues = None,
    no_crop: Annotated[
        bool,
        typer.Option("--no-crop", help="Keep the whole field of view; do not cut to the size in the file's header."),
    ] = False,
    device: Device = "cpu",
    thresholds_file: Annotated[
        Path | None,
        typer.Option(
            "--thresholds", metavar="FILE", help="TOML with the thresholds of the report's flags; see docs/batch.md."
        ),
    ] = None,
    report: Annotated[bool, typer.Option("--report/--no-report", help="Write DIR/report.html at the end.")] = True,
    overwrite: Overwrite = False,
    accept_unconverged: AcceptUnconverged = False,
) -> None:
    """Reconstruct many files, resumably, in parallel.

    Each file is what `mrisps recon` makes of it. Written to DIR: NAME.h5 and NAME.json (what it was made from), report.html, and
    DIR/_batch with the ledger, a log for each file, and the weights. One command at a time may work on DIR. Killed at any moment,
    the same command goes on; a file that failed does not stop the others and is tried again then.

    Ctrl-C: the files in work are finished, no others are begun; again: they are given up.

    Exit code 0: every slice converged. 1: a file failed, or a slice did not converge, or the disk is full. 2: the command is
    wrong, nothing was done. 130: interrupted.
    """
    from mrisps.campaign.batch import BATCH_FOLDER, Job, open_ledger, remove_partial_files, run_batch
    from mrisps.campaign.loop import Stop

    recipe = chosen_recipe(recipe_name, changes, "mri")
    with usage_errors():
        check_mask_option(mask)
        if undersample and recipe.mask is None:
            raise UsageError(f"--undersample: recipe {recipe.name} has no mask rule")
        if undersample and mask is not None:
            raise UsageError("--undersample and --mask: give one of them, not both")
        if scale is not None and not 0 < scale < float("inf"):
            raise UsageError(f"--scale: expected a number > 0, got {scale}")
        sources, watched = _files(source, root, include_test, watch, settle, output)
        thresholds = _thresholds(thresholds_file)
    devices, n_threads = _devices(device, workers, threads, on_cluster=scheduler is not None)
    chosen = chosen_weights(weights, recipe, recipe_name)
    model = chosen.model
    folder = output.absolute()
    make_folder(folder / BATCH_FOLDER / "logs")
    job = Job(
        recipe=recipe,
        weights_file=_keep_weights(model, folder / BATCH_FOLDER),
        weights_name=chosen.name,
        weights_sha256=model.fingerprint(),
        folder=folder,
        mask=FROM_ZEROS if mask == FROM_ZEROS else None if mask is None else Path(mask).absolute(),
        undersample=undersample,
        scale=scale,
        crop=not no_crop,
        device=devices[0],
        threads=n_threads,
    )
    stop = Stop()
    try:
        with open_ledger(folder) as ledger:
            remove_partial_files(folder)
            with _stopping(stop, watch), BatchProgress() as progress, _team(devices, n_threads, scheduler) as team:
                done = run_batch(
                    sources,
                    job,
                    team,
                    ledger,
                    progress,
                    stop=stop,
                    watched=watched,
                    redo=not resume,
                    overwrite=overwrite,
                )
            if stop.now and scheduler is None:  # the processes are gone, and leave what they were writing
                remove_partial_files(folder)
            _print_summary(done, folder)
            if report:
                write_report(folder, ledger.records, recipe, thresholds)
                note(f"report: {output / 'report.html'}")
    except JournalInUseError as error:
        raise UsageError(f"{output}: another batch works on this folder") from error
    if stop.now or (done.n_left and stop.soon and not watch):
        raise typer.Exit(INTERRUPTED)
    if done.disk_full or done.failed or (done.n_unconverged and not accept_unconverged):
        raise typer.Exit(FAILURE)


def _files(
    source: Path, root: Path | None, include_test: bool, watch: bool, settle: float, output: Path
) -> "tuple[list[Source], WatchedFolder | None]":
    """What there is to do, and where more comes from."""
    from mrisps.campaign.batch import WatchedFolder
    from mrisps.campaign.sources import sources_of

    if not source.is_dir() and source.exists() and source.suffix != ".toml":
        raise UsageError(f"{source}: expected a folder or a manifest (.toml); for single files there is `mrisps recon`")
    place = source if source.is_dir() else source.parent if root is None else root
    if output.resolve() == place.resolve():
        raise UsageError(f"{output}: is the folder of the inputs; choose another --output")
    if watch and not source.is_dir():
        raise UsageError("--watch: is for folders, not for manifests")
    sources = sources_of([source], root=root, include_test=include_test, may_be_empty=watch)
    return ([], WatchedFolder(source, settle)) if watch else (sources, None)


def _thresholds(path: Path | None) -> "Thresholds":
    from mrisps.reports.run import Thresholds

    return Thresholds() if path is None else Thresholds.read(path)


def _devices(device: str, workers: int | None, threads: int | None, *, on_cluster: bool) -> tuple[list[str], int]:
    """Where each worker computes, and its threads: threads times workers are the cores."""
    n_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if on_cluster:  # what the cluster's machines have is not known here
        n_workers = workers or n_cores
        return [device] * n_workers, threads or 1
    device = checked_device(device)
    if device == "cpu":
        n_workers = workers or n_cores
        return [device] * n_workers, threads or max(1, n_cores // n_workers)
    if ":" in device:
        if workers not in (None, 1):
            raise UsageError(
                f"--workers {workers}: one for each GPU, and {device} is one; use --device cuda for all of them"
            )
        return [device], threads or n_cores
    import torch

    n_gpus = torch.cuda.device_count()
    if workers is not None and workers > n_gpus:
        raise UsageError(f"--workers {workers}: one for each GPU, and there are {n_gpus}")
    n_workers = workers or n_gpus
    return [f"cuda:{index}" for index in range(n_workers)], threads or max(1, n_cores // n_workers)


def _keep_weights(model: "SmoothPlusSparse", folder: Path) -> Path:
    """The weights in the output folder, for workers and for `mrisps verify`."""
    path = folder / f"weights-{model.fingerprint()[:16]}.safetensors"
    if not path.is_file():
        model.save(path)
    return path


@contextmanager
def _team(devices: Sequence[str], threads: int, scheduler: str | None) -> "Iterator[Workers[Item]]":
    """The workers; whatever happens, none is left."""
    from mrisps.campaign.workers import DaskWorkers, LocalWorkers

    team = LocalWorkers(devices, threads) if scheduler is None else DaskWorkers(scheduler, len(devices), threads)
    try:
        yield team
    except BaseException:
        team.close(now=True)
        raise
    team.close(now=False)


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
    left = f", {done.n_left} not begun or given up" if done.n_left else ""
    note(
        f"{len(made) - n_reused} files reconstructed, {len(done.known) + n_reused} were up to date{unconverged}; "
        f"{len(done.failed)} failed{left}"
    )
    for name, entry in done.failed.items():
        note(f"  failed: {entry.error} (log: {log_file(folder, name)})")
    if done.disk_full:
        fail(MrispsError(done.disk_full))


def write_report(folder: Path, ledger: "Mapping[str, Record]", recipe: "Recipe", thresholds: "Thresholds") -> None:
    """Write DIR/report.html from the ledger and the JSON beside each output."""
    from mrisps.atomic import write_text
    from mrisps.campaign.batch import Entry
    from mrisps.reconstruction.record import read_record_file, record_file
    from mrisps.reports.html import render
    from mrisps.reports.run import RunFile, run_report

    files, failures = [], []
    for name, record in sorted(ledger.items()):
        output = folder / name
        entry = Entry.of(folder, name, record)
        if entry.state != "done":
            failures.append((name, entry.error or "was interrupted"))
            continue
        try:
            facts = read_record_file(record_file(output))
        except MrispsError as error:
            failures.append((name, str(error)))
            continue
        files.append(RunFile(name, output, facts, entry.seconds, entry.memory_bytes))
    write_text(folder / "report.html", render(run_report(files, failures, recipe.name, thresholds)))
