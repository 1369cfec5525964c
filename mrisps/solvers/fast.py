"""The default solver: coarse to fine, with a greedy start, and proximal iterations on the reduced energy.

The image is eliminated exactly (:mod:`mrisps.solvers.image_step`), so what is left is f(a) + R(a) with

    f(a) = min_x 1/2 |A x - y|^2 + beta/2 sum_k |B P_k x - C a_k|^2,    grad f(a) = -beta C^T r,    r_k = B P_k x(a) - C a_k,

and |hess f| <= beta |C|^2 = 0.99: a step of length 1 is safe.
The iterations are inertial proximal gradient (:mod:`mrisps.solvers.inertial`) or, for CPR, Douglas-Rachford splitting
(:mod:`mrisps.solvers.splitting`).

At high acceleration, frequencies that were not acquired are driven by R alone, whose gradient is as small as the thresholds.
These frequencies fill in slowly, the low ones last. So the problem is solved in stages (:mod:`mrisps.solvers.stages`). The first
is on a coarse grid. Its thresholds start ``continuation_start`` times larger, and shrink by ``continuation_decay`` in every
iteration. Each finer stage starts from the image so far, with coefficients found by matching pursuit
(:mod:`mrisps.solvers.greedy`). In all stages but the last, every second patch of every second row counts, which takes a quarter
of the time. The last stage is the problem itself, with its own stride. Where the stride is 1, the stage before the last is on the
full grid with a stride of 2, and the last stage takes over its coefficients.

Weights may have an attention (:class:`mrisps.model.Attention`). After some iterations of the last stage it replaces the thresholds
by a map of them, once. What is minimised from there on, and certified, is the energy with that map.
"""

import functools
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mrisps.model import Energy, Prior, PriorUse, SmoothPlusSparse, to_real_images
from mrisps.operators import LinearOperator
from mrisps.solvers.descent import Descent, DescentOptions, Stage
from mrisps.solvers.greedy import greedy_coefficients
from mrisps.solvers.image_step import ImageStep
from mrisps.solvers.outlook import Watch
from mrisps.solvers.resolution import lift
from mrisps.solvers.result import Reconstruction, certify, check_measurements
from mrisps.solvers.settings import FastSettings
from mrisps.solvers.stages import coarse_stages, start_descent

__all__ = ["Iterate", "Minimum", "minimise", "solve"]

Progress = Callable[[int, float], None]
Attend = Callable[[Tensor], Tensor]

CHECK_INTERVAL = 5
"""Iterations between two looks at the residual."""

GREEDY_INERTIA = 10
"""A start from coefficients that are not 0 has the inertia of this iteration."""

FINER_INERTIA = 100
"""A stage that goes on from a coarser one starts with the inertia of this iteration. Frequencies that were not acquired are still
filling in there: with inertia that gathers speed from the beginning, this takes up to twice as many iterations."""


@dataclass(frozen=True, eq=False)
class Iterate:
    """A point on the path, for those who watch it.

    Parameters
    ----------
    stage, n_stages
        Which stage, from 1; the last one is the full problem.
    iteration
        Of this stage, from 1.
    image
        (images, set, y, x) on the full grid, of those of the batch that are not done; coarser stages are interpolated.
    coefficients
        (rows, y / stride, x / stride, n) in the last stage, else None. Read them before the next iteration. For NCPR the image is
        x(a) for them; for CPR, solved by splitting, it only tends to that.
    """

    stage: int
    n_stages: int
    iteration: int
    image: Tensor
    coefficients: Tensor | None


