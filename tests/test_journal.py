"""The journal: what is on the disk counts, and nothing else; one process at a time has it."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from mrisps.errors import FileError
from mrisps.journal import Journal, JournalInUseError


def opened(path: Path, *, resume: bool = True) -> Journal:
    return Journal(path, "test", version=2, resume=resume)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A journal with two records."""
    path = tmp_path / "journal.jsonl"
    with opened(path) as journal:
        journal.append("a", {"x": 1}, sync=False)
        journal.append("b", {"x": 2.5, "name": "\udcff\u00e9"})
    return path


def test_the_last_record_of_a_key_counts(path: Path) -> None:
    with opened(path) as journal:
        assert dict(journal.records) == {"a": {"x": 1}, "b": {"x": 2.5, "name": "\udcff\u00e9"}}
        journal.append("a", {"x": 3})
        assert Journal.read(path, "test", version=2) == dict(journal.records)
    with opened(path) as journal:
        assert journal.get("a") == {"x": 3}
        assert journal.get("c") is None
        assert list(journal.records) == ["a", "b"]
    with opened(path, resume=False) as journal:
        assert not journal.records
    assert json.loads(path.read_text()) == {"journal": "test", "version": 2}


def test_a_torn_line_is_cut_off(path: Path) -> None:
    """Wherever a power cut ends the file, the complete lines before are there, and the next line is written as ever."""
    content = path.read_bytes()
    for cut in range(len(content)):
        path.write_bytes(content[:cut])
        with opened(path) as journal:
            n_complete = content[:cut].count(b"\n")
            assert len(journal.records) == max(0, n_complete - 1)
            journal.append("c", {"x": 3})
        assert list(Journal.read(path, "test", version=2)) == [*"ab"[: max(0, n_complete - 1)], "c"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("nonsense", "line 4: is no JSON"),
        ("[" * 100_000, "line 4: is no JSON"),
        ('{"key": "a", "b": ', "line 4: is no JSON"),
        ('{"key": "a", "x": NaN}', "line 4: is no JSON: NaN"),
        ("[]", "line 4: expected a JSON object, got list"),
        ("{}", "line 4: expected a record with a key"),
        ('{"key": 3}', "line 4: expected a record with a key"),
    ],
)
def test_a_damaged_line_is_named(path: Path, line: str, message: str) -> None:
    before = path.read_text() + line + "\n"
    path.write_text(before)
    with pytest.raises(FileError, match=message):
        opened(path)
    assert path.read_text() == before


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"key":"3f","peak":1.0}', "is not a journal of `test` of version 2, but one that an older version of mrisps"),
        ('{"format":"mrisps-ledger","version":1}', "an older version of mrisps"),
        ('{"format":"mrisps-tune","version":1,"recipe":"r"}', "an older version of mrisps"),
        ('{"journal":"test","version":1}', "but a journal of `test` of version 1"),
        ('{"journal":"other","version":2}', "but a journal of `other` of version 2"),
        ("{}", "but a file of another kind"),
        ("precious", "line 1: is no JSON"),
    ],
)
def test_another_file_is_refused_and_kept(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "journal.jsonl"
    for content in (f"{line}\n", line):  # and where the only line is torn
        path.write_text(content)
        with pytest.raises(FileError, match=message if content.endswith("\n") else "is not a journal of `test`"):
            opened(path)
        assert path.read_text() == content


def test_a_full_disk_leaves_the_journal_as_it_was(
    path: Path, small_disk: Callable[[int], AbstractContextManager[None]]
) -> None:
    with opened(path) as journal:
        before = path.read_bytes()
        with small_disk(len(before) + 10), pytest.raises(FileError, match="cannot be written"):
            journal.append("c", {"x": "y" * 100})
        assert path.read_bytes() == before
        assert journal.get("c") is None
        journal.append("c", {"x": 2})
    with opened(path) as journal:
        assert journal.get("c") == {"x": 2}


def test_the_lock_goes_with_the_process(path: Path) -> None:
    program = (
        "import sys, time, pathlib\n"
        "from mrisps.journal import Journal\n"
        "with Journal(pathlib.Path(sys.argv[1]), 'test', version=2):\n"
        "    print('open', flush=True)\n"
        "    time.sleep(60)\n"
    )
    before = path.read_bytes()
    holder = subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        for resume in (True, False):
            with pytest.raises(JournalInUseError, match="another process works with it"):
                opened(path, resume=resume)
        assert len(Journal.read(path, "test", version=2)) == 2
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    assert path.read_bytes() == before
    opened(path).close()
