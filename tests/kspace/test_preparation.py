"""Each step of the preparation against its definition, and multi-coil data end to end."""

import dataclasses
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mrisps.errors import FileError, SettingsError
from mrisps.io.acquisition import Acquisition
from mrisps.io.fastmri import write_kspace
from mrisps.kspace.grid import calibration_shape
from mrisps.kspace.preparation import (
    CoilCompression,
    CoilMaps,
    PhaseRemoval,
    Preparation,
    prepare,
)
from mrisps.model import ModelConfig, PriorUse, SmoothPlusSparse
from mrisps.operators import Sense
from mrisps.reconstruction.choices import SliceChoice
from mrisps.reconstruction.problem import mri_problem
from mrisps.reconstruction.recipe import Recipe, ScaleRule, builtin_recipes, load_recipe, with_overrides
from mrisps.reconstruction.reconstruct import reconstruct
from mrisps.reconstruction.run import Run
from mrisps.reconstruction.weights import Weights
from mrisps.solvers import FastSettings

from raw_files import header, lines_of, write_mrd  # isort: skip

Complex = NDArray[np.complex64]
NOTHING = Preparation(prewhiten=False, remove_oversampling=False, compression=None, phase=None)
QUICK = CoilMaps(calibration_width=16)


def fft2c(image: NDArray[np.complex128]) -> NDArray[np.complex128]:
    shifted = np.fft.fft2(np.fft.ifftshift(image, axes=(-2, -1)), norm="ortho")
    return np.fft.fftshift(shifted, axes=(-2, -1))


def ifft2c(kspace: NDArray[np.complex128]) -> NDArray[np.complex128]:
    shifted = np.fft.ifft2(np.fft.ifftshift(kspace, axes=(-2, -1)), norm="ortho")
    return np.fft.fftshift(shifted, axes=(-2, -1))


def phantom(shape: tuple[int, int], n_coils: int = 8) -> tuple[NDArray[np.complex128], NDArray[np.complex128]]:
    """An object with a smooth phase, (y, x), and smooth maps (coil, y, x) with sum |S|^2 = 1."""
    y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    body = (x**2 / 0.7 + y**2 / 0.8 < 1).astype(float)
    body -= 0.6 * (((x - 0.2) / 0.3) ** 2 + ((y + 0.1) / 0.4) ** 2 < 1)
    body += 0.4 * ((np.abs(x + 0.4) < 0.1) & (np.abs(y) < 0.3))
    angles = np.arange(n_coils) * 2 * np.pi / n_coils
    maps = np.stack([np.exp(-0.7 * ((x - np.cos(t)) ** 2 + (y - np.sin(t)) ** 2) + 1j * t) for t in angles])
    maps /= np.sqrt((np.abs(maps) ** 2).sum(axis=0))
    return body * np.exp(0.8j * x + 0.4j * y), maps


def record(
    shape: tuple[int, int] = (48, 40), n_coils: int = 8, noise: float = 0.0, **fields: object
) -> tuple[Acquisition, NDArray[np.complex128]]:
    image, maps = phantom(shape, n_coils)
    rng = np.random.default_rng(0)
    kspace = fft2c(maps * image)
    kspace = kspace + noise * (rng.normal(size=kspace.shape) + 1j * rng.normal(size=kspace.shape))
    mask = np.ones(shape[1], dtype=np.bool_)
    kspace = kspace.astype(np.complex64)
    found = Acquisition(kspace=kspace, source=Path("a file"), mask=mask)
    return dataclasses.replace(found, **fields), image  # type: ignore[arg-type]  # a test's own names


def all_of(acquisition: Acquisition) -> NDArray[np.bool_]:
    return np.ones(acquisition.shape, dtype=np.bool_)


# ---------------------------------------------------------------------------------------------------------------- noise


def correlated_noise(n_coils: int, n: int, seed: int) -> Complex:
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(7).normal(size=(n_coils, n_coils)) + 2 * np.eye(n_coils)
    white = (rng.normal(size=(n_coils, n)) + 1j * rng.normal(size=(n_coils, n))) / np.sqrt(2)
    return (0.03 * mix @ white).astype(np.complex64)


