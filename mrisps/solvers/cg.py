"""Preconditioned conjugate gradients for symmetric positive (semi)definite systems, several at a time."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["CGResult", "add", "conjugate_gradients", "dot"]


@dataclass(frozen=True)
class CGResult:
    """What conjugate gradients reached.

    Parameters
    ----------
    solution
        (batch, ...).
    residual
        b - K x, (batch, ...), from the recurrence.
    relative_residual
        |b - K x| / |b| of each system, (batch,) float64, from the recurrence.
    n_iterations
        Iterations done.
    n_steps
        Iterations in which each system moved, (batch,) float64.
    met
        Which systems met the tolerance, (batch,) bool.
    """

    solution: Tensor
    residual: Tensor
    relative_residual: Tensor
    n_iterations: int
    n_steps: Tensor
    met: Tensor

    @property
    def converged(self) -> bool:
        """Whether every system met the tolerance."""
        return bool(self.met.all())


def conjugate_gradients(
    apply: Callable[[Tensor], Tensor],
    right_side: Tensor,
    *,
    start: Tensor,
    precondition: Callable[[Tensor], Tensor],
    tolerance: float,
    max_iterations: int,
    min_iterations: int = 0,
    look_every: int = 1,
    residual: Tensor | None = None,
    remainder: Callable[[Tensor], Tensor] | None = None,
) -> CGResult:
    """Solve K x = b for each entry of a batch.

    Parameters
    ----------
    apply
        x -> K x, K symmetric positive semidefinite in the real inner product Re<., .>.
    right_side
        b, (batch, ...), real or complex.
    start
        First guess of the shape of b.
    precondition
        r -> M^-1 r, M symmetric positive definite, near K.
    tolerance
        Stops when |b - K x| <= tolerance * |b| for every entry.
    max_iterations
        Most applications of K after the first.
    min_iterations
        Steps that are done although the tolerance is met: with a good start a solution that follows a moving b would otherwise
        stand still until b has moved by the tolerance.
    look_every
        Iterations between two looks at whether all is done; each look waits for the device. 0: never, ``max_iterations`` are done.
        Systems that meet the tolerance stand still meanwhile.
    residual
        b - K start, where it is known.
    remainder
        x -> K x - M x, where that costs less than K x. M p of the search directions p then follows from the recurrence that p has:
        p = M^-1 r + ratio p_before gives M p = r + ratio M p_before.

    Returns
    -------
    CGResult
        Not ``converged`` if the tolerance was not met or K turned out not to be positive along a search direction.

    Source
    ------
    Hestenes and Stiefel, J. Res. NBS 49 (1952) 409-436.
    """
    norm_b = dot(right_side, right_side).sqrt()
    threshold = tolerance * norm_b
    x = start.clone()  # what follows is done in place: the vectors may be large
    r = right_side - apply(x) if residual is None else residual.clone()
    z = precondition(r)
    p = z.clone()
    mp = r.clone() if remainder is not None else None
    rz = dot(r, z)
    size = dot(r, r).sqrt()
    n_steps = torch.zeros_like(size)
    for n_iterations in range(max_iterations + 1):
        look = look_every > 0 and n_iterations % look_every == 0
        wanted = size > threshold
        if n_iterations == max_iterations or (look and n_iterations >= min_iterations and not bool(wanted.any())):
            break
        kp = apply(p) if remainder is None or mp is None else remainder(p).add_(mp)
        curvature = dot(p, kp)
        active = (curvature > 0) if n_iterations < min_iterations else wanted & (curvature > 0)
        if look and not bool(active.any()):
            break
        step = torch.where(active, rz / torch.where(active, curvature, 1.0), 0.0)
        add(x, step, p)
        add(r, -step, kp)
        z = precondition(r)
        rz, rz_before = dot(r, z), rz
        ratio = torch.where(active, rz / torch.where(active, rz_before, 1.0), 0.0)
        _parts(p).mul_(_per_entry(ratio, p)).add_(_parts(z))
        if mp is not None:
            _parts(mp).mul_(_per_entry(ratio, mp)).add_(_parts(r))
        size = dot(r, r).sqrt()
        n_steps += active
    relative = torch.where(norm_b > 0, size / torch.where(norm_b > 0, norm_b, 1.0), size)
    return CGResult(x, r, relative, n_iterations, n_steps, size <= threshold)


PIECE = 1 << 16


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Re<a, b> of each entry of the batch; long vectors in pieces by BLAS, whose results are summed in float64."""
    a, b = _parts(a), _parts(b)
    if a.device.type == "cpu" and a[0].numel() >= PIECE and a.is_contiguous() and b.is_contiguous():
        pairs = zip(a.flatten(1), b.flatten(1), strict=True)
        pieces = [
            torch.stack([torch.dot(u, v) for u, v in zip(x.split(PIECE), y.split(PIECE), strict=True)])
            for x, y in pairs
        ]
        return torch.stack(pieces).sum(dim=1, dtype=torch.float64)
    return (a * b).flatten(1).sum(dim=1, dtype=torch.float64)


def _parts(z: Tensor) -> Tensor:
    """Real and imaginary part of a complex tensor, a view: real arithmetic with real numbers takes half of the time."""
    return torch.view_as_real(z.resolve_conj()) if z.is_complex() else z


def add(to: Tensor, factor: Tensor, vector: Tensor) -> None:
    """``to`` += factor of the entry * vector."""
    _parts(to).addcmul_(_per_entry(factor, to), _parts(vector))


def _per_entry(values: Tensor, like: Tensor) -> Tensor:
    parts = _parts(like)
    return values.to(parts.dtype).reshape(-1, *(1,) * (parts.ndim - 1))
