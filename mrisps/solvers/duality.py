"""How far the energy of a convex problem (CPR) can be above its minimum, at most: the duality gap.

With W = stride^2 beta and R the weighted norm of CPR, the energy and its dual are

    E(x, a) = 1/2 |A x - y|^2 + W/2 sum_k |B P_k x - C a_k|^2 + stride^2 R(a)
    D(u, w) = -1/2 |u|^2 - Re<u, y> - W/2 |w|^2    under    A^H u + W P^T B^T w = 0    and    beta C^T w in the ball of R,

where the ball holds the v with |v_group| <= lam_i in every group. D is nowhere above the minimum of E. If x minimises the energy
for coefficients p, the residuals u = A x - y and w = B P x - C p meet the first condition. Divided by the factor by which
beta C^T w leaves the ball (its dual norm) they meet the second condition, too.

One group that leaves the ball is enough to spoil the bound. So p is not a itself. It minimises the energy plus
rho/2 |p - (a - xi / rho)|^2, which brings beta C^T w as near to a target xi in the ball as the first condition allows: one image
step with the basis (rho M)^(1/2) B, as in :mod:`mrisps.solvers.splitting`. The new beta C^T w gives the next target. For the
target it is pushed into the ball by more than it has left it.

The image step leaves a remainder g = A^H u + W P^T B^T w. It costs at most |g| |x*|, in the norm of the step's matrix H and in the
dual of that norm, and |x*| is bounded through R(a*) <= E. In closed form everything here is in double precision.

Source
------
Fenchel-Rockafellar duality: Rockafellar, Convex Analysis (1970), section 31. The scaling: Mairal et al., Foundations and Trends in
Computer Graphics and Vision 8 (2014), section 5.
"""

from dataclasses import replace

import torch
from torch import Tensor

from mrisps.model import Energy, GroupSoftThreshold, PatchTransform, Prior, to_images, to_real_images
from mrisps.solvers.image_step import ConvolutionStep, ImageStep

__all__ = ["energy_gap"]

ROUNDS = 8
"""Image steps at most. With 8, the bound on the paper's reference problems is 2 to 10 times smaller than after one."""

STRENGTH = 2e-3
"""rho: small, so that the target counts and not the coefficients."""

PUSH = 4.0
"""The target is this many times further inside than the projection on the ball. Atoms share patches: a push of 1 is hardly felt."""

STEP_TOLERANCE = 1e-7
"""Of conjugate gradients, where the image step needs them."""


@torch.no_grad()
def energy_gap(
    energy: Energy,
    image_step: ImageStep,
    image: Tensor,
    coefficients: Tensor,
    *,
    enough: float = 0.0,
) -> Tensor | None:
    """A proven bound on (E(x, a) - min E) / E(x, a) for each image of the batch, (batch,) float64; None where R is no norm.

    Rounding aside, it is never below the true value, and it vanishes at the minimum. It is 0 where E is 0, and infinite where
    the image or the coefficients are not finite.

    Parameters
    ----------
    energy
        Operator, measurements, prior.
    image_step
        Of the same energy.
    image
        x, (batch, set, y, x).
    coefficients
        a, (rows, y / stride, x / stride, n).
    enough
        No better bound is looked for where every image has one below this.
    """
    prior = energy.prior
    if not isinstance(prior.regulariser, GroupSoftThreshold):
        return None
    if image_step.transfer is not None:
        prior = _in_double(prior)
        image = image.to(torch.complex128 if image.is_complex() else torch.float64)
    dual = _Dual(energy, prior, image_step, image.dtype)
    batch = len(image)
    misfit, weight = prior.transform.forward(to_real_images(image)), prior.beta * prior.stride**2
    regularisation = torch.zeros(energy.n_real_images, dtype=torch.float64, device=image.device)
    for rows, ys in prior.chunks((energy.n_real_images, *energy.grid_shape)):
        a = coefficients[rows, ys].to(misfit.dtype)
        misfit[rows, ys] -= prior.predict(a)
        regularisation[rows] += prior.regulariser.potential(a).flatten(1).sum(dim=1, dtype=torch.float64)
    squares, _, _ = dual.data(image)
    cost = prior.stride**2 * _per_image(regularisation, batch)
    primal = 0.5 * (squares + weight * _squares(misfit, batch)) + cost
    best = torch.full_like(primal, torch.inf)
    image_so_far = image
    for _ in range(ROUNDS):
        image_so_far, misfit = dual.step(misfit, coefficients, image_so_far)
        gap = primal - dual.value(image_so_far, misfit, primal)
        best = torch.where(gap < best, gap, best)  # a NaN is no bound
        if bool((best <= enough * primal).all()):
            break
    relative = torch.where(primal > 0, best.clamp(min=0) / primal.clamp(min=torch.finfo(primal.dtype).tiny), 0.0)
    return torch.where(primal.isfinite(), relative, torch.inf).cpu()