def test_prewhitening_gives_unit_covariance() -> None:
    shape = (48, 40)
    acquisition, _ = record(shape, 4, noise_scan=correlated_noise(4, 20_000, 1))
    noise = correlated_noise(4, shape[0] * shape[1], 2).reshape(4, *shape)
    prepared = prepare(
        replace(acquisition, kspace=noise, sensitivity_maps=np.ones((1, 4, *shape), np.complex64)),
        all_of(acquisition),
        replace(NOTHING, prewhiten=True),
    )
    samples = prepared.kspace.reshape(4, -1)
    covariance = samples @ samples.conj().T / samples.shape[1]
    np.testing.assert_allclose(covariance, np.eye(4), atol=0.1)
    assert prepared.noise_std == pytest.approx(np.sqrt(0.5))
    assert prepared.steps[1]["step"] == "prewhiten"


@pytest.mark.parametrize(
    "compression", [None, CoilCompression(n_coils=3), CoilCompression(n_coils=3, method="geometric")]
)
@pytest.mark.parametrize("n_sets", [1, 2])
def test_the_image_has_the_unit_of_the_input(n_sets: int, compression: CoilCompression | None) -> None:
    """Whitening and compression leave no trace: the image is the root sum of squares of the coil images of the file."""
    image, maps = phantom((48, 40), 4)
    sets = np.stack([maps, 0.3 * np.roll(maps, 9, axis=2)])[:n_sets]
    images = np.stack([image, np.roll(image, 5, axis=1)])[:n_sets]
    coils = (sets * images[:, None]).sum(axis=0)
    acquisition = Acquisition(
        kspace=(8 * fft2c(coils)).astype(np.complex64),
        source=Path("a file"),
        mask=np.ones(40, dtype=np.bool_),
        noise_scan=correlated_noise(4, 5000, 1),
        sensitivity_maps=sets.astype(np.complex64),
    )
    prepared = prepare(acquisition, all_of(acquisition), replace(NOTHING, prewhiten=True, compression=compression))
    normal = np.einsum("scyx,tcyx->yxst", prepared.maps.conj(), prepared.maps)
    seen = (prepared.maps.conj() * ifft2c(prepared.kspace)).sum(axis=1)
    solved = np.linalg.pinv(normal, rcond=1e-5) @ np.moveaxis(seen, 0, -1)[..., None]  # the sets' images
    combined = np.linalg.norm(np.moveaxis(prepared.combine, (0, 1), (2, 3)) @ solved, axis=(2, 3)) * prepared.unit
    expected = 8 * np.sqrt((np.abs(coils) ** 2).sum(axis=0))
    tolerance = 1e-3 if compression is None else 0.1  # a fourth coil that is left out takes what it saw
    assert np.linalg.norm(combined - expected) < tolerance * np.linalg.norm(expected)


def test_too_little_or_dependent_noise() -> None:
    acquisition, _ = record(n_coils=4)
    for noise, message in (
        (correlated_noise(4, 7, 1), "7 samples of noise are too few for 4 coils"),
        (np.repeat(correlated_noise(1, 100, 1), 4, axis=0), "linearly dependent"),
    ):
        with pytest.raises(FileError, match=message) as info:
            prepare(replace(acquisition, noise_scan=noise), all_of(acquisition), Preparation())
        assert info.value.field == "noise_scan"


def test_a_noise_scan_of_other_data_is_found_out() -> None:
    acquisition, _ = record((48, 40), 4)
    noise = correlated_noise(4, 48 * 40, 2).reshape(4, 48, 40)
    for factor, expected in ((1, 1.0), (5, 5.0)):
        own = replace(
            acquisition, kspace=acquisition.kspace + 5 * noise, noise_scan=5 * factor * correlated_noise(4, 9000, 1)
        )
        prepared = prepare(own, all_of(own), replace(NOTHING, prewhiten=True))
        assert prepared.facts["noise_scan_over_data"] == pytest.approx(expected, rel=0.2)


