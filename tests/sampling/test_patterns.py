"""Making sampling masks: what they acquire, and what is refused."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrisps.sampling import MASK_KINDS, SamplingMask, make_mask

COLUMN_KINDS = tuple(kind for kind in MASK_KINDS if kind != "poisson")
# Kinds that make up for the centre, up to one column.
EXACT_KINDS = ("equispaced_fraction", "magic_fraction", "gaussian", "polynomial")


@pytest.mark.parametrize("kind", MASK_KINDS)
def test_every_kind(kind: str) -> None:
    mask = make_mask(kind, (48, 64), 4, 0.1, seed=3)
    assert (mask.kind, mask.shape, mask.acceleration, mask.center_fraction, mask.seed) == (kind, (48, 64), 4, 0.1, 3)
    assert mask.n_acs_lines == 6
    assert mask.is_columns == (kind != "poisson")
    assert mask.pattern.dtype == np.bool_
    assert mask.realised_acceleration == pytest.approx(mask.pattern.size / mask.pattern.sum())
    assert mask.n_acquired == mask.pattern.sum()
    assert make_mask(kind, (48, 64), 4, 0.1, seed=3) == mask
    others = [make_mask(kind, (48, 64), 4, 0.1, seed=seed) for seed in range(4, 14)]
    assert any(other.sha256 != mask.sha256 for other in others), "the seed makes no difference"


@pytest.mark.parametrize("kind", COLUMN_KINDS)
@pytest.mark.parametrize("n_columns", [63, 64])
def test_centre_is_acquired(kind: str, n_columns: int) -> None:
    for center_fraction in (0.05, 0.1, 0.2):
        mask = make_mask(kind, (4, n_columns), 4, center_fraction)
        first = (n_columns - mask.n_acs_lines + 1) // 2
        assert mask.n_acs_lines == round(n_columns * center_fraction)
        assert mask.pattern[first : first + mask.n_acs_lines].all()
        assert mask.pattern[n_columns // 2]


@pytest.mark.parametrize("kind", EXACT_KINDS)
@pytest.mark.parametrize(("acceleration", "center_fraction"), [(4, 0.08), (8, 0.04), (16, 0.02)])
def test_kinds_that_make_up_for_the_centre(kind: str, acceleration: int, center_fraction: float) -> None:
    for seed in range(5):
        mask = make_mask(kind, (640, 368), acceleration, center_fraction, seed=seed)
        assert not mask.misses_nominal or kind == "magic_fraction"
        if kind in ("gaussian", "polynomial"):
            assert mask.n_acquired == round(368 / acceleration)


@pytest.mark.parametrize("kind", ["gaussian", "polynomial"])
def test_density_falls_from_the_centre(kind: str) -> None:
    count = np.zeros(65)
    for seed in range(300):
        count += make_mask(kind, (1, 65), 5, 0.0, seed=seed).pattern
    assert count[24:41].mean() > 2 * count[12:20].mean() > 4 * max(count[:5].mean(), 1)
    assert abs(count[:32].sum() - count[33:].sum()) < 0.1 * count.sum()


def test_parameters_of_the_densities() -> None:
    def width(mask: SamplingMask) -> float:
        return float(np.abs(np.flatnonzero(mask.pattern) - 128).mean())

    for kind, wide, narrow in (
        ("gaussian", {"std": 0.9}, {"std": 0.05}),
        ("polynomial", {"power": 0.5}, {"power": 20.0}),
    ):
        assert width(make_mask(kind, (1, 256), 4, 0.0, **wide)) > width(make_mask(kind, (1, 256), 4, 0.0, **narrow))
        name, value = next(iter(wide.items()))
        assert getattr(make_mask(kind, (1, 256), 4, 0.0, **wide), name) == value
    assert make_mask("gaussian", (1, 256), 4, 0.0).std == 0.3
    assert make_mask("polynomial", (1, 256), 4, 0.0).power == 3
    # A density that is zero in floating point still gives the number of columns that was asked for.
    assert make_mask("gaussian", (1, 256), 4, 0.0, std=1e-3).n_acquired == 64


@pytest.mark.parametrize("kind", MASK_KINDS)
@pytest.mark.parametrize(("acceleration", "center_fraction"), [(1, 1.0), (1, 0.0)])
def test_fully_sampled_is_allowed_and_says_so(kind: str, acceleration: float, center_fraction: float) -> None:
    mask = make_mask(kind, (20, 30), acceleration, center_fraction)
    # fastMRI's equispaced_fraction and magic leave out one and some columns.
    if kind not in ("equispaced_fraction", "magic", "magic_fraction") or center_fraction == 1:
        assert mask.is_fully_sampled
        assert mask.realised_acceleration == 1
        assert "fully sampled, nothing is left out" in mask.summary()
        assert set(mask.drawing()) == {"#"}


def test_offset_is_the_first_column() -> None:
    mask = make_mask("equispaced", (1, 20), 5, 0.0, offset=3)
    assert np.flatnonzero(mask.pattern).tolist() == [3, 8, 13, 18]
    assert mask.offset == 3


def test_global_random_state_is_left_alone() -> None:
    before = np.random.get_state()  # noqa: NPY002 - the global generator is what is looked at
    for kind in MASK_KINDS:
        make_mask(kind, (24, 32), 4, 0.1)
    after = np.random.get_state()  # noqa: NPY002 - the global generator is what is looked at
    assert repr(after) == repr(before)
    assert np.array_equal(after[1], before[1])


@pytest.mark.parametrize(
    ("shape", "acceleration", "center_fraction"), [((64, 64), 4, 0.1), ((33, 50), 6, 0.1), ((40, 72), 8.5, 0.05)]
)
def test_poisson_is_sigpys(shape: tuple[int, int], acceleration: float, center_fraction: float) -> None:
    sigpy_mri = pytest.importorskip("sigpy.mri")
    calibration = tuple(round(size * center_fraction) for size in shape)
    for seed in range(3):
        expected = sigpy_mri.poisson(shape, acceleration, calib=calibration, seed=seed)
        mask = make_mask("poisson", shape, acceleration, center_fraction, seed=seed)
        assert np.array_equal(mask.pattern, expected != 0)
        assert abs(mask.realised_acceleration - acceleration) < 0.1


def test_poisson_has_a_calibration_region() -> None:
    mask = make_mask("poisson", (64, 80), 6, 0.25)
    assert mask.pattern[24:40, 30:50].all()
    assert mask.n_acs_lines == 20


@pytest.mark.parametrize(
    ("shape", "acceleration", "center_fraction", "seed"),
    [((96, 96), 8, 0.14, 0), ((90, 96), 8, 0.14, 0), ((96, 96), 4, 0.2, 4), ((128, 100), 12, 0.2, 4)],
)
def test_poisson_that_begins_inside_the_centre_takes_another_seed(
    shape: tuple[int, int], acceleration: float, center_fraction: float, seed: int
) -> None:
    """These seeds acquired the centre and nothing else: 25 to 54-fold."""
    mask = make_mask("poisson", shape, acceleration, center_fraction, seed=seed)
    assert not mask.misses_nominal
    assert mask.seed == seed
    assert mask.seed_used is not None
    assert f"seed {seed} misses the acceleration; the mask was drawn with {mask.seed_used}." in mask.summary()
    assert make_mask("poisson", shape, acceleration, center_fraction, seed=seed) == mask
    drawn = make_mask("poisson", shape, acceleration, center_fraction, seed=mask.seed_used)
    assert drawn.seed_used is None
    assert drawn.sha256 == mask.sha256
    assert SamplingMask.from_record(mask.to_record()) == mask


def test_poisson_of_a_seed_that_works_stays_what_it_was() -> None:
    mask = make_mask("poisson", (96, 96), 8, 0.14, seed=1)
    assert mask.seed_used is None
    assert "seed_used" not in mask.to_record()
    assert mask.sha256 == "0d33834b29e4ed87b8d511817973891b8b49c314a945c72e8ae4a73fa8ee3a05"


def test_poisson_out_of_reach_fails_by_name() -> None:
    with pytest.raises(ValueError, match=r"acceleration: no Poisson disc of 64 x 64 .* within 10% of 1.2: .* has 1\."):
        make_mask("poisson", (64, 64), 1.2, 0.0)
    assert make_mask("poisson", (64, 64), 1.2, 0.0, tolerance=0.5).realised_acceleration < 1.8
    assert not make_mask("poisson", (64, 64), 800, 0.0).misses_nominal


def test_poisson_refuses() -> None:
    with pytest.raises(ValueError, match="seed: expected one integer for kind 'poisson'"):
        make_mask("poisson", (16, 16), 4, 0.1, seed=(1, 2))
    with pytest.raises(
        ValueError, match="center_fraction: 8 x 8 samples in the centre are too many for acceleration 8"
    ):
        make_mask("poisson", (16, 16), 8, 0.5)
    with pytest.raises(ValueError, match="center_fraction: 4 x 90 samples in the centre are too many"):
        make_mask("poisson", (4, 100), 1.1, 0.9)


@pytest.mark.parametrize("kind", ["", "radial", "Random", "array", "file"])
def test_unknown_kind_lists_the_known_ones(kind: str) -> None:
    with pytest.raises(ValueError, match=f"kind: expected one of {', '.join(MASK_KINDS)}, got '{kind}'"):
        make_mask(kind, (16, 16), 4, 0.1)


WRONG = {
    "acceleration": ("a number of at least 1", [0.99, 0, -4, math.nan, math.inf, True, "4", None]),
    "center_fraction": (r"a number in \[0, 1\]", [-0.01, 1.01, math.nan, "0.1", None, True]),
    "seed": ("an integer in", [-1, 2**32, 1.0, None, (), (1, -1), (1, 2.0), True, [1, 2]]),
    "shape": (r"\(y, x\), two positive integers", [(16,), (1, 16, 16), (0, 16), (16, 16.0), [16, 16], 16, (True, 4)]),
    "tolerance": ("a number of at least 0", [-0.1, math.nan, math.inf, None]),
    "std": ("a positive number", [0.0, -1.0, math.nan, math.inf]),
    "power": ("a positive number", [0.0, -1.0, math.nan, math.inf]),
    "offset": ("an integer of at least 0", [-1, 1.5, True]),
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, (_, values) in WRONG.items() for value in values])
def test_wrong_values(name: str, value: object) -> None:
    kind = {"std": "gaussian", "power": "polynomial", "offset": "equispaced"}.get(name, "random")
    good = {"kind": kind, "shape": (16, 16), "acceleration": 4, "center_fraction": 0.1}
    with pytest.raises(ValueError, match=f"{name}: expected {WRONG[name][0]}"):
        make_mask(**good | {name: value})


def test_parameters_of_other_kinds() -> None:
    with pytest.raises(ValueError, match=r"offset: only used by equispaced, .*, not by 'random'"):
        make_mask("random", (16, 16), 4, 0.1, offset=1)
    with pytest.raises(ValueError, match="std: only used by gaussian, not by 'polynomial'"):
        make_mask("polynomial", (16, 16), 4, 0.1, std=0.2)
    with pytest.raises(ValueError, match="power: only used by polynomial, not by 'gaussian'"):
        make_mask("gaussian", (16, 16), 4, 0.1, power=2)


@pytest.mark.parametrize("kind", ["equispaced", "magic"])
def test_acceleration_is_a_spacing(kind: str) -> None:
    with pytest.raises(ValueError, match=f"acceleration: expected a whole number for kind '{kind}', got 4.5"):
        make_mask(kind, (16, 16), 4.5, 0.1)
    assert make_mask(kind, (16, 16), 4.0, 0.1) == make_mask(kind, (16, 16), 4, 0.1)


@pytest.mark.parametrize("kind", COLUMN_KINDS)
def test_more_columns_in_the_centre_than_the_acceleration_allows(kind: str) -> None:
    with pytest.raises(
        ValueError,
        match=r"center_fraction: 74 of 368 columns in the centre are too many for acceleration 8, which has 46.0",
    ):
        make_mask(kind, (640, 368), 8, 0.2)
    with pytest.raises(ValueError, match="center_fraction: 368 of 368 columns in the centre are too many"):
        make_mask(kind, (640, 368), 8, 1.0)


@pytest.mark.parametrize("kind", ["random", "equispaced_fraction", "magic_fraction", "gaussian", "polynomial"])
def test_the_centre_can_be_all_that_is_acquired(kind: str) -> None:
    mask = make_mask(kind, (640, 368), 8, 0.125)
    assert mask.n_acquired == mask.n_acs_lines == 46
    assert mask.realised_acceleration == 8


def test_a_mask_that_acquires_nothing() -> None:
    with pytest.raises(ValueError, match="acceleration: 16 with center_fraction 0 acquires nothing of 4 x 16"):
        make_mask("magic", (4, 16), 16, 0.0, offset=8)


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(COLUMN_KINDS),
    n_columns=st.integers(1, 80),
    acceleration=st.one_of(st.integers(1, 20), st.floats(1, 20)),
    center_fraction=st.floats(0, 1),
    seed=st.one_of(st.integers(0, 2**32 - 1), st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 255))),
)
def test_a_mask_or_a_value_error(
    kind: str, n_columns: int, acceleration: float, center_fraction: float, seed: int | tuple[int, ...]
) -> None:
    try:
        mask = make_mask(kind, (3, n_columns), acceleration, center_fraction, seed=seed)
    except ValueError as error:
        named = str(error).startswith(("acceleration: ", "center_fraction: "))
        assert named, error  # noqa: PT017  (which of the two it is depends on the values)
        return
    assert mask.pattern.shape == (n_columns,)
    assert 1 <= mask.realised_acceleration <= n_columns
    assert SamplingMask.from_record(mask.to_record()) == mask
