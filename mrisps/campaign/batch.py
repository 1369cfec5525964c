"""Many files: what is to be done, the work on one of them, and the loop that keeps workers busy and writes the ledger.

A batch is `Run.write` for each input, in other processes. Every output says what it was made from (`provenance`), so the
output itself is the truth about what is done; the ledger is the index that spares opening it.

    Item --(a worker: reconstruct_item)--> DIR/NAME.h5, then DIR/NAME.json --> Outcome --(here)--> a line of the ledger

Killed anywhere on this way, the next run finds either no output, and makes it, or a complete one, and takes it.
"""

import concurrent.futures
import errno
import functools
import hashlib
import json
import resource
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Protocol

import torch

from mrisps.campaign.ledger import Entry, Ledger
from mrisps.errors import FileError, MrispsError
from mrisps.io.json_text import JsonValue
from mrisps.io.manifest import Manifest, sha256_of
from mrisps.io.open import open_slices
from mrisps.model import SmoothPlusSparse
from mrisps.reconstruction.recipe import Recipe
from mrisps.reconstruction.record import read_record, record_file, write_record_file
from mrisps.reconstruction.run import Run, mask_from_zeros
from mrisps.reconstruction.weights import Weights
from mrisps.sampling import SamplingMask, read_mask

__all__ = [
    "BATCH_FOLDER",
    "SUFFIXES",
    "BatchResult",
    "Item",
    "Job",
    "Listener",
    "Outcome",
    "Stop",
    "Tell",
    "WatchedFolder",
    "WorkerDiedError",
    "Workers",
    "is_up_to_date",
    "items_of_folder",
    "items_of_manifest",
    "log_file",
    "peak_memory",
    "reconstruct_item",
    "remove_partial_files",
    "run_batch",
]

SUFFIXES = (".h5", ".hdf5", ".mrd", ".dat", ".cfl")
"""What is taken from a folder."""
BATCH_FOLDER = "_batch"
"""Ledger, lock, logs and weights, inside the output folder."""
_TICK_SECONDS = 0.25
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

Tell = Callable[[int, int, int, float], None]
"""Progress within a file: slice, number of slices, iteration, residual."""


class WorkerDiedError(MrispsError):
    """The process that worked on a file ended without an answer: killed, out of memory, or crashed."""


@dataclass(frozen=True)
class Job:
    """What is the same for all files of a batch.

    Parameters
    ----------
    recipe
        See :class:`mrisps.reconstruction.run.Run`.
    weights_file
        ``.safetensors``, where every worker can read it.
    weights_name, weights_sha256
        For the provenance; the hash is the model's fingerprint.
    folder
        For the outputs; absolute, and the same for every worker.
    mask_file, zeros_are_unacquired
        Where the mask comes from if not from the input: a file, or the zeros in the data.
    undersample, scale, crop, device
        See :class:`mrisps.reconstruction.run.Run`.
    threads
        Of the processor, for one worker.
    """

    recipe: Recipe
    weights_file: Path
    weights_name: str
    weights_sha256: str
    folder: Path
    mask_file: Path | None = None
    zeros_are_unacquired: bool = False
    undersample: bool = False
    scale: float | None = None
    crop: bool = True
    device: str = "cpu"
    threads: int = 1

    @functools.cached_property
    def options_sha256(self) -> str:
        """Hash of what an output depends on besides input, recipe and weights."""
        mask = "zeros" if self.zeros_are_unacquired else None if self.mask_file is None else sha256_of(self.mask_file)
        return hashlib.sha256(json.dumps([mask, self.undersample, self.scale, self.crop]).encode()).hexdigest()

    @functools.cached_property
    def recipe_sha256(self) -> str:
        """Hash of the recipe."""
        return self.recipe.sha256()

    def given_mask(self, source: Path) -> SamplingMask | None:
        """The mask for a file, as `mrisps recon` takes it."""
        if self.mask_file is None:
            if not self.zeros_are_unacquired:
                return None
            with open_slices(source) as file:
                return mask_from_zeros(file, range(file.n_slices))
        with open_slices(source) as file:
            return read_mask(self.mask_file, file.shape)


@dataclass(frozen=True)
class Item:
    """One file of a batch.

    Parameters
    ----------
    name
        Of the output, relative to the output folder, with forward slashes; ends with ``.h5``.
    source
        The input.
    size
        Of the input, for estimates.
    sha256
        What the input has to have; None: anything.
    redo
        Make the output even if there is one that is up to date.
    may_replace
        An output that was not made by this batch may be replaced.
    refused
        Why it cannot be done at all; empty: it can.
    """

    name: str
    source: Path
    size: int = 0
    sha256: str | None = None
    redo: bool = False
    may_replace: bool = False
    refused: str = ""


