"""Naming the kind of a sampling pattern of unknown origin, for people."""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mrisps.sampling.mask import SamplingMask

__all__ = ["pattern_name"]

Pattern: TypeAlias = NDArray[np.bool_]


def pattern_name(mask: SamplingMask) -> str:
    """Say in words how a mask leaves out samples outside its centre: equispaced, Poisson-disc or irregular.

    A pattern is called Poisson-disc if acquired samples have at most half as many acquired neighbours as samples drawn
    independently with the same density have. That is counted in the outer part of k-space, where the density varies
    least.
    """
    pattern = mask.pattern
    if mask.is_fully_sampled:
        return "everything"
    if mask.is_columns:
        center = len(pattern) // 2
        left, right = np.flatnonzero(~pattern[:center]), np.flatnonzero(~pattern[center:])
        sides = (
            pattern[: left[-1] + 1 if len(left) else 0],
            pattern[center + right[0] if len(right) else len(pattern) :],
        )
        return _columns(np.concatenate([np.diff(np.flatnonzero(side)) for side in sides]))
    steps = _steps(pattern)
    if max(steps) > 1:
        return ", ".join(f"one in {n} along {axis}" for n, axis in zip(steps, "yx", strict=True) if n > 1)
    n_y, n_x = pattern.shape
    y = np.linspace(-1, 1, n_y)[:, np.newaxis]
    outer: Pattern = np.hypot(y, np.linspace(-1, 1, n_x)) > 0.5  # (y, x)
    n_acquired = int((pattern & outer).sum())
    n_pairs = int((pattern[:, 1:] & pattern[:, :-1] & outer[:, 1:]).sum())
    n_expected = n_acquired**2 / int(outer.sum())
    return "Poisson-disc samples" if n_expected >= 4 and n_pairs < 0.5 * n_expected else "irregular samples"


def _columns(gaps: NDArray[np.int64]) -> str:
    """Gaps that differ by one come from a step that is no whole number."""
    if len(gaps) < 3:
        return "columns, too few to see an order"
    least, most = int(gaps.min()), int(gaps.max())
    if most - least > 1 or least < 2:
        return "irregular columns"
    about = "" if least == most else "about "
    return f"{about}one column in {round(float(gaps.mean()))}"


def _steps(pattern: Pattern) -> tuple[int, int]:
    """Steps along y and x of the grid that the samples outside the centre fill; (1, 1) if they fill none."""
    inner = np.zeros_like(pattern)  # samples with all four neighbours
    inner[1:-1, 1:-1] = pattern[:-2, 1:-1] & pattern[2:, 1:-1] & pattern[1:-1, :-2] & pattern[1:-1, 2:]
    inner &= pattern
    outside = np.ones_like(pattern)
    rows, columns = np.nonzero(inner)
    if len(rows):
        outside[rows.min() - 1 : rows.max() + 2, columns.min() - 1 : columns.max() + 2] = False
    rows, columns = np.nonzero(pattern & outside)
    if len(rows) < 3:
        return 1, 1
    grid = np.zeros_like(pattern)
    steps = [
        max(1, int(np.gcd.reduce(np.diff(np.unique(at))))) if len(np.unique(at)) > 1 else 1 for at in (rows, columns)
    ]
    grid[rows.min() % steps[0] :: steps[0], columns.min() % steps[1] :: steps[1]] = True
    is_filled = len(rows) >= 0.9 * np.count_nonzero(grid & outside)
    return (steps[0], steps[1]) if is_filled else (1, 1)
