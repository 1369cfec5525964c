"""fastMRI's masks, bit for bit."""

import warnings

import numpy as np
import pytest

from mrisps.sampling import make_mask

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # theirs, at import
    subsample = pytest.importorskip("fastmri.data.subsample", reason="fastmri is not installed")

THEIRS = {
    "random": "RandomMaskFunc",
    "equispaced": "EquiSpacedMaskFunc",
    "equispaced_fraction": "EquispacedMaskFractionFunc",
    "magic": "MagicMaskFunc",
    "magic_fraction": "MagicMaskFractionFunc",
}
SEEDS = (0, 1, 2, 42, 2**32 - 1, (0,), (1, 2, 3), tuple(map(ord, "file1000000.h5")))
WIDTHS = (31, 32, 64, 320, 368, 372, 373)
SETTINGS = ((1, 0.0), (1, 0.1), (2, 0.16), (3, 0.1), (4, 0.08), (5, 0.05), (8, 0.04), (8, 0.0), (16, 0.02))
OFFSETS = (0, 1, 2, 3, 6)


def compare(
    kind: str,
    n_columns: int,
    acceleration: int,
    center_fraction: float,
    seed: int | tuple[int, ...],
    offset: int | None,
) -> bool:
    """Compare with theirs; False where either refuses, which both must."""
    theirs = getattr(subsample, THEIRS[kind])([center_fraction], [acceleration])
    try:
        expected, n_acs_lines = theirs((1, 4, n_columns, 2), offset, seed)
        expected = expected.numpy().ravel() != 0
    except (ValueError, ZeroDivisionError):
        expected = None
    try:
        mask = make_mask(kind, (4, n_columns), acceleration, center_fraction, seed=seed, offset=offset)
    except ValueError:
        assert expected is None or not expected.any()
        return False
    if expected is None:
        # The centre alone has the acceleration: we stop there, they divide by zero.
        assert mask.n_acquired == mask.n_acs_lines
        return False
    assert np.array_equal(mask.pattern, expected)
    assert mask.n_acs_lines == n_acs_lines
    return True


@pytest.mark.parametrize("kind", THEIRS)
def test_equal_for_many_seeds_widths_and_settings(kind: str) -> None:
    n_compared = sum(
        compare(kind, n_columns, acceleration, center_fraction, seed, None)
        for n_columns in WIDTHS
        for acceleration, center_fraction in SETTINGS
        for seed in SEEDS
    )
    assert n_compared > 0.9 * len(WIDTHS) * len(SETTINGS) * len(SEEDS)


@pytest.mark.parametrize("kind", ["equispaced", "equispaced_fraction", "magic", "magic_fraction"])
def test_equal_for_a_given_offset(kind: str) -> None:
    n_compared = sum(
        compare(kind, n_columns, acceleration, center_fraction, 0, offset)
        for n_columns in WIDTHS
        for acceleration, center_fraction in SETTINGS
        for offset in OFFSETS
    )
    assert n_compared > 0.8 * len(WIDTHS) * len(SETTINGS) * len(OFFSETS)


@pytest.mark.parametrize("kind", ["random", "equispaced_fraction", "magic_fraction"])
def test_equal_for_accelerations_that_are_not_whole(kind: str) -> None:
    for acceleration in (1.5, 3.7, 6.25):
        for seed in SEEDS:
            assert compare(kind, 368, acceleration, 0.05, seed, None)


@pytest.mark.parametrize("kind", THEIRS)
def test_seed_given_to_their_constructor(kind: str) -> None:
    theirs = getattr(subsample, THEIRS[kind])([0.04], [8], seed=7)
    expected, _ = theirs((640, 368, 2))
    assert np.array_equal(make_mask(kind, (640, 368), 8, 0.04, seed=7).pattern, expected.numpy().ravel() != 0)


def test_a_centre_that_is_too_large_is_refused_where_they_silently_miss_the_acceleration() -> None:
    expected, n_acs_lines = subsample.RandomMaskFunc([0.5], [8])((4, 64, 2), seed=0)
    assert int(expected.sum()) == n_acs_lines == 32
    with pytest.raises(ValueError, match="center_fraction: 32 of 64 columns"):
        make_mask("random", (4, 64), 8, 0.5)