@dataclass(frozen=True)
class Outcome:
    """What became of one file.

    Parameters
    ----------
    entry
        For the ledger.
    reused
        The output was there and up to date.
    disk_full
        It failed because there is no room.
    summary
        Iterations and the like, for people.
    notes
        What a user should know.
    """

    entry: Entry
    reused: bool = False
    disk_full: bool = False
    summary: str = ""
    notes: tuple[str, ...] = ()


class Workers(Protocol):
    """Where the work is done: processes of this machine, or a Dask cluster."""

    def capacity(self) -> int:
        """How many files may be handed over before one is finished."""

    def submit(self, item: Item) -> "Future[Outcome]":
        """Hand a file over."""

    def progress(self) -> Sequence[tuple[str, int, int, int]]:
        """(name, slice, number of slices, iteration) of what is in work, as far as known."""

    def close(self, *, now: bool) -> None:
        """Let the workers go: when they have finished, or now."""


class Listener(Protocol):
    """Who is told how a batch goes."""

    def waiting(self, n_files: int, n_bytes: int) -> None:
        """So many files have been added to what is to be done."""

    def started(self, item: Item) -> None:
        """A file was handed to a worker."""

    def finished(self, item: Item, outcome: Outcome) -> None:
        """A file is done or has failed; it is in the ledger."""

    def tick(self, progress: Sequence[tuple[str, int, int, int]]) -> None:
        """Some time has passed."""


@dataclass
class Stop:
    """How a running batch is asked to end.

    Parameters
    ----------
    soon
        Begin no more files.
    now
        Do not wait for those in work, either.
    """

    soon: bool = False
    now: bool = False


# ------------------------------------------------------------------------------------------------------------ what is to be done


def items_of_folder(folder: Path) -> list[Item]:
    """The files with k-space directly in a folder, in alphabetical order.

    Raises
    ------
    FileError
        The folder cannot be read.
    """
    try:
        paths = sorted(path for path in folder.absolute().iterdir() if _is_input(path))
        return _without_clashes([Item(_output_name(path.name), path, path.stat().st_size) for path in paths])
    except OSError as error:
        raise FileError(folder, f"cannot be read: {error.strerror}") from error


def items_of_manifest(manifest: Manifest, root: Path, *, include_test: bool) -> list[Item]:
    """The files of a manifest below ``root``, in its order; outputs lie in the same subfolders. Held-out ones on demand only."""
    chosen = manifest.select(include_test=include_test)
    return _without_clashes(
        [
            Item(_output_name(file.path), root.absolute() / file.path, file.size or 0, file.sha256)
            for file in chosen.files
        ]
    )


class WatchedFolder:
    """A folder that fills: a file is there when its size and time have not changed for a while.

    Parameters
    ----------
    folder
        The folder.
    settle_seconds
        For so long.
    """

    def __init__(self, folder: Path, settle_seconds: float) -> None:
        self._folder = folder
        self._settle = settle_seconds
        self._seen: dict[Path, tuple[tuple[int, int], float]] = {}  # path -> state, and since when on a clock never set
        self._taken: dict[Path, tuple[int, int]] = {}
        self._names: dict[str, Path] = {}

    def poll(self) -> list[Item]:
        """What has settled since the last look; a file that changes later comes again."""
        now = time.monotonic()
        items = []
        for item in items_of_folder(self._folder):
            try:
                status = item.source.stat()
            except OSError:  # gone again
                continue
            state = (status.st_size, status.st_mtime_ns)
            if self._taken.get(item.source) == state:
                continue
            if self._seen.get(item.source, ((-1, -1), now))[0] != state:
                self._seen[item.source] = (state, now)
            if now - self._seen[item.source][1] < self._settle:
                continue
            del self._seen[item.source]
            self._taken[item.source] = state
            first = self._names.setdefault(_stem(item.name), item.source)
            items.append(item if item.refused or first == item.source else _refused(item, first))
        return items


def is_up_to_date(entry: Entry | None, item: Item, job: Job) -> bool:
    """Whether the ledger alone says that nothing has to be done: same hashes, same size and time of the input, output there."""
    if (
        entry is None
        or entry.state != "done"
        or entry.recipe_sha256 != job.recipe_sha256
        or entry.weights_sha256 != job.weights_sha256
        or entry.options_sha256 != job.options_sha256
        or item.sha256 not in (None, entry.input_sha256)
    ):
        return False
    output = job.folder / item.name
    try:
        status = item.source.stat()
        return (
            (status.st_size, status.st_mtime_ns) == (entry.size, entry.mtime_ns)
            and output.stat().st_size == entry.output_bytes
            and record_file(output).is_file()
        )
    except OSError:
        return False


