"""Several slices in one solve give what each gives alone."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kspace.test_preparation import RECIPE as COILS
from kspace.test_preparation import record
from model.helpers import random_model
from numpy.typing import NDArray

import mrisps
from mrisps.io.acquisition import Acquisition
from mrisps.io.fastmri import FastmriFile, write_kspace
from mrisps.io.memory import MemoryKspace
from mrisps.kspace.preparation import CoilMaps, Preparation
from mrisps.model import ModelConfig, PriorUse, SmoothPlusSparse
from mrisps.operators import OnLargerGrid, PerEntry
from mrisps.reconstruction import memory as memory_module
from mrisps.reconstruction import run as run_module
from mrisps.reconstruction import together as module
from mrisps.reconstruction.api import run_of
from mrisps.reconstruction.memory import SAFETY, MemoryEstimate, NotEnoughMemoryError, of_problem
from mrisps.reconstruction.problem import Problem, mri_problem
from mrisps.reconstruction.recipe import NoiseRule, Recipe, ScaleRule
from mrisps.reconstruction.reconstruct import reconstruct, reconstruct_together
from mrisps.reconstruction.together import as_many_as_fit, solve_problems, space_of
from mrisps.solvers import FastSettings, Reconstruction, solve

NCPR = ModelConfig(patch_size=5, n_free_atoms=6, n_synthesis_atoms=12)
CPR = ModelConfig(patch_size=5, n_free_atoms=6, n_synthesis_atoms=12, regulariser="CPR", group_size=2)
ACCURATE = FastSettings(tolerance=3e-4, image_tolerance=1e-5, max_iterations=1000, trace_interval=20, image_change=3e-3)
RULE = NoiseRule(beta_per_noise=2.0, smallest_beta=0.01, largest_beta=1.0, lam_per_noise=0.3, smallest_lam=0.005)
RECIPES = {
    "coils": replace(
        COILS,
        solver=ACCURATE,
        regularisation=RULE,
        prior=PriorUse(stride=2),
        preparation=Preparation(maps=CoilMaps(n_sets=1, calibration_width=16, kernel_width=5)),
    ),
    "one coil": Recipe(
        "one", "mri", beta=0.1, lam=0.01, source="a test", image="complex", scale=ScaleRule(99.5, 1.0), solver=ACCURATE,
        regularisation=RULE,
    ),
}  # fmt: skip


def slices_of(kind: str, same_mask: bool) -> list[Acquisition]:
    """Three slices of 32 x 32 with noise of their own, so that beta and lam differ; the images are turned and fainter."""
    found = []
    for number, noise in enumerate((0.01, 0.05, 0.02)):
        acquisition, _ = record((32, 32), 4, noise=noise)
        kspace = acquisition.kspace if kind == "coils" else acquisition.kspace[:1]
        mask = np.zeros(32, dtype=np.bool_)
        mask[(0 if same_mask else number) % 2 :: 2] = True
        mask[8:24] = True
        turned = np.rot90(kspace, number, axes=(1, 2)) * np.float32(0.6**number)
        found.append(replace(acquisition, kspace=np.ascontiguousarray(turned * mask), mask=mask))
    return found


def check_same(together: Reconstruction, alone: Reconstruction) -> None:
    for name in ("image", "smooth", "cost_map"):
        found, expected = getattr(together, name), getattr(alone, name)
        assert float((found - expected).norm()) <= 5e-3 * float(expected.norm()), name
    found, expected = together.certificate, alone.certificate
    assert found.status == expected.status == "converged"
    for name in ("energy", "energy_data", "data_misfit", "expected_misfit"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=2e-3), name
    for (_, energy), (_, other) in zip(found.energy_trace[:2], expected.energy_trace[:2], strict=True):
        assert energy == pytest.approx(other, rel=2e-3)


@pytest.mark.parametrize(
    ("kind", "same_mask", "config"),
    [
        pytest.param("coils", False, NCPR, id="coils"),
        pytest.param("one coil", True, CPR, id="one coil"),
        pytest.param("one coil", False, NCPR, id="one coil with masks"),
        pytest.param("coils", True, NCPR, id="coils with one mask", marks=pytest.mark.slow),
        pytest.param("coils", False, CPR, id="coils CPR", marks=pytest.mark.slow),
        pytest.param("one coil", False, CPR, id="one coil with masks CPR", marks=pytest.mark.slow),
    ],
)
def test_results_are_those_of_one_at_a_time(kind: str, same_mask: bool, config: ModelConfig) -> None:
    recipe, model = RECIPES[kind], random_model(config, lam=0.02)
    problems = [
        replace(mri_problem(one, recipe), noise_std=noise)
        for one, noise in zip(slices_of(kind, same_mask), (0.02, 0.06, 0.03), strict=True)
    ]
    assert len({space_of(problem) for problem in problems}) == 1
    assert len({recipe.regularisation_for(problem.noise_std) for problem in problems}) == 3
    found = reconstruct_together(problems, model, recipe)
    for problem, one in zip(problems, found, strict=True):
        check_same(one, reconstruct(problem, model, recipe))
    assert len({one.certificate.n_iterations for one in found}) > 1


def test_coils_of_an_odd_size_keep_the_stride() -> None:
    """The solver works on the next even size. Image, certificate and misfit are those of the energy there, cut to the slice."""
    recipe, model = RECIPES["coils"], random_model(NCPR, lam=0.02)
    problems = []
    for one in slices_of("coils", True)[:2]:
        assert one.mask is not None
        odd = replace(one, kspace=np.ascontiguousarray(one.kspace[:, 1:, 1:]), mask=one.mask[1:])
        problems.append(mri_problem(odd, recipe))
    together = solve_problems(problems, model, recipe)
    for problem, found in zip(problems, together, strict=True):
        assert found.image.shape == found.cost_map.shape == (1, 1, 31, 31)
        assert found.certificate.stride == 2
        assert not [line for line in problem.notes if "all patches count" in line]
        misfit = float((problem.operator(found.image) - problem.y).norm())
        assert misfit == pytest.approx(found.certificate.data_misfit, rel=1e-5)
        (alone,) = solve_problems([problem], model, recipe)
        check_same(found, alone)
        beta, lam = recipe.regularisation_for(problem.noise_std)
        larger = OnLargerGrid(problem.operator, (32, 32))
        weights = model.with_regularisation(beta=beta, lam=lam)
        expected = solve(larger, problem.y, weights, recipe.solver, use=PriorUse(2))
        assert expected.certificate.residual_x < 1e-4
        torch.testing.assert_close(alone.image, expected.image[..., :31, :31])
        all_patches = replace(recipe, prior=PriorUse())
        other = solve_problems([problem], model, all_patches)[0].image
        assert float((alone.image - other).norm()) < 0.1 * float(other.norm())


def test_one_operator_where_slices_share_it(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = replace(RECIPES["one coil"], regularisation=None)
    same, different = (
        [mri_problem(one, recipe).operator for one in slices_of("one coil", flag)] for flag in (True, False)
    )
    assert module._joined(same, [1.0] * 3) is same[0]
    assert isinstance(module._joined(different, [1.0] * 3), PerEntry)
    assert isinstance(module._joined(same, [1.0, 2.0, 1.0]), PerEntry)


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """Five slices of 4 coils."""
    kspace = np.stack(
        [one.kspace for one in slices_of("coils", True)] + [one.kspace for one in slices_of("coils", True)[:2]]
    )
    mask = slices_of("coils", True)[0].mask
    write_kspace(tmp_path / "volume.h5", kspace, mask=mask)
    return tmp_path / "volume.h5"


@pytest.fixture
def model() -> SmoothPlusSparse:
    return random_model(NCPR, lam=0.02)


def test_a_file_in_order_with_bounded_memory(
    volume: Path, model: SmoothPlusSparse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two at a time: each slice is read once, no sooner than needed, and comes out in order with its own certificate."""
    events: list[str] = []

    def noted(name: str, function: Callable[..., object]) -> Callable[..., object]:
        def run(*arguments: object, **options: object) -> object:
            events.append(name if name == "solve" else f"read {arguments[1]}")
            return function(*arguments, **options)

        return run

    monkeypatch.setattr(FastmriFile, "read_slice", noted("read", FastmriFile.read_slice))
    monkeypatch.setattr(run_module, "reconstruct_together", noted("solve", run_module.reconstruct_together))
    positions: list[tuple[int, int]] = []
    recipe = replace(RECIPES["coils"], solver=replace(ACCURATE, max_iterations=10))
    run = run_of(recipe, "mri", weights=model, slices_together=2)
    with run.open(volume) as source:
        found = run.results(source, progress=lambda position, n, k, residual: positions.append((position, n)))
        assert [made.index for made in found] == [0, 1, 2, 3, 4]
    assert events == ["read 0", "read 1", "solve", "read 2", "read 3", "solve", "read 4", "solve"]
    assert sorted(set(positions)) == [(0, 5), (2, 5), (4, 5)]
    done = run.write(volume, volume.with_name("out.h5"))
    assert len(done.certificates) == 5


