"""Estimates of what further iterations would still change: of the image, and of the energy of a convex problem."""

import torch
from torch import Tensor

from mrisps.model import Energy
from mrisps.solvers.descent import Descent

__all__ = ["Outlook", "Slope", "norms"]

SLOWEST_RATE = 0.95
"""The image's steps are taken to shrink by at least 5 % from one look to the next when what remains is estimated."""

ENERGY_CHANGE = 1e-3
"""A convex problem is solved when the energy is estimated to fall by no more than this share of itself. The stationarity residual
alone does not tell: it is small along combinations of atoms that hardly change the image, and there the energy falls slowly."""


class Outlook:
    """How much an image can still change: the steps between looks, continued as a geometric series of their own rate.

    ``remaining`` is that sum over the norm of the image, (batch,): infinite before the third look.
    """

    def __init__(self, batch: int) -> None:
        self.remaining = torch.full((batch,), torch.inf, dtype=torch.float64)
        self._image: Tensor | None = None
        self._step: Tensor | None = None

    def update(self, image: Tensor) -> None:
        """Take note of the image at a look."""
        if self._image is not None:
            step = norms(image - self._image).double().cpu()
            if self._step is not None:
                rate = (step / self._step.clamp(min=1e-300)).clamp(max=SLOWEST_RATE)
                size = norms(image).double().cpu()
                # An image that does not move at all, a zero one too, has nothing left to change.
                self.remaining = torch.where(step > 0, step * rate / (1 - rate) / size.clamp(min=1e-300), 0.0)
                self.remaining = torch.where(step.isfinite(), self.remaining, torch.inf)
            self._step = step
        self._image = image.clone()


class Slope:
    """How much the energy of a convex problem can still fall, from how much it fell between two looks.

    Near the minimum the rest is about proportional to 1 / sqrt(k) after k iterations (measured with redundant dictionaries), so it
    is 2 k times the fall of one iteration.
    """

    def __init__(self, energy: Energy) -> None:
        self._energy = energy
        self._last: tuple[int, Tensor] | None = None

    def is_flat(self, path: Descent) -> bool:
        """Whether it is small for every image; at the first look, which tells no slope, it is taken to be."""
        k, total = path.n_at_target, self._energy.value(path.final_image(), path.coefficients).total
        before, self._last = self._last, (k, total)
        if before is None:
            return True
        rest = 2 * k * (before[1] - total).abs() / (k - before[0])
        lost = ~total.isfinite()
        return bool(((rest <= ENERGY_CHANGE * total) | lost).all())


def norms(images: Tensor) -> Tensor:
    """|x| of each image, (batch,)."""
    lengths: Tensor = torch.linalg.vector_norm(images.flatten(1), dim=1)
    return lengths
