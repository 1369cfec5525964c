"""Lists of a dataset's files with their checksums: what to download, and whether what is there is what was meant.

A manifest is a TOML file; `data_manifests/` has those of the data that the project refers to but may not redistribute.
Files of the split ``"test"`` are held out: nothing touches them unless the caller says ``include_test=True``.
"""

import contextlib
import json
import logging
import re
import tomllib
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import StringConstraints

from mrisps.atomic import atomic_path, write_text
from mrisps.errors import FileError, SettingsError
from mrisps.io.files import sha256_of
from mrisps.settings import Count, Index, Sha256, Text, from_plain, settings

__all__ = ["FileStatus", "Manifest", "ManifestFile", "builtin_manifests"]

HELD_OUT = "test"
"""The split that is not used without being asked for."""

_MAX_MANIFEST_BYTES = 1 << 26


@settings
@dataclass(frozen=True)
class ManifestFile:
    """One file of a dataset.

    Parameters
    ----------
    path
        Relative to the root of the dataset, with forward slashes; the same below the manifest's URL.
    sha256, size
        64 hexadecimal digits; bytes.
    split, contrast
        For example ``"val"`` (``"test"`` is held out), and ``"pd"``.
    acceleration, n_slices, n_coils
        Numbers of at least 1.
    shape
        (y, x) of k-space, for example ``"640x368"``.
    patient
        Whose file it is: any text that is the same for the files of one patient.

    Raises
    ------
    ValueError
        A field is not what it should be; the path is absolute or leaves the root.
    """

    path: str
    sha256: Sha256
    split: Text
    size: Index | None = None
    contrast: str | None = None
    acceleration: Count | None = None
    n_slices: Count | None = None
    n_coils: Count | None = None
    shape: Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,5}x[1-9][0-9]{0,5}$")] | None = None
    patient: str | None = None

    def __post_init__(self) -> None:
        parts = PurePosixPath(self.path).parts
        if (
            not parts
            or self.path != "/".join(parts)
            or {"..", "/", "~"} & set(parts)
            or re.search(r"[\\:\x00]", self.path)
        ):
            raise ValueError(f"path: expected a plain relative path with forward slashes, got {self.path!r}")


@dataclass(frozen=True)
class FileStatus:
    """What `Manifest.verify` found for one file."""

    file: ManifestFile
    path: Path
    state: Literal["ok", "missing", "wrong size", "wrong checksum"]


