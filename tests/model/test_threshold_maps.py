"""Thresholds that differ from place to place: each piece against the same with one threshold, and the energy by hand."""

import pytest
import torch

from mrisps.model import Energy, GroupSoftThreshold, PriorUse, SmoothShrinkage
from mrisps.operators import Identity
from mrisps.solvers import FastSettings, minimise

from .helpers import NCPR, random_model, random_tensor

OWN = torch.tensor([0.3, 1.0, 2.5], dtype=torch.float64)
SHAPE = (4, 5, 2, 3)


def the_map(pairs: bool = False) -> torch.Tensor:
    multiples = torch.exp(0.5 * random_tensor(*SHAPE, seed=7))
    if pairs:
        multiples[1::2] = multiples[0::2]
    return OWN * multiples


@pytest.mark.parametrize("pairs", [False, True])
def test_a_map_is_one_threshold_at_each_place(pairs: bool) -> None:
    thresholds, v, direction = the_map(pairs), 2 * random_tensor(*SHAPE), random_tensor(*SHAPE, seed=1)
    whole = SmoothShrinkage(thresholds, pairs=pairs)
    out = torch.empty_like(v)
    whole.prox_into(v, out, torch.empty_like(v))
    torch.testing.assert_close(out, whole.prox(v))
    together = 2 if pairs else 1
    for row in range(0, SHAPE[0], together):
        for y in range(SHAPE[1]):
            for x in range(SHAPE[2]):
                here = slice(row, row + together), slice(y, y + 1), slice(x, x + 1)
                one = SmoothShrinkage(thresholds[row, y, x], pairs=pairs)
                torch.testing.assert_close(out[here], one.prox(v[here]))
                torch.testing.assert_close(whole.potential(v)[here], one.potential(v[here]))
                for name in ("prox_derivative", "derivative_root", "threshold_derivative"):
                    found, alone = (
                        (r.prox_derivative(a, b) if name == "prox_derivative" else r.derivative_root(a)(b))
                        if name != "threshold_derivative"
                        else r.threshold_derivative(a)
                        for r, a, b in ((whole, v, direction), (one, v[here], direction[here]))
                    )
                    torch.testing.assert_close(found[here], alone, msg=name)


def test_pieces_and_multiples() -> None:
    regulariser, v = SmoothShrinkage(the_map()), random_tensor(*SHAPE)
    here = slice(1, 3), slice(2, 4)
    torch.testing.assert_close(regulariser.at(*here).prox(v[here]), regulariser.prox(v)[here])
    torch.testing.assert_close(regulariser.scaled(2.0).prox(2 * v), 2 * regulariser.prox(v))
    torch.testing.assert_close(regulariser.mean_thresholds.log(), the_map().log().mean(dim=(0, 1, 2)))
    plain = SmoothShrinkage(OWN)
    assert plain.at(*here) is plain
    assert plain.mean_thresholds is OWN


def test_what_is_refused() -> None:
    for bad in (OWN[None], the_map()[0], -the_map(), the_map() * torch.nan):
        with pytest.raises(ValueError, match=r"^thresholds: expected \(n,\) or \(rows, y, x, n\) positive"):
            SmoothShrinkage(bad)
    with pytest.raises(ValueError, match=r"^thresholds: expected \(n,\) for groups, got \(4, 5, 2, 3\)"):
        GroupSoftThreshold(the_map())
    with pytest.raises(ValueError, match=r"^thresholds: expected the same for real and imaginary part"):
        SmoothShrinkage(the_map()).paired()
    prior = random_model(NCPR).prior(torch.float64).used(PriorUse(2), False)
    wrong = prior.with_thresholds(torch.ones(1, 6, 8, prior.n_atoms, dtype=torch.float64))
    with pytest.raises(
        ValueError, match=r"^thresholds: expected \(rows, y, x, n\) = \(1, 4, 6, 10\), got \(1, 6, 8, 10\)"
    ):
        Energy(Identity((8, 12), torch.float64), torch.zeros(1, 1, 8, 12, dtype=torch.float64), wrong)


@pytest.mark.parametrize("modulus", [False, True])
def test_the_minimum_of_the_second_energy(modulus: bool) -> None:
    """A map that is constant gives what the thresholds alone give; another map a stationary point of its own energy."""
    y = random_tensor(1, 1, 8, 12, dtype=torch.complex128)
    operator = Identity((1, 8, 12), torch.complex128)
    prior = random_model(NCPR, lam=0.1).prior(torch.float64).used(PriorUse(2, modulus), True)
    settings = FastSettings(tolerance=1e-9, image_change=1e-9, trace_interval=0)
    energy = Energy(operator, y, prior)
    plain = minimise(energy, settings)
    lam = prior.regulariser.thresholds
    same = Energy(operator, y, prior.with_thresholds(lam.expand(2, 4, 6, -1).contiguous()))
    torch.testing.assert_close(minimise(same, settings, start=plain.coefficients).image, plain.image, rtol=0, atol=1e-7)
    multiples = torch.exp(0.5 * random_tensor(1, 4, 6, len(lam), seed=3)).repeat(2, 1, 1, 1)
    second = Energy(operator, y, prior.with_thresholds(lam * multiples))
    found = minimise(second, settings, start=plain.coefficients)
    assert float((found.image - plain.image).abs().max()) > 1e-3
    assert max(float(value) for value in second.residuals(found.image, found.coefficients)) < 1e-8
    value = float(second.value(found.image, found.coefficients).total)
    assert float(second.cost_map(found.coefficients).sum()) == pytest.approx(
        float(second.value(found.image, found.coefficients).regularisation), rel=1e-9
    )
    for seed in range(3):
        near = found.coefficients + 1e-3 * random_tensor(*found.coefficients.shape, seed=seed)
        assert float(second.value(found.image, near).total) > value
