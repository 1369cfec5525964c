"""``stop="image"``: as soon as the image no longer changes, and never called converged."""

import dataclasses

import pytest
import torch
from model.helpers import random_model

from mrisps.model import ModelConfig
from mrisps.solvers import FastSettings, solve
from mrisps.solvers.fast import CHECK_INTERVAL, Iterate
from mrisps.solvers.outlook import FASTEST_RATE, PASSES, SLOWEST_RATE

from .helpers import CPR, NCPR, make_operator, measure, small_problem

CAREFUL = FastSettings(tolerance=1e-7, max_iterations=5000, image_change=1e-2, image_tolerance=1e-8, trace_interval=0)
QUICK = dataclasses.replace(CAREFUL, stop="image")


@pytest.mark.parametrize("config", [NCPR, CPR], ids=["NCPR", "CPR"])
@pytest.mark.parametrize("kind", ["denoising", "complex", "blur"])
def test_settles_early_with_the_image_of_the_minimum(kind: str, config: ModelConfig) -> None:
    operator, y, model = small_problem(kind, config)
    settled, converged = (solve(operator, y, model, settings) for settings in (QUICK, CAREFUL))
    assert (settled.certificate.status, converged.certificate.status) == ("settled", "converged")
    assert settled.finished
    assert not settled.converged
    assert settled.certificate.n_iterations < converged.certificate.n_iterations
    assert settled.certificate.image_change is not None
    assert settled.certificate.image_change <= 1e-2
    distance = torch.linalg.vector_norm(settled.image - converged.image) / torch.linalg.vector_norm(converged.image)
    assert distance < 2e-2
    assert (settled.certificate.energy_gap is None) == (config is NCPR)


def test_not_before_the_continuation_has_ended() -> None:
    operator, y, model = small_problem("real", NCPR)
    settings = dataclasses.replace(QUICK, continuation_start=8.0, image_change=1e9)  # met at once
    result = solve(operator, y, model, settings)
    assert result.certificate.status == "settled"
    assert result.certificate.n_iterations > 68 + 5 * (PASSES - 1)  # log 8 / -log 0.97
    assert solve(operator, y, model, dataclasses.replace(settings, max_iterations=50)).certificate.status == "max_iter"


def test_a_cap_is_no_settling_and_neither_is_a_nan() -> None:
    operator, y, model = small_problem("real", NCPR)
    assert solve(operator, y, model, dataclasses.replace(QUICK, max_iterations=10)).certificate.status == "max_iter"
    huge = solve(operator, 1e300 * y, model, QUICK)
    assert huge.certificate.status in ("nonfinite", "diverging", "max_iter")


@pytest.mark.parametrize(("share", "status"), [(0.4, "settled"), (0.2, "max_iter")])
def test_after_its_iterations_an_image_has_settled_nearly_or_not_at_all(share: float, status: str) -> None:
    """``image_iterations``: an image that would change by three times ``image_change`` counts, one that moves more does not."""
    operator, y, model = small_problem("real", NCPR)
    moving = solve(operator, y, model, dataclasses.replace(QUICK, max_iterations=15, image_change=1e-9)).certificate
    assert moving.image_change is not None
    settings = dataclasses.replace(QUICK, image_change=share * moving.image_change, image_iterations=15)
    stopped = solve(operator, y, model, settings).certificate
    assert (stopped.status, stopped.n_iterations) == (status, 15)
    assert stopped.image_change == moving.image_change  # told as it is
    careful = solve(operator, y, model, dataclasses.replace(settings, stop="stationary")).certificate
    assert (careful.status, careful.n_iterations > 15) == ("converged", True)
    assert careful.late_change == stopped.late_change == moving.image_change  # a minimiser does not hide it
    assert moving.late_change is None


def test_each_image_of_a_batch_has_its_own_end() -> None:
    operator = make_operator("real", (12, 16))
    y = measure(operator)
    model = random_model(NCPR, beta=0.5, lam=0.02)
    slow = solve(operator, y, model, QUICK).certificate.n_iterations
    both = solve(operator, torch.cat([torch.zeros_like(y), y]), model, QUICK)
    assert [one.status for one in both.certificates] == ["settled", "settled"]
    assert both.certificates[0].n_iterations < slow
    assert both.certificates[1].n_iterations == slow


@pytest.mark.parametrize("start", [1.0, 4.0])
def test_what_remains_is_a_geometric_series_with_a_rate_between_two_bounds(start: float) -> None:
    operator, y, model = small_problem("real", NCPR)
    seen: list[torch.Tensor] = []

    def monitor(point: Iterate) -> None:
        if point.iteration % CHECK_INTERVAL == 0:
            seen.append(point.image.clone())

    rates = []
    for n in (15, 30, 60, 90):
        seen.clear()
        settings = FastSettings(tolerance=1e-12, max_iterations=n, continuation_start=start, trace_interval=0)
        result = solve(operator, y, model, settings, monitor=monitor)
        before, last = (float(torch.linalg.vector_norm(b - a)) for a, b in zip(seen[-3:], seen[-2:], strict=False))
        rates.append(last / before)
        rate = min(max(rates[-1], FASTEST_RATE), SLOWEST_RATE)
        expected = last * rate / (1 - rate) / float(torch.linalg.vector_norm(seen[-1]))
        assert result.certificate.image_change == pytest.approx(expected, rel=1e-6)
    assert min(rates) < FASTEST_RATE or max(rates) > SLOWEST_RATE
