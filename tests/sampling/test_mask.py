"""The sampling mask: what it says, and how it is written down."""

import copy
import dataclasses
import hashlib
import json
import math
import pickle
import subprocess
import sys

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mrisps.sampling import SamplingMask, make_mask


@pytest.fixture
def mask() -> SamplingMask:
    return make_mask("equispaced", (640, 368), 8, 0.04, seed=1)


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
        mask = SamplingMask("array", (3, 8), pattern, 0, acceleration=nominal, tolerance=tolerance)
        assert mask.misses_nominal == misses


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
    assert mask != mask.to_record()
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


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float32, np.float64])
def test_from_array(dtype: npt.DTypeLike) -> None:
    array = np.array([[1, 0, 1], [0, 0, 1]], dtype=dtype)
    mask = SamplingMask.from_array(array)
    assert (mask.kind, mask.shape, mask.acceleration, mask.seed) == ("array", (2, 3), None, None)
    assert np.array_equal(mask.pattern, array.astype(bool))
    assert mask == SamplingMask.from_array(torch.from_numpy(array))
    assert not mask.is_columns


@pytest.mark.parametrize(
    ("columns", "expected"),
    [("00100", 1), ("11011", 0), ("10111", 3), ("11111", 5), ("011100", 3), ("110011", 0), ("1", 1), ("0110", 2)],
)
def test_acs_lines_of_an_array_are_counted(columns: str, expected: int) -> None:
    pattern = np.array([character == "1" for character in columns])
    assert SamplingMask.from_array(pattern, (2, len(columns))).n_acs_lines == expected
    assert SamplingMask.from_array(np.stack((~pattern, pattern, ~pattern))).n_acs_lines == expected


def test_from_zeros() -> None:
    rng = np.random.default_rng(0)
    columns = np.arange(12) % 3 == 0
    grid = np.zeros((10, 12), dtype=np.bool_)
    grid[::2, ::2] = True
    kspace = (rng.standard_normal((4, 10, 12)) + 1j).astype(np.complex64)
    assert SamplingMask.from_zeros([kspace * columns]).pattern.tolist() == columns.tolist()
    for n_coils in (1, 4):  # 2 x 2 undersampled: not the 2-fold that columns would say
        mask = SamplingMask.from_zeros([kspace[:n_coils] * grid])
        assert np.array_equal(mask.pattern, grid)
        assert mask.realised_acceleration == 4
    other = np.roll(columns, 1)
    assert np.array_equal(SamplingMask.from_zeros([kspace * columns, kspace * other]).pattern, columns | other)
    kspace[:, 3, 0] = 0  # measured as zero: with one coil that can be
    assert SamplingMask.from_zeros([kspace[:1] * columns]).is_columns
    assert not SamplingMask.from_zeros([kspace * columns]).is_columns
    for wrong, message in (
        ([], "kspace: expected at least one slice"),
        ([0 * kspace], "pattern: expected at least one acquired sample"),
        ([kspace, kspace[:, 1:]], "kspace: expected slices of one shape"),
    ):
        with pytest.raises(ValueError, match=message):
            SamplingMask.from_zeros(wrong)


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
    back = SamplingMask.from_record(json.loads(json.dumps(mask.to_record())))
    assert back == mask
    assert back.sha256 == mask.sha256
    assert back.to_record() == mask.to_record()


def test_json_has_all_fields_and_is_compact(mask: SamplingMask) -> None:
    record = mask.to_record()
    assert {field.name for field in dataclasses.fields(mask)} - record.keys() == {"seed_used"}
    assert SamplingMask.from_record(mask.to_record()) == mask
    assert record["realised_acceleration"] == mask.realised_acceleration
    assert record["sha256"] == mask.sha256
    assert len(json.dumps(mask.to_record())) < 1000
    assert len(json.dumps(make_mask("poisson", (64, 64), 8, 0.05).to_record())) < 2000


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
        ({"seed_used": (1, 2)}, "seed_used: expected"),
        ({"acceleration": 10**400}, "acceleration: expected"),
    ],
)
def test_json_that_is_wrong(mask: SamplingMask, changes: dict[str, object], message: str) -> None:
    record = mask.to_record() | changes
    with pytest.raises(ValueError, match=message):
        SamplingMask.from_record(record)


def test_json_with_a_flipped_bit_or_missing_key(mask: SamplingMask) -> None:
    other = make_mask("equispaced", (640, 368), 8, 0.04, seed=2)
    record = mask.to_record() | {"pattern": other.to_record()["pattern"]}
    with pytest.raises(ValueError, match="sha256: "):
        SamplingMask.from_record(record)
    for key in record:
        shorter = {name: value for name, value in record.items() if name != key}
        with pytest.raises(ValueError, match=f"missing keys: {key}|{key}: expected"):
            SamplingMask.from_record(shorter)
    for wrong in ([], 7, None):
        with pytest.raises(ValueError, match="expected a JSON object, got"):
            SamplingMask.from_record(wrong)


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
    shares = np.tile([1, 1, 1, 1, 0, 0, 1, 1, 0, 0, 0, 0], 17)
    assert SamplingMask.from_array(shares, (5, 204)).drawing() == "#:|." * 17
    assert SamplingMask.from_array(np.array([[1, 0, 1, 1], [0, 0, 1, 0], [0, 0, 1, 1]])).drawing() == ":.#|"


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


def test_import_brings_nothing_slow() -> None:
    code = (
        "import sys, mrisps.sampling; "
        "print([name for name in ('torch', 'matplotlib', 'sigpy', 'scipy', 'numba', 'h5py') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_public_names() -> None:
    import mrisps.sampling as package

    for name in set(package.__all__) - {"MASK_KINDS"}:
        assert getattr(package, name).__doc__
