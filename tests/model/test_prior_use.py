"""Thresholds on the modulus of complex coefficients, and patches on a stride: each piece against its definition."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mrisps.model import Energy, GroupSoftThreshold, PriorUse, Regulariser, SmoothShrinkage
from mrisps.operators import Identity

from .helpers import NCPR, random_model, random_tensor

THRESHOLDS = torch.tensor([0.3, 1.0, 2.5], dtype=torch.float64)
PAIRED: list[Regulariser] = [
    SmoothShrinkage(THRESHOLDS, exponent=1.8).paired(),
    GroupSoftThreshold(THRESHOLDS, size=1).paired(),
    GroupSoftThreshold(THRESHOLDS, size=2).paired(),
]


def coefficients(n_images: int = 2, seed: int = 0) -> Tensor:
    """(2 images of real and imaginary rows, y, x, n)."""
    return 2 * random_tensor(2 * n_images, 4, 2, 3, seed=seed)


def rotated(v: Tensor, angle: float) -> Tensor:
    turned = torch.complex(v[0::2], v[1::2]) * torch.exp(torch.tensor(1j * angle, dtype=torch.complex128))
    return torch.stack([turned.real, turned.imag], dim=1).flatten(0, 1)


@pytest.mark.parametrize("regulariser", PAIRED)
def test_blind_to_a_constant_phase(regulariser: Regulariser) -> None:
    v = coefficients()
    torch.testing.assert_close(regulariser.prox(rotated(v, 0.7)), rotated(regulariser.prox(v), 0.7))
    cost, turned = (regulariser.potential(a).reshape(2, 2, 4, 2).sum(dim=1) for a in (v, rotated(v, 0.7)))
    torch.testing.assert_close(cost, turned, rtol=1e-5, atol=0)


@pytest.mark.parametrize("regulariser", PAIRED)
def test_a_real_coefficient_is_shrunk_as_without_pairs(regulariser: Regulariser) -> None:
    v = coefficients()
    v[1::2] = 0
    alone = replace(regulariser, pairs=False)
    torch.testing.assert_close(regulariser.prox(v), alone.prox(v))
    total = regulariser.potential(v)[0::2] + regulariser.potential(v)[1::2]
    torch.testing.assert_close(total, alone.potential(v)[0::2], rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("v", [(0.4, -0.2), (1.5, 2.0), (-3.0, 0.1)])
@pytest.mark.parametrize("regulariser", PAIRED[:2])
def test_prox_is_the_minimiser_on_a_grid(regulariser: Regulariser, v: tuple[float, float]) -> None:
    """argmin R(a) + |a - v|^2 / 2 over complex a, one atom at a time."""
    values = torch.zeros(2, 1, 1, 3, dtype=torch.float64)
    values[0], values[1] = v
    found = regulariser.prox(values)
    side = torch.linspace(-4, 4, 321, dtype=torch.float64)
    real, imaginary = torch.meshgrid(side, side, indexing="ij")
    for atom in range(3):
        grid = torch.zeros(2, 321, 321, 3, dtype=torch.float64)
        grid[0, ..., atom], grid[1, ..., atom] = real, imaginary
        cost = regulariser.potential(grid).sum(dim=0) + 0.5 * ((real - v[0]) ** 2 + (imaginary - v[1]) ** 2)
        index = int(cost.argmin())
        best = torch.stack([real.flatten()[index], imaginary.flatten()[index]])
        assert float((found[:, 0, 0, atom] - best).abs().max()) < 0.0255  # the spacing of the grid is 0.025


@pytest.mark.parametrize("regulariser", PAIRED)
def test_derivative_is_that_of_the_prox(regulariser: Regulariser) -> None:
    v, direction = coefficients(seed=1), coefficients(seed=2)
    step = 1e-6
    difference = (regulariser.prox(v + step * direction) - regulariser.prox(v - step * direction)) / (2 * step)
    torch.testing.assert_close(regulariser.prox_derivative(v, direction), difference, rtol=1e-5, atol=1e-7)
    other = coefficients(seed=3)  # T' is symmetric
    left = (other * regulariser.prox_derivative(v, direction)).sum()
    right = (direction * regulariser.prox_derivative(v, other)).sum()
    torch.testing.assert_close(left, right)


@pytest.mark.parametrize("regulariser", PAIRED)
def test_prox_into_and_zeros(regulariser: Regulariser) -> None:
    v = coefficients()
    v[:, 0] = 0
    out, work = torch.empty_like(v), torch.empty_like(v)
    before = v.clone()
    regulariser.prox_into(v, out, work)
    assert torch.equal(v, before)
    assert bool((out[:, 0] == 0).all())
    torch.testing.assert_close(out, regulariser.prox(v))
    assert bool(regulariser.prox_derivative(torch.zeros_like(v), v).isfinite().all())


def test_pairs_need_two_rows() -> None:
    with pytest.raises(ValueError, match="pairs of rows"):
        PAIRED[0].prox(torch.ones(3, 2, 2, 3, dtype=torch.float64))


@pytest.mark.parametrize("bad", [0, 5, 1.0, True])
def test_bad_stride(bad: object) -> None:
    with pytest.raises(ValueError, match="stride: expected an integer"):
        PriorUse(stride=bad)  # type: ignore[arg-type]  # wrong on purpose


def test_bad_modulus() -> None:
    with pytest.raises(ValueError, match="modulus: expected True or False"):
        PriorUse(modulus=1)  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize("modulus", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
def test_energy_and_gradients(stride: int, modulus: bool) -> None:
    """The energy's value, summed here patch by patch, and its gradients by finite differences."""
    operator = Identity((1, 8, 12), torch.complex128)
    prior = random_model(NCPR).prior(torch.float64).used(PriorUse(stride, modulus), complex_image=True)
    y, x = (
        random_tensor(2, 1, 8, 12, dtype=torch.complex128),
        random_tensor(2, 1, 8, 12, dtype=torch.complex128, seed=1),
    )
    energy = Energy(operator, y, prior)
    a = energy.zero_coefficients()
    assert a.shape == (4, 8 // stride, 12 // stride, prior.n_atoms)
    a = random_tensor(*a.shape, seed=2)
    terms = energy.value(x, a)
    every = random_model(NCPR).prior(torch.float64).transform.forward(torch.cat([x[:1].real, x[:1].imag]))
    misfit = every[:, ::stride, ::stride] - prior.predict(a[:2])
    coupling = 0.5 * prior.beta * stride**2 * misfit.square().sum()
    torch.testing.assert_close(terms.coupling[0], coupling)
    torch.testing.assert_close(terms.regularisation[0], stride**2 * prior.regulariser.potential(a[:2]).sum())
    torch.testing.assert_close(energy.cost_map(a).sum(dim=(1, 2, 3)), terms.regularisation)

    direction = random_tensor(2, 1, 8, 12, dtype=torch.complex128, seed=3)
    gradient = energy.gradient_image(x, prior.predict(a))
    step = 1e-5
    difference = (energy.value(x + step * direction, a).total - energy.value(x - step * direction, a).total) / (
        2 * step
    )
    slope = (gradient.conj() * direction).real.sum(dim=(1, 2, 3))
    torch.testing.assert_close(slope, difference, rtol=1e-6, atol=1e-6)


def test_real_images_have_no_pairs() -> None:
    prior = random_model(NCPR).prior(torch.float64)
    assert not prior.used(PriorUse(modulus=True), complex_image=False).regulariser.pairs
    assert prior.used(PriorUse(modulus=True), complex_image=True).regulariser.pairs
