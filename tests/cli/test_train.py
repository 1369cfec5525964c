"""`mrisps train`."""

import csv
import re
import signal
import subprocess
import sys
import types
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mrisps.bilevel import StepReport
from mrisps.io.images import write_image
from mrisps.model import ModelConfig, SmoothPlusSparse
from mrisps.model.derived_weights import random_atoms

from .helpers import Cli

RECIPE = """
from mrisps.bilevel import Accuracy, TrainSettings
from mrisps.model import ModelConfig
from mrisps.training.run import TrainRecipe
from mrisps.solvers import FastSettings
accuracy = Accuracy(iterations=8, tolerance=1e-3, adjoint_iterations=3, adjoint_tolerance=0.1)
recipe = TrainRecipe(
    name="tiny", task="denoise", noise_std=0.1, start="random", crop=(16, 16), validation_crop=(16, 16),
    model=ModelConfig(patch_size=3, n_free_atoms=2, n_synthesis_atoms=4),
    train=TrainSettings(
        n_steps=7, batch_size=2, learning_rate=0.03, start_accuracy=accuracy, end_accuracy=accuracy,
        validation_interval=3, checkpoint_interval=2,
        validation_solver=FastSettings(max_iterations=10, image_change=1.0, trace_interval=0),
    ),
)
"""

FILES = ["tiny.checkpoint.safetensors", "tiny.csv", "tiny.safetensors"]


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.py"
    path.write_text(RECIPE)
    return path


@pytest.fixture
def data(tmp_path: Path) -> tuple[str, Path, str, Path]:
    """The options that name images to train on and others."""
    rng = np.random.default_rng(0)
    for folder, n_images in (("images", 3), ("others", 2)):
        (tmp_path / folder).mkdir()
        for k in range(n_images):
            y, x = np.mgrid[:24, :20]
            edge = 0.3 + 0.4 * (y * rng.normal() + x * rng.normal() > 10 * rng.normal())
            write_image(tmp_path / folder / f"{k}.png", (edge + 0.02 * rng.random(edge.shape)).astype(np.float32))
    return "--data", tmp_path / "images", "--validation", tmp_path / "others"


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def timeless(path: Path) -> list[dict[str, str]]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows(path)]


def check_same_training(found: Path, expected: Path) -> None:
    """Weights, checkpoint and log, bit by bit; only the clock differs."""
    assert sorted(path.name for path in found.iterdir()) == FILES
    for name in ("tiny.safetensors", "tiny.checkpoint.safetensors"):
        one, two = load_file(found / name), load_file(expected / name)
        assert one.keys() == two.keys()
        for key, tensor in two.items():
            assert torch.equal(one[key], tensor), key
    assert timeless(found / "tiny.csv") == timeless(expected / "tiny.csv")


Data = tuple[str, Path, str, Path]


def test_train(cli: Cli, tiny: Path, data: Data, tmp_path: Path) -> None:
    output = tmp_path / "new" / "folder"
    (data[1] / "broken.png").write_bytes(b"broken")
    assert cli("train", tiny, *data, "--output", output) == 0
    assert sorted(path.name for path in output.iterdir()) == FILES

    model = SmoothPlusSparse.load(output / "tiny.safetensors")
    assert model.config == ModelConfig(patch_size=3, n_free_atoms=2, n_synthesis_atoms=4)
    assert model.lam == 0.008
    found = re.fullmatch(
        rf"{re.escape(str(output / 'tiny.safetensors'))}: 7 steps, validation PSNR (.*) dB at step (\d), sha256 (\w+)\n",
        cli.stdout,
    )
    assert found is not None, cli.stdout
    assert found[3] == model.fingerprint()

    log = rows(output / "tiny.csv")
    steps = [row for row in log if row["loss"]]
    assert [row["step"] for row in steps] == ["1", "2", "3", "4", "5", "6", "7"]
    looks = {row["step"]: float(row["validation_psnr"]) for row in log if row["validation_psnr"]}
    assert list(looks) == ["0", "3", "6", "7"]
    assert looks[found[2]] == max(looks.values()) == pytest.approx(float(found[1]), abs=0.01)
    for row in steps:
        assert float(row["loss"]) > 0
        assert 5 < float(row["psnr"]) < 60
        assert row["iterations"] == "8"
        assert row["adjoint_iterations"] == "3"
        assert 0 < float(row["adjoint_residual"]) < 1
        assert row["skipped"] == "0"
        assert float(row["seconds"]) > 0

    lines = cli.stderr.splitlines()
    assert lines[0].startswith(f"skipped: {data[1] / 'broken.png'}: ")
    assert lines[1] == "tiny: 3 images to train on, 2 for validation, 1 skipped"
    assert [line.split(":")[0] for line in lines[2:]] == ["step 0", "step 3", "step 6", "step 7"]
    assert sum("(best)" in line for line in lines) >= 1


