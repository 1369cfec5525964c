"""The solver with several coils, complex images, strides and thresholds on the modulus."""

import pytest
import torch
from model.helpers import random_model
from torch import Tensor

from mrisps.model import Energy, PriorUse
from mrisps.operators import Sense
from mrisps.solvers import FastSettings, solve
from mrisps.solvers.image_step import ImageStep

from .helpers import NCPR, columns, random_tensor, scene

SHAPE = (16, 12)
SETTINGS = FastSettings(tolerance=1e-5, image_tolerance=1e-9, max_iterations=2000, trace_interval=0)


def maps(n_coils: int, shape: tuple[int, int], n_sets: int = 1) -> Tensor:
    """Smooth, with sum |S|^2 = 1."""
    y = torch.linspace(-1, 1, shape[0], dtype=torch.float64)[:, None]
    x = torch.linspace(-1, 1, shape[1], dtype=torch.float64)[None]
    angles = torch.arange(n_coils * n_sets, dtype=torch.float64) * 2 * torch.pi / (n_coils * n_sets)
    coils = [torch.polar(torch.exp(-((x - t.cos()) ** 2) - (y - t.sin()) ** 2), t * x) for t in angles]
    found = torch.stack(coils).reshape(n_sets, n_coils, *shape)
    return found / found.abs().square().sum(dim=(0, 1)).sqrt()


def problem(mask: Tensor | None = None, dtype: torch.dtype = torch.complex128) -> tuple[Sense, Tensor]:
    operator = Sense(columns(SHAPE[1]) if mask is None else mask, maps(4, SHAPE), dtype)
    y = operator(scene(*SHAPE, dtype))
    return operator, y + 0.02 * operator(operator.adjoint(random_tensor(*y.shape, dtype=y.dtype)))


@pytest.mark.parametrize("use", [PriorUse(), PriorUse(2), PriorUse(1, True), PriorUse(2, True)])
def test_reaches_a_stationary_point(use: PriorUse) -> None:
    operator, y = problem()
    result = solve(operator, y, random_model(NCPR, lam=0.02), SETTINGS, use=use, keep_coefficients=True)
    assert result.converged
    assert result.certificate.residual_x < 1e-8
    assert result.certificate.residual_a < 2e-5
    # The energy, evaluated anew, is what the certificate says, and no small step lowers it.
    assert result.coefficients is not None
    prior = random_model(NCPR, lam=0.02).prior(torch.float64).used(use, True)
    energy = Energy(operator, y, prior)
    lowest = float(energy.value(result.image, result.coefficients).total)
    assert lowest == pytest.approx(result.certificate.energy, rel=1e-9)
    for seed in range(3):
        image = result.image + 1e-3 * random_tensor(*result.image.shape, dtype=torch.complex128, seed=seed)
        a = result.coefficients + 1e-3 * random_tensor(*result.coefficients.shape, seed=seed)
        assert float(energy.value(image, a).total) > lowest


def test_a_constant_phase_comes_through_unchanged() -> None:
    operator, y = problem()
    model, turn = random_model(NCPR, lam=0.02), torch.exp(torch.tensor(0.6j, dtype=torch.complex128))
    settings = FastSettings(max_iterations=20, image_tolerance=1e-10, trace_interval=0)
    straight, turned = (solve(operator, data, model, settings, use=PriorUse(2, True)).image for data in (y, turn * y))
    torch.testing.assert_close(turned, turn * straight, rtol=0, atol=1e-8)


def test_a_batch_is_its_images() -> None:
    operator, y = problem()
    both = torch.cat([y, 0.7 * y.flip(-1)])
    settings = FastSettings(max_iterations=10, image_tolerance=1e-10, trace_interval=0)
    together = solve(operator, both, random_model(NCPR), settings, use=PriorUse(2, True))
    for i in range(2):
        alone = solve(operator, both[i : i + 1], random_model(NCPR), settings, use=PriorUse(2, True))
        torch.testing.assert_close(together.image[i : i + 1], alone.image, rtol=0, atol=1e-8)
        assert together.certificates[i].energy == pytest.approx(alone.certificate.energy, rel=1e-8)


def test_real_image() -> None:
    operator, y = problem(dtype=torch.float64)
    result = solve(operator, y, random_model(NCPR, lam=0.02), SETTINGS, use=PriorUse(2))
    assert result.converged
    assert result.image.dtype == torch.float64


@pytest.mark.parametrize("mask", [None, (torch.rand(SHAPE, generator=torch.Generator().manual_seed(0)) < 0.4)])
@pytest.mark.parametrize("stride", [1, 2])
def test_image_step_is_exact(mask: Tensor | None, stride: int) -> None:
    operator, y = problem(mask)
    prior = random_model(NCPR).prior(torch.float64).used(PriorUse(stride), True)
    energy = Energy(operator, y, prior)
    step = ImageStep(energy, tolerance=1e-11)
    prediction = prior.predict(0.1 * random_tensor(*energy.zero_coefficients().shape))
    gradient = energy.gradient_image(step.solve(prediction), prediction)
    assert float(gradient.abs().max()) < 1e-9


def test_coarse_to_fine() -> None:
    """Several coils can go from coarse to fine, too: same kind of minimum, fewer iterations of the full problem."""
    shape = (48, 48)
    operator = Sense(columns(48), maps(4, shape))
    y = operator(scene(*shape, torch.complex128))
    settings = FastSettings(tolerance=1e-4, image_tolerance=1e-8, levels=2, continuation_start=4, trace_interval=0)
    result = solve(operator, y, random_model(NCPR, lam=0.02), settings)
    assert result.converged
    assert result.certificate.n_coarse_iterations > 0
    plain = solve(operator, y, random_model(NCPR, lam=0.02), FastSettings(tolerance=1e-4, image_tolerance=1e-8))
    assert result.certificate.energy == pytest.approx(plain.certificate.energy, rel=0.05)


def test_size_that_has_no_grid() -> None:
    operator = Sense(columns(21), maps(2, (24, 21)))
    with pytest.raises(ValueError, match="both sides have to be multiples of 2; got 24 x 21"):
        solve(operator, torch.ones(1, 2, 24, 21, dtype=torch.complex128), random_model(NCPR), use=PriorUse(2))
