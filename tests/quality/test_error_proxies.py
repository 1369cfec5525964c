"""The proxies: what is left out, and that they tell a good reconstruction from a bad one."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mrisps.errors import MrispsError
from mrisps.io.acquisition import Acquisition
from mrisps.kspace.coil_maps import to_kspace
from mrisps.kspace.preparation import Preparation
from mrisps.model import ModelConfig, SmoothPlusSparse
from mrisps.quality.error_proxies import error_proxies, held_out_parts
from mrisps.reconstruction.problem import Problem, mri_problem
from mrisps.reconstruction.recipe import Recipe
from mrisps.reconstruction.reconstruct import reconstruct
from mrisps.sampling import SamplingMask
from mrisps.solvers import FastSettings, Reconstruction

SHAPE = (32, 24)
RECIPE = Recipe("small", "mri", 0.05, 0.01, "a test", solver=FastSettings(tolerance=1e-2, max_iterations=200))


@pytest.fixture(scope="module")
def model() -> SmoothPlusSparse:
    generator = torch.Generator().manual_seed(0)
    config = ModelConfig(patch_size=5, n_free_atoms=6, n_synthesis_atoms=8)
    atoms = torch.randn(14, 5, 5, generator=generator)
    return SmoothPlusSparse(config, atoms[:6], atoms[6:], torch.zeros(8), beta=1.0, lam=0.01)


def columns() -> NDArray[np.bool_]:
    mask = np.zeros(SHAPE[1], dtype=np.bool_)
    mask[[1, 3, 5, 7, 8, 10, 11, 12, 13, 16, 17, 19, 21, 23]] = True
    return mask


def problem_of(noise: float, real: bool = True, coils: bool = False) -> Problem:
    y, x = np.mgrid[-1 : 1 : SHAPE[0] * 1j, -1 : 1 : SHAPE[1] * 1j]
    rng = np.random.default_rng(0)
    image = (x**2 + y**2 < 0.7).astype(np.complex64)
    maps = np.ones((1, *SHAPE), np.complex64)
    if coils:
        maps = np.stack([np.exp(-3 * (x - c) ** 2 - 3 * (y - c) ** 2) for c in (-0.9, -0.3, 0.3, 0.9)])
        maps = (maps / np.linalg.norm(maps, axis=0)).astype(np.complex64)
    kspace = to_kspace(maps * image)
    kspace += noise * (rng.normal(size=kspace.shape) + 1j * rng.normal(size=kspace.shape))
    kspace = (kspace * columns()).astype(np.complex64)
    given = maps[None] if coils else None
    record = Acquisition(kspace, Path("x"), mask=columns(), image_is_real=real, sensitivity_maps=given)
    preparation = Preparation(compression=None, phase=None) if coils else None
    return mri_problem(record, dataclasses.replace(RECIPE, preparation=preparation))


def test_parts_are_a_division_of_what_is_outside_the_centre() -> None:
    mask = SamplingMask.from_array(columns(), SHAPE)
    measured = np.ones(SHAPE, np.bool_)
    measured[:, 1] = False
    parts = held_out_parts(mask, measured, 3, mirrored=False, seed=1)
    together = np.sum(parts, axis=0)
    expected = columns()
    expected[10:14] = False  # the centre
    expected[1] = False  # nothing was measured there
    np.testing.assert_array_equal(together, expected.astype(int))
    assert [int(part.sum()) for part in parts] == [3, 3, 3]
    again = held_out_parts(mask, measured, 3, mirrored=False, seed=1)
    other = held_out_parts(mask, measured, 3, mirrored=False, seed=2)
    assert all((a == b).all() for a, b in zip(parts, again, strict=True))
    assert any((a != b).any() for a, b in zip(parts, other, strict=True))


def test_mirrored_lines_stay_together() -> None:
    mask = SamplingMask.from_array(columns(), SHAPE)
    for part in held_out_parts(mask, np.ones(SHAPE, np.bool_), 2, mirrored=True, seed=0):
        mirror = part[(2 * 12 - np.arange(24)) % 24]
        assert part[(mirror & columns())].all()


def test_samples_in_two_dimensions() -> None:
    pattern = np.random.default_rng(0).random(SHAPE) < 0.3
    pattern[12:20, 8:16] = True
    parts = held_out_parts(SamplingMask.from_array(pattern), np.ones(SHAPE, np.bool_), 4, mirrored=True, seed=0)
    together = np.sum(parts, axis=0)
    assert together.max() == 1
    assert not together[12:20, 8:16].any()
    assert (together > 0).sum() > 0.9 * (pattern.sum() - 64)


def test_too_few_lines() -> None:
    mask = np.zeros(24, np.bool_)
    mask[[3, 10, 11, 12, 13]] = True
    with pytest.raises(MrispsError, match="1 lines outside the fully sampled centre cannot be divided into 2 parts"):
        held_out_parts(SamplingMask.from_array(mask, SHAPE), np.ones(SHAPE, np.bool_), 2, mirrored=False, seed=0)


def test_more_noise_more_of_both(model: SmoothPlusSparse) -> None:
    """Four coils know what is left out, but for the noise."""
    weak = dataclasses.replace(RECIPE, beta=1e-4, lam=1e-4)
    calm, noisy = (
        error_proxies(problem_of(noise, real=False, coils=True), model, weak, n_parts=3) for noise in (0.001, 0.1)
    )
    assert calm.spread_map.shape == SHAPE
    assert calm.n_parts == 3
    assert 0 < calm.held_out_kspace_error < 0.5 < noisy.held_out_kspace_error
    assert 0 < calm.held_out_share < 0.5 * noisy.held_out_share
    assert 0 < calm.spread < 0.5 * noisy.spread


def test_the_left_out_samples_are_not_used(model: SmoothPlusSparse, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Problem] = []

    def spy(problem: Problem, model: SmoothPlusSparse, recipe: Recipe) -> Reconstruction:
        seen.append(problem)
        return reconstruct(problem, model, recipe)

    monkeypatch.setattr("mrisps.quality.error_proxies.reconstruct", spy)
    problem = problem_of(0.01)
    assert problem.mask is not None
    error_proxies(problem, model, RECIPE, n_parts=2, seed=5)
    parts = held_out_parts(problem.mask, np.ones(SHAPE, np.bool_), 2, mirrored=True, seed=5)
    for part, given in zip(parts, seen, strict=True):
        assert given.mask is not None
        np.testing.assert_array_equal(given.mask.pattern, columns() & ~part)
        ones = torch.ones(given.operator.domain_shape)[None]
        assert not given.operator.forward(torch.randn_like(ones))[..., torch.from_numpy(part)].any()
        assert not given.y[..., torch.from_numpy(part)].any()
        assert given.scale == problem.scale


def test_needs_undersampling(model: SmoothPlusSparse) -> None:
    problem = problem_of(0.0)
    with pytest.raises(MrispsError, match="need undersampled k-space"):
        error_proxies(dataclasses.replace(problem, mask=None), model, RECIPE)
