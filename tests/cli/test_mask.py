"""`mrisps mask`."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from mrisps.cli.main import app
from mrisps.cli.mask import KINDS
from mrisps.sampling import MASK_KINDS, make_mask, read_mask

from .helpers import Cli

OPTIONS = ("--kind", "equispaced", "--acceleration", 8, "--center-fraction", 0.04, "--shape", "640x368")


def test_help_names_every_kind() -> None:
    assert KINDS.split(", ") == list(MASK_KINDS)


@pytest.mark.parametrize(
    ("begun", "offered"), [("equi", ["equispaced", "equispaced_fraction"]), ("", list(MASK_KINDS)), ("x", [])]
)
def test_tab_completes_the_kinds(begun: str, offered: list[str]) -> None:
    shell = {"_MRISPS_COMPLETE": "complete_bash", "COMP_WORDS": f"mrisps mask --kind {begun}", "COMP_CWORD": "3"}
    assert CliRunner().invoke(app, [], env=shell, prog_name="mrisps").stdout.split() == offered


def test_a_poisson_mask_of_another_seed_says_so(cli: Cli) -> None:
    """Seed 0 begins inside the centre, and would acquire nothing but that: 54-fold."""
    options = ("--kind", "poisson", "--acceleration", 8, "--center-fraction", 0.14, "--shape", "96x96")
    assert cli("mask", *options) == 0
    assert "acceleration  7.9" in cli.stdout
    assert "NOTE: seed 0 misses the acceleration; the mask was drawn with" in cli.stdout
    assert cli("mask", *options, "--acceleration", 1.2, "--center-fraction", 0) == 2
    assert cli.error().startswith("error: acceleration: no Poisson disc of 96 x 96 with center_fraction 0 comes within")


def test_prints_and_draws(cli: Cli) -> None:
    assert cli("mask", *OPTIONS) == 0
    assert cli.stdout == make_mask("equispaced", (640, 368), 8, 0.04).summary() + "\n"
    assert "NOTE: the realised acceleration" in cli.stdout
    assert cli.stderr == ""


def test_two_dimensional_drawing(cli: Cli) -> None:
    options = ("--kind", "poisson", "--acceleration", 3, "--center-fraction", 0.2, "--shape", "40x130", "--seed", 3)
    assert cli("mask", *options) == 0
    drawing = [line[4:] for line in cli.stdout.splitlines() if line.startswith("    ")]
    assert len(drawing) == 7  # 6 rows and 3 columns of k-space are one character
    assert max(map(len, drawing)) <= 64
    assert drawing[3][21] in "%@"  # the centre is dense


def test_files(cli: Cli, tmp_path: Path) -> None:
    made = make_mask("equispaced", (640, 368), 8, 0.04)
    for suffix in ("json", "npy", "png"):
        assert cli("mask", *OPTIONS, "--output", tmp_path / f"mask.{suffix}") == 0
        assert cli.stderr == f"mask: {tmp_path / f'mask.{suffix}'}\n"
    assert read_mask(tmp_path / "mask.json") == made
    np.testing.assert_array_equal(np.load(tmp_path / "mask.npy"), made.pattern)
    with Image.open(tmp_path / "mask.png") as picture:
        assert min(picture.size) > 300
    before = (tmp_path / "mask.json").read_bytes()
    assert cli("mask", *OPTIONS, "--output", tmp_path / "mask.json", "--seed", 1) == 2
    assert cli.error() == f"error: {tmp_path / 'mask.json'}: exists already; use --overwrite to replace it"
    assert (tmp_path / "mask.json").read_bytes() == before
    assert cli("mask", *OPTIONS, "--output", tmp_path / "mask.json", "--seed", 1, "--overwrite") == 0


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--kind", "equispased", "kind: expected one of random, equispaced"),
        ("--acceleration", "0.5", "acceleration: expected a number of at least 1, got 0.5"),
        ("--acceleration", "nan", "acceleration: expected a number of at least 1, got nan"),
        ("--center-fraction", "1.5", "center_fraction: expected a number in [0, 1], got 1.5"),
        ("--shape", "640,368", "--shape: expected HEIGHTxWIDTH in pixels"),
        ("--seed", "-1", "seed: expected an integer in [0, 2^32)"),
        ("--std", "0.3", "std: only used by gaussian, not by 'equispaced'"),
        ("--output", "mask.txt", "--output: expected a file name ending in .json, .npy, .png, got 'mask.txt'"),
    ],
)
def test_wrong_options(cli: Cli, option: str, value: str, expected: str) -> None:
    assert cli("mask", *OPTIONS, option, value) == 2
    assert cli.error().startswith(f"error: {expected}")


def test_output_cannot_be_written(cli: Cli, tmp_path: Path) -> None:
    assert cli("mask", *OPTIONS, "--output", tmp_path / "none" / "mask.json") == 1
    assert "cannot be written" in cli.error()
