"""The verdict: what makes one, and where it is shown."""

from pathlib import Path

import pytest

from mrisps.reconstruction.verdict import LIMITS, Verdict, gravest, judge, verdict_of

GOOD = {limit.fact: limit.check / 2 for limit in LIMITS}


def test_nothing_speaks_against_it() -> None:
    verdict = judge(GOOD)
    assert verdict == Verdict("good", (), GOOD)
    assert str(verdict) == "good"
    assert judge({"misfit_over_noise": None}) == Verdict("good", (), {})


@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.fact)
def test_each_fact_counts(limit: object) -> None:
    chosen = next(one for one in LIMITS if one == limit)
    check = judge({**GOOD, chosen.fact: chosen.check})
    assert check.level == "check"
    assert len(check.reasons) == 1
    if chosen.unusable < float("inf"):
        assert judge({**GOOD, chosen.fact: chosen.unusable}).level == "unusable"
    assert judge({**GOOD, chosen.fact: float("nan")}).level == "unusable"


def test_a_solver_that_was_stopped_is_checked() -> None:
    assert judge(GOOD, status="max_iter").reasons == ("the solver stopped before it was done",)


def test_settled_is_as_good_as_converged() -> None:
    assert judge(GOOD, status="settled") == judge(GOOD, status="converged") == Verdict("good", (), GOOD)


def test_the_gravest_reason_comes_first() -> None:
    verdict = judge({**GOOD, LIMITS[0].fact: 1e6}, status="max_iter")
    assert verdict.level == "unusable"
    assert verdict.reasons[-1] == "the solver stopped before it was done"
    assert gravest([judge(GOOD), verdict, judge(GOOD, status="max_iter")]) is verdict
    assert gravest([]).level == "good"


def test_it_survives_a_file() -> None:
    verdict = judge({**GOOD, LIMITS[0].fact: 1e6})
    assert verdict_of({"verdict": verdict.to_dict()}) == verdict
    for broken in ({}, {"verdict": "good"}, {"verdict": {"level": "fine"}}):
        assert verdict_of(broken).level == "check"


def test_the_page_names_every_fact() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "how-it-works.md").read_text()
    assert [limit.fact for limit in LIMITS if f"| `{limit.fact}` |" not in page] == []
