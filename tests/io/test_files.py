"""What a folder holds."""

from pathlib import Path

import pytest

from mrisps.errors import FileError
from mrisps.io.files import files_in


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_one_level_of_subfolders(tmp_path: Path) -> None:
    touch(tmp_path, "b.h5", "a.H5", "pd/1.h5", "pd/deep/2.h5", ".hidden.h5", ".git/3.h5", "notes.txt")
    assert [str(p.relative_to(tmp_path)) for p in files_in(tmp_path, {".h5"})] == ["a.H5", "b.h5", "pd/1.h5"]
    assert len(files_in(tmp_path, {".h5"}, depth=2)) == 4
    assert len(files_in(tmp_path, {".h5"}, depth=0)) == 2


def test_a_link_to_a_folder_is_not_followed(tmp_path: Path) -> None:
    touch(tmp_path, "data/a.h5")
    (tmp_path / "data" / "loop").symlink_to(tmp_path / "data")
    assert len(files_in(tmp_path / "data", {".h5"}, depth=9)) == 1


def test_the_error_says_what_is_there(tmp_path: Path) -> None:
    touch(tmp_path, "a.txt", "pd/b.PNG", "pd/deep/c.h5")
    with pytest.raises(FileError, match=r"expected files ending in .h5, .npy; the folder has: .PNG, .txt, pd/deep/"):
        files_in(tmp_path, {".npy", ".h5"})
    with pytest.raises(FileError, match="does not exist"):
        files_in(tmp_path / "none", {".h5"})
    with pytest.raises(FileError, match="is not a folder"):
        files_in(tmp_path / "a.txt", {".h5"})
