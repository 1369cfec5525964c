"""The bound on the energy above its minimum: never below the truth, and small where the minimum is."""

import dataclasses

import pytest
import torch
from model.helpers import random_model
from torch import Tensor

from mrisps.model import Energy, PriorUse, SmoothPlusSparse
from mrisps.operators import LinearOperator, Sense
from mrisps.solvers import FastSettings, PaperSettings, minimise, solve, solve_paper
from mrisps.solvers.duality import energy_gap

from .helpers import CPR, KINDS, NCPR, TINY_CPR, Opaque, columns, make_operator, measure, small_problem
from .test_sense import maps

LONG = FastSettings(tolerance=1e-10, max_iterations=1200, image_tolerance=1e-11, energy_gap=1e-8, trace_interval=0)


def of_kind(kind: str) -> tuple[LinearOperator, Tensor]:
    """Those of the helpers; ``opaque``: conjugate gradients; ``sets``: several coils with two sets of maps."""
    if kind == "opaque":
        operator: LinearOperator = Opaque(0.8 * make_operator("complex", (8, 8)))
    elif kind == "sets":
        operator = Sense(columns(8), maps(4, (8, 8), n_sets=2), torch.complex128)
    else:
        operator = make_operator(kind, (8, 8))
    return operator, measure(operator)


CASES = [(kind, PriorUse()) for kind in (*KINDS, "opaque", "sets")]
CASES += [(kind, PriorUse(stride=2)) for kind in ("denoising", "complex", "sets")]
CASES += [(kind, PriorUse(modulus=True)) for kind in ("complex", "sets")]


@pytest.mark.parametrize(
    ("kind", "use"), CASES, ids=lambda value: value if isinstance(value, str) else str(value.stride)
)
def test_never_below_the_truth_and_small_at_the_minimum(kind: str, use: PriorUse) -> None:
    operator, y = of_kind(kind)
    model = random_model(TINY_CPR, beta=0.5, lam=0.02)
    prior = model.prior(torch.float64).used(use, operator.domain_dtype.is_complex)
    energy = Energy(operator, torch.cat([y, 0.3 * y.flip(-1)]), prior)
    end = minimise(energy, LONG)
    lowest = energy.value(end.image, end.coefficients).total
    gaps = []
    for n in (1, 6, 30):
        point = minimise(energy, dataclasses.replace(LONG, max_iterations=n))
        gap = energy_gap(energy, point.image_step, point.image, point.coefficients)
        assert gap is not None
        total = energy.value(point.image, point.coefficients).total
        assert bool((gap >= (1 - lowest / total) - 1e-9).all())
        assert bool((gap >= 0).all())
        gaps.append(gap)
    last = energy_gap(energy, end.image_step, end.image, end.coefficients)
    assert last is not None
    assert bool((last < 1e-5).all())
    assert bool((last <= gaps[-1]).all())
    assert bool((gaps[-1] < gaps[0]).all())


def test_a_point_that_is_no_minimum_has_a_large_one() -> None:
    """a = 0 with its image, the images of others: whatever is handed in, the bound holds."""
    operator, y, model = small_problem("real", CPR)
    energy = Energy(operator, y, model.prior(torch.float64))
    end = minimise(energy, LONG)
    lowest = energy.value(end.image, end.coefficients).total
    for image, coefficients in (
        (end.image_step.smooth_image(), torch.zeros_like(end.coefficients)),
        (end.image, -end.coefficients),
        (torch.zeros_like(end.image), end.coefficients),
    ):
        gap = energy_gap(energy, end.image_step, image, coefficients)
        assert gap is not None
        assert bool((gap >= 1 - lowest / energy.value(image, coefficients).total - 1e-9).all())


@pytest.mark.parametrize("kind", ["denoising", "real", "blur"])
def test_single_precision_gives_the_same_bound(kind: str) -> None:
    gaps = []
    for dtype, double in ((torch.float64, True), (torch.float32, False)):
        operator = make_operator(kind, (16, 16), double)
        y = measure(make_operator(kind, (16, 16))).to(operator.range_dtype)
        energy = Energy(operator, y, random_model(CPR, lam=0.02).prior(dtype))
        point = minimise(energy, FastSettings(tolerance=1e-9, max_iterations=60))
        gap = energy_gap(energy, point.image_step, point.image, point.coefficients)
        assert gap is not None
        gaps.append(float(gap))
    assert gaps[1] == pytest.approx(gaps[0], rel=0.05, abs=2e-3)


def test_no_data_and_no_numbers() -> None:
    operator, y, model = small_problem("real", CPR)
    energy = Energy(operator, torch.cat([torch.zeros_like(y), y]), model.prior(torch.float64))
    point = minimise(energy, FastSettings(max_iterations=5))
    image = point.image.clone()
    image[1, 0, 3, 3] = torch.nan
    gap = energy_gap(energy, point.image_step, image, point.coefficients)
    assert gap is not None
    assert gap.tolist() == [0.0, torch.inf]


def test_none_where_the_energy_is_not_convex_or_the_image_constrained() -> None:
    operator, y, model = small_problem("real", NCPR)
    assert solve(operator, y, model).certificate.energy_gap is None
    operator, y, model = small_problem("real", CPR)
    constrained = solve_paper(operator, y, model, PaperSettings(max_iterations=20))
    assert constrained.certificate.energy_gap is None
    free = solve_paper(operator, y, model, PaperSettings(max_iterations=20, nonnegative=False))
    assert free.certificate.energy_gap is not None


def loose_problem() -> tuple[LinearOperator, Tensor, SmoothPlusSparse]:
    return small_problem("complex", CPR, lam=0.004)


def test_converged_needs_it() -> None:
    operator, y, model = loose_problem()
    loose = FastSettings(tolerance=10.0, image_change=1e9, energy_gap=1e9)
    early = solve(operator, y, model, loose).certificate
    assert early.status == "converged"
    assert early.energy_gap is not None
    strict = dataclasses.replace(loose, energy_gap=early.energy_gap / 100)
    late = solve(operator, y, model, strict).certificate
    assert late.status == "converged"
    assert late.energy_gap is not None
    assert late.energy_gap <= early.energy_gap / 100
    assert late.n_iterations > early.n_iterations
    capped = dataclasses.replace(strict, max_iterations=early.n_iterations)
    assert solve(operator, y, model, capped).certificate.status == "max_iter"
    assert f"at most {late.energy_gap:.1e} above the minimum" in str(late)


def test_one_image_of_a_batch_that_is_not_there_yet_holds_the_others() -> None:
    operator, y, model = loose_problem()
    settings = FastSettings(tolerance=1e-2, energy_gap=1e-3)
    both = solve(operator, torch.cat([torch.zeros_like(y), y]), model, settings)
    alone = solve(operator, y, model, settings)
    assert both.converged
    assert both.certificates[0].energy_gap == 0
    assert both.certificates[1].n_iterations == alone.certificate.n_iterations
