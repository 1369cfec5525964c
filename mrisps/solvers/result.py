"""What a solver returns: the image, its parts, and a certificate of what was reached."""

import math
from dataclasses import asdict, dataclass
from typing import Literal

import torch
from torch import Tensor

from mrisps.model import Energy
from mrisps.solvers.duality import energy_gap
from mrisps.solvers.image_step import ImageStep
from mrisps.status import Status, finished

__all__ = ["Certificate", "Reconstruction", "certify"]

ROUGHLY = 0.9
"""Where nobody asked for a minimiser, the first bound on the energy that says anything is enough."""


@dataclass(frozen=True)
class Certificate:
    """What the solver reached for one image.

    Parameters
    ----------
    algorithm
        ``"fast"`` or ``"paper"``.
    status
        ``"converged"``: the algorithm's own test was met, at a minimiser; ``"settled"``: the image had stopped changing, which is
        all that was asked for; ``"max_iter"``: the cap came first; ``"diverging"``: the image grew beyond all bounds;
        ``"nonfinite"``: NaN or infinity appeared. In the last two cases the image is the last good one, of unknown quality.
    n_iterations
        Iterations done.
    tolerance
        Of the algorithm's test.
    energy, energy_data, energy_coupling, energy_regularisation
        E and its three terms at the result.
    energy_trace
        (iteration, E) along the way, the last entry at the result.
    residual_x
        |dE/dx| / |A^H y| at the result; under x >= 0 without what points below 0 where x is 0.
    residual_a
        |a - T(a - dE_smooth/da)| / |a| at the result.
    residual_smooth
        |dE/dx| / |A^H y| of the smooth image, with a = 0.
    data_misfit
        |A x - y|.
    expected_misfit
        Noise standard deviation times the square root of the number of real measurements, or None if no noise level was given.
        A misfit well below it means that noise was fitted, one well above that structure was lost.
    seconds
        Wall-clock time of the solve (of the whole batch, where there are several images).
    n_coarse_iterations
        Iterations on coarser problems, before those of the full one.
    image_change
        Estimate of how much the image would still change, as a fraction of its norm, if the iteration went on; None if
        unknown (fewer than three looks at it). It is an extrapolation of the last steps, not a bound.
    late_change
        The same estimate after ``image_iterations`` of the solver. None: not known, or the solver ended before.
    stride
        Of the patches in E, see :class:`mrisps.model.PriorUse`.
    nonnegative
        Whether the algorithm keeps x >= 0, as the paper's does; ``residual_x`` is then that of the constrained problem.
    energy_gap
        The energy is above its minimum by at most this share of itself: a proven bound (:mod:`mrisps.solvers.duality`), for CPR
        without x >= 0. None: unknown, as always for NCPR, whose minimum nobody knows.
    """

    algorithm: str
    status: Status
    n_iterations: int
    tolerance: float
    energy: float
    energy_data: float
    energy_coupling: float
    energy_regularisation: float
    energy_trace: tuple[tuple[int, float], ...]
    residual_x: float
    residual_a: float
    residual_smooth: float
    data_misfit: float
    expected_misfit: float | None
    seconds: float
    n_coarse_iterations: int = 0
    image_change: float | None = None
    late_change: float | None = None
    stride: int = 1
    nonnegative: bool = False
    energy_gap: float | None = None

    @property
    def misfit_ratio(self) -> float | None:
        """|A x - y| over what the noise alone would give; about 1 for a fit to the noise level."""
        return None if not self.expected_misfit else self.data_misfit / self.expected_misfit

    def to_dict(self) -> dict[str, object]:
        """Plain values, for JSON."""
        return {**asdict(self), "misfit_ratio": self.misfit_ratio}

    def __str__(self) -> str:
        ratio = "" if self.misfit_ratio is None else f", misfit/noise {self.misfit_ratio:.3g}"
        change = "" if self.image_change is None else f", change to come {self.image_change:.1e}"
        gap = "" if self.energy_gap is None else f", at most {self.energy_gap:.1e} above the minimum"
        return (
            f"{self.status} after {self.n_iterations} iterations ({self.seconds:.1f} s): energy {self.energy:.6g}{gap}, "
            f"stationarity {self.residual_x:.1e} (x) {self.residual_a:.1e} (a){change}{ratio}"
        )


