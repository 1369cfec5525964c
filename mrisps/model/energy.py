"""The energy, its gradients, and how far a pair (x, a) is from being stationary.

    E(x, a) = 1/2 |A x - y|^2 + sum_k [ beta/2 |Phat_k x - D a_k|^2 + R(a_k) ]

where k goes over all pixels or, with a stride s (:class:`PriorUse`), over every s-th of every s-th row, s^2 times each.

With the patch basis B (see :mod:`mrisps.model.atoms`) the coupling is ``|B P_k x - C a_k|^2``, C = B D^T: everything here is
in those r numbers a patch. The image x is (batch, set, y, x): usually one image for each entry of the batch, or one for each set
of coil maps. The images of all sets share the data term, and each has the prior. Coefficients are (rows, y, x, n) where *rows*
counts real images: batch * n_sets, or twice that for complex images (:func:`mrisps.model.patches.to_real_images`).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mrisps.model.config import PriorUse
from mrisps.model.patches import PatchTransform, to_images, to_real_images
from mrisps.model.shrinkage import Regulariser
from mrisps.operators import LinearOperator

__all__ = ["Energy", "EnergyTerms", "Prior"]

CHUNK_PIXELS = 2048
ACCELERATOR_CHUNK_PIXELS = 1 << 17
"""Pixels whose coefficients are worked on at a time: 2048 x 200 float32 are 1.6 MB, which stays in a cache. An accelerator has no
use for small pieces; there they only bound the work space."""


@dataclass(frozen=True, eq=False)
class Prior:
    """The prior with its constraints met, for one dtype and device: what a solver iterates with.

    Parameters
    ----------
    free_atoms
        Q, (m, p^2): orthonormal zero-mean rows; the smooth part of a patch, which costs nothing.
    synthesis_atoms
        D, (n, p^2): zero-mean rows orthogonal to Q, beta |D|_2^2 = 0.99.
    basis
        B, (r, p^2): orthonormal rows, r = p^2 - 1 - m.
    beta
        Coupling weight > 0.
    regulariser
        R and its prox.
    stride
        See :class:`PriorUse`.
    """

    free_atoms: Tensor
    synthesis_atoms: Tensor
    basis: Tensor
    beta: float
    regulariser: Regulariser
    stride: int = 1

    def __post_init__(self) -> None:
        if not self.beta > 0:
            raise ValueError(f"beta: expected a number > 0, got {self.beta}")
        object.__setattr__(self, "_factors", self.basis @ self.synthesis_atoms.T)
        side = round(self.basis.shape[1] ** 0.5)
        object.__setattr__(self, "_transform", PatchTransform(self.basis.reshape(-1, side, side), self.stride))

    @property
    def factors(self) -> Tensor:
        """C = B D^T, (r, n): the synthesis atoms in the patch basis."""
        factors: Tensor = self.__dict__["_factors"]
        return factors

    @property
    def transform(self) -> PatchTransform:
        """x -> (B P_k x)_k."""
        transform: PatchTransform = self.__dict__["_transform"]
        return transform

    def used(self, use: PriorUse, complex_image: bool) -> "Prior":
        """The same prior, laid over real or complex images in another way."""
        regulariser = self.regulariser.paired() if use.modulus and complex_image else self.regulariser
        return replace(self, regulariser=regulariser, stride=use.stride)

    def with_thresholds(self, thresholds: Tensor) -> "Prior":
        """The same prior with other thresholds: (n,), or one for each coefficient, (rows, y / stride, x / stride, n)."""
        return replace(self, regulariser=replace(self.regulariser, thresholds=thresholds))

    def take(self, entries: Tensor, batch: int) -> "Prior":
        """The prior of these entries of a batch: another one where each coefficient has a threshold."""
        thresholds = self.regulariser.thresholds
        if thresholds.ndim == 1:
            return self
        by_entry = thresholds.view(batch, -1, *thresholds.shape[1:])  # (batch, rows of an image, y, x, n)
        return self.with_thresholds(by_entry[entries].flatten(0, 1))

    @property
    def n_atoms(self) -> int:
        """Number n of synthesis atoms."""
        return self.synthesis_atoms.shape[0]

    def predict(self, coefficients: Tensor) -> Tensor:
        """C a_k at every pixel: (rows, y, x, n) -> (rows, y, x, r)."""
        return coefficients @ self.factors.T

    def chunks(self, shape: tuple[int, int, int]) -> Iterator[tuple[slice, slice]]:
        """Slices (of rows, of y) that cut (rows, y, x) coefficients into cache-sized pieces without cutting a group or a pair."""
        n_rows, height, width = shape
        group = self.regulariser.group_size
        together = 2 if self.regulariser.pairs else 1
        pixels = CHUNK_PIXELS if self.basis.device.type == "cpu" else ACCELERATOR_CHUNK_PIXELS
        step = max(group, pixels // (together * width) // group * group)
        for row in range(0, n_rows, together):
            for first in range(0, height, step):
                yield slice(row, row + together), slice(first, first + step)


@dataclass(frozen=True)
class EnergyTerms:
    """The three terms of E for every image of a batch, each (batch,) in float64."""

    data: Tensor
    coupling: Tensor
    regularisation: Tensor

    @property
    def total(self) -> Tensor:
        """E, (batch,)."""
        return self.data + self.coupling + self.regularisation


@dataclass(frozen=True, eq=False)
class Energy:
    """E(x, a) for given measurements.

    Parameters
    ----------
    operator
        A; its domain is images (set, y, x), real or complex.
    y
        Measurements (batch, *operator.range_shape).
    prior
        Of the real dtype that matches the operator's, on its device.
    """

    operator: LinearOperator
    y: Tensor
    prior: Prior

    def __post_init__(self) -> None:
        thresholds = self.prior.regulariser.thresholds
        if thresholds.ndim == 4:
            expected = (self.n_real_images, *self.grid_shape, self.prior.n_atoms)
            if thresholds.shape != expected:
                raise ValueError(f"thresholds: expected (rows, y, x, n) = {expected}, got {tuple(thresholds.shape)}")

    def with_thresholds(self, thresholds: Tensor) -> "Energy":
        """The energy with one threshold for each coefficient, (rows, y / stride, x / stride, n)."""
        return replace(self, prior=self.prior.with_thresholds(thresholds))

    def take(self, entries: Tensor) -> "Energy":
        """The energy of these entries of the batch alone."""
        return Energy(self.operator.take(entries), self.y[entries], self.prior.take(entries, len(self.y)))

    @property
    def image_shape(self) -> tuple[int, int]:
        """(y, x) of the image."""
        height, width = self.operator.domain_shape[-2:]
        return height, width

    @property
    def grid_shape(self) -> tuple[int, int]:
        """Patches along (y, x)."""
        return self.prior.transform.grid_shape(self.image_shape)

    @property
    def n_sets(self) -> int:
        """Images that share one set of measurements: 1, or the number of sets of coil maps."""
        return self.operator.domain_shape[0]

    @property
    def n_real_images(self) -> int:
        """Batch times sets, times two if the images are complex."""
        return self.y.shape[0] * self.n_sets * (2 if self.operator.domain_dtype.is_complex else 1)

    @property
    def _patch_weight(self) -> float:
        return self.prior.beta * self.prior.stride**2

    def zero_coefficients(self) -> Tensor:
        """a = 0: (rows, y, x, n)."""
        return self.prior.synthesis_atoms.new_zeros(self.n_real_images, *self.grid_shape, self.prior.n_atoms)

    def value(self, image: Tensor, coefficients: Tensor, cost_map: Tensor | None = None) -> EnergyTerms:
        """The terms of E(x, a); summed in float64. Where the cost map of the coefficients is known, R is its sum."""
        data = 0.5 * _sum_per_image(_squared_magnitude(self.operator.forward(image) - self.y), self.y.shape[0])
        analysed = self.prior.transform.forward(to_real_images(image))
        coupling = torch.zeros(self.n_real_images, dtype=torch.float64, device=image.device)
        regularisation = torch.zeros_like(coupling)
        for rows, ys in self.prior.chunks((self.n_real_images, *self.grid_shape)):
            a = coefficients[rows, ys].to(analysed.dtype)
            misfit = analysed[rows, ys] - self.prior.predict(a)
            coupling[rows] += 0.5 * self.prior.beta * _sum_per_row(misfit.square())
            if cost_map is None:
                regularisation[rows] += _sum_per_row(self.prior.regulariser.at(rows, ys).potential(a))
        coupling, regularisation = (
            _per_image(self.prior.stride**2 * values, len(data)) for values in (coupling, regularisation)
        )
        return EnergyTerms(data, coupling, regularisation if cost_map is None else _sum_per_row(cost_map))

    def gradient_image(self, image: Tensor, prediction: Tensor) -> Tensor:
        """dE/dx = A^H (A x - y) + beta sum_k P_k^T B^T (B P_k x - C a_k), for ``prediction`` = C a (rows, y, x, r)."""
        misfit = self.prior.transform.forward(to_real_images(image)) - prediction
        smooth = to_images(self.prior.transform.adjoint(misfit), image.dtype, self.n_sets)
        return self.operator.adjoint(self.operator.forward(image) - self.y) + self._patch_weight * smooth

    def coefficient_step(self, image: Tensor, coefficients: Tensor) -> Tensor:
        """T(a - dE_smooth/da) = T(a + beta C^T (B P_k x - C a_k)): the fixed-point map in a for a given image."""
        analysed = self.prior.transform.forward(to_real_images(image))
        result = torch.empty_like(coefficients)
        for rows, ys in self.prior.chunks((self.n_real_images, *self.grid_shape)):
            a = coefficients[rows, ys]
            misfit = analysed[rows, ys] - self.prior.predict(a)
            result[rows, ys] = self.prior.regulariser.at(rows, ys).prox(
                a + self.prior.beta * (misfit @ self.prior.factors)
            )
        return result

    def residuals(self, image: Tensor, coefficients: Tensor, nonnegative: bool = False) -> tuple[Tensor, Tensor]:
        """How far (x, a) is from stationary, per image: (|dE/dx| / |A^H y|, |a - T(a - dE_smooth/da)| / |a|), float64 (batch,).

        Both vanish exactly at a stationary point of E. Where the denominator is zero the numerator stands alone. With
        ``nonnegative`` the point is one under x >= 0: a gradient that points below 0 does not count where x is 0.
        """
        batch = self.y.shape[0]
        analysed = self.prior.transform.forward(to_real_images(image))
        prediction = torch.empty_like(analysed)
        moved = torch.zeros(self.n_real_images, dtype=torch.float64, device=image.device)
        size = torch.zeros_like(moved)
        for rows, ys in self.prior.chunks((self.n_real_images, *self.grid_shape)):
            a = coefficients[rows, ys].to(analysed.dtype)
            prediction[rows, ys] = self.prior.predict(a)
            misfit = analysed[rows, ys] - prediction[rows, ys]
            step = self.prior.regulariser.at(rows, ys).prox(a + self.prior.beta * (misfit @ self.prior.factors))
            moved[rows] += _sum_per_row((a - step).square())
            size[rows] += _sum_per_row(a.square())
        residual_x, scale_x = self.residual_image(image, prediction, nonnegative)
        return _relative(residual_x, scale_x), _relative(
            _per_image(moved, batch).sqrt(), _per_image(size, batch).sqrt()
        )

    def residual_image(
        self, image: Tensor, prediction: Tensor | None = None, nonnegative: bool = False
    ) -> tuple[Tensor, Tensor]:
        """(|dE/dx|, |A^H y|) for ``prediction`` = C a, by default that of a = 0; float64 (batch,)."""
        if prediction is None:
            misfit = self.prior.transform.forward(to_real_images(image))
            patch_side = to_images(self.prior.transform.adjoint(misfit), image.dtype, self.n_sets)
            gradient = self.operator.adjoint(self.operator.forward(image) - self.y) + self._patch_weight * patch_side
        else:
            gradient = self.gradient_image(image, prediction)
            if nonnegative:
                gradient = torch.where(image > 0, gradient, gradient.clamp(max=0))
        batch = self.y.shape[0]
        return _norms(gradient, batch), _norms(self.operator.adjoint(self.y), batch)

    def cost_map(self, coefficients: Tensor) -> Tensor:
        """How much every pixel costs: sum over atoms, sets, real and imaginary part of R_i(a_k), (batch, 1, y, x)."""
        real = self.prior.basis.dtype
        cost = torch.empty(coefficients.shape[:-1], dtype=real, device=coefficients.device)
        for rows, ys in self.prior.chunks((self.n_real_images, *self.grid_shape)):
            cost[rows, ys] = self.prior.regulariser.at(rows, ys).potential(coefficients[rows, ys].to(real))
        return self._on_pixels(cost.reshape(self.y.shape[0], -1, *self.grid_shape).sum(dim=1, keepdim=True))

    def attention_map(self, own: Tensor) -> Tensor:
        """Where a map of thresholds is below the thresholds (n,) of the atoms: sum over atoms of -log(lam_k(p) / lam_k).

        (batch, 1, y, x), the mean over sets, real and imaginary part. Above 0 the prior is relaxed, below 0 it is tightened.
        """
        relaxed = own.log().sum() - self.prior.regulariser.thresholds.log().sum(dim=-1)
        return self._on_pixels(relaxed.reshape(self.y.shape[0], -1, *self.grid_shape).mean(dim=1, keepdim=True))

    def _on_pixels(self, values: Tensor) -> Tensor:
        """A patch that stands for several is shown on all their pixels."""
        stride = self.prior.stride
        return values.repeat_interleave(stride, dim=-2).repeat_interleave(stride, dim=-1) if stride > 1 else values


def _squared_magnitude(z: Tensor) -> Tensor:
    return z.real.square() + z.imag.square() if z.is_complex() else z.square()


def _per_image(values: Tensor, batch: int) -> Tensor:
    """Sum over the real images of each image."""
    return values.reshape(batch, -1).sum(dim=1)


def _sum_per_row(values: Tensor) -> Tensor:
    return values.flatten(1).sum(dim=1, dtype=torch.float64)


def _sum_per_image(values: Tensor, batch: int) -> Tensor:
    return values.reshape(batch, -1).sum(dim=1, dtype=torch.float64)


def _norms(z: Tensor, batch: int) -> Tensor:
    return _sum_per_image(_squared_magnitude(z), batch).sqrt()


def _relative(numerator: Tensor, denominator: Tensor) -> Tensor:
    return torch.where(denominator > 0, numerator / denominator.clamp(min=torch.finfo(torch.float64).tiny), numerator)
