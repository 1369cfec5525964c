"""Few virtual coils instead of many."""

import math
from functools import partial

import numpy as np
from numpy.typing import NDArray

from mrisps.io.acquisition import Acquisition
from mrisps.kspace.crop import whole_readouts
from mrisps.kspace.grid import to_image, to_kspace
from mrisps.kspace.settings import CoilCompression
from mrisps.kspace.step import Complex, Done, Step, error_in, mask_of, mixed, on_coils
from mrisps.kspace.whiten import noise_std_of, with_mixed_coils

__all__ = ["compress"]


def compress(acquisition: Acquisition, settings: CoilCompression) -> tuple[Acquisition, Done | None]:
    """Keep the virtual coils that hold the signal.

    Raises
    ------
    FileError
        Geometric compression of readouts that are not fully sampled.
    """
    source = acquisition.kspace if acquisition.calibration is None else acquisition.calibration
    samples = source[:, (source != 0).any(axis=0)].astype(np.complex128)
    n, kept = _number(acquisition, samples, settings)
    if n >= acquisition.n_coils:
        return acquisition, None
    if settings.method == "geometric":
        compressed, matrix, kept = _geometric(acquisition, source, n)
    else:
        matrix = _principal(samples, n)[0]
        compressed = with_mixed_coils(acquisition, matrix)
    step: Step = {
        "step": "compression",
        "method": settings.method,
        "coils": [acquisition.n_coils, n],
        "signal_kept": kept,
    }
    return compressed, Done(step, undo=matrix.conj().swapaxes(-2, -1))


def _number(acquisition: Acquisition, samples: NDArray[np.complex128], settings: CoilCompression) -> tuple[int, float]:
    """How many virtual coils are kept, and the share of the signal's energy that they hold; noise is no signal."""
    n_coils = acquisition.n_coils
    energy = np.linalg.eigvalsh(samples @ samples.conj().T)[::-1].clip(min=0)
    noise = 0.0 if acquisition.noise_scan is None else noise_std_of(acquisition) or 0.0
    floor = 2 * noise**2 * samples.shape[1]
    signal = (energy - floor).clip(min=0) if energy[0] > 2 * floor else energy
    shares = np.cumsum(signal) / max(float(signal.sum()), 1e-300)
    n = settings.n_coils
    if n is None:
        mask = mask_of(acquisition)
        needed = math.ceil(settings.per_acceleration * mask.size / int(mask.sum()))
        n = max(int(np.searchsorted(shares, settings.kept_energy)) + 1, needed)
    n = min(n, n_coils)
    return n, float(shares[n - 1])


def _principal(samples: NDArray[np.complex128], n: int) -> tuple[NDArray[np.complex128], float]:
    """The n leading left singular vectors, (n, coil) conjugated, and the share of the energy that they hold."""
    values, vectors = np.linalg.eigh(samples @ samples.conj().T)
    total = float(values.clip(min=0).sum())
    return vectors[:, ::-1][:, :n].conj().T, float(values[::-1][:n].clip(min=0).sum()) / total if total > 0 else 1.0


def _geometric(acquisition: Acquisition, source: Complex, n: int) -> tuple[Acquisition, NDArray[np.complex128], float]:
    """A matrix for each row of the image (the readout is transformed), aligned from row to row."""
    mask = mask_of(acquisition)
    if not (whole_readouts(source) and (mask == mask[:1]).all()):
        message = "geometric coil compression needs a fully sampled readout (recipe: preparation.compression.method)"
        raise error_in(acquisition, message, "mask")
    rows = to_image(source, axes=(1,)).astype(np.complex128)  # (coil, y, x), y an image axis
    matrices = np.empty((rows.shape[1], n, rows.shape[0]), dtype=np.complex128)
    kept = total = 0.0
    previous = None
    for y in range(rows.shape[1]):
        matrix, share = _principal(rows[:, y], n)
        energy = float(np.square(np.abs(rows[:, y])).sum())
        kept, total = kept + share * energy, total + energy
        if previous is not None:  # the rotation of the virtual coils that is nearest to the row before
            u, _, v = np.linalg.svd(matrix @ previous.conj().T)
            matrix = (u @ v).conj().T @ matrix
        matrices[y] = previous = matrix

    def apply(coils: Complex) -> Complex:
        virtual: Complex = np.einsum("ync,...cyx->...nyx", matrices.astype(np.complex64), coils).astype(np.complex64)
        return virtual

    def compressed(kspace: Complex) -> Complex:
        return to_kspace(apply(to_image(kspace, axes=(1,))), axes=(1,))

    # Every row's matrix has orthonormal rows: white noise stays white, so any of them will do.
    result = on_coils(acquisition, compressed, apply, partial(mixed, matrices[0]))
    return result, matrices, kept / total if total > 0 else 1.0
