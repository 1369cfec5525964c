"""The work on one file of a batch, in a worker: its log, its output, and the JSON beside it."""

import errno
import json
import logging
import resource
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import torch

from mrisps.campaign.batch_item import BATCH_FOLDER, Entry, Item, one_line
from mrisps.campaign.loop import JournalRecord
from mrisps.campaign.record import read_record, write_record_file
from mrisps.campaign.sources import checked_sha256
from mrisps.errors import FileError, MrispsError
from mrisps.io.json_text import JsonValue
from mrisps.io.kspace_file import KspaceFile
from mrisps.io.open import open_kspace
from mrisps.reconstruction.run import Run
from mrisps.reconstruction.verdict import gravest, verdict_of
from mrisps.reports.results import write_pages
from mrisps.status import finished

__all__ = ["Tell", "log_file", "peak_memory", "reconstruct_item"]

Tell = Callable[[int, int, int, float], None]
"""Progress within a file: slice, number of slices, iteration, residual."""
Log = Callable[[str], None]
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def reconstruct_item(item: Item, tell: Tell | None = None) -> JournalRecord:
    """Reconstruct one file; whatever goes wrong with it is in the record, and in its log, never an exception.

    The order matters: the output first, then the JSON beside it, and the ledger after both.
    """
    begun = time.monotonic()
    try:
        with _logging(item) as log:
            try:
                entry = _reconstruct(item, log, tell)
            except Exception as error:
                log("".join(traceback.format_exception(error)).rstrip())
                raise
            log(f"done: {'was up to date' if entry.reused else entry.summary}")
    except Exception as error:  # the boundary: nothing that one file does may stop the others
        entry = replace(item.entry("failed", one_line(error, item.source.path)), disk_full=_is_disk_full(error))
    return replace(
        entry,
        seconds=round(time.monotonic() - begun, 3),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        memory_bytes=peak_memory(),
    ).record()


def _reconstruct(item: Item, log: Log, tell: Tell | None) -> Entry:
    if item.refused:
        raise MrispsError(f"{item.source.path}: {item.refused}")
    job, source, output = item.job, item.source.path, item.output
    torch.set_num_threads(job.threads)
    before = _status(source)
    sha256 = checked_sha256(item.source)
    with open_kspace(source) as file:
        run = job.run.resolved(file)
        reused = False
        if output.exists():
            reused = not item.redo and _was_made_by(run, file, sha256, output)
            if not reused and not item.may_replace:
                raise FileError(
                    output,
                    "exists, and is not what this batch would have made of its input: use --overwrite to replace it",
                )
        if not reused:
            output.parent.mkdir(parents=True, exist_ok=True)
            log(f"recipe {job.recipe.name}, {job.threads} threads, {job.device}")
            done = run.write(file, output, input_sha256=sha256, keep=job.keep, progress=_telling(tell, log))
            for note in done.notes:
                log(f"note: {note}")
    if not reused and _status(source) != before:
        output.unlink(missing_ok=True)
        raise FileError(source, "changed while it was being read: is it still being written?")
    record = write_record_file(output, source)
    page = output.with_suffix(".html")
    if job.pages and not (reused and page.is_file()):
        write_pages(output, page)
    iterations = [number for c in record.certificates if isinstance(number := c.get("n_iterations"), int)]
    few, many = min(iterations, default=0), max(iterations, default=0)
    return replace(
        item.entry("done"),
        made_of=str(source),
        size=before[0],
        mtime_ns=before[1],
        input_sha256=sha256,
        made_with=job.key(sha256),
        output_bytes=output.stat().st_size,
        n_slices=len(record.certificates),
        n_converged=sum(finished(certificate.get("status")) for certificate in record.certificates),
        verdict=gravest([verdict_of(certificate) for certificate in record.certificates]).level,
        summary=f"{few} iterations" if few == many else f"{few} to {many} iterations",
        reused=reused,
    )


def _was_made_by(run: Run, file: KspaceFile, sha256: str, output: Path) -> bool:
    """Whether an output that is there says that it is what this run would make now."""
    try:
        said = read_record(output).provenance
    except FileError:
        return False
    expected = {**run.record(file, input_sha256=sha256), "slices": list(run.chosen(file))}
    return _identity(said) == _identity(json.loads(json.dumps(expected)))


def _identity(provenance: Mapping[str, JsonValue]) -> list[JsonValue]:
    """What decides about an image; of a mask its pattern, however it was given."""
    parts = [provenance.get(part) for part in ("software", "recipe", "weights", "input", "slices")]
    options = provenance.get("options")
    if isinstance(options, dict):
        mask = options.get("mask")
        options = {**options, "mask": mask.get("sha256") if isinstance(mask, dict) else mask}
    return [*parts, options]


@contextmanager
def _logging(item: Item) -> Iterator[Log]:
    """The log of one file: what was said, and how long after the beginning."""
    path, begun = log_file(item.job.folder, item.name), time.monotonic()
    with _naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a", encoding="utf-8", errors="surrogateescape")

    def write(text: str) -> None:
        with _naming(path):
            file.write(f"[{time.monotonic() - begun:9.2f}] {text}\n")
            file.flush()

    handler, logger = _Warnings(write), logging.getLogger("mrisps")
    with file:
        write(f"{datetime.now(UTC).isoformat(timespec='seconds')} {item.source.path} -> {item.output}")
        logger.addHandler(handler)
        try:
            yield write
        finally:
            logger.removeHandler(handler)


class _Warnings(logging.Handler):
    """Warnings of the package in this thread, for the log of the file that they are about."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log, self._thread = log, threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            self._log(f"note: {record.getMessage()}")


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise FileError(path, f"cannot be written: {error.strerror}") from error


def log_file(folder: Path, name: str) -> Path:
    """The log of an output."""
    return folder / BATCH_FOLDER / "logs" / f"{name}.log"


def _telling(tell: Tell | None, log: Log) -> Tell:
    """Pass progress on, and log the end of each slice."""
    last = (0, 0, 0, 0.0)

    def report(position: int, n_slices: int, iteration: int, residual: float) -> None:
        nonlocal last
        if last[0] != position:
            log(f"slice {last[0] + 1} of {last[1]}: {last[2]} iterations, residual {last[3]:.1e}")
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


def _is_disk_full(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            return True
        error = error.__cause__ or error.__context__
    return False