@dataclass(frozen=True, eq=False)
class Minimum:
    """Where the minimisation ended, before anything is measured there.

    Parameters
    ----------
    image
        x(a*), (batch, set, y, x); where the iteration broke down, the last good image.
    coefficients
        a*, (rows, y / stride, x / stride, n).
    energy
        That was minimised; after ``attend``, the second one.
    image_step
        How the image follows from the coefficients.
    residual
        |a - T(a - grad f(a))| / |a| at the last look, (batch,) float64.
    image_change
        Estimate of the change still to come as a fraction of the image's norm, (batch,).
    late_change
        The same after ``image_iterations``, (batch,). Infinite where it is not known.
    energy_gap
        Of a convex problem that is finished with ``stop="stationary"``: a bound on its energy above the minimum, as a share of the
        energy, (batch,). Infinite where it is not known.
    finished, diverged, broken
        (batch,) bool: what ``stop`` asks for was met; the image grew without bound; it did, or NaN or infinity appeared.
    n_iterations, n_coarse_iterations
        Iterations on the full problem, (batch,), and of the stages before it. An image that is done does not go on.
    at_target
        The continuation had ended: the thresholds were those of the prior.
    energy_trace
        (iteration, (batch,) energies).
    """

    image: Tensor
    coefficients: Tensor
    energy: Energy
    image_step: ImageStep
    residual: Tensor
    image_change: Tensor
    late_change: Tensor
    energy_gap: Tensor
    finished: Tensor
    diverged: Tensor
    broken: Tensor
    n_iterations: Tensor
    n_coarse_iterations: int
    at_target: bool
    energy_trace: list[tuple[int, Tensor]]


@torch.no_grad()
def solve(
    operator: LinearOperator,
    y: Tensor,
    model: SmoothPlusSparse,
    settings: FastSettings | None = None,
    *,
    use: PriorUse | None = None,
    noise_std: float | None = None,
    keep_coefficients: bool = False,
    start: Tensor | None = None,
    progress: Progress | None = None,
    monitor: Callable[[Iterate], None] | None = None,
) -> Reconstruction:
    """Minimise the smooth-plus-sparse energy for any linear operator.

    Parameters
    ----------
    operator
        A, from images (set, y, x), real or complex, to measurements. Dtype and device of the computation are its own.
    y
        (batch, *operator.range_shape).
    model
        Weights with their beta and lam.
    settings
        Tolerances, cap, continuation, levels.
    use
        Which patches count, and how complex coefficients are shrunk; by default all patches, real and imaginary part apart.
    noise_std
        Standard deviation of the noise in the real and in the imaginary part of each measurement, for the certificate.
    keep_coefficients
        Whether to return a*.
    start
        Coefficients of a similar problem to start from; see :func:`minimise`.
    progress
        Called with (iteration of the full problem, largest residual of the batch so far) after every iteration. With CPR the
        residual may be an upper bound until it comes near the tolerance, or to the last iteration.
    monitor
        Called with an :class:`Iterate` after every iteration of every stage.

    Returns
    -------
    Reconstruction
        Images in the units of y, their smooth and sparse parts, cost maps, and a certificate each. Where NaN or infinity
        appeared, or the image grew beyond all bounds, it is the last good one, and the certificate says so.

    Raises
    ------
    ValueError
        If shapes, dtypes or devices do not fit, or y is not finite.

    Source
    ------
    Beck and Teboulle, SIAM J. Imaging Sci. 2 (2009) 183-202 (inertia); Lions and Mercier, SIAM J. Numer. Anal. 16 (1979)
    964-979 (splitting); Hale, Yin and Zhang, SIAM J. Optim. 19 (2008)
    1107-1130 (continuation).
    """
    settings = FastSettings() if settings is None else settings
    real = torch.float32 if operator.domain_dtype in (torch.float32, torch.complex64) else torch.float64
    prior = model.prior(real, operator.device)
    if use is not None:
        prior = prior.used(use, operator.domain_dtype.is_complex)
    energy = Energy(operator, y, prior)
    check_measurements(energy, noise_std)
    started = time.perf_counter()
    regulariser, attend = prior.regulariser, None
    if model.attention is not None and settings.attention_iterations is not None:
        attend = functools.partial(model.attention.thresholds, regulariser=regulariser)
    minimum = minimise(energy, settings, start=start, progress=progress, monitor=monitor, attend=attend)
    first, energy = energy, minimum.energy
    return certify(
        energy,
        minimum.image_step,
        minimum.image,
        minimum.coefficients,
        algorithm="fast",
        finished=minimum.finished,
        stop=settings.stop,
        n_iterations=minimum.n_iterations,
        tolerance=settings.tolerance,
        energy_trace=minimum.energy_trace,
        noise_std=noise_std,
        seconds=time.perf_counter() - started,
        keep_coefficients=keep_coefficients,
        residual_x_limit=10 * settings.image_tolerance,
        residual_a_limit=10 * settings.tolerance,
        n_coarse_iterations=minimum.n_coarse_iterations,
        image_change=minimum.image_change,
        late_change=minimum.late_change,
        gap=minimum.energy_gap,
        broken=minimum.broken,
        diverged=minimum.diverged,
        attention=None if energy is first else energy.attention_map(regulariser.thresholds),
    )


