"""What a step of the preparation gives beside the acquisition that it changed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from mrisps.errors import FileError
from mrisps.io.acquisition import Acquisition

__all__ = ["Done", "Step", "error_in", "mask_of", "mixed", "on_coils"]

Complex = NDArray[np.complex64]
OnCoils = Callable[[Complex], Complex]
Step = Mapping[str, str | float | int | list[int]]
"""What was done, in plain values; ``step`` is its name."""


@dataclass(frozen=True)
class Done:
    """The record of one step: what was done, what a user should know, and numbers for the verdict.

    Where coils were mixed, ``undo`` takes the new ones back to the old ones, (old, new), or (y, old, new) for one
    matrix a row of the image.
    """

    step: Step
    notes: tuple[str, ...] = ()
    facts: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    undo: NDArray[np.complex128] | None = None


def error_in(acquisition: Acquisition, message: str, field: str) -> FileError:
    """The error for data that a step cannot use."""
    return FileError(acquisition.source, message, field=field)


def mask_of(acquisition: Acquisition) -> NDArray[np.bool_]:
    """The mask (y, x), which the first step has put in."""
    mask = acquisition.full_mask()
    assert mask is not None
    return mask


def on_coils(acquisition: Acquisition, kspace: OnCoils, image: OnCoils, noise: OnCoils) -> Acquisition:
    """Functions of coil arrays applied to k-space and calibration (coil, y, x), each set of maps (coil, y, x), and noise."""
    maps, calibration, scan = acquisition.sensitivity_maps, acquisition.calibration, acquisition.noise_scan
    return replace(
        acquisition,
        kspace=kspace(acquisition.kspace),
        calibration=None if calibration is None else kspace(calibration),
        sensitivity_maps=None if maps is None else np.stack([image(each) for each in maps]),
        noise_scan=None if scan is None else noise(scan),
    )


def mixed(matrix: NDArray[np.complex128], coils: Complex) -> Complex:
    """(new, coil) applied to the coil axis of an array."""
    return np.tensordot(matrix.astype(np.complex64), coils, axes=(1, 0)).astype(np.complex64)
