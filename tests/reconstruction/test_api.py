"""One call: arrays and files in, results out, and what a result can do."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import mrisps
from mrisps import Recipe, SmoothPlusSparse
from mrisps.errors import FileError, MrispsError, SettingsError
from mrisps.io.fastmri import FastmriFile, write_kspace
from mrisps.io.images import read_image
from mrisps.io.result_file import ResultFile
from mrisps.model import Attention, ModelConfig
from mrisps.operators import FourierSubsampling
from mrisps.reconstruction import problem as problem_module
from mrisps.reconstruction import reconstruct as reconstruct_module
from mrisps.reconstruction import run as run_module
from mrisps.reconstruction.api import run_of
from mrisps.reconstruction.choices import ZEROS_NOTE
from mrisps.reconstruction.recipe import MaskRule, ScaleRule, with_overrides
from mrisps.reconstruction.together import UnusableResultError
from mrisps.reconstruction.verdict import Verdict
from mrisps.solvers import FastSettings, Reconstruction

SHAPE = (24, 20)


@pytest.fixture
def model() -> SmoothPlusSparse:
    generator = torch.Generator().manual_seed(0)
    config = ModelConfig(patch_size=5, n_free_atoms=6, n_synthesis_atoms=12)
    free, atoms = (torch.randn(n, 5, 5, generator=generator) for n in (6, 12))
    return SmoothPlusSparse(config, free, atoms, torch.zeros(12), beta=0.5, lam=0.02)


@pytest.fixture
def recipe() -> Recipe:
    return Recipe(
        "small",
        "mri",
        beta=0.5,
        lam=0.02,
        source="a test",
        scale=ScaleRule(percentile=99, reference=1.0),
        mask=MaskRule("random", 2, 0.2, seed=3),
        solver=FastSettings(tolerance=1e-3, max_iterations=300, trace_interval=0),
    )


@pytest.fixture
def image() -> NDArray[np.float32]:
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    picture: NDArray[np.float32] = (np.exp(-((y - 11) ** 2 + (x - 9) ** 2) / 30)).astype(np.float32)
    return picture


@pytest.fixture
def kspace(image: NDArray[np.float32]) -> NDArray[np.complex64]:
    """(1, y, x), every second column, the centre whole."""
    operator = FourierSubsampling(torch.from_numpy(columns()), SHAPE)
    measured: NDArray[np.complex64] = operator.forward(torch.from_numpy(image).to(torch.complex64)[None, None])[
        0
    ].numpy()
    return measured


def columns() -> NDArray[np.bool_]:
    mask = np.zeros(SHAPE[1], dtype=np.bool_)
    mask[::2] = mask[7:13] = True
    return mask


def write(path: Path, kspace: NDArray[np.complex64], n_slices: int = 1) -> Path:
    write_kspace(path, np.concatenate([(1 + i) * kspace for i in range(n_slices)]), mask=columns())
    return path


def test_file_and_array_give_the_same_image(
    tmp_path: Path, kspace: NDArray[np.complex64], model: SmoothPlusSparse, recipe: Recipe
) -> None:
    source = write(tmp_path / "in.h5", kspace)
    from_file = mrisps.recon(source, recipe, weights=model)
    given = [kspace, torch.from_numpy(kspace), kspace[0]]
    for array in given:
        result = mrisps.recon(array, recipe, weights=model, mask=columns())
        assert result.image.shape == SHAPE
        np.testing.assert_array_equal(
            result.image, from_file.image[0] if from_file.image.ndim == 3 else from_file.image
        )
    assert ZEROS_NOTE not in from_file.notes
    by_zeros = mrisps.recon(kspace, recipe, weights=model)
    assert ZEROS_NOTE in by_zeros.notes
    np.testing.assert_array_equal(by_zeros.image, from_file.image)
    np.testing.assert_allclose(from_file.smooth + from_file.sparse, from_file.image, atol=1e-6)


def test_slices_are_stacked(kspace: NDArray[np.complex64], model: SmoothPlusSparse, recipe: Recipe) -> None:
    two = np.stack([kspace, 2 * kspace])
    result = mrisps.recon(two, recipe, weights=model, mask=columns())
    assert result.image.shape == (2, *SHAPE)
    assert len(result.certificates) == 2
    np.testing.assert_allclose(result.image[1], 2 * result.image[0], rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="certificate: the result has 2 slices"):
        _ = result.certificate
    assert mrisps.recon(two, recipe, weights=model, slices="1").image.shape == (1, *SHAPE)


def test_recipe_values_can_be_changed(kspace: NDArray[np.complex64], model: SmoothPlusSparse, recipe: Recipe) -> None:
    """The README's former call lost beta and lam of the recipe: here they and the changes arrive in the problem."""
    result = mrisps.recon(kspace, recipe, weights=model, lam=0.5, solver={"max_iterations": 2})
    values = result.provenance["recipe"]
    assert isinstance(values, dict)
    assert values["lam"] == 0.5
    assert result.certificate["n_iterations"] == 2
    assert result.certificate["status"] == "max_iter"
    assert not result.converged
    assert "NOT CONVERGED" in repr(result)
    with pytest.raises(SettingsError, match=r"solver\.max_iteration"):
        mrisps.recon(kspace, recipe, weights=model, solver={"max_iteration": 2})


