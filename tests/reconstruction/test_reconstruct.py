"""From a record to a reconstruction: mask, scale, noise, units, files."""

import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mrisps.errors import FileError, MrispsError
from mrisps.io.acquisition import Acquisition
from mrisps.io.fastmri import write_kspace
from mrisps.kspace.whiten import estimate_noise_std
from mrisps.model import ModelConfig, PriorUse, SmoothPlusSparse
from mrisps.operators import FourierSubsampling, Identity, Sense
from mrisps.reconstruction import reconstruct as module
from mrisps.reconstruction.choices import SliceChoice
from mrisps.reconstruction.problem import Problem, image_problem, mri_problem
from mrisps.reconstruction.recipe import BlurRule, MaskRule, Recipe, ScaleRule
from mrisps.reconstruction.reconstruct import reconstruct
from mrisps.reconstruction.run import Run
from mrisps.reconstruction.together import UnusableResultError
from mrisps.reconstruction.weights import Weights
from mrisps.sampling import SamplingMask, make_mask
from mrisps.solvers import FastSettings, Reconstruction, solve
from mrisps.status import Status

SHAPE = (24, 20)


@pytest.fixture
def model() -> SmoothPlusSparse:
    generator = torch.Generator().manual_seed(0)
    config = ModelConfig(patch_size=5, n_free_atoms=6, n_synthesis_atoms=24)
    return SmoothPlusSparse(
        config,
        torch.randn(6, 5, 5, generator=generator),
        torch.randn(24, 5, 5, generator=generator),
        torch.zeros(24),
        beta=0.5,
        lam=0.02,
    )


@pytest.fixture
def recipe() -> Recipe:
    return Recipe(
        "test",
        "mri",
        beta=0.5,
        lam=0.02,
        source="a test",
        scale=ScaleRule(percentile=99, reference=0.8),
        mask=MaskRule("random", 2, 0.2, seed=3),
        solver=FastSettings(tolerance=1e-4, max_iterations=400, trace_interval=0),
    )


def acquisition(mask: NDArray[np.bool_] | None = None, *, real: bool = False, factor: float = 1.0) -> Acquisition:
    rng = np.random.default_rng(1)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    image = np.exp(-((y - 11) ** 2 + (x - 9) ** 2) / 30) + 0.3 * (abs(y - 12) < 5) * (abs(x - 10) < 6)
    phase = 0 if real else 0.05 * x
    image = torch.from_numpy((image * np.exp(1j * phase)).astype(np.complex64))[None, None]
    everything = torch.ones(SHAPE, dtype=torch.bool)
    kspace = FourierSubsampling(everything).forward(image)[0].numpy()
    kspace = kspace + 0.002 * (rng.normal(size=kspace.shape) + 1j * rng.normal(size=kspace.shape))
    if mask is not None:
        kspace = kspace * mask
    return Acquisition((factor * kspace).astype(np.complex64), Path("a.h5"), mask=mask, image_is_real=real)


def columns() -> NDArray[np.bool_]:
    return make_mask("random", SHAPE, 2, 0.2, seed=3).pattern.copy()


def test_stated_mask_is_used(recipe: Recipe) -> None:
    problem = mri_problem(acquisition(columns()), recipe)
    assert problem.mask is not None
    np.testing.assert_array_equal(problem.mask.pattern, columns())
    assert problem.operator.domain_dtype == torch.complex64
    assert not problem.notes


def test_image_kind_comes_from_file_or_recipe(recipe: Recipe) -> None:
    assert mri_problem(acquisition(columns(), real=True), recipe).operator.domain_dtype == torch.float32
    assert mri_problem(acquisition(columns()), replace(recipe, image="real")).operator.domain_dtype == torch.float32
    forced = mri_problem(acquisition(columns(), real=True), replace(recipe, image="complex"))
    assert forced.operator.domain_dtype == torch.complex64


def test_full_sampling_is_fine_and_says_so(recipe: Recipe) -> None:
    problem = mri_problem(acquisition(), recipe)
    assert problem.mask is not None
    assert problem.mask.is_fully_sampled
    assert "fully sampled" in problem.notes[0]