class _Dual:
    """Points that meet the conditions of the dual, and its value there."""

    def __init__(self, energy: Energy, prior: Prior, image_step: ImageStep, dtype: torch.dtype) -> None:
        self._energy, self._prior = energy, prior
        self._weight = prior.beta * prior.stride**2
        factors = prior.factors.double()
        values, vectors = torch.linalg.eigh(prior.beta * (factors @ factors.T))
        half_weight = (vectors * (STRENGTH / (STRENGTH + values.clamp(min=0))).sqrt()) @ vectors.T  # (rho M)^(1/2)
        self._half_weight = half_weight.to(prior.basis.dtype)
        self._predictor = (factors.T @ half_weight).to(prior.basis.dtype)
        self._largest = float(values.max())
        side = prior.transform.patch_size
        filters = self._half_weight @ prior.basis
        self._transform = PatchTransform(filters.reshape(-1, side, side), prior.stride)
        self._step: ConvolutionStep | ImageStep
        self._system: ConvolutionStep | ImageStep
        self._transfer = None if image_step.transfer is None else image_step.transfer.double()
        if self._transfer is None:
            self._step = ImageStep(energy, STEP_TOLERANCE, transform=self._transform)
            self._system = ImageStep(energy, STEP_TOLERANCE)
        else:
            adjoint_y = image_step.adjoint_y.to(dtype)
            self._step = ConvolutionStep(adjoint_y, self._transfer, prior, self._transform)
            self._system = ConvolutionStep(adjoint_y, self._transfer, prior, prior.transform)

    def data(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(|u|^2, Re<u, y>, A^H u) for u = A x - y."""
        energy, batch = self._energy, len(image)
        size = _squares(energy.y, batch)
        if self._transfer is None:
            u = energy.operator.forward(image) - energy.y
            return _squares(u, batch), _products(u, energy.y, batch), energy.operator.adjoint(u)
        adjoint_y = self._step.adjoint_y
        normal = torch.fft.ifft2(self._transfer * torch.fft.fft2(image))
        normal = normal if image.is_complex() else normal.real
        along = _products(image, adjoint_y, batch)
        squares = _products(image, normal, batch) - 2 * along + size
        return squares.clamp(min=0), along - size, normal - adjoint_y

    def step(self, misfit: Tensor, coefficients: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
        """The next x and w."""
        prior = self._prior
        prediction = torch.empty_like(misfit)
        for rows, ys in prior.chunks((misfit.shape[0], misfit.shape[1], misfit.shape[2])):
            v = prior.beta * (misfit[rows, ys] @ prior.factors)
            target = v - PUSH * prior.regulariser.prox(v)  # v - T(v) is the projection on the ball
            prediction[rows, ys] = (coefficients[rows, ys].to(v.dtype) - target / STRENGTH) @ self._predictor
        image = self._step.solve(prediction, start)
        misfit = self._transform.residual_(to_real_images(image), prediction) @ self._half_weight
        if self._transfer is None:  # once more, for what conjugate gradients have left
            rest = self._system.invert(self._remainder(image, misfit))
            image = image - rest
            misfit = misfit - prior.transform.forward(to_real_images(rest))
        return image, misfit

    def value(self, image: Tensor, misfit: Tensor, primal: Tensor) -> Tensor:
        """D at the best multiple of (u, w), less what the remainder can cost."""
        prior, batch = self._prior, len(image)
        regulariser = prior.regulariser
        assert isinstance(regulariser, GroupSoftThreshold)
        outside = torch.zeros(misfit.shape[0], dtype=torch.float64, device=image.device)
        for rows, ys in prior.chunks((misfit.shape[0], misfit.shape[1], misfit.shape[2])):
            norms = regulariser.dual_norm(prior.beta * (misfit[rows, ys] @ prior.factors))
            outside[rows] = outside[rows].maximum(norms.double())
        squares, products, _ = self.data(image)
        curvature = squares + self._weight * _squares(misfit, batch)
        tiny = torch.finfo(curvature.dtype).tiny
        scale = (-products / curvature.clamp(min=tiny)).clamp(min=0)
        scale = scale.minimum(outside.reshape(batch, -1).amax(dim=1).clamp(min=tiny).reciprocal())
        remainder = self._remainder(image, misfit)
        length = _products(remainder, self._system.invert(remainder), batch).clamp(min=0).sqrt()
        most = primal / (prior.stride * float(regulariser.thresholds.min()))  # stride |a*|, since R(a*) <= E / stride^2
        reach = (_squares(self._energy.y, batch) + self._largest * most.square()).sqrt()  # |x*| in the norm of H
        value: Tensor = scale * (-products - 0.5 * scale * curvature - length * reach)
        return value

    def _remainder(self, image: Tensor, misfit: Tensor) -> Tensor:
        """A^H u + W P^T B^T w."""
        smooth = to_images(self._prior.transform.adjoint(misfit), image.dtype, self._energy.n_sets)
        return self.data(image)[2] + self._weight * smooth


def _in_double(prior: Prior) -> Prior:
    regulariser = replace(prior.regulariser, thresholds=prior.regulariser.thresholds.double())
    return replace(
        prior,
        free_atoms=prior.free_atoms.double(),
        synthesis_atoms=prior.synthesis_atoms.double(),
        basis=prior.basis.double(),
        regulariser=regulariser,
    )


def _per_image(values: Tensor, batch: int) -> Tensor:
    return values.reshape(batch, -1).sum(dim=1)


def _squares(z: Tensor, batch: int) -> Tensor:
    return _products(z, z, batch)


def _products(a: Tensor, b: Tensor, batch: int) -> Tensor:
    """Re<a, b> of each image, (batch,) float64."""
    product = (a.conj() * b).real if a.is_complex() else a * b
    return product.reshape(batch, -1).sum(dim=1, dtype=torch.float64)
