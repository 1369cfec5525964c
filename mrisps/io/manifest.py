"""Lists of a dataset's files with their checksums: what to download, and whether what is there is what was meant.

A manifest is a TOML file; `data_manifests/` has those of the data that the project refers to but may not redistribute.
Files of the split ``"test"`` are held out: nothing touches them unless the caller says ``include_test=True``.
"""

import json
import re
import tomllib
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, TypeVar

from pydantic import StringConstraints

from mrisps.atomic import write_bytes, write_text
from mrisps.errors import FileError, SettingsError
from mrisps.io.files import make_folder, sha256_of
from mrisps.settings import Count, Index, Sha256, Text, from_plain, settings

__all__ = ["FileStatus", "Manifest", "ManifestFile", "builtin_manifests"]

HELD_OUT = "test"
"""The split that is not used without being asked for."""

_T = TypeVar("_T")
_MAX_MANIFEST_BYTES = 1 << 26
_State = Literal["ok", "missing", "wrong size", "wrong checksum"]


@settings
@dataclass(frozen=True)
class ManifestFile:
    """One file of a dataset.

    The path is relative to the root of the dataset, with forward slashes, and the same below the manifest's URL. The
    split is for example ``"val"`` (``"test"`` is held out), the contrast ``"pd"``, the shape (y, x) of k-space
    ``"640x368"``, and the patient any text that is the same for the files of one patient.
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
        is_plain = self.path == "/".join(parts) and not {"..", "/", "~"} & set(parts)
        if not parts or not is_plain or re.search(r"[\\:\x00]", self.path):
            raise ValueError(f"path: expected a plain relative path with forward slashes, got {self.path!r}")

    def state_of(self, path: Path) -> _State:
        """Compare what is at this path with size and checksum."""
        if not path.is_file():
            return "missing"
        if self.size is not None and path.stat().st_size != self.size:
            return "wrong size"
        return "ok" if sha256_of(path) == self.sha256 else "wrong checksum"


@dataclass(frozen=True)
class FileStatus:
    """What `Manifest.verify` found for one file."""

    file: ManifestFile
    path: Path
    state: _State


@settings
@dataclass(frozen=True)
class Manifest:
    """The files of a dataset, where they come from and under which terms.

    The URL is where they are published: this and the path of a file make its address. It ends with a slash. Empty:
    nowhere, or only after asking; files then come from mirrors and local folders. No path is there twice, and no
    patient is in two splits.
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
        """Read a TOML manifest. A FileError names the key that is unknown, missing, or has a wrong value."""
        path = Path(path)
        try:
            if path.stat().st_size > _MAX_MANIFEST_BYTES:
                raise FileError(path, f"is larger than {_MAX_MANIFEST_BYTES} bytes")
            table = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise FileError(path, f"cannot be read: {error.strerror}") from error
        except (ValueError, RecursionError) as error:  # not UTF-8, or not TOML
            raise FileError(path, f"is no valid TOML: {error}") from error
        entries = table.get("files")
        if not isinstance(entries, list):
            raise FileError(path, f"expected a list, got {type(entries).__name__}", field="files")
        manifest = _checked(cls, {**table, "files": []}, path)
        files = tuple(_checked(ManifestFile, entry, path, f"files[{index}]") for index, entry in enumerate(entries))
        try:
            return replace(manifest, files=files)
        except SettingsError as error:
            raise FileError(path, error.message, field=error.key) from error

    def write(self, path: Path | str) -> None:
        """Write the manifest as TOML, one line a file, atomically."""
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
        """Give the manifest of the files that have these values; None takes all.

        A ValueError if no file is left, and for ``split="test"`` without ``include_test``.
        """
        if split == HELD_OUT and not include_test:
            raise ValueError(
                f"split: {HELD_OUT!r} is held out; pass include_test=True if this is the final measurement"
            )
        wanted = {"split": split, "contrast": contrast, "acceleration": acceleration}
        files = tuple(
            file
            for file in self._usable(include_test)
            if all(value in (None, getattr(file, name)) for name, value in wanted.items())
        )
        if not files:
            known = f"splits: {', '.join(self.splits)}; contrasts: {', '.join(self.contrasts)}"
            raise ValueError(f"{', '.join(wanted)}: no file has ({split}, {contrast}, {acceleration}); {known}")
        return replace(self, files=files)

    def verify(self, root: Path | str, *, include_test: bool = False) -> Iterator[FileStatus]:
        """Check the files below ``root`` one after the other against size and checksum."""
        for file in self._usable(include_test):
            path = Path(root) / file.path
            yield FileStatus(file, path, file.state_of(path))

    def fetch(
        self,
        root: Path | str,
        *,
        mirrors: Sequence[Path | str] = (),
        include_test: bool = False,
        progress: Callable[[int, int, Path], None] | None = None,
    ) -> tuple[Path, ...]:
        """Have all files below ``root``, which is made if it is missing: keep those that are right, get the others.

        Mirrors are tried in order before the manifest's own URL: folders of this machine, or http(s) addresses that end
        with a slash. A file whose checksum is not right is not taken. The progress is called after each file with
        (files done, files in all, path). The result has the files in the manifest's order. A FileError for a file that
        is to be had nowhere names each place and what was wrong; what was there before still is.
        """
        files = self._usable(include_test)
        paths: list[Path] = []
        for file in files:
            path = Path(root) / file.path
            if file.state_of(path) != "ok":
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


def _checked(kind: type[_T], plain: object, path: Path, prefix: str = "") -> _T:
    if not isinstance(plain, Mapping):
        raise FileError(path, f"expected a table, got {type(plain).__name__}", field=prefix)
    try:
        return from_plain(kind, plain)
    except SettingsError as error:
        raise FileError(path, error.message, field=".".join(filter(None, (prefix, error.key)))) from error


def _obtain(file: ManifestFile, path: Path, places: Sequence[Path | str]) -> None:
    make_folder(path.parent)
    failures: list[str] = []
    for place in places:
        is_address = isinstance(place, str) and re.match(r"https?://", place)
        failure = _download(file, path, str(place)) if is_address else _copy(file, path, Path(place) / file.path)
        if failure is None:
            return
        failures.append(f"{place}: {failure}")
    raise FileError(path, "cannot be had. " + ("; ".join(failures) or "There is no address, and no mirror was given"))


def _copy(file: ManifestFile, path: Path, source: Path) -> str | None:
    """Copy a file of this machine; give the reason if it did not work."""
    state = file.state_of(source)
    if state != "ok":
        return state
    try:
        content = source.read_bytes()
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    write_bytes(path, content)
    return None


def _download(file: ManifestFile, path: Path, base: str) -> str | None:
    """Download with pooch, which checks and renames; give the reason if it did not work."""
    import pooch

    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel("WARNING")
    try:
        url = base + urllib.parse.quote(file.path)
        pooch.retrieve(url, known_hash=f"sha256:{file.sha256}", fname=path.name, path=path.parent)
    except (OSError, ValueError) as error:  # what requests raises is an OSError; a wrong checksum is a ValueError
        return str(error)
    finally:
        logger.setLevel(level)
    return None


def _toml(value: str | int) -> str:
    # A JSON text is a basic string of TOML, but for DEL, which TOML wants escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
