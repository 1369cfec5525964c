"""Averages and intervals against values worked out by hand or by SciPy."""

import dataclasses
import json
import math
from dataclasses import asdict

import numpy as np
import pytest

from mrisps.quality.scores import (
    Setting,
    SliceScore,
    bootstrap_interval,
    complete_slices,
    score_settings,
    score_volumes,
)

SETTING = Setting("A", 4.0, "as acquired")
SCORE = SliceScore("a.h5", 0, "p", "A", 4.0, "as acquired", "x", 2.0, 100.0, 50, 10.0, 0.5, 4.1, 1.0)


def test_slice_and_volume() -> None:
    other = dataclasses.replace(SCORE, slice_index=1, squared_error=6.0, target_energy=20.0, ssim=0.7)
    assert SCORE.psnr == pytest.approx(10 * math.log10(100 / (2 / 50)))
    assert SCORE.nmse == pytest.approx(0.02)
    (volume,) = score_volumes([SCORE, other])
    assert volume.psnr == pytest.approx(10 * math.log10(100 / (8 / 100)))
    assert volume.nmse == pytest.approx(8 / 120)
    assert volume.ssim == pytest.approx(0.6)
    assert dataclasses.replace(SCORE, squared_error=0.0).psnr == math.inf
    assert math.isnan(dataclasses.replace(SCORE, target_energy=0.0).nmse)
    assert SliceScore(**json.loads(json.dumps(asdict(SCORE)))) == SCORE


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n_pixels", 0),
        ("n_pixels", 1.5),
        ("slice_index", -1),
        ("ssim", "0.5"),
        ("ssim", math.nan),
        ("data_range", 0.0),
        ("squared_error", -1.0),
        ("seconds", True),
        ("file", 3),
        ("weight", "x"),
        ("acceleration", math.inf),
    ],
)
def test_wrong_values_are_named(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        SliceScore(**{**asdict(SCORE), field: value})


def test_bootstrap_covers_like_a_normal_interval(rng: np.random.Generator) -> None:
    values = rng.normal(30, 2, size=200)
    low, high = bootstrap_interval(values.tolist(), [str(i) for i in range(200)]) or (0.0, 0.0)
    half = 1.96 * values.std() / math.sqrt(200)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half)


def test_bootstrap_resamples_patients_not_volumes(rng: np.random.Generator) -> None:
    """Ten copies of each patient's volume say no more than one."""
    values = rng.normal(size=20)
    patients = [str(i) for i in range(20)]
    once = bootstrap_interval(values.tolist(), patients, seed=1)
    copies = bootstrap_interval(np.repeat(values, 10).tolist(), np.repeat(patients, 10).tolist(), seed=1)
    assert once == pytest.approx(copies)
    narrow = bootstrap_interval(np.repeat(values, 10).tolist(), [str(i) for i in range(200)], seed=1)
    assert once is not None
    assert narrow is not None
    assert narrow[1] - narrow[0] < 0.5 * (once[1] - once[0])


def test_bootstrap_without_an_interval() -> None:
    assert bootstrap_interval([1.0, 2.0], ["a", "a"]) is None
    assert bootstrap_interval([1.0, math.inf], ["a", "b"]) is None
    assert bootstrap_interval([1.0, 2.0], ["a", "b"], seed=3) == bootstrap_interval([1.0, 2.0], ["a", "b"], seed=3)


def test_gains_are_paired() -> None:
    """Patients differ by 10 dB, methods by exactly 1 dB: the interval of the gain has no width."""
    scores = [
        dataclasses.replace(SCORE, file=f"{i}", patient=f"{i}", method=method, squared_error=error * 10.0**i)
        for i in range(4)
        for method, error in (("x", 1.0), ("ours", 10**-0.1))
    ]
    rows = score_settings(scores, {SETTING: ("x", "ours")}, {SETTING: "ours"})
    assert [row.method for row in rows] == ["x", "ours"]
    assert rows[0].gain == pytest.approx(-1.0)
    assert rows[0].gain_interval == pytest.approx((-1.0, -1.0))
    assert rows[1].gain is None
    low, high = rows[1].interval["psnr"] or (0.0, 0.0)
    assert high - low > 5
    assert low < rows[1].mean["psnr"] < high


def test_only_slices_that_all_methods_have() -> None:
    scores = [dataclasses.replace(SCORE, slice_index=i, method=m) for i in range(2) for m in ("x", "ours")][:3]
    kept = complete_slices(scores, {SETTING: ("x", "ours")})
    assert [(score.slice_index, score.method) for score in kept] == [(0, "x"), (0, "ours")]
