"""Many files: what is to be done, what the ledger remembers of it, and the loop that does the rest.

A batch is `Run.write` for each input, in other processes. Every output says what it was made from (`provenance`), so the
output itself is the truth about what is done; the ledger is the index that spares opening it.

    Item --(a worker: reconstruct_item)--> DIR/NAME.h5, then DIR/NAME.json --> Entry --(here)--> a line of the ledger

Killed anywhere on this way, the next run finds either no output, and makes it, or a complete one, and takes it.
"""

import functools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Protocol, get_args

from mrisps.campaign.loop import Progress, Record, Stop, Workers, key_of, loop
from mrisps.campaign.record import record_file
from mrisps.campaign.sources import Source, sources_of
from mrisps.errors import FileError, MrispsError
from mrisps.io.files import sha256_of
from mrisps.journal import Journal
from mrisps.model import SmoothPlusSparse
from mrisps.reconstruction.choices import FROM_ZEROS
from mrisps.reconstruction.recipe import Recipe
from mrisps.reconstruction.run import Run
from mrisps.reconstruction.weights import Weights
from mrisps.sampling import read_mask

__all__ = [
    "BATCH_FOLDER",
    "BatchListener",
    "BatchResult",
    "Entry",
    "Item",
    "Job",
    "WatchedFolder",
    "items_of",
    "one_line",
    "open_ledger",
    "remove_partial_files",
    "run_batch",
]

BATCH_FOLDER = "_batch"
"""Ledger, logs and weights, inside the output folder."""

State = Literal["started", "done", "failed"]


@dataclass(frozen=True)
class Job:
    """What is the same for all files of a batch; small, because it goes to a worker with every file.

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
    mask
        A mask file, ``"from-zeros"``, or None: what the input states.
    undersample, scale, crop, device
        See :class:`mrisps.reconstruction.run.Run`.
    keep
        Write an output although the verdict on a slice is ``"unusable"``.
    threads
        Of the processor, for one worker.
    """

    recipe: Recipe
    weights_file: Path
    weights_name: str
    weights_sha256: str
    folder: Path
    mask: Path | Literal["from-zeros"] | None = None
    undersample: bool = False
    scale: float | None = None
    crop: bool = True
    device: str = "cpu"
    keep: bool = False
    threads: int = 1

    @classmethod
    def of(cls, run: Run, folder: Path, *, mask: Path | None = None, keep: bool = False, threads: int = 1) -> "Job":
        """The job of a run: makes the output folder, and keeps the weights in it for workers and for `mrisps verify`.

        Raises
        ------
        FileError
            The folder or the weights cannot be written.
        """
        folder = folder.absolute()
        fingerprint = run.weights.model.fingerprint()
        weights = folder / BATCH_FOLDER / f"weights-{fingerprint[:16]}.safetensors"
        try:
            (folder / BATCH_FOLDER / "logs").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(folder, f"cannot be used as output folder: {error.strerror}") from error
        if not weights.is_file():
            run.weights.model.save(weights)
        return cls(
            recipe=run.recipe,
            weights_file=weights,
            weights_name=run.weights.name,
            weights_sha256=fingerprint,
            folder=folder,
            mask=FROM_ZEROS if run.mask == FROM_ZEROS else None if mask is None else mask.absolute(),
            undersample=run.undersample,
            scale=run.scale,
            crop=run.crop,
            device=run.device,
            keep=keep,
            threads=threads,
        )

    def run(self, shape: tuple[int, int] | None = None) -> Run:
        """The run of an input with this (y, x) shape of k-space; without it a mask file is not looked at.

        Raises
        ------
        FileError
            The weights are not those of the batch, or the mask file does not fit.
        """
        mask = self.mask
        run = Run(
            self.recipe,
            _weights(self.weights_file, self.weights_name, self.weights_sha256),
            mask=None if isinstance(mask, Path) else mask,
            undersample=self.undersample,
            scale=self.scale,
            crop=self.crop,
            device=self.device,
        )
        return run.with_mask(read_mask(mask, shape)) if isinstance(mask, Path) and shape is not None else run

    def key(self, input_sha256: str) -> str:
        """Hash of everything that an output depends on."""
        return key_of(self._run_key, input_sha256)

    @functools.cached_property
    def _run_key(self) -> str:
        return key_of(self.run().key(""), sha256_of(self.mask) if isinstance(self.mask, Path) else None)


