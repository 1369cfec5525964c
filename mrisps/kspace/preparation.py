"""From what several receive coils measured to a SENSE problem: the steps between a raw file and the solver.

Each step is a frozen object in a recipe's :class:`Preparation`, can be left out, and says what it did in the result's record:

    prewhiten              coils become uncorrelated, with noise of unit variance, by the noise scan
    remove_oversampling    the readout's outer field of view is cut off
    compression            few virtual coils instead of many                               (:class:`CoilCompression`)
    maps                   coil sensitivities from calibration lines                       (:class:`CoilMaps`)
    phase                  a smooth phase is folded into the maps, so that the image is nearly real  (:class:`PhaseRemoval`)

Partial Fourier needs no step: the samples that are missing are missing in the mask, and the model fills them in. Homodyne and
POCS are not here; nor are lines read backwards (EPI), which the readers refuse by name.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mrisps.errors import FileError
from mrisps.io.acquisition import Acquisition
from mrisps.kspace.coil_maps import (
    calibration_shape,
    centre,
    estimate_maps,
    keep_maps,
    pad,
    read_maps,
    to_image,
    to_kspace,
)
from mrisps.kspace.settings import SMALLEST_CALIBRATION, CoilCompression, CoilMaps, PhaseRemoval, Preparation

__all__ = [
    "CoilCompression",
    "CoilMaps",
    "PhaseRemoval",
    "Preparation",
    "Prepared",
    "Step",
    "calibration_shape",
    "prepare",
]

Complex = NDArray[np.complex64]
Mask = NDArray[np.bool_]
Step = Mapping[str, str | float | int | list[int]]


@dataclass(frozen=True, eq=False)
class Prepared:
    """What a SENSE problem is made of.

    Parameters
    ----------
    kspace
        complex64 (coil, y, x), 0 where not acquired.
    mask
        bool (y, x).
    maps
        complex64 (coil, y, x): the sensitivities, without the phase of the image.
    phase
        complex64 (y, x) of modulus 1; ones where none was removed.
    unit
        Input units of one unit of ``kspace``: a power of 2, so that scaling loses nothing; 1 after whitening, when the unit is the
        standard deviation of the complex noise.
    noise_std
        Of the real and of the imaginary part of a sample, where a noise scan tells; else None.
    steps
        What was done, step by step, in plain values.
    notes
        What a user should know.
    """

    kspace: Complex
    mask: Mask
    maps: Complex
    phase: Complex
    unit: float
    noise_std: float | None
    steps: tuple[Step, ...]
    notes: tuple[str, ...]


def prepare(
    acquisition: Acquisition, mask: Mask, preparation: Preparation, maps_folder: Path | None = None
) -> Prepared:
    """Do all steps of one slice.

    Parameters
    ----------
    acquisition
        One slice.
    mask
        bool (y, x): what is used of it.
    preparation
        The steps.
    maps_folder
        Where estimated maps are kept, and taken from if the same were estimated before; None keeps none.

    Raises
    ------
    FileError
        The record does not have what a step needs; names the field.
    """
    unit = 2.0 ** round(math.log2(float(np.abs(acquisition.kspace).max())))
    state = _State(
        acquisition,
        kspace=np.where(mask, acquisition.kspace / np.float32(unit), 0).astype(np.complex64),
        mask=mask,
        calibration=_scaled(acquisition.calibration, unit),
        given_maps=_only_set(acquisition),
    )
    if preparation.prewhiten:
        _prewhiten(state, _scaled(acquisition.noise_scan, unit))
    if preparation.remove_oversampling:
        _remove_oversampling(state)
    if preparation.compression is not None:
        _compress(state, preparation.compression)
    maps = _sensitivities(state, preparation.maps, maps_folder)
    phase = np.ones(maps.shape[1:], dtype=np.complex64)
    if preparation.phase is not None:
        phase = _smooth_phase(state, maps, preparation.phase)
    return Prepared(
        state.kspace,
        state.mask,
        maps,
        phase,
        unit if state.noise_std is None else 1.0,
        state.noise_std,
        tuple(state.steps),
        tuple(state.notes),
    )


class _State:
    """A slice on its way through the steps."""

    def __init__(
        self,
        acquisition: Acquisition,
        *,
        kspace: Complex,
        mask: Mask,
        calibration: Complex | None,
        given_maps: Complex | None,
    ) -> None:
        self.acquisition = acquisition
        self.kspace = kspace
        self.mask = mask
        self.calibration = calibration
        self.given_maps = given_maps
        self.noise_std: float | None = None
        self.steps: list[Step] = []
        self.notes: list[str] = []

    @property
    def n_coils(self) -> int:
        return int(self.kspace.shape[0])

    def error(self, message: str, field: str) -> FileError:
        return FileError(self.acquisition.source, message, field=field)

    def calibration_region(self, width: int) -> Complex:
        """The fully sampled centre, (coil, y, x), of the reference scan or else of the image's own k-space."""
        if self.calibration is not None:
            source, mask = self.calibration, (self.calibration != 0).any(axis=0)
        else:
            source, mask = self.kspace, self.mask
        height, columns = calibration_shape(mask)
        size = min(height, width), min(columns, width)
        if min(size) < SMALLEST_CALIBRATION:
            raise self.error(
                f"the fully sampled centre has {height} x {columns} samples (y, x); at least "
                f"{SMALLEST_CALIBRATION} x {SMALLEST_CALIBRATION} are needed for coil maps, or a file that has maps",
                "calibration",
            )
        return centre(source, size)