def test_without_validation(cli: Cli, tiny: Path, data: Data, tmp_path: Path) -> None:
    assert cli("train", tiny, *data[:2], "--output", tmp_path / "out", "--set", "train.n_steps=2") == 0
    assert "2 steps, sha256" in cli.stdout
    tensors = load_file(tmp_path / "out" / "tiny.safetensors")
    last = load_file(tmp_path / "out" / "tiny.checkpoint.safetensors")
    assert torch.equal(tensors["beta"], last["model.beta"])


def test_deterministic_and_changed_by_set(cli: Cli, tiny: Path, data: Data, tmp_path: Path) -> None:
    shas = []
    for k, changes in enumerate(((), (), ("--set", "train.seed=1"), ("--set", "crop=16,20"))):
        options = ("--set", "train.n_steps=2", *changes)
        assert cli("train", tiny, *data[:2], "--output", tmp_path / f"{k}", *options) == 0
        shas.append(cli.stdout.split()[-1])
    assert shas[0] == shas[1]
    assert len(set(shas)) == 3


def test_start_and_exclude(cli: Cli, tiny: Path, data: Data, tmp_path: Path) -> None:
    random_atoms([], ModelConfig(patch_size=3, n_free_atoms=2, n_synthesis_atoms=4), seed=9).save(
        tmp_path / "w.safetensors"
    )
    options = ("--output", tmp_path / "out", "--exclude", "1.png", "--set", "start=weights", "--set", "train.n_steps=1")
    assert cli("train", tiny, *data, *options) == 2
    assert "start: is 'weights': weights to start from are missing" in cli.error()
    assert cli("train", tiny, *data, *options, "--start", tmp_path / "missing.safetensors") == 2
    assert "missing.safetensors: no such file; the weights that come with the package are denoise_" in cli.error()
    assert cli("train", tiny, *data, *options, "--start", "denoise_sigma25_ncpr") == 2
    assert "model: expected that of the weights to start from" in cli.error()
    assert cli("train", tiny, *data, *options, "--start", tmp_path / "w.safetensors") == 0
    assert "tiny: 2 images to train on" in cli.stderr


# --------------------------------------------------------------------------------------------------- overwrite, resume


def test_existing_output(cli: Cli, tiny: Path, data: Data, tmp_path: Path) -> None:
    output = tmp_path / "out"
    options = (*data, "--output", output, "--set", "train.n_steps=2")
    assert cli("train", tiny, *options) == 0
    expected = cli.stdout
    for kept in ("tiny.safetensors", "tiny.checkpoint.safetensors"):
        before = (output / kept).read_bytes()
        assert cli("train", tiny, *options) == 2
        assert f"{output / kept}: exists already; use --resume to go on or --overwrite to begin anew" in cli.error()
        assert (output / kept).read_bytes() == before
        (output / "tiny.safetensors").unlink(missing_ok=True)
    assert cli("train", tiny, *options, "--overwrite") == 0
    assert cli.stdout == expected
    assert len(rows(output / "tiny.csv")) == 4  # two looks, two steps: the log begins anew
    assert cli("train", tiny, *options, "--resume") == 0  # nothing is left to do
    assert cli.stdout == expected
    assert len(rows(output / "tiny.csv")) == 4


