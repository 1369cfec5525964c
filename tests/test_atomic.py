import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from mrisps.atomic import atomic_path, write_bytes, write_text, write_together
from mrisps.errors import FileError

SmallDisk = Callable[[int], AbstractContextManager[None]]


def test_replaces_the_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    write_text(path, "old")
    write_text(path, "new µ\n")
    assert path.read_bytes() == "new µ\n".encode()
    assert [p.name for p in tmp_path.iterdir()] == ["out.txt"]


def test_destination_appears_only_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with atomic_path(path) as temporary:
        temporary.write_text("content")
        assert not path.exists()
        assert temporary.parent == tmp_path
    assert path.read_text() == "content"


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write_bytes(tmp_path / "out", b"")
    finally:
        os.umask(old)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("error", [RuntimeError("x"), KeyboardInterrupt(), SystemExit(1)])
def test_an_exception_leaves_the_earlier_file(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "out"
    path.write_text("old")
    with pytest.raises(type(error)), atomic_path(path) as temporary:  # noqa: PT012 - what fails is leaving the block
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_full_disk(tmp_path: Path, small_disk: SmallDisk) -> None:
    path = tmp_path / "out"
    path.write_text("old")
    with small_disk(1000), pytest.raises(FileError, match="out: cannot be written: File too large"):
        write_bytes(path, bytes(2000))
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"the folder .*missing does not exist"):
        write_bytes(tmp_path / "missing" / "out", b"")


def test_unwritable_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *_: object) -> int:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "open", refuse)  # as root, no folder is unwritable
    with pytest.raises(FileError, match="out: cannot be written: Permission denied"):
        write_bytes(tmp_path / "out", b"")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_really_unwritable_folder(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o500)
    with pytest.raises(FileError, match="out: cannot be written: Permission denied"):
        write_bytes(folder / "out", b"")


@pytest.mark.parametrize("path", ["/dev/null", "/", "."])
def test_never_renames_over_what_is_no_regular_file(path: str) -> None:
    with pytest.raises(FileError, match="cannot be written"):
        write_bytes(path, b"")


def test_an_error_about_another_file_passes(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="input"), atomic_path(tmp_path / "out"):
        (tmp_path / "input").read_bytes()
    assert not list(tmp_path.iterdir())


def test_several_files_appear_together_or_not_at_all(tmp_path: Path, small_disk: SmallDisk) -> None:
    names = {tmp_path / "a": b"a", tmp_path / "b": b"b" * 5000}
    with small_disk(1000), pytest.raises(FileError, match="b: cannot be written: File too large"):
        write_together(names)
    assert list(tmp_path.iterdir()) == []
    write_together(names)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == names
