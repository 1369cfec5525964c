"""The exact minimisation of the energy over the image, for given coefficients.

    x(a) = argmin_x 1/2 |A x - y|^2 + beta/2 sum_k |B P_k x - c_k|^2,    c_k = C a_k,

that is ``(A^H A + beta sum_k P_k^T B^T B P_k) x = A^H y + beta sum_k P_k^T B^T c_k``. The patch term is a convolution with
transfer function beta p(f). If the operator says that its normal operator is a convolution too, the solution is one division
in the Fourier domain; if it keeps samples of one on a coarser grid, a small system for each set of aliases. Otherwise it is found
by conjugate gradients, preconditioned by the circulant nearest to the system.
"""

import copy
from collections.abc import Callable

import torch
from torch import Tensor

from mrisps.model import Energy, PatchTransform, Prior, to_images
from mrisps.operators import LinearOperator
from mrisps.solvers.aliases import AliasFilter, SampledInverse, alias_inverse, by_alias
from mrisps.solvers.cg import CGResult, add, conjugate_gradients, dot

__all__ = ["ConvolutionStep", "ImageStep"]

N_PROBES = 8


class ConvolutionStep:
    """x(a) in closed form, where A^H A is a convolution, or A keeps samples of one.

    With patches on every pixel, and A^H A a convolution, the system is a convolution too: one division in the Fourier domain.
    With a stride s, patches count s^2 times, and each set of s^2 aliased frequencies has its own small system
    (:meth:`mrisps.model.PatchTransform.alias_transfer`), inverted beforehand. Where A keeps samples, see
    :class:`mrisps.solvers.aliases.SampledInverse`.

    Parameters
    ----------
    adjoint_y
        A^H y, (batch, set, y, x).
    transfer
        Transfer function of A^H A, (y, x) or (batch, 1, y, x), DC at [0, 0], the same for the image of every set; or the inverse
        of the system.
    prior, transform
        The prior, and which of its patches count.
    """

    effort = None

    def __init__(
        self, adjoint_y: Tensor, transfer: Tensor | SampledInverse, prior: Prior, transform: PatchTransform
    ) -> None:
        self.adjoint_y = adjoint_y
        self.transfer = transfer if isinstance(transfer, Tensor) else None
        self._weight = prior.beta * transform.stride**2
        self._transform = transform
        shape = (adjoint_y.shape[-2], adjoint_y.shape[-1])
        self._inverse: _Filter | AliasFilter | SampledInverse
        if not isinstance(transfer, Tensor):
            self._inverse = transfer
        elif transform.stride == 1:
            patches = self._weight * transform.transfer_function(shape)
            self._inverse = _Filter(_inverse(transfer + patches, patches), adjoint_y.dtype)
        else:
            matrix = _matrices(transfer, transform, self._weight, shape)[1]
            self._inverse = AliasFilter(matrix, shape, adjoint_y.dtype)

    def solve(self, prediction: Tensor, start: Tensor | None = None) -> Tensor:
        """x for predicted patch coefficients c = C a, (rows, y / s, x / s, r) -> (batch, set, y, x). It needs no start."""
        del start
        return self.invert(self.right_side(prediction))

    def right_side(self, prediction: Tensor) -> Tensor:
        """A^H y + beta sum_k P_k^T B^T c_k, (batch, set, y, x)."""
        patch_side = to_images(self._transform.adjoint(prediction), self.adjoint_y.dtype, self.adjoint_y.shape[1])
        return torch.add(self.adjoint_y, patch_side, alpha=self._weight)

    def plan(self, n_steps: Tensor, residual: Tensor) -> None:
        """Nothing: there are no iterations."""

    def take(self, entries: Tensor) -> "ConvolutionStep":
        """The image step of these entries of the batch alone."""
        taken = copy.copy(self)
        taken.adjoint_y, taken.transfer = self.adjoint_y[entries], _transfer_of(self.transfer, entries)
        taken._inverse = self._inverse.take(entries)
        return taken

    def smooth_image(self) -> Tensor:
        """x for a = 0, (batch, set, y, x)."""
        return self.invert(self.adjoint_y)

    def invert(self, right_side: Tensor) -> Tensor:
        """(A^H A + beta sum_k P_k^T B^T B P_k)^-1 applied to images (batch, set, y, x)."""
        return self._inverse(right_side)


