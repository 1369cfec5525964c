"""Plain facts of the file system: is this a file, what is its checksum, what does a folder hold."""

import hashlib
from collections.abc import Collection
from pathlib import Path

from mrisps.errors import FileError

__all__ = ["check_is_file", "files_in", "sha256_of"]


def check_is_file(path: Path) -> None:
    """Refuse a path that is no regular file.

    Raises
    ------
    FileError
        There is nothing, or something else, at this path.
    """
    if not path.is_file():
        raise FileError(path, "is not a regular file" if path.exists() else "does not exist")


def sha256_of(path: Path | str) -> str:
    """Compute the SHA-256 of a file as 64 hexadecimal digits.

    Raises
    ------
    FileError
        The file cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise FileError(path, f"cannot be read: {error.strerror}") from error


def files_in(
    folder: Path | str, suffixes: Collection[str], *, depth: int = 1, may_be_empty: bool = False
) -> tuple[Path, ...]:
    """List the files of some kinds that a folder holds, sorted by their path.

    Hidden files and folders are left out, and so are links to folders.

    Parameters
    ----------
    folder
        The folder.
    suffixes
        File name endings in small letters, for example ``{".h5", ".npy"}``; the case of a file name does not matter.
    depth
        How many levels of subfolders are searched: 1, the default, finds ``pd/001.h5``.
    may_be_empty
        Whether the folder may have no such file, as one that is being filled.

    Raises
    ------
    FileError
        The folder does not exist or cannot be read, or has no such file; the message says what the folder has instead.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileError(folder, "is not a folder" if folder.exists() else "does not exist")
    found: list[Path] = []
    others: set[str] = set()
    level = [folder]
    try:
        for remaining in range(depth, -1, -1):
            entries = [entry for parent in level for entry in parent.iterdir() if not entry.name.startswith(".")]
            level = [entry for entry in entries if entry.is_dir() and not entry.is_symlink()]
            for entry in entries:
                if entry.is_file():
                    if entry.suffix.lower() in suffixes:
                        found.append(entry)
                    else:
                        others.add(entry.suffix or entry.name)
            if remaining == 0:
                others |= {f"{entry.relative_to(folder)}/" for entry in level}
    except OSError as error:
        raise FileError(folder, f"cannot be read: {error.strerror}") from error
    if not found and not may_be_empty:
        has = ", ".join(sorted(others)[:8]) or "nothing"
        raise FileError(folder, f"expected files ending in {', '.join(sorted(suffixes))}; the folder has: {has}")
    return tuple(sorted(found))
