"""The one loop of every campaign: do what is not done, write it down, go on where it was stopped.

    for task in tasks:  known to the journal? -> nothing;  else -> a worker -> its record -> a line of the journal

Batch writes files, evaluation scores slices, tuning measures candidates, all in this loop. A task that fails does not stop the
others. Killed at any moment, the next run does what has no line yet.
"""

import concurrent.futures
import hashlib
import json
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import torch

from mrisps._version import software_key
from mrisps.errors import MrispsError
from mrisps.journal import Journal

__all__ = [
    "EXPECTED_ERRORS",
    "Computation",
    "Here",
    "JournalRecord",
    "LoopEnd",
    "Progress",
    "Stop",
    "Task",
    "Workers",
    "key_of",
    "loop",
]

JournalRecord = Mapping[str, object]
"""Plain values for JSON: what a task came to."""
Progress = Sequence[tuple[str, int, int, int]]
"""(name, slice, number of slices, iteration) of each file in work, as far as known."""

EXPECTED_ERRORS = (MrispsError, ValueError, OSError, MemoryError)
"""What one file or slice may fail with, without the others being stopped."""
_TICK_SECONDS = 0.25


class Task(Protocol):
    """One thing to be done."""

    @property
    def key(self) -> str:
        """Where its record is in the journal."""

    def is_done(self, record: JournalRecord | None, /) -> bool:
        """Whether the last record under the key, if there is one, says that nothing has to be done."""

    def begun(self) -> JournalRecord | None:
        """What is written down when a worker gets the task; None: nothing."""

    def failed(self, error: Exception, /) -> JournalRecord | None:
        """What is written down when the worker raised an exception; None: nothing, so that the task is tried again."""


T = TypeVar("T", bound=Task)
T_contra = TypeVar("T_contra", bound=Task, contravariant=True)
Finished = Callable[[T, JournalRecord | None, Exception | None], None]
"""Called when a task is done or has failed; its record, if it has one, is in the journal."""


class Workers(Protocol[T_contra]):
    """Where the work is done: in this process, in others, or on a Dask cluster."""

    def capacity(self) -> int:
        """How many tasks may be handed over before one is finished."""

    def submit(self, task: T_contra, /) -> "Future[JournalRecord]":
        """Hand a task over."""

    def progress(self) -> Progress:
        """What is in work."""

    def close(self, *, now: bool) -> None:
        """Let the workers go: when they have finished, or now."""


@dataclass
class Stop:
    """How a running loop is asked to end: ``soon``, begin no more tasks; ``now``, do not wait for those in work, either."""

    soon: bool = False
    now: bool = False


@dataclass(frozen=True)
class LoopEnd(Generic[T]):
    """How a loop ended: the tasks that the journal knew to be done, and how many were not begun or given up."""

    known: tuple[T, ...]
    n_left: int


def loop(
    tasks: Iterable[T],
    journal: Journal,
    workers: Workers[T],
    *,
    finished: Finished[T],
    waiting: Callable[[Sequence[T]], None] = lambda tasks: None,
    tick: Callable[[Progress], None] = lambda progress: None,
    stop: Stop | None = None,
    more: Callable[[], Sequence[T]] | None = None,
) -> LoopEnd[T]:
    """Do the tasks that the journal does not know, and write their records into it.

    Parameters
    ----------
    tasks
        In the order in which they are begun.
    journal, workers
        The workers are closed at the end.
    finished, waiting, tick
        Called with a task that is done or has failed; with tasks that have been added to what is to be done; when time passed.
    stop
        Set from outside, by Ctrl-C or in a call.
    more
        Asked for further tasks again and again, until the loop is stopped.

    Raises
    ------
    FileError
        The journal cannot be written.
    MrispsError
        The cluster is gone.
    """
    stop = Stop() if stop is None else stop
    queue: deque[T] = deque()
    known: list[T] = []
    running: dict[Future[JournalRecord], T] = {}

    def take(new: Iterable[T]) -> None:
        wanted: list[T] = []
        for task in new:
            (known if task.is_done(journal.get(task.key)) else wanted).append(task)
        queue.extend(wanted)
        if wanted:
            waiting(wanted)

    take(tasks)
    try:
        while not stop.now:
            if more is not None and not stop.soon:
                take(more())
            while queue and not stop.soon and len(running) < workers.capacity():
                task = queue.popleft()
                begun = task.begun()
                if begun is not None:
                    journal.append(task.key, begun, sync=False)
                running[workers.submit(task)] = task
            if not running and (stop.soon or (not queue and more is None)):
                break
            for future in _finished(running):
                task = running.pop(future)
                record, error = _result(future, task)
                if record is not None:
                    journal.append(task.key, record)
                finished(task, record, error)
            tick(workers.progress())
    except BaseException:
        workers.close(now=True)
        raise
    workers.close(now=stop.now)
    return LoopEnd(tuple(known), len(queue) + len(running))


def _finished(running: Mapping["Future[JournalRecord]", object]) -> "set[Future[JournalRecord]]":
    if not running:
        time.sleep(_TICK_SECONDS)
        return set()
    return concurrent.futures.wait(running, timeout=_TICK_SECONDS, return_when=concurrent.futures.FIRST_COMPLETED).done


def _result(future: "Future[JournalRecord]", task: Task) -> tuple[JournalRecord | None, Exception | None]:
    try:
        return future.result(), None
    except concurrent.futures.CancelledError as error:
        raise MrispsError("the work was cancelled: is the scheduler gone?") from error
    except Exception as error:  # the worker failed or died: this task has failed, not the others
        return task.failed(error), error


@dataclass(frozen=True, eq=False)
class Computation:
    """A task whose record depends on nothing but its key, from :func:`key_of`; ``name`` is for messages."""

    key: str
    name: str
    compute: Callable[[], JournalRecord]

    def is_done(self, record: JournalRecord | None, /) -> bool:
        """Whether there is a record."""
        return record is not None

    def begun(self) -> None:
        """Nothing is written down."""

    def failed(self, error: Exception, /) -> None:
        """Nothing is written down."""


class Here:
    """Does computations in this process, at once."""

    def capacity(self) -> int:
        """One after the other."""
        return 1

    def submit(self, task: Computation, /) -> "Future[JournalRecord]":
        """Compute; errors that are not expected pass through."""
        future: Future[JournalRecord] = Future()
        try:
            future.set_result(task.compute())
        except EXPECTED_ERRORS as error:
            future.set_exception(error)
        return future

    def progress(self) -> Progress:
        """Nothing: it is done at once."""
        return ()

    def close(self, *, now: bool) -> None:
        """Nothing to be closed."""


def key_of(*parts: object) -> str:
    """SHA-256 of the plain values that a record depends on, with the software that makes it.

    What was computed by other code is never taken for what this code would compute.
    """
    return hashlib.sha256(json.dumps([software_key(), torch.__version__, *parts], sort_keys=True).encode()).hexdigest()
