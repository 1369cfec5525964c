"""Sampling masks: what they acquire, what they refuse, and how they are written down."""

import copy
import dataclasses
import hashlib
import json
import math
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mrisps.errors import FileError
from mrisps.sampling import MASK_KINDS, SamplingMask, make_mask, read_mask

COLUMN_KINDS = tuple(kind for kind in MASK_KINDS if kind != "poisson")
# Kinds that make up for the centre, up to one column.
EXACT_KINDS = ("equispaced_fraction", "magic_fraction", "gaussian", "polynomial")


@pytest.fixture
def mask() -> SamplingMask:
    return make_mask("equispaced", (640, 368), 8, 0.04, seed=1)


# ---------------------------------------------------------------------------------------------------- making


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


# ---------------------------------------------------------------------------------------------------- Poisson disc


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


@pytest.mark.parametrize(("acceleration", "expected"), [(1.2, 1.69), (800, 800)])
def test_poisson_out_of_reach_ends_and_says_so(acceleration: float, expected: float) -> None:
    mask = make_mask("poisson", (64, 64), acceleration, 0.0)
    assert mask.realised_acceleration == pytest.approx(expected, rel=0.3)
    assert mask.misses_nominal == (abs(mask.realised_acceleration / acceleration - 1) > 0.1)


def test_poisson_refuses() -> None:
    with pytest.raises(ValueError, match="seed: expected one integer for kind 'poisson'"):
        make_mask("poisson", (16, 16), 4, 0.1, seed=(1, 2))
    with pytest.raises(
        ValueError, match="center_fraction: 8 x 8 samples in the centre are too many for acceleration 8"
    ):
        make_mask("poisson", (16, 16), 8, 0.5)
    with pytest.raises(ValueError, match="center_fraction: 4 x 90 samples in the centre are too many"):
        make_mask("poisson", (4, 100), 1.1, 0.9)


# ---------------------------------------------------------------------------------------------------- wrong values


@pytest.mark.parametrize("kind", ["", "radial", "Random", "array", "file"])
def test_unknown_kind_lists_the_known_ones(kind: str) -> None:
    with pytest.raises(ValueError, match=f"kind: expected one of {', '.join(MASK_KINDS)}, got '{kind}'"):
        make_mask(kind, (16, 16), 4, 0.1)


@pytest.mark.parametrize("kind", MASK_KINDS)
@pytest.mark.parametrize("acceleration", [0.99, 0, -4, math.nan, math.inf, True, "4", None])
def test_wrong_acceleration(kind: str, acceleration: float) -> None:
    with pytest.raises(ValueError, match="acceleration: expected a number of at least 1"):
        make_mask(kind, (16, 16), acceleration, 0.1)


@pytest.mark.parametrize("center_fraction", [-0.01, 1.01, math.nan, "0.1", None, True])
def test_wrong_center_fraction(center_fraction: float) -> None:
    with pytest.raises(ValueError, match=r"center_fraction: expected a number in \[0, 1\]"):
        make_mask("random", (16, 16), 4, center_fraction)


@pytest.mark.parametrize("seed", [-1, 2**32, 1.0, None, (), (1, -1), (1, 2.0), True, [1, 2]])
def test_wrong_seed(seed: int) -> None:
    with pytest.raises(ValueError, match="seed: expected an integer in"):
        make_mask("random", (16, 16), 4, 0.1, seed=seed)


@pytest.mark.parametrize("shape", [(16,), (1, 16, 16), (0, 16), (16, 16.0), [16, 16], 16, (True, 4)])
def test_wrong_shape(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"shape: expected \(y, x\), two positive integers"):
        make_mask("random", shape, 4, 0.1)


@pytest.mark.parametrize("tolerance", [-0.1, math.nan, math.inf, None])
def test_wrong_tolerance(tolerance: float) -> None:
    with pytest.raises(ValueError, match="tolerance: expected a number of at least 0"):
        make_mask("random", (16, 16), 4, 0.1, tolerance=tolerance)


@pytest.mark.parametrize(("kind", "name"), [("gaussian", "std"), ("polynomial", "power")])
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_wrong_density_parameter(kind: str, name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name}: expected a positive number"):
        make_mask(kind, (16, 16), 4, 0.1, **{name: value})


@pytest.mark.parametrize("offset", [-1, 1.5, True])
def test_wrong_offset(offset: int) -> None:
    with pytest.raises(ValueError, match="offset: expected an integer of at least 0"):
        make_mask("equispaced", (16, 16), 4, 0.1, offset=offset)


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


