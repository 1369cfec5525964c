"""From what several receive coils measured to a SENSE problem: the steps between a raw file and the solver.

Each step is a function from an acquisition to an acquisition, can be left out (:class:`Preparation`), and says what it
did:

    dead_coils             coils without signal are left out
    prewhiten              coils become uncorrelated, with noise of unit variance, by the noise scan
    remove_oversampling    the readout's outer field of view is cut off
    compression            few virtual coils instead of many                               (:class:`CoilCompression`)
    maps                   coil sensitivities from calibration lines                       (:class:`CoilMaps`)
    phase                  a smooth phase is folded into the maps, so that the image is nearly real  (:class:`PhaseRemoval`)

Partial Fourier needs no step: the samples that are missing are missing in the mask, and the model fills them in.
Homodyne and POCS are not here; nor are lines read backwards (EPI), which the readers refuse by name.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mrisps.io.acquisition import Acquisition
from mrisps.kspace.calibrate import calibrate
from mrisps.kspace.compress import compress
from mrisps.kspace.crop import remove_oversampling
from mrisps.kspace.phase import smooth_phase
from mrisps.kspace.settings import CoilCompression, CoilMaps, PhaseRemoval, Preparation
from mrisps.kspace.step import Complex, Done, Step, mask_of
from mrisps.kspace.whiten import WHITE_NOISE_STD, leave_out_dead_coils, prewhiten

__all__ = ["CoilCompression", "CoilMaps", "PhaseRemoval", "Preparation", "Prepared", "Step", "prepare"]

Mask = NDArray[np.bool_]


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
        complex64 (set, coil, y, x): the sensitivities, without the phase of the image. Their root sum of squares over
        the coils is the weight of a set at a pixel, at most about 1.
    phase
        complex64 (set, y, x) of modulus 1; ones where none was removed.
    combine
        complex64 (set, set, y, x), triangular: applied to the images of the sets it gives images whose root sum of
        squares is that of the coil images of the input, in the unit of ``unit``.
    unit
        Input units of one unit of the combined image: a power of 2, so that scaling loses nothing.
    noise_std
        Of the real and of the imaginary part of a sample, where a noise scan tells; else None.
    steps
        What was done, step by step, in plain values.
    notes
        What a user should know.
    facts
        Numbers for the verdict.
    """

    kspace: Complex
    mask: Mask
    maps: Complex
    phase: Complex
    combine: Complex
    unit: float
    noise_std: float | None
    steps: tuple[Step, ...]
    notes: tuple[str, ...]
    facts: Mapping[str, float]


def prepare(
    acquisition: Acquisition,
    mask: Mask,
    preparation: Preparation,
    maps_folder: Path | None = None,
    device: torch.device | str = "cpu",
) -> Prepared:
    """Do all steps of one slice, of which the mask (y, x) is used; maps are computed on the device.

    Estimated maps are kept in a folder, and taken from it if the same were estimated before; None keeps none.

    Raises
    ------
    FileError
        The record does not have what a step needs; names the field.
    SettingsError
        More sets of maps are asked for than there are.
    """
    unit = 2.0 ** round(math.log2(float(np.abs(acquisition.kspace).max())))
    now = replace(
        acquisition,
        kspace=np.where(mask, acquisition.kspace / np.float32(unit), 0).astype(np.complex64),
        mask=mask,
        target=None,
        calibration=_divided(acquisition.calibration, unit),
        noise_scan=_divided(acquisition.noise_scan, unit),
    )
    record: list[Done | None] = []

    def note(result: tuple[Acquisition, Done | None]) -> Acquisition:
        record.append(result[1])
        return result[0]

    now = note(leave_out_dead_coils(now))
    whitened = preparation.prewhiten and now.noise_scan is not None
    if preparation.prewhiten:
        now = note(prewhiten(now))
    if preparation.remove_oversampling:
        now = note(remove_oversampling(now))
    if preparation.compression is not None:
        now = note(compress(now, preparation.compression))
    now = note(calibrate(now, preparation.maps, maps_folder, device))
    maps = now.sensitivity_maps
    assert maps is not None
    phase = np.ones((len(maps), *now.shape), dtype=np.complex64)
    if preparation.phase is not None:
        phase, done = smooth_phase(now, preparation.phase)
        record.append(done)
    found = [done for done in record if done is not None]
    return Prepared(
        now.kspace,
        mask_of(now),
        maps,
        phase,
        _combination(maps, [done.undo for done in found if done.undo is not None]),
        unit,
        WHITE_NOISE_STD if whitened else None,
        tuple(done.step for done in found),
        tuple(line for done in found for line in done.notes),
        {key: value for done in found for key, value in done.facts.items()},
    )


def _combination(maps: Complex, undo: list[NDArray[np.complex128]]) -> Complex:
    """R of the QR decomposition of the maps S of the input's coils at every pixel, (set, set, y, x): |R x| = |S x|."""
    coils = maps
    for matrix in reversed(undo):
        rows = matrix if matrix.ndim == 3 else matrix[None]  # (y or 1, old, new)
        coils = np.einsum("yon,snyx->soyx" if len(rows) > 1 else "zon,snyx->soyx", rows.astype(np.complex64), coils)
    n_sets = len(coils)
    triangular = np.zeros((n_sets, n_sets, *maps.shape[2:]), dtype=np.complex64)
    done: list[Complex] = []
    for column, part in enumerate(coils):
        rest = part
        for row, unit in enumerate(done):
            triangular[row, column] = (unit.conj() * rest).sum(axis=0)
            rest = rest - unit * triangular[row, column]
        size = np.sqrt(np.square(np.abs(rest)).sum(axis=0))
        triangular[column, column] = size
        done.append(rest / np.where(size > 0, size, 1))
    return triangular


def _divided(array: Complex | None, unit: float) -> Complex | None:
    return None if array is None else np.asarray(array / np.float32(unit), dtype=np.complex64)