def test_settled_or_certified(kspace: NDArray[np.complex64], model: SmoothPlusSparse, recipe: Recipe) -> None:
    """A recipe may stop where the image has settled; ``certify`` goes on to a minimiser, which takes longer."""
    quick = with_overrides(recipe, {"solver.stop": "image", "solver.tolerance": "2e-4"})
    settled = mrisps.recon(kspace, quick, weights=model)
    certified = mrisps.recon(kspace, quick, weights=model, certify=True)
    assert (settled.certificate["status"], certified.certificate["status"]) == ("settled", "converged")
    assert settled.certificate["n_iterations"] < certified.certificate["n_iterations"]
    assert settled.finished
    assert not settled.converged
    assert certified.finished
    assert certified.converged
    assert settled.verdict.level == certified.verdict.level
    assert "settled" in repr(settled)
    assert np.linalg.norm(settled.image - certified.image) < 0.05 * np.linalg.norm(certified.image)


def test_regularisation_is_that_of_the_recipe(
    kspace: NDArray[np.complex64], model: SmoothPlusSparse, recipe: Recipe
) -> None:
    """Weights carry a beta and a lam of their own; the recipe's count."""
    mine = mrisps.recon(kspace, recipe, weights=model.with_regularisation(beta=5.0, lam=1.0))
    np.testing.assert_array_equal(mine.image, mrisps.recon(kspace, recipe, weights=model).image)


@pytest.mark.parametrize(
    ("change", "error", "expected"),
    [
        ({"source": "none.h5"}, FileError, "none.h5: does not exist"),
        ({"recipe": "multicoils"}, SettingsError, "multicoil"),
        ({"recipe": "denoise_sigma25"}, MrispsError, "is for the task 'denoise', not for 'mri'"),
        ({"mask": np.ones(7, dtype=np.bool_)}, ValueError, "mask"),
        ({"slices": "a"}, ValueError, "slices: expected a number or START:STOP"),
        ({"scale": 0.0}, ValueError, "scale: expected a number > 0, got 0.0"),
        ({"undersample": True, "mask": "from-zeros"}, ValueError, "give one of them, not both"),
        ({"maps": np.ones((3, *SHAPE), dtype=np.complex64)}, ValueError, "maps: expected complex"),
    ],
)
def test_wrong_arguments(
    change: dict[str, object],
    error: type[Exception],
    expected: str,
    kspace: NDArray[np.complex64],
    model: SmoothPlusSparse,
    recipe: Recipe,
) -> None:
    values = {"source": kspace, "recipe": recipe, "weights": model, **change}
    with pytest.raises(error, match=expected):
        mrisps.recon(**values)  # type: ignore[arg-type]  # wrong on purpose


