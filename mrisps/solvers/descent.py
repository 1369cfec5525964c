"""What the two algorithms that minimise one stage of the default solver have in common.

With the image eliminated, what is left is f(a) + R(a); see :mod:`mrisps.solvers.fast`. An algorithm goes down iteration by
iteration: :class:`mrisps.solvers.inertial.Inertial` for every R, :class:`mrisps.solvers.splitting.Splitting` where R is a norm.
"""

import abc
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from mrisps.model import PatchTransform, Prior
from mrisps.solvers.image_step import ConvolutionStep, ImageStep

__all__ = ["Descent", "DescentOptions", "Stage", "predict", "predictions", "squared_norm", "storage"]


@dataclass(frozen=True, eq=False)
class Stage:
    """One of the problems on the way: which patches count, and how the image follows from them.

    Parameters
    ----------
    prior
        Atoms, beta and regulariser.
    transform
        The patches that count.
    image_step
        x(a) for these patches.
    image_shape
        (y, x) of the stage's grid.
    """

    prior: Prior
    transform: PatchTransform
    image_step: ConvolutionStep | ImageStep
    image_shape: tuple[int, int]


@dataclass(frozen=True)
class DescentOptions:
    """What all stages of a solve have in common.

    Parameters
    ----------
    decay
        After each iteration the threshold multiplier is multiplied by this, until it is 1.
    half_storage
        Coefficients are stored in float16.
    """

    decay: float
    half_storage: bool


class Descent(abc.ABC):
    """An algorithm on its way down one stage.

    Attributes
    ----------
    image
        (batch, set, y, x): x(a), or near it.
    coefficients
        a, (rows, y / stride, x / stride, n). The next iteration overwrites them.
    factor
        Threshold multiplier of the next iteration.
    n_at_target
        Iterations so far with the multiplier at 1.
    moved, size
        Squares of the stationarity residual |a - T(a - grad f(a))| and of |a| at the last measured iteration, (rows,) float64. The
        former may be an upper bound.
    """

    ROWS: ClassVar[tuple[str, ...]]
    """Names of the tensors whose first axis are the rows of all images."""

    def __init__(self, stage: Stage, options: DescentOptions, factor: float, n_rows: int) -> None:
        self.stage, self.options, self.factor = stage, options, factor
        self.n_at_target = 0
        self.image: Tensor
        self.coefficients: Tensor
        self.shape = (n_rows, *stage.transform.grid_shape(stage.image_shape))
        self.moved = self.size = torch.zeros(n_rows, dtype=torch.float64, device=stage.prior.basis.device)

    def step(self, measure: bool = False, exactly: bool = False) -> None:
        """One iteration. With ``measure``, ``moved`` and ``size`` are brought up to date; with ``exactly``, without a bound."""
        self._advance(measure, exactly)
        if self.factor <= 1:
            self.n_at_target += 1
        self.factor = max(self.factor * self.options.decay, 1.0)

    def leave_out(self, position: int, order: Tensor) -> Tensor:
        """Go on without one image of the batch.

        Parameters
        ----------
        position
            Of the image. The last one takes its place.
        order
            Which images are left, at their new places.

        Returns
        -------
        Tensor
            The coefficients of the image, (rows, y / stride, x / stride, n). They stay where the memory of all of them is.
        """
        n_rows = self.shape[0] // len(self.image)
        left = self.shape[0] - n_rows
        here, there = slice(position * n_rows, (position + 1) * n_rows), slice(left, self.shape[0])
        for name in self.ROWS:
            tensor = getattr(self, name)
            if here != there:
                mine = tensor[here].clone()
                tensor[here] = tensor[there]
                tensor[there] = mine
        taken = self.coefficients[there]
        for name in self.ROWS:
            setattr(self, name, getattr(self, name)[:left])
        self.shape = (left, *self.shape[1:])
        before = self.stage.image_step
        assert isinstance(before, ImageStep)  # that of the problem itself
        image_step = before.take(order)
        solved = (
            image_step.image if self.image is before.image else None
        )  # the image step goes on from an image that it knows
        self.image = self.image[order] if solved is None else solved
        self.stage = replace(self.stage, prior=image_step.energy.prior, image_step=image_step)
        return taken

    @abc.abstractmethod
    def _advance(self, measure: bool, exactly: bool) -> None:
        """The iteration itself, with thresholds ``factor`` times those of the prior."""

    @abc.abstractmethod
    def final_image(self) -> Tensor:
        """x(a) for the coefficients as they are."""

    def _coefficients_like_zero(self) -> Tensor:
        prior = self.stage.prior
        return prior.basis.new_zeros(*self.shape, prior.n_atoms, dtype=storage(prior, self.options))

    def _work_space(self, n_buffers: int) -> list[Tensor]:
        """Buffers for the coefficients of the largest piece."""
        prior, shape = self.stage.prior, self.shape
        n_pixels = max(
            (
                len(range(*rows.indices(shape[0]))) * len(range(*ys.indices(shape[1])))
                for rows, ys in prior.chunks(shape)
            ),
            default=0,
        )
        return [prior.basis.new_empty(n_pixels * shape[2] * prior.n_atoms) for _ in range(n_buffers)]


def storage(prior: Prior, options: DescentOptions) -> torch.dtype:
    """Data type in which the coefficients are kept."""
    return torch.float16 if options.half_storage else prior.basis.dtype


def predictions(prior: Prior, coefficients: Tensor, predictor: Tensor) -> Tensor:
    """a^T predictor at every patch, (rows, y, x, n) -> (rows, y, x, r), piece by piece."""
    n_rows, height, width, _ = coefficients.shape
    prediction = prior.basis.new_empty(n_rows, height, width, predictor.shape[1])
    for rows, ys in prior.chunks((n_rows, height, width)):
        predict(coefficients[rows, ys].to(prior.basis.dtype), predictor, prediction[rows, ys])
    return prediction


def predict(coefficients: Tensor, predictor: Tensor, out: Tensor) -> None:
    """a^T predictor for a piece of the coefficients."""
    for row, predicted in zip(coefficients, out, strict=True):  # a row of a piece is contiguous, a pair of them is not
        torch.matmul(row, predictor, out=predicted)


def squared_norm(values: Tensor) -> Tensor:
    """|v|^2 of a cache-sized piece, by BLAS: a third of the time of square and sum."""
    flat = values.flatten()
    return torch.dot(flat, flat)