def test_resume_without_or_of_another_checkpoint(cli: Cli, tiny: Path, data: Data, tmp_path: Path) -> None:
    output = tmp_path / "out"
    assert cli("train", tiny, *data, "--output", output, "--resume") == 2
    assert "--resume: there is no " in cli.error()
    assert not output.exists()
    assert cli("train", tiny, *data, "--output", output, "--set", "train.n_steps=2") == 0
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    assert cli("train", tiny, *data, "--output", output, "--resume", "--set", "train.n_steps=3") == 1
    assert "identity: belongs to another training: recipe.train.n_steps is 2 there and 3 here" in cli.error()
    assert "start a new training from the weights so far (start='weights')" in cli.error()
    (output / "tiny.checkpoint.safetensors").write_bytes(before["tiny.checkpoint.safetensors"][:-9])
    assert cli("train", tiny, *data, "--output", output, "--resume", "--set", "train.n_steps=2") == 1
    assert "tiny.checkpoint.safetensors: damaged checkpoint" in cli.error()
    assert (output / "tiny.safetensors").read_bytes() == before["tiny.safetensors"]
    assert (output / "tiny.csv").read_bytes() == before["tiny.csv"]


def test_overwrite_begins_anew_at_once(
    cli: Cli, tiny: Path, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped before its first checkpoint it leaves none of the training before, with which --resume would go on."""
    options = (*data, "--output", tmp_path / "out", "--set", "train.n_steps=2")
    assert cli("train", tiny, *options) == 0

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("mrisps.training.run.train", stop)
        assert cli("train", tiny, *options, "--overwrite") == 130
    assert cli("train", tiny, *options, "--resume") == 2
    assert "--resume: there is no " in cli.error()


def test_weights_so_far_come_with_every_checkpoint(
    cli: Cli, tiny: Path, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mrisps.cli.train import _Log

    step = _Log.step

    def stop(journal: _Log, report: StepReport) -> None:
        step(journal, report)
        if report.step == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(_Log, "step", stop)
    assert cli("train", tiny, *data, "--output", tmp_path / "out") == 130
    assert SmoothPlusSparse.load(tmp_path / "out" / "tiny.safetensors").config.patch_size == 3


KILLED = """
import os, signal, sys
from mrisps.cli import train
from mrisps.cli.main import main
write = train._Log._write
def write_and_die(journal, line):
    write(journal, line)
    if line.startswith("5,"):
        with journal._path.open("a") as stream:
            stream.write("6,0.0")  # and a torn line
        os.kill(os.getpid(), signal.SIGKILL)
train._Log._write = write_and_die
main(sys.argv[1:])
"""


def test_kill_and_resume(
    cli: Cli, process: Callable[..., subprocess.CompletedProcess[str]], tiny: Path, data: Data, tmp_path: Path
) -> None:
    """kill -9 in step 5, a checkpoint having been written after step 4: nobody can tell afterwards."""
    assert cli("train", tiny, *data, "--output", tmp_path / "whole") == 0
    expected = cli.stdout.replace("whole", "torn")
    torn = tmp_path / "torn"
    killed = process("train", tiny, *data, "--output", torn, program=("-c", KILLED))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert sorted(path.name for path in torn.iterdir()) == FILES
    assert (torn / "tiny.csv").read_text().endswith("\n6,0.0")
    assert cli("train", tiny, *data, "--output", torn, "--resume") == 0
    assert cli.stdout == expected
    check_same_training(torn, tmp_path / "whole")


# ----------------------------------------------------------------------------------------------------- what can be wrong


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("train.step=3", "train.step: unknown key; known here: n_steps, batch_size"),
        ("crop=2,2", "crop: expected at least a patch"),
        ("train.batch_size=0", "train.batch_size: expected an integer >= 1"),
        ("task=mri", "--set: the task of a recipe cannot be changed"),
        ("lam", "--set: expected KEY=VALUE"),
    ],
)
def test_wrong_changes(cli: Cli, tiny: Path, data: Data, tmp_path: Path, change: str, message: str) -> None:
    assert cli("train", tiny, *data, "--output", tmp_path / "out", "--set", change) == 2
    assert message in cli.error()
    assert not (tmp_path / "out").exists()


def test_wrong_recipes(cli: Cli, recipe: Path, data: Data, tmp_path: Path) -> None:
    for name, message in (
        ("denoise_sigma25", "train_denoise_sigma25_ncpr"),
        (recipe, "expected a mrisps TrainRecipe, got Recipe"),
        (tmp_path / "missing.py", "no such recipe file"),
    ):
        assert cli("train", name, *data, "--output", tmp_path / "out") == 2
        assert message in cli.error()
    assert not (tmp_path / "out").exists()


def test_wrong_data(cli: Cli, tiny: Path, data: Data, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "small").mkdir()
    write_image(tmp_path / "small" / "s.png", np.full((9, 9), 0.5, dtype=np.float32))
    for folder, message in (
        ("missing", "missing: does not exist"),
        ("empty", "empty: expected files ending in .png, .tif"),
        ("small", "s.png: s.png: (9, 9) is smaller than the crop (16, 16)"),
    ):
        for option in ("--data", "--validation"):
            good = data[:2] if option == "--validation" else ()
            assert cli("train", tiny, *good, option, tmp_path / folder, "--output", tmp_path / "out") == 2
            assert message in cli.error()
    assert cli("train", tiny, "--data", data[1], "--validation", data[1], "--output", tmp_path / "out") == 2
    assert "0.png: is among the training images and the validation images" in cli.error()
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").write_text("a file")
    assert cli("train", tiny, *data, "--output", tmp_path / "out") == 1
    assert "cannot be used as output folder" in cli.error()


def test_device(cli: Cli, tiny: Path, data: Data, tmp_path: Path) -> None:
    assert cli("train", tiny, *data, "--output", tmp_path / "out", "--device", "tpu") == 2
    assert "--device: expected cpu, cuda or cuda:N" in cli.error()


def test_stops_with_an_error_when_nothing_can_be_learned(
    cli: Cli, tiny: Path, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Noise beyond what float32 can hold."""
    monkeypatch.setattr("mrisps.bilevel.trainer.MAX_SKIPPED", 3)
    output = tmp_path / "out"
    options = ("--output", output, "--set", "noise_std=1e38")
    assert cli("train", tiny, *data, *options) == 1
    assert "training stopped at step 4: 4 steps in a row" in cli.error()
    assert "SKIPPED" in cli.stderr
    assert sorted(path.name for path in output.iterdir()) == FILES[:2]  # no weights
    assert [row["skipped"] for row in rows(output / "tiny.csv") if row["loss"]] == ["1"] * 4


def test_full_disk(
    cli: Cli, tiny: Path, data: Data, tmp_path: Path, small_disk: Callable[[int], AbstractContextManager[None]]
) -> None:
    """The error names the file, be it the log or the checkpoint, and nothing is left half-written but the log."""
    for n_bytes, name, left in ((200, "tiny.csv", ["tiny.csv"]), (1500, "tiny.checkpoint.safetensors", ["tiny.csv"])):
        output = tmp_path / f"{n_bytes}"
        with small_disk(n_bytes):
            assert cli("train", tiny, *data, "--output", output) == 1
        assert f"{output / name}: cannot be written: File too large" in cli.error()
        assert sorted(path.name for path in output.iterdir()) == left


def test_ctrl_c(cli: Cli, tiny: Path, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mrisps.cli import train

    write = train._Log._write

    def interrupt(journal: "train._Log", line: str) -> None:
        write(journal, line)
        if line.startswith("3,"):
            raise KeyboardInterrupt

    monkeypatch.setattr(train._Log, "_write", interrupt)
    output = tmp_path / "out"
    assert cli("train", tiny, *data, "--output", output) == 130
    assert cli.stderr.splitlines()[-1] == "interrupted"
    monkeypatch.undo()
    assert cli("train", tiny, *data, "--output", output, "--resume") == 0
    assert [row["step"] for row in rows(output / "tiny.csv") if row["loss"]] == ["1", "2", "3", "4", "5", "6", "7"]


# ------------------------------------------------------------------------------------------------------------ the rest


def test_without_tensorboard(cli: Cli, tiny: Path, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # type: ignore[arg-type]  # as if it were missing
    options = (*data, "--set", "train.n_steps=2", "--tensorboard", tmp_path / "board")
    assert cli("train", tiny, *options, "--output", tmp_path / "without") == 2
    assert "--tensorboard: needs the package tensorboard (pip install 'mrisps[train]')" in cli.error()


@pytest.mark.filterwarnings("default")  # of what tensorboard imports
def test_tensorboard(cli: Cli, tiny: Path, data: Data, tmp_path: Path) -> None:
    """What its own reader finds is what is in the log."""
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    options = (*data, "--set", "train.n_steps=2", "--tensorboard", tmp_path / "board")
    assert cli("train", tiny, *options, "--output", tmp_path / "out") == 0
    events = accumulators.EventAccumulator(str(tmp_path / "board"))
    events.Reload()
    found = {name: [(event.step, event.value) for event in events.Scalars(name)] for name in events.Tags()["scalars"]}
    log = rows(tmp_path / "out" / "tiny.csv")
    steps = [row for row in log if row["loss"]]
    assert found.keys() == {"train/loss", "train/psnr", "train/adjoint_residual", "validation/psnr"}
    assert [step for step, _ in found["train/loss"]] == [1, 2]
    np.testing.assert_allclose(
        [value for _, value in found["train/loss"]], [float(r["loss"]) for r in steps], rtol=1e-6
    )
    np.testing.assert_allclose(
        [value for _, value in found["train/psnr"]], [float(r["psnr"]) for r in steps], atol=1e-4
    )
    assert [step for step, _ in found["validation/psnr"]] == [0, 2]


def test_help(cli: Cli) -> None:
    assert cli("train", "--help") == 0
    text = " ".join(cli.stdout.split())
    for words in (
        "Learn weights from clean images.",
        "RECIPE",
        "--data",
        "--validation",
        "--resume",
        "--exclude",
        "--start",
        "--tensorboard",
        "--threads",
        "torchrun --nproc-per-node 2 -m mrisps train",
        "Exit code 0: trained.",
    ):
        assert words in text
    assert cli("--help") == 0
    assert "train" in cli.stdout


def test_options_that_are_needed(cli: Cli, tiny: Path, data: Data, tmp_path: Path) -> None:
    assert cli("train", tiny, "--output", tmp_path / "out") == 2
    assert "--data" in cli.stderr
    assert cli("train", tiny, *data) == 2
    assert "--output" in cli.stderr


def test_a_line_every_half_minute(
    cli: Cli, tiny: Path, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter(range(0, 10_000, 10))
    monkeypatch.setattr("mrisps.cli.terminal.clock", lambda: next(times))
    assert cli("train", tiny, *data, "--output", tmp_path / "out", "--set", "train.n_steps=4") == 0
    lines = [line for line in cli.stderr.splitlines() if line.startswith("training: ")]
    assert lines[0].startswith("training: step 2/4  loss ")
    assert "  PSNR " in lines[0]
    assert lines[0].endswith(" s left")


def test_progress_bar(cli: Cli, tiny: Path, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal: the bar, instead of lines."""
    from mrisps.cli import terminal

    screen = types.SimpleNamespace(stderr=types.SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr(terminal, "sys", screen)
    assert cli("train", tiny, *data, "--output", tmp_path / "out", "--set", "train.n_steps=2") == 0
    assert "step 2" not in cli.stderr
    assert len(rows(tmp_path / "out" / "tiny.csv")) == 4