def test_maps_and_noise_belong_to_arrays(
    tmp_path: Path, kspace: NDArray[np.complex64], model: SmoothPlusSparse, recipe: Recipe
) -> None:
    source = write(tmp_path / "in.h5", kspace)
    with pytest.raises(ValueError, match="noise: goes with an array"):
        mrisps.recon(source, recipe, weights=model, noise=kspace[0])


def test_wrong_weight_name_lists_the_names(kspace: NDArray[np.complex64], recipe: Recipe) -> None:
    with pytest.raises(MrispsError, match="knee"):
        mrisps.recon(kspace, recipe, weights="heads")


def test_saved_in_every_format(
    tmp_path: Path, kspace: NDArray[np.complex64], model: SmoothPlusSparse, recipe: Recipe
) -> None:
    result = mrisps.recon(np.stack([kspace, kspace]), recipe, weights=model, mask=columns())
    assert result.save(tmp_path / "r.h5") == ()
    with h5py.File(tmp_path / "r.h5") as file:
        np.testing.assert_array_equal(file["image"][()], result.image)
        assert {"smooth", "sparse", "cost_map"} <= set(file)
        assert "provenance" in file.attrs
    for name in ("r.nii.gz", "r.mrd"):
        result.save(tmp_path / name)
        assert (tmp_path / name).stat().st_size > 1000
    lost = result.save(tmp_path / "pictures", "png")
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == ["array_000.png", "array_001.png"]
    assert any("phase" in line for line in lost)
    with pytest.raises(ValueError, match="2 slices do not go into one picture"):
        result.save(tmp_path / "one.png")
    with pytest.raises(ValueError, match="format: expected one of nifti"):
        result.save(tmp_path / "r.xyz")


def test_a_result_shows_itself(
    tmp_path: Path, kspace: NDArray[np.complex64], model: SmoothPlusSparse, recipe: Recipe
) -> None:
    result = mrisps.recon(kspace, recipe, weights=model)
    assert repr(result).startswith("Result(array: 24 x 20 complex64, ")
    assert "\n" not in repr(result)
    assert "data:image/png;base64," in result._repr_html_()
    page = result.report(tmp_path / "page.html").read_text()
    assert "data:image/png;base64," in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_denoising(tmp_path: Path, image: NDArray[np.float32]) -> None:
    noisy = image + np.random.default_rng(0).normal(scale=0.1, size=SHAPE).astype(np.float32)
    result = mrisps.denoise(noisy, 0.1, solver={"max_iterations": 60})
    assert result.image.dtype == np.float32
    assert np.square(result.image - image).mean() < np.square(noisy - image).mean()
    assert result.certificate["expected_misfit"] == pytest.approx(25 / 255 * noisy.size**0.5)
    assert result.certificate["scale"] == pytest.approx(0.1 * 255 / 25)
    result.save(tmp_path / "clean.png")
    np.testing.assert_allclose(read_image(tmp_path / "clean.png"), np.clip(result.image, 0, 1), atol=1e-4)
    with pytest.raises(ValueError, match="sigma: expected a number > 0"):
        mrisps.denoise(noisy, 0)
    with pytest.raises(ValueError, match=r"image: expected real \(y, x\).* got complex64"):
        mrisps.denoise(noisy * 1j, 0.1)
    with pytest.raises(ValueError, match="image: expected finite pixels"):
        mrisps.denoise(np.full(SHAPE, np.nan), 0.1)


def test_integer_pixels_are_scaled_as_those_of_files(image: NDArray[np.float32], model: SmoothPlusSparse) -> None:
    """Integers were taken as they are, 255 times too bright: the noise stayed in."""
    pixels = np.rint(255 * image).astype(np.uint8)
    expected = mrisps.denoise(pixels / 255, 25 / 255, weights=model).image
    np.testing.assert_array_equal(mrisps.denoise(pixels, 25 / 255, weights=model).image, expected)
    found = mrisps.denoise(257 * pixels.astype(np.uint16), 25 / 255, weights=model).image
    np.testing.assert_array_equal(found, expected)
    with pytest.raises(ValueError, match=r"image: expected real .* got int64"):
        mrisps.denoise(pixels.astype(np.int64), 25 / 255, weights=model)


