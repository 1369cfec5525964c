"""What a user would pick instead, behind one face: zero filling, and SigPy's total variation and l1-wavelet apps.

All take centred k-space (1, y, x), zero where not acquired, and return an image (y, x) in the same units.
"""

import numpy as np
from numpy.typing import NDArray

__all__ = ["l1_wavelet", "total_variation", "zero_filled"]

Kspace = NDArray[np.complex64]
Image = NDArray[np.complex64]


def zero_filled(kspace: Kspace) -> Image:
    """The inverse centred orthonormal FFT of what was acquired: A^H y."""
    shifted = np.fft.ifftshift(kspace[0])
    return np.fft.fftshift(np.fft.ifft2(shifted, norm="ortho")).astype(np.complex64)


def total_variation(kspace: Kspace, mask: NDArray[np.bool_], lam: float, max_iterations: int = 400) -> Image:
    """SigPy's ``TotalVariationRecon``: argmin 1/2 |M F x - y|^2 + lam |G x|_1, by the primal-dual hybrid gradient method.

    Parameters
    ----------
    kspace
        (1, y, x) complex64.
    mask
        (x,) or (y, x), true where acquired. A given mask keeps SigPy from taking zeros for samples that were not acquired.
    lam
        Weight, for images whose maximum is about 1.
    max_iterations
        SigPy's default of 100 is far from converged at 8-fold acceleration.
    """
    from sigpy.mri.app import TotalVariationRecon

    app = TotalVariationRecon(
        kspace, _one_coil(kspace), lam, weights=_weights(kspace, mask), max_iter=max_iterations, show_pbar=False
    )
    image: Image = np.asarray(app.run(), dtype=np.complex64)
    return image


def l1_wavelet(
    kspace: Kspace, mask: NDArray[np.bool_], lam: float, wavelet: str = "db4", max_iterations: int = 200
) -> Image:
    """SigPy's ``L1WaveletRecon``: argmin 1/2 |M F x - y|^2 + lam |W x|_1, by FISTA; parameters as in `total_variation`."""
    from sigpy.mri.app import L1WaveletRecon

    app = L1WaveletRecon(
        kspace,
        _one_coil(kspace),
        lam,
        weights=_weights(kspace, mask),
        wave_name=wavelet,
        max_iter=max_iterations,
        show_pbar=False,
    )
    image: Image = np.asarray(app.run(), dtype=np.complex64)
    return image


def _one_coil(kspace: Kspace) -> NDArray[np.complex64]:
    return np.ones(kspace.shape, dtype=np.complex64)


def _weights(kspace: Kspace, mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    return np.broadcast_to(mask, kspace.shape).astype(np.float32)
