"""Many files: the ledger of what is done, and the loop that does the rest.

A batch is `Run.write` for each input, in other processes. Every output says what it was made from (`provenance`), so the
output itself is the truth about what is done; the ledger is the index that spares opening it.

    Item --(a worker: reconstruct_item)--> DIR/NAME.h5, then DIR/NAME.json --> Entry --(here)--> a line of the ledger

Killed anywhere on this way, the next run finds either no output, and makes it, or a complete one, and takes it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from mrisps.campaign.batch_item import BATCH_FOLDER, Entry, Item, Job, items_of
from mrisps.campaign.loop import JournalRecord, Progress, Stop, Workers, loop
from mrisps.campaign.sources import SourceFile, WatchedFolder
from mrisps.journal import Journal

__all__ = ["BatchListener", "BatchResult", "open_ledger", "remove_partial_files", "run_batch"]


_FULL = "Nothing is half-written; make room and run the same command again"


def open_ledger(folder: Path) -> Journal:
    """The ledger of an output folder; one process at a time has it open, and with it the folder (JournalInUseError)."""
    return Journal(folder / BATCH_FOLDER / "ledger.jsonl", "batch", version=2)


def remove_partial_files(folder: Path) -> int:
    """Remove what killed processes have left half-written in an output folder; says how many files.

    Only what `mrisps.atomic` calls its temporary files, and only while nobody else works on the folder (see `open_ledger`).
    """
    partial = list(folder.rglob(".*.partial"))
    for path in partial:
        path.unlink(missing_ok=True)
    return len(partial)


class BatchListener(Protocol):
    """Who is told how a batch goes."""

    def waiting(self, items: Sequence[Item], /) -> None:
        """These files have been added to what is to be done."""

    def finished(self, item: Item, entry: Entry, /) -> None:
        """A file is done or has failed; it is in the ledger."""

    def tick(self, progress: Progress, /) -> None:
        """Some time has passed."""


@dataclass(frozen=True)
class BatchResult:
    """How a batch ended.

    Parameters
    ----------
    entries, known
        By name: of the files that a worker had, and of those that the ledger alone knew to be up to date.
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
        every = (*self.entries.values(), *self.known.values())
        return sum(entry.state == "done" and entry.n_converged < entry.n_slices for entry in every)

    @property
    def n_unusable(self) -> int:
        """Files with unusable slices, which were kept."""
        return sum(entry.verdict == "unusable" for entry in (*self.entries.values(), *self.known.values()))


def run_batch(
    sources: Sequence[SourceFile],
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
    first: dict[str, Path] = {}
    entries: dict[str, Entry] = {}
    full = ""

    def items(new: Sequence[SourceFile]) -> list[Item]:
        return [with_history(item) for item in items_of(job, new, first)]

    def with_history(item: Item) -> Item:
        record = ledger.get(item.name)
        if record is None:
            return replace(item, redo=redo, may_replace=overwrite)
        known = Entry.of(ledger.path, item.name, record)
        # An output that does not have the size that was written down was damaged since: it is not asked what it says.
        damaged = known.state == "done" and _size(item.output) != known.output_bytes
        may_replace = overwrite or known.made_of == str(item.source.path)
        return replace(item, redo=redo or damaged, made_of=known.made_of, may_replace=may_replace)

    def finished(item: Item, record: JournalRecord | None, error: Exception | None) -> None:
        nonlocal full
        entry = entries[item.name] = Entry.of(ledger.path, item.name, record or {})
        if entry.disk_full:
            stop.soon, full = True, f"stopped, the disk is full: {entry.error}. {_FULL}"
        listener.finished(item, entry)

    more = None if watched is None else lambda: items(watched.poll())
    end = loop(
        items(sources),
        ledger,
        workers,
        finished=finished,
        waiting=listener.waiting,
        tick=listener.tick,
        stop=stop,
        more=more,
    )
    known = {item.name: Entry.of(ledger.path, item.name, ledger.records[item.name]) for item in end.known}
    return BatchResult(entries, known, end.n_left, full)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