@torch.no_grad()
def minimise(
    energy: Energy,
    settings: FastSettings,
    *,
    start: Tensor | None = None,
    progress: Progress | None = None,
    monitor: Callable[[Iterate], None] | None = None,
    attend: Attend | None = None,
    record: Callable[[Descent], None] | None = None,
) -> Minimum:
    """The algorithm of :func:`solve` without its checks and its certificate: for those who go on from there.

    Parameters
    ----------
    energy
        Operator, measurements (finite) and prior.
    settings, progress, monitor
        As in :func:`solve`.
    start
        Coefficients (rows, y / stride, x / stride, n), in any floating-point type, to start the full problem from: those of a
        similar one. There are then no coarse levels and no continuation.
    attend
        Function of the coefficients (rows, y / stride, x / stride, n), asked once, after ``attention_iterations`` on the full grid
        with the thresholds of the prior. It gives the thresholds for the iterations that follow, one for each coefficient. Nothing
        ends before.
    record
        Called with the algorithm on the full grid, before its first iteration and after each.
    """
    prior = energy.prior
    image_step = ImageStep(energy, settings.image_tolerance)

    one_grid = start is not None or prior.regulariser.thresholds.ndim == 4  # a map of thresholds belongs to one grid
    coarse = [] if one_grid else coarse_stages(energy, image_step, settings)
    n_stages = len(coarse) + 1
    factor = settings.continuation_start if start is None else 1.0
    smooth = image = image_step.smooth_image()
    options = DescentOptions(settings.continuation_decay, settings.half_storage)
    known: list[Tensor] = []
    n_coarse = 0
    for number, build in enumerate(coarse, 1):
        stage = build()
        target = stage.image_step.smooth_image()
        begin = lift(image, target) if number > 1 else None
        inertia = FINER_INERTIA if number > 1 else GREEDY_INERTIA
        path = start_descent(stage, options, energy.n_real_images, factor=factor, inertia=inertia, image=begin)
        on_full_grid = number == len(coarse) and prior.stride == 1 and stage.image_shape == energy.image_shape
        n_iterations = settings.strided_iterations if on_full_grid else settings.coarse_iterations
        for k in itertools.count(1):  # the continuation ends, and so does this
            path.step()
            n_coarse += 1
            if monitor is not None:
                monitor(Iterate(number, n_stages, k, lift(path.image, smooth), None))
            effort = stage.image_step.effort
            if k % CHECK_INTERVAL == 0 and effort is not None:
                stage.image_step.plan(*effort.amax(dim=1).cpu())
            if path.n_at_target == n_iterations:
                break
        image, factor = path.image, 1.0
        known = [path.coefficients] if on_full_grid else []
        del path, stage

    path = start_descent(
        Stage(prior, prior.transform, image_step, energy.image_shape),
        options,
        energy.n_real_images,
        factor=factor,
        inertia=FINER_INERTIA if coarse else GREEDY_INERTIA,
        image=lift(image, smooth) if coarse else None,
        known=known,
        given=start,
    )
    if record is not None:
        record(path)
    watch = Watch(energy, settings, smooth, path, warm=start is not None)
    watch.waits = attend is not None
    traced: list[tuple[int, list[int], Tensor]] = []
    ended: dict[int, tuple[Tensor, Tensor, Tensor]] = {}  # image, last good image, coefficients
    for k in range(1, settings.most_iterations + 1):
        last = k == settings.most_iterations
        look = last or k % CHECK_INTERVAL == 0
        path.step(measure=look, exactly=last or (look and watch.near))
        if attend is not None and path.n_at_target == settings.attention_iterations:
            energy = energy.with_thresholds(attend(path.coefficients))
            path.stage = replace(path.stage, prior=energy.prior)
            image_step.energy = watch.energy = energy  # nobody has left before: it is that of all
            watch.waits = False
            traced.clear()  # of another energy
        if record is not None:
            record(path)
        if monitor is not None:
            monitor(Iterate(n_stages, n_stages, k, path.image, path.coefficients))
        done = watch.look(path, k, in_time=k % CHECK_INTERVAL == 0) if look else []
        if progress is not None:
            progress(k, watch.worst)
        if last or len(done) == len(watch.at_work):
            break
        final = path.final_image() if done else None
        for position in reversed(done):  # what comes after it takes its place
            assert final is not None
            entry, found = watch.at_work[position], (final[position], watch.safe[position])
            ended[entry] = *found, watch.leave_out(path, position)
        if settings.trace_interval and k % settings.trace_interval == 0:
            total = watch.energy.value(path.final_image(), path.coefficients).total
            traced.append((k, watch.at_work, total))
    image, safe, coefficients, at_target = path.final_image(), watch.safe, path.coefficients, path.n_at_target > 0
    if ended:
        rows = coefficients.chunk(len(image))
        ended |= {entry: (image[i], safe[i], rows[i]) for i, entry in enumerate(watch.at_work)}
        parts = [ended[entry] for entry in sorted(ended)]
        image, safe = (torch.stack([part[index] for part in parts]) for index in (0, 1))
        coefficients = torch.cat([part[2] for part in parts])
    del path, ended
    residual = watch.residual
    broken = watch.diverged | ~(residual.isfinite() & image.isfinite().flatten(1).all(dim=1).cpu())
    if bool(broken.any()):
        image, coefficients = _rescue(prior, image, coefficients, safe, broken.to(image.device))
    return Minimum(
        image=image,
        coefficients=coefficients,
        energy=energy,
        image_step=image_step,
        residual=residual,
        image_change=watch.remaining,
        late_change=watch.late,
        energy_gap=watch.gap,
        finished=watch.passed,
        diverged=watch.diverged,
        broken=broken,
        n_iterations=watch.n_iterations,
        n_coarse_iterations=n_coarse,
        at_target=at_target,
        energy_trace=_trace(traced, len(image)),
    )


def _trace(traced: list[tuple[int, list[int], Tensor]], batch: int) -> list[tuple[int, Tensor]]:
    """(iteration, (batch,) energies on the host), NaN for images that were done before."""
    found: list[tuple[int, Tensor]] = []
    totals = torch.cat([total for _, _, total in traced]).cpu() if traced else torch.empty(0)
    for k, at_work, total in traced:
        row = torch.full((batch,), torch.nan, dtype=torch.float64)
        row[at_work], totals = totals[: len(total)], totals[len(total) :]
        found.append((k, row))
    return found


def _rescue(prior: Prior, image: Tensor, coefficients: Tensor, safe: Tensor, broken: Tensor) -> tuple[Tensor, Tensor]:
    """Put the last good image where the iteration broke down, with greedy coefficients that belong to it."""
    image = torch.where(broken.view(-1, 1, 1, 1), safe, image)
    rows = broken.repeat_interleave(len(coefficients) // len(image))
    found = torch.empty_like(coefficients[rows])
    greedy_coefficients(prior, prior.transform.forward(to_real_images(image)[rows]), found)
    coefficients[rows] = found
    return image, coefficients
