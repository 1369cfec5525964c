import math
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from result_files import write_result

from mrisps.errors import FileError
from mrisps.io.fastmri import write_kspace
from mrisps.io.images import center_crop, write_image
from mrisps.quality.file_scores import evaluate_files
from mrisps.quality.metrics import DataRange, nmse, psnr, ssim

Volume = NDArray[np.float32]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def volumes(rng: np.random.Generator, n_slices: int, n_y: int, n_x: int) -> tuple[Volume, Volume]:
    """A smooth target and a noisy image of it."""
    y, x = np.mgrid[:n_y, :n_x]
    scale = 3e-5 * (1 + np.arange(n_slices))[:, np.newaxis, np.newaxis]  # fastMRI's images have such values
    target = scale * (1.2 + np.sin(x / 5) * np.cos(y / 7))
    image = target + 0.05 * scale * rng.normal(size=target.shape)
    return image.astype(np.float32), target.astype(np.float32)


def write_pair(folder: Path, name: str, image: Volume, target: Volume, encoded: tuple[int, int]) -> None:
    for part in ("prediction", "target"):
        (folder / part).mkdir(exist_ok=True)
    kspace = np.ones((len(target), *encoded), np.complex64)
    write_kspace(folder / "target" / name, kspace, target=target, contrast="CORPD_FBK", attributes={"acceleration": 8})
    write_result(folder / "prediction" / name, image, attributes={"acquisition": "CORPD_FBK"})


def test_equal_to_fastmri_evaluate(tmp_path: Path, rng: np.random.Generator) -> None:
    fastmri_evaluate = pytest.importorskip("fastmri.evaluate", reason="the extra fastmri is not installed")
    # square; not square (fastMRI compares the central square as wide as the target); prediction with more around it
    for name, n_slices, target_shape, image_shape in (
        ("a.h5", 3, (32, 32), (32, 32)),
        ("b.h5", 1, (40, 31), (40, 31)),
        ("c.h5", 2, (32, 32), (48, 36)),
    ):
        image, target = volumes(rng, n_slices, *image_shape)
        write_pair(tmp_path, name, image, center_crop(target, target_shape), image_shape)
    for acquisition, acceleration in ((None, None), ("CORPD_FBK", 8)):
        arguments = Namespace(
            target_path=tmp_path / "target",
            predictions_path=tmp_path / "prediction",
            acquisition=acquisition,
            acceleration=acceleration,
        )
        expected = fastmri_evaluate.evaluate(arguments, "reconstruction_esc").means()
        found = evaluate_files(tmp_path / "prediction", tmp_path / "target", data_range="target-max")
        assert [score.shape for score in found.scores] == [(32, 32), (31, 31), (32, 32)]
        assert found.psnr == pytest.approx(float(expected["PSNR"]), abs=1e-6)
        assert found.ssim == pytest.approx(float(expected["SSIM"][0]), abs=1e-6)
        assert found.nmse == pytest.approx(float(expected["NMSE"]), abs=1e-6)
        assert 20 < found.psnr < 40


def test_functions_equal_fastmri(rng: np.random.Generator) -> None:
    fastmri_evaluate = pytest.importorskip("fastmri.evaluate", reason="the extra fastmri is not installed")
    image, target = volumes(rng, 2, 64, 48)
    for peak in (float(target.max()), 1e-4):
        assert psnr(image, target, data_range=peak) == pytest.approx(
            fastmri_evaluate.psnr(target, image, peak), abs=1e-6
        )
        expected = float(fastmri_evaluate.ssim(target, image, peak)[0])
        assert ssim(image, target, data_range=peak) == pytest.approx(expected, abs=1e-6)
    assert nmse(image, target) == pytest.approx(float(fastmri_evaluate.nmse(target, image)), rel=1e-6)


def test_values_by_hand() -> None:
    target = np.full((8, 8), 2.0)
    image = target + 0.1
    assert psnr(image, target, data_range=1.0) == pytest.approx(20)
    assert psnr(image, target, data_range=10.0) == pytest.approx(40)
    assert nmse(image, target) == pytest.approx(0.0025)
    assert psnr(target, target, data_range=1.0) == math.inf
    assert ssim(target, target, data_range=1.0) == pytest.approx(1)
    assert nmse(target, target) == 0


def test_ssim_is_the_mean_over_slices(rng: np.random.Generator) -> None:
    image, target = volumes(rng, 3, 20, 20)
    slices = [ssim(a, b, data_range=1e-4) for a, b in zip(image, target, strict=True)]
    assert ssim(image, target, data_range=1e-4) == pytest.approx(sum(slices) / 3)


@pytest.mark.parametrize("bad", [np.ones((8, 9)), np.ones((8, 8)) + 0j, np.full((8, 8), np.nan), np.ones((8, 8), int)])
def test_bad_arrays(bad: np.ndarray) -> None:
    good = np.ones((8, 8))
    with pytest.raises(ValueError, match="image: expected"):
        psnr(bad, good, data_range=1.0)
    with pytest.raises(ValueError, match="image: expected"):
        ssim(bad, good, data_range=1.0)
    with pytest.raises(ValueError, match="image: expected"):
        nmse(bad, good)
    with pytest.raises(ValueError, match=r"(image|target): expected"):
        nmse(good, bad)


@pytest.mark.parametrize("data_range", [0, -1.0, math.inf, math.nan, "max", None])
def test_bad_data_range(tmp_path: Path, data_range: DataRange) -> None:
    image = np.ones((8, 8))
    for metric in (psnr, ssim):
        with pytest.raises(ValueError, match="data_range: expected a positive number"):
            metric(image, image, data_range=data_range)  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(ValueError, match="data_range: expected a positive number"):
        evaluate_files(tmp_path, tmp_path, data_range=data_range)


