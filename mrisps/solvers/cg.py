"""Preconditioned conjugate gradients for symmetric positive (semi)definite systems, several at a time."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["CGResult", "conjugate_gradients"]


@dataclass(frozen=True)
class CGResult:
    """What conjugate gradients reached.

    Parameters
    ----------
    solution
        (batch, ...).
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

    Returns
    -------
    CGResult
        Not ``converged`` if the tolerance was not met or K turned out not to be positive along a search direction.

    Source
    ------
    Hestenes and Stiefel, J. Res. NBS 49 (1952) 409-436.
    """
    norm_b = _dot(right_side, right_side).sqrt()
    threshold = tolerance * norm_b
    x = start.clone()  # what follows is done in place: the vectors may be large
    r = right_side - apply(x)
    z = precondition(r)
    p = z.clone()
    rz = _dot(r, z)
    residual = _dot(r, r).sqrt()
    n_steps = torch.zeros_like(residual)
    for n_iterations in range(max_iterations + 1):
        look = look_every > 0 and n_iterations % look_every == 0
        wanted = residual > threshold
        if n_iterations == max_iterations or (look and n_iterations >= min_iterations and not bool(wanted.any())):
            break
        kp = apply(p)
        curvature = _dot(p, kp)
        active = (curvature > 0) if n_iterations < min_iterations else wanted & (curvature > 0)
        if look and not bool(active.any()):
            break
        step = torch.where(active, rz / torch.where(active, curvature, 1.0), 0.0)
        x.addcmul_(_per_entry(step, x), p)
        r.addcmul_(_per_entry(step, x), kp, value=-1)
        z = precondition(r)
        rz, rz_before = _dot(r, z), rz
        ratio = torch.where(active, rz / torch.where(active, rz_before, 1.0), 0.0)
        p.mul_(_per_entry(ratio, x)).add_(z)
        residual = _dot(r, r).sqrt()
        n_steps += active
    relative = torch.where(norm_b > 0, residual / torch.where(norm_b > 0, norm_b, 1.0), residual)
    return CGResult(x, relative, n_iterations, n_steps, residual <= threshold)


PIECE = 1 << 16


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Re<a, b> of each entry of the batch; long vectors in pieces by BLAS, whose results are summed in float64."""
    on_cpu = a.device.type == "cpu"
    if on_cpu and not a.is_complex() and a[0].numel() >= PIECE and a.is_contiguous() and b.is_contiguous():
        pairs = zip(a.flatten(1), b.flatten(1), strict=True)
        pieces = [
            torch.stack([torch.dot(u, v) for u, v in zip(x.split(PIECE), y.split(PIECE), strict=True)])
            for x, y in pairs
        ]
        return torch.stack(pieces).sum(dim=1, dtype=torch.float64)
    product = (a.conj() * b).real if a.is_complex() else a * b
    return product.flatten(1).sum(dim=1, dtype=torch.float64)


def _per_entry(values: Tensor, like: Tensor) -> Tensor:
    real = like.real.dtype if like.is_complex() else like.dtype
    return values.to(real).reshape(-1, *(1,) * (like.ndim - 1))
