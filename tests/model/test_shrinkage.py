"""Both regularisers: the prox belongs to its potential, its derivative to it, and nothing produces a NaN."""

import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import scipy.integrate
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mrisps.model import GroupSoftThreshold, Regulariser, SmoothShrinkage

from .helpers import random_tensor

EXPONENTS = (1.2, 1.8, 2.0, 3.0)
SIZES = (1, 2, 3)
THRESHOLDS = torch.tensor([0.05, 0.4, 1.0, 3.0], dtype=torch.float64)

REGULARISERS: list[Callable[[Tensor], Regulariser]] = [
    *(lambda t, g=g: SmoothShrinkage(t, exponent=g) for g in EXPONENTS),
    *(lambda t, size=size: GroupSoftThreshold(t, size=size) for size in SIZES),
]
IDS = [*(f"NCPR-{g}" for g in EXPONENTS), *(f"CPR-{size}" for size in SIZES)]
each_regulariser = pytest.mark.parametrize("make", REGULARISERS, ids=IDS)


def values(seed: int = 0, scale: float = 2.0) -> Tensor:
    """(2, 6, 12, 4): sides that every group size divides; values well below and well above the thresholds."""
    spread = torch.linspace(-3, 1, 12, dtype=torch.float64).exp()[:, None]
    return scale * spread * random_tensor(2, 6, 12, 4, seed=seed)


# ---------------------------------------------------------------------------------------- prox = argmin of its potential


@pytest.mark.parametrize("exponent", EXPONENTS)
@pytest.mark.parametrize("threshold", [0.1, 1.0])
def test_smooth_shrinkage_minimises_its_potential(exponent: float, threshold: float) -> None:
    regulariser = SmoothShrinkage(torch.tensor([threshold], dtype=torch.float64), exponent=exponent)
    grid = threshold * torch.linspace(-12, 12, 48_001, dtype=torch.float64)
    cost = regulariser.potential(grid[:, None])
    for v in threshold * torch.tensor(
        [-9.0, -1.3, -0.4, 0.0, 0.02, 0.3, 0.9, 1.0, 1.7, 4.0, 11.0], dtype=torch.float64
    ):
        best = grid[(cost + 0.5 * (grid - v) ** 2).argmin()]
        # A flat minimum hides in the table's error of 1e-5: the grid search finds it only this well.
        assert float(regulariser.prox(v.reshape(1))) == pytest.approx(float(best), abs=5e-3 * threshold)


@pytest.mark.parametrize("threshold", [0.1, 1.0])
def test_soft_threshold_minimises_its_potential(threshold: float) -> None:
    regulariser = GroupSoftThreshold(torch.tensor([threshold], dtype=torch.float64), size=1)
    grid = threshold * torch.linspace(-12, 12, 48_001, dtype=torch.float64)
    cost = regulariser.potential(grid.reshape(-1, 1, 1, 1)).flatten()
    for v in threshold * torch.tensor([-9.0, -1.001, -0.4, 0.0, 0.9, 1.7, 11.0], dtype=torch.float64):
        best = grid[(cost + 0.5 * (grid - v) ** 2).argmin()]
        assert float(regulariser.prox(v.reshape(1, 1, 1))) == pytest.approx(float(best), abs=6e-4 * threshold)


@pytest.mark.parametrize("size", SIZES)
def test_group_threshold_minimises_its_potential(size: int) -> None:
    """By symmetry the minimiser is a multiple of v; so a search over multiples, and random moves away from the best."""
    regulariser = GroupSoftThreshold(torch.tensor([0.7], dtype=torch.float64), size=size)
    generator = torch.Generator().manual_seed(1)
    for scale in (0.1, 0.7, 3.0):
        v = scale * random_tensor(1, size, size, 1, seed=2)

        def objective(a: Tensor, v: Tensor = v) -> float:
            return float(regulariser.potential(a).sum() + 0.5 * (a - v).square().sum())

        found = regulariser.prox(v)
        multiples = np.linspace(0, 1, 2001)
        best = multiples[int(np.argmin([objective(float(c) * v) for c in multiples]))]
        torch.testing.assert_close(found, float(best) * v, rtol=0, atol=1e-3 * scale * 3)
        for _ in range(200):
            move = 10 ** (-float(torch.rand((), generator=generator)) * 4) * torch.randn(
                v.shape, generator=generator, dtype=v.dtype
            )
            assert objective(found + move) >= objective(found) - 1e-12


