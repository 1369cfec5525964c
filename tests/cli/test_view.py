"""`mrisps view`."""

from pathlib import Path

import numpy as np
import pytest
from result_files import write_result

from .helpers import Cli


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "recon"
    folder.mkdir()
    for k, name in enumerate(("a", "b")):
        write_result(folder / f"{name}.h5", np.full((2, 9, 8), k + 1, np.float32))
    return folder


def test_a_page_for_each_result(cli: Cli, results: Path, tmp_path: Path) -> None:
    assert cli("view", results) == 0
    pages = [results / "a.html", results / "b.html"]
    assert cli.stdout.split() == [str(page) for page in pages]
    assert all("Reconstruction of" in page.read_text() for page in pages)
    assert cli("view", results) == 2
    assert "exists already (and 1 more)" in cli.stderr
    assert cli("view", results, "--overwrite", "--reference", results, "--output", tmp_path / "pages") == 0
    assert "<dd>inf dB</dd>" in (tmp_path / "pages" / "b.html").read_text()  # each is its own reference


def test_two_results_side_by_side(cli: Cli, results: Path, tmp_path: Path) -> None:
    assert cli("view", results / "a.h5", results / "b.h5", "--compare", "--output", tmp_path / "pages") == 0
    assert "Comparison of 2 results" in (tmp_path / "pages" / "comparison.html").read_text()


def test_one_bad_file_does_not_stop_the_others(cli: Cli, results: Path) -> None:
    (results / "a.h5").write_bytes(b"no HDF5")
    assert cli("view", results) == 1
    assert "a.h5" in cli.stderr
    assert not (results / "a.html").exists()
    assert (results / "b.html").is_file()


def test_the_browser_is_opened(cli: Cli, results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    assert cli("view", results / "a.h5", "--open") == 0
    assert opened == [(results / "a.html").as_uri()]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("gone.h5",), "gone.h5: does not exist"),
        (("empty",), "has no results"),
        (("recon/a.h5", "--compare"), "--compare: needs two results or more"),
        (("recon/a.h5", "log.csv"), "logs of trainings (.csv) go without results"),
        (("recon/a.h5", "--reference", "gone.h5"), "gone.h5: does not exist"),
        (("recon/a.h5", "recon/a.h5"), "is given twice"),
        (("log.csv", "--overwrite"), "there is no column step"),
    ],
)
def test_what_cannot_be_done(
    cli: Cli, results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "log.csv").write_text("a\n1\n")
    assert cli("view", *arguments) == (1 if arguments[0] == "log.csv" else 2)
    assert message in cli.stderr
    assert not list(tmp_path.rglob("*.html"))


def test_a_folder_that_cannot_be_written(cli: Cli, results: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert cli("view", results / "a.h5", "--output", tmp_path / "file" / "pages") == 1
    assert "cannot be used as output folder" in cli.stderr