def test_noise_that_is_not_there_is_doubted(image: NDArray[np.float32], model: SmoothPlusSparse) -> None:
    """An image that is smoothed away because sigma is far too large was good."""
    verdict = mrisps.denoise(image, 3.0, weights=model).verdict
    assert verdict.level == "check"
    assert "times what was taken out of the image" in str(verdict)


def test_a_black_image_stays_black(model: SmoothPlusSparse) -> None:
    assert not mrisps.denoise(np.zeros(SHAPE), 25 / 255, weights=model).image.any()


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("cuda:999", "cuda:999 was asked for, but"),
        ("meta", "'meta' cannot be used here"),
        ("nothing", "expected cpu, cuda or cuda:N, got 'nothing'"),
    ],
)
def test_a_device_that_cannot_be_used(
    image: NDArray[np.float32], model: SmoothPlusSparse, device: str, message: str
) -> None:
    with pytest.raises(ValueError, match=f"device: {message}"):
        mrisps.denoise(image, 0.1, weights=model, device=device)


def test_maps_and_noise_that_a_recipe_does_not_use_are_named(
    kspace: NDArray[np.complex64], model: SmoothPlusSparse, recipe: Recipe
) -> None:
    ones = np.ones_like(kspace)
    notes = mrisps.recon(kspace, recipe, weights=model, maps=ones, noise=ones[0, :1]).notes
    assert [note for note in notes if "not used" in note] == [
        "sensitivity_maps: not used, the recipe has no preparation for coils",
        "noise_scan: not used, the recipe has no preparation for coils",
    ]


def test_zeros_that_were_not_measured_are_doubted(
    kspace: NDArray[np.complex64], model: SmoothPlusSparse, recipe: Recipe
) -> None:
    """Folded images were good: the mask of all slices, or one of other data, makes measurements of zeros."""
    assert "zero, between samples" not in str(mrisps.recon(kspace, recipe, weights=model).verdict)
    whole = mrisps.recon(kspace, recipe, weights=model, mask=np.ones(SHAPE[1]))
    samples = np.ones(SHAPE)
    samples[0, 1] = 0
    single = mrisps.recon(kspace, recipe, weights=model, mask=samples)
    other = np.zeros_like(kspace)
    other[..., 1::4] = other[..., 8:12] = kspace.max()
    stack = mrisps.recon(np.stack([kspace, other]), recipe, weights=model)
    for result in (whole, single, stack):
        assert result.verdict.level == "check"
        assert "zero, between samples that are not" in str(result.verdict)
    padded = kspace.copy()
    padded[..., :3] = padded[..., -4:] = 0  # a zero-padded matrix is nothing to be doubted
    result = mrisps.recon(padded, recipe, weights=model, mask=columns())
    assert "zero, between samples" not in str(result.verdict)


def test_super_resolution(image: NDArray[np.float32], model: SmoothPlusSparse) -> None:
    result = mrisps.superres(image, 2, weights=model, solver={"max_iterations": 3})
    assert min(n / m for n, m in zip(result.image.shape, SHAPE, strict=True)) >= 2
    with pytest.raises(ValueError, match="factor: expected 2 or 4"):
        mrisps.superres(image, 3)
    with pytest.raises(ValueError, match="factor: recipe superres_x4 is for 4, got 2"):
        mrisps.superres(image, 2, recipe="superres_x4", weights=model)