def test_shapes_that_differ_go_one_after_the_other(model: SmoothPlusSparse, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compression leaves as many coils as a slice needs."""
    recipe = replace(RECIPES["coils"], solver=replace(ACCURATE, max_iterations=5))
    sizes: list[int] = []
    together = run_module.reconstruct_together

    def counted(problems: list[Problem], *arguments: Any, **options: Any) -> list[Reconstruction]:
        sizes.append(len(problems))
        return together(problems, *arguments, **options)

    monkeypatch.setattr(run_module, "reconstruct_together", counted)
    few, many = slices_of("coils", True)[0].kspace, slices_of("coils", True)[1].kspace
    few = np.where(np.arange(4)[:, None, None] < 3, few, 0).astype(np.complex64)
    source = MemoryKspace(np.stack([few, many, many]), mask=slices_of("coils", True)[0].mask)
    run = run_of(recipe, "mri", weights=model, slices_together=3)
    assert [made.index for made in run.results(source)] == [0, 1, 2]
    assert sizes == [1, 2]


def given_memory(monkeypatch: pytest.MonkeyPatch, available: int | None) -> None:
    for place in (module, memory_module):
        monkeypatch.setattr(place, "available_memory", lambda device: available)


def test_how_many_go_together(model: SmoothPlusSparse, monkeypatch: pytest.MonkeyPatch) -> None:
    """One on a CPU; elsewhere as many as three quarters of the memory hold. As many as are asked for, if they fit."""
    recipe = RECIPES["one coil"]
    problem = mri_problem(slices_of("one coil", True)[0], recipe)

    def needed(n: int) -> MemoryEstimate:
        return of_problem(problem, model, recipe, n)

    def found(available: int | None, asked: int | None, device: str, n_left: int = 100) -> int:
        given_memory(monkeypatch, available)
        return as_many_as_fit(needed, asked, n_left, device).together

    assert found(1000 * needed(1).total, None, "cpu") == 1
    assert found(None, None, "cuda") == 1
    for n in (1, 2, 3, module.MOST_TOGETHER):
        assert found(math.ceil(needed(n).total / SAFETY), None, "cuda") == n
        assert found(math.ceil(needed(n).total / SAFETY) - 2, None, "cuda") == max(1, n - 1)
    assert found(1000 * needed(1).total, None, "cuda") == module.MOST_TOGETHER
    assert found(1000 * needed(1).total, None, "cuda", n_left=7) == 7
    for device in ("cpu", "cuda"):
        assert found(None, 5, device) == 5
        assert found(needed(5).total, 5, device) == 5
        assert found(needed(5).total - 1, 5, device) == 4
        assert found(1, 5, device) == 1
    with pytest.raises(ValueError, match="slices_together: expected a number >= 1, got 0"):
        run_of(recipe, "mri", weights=model, slices_together=0)


def test_fewer_go_together_where_memory_does_not_hold_them(
    volume: Path, model: SmoothPlusSparse, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Two at a time instead of four, which one line says; the images are those of a run that asked for two."""
    recipe = replace(RECIPES["coils"], solver=replace(ACCURATE, max_iterations=10))
    run = run_of(recipe, "mri", weights=model, slices_together=4)
    sizes: list[int] = []
    together = run_module.reconstruct_together

    def counted(problems: list[Problem], *arguments: Any, **options: Any) -> list[Reconstruction]:
        sizes.append(len(problems))
        return together(problems, *arguments, **options)

    monkeypatch.setattr(run_module, "reconstruct_together", counted)
    with run.open(volume) as source:
        problem = run.problem(source.read_slice(0), None)
        enough = of_problem(problem, model, recipe, 3).total - 1
        given_memory(monkeypatch, enough)
        found = list(run.results(source))
        assert sizes == [2, 2, 1]
        assert caplog.text.count("4 slices in one solve need about") == len(caplog.records) == 1
        assert caplog.text.rstrip().endswith("are left on cpu: 2 at a time")
        given_memory(monkeypatch, None)
        for one, expected in zip(found, replace(run, slices_together=2).results(source), strict=True):
            np.testing.assert_array_equal(one.image, expected.image)
        given_memory(monkeypatch, of_problem(problem, model, recipe, 1).total // 2)
        sizes.clear()
        with pytest.raises(NotEnoughMemoryError, match="an image of 32 x 32 needs about"):
            next(run.results(source))
        assert sizes == []


def test_the_notebook_call(model: SmoothPlusSparse) -> None:
    kspace: NDArray[np.complex64] = np.stack([one.kspace for one in slices_of("coils", True)])
    recipe = replace(RECIPES["coils"], solver=replace(ACCURATE, max_iterations=20))
    alone = mrisps.recon(kspace, recipe, weights=model)
    together = mrisps.recon(kspace, recipe, weights=model, slices_together=3)
    assert np.linalg.norm(together.image - alone.image) < 2e-3 * np.linalg.norm(alone.image)
    assert [c["n_iterations"] for c in together.certificates] == [c["n_iterations"] for c in alone.certificates]
