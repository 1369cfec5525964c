"""The two regularisers of the model. Each *is* its proximal operator

    T(v) = argmin_a R(a) + 1/2 |a - v|^2,

with its derivative and its potential R beside it.

    NCPR   SmoothShrinkage      T_i(v) = v |v|^g / (lam_i^g + |v|^g), elementwise; non-convex, very weakly
    CPR    GroupSoftThreshold   soft threshold on the norm of an atom's coefficients at group_size x group_size pixels; convex

Coefficients are pixel-major, (..., y, x, n) with n atoms.

The coefficients of a complex image are pairs of real ones, in rows that follow each other (real part, imaginary part). With
``pairs`` the two are shrunk by their modulus: T(v) = w(|v|) v for complex v, blind to the phase. Without, each on its own.
"""

import abc
import copy
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor

__all__ = ["GroupSoftThreshold", "Regulariser", "SmoothShrinkage"]


@dataclass(frozen=True, eq=False)
class Regulariser(abc.ABC):
    """What a solver needs to know of R.

    Parameters
    ----------
    thresholds
        Positive, in the units of the coefficients: (n,), lam_i of each atom, or (rows, y, x, n), one for each coefficient. For
        each coefficient in NCPR alone; real and imaginary part of a pair have the same.
    pairs
        Rows 2 i and 2 i + 1 (of the first axis) are real and imaginary part of one image, and their modulus is shrunk.
    """

    thresholds: Tensor
    pairs: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        if self.thresholds.ndim not in (1, 4) or not bool((self.thresholds > 0).all()):
            raise ValueError("thresholds: expected (n,) or (rows, y, x, n) positive numbers")
        if self.pairs and self.thresholds.ndim == 4 and not torch.equal(*_parts(self.thresholds)):
            raise ValueError("thresholds: expected the same for real and imaginary part")

    @property
    def group_size(self) -> int:
        """Side of the square of pixels that are shrunk together; y and x have to be multiples of it."""
        return 1

    @property
    @abc.abstractmethod
    def is_norm(self) -> bool:
        """Whether R is a norm: convex, and the prox of R / rho is T with the thresholds lam / rho."""

    def scaled(self, factor: float) -> Self:
        """The regulariser whose thresholds are ``factor`` times these."""
        return self if factor == 1 else self._with(self.thresholds * factor)

    def at(self, rows: slice, ys: slice) -> Self:
        """The regulariser of a piece of the coefficients, (rows, y, x, n)[rows, ys]."""
        if self.thresholds.ndim == 1:
            return self
        return self._with(self.thresholds[rows, ys])

    def _with(self, thresholds: Tensor) -> Self:
        """With positive thresholds, unchecked: a check waits for the device."""
        other = copy.copy(self)
        object.__setattr__(other, "thresholds", thresholds)
        return other

    @property
    def mean_thresholds(self) -> Tensor:
        """(n,): the thresholds, or their geometric mean over the places."""
        return self.thresholds if self.thresholds.ndim == 1 else self.thresholds.log().mean(dim=(0, 1, 2)).exp()

    def paired(self) -> Self:
        """The same for complex images, with thresholds on the modulus."""
        return replace(self, pairs=True)

    @abc.abstractmethod
    def prox(self, v: Tensor) -> Tensor:
        """T(v) = argmin_a R(a) + 1/2 |a - v|^2, for v of shape (..., y, x, n)."""

    def prox_into(self, v: Tensor, out: Tensor, work: Tensor) -> None:
        """``out`` = T(v) without a gradient; ``work`` is scratch. All of the shape (..., y, x, n); v is left as it is."""
        del work
        out.copy_(self.prox(v))

    @abc.abstractmethod
    def prox_derivative(self, v: Tensor, direction: Tensor) -> Tensor:
        """T'(v) applied to a direction of the shape of v. T' is symmetric: a diagonal for NCPR, a block for each group for CPR."""

    @abc.abstractmethod
    def derivative_root(self, v: Tensor, max_slope: float = math.inf) -> Callable[[Tensor], Tensor]:
        """The symmetric square root of T'(v), prepared to be applied again and again to directions of the shape of v.

        T'(v) is positive semidefinite for both regularisers, so the root is real. Eigenvalues above ``max_slope`` >= 1 are taken to
        be that; only NCPR's can exceed 1.
        """

    @abc.abstractmethod
    def threshold_derivative(self, v: Tensor) -> Tensor:
        """dT(v)/dlam, of the shape of v: how each coefficient answers to the threshold of its own atom."""

    @abc.abstractmethod
    def potential(self, a: Tensor) -> Tensor:
        """R(a) summed over the atoms: (..., y, x, n) -> (..., y, x). A group's cost is spread evenly over its pixels."""


