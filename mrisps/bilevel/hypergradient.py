"""How a reconstruction answers to the parameters of its prior: implicit differentiation at the minimiser.

The patches k are those of the grid with stride s (:class:`mrisps.model.PriorUse`), and each counts s^2 times. At a stationary
point, with H = A^H A + s^2 beta sum P^T Phat P, K x = beta (D P_k x)_k and v = a - beta D D^T a + K x,

    H x = A^H y + s^2 K^T a,        a = T(v).

For a loss L(x) with gradient g the implicit function theorem needs w and q = T'(v) u with

    ( I - (I - G) T'(v) ) u = K H^-1 g,        G = beta D D^T - s^2 K H^-1 K^T,        H w = g + s^2 K^T q.

T'(v) is symmetric and positive semidefinite, so u = T'^-1/2 u~ makes the system symmetric, and positive definite at a strict local
minimum:

    ( I - T'^1/2 (I - G) T'^1/2 ) u~ = T'^1/2 K H^-1 g.

Then, x, a, w, q, u being held, dL/dtheta is the gradient of a function of a few small matrices:

    Phi = s^2 ( beta [ <D, M> - <D D^T, N> + <Q Q^T, J> ] + sum_i lam_i tau_i ) + const(theta),
    M = sum_k (P_k x) q_k^T + (P_k w) a_k^T,   N = sum_k q_k a_k^T,   J = sum_k (P_k w)(P_k x)^T,
    tau_i = sum_k u_ki dT_i/dlam_i(v_k)

(and -s^2 beta <(I - 1 1^T / p^2), J>, which changes with beta), and dL/dy = A w. Neither time nor memory depends on how the
minimiser was found. A wrong hypergradient is silent: the residual of the adjoint system is always returned.

Source: arXiv 2412.13070 trains through the fixed point too (with Broyden's method); S. Bai, J. Z. Kolter and V. Koltun,
Advances in Neural Information Processing Systems 32 (2019).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal, cast

import torch
from torch import Tensor

from mrisps.bilevel.adjoint import AdjointSystem, moments
from mrisps.errors import MrispsError
from mrisps.model import Energy, PriorUse, SmoothPlusSparse, to_real_images
from mrisps.operators import LinearOperator
from mrisps.settings import Count, Positive, Range, settings
from mrisps.solvers import FastSettings, Minimum, conjugate_gradients, minimise
from mrisps.solvers.image_step import ImageStep

__all__ = ["AdjointError", "AdjointReport", "AdjointSettings", "Hypergradient", "hypergradient", "solve_with_gradient"]


EXACT_SOLVER = FastSettings(tolerance=1e-6, max_iterations=10_000, trace_interval=0)
"""Near enough to a minimum for an exact gradient. With the shipped NCPR weights (noisy images, undersampled k-space) it takes 1,000
to 2,000 iterations; at a tolerance of 1e-5 the adjoint system is often still indefinite."""


class AdjointError(MrispsError):
    """The adjoint system was not solved to its tolerance, or its solution is not finite."""


@settings
@dataclass(frozen=True)
class AdjointSettings:
    """How well the adjoint system is to be solved.

    Parameters
    ----------
    tolerance
        Relative residual of the adjoint system. Finite differences confirm gradients to about this. For the steps of stochastic
        gradient descent 0.1 is enough.
    max_iterations
        Largest number of iterations of the conjugate gradients. They need 100 to 250 near a minimum.
    on_failure
        ``"raise"`` an :class:`AdjointError` when the tolerance is not reached, or only ``"record"`` it in the report.
    max_slope
        Largest slope of the shrinkage T, at least 1; larger slopes count as this. Infinity (default): the gradient is exact, and
        the reconstruction has to be near a minimum. 1: the system is positive semidefinite everywhere, and the gradient is a
        biased one. The slopes of the non-convex shrinkage reach 1.09.
    """

    tolerance: Positive = 1e-4
    max_iterations: Count = 1000
    on_failure: Literal["raise", "record"] = "raise"
    max_slope: Annotated[float, Range(ge=1)] = math.inf


@dataclass(frozen=True)
class AdjointReport:
    """What the adjoint solve reached.

    Parameters
    ----------
    relative_residual
        Relative residual of the symmetrised system, for each image of the batch.
    n_iterations
        Iterations of the conjugate gradients.
    converged
        Whether every image met the tolerance.
    indefinite
        Whether the system turned out not to be positive definite. The reconstruction is then no strict local minimum, or not near
        enough to one.
    finite
        Whether every number of the gradient is finite.
    """

    relative_residual: tuple[float, ...]
    n_iterations: int
    converged: bool
    indefinite: bool
    finite: bool

    @property
    def good(self) -> bool:
        """Converged and finite."""
        return self.converged and self.finite


@dataclass(frozen=True, eq=False)
class Hypergradient:
    """dL/dtheta for every learned parameter, and for the measurements.

    Parameters
    ----------
    raw_free_atoms, raw_synthesis_atoms, log_thresholds, beta
        Of the shape and dtype of the model's parameters.
    thresholds
        dL/dlam, of the shape of the prior's thresholds: (n,), or (rows, y / stride, x / stride, n). With a map of thresholds,
        ``log_thresholds`` is the gradient where each is a multiple of the threshold of its atom, and the multiples are held.
    measurements
        dL/dy, of the shape of y; for complex y, dL/d(real part) + i dL/d(imaginary part).
    report
        What the adjoint solve reached.
    adjoint
        u~, the solution of the symmetrised system, (batch, rows of an image, y, x, n): a start for a similar one.
    """

    raw_free_atoms: Tensor
    raw_synthesis_atoms: Tensor
    log_thresholds: Tensor
    beta: Tensor
    thresholds: Tensor
    measurements: Tensor
    report: AdjointReport
    adjoint: Tensor

    @property
    def finite(self) -> bool:
        """Whether every number of the gradient is finite."""
        return self.report.finite


def hypergradient(
    energy: Energy,
    model: SmoothPlusSparse,
    image_step: ImageStep,
    coefficients: Tensor,
    image_gradient: Tensor,
    settings: AdjointSettings | None = None,
    *,
    start: Tensor | None = None,
) -> Hypergradient:
    """dL/dtheta through the minimiser of the energy.

    Parameters
    ----------
    energy
        Operator, measurements, and the prior of ``model``.
    model
        Whose parameters are meant.
    image_step
        Of the same energy; :class:`mrisps.solvers.Minimum` has it.
    coefficients
        a*, (rows, y, x, n): the image is x(a*). The result is the derivative of the minimiser only as far as a* is stationary.
    image_gradient
        dL/dx at x(a*), (batch, set, y, x); for complex images dL/d(real part) + i dL/d(imaginary part), as torch has it.
    settings
        Accuracy.
    start
        A guess of the adjoint solution, as in :attr:`Hypergradient.adjoint`; by default 0.

    Raises
    ------
    AdjointError
        The tolerance was not reached or the gradient is not finite, and ``settings.on_failure`` is ``"raise"``.
    """
    settings = AdjointSettings() if settings is None else settings
    with torch.no_grad():
        prior = energy.prior
        coefficients = coefficients.to(prior.basis.dtype)  # the solver may have kept them in float16
        system = AdjointSystem(energy, image_step, coefficients, settings.max_slope)
        solved = conjugate_gradients(
            system.apply,
            system.right_side(image_gradient),
            start=system.zeros() if start is None else start.to(system.v).view(system.shape),
            precondition=lambda r: r,
            tolerance=settings.tolerance,
            max_iterations=settings.max_iterations,
        )
        q = system.root(solved.solution)  # (rows, y, x, n)
        w = image_step.invert(image_gradient + system.synthesise(prior.predict(q)))
        u = q + prior.beta * (system.misfit_of(w, prior.predict(q)) @ prior.factors)
        by_place = u * prior.regulariser.threshold_derivative(system.v)
        thresholds = prior.regulariser.thresholds
        if thresholds.ndim == 4:  # multiples of those of the atoms, and the multiples are held
            own = (model.lam * model.log_thresholds.double().exp()).to(thresholds)
            tau = (by_place * (thresholds / own)).flatten(0, -2).sum(0, dtype=torch.float64)
        else:
            by_place = by_place.flatten(0, -2).sum(0, dtype=torch.float64)
            tau = by_place
        products = moments(prior, to_real_images(system.image), to_real_images(w), coefficients, q)
        measurements = energy.operator.forward(w)
    gradients = pull_back(model, *(prior.stride**2 * value for value in (*products, tau)))
    finite = all(bool(gradient.isfinite().all()) for gradient in (*gradients, measurements))
    residuals = tuple(float(value) for value in solved.relative_residual)
    # Conjugate gradients end before their cap without having converged where a direction has no positive curvature.
    indefinite = not solved.converged and solved.n_iterations < settings.max_iterations
    report = AdjointReport(residuals, solved.n_iterations, solved.converged, indefinite, finite)
    if settings.on_failure == "raise" and not report.good:
        raise AdjointError(_what_to_try(report, settings))
    free, atoms, log_thresholds, beta = gradients
    return Hypergradient(
        free, atoms, log_thresholds, beta, prior.stride**2 * by_place, measurements, report, solved.solution
    )


def _what_to_try(report: AdjointReport, settings: AdjointSettings) -> str:
    """The message for a gradient that is not good."""
    if not report.finite:
        return "adjoint system: the gradient is not finite"
    reached = f"relative residual {max(report.relative_residual):.1e} after {report.n_iterations} iterations"
    if report.indefinite:
        return (
            f"adjoint system: not positive definite ({reached}): the reconstruction is not near enough to a minimum. Solve it more "
            "accurately (FastSettings(tolerance=1e-6), more max_iterations), or take a biased gradient with "
            "AdjointSettings(max_slope=1)"
        )
    return (
        f"adjoint system: {reached}, expected {settings.tolerance:.1e}. Allow more max_iterations or a larger tolerance in "
        "AdjointSettings, or solve the reconstruction more accurately (FastSettings(tolerance=1e-6))"
    )


def pull_back(model: SmoothPlusSparse, m: Tensor, gram: Tensor, cross: Tensor, tau: Tensor) -> tuple[Tensor, ...]:
    """The gradient of Phi with respect to the raw parameters."""
    parameters = (model.raw_free_atoms, model.raw_synthesis_atoms, model.log_thresholds, model.beta)
    device = model.beta.device
    m, gram, cross, tau = (value.to(device) for value in (m, gram, cross, tau))
    with torch.enable_grad():
        theta = model.constrained()
        free, atoms = theta.free_atoms, theta.synthesis_atoms
        phi = (
            theta.beta
            * (
                (atoms * m.T).sum()
                - ((atoms @ atoms.T) * gram).sum()
                + ((free.T @ free) * cross).sum()
                - (cross.diagonal().sum() - cross.sum() / cross.shape[0])
            )
            + (theta.thresholds * tau).sum()
        )
        return torch.autograd.grad(phi, parameters)


def solve_with_gradient(
    operator: LinearOperator,
    y: Tensor,
    model: SmoothPlusSparse,
    settings: FastSettings | None = None,
    adjoint: AdjointSettings | None = None,
    *,
    use: PriorUse | None = None,
    report: Callable[[Minimum, AdjointReport], None] | None = None,
) -> Tensor:
    """:func:`mrisps.solve` as a function that torch differentiates: ``loss(solve_with_gradient(...)).backward()``.

    Parameters
    ----------
    operator, y, model
        As in :func:`mrisps.solve`. Gradients go to the parameters of the model and to y.
    settings
        Settings of the solver. The default is `EXACT_SOLVER`, which is slower than that of :func:`mrisps.solve`: the adjoint system
        of the non-convex prior is positive definite at a minimum, and not yet where the image stops changing.
    adjoint
        Settings of the adjoint system. For a quick, biased gradient combine ``FastSettings()`` with
        ``AdjointSettings(max_slope=1)``.
    use
        Which patches count, and how complex coefficients are shrunk, as in :func:`mrisps.solve`.
    report
        Called in the backward pass with what the solver and the adjoint solve reached.

    Returns
    -------
    Tensor
        The image, (batch, set, y, x).

    Raises
    ------
    AdjointError
        In the backward pass; see :class:`AdjointSettings`. In the forward pass if NaN or infinity appeared.
    ValueError
        The model has an attention: the trainer differentiates that.
    """
    if model.attention is not None:
        raise ValueError("model: has an attention; expected one without, model.with_attention(None)")
    image: Tensor = _Implicit.apply(  # type: ignore[no-untyped-call]  # torch: untyped
        y,
        model.raw_free_atoms,
        model.raw_synthesis_atoms,
        model.log_thresholds,
        model.beta,
        (operator, model, settings or EXACT_SOLVER, adjoint or AdjointSettings(), use or PriorUse(), report),
    )
    return image


_Call = tuple[
    LinearOperator,
    SmoothPlusSparse,
    FastSettings,
    AdjointSettings,
    PriorUse,
    Callable[[Minimum, AdjointReport], None] | None,
]


class _Implicit(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        y: Tensor,
        raw_free_atoms: Tensor,
        raw_synthesis_atoms: Tensor,
        log_thresholds: Tensor,
        beta: Tensor,
        call: _Call,
    ) -> Tensor:
        operator, model, settings, _, use, _ = call
        real = torch.float32 if operator.domain_dtype in (torch.float32, torch.complex64) else torch.float64
        prior = model.prior(real, operator.device).used(use, operator.domain_dtype.is_complex)
        energy = Energy(operator, y.detach(), prior)
        minimum = minimise(energy, settings)
        if bool(minimum.broken.any()):
            raise AdjointError("the solver met NaN or infinity: there is nothing to differentiate")
        ctx.call, ctx.energy, ctx.minimum = call, energy, minimum  # type: ignore[attr-defined]  # torch: untyped
        return minimum.image.clone()

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        _, model, _, adjoint, _, report = cast(_Call, ctx.call)  # type: ignore[attr-defined]  # torch: untyped
        minimum: Minimum = ctx.minimum  # type: ignore[attr-defined]  # torch: untyped
        result = hypergradient(
            ctx.energy,  # type: ignore[attr-defined]  # torch: untyped
            model,
            minimum.image_step,
            minimum.coefficients,
            gradients[0],
            adjoint,
        )
        if report is not None:
            report(minimum, result.report)
        return (
            result.measurements,
            result.raw_free_atoms,
            result.raw_synthesis_atoms,
            result.log_thresholds,
            result.beta,
            None,
        )
