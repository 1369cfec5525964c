"""Naming patterns of unknown origin."""

import numpy as np
import pytest

from mrisps.sampling import SamplingMask, make_mask
from mrisps.sampling.describe import pattern_name

SHAPE = (128, 96)


@pytest.mark.parametrize(
    ("kind", "acceleration", "name"),
    [
        ("equispaced", 4, "one column in 4"),
        ("magic", 4, "one column in 4"),
        ("equispaced_fraction", 2, "about one column in 2"),
        ("random", 4, "irregular columns"),
        ("gaussian", 4, "irregular columns"),
        ("poisson", 8, "Poisson-disc samples"),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_masks_that_we_make(kind: str, acceleration: float, name: str, seed: int) -> None:
    assert pattern_name(make_mask(kind, SHAPE, acceleration, 0.08, seed=seed)) == name


def test_grids_and_independent_samples(rng: np.random.Generator) -> None:
    grid = np.zeros(SHAPE, np.bool_)
    grid[1::3, ::2] = True
    assert pattern_name(SamplingMask.from_array(grid)) == "one in 3 along y, one in 2 along x"
    grid[59:69, 43:53] = True
    assert pattern_name(SamplingMask.from_array(grid)) == "one in 3 along y, one in 2 along x"
    rows = np.zeros(SHAPE, np.bool_)
    rows[::4] = True
    assert pattern_name(SamplingMask.from_array(rows)) == "one in 4 along y"
    for density in (0.1, 0.3, 0.6):
        assert pattern_name(SamplingMask.from_array(rng.random(SHAPE) < density)) == "irregular samples"


def test_what_cannot_be_named() -> None:
    assert pattern_name(SamplingMask.from_array(np.ones(SHAPE, np.bool_))) == "everything"
    one = np.zeros(SHAPE, np.bool_)
    one[5, 7] = True
    assert pattern_name(SamplingMask.from_array(one)) == "irregular samples"
    few = np.zeros(8, np.bool_)
    few[[0, 4]] = True
    assert pattern_name(SamplingMask.from_array(few, (4, 8))) == "columns, too few to see an order"
