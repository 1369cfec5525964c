"""The outer problem: gradient descent on the parameters of the prior, through the reconstruction.

    samples(step) -> operator, y, target --minimise--> x* --loss, hypergradient--> dL/dtheta --Adam--> theta

What a step sees depends on the seed and on its number alone, so a run that is resumed goes on bit by bit as if it had not been
interrupted (on the same machine with the same number of threads).
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal, Protocol

import torch
from torch import Tensor

from mrisps.bilevel.checkpoint import TrainingState, load_state, save_state
from mrisps.bilevel.hypergradient import AdjointSettings, hypergradient
from mrisps.bilevel.losses import LossName, image_loss
from mrisps.bilevel.world import World
from mrisps.errors import MrispsError
from mrisps.model import Energy, Prior, SmoothPlusSparse
from mrisps.operators import LinearOperator
from mrisps.settings import Count, Fraction, Index, Positive, Range, settings
from mrisps.solvers import FastSettings, minimise

__all__ = [
    "Accuracy",
    "Batch",
    "Samples",
    "StepReport",
    "TrainSettings",
    "TrainingError",
    "ValidationReport",
    "train",
]

ADJOINT_RESIDUAL_LIMIT = 1.5
"""An adjoint solution with a larger residual is worse than none (0 has 1): the step is skipped."""


class TrainingError(MrispsError):
    """Training cannot go on."""


@settings
@dataclass(frozen=True)
class Accuracy:
    """How accurately the inner problem and its adjoint are solved in a step.

    Parameters
    ----------
    iterations, tolerance
        Cap and stationarity tolerance of the solver.
    adjoint_iterations, adjoint_tolerance
        Cap and relative residual of the conjugate gradients. What they reach is in every :class:`StepReport`.
    """

    iterations: Count
    tolerance: Positive
    adjoint_iterations: Count
    adjoint_tolerance: Positive

    def towards(self, other: "Accuracy", share: float) -> "Accuracy":
        """A share (0 to 1) of the way to another accuracy, in equal factors."""

        def between(a: float, b: float) -> float:
            return a if a == b else math.exp((1 - share) * math.log(a) + share * math.log(b))

        return Accuracy(
            round(between(self.iterations, other.iterations)),
            between(self.tolerance, other.tolerance),
            round(between(self.adjoint_iterations, other.adjoint_iterations)),
            between(self.adjoint_tolerance, other.adjoint_tolerance),
        )


@settings
@dataclass(frozen=True)
class TrainSettings:
    """How a model is trained.

    Parameters
    ----------
    n_steps
        Steps of gradient descent.
    batch_size
        Images a step, over all processes.
    learning_rate, learning_rate_thresholds
        Of Adam, for the raw atoms, and for the log-thresholds and beta (relative to its value, which depends on the task by
        orders of magnitude).
    hold
        Fraction of the steps with these rates; then they fall linearly to 0.
    loss
        See :func:`mrisps.bilevel.losses.image_loss`.
    start_accuracy, end_accuracy
        Of the inner problems in the first and in the last step.
    solver
        Settings of the solver besides iterations and tolerance (continuation, levels, start).
    warm_batches
        0: new crops in every step. n > 0: the same n batches again and again, with their noise and masks; coefficients and adjoint
        solution of each are kept (in float16, 4 n batch_size crop^2 n_atoms bytes in all) and are where the solvers start from
        when it is its turn again. Inaccurate solutions become accurate ones in a few rounds: training sees the minimiser itself,
        not where some dozens of iterations from 0 lead to. What is kept is dropped at every checkpoint, so that resuming is exact.
    warm_iterations
        Cap of the solver where it starts from what was kept; ``start_accuracy`` and ``end_accuracy`` are for the others.
    max_slope
        See :class:`mrisps.bilevel.AdjointSettings`: 1 keeps the adjoint system of inaccurate solutions positive definite.
    beta_min
        beta is not allowed below this.
    fixed
        ``"free_atoms"`` keeps Q as it is at the start, for a basis that is not learned; None: everything is learned.
    validation_interval
        Steps between two looks at the validation images; there is one before the first step and after the last.
    validation_solver
        Settings of the solver for them.
    patience
        Looks in a row without a better validation PSNR after which training stops; 0: never.
    checkpoint_interval
        Steps between two checkpoints.
    max_skipped
        Steps in a row that may be skipped because a gradient was not finite or its adjoint system not solved.
    seed
        Of everything that is random.
    """

    n_steps: Count
    batch_size: Count = 16
    learning_rate: Positive = 1e-3
    learning_rate_thresholds: Positive = 1e-2
    hold: Fraction = 0.5
    loss: LossName = "L2"
    start_accuracy: Accuracy = field(default_factory=lambda: Accuracy(40, 1e-2, 10, 0.3))
    end_accuracy: Accuracy = field(default_factory=lambda: Accuracy(100, 1e-3, 30, 0.1))
    solver: FastSettings = field(default_factory=FastSettings)
    warm_batches: Index = 0
    warm_iterations: Count = 15
    max_slope: Annotated[float, Range(ge=1)] = 1.0
    beta_min: Positive = 1e-4
    fixed: Literal["free_atoms"] | None = None
    validation_interval: Count = 100
    validation_solver: FastSettings = field(default_factory=FastSettings)
    patience: Index = 0
    checkpoint_interval: Count = 50
    max_skipped: Count = 10
    seed: Index = 0

    def rate(self, step: int) -> float:
        """Factor on the learning rates in a step, numbered from 0."""
        left = 1 - step / self.n_steps
        return min(1.0, left / (1 - self.hold)) if self.hold < 1 else 1.0

    def accuracy(self, step: int) -> Accuracy:
        """Of the inner problems in a step, numbered from 0."""
        return self.start_accuracy.towards(self.end_accuracy, step / max(1, self.n_steps - 1))


@dataclass(frozen=True, eq=False)
class Batch:
    """Measurements and what should come out.

    Parameters
    ----------
    operator
        A, the same for the whole batch.
    y
        (batch, *operator.range_shape).
    target
        (batch, 1, y, x), of the operator's domain.
    """

    operator: LinearOperator
    y: Tensor
    target: Tensor


class Samples(Protocol):
    """Where batches come from."""

    def batch(self, step: int, first: int, count: int) -> Batch:
        """Entries ``first`` to ``first + count - 1`` of the batch of a step: the same whoever asks, whenever."""
        ...


@dataclass(frozen=True)
class StepReport:
    """What happened in a step.

    Parameters
    ----------
    step
        Steps done, this one included.
    loss, psnr
        Of the batch, before the step; PSNR in dB with data range 1.
    iterations, residual
        Of the solver. (With several processes this, and what follows, is of the first one's share of the batch.)
    adjoint_iterations, adjoint_residual
        Of the adjoint system: how exact the gradient is.
    skipped
        The gradient was not finite, or its system not solved: the parameters did not move.
    seconds
        Wall-clock time of the step.
    """

    step: int
    loss: float
    psnr: float
    iterations: int
    residual: float
    adjoint_iterations: int
    adjoint_residual: float
    skipped: bool
    seconds: float


@dataclass(frozen=True)
class ValidationReport:
    """What the model does on images that it is not trained on.

    Parameters
    ----------
    step
        Steps done.
    psnr
        Mean over the images, in dB, data range 1.
    is_best
        Whether it is the best so far: those parameters are what training returns.
    """

    step: int
    psnr: float
    is_best: bool


def train(
    model: SmoothPlusSparse,
    samples: Samples,
    validation: Sequence[Batch],
    settings: TrainSettings,
    *,
    checkpoint: Path | None = None,
    resume: bool = False,
    identity: dict[str, object] | None = None,
    world: World | None = None,
    on_step: Callable[[StepReport], None] | None = None,
    on_validation: Callable[[ValidationReport], None] | None = None,
    on_checkpoint: Callable[[TrainingState], object] | None = None,
) -> TrainingState:
    """Learn the parameters of a model; it is changed in place and holds those of the last step at the end.

    Parameters
    ----------
    model
        Start, on the device of the samples.
    samples
        Training data.
    validation
        Batches that are not trained on. Without any, the last parameters count as the best.
    settings
        Everything else.
    checkpoint
        File for the state, written every ``checkpoint_interval`` steps and at the end, atomically; None for none.
    resume
        Go on from that file if it is there.
    identity
        Plain values that tell one training from another (recipe, data); stored in the checkpoint, and compared when resuming.
    world
        The processes that train together.
    on_step, on_validation
        Called with the reports.
    on_checkpoint
        Called with the state whenever a checkpoint was written.

    Returns
    -------
    TrainingState
        With the best and the last parameters and the history.

    Raises
    ------
    TrainingError
        Too many steps in a row had to be skipped, the atoms are not admissible any more, or no validation gave a finite PSNR.
    mrisps.errors.FileError
        The checkpoint cannot be written or read, or belongs to another training.
    """
    world = World() if world is None else world
    if settings.batch_size % world.size:
        raise ValueError(f"batch_size: expected a multiple of the {world.size} processes, got {settings.batch_size}")
    share = settings.batch_size // world.size
    identity = {} if identity is None else identity
    parameters = (model.raw_free_atoms, model.raw_synthesis_atoms, model.log_thresholds, model.beta)
    atoms = parameters[1:2] if settings.fixed == "free_atoms" else parameters[:2]
    optimiser = torch.optim.Adam([{"params": list(part)} for part in (atoms, parameters[2:3], parameters[3:])])
    if resume and checkpoint is not None and checkpoint.exists():
        state = load_state(checkpoint, model, optimiser, identity)
    else:
        world.copy_from_first_([parameter.data for parameter in parameters])  # made on each machine, to its rounding
        state = TrainingState.start(model)
        _validate(model, validation, settings, state, world, on_validation)
    warm = _WarmStarts()
    while state.step < settings.n_steps and not _out_of_patience(state, settings):
        relative = settings.learning_rate_thresholds
        rates = (settings.learning_rate, relative, relative * float(model.beta.detach()))
        for group, rate in zip(optimiser.param_groups, rates, strict=True):
            group["lr"] = rate * settings.rate(state.step)
        number = state.step % settings.warm_batches if settings.warm_batches else state.step
        batch = samples.batch(number, world.rank * share, share)
        report = _step(
            model, optimiser, batch, settings, state, world, warm.of(number) if settings.warm_batches else None
        )
        state.record(report.step, report.loss, report.skipped)
        if on_step is not None:
            on_step(report)
        if state.n_skipped_in_row > settings.max_skipped:
            raise TrainingError(
                f"training stopped at step {state.step}: {state.n_skipped_in_row} steps in a row had a gradient that was not "
                f"finite or an adjoint system that was not solved (residual {report.adjoint_residual:.1e}). Lower the "
                "learning rates, or allow more iterations (start_accuracy, end_accuracy)"
            )
        last = state.step == settings.n_steps
        if state.step % settings.validation_interval == 0 or last:
            _validate(model, validation, settings, state, world, on_validation)
        ended = last or _out_of_patience(state, settings)
        if state.step % settings.checkpoint_interval == 0 or ended:
            warm.clear()  # whoever resumes here has nothing kept either
            if checkpoint is not None and world.rank == 0:
                save_state(checkpoint, state, model, optimiser, identity)
                if on_checkpoint is not None:
                    on_checkpoint(state)
    if validation and state.best_psnr is None:
        raise TrainingError("no validation gave a finite PSNR: none of the parameters are known to be good")
    return state


def _step(
    model: SmoothPlusSparse,
    optimiser: torch.optim.Optimizer,
    batch: Batch,
    settings: TrainSettings,
    state: TrainingState,
    world: World,
    kept: "_Kept | None",
) -> StepReport:
    started = time.perf_counter()
    accuracy = settings.accuracy(state.step)
    if kept is not None and kept.coefficients is not None:
        accuracy = replace(accuracy, iterations=settings.warm_iterations)
    energy = _energy(model, batch)
    minimum = minimise(
        energy, _with_accuracy(settings.solver, accuracy), start=None if kept is None else kept.coefficients
    )
    if not minimum.at_target:
        raise TrainingError(
            f"the solver's {accuracy.iterations} iterations end before its continuation does, at the wrong problem: allow more "
            "(start_accuracy, end_accuracy), or take crops that are large enough for coarse levels (solver.levels)"
        )
    image = minimum.image.detach().requires_grad_()
    loss = image_loss(settings.loss, image, batch.target)
    (image_gradient,) = torch.autograd.grad(loss, image)
    adjoint = AdjointSettings(accuracy.adjoint_tolerance, accuracy.adjoint_iterations, "record", settings.max_slope)
    gradient = hypergradient(
        energy,
        model,
        minimum.image_step,
        minimum.coefficients,
        image_gradient,
        adjoint,
        start=None if kept is None else kept.adjoint(minimum.coefficients.dtype),
    )
    residual = float(torch.tensor(gradient.report.relative_residual).max())  # NaN if one is
    bad = bool(minimum.broken.any()) or not gradient.report.finite or not residual <= ADJOINT_RESIDUAL_LIMIT
    skipped = world.any(bad, image.device)
    if kept is not None:
        if skipped:
            kept.drop()
        else:
            kept.keep(minimum.coefficients, gradient.adjoint)
    if not skipped:
        gradients = [
            gradient.raw_free_atoms,
            gradient.raw_synthesis_atoms,
            gradient.log_thresholds,
            gradient.beta,
        ]
        world.average_(gradients)
        parameters = (model.raw_free_atoms, model.raw_synthesis_atoms, model.log_thresholds, model.beta)
        for parameter, value in zip(parameters, gradients, strict=True):
            parameter.grad = value  # what is fixed is not in the optimiser
        optimiser.step()
        model.zero_grad()
        with torch.no_grad():
            model.beta.clamp_(min=settings.beta_min)
    means = torch.stack([loss.detach().double(), _psnr(image.detach(), batch.target).mean()])
    world.average_([means])
    return StepReport(
        step=state.step + 1,
        loss=float(means[0]),
        psnr=float(means[1]),
        iterations=minimum.n_iterations,
        residual=float(minimum.residual.max()),
        adjoint_iterations=gradient.report.n_iterations,
        adjoint_residual=residual,
        skipped=skipped,
        seconds=time.perf_counter() - started,
    )


class _Kept:
    """Where the solvers start from when it is the turn of a batch again."""

    def __init__(self) -> None:
        self.coefficients: Tensor | None = None
        self._adjoint: Tensor | None = None
        self._scale = 1.0

    def keep(self, coefficients: Tensor, adjoint: Tensor) -> None:
        """Both in float16; the adjoint solution, whose size is that of a gradient, in units of its largest value."""
        self.coefficients = coefficients.half()
        self._scale = max(float(adjoint.abs().max()), 1e-30)
        self._adjoint = (adjoint / self._scale).half()

    def drop(self) -> None:
        """Start from 0 the next time."""
        self.coefficients = self._adjoint = None

    def adjoint(self, dtype: torch.dtype) -> Tensor | None:
        """The adjoint solution, if there is one."""
        return None if self._adjoint is None else self._adjoint.to(dtype) * self._scale


class _WarmStarts:
    """What is kept of each batch, by its number."""

    def __init__(self) -> None:
        self._kept: dict[int, _Kept] = {}

    def of(self, number: int) -> _Kept:
        """Of one batch; nothing yet the first time."""
        return self._kept.setdefault(number, _Kept())

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()


def _validate(
    model: SmoothPlusSparse,
    validation: Sequence[Batch],
    settings: TrainSettings,
    state: TrainingState,
    world: World,
    on_validation: Callable[[ValidationReport], None] | None,
) -> None:
    if not validation:
        _admissible_prior(model, torch.float64, model.beta.device)  # what counts as the best has to be usable
        state.keep_best(model, None)
        return
    total = torch.zeros(2, dtype=torch.float64, device=model.beta.device)  # sum of the PSNR values, their number
    for batch in validation[world.rank :: world.size]:
        minimum = minimise(_energy(model, batch), settings.validation_solver)
        psnr = torch.where(minimum.broken, math.nan, _psnr(minimum.image, batch.target))
        total += torch.stack([psnr.sum(), torch.full_like(psnr[0], len(psnr))])
    world.average_([total])  # one number for all: they have to agree on whether training goes on
    mean = float(total[0] / total[1])
    is_best = state.keep_best(model, mean)
    if on_validation is not None:
        on_validation(ValidationReport(state.step, mean, is_best))


def _energy(model: SmoothPlusSparse, batch: Batch) -> Energy:
    operator = batch.operator
    real = torch.float32 if operator.domain_dtype in (torch.float32, torch.complex64) else torch.float64
    return Energy(operator, batch.y, _admissible_prior(model, real, operator.device))


def _admissible_prior(model: SmoothPlusSparse, dtype: torch.dtype, device: torch.device) -> Prior:
    try:
        return model.prior(dtype, device)
    except ValueError as error:
        raise TrainingError(f"training stopped: {error}. Lower the learning rates") from error


def _with_accuracy(settings: FastSettings, accuracy: Accuracy) -> FastSettings:
    return replace(
        settings, tolerance=accuracy.tolerance, max_iterations=accuracy.iterations, image_change=1.0, trace_interval=0
    )


def _psnr(image: Tensor, target: Tensor) -> Tensor:
    """(batch,) in dB, data range 1."""
    squares = (image - target).abs().square().flatten(1).mean(dim=1, dtype=torch.float64)
    return -10 * torch.log10(squares.clamp(min=1e-30))


def _out_of_patience(state: TrainingState, settings: TrainSettings) -> bool:
    return settings.patience > 0 and state.n_looks_since_best >= settings.patience
