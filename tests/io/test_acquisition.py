from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import numpy as np
import pytest

from mrisps.errors import FileError
from mrisps.io.acquisition import Acquisition

KSPACE = np.ones((2, 4, 6), dtype=np.complex64)
COLUMNS = np.array([1, 1, 0, 1, 1, 0], dtype=np.bool_)


def acquisition() -> Acquisition:
    return Acquisition(KSPACE * COLUMNS, Path("a.h5"), 1, 3, mask=COLUMNS, target=np.ones((4, 4), np.float32))


def test_fields() -> None:
    record = acquisition()
    assert (record.n_coils, record.shape) == (2, (4, 6))
    full = record.full_mask()
    assert full is not None
    np.testing.assert_array_equal(full, np.tile(COLUMNS, (4, 1)))
    assert replace(record, mask=None).full_mask() is None
    with pytest.raises(FrozenInstanceError):
        record.slice_index = 0  # type: ignore[misc]  # wrong on purpose
    with pytest.raises(TypeError):
        record.attributes["a"] = 1  # type: ignore[index]  # wrong on purpose


def test_mask_of_samples() -> None:
    mask = np.ones((4, 6), dtype=np.bool_)
    np.testing.assert_array_equal(Acquisition(KSPACE, Path("a.h5"), mask=mask).full_mask(), mask)


BAD_KSPACE = {
    "expected complex64 (coil, y, x), got complex64 (4, 6)": KSPACE[0],
    "expected complex64 (coil, y, x), got complex128 (2, 4, 6)": KSPACE.astype(np.complex128),
    "expected complex64 (coil, y, x), got float64 (2, 4, 6)": np.ones((2, 4, 6)),
    "expected complex64 (coil, y, x), got complex64 (2, 0, 6)": KSPACE[:, :0],
    "1 of 48 samples are NaN or infinite": np.where(np.arange(48).reshape(2, 4, 6) == 7, np.nan, KSPACE),
    "every sample is zero": 0 * KSPACE,
    "its largest part is 3.0e+38: in single precision, scale it to 1e-30 to 1e+38": np.full_like(KSPACE, 3e38 + 3e38j),
    "its largest part is 1.0e-40: in single precision, scale it to 1e-30 to 1e+38": np.full_like(KSPACE, 1e-40),
}


@pytest.mark.parametrize("message", BAD_KSPACE)
def test_bad_kspace(message: str) -> None:
    with pytest.raises(FileError) as caught:
        Acquisition(BAD_KSPACE[message], Path("a.h5"))
    assert str(caught.value) == f"a.h5: kspace: {message}"


BAD_MASK = {
    "mask: expected bool (6,) or (4, 6), got bool (4,)": np.ones(4, np.bool_),
    "mask: expected bool (6,) or (4, 6), got float32 (6,)": np.ones(6, np.float32),
    "mask: is zero everywhere: nothing was acquired": np.zeros(6, np.bool_),
    "kspace: 4 samples are not zero where the mask says that nothing was acquired": np.arange(6) != 3,
}


@pytest.mark.parametrize("message", BAD_MASK)
def test_bad_mask(message: str) -> None:
    with pytest.raises(FileError) as caught:
        replace(acquisition(), mask=BAD_MASK[message])
    assert str(caught.value) == f"a.h5: {message} (slice 1)"


@pytest.mark.parametrize("target", [np.ones((4, 4)), np.ones(4, np.float32), np.full((4, 4), np.inf, np.float32)])
def test_bad_target(target: np.ndarray) -> None:
    with pytest.raises(FileError, match=r"a\.h5: target: "):
        replace(acquisition(), target=target)


def test_bad_numbers() -> None:
    with pytest.raises(FileError, match="slice: expected 0 to 2, got 3"):
        replace(acquisition(), slice_index=3)
    with pytest.raises(FileError, match="recon_shape"):
        replace(acquisition(), recon_shape=(0, 4))


@pytest.mark.parametrize("name", ["sensitivity_maps", "calibration", "noise_scan"])
def test_companions_have_to_fit_the_kspace(name: str) -> None:
    kspace = np.ones((3, 4, 6), np.complex64)
    right = {"sensitivity_maps": (2, 3, 4, 6), "calibration": (3, 4, 6), "noise_scan": (3, 100)}[name]
    record = Acquisition(kspace, Path("x.h5"), **{name: np.ones(right, np.complex64)})
    assert getattr(record, name).shape == right
    wrong = (*right[:-3], 2, *right[-2:]) if len(right) > 2 else (2, 100)
    with pytest.raises(FileError, match=f"{name}: expected complex64"):
        Acquisition(kspace, Path("x.h5"), **{name: np.ones(wrong, np.complex64)})
    with pytest.raises(FileError, match=f"{name}: .* are NaN"):
        Acquisition(kspace, Path("x.h5"), **{name: np.full(right, np.nan, np.complex64)})


def acquired(mask: np.ndarray, stated: bool = False) -> np.ndarray:
    kspace = (np.ones((2, *mask.shape)) * mask).astype(np.complex64)
    return Acquisition(kspace, Path("a"), mask=mask if stated else None).acquired()


@pytest.mark.parametrize("stated", [False, True])
def test_what_was_acquired(stated: bool) -> None:
    columns = np.tile(np.arange(20) % 3 == 0, (30, 1))
    np.testing.assert_array_equal(acquired(columns, stated), columns[0])
    rows = np.ascontiguousarray(np.tile(np.arange(30) % 2 == 0, (20, 1)).T)
    np.testing.assert_array_equal(acquired(rows, stated), rows)
    grid = rows & np.tile(np.arange(20) % 2 == 0, (30, 1))
    np.testing.assert_array_equal(acquired(grid, stated), grid)


def test_a_few_zeros_and_a_partial_echo_are_still_columns() -> None:
    columns = np.tile(np.arange(20) % 2 == 0, (30, 1))
    columns[:5] = False
    columns[17, 4] = False
    np.testing.assert_array_equal(acquired(columns), np.arange(20) % 2 == 0)
    assert Acquisition(np.eye(4, dtype=np.complex64)[np.newaxis], Path("a")).acquired().shape == (4, 4)