@pytest.mark.parametrize("kind", ["random", "equispaced_fraction", "magic_fraction", "gaussian", "polynomial"])
def test_more_columns_in_the_centre_than_the_acceleration_allows(kind: str) -> None:
    with pytest.raises(
        ValueError,
        match=r"center_fraction: 74 of 368 columns in the centre are too many for acceleration 8, which has 46.0",
    ):
        make_mask(kind, (640, 368), 8, 0.2)


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
    assert SamplingMask.from_json(mask.to_json()) == mask


# ---------------------------------------------------------------------------------------------------- nominal and realised


def test_a_mask_that_misses_its_acceleration_says_so(mask: SamplingMask) -> None:
    assert mask.acceleration == 8
    assert mask.realised_acceleration < 7.2
    assert mask.misses_nominal
    assert "misses the nominal 8 by -" in mask.summary()
    tolerant = make_mask("equispaced", (640, 368), 8, 0.04, seed=1, tolerance=0.5)
    assert not tolerant.misses_nominal
    assert "misses" not in tolerant.summary()
    assert not dataclasses.replace(mask, acceleration=None).misses_nominal


def test_tolerance_is_relative_and_included() -> None:
    pattern = np.arange(8) % 2 == 0
    for nominal, tolerance, misses in ((2.5, 0.2, False), (2.5, 0.19, True), (1.6, 0.25, False), (1.6, 0.24, True)):
        assert (
            SamplingMask.from_array(pattern, (3, 8), acceleration=nominal, tolerance=tolerance).misses_nominal == misses
        )


# ---------------------------------------------------------------------------------------------------- the object


def test_frozen(mask: SamplingMask) -> None:
    for field in dataclasses.fields(mask):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(mask, field.name, None)
    for array in (mask.pattern, mask.array2d()):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = True
        with pytest.raises(ValueError, match="WRITEABLE"):
            array.flags.writeable = True


def test_the_array_is_copied() -> None:
    array = np.eye(4, dtype=bool)
    mask = SamplingMask.from_array(array)
    array[:] = True
    assert mask.n_acquired == 4


def test_copies_and_pickles_stay_read_only(mask: SamplingMask) -> None:
    for other in (copy.copy(mask), copy.deepcopy(mask), pickle.loads(pickle.dumps(mask)), dataclasses.replace(mask)):
        assert other == mask
        assert hash(other) == hash(mask)
        assert not other.pattern.flags.writeable


def test_equality(mask: SamplingMask) -> None:
    assert mask != make_mask("equispaced", (640, 368), 8, 0.04, seed=2)
    assert mask != SamplingMask.from_array(mask.pattern, mask.shape)
    assert mask != mask.to_json()
    assert len({mask, make_mask("equispaced", (640, 368), 8, 0.04, seed=1)}) == 1


def test_two_dimensional_and_tensor_forms(mask: SamplingMask) -> None:
    full = mask.array2d()
    assert full.shape == (640, 368)
    assert (full == mask.pattern).all()
    tensor = mask.tensor()
    assert tensor.dtype == torch.bool
    assert np.array_equal(tensor.numpy(), mask.pattern)
    tensor.zero_()
    assert mask.pattern.any()
    assert mask.tensor("meta").device.type == "meta"


def test_sha256_is_of_sizes_and_bytes() -> None:
    pattern = np.arange(6) % 2 == 0
    columns = SamplingMask.from_array(pattern, (2, 6))
    assert columns.sha256 == hashlib.sha256(b"6\n\x01\x00\x01\x00\x01\x00").hexdigest()
    full = SamplingMask.from_array(columns.array2d())
    assert full.sha256 == hashlib.sha256(b"2x6\n" + b"\x01\x00\x01\x00\x01\x00" * 2).hexdigest()
    assert SamplingMask.from_array(full.pattern.reshape(3, 4)).sha256 != full.sha256


def test_constructor_checks() -> None:
    pattern = np.ones(6, dtype=bool)
    good = SamplingMask("array", (2, 6), pattern, 6)
    assert good.acceleration is None
    for changes, message in (
        ({"kind": "spiral"}, r"kind: expected one of .*, got 'spiral'"),
        ({"shape": (6, 2)}, r"pattern: expected \(y, x\) = \(6, 2\), or \(2,\) for columns, got \(6,\)"),
        ({"pattern": np.zeros(6, dtype=bool)}, "pattern: expected at least one acquired sample, got none"),
        ({"n_acs_lines": 7}, r"n_acs_lines: expected an integer in \[0, 6\], got 7"),
        ({"n_acs_lines": None}, "n_acs_lines: expected an integer"),
        ({"acceleration": 0.5}, "acceleration: expected"),
        ({"center_fraction": 2.0}, "center_fraction: expected"),
        ({"seed": -1}, "seed: expected"),
        ({"offset": -1}, "offset: expected"),
        ({"std": 0.0}, "std: expected"),
        ({"power": -1.0}, "power: expected"),
        ({"tolerance": -1.0}, "tolerance: expected"),
    ):
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(good, **changes)


