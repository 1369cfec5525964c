"""What is seen when the default solver looks at where it is: residuals, what is still to come, what went wrong.

A look costs one transfer from the device, whatever the number of images. All that is decided, is decided on the host.
"""

import torch
from torch import Tensor

from mrisps.model import Energy
from mrisps.solvers.descent import Descent
from mrisps.solvers.settings import FastSettings

__all__ = ["PASSES", "Watch"]

PASSES = 2
"""Looks in a row that have to pass the test: right after the continuation, inertia may still be gathering speed."""

DIVERGED = 10.0
"""An image is suspected of growing without bound when its norm is more than this many times that of the smooth image."""

SLOWEST_RATE = 0.95
"""The image's steps are taken to shrink by at least 5 % from one look to the next when what remains is estimated."""

EXACT_BELOW = 30.0
"""A look measures the residual itself where that of the look before was below this many tolerances; elsewhere a bound will do."""

ENERGY_CHANGE = 1e-3
"""A convex problem is solved when the energy is estimated to fall by no more than this share of itself. The stationarity residual
alone does not tell: it is small along combinations of atoms that hardly change the image, and there the energy falls slowly."""


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
        (batch,) bool: every test was met in two looks in a row.
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
        self._last_energy: tuple[int, Tensor] | None = None

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
        passed = (
            path.n_at_target > 0
            and self.worst <= self._settings.tolerance
            and float(self.remaining[good].max()) <= self._settings.image_change
        )
        if passed and path.stage.prior.regulariser.is_norm and not self._is_flat(path):
            self._n_passed = 0  # this look is the first of the next two
        self._n_passed = self._n_passed + 1 if passed else 0
        if self._n_passed == PASSES:
            self.passed = good & (self.residual <= self._settings.tolerance)
        return self._n_passed == PASSES

    def _estimate(self, step: Tensor, lengths: Tensor) -> None:
        """``remaining`` from the norms of the step since the last look and of the image, (batch,)."""
        if self._image is None:
            return
        if self._step is not None:
            rate = (step / self._step.clamp(min=1e-300)).clamp(max=SLOWEST_RATE)
            # An image that does not move at all, a zero one too, has nothing left to change.
            self.remaining = torch.where(step > 0, step * rate / (1 - rate) / lengths.clamp(min=1e-300), 0.0)
            self.remaining = torch.where(step.isfinite(), self.remaining, torch.inf)
        self._step = step

    def _has_risen(self, path: Descent) -> Tensor:
        """Whether the energy is above that of the smooth image with a = 0, where it could have stayed, (batch,) bool."""
        nothing = path.coefficients.new_zeros(1).expand(path.coefficients.shape)
        risen = self._energy.value(path.final_image(), path.coefficients).total
        return (risen > self._energy.value(self._smooth, nothing).total).cpu()

    def _is_flat(self, path: Descent) -> bool:
        """Whether the energy of a convex problem can still fall by little only, for every image.

        Near the minimum the rest is about proportional to 1 / sqrt(k) after k iterations (measured with redundant dictionaries), so
        it is 2 k times the fall of one iteration. At the first look, which tells no slope, it is taken to be flat.
        """
        k, total = path.n_at_target, self._energy.value(path.final_image(), path.coefficients).total.cpu()
        before, self._last_energy = self._last_energy, (k, total)
        if before is None:
            return True
        rest = 2 * k * (before[1] - total).abs() / (k - before[0])
        lost = ~total.isfinite()
        return bool(((rest <= ENERGY_CHANGE * total) | lost).all())


def norms(images: Tensor) -> Tensor:
    """|x| of each image, (batch,) float64."""
    parts = torch.view_as_real(images) if images.is_complex() else images  # several times quicker than complex moduli
    lengths: Tensor = torch.linalg.vector_norm(parts.flatten(1), dim=1)
    return lengths.double()
