"""The exact minimisation of the energy over the image, for given coefficients.

    x(a) = argmin_x 1/2 |A x - y|^2 + beta/2 sum_k |B P_k x - c_k|^2,    c_k = C a_k,

that is ``(A^H A + beta sum_k P_k^T B^T B P_k) x = A^H y + beta sum_k P_k^T B^T c_k``. The patch term is a convolution with
transfer function beta p(f). If the operator says that its normal operator is a convolution too, the solution is one division
in the Fourier domain; otherwise conjugate gradients, preconditioned by the circulant nearest to the system.
"""

import torch
from torch import Tensor

from mrisps.model import Energy, to_images
from mrisps.operators import LinearOperator
from mrisps.solvers.cg import conjugate_gradients

__all__ = ["ImageStep"]

N_PROBES = 8


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
    """

    def __init__(self, energy: Energy, tolerance: float = 1e-6, max_iterations: int = 200) -> None:
        self.energy = energy
        self.tolerance = tolerance
        self.max_iterations = max_iterations
        operator, prior = energy.operator, energy.prior
        self.adjoint_y = operator.adjoint(energy.y)
        transfer = operator.normal_transfer_function()
        patch_transfer = prior.beta * prior.transform.transfer_function(energy.image_shape).to(self.adjoint_y.device)
        self._is_convolution = transfer is not None
        approximate = transfer if transfer is not None else _nearest_circulant(operator)
        denominator = approximate + patch_transfer
        # Where neither the data nor the prior sees a frequency (its p(f) is a rounding error), the minimum-norm choice is 0.
        blind = denominator <= 1e-10 * patch_transfer.max()
        inverse = torch.where(blind, torch.zeros_like(denominator), denominator.reciprocal())
        self._real = not operator.domain_dtype.is_complex
        half = slice(None, energy.image_shape[1] // 2 + 1)
        self._inverse = inverse[:, half] if self._real else inverse
        self._patch_transfer = patch_transfer[:, half] if self._real else patch_transfer

    def solve(self, prediction: Tensor, start: Tensor | None = None) -> Tensor:
        """x for predicted patch coefficients c = C a.

        Parameters
        ----------
        prediction
            (rows, y, x, r).
        start
            A guess (batch, 1, y, x) for the conjugate gradients; by default one application of the preconditioner.

        Returns
        -------
        Tensor
            (batch, 1, y, x).
        """
        prior = self.energy.prior
        patch_side = to_images(prior.transform.adjoint(prediction), self.adjoint_y.dtype)
        return self._solve(self.adjoint_y + prior.beta * patch_side, start, self.max_iterations)

    def smooth_image(self) -> Tensor:
        """x for a = 0, (batch, 1, y, x): the reconstruction with the smooth part of the prior alone, linear in y."""
        return self._solve(self.adjoint_y, None, 20 * self.max_iterations)  # once, and from afar

    def _solve(self, right_side: Tensor, start: Tensor | None, max_iterations: int) -> Tensor:
        if self._is_convolution:
            return self._filter(right_side, self._inverse)
        operator = self.energy.operator
        result = conjugate_gradients(
            lambda x: operator.normal(x) + self._filter(x, self._patch_transfer),
            right_side,
            start=self._filter(right_side, self._inverse) if start is None else start,
            precondition=lambda r: self._filter(r, self._inverse),
            tolerance=self.tolerance,
            max_iterations=max_iterations,
        )
        return result.solution

    def _filter(self, image: Tensor, transfer: Tensor) -> Tensor:
        if self._real:
            filtered: Tensor = torch.fft.irfft2(transfer * torch.fft.rfft2(image), s=image.shape[-2:])
        else:
            filtered = torch.fft.ifft2(transfer * torch.fft.fft2(image))
        return filtered


def _nearest_circulant(operator: LinearOperator) -> Tensor:
    """Transfer function of about the circulant nearest to A^H A: the diagonal of F A^H A F^H, from random probes.

    With z white noise and N = A^H A, the mean of Re(conj(F z) F N z) / |F z|^2 is that diagonal.

    Source
    ------
    T. F. Chan, SIAM J. Sci. Stat. Comput. 9 (1988) 766-771 (optimal circulant); Bekas et al., Appl. Numer. Math. 57 (2007)
    1214-1229 (diagonal from probes).
    """
    generator = torch.Generator().manual_seed(0)
    _, height, width = operator.domain_shape
    probes = torch.randn((N_PROBES, 1, height, width), generator=generator, dtype=torch.float64)
    probes = probes.to(device=operator.device, dtype=operator.domain_dtype)
    spectra = torch.fft.fft2(probes)
    images = torch.fft.fft2(operator.normal(probes))
    cross: Tensor = (spectra.conj() * images).real.sum(dim=(0, 1))
    diagonal: Tensor = cross / spectra.abs().square().sum(dim=(0, 1))
    norm = operator.norm(tolerance=1e-2)
    diagonal = diagonal.clamp(min=0, max=norm**2)
    # Probing leaves noise, and a real image has a symmetric diagonal: average f with -f.
    return 0.5 * (diagonal + diagonal.flip(0, 1).roll((1, 1), (0, 1)))