# ---------------------------------------------------------------------------------------------------- from elsewhere


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float32, np.float64])
def test_from_array(dtype: npt.DTypeLike) -> None:
    array = np.array([[1, 0, 1], [0, 0, 1]], dtype=dtype)
    mask = SamplingMask.from_array(array, acceleration=2, center_fraction=0.0, seed=5)
    assert (mask.kind, mask.shape, mask.acceleration, mask.seed) == ("array", (2, 3), 2, 5)
    assert np.array_equal(mask.pattern, array.astype(bool))
    assert mask == SamplingMask.from_array(torch.from_numpy(array.copy()), acceleration=2, center_fraction=0.0, seed=5)
    assert not mask.is_columns


@pytest.mark.parametrize(
    ("columns", "expected"),
    [("00100", 1), ("11011", 0), ("10111", 3), ("11111", 5), ("011100", 3), ("110011", 0), ("1", 1), ("0110", 2)],
)
def test_acs_lines_of_an_array_are_counted(columns: str, expected: int) -> None:
    pattern = np.array([character == "1" for character in columns])
    assert SamplingMask.from_array(pattern, (2, len(columns))).n_acs_lines == expected
    assert SamplingMask.from_array(np.stack((~pattern, pattern, ~pattern))).n_acs_lines == expected


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 4)), "pattern: expected at least one acquired sample, got none"),
        (np.full((3, 4), 2), "pattern: expected only 0 and 1, got other values"),
        (np.full((3, 4), 0.5), "pattern: expected only 0 and 1, got other values"),
        (np.full((3, 4), math.nan), "pattern: expected only 0 and 1, got other values"),
        (np.full((3, 4), -1), "pattern: expected only 0 and 1, got other values"),
        (np.ones((3, 4), dtype=complex), "pattern: expected bool, or numbers 0 and 1, got dtype complex128"),
        (np.full((3, 4), "1"), "pattern: expected bool, or numbers 0 and 1, got dtype <U1"),
        (np.ones((1, 3, 4)), r"pattern: expected \(x,\) for columns or \(y, x\), got shape \(1, 3, 4\)"),
        (np.ones(()), r"pattern: expected \(x,\) for columns or \(y, x\), got shape \(\)"),
        (np.ones((0, 4)), r"pattern: expected \(x,\) for columns or \(y, x\), got shape \(0, 4\)"),
        (np.ones(4), r"shape: needed for an array that is not \(y, x\), got array of shape \(4,\)"),
    ],
)
def test_wrong_array(array: npt.NDArray[np.float64], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SamplingMask.from_array(array)


def test_array_of_another_shape() -> None:
    with pytest.raises(
        ValueError, match=r"pattern: expected \(y, x\) = \(640, 368\), or \(368,\) for columns, got \(640,\)"
    ):
        SamplingMask.from_array(np.ones(640), (640, 368))


def test_from_npy(tmp_path: Path) -> None:
    columns = np.arange(12) % 3 == 0
    np.save(tmp_path / "columns.npy", columns.astype(np.uint8))
    np.save(tmp_path / "full.npy", np.stack((columns, ~columns)))
    mask = read_mask(tmp_path / "columns.npy", (5, 12))
    assert (mask.kind, mask.shape, mask.is_columns) == ("file", (5, 12), True)
    assert np.array_equal(mask.pattern, columns)
    assert read_mask(str(tmp_path / "full.npy")).shape == (2, 12)
    with pytest.raises(FileError, match=r"columns.npy: mask: shape: needed for an array that is not \(y, x\)"):
        read_mask(tmp_path / "columns.npy")
    with pytest.raises(FileError, match=r"columns.npy: mask: pattern: expected \(y, x\) = \(5, 13\)"):
        read_mask(tmp_path / "columns.npy", (5, 13))


def test_from_json_file(tmp_path: Path, mask: SamplingMask) -> None:
    path = tmp_path / "mask.json"
    path.write_text(mask.to_json(), encoding="utf-8")
    assert read_mask(path) == mask
    assert read_mask(path, (640, 368)) == mask
    with pytest.raises(FileError, match=r"mask.json: mask: expected \(y, x\) = \(320, 320\), got \(640, 368\)"):
        read_mask(path, (320, 320))


@pytest.mark.parametrize("name", ["mask.npy", "mask.json"])
def test_broken_files(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with pytest.raises(FileError, match=f"{name}: mask: No such file"):
        read_mask(path)
    contents = [b"", b"{", b"\x93NUMPY", b"\xff\xfe", b"PK\x03\x04", b"null", b"[1]"]
    np.save(tmp_path / "good.npy", np.ones((4, 4)))
    contents.append((tmp_path / "good.npy").read_bytes()[:-8])
    contents.append((tmp_path / "good.npy").read_bytes().replace(b"(4, 4)", b"(4, 1000000000000000)"))
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(FileError) as caught:
            read_mask(path)
        assert (caught.value.path, caught.value.field) == (path, "mask")
    path.unlink()
    path.mkdir()
    with pytest.raises(FileError):
        read_mask(path)


def test_pickled_arrays_are_not_read(tmp_path: Path) -> None:
    np.save(tmp_path / "objects.npy", np.array([[True, None]], dtype=object), allow_pickle=True)
    with pytest.raises(FileError, match="allow_pickle=False"):
        read_mask(tmp_path / "objects.npy")


def test_other_suffixes(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"expected a mask as .npy or .json, got suffix '.png'"):
        read_mask(tmp_path / "mask.png")


# ---------------------------------------------------------------------------------------------------- JSON


@settings(max_examples=50, deadline=None)
@given(
    pattern=hnp.arrays(np.bool_, hnp.array_shapes(min_dims=1, max_dims=2, max_side=20)).filter(lambda p: bool(p.any())),
    acceleration=st.none() | st.floats(1, 100),
    center_fraction=st.none() | st.floats(0, 1),
    seed=st.none() | st.integers(0, 2**32 - 1) | st.lists(st.integers(0, 255), min_size=1).map(tuple),
    offset=st.none() | st.integers(0, 10),
    std=st.none() | st.floats(0.01, 10),
    tolerance=st.floats(0, 2),
)
def test_json_round_trip(
    pattern: npt.NDArray[np.bool_],
    acceleration: float | None,
    center_fraction: float | None,
    seed: int | tuple[int, ...] | None,
    offset: int | None,
    std: float | None,
    tolerance: float,
) -> None:
    mask = SamplingMask(
        kind="gaussian",
        shape=(7, len(pattern)) if pattern.ndim == 1 else (pattern.shape[0], pattern.shape[1]),
        pattern=pattern,
        n_acs_lines=1,
        acceleration=acceleration,
        center_fraction=center_fraction,
        seed=seed,
        offset=offset,
        std=std,
        power=std,
        tolerance=tolerance,
    )
    back = SamplingMask.from_json(mask.to_json())
    assert back == mask
    assert back.sha256 == mask.sha256
    assert back.to_json() == mask.to_json()


def test_json_has_all_fields_and_is_compact(mask: SamplingMask) -> None:
    record = json.loads(mask.to_json())
    for field in dataclasses.fields(mask):
        assert field.name in record
    assert record["realised_acceleration"] == mask.realised_acceleration
    assert record["sha256"] == mask.sha256
    assert len(mask.to_json()) < 1000
    assert len(make_mask("poisson", (64, 64), 8, 0.05).to_json()) < 2000


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "other"}, "format: expected 'mrisps.SamplingMask', got 'other'"),
        ({"version": 2}, "version: expected 1, got 2"),
        ({"sha256": "0" * 64}, f"sha256: {'0' * 64} is stated, but the pattern has "),
        ({"realised_acceleration": 8.0}, "realised_acceleration: 8.0 is stated, but the pattern has 6."),
        ({"colour": "red"}, "unknown keys: colour"),
        ({"kind": "spiral"}, "kind: expected one of"),
        ({"kind": []}, "kind: expected one of"),
        ({"shape": [640]}, "shape: expected"),
        ({"shape": None}, "shape: expected"),
        ({"shape": [640, 369]}, "pattern: expected"),
        ({"pattern_shape": [367]}, "pattern: expected"),
        ({"pattern_shape": [10**6, 10**6]}, "pattern: expected 125000000000 bytes"),
        ({"pattern_shape": "368"}, "pattern_shape: expected"),
        ({"pattern_shape": [368.0]}, "pattern_shape: expected"),
        ({"pattern": 7}, "pattern: expected a base64 string, got int"),
        ({"pattern": "!!"}, "pattern: cannot be unpacked"),
        ({"pattern": "AAAA"}, "pattern: cannot be unpacked"),
        ({"pattern": ""}, "pattern: expected 46 bytes"),
        ({"acceleration": "8"}, "acceleration: expected"),
        ({"acceleration": math.inf}, "acceleration: expected"),
        ({"center_fraction": [0]}, "center_fraction: expected"),
        ({"seed": "x"}, "seed: expected"),
        ({"n_acs_lines": None}, "n_acs_lines: expected"),
        ({"tolerance": None}, "tolerance: expected"),
    ],
)
def test_json_that_is_wrong(mask: SamplingMask, changes: dict[str, object], message: str) -> None:
    record = json.loads(mask.to_json()) | changes
    with pytest.raises(ValueError, match=message):
        SamplingMask.from_json(json.dumps(record))


