"""Files and folders: is this a file, its checksum, what a folder holds, mapped files."""

import hashlib
import mmap
from collections.abc import Collection
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mrisps.errors import FileError

__all__ = ["check_is_file", "files_in", "make_folder", "release_pages", "sha256_of"]


def check_is_file(path: Path) -> None:
    """Refuse a path that is no regular file, with a FileError."""
    if not path.is_file():
        raise FileError(path, "is not a regular file" if path.exists() else "does not exist")


def sha256_of(path: Path | str) -> str:
    """Compute the SHA-256 of a file as 64 hexadecimal digits; a FileError if it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise FileError(path, f"cannot be read: {error.strerror}") from error


def files_in(
    folder: Path | str, suffixes: Collection[str], *, everywhere: bool = False, may_be_empty: bool = False
) -> tuple[Path, ...]:
    """List the files of a folder whose name has one of these endings (in small letters), sorted by their path.

    Where the folder itself has no such file, its subfolders are searched, but not theirs: what was written into a
    subfolder of the inputs is not taken for an input. ``everywhere`` searches the folder and everything below it.
    Hidden files and folders, and links to folders, are left out. A FileError says what the folder has instead, unless
    it ``may_be_empty``.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileError(folder, "is not a folder" if folder.exists() else "does not exist")
    found: list[Path] = []
    others: set[str] = set()
    level, depth = [folder], 0
    try:
        while level and (everywhere or (not found and depth < 2)):
            entries = [entry for parent in level for entry in parent.iterdir() if not entry.name.startswith(".")]
            level, depth = [entry for entry in entries if entry.is_dir() and not entry.is_symlink()], depth + 1
            files = [entry for entry in entries if entry.is_file()]
            found += [entry for entry in files if entry.suffix.lower() in suffixes]
            others.update(entry.suffix or entry.name for entry in files)
    except OSError as error:
        raise FileError(folder, f"cannot be read: {error.strerror}") from error
    if not found and not may_be_empty:
        has = ", ".join(sorted(others | {f"{entry.relative_to(folder)}/" for entry in level})[:8]) or "nothing"
        raise FileError(folder, f"expected files ending in {', '.join(sorted(suffixes))}; the folder has: {has}")
    return tuple(sorted(found))


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, where they are missing; a FileError if that cannot be done."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(folder, f"cannot be made: {error.strerror}") from error


def release_pages(array: NDArray[np.generic]) -> None:
    """Let go of the pages of a mapped file that were read: else a walk through a large file has all of it in memory in the end.

    Harmless for an array that is not mapped, and where the system cannot do it.
    """
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)