@dataclass(frozen=True, eq=False)
class SmoothShrinkage(Regulariser):
    """NCPR: T(v) = v |v|^g / (lam^g + |v|^g), and the potential that this defines by R'(T(v)) = v - T(v).

    Since T_lam(v) = lam T_1(v / lam), one universal potential serves all atoms: R_lam(a) = lam^2 R_1(a / lam).
    The slope of T exceeds 1 (by 0.09 at most for g = 1.8): R is weakly convex.

    Parameters
    ----------
    thresholds
        See :class:`Regulariser`.
    exponent
        g >= 1. The paper has 1.8 (sigma 25) and 2 (sigma 5).

    Source
    ------
    arXiv 2412.13070, the non-convex patch-based regulariser.
    """

    exponent: float = 1.8

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.exponent >= 1:
            raise ValueError(f"exponent: expected a number >= 1, got {self.exponent}")

    @property
    def is_norm(self) -> bool:
        """R is not even convex for g > 1, and for no g proportional to lam."""
        return False

    def prox(self, v: Tensor) -> Tensor:
        """v q / (1 + q) with q = |v / lam|^g, elementwise; |v| is the modulus of a pair."""
        if torch.is_grad_enabled() and (v.requires_grad or self.thresholds.requires_grad):
            q = self._ratio(v)
            return v * (q / (1 + q))
        out = torch.empty_like(v)
        self.prox_into(v, out, out)
        return out

    def prox_into(self, v: Tensor, out: Tensor, work: Tensor) -> None:
        """``out`` = T(v); ``work`` may be ``out``, and v is left as it is."""
        if self.pairs:
            share = _parts(work)[0]
            self._share_of_pairs(v, share)
            real, imaginary = _parts(v)
            out_real, out_imaginary = _parts(out)
            torch.mul(share, imaginary, out=out_imaginary)
            torch.mul(share, real, out=out_real)
            return
        torch.mul(self._share(v, work), v, out=out)

    def prox_derivative(self, v: Tensor, direction: Tensor) -> Tensor:
        """T'(v) = q (g + 1 + q) / (1 + q)^2 times the direction; for a pair that along v, and q / (1 + q) across."""
        q = self._ratio(v)
        share = q / (1 + q)
        if self.pairs:
            squares = _modulus(v).square().clamp(min=torch.finfo(v.dtype).tiny)
            along = _repeated(_sum_of_pairs(v * direction)) * v / squares
            return share * (direction + self.exponent / (1 + q) * along)
        return share * (1 + self.exponent / (1 + q)) * direction

    def derivative_root(self, v: Tensor, max_slope: float = math.inf) -> Callable[[Tensor], Tensor]:
        """Elementwise, sqrt(q (g + 1 + q)) / (1 + q); for a pair that along v, and sqrt(q / (1 + q)) across."""
        share = self._share_of(v)
        slope = torch.addcmul(share * (1 + self.exponent), share, share, value=-self.exponent)
        root = slope.clamp_(max=max_slope).sqrt_()
        if not self.pairs:
            return lambda direction: root * direction
        across = share.sqrt()
        unit = v / _modulus(v).clamp(min=torch.finfo(v.dtype).tiny)
        extra = (root - across) * unit
        return lambda direction: across * direction + extra * _repeated(_sum_of_pairs(unit * direction))

    def threshold_derivative(self, v: Tensor) -> Tensor:
        """-g v q / (lam (1 + q)^2)."""
        share = self._share_of(v)
        return v.mul(torch.addcmul(-share, share, share)).mul_(self.exponent / self.thresholds)

    def potential(self, a: Tensor) -> Tensor:
        """R(a), from a table of the universal curve: relative error below 1e-5. Each row of a pair carries half of its cost."""
        table = _universal_potential(self.exponent)
        # What is below this costs nothing; the bound also keeps the gradient at 0 finite.
        nothing = max(math.exp(table.log_a_first - 40.0), torch.finfo(a.dtype).tiny)
        log_a = (self._size(a) / self.thresholds).clamp(min=nothing).log()
        position = (log_a - table.log_a_first) / table.log_a_step
        index = position.nan_to_num().floor().clamp(0, len(table.log_r) - 2).long()  # the position of a NaN remains NaN
        values = table.log_r.to(device=a.device, dtype=a.dtype)
        low, high = values[index], values[index + 1]
        # Linear in (log a, log R), beyond the ends too: R is a power of a at both ends.
        cost = (self.thresholds.square() * torch.exp(low + (high - low) * (position - index))).sum(dim=-1)
        return cost / 2 if self.pairs else cost

    def _size(self, v: Tensor) -> Tensor:
        return _modulus(v) if self.pairs else v.abs()

    def _share_of(self, v: Tensor) -> Tensor:
        """q / (1 + q), of the shape of v, without a gradient."""
        if not self.pairs:
            return self._share(v)
        return _repeated(self._share_of_pairs(v, torch.empty_like(_parts(v)[0])))

    def _share_of_pairs(self, v: Tensor, out: Tensor) -> Tensor:
        """q / (1 + q) of each pair: half of the logarithms, which are what takes the time."""
        real, imaginary = _parts(v)
        torch.mul(real, real, out=out).addcmul_(imaginary, imaginary)
        thresholds = self.thresholds if self.thresholds.ndim == 1 else self.thresholds[0::2]
        torch.add(thresholds.log().mul_(-self.exponent), out.log_(), alpha=self.exponent / 2, out=out)
        return out.sigmoid_()

    def _share(self, v: Tensor, out: Tensor | None = None) -> Tensor:
        """q / (1 + q), without a gradient."""
        # It is sigmoid(log q) with log q = g (log|v| - log lam): no pow, nothing that overflows, few passes over memory.
        # log(0) = -inf is meant: its sigmoid is the 0 of the formula.
        out = torch.abs(v) if out is None else torch.abs(v, out=out)
        if self.thresholds.ndim == 4:  # a division instead of as many logarithms
            return out.div_(self.thresholds).log_().mul_(self.exponent).sigmoid_()
        torch.add(self.thresholds.log().mul_(-self.exponent), out.log_(), alpha=self.exponent, out=out)
        return out.sigmoid_()

    def _ratio(self, v: Tensor) -> Tensor:
        # The bound keeps q and its gradient finite; q / (1 + q) is 1 there in every digit.
        bound = torch.finfo(v.dtype).max ** (0.5 / self.exponent)
        q: Tensor = (self._size(v) / self.thresholds).clamp(max=bound) ** self.exponent
        return q