def remove_partial_files(folder: Path) -> int:
    """Remove what killed processes have left half-written in an output folder; says how many files.

    Only what `mrisps.atomic` calls its temporary files, and only while nobody else works on the folder (see `FolderLock`).
    """
    n_removed = 0
    for path in folder.rglob(".*.partial"):
        path.unlink(missing_ok=True)
        n_removed += 1
    return n_removed


def _is_input(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def _output_name(name: str) -> str:
    path = Path(name)
    return path.as_posix() if path.suffix.lower() in (".h5", ".hdf5") else path.with_suffix(".h5").as_posix()


def _without_clashes(items: Sequence[Item]) -> list[Item]:
    first: dict[str, Path] = {}
    return [
        item
        if first.setdefault(_stem(item.name), item.source) == item.source
        else _refused(item, first[_stem(item.name)])
        for item in items
    ]


def _stem(name: str) -> str:
    return str(Path(name).with_suffix(""))  # a.h5 and a.hdf5 would share the JSON beside them


def _refused(item: Item, first: Path) -> Item:
    # a name of its own in the ledger, so that it is not mixed up with the one that was first
    return replace(item, name=f"{item.name}#{item.source.suffix}", refused=f"would have the output of {first}, too")


# -------------------------------------------------------------------------------------------------------- the work on one of them


def reconstruct_item(job: Job, item: Item, tell: Tell | None = None) -> Outcome:
    """Reconstruct one file; whatever goes wrong with it is in the outcome, and in its log, never an exception.

    Runs in a worker. The order matters: the output first, then the JSON beside it, and the ledger after both.
    """
    begun = time.monotonic()
    entry = Entry(
        item.name,
        "failed",
        str(item.source),
        recipe_sha256=job.recipe_sha256,
        weights_sha256=job.weights_sha256,
        options_sha256=job.options_sha256,
    )
    outcome = Outcome(entry)
    try:
        with _Log(job.folder, item) as log:
            try:
                outcome = _reconstruct(job, item, entry, log, tell)
            except Exception as error:
                log.write("".join(traceback.format_exception(error)).rstrip())
                raise
            for line in outcome.notes:
                log.write(f"note: {line}")
            log.write(f"done: {'was up to date' if outcome.reused else outcome.summary}")
    except Exception as error:  # the boundary: nothing that one file does may stop the others
        outcome = Outcome(replace(entry, error=_one_line(error, item.source)), disk_full=_is_disk_full(error))
    done = replace(
        outcome.entry,
        seconds=round(time.monotonic() - begun, 3),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        memory_bytes=peak_memory(),
    )
    return replace(outcome, entry=done)


def _reconstruct(job: Job, item: Item, entry: Entry, log: "_Log", tell: Tell | None) -> Outcome:
    torch.set_num_threads(job.threads)
    source, output = item.source, job.folder / item.name
    before = _status(source)
    if item.sha256 is not None:
        found = sha256_of(source)
        if found != item.sha256:
            raise FileError(source, f"has the SHA-256 {found[:12]}..., the manifest says {item.sha256[:12]}...")
    mask = job.given_mask(source)
    reused = False
    if output.exists():
        reused = not item.redo and _was_made_from(output, source, job, mask)
        if not reused and not item.may_replace:
            raise FileError(
                output, "exists, and is not what this batch would have made of its input: use --overwrite to replace it"
            )
    notes: tuple[str, ...] = ()
    if not reused:
        model = _model(job.weights_file, job.weights_sha256)
        output.parent.mkdir(parents=True, exist_ok=True)
        log.write(f"recipe {job.recipe.name}, {job.threads} threads, {job.device}")
        run = Run(
            job.recipe,
            Weights(job.weights_name, model),
            mask=mask,
            undersample=job.undersample,
            scale=job.scale,
            crop=job.crop,
            device=job.device,
        )
        done = run.write(source, output, progress=_telling(tell, log))
        notes = done.notes
        if _status(source) != before:
            output.unlink(missing_ok=True)
            raise FileError(source, "changed while it was being read: is it still being written?")
    write_record_file(output, source)
    record = read_record(output)
    n_converged = sum(certificate.get("status") == "converged" for certificate in record.certificates)
    iterations = [number for c in record.certificates if isinstance(number := c.get("n_iterations"), int)]
    size, mtime_ns = before
    entry = replace(
        entry,
        state="done",
        size=size,
        mtime_ns=mtime_ns,
        input_sha256=record.text("input", "sha256"),
        output_bytes=output.stat().st_size,
        n_slices=len(record.certificates),
        n_converged=n_converged,
    )
    span = (
        f"{min(iterations)} to {max(iterations)}"
        if len(set(iterations)) > 1
        else f"{iterations[0]}"
        if iterations
        else "?"
    )
    return Outcome(entry, reused=reused, summary=f"{span} iterations", notes=notes)


@functools.lru_cache(maxsize=2)
def _model(path: Path, fingerprint: str) -> SmoothPlusSparse:
    """The weights, read once in each process."""
    model = SmoothPlusSparse.load(path)
    if model.fingerprint() != fingerprint:
        raise FileError(path, f"is not the weights of this batch, SHA-256 {fingerprint[:12]}...")
    return model


def _was_made_from(output: Path, source: Path, job: Job, mask: SamplingMask | None) -> bool:
    """Whether an output that is there says that it is what would be made now."""
    try:
        record = read_record(output)
        said = record.part("options").get("mask")
        expected: list[JsonValue] = [
            job.recipe_sha256,
            job.weights_sha256,
            sha256_of(source),
            job.undersample,
            job.crop,
            "from the recipe" if job.scale is None else job.scale,
            None if mask is None else mask.sha256,
        ]
        found: list[JsonValue] = [
            record.text("recipe", "sha256"),
            record.text("weights", "sha256"),
            record.text("input", "sha256"),
            *(record.part("options").get(key) for key in ("undersample", "crop", "scale")),
            said.get("sha256") if isinstance(said, dict) else None,
        ]
        with open_slices(source) as file:
            return found == expected and len(record.certificates) == file.n_slices
    except FileError:
        return False


class _Log:
    """The log of one file: what was said, and how long after the beginning."""

    def __init__(self, folder: Path, item: Item) -> None:
        self._path = log_file(folder, item.name)
        self._header = f"{item.source} -> {folder / item.name}"
        self._begun = time.monotonic()

    def __enter__(self) -> "_Log":
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("a", encoding="utf-8", errors="surrogateescape")
            self.write(f"{datetime.now(UTC).isoformat(timespec='seconds')} {self._header}")
        except OSError as error:
            raise FileError(self._path, f"cannot be written: {error.strerror}") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, text: str) -> None:
        try:
            self._file.write(f"[{time.monotonic() - self._begun:9.2f}] {text}\n")
            self._file.flush()
        except OSError as error:
            raise FileError(self._path, f"cannot be written: {error.strerror}") from error