@settings
@dataclass(frozen=True)
class Manifest:
    """The files of a dataset, where they come from and under which terms.

    Parameters
    ----------
    name
        Short name.
    description
        What the files are.
    url
        Where they are published: this and the path of a file make its address. It ends with a slash. Empty: nowhere, or only
        after asking; files then come from mirrors and local folders.
    licence
        Licence or terms of use.
    files
        In order; no path twice, and no patient in two splits.

    Raises
    ------
    ValueError
        A field is not what it should be.
    """

    name: str
    description: str
    url: str
    licence: str
    files: tuple[ManifestFile, ...]

    def __post_init__(self) -> None:
        if self.url and not re.fullmatch(r"https?://[^\s?#]+/", self.url):
            raise ValueError(f"url: expected http(s)://.../ with a slash at the end, got {self.url!r}")
        seen: set[str] = set()
        split_of: dict[str, str] = {}
        for index, file in enumerate(self.files):
            if file.path in seen:
                raise ValueError(f"files[{index}].path: {file.path} is there twice")
            seen.add(file.path)
            if file.patient is not None and split_of.setdefault(file.patient, file.split) != file.split:
                message = f"{file.patient} is in the splits {split_of[file.patient]} and {file.split}"
                raise ValueError(f"files[{index}].patient: {message}")

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that files belong to."""
        return tuple(sorted({file.split for file in self.files}))

    @property
    def contrasts(self) -> tuple[str, ...]:
        """The contrasts of the files."""
        return tuple(sorted({file.contrast for file in self.files if file.contrast is not None}))

    @classmethod
    def read(cls, path: Path | str) -> "Manifest":
        """Read a TOML manifest.

        Raises
        ------
        FileError
            The file cannot be read or is no TOML; a key is unknown, missing, or has a wrong value: the key is named.
        """
        path = Path(path)
        try:
            if path.stat().st_size > _MAX_MANIFEST_BYTES:
                raise FileError(path, f"is larger than {_MAX_MANIFEST_BYTES} bytes")
            table = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise FileError(path, f"cannot be read: {error.strerror}") from error
        except (ValueError, RecursionError) as error:  # not UTF-8, or not TOML
            raise FileError(path, f"is no valid TOML: {error}") from error
        entries = table.pop("files", None)
        if not isinstance(entries, list):
            raise FileError(path, f"expected a list, got {type(entries).__name__}", field="files")
        prefix = ""
        try:
            manifest = from_plain(cls, {**table, "files": []})
            files = []
            for index, entry in enumerate(entries):
                prefix = f"files[{index}]"
                if not isinstance(entry, dict):
                    raise SettingsError("", f"expected a table, got {type(entry).__name__}")
                files.append(from_plain(ManifestFile, entry))
            prefix = ""
            return replace(manifest, files=tuple(files))
        except SettingsError as error:
            field = ".".join(part for part in (prefix, error.key) if part)
            raise FileError(path, error.message, field=field) from error

    def write(self, path: Path | str) -> None:
        """Write the manifest as TOML, one line a file, atomically.

        Raises
        ------
        FileError
            The file cannot be written.
        """
        lines = [f"{key} = {_toml(getattr(self, key))}" for key in ("name", "description", "url", "licence")]
        lines.append("files = [")
        for file in self.files:
            values = ((field.name, getattr(file, field.name)) for field in fields(file))
            pairs = (f"{key} = {_toml(value)}" for key, value in values if value is not None)
            lines.append(f"    {{ {', '.join(pairs)} }},")
        lines.append("]")
        write_text(path, "\n".join(lines) + "\n")

    def select(
        self,
        *,
        split: str | None = None,
        contrast: str | None = None,
        acceleration: int | None = None,
        include_test: bool = False,
    ) -> "Manifest":
        """Give the manifest of some of the files.

        Parameters
        ----------
        split, contrast, acceleration
            What the files must have; None takes all.
        include_test
            Without it, files of the split ``"test"`` are never among them.

        Raises
        ------
        ValueError
            ``split="test"`` without ``include_test``, or no file is left.
        """
        if split == HELD_OUT and not include_test:
            raise ValueError(
                f"split: {HELD_OUT!r} is held out; pass include_test=True if this is the final measurement"
            )
        files = tuple(
            file
            for file in self._usable(include_test)
            if split in (None, file.split)
            and contrast in (None, file.contrast)
            and acceleration in (None, file.acceleration)
        )
        if not files:
            raise ValueError(
                f"split, contrast, acceleration: no file has ({split}, {contrast}, {acceleration}); "
                f"splits: {', '.join(self.splits)}; contrasts: {', '.join(self.contrasts)}"
            )
        return replace(self, files=files)

    def verify(self, root: Path | str, *, include_test: bool = False) -> Iterator[FileStatus]:
        """Check the files below ``root`` one after the other against size and checksum."""
        for file in self._usable(include_test):
            path = Path(root) / file.path
            yield FileStatus(file, path, _state(file, path))

    def fetch(
        self,
        root: Path | str,
        *,
        mirrors: Sequence[Path | str] = (),
        include_test: bool = False,
        progress: Callable[[int, int, Path], None] | None = None,
    ) -> tuple[Path, ...]:
        """Have all files below ``root``: keep those that are right, copy or download the others.

        Parameters
        ----------
        root
            The folder, made if it is missing.
        mirrors
            Tried in order before the manifest's own URL: folders of this machine, or http(s) addresses that end with a
            slash. A file whose checksum is not right is not taken.
        include_test
            Also the files of the split ``"test"``.
        progress
            Called after each file with (files done, files in all, path).

        Returns
        -------
        tuple of Path
            The files, in the manifest's order; each has the right checksum.

        Raises
        ------
        FileError
            A file is to be had nowhere: each place is named with what was wrong. What was there before still is.
        """
        files = self._usable(include_test)
        paths: list[Path] = []
        for file in files:
            path = Path(root) / file.path
            if _state(file, path) != "ok":
                _obtain(file, path, (*mirrors, self.url) if self.url else mirrors)
            paths.append(path)
            if progress is not None:
                progress(len(paths), len(files), path)
        return tuple(paths)

    def _usable(self, include_test: bool) -> tuple[ManifestFile, ...]:
        return tuple(file for file in self.files if include_test or file.split != HELD_OUT)


def builtin_manifests() -> dict[str, Path]:
    """Find the manifests that come with the package, by name."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "data_manifests", package.parent / "data_manifests"):  # installed, or in the repository
        if folder.is_dir():
            return {path.stem: path for path in sorted(folder.glob("*.toml"))}
    return {}


def _state(file: ManifestFile, path: Path) -> Literal["ok", "missing", "wrong size", "wrong checksum"]:
    if not path.is_file():
        return "missing"
    if file.size is not None and path.stat().st_size != file.size:
        return "wrong size"
    return "ok" if sha256_of(path) == file.sha256 else "wrong checksum"


def _obtain(file: ManifestFile, path: Path, places: Sequence[Path | str]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(path.parent, f"cannot be made: {error.strerror}") from error
    failures: list[str] = []
    for place in places:
        if isinstance(place, str) and re.match(r"https?://", place):
            failure = _download(file, path, place)
        else:
            failure = _copy(file, path, Path(place))
        if failure is None:
            return
        failures.append(f"{place}: {failure}")
    raise FileError(path, "cannot be had. " + ("; ".join(failures) or "There is no address, and no mirror was given"))


def _copy(file: ManifestFile, path: Path, mirror: Path) -> str | None:
    """Copy from a folder; give the reason if it did not work."""
    source = mirror / file.path
    state = _state(file, source)
    if state != "ok":
        return state
    try:
        content = source.read_bytes()
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    return None


def _download(file: ManifestFile, path: Path, base: str) -> str | None:
    """Download with pooch, which checks and renames; give the reason if it did not work."""
    import pooch

    url = base + urllib.parse.quote(file.path)
    with _quiet(pooch.get_logger()):
        try:
            pooch.retrieve(url, known_hash=f"sha256:{file.sha256}", fname=path.name, path=path.parent)
        except (OSError, ValueError) as error:  # what requests raises is an OSError; a wrong checksum is a ValueError
            return str(error)
    return None


@contextlib.contextmanager
def _quiet(logger: logging.Logger) -> Iterator[None]:
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _toml(value: str | int) -> str:
    # A JSON text is a basic string of TOML, but for DEL, which TOML wants escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
