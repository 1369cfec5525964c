"""What is said where there is no terminal: one line at the beginning, and one every 30 seconds."""

import re
from pathlib import Path

import numpy as np
import pytest

from mrisps.cli import terminal
from mrisps.cli.terminal import EVERY_SECONDS, Display, SolverProgress, time_left
from mrisps.io.images import write_image

from .helpers import Cli, recipe_text


class Clock:
    """Goes on by so many seconds whenever it is looked at."""

    def __init__(self, step: float) -> None:
        self.now, self.step = 0.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock(0.0)
    monkeypatch.setattr(terminal, "clock", made)
    return made


def test_a_line_every_half_minute(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Display() as display:
        for second in range(100):
            clock.now = second
            display.show("files", f"{second} of 100", second, 100)
    assert capsys.readouterr().err == "files: 30 of 100\nfiles: 60 of 100\nfiles: 90 of 100\n"
    assert EVERY_SECONDS == 30


def test_nothing_that_is_over_soon_is_announced(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    clock.now = 1000.0  # of a machine that has been running for a while
    with SolverProgress("knee.h5", 1e-3) as progress:
        for iteration in range(29):
            clock.now += 1
            progress.update(0, 1, iteration, 0.5)
    assert capsys.readouterr().err == ""


def test_what_is_said_of_a_solve(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with SolverProgress("knee\x1b.h5", 1e-3) as progress:
        clock.now = 40
        progress.update(1, 4, 120, 2e-3)
        progress.update(1, 4, 121, 1.9e-3)
        clock.now = 80
        progress.update(2, 4, 3, 0.1)
    assert capsys.readouterr().err == (
        "knee\\x1b.h5: slice 2/4  iteration 120  residual 2.0e-03 -> 1.0e-03  2 min left\n"
        "knee\\x1b.h5: slice 3/4  iteration 3  residual 1.0e-01 -> 1.0e-03  80 s left\n"
    )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((10, 0, 5), ""),
        ((10, 5, 5), ""),
        ((10, 1, 5), "40 s left"),
        ((600, 1, 5), "40 min left"),
        ((36000, 5, 10), "10.0 h left"),
    ],
)
def test_time_left(arguments: tuple[float, float, float], expected: str) -> None:
    assert time_left(*arguments) == expected


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every look at the clock takes 20 seconds."""
    monkeypatch.setattr(terminal, "clock", Clock(20.0))


@pytest.mark.usefixtures("slow")
def test_recon(cli: Cli, knee: Path, recipe: Path, weights: Path, tmp_path: Path) -> None:
    options = ("--recipe", recipe, "--weights", weights, "--output", tmp_path / "out")
    assert cli("recon", knee, *options) == 0
    lines = cli.stderr.splitlines()
    assert lines[0].startswith("1 file, recipe small_mri, weights small.safetensors, on cpu with ")
    assert lines[1].startswith("knee.h5: slice 1/2  iteration ")
    assert any(line.startswith("knee.h5: slice 2/2  iteration ") for line in lines)


@pytest.mark.usefixtures("slow")
@pytest.mark.parametrize("task", ["denoise", "superres"])
def test_images(cli: Cli, picture: Path, weights: Path, tmp_path: Path, task: str) -> None:
    blur = "blur=BlurRule(kernel_size=4, sigma=1.0, stride=2), " if task == "superres" else ""
    recipe = tmp_path / "recipe.py"
    recipe.write_text(recipe_text(task, f"noise_std=0.02, {blur}"))
    assert cli(task, picture, "--recipe", recipe, "--weights", weights, "--output", tmp_path / "out") == 0
    lines = cli.stderr.splitlines()
    assert lines[0].startswith(f"1 file, recipe small_{task}, weights small.safetensors, on cpu with ")
    assert lines[1].startswith("picture.png: slice 1/1  iteration ")


@pytest.mark.usefixtures("slow")
def test_tune(cli: Cli, weights: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "small.py"
    solver = "tolerance=5e-2, max_iterations=40, image_change=0.5"
    recipe.write_text(recipe_text("denoise", f"noise_std=0.05, weights='{weights.name}', ", solver))
    write_image(tmp_path / "a.npy", np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16))
    options = ("--data", tmp_path / "a.npy", "--output", tmp_path / "tuned.py", "--max-evaluations", 1)
    assert cli("tune", recipe, *options) == 0
    lines = cli.stderr.splitlines()
    assert lines[0].startswith("small_denoise: 1 slices or images, from beta 0.02, lam 0.01")
    assert any(line.startswith("tuned.py: slice 1/1  iteration ") for line in lines)


@pytest.mark.usefixtures("slow")
def test_evaluate(cli: Cli, tmp_path: Path) -> None:
    for folder in ("made", "true"):
        (tmp_path / folder).mkdir()
        for name in ("a", "b", "c"):
            write_image(tmp_path / folder / f"{name}.npy", np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16))
    assert cli("evaluate", tmp_path / "made", tmp_path / "true", "--data-range", 1) == 0
    assert cli.stderr.splitlines() == [
        f"comparing {tmp_path / 'made'} with {tmp_path / 'true'}",
        "files: 2 of 3 compared",
    ]


# -------------------------------------------------------------------------------------------------------------- dry runs


def test_dry_run_of_kspace(cli: Cli, knee: Path, recipe: Path, weights: Path, tmp_path: Path) -> None:
    options = ("--recipe", recipe, "--weights", weights, "--output", tmp_path / "out", "--dry-run")
    for command, more in (("recon", ("--slices", "1")), ("batch", ("--workers", 2, "--threads", 1))):
        source = knee if command == "recon" else knee.parent
        assert cli(command, source, *options, *more) == 0
        lines = cli.stdout.splitlines()
        assert lines[0].startswith("1 file, recipe small_mri, weights small.safetensors, on cpu with ")
        slices = "1 slice" if command == "recon" else "2 slices"
        assert lines[1].startswith(f"{knee}: {slices}, image 32 x 24, memory ")
        assert re.fullmatch(r"memory: about 0.0 GiB, and 0.4 GiB for each process(; .* are left on cpu)?", lines[2])
    assert lines[0].endswith("2 workers of 1 thread")
    assert not (tmp_path / "out").exists()


def test_dry_run_says_how_many_slices_fit(
    cli: Cli, knee: Path, recipe: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--recipe", recipe, "--weights", weights, "--output", tmp_path / "out", "--dry-run")
    for available, expected in ((1 << 40, 2), (10 << 10, 1)):
        for place in ("memory", "together"):
            monkeypatch.setattr(f"mrisps.reconstruction.{place}.available_memory", lambda device, n=available: n)
        assert cli("recon", knee, *options, "--slices-together", 3) == 0
        assert f"{knee}: 2 slices, image 32 x 24, {expected} in one solve, memory " in cli.stdout
        notes = [line for line in cli.stderr.splitlines() if line.startswith("note: ")]
        assert len(notes) == (0 if expected == 2 else 2)
    assert notes[0].startswith("note: 2 slices in one solve need about ")
    assert notes[1].startswith(f"note: {knee}: an image of 32 x 24 needs about ")


def test_dry_run_of_images(cli: Cli, picture: Path, weights: Path, tmp_path: Path) -> None:
    options = ("--weights", weights, "--output", tmp_path / "out", "--dry-run")
    assert cli("denoise", picture, "--sigma", 0.1, *options) == 0
    assert cli.stdout.startswith("1 file, recipe denoise_sigma25, weights small.safetensors, on cpu with ")
    assert cli("superres", picture, "--factor", 2, *options) == 0
    assert re.search(r": 1 slice, image 7\d x 5\d, memory ", cli.stdout)
    assert not (tmp_path / "out").exists()
    picture.write_bytes(b"nothing")
    assert cli("superres", picture, "--factor", 2, *options) == 1
    assert cli.error().startswith(f"error: {picture}: is no readable PNG image")
