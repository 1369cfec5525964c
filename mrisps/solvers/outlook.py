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

NEARLY = 3.0
"""After ``image_iterations`` an image that would change by at most this many times ``image_change`` has settled, too."""

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
    """The looks at the last stage. An image that is done leaves the others.

    What is kept of an image is (batch,) on the host, in the order of the whole batch.

    Attributes
    ----------
    energy
        Of the images at work.
    at_work
        Which images of the batch are at work, in the order in which the path has them.
    n_iterations
        Iterations of each so far.
    residual
        |a - T(a - grad f(a))| / |a| at the last look, float64; infinite before the first.
    remaining
        How much the image can still change, over its norm: its steps between looks, continued as a geometric series of their own
        rate. Infinite before the third look.
    diverged
        The image grew without bound.
    passed
        What ``settings.stop`` asks for was met in two looks in a row, or nearly so when ``image_iterations`` were over.
    late
        ``remaining`` after ``image_iterations``; infinite where it is not known.
    gap
        Of a convex problem that passed with ``stop="stationary"``, a bound on its energy above the minimum, else infinite
        (:func:`mrisps.solvers.duality.energy_gap`). The stationarity residual alone does not tell: it is small along combinations
        of atoms that hardly change the image, and there the energy falls slowly.
    waits
        True: no image ends yet, whatever it does.
    safe
        The last good image of those at work, (images, set, y, x).
    worst
        The largest residual of the images at work that are good.
    near
        Whether the next look is to measure the residual itself.
    """

    def __init__(self, energy: Energy, settings: FastSettings, smooth: Tensor, path: Descent, warm: bool) -> None:
        batch = len(smooth)
        self.energy, self._settings, self._smooth = energy, settings, smooth
        self.at_work = list(range(batch))
        self.n_iterations = torch.zeros(batch, dtype=torch.long)
        self.residual = torch.full((batch,), torch.inf, dtype=torch.float64)
        self.remaining, self.late, self.gap = self.residual.clone(), self.residual.clone(), self.residual.clone()
        self.diverged = torch.zeros(batch, dtype=torch.bool)
        self.passed = torch.zeros(batch, dtype=torch.bool)
        self.worst = torch.inf
        self.near = warm
        self.waits = False
        self.safe = smooth
        self._bound = DIVERGED * torch.stack([norms(smooth), norms(path.image)]).amax(dim=0).cpu()
        self._image: Tensor | None = None
        self._step: Tensor | None = None
        self._n_passed = torch.zeros(batch, dtype=torch.long)
        self._next_bound = torch.zeros(batch, dtype=torch.long)

    def look(self, path: Descent, k: int, in_time: bool) -> list[int]:
        """Which images are done, passed or lost, as positions in the path.

        Parameters
        ----------
        path
            After a step that was measured.
        k
            Iterations so far.
        in_time
            Whether the look is one of the regular ones. Another tells no rate and passes no test.
        """
        image, n_images, now = path.image, len(path.image), torch.tensor(self.at_work)
        seen = [path.moved.view(n_images, -1).sum(dim=1), path.size.view(n_images, -1).sum(dim=1), norms(image)]
        seen.append(norms(image - self._image) if self._image is not None else torch.zeros_like(seen[0]))
        image_step = path.stage.image_step
        effort = () if image_step.effort is None else image_step.effort
        moved, size, lengths, step, *effort_seen = torch.stack([*seen, *effort]).cpu()  # the one transfer
        if effort_seen:
            image_step.plan(*(values.max() for values in effort_seen))
        self.n_iterations[now] = k
        residual = (moved / size.clamp(min=1e-30)).sqrt()
        self.residual[now] = residual
        good = residual.isfinite() & lengths.isfinite()
        suspects = good & (lengths > self._bound[now])
        if bool(suspects.any()):
            risen = suspects & self._has_risen(path)
            self.diverged[now] = risen
            good &= ~risen
        near = (residual <= EXACT_BELOW * self._settings.tolerance) | (size == 0)
        self.near = bool((near & good).any())
        self.safe = (
            image if bool(good.all()) else torch.where(good.to(image.device).view(-1, 1, 1, 1), image, self.safe)
        )
        self.worst = float(residual[good].max()) if bool(good.any()) else self.worst
        if in_time and bool(good.any()):
            self._estimate(step, lengths, now)
            self._image = image
            met = (self.remaining[now] <= self._settings.image_change) & (path.n_at_target > 0)
            if self._settings.stop == "stationary":
                met &= residual <= self._settings.tolerance
            self._n_passed[now] = torch.where(met, self._n_passed[now] + 1, 0)
            passed = good & (self._n_passed[now] >= PASSES)
            if self._settings.stop == "stationary" and bool(passed.any()):
                passed &= self._is_low(path, k, now, passed)
            self.passed[now] = passed
        waited = self._settings.image_iterations
        if waited is not None and k >= waited and path.n_at_target > 0:
            if self._settings.stop == "image":
                self.passed[now] |= good & (self.remaining[now] <= NEARLY * self._settings.image_change)
            self.late[now] = torch.where(self.late[now].isfinite(), self.late[now], self.remaining[now])
        if self.waits:
            self._n_passed[now] = 0
            self.passed[now] = False
            return []
        return [position for position in range(n_images) if not good[position] or self.passed[now[position]]]

    def leave_out(self, path: Descent, position: int) -> Tensor:
        """Go on without the image at this position of the path, whose last image takes the place; the coefficients that it had."""
        order = list(range(len(self.at_work) - 1))
        if position < len(order):
            order[position] = len(order)
        index = torch.tensor(order, device=self.safe.device)
        self.at_work = [self.at_work[entry] for entry in order]
        self.safe, self._smooth = self.safe[index], self._smooth[index]
        self._image = None if self._image is None else self._image[index]
        coefficients = path.leave_out(position, index)
        assert isinstance(path.stage.image_step, ImageStep)  # that of the problem itself
        self.energy = path.stage.image_step.energy
        return coefficients

    def _estimate(self, step: Tensor, lengths: Tensor, now: Tensor) -> None:
        """``remaining`` of the images at work, from the norms of the step since the last look and of the image."""
        if self._image is None:
            return
        if self._step is not None:
            rate = (step / self._step[now].clamp(min=1e-300)).clamp(FASTEST_RATE, SLOWEST_RATE)
            # An image that does not move at all, a zero one too, has nothing left to change.
            remaining = torch.where(step > 0, step * rate / (1 - rate) / lengths.clamp(min=1e-300), 0.0)
            self.remaining[now] = torch.where(step.isfinite(), remaining, torch.inf)
        self._step = self.residual.clone() if self._step is None else self._step
        self._step[now] = step

    def _has_risen(self, path: Descent) -> Tensor:
        """Whether the energy is above that of the smooth image with a = 0, where it could have stayed, bool."""
        nothing = path.coefficients.new_zeros(1).expand(path.coefficients.shape)
        risen = self.energy.value(path.final_image(), path.coefficients).total
        return (risen > self.energy.value(self._smooth, nothing).total).cpu()

    def _is_low(self, path: Descent, k: int, now: Tensor, passed: Tensor) -> Tensor:
        """Whether the energy of a convex problem is proven to be near its minimum, bool; of other problems True."""
        if not path.stage.prior.regulariser.is_norm:
            return torch.ones_like(passed)
        due = passed & (self._next_bound[now] <= k)
        if not bool(due.any()):
            return due
        assert isinstance(path.stage.image_step, ImageStep)  # that of the problem itself
        most = self._settings.energy_gap
        gap = energy_gap(self.energy, path.stage.image_step, path.final_image(), path.coefficients, enough=most)
        assert gap is not None
        low = due & (gap.cpu() <= most)
        self.gap[now] = torch.where(low, gap.cpu(), torch.inf)
        self._next_bound[now] = torch.where(due & ~low, math.ceil(BOUND_SPACING * k), self._next_bound[now])
        return low


def norms(images: Tensor) -> Tensor:
    """|x| of each image, (batch,) float64."""
    parts = torch.view_as_real(images) if images.is_complex() else images  # several times quicker than complex moduli
    lengths: Tensor = torch.linalg.vector_norm(parts.flatten(1), dim=1)
    return lengths.double()
