"""What a long run has done so far, on disk: lines of JSON that survive a crash.

Why lines and no database: one process writes, always at the end, so there is nothing to roll back. SQLite's write-ahead log needs
shared memory, which the network file systems of clusters do not give. The order is that of the lines, never a time: a clock that
goes backwards changes nothing.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from mrisps.errors import FileError

__all__ = ["Journal", "JournalInUseError"]

_MAX_BYTES = 4 << 30


class JournalInUseError(FileError):
    """Another process has the journal open."""


class Journal:
    """Records under keys, one line of JSON each, in a file that one process at a time has open.

    A record counts once its line is complete. A power cut can tear only the last line; the torn part is cut off when the journal is
    opened again. The first line says what kind of journal the file is. The lock is one of the operating system: it ends with the
    process that holds it.

    Parameters
    ----------
    path
        The file; made if missing.
    kind
        What is written down, for example ``"evaluate"``. A journal of another kind is refused.
    version
        Version of the records. A journal of another version is refused.
    resume
        Keep what the file has. Otherwise it is emptied.

    Raises
    ------
    JournalInUseError
        Another process has it open.
    FileError
        The file cannot be read or written, is no journal of this kind and version, or has a damaged line: the line is named.
    """

    def __init__(self, path: Path, kind: str, *, version: int, resume: bool = True) -> None:
        self.path = path
        self._header: Mapping[str, object] = {"journal": kind, "version": version}
        self._records: dict[str, Mapping[str, object]] = {}
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        except OSError as error:
            raise FileError(path, f"cannot be opened: {error.strerror}") from error
        try:
            self._lock()
            end = 0
            if resume:
                for line, record in _lines(path, self._header):
                    if end:
                        self._records[str(record.pop("key"))] = record
                    end += len(line)
            with self._naming():
                os.ftruncate(self._descriptor, end)
            if not end:
                self._write(self._header, sync=True)
                _sync_folder(path.parent)
        except BaseException:
            self.close()
            raise

    @staticmethod
    def read(path: Path, kind: str, *, version: int) -> dict[str, Mapping[str, object]]:
        """The last record of every key of a journal that may be in use.

        Raises
        ------
        FileError
            It cannot be read, or is no journal of this kind and version.
        """
        lines = _lines(path, {"journal": kind, "version": version})
        return {str(record.pop("key")): record for _, record in lines if "key" in record}

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def records(self) -> Mapping[str, Mapping[str, object]]:
        """The last record of every key, in the order in which the keys first came."""
        return self._records

    def get(self, key: str) -> Mapping[str, object] | None:
        """The last record of a key."""
        return self._records.get(key)

    def append(self, key: str, record: Mapping[str, object], *, sync: bool = True) -> None:
        """Add a record.

        Parameters
        ----------
        key
            Any text.
        record
            Plain values for JSON, without the name ``"key"``.
        sync
            Return only when the line is on the disk. Without, it survives the death of the process, not a power cut.

        Raises
        ------
        FileError
            The disk is full or broken; the journal is as before.
        """
        self._write({"key": key, **record}, sync=sync)
        self._records[key] = dict(record)

    def close(self) -> None:
        """Close the file, which ends the lock. Harmless when done twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _lock(self) -> None:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise JournalInUseError(self.path, "is in use: another process works with it") from error
        except OSError as error:
            raise FileError(self.path, f"cannot be locked: {error.strerror}") from error

    def _write(self, content: Mapping[str, object], *, sync: bool) -> None:
        line = _line(content)
        before = os.fstat(self._descriptor).st_size
        with self._naming():
            try:
                rest = memoryview(line)
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


def _line(content: Mapping[str, object]) -> bytes:
    # ASCII: a file name that is no valid UTF-8 comes back as it was
    return json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def _lines(path: Path, header: Mapping[str, object]) -> Iterator[tuple[bytes, dict[str, object]]]:
    """The complete lines and what they say, the header first."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise FileError(path, f"is larger than {_MAX_BYTES} bytes")
        with path.open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                if not line.endswith(b"\n"):  # torn, or being written
                    if number == 1 and not _line(header).startswith(line):
                        raise FileError(path, f"is not {_named(header)}", field="line 1")
                    return
                record = _parsed(path, number, line)
                if number == 1 and record != header:
                    raise FileError(
                        path,
                        f"is not {_named(header)}, but {_named(record)}: move it away, or choose another output",
                        field="line 1",
                    )
                if number > 1 and not isinstance(record.get("key"), str):
                    raise FileError(path, "expected a record with a key", field=f"line {number}")
                yield line, record
    except OSError as error:
        raise FileError(path, f"cannot be read: {error.strerror}") from error


def _parsed(path: Path, number: int, line: bytes) -> dict[str, object]:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no number")

    try:
        record = json.loads(line, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise FileError(path, f"is no JSON: {error}", field=f"line {number}") from error
    if not isinstance(record, dict):
        raise FileError(path, f"expected a JSON object, got {type(record).__name__}", field=f"line {number}")
    return record


def _named(header: Mapping[str, object]) -> str:
    if isinstance(header.get("journal"), str) and isinstance(header.get("version"), int):
        return f"a journal of `{header['journal']}` of version {header['version']}"
    if "key" in header or str(header.get("format")).startswith("mrisps-"):
        return "one that an older version of mrisps has written"
    return "a file of another kind"


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # not every file system can
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