@each_regulariser
def test_gradient_of_the_potential_is_what_the_prox_takes_away(make: Callable[[Tensor], Regulariser]) -> None:
    """R'(T(v)) = v - T(v), by central differences."""
    regulariser = make(THRESHOLDS)
    v = values()
    a = regulariser.prox(v)
    direction = torch.where(a.abs() > 1e-3, a, torch.zeros_like(a)) * (1 + 0.2 * random_tensor(*a.shape, seed=9).tanh())
    size = regulariser.group_size
    if size > 1:  # a group moves as a whole, so that one that is zero stays at the kink
        direction = a * random_tensor(2, 6 // size, 12 // size, 4, seed=9).repeat_interleave(size, 1).repeat_interleave(
            size, 2
        )
    step = 1e-3
    difference = (regulariser.potential(a + step * direction) - regulariser.potential(a - step * direction)) / (
        2 * step
    )
    # The potential of NCPR is piecewise linear (in logarithms): good to 1e-5, its slopes to 1e-3.
    tolerance = 1e-3 if isinstance(regulariser, SmoothShrinkage) else 1e-6
    torch.testing.assert_close(difference.sum(), ((v - a) * direction).sum(), rtol=tolerance, atol=0)


@pytest.mark.parametrize("exponent", EXPONENTS)
def test_tabulated_potential_against_quadrature(exponent: float) -> None:
    """R(T(v)) = integral of (s - T(s)) T'(s) ds, for v from 1e-6 to 1e9 thresholds."""

    def integrand(t: float) -> float:  # s = exp(t)
        s = np.exp(t)
        q = s**exponent
        return float(s / (1 + q) * q * (exponent + 1 + q) / (1 + q) ** 2 * s)

    threshold = 0.3
    regulariser = SmoothShrinkage(torch.tensor([threshold], dtype=torch.float64), exponent=exponent)
    for v in (1e-6, 1e-4, 3e-3, 0.1, 0.5, 1.0, 2.0, 7.0, 60.0, 1e4, 1e9):
        pieces = np.concatenate([[np.log(v) - 25], np.arange(np.ceil(np.log(v) - 25), np.log(v)), [np.log(v)]])
        expected = sum(
            scipy.integrate.quad(integrand, low, high, epsabs=0, epsrel=1e-12)[0]
            for low, high in itertools.pairwise(pieces)
            if high > low
        )
        a = threshold * v * v**exponent / (1 + v**exponent)
        found = float(regulariser.potential(torch.tensor([a], dtype=torch.float64)))
        assert found == pytest.approx(threshold**2 * expected, rel=1e-5)
        single = SmoothShrinkage(torch.tensor([threshold]), exponent=exponent).potential(torch.tensor([a]))
        assert float(single) == pytest.approx(threshold**2 * expected, rel=5e-5, abs=1e-37)


@each_regulariser
def test_potential_is_zero_at_zero_even_and_growing(make: Callable[[Tensor], Regulariser]) -> None:
    regulariser = make(THRESHOLDS)
    assert float(regulariser.potential(torch.zeros(1, 6, 6, 4, dtype=torch.float64)).abs().max()) < 1e-30
    a = values()
    torch.testing.assert_close(regulariser.potential(a), regulariser.potential(-a), rtol=0, atol=0)
    assert bool((regulariser.potential(1.01 * a) > regulariser.potential(a)).all())


