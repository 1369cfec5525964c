"""What a long run has found so far, on disk: lines of JSON that survive a crash."""

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path

from mrisps.errors import FileError

__all__ = ["Journal"]

_MAX_BYTES = 1 << 31


class Journal:
    """Lines of JSON, each under a key, that survive a crash: a line counts once it is complete and on the disk.

    What a power cut tears is the last line: it is cut off when the journal is opened again. One process at a time has it open.

    Parameters
    ----------
    path
        The file; made if missing.

    Raises
    ------
    FileError
        It cannot be read or written, is in use by another process, or a line is not one of ours: the line is named.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines: dict[str, dict[str, object]] = {}
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        except OSError as error:
            raise FileError(path, f"cannot be opened: {error.strerror}") from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._read()
        except BlockingIOError as error:
            self.close()
            raise FileError(path, "is in use: another evaluation writes into this folder") from error
        except OSError as error:
            self.close()
            raise FileError(path, f"cannot be read: {error.strerror}") from error
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get(self, key: str) -> Mapping[str, object] | None:
        """What is under a key."""
        return self._lines.get(key)

    def append(self, key: str, values: Mapping[str, object]) -> None:
        """Add a line and force it to the disk.

        Raises
        ------
        FileError
            The disk is full or broken; the journal is as before.
        """
        line = json.dumps({"key": key, **values}, ensure_ascii=True, allow_nan=False, separators=(",", ":")) + "\n"
        before = os.fstat(self._descriptor).st_size
        try:
            rest = memoryview(line.encode())
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
            os.fsync(self._descriptor)
        except OSError as error:
            os.ftruncate(self._descriptor, before)
            raise FileError(self.path, f"cannot be written: {error.strerror}") from error
        self._lines[key] = dict(values)

    def close(self) -> None:
        """Close the file, which ends the lock. Harmless when done twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _read(self) -> None:
        size = os.fstat(self._descriptor).st_size
        if size > _MAX_BYTES:
            raise FileError(self.path, f"is larger than {_MAX_BYTES} bytes")
        end = 0
        with self.path.open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                if not line.endswith(b"\n"):  # torn
                    break
                try:
                    record = json.loads(line)
                    key = record.pop("key")
                    if not isinstance(key, str):
                        raise TypeError("key")
                except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
                    raise FileError(self.path, "is no line of an evaluation", field=f"line {number}") from error
                self._lines[key] = record
                end += len(line)
        if end < size:
            os.ftruncate(self._descriptor, end)
