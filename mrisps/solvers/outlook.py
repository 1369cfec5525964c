"""What is seen when the default solver looks at where it is: residuals, what is still to come, what went wrong.

A look costs one transfer from the device, whatever the number of images. All that is decided, is decided on the host.
"""

import math

import torch
from torch import Tensor

from mrisps.model import Energy
from mrisps.solvers.descent import Descent
from mrisps.solvers.duality import energy_gap
from mrisps.solvers.image_step import ImageStep
from mrisps.solvers.settings import FastSettings

__all__ = ["PASSES", "Watch"]

PASSES = 2
"""Looks in a row that have to pass the test: right after the continuation, inertia may still be gathering speed."""

DIVERGED = 10.0
"""An image is suspected of growing without bound when its norm is more than this many times that of the smooth image."""

SLOWEST_RATE, FASTEST_RATE = 0.95, 6 / 7
"""When what remains is estimated, the image's steps are taken to shrink by at least 5 % and at most 14 % from one look to the next.
So what remains is at least 6 times the last step: an image that fills in slowly may seem to slow down faster for a while."""

BOUND_SPACING = 1.5
"""Where the energy of a convex problem is not proven to be near its minimum, the next bound is computed after this many times the
iterations so far: a bound takes the time of some 20 iterations."""

EXACT_BELOW = 30.0
"""A look measures the residual itself where that of the look before was below this many tolerances; elsewhere a bound will do."""


class Watch:
    """The looks at the last stage.

    Attributes
    ----------
    residual
        |a - T(a - grad f(a))| / |a| at the last look, (batch,) float64 on the host; infinite before the first.
    remaining
        How much the image can still change, over its norm, (batch,): its steps between looks, continued as a geometric series of
        their own rate. Infinite before the third look.
    diverged
        (batch,) bool: the image grew without bound.
    passed
        (batch,) bool: what ``settings.stop`` asks for was met in two looks in a row.
    gap
        Of a convex problem that passed with ``stop="stationary"``, a bound on its energy above the minimum, (batch,)
        (:func:`mrisps.solvers.duality.energy_gap`). The stationarity residual alone does not tell: it is small along combinations
        of atoms that hardly change the image, and there the energy falls slowly.
    safe
        The last good image of each, (batch, set, y, x).
    worst
        The largest residual of the images that are good.
    near
        Whether the next look is to measure the residual itself.
    """

    def __init__(self, energy: Energy, settings: FastSettings, smooth: Tensor, path: Descent, warm: bool) -> None:
        batch = len(smooth)
        self._energy, self._settings, self._smooth = energy, settings, smooth
        self.residual = torch.full((batch,), torch.inf, dtype=torch.float64)
        self.remaining = self.residual.clone()
        self.diverged = torch.zeros(batch, dtype=torch.bool)
        self.passed = torch.zeros(batch, dtype=torch.bool)
        self._n_passed = 0
        self.worst = torch.inf
        self.near = warm
        self.safe = smooth
        self._bound = DIVERGED * torch.stack([norms(smooth), norms(path.image)]).amax(dim=0).cpu()
        self._image: Tensor | None = None
        self._step: Tensor | None = None
        self.gap: Tensor | None = None
        self._next_bound = 0

    def look(self, path: Descent, in_time: bool) -> bool:
        """Whether it is over: every image passed all tests, or is lost.

        Parameters
        ----------
        path
            After a step that was measured.
        in_time
            Whether the look is one of the regular ones. Another tells no rate and passes no test.
        """
        image, batch = path.image, len(path.image)
        seen = [path.moved.view(batch, -1).sum(dim=1), path.size.view(batch, -1).sum(dim=1), norms(image)]
        seen.append(norms(image - self._image) if self._image is not None else torch.zeros_like(seen[0]))
        image_step = path.stage.image_step
        effort = () if image_step.effort is None else image_step.effort
        moved, size, lengths, step, *effort_seen = torch.stack([*seen, *effort]).cpu()  # the one transfer
        if effort_seen:
            image_step.plan(*(values.max() for values in effort_seen))
        self.residual = (moved / size.clamp(min=1e-30)).sqrt()
        finite = self.residual.isfinite() & lengths.isfinite()
        suspects = finite & ~self.diverged & (lengths > self._bound)
        if bool(suspects.any()):
            self.diverged |= suspects & self._has_risen(path)
        good = finite & ~self.diverged  # the others of the batch go on
        near = (self.residual <= EXACT_BELOW * self._settings.tolerance) | (size == 0)
        self.near = bool((near | ~good).all())  # what is lost is not waited for
        self.safe = (
            image if bool(good.all()) else torch.where(good.to(image.device).view(-1, 1, 1, 1), image, self.safe)
        )
        if not bool(good.any()):
            return True
        self.worst = float(self.residual[good].max())
        if not in_time:
            return False
        self._estimate(step, lengths)
        self._image = image
        settled = path.n_at_target > 0 and float(self.remaining[good].max()) <= self._settings.image_change
        stationary = self.worst <= self._settings.tolerance
        only_image = self._settings.stop == "image"
        self._n_passed = self._n_passed + 1 if settled and (only_image or stationary) else 0
        if self._n_passed < PASSES or not (only_image or self._is_low(path, good)):
            return False
        self.passed = good
        return True

    def _estimate(self, step: Tensor, lengths: Tensor) -> None:
        """``remaining`` from the norms of the step since the last look and of the image, (batch,)."""
        if self._image is None:
            return
        if self._step is not None:
            rate = (step / self._step.clamp(min=1e-300)).clamp(FASTEST_RATE, SLOWEST_RATE)
            # An image that does not move at all, a zero one too, has nothing left to change.
            self.remaining = torch.where(step > 0, step * rate / (1 - rate) / lengths.clamp(min=1e-300), 0.0)
            self.remaining = torch.where(step.isfinite(), self.remaining, torch.inf)
        self._step = step

    def _has_risen(self, path: Descent) -> Tensor:
        """Whether the energy is above that of the smooth image with a = 0, where it could have stayed, (batch,) bool."""
        nothing = path.coefficients.new_zeros(1).expand(path.coefficients.shape)
        risen = self._energy.value(path.final_image(), path.coefficients).total
        return (risen > self._energy.value(self._smooth, nothing).total).cpu()

    def _is_low(self, path: Descent, good: Tensor) -> bool:
        """Whether the energy of a convex problem is proven to be near its minimum, for every good image; of others True."""
        if not path.stage.prior.regulariser.is_norm:
            return True
        k, most = path.n_at_target, self._settings.energy_gap
        if k < self._next_bound:
            return False
        assert isinstance(path.stage.image_step, ImageStep)  # that of the problem itself
        gap = energy_gap(self._energy, path.stage.image_step, path.final_image(), path.coefficients, enough=most)
        self._next_bound = math.ceil(BOUND_SPACING * k)
        if gap is None or not bool((gap[good] <= most).all()):
            return False
        self.gap = gap
        return True


def norms(images: Tensor) -> Tensor:
    """|x| of each image, (batch,) float64."""
    parts = torch.view_as_real(images) if images.is_complex() else images  # several times quicker than complex moduli
    lengths: Tensor = torch.linalg.vector_norm(parts.flatten(1), dim=1)
    return lengths.double()
