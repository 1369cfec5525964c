"""Settings of the trainer."""

import math
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from mrisps.bilevel.losses import LossName
from mrisps.model import PriorUse
from mrisps.settings import LATER, Count, Fraction, Index, Number, Positive, Range, settings
from mrisps.solvers import FastSettings

__all__ = ["Accuracy", "TrainSettings"]


@settings
@dataclass(frozen=True)
class Accuracy:
    """How accurately a step of training solves the inner problem and its adjoint system.

    Parameters
    ----------
    iterations, tolerance
        Largest number of iterations, and stationarity tolerance, of the solver.
    adjoint_iterations, adjoint_tolerance
        Largest number of iterations, and relative residual, of the conjugate gradients. What they reach is in every
        :class:`StepReport`.
    """

    iterations: Count
    tolerance: Positive
    adjoint_iterations: Count
    adjoint_tolerance: Positive

    def towards(self, other: "Accuracy", share: float) -> "Accuracy":
        """The accuracy at a share (0 to 1) of the way to another one, in equal factors."""

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
        Number of steps of gradient descent.
    batch_size
        Images in a step, over all processes.
    learning_rate
        Learning rate of Adam for the raw atoms.
    learning_rate_thresholds
        Learning rate of Adam for the log-thresholds, and for beta relative to its value, which depends on the task by orders of
        magnitude.
    learning_rate_attention
        Learning rate of Adam for the attention.
    hold
        Fraction of the steps with these learning rates. After them the rates fall linearly to 0.
    loss
        The outer loss, see :func:`mrisps.bilevel.losses.image_loss`.
    start_accuracy, end_accuracy
        Accuracy of the inner problems in the first step and in the last one.
    solver
        Settings of the solver besides iterations and tolerance: continuation, levels.
    prior
        Which patches count, and how the coefficients of complex images are shrunk: that of the recipe that will use the weights.
        A step with every second patch of every second row takes a quarter of the time.
    warm_batches
        0: every step has new crops. n > 0: the same n batches return in turn, with their noise and masks. Where the solver and the
        adjoint system of a batch ended is kept (in float16, 4 n batch_size crop^2 n_atoms / stride^2 bytes in all, twice that for
        complex images), and both start from there
        when the batch returns. After a few rounds the solutions are accurate: training then sees the minimiser, and not the point
        that some dozens of iterations from 0 reach. At every checkpoint what was kept is dropped, so that resuming is exact.
    warm_iterations
        Largest number of iterations of the solver where it starts from what was kept. ``start_accuracy`` and ``end_accuracy`` hold
        where nothing was kept.
    learn
        ``"prior"``: atoms, thresholds and beta. ``"attention"``: the attention of the model, and nothing else. ``"both"``. The
        attention looks after ``solver.attention_iterations``, as in a reconstruction.
    gradient
        ``"minimiser"``: implicit, as if the solver had ended at a minimiser, whatever it did
        (:mod:`mrisps.bilevel.hypergradient`). ``"iterations"``: through the iterations on the full grid, as many as the accuracy
        allows, for a reconstruction that ends there (:mod:`mrisps.bilevel.trajectory`); NCPR alone. It takes the memory of the
        coefficients after each iteration, and there is no adjoint system.
    fixed
        ``"free_atoms"`` keeps the free atoms Q as they are at the start. None: everything is learned.
    average
        Decay of a running mean of the parameters, for each step: 0.98 remembers about 50 steps. The validation sees the mean, and
        the best parameters are a mean. Small batches let the parameters jump from step to step; their mean is better than they
        are. 0: no mean.
    validation_interval
        Steps from one validation to the next. The first is before the first step, the last after the last step.
    validation_solver
        Settings of the solver for the validation images.
    checkpoint_interval
        Steps from one checkpoint to the next.
    seed
        Seed of everything that is random.
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
    prior: PriorUse = field(default_factory=PriorUse, metadata=LATER)
    warm_batches: Index = 0
    warm_iterations: Count = 15
    learn: Literal["prior", "attention", "both"] = field(default="prior", metadata=LATER)
    gradient: Literal["minimiser", "iterations"] = field(default="minimiser", metadata=LATER)
    learning_rate_attention: Positive = field(default=1e-3, metadata=LATER)
    fixed: Literal["free_atoms"] | None = None
    average: Annotated[Number, Range(ge=0, lt=1)] = field(default=0.0, metadata=LATER)
    validation_interval: Count = 100
    validation_solver: FastSettings = field(default_factory=FastSettings)
    checkpoint_interval: Count = 50
    seed: Index = 0

    GONE: ClassVar = {"max_slope": 1.0, "beta_min": 1e-4, "patience": 0, "max_skipped": 10}

    def rate(self, step: int) -> float:
        """Factor on the learning rates in a step, numbered from 0."""
        left = 1 - step / self.n_steps
        return min(1.0, left / (1 - self.hold)) if self.hold < 1 else 1.0

    def accuracy(self, step: int) -> Accuracy:
        """Accuracy of the inner problems in a step, numbered from 0."""
        return self.start_accuracy.towards(self.end_accuracy, step / max(1, self.n_steps - 1))