def test_without_a_noise_scan_nothing_is_whitened() -> None:
    acquisition, _ = record(n_coils=4)
    prepared = prepare(acquisition, all_of(acquisition), replace(NOTHING, prewhiten=True, maps=QUICK))
    np.testing.assert_array_equal(prepared.kspace * np.float32(prepared.unit), acquisition.kspace)
    assert prepared.steps[1]["done"] == "no: the file has no noise scan"
    assert prepared.noise_std is None


def test_a_loud_coil_is_found_without_a_noise_scan() -> None:
    acquisition, _ = record((48, 40), 6)
    noise = 0.02 * correlated_noise(6, 48 * 40, 2).reshape(6, 48, 40) / np.float32(0.03)
    noise[3] *= 40
    prepared = prepare(
        replace(acquisition, kspace=acquisition.kspace + noise), all_of(acquisition), replace(NOTHING, prewhiten=True)
    )
    assert any("some coils are far noisier than others" in line for line in prepared.notes)
    border = np.abs(prepared.kspace[:, :2]).mean(axis=(1, 2))
    assert float(border.max() / border.min()) < 2


# --------------------------------------------------------------------------------------------------------- oversampling


@pytest.mark.parametrize("n_y", [48, 50])
def test_removing_oversampling_cuts_the_image(n_y: int) -> None:
    acquisition, _ = record((n_y, 40), 3, readout_oversampling=2.0)
    maps = phantom((n_y, 40), 3)[1][None].astype(np.complex64)
    acquisition = replace(acquisition, sensitivity_maps=maps)
    prepared = prepare(acquisition, all_of(acquisition), replace(NOTHING, remove_oversampling=True))
    new = n_y // 2
    first = n_y // 2 - new // 2
    expected = ifft2c(acquisition.kspace)[:, first : first + new]
    np.testing.assert_allclose(ifft2c(prepared.kspace) * prepared.unit, expected, atol=1e-6)
    np.testing.assert_allclose(prepared.maps[0], maps[0, :, first : first + new], atol=1e-6)
    assert prepared.mask.shape == (new, 40)


def test_a_partial_readout_keeps_its_oversampling() -> None:
    acquisition, _ = record((48, 40), 4, readout_oversampling=2.0)
    mask = all_of(acquisition)
    mask[:6] = False
    prepared = prepare(acquisition, mask, replace(NOTHING, remove_oversampling=True, maps=QUICK))
    assert prepared.kspace.shape == (4, 48, 40)
    assert "the readout is not fully sampled: its oversampling is not removed" in prepared.notes


# ---------------------------------------------------------------------------------------------------------- compression


@pytest.mark.parametrize("method", ["svd", "geometric"])
def test_compression_keeps_the_signal(method: str) -> None:
    acquisition, _ = record((48, 40), 8)
    settings = CoilCompression(n_coils=5, method=method)  # type: ignore[arg-type]  # the parameter's two values
    prepared = prepare(acquisition, all_of(acquisition), replace(NOTHING, compression=settings, maps=QUICK))
    assert prepared.kspace.shape[0] == 5
    kept = float((np.abs(prepared.kspace) ** 2).sum() * prepared.unit**2 / (np.abs(acquisition.kspace) ** 2).sum())
    step = next(step for step in prepared.steps if step["step"] == "compression")
    assert kept == pytest.approx(float(str(step["signal_kept"])), rel=1e-4)
    assert kept > 0.99


def test_geometric_compression_keeps_more_and_virtual_coils_are_smooth() -> None:
    acquisition, _ = record((48, 40), 8)
    kept = {}
    for method in ("svd", "geometric"):
        settings = CoilCompression(n_coils=2, method=method)  # type: ignore[arg-type]  # the parameter's two values
        prepared = prepare(acquisition, all_of(acquisition), replace(NOTHING, compression=settings, maps=QUICK))
        kept[method] = float((np.abs(prepared.kspace) ** 2).sum())
    assert kept["geometric"] > kept["svd"]
    rows = ifft2c(prepared.kspace)[:, 8:40]  # without the alignment neighbouring rows differ by any rotation
    steps = np.linalg.norm(np.diff(rows, axis=1)) / np.linalg.norm(rows)
    assert steps < 0.5


