"""The adjoint system of the hypergradient, and the sums over patches that the gradient is made of.

The formulas are those of :mod:`mrisps.bilevel.hypergradient`.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from mrisps.model import Energy, Prior, extract_patches, to_images, to_real_images
from mrisps.solvers.image_step import ImageStep

__all__ = ["AdjointSystem", "moments"]


class AdjointSystem:
    """The symmetrised system at one point, and the maps it is made of."""

    def __init__(self, energy: Energy, image_step: ImageStep, coefficients: Tensor, max_slope: float) -> None:
        self.energy, self.prior, self.image_step = energy, energy.prior, image_step
        prediction = self.prior.predict(coefficients)
        self.image = image_step.solve(prediction)
        misfit = self._analyse(self.image) - prediction
        self.v = coefficients + self.prior.beta * (misfit @ self.prior.factors)
        self.root: Callable[[Tensor], Tensor] = self._by_row(self.prior.regulariser.derivative_root(self.v, max_slope))
        batch = self.image.shape[0]
        self.shape = (batch, coefficients.shape[0] // batch, *coefficients.shape[1:])  # one entry an image
        self._rows = coefficients.shape

    def zeros(self) -> Tensor:
        """u~ = 0."""
        return self.v.new_zeros(self.shape)

    def right_side(self, image_gradient: Tensor) -> Tensor:
        """T'^1/2 K H^-1 g."""
        analysed = self._analyse(self.image_step.invert(image_gradient))
        return self.root(self.prior.beta * (analysed @ self.prior.factors)).view(self.shape)

    def apply(self, direction: Tensor) -> Tensor:
        """(I - T'^1/2 (I - G) T'^1/2) u~."""
        q = self.root(direction)
        prediction = self.prior.predict(q)
        misfit = self.misfit_of(self.image_step.invert(self.synthesise(prediction)), prediction)
        # (I - G) q = q + beta C^T (B P x(q) - C q), with x(q) the image that q alone would make
        pulled = torch.addmm(
            q.view(-1, q.shape[-1]), misfit.reshape(-1, misfit.shape[-1]), self.prior.factors, alpha=self.prior.beta
        )
        return direction - self.root(pulled).view(self.shape)

    def synthesise(self, prediction: Tensor) -> Tensor:
        """s^2 K^T q = s^2 beta sum P^T B^T c for c = C q."""
        patch_side = self.prior.transform.adjoint(prediction)
        return (
            self.prior.beta
            * self.prior.stride**2
            * to_images(patch_side, self.energy.operator.domain_dtype, self.energy.n_sets)
        )

    def misfit_of(self, image: Tensor, prediction: Tensor) -> Tensor:
        """B P_k x - c_k."""
        return self._analyse(image) - prediction

    def _analyse(self, image: Tensor) -> Tensor:
        return self.prior.transform.forward(to_real_images(image))

    def _by_row(self, root: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda direction: root(direction.reshape(self.v.shape))


def moments(
    prior: Prior, image: Tensor, adjoint_image: Tensor, coefficients: Tensor, q: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """M (p^2, n), N (n, n) and J (p^2, p^2): sums over the patches that count, each once, in float64 over pieces of them."""
    p = prior.transform.patch_size
    n = prior.n_atoms
    m = torch.zeros(p * p, n, dtype=torch.float64, device=image.device)
    gram = torch.zeros(n, n, dtype=torch.float64, device=image.device)
    cross = torch.zeros(p * p, p * p, dtype=torch.float64, device=image.device)
    for row, ys, patches, adjoint_patches in _patch_pieces(image, adjoint_image, p, prior.stride):
        a, weights = coefficients[row, ys].flatten(0, 1), q[row, ys].flatten(0, 1)
        m += patches.T @ weights + adjoint_patches.T @ a
        gram += weights.T @ a
        cross += adjoint_patches.T @ patches
    return m, gram, cross


def _patch_pieces(
    image: Tensor, other: Tensor, patch_size: int, stride: int
) -> Iterator[tuple[int, slice, Tensor, Tensor]]:
    """The patches (piece, p^2) of two images that count, a few rows of their grid at a time."""
    height, width = image.shape[-2:]
    n_rows = height // stride
    rows_at_a_time = max(1, 4096 * stride // width)
    margin = -(-(patch_size // 2) // stride)  # rows of the grid above and below that the patches reach into
    for row in range(image.shape[0]):
        for first in range(0, n_rows, rows_at_a_time):
            last = min(n_rows, first + rows_at_a_time)
            around = torch.arange((first - margin) * stride, (last + margin) * stride, device=image.device) % height
            inner = slice(margin, margin + last - first)
            pieces = (
                extract_patches(one[row : row + 1, :, around], patch_size, stride)[0, inner] for one in (image, other)
            )
            patches, others = (piece.flatten(0, 1) for piece in pieces)
            yield row, slice(first, last), patches, others
