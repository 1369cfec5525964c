"""Coils without signal are left out; the noise of the others becomes uncorrelated, with unit variance."""

import math
from functools import partial

import numpy as np
from numpy.typing import NDArray

from mrisps.io.acquisition import Acquisition
from mrisps.kspace.grid import calibration_shape, centre
from mrisps.kspace.step import Done, Step, error_in, mask_of, mixed, on_coils

__all__ = ["WHITE_NOISE_STD", "estimate_noise_std", "keep_coils", "leave_out_dead_coils", "prewhiten"]

WHITE_NOISE_STD = math.sqrt(0.5)
"""Of the real and of the imaginary part of a sample, after whitening."""

SILENT = 1e-10
"""A coil with less than this fraction of the strongest coil's energy is dead."""

LOUD = 4.0
"""Coils whose noise is so many times the median's are far louder."""

DEVIATIONS = 5.0
"""A coil is all noise if the energy of the centre of k-space is within so many standard deviations of that of noise alone."""


def leave_out_dead_coils(acquisition: Acquisition) -> tuple[Acquisition, Done]:
    """Without the coils that have no signal: those whose samples are zero, or no larger than the noise scan's."""
    source = acquisition.kspace if acquisition.calibration is None else acquisition.calibration
    size = calibration_shape((source != 0).any(axis=0))
    samples = centre(source, (min(size[0], 24), min(size[1], 24))) if min(size) > 0 else source
    samples = samples.reshape(acquisition.n_coils, -1)
    power = np.square(np.abs(samples.astype(np.complex128))).mean(axis=1)
    dead = power <= SILENT * power.max()
    if acquisition.noise_scan is not None:
        noise = np.square(np.abs(acquisition.noise_scan.astype(np.complex128))).mean(axis=1)
        spread = math.sqrt(1 / samples.shape[1] + 1 / acquisition.noise_scan.shape[1])
        dead |= power <= noise * (1 + DEVIATIONS * spread)
    kept = np.flatnonzero(~dead)
    if len(kept) == 0:
        note = "no coil has signal above its noise in the centre of k-space: there may be no image here"
        return acquisition, Done({"step": "dead_coils", "left_out": []}, (note,), {"dead_coils": 1.0})
    mask = mask_of(acquisition)
    facts = {
        "dead_coils": 1 - len(kept) / acquisition.n_coils,
        "acceleration_over_coils": mask.size / int(mask.sum()) / len(kept),
    }
    if len(kept) == acquisition.n_coils:
        return acquisition, Done({"step": "dead_coils", "left_out": []}, (), facts)
    out = [int(coil) for coil in np.flatnonzero(dead)]
    note = f"{len(out)} of {acquisition.n_coils} coils have no signal above their noise and are left out: {out}"
    return keep_coils(acquisition, kept), Done({"step": "dead_coils", "left_out": out}, (note,), facts)


def keep_coils(acquisition: Acquisition, coils: NDArray[np.intp]) -> Acquisition:
    """Only these coils."""

    def kept(array: NDArray[np.complex64]) -> NDArray[np.complex64]:
        return array[coils]

    return on_coils(acquisition, kept, kept, kept)


def prewhiten(acquisition: Acquisition) -> tuple[Acquisition, Done]:
    """L^-1 of every sample, with L L^H the covariance of the coils' noise: unit variance, uncorrelated.

    Without a noise scan the coils stay as they are, unless some are far noisier than others.

    Raises
    ------
    FileError
        Too few samples of noise, or the noise of the coils is linearly dependent.
    """
    noise = acquisition.noise_scan
    if noise is None:
        return _equalise(acquisition)
    n_coils, n_samples = noise.shape
    if n_samples < 2 * n_coils:
        message = f"{n_samples} samples of noise are too few for {n_coils} coils (recipe: preparation.prewhiten)"
        raise error_in(acquisition, message, "noise_scan")
    samples = noise.astype(np.complex128)
    covariance = samples @ samples.conj().T / n_samples  # (coil, coil), of noise without a mean
    size = np.sqrt(np.diag(covariance).real)
    relative = np.linalg.eigvalsh(covariance / np.outer(size, size)) if size.all() else np.zeros(1)
    if not relative[0] > 1e-9:
        raise error_in(acquisition, "the noise of the coils is linearly dependent: it cannot be whitened", "noise_scan")
    # Coils are brought to one size first: their gains may differ by more than single precision holds.
    root = np.linalg.cholesky(covariance / np.outer(size, size))
    whiten = np.linalg.inv(root) / size
    whitened = with_mixed_coils(acquisition, whiten)
    border = estimate_noise_std(whitened.kspace, mask_of(whitened))
    facts = {} if border is None else {"noise_scan_over_data": WHITE_NOISE_STD / border}
    eigenvalues = np.linalg.eigvalsh(covariance)
    step = {
        "step": "prewhiten",
        "noise_samples": n_samples,
        "condition": float(eigenvalues[-1] / max(eigenvalues[0], 1e-300)),
    }
    return whitened, Done(step, (), facts, undo=root * size[:, None])


def _equalise(acquisition: Acquisition) -> tuple[Acquisition, Done]:
    """Without a noise scan: the same noise in every coil, by the border of k-space, where some are far louder than others."""
    mask = mask_of(acquisition)
    found = [estimate_noise_std(coil[None], mask) for coil in acquisition.kspace]
    levels = np.array([level for level in found if level], dtype=np.float64)
    if len(levels) < acquisition.n_coils or levels.max() <= LOUD * np.median(levels):
        return acquisition, Done({"step": "prewhiten", "done": "no: the file has no noise scan"})
    relative = levels / np.median(levels)
    note = "the file has no noise scan, and some coils are far noisier than others: all are brought to the noise of the border"
    step: Step = {
        "step": "prewhiten",
        "done": "coil by coil, by the border of k-space",
        "loudest": float(relative.max()),
    }
    return with_mixed_coils(acquisition, np.diag(1 / relative).astype(np.complex128)), Done(
        step, (note,), undo=np.diag(relative).astype(np.complex128)
    )


def with_mixed_coils(acquisition: Acquisition, matrix: NDArray[np.complex128]) -> Acquisition:
    """Virtual coils: (new, coil) applied to k-space, calibration, maps and noise."""
    mix = partial(mixed, matrix)
    return on_coils(acquisition, mix, mix, mix)


def noise_std_of(acquisition: Acquisition) -> float | None:
    """Standard deviation of the noise in each part of a sample: of the noise scan, else estimated; None if unknown."""
    if acquisition.noise_scan is not None:
        return float(np.sqrt(np.square(np.abs(acquisition.noise_scan)).mean(dtype=np.float64) / 2))
    return estimate_noise_std(acquisition.kspace, mask_of(acquisition))


def estimate_noise_std(kspace: NDArray[np.complex64], mask: NDArray[np.bool_]) -> float | None:
    """Standard deviation of the noise in each part of a sample of k-space (coil, y, x), from the outermost rows.

    The median absolute deviation of the acquired samples in the outer 5 % of the rows on each side, where little but
    noise is left; what signal there is makes it an upper bound. None if there are fewer than 100 such samples that are
    not zero.
    """
    n_rows = max(1, kspace.shape[1] // 20)
    outer = np.zeros(mask.shape, dtype=np.bool_)
    outer[:n_rows] = outer[-n_rows:] = True
    samples = kspace[:, outer & mask]
    samples = samples[samples != 0]
    if samples.size < 100:
        return None
    parts = np.concatenate([samples.real, samples.imag])
    return float(1.4826 * np.median(np.abs(parts)))
