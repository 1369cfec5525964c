"""The authors' algorithm: against a literal version with dense matrices, and what its options and certificate say."""

import dataclasses

import numpy as np
import pytest
import torch
from model.helpers import random_model, random_tensor
from torch import Tensor

from mrisps.model import Energy, ModelConfig, SmoothPlusSparse, SmoothShrinkage
from mrisps.operators import FourierSubsampling, Identity
from mrisps.solvers import PaperSettings, solve_paper

from .helpers import (
    CPR,
    KINDS,
    NCPR,
    TINY_CPR,
    TINY_NCPR,
    Dense,
    columns,
    make_operator,
    measure,
    real_vector,
    small_problem,
)

SHAPE = (6, 8)
NEVER = 1e-30


def literal(
    dense: Dense, settings: PaperSettings, beta: float, norm: float, n_iterations: int
) -> tuple[np.ndarray, np.ndarray]:
    """maths.md section 1, line by line, on vectors."""
    # (sum_k P^T Phat is the convolution with the transfer function p: its largest eigenvalue is the maximum of p.)
    curvature = beta * np.linalg.eigvalsh(dense.analysis.T @ dense.analysis).max()
    lipschitz = 1.01 * (curvature + (norm**2 if settings.step_includes_data else 0))
    x = x_before = dense.forward.T @ dense.y
    a = a_before = np.zeros(dense.synthesis.shape[1])
    for k in range(1, n_iterations + 1):
        inertia = (k - 1) / (k + 2)
        a_tilde = a + inertia * (a - a_before)
        a_before, a = a, dense.prox(a_tilde - dense.gradient(x, a_tilde))
        x_tilde = x + inertia * (x - x_before)
        gradient = dense.system @ x_tilde - dense.forward.T @ dense.y - beta * dense.analysis.T @ (dense.synthesis @ a)
        x_before, x = x, x_tilde - gradient / lipschitz
        if settings.nonnegative:
            x = np.maximum(x, 0)
    return x, a


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("config", [TINY_NCPR, TINY_CPR], ids=lambda c: c.regulariser)
@pytest.mark.parametrize("options", ["reconstruction", "training", "unbounded", "own norm"])
@pytest.mark.parametrize("factored", [False, True])
def test_against_a_literal_version(kind: str, config: ModelConfig, options: str, factored: bool) -> None:
    operator = make_operator(kind, SHAPE)
    if operator.domain_dtype.is_complex and options != "training":
        options = "unbounded"
    settings = {
        "reconstruction": PaperSettings(operator_norm=1.0),
        "training": PaperSettings.training(),
        "unbounded": PaperSettings(nonnegative=False, operator_norm=1.0),
        "own norm": PaperSettings(beta_floor=0.2),
    }[options]
    settings = dataclasses.replace(settings, tolerance=NEVER, max_iterations=7, factored=factored)
    y = measure(operator)
    y = y - 0.3 * y.mean()  # so that some pixels are clipped
    model = random_model(config, beta=0.07, lam=0.05)
    dense = Dense.of(operator, y, model.prior(torch.float64, beta_floor=settings.beta_floor))
    norm = operator.norm() if settings.operator_norm is None else 1.0
    x, a = literal(dense, settings, 0.07, norm, 7)
    result = solve_paper(operator, y, model, settings, keep_coefficients=True)
    assert result.coefficients is not None
    np.testing.assert_allclose(real_vector(result.image), x, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(result.coefficients.flatten().numpy(), a, rtol=1e-9, atol=1e-9)
    assert result.certificate.status == "max_iter"
    assert result.certificate.n_iterations == 7


@pytest.mark.parametrize("kind", ["real", "complex"])
@pytest.mark.parametrize("config", [NCPR, CPR], ids=lambda c: c.regulariser)
def test_factored_gives_the_same_iterates(kind: str, config: ModelConfig) -> None:
    operator, y, model = small_problem(kind, config)
    settings = PaperSettings(tolerance=NEVER, max_iterations=20, nonnegative=kind == "real")
    plain = solve_paper(operator, y, model, settings, keep_coefficients=True)
    factored = solve_paper(operator, y, model, dataclasses.replace(settings, factored=True), keep_coefficients=True)
    torch.testing.assert_close(factored.image, plain.image, rtol=0, atol=1e-9)
    torch.testing.assert_close(factored.coefficients, plain.coefficients, rtol=0, atol=1e-9)
    assert factored.certificate.energy == pytest.approx(plain.certificate.energy, rel=1e-9)


@pytest.mark.parametrize("config", [NCPR, CPR], ids=lambda c: c.regulariser)
def test_a_batch_is_solved_as_if_each_image_came_alone(config: ModelConfig) -> None:
    operator, y, model = small_problem("real", config)
    y = torch.cat([y, 0.3 * measure(operator, seed=1)])
    settings = PaperSettings(tolerance=1e-3, trace_interval=3)
    together = solve_paper(operator, y, model, settings)
    for i in range(2):
        alone = solve_paper(operator, y[i : i + 1], model, settings)
        for name in ("image", "smooth", "sparse", "cost_map"):
            torch.testing.assert_close(getattr(together, name)[i : i + 1], getattr(alone, name), rtol=1e-9, atol=1e-12)
        found, expected = together.certificates[i], alone.certificate
        assert found.n_iterations == expected.n_iterations
        assert found.status == expected.status == "converged"
        assert found.energy == pytest.approx(expected.energy)
        assert [k for k, _ in found.energy_trace] == [k for k, _ in expected.energy_trace]
        assert [e for _, e in found.energy_trace] == pytest.approx([e for _, e in expected.energy_trace])
    assert together.certificates[0].n_iterations != together.certificates[1].n_iterations


def test_the_test_that_stops_it() -> None:
    """|x_k - x_(k+1)| / |x_k| < tolerance, for the first time."""
    operator, y, model = small_problem("real", NCPR)
    changes: list[tuple[int, float]] = []
    result = solve_paper(
        operator, y, model, PaperSettings(tolerance=1e-3), progress=lambda k, change: changes.append((k, change))
    )
    n = result.certificate.n_iterations
    assert n > 3
    assert [k for k, _ in changes] == list(range(1, n + 1))
    assert changes[-1][1] <= 1e-3
    assert all(change > 1e-3 for _, change in changes[:-1])
    images = [
        solve_paper(operator, y, model, PaperSettings(tolerance=NEVER, max_iterations=k)).image for k in (n - 1, n)
    ]
    expected = torch.linalg.vector_norm(images[0] - images[1]) / torch.linalg.vector_norm(images[0])
    assert changes[-1][1] == pytest.approx(float(expected))


def test_trace_and_certificate() -> None:
    operator, y, model = small_problem("real", NCPR)
    settings = PaperSettings(tolerance=NEVER, max_iterations=10, trace_interval=4)
    result = solve_paper(operator, y, model, settings, noise_std=0.03, keep_coefficients=True)
    certificate = result.certificate
    assert certificate.algorithm == "paper"
    assert [k for k, _ in certificate.energy_trace] == [4, 8, 10]
    assert certificate.energy_trace[-1][1] == certificate.energy
    for k, energy in certificate.energy_trace:
        part = solve_paper(operator, y, model, PaperSettings(tolerance=NEVER, max_iterations=k))
        assert part.certificate.energy == pytest.approx(energy)
    energy = Energy(operator, y, model.prior(torch.float64))
    assert result.coefficients is not None
    terms = energy.value(result.image, result.coefficients)
    assert certificate.energy == pytest.approx(float(terms.total))
    residual_x, residual_a = energy.residuals(result.image, result.coefficients)
    assert certificate.residual_x == pytest.approx(float(residual_x))
    assert certificate.residual_a == pytest.approx(float(residual_a))
    torch.testing.assert_close(result.cost_map, energy.cost_map(result.coefficients))
    torch.testing.assert_close(result.image, result.smooth + result.sparse)


def test_nonnegative_and_beta_floor_are_part_of_the_certified_energy() -> None:
    """The energy is that of the prior that was used, with its floored atoms."""
    operator, y, model = small_problem("denoising", NCPR, beta=0.02)
    settings = PaperSettings(tolerance=NEVER, max_iterations=5, beta_floor=0.1)
    result = solve_paper(operator, y - 0.7, model, settings, keep_coefficients=True)
    assert float(result.image.min()) == 0
    prior = model.prior(torch.float64, beta_floor=0.1)
    assert result.coefficients is not None
    energy = Energy(operator, y - 0.7, prior)
    expected = energy.value(result.image, result.coefficients).total
    assert result.certificate.energy == pytest.approx(float(expected))
    bounded, free = (
        energy.residuals(result.image, result.coefficients, nonnegative)[0] for nonnegative in (True, False)
    )
    assert result.certificate.residual_x == pytest.approx(float(bounded))
    assert float(bounded) < 0.9 * float(free)  # what holds the image at 0 is no residual


def test_an_image_of_zeros() -> None:
    """Measurements that are all zero have a solution, which it starts from."""
    operator, y, model = small_problem("real", NCPR)
    result = solve_paper(operator, 0 * y, model)
    assert torch.equal(result.image, torch.zeros_like(result.image))
    assert result.certificate.status == "converged"
    assert result.certificate.energy < 1e-30


def test_complex_images_cannot_be_clipped() -> None:
    operator, y, model = small_problem("complex", NCPR)
    with pytest.raises(ValueError, match="nonnegative"):
        solve_paper(operator, y, model)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_measurements_have_to_be_finite(bad: float) -> None:
    operator, y, model = small_problem("real", NCPR)
    y[0, 0, 3, 4] = bad
    with pytest.raises(ValueError, match="y: expected finite"):
        solve_paper(operator, y, model)


def test_measurements_have_to_fit() -> None:
    operator, y, model = small_problem("real", NCPR)
    for wrong in (y[..., :-1], y[0], y.real, y.to(torch.complex64)):
        with pytest.raises(ValueError, match="y: expected"):
            solve_paper(operator, wrong, model)


@pytest.mark.parametrize("shape", [(7, 8), (8, 7)])
def test_groups_have_to_fit_into_the_image(shape: tuple[int, int]) -> None:
    operator = make_operator("real", shape)
    with pytest.raises(ValueError, match=f"multiples of 2.*{shape[0]} x {shape[1]}"):
        solve_paper(operator, measure(operator), random_model(CPR))


def test_what_becomes_infinite_is_not_converged(monkeypatch: pytest.MonkeyPatch) -> None:
    operator, y, model = small_problem("real", NCPR)
    original, calls = SmoothShrinkage.prox, []

    def poisoned(self: SmoothShrinkage, v: Tensor) -> Tensor:
        calls.append(1)
        return original(self, v) * (float("inf") if len(calls) > 3 else 1.0)

    monkeypatch.setattr(SmoothShrinkage, "prox", poisoned)
    certificate = solve_paper(operator, y, model, PaperSettings(max_iterations=50)).certificate
    assert certificate.status == "nonfinite"
    assert certificate.n_iterations < 50


def test_a_step_that_is_too_long_is_not_converged() -> None:
    """Without the data term in L the iteration diverges where |A| is large: the certificate says so."""
    identity = Identity((12, 12), torch.float32)
    model = random_model(NCPR, beta=0.05, dtype=torch.float32)
    operator = 30.0 * identity
    y = operator.forward(random_tensor(1, 1, 12, 12, dtype=torch.float32))
    certificate = solve_paper(operator, y, model, PaperSettings.training()).certificate
    assert certificate.status == "nonfinite"


def test_settings() -> None:
    assert PaperSettings() == PaperSettings(1e-5, 10_000, True, True, 0.0, None, False, 0)
    assert PaperSettings.training() == PaperSettings(
        tolerance=1e-4, nonnegative=False, step_includes_data=False, beta_floor=0.1
    )
    assert PaperSettings.training(1e-6).tolerance == 1e-6
    for name, value in (
        ("tolerance", 0.0),
        ("tolerance", float("nan")),
        ("max_iterations", 0),
        ("trace_interval", -1),
        ("beta_floor", -0.1),
        ("beta_floor", float("nan")),
        ("operator_norm", 0.0),
        ("operator_norm", float("nan")),
    ):
        with pytest.raises(ValueError, match=name):
            PaperSettings(**{name: value})


def test_nothing_changes_that_was_given() -> None:
    mask = columns(20)
    operator = FourierSubsampling(mask, (16, 20), torch.float64)
    y, model = measure(operator), random_model(NCPR)
    before = (y.clone(), model.fingerprint(), operator.normal_transfer_function())
    first = solve_paper(operator, y.requires_grad_(), model, PaperSettings(tolerance=1e-3))
    assert torch.equal(y, before[0])
    assert model.fingerprint() == before[1]
    assert torch.equal(operator.normal_transfer_function(), before[2])
    assert not first.image.requires_grad
    second = solve_paper(operator, y, model, PaperSettings(tolerance=1e-3))
    assert torch.equal(first.image, second.image)
    assert isinstance(model, SmoothPlusSparse)
