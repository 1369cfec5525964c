"""The default solver: inertial proximal gradient on the reduced energy, with continuation in the thresholds.

The image is eliminated exactly (:mod:`mrisps.solvers.image_step`), so what is left is f(a) + R(a) with

    f(a) = min_x 1/2 |A x - y|^2 + beta/2 sum_k |B P_k x - C a_k|^2,    grad f(a) = -beta C^T r,    r_k = B P_k x(a) - C a_k,

and |hess f| <= beta |C|^2 = 0.99: a step of length 1 is safe. r is affine in a, so the residual at the extrapolated point is the
extrapolated residual, and one iteration is one pass over the coefficients: extrapolate, step, shrink, predict.

At high acceleration, frequencies that were not acquired are driven by R alone, whose gradient is as small as the thresholds:
they fill in slowly. Continuation starts with thresholds ``continuation_start`` times larger and lowers them by
``continuation_decay`` every iteration; for the non-convex prior it also leads to lower energies than the plain iteration.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mrisps.model import Energy, SmoothPlusSparse, to_real_images
from mrisps.operators import LinearOperator
from mrisps.solvers.image_step import ImageStep
from mrisps.solvers.result import Reconstruction, certify, check_measurements

__all__ = ["FastSettings", "solve"]

Progress = Callable[[int, float], None]

PASSES = 10
"""Iterations in a row that have to pass the test: right after the continuation, inertia may still be gathering speed."""


@dataclass(frozen=True)
class FastSettings:
    """Options of the default solver.

    Parameters
    ----------
    tolerance
        Stops when the stationarity residual |a - T(a - grad f(a))| / |a| of every image is below this in ten iterations in a
        row. With the image eliminated exactly, the residual in x is then at rounding level; a result counts as converged only
        if it is at most 10 ``image_tolerance``.
    max_iterations
        Cap; reaching it is reported as ``max_iter``, never as converged. The continuation takes
        log(continuation_start) / -log(continuation_decay) of them before the test is looked at.
    continuation_start
        Factor on the thresholds at the start; 1 for no continuation, which is right for well-posed problems (denoising).
    continuation_decay
        Factor on that factor in every iteration, in (0, 1).
    image_tolerance
        Relative residual of the x-step where it has to be solved by conjugate gradients.
    trace_interval
        Iterations between two entries of the energy trace; 0 for none but the last.
    """

    tolerance: float = 1e-3
    max_iterations: int = 2000
    continuation_start: float = 1.0
    continuation_decay: float = 0.97
    image_tolerance: float = 1e-5
    trace_interval: int = 50

    def __post_init__(self) -> None:
        for name in ("tolerance", "continuation_start", "continuation_decay", "image_tolerance"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise ValueError(f"{name}: expected a finite number, got {value!r}")
        if not self.tolerance > 0:
            raise ValueError(f"tolerance: expected a number > 0, got {self.tolerance}")
        if not isinstance(self.max_iterations, int) or self.max_iterations < 1:
            raise ValueError(f"max_iterations: expected an integer >= 1, got {self.max_iterations}")
        if not self.continuation_start >= 1:
            raise ValueError(f"continuation_start: expected a number >= 1, got {self.continuation_start}")
        if not 0 < self.continuation_decay < 1:
            raise ValueError(f"continuation_decay: expected a number between 0 and 1, got {self.continuation_decay}")
        if not self.image_tolerance > 0:
            raise ValueError(f"image_tolerance: expected a number > 0, got {self.image_tolerance}")
        if not isinstance(self.trace_interval, int) or self.trace_interval < 0:
            raise ValueError(f"trace_interval: expected an integer >= 0, got {self.trace_interval}")


@torch.no_grad()
def solve(
    operator: LinearOperator,
    y: Tensor,
    model: SmoothPlusSparse,
    settings: FastSettings | None = None,
    *,
    noise_std: float | None = None,
    keep_coefficients: bool = False,
    progress: Progress | None = None,
) -> Reconstruction:
    """Minimise the smooth-plus-sparse energy for any linear operator.

    Parameters
    ----------
    operator
        A, from images (1, y, x), real or complex, to measurements. Dtype and device of the computation are its own.
    y
        (batch, *operator.range_shape).
    model
        Weights with their beta and lam.
    settings
        Tolerance, cap, continuation.
    noise_std
        Standard deviation of the noise in the real and in the imaginary part of each measurement, for the certificate.
    keep_coefficients
        Whether to return a*.
    progress
        Called with (iteration, largest residual of the batch) after every iteration.

    Returns
    -------
    Reconstruction
        Images in the units of y, their smooth and sparse parts, cost maps, and a certificate each.

    Raises
    ------
    ValueError
        If shapes, dtypes or devices do not fit, or y is not finite.

    Source
    ------
    Beck and Teboulle, SIAM J. Imaging Sci. 2 (2009) 183-202 (inertia); Hale, Yin and Zhang, SIAM J. Optim. 19 (2008)
    1107-1130 (continuation).
    """
    settings = FastSettings() if settings is None else settings
    real = torch.float32 if operator.domain_dtype in (torch.float32, torch.complex64) else torch.float64
    energy = Energy(operator, y, model.prior(real, operator.device))
    check_measurements(energy, noise_std)
    started = time.perf_counter()
    prior = energy.prior
    image_step = ImageStep(energy, settings.image_tolerance)
    batch = y.shape[0]
    shape = (energy.n_real_images, *energy.image_shape)

    image = image_step.smooth_image()
    coefficients, previous = energy.zero_coefficients(), energy.zero_coefficients()
    misfit = prior.transform.forward(to_real_images(image))  # r = B P x(a) - C a, here for a = 0
    previous_misfit = misfit.clone()
    prediction = torch.empty_like(misfit)
    predictor = prior.factors.T.contiguous()

    factor = settings.continuation_start
    residual = torch.full((batch,), torch.inf, dtype=torch.float64)
    trace: list[tuple[int, Tensor]] = []
    n_passed = k = 0
    for k in range(1, settings.max_iterations + 1):
        inertia = (k - 1) / (k + 2)
        regulariser = prior.regulariser.scaled(factor)
        extrapolated_misfit = torch.lerp(previous_misfit, misfit, 1 + inertia, out=previous_misfit)
        moved = torch.zeros(shape[0], dtype=torch.float64, device=image.device)
        size = torch.zeros_like(moved)
        for rows, ys in prior.chunks(shape):
            extrapolated = torch.lerp(previous[rows, ys], coefficients[rows, ys], 1 + inertia)
            v = torch.addmm(
                extrapolated.flatten(0, 2), extrapolated_misfit[rows, ys].flatten(0, 2), prior.factors, alpha=prior.beta
            )
            updated = regulariser.prox(v.view_as(extrapolated))
            torch.matmul(updated, predictor, out=prediction[rows, ys])
            moved[rows] += _squared_norm(extrapolated.sub_(updated))
            size[rows] += _squared_norm(updated)
            previous[rows, ys] = updated
        coefficients, previous = previous, coefficients
        image = image_step.solve(prediction, image)
        misfit, previous_misfit = (
            torch.sub(prior.transform.forward(to_real_images(image)), prediction, out=extrapolated_misfit),
            misfit,
        )

        at_target = factor <= 1
        factor = max(factor * settings.continuation_decay, 1.0)
        residual = (_per_image(moved, batch) / _per_image(size, batch).clamp(min=1e-30)).sqrt()
        finite = residual.isfinite()  # an image with NaN is lost; the others of the batch go on
        if not bool(finite.any()):
            break
        worst = float(residual[finite].max())
        if progress is not None:
            progress(k, worst)
        n_passed = n_passed + 1 if at_target and worst <= settings.tolerance else 0
        if n_passed == PASSES:
            break
        if settings.trace_interval and k % settings.trace_interval == 0:
            trace.append((k, energy.value(image, coefficients).total.cpu()))
    converged = (residual <= settings.tolerance).cpu() & (n_passed == PASSES)
    return certify(
        energy,
        image_step,
        image,
        coefficients,
        algorithm="fast",
        converged=converged,
        n_iterations=torch.full((batch,), k),
        tolerance=settings.tolerance,
        energy_trace=trace,
        noise_std=noise_std,
        seconds=time.perf_counter() - started,
        keep_coefficients=keep_coefficients,
        residual_x_limit=10 * settings.image_tolerance,
    )


def _squared_norm(values: Tensor) -> Tensor:
    """|v|^2 of a cache-sized piece, by BLAS: a third of the time of square and sum."""
    flat = values.flatten()
    return torch.dot(flat, flat)


def _per_image(values: Tensor, batch: int) -> Tensor:
    """Sum the real and the imaginary part of each image."""
    return values.reshape(batch, -1).sum(dim=1)