@dataclass(frozen=True, eq=False)
class GroupSoftThreshold(Regulariser):
    """CPR: the coefficients of one atom at group_size x group_size neighbouring pixels are shrunk by their common norm.

    T(v) = max(1 - lam_i / |v_group|, 0) v, the prox of R(a) = sum over groups of lam_i |a_group|. Group size 1 is plain soft
    thresholding. Groups do not overlap, so y and x have to be multiples of the group size.

    The authors' own potential multiplies |a_group| by lam exp(+s_i) where their prox uses the threshold lam exp(-s_i); the
    prox is what defines the reconstruction, and the potential here is the one that belongs to it.

    Parameters
    ----------
    thresholds
        (n,) positive.
    size
        Side of a group in pixels.

    Source
    ------
    arXiv 2412.13070, the convex patch-based regulariser.
    """

    size: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.thresholds.ndim != 1:
            raise ValueError(f"thresholds: expected (n,) for groups, got {tuple(self.thresholds.shape)}")
        if self.size < 1:
            raise ValueError(f"size: expected a number of pixels >= 1, got {self.size}")

    @property
    def group_size(self) -> int:
        """Side of a group in pixels."""
        return self.size

    @property
    def is_norm(self) -> bool:
        """A weighted sum of the norms of groups is one."""
        return True

    def prox(self, v: Tensor) -> Tensor:
        """max(1 - lam / |v_group|, 0) v."""
        groups = self._grouped(v)
        keep = (1 - self.thresholds / self._norms(groups)).clamp(min=0)
        return (groups * keep).reshape(v.shape)

    def prox_derivative(self, v: Tensor, direction: Tensor) -> Tensor:
        """On a group that survives: (1 - lam/|v|) h + lam/|v|^3 v <v, h>; 0 on one that does not."""
        groups, h = self._grouped(v), self._grouped(direction)
        norms = self._norms(groups)
        along = (groups * h).sum(dim=(-4, -2), keepdim=True)
        along = (_repeated(_sum_of_pairs(along)) if self.pairs else along) / norms.square()
        shrink = self.thresholds / norms
        result = torch.where(shrink < 1, (1 - shrink) * h + shrink * along * groups, torch.zeros_like(h))
        return result.reshape(v.shape)

    def derivative_root(self, v: Tensor, max_slope: float = math.inf) -> Callable[[Tensor], Tensor]:
        """T' is 1 along a group that survives and 1 - lam/|v| across it; the root has the roots of these."""
        del max_slope  # its eigenvalues are at most 1
        groups = self._grouped(v)
        unit = groups / self._norms(groups)
        keep = 1 - self.thresholds / self._norms(groups)
        across = keep.clamp(min=0).sqrt()
        # (root - across) along the group; nothing at all on one that does not survive
        extra = torch.where(keep > 0, 1 - across, torch.zeros_like(across)) * unit

        def apply(direction: Tensor) -> Tensor:
            h = self._grouped(direction)
            along = (unit * h).sum(dim=-4, keepdim=True).sum(dim=-2, keepdim=True)
            along = _repeated(_sum_of_pairs(along)) if self.pairs else along
            return (across * h + along * extra).reshape(v.shape)

        return apply

    def threshold_derivative(self, v: Tensor) -> Tensor:
        """-v / |v_group| on a group that survives; 0 on one that does not."""
        groups = self._grouped(v)
        norms = self._norms(groups)
        return torch.where(norms > self.thresholds, -groups / norms, torch.zeros_like(groups)).reshape(v.shape)

    def potential(self, a: Tensor) -> Tensor:
        """lam_i |a_group|, each pixel of a group carrying its share of it."""
        groups = self._grouped(a)
        norms = self._norms(groups)
        # They have a floor, where a group costs nothing; a NaN remains one.
        norms = torch.where(norms <= 2 * torch.finfo(a.dtype).tiny ** 0.5, 0.0, norms)
        shares = norms / ((2 if self.pairs else 1) * self.size**2)
        cost: Tensor = (shares * self.thresholds).sum(dim=-1)  # (..., y / size, 1, x / size, 1)
        return cost.expand(groups.shape[:-1]).reshape(a.shape[:-1])

    def dual_norm(self, v: Tensor) -> Tensor:
        """Of each row, (rows, y, x, n) -> (rows,): the largest |v_group| / lam_i; <v, a> <= dual_norm(v) R(a) for all a."""
        return (self._norms(self._grouped(v)) / self.thresholds).flatten(1).amax(dim=1)

    def _grouped(self, v: Tensor) -> Tensor:
        """(..., y, x, n) -> (..., y / size, size, x / size, size, n)."""
        *batch, height, width, n = v.shape
        if height % self.size or width % self.size:
            raise ValueError(
                f"image size: CPR shrinks groups of {self.size} x {self.size} pixels, so both sides have to be multiples of "
                f"{self.size}; got {height} x {width}"
            )
        return v.reshape(*batch, height // self.size, self.size, width // self.size, self.size, n)

    def _norms(self, groups: Tensor) -> Tensor:
        # For a group of zeros 1 - lam / tiny < 0: it stays 0, without a NaN, in the gradient too.
        tiny = torch.finfo(groups.dtype).tiny
        if self.size == 1 and not self.pairs:
            return groups.abs().clamp(min=tiny**0.5)
        # One axis after the other is 16 times quicker than torch's norm over two axes that are apart.
        squares = groups.square().sum(dim=-4, keepdim=True).sum(dim=-2, keepdim=True)
        if self.pairs:
            squares = _repeated(_sum_of_pairs(squares))
        return squares.clamp(min=tiny).sqrt()


def _parts(v: Tensor) -> tuple[Tensor, Tensor]:
    """Real and imaginary rows: views."""
    if v.shape[0] % 2:
        raise ValueError(f"coefficients: expected pairs of rows, real and imaginary part, got {v.shape[0]} rows")
    return v[0::2], v[1::2]


def _sum_of_pairs(v: Tensor) -> Tensor:
    real, imaginary = _parts(v)
    return real + imaginary


def _repeated(v: Tensor) -> Tensor:
    """Each row twice."""
    return v.repeat_interleave(2, dim=0)


def _modulus(v: Tensor) -> Tensor:
    """Of the pair, for both of its rows."""
    return _repeated(_sum_of_pairs(v.square()).sqrt())


@dataclass(frozen=True, eq=False)
class _LogLogTable:
    """log R_1 on a uniform grid of log a."""

    log_a_first: float
    log_a_step: float
    log_r: Tensor


@functools.lru_cache(maxsize=8)
def _universal_potential(exponent: float) -> _LogLogTable:
    """R_1(T_1(v)) = integral of (s - T_1(s)) T_1'(s) ds from 0 to v, resampled on a uniform grid of log T_1(v).

    For small v the integrand is (g + 1) s^(g + 1), which starts the integral off; everything in float64.
    """
    log_v = np.linspace(np.log(1e-6), np.log(1e10), 400_001)
    v = np.exp(log_v)
    q = v**exponent
    prox = v * q / (1 + q)
    integrand = v / (1 + q) * q * (exponent + 1 + q) / (1 + q) ** 2 * v  # the last v: ds = s d(log s)
    first = (exponent + 1) / (exponent + 2) * v[0] ** (exponent + 2)
    steps = 0.5 * (integrand[1:] + integrand[:-1]) * (log_v[1] - log_v[0])
    potential = first + np.concatenate([[0.0], np.cumsum(steps)])
    log_a = np.linspace(np.log(prox[0]), np.log(prox[-1]), 8192)
    log_r = np.interp(log_a, np.log(prox), np.log(potential))
    return _LogLogTable(float(log_a[0]), float(log_a[1] - log_a[0]), torch.from_numpy(log_r))
