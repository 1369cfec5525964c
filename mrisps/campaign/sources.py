"""The files of a campaign: what a folder, a file or a manifest holds."""

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from mrisps.errors import FileError, MrispsError
from mrisps.io.files import files_in, sha256_of
from mrisps.io.manifest import Manifest, builtin_manifests

__all__ = ["KSPACE_SUFFIXES", "SourceFile", "WatchedFolder", "checked_sha256", "sources_of", "spread"]

KSPACE_SUFFIXES = (".h5", ".hdf5", ".mrd", ".dat", ".cfl")
"""What is taken from a folder: arrays only when they are named."""


@dataclass(frozen=True)
class SourceFile:
    """An input file, and what a manifest says of it.

    Parameters
    ----------
    path, name
        The file; and in results: relative to the folder or to the root of the manifest, with forward slashes.
    size
        In bytes, for estimates.
    sha256
        What the file has to have; None: anything.
    patient, contrast, acceleration
        From the manifest, where it says them.
    """

    path: Path
    name: str
    size: int = 0
    sha256: str | None = None
    patient: str | None = None
    contrast: str | None = None
    acceleration: float | None = None


def sources_of(
    places: Sequence[Path | str],
    suffixes: Collection[str] = KSPACE_SUFFIXES,
    *,
    root: Path | None = None,
    split: str | None = None,
    contrast: str | None = None,
    include_test: bool = False,
    may_be_empty: bool = False,
) -> list[SourceFile]:
    """The files of folders and manifests, and single files, in this order.

    Parameters
    ----------
    places
        Folders, files, manifests (``.toml``), or names of manifests that the package has.
    suffixes
        What is taken from a folder and its subfolders.
    root
        Folder that the paths of a manifest are below; by default that of the manifest.
    split, contrast
        Only this part of a manifest.
    include_test
        Also the split ``test`` of a manifest, which is held out.
    may_be_empty
        Whether a folder may have no such file.

    Raises
    ------
    FileError
        A place does not exist, cannot be read, or has no such file.
    MrispsError
        ``root``, ``split``, ``contrast`` or ``include_test`` is given, and nothing is a manifest.
    """
    paths = [builtin_manifests().get(str(place), Path(place)) for place in places]
    if not any(path.suffix.lower() == ".toml" for path in paths):
        given = {"root": root, "split": split, "contrast": contrast, "include-test": include_test or None}
        for name, value in given.items():
            if value is not None:
                raise MrispsError(f"--{name}: is for manifests (.toml)")
    found: list[SourceFile] = []
    for path in paths:
        if path.suffix.lower() == ".toml":
            manifest = Manifest.read(path).select(split=split, contrast=contrast, include_test=include_test)
            folder = (path.parent if root is None else root).absolute()
            found += [
                SourceFile(folder / f.path, f.path, f.size or 0, f.sha256, f.patient, f.contrast, f.acceleration)
                for f in manifest.files
            ]
        elif path.is_dir():
            found += [_source(file, path) for file in files_in(path, suffixes, may_be_empty=may_be_empty)]
        elif path.exists():
            found.append(_source(path, path.parent))
        else:
            raise FileError(path, "does not exist")
    return found


def spread(sources: Sequence[SourceFile], at_most: int) -> list[SourceFile]:
    """So many of the sources, spread evenly over all of them."""
    n = min(at_most, len(sources))
    return [sources[(2 * index + 1) * len(sources) // (2 * n)] for index in range(n)]


def checked_sha256(source: SourceFile) -> str:
    """The SHA-256 of the file; a FileError if it cannot be read, or is not the file that the manifest means."""
    found = sha256_of(source.path)
    if source.sha256 not in (None, found):
        raise FileError(source.path, f"has the SHA-256 {found[:12]}..., the manifest says {source.sha256[:12]}...")
    return found


def _source(path: Path, folder: Path) -> SourceFile:
    return SourceFile(path.absolute(), path.relative_to(folder).as_posix(), path.stat().st_size)


class WatchedFolder:
    """A folder that fills: a file is there when its size and time have not changed for ``settle_seconds``."""

    def __init__(self, folder: Path, settle_seconds: float) -> None:
        self._folder, self._settle = folder, settle_seconds
        self._seen: dict[Path, tuple[tuple[int, int], float]] = {}  # path -> state, and since when on a clock never set
        self._taken: dict[Path, tuple[int, int]] = {}

    def poll(self) -> list[SourceFile]:
        """What has settled since the last look; a file that changes later comes again."""
        now = time.monotonic()
        settled = []
        for source in sources_of([self._folder], may_be_empty=True):
            try:
                status = source.path.stat()
            except OSError:  # gone again
                continue
            state = (status.st_size, status.st_mtime_ns)
            if self._taken.get(source.path) == state:
                continue
            if self._seen.get(source.path, ((-1, -1), now))[0] != state:
                self._seen[source.path] = (state, now)
            if now - self._seen[source.path][1] >= self._settle:
                del self._seen[source.path]
                self._taken[source.path] = state
                settled.append(source)
        return settled
