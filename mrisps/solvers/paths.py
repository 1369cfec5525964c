"""The ways down: algorithms that minimise one stage of the default solver, iteration by iteration.

With the image eliminated, what is left is f(a) + R(a); see :mod:`mrisps.solvers.fast`.

    InertialPath    proximal gradient with inertia, for every R
    SplittingPath   Douglas-Rachford splitting, where R is a norm (CPR) and the image step is in closed form: a third of the
                    iterations and fewer at tight tolerances
"""

import abc
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mrisps.model import PatchTransform, Prior, to_real_images
from mrisps.solvers.greedy import greedy_coefficients
from mrisps.solvers.image_step import ConvolutionStep, ImageStep

__all__ = ["STRIDE", "InertialPath", "Path", "PathOptions", "SplittingPath", "Stage", "start_path"]

STRIDE = 2
"""Every so manieth patch of every so manieth row counts in the stages before the last."""

STRENGTH = 0.02
"""Penalty rho of the splitting, in units of the bound 1 on the Hessian of f. Where the dictionary is redundant, combinations of
atoms that leave the image alone shrink by lam / rho an iteration: a larger penalty is slow there, a smaller one elsewhere."""

RELAXATION = 1.8
"""Over-relaxation of the splitting, below 2."""

SPLITTING_GREED = 4.0
SPLITTING_SHRINKAGE = 0.8
"""The splitting starts from fewer atoms, taken while they are worth so many thresholds, and from smaller coefficients than the
inertial path: least squares on few atoms is far from a minimum that spreads over dozens of them."""

BOUND_STRENGTH = 0.3
"""Penalty on the image of the splitting under x >= 0, in units of beta. From 0.01 to 0.3 a knee (8-fold) takes as many iterations,
1 takes more; a small image a third of which is at 0 takes the fewest with 0.3 and 1."""

EXACT_BELOW = 30.0
"""The splitting measures its residual where a bound on it is below so many tolerances: the bound is some ten times too large."""


@dataclass(frozen=True, eq=False)
class Stage:
    """One of the problems on the way: which patches count, and how the image follows from them.

    Parameters
    ----------
    prior
        Atoms, beta and regulariser.
    transform
        The patches that count.
    image_step
        x(a) for these patches.
    image_shape
        (y, x) of the stage's grid.
    """

    prior: Prior
    transform: PatchTransform
    image_step: ConvolutionStep | ImageStep
    image_shape: tuple[int, int]


@dataclass(frozen=True)
class PathOptions:
    """What every path of a solve has in common.

    Parameters
    ----------
    tolerance
        On the stationarity residual.
    decay
        Factor on the factor on the thresholds in every iteration, down to 1.
    half_storage
        Coefficients are stored in float16.
    """

    tolerance: float
    decay: float
    half_storage: bool


class Path(abc.ABC):
    """An iteration on one stage.

    Attributes
    ----------
    image
        (batch, set, y, x): near x(a), or x(a) itself. Under x >= 0 it is on its way there, and may be below 0.
    coefficients
        a, (rows, y / stride, x / stride, n). Not to be kept over an iteration.
    factor
        On the thresholds in the next iteration.
    n_at_target
        Iterations so far with the factor at 1.
    moved, size
        Squares of the stationarity residual |a - T(a - grad f(a))| and of |a| at the last measured iteration, or upper bounds of
        the former (under x >= 0: estimates), (rows,) float64.
    """

    def __init__(self, stage: Stage, options: PathOptions, factor: float, n_rows: int) -> None:
        self.stage, self.options, self.factor = stage, options, factor
        self.n_at_target = 0
        self.image: Tensor
        self.coefficients: Tensor
        self.shape = (n_rows, *stage.transform.grid_shape(stage.image_shape))
        self.moved = self.size = torch.zeros(n_rows, dtype=torch.float64, device=stage.prior.basis.device)

    def step(self, measure: bool = False, exactly: bool = False) -> None:
        """One iteration; with ``measure``, ``moved`` and ``size`` are brought up to date, ``exactly`` or as far as it matters."""
        self._advance(measure, exactly)
        if self.factor <= 1:
            self.n_at_target += 1
        self.factor = max(self.factor * self.options.decay, 1.0)

    @abc.abstractmethod
    def _advance(self, measure: bool, exactly: bool) -> None:
        """The iteration itself, with thresholds ``factor`` times those of the prior."""

    @abc.abstractmethod
    def final_image(self) -> Tensor:
        """x(a) for the coefficients as they are."""

    def _coefficients_like_zero(self) -> Tensor:
        prior = self.stage.prior
        return prior.basis.new_zeros(*self.shape, prior.n_atoms, dtype=_storage(prior, self.options))

    def _work_space(self, n_buffers: int) -> list[Tensor]:
        """Buffers for the coefficients of the largest piece."""
        prior, shape = self.stage.prior, self.shape
        n_pixels = max(
            (
                len(range(*rows.indices(shape[0]))) * len(range(*ys.indices(shape[1])))
                for rows, ys in prior.chunks(shape)
            ),
            default=0,
        )
        return [prior.basis.new_empty(n_pixels * shape[2] * prior.n_atoms) for _ in range(n_buffers)]


