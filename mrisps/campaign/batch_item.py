"""What a worker of a batch is given and what it answers: a job, an item, and an entry of the ledger."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from mrisps.campaign.loop import JournalRecord, key_of
from mrisps.campaign.record import record_file
from mrisps.campaign.sources import SourceFile
from mrisps.errors import FileError, MrispsError, SettingsError
from mrisps.model import SmoothPlusSparse
from mrisps.reconstruction.recipe import Recipe
from mrisps.reconstruction.run import Run
from mrisps.reconstruction.weights import Weights
from mrisps.sampling import SamplingMask
from mrisps.settings import settings

__all__ = ["BATCH_FOLDER", "Entry", "Item", "Job", "items_of", "one_line"]

BATCH_FOLDER = "_batch"
"""Ledger, logs and weights, inside the output folder."""

State = Literal["started", "done", "failed"]


@dataclass(frozen=True)
class Job:
    """What is the same for all files of a batch; small, because it goes to a worker with every file.

    Parameters
    ----------
    recipe, mask, undersample, scale, crop, device
        See :class:`mrisps.reconstruction.run.Run`.
    weights_file
        ``.safetensors``, where every worker can read it.
    weights_name, weights_sha256
        For the provenance; the hash is the model's fingerprint.
    folder
        For the outputs; absolute, and the same for every worker.
    keep
        Write an output although the verdict on a slice is ``"unusable"``.
    threads
        Of the processor, for one worker.
    pages
        Write a page to look at beside every output, see :func:`mrisps.reports.results.write_pages`.
    """

    recipe: Recipe
    weights_file: Path
    weights_name: str
    weights_sha256: str
    folder: Path
    mask: Path | SamplingMask | Literal["from-zeros"] | None = None
    undersample: bool = False
    scale: float | None = None
    crop: bool = True
    device: str = "cpu"
    keep: bool = False
    threads: int = 1
    pages: bool = False
    slices_together: int | None = None

    @classmethod
    def of(cls, run: Run, folder: Path, *, keep: bool = False, threads: int = 1, pages: bool = False) -> "Job":
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
        made_with = cls(run.recipe, weights, run.weights.name, fingerprint, folder)
        return replace(
            made_with,
            mask=run.mask,
            undersample=run.undersample,
            scale=run.scale,
            crop=run.crop,
            device=run.device,
            keep=keep,
            threads=threads,
            pages=pages,
            slices_together=run.slices_together,
        )

    @functools.cached_property
    def run(self) -> Run:
        """What is done with each file; a FileError if the weights are not those of the batch."""
        return Run(
            self.recipe,
            _weights(self.weights_file, self.weights_name, self.weights_sha256),
            mask=self.mask,
            undersample=self.undersample,
            scale=self.scale,
            crop=self.crop,
            device=self.device,
            slices_together=self.slices_together,
        )

    def __getstate__(self) -> dict[str, object]:
        return {field.name: getattr(self, field.name) for field in fields(self)}  # without what can be made again

    def key(self, input_sha256: str) -> str:
        """Hash of everything that an output depends on."""
        return key_of(self._run_key, input_sha256)

    @functools.cached_property
    def _run_key(self) -> str:
        return self.run.key("")


@functools.lru_cache(maxsize=2)
def _weights(path: Path, name: str, fingerprint: str) -> Weights:
    """The weights, read once in each process."""
    model = SmoothPlusSparse.load(path)
    if model.fingerprint() != fingerprint:
        raise FileError(path, f"is not the weights of this batch, SHA-256 {fingerprint[:12]}...")
    return Weights(name, model)


@settings
@dataclass(frozen=True)
class Entry:
    """A line of the ledger: what happened to one file.

    Parameters
    ----------
    state
        The last line of a name counts; one that ends with ``"started"`` was interrupted.
    source, made_of
        The input; and that of the output that is there, empty where this batch has made none.
    size, mtime_ns
        Of the input, in bytes and nanoseconds: equal ones spare reading the file again.
    input_sha256
        Empty where the input could not be read.
    made_with
        Hash of everything that the output depends on; see :meth:`Job.key`.
    output_bytes
        Size of the output; 0 unless it is done.
    seconds, finished
        From the beginning of the work on the file to its end, by a clock that is never set; date and time, for people.
    n_slices, n_converged, verdict
        Of the output: slices, those with which the solver was done (converged or settled), and the gravest verdict, see
        :mod:`mrisps.reconstruction.verdict`.
    summary
        Iterations and the like, for people.
    memory_bytes
        The most memory that the worker ever had, this file and those before.
    reused
        The output was there and up to date.
    error, disk_full
        Why it failed, on one line, empty otherwise; it failed because there is no room.
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

    @classmethod
    def of(cls, path: Path, name: str, record: JournalRecord) -> "Entry":
        """From the ledger; a FileError that names the field if the record is damaged."""
        try:
            return cls(**record)  # type: ignore[arg-type]  # checked there
        except SettingsError as error:
            raise FileError(path, str(error), field=f"the record of {name}") from error

    def record(self) -> JournalRecord:
        """For the ledger: what is not as it would be anyway."""
        return {f.name: value for f in fields(self) if (value := getattr(self, f.name)) != f.default}


@dataclass(frozen=True)
class Item:
    """One file of a batch: a task of the loop.

    Parameters
    ----------
    job, source
        What is the same for all, and the input.
    name
        Of the output, relative to the output folder, with forward slashes; ends with ``.h5``.
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
    source: SourceFile
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

    def is_done(self, record: JournalRecord | None, /) -> bool:
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

    def begun(self) -> JournalRecord:
        """That a worker has it."""
        return self.entry("started").record()

    def failed(self, error: Exception, /) -> JournalRecord:
        """That its worker died, or could not be reached."""
        return self.entry("failed", one_line(error, self.source.path)).record()


def items_of(job: Job, sources: Sequence[SourceFile], first: dict[str, Path] | None = None) -> list[Item]:
    """An item for each source; one that would have the output of an earlier one is refused.

    ``first``: which input came first for each output, remembered from one call to the next.
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


def one_line(error: BaseException, source: Path) -> str:
    """What an exception says, on one line, with the name of the input."""
    text = " ".join(str(error).split()) or type(error).__name__
    if not isinstance(error, MrispsError | ValueError | OSError):
        text = f"{type(error).__name__}: {text}"
    return text if isinstance(error, FileError) or text.startswith(str(source)) else f"{source}: {text}"
