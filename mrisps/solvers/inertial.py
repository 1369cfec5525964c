"""Inertial proximal gradient: the algorithm of the default solver for every regulariser."""

import torch
from torch import Tensor

from mrisps.model import to_real_images
from mrisps.solvers.descent import Descent, DescentOptions, Stage, predict, predictions, squared_norm

__all__ = ["Inertial"]


class Inertial(Descent):
    """Inertial proximal gradient: extrapolate, GEMM, shrink, GEMM, in one pass over the coefficients.

    r = B P x(a) - C a is affine in a, so the residual at the extrapolated point is the extrapolated residual. The stationarity
    residual is that at the extrapolated point.

    Parameters
    ----------
    stage, options, factor, n_rows
        As in :func:`start_descent`.
    coefficients
        To start from, (rows, y, x, n); they are overwritten. None for a = 0.
    image
        A guess at the image that belongs to the coefficients, for conjugate gradients.
    inertia
        The inertia of the first iteration is what it would be after this number of iterations; 0 where a = 0.

    Source
    ------
    Beck and Teboulle, SIAM J. Imaging Sci. 2 (2009) 183-202.
    """

    ROWS = ("coefficients", "_previous", "_misfit", "_previous_misfit", "moved", "size")

    def __init__(
        self,
        stage: Stage,
        options: DescentOptions,
        factor: float,
        n_rows: int,
        coefficients: Tensor | None,
        *,
        image: Tensor | None = None,
        inertia: int = 0,
    ) -> None:
        super().__init__(stage, options, factor, n_rows)
        prior, transform = stage.prior, stage.transform
        self.n_done = 0
        self._predictor = prior.factors.T.contiguous()
        if coefficients is None:
            self.coefficients = self._coefficients_like_zero()
            self.image = stage.image_step.smooth_image()
            prediction = prior.basis.new_zeros(*self.coefficients.shape[:-1], len(prior.factors))
        else:
            self.n_done = inertia
            self.coefficients = coefficients
            prediction = predictions(prior, coefficients, self._predictor)
            self.image = stage.image_step.solve(prediction, image)
        self._previous = self.coefficients.clone()
        self._misfit = transform.residual_(to_real_images(self.image), prediction)  # r = B P x(a) - C a
        self._previous_misfit = self._misfit.clone()
        self._work = self._work_space(4 if options.half_storage else 3)

    @property
    def inertia(self) -> float:
        """Of the next iteration."""
        return self.n_done / (self.n_done + 3)

    def _advance(self, measure: bool, exactly: bool) -> None:
        del exactly  # it always is
        stage, prior = self.stage, self.stage.prior
        inertia = self.inertia
        self.n_done += 1
        regulariser = prior.regulariser.scaled(self.factor)
        extrapolated_misfit = torch.lerp(self._previous_misfit, self._misfit, 1 + inertia, out=self._previous_misfit)
        prediction = extrapolated_misfit  # C a takes the place of each chunk once that is used
        if measure:
            self.moved = torch.zeros(self.shape[0], dtype=torch.float64, device=self.image.device)
            self.size = torch.zeros_like(self.moved)
        n = prior.n_atoms
        half = self.options.half_storage
        for rows, ys in prior.chunks(self.shape):
            before, now = self._previous[rows, ys], self.coefficients[rows, ys]
            extrapolated, v, work = (buffer[: now.numel()].view(now.shape) for buffer in self._work[:3])
            if half:
                updated = self._work[3][: now.numel()].view(now.shape)
                torch.lerp(updated.copy_(before), v.copy_(now), 1 + inertia, out=extrapolated)
            else:
                updated = before  # the older coefficients are not needed any more
                torch.lerp(before, now, 1 + inertia, out=extrapolated)
            torch.addmm(
                extrapolated.view(-1, n),
                extrapolated_misfit[rows, ys].flatten(0, 2),
                prior.factors,
                alpha=prior.beta,
                out=v.view(-1, n),
            )
            regulariser.at(rows, ys).prox_into(v, updated, work)
            if half:
                updated.copy_(before.copy_(updated))  # what is predicted belongs to what is stored
            predict(updated, self._predictor, prediction[rows, ys])
            if measure:
                for row, (moved, a) in enumerate(zip(extrapolated.sub_(updated), updated, strict=True), rows.start):
                    self.moved[row] += squared_norm(moved)
                    self.size[row] += squared_norm(a)
        self.coefficients, self._previous = self._previous, self.coefficients
        self.image = stage.image_step.solve(prediction, self.image)
        misfit = stage.transform.residual_(to_real_images(self.image), prediction)
        self._previous_misfit, self._misfit = self._misfit, misfit

    def final_image(self) -> Tensor:
        """The image as it is."""
        return self.image
