"""Several images that share one set of measurements, as with two sets of coil maps."""

import numpy as np
import pytest
import torch
from model.helpers import random_model
from torch import Tensor

from mrisps.model import Energy, ModelConfig, PriorUse, SmoothPlusSparse
from mrisps.operators import FourierSubsampling, Identity, LinearOperator, Sense
from mrisps.solvers import FastSettings, PaperSettings, solve, solve_paper
from mrisps.solvers.image_step import ImageStep

from .helpers import CPR, NCPR, TINY_CPR, TINY_NCPR, Dense, Opaque, columns, measure, random_tensor, real_vector, scene
from .test_sense import maps

EXACT = FastSettings(tolerance=1e-9, max_iterations=20_000, image_tolerance=1e-11, trace_interval=0)
GOOD = FastSettings(tolerance=1e-5, max_iterations=5000, image_tolerance=1e-8, trace_interval=0)

each_dtype = pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=["real", "complex"])
each_stride = pytest.mark.parametrize("stride", [1, 2])


def two_sets(shape: tuple[int, int], dtype: torch.dtype, n_coils: int = 4) -> tuple[Sense, Tensor]:
    """Two images that differ; all coils see both."""
    operator = Sense(columns(shape[1]), maps(n_coils, shape, n_sets=2), dtype)
    return operator, measure(operator)


@each_stride
@each_dtype
def test_against_an_independent_solution_of_the_convex_problem(dtype: torch.dtype, stride: int) -> None:
    operator, y = two_sets((4, 8), dtype)
    model, use = random_model(TINY_CPR, beta=0.5, lam=0.02), PriorUse(stride)
    dense = Dense.of(operator, y, model.prior(torch.float64).used(use, dtype.is_complex))
    a = dense.minimiser()
    assert 0.02 < np.mean(a != 0) < 0.98
    result = solve(operator, y, model, EXACT, use=use)
    assert result.converged
    assert result.image.shape == (1, 2, 4, 8)
    np.testing.assert_allclose(real_vector(result.image), dense.image(a), rtol=0, atol=1e-6)


@pytest.mark.parametrize("config", [TINY_NCPR, TINY_CPR], ids=["NCPR", "CPR"])
@each_stride
@each_dtype
def test_stationary_where_the_certificate_says_so(dtype: torch.dtype, stride: int, config: ModelConfig) -> None:
    """dE/dx = 0 and a = T(a - dE/da), with dense matrices."""
    operator, y = two_sets((4, 8), dtype)
    model, use = random_model(config, beta=0.5, lam=0.05), PriorUse(stride)
    result = solve(operator, y, model, EXACT, use=use, keep_coefficients=True)
    assert result.coefficients is not None
    assert result.converged
    dense = Dense.of(operator, y, model.prior(torch.float64).used(use, dtype.is_complex))
    x, a = real_vector(result.image), result.coefficients.flatten().numpy()
    misfit = dense.analysis @ x - dense.synthesis @ a
    gradient = dense.forward.T @ (dense.forward @ x - dense.y) + dense.weight * dense.analysis.T @ misfit
    np.testing.assert_allclose(gradient, 0, atol=1e-8)
    np.testing.assert_allclose(dense.prox(a - dense.gradient(x, a)), a, rtol=0, atol=1e-8)
    smooth = dense.image(np.zeros(len(a)))
    np.testing.assert_allclose(real_vector(result.smooth), smooth, rtol=0, atol=1e-7)
    assert result.cost_map.shape == (1, 1, 4, 8)
    certificate = result.certificate
    assert float(result.cost_map.sum()) == pytest.approx(certificate.energy_regularisation, rel=1e-9)


@each_dtype
@pytest.mark.parametrize("known", [True, False])
@each_stride
def test_the_image_step_is_exact(dtype: torch.dtype, known: bool, stride: int) -> None:
    """Also where the preconditioner has to be found by probing."""
    operator, y = two_sets((16, 12), dtype)
    candidate: LinearOperator = operator if known else Opaque(operator)
    prior = random_model(NCPR).prior(torch.float64).used(PriorUse(stride), dtype.is_complex)
    energy = Energy(candidate, torch.cat([y, 2 * y]), prior)
    prediction = prior.predict(0.1 * random_tensor(*energy.zero_coefficients().shape))
    found = ImageStep(energy, tolerance=1e-11).solve(prediction)
    assert found.shape == (2, 2, 16, 12)
    assert float(energy.gradient_image(found, prediction).abs().max()) < 1e-9


@pytest.mark.parametrize("config", [NCPR, CPR], ids=["NCPR", "CPR"])
@each_dtype
def test_energy_is_that_of_the_paper_solver(dtype: torch.dtype, config: ModelConfig) -> None:
    operator, y = two_sets((12, 16), dtype)
    model = random_model(config, beta=0.5, lam=0.02)
    paper = solve_paper(operator, y, model, PaperSettings(tolerance=1e-6, nonnegative=False, factored=True))
    fast = solve(operator, y, model, GOOD)
    assert paper.converged
    assert fast.converged
    assert fast.certificate.energy <= paper.certificate.energy * 1.001
    if config is CPR:
        assert fast.certificate.energy == pytest.approx(paper.certificate.energy, rel=1e-3)