def test_json_with_a_flipped_bit_or_missing_key(mask: SamplingMask) -> None:
    other = make_mask("equispaced", (640, 368), 8, 0.04, seed=2)
    record = json.loads(mask.to_json()) | {"pattern": json.loads(other.to_json())["pattern"]}
    with pytest.raises(ValueError, match="sha256: "):
        SamplingMask.from_json(json.dumps(record))
    for key in record:
        shorter = {name: value for name, value in record.items() if name != key}
        with pytest.raises(ValueError, match=f"missing keys: {key}|{key}: expected"):
            SamplingMask.from_json(json.dumps(shorter))
    for text in ("", "[]", "7", "{"):
        with pytest.raises(ValueError, match="JSON"):
            SamplingMask.from_json(text)


# ---------------------------------------------------------------------------------------------------- for people


def test_summary(mask: SamplingMask) -> None:
    assert str(mask) == mask.summary()
    expected = f"""\
equispaced mask, 640 x 368 (y, x)
  made with     center fraction 0.04, seed 1
  acceleration  {mask.realised_acceleration:.2f} (nominal 8), {mask.n_acquired} of 368 columns
  centre        15 columns, fully sampled
  sha256        {mask.sha256}
  columns       {mask.drawing()}
  NOTE: the realised acceleration {mask.realised_acceleration:.2f} misses the nominal 8"""
    assert mask.summary().startswith(expected)
    assert mask.summary().isascii()
    unknown = SamplingMask.from_array(np.eye(3)).summary()
    assert "acceleration  3.00, 3 of 9 samples" in unknown
    assert "1 samples along x, fully sampled" in unknown
    assert "made with" not in unknown


