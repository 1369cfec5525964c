"""Writing files so that a reader never sees half of one.

The new content goes to a hidden temporary file beside the destination, is forced to the disk and then renamed over it.
Until that last step the destination keeps what it had; after a failure (full disk, exception, Ctrl-C) the temporary
file is gone.
"""

import contextlib
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path

from mrisps.errors import FileError

__all__ = ["atomic_path", "write_bytes", "write_text", "write_together"]


@contextlib.contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Give the path of an empty temporary file that replaces ``path`` when the block ends without an exception.

    Parameters
    ----------
    path
        The destination. Its folder must exist. An existing regular file is replaced, anything else is refused.

    Yields
    ------
    Path
        A file in the same folder, to be opened and written by the caller and closed before the block ends.

    Raises
    ------
    FileError
        The folder does not exist or cannot be written, the destination is no regular file, or the disk is full.
    """
    path = Path(path)
    if not path.name:
        raise FileError(path, "cannot be written: it is a folder")
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    with contextlib.ExitStack() as stack:
        stack.enter_context(_naming(path, temporary))
        if path.exists() and not path.is_file():  # a folder, or a device such as /dev/null: never rename over those
            raise FileError(path, "cannot be written: it exists and is not a regular file")
        if not path.parent.is_dir():
            raise FileError(path, f"cannot be written: the folder {path.parent} does not exist")
        # mode 0o666 leaves the permissions to the umask, unlike tempfile.mkstemp; O_EXCL never follows a planted link.
        stack.callback(temporary.unlink, missing_ok=True)
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        yield temporary
        _fsync(temporary)
        temporary.replace(path)
        with contextlib.suppress(
            OSError
        ):  # not every file system can sync a folder; the content itself is already safe
            _fsync(path.parent)


def write_bytes(path: Path | str, content: bytes) -> None:
    """Write ``content`` to ``path`` atomically.

    Raises
    ------
    FileError
        The file cannot be written; what was there before still is.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_together(contents: Mapping[Path, bytes]) -> None:
    """Write several files of which all appear, or, when one cannot be written, none.

    Raises
    ------
    FileError
        One cannot be written.
    """
    with contextlib.ExitStack() as stack:
        for path, content in contents.items():
            stack.enter_context(atomic_path(path)).write_bytes(content)


def write_text(path: Path | str, content: str) -> None:
    """Write ``content`` to ``path`` atomically, as UTF-8 with the line ends it has.

    Raises
    ------
    FileError
        The file cannot be written; what was there before still is.
    """
    write_bytes(path, content.encode("utf-8"))


@contextlib.contextmanager
def _naming(path: Path, temporary: Path) -> Iterator[None]:
    """Turn an OSError about the destination into a FileError; one about some other file passes unchanged."""
    try:
        yield
    except OSError as error:
        if error.filename is not None and Path(os.fsdecode(error.filename)) not in (path, temporary, path.parent):
            raise
        raise FileError(path, f"cannot be written: {error.strerror or error}") from error


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
