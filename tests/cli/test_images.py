"""`mrisps denoise` and `mrisps superres`."""

import json
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from mrisps.io.images import read_image, write_image
from mrisps.model import ModelConfig, SmoothPlusSparse
from mrisps.reconstruction import reconstruct as reconstruct_module
from mrisps.reconstruction.verdict import Verdict

from .helpers import SHAPE, Cli, recipe_text


@pytest.fixture
def denoise_recipe(tmp_path: Path) -> Path:
    path = tmp_path / "denoise.py"
    path.write_text(recipe_text("denoise", "noise_std=0.02, "))
    return path


@pytest.fixture
def superres_recipe(tmp_path: Path) -> Path:
    path = tmp_path / "superres.py"
    path.write_text(recipe_text("superres", "blur=BlurRule(kernel_size=4, sigma=1.0, stride=2), noise_std=0.01, "))
    return path


def test_denoise(cli: Cli, picture: Path, denoise_recipe: Path, weights: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    assert cli("denoise", picture, "--recipe", denoise_recipe, "--weights", weights, "--output", output) == 0
    assert sorted(path.name for path in output.iterdir()) == ["picture.json", "picture.png"]
    assert cli.stdout.startswith(f"{output / 'picture.png'}: GOOD: 32 x 24, converged, ")
    assert re.fullmatch(
        r"1 file, recipe small_denoise, weights small.safetensors, on cpu with \d+ threads?\n", cli.stderr
    )
    assert read_image(output / "picture.png").shape == SHAPE
    record = json.loads((output / "picture.json").read_text())
    assert record["certificate"]["status"] == "converged"
    assert record["provenance"]["recipe"]["name"] == "small_denoise"
    assert record["provenance"]["input"]["name"] == "picture.png"
    assert record["output"] == {"name": "picture.png", "parts": []}


def test_parts_and_format(cli: Cli, picture: Path, denoise_recipe: Path, weights: Path, tmp_path: Path) -> None:
    options = ("--recipe", denoise_recipe, "--weights", weights, "--parts")
    output = tmp_path / "npy"
    assert cli("denoise", picture, *options, "--output", output, "--format", "npy", "--noise-std", 0.05) == 0
    parts = {name: np.load(output / f"picture_{name}.npy") for name in ("smooth", "sparse", "cost_map")}
    image = np.load(output / "picture.npy")
    np.testing.assert_allclose(parts["smooth"] + parts["sparse"], image, atol=1e-6)
    certificate = json.loads((output / "picture.json").read_text())["certificate"]
    assert certificate["noise_std"] == pytest.approx(0.05)

    output = tmp_path / "png"
    assert cli("denoise", picture, *options, "--output", output, "--bits", 16) == 0
    assert (read_image(output / "picture_sparse.tif") < 0).any()  # a PNG would have clipped them
    np.testing.assert_allclose(read_image(output / "picture.png"), np.clip(image, 0, 1), atol=1e-5)


def test_superres(cli: Cli, picture: Path, superres_recipe: Path, weights: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    options = ("--recipe", superres_recipe, "--weights", weights, "--output", output, "--format", "tif")
    assert cli("superres", picture, *options) == 0
    assert "32 x 24 -> 66 x 50, converged" in cli.stdout
    assert read_image(output / "picture.tif").shape == (66, 50)


def test_folder_with_a_bad_file(
    cli: Cli, image: NDArray[np.float32], denoise_recipe: Path, weights: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    write_image(folder / "a.tif", image)
    (folder / "b.png").write_bytes(b"no picture")
    Image.new("RGB", (16, 16), (9, 99, 199)).save(folder / "c.png")
    (folder / "notes.txt").write_text("is left out")
    options = ("--recipe", denoise_recipe, "--weights", weights)
    assert cli("denoise", folder, *options, "--output", tmp_path / "out") == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.json", "a.tif"]
    assert f"error: {folder / 'b.png'}: is no readable PNG image" in cli.stderr
    assert f"error: {folder / 'c.png'}: is a colour image" in cli.stderr
    assert "1 of 3 files reconstructed; 2 failed" in cli.stderr
    assert cli("denoise", folder / "c.png", *options, "--output", tmp_path / "grey", "--colour-to-grey") == 0


def test_not_converged(cli: Cli, picture: Path, denoise_recipe: Path, weights: Path, tmp_path: Path) -> None:
    options = ("--recipe", denoise_recipe, "--weights", weights, "--set", "solver.max_iterations=1")
    options = (*options, "--output", tmp_path / "out", "--overwrite")
    assert cli("denoise", picture, *options) == 1
    assert "NOT CONVERGED" in cli.stdout
    assert json.loads((tmp_path / "out" / "picture.json").read_text())["certificate"]["status"] == "max_iter"
    assert cli("denoise", picture, *options, "--accept-unconverged") == 0


def test_odd_size_with_groups(cli: Cli, image: NDArray[np.float32], denoise_recipe: Path, tmp_path: Path) -> None:
    config = ModelConfig(patch_size=5, n_free_atoms=6, n_synthesis_atoms=8, regulariser="CPR", group_size=2)
    generator = torch.Generator().manual_seed(0)
    atoms = (torch.randn(n, 5, 5, generator=generator) for n in (6, 8))
    weights = tmp_path / "cpr.safetensors"
    SmoothPlusSparse(config, *atoms, torch.zeros(8), beta=1.0, lam=0.01).save(weights)
    odd = tmp_path / "odd.npy"
    write_image(odd, image[:31])
    assert cli("denoise", odd, "--recipe", denoise_recipe, "--weights", weights, "--output", tmp_path / "out") == 1
    assert cli.error().startswith(f"error: {odd}: image size: this model shrinks groups of 2 x 2 pixels")
    assert list((tmp_path / "out").iterdir()) == []


def test_disk_full(
    cli: Cli,
    picture: Path,
    denoise_recipe: Path,
    weights: Path,
    tmp_path: Path,
    small_disk: Callable[[int], AbstractContextManager[None]],
) -> None:
    output = tmp_path / "out"
    with small_disk(100):
        assert cli("denoise", picture, "--recipe", denoise_recipe, "--weights", weights, "--output", output) == 1
    assert cli.error() == f"error: {output / 'picture.png'}: cannot be written: File too large"
    assert list(output.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--format", "jpg"), "--format: expected one of png, tif, tiff, npy, got 'jpg'"),
        (("--bits", "12"), "--bits: expected 8 or 16, got 12"),
        (("--noise-std", "-1"), "--noise-std: expected a number >= 0, got -1.0"),
        (("--noise-std", "nan"), "--noise-std: expected a number >= 0, got nan"),
        (("--scale", "0"), "--scale: expected a number > 0, got 0.0"),
        (("--set", "lamda=1"), "lamda: unknown key"),
    ],
)
def test_wrong_options(
    cli: Cli,
    picture: Path,
    denoise_recipe: Path,
    weights: Path,
    tmp_path: Path,
    options: tuple[str, ...],
    expected: str,
) -> None:
    common = ("--recipe", denoise_recipe, "--weights", weights, "--output", tmp_path / "out")
    assert cli("denoise", picture, *common, *options) == 2
    assert cli.error().startswith(f"error: {expected}")
    assert not (tmp_path / "out").exists()


def test_usage(cli: Cli, picture: Path, knee: Path, denoise_recipe: Path, weights: Path, tmp_path: Path) -> None:
    common = ("--recipe", denoise_recipe, "--weights", weights, "--output", tmp_path / "out")
    assert cli("denoise", knee, *common) == 2
    assert cli.error().startswith(f"error: {knee}: expected a file name ending in .png, ")
    assert cli("superres", picture, *common) == 2
    assert "is for the task 'denoise', not for 'superres'" in cli.error()
    assert cli("denoise", picture, *common) == 0
    assert cli("denoise", picture, *common) == 2
    assert "exists already (and 1 more); use --overwrite" in cli.error()
    same_name = tmp_path / "other" / "picture.tif"
    same_name.parent.mkdir()
    write_image(same_name, read_image(picture))
    assert cli("denoise", picture, same_name, *common, "--overwrite") == 2
    assert "picture.json: would be the output of both" in cli.error()


def test_an_unusable_image_is_not_written_unless_kept(
    cli: Cli, picture: Path, denoise_recipe: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = Verdict("unusable", ("nothing fits",), {})
    monkeypatch.setattr(reconstruct_module, "judge", lambda facts, status: bad)
    options = ("--recipe", denoise_recipe, "--weights", weights, "--output", tmp_path / "out")
    assert cli("denoise", picture, *options) == 1
    assert cli.error().endswith("is unusable, nothing is written: nothing fits")
    assert list((tmp_path / "out").iterdir()) == []
    assert cli("denoise", picture, *options, "--keep") == 1
    assert "UNUSABLE" in cli.stdout
    assert (tmp_path / "out" / "picture.png").is_file()


def test_sigma_chooses_as_the_function_does(cli: Cli, picture: Path, weights: Path, tmp_path: Path) -> None:
    """The recipe whose noise is nearest, and the scale that brings the image's noise to its level: one choice, one code path."""
    import mrisps

    expected = mrisps.denoise(picture, 0.03, weights=weights, solver={"max_iterations": 3})
    options = ("--weights", weights, "--output", tmp_path, "--format", "npy", "--set", "solver.max_iterations=3")
    assert cli("denoise", picture, "--sigma", 0.03, *options, "--keep") == 1  # three iterations are too few
    np.testing.assert_array_equal(np.load(tmp_path / "picture.npy"), expected.image)
    record = json.loads((tmp_path / "picture.json").read_text())
    assert record["provenance"]["recipe"]["name"] == "denoise_sigma5"
    assert record["certificate"]["scale"] == pytest.approx(0.03 * 255 / 5) == expected.certificate["scale"]


def test_what_chooses_a_recipe(cli: Cli, picture: Path, superres_recipe: Path, weights: Path, tmp_path: Path) -> None:
    options = ("--weights", weights, "--output", tmp_path / "out", "--dry-run")
    for command, given, message in (
        ("denoise", (), "--sigma: give the standard deviation of the noise"),
        ("denoise", ("--sigma", 0), "--sigma: expected a number > 0"),
        ("superres", (), "--factor, --recipe: give one of them"),
        ("superres", ("--factor", 2, "--recipe", superres_recipe), "--factor, --recipe: give one of them"),
        ("superres", ("--factor", 3), "--factor: expected 2 or 4"),
    ):
        assert cli(command, picture, *given, *options) == 2
        assert cli.error().startswith(f"error: {message}")
