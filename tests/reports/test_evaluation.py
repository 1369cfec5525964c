"""The page of an evaluation, and its box plots."""

import dataclasses
import math

import numpy as np
import pytest

from mrisps.reports.evaluation import (
    SHOWN_ROWS,
    Boxes,
    EvaluationContent,
    MethodRow,
    WorstImage,
    csv_text,
    evaluation_report,
    with_interval,
)
from mrisps.reports.figures import box_figure, plain, to_png
from mrisps.reports.html import render

HOSTILE = "$\\frac{<script>alert('x')</script>\u2603"


def row(method: str, is_recipe: bool, n_unconverged: int = 0) -> MethodRow:
    mean = {"psnr": 30.0, "ssim": 0.9, "nmse": 0.01}
    interval = {"psnr": (29.0, 31.0), "ssim": None, "nmse": None}
    gain = None if is_recipe else -2.0
    return MethodRow(HOSTILE, method, is_recipe, 3, 3, 6, n_unconverged, mean, interval, gain, None, 1.0)


@pytest.fixture
def content() -> EvaluationContent:
    image = np.ones((12, 12), np.float32)
    values = {"psnr": [[30.0, 31.0, 45.0], [28.0]], "ssim": [[0.9], [0.8, math.inf]], "nmse": [[], [math.nan]]}
    return EvaluationContent(
        rows=[row("TV", False), row(HOSTILE, True)],
        boxes=[Boxes(HOSTILE, ("TV", HOSTILE), (False, True), values)],
        worst=[WorstImage(HOSTILE, image, image * 0.5)],
        tables={"Slices": (("a", "b"), [(HOSTILE, str(i)) for i in range(SHOWN_ROWS + 1)], 1)},
        failures=[],
        skipped=[HOSTILE],
        notes=[HOSTILE],
        compared="Peak: 1.",
        provenance={HOSTILE: HOSTILE},
    )


def test_page(content: EvaluationContent) -> None:
    page = render(evaluation_report(content))
    assert "<script" not in page
    assert page.count("data:image/png;base64,") == 2
    assert 'class="summary good"' in page
    assert "30.00 [29.00, 31.00]" in page
    assert f"The first {SHOWN_ROWS} of {SHOWN_ROWS + 1} rows." in page
    assert page.count("From so few patients the intervals are too narrow.") == 1


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"failures": ["a.h5: is broken"]}, "FAILED: 1, listed below."),
        ({"rows": [row("TV", False), row("ours", True, n_unconverged=2)]}, "NOT CONVERGED: 2 slices."),
        ({"rows": [], "boxes": []}, "Nothing could be evaluated."),
    ],
)
def test_bad_news_is_said_first(content: EvaluationContent, change: dict[str, list[object]], expected: str) -> None:
    report = evaluation_report(dataclasses.replace(content, **change))  # type: ignore[arg-type]  # by name
    assert report.outcome == "bad"
    assert expected in report.summary


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


def test_texts() -> None:
    assert with_interval(1.234, (1.0, 2.0), 2) == "1.23 [1.00, 2.00]"
    assert with_interval(-1.234, None, 1, sign=True) == "-1.2"
    assert csv_text(("a", "b"), [('x"y', "1,2")]) == 'a,b\n"x""y","1,2"\n'
