"""The journal: what is on the disk counts, and nothing else."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from mrisps.errors import FileError
from mrisps.journal import Journal


@pytest.mark.parametrize("line", ["[]", "{}", '{"key": 3}', "nonsense", '{"key": "a", "b": '])
def test_a_damaged_journal_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text(f'{{"key": "a", "x": 1}}\n{line}\n')
    with pytest.raises(FileError, match=r"journal\.jsonl: line 2"):
        Journal(path)


def test_a_full_disk_leaves_the_journal_as_it_was(
    tmp_path: Path, small_disk: Callable[[int], AbstractContextManager[None]]
) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        journal.append("a", {"x": 1})
        before = path.read_bytes()
        with small_disk(len(before) + 10), pytest.raises(FileError, match="cannot be written"):
            journal.append("b", {"x": "y" * 100})
        assert path.read_bytes() == before
        assert journal.get("b") is None
        journal.append("b", {"x": 2})
    with Journal(path) as journal:
        assert journal.get("b") == {"x": 2}
