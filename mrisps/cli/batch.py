"""`mrisps batch`: a folder or a manifest of k-space files to images, with a ledger, so that it can be killed and goes on."""

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from mrisps.cli.common import FAILURE, INTERRUPTED, UsageError, counted, fail, note, result, usage_errors
from mrisps.cli.files import described, show_plan
from mrisps.cli.options import IncludeTest, KspaceOptions, ManifestRoot, RunOptions, WriteOptions, option
from mrisps.cli.recon import slices_state
from mrisps.cli.terminal import Display, time_left
from mrisps.errors import MrispsError
from mrisps.journal import JournalInUseError

if TYPE_CHECKING:
    from mrisps.campaign.batch import BatchResult
    from mrisps.campaign.batch_item import Entry, Item
    from mrisps.campaign.loop import Progress, Stop
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
    writing: WriteOptions,
    options: RunOptions,
    kspace: KspaceOptions,
    workers: Annotated[
        int | None,
        option("--workers N", "Processes. Default: one for each core; with --device cuda one for each GPU.", least=1),
    ] = None,
    scheduler: Annotated[
        str | None,
        option(
            "--scheduler ADDRESS|local",
            "Work on a Dask cluster: its scheduler's address, such as tcp://host:8786; or `local`, a cluster of --workers "
            "processes here. Needs the extra `batch`.",
        ),
    ] = None,
    resume: Annotated[
        bool,
        option(
            "--resume/--no-resume",
            "Do only what is missing, has failed, or whose input, recipe, weights, options or software changed; or do "
            "everything again.",
        ),
    ] = True,
    root: ManifestRoot = None,
    include_test: IncludeTest = False,
    watch: Annotated[bool, option("--watch", "Go on as files arrive in the folder, until Ctrl-C.")] = False,
    settle: Annotated[
        float,
        option("--settle SECONDS", "With --watch: a file is complete when it has not changed for so long.", least=0),
    ] = 5.0,
    thresholds_file: Annotated[
        Path | None,
        option("--thresholds FILE", "TOML with the thresholds of the report's flags; see docs/many-files.md."),
    ] = None,
    report: Annotated[
        bool, option("--report/--no-report", "Write a page beside each output, and DIR/report.html at the end.")
    ] = True,
) -> None:
    """Reconstruct many files, resumably, in parallel.

    Each file is what `mrisps recon` makes of it. Written to DIR: NAME.h5, NAME.json (what it was made from) and NAME.html (to look
    at), report.html, and DIR/_batch with the ledger, a log for each file, and the weights. One command at a time may work on DIR.
    Killed at any moment, the same command goes on; a file that failed does not stop the others and is tried again then.

    Ctrl-C: the files in work are finished, no others are begun; again: they are given up.

    Exit code 0: every slice is finished, none unusable. 1: a file failed, a slice did not converge or is unusable, or the disk is
    full. 2: the command is wrong, nothing was done. 130: interrupted.
    """
    from mrisps.campaign.batch import open_ledger, remove_partial_files, run_batch
    from mrisps.campaign.batch_item import Job
    from mrisps.campaign.batch_report import write_report
    from mrisps.campaign.loop import Stop
    from mrisps.campaign.sources import WatchedFolder
    from mrisps.campaign.workers import DaskWorkers, LocalWorkers, devices_of
    from mrisps.reports.flags import Thresholds

    output = writing.output
    with usage_errors():
        sources = _sources(source, root, include_test, watch, output)
        thresholds = Thresholds() if thresholds_file is None else Thresholds.read(thresholds_file)
    run = kspace.run(options)
    with usage_errors("workers"):
        devices, n_threads = devices_of(run.device, workers, options.threads, on_cluster=scheduler is not None)
    working = f"{counted(len(devices), 'worker')} of {counted(n_threads, 'thread')}"
    if writing.dry_run:
        show_plan(run, [file.path for file in sources], len(devices), working)
        return
    note(described(run, len(sources), working))
    job = Job.of(run, output, keep=writing.keep, threads=n_threads, pages=report)
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
                    overwrite=writing.overwrite,
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
    if done.disk_full or done.failed or done.n_unusable or (done.n_unconverged and not writing.accept_unconverged):
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


class BatchProgress(Display):
    """How far a batch is: a line for each file that is finished; on a terminal also what each worker is at.

    The estimated end goes by the bytes of the inputs, which are better known than their times.
    """

    _n_files = _n_finished = 0
    _bytes_left = _bytes_made = 0

    def waiting(self, items: "Sequence[Item]", /) -> None:
        """Count what is to be done."""
        self._n_files += len(items)
        self._bytes_left += sum(item.source.size for item in items)

    def finished(self, item: "Item", entry: "Entry", /) -> None:
        """Print the line of a file."""
        self._n_finished += 1
        self._bytes_left -= item.source.size
        if entry.state == "done" and not entry.reused:  # others take no time worth mentioning
            self._bytes_made += item.source.size
        left = self.left()
        line = f"[{self._n_finished}/{self._n_files}] {entry_line(item.name, entry)}{left and f'; {left}'}"
        self.say(line, result)
        self.end(item.name)

    def tick(self, progress: "Progress", /) -> None:
        """Move the bars."""
        if self.is_drawn:
            for name, position, n_slices, iteration in progress:
                self.show(name, f"slice {position + 1}/{n_slices}  iteration {iteration}", position, n_slices or None)
        state = f"{self._n_finished} of {self._n_files} finished  {self.left()}"
        self.show("files", state.rstrip(), self._n_finished, self._n_files or None)

    def left(self) -> str:
        """How much longer, in words; empty where nobody knows."""
        return time_left(self.seconds(), self._bytes_made, self._bytes_made + self._bytes_left)


def entry_line(name: str, entry: "Entry") -> str:
    """What became of a file of a batch, on one line."""
    if entry.state != "done":
        return f"{name}: FAILED: {entry.error}"
    n_missed = entry.n_slices - entry.n_converged
    done = f"NOT CONVERGED: {n_missed} of {entry.n_slices}" if n_missed else "finished"
    state = f"{entry.verdict.upper()}: {slices_state(entry.n_slices, done)}"
    return (
        f"{name}: {f'was up to date: {state}' if entry.reused else f'{state}, {entry.summary}, {entry.seconds:.1f} s'}"
    )


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