def test_geometric_compression_of_maps_belongs_to_that_of_the_data() -> None:
    image, maps = phantom((48, 40), 8)
    acquisition, _ = record((48, 40), 8, sensitivity_maps=maps[None].astype(np.complex64))
    for method in ("svd", "geometric"):
        settings = CoilCompression(n_coils=6, method=method)  # type: ignore[arg-type]  # the parameter's two values
        prepared = prepare(acquisition, all_of(acquisition), replace(NOTHING, compression=settings))
        combined = (prepared.maps[0].conj() * ifft2c(prepared.kspace)).sum(axis=0) * prepared.unit
        assert np.linalg.norm(combined - image) < 0.03 * np.linalg.norm(image)


def test_geometric_compression_needs_whole_readouts() -> None:
    acquisition, _ = record((48, 40), 8)
    mask = all_of(acquisition)
    mask[3, 5] = False
    with pytest.raises(FileError, match="needs a fully sampled readout"):
        prepare(acquisition, mask, replace(NOTHING, compression=CoilCompression(n_coils=4, method="geometric")))


# ----------------------------------------------------------------------------------------------------------------- maps


@pytest.mark.parametrize("apart", [False, True])
def test_maps_combine_the_coils(apart: bool) -> None:
    """The combined image has the right magnitude; from the image's own centre, or from a reference scan of another scale."""
    acquisition, image = record((64, 56), 4)
    mask = np.zeros(56, dtype=np.bool_)
    mask[::2] = True
    mask[16:40] = True
    reference = np.zeros_like(acquisition.kspace)
    reference[:, 20:44, 16:40] = 3 * acquisition.kspace[:, 20:44, 16:40]
    undersampled = replace(
        acquisition, kspace=acquisition.kspace * mask, mask=mask, calibration=reference if apart else None
    )
    prepared = prepare(undersampled, np.broadcast_to(mask, (64, 56)), NOTHING)
    combined = np.abs((prepared.maps[0].conj() * ifft2c(acquisition.kspace)).sum(axis=0))
    inside = np.abs(image) > 0.3
    assert np.linalg.norm((combined - np.abs(image))[inside]) < 0.05 * np.linalg.norm(image[inside])
    step = prepared.steps[-1]
    assert step["calibration"] == ("separate" if apart else "from the image's k-space")
    power = (np.abs(prepared.maps[0]) ** 2).sum(axis=0)
    assert float(power.max()) <= 1.001
    assert float(power[inside].min()) > 0.5


def test_maps_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    acquisition, _ = record()
    settings = replace(NOTHING, maps=QUICK)
    first = prepare(acquisition, all_of(acquisition), settings, tmp_path / "maps")
    (kept,) = (tmp_path / "maps").iterdir()
    monkeypatch.setattr("mrisps.kspace.calibrate.espirit", None)  # not called again
    second = prepare(acquisition, all_of(acquisition), settings, tmp_path / "maps")
    np.testing.assert_array_equal(first.maps, second.maps)
    assert second.steps[-1]["cached"] == "yes"
    kept.write_bytes(b"no array")
    with pytest.raises(FileError, match="is no map that was kept"):
        prepare(acquisition, all_of(acquisition), settings, tmp_path / "maps")


def test_without_a_centre_there_are_no_maps() -> None:
    acquisition, _ = record()
    mask = np.zeros(40, dtype=np.bool_)
    mask[::3] = True
    with pytest.raises(FileError, match=r"the fully sampled centre has 0 x 0 samples") as info:
        prepare(acquisition, np.broadcast_to(mask, (48, 40)), Preparation())
    assert info.value.field == "calibration"


def test_a_slice_without_signal_keeps_all_pixels() -> None:
    acquisition, _ = record(n_coils=4, noise_scan=correlated_noise(4, 5000, 1))
    noise = correlated_noise(4, 48 * 40, 2).reshape(4, 48, 40)
    prepared = prepare(replace(acquisition, kspace=noise), all_of(acquisition), Preparation())
    assert any("no coil has signal above its noise" in line for line in prepared.notes)
    assert prepared.facts["dead_coils"] == 1
    assert bool((np.abs(prepared.maps).max(axis=(0, 1)) > 0).all())


