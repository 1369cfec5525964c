"""How an image answers to the parameters after a given number of iterations.

:mod:`mrisps.bilevel.hypergradient` differentiates a minimiser. A reconstruction ends before that, and what is best for a minimiser
need not be best where it ends. Here its iterations themselves are differentiated, from the last to the first. With e the
extrapolated coefficients and m the inertia, an iteration of :class:`mrisps.solvers.inertial.Inertial` is

    e = a_k + m (a_k - a_k-1),        v = e - beta D D^T e + K x(e),        a_k+1 = T(v),

    H x(e) = A^H y + s^2 K^T e,       K x = beta (D P_k x)_k,

in the notation of the hypergradient. Backwards, with c_k = dL/da_k,

    p = T'(v) c_k+1,        H w = s^2 K^T p,        dL/de = p - beta D D^T p + K w,

and, e, x(e), p and w being held, dL/dtheta of this iteration is the gradient of

    Phi = beta [ <D, M> - <D D^T, N> + <Q Q^T, J> ] + sum_i lam_i tau_i + const(theta),
    M = sum_k (P_k x) p_k^T + (P_k w) e_k^T,   N = sum_k p_k e_k^T,   J = sum_k (P_k w)(P_k x)^T,
    tau_i = sum_k c_k+1,i dT_i/dlam_i(v_k).

These are the sums of the hypergradient, added up over the iterations. Where the iterations start (at 0, or where the coarse stages
ended) is held.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mrisps.bilevel.adjoint import moments
from mrisps.bilevel.hypergradient import pull_back
from mrisps.model import Energy, Regulariser, SmoothPlusSparse, to_images, to_real_images
from mrisps.solvers.descent import Descent
from mrisps.solvers.image_step import ImageStep
from mrisps.solvers.inertial import Inertial

__all__ = ["Trajectory", "TrajectoryGradient", "trajectory_gradient"]


@dataclass(frozen=True, eq=False)
class TrajectoryGradient:
    """dL/dtheta of an image after some iterations.

    Parameters
    ----------
    raw_free_atoms, raw_synthesis_atoms, log_thresholds, beta
        Of the shape and dtype of the model's parameters.
    thresholds
        dL/dlam, of the shape of the prior's thresholds: (n,), or (rows, y / stride, x / stride, n).
    start
        dL/da_0, (rows, y / stride, x / stride, n).
    """

    raw_free_atoms: Tensor
    raw_synthesis_atoms: Tensor
    log_thresholds: Tensor
    beta: Tensor
    thresholds: Tensor
    start: Tensor

    @property
    def finite(self) -> bool:
        """Whether every number of the gradient is finite."""
        parts = (self.raw_free_atoms, self.raw_synthesis_atoms, self.log_thresholds, self.beta, self.thresholds)
        return all(bool(part.isfinite().all()) for part in parts)


class Trajectory:
    """The iterations of a reconstruction on the full grid: what :func:`mrisps.solvers.minimise` calls with ``record``.

    Attributes
    ----------
    coefficients, images
        Before the first iteration and after each: (rows, y / stride, x / stride, n) and (batch, set, y, x).
    inertia, factors, regularisers
        Of the iteration that follows: m, the multiplier of the thresholds, and T.
    """

    def __init__(self) -> None:
        self.coefficients: list[Tensor] = []
        self.images: list[Tensor] = []
        self.inertia: list[float] = []
        self.factors: list[float] = []
        self.regularisers: list[Regulariser] = []

    def __call__(self, path: Descent) -> None:
        """Keep where the path is.

        Raises
        ------
        ValueError
            If the algorithm is not the inertial one: the splitting for CPR is not differentiated.
        """
        if not isinstance(path, Inertial):
            raise ValueError(
                "trajectory: expected the inertial algorithm (NCPR), the splitting for CPR is not differentiated"
            )
        self.coefficients.append(path.coefficients.clone())
        self.images.append(path.image.clone())
        self.inertia.append(path.inertia)
        self.factors.append(path.factor)
        self.regularisers.append(path.stage.prior.regulariser)


@torch.no_grad()
def trajectory_gradient(
    energy: Energy,
    model: SmoothPlusSparse | None,
    image_step: ImageStep,
    trajectory: Trajectory,
    image_gradient: Tensor,
) -> TrajectoryGradient:
    """dL/dtheta through the iterations of a trajectory, all images of the batch to its end.

    Parameters
    ----------
    energy
        Operator, measurements and prior at the end; :class:`mrisps.solvers.Minimum` has it.
    model
        Whose parameters are meant. None: only the gradient of a map of thresholds is wanted, and iterations before there was one
        are left out.
    image_step
        Of the same energy.
    trajectory
        What was recorded.
    image_gradient
        dL/dx of the last image, (batch, set, y, x); for complex images dL/d(real part) + i dL/d(imaginary part).
    """
    prior, scale = energy.prior, energy.prior.stride**2
    path = _Backwards(energy, image_step)
    images, coefficients = trajectory.images, trajectory.coefficients
    own = prior.regulariser.thresholds
    by_place = torch.zeros_like(own)
    by_atom = torch.zeros(prior.n_atoms, dtype=torch.float64, device=own.device)
    w = image_step.invert(image_gradient)
    cost = path.analysed(w).mul_(scale)  # dL/da, here s^2 K w
    before = torch.zeros_like(cost)  # what the iteration after this one adds to it
    total = [] if model is None else [scale * part for part in path.sums(images[-1], w, coefficients[-1], before)]
    for k in reversed(range(len(coefficients) - 1)):
        regulariser, m = trajectory.regularisers[k].scaled(trajectory.factors[k]), trajectory.inertia[k]
        mapped = regulariser.thresholds.ndim == 4
        if model is None and not mapped:
            break
        previous = max(k - 1, 0)
        e, image = (torch.lerp(values[previous], values[k], 1 + m) for values in (coefficients, images))
        v = path.forward(image, e)
        tau = regulariser.threshold_derivative(v).mul_(cost).mul_(trajectory.factors[k])
        if mapped:
            by_place += tau
        else:
            by_atom += tau.flatten(0, -2).sum(0, dtype=torch.float64)
        p = regulariser.prox_derivative(v, cost)
        w = path.image_of(p)
        if model is not None:
            total = [a + b for a, b in zip(total, path.sums(image, w, e, p), strict=True)]
        of_e = path.forward(w, p)
        cost, before = (before + (1 + m) * of_e, -m * of_e) if k else (before + of_e, before)
    if model is None:
        none = own.new_zeros(0)
        return TrajectoryGradient(none, none, none, none, by_place, cost)
    if own.ndim == 4:  # multiples of those of the atoms, and the multiples are held
        multiples = own / (model.lam * model.log_thresholds.double().exp()).to(own)
        by_atom += by_place.mul(multiples).flatten(0, -2).sum(0, dtype=torch.float64)
    else:
        by_place = by_atom.to(own)
    m_sum, gram, cross = total
    free, atoms, log_thresholds, beta = pull_back(model, m_sum, gram, cross, by_atom)
    return TrajectoryGradient(free, atoms, log_thresholds, beta, by_place, cost)


class _Backwards:
    """The maps that an iteration consists of, forwards and backwards alike: they are symmetric."""

    def __init__(self, energy: Energy, image_step: ImageStep) -> None:
        self._energy, self._prior, self._image_step = energy, energy.prior, image_step

    def forward(self, image: Tensor, coefficients: Tensor) -> Tensor:
        """a - beta D D^T a + K x."""
        prior = self._prior
        misfit = prior.transform.residual_(to_real_images(image), prior.predict(coefficients))
        flat = coefficients.reshape(-1, prior.n_atoms)
        moved = torch.addmm(flat, misfit.reshape(len(flat), -1), prior.factors, alpha=prior.beta)
        return moved.view(coefficients.shape)

    def analysed(self, image: Tensor) -> Tensor:
        """K x."""
        return self._prior.beta * (self._prior.transform.forward(to_real_images(image)) @ self._prior.factors)

    def image_of(self, coefficients: Tensor) -> Tensor:
        """w with H w = s^2 K^T a."""
        energy, prior = self._energy, self._prior
        patch_side = prior.transform.adjoint(prior.predict(coefficients)).mul_(prior.beta * prior.stride**2)
        return self._image_step.invert(to_images(patch_side, energy.operator.domain_dtype, energy.n_sets))

    def sums(self, image: Tensor, w: Tensor, coefficients: Tensor, p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """M, N and J of one iteration."""
        return moments(self._prior, to_real_images(image), to_real_images(w), coefficients, p)
