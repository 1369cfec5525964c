"""The outer problem: gradient descent on the parameters of the prior, through the reconstruction.

    samples(step) -> operator, y, target --minimise--> x* --loss, hypergradient--> dL/dtheta --Adam--> theta

What a step sees depends on the seed and on the number of the step alone. So a training that is resumed gives the same bits as one
that was not interrupted, on the same machine with the same number of threads.
"""

import functools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from mrisps.bilevel.checkpoint import TrainingState, load_state, save_state
from mrisps.bilevel.hypergradient import AdjointSettings, Hypergradient, hypergradient
from mrisps.bilevel.losses import image_loss
from mrisps.bilevel.settings import Accuracy, TrainSettings
from mrisps.bilevel.trajectory import Trajectory, TrajectoryGradient, trajectory_gradient
from mrisps.bilevel.world import World
from mrisps.errors import MrispsError
from mrisps.model import Energy, Prior, PriorUse, SmoothPlusSparse
from mrisps.operators import LinearOperator
from mrisps.solvers import FastSettings, Minimum, minimise

__all__ = [
    "Batch",
    "Samples",
    "StepReport",
    "TrainingError",
    "ValidationReport",
    "train",
]

ADJOINT_RESIDUAL_LIMIT = 1.5
"""A step whose adjoint solution has a larger residual is skipped. (The solution 0 has the residual 1.)"""

MAX_SKIPPED = 10
"""Training stops where more steps in a row are skipped."""

MAX_SLOPE = 1.0
"""See :class:`mrisps.bilevel.AdjointSettings`: the adjoint system of an inaccurate solution stays positive semidefinite."""

NEVER = 1e-30
"""A tolerance that is not met: all iterations are done."""

BETA_MIN = 1e-4
"""beta is kept at or above this."""


class TrainingError(MrispsError):
    """Training cannot go on."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Measurements, and the images that should come out.

    Parameters
    ----------
    operator
        The operator A of the whole batch.
    y
        Measurements, (batch, *operator.range_shape).
    target
        Clean images, (batch, set, y, x), of the operator's domain.
    """

    operator: LinearOperator
    y: Tensor
    target: Tensor

    def __post_init__(self) -> None:
        expected = (len(self.y), *self.operator.domain_shape)
        if self.target.shape != expected or self.target.dtype != self.operator.domain_dtype:
            raise ValueError(
                f"target: expected {self.operator.domain_dtype} {expected}, got {self.target.dtype} {tuple(self.target.shape)}"
            )


class Samples(Protocol):
    """Where batches come from."""

    def batch(self, step: int, first: int, count: int) -> Batch:
        """Entries ``first`` to ``first + count - 1`` of the batch of a step. The same numbers give the same batch."""
        ...


