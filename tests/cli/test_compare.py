"""`mrisps compare`: what is written, what is held out, how it ends."""

import csv
import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from mrisps.io.files import sha256_of
from mrisps.io.manifest import Manifest, ManifestFile

from .helpers import Cli

BARE = ("--baselines", "none", "--worst", 0)
QUICK = ("--baselines", "zero-filled,tv", "--tv-iterations", 20, "--tuning-slices", 1)


@pytest.fixture
def data(full_file: Path) -> Path:
    """A folder with two fully sampled files."""
    shutil.copy(full_file, full_file.with_name("other.h5"))
    return full_file.parent


@pytest.fixture
def manifest(data: Path) -> Path:
    """One file a split; each its own patient and contrast."""
    files = tuple(
        ManifestFile(name, sha256_of(data / name), split, contrast=contrast, patient=split)
        for name, split, contrast in (("full.h5", "val", "pd"), ("other.h5", "test", "t2"))
    )
    path = data / "list.toml"
    Manifest("list", "two files", "", "none", files).write(path)
    return path


def test_what_is_written(cli: Cli, data: Path, recipe: Path, weights: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    command = ("compare", "--data", data, "--recipe", recipe, "--weights", weights, "--output", output)
    assert cli(*command, *QUICK) == 0
    said = [line for line in cli.stderr.splitlines() if line.startswith("[")]
    setting = "CORPD_FBK, 4-fold (equispaced, centre 0.1, seed 0)"
    assert any(line.startswith(f"[5/12] full.h5, slice 1, {setting}, small_mri: ") for line in said)
    assert said[-1] == f"[12/12] other.h5, {setting}: 6 scores were in the journal"  # it is the same file
    assert "note: the weights of the baselines were tuned on slices that are evaluated here" in cli.stderr
    table = cli.stdout.splitlines()
    assert [line.split(")")[1].split()[0] for line in table[1:4]] == ["zero-filled", "TV", "small_mri"]
    assert table[-1] == str(output / "index.html")
    summary = json.loads((output / "summary.json").read_text())
    rows = {row["method"]: row for row in summary["settings"]}
    assert [row["is_recipe"] for row in rows.values()] == [False, False, True]
    assert set(rows) == {"zero-filled", "TV", "small_mri"}
    assert rows["small_mri"]["n_slices"] == 4
    assert rows["small_mri"]["interval"]["psnr"][0] <= rows["small_mri"]["mean"]["psnr"]
    assert summary["provenance"]["small_mri"]["weights"] == "small.safetensors"
    assert {"mrisps", "commit", "torch"} <= summary["provenance"]["software"].keys()
    with (output / "slices.csv").open(newline="") as stream:
        slices = list(csv.DictReader(stream))
    assert len(slices) == 12
    with (output / "volumes.csv").open(newline="") as stream:
        volumes = list(csv.DictReader(stream))
    mean = sum(float(v["PSNR (dB)"]) for v in volumes if v["method"] == "small_mri") / 2
    assert mean == pytest.approx(rows["small_mri"]["mean"]["psnr"], abs=1e-3)
    page = (output / "index.html").read_text()
    assert page.count("<svg") == 1  # one setting
    assert page.count('type="text/plain"') == 4  # two worst cases
    assert "http:" not in page
    assert (output / "boxplot_1.png").read_bytes().startswith(b"\x89PNG")

    before = (output / "journal.jsonl").read_bytes()
    (output / "summary.json").unlink()
    assert cli(*command, *QUICK, "--worst", 0) == 0
    assert json.loads((output / "summary.json").read_text()) == summary
    assert (output / "journal.jsonl").read_bytes() == before


def test_the_split_test_is_held_out(cli: Cli, manifest: Path, recipe: Path, weights: Path, tmp_path: Path) -> None:
    command = ("compare", "--data", manifest, "--recipe", recipe, "--weights", weights, *BARE, "--slices", 0)

    output = tmp_path / "plain"
    assert cli(*command, "--output", output) == 0
    assert "other.h5" not in (output / "slices.csv").read_text()
    output = tmp_path / "all"
    assert cli(*command, "--output", output, "--include-test") == 0
    text = (output / "slices.csv").read_text()
    assert "other.h5" in text
    assert "t2, 4-fold" in text
    assert cli(*command, "--output", tmp_path / "x", "--split", "test") == 2
    assert "held out" in cli.error()
    # As tuning data it never serves.
    tuning = ("--tune-baselines-on", manifest, "--tuning-split", "test")
    assert cli(*command, "--output", tmp_path / "x", *tuning) == 2
    assert not (tmp_path / "x").exists()


def test_recipes_for_contrasts(cli: Cli, manifest: Path, recipe: Path, weights: Path, tmp_path: Path) -> None:
    second = tmp_path / "second.py"
    second.write_text(recipe.read_text().replace("lam=0.01", "lam=0.02"))
    output = tmp_path / "out"
    command = ("compare", "--data", manifest, "--include-test", "--weights", weights, "--output", output)
    recipes = ("--recipe", recipe, "--recipe", f"t2={second}")
    assert cli(*command, *recipes, *BARE, "--slices", 0) == 0
    found = {
        (row["setting"][:2], row["method"]) for row in json.loads((output / "summary.json").read_text())["settings"]
    }
    assert found == {("pd", "small_mri"), ("t2", "small_mri"), ("t2", "second")}
    rows = json.loads((output / "summary.json").read_text())["settings"]
    assert [row["gain"] is None for row in rows] == [True, True, False]
    assert cli(*command, "--recipe", recipe, "--recipe", recipe) == 2
    assert "is there twice" in cli.error()


def test_failures_are_said(cli: Cli, data: Path, recipe: Path, weights: Path, tmp_path: Path) -> None:
    (data / "damaged.h5").write_bytes(b"\x89HDF\r\n\x1a\nnothing")
    output = tmp_path / "out"
    command = ("compare", "--data", data, "--recipe", recipe, "--weights", weights, *BARE)
    assert cli(*command, "--output", output) == 1
    assert "damaged.h5" in cli.error()
    summary = json.loads((output / "summary.json").read_text())
    assert len(summary["failures"]) == 1
    assert summary["settings"][0]["n_slices"] == 4
    assert "FAILED: 1" in (output / "index.html").read_text()
    (data / "damaged.h5").unlink()
    hasty = ("--set", "solver.max_iterations=1")
    assert cli(*command, "--output", output, *hasty) == 1
    assert "NOT CONVERGED" in cli.stdout
    assert cli(*command, "--output", output, *hasty, "--accept-unconverged") == 0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--data", "none", "--recipe", "knee_pd_acc8", "--output", "o"), "none: does not exist"),
        (("--data", ".", "--recipe", "knee_pd_acc8", "--output", "o", "--split", "val"), "--split: is for manifests"),
        (("--data", "x", "--recipe", "y", "--output", "o", "--baselines", "bart"), "--baselines: expected some of"),
        (("--data", "x", "--recipe", "y", "--output", "o", "--slices", "a"), "--slices: expected a number"),
        (("--data", "x", "--recipe", "y", "--output", "o", "--border", "9", "--crop", "a"), "--crop: expected HEIGHTx"),
    ],
)
def test_wrong_commands(
    cli: Cli, arguments: tuple[str, ...], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli("compare", *arguments) == 2
    assert cli.error().startswith(f"error: {expected}")
    assert list(tmp_path.iterdir()) == []


def test_files_of_a_manifest_are_what_it_says(
    cli: Cli, manifest: Path, recipe: Path, weights: Path, tmp_path: Path
) -> None:
    listed = Manifest.read(manifest)
    wrong = dataclasses.replace(listed.files[0], sha256="0" * 64)
    dataclasses.replace(listed, files=(wrong, listed.files[1])).write(manifest)
    command = ("compare", "--data", manifest, "--recipe", recipe, "--weights", weights, "--output", tmp_path / "out")
    assert cli(*command) == 1
    assert "SHA-256" in cli.stderr
    assert "nothing could be evaluated" in cli.stderr
