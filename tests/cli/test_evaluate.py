"""`mrisps evaluate`: that the options arrive; the numbers are tested with the metrics."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mrisps.io.images import write_image
from mrisps.quality.metrics import nmse, psnr, ssim

from .helpers import Cli


@pytest.fixture
def pair(tmp_path: Path, image: NDArray[np.float32], rng: np.random.Generator) -> tuple[Path, Path]:
    prediction, target = tmp_path / "prediction.npy", tmp_path / "target.npy"
    write_image(target, image)
    write_image(prediction, (image + 0.05 * rng.normal(size=image.shape)).astype(np.float32))
    return prediction, target


def test_table_and_json(cli: Cli, pair: tuple[Path, Path], tmp_path: Path) -> None:
    prediction, target = (np.load(path) for path in pair)
    inner = (slice(6, -6), slice(5, -5))  # 24 x 20 in the centre without 2 pixels at every edge
    prediction, target = prediction[inner], target[inner]
    expected = {
        "psnr": psnr(prediction, target, data_range=0.9),
        "ssim": ssim(prediction, target, data_range=0.9),
        "nmse": nmse(prediction, target),
    }
    scores = tmp_path / "scores.json"
    options = ("--data-range", 0.9, "--crop", "24x18", "--border", 2, "--json", scores)
    assert cli("evaluate", *pair, *options) == 0
    record = json.loads(scores.read_text())
    assert record["mean"] == pytest.approx(expected)
    assert record["files"][0]["shape"] == [20, 14]
    heading, row = cli.stdout.splitlines()
    assert heading.split()[:2] == ["file", "slices"]
    assert row.split() == [
        "target.npy",
        "1",
        "20",
        "x",
        "14",
        "0.9",
        *(f"{expected['psnr']:.3f} {expected['ssim']:.5f} {expected['nmse']:.6f}".split()),
    ]


def test_equal_images(cli: Cli, pair: tuple[Path, Path], tmp_path: Path) -> None:
    scores = tmp_path / "scores.json"
    assert cli("evaluate", pair[1], pair[1], "--json", scores) == 0
    assert "inf" in cli.stdout
    assert json.loads(scores.read_text())["mean"]["psnr"] is None


def test_json_never_replaces_what_is_compared(cli: Cli, pair: tuple[Path, Path], tmp_path: Path) -> None:
    before = [path.read_bytes() for path in pair]
    folders = [tmp_path / name for name in ("predictions", "targets")]
    for folder in folders:
        folder.mkdir()
        (folder / "a.npy").write_bytes(before[1])
    for inputs, written in ((pair, pair[0]), (pair, pair[1]), (folders, folders[1] / "a.npy")):
        assert cli("evaluate", *inputs, "--json", written, "--overwrite") == 2
        assert "is compared, and would be replaced" in cli.stderr
    assert [path.read_bytes() for path in pair] == before
    assert (folders[1] / "a.npy").read_bytes() == before[1]


def test_json_is_replaced_when_asked_for_only(cli: Cli, pair: tuple[Path, Path], tmp_path: Path) -> None:
    scores = tmp_path / "scores.json"
    scores.write_text("kept")
    assert cli("evaluate", *pair, "--json", scores) == 2
    assert "exists already; use --overwrite to replace it" in cli.stderr
    assert scores.read_text() == "kept"
    assert cli("evaluate", *pair, "--json", scores, "--overwrite") == 0
    assert "mean" in json.loads(scores.read_text())


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--data-range", "0"), "--data-range: expected a positive number or target-max, got '0'"),
        (("--data-range", "max"), "--data-range: expected a positive number or target-max, got 'max'"),
        (("--crop", "20"), "--crop: expected HEIGHTxWIDTH in pixels"),
    ],
)
def test_wrong_options(cli: Cli, pair: tuple[Path, Path], options: tuple[str, ...], expected: str) -> None:
    assert cli("evaluate", *pair, *options) == 2
    assert cli.error().startswith(f"error: {expected}")


def test_files_that_do_not_fit(cli: Cli, pair: tuple[Path, Path], tmp_path: Path) -> None:
    assert cli("evaluate", pair[0], tmp_path / "none.npy") == 2
    assert cli("evaluate", *pair, "--crop", "33x24") == 1
    assert cli.error() == f"error: {pair[1]}: expected at least 33 x 24 pixels, got (32, 24)"
    (tmp_path / "text.npy").write_text("no array")
    assert cli("evaluate", tmp_path / "text.npy", pair[1]) == 1
    assert cli("evaluate", *pair, "--json", tmp_path / "none" / "x.json") == 1
    assert "cannot be written" in cli.error()
