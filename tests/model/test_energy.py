"""The energy, its gradients and residuals, against explicit patches and against autograd."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import mrisps.model.energy
from mrisps.model import Energy, ModelConfig, Prior, SmoothShrinkage, to_real_images
from mrisps.operators import BlurDownsample, FourierSubsampling, Identity, LinearOperator

from .helpers import CPR, NCPR, explicit_patches, random_model, random_tensor

SHAPE = (6, 8)


def make_operator(kind: str) -> LinearOperator:
    mask = torch.tensor([True, False, False, True, True, True, False, True])
    if kind == "denoising":
        return Identity(SHAPE, torch.float64)
    if kind == "real":
        return FourierSubsampling(mask, SHAPE, torch.float64)
    if kind == "complex":
        return FourierSubsampling(mask, SHAPE, torch.complex128)
    return BlurDownsample(SHAPE, kernel_size=3, sigma=0.8, stride=2, dtype=torch.float64)


KINDS = ("denoising", "real", "complex", "blur")


def make_problem(kind: str, config: ModelConfig, batch: int = 2) -> tuple[Energy, Tensor, Tensor]:
    """Energy, an image and coefficients, all random; some coefficients are exactly zero, as after shrinkage."""
    operator = make_operator(kind)
    prior = random_model(config).prior(torch.float64)
    y = random_tensor(batch, *operator.range_shape, dtype=operator.range_dtype, seed=5)
    energy = Energy(operator, y, prior)
    image = random_tensor(batch, 1, *SHAPE, dtype=operator.domain_dtype, seed=6)
    coefficients = prior.regulariser.prox(0.5 * random_tensor(*energy.zero_coefficients().shape, seed=7))
    return energy, image, coefficients


each_problem = pytest.mark.parametrize(
    ("kind", "config"),
    list(itertools.product(KINDS, (NCPR, CPR))),
    ids=lambda value: value if isinstance(value, str) else value.regulariser,
)


@each_problem
def test_value_against_explicit_patches(kind: str, config: ModelConfig) -> None:
    """E spelled out with the projector I - Q^T Q - 11^T/p^2 and the atoms D, patch by patch."""
    energy, image, coefficients = make_problem(kind, config)
    prior, p = energy.prior, config.patch_size
    terms = energy.value(image, coefficients)
    projector = torch.eye(p * p, dtype=torch.float64) - prior.free_atoms.T @ prior.free_atoms - 1 / p**2
    rows_per_image = 2 if image.is_complex() else 1
    for b in range(2):
        misfit = energy.operator.forward(image[b : b + 1]) - energy.y[b]
        data = 0.5 * float(misfit.abs().square().sum())
        parts = [image[b, 0].real, image[b, 0].imag] if image.is_complex() else [image[b, 0]]
        coupling = regularisation = 0.0
        for part, real_image in enumerate(parts):
            a = coefficients[b * rows_per_image + part]  # (y, x, n)
            patches = explicit_patches(real_image, p) @ projector
            coupling += 0.5 * prior.beta * float((patches - a @ prior.synthesis_atoms).square().sum())
            if config.regulariser == "NCPR":
                for i, threshold in enumerate(prior.regulariser.thresholds):
                    single = SmoothShrinkage(threshold.reshape(1), exponent=config.exponent)
                    regularisation += float(single.potential(a[..., i : i + 1]).sum())
            else:
                groups = a.unfold(0, 2, 2).unfold(1, 2, 2).square().sum(dim=(-2, -1)).sqrt()
                regularisation += float((groups * prior.regulariser.thresholds).sum())
        assert float(terms.data[b]) == pytest.approx(data, rel=1e-10)
        assert float(terms.coupling[b]) == pytest.approx(coupling, rel=1e-10)
        assert float(terms.regularisation[b]) == pytest.approx(regularisation, rel=1e-10)
        assert float(terms.total[b]) == pytest.approx(data + coupling + regularisation, rel=1e-10)


def test_energy_of_a_complex_image_is_the_sum_over_its_parts() -> None:
    energy, image, coefficients = make_problem("complex", NCPR)
    identity = Identity(SHAPE, torch.complex128)
    y = random_tensor(2, 1, *SHAPE, dtype=torch.complex128, seed=5)
    whole = Energy(identity, y, energy.prior).value(image, coefficients).total
    parts = Energy(Identity(SHAPE, torch.float64), to_real_images(y), energy.prior)
    torch.testing.assert_close(parts.value(to_real_images(image), coefficients).total.reshape(2, 2).sum(1), whole)


@each_problem
def test_gradient_in_the_image_against_autograd(kind: str, config: ModelConfig) -> None:
    energy, image, coefficients = make_problem(kind, config)
    image.requires_grad_()
    (expected,) = torch.autograd.grad(energy.value(image, coefficients).total.sum(), image)
    found = energy.gradient_image(image.detach(), energy.prior.predict(coefficients))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@each_problem
def test_coefficient_step_against_autograd(kind: str, config: ModelConfig) -> None:
    energy, image, coefficients = make_problem(kind, config)
    a = coefficients.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(energy.value(image, a).coupling.sum(), a)
    expected = energy.prior.regulariser.prox(coefficients - gradient)
    torch.testing.assert_close(energy.coefficient_step(image, coefficients), expected, rtol=1e-10, atol=1e-12)


@each_problem
def test_residuals(kind: str, config: ModelConfig) -> None:
    energy, image, coefficients = make_problem(kind, config)
    gradient = energy.gradient_image(image, energy.prior.predict(coefficients))
    step = energy.coefficient_step(image, coefficients)
    residual_x, residual_a = energy.residuals(image, coefficients)
    assert residual_x.shape == residual_a.shape == (2,)
    for b in range(2):
        scale = torch.linalg.vector_norm(energy.operator.adjoint(energy.y)[b])
        assert float(residual_x[b]) == pytest.approx(float(torch.linalg.vector_norm(gradient[b]) / scale))
        a, t = (rows.reshape(2, -1)[b] for rows in (coefficients, step))
        assert float(residual_a[b]) == pytest.approx(float((a - t).norm() / a.norm()))


def test_residuals_where_there_is_nothing_to_compare_with() -> None:
    energy, image, coefficients = make_problem("denoising", CPR)
    nothing = Energy(energy.operator, torch.zeros_like(energy.y), energy.prior)
    assert all(bool((r == 0).all()) for r in nothing.residuals(0 * image, 0 * coefficients))
    assert all(bool((r > 0).all() & r.isfinite().all()) for r in nothing.residuals(image, 0 * coefficients))


@pytest.mark.parametrize("config", [NCPR, CPR], ids=lambda c: c.regulariser)
def test_coefficient_step_does_not_increase_the_energy(config: ModelConfig) -> None:
    energy, image, coefficients = make_problem("denoising", config)
    before = energy.value(image, coefficients).total
    for _ in range(20):
        coefficients = energy.coefficient_step(image, coefficients)
        after = energy.value(image, coefficients).total
        assert bool((after <= before + 1e-9 * before).all())
        before = after


@each_problem
def test_cost_map_sums_to_the_regularisation(kind: str, config: ModelConfig) -> None:
    energy, image, coefficients = make_problem(kind, config)
    cost = energy.cost_map(coefficients)
    assert cost.shape == (2, 1, *SHAPE)
    assert float(cost.min()) >= 0
    expected = energy.value(image, coefficients).regularisation
    torch.testing.assert_close(cost.sum(dim=(1, 2, 3)), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("config", [NCPR, CPR], ids=lambda c: c.regulariser)
@pytest.mark.parametrize("pixels", [1, 20, 33, 10**6])
def test_the_size_of_the_chunks_does_not_matter(
    monkeypatch: pytest.MonkeyPatch, config: ModelConfig, pixels: int
) -> None:
    energy, image, coefficients = make_problem("complex", config)

    def everything() -> list[Tensor]:
        terms = energy.value(image, coefficients)
        step = energy.coefficient_step(image, coefficients)
        return [terms.data, terms.coupling, terms.regularisation, step, energy.cost_map(coefficients)]

    expected = everything()
    monkeypatch.setattr(mrisps.model.energy, "CHUNK_PIXELS", pixels)
    n_chunks = len(list(energy.prior.chunks((4, *SHAPE))))
    assert n_chunks == 4 if pixels == 10**6 else n_chunks > 4
    for found, reference in zip(everything(), expected, strict=True):
        torch.testing.assert_close(found, reference, rtol=1e-12, atol=1e-12)


@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 40), st.integers(1, 3000)),
    group=st.integers(1, 4),
)
@settings(max_examples=100, deadline=None)
def test_chunks_cover_every_pixel_once_and_cut_no_group(shape: tuple[int, int, int], group: int) -> None:
    n_rows, height, width = shape
    prior = PRIORS[group]
    height *= group
    seen = torch.zeros(n_rows, height, dtype=torch.int64)
    for rows, ys in prior.chunks((n_rows, height, width)):
        seen[rows, ys] += 1
        assert ys.start % group == 0
        assert (min(ys.stop, height) - ys.start) % group == 0
    assert bool((seen == 1).all())


PRIORS = {
    size: random_model(
        ModelConfig(patch_size=3, n_free_atoms=2, n_synthesis_atoms=3, regulariser="CPR", group_size=size)
    ).prior()
    for size in range(1, 5)
}


def test_sizes() -> None:
    energy, _, coefficients = make_problem("complex", NCPR)
    prior = energy.prior
    assert energy.image_shape == SHAPE
    assert energy.n_real_images == 4
    assert coefficients.shape == (4, *SHAPE, 10)
    assert prior.n_atoms == 10
    assert prior.factors.shape == (25 - 1 - 8, 10)
    assert prior.predict(coefficients).shape == (4, *SHAPE, 16)
    torch.testing.assert_close(prior.factors.T @ prior.basis, prior.synthesis_atoms, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("beta", [0.0, -1.0, float("nan")])
def test_beta_has_to_be_positive(beta: float) -> None:
    prior = random_model().prior()
    with pytest.raises(ValueError, match="beta"):
        Prior(prior.free_atoms, prior.synthesis_atoms, prior.basis, beta, prior.regulariser)
