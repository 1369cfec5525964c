"""Making the manifest of a folder of k-space: checksums, sizes, contrast, coils, acceleration, and splits by patient."""

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mrisps.errors import FileError
from mrisps.io.files import files_in, sha256_of
from mrisps.io.kspace_file import KspaceFile
from mrisps.io.manifest import Manifest, ManifestFile
from mrisps.io.open import KSPACE_SUFFIXES, open_kspace

__all__ = ["SplitRule", "make_manifest"]

_SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class SplitRule:
    """Which split a patient belongs to.

    Parameters
    ----------
    fractions
        Share of the patients by split, for example ``{"train": 0.8, "val": 0.1, "test": 0.1}``; their sum is 1. A
        patient's split depends on nothing but its name and the seed: adding files moves nobody. None: the split is in
        the names of the folders, as in fastMRI's ``multicoil_val``.
    seed
        Another seed, another division.
    """

    fractions: Mapping[str, float] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        values = [1.0] if self.fractions is None else [*self.fractions.values(), 0.0]
        if min(values) < 0 or abs(sum(values) - 1) > 1e-6:
            raise ValueError(f"split: expected fractions that add up to 1, got {dict(self.fractions or {})}")

    def split_of(self, patient: str, path: PurePosixPath) -> str | None:
        """The split; None if the rule is by folder, and no folder's name says it."""
        if self.fractions is None:
            words = [word for part in path.parts[:-1] for word in re.split(r"[^a-z]+", part.lower())]
            found = [split for split in _SPLITS if split in words]
            return found[0] if len(found) == 1 else None
        digest = hashlib.sha256(f"{self.seed}:{patient}".encode()).digest()
        at, total = int.from_bytes(digest[:8], "big") / 2**64, 0.0
        for split, fraction in self.fractions.items():
            total += fraction
            if at < total:
                return split
        return list(self.fractions)[-1]  # rounding


def make_manifest(
    folder: Path | str,
    *,
    name: str,
    description: str,
    url: str = "",
    licence: str,
    rule: SplitRule,
    patient_pattern: str | None = None,
    progress: Callable[[int, int, Path], None] | None = None,
) -> Manifest:
    """Make the manifest of a folder of k-space files; each is read once for its checksum, and one slice of it is decoded.

    The first group of the pattern, a regular expression that is searched in a file's path, is the patient. None: the
    patient of the file's header, or the file's own name where the header has none. The progress is called after each
    file with (files done, files in all, path). A FileError if the folder has no k-space; if a file cannot be read, has
    no split, or the pattern is not found in its path; if a patient is in two splits.
    """
    folder = Path(folder)
    try:
        pattern = None if patient_pattern is None else re.compile(patient_pattern)
    except re.error as error:
        raise ValueError(f"patient_pattern: {error}") from error
    if pattern is not None and pattern.groups < 1:
        raise ValueError(f"patient_pattern: expected a group, for example 'file([0-9]+)', got {patient_pattern!r}")
    paths = files_in(folder, set(KSPACE_SUFFIXES) - {".hdr"}, everywhere=True)
    files = []
    for path in paths:
        relative = PurePosixPath(path.relative_to(folder).as_posix())
        with open_kspace(path) as file:
            patient = _patient(file, relative, pattern)
            split = rule.split_of(patient, relative)
            if split is None:
                raise FileError(path, "no folder's name says train, val or test: give fractions", field="split")
            files.append(_described(file, relative, split, patient))
        if progress is not None:
            progress(len(files), len(paths), path)
    try:
        return Manifest(name, description, url, licence, tuple(files))
    except ValueError as error:
        raise FileError(folder, str(error)) from error


def _patient(file: KspaceFile, relative: PurePosixPath, pattern: re.Pattern[str] | None) -> str:
    if pattern is None:
        return str(file.attributes.get("patient_id", "")) or relative.stem
    found = pattern.search(str(relative))
    if found is None or not found.group(1):
        raise FileError(file.path, f"does not match {pattern.pattern!r}", field="patient")
    return str(found.group(1))


def _described(file: KspaceFile, relative: PurePosixPath, split: str, patient: str) -> ManifestFile:
    acquired = file.read_slice(file.n_slices // 2).acquired()
    stated = None if file.header is None else file.header.acceleration
    acceleration = round(acquired.size / acquired.sum()) if stated is None else stated[0] * stated[1]
    return ManifestFile(
        path=str(relative),
        sha256=sha256_of(file.path),
        split=split,
        size=file.path.stat().st_size,
        contrast=file.contrast,
        acceleration=max(1, acceleration),
        n_slices=file.n_slices,
        n_coils=file.n_coils,
        shape=f"{file.shape[0]}x{file.shape[1]}",
        patient=patient,
    )