@pytest.mark.parametrize("config", [NCPR, CPR], ids=["NCPR", "CPR"])
def test_images_that_share_nothing_are_those_solved_alone(config: ModelConfig) -> None:
    """An operator that sees each image of its own accord, in closed form: the sets are then separate problems."""
    shape, model = (12, 16), random_model(config, beta=0.5, lam=0.02)
    settings = FastSettings(tolerance=1e-12, max_iterations=60, trace_interval=0)
    y = torch.cat([scene(*shape), scene(*shape).flip(-1)], dim=1) + 0.05 * random_tensor(1, 2, *shape)
    together = solve(Identity((2, *shape), torch.float64), y, model, settings)
    alone = [solve(Identity(shape, torch.float64), y[:, i : i + 1], model, settings) for i in range(2)]
    torch.testing.assert_close(together.image, torch.cat([result.image for result in alone], dim=1))
    torch.testing.assert_close(together.cost_map, alone[0].cost_map + alone[1].cost_map)
    total = sum(result.certificate.energy for result in alone)
    assert together.certificate.energy == pytest.approx(total, rel=1e-9)


def test_a_second_set_that_sees_nothing_stays_empty() -> None:
    operator, y = two_sets((12, 16), torch.complex128)
    first = operator.maps[:1]
    padded = Sense(columns(16), torch.cat([first, torch.zeros_like(first)]), torch.complex128)
    model = random_model(NCPR, beta=0.5, lam=0.02)
    both = solve(padded, y, model, GOOD)
    single = solve(Sense(columns(16), first, torch.complex128), y, model, GOOD)
    assert both.converged
    assert float(both.image[:, 1].abs().max()) == 0
    torch.testing.assert_close(both.image[:, :1], single.image, rtol=0, atol=1e-5)


@pytest.mark.parametrize("use", [PriorUse(), PriorUse(2, True)])
def test_a_batch_is_its_images(use: PriorUse) -> None:
    operator, y = two_sets((16, 12), torch.complex128)
    both = torch.cat([y, 0.7 * y.flip(-1)])
    settings = FastSettings(max_iterations=10, image_tolerance=1e-10, trace_interval=0)
    together = solve(operator, both, random_model(NCPR), settings, use=use, keep_coefficients=True)
    assert together.coefficients is not None
    assert together.coefficients.shape == (8, 16 // use.stride, 12 // use.stride, NCPR.n_synthesis_atoms)
    for i in range(2):
        alone = solve(operator, both[i : i + 1], random_model(NCPR), settings, use=use)
        torch.testing.assert_close(together.image[i : i + 1], alone.image, rtol=0, atol=1e-8)
        assert together.certificates[i].energy == pytest.approx(alone.certificate.energy, rel=1e-8)


def test_coarse_to_fine() -> None:
    operator, y = two_sets((48, 48), torch.complex128)
    settings = FastSettings(levels=2, continuation_start=4, trace_interval=0)
    model = random_model(NCPR, lam=0.02)
    result = solve(operator, y, model, settings)
    assert result.converged
    assert result.certificate.n_coarse_iterations > 0
    plain = solve(operator, y, model, FastSettings(trace_interval=0))
    assert result.certificate.energy == pytest.approx(plain.certificate.energy, rel=0.05)


def test_a_domain_that_holds_no_images() -> None:
    class Flat(LinearOperator):
        def __init__(self) -> None:
            double = torch.float64
            super().__init__(domain_shape=(144,), range_shape=(144,), domain_dtype=double, range_dtype=double)

        def _forward(self, x: Tensor) -> Tensor:
            return x.clone()

        def _adjoint(self, y: Tensor) -> Tensor:
            return y.clone()

    with pytest.raises(ValueError, match=r"operator: expected the domain \(set, y, x\), got \(144,\)"):
        solve(Flat(), torch.ones(1, 144, dtype=torch.float64), random_model(NCPR))


def test_measurements_of_another_number_of_coils() -> None:
    operator, y = two_sets((16, 12), torch.complex128)
    with pytest.raises(ValueError, match=r"expected shape \(batch, 4, 16, 12\), got \(1, 2, 16, 12\)"):
        solve(operator, y[:, :2], random_model(NCPR))


def test_several_images_through_one_mask() -> None:
    """Single-coil sampling of two images at a time, in closed form."""
    operator = FourierSubsampling(columns(16), (2, 12, 16), torch.complex128)
    y = operator(torch.cat([scene(12, 16, torch.complex128), 0.5 * scene(12, 16, torch.complex128)], dim=1))
    result = solve(operator, y, random_model(NCPR, lam=0.02), GOOD)
    assert result.converged
    assert result.image.shape == (1, 2, 12, 16)


def test_a_reconstruction_shows_itself_in_a_line() -> None:
    operator = Identity((1, 16, 16))
    generator = torch.Generator().manual_seed(0)
    config = ModelConfig(patch_size=5, n_free_atoms=6, n_synthesis_atoms=8)
    free, atoms = (torch.randn(n, 5, 5, generator=generator) for n in (6, 8))
    model = SmoothPlusSparse(config, free, atoms, torch.zeros(8), beta=0.5, lam=0.02)
    result = solve(operator, torch.rand(2, 1, 16, 16, generator=generator), model, FastSettings(max_iterations=2))
    assert repr(result) == "Reconstruction(2 x 1 x 16 x 16 float32, max_iter)"
