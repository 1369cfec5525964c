"""Coil sensitivities from the fully sampled centre of k-space: ESPIRiT with one or several sets of maps, in torch."""

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Espirit", "espirit"]

COARSE_STEP = 4
"""Pixels between two points of the grid on which the eigenvectors are found by a full decomposition."""

REFINEMENTS = 4
"""Steps of subspace iteration that carry the eigenvectors from that grid to every pixel."""

NOISE_FACTOR = 2.5
"""The root mean square of the smaller half of the singular values of noise, times this, is at least that of all."""

CHUNK_VALUES = 2**23
"""Complex numbers of coil covariances that are held at a time."""


@dataclass(frozen=True, eq=False)
class Espirit:
    """Eigenvectors and eigenvalues of the calibration, at every pixel.

    Parameters
    ----------
    vectors
        complex64 (set, coil, y, x), orthonormal at every pixel, the first set with the largest eigenvalue.
    eigenvalues
        float32 (set, y, x), 0 to 1: 1 where this set is consistent with every calibration sample.
    singular_values
        float32, of the calibration matrix, largest first, as fractions of the largest.
    n_kernels
        Number of singular vectors that count as signal.
    """

    vectors: Tensor
    eigenvalues: Tensor
    singular_values: Tensor
    n_kernels: int


