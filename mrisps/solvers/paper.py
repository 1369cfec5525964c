"""The authors' algorithm, as they have it: the reference that every other solver is held against.

Inertial proximal alternating linearised minimisation (iPALM), arXiv 2412.13070: one step in the coefficients, one in the image,
both extrapolated by (k - 1)/(k + 2), until the image changes by less than the tolerance. At high acceleration it needs
thousands of iterations: use :mod:`mrisps.solvers.fast` for anything but comparison.
"""

import time
from collections.abc import Callable

import torch
from torch import Tensor

from mrisps.model import Energy, PatchTransform, SmoothPlusSparse, to_images, to_real_images
from mrisps.operators import LinearOperator
from mrisps.solvers.image_step import ImageStep
from mrisps.solvers.result import Reconstruction, certify, check_measurements
from mrisps.solvers.settings import PaperSettings

__all__ = ["solve_paper"]

Progress = Callable[[int, float], None]
Monitor = Callable[[int, Tensor, Tensor], None]


@torch.no_grad()
def solve_paper(
    operator: LinearOperator,
    y: Tensor,
    model: SmoothPlusSparse,
    settings: PaperSettings | None = None,
    *,
    noise_std: float | None = None,
    keep_coefficients: bool = False,
    progress: Progress | None = None,
    monitor: Monitor | None = None,
) -> Reconstruction:
    """Minimise the energy with the authors' iPALM.

    Parameters
    ----------
    operator
        A, from images (set, y, x) to measurements.
    y
        (batch, *operator.range_shape). Every image of the batch is solved on its own, as if it came alone.
    model
        Weights with their beta and lam.
    settings
        By default those of the authors' reconstruction.
    noise_std
        Standard deviation of the noise in the real and in the imaginary part of each measurement, for the certificate.
    keep_coefficients
        Whether to return a*.
    progress
        Called with (iteration, relative change of the image) after every step.
    monitor
        Called with (iteration, image, coefficients) after every step.

    Raises
    ------
    ValueError
        If shapes, dtypes or devices do not fit, y is not finite, ``nonnegative`` is asked for complex images, or the model has
        an attention.
    """
    if model.attention is not None:
        raise ValueError(
            "model: has an attention, which the paper's algorithm does not have; model.with_attention(None)"
        )
    settings = PaperSettings() if settings is None else settings
    if settings.nonnegative and operator.domain_dtype.is_complex:
        raise ValueError("nonnegative: only real images can be clipped at 0")
    real = torch.float32 if operator.domain_dtype in (torch.float32, torch.complex64) else torch.float64
    prior = model.prior(real, operator.device, settings.beta_floor)
    started = time.perf_counter()
    everything = Energy(operator, y, prior)
    check_measurements(everything, noise_std)
    results = [_iterate(Energy(operator, y[i : i + 1], prior), settings, progress, monitor) for i in range(y.shape[0])]
    traces = [dict(trace) for _, _, _, _, trace in results]
    nan = torch.full((1,), torch.nan, dtype=torch.float64)
    steps = sorted(set().union(*traces))
    return certify(
        everything,
        ImageStep(everything),
        torch.cat([image for image, *_ in results]),
        torch.cat([coefficients for _, coefficients, *_ in results]),
        algorithm="paper",
        finished=torch.tensor([converged for _, _, converged, _, _ in results]),
        n_iterations=torch.tensor([n for _, _, _, n, _ in results]),
        tolerance=settings.tolerance,
        energy_trace=[(k, torch.cat([trace.get(k, nan).cpu() for trace in traces])) for k in steps],
        noise_std=noise_std,
        seconds=time.perf_counter() - started,
        keep_coefficients=keep_coefficients,
        nonnegative=settings.nonnegative,
    )


def _iterate(
    energy: Energy, settings: PaperSettings, progress: Progress | None, monitor: Monitor | None
) -> tuple[Tensor, Tensor, bool, int, list[tuple[int, Tensor]]]:
    operator, prior = energy.operator, energy.prior
    beta = prior.beta
    transfer = beta * prior.transform.transfer_function(energy.image_shape)
    lipschitz = 1.01 * float(transfer.max())
    if settings.step_includes_data:
        norm = operator.norm() if settings.operator_norm is None else settings.operator_norm
        lipschitz += 1.01 * norm**2
    adjoint_y = operator.adjoint(energy.y)
    step, synthesise = _factored(energy) if settings.factored else _dense(energy)

    image = previous_image = adjoint_y
    coefficients = previous = energy.zero_coefficients()
    trace: list[tuple[int, Tensor]] = []
    for k in range(1, settings.max_iterations + 1):
        inertia = (k - 1) / (k + 2)
        extrapolated = torch.lerp(previous, coefficients, 1 + inertia)
        previous, coefficients = coefficients, step(image, extrapolated)

        moved = torch.lerp(previous_image, image, 1 + inertia)
        patch_term = torch.fft.ifft2(transfer * torch.fft.fft2(moved))
        smooth_gradient = (patch_term if moved.is_complex() else patch_term.real) - beta * synthesise(coefficients)
        updated = moved - (operator.normal(moved) - adjoint_y + smooth_gradient) / lipschitz
        previous_image, image = image, updated.clamp(min=0) if settings.nonnegative else updated

        moved_by = float(torch.linalg.vector_norm(previous_image - image))
        change = 0.0 if moved_by == 0 else moved_by / max(float(torch.linalg.vector_norm(previous_image)), 1e-30)
        if progress is not None:
            progress(k, change)
        if monitor is not None:
            monitor(k, image, coefficients)
        if settings.trace_interval and k % settings.trace_interval == 0:
            trace.append((k, energy.value(image, coefficients).total))
        if not change > settings.tolerance:  # NaN ends the loop too; the certificate tells which it was
            return image, coefficients, change <= settings.tolerance, k, trace
    return image, coefficients, False, settings.max_iterations, trace


def _dense(energy: Energy) -> tuple[Callable[[Tensor, Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """The step in the coefficients and sum_k Phat_k^T D a_k with the n atoms themselves, as the authors compute them."""
    prior = energy.prior
    side = prior.transform.patch_size
    atoms = prior.synthesis_atoms
    gram = atoms @ atoms.T
    transform = PatchTransform(atoms.reshape(-1, side, side))

    def step(image: Tensor, coefficients: Tensor) -> Tensor:
        gradient = coefficients @ gram - transform.forward(to_real_images(image))
        return prior.regulariser.prox(coefficients - prior.beta * gradient)

    def synthesise(coefficients: Tensor) -> Tensor:
        return to_images(transform.adjoint(coefficients), energy.operator.domain_dtype, energy.n_sets)

    return step, synthesise


def _factored(energy: Energy) -> tuple[Callable[[Tensor, Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """The same two maps through the patch basis, D = B^T C."""
    prior = energy.prior

    def synthesise(coefficients: Tensor) -> Tensor:
        return to_images(
            prior.transform.adjoint(prior.predict(coefficients)), energy.operator.domain_dtype, energy.n_sets
        )

    return energy.coefficient_step, synthesise