@dataclass(frozen=True, eq=False, repr=False)
class Reconstruction:
    """An image with its smooth and its sparse part.

    Parameters
    ----------
    image
        x*, (batch, set, y, x).
    smooth
        x_s, (batch, set, y, x): the minimiser with a = 0, linear in the measurements.
    sparse
        x* - x_s, (batch, set, y, x).
    cost_map
        (batch, 1, y, x): sum over atoms and sets of R_i(a_k), where the prior is surprised.
    coefficients
        a*, (rows, y / stride, x / stride, n), or None if they were not asked for (they take n times the memory of an image).
    certificates
        One for each image of the batch. With attention, of the second energy.
    attention
        (batch, 1, y, x): where the attention lowered the thresholds, :meth:`mrisps.model.Energy.attention_map`. None without.
    """

    image: Tensor
    smooth: Tensor
    sparse: Tensor
    cost_map: Tensor
    coefficients: Tensor | None
    certificates: tuple[Certificate, ...]
    attention: Tensor | None = None

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.image.shape))
        states = ", ".join(sorted({certificate.status for certificate in self.certificates}))
        return f"{type(self).__name__}({shape} {str(self.image.dtype).removeprefix('torch.')}, {states})"

    @property
    def certificate(self) -> Certificate:
        """The certificate of a single image.

        Raises
        ------
        ValueError
            If the batch has several images: use ``certificates``.
        """
        if len(self.certificates) != 1:
            raise ValueError(f"certificate: the batch has {len(self.certificates)} images, use certificates")
        return self.certificates[0]

    @property
    def converged(self) -> bool:
        """Whether every image of the batch converged."""
        return all(certificate.status == "converged" for certificate in self.certificates)

    @property
    def finished(self) -> bool:
        """Whether the solver was done with every image of the batch: converged or settled."""
        return all(finished(certificate.status) for certificate in self.certificates)