@functools.lru_cache(maxsize=2)
def _weights(path: Path, name: str, fingerprint: str) -> Weights:
    """The weights, read once in each process."""
    model = SmoothPlusSparse.load(path)
    if model.fingerprint() != fingerprint:
        raise FileError(path, f"is not the weights of this batch, SHA-256 {fingerprint[:12]}...")
    return Weights(name, model)


@dataclass(frozen=True)
class Entry:
    """A line of the ledger: what happened to one file.

    Parameters
    ----------
    state
        ``"started"``, ``"done"`` or ``"failed"``. The last line of a name counts; one that ends with ``"started"`` was interrupted.
    source
        The input.
    made_of
        The input of the output that is there; empty where this batch has made none.
    size, mtime_ns
        Of the input, in bytes and nanoseconds: equal ones spare reading the file again.
    input_sha256
        Empty where the input could not be read.
    made_with
        Hash of everything that the output depends on; see :meth:`Job.key`.
    output_bytes
        Size of the output; 0 unless it is done.
    seconds
        From the beginning of the work on the file to its end, by a clock that is never set.
    finished
        Date and time, for people.
    n_slices, n_converged
        Of the output.
    verdict
        The gravest of the output's slices; see :mod:`mrisps.reconstruction.verdict`.
    summary
        Iterations and the like, for people.
    memory_bytes
        The most memory that the worker ever had, this file and those before.
    reused
        The output was there and up to date.
    error
        Why it failed, on one line; empty otherwise.
    disk_full
        It failed because there is no room.
    """

    state: State
    source: str
    made_of: str = ""
    size: int = 0
    mtime_ns: int = 0
    input_sha256: str = ""
    made_with: str = ""
    output_bytes: int = 0
    seconds: float = 0.0
    finished: str = ""
    n_slices: int = 0
    n_converged: int = 0
    verdict: str = ""
    summary: str = ""
    memory_bytes: int = 0
    reused: bool = False
    error: str = ""
    disk_full: bool = False

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            kind = field.type if field.type in (int, float, bool) else str
            right = type(value) in ((int, float) if kind is float else (kind,))
            if not right or (field.name == "state" and value not in get_args(State)):
                raise ValueError(f"{field.name}: expected {field.type}, got {value!r}")

    @classmethod
    def of(cls, path: Path, name: str, record: Record) -> "Entry":
        """From the ledger.

        Raises
        ------
        FileError
            The record is damaged: names the field.
        """
        try:
            return cls(**record)  # type: ignore[arg-type]  # checked above
        except (TypeError, ValueError) as error:
            raise FileError(path, str(error), field=f"the record of {name}") from error

    def record(self) -> Record:
        """For the ledger: what is not as it would be anyway."""
        return {f.name: value for f in fields(self) if (value := getattr(self, f.name)) != f.default}


def open_ledger(folder: Path) -> Journal:
    """The ledger of an output folder; one process at a time has it open, and with it the folder.

    Raises
    ------
    JournalInUseError
        Another batch works on the folder.
    FileError
        It cannot be read or written.
    """
    return Journal(folder / BATCH_FOLDER / "ledger.jsonl", "batch", version=2)


# ------------------------------------------------------------------------------------------------------------ what is to be done


