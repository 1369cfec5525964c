"""What a batch has done, on disk: one line of JSON for each thing that happens to a file, and a lock on the folder.

Why lines and no database: one process writes, and only ever at the end, so that there is nothing to lock or to roll back, and
SQLite's write-ahead log needs shared memory, which the network file systems of clusters do not give. A line counts once it is
forced to the disk. What a power cut tears is the last line: it is cut off when the ledger is opened again. Order is the order of
the lines, never a time: a clock that goes backwards changes nothing.
"""

import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Literal, get_args

from mrisps.errors import FileError, MrispsError

__all__ = ["Entry", "FolderLock", "FolderLockedError", "Ledger", "State"]

State = Literal["started", "done", "failed"]

_MAX_BYTES = 4 << 30
_FORMAT = "mrisps-ledger"
_VERSION = 1


@dataclass(frozen=True)
class Entry:
    """One line: what happened to one file.

    Parameters
    ----------
    name
        Of the output, relative to the folder, with forward slashes: the key.
    state
        ``"started"``, ``"done"`` or ``"failed"``. The last line of a name counts; one that ends with ``"started"`` was interrupted.
    source
        The input.
    size, mtime_ns
        Of the input, in bytes and nanoseconds: equal ones spare reading the file again.
    input_sha256, recipe_sha256, weights_sha256, options_sha256
        What the output depends on. That of the input is empty where it could not be read.
    output_bytes
        Size of the output; 0 unless it is done.
    seconds
        From the beginning of the work on the file to its end, by a clock that is never set.
    finished
        Date and time, for people.
    n_slices, n_converged
        Of the output.
    memory_bytes
        The most memory that the worker ever had, this file and those before.
    error
        Why it failed, on one line; empty otherwise.
    """

    name: str
    state: State
    source: str
    size: int = 0
    mtime_ns: int = 0
    input_sha256: str = ""
    recipe_sha256: str = ""
    weights_sha256: str = ""
    options_sha256: str = ""
    output_bytes: int = 0
    seconds: float = 0.0
    finished: str = ""
    n_slices: int = 0
    n_converged: int = 0
    memory_bytes: int = 0
    error: str = ""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            kind = float if field.type is float else int if field.type is int else str
            allowed = (int, float) if kind is float else (kind,)
            if not isinstance(value, allowed) or isinstance(value, bool):
                raise ValueError(f"{field.name}: expected {kind.__name__}, got {value!r}")
        if self.state not in get_args(State):
            raise ValueError(f"state: expected one of {', '.join(get_args(State))}, got {self.state!r}")


class Ledger:
    """The ledger of one output folder, read and open for more lines. Only who has the folder's lock may have it open.

    Parameters
    ----------
    path
        The file; made if missing.

    Raises
    ------
    FileError
        It cannot be read or written, or a line other than the last is not one of ours: the line is named.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        is_new = not path.exists()
        self._entries: dict[str, Entry] = {}
        self._made: set[tuple[str, str]] = set()
        for entry in [] if is_new else _lines(path):
            self._remember(entry)
        with self._naming():
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            self._cut_torn_line()
            if os.fstat(self._descriptor).st_size == 0:
                self._write(json.dumps({"format": _FORMAT, "version": _VERSION}))
                if is_new:
                    _sync_folder(path.parent)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def entries(self) -> Mapping[str, Entry]:
        """The last entry of every name."""
        return self._entries

    def has_made(self, name: str, source: str) -> bool:
        """Whether an output of this name was ever made of this input."""
        return (name, source) in self._made

    def append(self, entry: Entry, *, sync: bool = True) -> None:
        """Add a line.

        Parameters
        ----------
        entry
            What happened.
        sync
            Return only when it is on the disk. Without, it is safe from a death of the process, not from a power cut.

        Raises
        ------
        FileError
            The disk is full or broken; the ledger is as before.
        """
        content = {
            field.name: value for field in fields(entry) if (value := getattr(entry, field.name)) != field.default
        }
        self._write(json.dumps(content, ensure_ascii=False, separators=(",", ":")), sync=sync)
        self._remember(entry)

    def close(self) -> None:
        """Close the file. Harmless when done twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    @staticmethod
    def read(path: Path) -> dict[str, Entry]:
        """The last entry of every name in a ledger, which may be in use.

        Raises
        ------
        FileError
            It cannot be read, or a line is not one of ours.
        """
        return {entry.name: entry for entry in _lines(path)}

    def _remember(self, entry: Entry) -> None:
        self._entries[entry.name] = entry
        if entry.state == "done":
            self._made.add((entry.name, entry.source))

    def _cut_torn_line(self) -> None:
        size = os.fstat(self._descriptor).st_size
        end = size
        while end > 0:
            start = max(0, end - 4096)
            block = os.pread(self._descriptor, end - start, start)
            newline = block.rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        if end < size:
            with self._naming():
                os.ftruncate(self._descriptor, end)

    def _write(self, line: str, *, sync: bool = True) -> None:
        content = (line + "\n").encode("utf-8", errors="surrogateescape")
        before = os.fstat(self._descriptor).st_size
        with self._naming():
            try:
                rest = memoryview(content)
                while rest:
                    rest = rest[os.write(self._descriptor, rest) :]
                if sync:
                    os.fsync(self._descriptor)
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._descriptor, before)
                raise

    @contextlib.contextmanager
    def _naming(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise FileError(self.path, f"cannot be written: {error.strerror}") from error


def _lines(path: Path) -> Iterator[Entry]:
    """The complete lines after the first, which says what the file is."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise FileError(path, f"is larger than {_MAX_BYTES} bytes")
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.endswith(b"\n"):  # torn, or being written
                    return
                entry = _entry(path, number, line)
                if entry is not None:
                    yield entry
    except OSError as error:
        raise FileError(path, f"cannot be read: {error.strerror}") from error


def _entry(path: Path, number: int, line: bytes) -> Entry | None:
    try:
        record = json.loads(line.decode("utf-8", errors="surrogateescape"))
        if not isinstance(record, dict):
            raise ValueError(f"expected an object, got {type(record).__name__}")
        if number == 1:
            if record != {"format": _FORMAT, "version": _VERSION}:
                raise ValueError(f"expected the ledger of a batch, version {_VERSION}")
            return None
        unknown = record.keys() - {field.name for field in fields(Entry)}
        if unknown:
            raise ValueError(f"{sorted(unknown)[0]}: is unknown")
        return Entry(**record)
    except (ValueError, TypeError, RecursionError) as error:
        raise FileError(path, str(error), field=f"line {number}") from error


class FolderLockedError(MrispsError):
    """Another process works on the folder."""


class FolderLock:
    """Exclusive use of an output folder, for a ``with`` block.

    A lock of the operating system on a file: it ends with the process that holds it, however that ends, so that what a dead process
    left behind is free to take. The content of the file is for people.

    Parameters
    ----------
    path
        The lock file; it stays.

    Raises
    ------
    FolderLockedError
        Another process has it: says which.
    FileError
        The file cannot be made, or the file system has no locks.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = -1

    def __enter__(self) -> "FolderLock":
        try:
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)  # not inherited by other processes
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(self._descriptor, 200, 0).decode("utf-8", errors="replace").strip()
            self._close()
            raise FolderLockedError(
                f"{self.path.parent.parent}: another batch works on this folder ({holder or 'of unknown number'})"
            ) from error
        except OSError as error:
            self._close()
            raise FileError(self.path, f"cannot be locked: {error.strerror}") from error
        with contextlib.suppress(OSError):  # a full disk: the lock holds nevertheless
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)  # and the lock with it
            self._descriptor = -1


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # not every file system can
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