def test_zero_padded_matrix_counts_as_full_and_says_so(recipe: Recipe) -> None:
    record = acquisition()
    kspace = record.kspace.copy()
    kspace[..., :3] = 0
    kspace[..., -2:] = 0
    problem = mri_problem(replace(record, kspace=kspace), recipe)
    assert problem.mask is not None
    assert problem.mask.is_fully_sampled
    assert any("zero-padded" in note for note in problem.notes)


def test_unstated_mask_is_not_guessed(recipe: Recipe) -> None:
    record = replace(acquisition(columns()), mask=None)
    with pytest.raises(FileError, match=r"a.h5: mask: .*--mask"):
        mri_problem(record, recipe)
    given = mri_problem(record, recipe, mask=SamplingMask.from_array(columns(), SHAPE))
    assert given.mask is not None
    np.testing.assert_array_equal(given.mask.pattern, columns())


def test_given_mask_has_to_fit(recipe: Recipe) -> None:
    with pytest.raises(FileError, match=r"mask: expected a mask for \(y, x\) = \(24, 20\)"):
        mri_problem(acquisition(), recipe, mask=make_mask("random", (24, 18), 2, 0.2))
    everything = SamplingMask.from_array(np.ones(SHAPE[1], dtype=np.bool_), SHAPE)
    with pytest.raises(FileError, match="mask says were not acquired"):
        mri_problem(acquisition(columns()), recipe, mask=everything)


def test_given_mask_may_leave_out_more(recipe: Recipe) -> None:
    fewer = columns()
    fewer[np.flatnonzero(fewer)[0]] = False
    problem = mri_problem(acquisition(columns()), recipe, mask=SamplingMask.from_array(fewer, SHAPE))
    assert not problem.y[..., ~torch.from_numpy(fewer)].abs().any()


def test_retrospective_undersampling(recipe: Recipe) -> None:
    problem = mri_problem(acquisition(), recipe, undersample=True)
    assert problem.mask is not None
    np.testing.assert_array_equal(problem.mask.pattern, columns())
    assert not problem.y[..., ~problem.mask.tensor()].abs().any()
    with pytest.raises(FileError, match="cannot be undersampled"):
        mri_problem(acquisition(columns()), recipe, undersample=True)
    with pytest.raises(MrispsError, match="no mask rule"):
        mri_problem(acquisition(), replace(recipe, mask=None), undersample=True)


def test_acquired_columns_of_zeros_are_pointed_out(recipe: Recipe) -> None:
    mask = columns()
    kspace = acquisition(mask).kspace.copy()
    kspace[..., np.flatnonzero(mask)[0]] = 0
    problem = mri_problem(replace(acquisition(mask), kspace=kspace), recipe)
    assert problem.notes[0].startswith("1 acquired columns hold nothing but zeros")


def test_data_that_the_recipe_is_not_for(recipe: Recipe) -> None:
    other = replace(recipe, mask=MaskRule("random", 8, 0.04))
    assert "2.00-fold undersampled, the recipe is for 8-fold" in mri_problem(acquisition(columns()), other).notes[0]


def test_data_too_large_for_single_precision(recipe: Recipe) -> None:
    flat = np.full((1, *SHAPE), 1e38, dtype=np.complex64)  # its image is a peak 22 times as high
    with pytest.raises(MrispsError, match="not finite in single precision"):
        mri_problem(replace(acquisition(), kspace=flat), recipe)


def test_multicoil_is_refused_by_name(recipe: Recipe) -> None:
    record = acquisition()
    with pytest.raises(FileError, match="kspace: expected single-coil data, got 2 coils"):
        mri_problem(replace(record, kspace=np.concatenate([record.kspace] * 2)), recipe)


def test_wrong_task_is_refused(recipe: Recipe) -> None:
    image = np.ones((8, 8), dtype=np.float32)
    with pytest.raises(MrispsError, match="recipe test: is for mri, not for images"):
        image_problem(image, recipe)
    with pytest.raises(MrispsError, match="not for MRI"):
        mri_problem(acquisition(), replace(recipe, task="denoise", mask=None))