@dataclass(frozen=True)
class Item:
    """One file of a batch: a task of the loop.

    Parameters
    ----------
    job
        What is the same for all.
    name
        Of the output, relative to the output folder, with forward slashes; ends with ``.h5``.
    source
        The input.
    redo
        Make the output even if there is one that is up to date.
    made_of
        The input of the output that is there, as far as this batch has made it.
    may_replace
        An output that was not made by this batch may be replaced.
    refused
        Why it cannot be done at all; empty: it can.
    """

    job: Job
    name: str
    source: Source
    redo: bool = False
    made_of: str = ""
    may_replace: bool = False
    refused: str = ""

    @property
    def key(self) -> str:
        """In the ledger."""
        return self.name

    @property
    def output(self) -> Path:
        """The file that is made."""
        return self.job.folder / self.name

    def is_done(self, record: Record | None) -> bool:
        """Whether the ledger alone says so: same hashes, same size and time of the input, output there."""
        if record is None or self.redo or self.refused:
            return False
        try:
            entry = Entry(**record)  # type: ignore[arg-type]  # checked there
            status = self.source.path.stat()
            return (
                entry.state == "done"
                and entry.made_with == self.job.key(entry.input_sha256)
                and self.source.sha256 in (None, entry.input_sha256)
                and (status.st_size, status.st_mtime_ns) == (entry.size, entry.mtime_ns)
                and self.output.stat().st_size == entry.output_bytes
                and record_file(self.output).is_file()
            )
        except OSError:
            return False

    def entry(self, state: State, error: str = "") -> Entry:
        """What is said of the file before anything is known of it."""
        finished = "" if state == "started" else datetime.now(UTC).isoformat(timespec="seconds")
        return Entry(state, str(self.source.path), self.made_of, error=error, finished=finished)

    def begun(self) -> Record:
        """That a worker has it."""
        return self.entry("started").record()

    def failed(self, error: Exception) -> Record:
        """That its worker died, or could not be reached."""
        return self.entry("failed", one_line(error, self.source.path)).record()


def items_of(job: Job, sources: Sequence[Source], first: dict[str, Path] | None = None) -> list[Item]:
    """An item for each source; one that would have the output of an earlier one is refused.

    Parameters
    ----------
    job, sources
        See there.
    first
        Which input came first for each output; remembered from one call to the next.
    """
    first = {} if first is None else first
    items = []
    for source in sources:
        if source.path.is_relative_to(job.folder):  # an output of ours, in a folder inside that of the inputs
            continue
        path = Path(source.name)
        name = path.as_posix() if path.suffix.lower() in (".h5", ".hdf5") else path.with_suffix(".h5").as_posix()
        stem = str(path.with_suffix(""))  # a.h5 and a.hdf5 would share the JSON beside them
        if first.setdefault(stem, source.path) == source.path:
            items.append(Item(job, name, source))
        else:  # a name of its own in the ledger, so that it is not mixed up with the one that was first
            refused = f"would have the output of {first[stem]}, too"
            items.append(Item(job, f"{name}#{path.suffix}", source, refused=refused))
    return items


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

    def poll(self) -> list[Source]:
        """What has settled since the last look; a file that changes later comes again."""
        now = time.monotonic()
        settled = []
        for source in sources_of([self._folder], may_be_empty=True):
            try:
                status = source.path.stat()
            except OSError:  # gone again
                continue
            state = (status.st_size, status.st_mtime_ns)
            if self._taken.get(source.path) == state:
                continue
            if self._seen.get(source.path, ((-1, -1), now))[0] != state:
                self._seen[source.path] = (state, now)
            if now - self._seen[source.path][1] >= self._settle:
                del self._seen[source.path]
                self._taken[source.path] = state
                settled.append(source)
        return settled


def remove_partial_files(folder: Path) -> int:
    """Remove what killed processes have left half-written in an output folder; says how many files.

    Only what `mrisps.atomic` calls its temporary files, and only while nobody else works on the folder (see `open_ledger`).
    """
    n_removed = 0
    for path in folder.rglob(".*.partial"):
        path.unlink(missing_ok=True)
        n_removed += 1
    return n_removed


def one_line(error: BaseException, source: Path) -> str:
    """What an exception says, on one line, with the name of the input."""
    text = " ".join(str(error).split()) or type(error).__name__
    if not isinstance(error, MrispsError | ValueError | OSError):
        text = f"{type(error).__name__}: {text}"
    return text if isinstance(error, FileError) or text.startswith(str(source)) else f"{source}: {text}"


# -------------------------------------------------------------------------------------------------------------------- the loop