class ImageStep:
    """x(a) for one operator, set of measurements and prior; what can be prepared is prepared once.

    Parameters
    ----------
    energy
        Operator, measurements, prior.
    tolerance
        Relative residual of the linear system where it is solved by conjugate gradients.
    max_iterations
        Cap of the conjugate gradients; what they do not reach shows in the certificate's residual_x.
    transform
        Which patches count; by default all. With a stride s they count s^2 times.

    Attributes
    ----------
    effort
        Of the last conjugate gradients that were done without a look, (2, batch): iterations in which a system moved, and relative
        residuals. None where there were none. See :meth:`plan`.
    """

    def __init__(
        self,
        energy: Energy,
        tolerance: float = 1e-6,
        max_iterations: int = 200,
        transform: PatchTransform | None = None,
    ) -> None:
        self.energy = energy
        self.tolerance = tolerance
        self.max_iterations = max_iterations
        self.effort: Tensor | None = None
        self._planned: int | None = None
        self._smooth: Tensor | None = None
        operator, prior = energy.operator, energy.prior
        self._transform = prior.transform if transform is None else transform
        self._weight = prior.beta * self._transform.stride**2
        self.adjoint_y = operator.adjoint(energy.y)
        self.transfer = operator.normal_transfer_function()
        self._closed_form: ConvolutionStep | None = None
        self._last: _Solved | None = None
        if self.transfer is not None:
            self._closed_form = ConvolutionStep(self.adjoint_y, self.transfer, prior, self._transform)
            return
        inverse = _sampled_inverse(operator, self._transform, self._weight)
        if inverse is not None and inverse.exact:
            self._closed_form = ConvolutionStep(self.adjoint_y, inverse, prior, self._transform)
            return
        circulant = _nearest_circulant(operator)  # (set, y, x)
        patches, inverse_matrix = _matrices(circulant, self._transform, self._weight, energy.image_shape)
        dtype = torch.promote_types(self.adjoint_y.dtype, torch.complex64)
        self._patches = AliasFilter(patches, energy.image_shape, dtype)
        self._preconditioner = AliasFilter(inverse_matrix, energy.image_shape, dtype)
        planes = by_alias(circulant, self._transform.stride).to(dtype.to_real())  # (s^2, set, y / s, x / s)
        self._circulant = (
            planes if planes.ndim < 5 else planes.movedim(0, 1)
        )  # one for each image: (batch, s^2, set, ...)

    @property
    def in_closed_form(self) -> bool:
        """Whether there are no conjugate gradients."""
        return self._closed_form is not None

    @property
    def image(self) -> Tensor | None:
        """Where the last conjugate gradients ended, (batch, set, y, x); None in closed form, and before the first."""
        return None if self._last is None else self._last.image

    def solve(self, prediction: Tensor, start: Tensor | None = None) -> Tensor:
        """x for predicted patch coefficients c = C a.

        Parameters
        ----------
        prediction
            (rows, y, x, r).
        start
            A guess (batch, set, y, x) for the conjugate gradients; by default one application of the preconditioner. If it is
            ``image`` itself, more is known of it, and fewer iterations are needed.

        Returns
        -------
        Tensor
            (batch, set, y, x).
        """
        if self._closed_form is not None:
            return self._closed_form.solve(prediction)
        patch_side = to_images(self._transform.adjoint(prediction), self.adjoint_y.dtype, self.energy.n_sets)
        right_side = self.adjoint_y + self._weight * patch_side
        # Where a look makes the host wait, a solve that has a start does as many iterations as the last ones needed.
        if start is None or self._planned is None or right_side.device.type == "cpu":
            image, result = self._iterate(right_side, start, self.max_iterations)
            self._planned = max(result.n_iterations, 1)
        else:
            image, result = self._iterate(right_side, start, self._planned, look_every=0)
            self.effort = torch.stack([result.n_steps, result.relative_residual])
        return image

    def take(self, entries: Tensor) -> "ImageStep":
        """The image step of these entries of the batch alone."""
        taken = copy.copy(self)
        taken.energy, taken.adjoint_y, taken.effort = self.energy.take(entries), self.adjoint_y[entries], None
        taken.transfer = _transfer_of(self.transfer, entries)
        taken._smooth = None if self._smooth is None else self._smooth[entries]
        if self._closed_form is not None:
            taken._closed_form = self._closed_form.take(entries)
        else:
            taken._last = None if self._last is None else self._last.take(entries)
            taken._preconditioner = self._preconditioner.take(entries)
            taken._circulant = self._circulant if self._circulant.ndim < 5 else self._circulant[entries]
        return taken

    def plan(self, n_steps: Tensor, residual: Tensor) -> None:
        """How many iterations the next solves do, from ``effort``: the most steps and the largest residual, on the host."""
        planned = self._planned or 1
        more = min(2 * planned, self.max_iterations)
        self._planned = max(int(n_steps), 1) if float(residual) <= self.tolerance else more

    def smooth_image(self) -> Tensor:
        """x for a = 0, (batch, set, y, x): what the smooth part of the prior gives alone, linear in y."""
        if self._closed_form is not None:
            return self._closed_form.smooth_image()
        if self._smooth is None:  # once, and from afar
            self._smooth = self._iterate(self.adjoint_y, None, 20 * self.max_iterations)[0]
        return self._smooth

    def invert(self, right_side: Tensor) -> Tensor:
        """(A^H A + beta sum_k P_k^T B^T B P_k)^-1 applied to images (batch, set, y, x), to the tolerance."""
        if self._closed_form is not None:
            return self._closed_form.invert(right_side)
        return self._iterate(right_side, None, self.max_iterations)[0]

    def _iterate(
        self, right_side: Tensor, start: Tensor | None, max_iterations: int, look_every: int = 5
    ) -> tuple[Tensor, CGResult]:
        """Conjugate gradients on spectra by alias, where the patch term and the preconditioner are small matrices.

        One that starts where the last one ended knows what the system made of that, and of the step before: so the start is
        the best one along that step, for one inner product.
        """
        b = self._spectrum(right_side)
        known: Tensor | None
        before = self._last if self._last is not None and start is self._last.image else None
        if before is not None:
            if before.n_uses == REFRESH:
                before.renew(self._system)
            x, known = before.best_start(b)
        else:
            x, known = self._mixed(self._preconditioner, b) if start is None else self._spectrum(start), None
        result = conjugate_gradients(
            self._system,
            b,
            start=x,
            residual=known,
            precondition=lambda r: self._mixed(self._preconditioner, r),
            remainder=lambda p: self._data_term(p).sub_(self._circulant * p),
            tolerance=self.tolerance,
            max_iterations=max_iterations,
            min_iterations=1,
            look_every=look_every if right_side.device.type != "cpu" else 1,
        )
        image = self._image(result.solution)
        self._last = _Solved(image, result.solution, b.sub_(result.residual), before)
        return image, result

    def _system(self, spectrum: Tensor) -> Tensor:
        """K x of an image's spectrum by alias."""
        return self._data_term(spectrum) + self._mixed(self._patches, spectrum)

    def _spectrum(self, image: Tensor) -> Tensor:
        """(batch, set, y, x) -> (batch, s^2, set, y / s, x / s)."""
        return self._patches.planes(image).movedim(0, 1).contiguous()

    def _image(self, spectrum: Tensor) -> Tensor:
        image = self._patches.image(spectrum.movedim(1, 0))
        return image if self.adjoint_y.is_complex() else image.real.contiguous()

    def _mixed(self, filter_: AliasFilter, spectrum: Tensor) -> Tensor:
        return filter_.mixed(spectrum.movedim(1, 0)).movedim(0, 1)

    def _data_term(self, spectrum: Tensor) -> Tensor:
        return self._spectrum(self.energy.operator.normal(self._image(spectrum)))


