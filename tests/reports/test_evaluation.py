"""The page of an evaluation, and its box plots."""

import dataclasses
import json

import numpy as np
import pytest

from mrisps.quality.evaluation import EvaluationResult, EvaluationSettings, TunedBaseline, WorstCase
from mrisps.quality.scores import Setting, SliceScore
from mrisps.reports import evaluation
from mrisps.reports.evaluation import EvaluationReport, with_interval
from mrisps.reports.figures import box_figure, plain, to_png

HOSTILE = "$\\frac{<script>alert('x')</script>\u2603"
SETTING = Setting(HOSTILE, 4.0, "as acquired")


def score(method: str, file: str, error: float = 2.0, status: str = "converged") -> SliceScore:
    weight = 0.004 if method == "TV" else None
    energy, peak = (200.0, 10.0)
    return SliceScore(
        *(file, 0, file, HOSTILE, 4.0, "as acquired", method, error, energy, 50, peak, 0.9, 4.1, 1.5, weight),
        status="" if method == "TV" else status,
    )


@pytest.fixture
def found() -> EvaluationResult:
    image = np.ones((12, 12), np.float32)
    ours = score(HOSTILE, "b.h5", 0.0)
    return EvaluationResult(
        scores=(score("TV", "a.h5"), score(HOSTILE, "a.h5"), score("TV", "b.h5"), ours, score("TV", "c.h5")),
        methods={SETTING: ("TV", HOSTILE)},
        reference={SETTING: HOSTILE},
        tuned=(TunedBaseline(SETTING, "TV", 0.004, ((0.004, 20.0),), ("a.h5, slice 0",), True, True),),
        worst=(WorstCase(ours, image, image * 0.5),),
        failures=(),
        skipped=(HOSTILE,),
        notes=(HOSTILE,),
        n_computed=5,
    )


def report(found: EvaluationResult) -> EvaluationReport:
    return EvaluationReport(found, EvaluationSettings(), {HOSTILE: HOSTILE})


def test_files(found: EvaluationResult, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "SHOWN_ROWS", 4)
    files = report(found).files()
    assert list(files) == ["volumes.csv", "slices.csv", "summary.json", "boxplot_1.png", "index.html"]
    page = files["index.html"].decode()
    assert "<script>alert" not in page
    assert page.count("<svg") == 1
    assert page.count('type="text/plain"') == 2  # the planes of a bad case: reference, reconstruction
    assert 'data-level="good"' in page
    assert "The first 4 of 5 rows." in page
    assert page.count("From so few patients the intervals are too narrow.") == 1
    assert "1 score is of slices on which another method failed" in page
    assert files["slices.csv"].decode().count("\n") == 6
    summary = json.loads(files["summary.json"])
    (tv, ours) = summary["settings"]
    assert (tv["method"], tv["weight"], tv["is_recipe"], tv["n_slices"]) == ("TV", 0.004, False, 2)
    assert (ours["is_recipe"], ours["mean"]["psnr"]) == (True, None)  # equal images: JSON has no infinity
    assert len(summary["notes"]) == 4


def test_the_table(found: EvaluationResult) -> None:
    columns, (tv, ours) = report(found).table()
    assert (tv[1], ours[1]) == ("TV (0.004)", HOSTILE)
    assert len(columns) == len(tv) == len(ours)
    assert tv[columns.index("SSIM")] == "0.9000 [0.9000, 0.9000]"
    assert report(found).table(Setting("other", 1.0, ""))[1] == []


def test_bad_news_is_said_first(found: EvaluationResult) -> None:
    def page(changed: EvaluationResult) -> str:
        text = report(changed).files()["index.html"].decode()
        assert 'class="summary" data-level="check"' in text
        return text

    assert "FAILED: 1, listed below." in page(dataclasses.replace(found, failures=("a.h5: is broken",)))
    capped = (score("TV", "a.h5"), score(HOSTILE, "a.h5", status="max_iter"))
    assert "NOT CONVERGED: 1 slice." in page(dataclasses.replace(found, scores=capped))
    nothing = dataclasses.replace(found, scores=(), methods={}, reference={}, tuned=(), worst=())
    assert "Nothing could be evaluated." in page(nothing)


def test_boxes_show_the_quartiles() -> None:
    figure = box_figure(["x"], {"PSNR": [[1.0, 2.0, 3.0, 4.0, 100.0]]}, [True])
    (axis,) = figure.axes
    (box,) = axis.patches
    assert (box.get_x(), box.get_width()) == (2.0, 2.0)
    medians = [line for line in axis.lines if list(line.get_xdata()) == [3.0, 3.0]]
    assert len(medians) == 1
    assert max(max(line.get_xdata()) for line in axis.lines if len(line.get_xdata()) == 2) == 4.0  # 100 is beyond
    assert to_png(figure).startswith(b"\x89PNG")


def test_plain_text() -> None:
    assert plain("TV (0.004), R = 8") == "TV (0.004), R = 8"
    assert plain("$a$ \u2603\n") == "?a? ??"
    assert plain("x" * 50) == "x" * 29 + "..."


def test_intervals_in_brackets() -> None:
    assert with_interval(1.234, (1.0, 2.0), 2) == "1.23 [1.00, 2.00]"
    assert with_interval(-1.234, None, 1, sign=True) == "-1.2"