def log_file(folder: Path, name: str) -> Path:
    """The log of an output."""
    return folder / BATCH_FOLDER / "logs" / f"{name}.log"


def _telling(tell: Tell | None, log: _Log) -> Tell:
    """Pass progress on, and log the end of each slice."""
    last = (0, 0, 0, 0.0)

    def report(position: int, n_slices: int, iteration: int, residual: float) -> None:
        nonlocal last
        if last[0] != position:
            log.write(f"slice {last[0] + 1} of {last[1]}: {last[2]} iterations, residual {last[3]:.1e}")
        last = (position, n_slices, iteration, residual)
        if tell is not None:
            tell(position, n_slices, iteration, residual)

    return report


def peak_memory() -> int:
    """The most memory that this process ever had, in bytes."""
    try:
        with Path("/proc/self/status").open(encoding="ascii") as lines:
            for line in lines:
                if line.startswith("VmHWM:"):
                    return 1024 * int(line.split()[1])
    except OSError:  # not Linux
        pass
    # What Linux would say here begins with what the parent had when it started this process.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _status(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise FileError(path, f"cannot be read: {error.strerror}") from error
    return status.st_size, status.st_mtime_ns


def _one_line(error: BaseException, source: Path) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if not isinstance(error, MrispsError | ValueError | OSError):
        text = f"{type(error).__name__}: {text}"
    return text if isinstance(error, FileError) or text.startswith(str(source)) else f"{source}: {text}"


