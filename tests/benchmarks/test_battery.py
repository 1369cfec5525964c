"""The battery's measure, and what makes a stored result count."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
SHAPE = (48, 40)


@pytest.fixture
def battery(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import battery

    yield battery
    for name in ("battery", "battery_report", "peers"):
        sys.modules.pop(name, None)


@pytest.fixture
def truth():
    random = np.random.default_rng(0)
    return (1 + random.random(SHAPE)) * np.exp(2j * np.pi * random.random(SHAPE))


def write_case(folder: Path, truth, **changed) -> Path:
    random = np.random.default_rng(1)
    coils = random.normal(size=(2, *SHAPE)) + 1j * random.normal(size=(2, *SHAPE))
    arrays = {
        "kspace": coils.astype(np.complex64),
        "mask": np.ones(SHAPE, dtype=bool),
        "noise": np.ones((2, 8), dtype=np.complex64),
        "truth": truth.astype(np.complex64),
        "object": np.ones(SHAPE, dtype=bool),
        "about": json.dumps({}),
    }
    np.savez(folder / "case.npz", **(arrays | changed))
    return folder / "case.npz"


def test_the_score_ignores_phase_unit_and_smooth_shading(battery, truth) -> None:
    y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    inside = np.ones(SHAPE, dtype=bool)
    shading = 3e7 / (1 + 0.2 * y - 0.1 * x**3 * y**2)  # its inverse is a polynomial of degree 5
    assert battery.score(np.abs(truth) * shading, truth, inside) < 1e-12


def test_the_score_of_an_error_on_the_object_is_its_relative_size(battery, truth) -> None:
    inside = np.zeros(SHAPE, dtype=bool)
    inside[8:40, 4:36] = True
    error = np.random.default_rng(2).normal(size=SHAPE) * 0.01
    expected = np.linalg.norm(error[inside]) / np.linalg.norm(truth[inside])
    image = np.abs(truth) + error + 100 * ~inside  # what lies outside does not count
    assert battery.score(image, truth, inside) == pytest.approx(expected, rel=0.1)
    assert battery.score(np.zeros(SHAPE), truth, inside) == pytest.approx(1.0)


def test_no_score_for_another_shape_or_nan(battery, truth) -> None:
    inside = np.ones(SHAPE, dtype=bool)
    assert battery.score(truth[:-1], truth, inside) == np.inf
    assert battery.score(np.where(np.arange(SHAPE[1]) == 3, np.nan, truth), truth, inside) == np.inf


def test_a_key_changes_with_case_method_weight_and_version_and_not_with_true_maps(battery, truth, tmp_path) -> None:
    case = battery.load(write_case(tmp_path, truth))
    keys = {battery.key(case, "BART", 0.1, "1")}
    keys |= {
        battery.key(case, "BART", 0.2, "1"),
        battery.key(case, "BART", 0.1, "2"),
        battery.key(case, "SigPy", 0.1, "1"),
    }
    other = battery.load(write_case(tmp_path, truth, mask=np.zeros(SHAPE, dtype=bool)))
    keys.add(battery.key(other, "BART", 0.1, "1"))
    assert len(keys) == 5
    with_maps = battery.load(write_case(tmp_path, truth, maps=np.ones((2, *SHAPE), dtype=np.complex64)))
    assert with_maps.sha256 == case.sha256


def test_a_second_run_measures_nothing_again_and_mends_a_torn_line(battery, truth, tmp_path, capsys) -> None:
    write_case(tmp_path, truth)
    results = tmp_path / "results.jsonl"
    run = ["run", str(tmp_path), "--methods", "zero-filled"]
    battery.main(run)
    battery.main(run)
    (entry,) = battery.read_results(results)
    assert results.read_text().count("\n") == 1
    results.write_text(results.read_text()[:40])  # a crash in the middle of a line
    battery.main(run)
    (again,) = battery.read_results(results)
    assert {name: again[name] for name in ("case", "method", "nrmse", "key")} == {
        name: entry[name] for name in ("case", "method", "nrmse", "key")
    }


def test_the_summary_counts_what_a_user_would_not_be_told(battery) -> None:
    def entries(case: str, ours: float, verdict: str) -> list[dict[str, object]]:
        common = {"case": case, "weight": 0.0, "cpu_seconds": 1.0}
        return [
            common | {"method": "zero-filled", "nrmse": 0.3},
            common | {"method": "BART wavelet, 2 sets", "nrmse": 0.1},
            common | {"method": "ours", "nrmse": ours, "verdict": verdict},
        ]

    found = battery.rows([*entries("a", 0.09, "good"), *entries("b", 0.2, "good"), *entries("c", 0.4, "unusable")])
    text = battery.table(found)
    assert "- no higher than the best peer: 1 of 3 (33 %)" in text
    assert "- worst ratio to the best peer: 4.00 (c); above 1.1 in 2: b, c" in text
    assert "- worse than zero-filled: 1: c" in text
    assert "yet `good`: 1 of 2 (50 %): b" in text
    assert "- the others that are not `good`: 0 of 1 (0 %)" in text