def test_an_image_that_went_on_moving_is_checked_although_it_converged(recipe: Recipe, model: SmoothPlusSparse) -> None:
    """The verdict looks at what the certificate remembers of the time after ``image_iterations``."""
    waiting = replace(recipe, solver=replace(recipe.solver, image_iterations=15))
    problem = mri_problem(acquisition(columns()), waiting)
    solved = reconstruct(problem, model, waiting)
    assert solved.converged
    late = solved.certificate.late_change
    assert late is not None
    assert module.verdict_facts(problem, solved)["late_change"] == late
    moved = replace(solved, certificates=(replace(solved.certificate, late_change=0.25),))
    verdict = module.slice_certificate(problem, moved, waiting)["verdict"]
    assert verdict["level"] == "check"
    assert any("25%" in reason for reason in verdict["reasons"])
    assert not any(
        "25%" in reason for reason in module.slice_certificate(problem, solved, waiting)["verdict"]["reasons"]
    )


@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_scale_makes_units_irrelevant(recipe: Recipe, model: SmoothPlusSparse, factor: float) -> None:
    one = reconstruct(mri_problem(acquisition(columns()), recipe), model, recipe)
    other = reconstruct(mri_problem(acquisition(columns(), factor=factor), recipe), model, recipe)
    torch.testing.assert_close(other.image / factor, one.image, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(other.smooth / factor, one.smooth, rtol=1e-3, atol=1e-4)


def test_scale_is_what_the_rule_says(recipe: Recipe) -> None:
    record = acquisition(columns())
    problem = mri_problem(record, recipe)
    zero_filled = problem.operator.adjoint(torch.from_numpy(record.kspace)[None]).abs().numpy()
    assert problem.scale == pytest.approx(np.percentile(zero_filled, 99) / 0.8, rel=1e-6)
    assert mri_problem(record, recipe, scale=2.0).scale == 2.0
    assert mri_problem(record, replace(recipe, scale=None)).scale == 1.0
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(MrispsError, match="scale"):
            mri_problem(record, recipe, scale=wrong)


def test_noise_is_estimated_from_the_border_of_kspace(recipe: Recipe) -> None:
    rng = np.random.default_rng(0)
    shape = (200, 100)
    noise = 3e-4 * (rng.normal(size=(1, *shape)) + 1j * rng.normal(size=(1, *shape)))
    noise[0, 90:110, 40:60] += 1  # signal in the centre does not matter
    mask = make_mask("random", shape, 4, 0.1, seed=0)
    kspace = (noise * mask.array2d()).astype(np.complex64)
    assert estimate_noise_std(kspace, mask.array2d()) == pytest.approx(3e-4, rel=0.15)
    assert estimate_noise_std(kspace[:, :20, :10], make_mask("random", (20, 10), 2, 0.2).array2d()) is None


def test_certificate_measures_the_misfit(recipe: Recipe, model: SmoothPlusSparse) -> None:
    problem = mri_problem(acquisition(columns()), replace(recipe, noise_std=0.002, scale=None))
    result = reconstruct(problem, model, recipe)
    misfit = torch.linalg.vector_norm(problem.operator.forward(result.image) - problem.y)
    assert result.certificate.data_misfit == pytest.approx(float(misfit), rel=1e-4)
    expected = 0.002 * (2 * SHAPE[0] * columns().sum()) ** 0.5
    assert result.certificate.expected_misfit == pytest.approx(expected)
    assert result.certificate.misfit_ratio == pytest.approx(float(misfit) / expected, rel=1e-4)


@pytest.mark.parametrize(
    ("width", "group", "stride", "noted"),
    [(20, 1, 2, False), (20, 2, 2, False), (18, 1, 2, False), (18, 2, 1, False), (17, 1, 1, True)],
)
def test_a_stride_that_does_not_fit_counts_all_patches(
    recipe: Recipe, model: SmoothPlusSparse, width: int, group: int, stride: int, noted: bool
) -> None:
    """An odd size has no grid of stride 2; a grid of stride 2 in groups of 2 takes a multiple of 4."""
    whole = acquisition(columns())
    assert whole.mask is not None
    record = replace(whole, kspace=whole.kspace[..., :width], mask=whole.mask[:width])
    recipe = replace(recipe, prior=PriorUse(stride=2), solver=replace(recipe.solver, max_iterations=3))
    if group > 1:
        config = replace(model.config, regulariser="CPR", group_size=group)
        model = SmoothPlusSparse(
            config, model.raw_free_atoms, model.raw_synthesis_atoms, model.log_thresholds, model.beta, model.lam
        )
    problem = mri_problem(record, recipe)
    assert any("no grid of stride 2" in line for line in problem.notes) == noted
    certificate = module.slice_certificate(problem, reconstruct(problem, model, recipe), recipe)
    assert certificate["stride"] == stride


def test_nonnegative(recipe: Recipe, model: SmoothPlusSparse) -> None:
    problem = mri_problem(acquisition(columns(), real=True, factor=-1.0), recipe)
    free = reconstruct(problem, model, recipe)
    clipped = reconstruct(problem, model, replace(recipe, nonnegative=True))
    assert float(free.image.min()) < 0
    torch.testing.assert_close(clipped.image, free.image.clamp(min=0))
    torch.testing.assert_close(clipped.smooth + clipped.sparse, clipped.image)


@pytest.mark.parametrize(
    ("status", "message"), [("nonfinite", "NaN or infinity"), ("diverging", "the solver diverged")]
)
def test_unusable_result_raises(
    recipe: Recipe,
    model: SmoothPlusSparse,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    status: Status,
    message: str,
) -> None:
    def broken(*arguments: object, **settings: object) -> Reconstruction:
        result: Reconstruction = solve(*arguments, **settings)  # type: ignore[arg-type]  # wrong on purpose
        return replace(result, certificates=(replace(result.certificate, status=status),))

    monkeypatch.setattr("mrisps.reconstruction.together.solve", broken)
    with pytest.raises(UnusableResultError, match=message):
        reconstruct(mri_problem(acquisition(columns()), recipe), model, recipe)
    source = tmp_path / "in.h5"
    write_kspace(source, acquisition().kspace)
    with pytest.raises(UnusableResultError):
        Run(recipe, Weights("test", model)).write(source, tmp_path / "out.h5")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.h5"]


def test_denoising_and_super_resolution_use_the_same_path(model: SmoothPlusSparse, recipe: Recipe) -> None:
    rng = np.random.default_rng(0)
    clean = np.outer(np.linspace(0, 1, 24), np.ones(20)).astype(np.float32)
    noisy = (clean + 0.1 * rng.normal(size=clean.shape)).astype(np.float32)
    denoise = replace(recipe, task="denoise", mask=None, scale=None, noise_std=0.1)
    result = reconstruct(image_problem(noisy, denoise), model, denoise)
    direct = solve(Identity((24, 20)), torch.from_numpy(noisy)[None, None], model, denoise.solver)
    torch.testing.assert_close(result.image, direct.image)
    assert result.certificate.expected_misfit == pytest.approx(0.1 * noisy.size**0.5)

    superres = replace(denoise, task="superres", blur=BlurRule(kernel_size=6, sigma=1.0, stride=2), noise_std=0.01)
    problem = image_problem(clean[:9, :7], superres)
    assert problem.operator.domain_shape == (1, 22, 18)
    assert problem.operator.range_shape == (1, 9, 7)
    assert reconstruct(problem, model, superres).image.shape == (1, 1, 22, 18)


def test_file_in_file_out(tmp_path: Path, model: SmoothPlusSparse, recipe: Recipe) -> None:
    source, destination = tmp_path / "in.h5", tmp_path / "out.h5"
    mask = columns()
    kspace = np.stack([acquisition(mask).kspace[0], 2 * acquisition(mask).kspace[0]])
    write_kspace(source, kspace, mask=mask, contrast="CORPD_FBK")
    seen = []
    run = Run(recipe, Weights("test", model))
    result = run.write(source, destination, progress=lambda *state: seen.append(state[:3]))
    assert result.n_finished == 2
    assert seen[0] == (0, 2, 1)
    assert {state[0] for state in seen} == {0, 1}
    with h5py.File(destination) as file:
        assert file["reconstruction"].shape == (2, *SHAPE)
        total = file["smooth"][()] + file["sparse"][()]
        np.testing.assert_allclose(np.abs(total), file["reconstruction"][()], atol=1e-5)
        np.testing.assert_allclose(file["reconstruction"][1], 2 * file["reconstruction"][0], rtol=1e-2, atol=1e-2)
        record = json.loads(file.attrs["provenance"])
        certificates = json.loads(file.attrs["certificate"])
    assert record["recipe"]["sha256"] == recipe.sha256()
    assert record["weights"] == {"name": "test", "sha256": model.fingerprint()}
    assert [entry["status"] for entry in certificates] == ["converged", "converged"]
    assert certificates[0]["mask"]["sha256"] == SamplingMask.from_array(mask, SHAPE).sha256
    assert certificates[1]["scale"] == pytest.approx(2 * certificates[0]["scale"], rel=1e-5)


def test_slices_can_be_chosen(tmp_path: Path, model: SmoothPlusSparse, recipe: Recipe) -> None:
    source = tmp_path / "in.h5"
    write_kspace(source, np.stack([k * acquisition().kspace[0] for k in (1, 2, 3)]))
    result = Run(recipe, Weights("test", model), slices=SliceChoice(1, 2)).write(source, tmp_path / "out.h5")
    assert len(result.certificates) == 1
    with pytest.raises(MrispsError, match="has the slices 0 to 2, not 2 to 3"):
        Run(recipe, Weights("test", model), slices=SliceChoice(2, 4)).write(source, tmp_path / "other.h5")
    assert not (tmp_path / "other.h5").exists()


def test_facts_of_an_image_tell_wrap_around(recipe: Recipe, model: SmoothPlusSparse) -> None:
    """An object that is folded over the edge of the field of view leaves energy there; one inside does not."""
    inside = acquisition()
    x = np.arange(SHAPE[1]) - SHAPE[1] // 2
    shift = np.exp(-2j * np.pi * x * 11 / SHAPE[1])  # by 11 of 20 columns, as if the object were there and folded over
    folded = replace(inside, kspace=(inside.kspace * shift).astype(np.complex64))
    energies = []
    for record in (inside, folded):
        problem = mri_problem(record, recipe)
        result = reconstruct(problem, model, recipe)
        facts = module.image_facts(problem, result)
        energies.append(facts["edge_energy"])
        magnitude = result.image.abs()
        assert facts["peak"] == pytest.approx(float(magnitude.max()), rel=0.05)
        assert facts["cost_mean"] == pytest.approx(float(result.cost_map.mean()), rel=1e-5)
    assert energies[0] < 0.1
    assert energies[1] > 0.5


def test_facts_of_rows_count_with_a_two_dimensional_mask(recipe: Recipe, model: SmoothPlusSparse) -> None:
    record = acquisition()
    y = np.arange(SHAPE[0]) - SHAPE[0] // 2
    shift = np.exp(-2j * np.pi * y * 11 / SHAPE[0])[:, None]
    folded = replace(record, kspace=(record.kspace * shift).astype(np.complex64))
    pattern = np.ones(SHAPE, dtype=np.bool_)
    energies = []
    for mask in (SamplingMask.from_array(pattern[0], SHAPE), SamplingMask.from_array(pattern, SHAPE)):
        problem = mri_problem(folded, recipe, mask=mask)
        energies.append(module.image_facts(problem, reconstruct(problem, model, recipe))["edge_energy"])
    assert energies[0] < 0.1
    assert energies[1] > 0.5


def test_a_set_without_an_image_hides_no_other() -> None:
    """Where the first set of maps was 0 the image was 0, and the verdict good."""
    maps = torch.zeros((2, 1, *SHAPE), dtype=torch.complex64)
    maps[0, :, :, :10], maps[1, :, :, 10:] = 1, 1
    weights = maps.abs()[:, 0]
    factor = torch.zeros((1, 2, 2, *SHAPE), dtype=torch.complex64)
    factor[0, 0, 0], factor[0, 1, 1] = weights
    sense = Sense(torch.ones(SHAPE[1], dtype=torch.bool), maps)
    problem = Problem(sense, torch.zeros((1, *sense.range_shape), dtype=torch.complex64), 1.0, None, factor=factor)
    images = torch.full((1, 2, *SHAPE), 3 - 4j)
    assert torch.equal(problem.combined(images), images[:, :1])
    real = torch.full((1, 2, *SHAPE), -2.0)
    torch.testing.assert_close(problem.combined(real), real[:, :1])
