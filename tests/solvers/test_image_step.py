"""The exact step in the image, against dense matrices."""

import numpy as np
import pytest
import torch
from model.helpers import random_model, random_tensor, relative_error

from mrisps.model import Energy
from mrisps.operators import FourierSubsampling
from mrisps.solvers.image_step import REFRESH, ImageStep

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


def test_a_chain_of_solves_forgets_nothing() -> None:
    """Each starts where the last one ended and takes over what it knew: also where nothing moves any more, or b turns round."""
    operator = Opaque(make_operator("complex", (10, 12)))
    prior = random_model(NCPR).prior(torch.float64)
    energy = Energy(operator, measure(operator), prior)
    step, shape = ImageStep(energy, tolerance=1e-10), energy.zero_coefficients().shape
    first, second = (prior.predict(random_tensor(*shape, seed=seed)) for seed in (4, 5))
    image: torch.Tensor | None = None
    for weight in (0.0, 0.5, 0.75, 0.875, 1.0, *(1.0,) * 60, -1.0, 0.0):
        prediction = torch.lerp(first, second, weight)
        image = step.solve(prediction, image)
        assert relative_error(image, ImageStep(energy, tolerance=1e-12).solve(prediction)) < 1e-7


def test_an_image_that_moves_steadily_is_followed_at_every_solve() -> None:
    """Also where K x is computed anew: a start that lost the last step would lag behind, and the image would seem to settle."""
    operator = Opaque(make_operator("complex", (10, 12)))
    prior = random_model(NCPR).prior(torch.float64)
    energy = Energy(operator, measure(operator), prior)
    step, shape = ImageStep(energy, tolerance=0.1), energy.zero_coefficients().shape
    first, change = (prior.predict(random_tensor(*shape, seed=seed)) for seed in (4, 5))
    image: torch.Tensor | None = None
    for k in range(REFRESH + 4):
        prediction = first + 0.01 * k * change
        image = step.solve(prediction, image)
        if k == 20 or k >= REFRESH:  # before, the first solves were still coming from afar
            assert relative_error(image, ImageStep(energy, tolerance=1e-12).solve(prediction)) < 1e-9