def certify(
    energy: Energy,
    image_step: ImageStep,
    image: Tensor,
    coefficients: Tensor,
    *,
    algorithm: str,
    finished: Tensor,
    n_iterations: Tensor,
    tolerance: float,
    energy_trace: list[tuple[int, Tensor]],
    noise_std: float | None,
    seconds: float,
    keep_coefficients: bool,
    residual_x_limit: float = math.inf,
    residual_a_limit: float = math.inf,
    n_coarse_iterations: int = 0,
    image_change: Tensor | None = None,
    late_change: Tensor | None = None,
    broken: Tensor | None = None,
    diverged: Tensor | None = None,
    nonnegative: bool = False,
    stop: Literal["stationary", "image"] = "stationary",
    gap: Tensor | None = None,
    attention: Tensor | None = None,
) -> Reconstruction:
    """Put together what a solver ended with, measuring everything at the result itself.

    Parameters
    ----------
    finished, n_iterations
        (batch,) bool and int: whether the algorithm's own test was met, and after how many iterations.
    energy_trace
        (iteration, (batch,) energies).
    noise_std
        Standard deviation of the noise in the real and in the imaginary part of each measurement.
    residual_x_limit
        A result whose image, or whose smooth image, is further than this from stationary has not converged, whatever the
        algorithm's own test says.
    residual_a_limit
        The same for its coefficients, with ``stop="stationary"``.
    n_coarse_iterations
        Iterations on coarser problems beforehand.
    image_change
        (batch,) estimates of how much the image can still change, as a fraction of its norm.
    late_change
        The same after ``image_iterations``, infinite where it is not known.
    broken
        (batch,) bool: NaN or infinity appeared, or the image diverged, and what is handed over is the last good image.
    diverged
        (batch,) bool: which of the broken ones did not meet NaN or infinity.
    nonnegative
        Whether the image was kept at 0 and above.
    stop
        What the algorithm's test is about.
    gap
        (batch,) bounds on the energy above its minimum, on the host, infinite where they are not known yet.
    attention
        See :class:`Reconstruction`.
    """
    known = gap is not None and bool(gap.isfinite().all())
    rough = None if known or nonnegative else energy_gap(energy, image_step, image, coefficients, enough=ROUGHLY)
    if rough is not None:
        gap = rough.cpu() if gap is None else torch.minimum(gap, rough.cpu())
    cost_map = energy.cost_map(coefficients)
    terms = energy.value(image, coefficients, cost_map)
    residual_x, residual_a = energy.residuals(image, coefficients, nonnegative)
    smooth = image_step.smooth_image()
    gradient, scale = energy.residual_image(smooth)
    residual_smooth = torch.where(scale > 0, gradient / scale.clamp(min=torch.finfo(scale.dtype).tiny), gradient)
    found = [terms.data, terms.coupling, terms.regularisation, residual_x, residual_a, residual_smooth]
    found.append(image.isfinite().flatten(1).all(dim=1).double())
    measured = torch.stack(found).cpu().T.tolist()  # one transfer
    n_measurements = energy.operator.n_measurements
    certificates = []
    for i, (data, coupling, regularisation, of_x, of_a, of_smooth, finite_image) in enumerate(measured):
        total = data + coupling + regularisation
        lost = broken is not None and bool(broken[i])
        finite = not lost and math.isfinite(total) and finite_image == 1 and math.isfinite(of_a)
        # False where one is NaN
        fits = of_x <= residual_x_limit and of_smooth <= residual_x_limit
        status: Status = "max_iter"
        if bool(finished[i]) and fits and (stop == "image" or of_a <= residual_a_limit):
            status = "settled" if stop == "image" else "converged"
        if not finite:
            status = "diverging" if diverged is not None and bool(diverged[i]) else "nonfinite"
        steps = int(n_iterations[i])
        change = math.inf if image_change is None else float(image_change[i])
        late = math.inf if late_change is None else float(late_change[i])
        above = math.inf if gap is None else float(gap[i])
        trace = [(k, float(values[i])) for k, values in energy_trace if k < steps]
        certificates.append(
            Certificate(
                algorithm=algorithm,
                status=status,
                n_iterations=steps,
                tolerance=tolerance,
                energy=total,
                energy_data=data,
                energy_coupling=coupling,
                energy_regularisation=regularisation,
                energy_trace=(*trace, (steps, total)),
                residual_x=of_x,
                residual_a=of_a,
                residual_smooth=of_smooth,
                data_misfit=(2 * data) ** 0.5,
                expected_misfit=None if noise_std is None else noise_std * n_measurements**0.5,
                seconds=seconds,
                n_coarse_iterations=n_coarse_iterations,
                image_change=change if math.isfinite(change) else None,
                late_change=late if math.isfinite(late) else None,
                stride=energy.prior.stride,
                nonnegative=nonnegative,
                energy_gap=above if finite and math.isfinite(above) else None,
            )
        )
    return Reconstruction(
        image=image,
        smooth=smooth,
        sparse=image - smooth,
        cost_map=cost_map,
        coefficients=coefficients.to(energy.prior.basis.dtype) if keep_coefficients else None,
        certificates=tuple(certificates),
        attention=attention,
    )


def check_measurements(energy: Energy, noise_std: float | None) -> None:
    """Reject measurements that no solver can use.

    Raises
    ------
    ValueError
        If the operator's domain is not images (set, y, x), y is not finite, operator and prior do not fit together, or noise_std
        is not a number >= 0.
    """
    if len(energy.operator.domain_shape) != 3:
        raise ValueError(f"operator: expected the domain (set, y, x), got {energy.operator.domain_shape}")
    if noise_std is not None and not 0 <= noise_std < math.inf:
        raise ValueError(f"noise_std: expected a number >= 0, got {noise_std}")
    if not bool(torch.isfinite(energy.y).all()):
        raise ValueError("y: expected finite measurements, got NaN or infinity")
    basis = energy.prior.basis
    real = torch.float32 if energy.operator.domain_dtype in (torch.float32, torch.complex64) else torch.float64
    if basis.dtype != real or basis.device != energy.operator.device:
        raise ValueError(
            f"prior: expected {real} on {energy.operator.device} as the operator has, got {basis.dtype} on {basis.device}"
        )
    group = energy.prior.regulariser.group_size * energy.prior.stride
    height, width = energy.image_shape
    if energy.prior.stride > 1 and (height % group or width % group):
        raise ValueError(
            f"image size: with a stride of {energy.prior.stride} both sides have to be multiples of {group}; "
            f"got {height} x {width}"
        )
    if height % group or width % group:
        raise ValueError(
            f"image size: this model shrinks groups of {group} x {group} pixels, so both sides have to be multiples of {group}; "
            f"got {height} x {width}"
        )
