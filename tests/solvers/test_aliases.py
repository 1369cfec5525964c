"""The image step where the operator keeps samples of a circular convolution: super-resolution."""

import pytest
import torch
from model.helpers import random_model, random_tensor, relative_error

from mrisps.model import Energy, PriorUse
from mrisps.operators import BlurDownsample, SampledConvolution
from mrisps.solvers import aliases, image_step
from mrisps.solvers.aliases import AliasFilter, SampledInverse
from mrisps.solvers.cg import CGResult, conjugate_gradients
from mrisps.solvers.image_step import ImageStep

from .helpers import NCPR, TINY_NCPR, Dense, measure, real_vector


def blur(factor: int, dtype: torch.dtype, n_blocks: tuple[int, int]) -> BlurDownsample:
    """Kernel of two samples, as the recipes have it four."""
    shape = (n_blocks[0] * factor, n_blocks[1] * factor)
    return BlurDownsample(shape, 2 * factor, factor / 2, factor, dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize(("factor", "stride"), [(2, 1), (2, 2), (3, 1), (4, 1), (4, 2)])
def test_inverse_against_dense_matrices(factor: int, stride: int, dtype: torch.dtype) -> None:
    operator = blur(factor, dtype, (4, 3))
    y = measure(operator)
    prior = random_model(TINY_NCPR, beta=0.01).prior(torch.float64).used(PriorUse(stride=stride), dtype.is_complex)
    energy = Energy(operator, y, prior)
    step = ImageStep(energy)
    assert step._closed_form is not None
    coefficients = random_tensor(*energy.zero_coefficients().shape, seed=4)
    found = step.solve(prior.predict(coefficients))
    expected = torch.from_numpy(Dense.of(operator, y, prior).image(coefficients.flatten().numpy()))
    assert relative_error(torch.from_numpy(real_vector(found)), expected) < 1e-7


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize(("factor", "stride"), [(2, 1), (2, 2), (3, 1), (4, 1), (4, 2)])
@pytest.mark.parametrize("n_blocks", [(6, 8), (7, 5)])
def test_exact_with_periodic_borders(factor: int, stride: int, n_blocks: tuple[int, int], dtype: torch.dtype) -> None:
    """All samples of the periodic convolution: the inverse, applied to the system that its definition states."""
    known = blur(factor, dtype, n_blocks).sampled_convolution()
    assert known is not None
    sampling = SampledConvolution(known.transfer, factor, torch.ones_like(known.kept))
    prior = random_model(NCPR, beta=0.02).prior(torch.float64).used(PriorUse(stride=stride), dtype.is_complex)
    shape = (n_blocks[0] * factor, n_blocks[1] * factor)
    inverse = SampledInverse(sampling, prior.transform, prior.beta * stride**2, shape, dtype)
    assert inverse.exact
    x = random_tensor(2, 1, *shape, dtype=dtype)

    def filtered(image: torch.Tensor, transfer: torch.Tensor) -> torch.Tensor:
        return torch.fft.ifft2(transfer * torch.fft.fft2(image))

    samples = torch.zeros_like(x, dtype=torch.complex128)
    samples[..., ::factor, ::factor] = filtered(x, sampling.transfer)[..., ::factor, ::factor]
    system = filtered(samples, sampling.transfer.conj())
    parts = [x.real, x.imag] if dtype.is_complex else [x]
    smooth = [prior.transform.adjoint(prior.transform.forward(part.contiguous())) for part in parts]
    system += prior.beta * stride**2 * (torch.complex(*smooth) if dtype.is_complex else smooth[0])
    again = inverse(system if dtype.is_complex else system.real.contiguous())
    assert again.dtype == dtype
    assert relative_error(again, x) < 1e-8


def test_conjugate_gradients_agree_and_serve_where_the_border_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    operator = blur(4, torch.float64, (12, 10))
    energy = Energy(operator, measure(operator), random_model(NCPR, beta=1e-3).prior(torch.float64))
    counts: list[int] = []

    def counted(*arguments: object, **settings: object) -> CGResult:
        result = conjugate_gradients(*arguments, **settings)  # type: ignore[arg-type]
        counts.append(result.n_iterations)
        return result

    monkeypatch.setattr(image_step, "conjugate_gradients", counted)
    right_side = random_tensor(1, 1, *operator.domain_shape[1:], seed=3)
    exact = ImageStep(energy).invert(right_side)
    assert counts == []
    monkeypatch.setattr(aliases, "LARGEST_BORDER", 3)
    iterated = ImageStep(energy, 1e-9).invert(right_side)
    assert relative_error(iterated, exact) < 1e-6
    assert counts[0] > 5


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128, torch.float32])
@pytest.mark.parametrize(
    ("stride", "shape"), [(1, (6, 7)), (2, (6, 10)), (2, (8, 8)), (3, (9, 12)), (3, (9, 15)), (4, (8, 20))]
)
def test_planes_and_back(stride: int, shape: tuple[int, int], dtype: torch.dtype) -> None:
    """Also: mixing with the identity changes nothing."""
    grid = (shape[0] // stride, shape[1] // stride)
    identity = torch.eye(stride**2, dtype=torch.complex128)[..., None, None].expand(-1, -1, *grid)
    filter_ = AliasFilter(identity, shape, dtype)
    image = random_tensor(2, 3, *shape, dtype=dtype)
    tolerance = 1e-6 if dtype == torch.float32 else 1e-13
    assert relative_error(filter_.image(filter_.planes(image)), image) < tolerance
    assert relative_error(filter_(image), image) < tolerance


def test_single_precision_is_enough() -> None:
    """The border is ill-conditioned: the system is solved to rounding all the same."""
    prior = random_model(NCPR, beta=1e-4, dtype=torch.float32).prior(torch.float32)
    operator = blur(4, torch.float32, (12, 10))
    energy = Energy(operator, operator(random_tensor(1, 1, *operator.domain_shape[1:], dtype=torch.float32)), prior)
    image = ImageStep(energy).smooth_image()
    residual, scale = energy.residual_image(image)
    assert float(residual / scale) < 3e-6