class BatchListener(Protocol):
    """Who is told how a batch goes."""

    def waiting(self, items: Sequence[Item], /) -> None:
        """These files have been added to what is to be done."""

    def started(self, item: Item, /) -> None:
        """A file was handed to a worker."""

    def finished(self, item: Item, entry: Entry, /) -> None:
        """A file is done or has failed; it is in the ledger."""

    def tick(self, progress: Progress, /) -> None:
        """Some time has passed."""


@dataclass(frozen=True)
class BatchResult:
    """How a batch ended.

    Parameters
    ----------
    entries
        By name, of the files that were handed to a worker and came back.
    known
        By name, of the files that the ledger alone knew to be up to date.
    n_left
        Files that were not begun, or given up.
    disk_full
        What to say if it ended because the disk is full; empty otherwise.
    """

    entries: Mapping[str, Entry]
    known: Mapping[str, Entry]
    n_left: int
    disk_full: str

    @property
    def failed(self) -> dict[str, Entry]:
        """Files without an output."""
        return {name: entry for name, entry in self.entries.items() if entry.state != "done"}

    @property
    def n_unconverged(self) -> int:
        """Files with slices that did not converge."""
        return sum(
            entry.state == "done" and entry.n_converged < entry.n_slices
            for entry in (*self.entries.values(), *self.known.values())
        )

    @property
    def n_unusable(self) -> int:
        """Files with unusable slices, which were kept."""
        return sum(entry.verdict == "unusable" for entry in (*self.entries.values(), *self.known.values()))


def run_batch(
    sources: Sequence[Source],
    job: Job,
    workers: Workers[Item],
    ledger: Journal,
    listener: BatchListener,
    *,
    stop: Stop,
    watched: WatchedFolder | None = None,
    redo: bool = False,
    overwrite: bool = False,
) -> BatchResult:
    """Do what is not done.

    Ends when all is done, when it is asked to by ``stop``, or when the disk is full: what is in work elsewhere is then finished,
    but no more is begun.

    Parameters
    ----------
    sources
        The files.
    job, workers, ledger, listener
        See there.
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
        The ledger cannot be written, or is damaged.
    MrispsError
        The cluster is gone.
    """
    ledger_path = ledger.path
    first: dict[str, Path] = {}

    def items(new: Sequence[Source]) -> list[Item]:
        return [with_history(item) for item in items_of(job, new, first)]

    def with_history(item: Item) -> Item:
        record = ledger.get(item.name)
        known = None if record is None else Entry.of(ledger_path, item.name, record)
        if known is None:
            return replace(item, redo=redo, may_replace=overwrite)
        # An output that does not have the size that was written down was damaged since: it is not asked what it says.
        damaged = known.state == "done" and _size(item.output) != known.output_bytes
        may_replace = overwrite or known.made_of == str(item.source.path)
        return replace(item, redo=redo or damaged, made_of=known.made_of, may_replace=may_replace)

    told = _Told(ledger_path, listener, stop)
    more = None if watched is None else lambda: items(watched.poll())
    end = loop(items(sources), ledger, workers, listener=told, stop=stop, more=more)
    known = {item.name: Entry.of(ledger_path, item.name, ledger.records[item.name]) for item in end.known}
    why = ""
    if told.full:
        why = (
            f"stopped, the disk is full: {told.full}. Nothing is half-written; make room and run the same command again"
        )
    return BatchResult(told.entries, known, end.n_left, why)


class _Told:
    """Between the loop and who listens: records become entries, and a full disk ends the batch."""

    def __init__(self, ledger: Path, listener: BatchListener, stop: Stop) -> None:
        self._ledger, self._listener, self._stop = ledger, listener, stop
        self.waiting, self.started, self.tick = listener.waiting, listener.started, listener.tick
        self.entries: dict[str, Entry] = {}
        self.full = ""

    def finished(self, item: Item, record: Record | None, error: Exception | None, /) -> None:
        """Remember the entry, and pass it on."""
        entry = Entry.of(self._ledger, item.name, record or {})
        self.entries[item.name] = entry
        if entry.disk_full:
            self._stop.soon, self.full = True, entry.error
        self._listener.finished(item, entry)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