def test_coils_without_signal_are_left_out() -> None:
    """A coil of zeros, and one that has the noise of its scan and nothing else."""
    mix = correlated_noise(6, 20_000, 1)
    acquisition, _ = record(n_coils=6, noise_scan=mix)
    kspace = acquisition.kspace + correlated_noise(6, 48 * 40, 2).reshape(6, 48, 40)
    kspace[1] = 0
    kspace[4] = correlated_noise(6, 48 * 40, 3).reshape(6, 48, 40)[4]
    prepared = prepare(replace(acquisition, kspace=kspace), all_of(acquisition), replace(NOTHING, prewhiten=True))
    assert prepared.kspace.shape[0] == 4
    assert prepared.steps[0]["left_out"] == [1, 4]
    assert any("2 of 6 coils have no signal above their noise" in line for line in prepared.notes)


# ------------------------------------------------------------------------------------------------------- sets of maps


def folded(shape: tuple[int, int] = (64, 56)) -> tuple[Acquisition, NDArray[np.bool_]]:
    """An object that is larger than the field of view: its right third lies on its left one, seen by other sensitivities."""
    image, maps = phantom((shape[0], 3 * shape[1] // 2), 6)
    wide = maps * image
    coils = wide[:, :, : shape[1]].copy()
    rest = wide[:, :, shape[1] :]
    coils[:, :, : rest.shape[2]] += rest
    kspace = fft2c(coils).astype(np.complex64)
    inside = np.abs(image[:, : shape[1]]) > 0.3
    inside[:, : rest.shape[2]] &= np.abs(image[:, shape[1] :]) > 0.3
    inside[:, rest.shape[2] :] = False
    return Acquisition(kspace=kspace, source=Path("a file"), mask=np.ones(shape[1], dtype=np.bool_)), inside


def test_a_folded_object_gets_two_sets_of_maps_which_explain_it() -> None:
    acquisition, both = folded()
    one, two = (prepare(acquisition, all_of(acquisition), replace(NOTHING, maps=CoilMaps(n_sets=n))) for n in (1, None))
    assert two.maps.shape == (2, 6, 64, 56)
    assert any("two sets of maps" in line for line in two.notes)
    assert one.facts["unexplained_energy"] > 0.001
    assert two.facts["unexplained_energy"] < 0.1 * one.facts["unexplained_energy"]
    weight = np.sqrt((np.abs(two.maps) ** 2).sum(axis=1))
    assert float(np.median(weight[1][both])) > 0.3  # the second set is there where the object lies on itself


def test_one_set_is_enough_where_one_explains_the_data() -> None:
    acquisition, _ = record((64, 56), 6)
    prepared = prepare(acquisition, all_of(acquisition), NOTHING)
    assert len(prepared.maps) == 1
    assert prepared.facts["unexplained_by_one"] < 0.0005


def test_more_sets_than_there_are() -> None:
    acquisition, _ = record((64, 56), 6)
    for n, message in ((4, "4 sets of maps are asked for, and the calibration data have"), (7, "there are 6 coils")):
        with pytest.raises(SettingsError, match=message):
            prepare(acquisition, all_of(acquisition), replace(NOTHING, maps=CoilMaps(n_sets=n)))


def test_two_sets_of_maps_of_a_file() -> None:
    maps = phantom((48, 40), 4)[1]
    both = np.stack([maps, 0.5 * np.roll(maps, 7, axis=1)]).astype(np.complex64)
    acquisition, _ = record(n_coils=4, sensitivity_maps=both)
    prepared = prepare(acquisition, all_of(acquisition), NOTHING)
    np.testing.assert_allclose(prepared.maps, both, rtol=1e-3)


@pytest.mark.parametrize(
    ("size", "columns", "expected"),
    [
        ((8, 10), range(10), (8, 10)),
        ((8, 10), (4, 5), (8, 2)),
        ((7, 9), (2, 3, 4, 5), (7, 4)),
        ((8, 10), (0, 9), (0, 0)),
    ],
)
def test_calibration_shape_of_columns(
    size: tuple[int, int], columns: tuple[int, ...], expected: tuple[int, int]
) -> None:
    mask = np.zeros(size, dtype=np.bool_)
    mask[:, list(columns)] = True
    assert calibration_shape(mask) == expected


def test_calibration_shape_of_a_block() -> None:
    mask = np.zeros((20, 16), dtype=np.bool_)
    mask[6:14, 6:10] = True
    mask[0, 0] = True
    assert calibration_shape(mask) == (8, 4)


# ---------------------------------------------------------------------------------------------------------------- phase


def test_removing_the_phase_makes_the_image_nearly_real() -> None:
    image, maps = phantom((64, 56), 4)
    acquisition, _ = record((64, 56), 4, sensitivity_maps=maps[None].astype(np.complex64))
    prepared = prepare(acquisition, all_of(acquisition), replace(NOTHING, phase=PhaseRemoval(16)))
    np.testing.assert_allclose(np.abs(prepared.phase), 1, rtol=1e-5)
    straight = image * prepared.phase.conj()
    assert np.linalg.norm(straight.imag) < 0.1 * np.linalg.norm(image)
    assert np.linalg.norm(image.imag) > 0.3 * np.linalg.norm(image)


# ----------------------------------------------------------------------------------------------------------- end to end


@pytest.fixture
def model() -> SmoothPlusSparse:
    generator = torch.Generator().manual_seed(0)
    return SmoothPlusSparse(
        ModelConfig(patch_size=5, n_free_atoms=6, n_synthesis_atoms=24),
        torch.randn(6, 5, 5, generator=generator),
        torch.randn(24, 5, 5, generator=generator),
        torch.zeros(24),
        beta=0.5,
        lam=0.02,
    )


RECIPE = Recipe(
    "test",
    "mri",
    beta=0.1,
    lam=0.01,
    source="a test",
    image="complex",
    scale=ScaleRule(99.5, 1.0),
    preparation=Preparation(maps=QUICK, compression=CoilCompression(n_coils=6)),
    prior=PriorUse(stride=2),
    solver=FastSettings(tolerance=1e-3, image_tolerance=1e-4, max_iterations=300, trace_interval=0, image_change=0.05),
)
SHORT = replace(RECIPE, solver=replace(RECIPE.solver, max_iterations=15))


def undersampled(factor: float = 1.0) -> tuple[Acquisition, NDArray[np.complex128]]:
    acquisition, image = record((64, 56), 8, noise=0.01)
    mask = np.zeros(56, dtype=np.bool_)
    mask[::3] = True
    mask[19:37] = True
    kspace = (acquisition.kspace * mask * factor).astype(np.complex64)
    return replace(acquisition, kspace=kspace, mask=mask), image


def test_phantom_end_to_end(model: SmoothPlusSparse) -> None:
    acquisition, image = undersampled()
    problem = mri_problem(acquisition, RECIPE)
    assert isinstance(problem.operator, Sense)
    result = reconstruct(problem, model, RECIPE)
    assert result.converged
    found = result.image[0, 0].numpy()
    inside = np.abs(image) > 0
    zero_filled = np.abs(ifft2c(acquisition.kspace))
    combined = np.sqrt((zero_filled**2).sum(axis=0))

    def error(candidate: NDArray[np.float64]) -> float:
        return float(np.linalg.norm((candidate - np.abs(image))[inside]) / np.linalg.norm(image[inside]))

    assert error(np.abs(found)) < 0.75 * error(combined)
    assert error(np.abs(found)) < 0.06
    assert [step["step"] for step in problem.steps] == ["dead_coils", "prewhiten", "compression", "maps", "phase"]


def test_a_whitened_image_can_be_compared_with_the_files_reference() -> None:
    acquisition, _ = record((48, 40), 4)
    loud = np.array([1, 3, 0.5, 2], dtype=np.complex64)[:, None, None]  # coils of other gains: whitening undoes them
    noise = correlated_noise(4, 5000, 1) * loud[..., 0]
    problem = mri_problem(replace(acquisition, kspace=7 * acquisition.kspace * loud, noise_scan=noise), RECIPE)
    expected = 7 * np.linalg.norm(ifft2c(acquisition.kspace * loud), axis=0)
    found = problem.zero_filled()
    inside = expected > 0.3 * expected.max()
    assert np.linalg.norm((found - expected)[inside]) < 0.05 * np.linalg.norm(expected[inside])


@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_the_scale_of_the_input_does_not_matter(model: SmoothPlusSparse, factor: float) -> None:
    images = []
    for scale in (1.0, factor):
        problem = mri_problem(undersampled(scale)[0], SHORT)
        images.append(reconstruct(problem, model, SHORT).image / scale)
    assert float((images[1] - images[0]).abs().max()) < 3e-4 * float(images[0].abs().max())


def test_a_power_of_two_changes_nothing_at_all(model: SmoothPlusSparse) -> None:
    first, second = (reconstruct(mri_problem(undersampled(s)[0], SHORT), model, SHORT) for s in (1.0, 2.0**-20))
    assert torch.equal(first.image, second.image * 2.0**20)


def test_scale_without_a_centre() -> None:
    """Every third column and a reference scan: the scale is that of the image, not that of its faint aliases."""
    acquisition, image = record((64, 60), 8)
    mask = np.zeros(60, dtype=np.bool_)
    mask[::3] = True
    regular = replace(acquisition, kspace=(acquisition.kspace * mask), mask=mask, calibration=acquisition.kspace)
    scale = mri_problem(regular, RECIPE).scale
    assert scale == pytest.approx(float(np.percentile(np.abs(image), 99.5)), rel=0.3)


def test_where_no_coil_sees_anything_the_image_is_zero(model: SmoothPlusSparse) -> None:
    acquisition, _ = undersampled()
    maps = phantom((64, 56), 8)[1][None].astype(np.complex64)
    maps[..., :5] = 0
    acquisition = replace(acquisition, sensitivity_maps=maps)
    problem = mri_problem(acquisition, RECIPE)
    assert problem.factor is not None
    outside = problem.factor[:, 0] == 0
    assert bool(outside.any())
    assert bool((reconstruct(problem, model, SHORT).image[outside] == 0).all())


def test_several_coils_need_a_preparation() -> None:
    with pytest.raises(FileError, match="8 coils: take a recipe for several coils, such as `multicoil`"):
        mri_problem(undersampled()[0], replace(RECIPE, preparation=None))


def test_an_odd_size_keeps_its_stride_on_a_larger_grid(model: SmoothPlusSparse) -> None:
    acquisition, _ = record((32, 27), 4)
    recipe = replace(RECIPE, solver=replace(RECIPE.solver, max_iterations=3))
    problem = mri_problem(acquisition, recipe)
    assert not any("stride" in line for line in problem.notes)
    result = reconstruct(problem, model, recipe)
    assert result.image.shape == (1, 1, 32, 27)
    assert result.certificate.stride == 2


def test_a_file(tmp_path: Path, model: SmoothPlusSparse) -> None:
    acquisition, _ = undersampled()
    assert acquisition.mask is not None
    source = tmp_path / "raw.h5"
    write_kspace(source, acquisition.kspace[None], mask=acquisition.mask, contrast="AXT2")
    done = Run(RECIPE, Weights("test", model), maps_folder=tmp_path / "maps").write(source, tmp_path / "out.h5")
    assert done.n_finished == 1
    with h5py.File(tmp_path / "out.h5") as file:
        assert file["image"].shape == (1, 64, 56)
        assert file["image"].dtype == np.complex64
    assert [step["step"] for step in done.certificates[0]["preparation"]][-1] == "phase"  # type: ignore[union-attr, index, call-overload]  # plain JSON
    assert len(list((tmp_path / "maps").iterdir())) == 1


def test_a_raw_file_in_three_dimensions(tmp_path: Path, model: SmoothPlusSparse) -> None:
    """ISMRMRD, readout oversampled by 2: every position along the readout is a slice, with the partitions as rows."""
    image, maps = phantom((32, 28), 3)
    slices = np.zeros((16, 3, 32, 28), dtype=np.complex128)  # (readout, coil, z, x)
    slices[4:12] = np.linspace(0.5, 1, 8)[:, None, None, None] * maps * image
    kspace = fft2c(slices)
    shifted = np.fft.fft(np.fft.ifftshift(kspace, axes=0), axis=0, norm="ortho")
    volume = np.fft.fftshift(shifted, axes=0).transpose(1, 0, 3, 2).astype(np.complex64)  # (coil, y, x, z)
    head = header(
        encoded_matrix=(16, 28, 32),
        recon_matrix=(8, 28, 32),
        line_limits=(0, 27, 14),
        partition_limits=(0, 31, 16),
    )
    lines = [line for z in range(32) for line in lines_of(volume[..., z], range(28), kspace_encode_step_2=z)]
    source = write_mrd(tmp_path / "raw.h5", lines, head)
    recipe = replace(RECIPE, solver=replace(RECIPE.solver, max_iterations=5))
    done = Run(recipe, Weights("test", model), slices=SliceChoice(3, 6)).write(source, tmp_path / "out.h5")
    with h5py.File(tmp_path / "out.h5") as file:
        found = file["reconstruction"][:]
    assert found.shape == (3, 32, 28)
    inside = np.abs(image) > 0.3
    for index, scale in enumerate(np.linspace(0.5, 1, 8)[3:6]):
        expected = scale * np.abs(image)
        assert np.linalg.norm((found[index] - expected)[inside]) < 0.12 * np.linalg.norm(expected[inside])
    assert len(done.certificates) == 3


# -------------------------------------------------------------------------------------------------------------- recipes


def test_steps_can_be_switched() -> None:
    recipe = with_overrides(
        RECIPE,
        {
            "preparation.compression": "none",
            "preparation.maps.calibration_width": "20",
            "preparation.prewhiten": "false",
            "prior.stride": "1",
        },
    )
    assert recipe.preparation is not None
    assert recipe.preparation.compression is None
    assert recipe.preparation.maps.calibration_width == 20
    assert not recipe.preparation.prewhiten
    assert recipe.prior.stride == 1


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("preparation.maps.n_sets", "0"),
        ("preparation.maps.calibration_width", "4"),
        ("preparation.maps.threshold", "1.5"),
        ("preparation.compression.n_coils", "0"),
        ("preparation.phase.width", "1"),
        ("preparation.unknown", "1"),
        ("prior.stride", "0"),
    ],
)
def test_bad_values_name_their_key(key: str, value: str) -> None:
    with pytest.raises(SettingsError, match=key.split(".")[-1]):
        with_overrides(RECIPE, {key: value})


@pytest.mark.parametrize("name", [name for name in builtin_recipes() if "multicoil" in name])
def test_recipes_of_the_package(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.preparation is not None
    assert recipe.image == "complex"
    assert recipe.name == name


def test_given_maps_are_judged_by_the_calibration_data() -> None:
    """Maps of another position do not explain what was measured."""
    _, maps = phantom((48, 40), 8)
    given = maps[None].astype(np.complex64)
    right, _ = record((48, 40), 8, sensitivity_maps=given)
    wrong, _ = record((48, 40), 8, sensitivity_maps=np.roll(given, 12, axis=-1))
    facts = [prepare(one, all_of(one), NOTHING).facts["unexplained_energy"] for one in (right, wrong)]
    assert facts[0] < 0.02 < facts[1]


def test_kept_maps_belong_to_the_software(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    acquisition, _ = record((48, 40), 8)
    for _ in range(2):
        prepare(acquisition, all_of(acquisition), NOTHING, tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    monkeypatch.setattr("mrisps.kspace.calibrate.software_key", lambda: "another")
    prepare(acquisition, all_of(acquisition), NOTHING, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