def _scaled(array: Complex | None, unit: float) -> Complex | None:
    return None if array is None else np.asarray(array / np.float32(unit), dtype=np.complex64)


def _only_set(acquisition: Acquisition) -> Complex | None:
    maps = acquisition.sensitivity_maps
    if maps is None:
        return None
    if maps.shape[0] != 1:
        raise FileError(
            acquisition.source,
            f"{maps.shape[0]} sets of maps: the reconstruction takes one (soft SENSE is an operator only)",
            field="sensitivity_maps",
        )
    only: Complex = maps[0]
    return only


# ---------------------------------------------------------------------------------------------------------------- noise


def _prewhiten(state: _State, noise: Complex | None) -> None:
    """L^-1 of every sample, with L L^H the covariance of the coils' noise: unit variance, uncorrelated."""
    if noise is None:
        state.steps.append({"step": "prewhiten", "done": "no: the file has no noise scan"})
        return
    n_coils, n_samples = noise.shape
    if n_samples < 2 * n_coils:
        raise state.error(
            f"{n_samples} samples of noise are too few for {n_coils} coils (recipe: preparation.prewhiten)",
            "noise_scan",
        )
    samples = noise.astype(np.complex128)
    covariance = samples @ samples.conj().T / n_samples  # (coil, coil), of noise without a mean
    eigenvalues = np.linalg.eigvalsh(covariance)
    if not eigenvalues[0] > 1e-10 * eigenvalues[-1]:
        raise state.error("the noise of the coils is linearly dependent: it cannot be whitened", "noise_scan")
    whiten = np.linalg.inv(np.linalg.cholesky(covariance)).astype(np.complex128)
    state.kspace = _mix(whiten, state.kspace)
    if state.calibration is not None:
        state.calibration = _mix(whiten, state.calibration)
    if state.given_maps is not None:
        state.given_maps = _mix(whiten, state.given_maps)
    state.noise_std = math.sqrt(0.5)
    state.steps.append(
        {"step": "prewhiten", "noise_samples": n_samples, "condition": float(eigenvalues[-1] / eigenvalues[0])}
    )


def _mix(matrix: NDArray[np.complex128], coils: Complex) -> Complex:
    """(new, coil), (coil, ...) -> (new, ...)."""
    mixed: Complex = np.tensordot(matrix.astype(np.complex64), coils, axes=1).astype(np.complex64)
    return mixed


# --------------------------------------------------------------------------------------------------------- oversampling


def _remove_oversampling(state: _State) -> None:
    """Cut the image to the central rows; exact, because the readout is whole."""
    factor = state.acquisition.readout_oversampling
    if factor == 1:
        return
    n_y = state.kspace.shape[1]
    new = round(n_y / factor)
    if not (state.mask == state.mask[:1]).all():
        state.notes.append("the readout is not fully sampled: its oversampling is not removed")
        state.steps.append({"step": "remove_oversampling", "done": "no: the readout is not fully sampled"})
        return
    state.kspace = _crop_readout(state.kspace, new)
    state.mask = state.mask[:new]
    if state.calibration is not None:
        if not _whole_readouts(state.calibration):
            raise state.error("readouts are partial: their oversampling cannot be removed", "calibration")
        state.calibration = _crop_readout(state.calibration, new)
    if state.given_maps is not None:
        first = n_y // 2 - new // 2
        state.given_maps = state.given_maps[:, first : first + new]
    state.steps.append({"step": "remove_oversampling", "rows": [n_y, new]})


def _whole_readouts(kspace: Complex) -> bool:
    acquired = (kspace != 0).any(axis=0)
    return bool((acquired == acquired.any(axis=0)).all())


def _crop_readout(kspace: Complex, new: int) -> Complex:
    """Centred k-space (coil, y, x) of the central ``new`` rows of the image."""
    n_y = kspace.shape[1]
    first = n_y // 2 - new // 2
    rows = to_image(kspace, axes=(1,))[:, first : first + new]
    return to_kspace(rows, axes=(1,))


# ---------------------------------------------------------------------------------------------------------- compression


