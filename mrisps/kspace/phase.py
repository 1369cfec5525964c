"""A smooth phase is taken out of the image and into the maps."""

import numpy as np

from mrisps.io.acquisition import Acquisition
from mrisps.kspace.grid import centre, low_resolution
from mrisps.kspace.settings import PhaseRemoval
from mrisps.kspace.step import Complex, Done

__all__ = ["smooth_phase"]


def smooth_phase(acquisition: Acquisition, settings: PhaseRemoval) -> tuple[Complex, Done]:
    """exp(i angle) of the low-resolution image of each set of maps, (set, y, x).

    It is the image of the slice's own k-space, whatever of its centre there is.
    """
    maps = acquisition.sensitivity_maps
    assert maps is not None
    shape = acquisition.shape
    size = min(settings.width, shape[0]), min(settings.width, shape[1])
    coils, _ = low_resolution(centre(acquisition.kspace, size), shape)
    images = (maps.conj() * coils).sum(axis=1)
    return np.exp(1j * np.angle(images)).astype(np.complex64), Done({"step": "phase", "samples": list(size)})