def test_an_input_is_opened_once_and_a_slice_read_once(
    tmp_path: Path,
    kspace: NDArray[np.complex64],
    model: SmoothPlusSparse,
    recipe: Recipe,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = write(tmp_path / "in.h5", kspace, n_slices=2)
    calls: list[str] = []

    def counted(name: str, function: Callable[..., object]) -> Callable[..., object]:
        def run(*arguments: object, **options: object) -> object:
            calls.append(name)
            return function(*arguments, **options)

        return run

    monkeypatch.setattr(run_module, "open_kspace", counted("open", run_module.open_kspace))
    monkeypatch.setattr(FastmriFile, "sha256", counted("hash", FastmriFile.sha256))
    monkeypatch.setattr(FastmriFile, "read_slice", counted("read", FastmriFile.read_slice))
    monkeypatch.setattr(problem_module, "_acquired", counted("prepare", problem_module._acquired))
    run = run_of(recipe, "mri", weights=model)
    run.write(source, tmp_path / "out.h5")
    assert sorted(calls) == ["hash", "open", "prepare", "prepare", "read", "read"]
    calls.clear()
    mrisps.recon(source, recipe, weights=model).report(tmp_path / "page.html")
    assert sorted(calls) == ["hash", "open", "prepare", "prepare", "read", "read"]


def test_the_key_names_all_that_a_result_depends_on(
    model: SmoothPlusSparse, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(recipe, "mri", weights=model)
    key = run.key("0" * 64)
    assert key == run_of(recipe, "mri", weights=model).key("0" * 64)
    others = [
        run.key("1" * 64),
        replace(run, recipe=replace(recipe, lam=0.03)).key("0" * 64),
        run_of(recipe, "mri", weights=model.with_regularisation(beta=0.6)).key("0" * 64),
        replace(run, scale=2.0).key("0" * 64),
        replace(run, undersample=True).key("0" * 64),
        run.with_mask("from-zeros").key("0" * 64),
        replace(run, crop=False).key("0" * 64),
    ]
    monkeypatch.setattr(run_module, "software_key", lambda: "another")
    others.append(run.key("0" * 64))
    assert len({key, *others}) == len(others) + 1


def test_an_unusable_image_is_not_written_unless_kept(
    tmp_path: Path,
    kspace: NDArray[np.complex64],
    model: SmoothPlusSparse,
    recipe: Recipe,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source, destination = write(tmp_path / "in.h5", kspace), tmp_path / "out.h5"
    bad = Verdict("unusable", ("the maps are wrong",), {})
    monkeypatch.setattr(reconstruct_module, "judge", lambda facts, status: bad)
    run = run_of(recipe, "mri", weights=model)
    with pytest.raises(UnusableResultError, match="slice 0 is unusable, nothing is written: the maps are wrong"):
        run.write(source, destination, keep=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.h5"]
    assert run.write(source, destination).verdict == bad
    result = mrisps.recon(source, recipe, weights=model)
    assert result.verdict == bad
    assert "unusable" in repr(result)


def test_parts_that_are_not_finite_are_no_result(
    kspace: NDArray[np.complex64], model: SmoothPlusSparse, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the parts nobody looked at the numbers."""
    reconstruct_together = reconstruct_module.reconstruct_together

    def broken(*arguments: Any, **options: Any) -> list[Reconstruction]:
        made = reconstruct_together(*arguments, **options)
        return [replace(one, smooth=one.smooth * float("nan")) for one in made]

    monkeypatch.setattr(run_module, "reconstruct_together", broken)
    with pytest.raises(UnusableResultError, match="slice 0: smooth is not finite"):
        mrisps.recon(kspace, recipe, weights=model)


def test_the_map_of_an_attention_is_part_of_the_result(
    tmp_path: Path, kspace: NDArray[np.complex64], model: SmoothPlusSparse, recipe: Recipe
) -> None:
    n = model.config.n_synthesis_atoms
    attention = Attention.zeros(n)
    torch.nn.init.constant_(attention.exit_bias, -0.1)
    made = model.with_attention(attention)
    result = mrisps.recon(kspace, recipe, weights=made, mask=columns())
    (found,) = (each.attention for each in result.slices)
    assert found is not None
    np.testing.assert_allclose(found, 0.1 * n, rtol=1e-4)  # all thresholds are lower by a factor of e^-0.1
    result.save(tmp_path / "r.h5")
    with ResultFile(tmp_path / "r.h5") as file:
        np.testing.assert_array_equal(file.read("attention", 0), found)
    without = mrisps.recon(kspace, recipe, weights=model, mask=columns())
    assert without.slices[0].attention is None
    assert not np.array_equal(without.image, result.image)
