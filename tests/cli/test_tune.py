"""`mrisps tune`."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from manifests import manifest_of
from numpy.typing import NDArray

from mrisps.io.images import write_image
from mrisps.reconstruction.recipe import load_recipe

from .helpers import PROJECT, Cli, recipe_text

QUICK = "tolerance=5e-2, max_iterations=40, image_change=0.5"


@pytest.fixture
def pictures(tmp_path: Path, image: NDArray[np.float32]) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, picture in (("a", image), ("b", image[::-1]), ("c", image[:, ::-1])):
        write_image(folder / f"{name}.png", np.clip(picture, 0, 1))
    return folder


@pytest.fixture
def denoising(tmp_path: Path, weights: Path) -> Path:
    path = tmp_path / "small.py"
    path.write_text(recipe_text("denoise", f"noise_std=0.05, weights='{weights.name}', ", QUICK))
    return path


def tune(denoising: Path, pictures: Path, output: Path) -> tuple[object, ...]:
    options = ("--crop", "16x16", "--files", "2", "--max-evaluations", "7")
    return ("tune", denoising, "--data", pictures, "--output", output, *options)


def without_times(path: Path) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def test_a_new_recipe_with_its_card(cli: Cli, denoising: Path, pictures: Path, tmp_path: Path) -> None:
    output = tmp_path / "elsewhere" / "tuned.py"
    output.parent.mkdir()
    assert cli(*tune(denoising, pictures, output)) == 0, cli.stderr
    old, new = load_recipe(denoising), load_recipe(output)
    assert new.name == "tuned"
    assert (new.solver, new.noise_std, new.task) == (old.solver, old.noise_std, old.task)
    assert (new.beta, new.lam) != (old.beta, old.lam)
    assert new.card is not None
    assert (new.card.metric, new.card.n_slices) == ("PSNR", 2)
    assert "a.png, c.png" in new.card.data  # spread over the three, not the first two
    assert "cropped to 16x16 at most" in new.card.data
    assert "14 solves" in new.card.how
    table = [line.split() for line in cli.stdout.splitlines()]
    assert len(table) == 1 + 7 + 1
    assert float(table[1][2]) == new.card.score  # best first
    assert table[1][-1] == "best"
    assert float(table[1][0]) == new.beta
    assert sum("start" in row for row in table) == 1
    assert output.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert len(without_times(output.with_suffix(".tune.jsonl"))) == 1 + 14
    # The weights are found from the new file's folder, and are those that were meant.
    assert new.weights_sha256 is not None
    assert cli("denoise", pictures / "b.png", "--recipe", output, "--output", tmp_path / "clean") == 0
    assert cli("recipes", "show", output) == 0
    assert "card.score" in cli.stdout


def test_going_on_after_a_crash(cli: Cli, denoising: Path, pictures: Path, tmp_path: Path) -> None:
    whole, part = tmp_path / "whole.py", tmp_path / "part.py"
    assert cli(*tune(denoising, pictures, whole)) == 0
    lines = whole.with_suffix(".tune.jsonl").read_text().splitlines(keepends=True)
    journal = part.with_suffix(".tune.jsonl")
    journal.write_text("".join(lines[:5]) + lines[5][:20])
    assert cli(*tune(denoising, pictures, part)) == 2  # never by accident
    assert "part.tune.jsonl: exists already" in cli.error()
    assert cli(*tune(denoising, pictures, part), "--resume") == 0
    assert "part.tune.jsonl: has 4 solves" in cli.stderr
    assert without_times(journal) == without_times(whole.with_suffix(".tune.jsonl"))
    assert journal.read_text().startswith("".join(lines[:5]))  # times too: they were not measured again
    assert part.read_text() == whole.read_text().replace("name='whole'", "name='part'")


def test_a_journal_of_something_else(cli: Cli, denoising: Path, pictures: Path, tmp_path: Path) -> None:
    """What other data, recipes or code have given is not taken; what an older version has written is refused by name."""
    output = tmp_path / "tuned.py"
    journal = output.with_suffix(".tune.jsonl")
    assert cli(*tune(denoising, pictures, output)) == 0
    again = ("--resume", "--overwrite")
    for change in (("--seed", "1"), ("--set", "noise_std=0.06")):
        n_before = len(without_times(journal))
        assert cli(*tune(denoising, pictures, output), *again, *change) == 0
        assert len(without_times(journal)) == n_before + 14
    before = output.read_bytes()
    journal.write_text('{"format": "mrisps-tune", "version": 1, "recipe": "r"}\n')
    assert cli(*tune(denoising, pictures, output), *again) == 1
    assert "tuned.tune.jsonl: line 1: " in cli.error()
    assert "an older version of mrisps has written" in cli.error()
    assert output.read_bytes() == before
    assert cli(*tune(denoising, pictures, tmp_path / "new.py"), "--resume") == 2
    assert "--resume: there is no" in cli.error()


@pytest.mark.slow
def test_kill_9(denoising: Path, pictures: Path, tmp_path: Path) -> None:
    output = tmp_path / "tuned.py"
    journal = output.with_suffix(".tune.jsonl")
    command = [sys.executable, "-m", "mrisps", *map(str, tune(denoising, pictures, output))]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    n_killed = 0
    resume: list[str] = []
    while not output.exists():
        known = journal.read_bytes().count(b"\n") if journal.exists() else 0
        process = subprocess.Popen([*command, *resume], env=environment, stderr=subprocess.DEVNULL)
        while process.poll() is None and n_killed < 4:
            if journal.exists() and journal.read_bytes().count(b"\n") >= known + 2:
                process.send_signal(signal.SIGKILL)
                n_killed += 1
                break
            time.sleep(0.005)
        process.wait(timeout=120)
        assert journal.exists()
        resume = ["--resume"]
    assert n_killed >= 2
    lines = without_times(journal)
    assert len(lines) == 1 + 14
    assert len({line["key"] for line in lines[1:]}) == 14  # none is there twice


def test_kspace_with_references_and_without(cli: Cli, weights: Path, knee: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "mri.py"
    recipe.write_text(recipe_text("mri", "mask=MaskRule('equispaced', 4, 0.1), scale=ScaleRule(99.9, 0.8), ", QUICK))
    arguments = ("tune", recipe, "--weights", weights, "--data", knee, "--max-evaluations", "2")
    assert cli(*arguments, "--output", tmp_path / "a.py", "--slices", "0:2") == 0
    card = load_recipe(tmp_path / "a.py").card
    assert card is not None
    assert (card.metric, card.n_slices) == ("PSNR", 2)
    blind = ("--criterion", "held-out", "--held-out", "0.4")
    assert cli(*arguments, "--output", tmp_path / "b.py", *blind) == 0
    card = load_recipe(tmp_path / "b.py").card
    assert card is not None
    assert (card.metric, card.n_slices) == ("held-out", 1)
    assert "0.4 of the lines outside the centre held out" in card.data


def test_not_converged(cli: Cli, denoising: Path, pictures: Path, tmp_path: Path) -> None:
    cap = ("--set", "solver.max_iterations=3", "--overwrite")
    output = tmp_path / "tuned.py"
    assert cli(*tune(denoising, pictures, output), *cap) == 1
    assert "2 of 2 solves with these values did NOT CONVERGE" in cli.stderr
    card = load_recipe(output).card
    assert card is not None
    assert card.how.endswith("2 of 2 did not converge")
    assert cli(*tune(denoising, pictures, output), *cap, "--accept-unconverged") == 0


def test_the_test_split_of_a_manifest_is_never_used(cli: Cli, denoising: Path, pictures: Path, tmp_path: Path) -> None:
    splits = {"a.png": "test", "b.png": "val", "c.png": "train"}
    manifest = manifest_of(pictures, lambda path: splits[path.name])
    path = tmp_path / "list.toml"
    manifest.write(path)
    output = tmp_path / "tuned.py"
    arguments = (*tune(denoising, path, output), "--root", pictures)
    assert cli(*arguments, "--split", "test") == 2
    assert "'test' is held out" in cli.error()
    assert cli(*arguments) == 0
    card = load_recipe(output).card
    assert card is not None
    assert "2 files (b.png, c.png)" in card.data
    assert cli(*arguments, "--split", "val", "--overwrite") == 0
    card = load_recipe(output).card
    assert card is not None
    assert "1 file (b.png)" in card.data
    (pictures / "b.png").write_bytes((pictures / "c.png").read_bytes())
    assert cli(*arguments, "--overwrite") == 1
    assert "b.png: has the SHA-256" in cli.error()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--criterion", "ssim"), "--criterion: expected 'reference' or 'held-out'"),
        (("--crop", "16"), "--crop: expected HEIGHTxWIDTH"),
        (("--crop", "4x4"), "crop: expected at least 8 x 8"),
        (("--held-out", "1"), "held_out_fraction: expected a number < 1"),
        (("--tolerance", "nan"), "--tolerance: expected a number >= 0"),
        (("--split", "val"), "--split: is for manifests"),
        (("--set", "lam=-1"), "lam: expected a number > 0"),
        (("--data", "missing"), "missing: does not exist"),
    ],
)
def test_wrong_commands(
    cli: Cli, denoising: Path, pictures: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    assert cli(*tune(denoising, pictures, tmp_path / "tuned.py"), *arguments) == 2
    assert message in cli.error()
    assert not (tmp_path / "tuned.py").exists()
    assert not (tmp_path / "tuned.tune.jsonl").exists()


def test_data_of_another_task(cli: Cli, denoising: Path, knee: Path, pictures: Path, tmp_path: Path) -> None:
    assert cli(*tune(denoising, knee, tmp_path / "tuned.py")) == 1
    assert "knee.h5: is no image" in cli.error()
    assert cli(*tune(denoising, knee.parent, tmp_path / "tuned.py")) == 2
    assert "expected files ending in .npy, .png" in cli.error()
    assert cli(*tune(denoising, pictures, tmp_path / "tuned.txt")) == 2
    assert "expected a file name ending in .py" in cli.error()
    assert cli(*tune(denoising, pictures, tmp_path / "tuned.py"), "--criterion", "held-out") == 1
    assert "held-out k-space is for MRI" in cli.error()
    assert not list(tmp_path.glob("tuned*"))
