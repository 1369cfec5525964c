"""The exact step in the image, against dense matrices."""

import numpy as np
import pytest
import torch
from model.helpers import random_model, random_tensor, relative_error
from scipy.optimize import nnls
from torch import Tensor

from mrisps.model import Energy, PriorUse
from mrisps.operators import FourierSubsampling
from mrisps.solvers.image_step import ImageStep

from .helpers import KINDS, NCPR, TINY_CPR, TINY_NCPR, Dense, Opaque, make_operator, measure, real_vector


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("opaque", [False, True])
@pytest.mark.parametrize("shape", [(6, 8), (7, 5)])
def test_against_dense_matrices(kind: str, opaque: bool, shape: tuple[int, int]) -> None:
    operator = make_operator(kind, shape)
    y = measure(operator)
    if opaque:
        operator = Opaque(operator)
    prior = random_model(TINY_NCPR, beta=0.3).prior(torch.float64)
    energy = Energy(operator, y, prior)
    dense = Dense.of(operator, y, prior)
    step = ImageStep(energy, tolerance=1e-12)
    coefficients = random_tensor(*energy.zero_coefficients().shape, seed=4)
    for found, a in (
        (step.solve(prior.predict(coefficients)), coefficients.flatten().numpy()),
        (step.smooth_image(), np.zeros(coefficients.numel())),
    ):
        assert found.dtype == operator.domain_dtype
        assert found.shape == (1, 1, *shape)
        np.testing.assert_allclose(real_vector(found), dense.image(a), rtol=1e-8, atol=1e-8)
        prediction = prior.predict(torch.from_numpy(a).reshape(coefficients.shape))
        gradient = energy.gradient_image(found, prediction)
        assert float(gradient.abs().max()) < 1e-9


@pytest.mark.parametrize("kind", KINDS)
def test_batch_and_start_do_not_matter(kind: str) -> None:
    operator = make_operator(kind, (8, 10))
    y = torch.cat([measure(operator, seed=seed) for seed in range(3)])
    prior = random_model(NCPR).prior(torch.float64)
    energy = Energy(operator, y, prior)
    step = ImageStep(energy, tolerance=1e-12)
    prediction = prior.predict(random_tensor(*energy.zero_coefficients().shape, seed=4))
    images = step.solve(prediction)
    start = random_tensor(*images.shape, dtype=images.dtype, seed=9)
    torch.testing.assert_close(step.solve(prediction, start), images, rtol=1e-8, atol=1e-8)
    rows = prediction.shape[0] // 3
    for i in range(3):
        alone = ImageStep(Energy(operator, y[i : i + 1], prior), tolerance=1e-12)
        expected = alone.solve(prediction[i * rows : (i + 1) * rows])
        torch.testing.assert_close(images[i : i + 1], expected, rtol=1e-8, atol=1e-8)


def test_what_nothing_sees_is_zero() -> None:
    """Neither the data nor the prior (whose patches have no mean) see an unmeasured mean: the smallest image is taken."""
    mask = torch.ones(6, 8, dtype=torch.bool)
    mask[3, 4] = False  # the zero frequency
    operator = FourierSubsampling(mask, (6, 8), torch.float64)
    y = measure(operator)
    prior = random_model(TINY_CPR).prior(torch.float64)
    for candidate in (operator, Opaque(operator)):
        smooth = ImageStep(Energy(candidate, y, prior), tolerance=1e-12).smooth_image()
        assert bool(smooth.isfinite().all())
        assert abs(float(smooth.mean())) < 1e-8


@pytest.mark.parametrize("beta", [1e-6, 1e-3, 1.0, 100.0])
def test_weak_and_strong_coupling(beta: float) -> None:
    """Frequencies that the data do not see depend on the patch term alone, however small beta is."""
    operator = make_operator("real", (10, 12))
    y = measure(operator)
    prior = random_model(TINY_NCPR, beta=beta).prior(torch.float64)
    energy = Energy(operator, y, prior)
    coefficients = random_tensor(*energy.zero_coefficients().shape, seed=4)
    found = ImageStep(energy).solve(prior.predict(coefficients))
    dense = Dense.of(operator, y, prior).image(coefficients.flatten().numpy())
    assert relative_error(torch.from_numpy(real_vector(found)), torch.from_numpy(dense)) < 1e-6


@pytest.mark.parametrize("kind", ["denoising", "real", "blur"])
@pytest.mark.parametrize("opaque", [False, True])
def test_at_least_zero_against_least_squares_with_bounds(kind: str, opaque: bool) -> None:
    """argmin over x >= 0 of x^T S x / 2 - b^T x = |L^T x - L^-1 b|^2 / 2 + const, S = L L^T."""
    operator = make_operator(kind, (6, 8))
    y = measure(operator) - 0.5 * operator.forward(torch.ones(1, *operator.domain_shape, dtype=torch.float64))
    if opaque:
        operator = Opaque(operator)
    prior = random_model(TINY_NCPR, beta=0.3).prior(torch.float64).used(PriorUse(nonnegative=True), complex_image=False)
    energy = Energy(operator, y, prior)
    dense = Dense.of(operator, y, prior)
    step = ImageStep(energy, tolerance=1e-9)
    for seed in (4, 5):  # the second call goes on from where the first one ended
        coefficients = random_tensor(*energy.zero_coefficients().shape, seed=seed)
        prediction = prior.predict(coefficients)
        found = step.solve(prediction, exactly=True)
        right = dense.forward.T @ dense.y + prior.beta * dense.analysis.T @ (
            dense.synthesis @ coefficients.flatten().numpy()
        )
        root = np.linalg.cholesky(dense.system)
        expected = nnls(root.T, np.linalg.solve(root, right))[0]
        assert 0.1 < float((expected == 0).mean()) < 0.9
        np.testing.assert_allclose(real_vector(found), expected, rtol=0, atol=1e-6)
        gradient = energy.gradient_image(found, prediction)
        torch.testing.assert_close(step.multiplier(found), gradient, rtol=0, atol=1e-6)
        residual, scale = energy.residual_image(found, prediction)
        assert float(residual) < 1e-7 * float(scale)
        for _ in range(300):
            approached = step.solve(prediction)
        np.testing.assert_allclose(real_vector(approached), expected, rtol=0, atol=1e-6)
    smooth = step.smooth_image()  # linear in y: without the constraint
    assert float(smooth.min()) < 0
    np.testing.assert_allclose(real_vector(smooth), dense.image(np.zeros(coefficients.numel())), atol=1e-6)