@pytest.mark.parametrize("size", SIZES)
def test_cost_of_a_group_is_shared_by_its_pixels(size: int) -> None:
    regulariser = GroupSoftThreshold(THRESHOLDS, size=size)
    a = values()
    cost = regulariser.potential(a)
    assert cost.shape == (2, 6, 12)
    for i, j in itertools.product(range(6 // size), range(12 // size)):
        ys, xs = slice(i * size, (i + 1) * size), slice(j * size, (j + 1) * size)
        expected = (torch.linalg.vector_norm(a[:, ys, xs].flatten(1, 2), dim=1) * THRESHOLDS).sum(dim=-1)
        torch.testing.assert_close(cost[:, ys, xs].sum(dim=(1, 2)), expected)
        torch.testing.assert_close(cost[:, ys, xs], (expected / size**2)[:, None, None].expand(2, size, size))


# ------------------------------------------------------------------------------------------------------- the formulas


@pytest.mark.parametrize("exponent", EXPONENTS)
def test_smooth_shrinkage_formula(exponent: float) -> None:
    v = values()
    expected = v * v.abs() ** exponent / (THRESHOLDS**exponent + v.abs() ** exponent)
    torch.testing.assert_close(SmoothShrinkage(THRESHOLDS, exponent=exponent).prox(v), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("size", SIZES)
def test_group_threshold_formula(size: int) -> None:
    v = values()
    found = GroupSoftThreshold(THRESHOLDS, size=size).prox(v)
    assert bool((found == 0).any())
    assert bool((found != 0).any())
    for b, i, j, k in itertools.product(range(2), range(6 // size), range(12 // size), range(4)):
        part = (b, slice(i * size, (i + 1) * size), slice(j * size, (j + 1) * size), k)
        norm = float(v[part].square().sum().sqrt())
        torch.testing.assert_close(
            found[part], max(1 - float(THRESHOLDS[k]) / norm, 0.0) * v[part], rtol=1e-12, atol=1e-15
        )


@each_regulariser
def test_scaling(make: Callable[[Tensor], Regulariser]) -> None:
    """T_(c lam)(v) = c T_lam(v / c), and R scales with c^2 (NCPR) or c (CPR) accordingly; `scaled` is that c."""
    regulariser, v, c = make(THRESHOLDS), values(), 3.7
    scaled = regulariser.scaled(c)
    torch.testing.assert_close(scaled.thresholds, c * THRESHOLDS)
    assert type(scaled) is type(regulariser)
    assert scaled.group_size == regulariser.group_size
    torch.testing.assert_close(scaled.prox(v), c * regulariser.prox(v / c), rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(scaled.prox(v), make(c * THRESHOLDS).prox(v), rtol=0, atol=0)
    torch.testing.assert_close(scaled.potential(v), c**2 * regulariser.potential(v / c), rtol=1e-10, atol=1e-14)


def test_slope_of_the_smooth_shrinkage() -> None:
    """It exceeds 1, by about 0.09 at most for g = 1.8: the weak convexity that maths.md states."""
    v = torch.linspace(0, 20, 200_001, dtype=torch.float64)[:, None]
    regulariser = SmoothShrinkage(torch.ones(1, dtype=torch.float64), exponent=1.8)
    slope = regulariser.prox_derivative(v, torch.ones_like(v))
    assert float(slope.max()) == pytest.approx(1.0889, abs=2e-4)
    assert float(slope.min()) == 0


@each_regulariser
def test_prox_is_odd_and_shrinks(make: Callable[[Tensor], Regulariser]) -> None:
    regulariser, v = make(THRESHOLDS), values()
    torch.testing.assert_close(regulariser.prox(-v), -regulariser.prox(v), rtol=0, atol=0)
    assert bool((regulariser.prox(v).abs() <= v.abs()).all())
    assert bool((regulariser.prox(v) * v >= 0).all())


# ------------------------------------------------------------------------------------------------------- derivatives


@each_regulariser
def test_prox_derivative_against_differences(make: Callable[[Tensor], Regulariser]) -> None:
    regulariser, v, direction = make(THRESHOLDS), values(), values(seed=3)
    step = 1e-6
    difference = (regulariser.prox(v + step * direction) - regulariser.prox(v - step * direction)) / (2 * step)
    torch.testing.assert_close(regulariser.prox_derivative(v, direction), difference, rtol=1e-6, atol=1e-7)


@each_regulariser
def test_prox_derivative_is_symmetric(make: Callable[[Tensor], Regulariser]) -> None:
    regulariser, v = make(THRESHOLDS), values()
    g, h = values(seed=3), values(seed=4)
    left = (regulariser.prox_derivative(v, g) * h).sum()
    torch.testing.assert_close(left, (g * regulariser.prox_derivative(v, h)).sum(), rtol=1e-12, atol=0)


@each_regulariser
def test_autograd_goes_through_the_prox(make: Callable[[Tensor], Regulariser]) -> None:
    v, weights = values(), values(seed=3)
    thresholds = THRESHOLDS.clone().requires_grad_()
    v.requires_grad_()
    gradient_v, gradient_thresholds = torch.autograd.grad((make(thresholds).prox(v) * weights).sum(), (v, thresholds))
    expected = make(THRESHOLDS).prox_derivative(v.detach(), weights)  # T' is symmetric
    torch.testing.assert_close(gradient_v, expected, rtol=1e-10, atol=1e-12)
    for k in range(4):
        moved = torch.zeros_like(THRESHOLDS)
        moved[k] = 1e-6 * THRESHOLDS[k]
        up, down = (make(THRESHOLDS + sign * moved).prox(v.detach()) for sign in (1, -1))
        difference = ((up - down) * weights).sum() / (2 * moved[k])
        torch.testing.assert_close(gradient_thresholds[k], difference, rtol=1e-5, atol=1e-7)


@each_regulariser
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_path_without_gradients_is_the_path_with_them(
    make: Callable[[Tensor], Regulariser], dtype: torch.dtype
) -> None:
    v = torch.cat([values(), 1e-20 * values(), 1e12 * values(), 0 * values()]).to(dtype)
    before = v.clone()
    regulariser = make(THRESHOLDS.to(dtype))
    quick = regulariser.prox(v)
    assert torch.equal(v, before)
    differentiable = regulariser.prox(v.clone().requires_grad_()).detach()
    tolerance = 2e-6 if dtype == torch.float32 else 1e-13
    torch.testing.assert_close(quick, differentiable, rtol=tolerance, atol=torch.finfo(dtype).tiny)


@each_regulariser
def test_gradients_at_zero_are_zero(make: Callable[[Tensor], Regulariser]) -> None:
    regulariser = make(THRESHOLDS)
    zero = torch.zeros(1, 6, 6, 4, dtype=torch.float64, requires_grad=True)
    for function in (regulariser.prox, regulariser.potential):
        (gradient,) = torch.autograd.grad(function(zero).sum(), zero)
        assert float(gradient.abs().max()) < 1e-12


@pytest.mark.parametrize("size", SIZES)
def test_moreau_identity(size: int) -> None:
    """v - T(v) is the projection on the dual ball {|u_group| <= lam}: the prox of the conjugate."""
    v = values()
    left = v - GroupSoftThreshold(THRESHOLDS, size=size).prox(v)
    grouped = v.reshape(2, 6 // size, size, 12 // size, size, 4)
    norms = grouped.square().sum(dim=(2, 4), keepdim=True).sqrt()
    projected = (grouped * (THRESHOLDS / norms).clamp(max=1)).reshape(v.shape)
    torch.testing.assert_close(left, projected, rtol=1e-12, atol=1e-14)


@given(st.lists(st.floats(-50, 50), min_size=8, max_size=8), st.sampled_from(SIZES[:2]))
@settings(max_examples=60, deadline=None)
def test_group_threshold_is_firmly_nonexpansive(numbers: list[float], size: int) -> None:
    """|T(u) - T(v)|^2 <= <T(u) - T(v), u - v>: what makes it the prox of a convex function."""
    u, v = torch.tensor(numbers, dtype=torch.float64).reshape(2, 2, 2, 1)
    regulariser = GroupSoftThreshold(torch.ones(1, dtype=torch.float64), size=size)
    difference = regulariser.prox(u) - regulariser.prox(v)
    assert float(difference.square().sum()) <= float((difference * (u - v)).sum()) + 1e-9


# ---------------------------------------------------------------------------------------------------- extreme and wrong


@each_regulariser
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("grad", [False, True])
def test_extreme_values_give_no_nan(make: Callable[[Tensor], Regulariser], dtype: torch.dtype, grad: bool) -> None:
    tiny, huge = torch.finfo(dtype).tiny, torch.finfo(dtype).max
    numbers = [0.0, -0.0, tiny / 8, -tiny, 1e-30, 1e-12, 1e12, 1e30, -huge / 4, 1.0, 0.4, 3.0]
    regulariser = make(torch.tensor([1e-12, 0.4, 1.0, 1e6], dtype=dtype))
    for order in (numbers, numbers[::-1]):
        v = torch.tensor(order, dtype=dtype)[None, None, :, None].repeat(1, 6, 1, 4).requires_grad_(grad)
        found = regulariser.prox(v)
        assert bool(found.isfinite().all())
        assert bool((found.detach().abs() <= v.detach().abs()).all())
        assert bool(regulariser.prox_derivative(v.detach(), torch.ones_like(v)).isfinite().all())
        assert bool(regulariser.potential(v.detach().clamp(-1e15, 1e15)).isfinite().all())
        if grad:
            (gradient,) = torch.autograd.grad(found.sum(), v)
            assert bool(gradient.isfinite().all())


@each_regulariser
def test_large_values_pass_unchanged(make: Callable[[Tensor], Regulariser]) -> None:
    """Far above the thresholds nothing is shrunk, also where |v / lam|^g overflows."""
    v = torch.full((1, 6, 6, 4), 1e30)
    for value in (v, v.clone().requires_grad_()):
        torch.testing.assert_close(make(THRESHOLDS.float()).prox(value).detach(), v, rtol=1e-6, atol=0)


def test_infinity_is_not_turned_into_a_number() -> None:
    """What has become infinite has to stay visible to the solver, as infinity or NaN; and must not raise."""
    for make in REGULARISERS:
        v = torch.full((1, 6, 6, 4), torch.inf)
        assert not bool(make(THRESHOLDS.float()).prox(v).isfinite().any())
        assert not bool(make(THRESHOLDS.float()).potential(v).isfinite().any())
        v = torch.full((1, 6, 6, 4), torch.nan)
        assert bool(make(THRESHOLDS.float()).prox(v).isnan().all())
        assert bool(make(THRESHOLDS.float()).potential(v).isnan().all())


@pytest.mark.parametrize(("shape", "size"), [((5, 6), 2), ((6, 5), 2), ((6, 8), 3), ((1, 1), 2)])
def test_groups_have_to_fit(shape: tuple[int, int], size: int) -> None:
    regulariser = GroupSoftThreshold(THRESHOLDS, size=size)
    v = random_tensor(1, *shape, 4)
    for call in (regulariser.prox, regulariser.potential, lambda v: regulariser.prox_derivative(v, v)):
        with pytest.raises(ValueError, match=f"multiples of {size}.*{shape[0]} x {shape[1]}"):
            call(v)


@each_regulariser
@pytest.mark.parametrize(
    "thresholds",
    [[1.0, 0.0], [1.0, -0.1], [1.0, float("nan")], 0.5, [[1.0, 1.0]]],
    ids=["zero", "negative", "nan", "scalar", "matrix"],
)
def test_thresholds_have_to_be_positive_vectors(make: Callable[[Tensor], Regulariser], thresholds: list[float]) -> None:
    with pytest.raises(ValueError, match="thresholds"):
        make(torch.tensor(thresholds))


@pytest.mark.parametrize("exponent", [0.5, 0.0, -1.8, float("nan")])
def test_exponent_has_to_be_at_least_one(exponent: float) -> None:
    with pytest.raises(ValueError, match="exponent"):
        SmoothShrinkage(THRESHOLDS, exponent=exponent)


def test_group_size_has_to_be_positive() -> None:
    with pytest.raises(ValueError, match="size"):
        GroupSoftThreshold(THRESHOLDS, size=0)


# ------------------------------------------------------------------------------------------- what training needs of them

PAIRED = pytest.mark.parametrize("pairs", [False, True], ids=["apart", "pairs"])


@PAIRED
@each_regulariser
def test_root_of_the_derivative(make: Callable[[Tensor], Regulariser], pairs: bool) -> None:
    """Symmetric, positive semidefinite, and twice it is T'."""
    regulariser = replace(make(THRESHOLDS), pairs=pairs)
    v = values()
    root = regulariser.derivative_root(v)
    first, second = random_tensor(*v.shape, seed=3), random_tensor(*v.shape, seed=4)
    torch.testing.assert_close(root(root(first)), regulariser.prox_derivative(v, first), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close((root(first) * second).sum(), (first * root(second)).sum(), rtol=1e-10, atol=1e-10)
    assert float((root(first) * first).sum()) > 0


@PAIRED
@pytest.mark.parametrize("exponent", EXPONENTS)
def test_capped_slope(exponent: float, pairs: bool) -> None:
    regulariser = SmoothShrinkage(THRESHOLDS, exponent=exponent, pairs=pairs)
    v = values()
    direction = random_tensor(*v.shape, seed=3)
    root = regulariser.derivative_root(v, max_slope=1.0)
    assert float((root(root(direction)) * direction).sum()) <= float(direction.square().sum())
    gentle = values(scale=1e-3)  # no slope above 1 there: nothing is capped
    plain = regulariser.derivative_root(gentle)(direction)
    torch.testing.assert_close(regulariser.derivative_root(gentle, max_slope=1.0)(direction), plain)


@PAIRED
@each_regulariser
def test_derivative_in_the_thresholds(make: Callable[[Tensor], Regulariser], pairs: bool) -> None:
    v, step = values(), 1e-6
    above, below = (replace(make(THRESHOLDS + sign * step), pairs=pairs).prox(v) for sign in (1, -1))
    found = replace(make(THRESHOLDS), pairs=pairs).threshold_derivative(v)
    torch.testing.assert_close(found, (above - below) / (2 * step), rtol=1e-5, atol=1e-7)


@each_regulariser
def test_nothing_is_nan_at_zero(make: Callable[[Tensor], Regulariser]) -> None:
    zero = torch.zeros(2, 6, 12, 4)
    regulariser = make(THRESHOLDS.float())
    assert bool((regulariser.derivative_root(zero)(torch.ones_like(zero)) == 0).all())
    assert bool((regulariser.threshold_derivative(zero) == 0).all())
