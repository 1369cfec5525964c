"""The maps of the expected error: what is fitted, calibrated and counted."""

import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def program(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import expected_error_report

    yield expected_error_report
    for name in ("expected_error", "expected_error_report"):
        sys.modules.pop(name, None)


def scan_of(program, subject: str, seed: int):
    """The error is exponential, its mean 0.2 * cost^0.5; noise has no influence."""
    random = np.random.default_rng(seed)
    inputs = {"cost": random.uniform(0.1, 4, 4000), "noise": np.full(4000, random.uniform(0.01, 0.03))}
    mean = 0.2 * inputs["cost"] ** 0.5
    error = mean * random.exponential(size=4000)
    return program.Scan(subject, subject, "knee", 8, inputs, error, mean, inputs, error)


def test_the_fit_finds_the_powers_and_the_factor_gives_the_level(program):
    scans = [scan_of(program, f"subject {k}", k) for k in range(9)]
    fit = program.fitted(scans[:5], scans[5:8], ("cost", "noise"))
    assert fit.exponents == pytest.approx((0.5, 0), abs=1e-6)
    assert fit.factor == pytest.approx(0.2 * np.log(10), rel=0.05)  # of the 90th percentile of an exponential
    assert fit.coverage(scans[8]) == pytest.approx(0.9, abs=0.015)
    assert fit.own_factor(scans[8], scans[8].error) == pytest.approx(1, abs=0.06)


def test_exponents_are_not_negative(program):
    scans = [scan_of(program, f"subject {k}", k) for k in range(4)]
    turned = [program.replace(s, mean_error=1 / s.mean_error) for s in scans]
    fit = program.fitted(turned, turned, ("cost",))
    assert fit.exponents == (0.0,)


def test_new_subjects_have_no_part_in_their_map(program, monkeypatch):
    seen = []

    def fitted(scans, calibration, names):
        seen.append(({s.subject for s in scans}, {s.subject for s in calibration}))
        return len(seen) - 1

    monkeypatch.setattr(program, "fitted", fitted)
    knees = [scan_of(program, f"knee {k:02d}", k) for k in range(20)]
    heads = [program.replace(scan_of(program, f"head {k}", k), group="head") for k in range(5)]
    pairs = program.tested(knees + heads, ("cost",))
    assert {s.subject for s, _ in pairs} == {f"knee {k}" for k in range(10, 20)} | {f"head {k}" for k in range(5)}
    for s, number in pairs:
        fit, calibration = seen[number]
        assert fit
        assert calibration
        assert not fit & calibration
        assert s.subject not in fit | calibration


def test_missing_energy_scales_with_the_image_and_is_that_of_the_error(program):
    """White noise with zeros for what was not measured: the error is the rest of the energy."""
    random = np.random.default_rng(0)
    truth = random.normal(size=(64, 96))
    mask = np.broadcast_to(random.random(96) < 0.4, truth.shape)
    mask = mask | np.roll(mask[:, ::-1], 1, axis=1)  # k and -k
    kept = np.fft.ifftshift(mask) * np.fft.fft2(truth)
    image = np.fft.ifft2(kept).real
    error = np.sqrt(np.mean((image - truth) ** 2))
    assert program.missing_energy(image, mask, truth) == pytest.approx(error, rel=1e-6)
    assert program.missing_energy(image, mask) == pytest.approx(error, rel=0.15)
    assert program.missing_energy(3 * image, mask) == pytest.approx(3 * program.missing_energy(image, mask), rel=1e-6)