def start_path(
    stage: Stage,
    options: PathOptions,
    n_rows: int,
    *,
    factor: float,
    inertia: int,
    image: Tensor | None = None,
    known: list[Tensor] | None = None,
    given: Tensor | None = None,
) -> Path:
    """The path that suits a stage, at its start.

    Parameters
    ----------
    stage, options
        The problem, and how it is to be solved.
    n_rows
        Real images.
    factor
        On the thresholds in the first iteration.
    inertia
        Iterations that count as done when an inertial path starts from coefficients that are not 0.
    image
        The image so far, (batch, set, y, x): the path starts from coefficients found by matching pursuit of its patches. By
        default it starts from a = 0.
    known
        A list that may hold coefficients of every ``STRIDE``-th patch of every ``STRIDE``-th row. They take the place of what the
        pursuit would find, and are removed from the list, so that nothing holds on to their memory.
    given
        Coefficients of all patches, (rows, y / stride, x / stride, n), in any floating-point type: they are copied instead.
    """
    prior, transform = stage.prior, stage.transform
    splitting = prior.regulariser.is_norm and stage.image_step.transfer is not None
    shape = (n_rows, *transform.grid_shape(stage.image_shape), prior.n_atoms)
    coefficients: Tensor | None = None
    if given is not None:
        coefficients = prior.basis.new_empty(shape, dtype=_storage(prior, options)).copy_(given)
    elif image is not None:
        coefficients = prior.basis.new_empty(shape, dtype=_storage(prior, options))
        wanted = torch.ones(shape[:-1], dtype=torch.bool, device=coefficients.device)
        if known:
            wanted[:, ::STRIDE, ::STRIDE] = False
        analysed = transform.forward(to_real_images(image))
        greedy_coefficients(
            prior, analysed, coefficients, threshold=SPLITTING_GREED if splitting else 1.0, wanted=wanted
        )
        del analysed
        if splitting:
            coefficients *= SPLITTING_SHRINKAGE
        if known:
            coefficients[:, ::STRIDE, ::STRIDE] = known.pop()
    if splitting:
        return SplittingPath(stage, options, factor, n_rows, coefficients, image=image, near_minimum=given is not None)
    return InertialPath(stage, options, factor, n_rows, coefficients, image=image, inertia=inertia)