REFRESH = 50
"""Solves after which K x is computed anew: until then it follows from solve to solve, and rounding adds up. The step stays: an
image that loses it moves more slowly for a few iterations, and looks as if it had settled."""


LONGEST = 4.0
"""A start is at most this many steps from where the last solve ended."""


class _Solved:
    """Where conjugate gradients ended: the image, its spectrum x, K x, and the step from where they had ended before."""

    def __init__(self, image: Tensor, solution: Tensor, product: Tensor, before: "_Solved | None") -> None:
        self.image = image
        self.n_uses: int = 0 if before is None else before.n_uses + 1
        self._solution, self._product = solution, product
        self._step: tuple[Tensor, Tensor] | None = None
        if before is not None:
            self._step = solution - before._solution, product - before._product

    def take(self, entries: Tensor) -> "_Solved":
        """The same of these entries of the batch."""
        taken = copy.copy(self)
        taken.image, taken._solution, taken._product = (
            one[entries] for one in (self.image, self._solution, self._product)
        )
        taken._step = None if self._step is None else (self._step[0][entries], self._step[1][entries])
        return taken

    def renew(self, system: Callable[[Tensor], Tensor]) -> None:
        """Compute K x, so that no rounding is left in it."""
        self._product, self.n_uses = system(self._solution), 0

    def best_start(self, right_side: Tensor) -> tuple[Tensor, Tensor]:
        """The point x + t step with the smallest error in the norm of K, and b - K times it."""
        residual = right_side - self._product
        if self._step is None:
            return self._solution, residual
        step, product = self._step
        curvature = dot(step, product)
        length = torch.where(curvature > 0, dot(step, residual) / torch.where(curvature > 0, curvature, 1.0), 0.0)
        length = length.clamp(-LONGEST, LONGEST)  # a step that is all rounding knows no length
        start = self._solution.clone()
        add(start, length, step)
        add(residual, -length, product)
        return start, residual