def test_drawing() -> None:
    columns = np.array([1, 1, 0, 0, 0, 1, 1, 1, 0, 0, 1], dtype=bool)
    mask = SamplingMask.from_array(columns, (5, 11))
    assert mask.drawing() == "##...###..#"
    assert mask.drawing(width=6) == "#.|#.#"
    assert mask.drawing(width=4) == "|:||"
    assert mask.drawing(width=1) == "|"
    assert SamplingMask.from_array(np.array([[1, 0, 1, 1], [0, 0, 1, 0], [0, 0, 1, 1]])).drawing() == ":.#|"
    with pytest.raises(ValueError, match="width: expected at least 1"):
        mask.drawing(0)


def test_repr(mask: SamplingMask) -> None:
    assert repr(mask) == (
        f"SamplingMask(equispaced, shape=(640, 368), acceleration=8, realised={mask.realised_acceleration:.3f}, "
        f"n_acs_lines=15, seed=1, sha256={mask.sha256[:12]})"
    )
    assert "acceleration=unknown" in repr(SamplingMask.from_array(np.eye(3)))


def test_plot(mask: SamplingMask) -> None:
    plt = pytest.importorskip("matplotlib.pyplot")
    figure, ax = plt.subplots()
    try:
        assert mask.plot(ax) is ax
        assert np.array_equal(np.asarray(ax.images[0].get_array()), mask.array2d())
        assert "15 ACS columns" in ax.get_title()
        other = mask.plot()
        assert other is not ax
        plt.close(other.figure)
    finally:
        plt.close(figure)


def test_import_brings_neither_matplotlib_nor_sigpy_nor_scipy() -> None:
    code = (
        "import sys, mrisps.operators; "
        "print([name for name in ('matplotlib', 'sigpy', 'scipy', 'numba', 'fastmri', 'h5py') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_public_names() -> None:
    import mrisps.operators as package

    for name in package.__all__:
        assert getattr(package, name).__doc__
        assert name in dir(package)
