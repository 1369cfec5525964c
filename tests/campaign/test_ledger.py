"""The ledger of a batch survives what may happen to it; one process at a time has the folder."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from mrisps.campaign.ledger import Entry, FolderLock, FolderLockedError, Ledger
from mrisps.errors import FileError


def test_last_line_of_a_name_counts(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    with Ledger(path) as ledger:
        ledger.append(Entry("a.h5", "started", "in/a.h5"), sync=False)
        ledger.append(Entry("b.h5", "failed", "in/b.h5", error="broken"))
        ledger.append(Entry("a.h5", "done", "in/a.h5", size=3, seconds=1.5))
        before = dict(ledger.entries)
    assert {name: entry.state for name, entry in before.items()} == {"a.h5": "done", "b.h5": "failed"}
    with Ledger(path) as ledger:
        assert ledger.entries == before
    assert Ledger.read(path) == before
    assert len(path.read_text().splitlines()) == 4


@pytest.mark.parametrize("n_bytes", [1, 10, 40])
def test_torn_line_is_cut_off(tmp_path: Path, n_bytes: int) -> None:
    path = tmp_path / "ledger.jsonl"
    with Ledger(path) as ledger:
        ledger.append(Entry("a.h5", "done", "in/a.h5"))
        ledger.append(Entry("b.h5", "done", "in/b.h5"))
    content = path.read_bytes()
    path.write_bytes(content[:-n_bytes])
    with Ledger(path) as ledger:
        assert [*ledger.entries] == ["a.h5"]
        ledger.append(Entry("b.h5", "done", "in/b.h5"))
    assert path.read_bytes() == content


def test_torn_at_birth(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(b'{"form')
    with Ledger(path) as ledger:
        ledger.append(Entry("a.h5", "done", "in/a.h5"))
    assert [*Ledger.read(path)] == ["a.h5"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("nonsense", "line 2"),
        ("[1]", "line 2: expected an object"),
        ('{"name": "a", "state": "lost", "source": "b"}', "line 2: state"),
        ('{"name": "a", "state": "done", "source": "b", "size": "3"}', "line 2: size: expected int"),
        ('{"name": "a", "state": "done", "source": "b", "more": 1}', "line 2: more: is unknown"),
        ('{"name": "a"}', "line 2"),
    ],
)
def test_foreign_lines_are_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "ledger.jsonl"
    Ledger(path).close()
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(FileError, match=message):
        Ledger(path)


def test_foreign_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_text(json.dumps({"format": "mrisps-ledger", "version": 99}) + "\n")
    with pytest.raises(FileError, match="line 1: expected the ledger of a batch, version 1"):
        Ledger(path)


def test_full_disk_leaves_the_ledger_as_it_was(
    tmp_path: Path, small_disk: Callable[[int], AbstractContextManager[None]]
) -> None:
    path = tmp_path / "ledger.jsonl"
    with Ledger(path) as ledger:
        ledger.append(Entry("a.h5", "done", "in/a.h5"))
        before = path.read_bytes()
        with small_disk(len(before) + 20), pytest.raises(FileError, match=r"ledger.jsonl: cannot be written"):
            ledger.append(Entry("b.h5", "done", "in/b.h5"))
        assert path.read_bytes() == before
        assert [*ledger.entries] == ["a.h5"]
        ledger.append(Entry("b.h5", "done", "in/b.h5"))
    assert [*Ledger.read(path)] == ["a.h5", "b.h5"]


def test_only_one_has_the_lock(tmp_path: Path) -> None:
    (tmp_path / "_batch").mkdir()
    path = tmp_path / "_batch" / "lock"
    with (
        FolderLock(path),
        pytest.raises(FolderLockedError, match=f"another batch works on this folder .process {os.getpid()} on"),
        FolderLock(path),
    ):
        pass
    with FolderLock(path):
        pass


def test_lock_of_a_dead_process_is_free(tmp_path: Path) -> None:
    (tmp_path / "_batch").mkdir()
    path = tmp_path / "_batch" / "lock"
    program = (
        "import sys, time, pathlib\n"
        "from mrisps.campaign.ledger import FolderLock\n"
        "with FolderLock(pathlib.Path(sys.argv[1])):\n"
        "    print('locked', flush=True)\n"
        "    time.sleep(60)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(FolderLockedError, match=f"process {holder.pid}"), FolderLock(path):
            pass
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    assert str(holder.pid) in path.read_text()
    with FolderLock(path):
        assert str(os.getpid()) in path.read_text()
