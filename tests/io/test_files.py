"""What a folder holds."""

from pathlib import Path

import pytest

from mrisps.errors import FileError
from mrisps.io.files import files_in


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def names(root: Path, *, everywhere: bool = False) -> list[str]:
    return [str(path.relative_to(root)) for path in files_in(root, {".h5"}, everywhere=everywhere)]


def test_the_folder_itself_or_its_subfolders(tmp_path: Path) -> None:
    touch(tmp_path, "pd/1.h5", "pdfs/2.H5", "pd/deep/3.h5", ".hidden.h5", ".git/4.h5", "notes.txt")
    assert names(tmp_path) == ["pd/1.h5", "pdfs/2.H5"]
    assert names(tmp_path, everywhere=True) == ["pd/1.h5", "pd/deep/3.h5", "pdfs/2.H5"]
    touch(tmp_path, "a.h5")  # then subfolders are something else, for example outputs
    assert names(tmp_path) == ["a.h5"]
    assert len(names(tmp_path, everywhere=True)) == 4


def test_a_link_to_a_folder_is_not_followed(tmp_path: Path) -> None:
    touch(tmp_path, "data/in/a.h5")
    (tmp_path / "data" / "loop").symlink_to(tmp_path / "data")
    assert names(tmp_path / "data", everywhere=True) == names(tmp_path / "data") == ["in/a.h5"]


def test_the_error_says_what_is_there(tmp_path: Path) -> None:
    touch(tmp_path, "a.txt", "pd/b.PNG", "pd/deep/c.h5")
    with pytest.raises(FileError, match=r"expected files ending in .h5, .npy; the folder has: .PNG, .txt, pd/deep/"):
        files_in(tmp_path, {".npy", ".h5"})
    assert files_in(tmp_path, {".npy"}, may_be_empty=True) == ()
    with pytest.raises(FileError, match="does not exist"):
        files_in(tmp_path / "none", {".h5"})
    with pytest.raises(FileError, match="is not a folder"):
        files_in(tmp_path / "a.txt", {".h5"})