@torch.no_grad()
def espirit(
    calibration: Tensor,
    shape: tuple[int, int],
    *,
    n_sets: int = 1,
    kernel: tuple[int, int] = (6, 6),
    threshold: float = 0.02,
    noise_std: float = 0.0,
) -> Espirit:
    """Maps from calibration samples (coil, y, x) on a grid (y, x); computed on the device of the samples.

    The calibration matrix holds every window of all coils as a row. Its row space, cut at a threshold, is what windows
    of k-space can look like. At each pixel q that gives a coil covariance G(q), and maps are its leading eigenvectors.

    Parameters
    ----------
    calibration, shape
        complex (coil, y, x): the fully sampled centre of k-space; (y, x) of the image.
    n_sets, kernel
        Sets of maps; (y, x) of the windows, in samples.
    threshold
        Singular values below this fraction of the largest are noise.
    noise_std
        Of the complex noise of a sample: singular values that noise alone would give are noise, too. Where the small
        singular values say that there is less noise, they are believed.

    Source
    ------
    Uecker et al., Magn. Reson. Med. 71 (2014) 990-1001.
    """
    n_coils, n_y, n_x = calibration.shape
    if not 1 <= n_sets <= n_coils:
        raise ValueError(f"n_sets: expected 1 to {n_coils} (the number of coils), got {n_sets}")
    if n_y < kernel[0] or n_x < kernel[1]:
        raise ValueError(f"calibration: expected at least {kernel[0]} x {kernel[1]} samples, got {n_y} x {n_x}")
    values, kernels = _row_space(calibration.to(torch.complex64), kernel)
    floor = threshold * float(values[0])
    n_windows = (n_y - kernel[0] + 1) * (n_x - kernel[1] + 1)
    n_columns = n_coils * kernel[0] * kernel[1]
    lower = values[: min(n_windows, n_columns)]
    lower = lower[len(lower) // 2 :]
    noise_std = min(noise_std, NOISE_FACTOR * float(lower.square().mean() / max(n_windows, n_columns)) ** 0.5)
    edge = noise_std * (n_windows**0.5 + n_columns**0.5)  # the largest value of noise alone (Marchenko and Pastur)
    n_kernels = max(int((values > max(floor, edge)).sum()), 1)
    correlation = _correlation(kernels[:n_kernels].reshape(-1, n_coils, *kernel))
    vectors, eigenvalues = _eigenmaps(correlation, shape, n_sets)
    reference = _principal_coil(calibration.to(torch.complex64))
    turned = torch.einsum("c,scyx->syx", reference.conj(), vectors)
    vectors = vectors * torch.exp(-1j * turned.angle())[:, None]
    return Espirit(vectors, eigenvalues, values / values[0], n_kernels)


def _row_space(calibration: Tensor, kernel: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Singular values and right singular vectors (r, coil * width^2) of the calibration matrix, largest first."""
    windows = calibration.unfold(1, kernel[0], 1).unfold(2, kernel[1], 1)  # (coil, rows, columns, *kernel)
    matrix = windows.permute(1, 2, 0, 3, 4).flatten(2).flatten(0, 1)  # (window, coil * width^2)
    tall = matrix.shape[0] >= matrix.shape[1]
    gram = matrix.mH @ matrix if tall else matrix @ matrix.mH
    eigenvalues, vectors = torch.linalg.eigh(gram)
    values = eigenvalues.flip(0).clamp(min=0).sqrt()
    vectors = vectors.flip(1)
    if tall:
        return values, vectors.mH
    kept = values > 1e-3 * values[0]  # below, the division is rounding; and far below every threshold
    return values, (vectors[:, kept] / values[kept]).mH @ matrix


def _correlation(kernels: Tensor) -> Tensor:
    """Sum over kernels r of the correlations of coils c and d, (coil, coil, 2 width, 2 width), the zero lag in the corner.

    Its Fourier sum at pixel q is G_cd(q) = sum_r K_rc(q) conj(K_rd(q)) / width^2, with K the Fourier sum of a kernel.
    """
    n_coils, n_y, n_x = kernels.shape[1:]
    spectra = torch.fft.ifft2(kernels, s=(2 * n_y, 2 * n_x), norm="forward")
    spectra = spectra.permute(2, 3, 1, 0).flatten(0, 1)  # (pixel, coil, kernel)
    # A window is what multiplies the maps' conjugate: the row space holds conj(window), so no conjugate is due here.
    gram = (spectra @ spectra.mH) / (n_y * n_x)
    gram = gram.reshape(2 * n_y, 2 * n_x, n_coils, n_coils).permute(2, 3, 0, 1)
    correlation: Tensor = torch.fft.fft2(gram, norm="forward")
    return correlation


def _eigenmaps(correlation: Tensor, shape: tuple[int, int], n_sets: int) -> tuple[Tensor, Tensor]:
    """Leading eigenvectors (set, coil, y, x) and eigenvalues (set, y, x) of G at every pixel."""
    n_coils = correlation.shape[0]
    n_y, n_x = shape
    along_x = _phases(n_x, correlation.shape[3], correlation.device)
    along_y = _phases(n_y, correlation.shape[2], correlation.device)
    rows = torch.einsum("cdij,jx->cdix", correlation, along_x)  # (coil, coil, lag, x)
    rows = rows.permute(2, 3, 0, 1).flatten(1)  # (lag, x coil coil)

    coarse_y = torch.arange(COARSE_STEP // 2, n_y + COARSE_STEP // 2, COARSE_STEP, device=rows.device).clamp(
        max=n_y - 1
    )
    coarse_x = torch.arange(COARSE_STEP // 2, n_x + COARSE_STEP // 2, COARSE_STEP, device=rows.device).clamp(
        max=n_x - 1
    )
    n_kept = min(n_sets + 1, n_coils)  # one more than asked for: the last of the kept ones is slow
    start = torch.empty((len(coarse_y), len(coarse_x), n_coils, n_kept), dtype=rows.dtype, device=rows.device)
    step = max(1, CHUNK_VALUES // (n_x * n_coils**2))
    for first in range(0, len(coarse_y), step):
        index = coarse_y[first : first + step]
        gram = (along_y.T[index] @ rows).reshape(-1, n_x, n_coils, n_coils)[:, coarse_x]
        _, found = torch.linalg.eigh(gram)
        start[first : first + step] = found[..., -n_kept:].flip(-1)

    vectors = torch.empty((n_sets, n_coils, n_y, n_x), dtype=rows.dtype, device=rows.device)
    eigenvalues = torch.empty((n_sets, n_y, n_x), device=rows.device)
    nearest_x = (torch.arange(n_x, device=rows.device) // COARSE_STEP).clamp(max=len(coarse_x) - 1)
    for first in range(0, n_y, step):
        index = torch.arange(first, min(first + step, n_y), device=rows.device)
        gram = (along_y.T[index] @ rows).reshape(-1, n_coils, n_coils)
        basis = start[(index // COARSE_STEP).clamp(max=len(coarse_y) - 1)][:, nearest_x].flatten(0, 1)
        for _ in range(REFINEMENTS):
            basis = _orthonormal(gram @ basis)
        image = gram @ basis
        small, turn = torch.linalg.eigh(basis.mH @ image)
        basis = basis @ turn.flip(-1)[..., :n_sets]
        vectors[:, :, index] = basis.reshape(-1, n_x, n_coils, n_sets).permute(3, 2, 0, 1)
        eigenvalues[:, index] = small.flip(-1)[..., :n_sets].reshape(-1, n_x, n_sets).permute(2, 0, 1)
    return vectors, eigenvalues.clamp_(0, 1)


def _orthonormal(basis: Tensor) -> Tensor:
    """Gram-Schmidt of (pixel, coil, vector) along the vectors."""
    done: list[Tensor] = []
    for vector in basis.unbind(-1):
        for other in done:
            vector = vector - other * (other.conj() * vector).sum(-1, keepdim=True)
        size = torch.linalg.vector_norm(vector, dim=-1, keepdim=True)
        done.append(vector / size.clamp(min=torch.finfo(torch.float32).tiny))
    return torch.stack(done, dim=-1)


def _phases(size: int, n_lags: int, device: torch.device) -> Tensor:
    """exp(2 pi i lag (pixel - size // 2) / size), (lag, pixel), lags in the order of a transform."""
    lags = torch.fft.fftfreq(n_lags, 1 / n_lags, device=device, dtype=torch.float64)
    pixels = torch.arange(size, device=device, dtype=torch.float64) - size // 2
    angle = 2 * torch.pi * lags[:, None] * pixels / size
    return torch.polar(torch.ones_like(angle), angle).to(torch.complex64)


def _principal_coil(calibration: Tensor) -> Tensor:
    """The combination of coils that holds the most signal, (coil,): the maps' phase is that in which it is real."""
    samples = calibration.flatten(1)
    _, vectors = torch.linalg.eigh(samples @ samples.mH)
    principal: Tensor = vectors[:, -1]
    return principal