def test_other_limits() -> None:
    with pytest.raises(ValueError, match="at least 7 x 7 pixels"):
        ssim(np.ones((6, 9)), np.ones((6, 9)), data_range=1.0)
    with pytest.raises(ValueError, match="target: is zero everywhere"):
        nmse(np.ones((3, 3)), np.zeros((3, 3)))


@pytest.mark.parametrize(("n", "part"), [(8, 4), (8, 5), (7, 4), (7, 3), (5, 5)])
def test_center_crop_equals_fastmri(rng: np.random.Generator, n: int, part: int) -> None:
    transforms = pytest.importorskip("fastmri.data.transforms", reason="the extra fastmri is not installed")
    image = rng.normal(size=(2, n, 9))
    np.testing.assert_array_equal(center_crop(image, (part, 6)), transforms.center_crop(image, (part, 6)))


@pytest.mark.parametrize("shape", [(9, 4), (4, 9), (0, 4)])
def test_center_crop_refuses(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="shape: expected at most"):
        center_crop(np.ones((8, 8)), shape)


def test_files_with_a_number_as_data_range(tmp_path: Path, rng: np.random.Generator) -> None:
    image, target = volumes(rng, 2, 40, 30)
    write_pair(tmp_path, "a.h5", image, target, (40, 30))
    pair = (tmp_path / "prediction" / "a.h5", tmp_path / "target" / "a.h5")
    (score,) = evaluate_files(*pair, data_range=1e-4, crop=(20, 24)).scores
    cropped, reference = center_crop(image, (20, 24)), center_crop(target, (20, 24))
    assert (score.name, score.n_slices, score.shape, score.data_range) == ("a.h5", 2, (20, 24), 1e-4)
    assert score.psnr == pytest.approx(psnr(cropped, reference, data_range=1e-4))
    assert score.ssim == pytest.approx(ssim(cropped, reference, data_range=1e-4))
    assert score.nmse == pytest.approx(nmse(cropped, reference))
    assert evaluate_files(tmp_path / "prediction", pair[1], data_range=1e-4, crop=(20, 24)).scores == (score,)


def test_pictures_without_their_border(tmp_path: Path, rng: np.random.Generator) -> None:
    target = rng.random((30, 40)).astype(np.float32)
    image = np.clip(target + 0.01, 0, 1)
    image[:5] = 0
    write_image(tmp_path / "target.png", target, bits=16)
    write_image(tmp_path / "image.npy", image)
    found = evaluate_files(tmp_path / "image.npy", tmp_path / "target.png", data_range=1.0, border=5)
    assert found.scores[0].shape == (20, 30)
    assert found.psnr == pytest.approx(40, abs=0.3)


def test_what_does_not_fit(tmp_path: Path, rng: np.random.Generator) -> None:
    image, target = volumes(rng, 2, 32, 32)
    write_pair(tmp_path, "a.h5", image, target, (32, 32))
    prediction, reference = tmp_path / "prediction", tmp_path / "target"

    def refused(message: str, crop: tuple[int, int] | None = None, border: int = 0) -> None:
        with pytest.raises(FileError, match=message):
            evaluate_files(prediction, reference, data_range=1.0, crop=crop, border=border)

    refused(r"expected at least 33 x 32 pixels, got \(32, 32\)", crop=(33, 32))
    refused("a border of 13 leaves fewer than 7 x 7", border=13)
    write_kspace(reference / "b.h5", np.ones((1, 8, 8), np.complex64), target=np.ones((1, 8, 8), np.float32))
    refused(r"prediction: 1 of 2 predictions are missing: b\.h5")
    write_result(prediction / "b.h5", np.ones((2, 8, 8), np.float32))
    refused(r"b\.h5: expected 1 slices as in .*b\.h5, got 2")
    write_result(prediction / "b.h5", np.ones((1, 7, 8), np.float32))
    refused(r"b\.h5: expected at least 8 x 8 pixels")
    (reference / "b.h5").write_bytes(b"nothing")
    refused(r"b\.h5: is not an HDF5 file")
    write_kspace(reference / "b.h5", np.ones((1, 8, 8), np.complex64))
    refused(r"b\.h5: reconstruction_esc or reconstruction_rss or reconstruction: is missing")
    with pytest.raises(ValueError, match="border"):
        evaluate_files(prediction, reference, data_range=1.0, border=-1)
    with pytest.raises(FileError, match="expected a folder"):
        evaluate_files(prediction / "a.h5", reference, data_range=1.0)
    with pytest.raises(FileError, match="does not exist"):
        evaluate_files(prediction, tmp_path / "absent", data_range=1.0)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileError, match="has no HDF5 files or images"):
        evaluate_files(prediction, tmp_path / "empty", data_range=1.0)


def test_useless_target(tmp_path: Path) -> None:
    write_result(tmp_path / "a.h5", np.zeros((1, 8, 8), np.float32))
    with pytest.raises(FileError, match="is zero everywhere"):
        evaluate_files(tmp_path / "a.h5", tmp_path / "a.h5", data_range=1.0)
    write_result(tmp_path / "a.h5", -np.ones((1, 8, 8), np.float32))
    with pytest.raises(FileError, match="has no positive maximum to be the data range"):
        evaluate_files(tmp_path / "a.h5", tmp_path / "a.h5", data_range="target-max")