@dataclass(frozen=True)
class StepReport:
    """What happened in a step.

    Parameters
    ----------
    step
        Number of steps done, this one included.
    loss, psnr
        Loss and PSNR of the batch before the step. The PSNR is in dB, with data range 1.
    iterations, residual
        What the solver did. With several processes, this and the next two lines are about the first one's share of the batch.
    adjoint_iterations, adjoint_residual
        What the conjugate gradients did for the adjoint system. The residual says how exact the gradient is.
    skipped
        True: the gradient was not finite, or its system was not solved, and the parameters did not move.
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
    """How good the model is on images that it is not trained on.

    Parameters
    ----------
    step
        Number of steps done.
    psnr
        Mean PSNR of the images in dB, with data range 1.
    is_best
        True: this PSNR is the best so far. Training returns the parameters with the best PSNR.
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
    """Learn the parameters of a model. The model is changed in place; at the end it holds the parameters of the last step.

    Parameters
    ----------
    model
        The model to start from, on the device of the samples.
    samples
        Training data.
    validation
        Batches that are not trained on. Without any, the last parameters count as the best.
    settings
        How to train.
    checkpoint
        File for the state. It is written atomically every ``checkpoint_interval`` steps and at the end. None: no file.
    resume
        Go on from the checkpoint, where there is one.
    identity
        Plain values that tell one training from another (recipe, data). They are written to the checkpoint, and compared when
        training resumes.
    world
        The processes that train together.
    on_step, on_validation
        Functions that are called with each report.
    on_checkpoint
        Function that is called with the state after each checkpoint.

    Returns
    -------
    TrainingState
        The best parameters, the last ones, and the history.

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
    parameters = list(model.parameters())
    optimiser = torch.optim.Adam([{"params": group} for group, _ in _groups(model, settings)])
    if resume and checkpoint is not None and checkpoint.exists():
        state = load_state(checkpoint, model, optimiser, identity, settings.average > 0)
    else:
        world.copy_from_first_([parameter.data for parameter in parameters])  # made on each machine, to its rounding
        state = TrainingState.start(model, settings.average > 0)
        _validate(model, validation, settings, state, world, on_validation)
    warm: dict[int, _Kept] = {}  # where the solvers ended, by the number of the batch
    while state.step < settings.n_steps:
        for group, (_, rate) in zip(optimiser.param_groups, _groups(model, settings), strict=True):
            group["lr"] = rate * settings.rate(state.step)
        number = state.step % settings.warm_batches if settings.warm_batches else state.step
        batch = samples.batch(number, world.rank * share, share)
        start = warm.setdefault(number, _Kept()) if settings.warm_batches else None
        report = _step(model, optimiser, batch, settings, state, world, start)
        state.record(report.step, report.loss, report.skipped)
        if settings.average:
            state.average(model, settings.average)
        if on_step is not None:
            on_step(report)
        if state.n_skipped_in_row > MAX_SKIPPED:
            raise TrainingError(
                f"training stopped at step {state.step}: {state.n_skipped_in_row} steps in a row had a gradient that was not "
                f"finite or an adjoint system that was not solved (residual {report.adjoint_residual:.1e}). Lower the "
                "learning rates, or allow more iterations (start_accuracy, end_accuracy)"
            )
        last = state.step == settings.n_steps
        if state.step % settings.validation_interval == 0 or last:
            _validate(model, validation, settings, state, world, on_validation)
        if state.step % settings.checkpoint_interval == 0 or last:
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
    energy, thresholds = _energy(model, batch, settings.prior), None
    regulariser = energy.prior.regulariser

    def attend(coefficients: Tensor) -> Tensor:
        nonlocal thresholds
        assert model.attention is not None
        with torch.enable_grad():
            thresholds = model.attention.thresholds(coefficients, regulariser)
        return thresholds.detach()

    begin = None if kept is None else kept.coefficients
    if begin is not None:
        accuracy = replace(accuracy, iterations=settings.warm_iterations)
    solver, trajectory = _with_accuracy(settings.solver, accuracy), None
    if settings.gradient == "iterations":
        solver, trajectory = replace(solver, tolerance=NEVER), Trajectory()
    minimum = minimise(
        energy, solver, start=begin, attend=None if model.attention is None else attend, record=trajectory
    )
    if not minimum.at_target:
        raise TrainingError(
            f"the solver's {accuracy.iterations} iterations end before its continuation does, at the wrong problem: allow more "
            "(start_accuracy, end_accuracy), or take crops that are large enough for coarse levels (solver.levels)"
        )
    if model.attention is not None and thresholds is None:
        raise TrainingError(
            f"the solver's {accuracy.iterations} iterations end before the attention looks: allow more than "
            f"{settings.solver.attention_iterations} (start_accuracy, end_accuracy)"
        )
    image = minimum.image.detach().requires_grad_()
    loss = image_loss(settings.loss, image, batch.target)
    (image_gradient,) = torch.autograd.grad(loss, image)
    gradient = _gradient(model, minimum, image_gradient, settings, accuracy, trajectory, kept)
    residual, n_adjoint = 0.0, 0
    if isinstance(gradient, Hypergradient):
        residual = float(torch.tensor(gradient.report.relative_residual).max())  # NaN if one is
        n_adjoint = gradient.report.n_iterations
    bad = (
        gradient is None or bool(minimum.broken.any()) or not gradient.finite or not residual <= ADJOINT_RESIDUAL_LIMIT
    )
    skipped = world.any(bad, image.device)
    if kept is not None:
        if skipped:
            kept.drop()
        else:
            kept.keep(minimum.coefficients, gradient.adjoint if isinstance(gradient, Hypergradient) else None)
    if not skipped:
        assert gradient is not None
        parameters: list[torch.nn.Parameter] = []
        gradients: list[Tensor] = []
        if settings.learn != "attention":
            parameters = [model.raw_free_atoms, model.raw_synthesis_atoms, model.log_thresholds, model.beta]
            gradients = [
                gradient.raw_free_atoms,
                gradient.raw_synthesis_atoms,
                gradient.log_thresholds,
                gradient.beta,
            ]
        if model.attention is not None:
            assert thresholds is not None
            own = list(model.attention.parameters())
            parameters += own
            gradients += torch.autograd.grad(thresholds, own, gradient.thresholds)
        world.average_(gradients)
        for parameter, value in zip(parameters, gradients, strict=True):
            parameter.grad = value  # what is fixed is not in the optimiser
        optimiser.step()
        model.zero_grad()
        with torch.no_grad():
            model.beta.clamp_(min=BETA_MIN)
    means = torch.stack([loss.detach().double(), _psnr(image.detach(), batch.target).mean()])
    world.average_([means])
    return StepReport(
        step=state.step + 1,
        loss=float(means[0]),
        psnr=float(means[1]),
        iterations=int(minimum.n_iterations.max()),
        residual=float(minimum.residual.max()),
        adjoint_iterations=n_adjoint,
        adjoint_residual=residual,
        skipped=skipped,
        seconds=time.perf_counter() - started,
    )


def _gradient(
    model: SmoothPlusSparse,
    minimum: Minimum,
    image_gradient: Tensor,
    settings: TrainSettings,
    accuracy: Accuracy,
    trajectory: Trajectory | None,
    kept: "_Kept | None",
) -> Hypergradient | TrajectoryGradient | None:
    """dL/dtheta through the iterations that were recorded, or else of the minimiser."""
    if trajectory is None:
        return hypergradient(
            minimum.energy,
            model,
            minimum.image_step,
            minimum.coefficients,
            image_gradient,
            AdjointSettings(accuracy.adjoint_tolerance, accuracy.adjoint_iterations, "record", MAX_SLOPE),
            start=None if kept is None else kept.adjoint(minimum.coefficients.dtype),
        )
    if bool(minimum.broken.any()):
        return None  # an image that is lost does not get to the end
    wanted = None if settings.learn == "attention" else model
    return trajectory_gradient(minimum.energy, wanted, minimum.image_step, trajectory, image_gradient)


def _groups(model: SmoothPlusSparse, settings: TrainSettings) -> list[tuple[list[torch.nn.Parameter], float]]:
    """What is learned, with its learning rate: atoms, log-thresholds and beta, the attention."""
    if (settings.learn == "prior") != (model.attention is None):
        has = "none" if model.attention is None else "one"
        raise ValueError(
            f"model: expected an attention exactly where one is learned, got {has} to learn {settings.learn!r}"
        )
    groups: list[tuple[list[torch.nn.Parameter], float]] = []
    if settings.learn != "attention":
        atoms = [model.raw_synthesis_atoms]
        if settings.fixed != "free_atoms":
            atoms.insert(0, model.raw_free_atoms)
        groups = [(atoms, settings.learning_rate), ([model.log_thresholds], settings.learning_rate_thresholds)]
        groups.append(([model.beta], settings.learning_rate_thresholds * float(model.beta.detach())))
    if model.attention is not None:
        groups.append((list(model.attention.parameters()), settings.learning_rate_attention))
    return groups


class _Kept:
    """Where the solvers start from when a batch returns."""

    def __init__(self) -> None:
        self.coefficients: Tensor | None = None
        self._adjoint: Tensor | None = None
        self._scale = 1.0

    def keep(self, coefficients: Tensor, adjoint: Tensor | None) -> None:
        """Keep both in float16; the adjoint solution is as small as a gradient, so it is divided by its largest value first."""
        self.coefficients = coefficients.half()
        if adjoint is not None:
            self._scale = max(float(adjoint.abs().max()), 1e-30)
            self._adjoint = (adjoint / self._scale).half()

    def drop(self) -> None:
        """Start from 0 the next time."""
        self.coefficients = self._adjoint = None

    def adjoint(self, dtype: torch.dtype) -> Tensor | None:
        """The adjoint solution, if there is one."""
        return None if self._adjoint is None else self._adjoint.to(dtype) * self._scale


def _validate(
    model: SmoothPlusSparse,
    validation: Sequence[Batch],
    settings: TrainSettings,
    state: TrainingState,
    world: World,
    on_validation: Callable[[ValidationReport], None] | None,
) -> None:
    model = state.mean_model(model)
    if not validation:
        _admissible_prior(model, torch.float64, model.beta.device)  # what counts as the best has to be usable
        state.keep_best(model, None)
        return
    total = torch.zeros(2, dtype=torch.float64, device=model.beta.device)  # sum of the PSNR values, their number
    for batch in validation[world.rank :: world.size]:
        energy, solver = _energy(model, batch, settings.prior), settings.validation_solver
        attention, regulariser = model.attention, energy.prior.regulariser
        attend = None if attention is None else functools.partial(attention.thresholds, regulariser=regulariser)
        minimum = minimise(energy, solver, attend=attend)
        psnr = torch.where(minimum.broken.to(minimum.image.device), math.nan, _psnr(minimum.image, batch.target))
        total += torch.stack([psnr.sum(), torch.full_like(psnr[0], len(psnr))])
    world.average_([total])  # one number for all: they have to agree on whether training goes on
    mean = float(total[0] / total[1])
    is_best = state.keep_best(model, mean)
    if on_validation is not None:
        on_validation(ValidationReport(state.step, mean, is_best))


def _energy(model: SmoothPlusSparse, batch: Batch, use: PriorUse) -> Energy:
    operator = batch.operator
    real = torch.float32 if operator.domain_dtype in (torch.float32, torch.complex64) else torch.float64
    prior = _admissible_prior(model, real, operator.device).used(use, operator.domain_dtype.is_complex)
    return Energy(operator, batch.y, prior)


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
