"""The readout's oversampling is cut off."""

from dataclasses import replace

import numpy as np

from mrisps.io.acquisition import Acquisition
from mrisps.kspace.grid import to_image, to_kspace
from mrisps.kspace.step import Complex, Done, error_in, mask_of

__all__ = ["remove_oversampling", "whole_readouts"]


def remove_oversampling(acquisition: Acquisition) -> tuple[Acquisition, Done | None]:
    """Cut the image to the central rows; exact, because the readout is whole.

    Raises
    ------
    FileError
        The readouts of a reference scan are partial.
    """
    factor = acquisition.readout_oversampling
    if factor == 1:
        return acquisition, None
    mask, maps, calibration = mask_of(acquisition), acquisition.sensitivity_maps, acquisition.calibration
    n_y = acquisition.shape[0]
    new = round(n_y / factor)
    if not (mask == mask[:1]).all():
        note = "the readout is not fully sampled: its oversampling is not removed"
        return acquisition, Done(
            {"step": "remove_oversampling", "done": "no: the readout is not fully sampled"}, (note,)
        )
    if calibration is not None and not whole_readouts(calibration):
        raise error_in(acquisition, "readouts are partial: their oversampling cannot be removed", "calibration")
    first = n_y // 2 - new // 2
    cut = replace(
        acquisition,
        # Columns that were not acquired stay exactly 0: no transform is taken along x.
        kspace=_central_rows(acquisition.kspace, new),
        mask=mask[:new],
        calibration=None if calibration is None else _central_rows(calibration, new),
        sensitivity_maps=None if maps is None else maps[:, :, first : first + new],
        readout_oversampling=1.0,
    )
    return cut, Done({"step": "remove_oversampling", "rows": [n_y, new]})


def whole_readouts(kspace: Complex) -> bool:
    """Whether every column (coil, y, x) is acquired as a whole or not at all."""
    acquired = (kspace != 0).any(axis=0)
    return bool((acquired == acquired.any(axis=0)).all())


def _central_rows(kspace: Complex, new: int) -> Complex:
    """Centred k-space (coil, y, x) of the central ``new`` rows of the image."""
    n_y = kspace.shape[1]
    first = n_y // 2 - new // 2
    rows = to_image(kspace, axes=(1,))[:, first : first + new]
    return np.ascontiguousarray(to_kspace(rows, axes=(1,)))