def _compress(state: _State, settings: CoilCompression) -> None:
    if state.n_coils <= settings.n_coils:
        return
    if settings.method == "geometric":
        kept = _compress_geometric(state, settings.n_coils)
    else:
        source = state.kspace if state.calibration is None else state.calibration
        samples = source.reshape(state.n_coils, -1).astype(np.complex128)
        matrix, kept = _principal(samples, settings.n_coils)
        state.kspace = _mix(matrix, state.kspace)
        state.calibration = None if state.calibration is None else _mix(matrix, state.calibration)
        state.given_maps = None if state.given_maps is None else _mix(matrix, state.given_maps)
    state.steps.append(
        {
            "step": "compression",
            "method": settings.method,
            "coils": [state.acquisition.n_coils, settings.n_coils],
            "signal_kept": kept,
        }
    )


def _principal(samples: NDArray[np.complex128], n: int) -> tuple[NDArray[np.complex128], float]:
    """The n leading left singular vectors, (n, coil) conjugated, and the share of the energy that they hold."""
    values, vectors = np.linalg.eigh(samples @ samples.conj().T)
    total = float(values.clip(min=0).sum())
    return vectors[:, ::-1][:, :n].conj().T, float(values[::-1][:n].clip(min=0).sum()) / total if total > 0 else 1.0


def _compress_geometric(state: _State, n: int) -> float:
    """A matrix for each row of the image (the readout is transformed), aligned from row to row."""
    source = state.kspace if state.calibration is None else state.calibration
    if not (_whole_readouts(source) and (state.mask == state.mask[:1]).all()):
        raise state.error(
            "geometric coil compression needs a fully sampled readout (recipe: preparation.compression.method)", "mask"
        )
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
        mixed: Complex = np.einsum("ync,cyx->nyx", matrices.astype(np.complex64), coils).astype(np.complex64)
        return mixed

    state.kspace = to_kspace(apply(to_image(state.kspace, axes=(1,))), axes=(1,)) * state.mask
    if state.calibration is not None:
        state.calibration = to_kspace(apply(to_image(state.calibration, axes=(1,))), axes=(1,))
    if state.given_maps is not None:
        state.given_maps = apply(state.given_maps)
    return kept / total if total > 0 else 1.0


# ----------------------------------------------------------------------------------------------------------------- maps


def _sensitivities(state: _State, settings: CoilMaps, folder: Path | None) -> Complex:
    if state.given_maps is not None:
        state.steps.append({"step": "maps", "method": "from the file"})
        return _of_unit_power(state.given_maps)
    shape = state.kspace.shape[1:]
    if state.n_coils == 1:
        state.steps.append({"step": "maps", "method": "one coil: ones"})
        return np.ones((1, *shape), dtype=np.complex64)
    region = state.calibration_region(settings.calibration_width)
    step = {
        "step": "maps",
        "method": settings.method,
        "calibration": "separate" if state.calibration is not None else "from the image's k-space",
        "calibration_samples": [int(size) for size in region.shape[1:]],
    }
    key = hashlib.sha256(json.dumps([dataclasses.asdict(settings), shape]).encode())
    key.update(np.ascontiguousarray(region).tobytes())
    path = None if folder is None else folder / f"{key.hexdigest()[:32]}.npy"
    maps = None if path is None else read_maps(path, (state.n_coils, *shape))
    if maps is None:
        maps = estimate_maps(region, shape, settings)
        if not maps.any():  # a slice without signal, at the end of a volume
            maps = estimate_maps(region, shape, dataclasses.replace(settings, crop=0.0, walsh_crop=0.0))
            state.notes.append(
                "no pixel passes the threshold of the coil maps: all are kept; there may be no signal here"
            )
        if path is not None:
            keep_maps(path, maps)
    else:
        step["cached"] = "yes"
    state.steps.append(step)
    return maps


def _of_unit_power(maps: Complex) -> Complex:
    """sum |S|^2 = 1 where the maps are not zero: beta and lam then mean the same everywhere."""
    power = np.sqrt(np.square(np.abs(maps)).sum(axis=0))
    return np.where(power > 0, maps / np.where(power > 0, power, 1), 0).astype(np.complex64)


# ---------------------------------------------------------------------------------------------------------------- phase


def _smooth_phase(state: _State, maps: Complex, settings: PhaseRemoval) -> Complex:
    """exp(i angle) of the low-resolution image, of the image's own k-space, whatever of its centre there is."""
    shape = state.kspace.shape[1:]
    size = min(settings.width, shape[0]), min(settings.width, shape[1])
    window = np.outer(*(np.hanning(n + 2)[1:-1] for n in size))
    low = to_image(pad((centre(state.kspace, size) * window).astype(np.complex64), shape))
    image = (maps.conj() * low).sum(axis=0)
    state.steps.append({"step": "phase", "samples": list(size)})
    return np.asarray(np.exp(1j * np.angle(image)), dtype=np.complex64)