class InertialPath(Path):
    """Inertial proximal gradient: extrapolate, GEMM, shrink, GEMM, in one pass over the coefficients.

    r = B P x(a) - C a is affine in a, so the residual at the extrapolated point is the extrapolated residual. The stationarity
    residual is that at the extrapolated point. Under x >= 0, x(a) is affine in pieces only, and the image is on its way to it: both
    are true in the limit.

    Parameters
    ----------
    stage, options, factor, n_rows
        As in :func:`start_path`.
    coefficients
        To start from, (rows, y, x, n); they are overwritten. None for a = 0.
    image
        A guess at the image that belongs to the coefficients, for conjugate gradients.
    inertia
        Iterations that count as done at the start; none do for a = 0.

    Source
    ------
    Beck and Teboulle, SIAM J. Imaging Sci. 2 (2009) 183-202.
    """

    def __init__(
        self,
        stage: Stage,
        options: PathOptions,
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
            prediction = _predictions(prior, coefficients, self._predictor)
            self.image = stage.image_step.solve(prediction, image, exactly=True)
        self._previous = self.coefficients.clone()
        self._misfit = transform.residual_(to_real_images(self.image), prediction)  # r = B P x(a) - C a
        self._previous_misfit = self._misfit.clone()
        self._work = self._work_space(4 if options.half_storage else 3)

    def _advance(self, measure: bool, exactly: bool) -> None:
        del exactly  # it always is
        stage, prior = self.stage, self.stage.prior
        self.n_done += 1
        inertia = (self.n_done - 1) / (self.n_done + 2)
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
            regulariser.prox_into(v, updated, work)
            if half:
                updated.copy_(before.copy_(updated))  # what is predicted belongs to what is stored
            _predict(updated, self._predictor, prediction[rows, ys])
            if measure:
                for row, (moved, a) in enumerate(zip(extrapolated.sub_(updated), updated, strict=True), rows.start):
                    self.moved[row] += _squared_norm(moved)
                    self.size[row] += _squared_norm(a)
        self.coefficients, self._previous = self._previous, self.coefficients
        self.image = stage.image_step.solve(prediction, self.image)
        misfit = stage.transform.residual_(to_real_images(self.image), prediction)
        self._previous_misfit, self._misfit = self._misfit, misfit

    def final_image(self) -> Tensor:
        """The image as it is, but where it is only on its way to x >= 0."""
        if not self.stage.prior.nonnegative:
            return self.image
        prediction = _predictions(self.stage.prior, self.coefficients, self._predictor)
        return self.stage.image_step.solve(prediction, self.image, exactly=True)


class SplittingPath(Path):
    """Douglas-Rachford splitting of f and R, both of which are minimised exactly in every iteration.

        p = argmin_a f(a) + rho/2 |a - v|^2,    w = argmin_a R(a) + rho/2 |a - (2 p - v)|^2,    v <- v + alpha (w - p)

    The first is a minimum over the image and the coefficients together. With M = (rho + beta C C^T)^-1, an r x r matrix, p is
    v + beta C^T M (B P x - C v), and what that leaves for the image is

        (A^H A + beta P^T B^T rho M B P) x = A^H y + beta P^T B^T rho M C v:

    the image step of a prior whose basis is (rho M)^(1/2) B. So an iteration is what it is on the inertial path: two GEMMs, a
    shrinkage, an image step. Its coefficients are w.

    Under x >= 0 the image has an auxiliary u of its own, and the second minimum is over both: the first has the term
    m/2 |x - u|^2, too, z = max(2 x - u, 0), and u <- u + alpha (z - x).

    The iteration needs R to be convex: for NCPR the energy rises. And it needs the prox of R / rho, which is T with the thresholds
    lam / rho where R is a norm.

    Parameters
    ----------
    stage, options, factor, n_rows
        As in :func:`start_path`; the image step has to be in closed form.
    coefficients
        v to start from, (rows, y, x, n); they are overwritten. None for v = 0.
    image
        u to start from under x >= 0; by default the smooth image.
    near_minimum
        The coefficients are a, those of a similar problem's minimum: v is a + grad f(a) / rho, from where that is w again.

    Source
    ------
    Lions and Mercier, SIAM J. Numer. Anal. 16 (1979) 964-979; Eckstein and Bertsekas, Math. Programming 55 (1992) 293-318
    (over-relaxation).
    """

    def __init__(
        self,
        stage: Stage,
        options: PathOptions,
        factor: float,
        n_rows: int,
        coefficients: Tensor | None,
        *,
        image: Tensor | None = None,
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
        self._ridge = BOUND_STRENGTH * prior.beta if prior.nonnegative else 0.0
        self._joint_step = ConvolutionStep(
            stage.image_step.adjoint_y, transfer, prior, self._transform, ridge=self._ridge
        )
        if prior.nonnegative:
            self._image_auxiliary = stage.image_step.smooth_image() if image is None else image
        self._auxiliary = self._coefficients_like_zero() if coefficients is None else coefficients
        self.coefficients = self._auxiliary.clone()
        self._work = self._work_space(5 if options.half_storage else 3)
        if near_minimum:
            minimiser, misfit = self._image_and_misfit()
            if prior.nonnegative:
                self._image_auxiliary = minimiser + stage.image_step.multiplier(minimiser) / self._ridge
            for rows, ys in prior.chunks(self.shape):
                step = misfit[rows, ys] @ prior.factors
                self._auxiliary[rows, ys] -= (step * (prior.beta / STRENGTH)).to(self._auxiliary.dtype)
            del minimiser, misfit
        self._follow(_predictions(prior, self._auxiliary, self._predictor))

    def _follow(self, prediction: Tensor) -> None:
        """The image of v, and its residual in place of the prediction."""
        right_side = self._joint_step.right_side(prediction)
        if self.stage.prior.nonnegative:
            self.image = self._joint_step.invert(right_side.add_(self._image_auxiliary, alpha=self._ridge))
            bounded = torch.sub(2 * self.image, self._image_auxiliary).clamp_(min=0)
            self._image_auxiliary = torch.add(self._image_auxiliary, bounded - self.image, alpha=RELAXATION)
        else:
            self.image = self._joint_step.invert(right_side)
        self._misfit = self._transform.residual_(to_real_images(self.image), prediction)

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
            _predict(v, self._predictor, misfit)
            if measure:
                for row, (moved, a) in enumerate(zip(difference, w, strict=True), rows.start):
                    self.moved[row] += _squared_norm(moved)
                    self.size[row] += _squared_norm(a)
        if measure:
            # rho (p - w) is in dR(w) + grad f(p) and |hess f| <= 1, so |w - T(w - grad f(w))| <= (1 + rho) |w - p|; under x >= 0
            # that leaves out how far the image is from x(p), and is an estimate (up to 1.6 times too small on small problems).
            self.moved *= (1 + STRENGTH) ** 2
            moved, size = (values.view(len(self.image), -1).sum(dim=1) for values in (self.moved, self.size))
            near = (moved <= (EXACT_BELOW * self.options.tolerance) ** 2 * size) | (size == 0)
            if exactly or bool((near | ~moved.isfinite() | ~size.isfinite()).all()):  # what is lost is not waited for
                self._measure()
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
                self.moved[row] += _squared_norm(moved)

    def final_image(self) -> Tensor:
        """x(w)."""
        return self._image_and_misfit()[0]

    def _image_and_misfit(self) -> tuple[Tensor, Tensor]:
        """x(w) and B P x(w) - C w."""
        prior = self.stage.prior
        prediction = _predictions(prior, self.coefficients, prior.factors.T.contiguous())
        image = self.stage.image_step.solve(prediction, exactly=True)
        return image, self.stage.transform.residual_(to_real_images(image), prediction)


def _storage(prior: Prior, options: PathOptions) -> torch.dtype:
    return torch.float16 if options.half_storage else prior.basis.dtype


def _predictions(prior: Prior, coefficients: Tensor, predictor: Tensor) -> Tensor:
    """a^T predictor at every patch, (rows, y, x, n) -> (rows, y, x, r), piece by piece."""
    n_rows, height, width, _ = coefficients.shape
    prediction = prior.basis.new_empty(n_rows, height, width, predictor.shape[1])
    for rows, ys in prior.chunks((n_rows, height, width)):
        _predict(coefficients[rows, ys].to(prior.basis.dtype), predictor, prediction[rows, ys])
    return prediction


def _predict(coefficients: Tensor, predictor: Tensor, out: Tensor) -> None:
    for row, predicted in zip(coefficients, out, strict=True):  # a row of a piece is contiguous, a pair of them is not
        torch.matmul(row, predictor, out=predicted)


def _squared_norm(values: Tensor) -> Tensor:
    """|v|^2 of a cache-sized piece, by BLAS: a third of the time of square and sum."""
    flat = values.flatten()
    return torch.dot(flat, flat)
