"""Manifests of folders, for tests."""

from collections.abc import Callable
from pathlib import Path

from mrisps.io.files import sha256_of
from mrisps.io.manifest import Manifest, ManifestFile


def manifest_of(folder: Path, split_of: Callable[[Path], str], url: str = "") -> Manifest:
    """Every file below a folder, in the split that its path says; those of the split "" are left out."""
    paths = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    files = tuple(
        ManifestFile(str(path), sha256_of(folder / path), split_of(path), (folder / path).stat().st_size)
        for path in paths
        if split_of(path)
    )
    return Manifest("example", 'Three "files" \\ of µ\x7f', url, "MIT", files)
