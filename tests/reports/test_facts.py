"""Facts in words, also where the facts are damaged."""

import math

import pytest

from mrisps.reports.facts import certificate_rows, energy_trace, flat_rows, mask_rows, number, status_words


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (3, "3"),
        (0.12345678, "0.1235"),
        (1e-9, "1e-09"),
        (35204.9, "35200"),
        (-12345678.0, "-1.235e+07"),
        (math.inf, "inf"),
        (True, "True"),
        ("x", "x"),
    ],
)
def test_number(value: object, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (
            "converged",
            "converged: small changes of the image do not lower the energy, though a minimum elsewhere may be lower",
        ),
        ("settled", "settled: the image no longer changes"),
        ("max_iter", "NOT CONVERGED: the cap on iterations came first"),
        ("diverging", "UNUSABLE: the image grew beyond all bounds"),
        ("nonfinite", "UNUSABLE: NaN or infinity appeared"),
        ("fine", "unknown status: fine"),
        (None, "unknown status"),
        ([], "unknown status"),
    ],
)
def test_status(status: object, words: str) -> None:
    assert status_words({"status": status}) == words


@pytest.mark.parametrize("gap", [0.0034, 0.0])
def test_a_bound_on_the_energy_is_said(gap: float) -> None:
    words = status_words({"status": "converged", "energy_gap": gap})
    assert words == f"converged: the energy is proven to be at most {100 * gap:.2g} % above the lowest there is"
    assert status_words({"status": "settled", "energy_gap": gap}) == "settled: the image no longer changes"
    assert status_words({"status": "converged", "energy_gap": "x"}).startswith("converged: small changes")


@pytest.mark.parametrize(
    ("ratio", "words"),
    [(0.3, "well below 1"), (1.1, "about 1"), (2.0, "well above 1"), (None, "not known"), ("x", "not known")],
)
def test_misfit(ratio: object, words: str) -> None:
    rows = {row[0]: row for row in certificate_rows({"misfit_ratio": ratio})}
    assert words in rows["misfit over noise"][2]


def test_certificate_rows_are_complete() -> None:
    certificate = {"status": "converged", "n_iterations": 7, "residual_a": 1e-4, "tolerance": 1e-3}
    rows = {row[0]: row[1] for row in certificate_rows(certificate)}
    assert rows["iterations"] == "7"
    assert rows["stationarity in a"] == "0.0001 (tolerance 0.001)"
    assert all(len(row) == 3 for row in certificate_rows({}))
    assert "energy above its minimum" not in rows
    assert certificate_rows({"energy_gap": 0.0123})[-1][:2] == ("energy above its minimum", "at most 1.2 %")
    assert certificate_rows({"energy_gap": None}) == certificate_rows({"energy_gap": "x"}) == certificate_rows({})
    assert all(len(row) == 2 for row in mask_rows({}))


def test_flat_rows() -> None:
    facts = {"a": {"b": 1, "c": {"d": None}}, "e": [1, "x"], "f": True}
    assert flat_rows(facts) == [("a.b", "1"), ("a.c.d", "none"), ("e", "1, x"), ("f", "True")]


@pytest.mark.parametrize(
    ("trace", "expected"),
    [
        ([[1, 2.0], [2, 1]], [(1, 2.0), (2, 1.0)]),
        (((1, 2.0),), [(1, 2.0)]),
        ([[1, None], [1], "ab", [1, math.nan], {"a": 1}, ["x", 1.0]], []),
        (None, []),
        ("text", []),
    ],
)
def test_energy_trace(trace: object, expected: list[tuple[int, float]]) -> None:
    assert energy_trace({"energy_trace": trace}) == expected