@pytest.mark.parametrize("kind", ["real", "blur"])
def test_at_least_zero_with_a_stride(kind: str) -> None:
    operator = make_operator(kind, (12, 16))
    y = torch.cat([measure(operator, seed=seed) for seed in range(2)])
    y = y - 0.5 * operator.forward(torch.ones(1, 1, 12, 16, dtype=torch.float64))
    use = PriorUse(stride=2, nonnegative=True)
    prior = random_model(NCPR, beta=0.3).prior(torch.float64).used(use, complex_image=False)
    energy = Energy(operator, y, prior)
    prediction = prior.predict(random_tensor(*energy.zero_coefficients().shape, seed=4))
    found = ImageStep(energy, tolerance=1e-9).solve(prediction, exactly=True)
    assert float(found.min()) == 0
    residual, scale = energy.residual_image(found, prediction)
    assert bool((residual < 1e-7 * scale).all())
    gradient = energy.gradient_image(found, prediction)
    assert float(gradient.abs().max()) > 1e-2 * float(scale.max()) / 14  # the constraint does hold something back


def test_at_least_zero_changes_nothing_where_nothing_is_below() -> None:
    operator = make_operator("real", (8, 10))
    y = measure(operator, noise=0.0)
    prior = random_model(NCPR).prior(torch.float64)
    bounded = prior.used(PriorUse(nonnegative=True), complex_image=False)
    prediction = prior.transform.forward(operator.adjoint(y))
    free, held = (ImageStep(Energy(operator, y, p), tolerance=1e-12) for p in (prior, bounded))
    assert float(free.solve(prediction).min()) > 0
    torch.testing.assert_close(held.solve(prediction), free.solve(prediction))
    torch.testing.assert_close(held.solve(prediction, exactly=True), free.solve(prediction))


def corrections_of(step: ImageStep) -> list[int]:
    """A list that grows by one with every iteration towards x >= 0."""
    correction = (step._closed_form or step)._correction
    assert correction is not None
    made: list[int] = []
    inverse = correction._inverse

    def counted(image: Tensor, start: Tensor | None) -> Tensor:
        made.append(1)
        return inverse(image, start)

    correction._inverse = counted
    return made


@pytest.mark.parametrize("kind", ["real", "blur"])
@pytest.mark.parametrize("neighbour", ["zero", "dim", "lost"])
@pytest.mark.parametrize("double", [False, True])
def test_at_least_zero_each_image_of_a_batch_on_its_own(kind: str, neighbour: str, double: bool) -> None:
    """One that is dark does not ask for more than the others need, and one that is lost does not hold them up."""
    operator = make_operator(kind, (16, 24), double)
    real = torch.float64 if double else torch.float32
    one = measure(operator) - 0.5 * operator.forward(torch.ones(1, 1, 16, 24, dtype=real))
    use = PriorUse(nonnegative=True)
    prior = random_model(NCPR, beta=0.3).prior(real).used(use, complex_image=False)
    alone = ImageStep(Energy(operator, one, prior), tolerance=1e-5)
    prediction = prior.predict(random_tensor(1, 16, 24, prior.n_atoms, seed=4).to(real))
    made = corrections_of(alone)
    expected = alone.solve(prediction, exactly=True)
    needed = len(made)
    assert 2 < needed < 200
    factor = {"zero": 0.0, "dim": 1e-3, "lost": 1.0}[neighbour]
    both = ImageStep(Energy(operator, torch.cat([one, factor * one]), prior), tolerance=1e-5)
    made = corrections_of(both)
    predictions = torch.cat([prediction, (torch.nan if neighbour == "lost" else factor) * prediction])
    found = both.solve(predictions, exactly=True)
    torch.testing.assert_close(found[:1], expected, rtol=0, atol=1e-4)
    assert needed <= len(made) <= 2 * needed + 25


def test_at_least_zero_where_nothing_sees_the_mean() -> None:
    mask = torch.ones(6, 8, dtype=torch.bool)
    mask[3, 4] = False  # the zero frequency
    operator = FourierSubsampling(mask, (6, 8), torch.float64)
    use = PriorUse(nonnegative=True)
    prior = random_model(TINY_CPR).prior(torch.float64).used(use, complex_image=False)
    prediction = torch.zeros(1, 6, 8, len(prior.factors), dtype=torch.float64)
    for candidate in (operator, Opaque(operator)):
        energy = Energy(candidate, measure(operator), prior)
        image = ImageStep(energy, tolerance=1e-9).solve(prediction, exactly=True)
        assert float(image.min()) >= 0
        residual, scale = energy.residual_image(image, prediction)
        assert float(residual) < 1e-6 * float(scale)