def _matrices(
    circulant: Tensor, transform: PatchTransform, weight: float, shape: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Matrices of aliases of the patch term, and of the inverse of the circulant plus the patch term."""
    if transform.stride == 1:
        patches = weight * transform.transfer_function(shape).double()
        return patches[None, None], _inverse(circulant.double() + patches, patches)[None, None]
    patches = weight * transform.alias_transfer(shape).permute(2, 3, 0, 1)  # (s^2, s^2, y / s, x / s)
    return patches, alias_inverse(patches, by_alias(circulant, transform.stride))


def _transfer_of(transfer: Tensor | None, entries: Tensor) -> Tensor | None:
    """Of these entries of the batch, where it has an axis for them."""
    return transfer if transfer is None or transfer.ndim < 4 else transfer[entries]


def _sampled_inverse(operator: LinearOperator, transform: PatchTransform, weight: float) -> SampledInverse | None:
    """The inverse, or one that is near it, where the operator keeps samples of a circular convolution."""
    sampling = operator.sampled_convolution()
    if sampling is None or sampling.stride % transform.stride:
        return None
    height, width = operator.domain_shape[-2:]
    return SampledInverse(sampling, transform, weight, (height, width), operator.domain_dtype)


class _Filter:
    """A circular convolution with a real transfer function, (y, x) or (set, y, x), symmetric for real images."""

    def __init__(self, transfer: Tensor, dtype: torch.dtype) -> None:
        self._real = not dtype.is_complex
        transfer = transfer.to(torch.float64 if dtype in (torch.float64, torch.complex128) else torch.float32)
        self._transfer = transfer[..., : transfer.shape[-1] // 2 + 1] if self._real else transfer

    def take(self, entries: Tensor) -> "_Filter":
        """The filter for these entries of the batch; with a transfer function for each, (batch, set, y, x), another one."""
        if self._transfer.ndim < 4:
            return self
        taken = copy.copy(self)
        taken._transfer = self._transfer[entries]
        return taken

    def __call__(self, image: Tensor) -> Tensor:
        if self._real:
            filtered: Tensor = torch.fft.irfft2(self._transfer * torch.fft.rfft2(image), s=image.shape[-2:])
        else:
            filtered = torch.fft.ifft2(self._transfer * torch.fft.fft2(image))
        return filtered


def _inverse(denominator: Tensor, patch_transfer: Tensor) -> Tensor:
    # Where neither the data nor the prior sees a frequency (its p(f) is a rounding error), the minimum-norm choice is 0.
    blind = denominator <= 1e-10 * patch_transfer.max()
    return torch.where(blind, torch.zeros_like(denominator), denominator.reciprocal())


def _nearest_circulant(operator: LinearOperator) -> Tensor:
    """Transfer function of the circulant nearest to A^H A, the diagonal of F A^H A F^H, (set, y, x).

    What the operator knows of it, or an estimate.

    From random probes: with z white noise and N = A^H A, the mean of Re(conj(F z) F N z) / |F z|^2 is that diagonal.

    Source
    ------
    T. F. Chan, SIAM J. Sci. Stat. Comput. 9 (1988) 766-771 (optimal circulant); Bekas et al., Appl. Numer. Math. 57 (2007)
    1214-1229 (diagonal from probes).
    """
    known = operator.normal_circulant()
    if known is not None:
        return known
    generator = torch.Generator().manual_seed(0)
    probes = torch.randn((N_PROBES, *operator.domain_shape), generator=generator, dtype=torch.float64)
    probes = probes.to(device=operator.device, dtype=operator.domain_dtype)
    spectra = torch.fft.fft2(probes)
    images = torch.fft.fft2(operator.normal(probes))
    cross: Tensor = (spectra.conj() * images).real.sum(dim=0)
    diagonal: Tensor = cross / spectra.abs().square().sum(dim=0)
    norm = operator.norm(tolerance=1e-2)
    diagonal = diagonal.clamp(min=0, max=norm**2)
    # Probing leaves noise, and a real image has a symmetric diagonal: average f with -f.
    return 0.5 * (diagonal + diagonal.flip(-2, -1).roll((1, 1), (-2, -1)))
