"""Learning the prior through the reconstruction, for any linear operator: implicitly, or through its iterations."""

from mrisps.bilevel.checkpoint import TrainingState
from mrisps.bilevel.hypergradient import (
    AdjointError,
    AdjointReport,
    AdjointSettings,
    Hypergradient,
    hypergradient,
    solve_with_gradient,
)
from mrisps.bilevel.losses import image_loss
from mrisps.bilevel.settings import Accuracy, TrainSettings
from mrisps.bilevel.trainer import Batch, Samples, StepReport, TrainingError, ValidationReport, train
from mrisps.bilevel.trajectory import Trajectory, TrajectoryGradient, trajectory_gradient
from mrisps.bilevel.world import World, join_world, own_device

__all__ = [
    "Accuracy",
    "AdjointError",
    "AdjointReport",
    "AdjointSettings",
    "Batch",
    "Hypergradient",
    "Samples",
    "StepReport",
    "TrainSettings",
    "TrainingError",
    "TrainingState",
    "Trajectory",
    "TrajectoryGradient",
    "ValidationReport",
    "World",
    "hypergradient",
    "image_loss",
    "join_world",
    "own_device",
    "solve_with_gradient",
    "train",
    "trajectory_gradient",
]
