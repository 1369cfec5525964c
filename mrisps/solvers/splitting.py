"""Douglas-Rachford splitting: where R is a norm (CPR) and the image step is in closed form.

It takes a third of the iterations of :mod:`mrisps.solvers.inertial`, and fewer at tight tolerances.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from mrisps.model import PatchTransform, to_real_images
from mrisps.solvers.descent import Descent, DescentOptions, Stage, predict, predictions, squared_norm
from mrisps.solvers.image_step import ConvolutionStep

__all__ = ["Splitting"]

STRENGTH = 0.02
"""Penalty rho of the splitting, in units of the bound 1 on the Hessian of f. Where the dictionary is redundant, combinations of
atoms that leave the image alone shrink by lam / rho an iteration: a larger penalty is slow there, a smaller one elsewhere."""

RELAXATION = 1.8
"""Over-relaxation of the splitting, below 2."""


class Splitting(Descent):
    """Douglas-Rachford splitting of f and R, both of which are minimised exactly in every iteration.

        p = argmin_a f(a) + rho/2 |a - v|^2,    w = argmin_a R(a) + rho/2 |a - (2 p - v)|^2,    v <- v + alpha (w - p)

    The first is a minimum over the image and the coefficients together. With M = (rho + beta C C^T)^-1, an r x r matrix, p is
    v + beta C^T M (B P x - C v), and what that leaves for the image is

        (A^H A + beta P^T B^T rho M B P) x = A^H y + beta P^T B^T rho M C v:

    the image step of a prior whose basis is (rho M)^(1/2) B. So an iteration is what it is in the inertial algorithm: two GEMMs, a
    shrinkage, an image step. Its coefficients are w.

    The iteration needs R to be convex: for NCPR the energy rises. And it needs the prox of R / rho, which is T with the thresholds
    lam / rho where R is a norm.

    Parameters
    ----------
    stage, options, factor, n_rows
        As in :func:`start_descent`; the image step has to be in closed form.
    coefficients
        v to start from, (rows, y, x, n); they are overwritten. None for v = 0.
    near_minimum
        The coefficients are a, those of a similar problem's minimum: v is a + grad f(a) / rho, from where that is w again.

    Source
    ------
    Lions and Mercier, SIAM J. Numer. Anal. 16 (1979) 964-979; Eckstein and Bertsekas, Math. Programming 55 (1992) 293-318
    (over-relaxation).
    """

    ROWS = ("coefficients", "_auxiliary", "_misfit", "moved", "size")

    def __init__(
        self,
        stage: Stage,
        options: DescentOptions,
        factor: float,
        n_rows: int,
        coefficients: Tensor | None,
        *,
        near_minimum: bool = False,
    ) -> None:
        super().__init__(stage, options, factor, n_rows)
        prior, transfer = stage.prior, stage.image_step.transfer
        assert transfer is not None
        values, vectors = torch.linalg.eigh(prior.beta * (prior.factors.double() @ prior.factors.double().T))

        def of_eigenvalues(function: Callable[[Tensor], Tensor]) -> Tensor:
            result: Tensor = (vectors * function(values.clamp(min=0))) @ vectors.T
            return result

        dtype = prior.basis.dtype
        half_weight = of_eigenvalues(lambda value: (STRENGTH / (STRENGTH + value)).sqrt())  # (rho M)^(1/2)
        back = of_eigenvalues(lambda value: (STRENGTH * (STRENGTH + value)).rsqrt())  # (M / rho)^(1/2)
        self._predictor = (prior.factors.double().T @ half_weight).to(dtype)  # v -> (rho M)^(1/2) C v
        self._gradient = (prior.beta * back @ prior.factors.double()).to(dtype)  # residual -> p - v
        side = stage.transform.patch_size
        filters = (half_weight @ prior.basis.double()).to(dtype).reshape(-1, side, side)
        self._transform = PatchTransform(filters, stage.transform.stride)
        self._joint_step = ConvolutionStep(stage.image_step.adjoint_y, transfer, prior, self._transform)
        self._auxiliary = self._coefficients_like_zero() if coefficients is None else coefficients
        self.coefficients = self._auxiliary.clone()
        self._work = self._work_space(5 if options.half_storage else 3)
        if near_minimum:
            misfit = self._image_and_misfit()[1]
            for rows, ys in prior.chunks(self.shape):
                step = misfit[rows, ys] @ prior.factors
                self._auxiliary[rows, ys] -= (step * (prior.beta / STRENGTH)).to(self._auxiliary.dtype)
            del misfit
        self._follow(predictions(prior, self._auxiliary, self._predictor))

    def _follow(self, prediction: Tensor) -> None:
        """The image of v, and its residual in place of the prediction."""
        self.image = self._joint_step.solve(prediction)
        self._misfit = self._transform.residual_(to_real_images(self.image), prediction)

    def leave_out(self, position: int, order: Tensor) -> Tensor:
        """As of every algorithm; the image step of its own, too."""
        self._joint_step = self._joint_step.take(order)
        return super().leave_out(position, order)

    def _advance(self, measure: bool, exactly: bool) -> None:
        prior, n = self.stage.prior, self.stage.prior.n_atoms
        regulariser = prior.regulariser.scaled(self.factor / STRENGTH)
        half = self.options.half_storage
        if measure:
            self.moved, self.size = torch.zeros_like(self.moved), torch.zeros_like(self.moved)
        for rows, ys in prior.chunks(self.shape):
            auxiliary, coefficients, misfit = (
                self._auxiliary[rows, ys],
                self.coefficients[rows, ys],
                self._misfit[rows, ys],
            )
            first, second, work, *spare = (buffer[: auxiliary.numel()].view(auxiliary.shape) for buffer in self._work)
            v, w = (spare[0].copy_(auxiliary), spare[1]) if half else (auxiliary, coefficients)
            torch.mm(misfit.flatten(0, 2), self._gradient, out=first.view(-1, n))
            torch.add(v, first, alpha=2, out=second)
            regulariser.prox_into(second, w, work)
            if half:
                w.copy_(coefficients.copy_(w))
            difference = torch.sub(w, first.add_(v), out=second)  # w - p
            v.add_(difference, alpha=RELAXATION)
            if half:
                v.copy_(auxiliary.copy_(v))  # what is predicted belongs to what is stored
            predict(v, self._predictor, misfit)
            if measure:
                for row, (moved, a) in enumerate(zip(difference, w, strict=True), rows.start):
                    self.moved[row] += squared_norm(moved)
                    self.size[row] += squared_norm(a)
        if exactly:
            self._measure()
        elif measure:
            # rho (p - w) is in dR(w) + grad f(p) and |hess f| <= 1, so |w - T(w - grad f(w))| <= (1 + rho) |w - p|.
            # This bound is about ten times too large.
            self.moved *= (1 + STRENGTH) ** 2
        self._follow(self._misfit)

    def _measure(self) -> None:
        """|w - T(w - grad f(w))|^2."""
        prior, n = self.stage.prior, self.stage.prior.n_atoms
        misfit = self._image_and_misfit()[1]
        self.moved = torch.zeros_like(self.moved)
        for rows, ys in prior.chunks(self.shape):
            w = self.coefficients[rows, ys].to(prior.basis.dtype)
            first, second, work, *_ = (buffer[: w.numel()].view(w.shape) for buffer in self._work)
            torch.addmm(
                w.flatten(0, 2), misfit[rows, ys].flatten(0, 2), prior.factors, alpha=prior.beta, out=first.view(-1, n)
            )
            prior.regulariser.scaled(self.factor).prox_into(first, second, work)
            for row, moved in enumerate(second.sub_(w), rows.start):
                self.moved[row] += squared_norm(moved)

    def final_image(self) -> Tensor:
        """x(w)."""
        return self._image_and_misfit()[0]

    def _image_and_misfit(self) -> tuple[Tensor, Tensor]:
        """x(w) and B P x(w) - C w."""
        prior = self.stage.prior
        prediction = predictions(prior, self.coefficients, prior.factors.T.contiguous())
        image = self.stage.image_step.solve(prediction)
        return image, self.stage.transform.residual_(to_real_images(image), prediction)