def _is_disk_full(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            return True
        error = error.__cause__ or error.__context__
    return False


# -------------------------------------------------------------------------------------------------------------------- the loop


@dataclass(frozen=True)
class BatchResult:
    """How a batch ended.

    Parameters
    ----------
    outcomes
        Of the files that were handed to a worker and came back.
    n_skipped, n_skipped_unconverged
        Files that the ledger alone knew to be up to date, and those of them that have slices that did not converge.
    n_left
        Files that were not begun, or given up.
    disk_full
        What to say if it ended because the disk is full; empty otherwise.
    """

    outcomes: tuple[Outcome, ...]
    n_skipped: int
    n_skipped_unconverged: int
    n_left: int
    disk_full: str

    @property
    def failed(self) -> list[Outcome]:
        """Files without an output."""
        return [outcome for outcome in self.outcomes if outcome.entry.state != "done"]

    @property
    def n_unconverged(self) -> int:
        """Files with slices that did not converge."""
        return self.n_skipped_unconverged + sum(
            outcome.entry.state == "done" and outcome.entry.n_converged < outcome.entry.n_slices
            for outcome in self.outcomes
        )


def run_batch(
    items: Sequence[Item],
    job: Job,
    workers: Workers,
    ledger: Ledger,
    listener: Listener,
    *,
    stop: Stop,
    watched: WatchedFolder | None = None,
    redo: bool = False,
    overwrite: bool = False,
) -> "BatchResult":
    """Do what is not done.

    Ends when all is done, when it is asked to by ``stop``, or when the disk is full: what is in work elsewhere is then finished,
    but no more is begun.

    Parameters
    ----------
    items
        The files.
    job, workers, ledger, listener
        See there. The caller has the lock of the folder.
    stop
        Set from outside, by Ctrl-C.
    watched
        Where more files come from, until it is stopped.
    redo
        Make again what is up to date.
    overwrite
        Replace outputs that this batch has not made.

    Raises
    ------
    FileError
        The ledger cannot be written.
    MrispsError
        The cluster is gone.
    """
    outcomes: list[Outcome] = []
    n_skipped = n_skipped_unconverged = 0
    queue: deque[Item] = deque()
    running: dict[Future[Outcome], Item] = {}
    full: Outcome | None = None

    def take(new: Sequence[Item]) -> None:
        nonlocal n_skipped, n_skipped_unconverged
        wanted = []
        for item in new:
            known = ledger.entries.get(item.name)
            if not redo and is_up_to_date(known, item, job):
                n_skipped += 1
                n_skipped_unconverged += known is not None and known.n_converged < known.n_slices
                continue
            # An output that does not have the size that was written down was damaged since: it is not asked what it says.
            damaged = (
                known is not None and known.state == "done" and _size(job.folder / item.name) != known.output_bytes
            )
            wanted.append(
                replace(
                    item, redo=redo or damaged, may_replace=overwrite or ledger.has_made(item.name, str(item.source))
                )
            )
        queue.extend(wanted)
        if wanted:
            listener.waiting(len(wanted), sum(item.size for item in wanted))

    def finish(item: Item, outcome: Outcome) -> None:
        ledger.append(outcome.entry)
        outcomes.append(outcome)
        listener.finished(item, outcome)

    take(items)
    try:
        while True:
            if stop.now:
                break
            ending = stop.soon or full is not None
            if watched is not None and not ending:
                take(watched.poll())
            while queue and not ending and len(running) < workers.capacity():
                item = queue.popleft()
                begun = Entry(item.name, "started", str(item.source))
                if item.refused:
                    finish(item, Outcome(replace(begun, state="failed", error=f"{item.source}: {item.refused}")))
                    continue
                ledger.append(begun, sync=False)
                running[workers.submit(item)] = item
                listener.started(item)
            if not running and (ending or (not queue and watched is None)):
                break
            if running:
                ready, _ = concurrent.futures.wait(
                    running, timeout=_TICK_SECONDS, return_when=concurrent.futures.FIRST_COMPLETED
                )
            else:
                ready = set()
                time.sleep(_TICK_SECONDS)
            for future in ready:
                item = running.pop(future)
                outcome = _outcome(future, item, job)
                if outcome.disk_full:
                    full = outcome
                finish(item, outcome)
            listener.tick(workers.progress())
    except BaseException:
        workers.close(now=True)
        raise
    workers.close(now=stop.now)
    why = ""
    if full is not None:
        why = f"stopped, the disk is full: {full.entry.error}. Nothing is half-written; make room and run the same command again"
    return BatchResult(tuple(outcomes), n_skipped, n_skipped_unconverged, len(queue) + len(running), why)


def _outcome(future: "Future[Outcome]", item: Item, job: Job) -> Outcome:
    try:
        return future.result()
    except concurrent.futures.CancelledError as error:
        raise MrispsError(f"{item.source}: the work was cancelled: is the scheduler gone?") from error
    except Exception as error:  # the worker died, or a cluster could not deliver: this file has failed, not the others
        text = _one_line(error, item.source)
        try:
            with _Log(job.folder, item) as log:
                log.write(text)
        except FileError:
            pass
        failed = Entry(item.name, "failed", str(item.source), error=text)
        return Outcome(replace(failed, finished=datetime.now(UTC).isoformat(timespec="seconds")))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
