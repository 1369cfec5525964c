"""Judging without a reference: a part of the acquired k-space is kept from the solver, whose image then predicts it."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mrisps.errors import FileError, MrispsError
from mrisps.kspace.grid import calibration_shape
from mrisps.operators import FourierSubsampling, Sense
from mrisps.reconstruction.problem import Problem
from mrisps.sampling import SamplingMask

__all__ = ["hold_out"]


def hold_out(
    source: Path, problem: Problem, fraction: float, random: np.random.Generator
) -> tuple[Problem, Callable[[Tensor], float]]:
    """The problem without some of its samples, and how well an image (1, set, y, x) predicts them, in dB.

    Parameters
    ----------
    source
        For messages.
    problem
        With Cartesian k-space.
    fraction
        How many of the acquired columns outside the calibration centre (of the samples, where whole columns are not acquired).
    random
        Which.

    Raises
    ------
    FileError
        Too few columns or samples outside the centre.
    MrispsError
        The problem has no Cartesian k-space.
    """
    operator, mask = problem.operator, problem.mask
    if mask is None or not isinstance(operator, FourierSubsampling | Sense):
        raise MrispsError(f"{source}: held-out k-space needs Cartesian k-space")
    acquired = mask.array2d()
    silent = ~(problem.y != 0).any(dim=1)[0].cpu().numpy()  # (y, x)
    height, width = calibration_shape(acquired)
    centre = np.zeros(acquired.shape, dtype=np.bool_)
    top, left = acquired.shape[0] // 2 - height // 2, acquired.shape[1] // 2 - width // 2
    centre[top : top + height, left : left + width] = True
    allowed = acquired & ~centre & ~silent  # a line of zeros tells nothing
    if mask.is_columns:
        allowed = allowed.any(axis=0)  # (x,)
    places = np.flatnonzero(allowed)
    if len(places) < 4:
        what = "columns" if mask.is_columns else "samples"
        raise FileError(source, f"has {len(places)} acquired {what} outside the centre: too few", field="mask")
    hidden = np.zeros(allowed.shape, dtype=np.bool_)
    hidden.flat[random.choice(places, max(1, round(fraction * len(places))), replace=False)] = True
    if not operator.domain_dtype.is_complex:
        # A real image has the spectrum of f at -f, too: what is hidden must not be known from there.
        shifts = [(size + 1) % 2 for size in hidden.shape]
        hidden |= np.roll(np.flip(hidden), shifts, axis=tuple(range(hidden.ndim))) & allowed
    kept = np.array(mask.pattern & ~hidden)
    predictor = operator.with_mask(torch.from_numpy(hidden))
    measured = problem.y * torch.from_numpy(hidden).to(problem.y.device)
    power = float(measured.abs().square().sum())
    reduced = replace(
        problem,
        operator=operator.with_mask(torch.from_numpy(kept)),
        y=problem.y * torch.from_numpy(kept).to(problem.y.device),
        mask=SamplingMask.from_array(kept, mask.shape),
    )

    def judge(images: Tensor) -> float:
        error = predictor.forward(images) - measured
        return -10 * math.log10(max(float(error.abs().square().sum()) / power, 1e-30))

    return reduced, judge
