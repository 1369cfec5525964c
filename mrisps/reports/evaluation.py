"""The report of an evaluation: recipes and baselines on many files with references."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mrisps.reports import figures
from mrisps.reports.facts import Facts, flat_rows
from mrisps.reports.figures import Panel
from mrisps.reports.html import Picture, Report, Section, Table

__all__ = [
    "METRIC_NAMES",
    "SHOWN_ROWS",
    "Boxes",
    "EvaluationContent",
    "MethodRow",
    "WorstImage",
    "box_plot",
    "csv_text",
    "evaluation_report",
    "table_of",
    "with_interval",
]

Interval = tuple[float, float]

METRIC_NAMES: Mapping[str, str] = {"psnr": "PSNR (dB)", "ssim": "SSIM", "nmse": "NMSE"}
_DIGITS = {"psnr": 2, "ssim": 4, "nmse": 5}
SHOWN_ROWS = 2000
"""Longer tables are cut in the page; the CSV files have all rows."""


@dataclass(frozen=True)
class MethodRow:
    """One method in one setting.

    Parameters
    ----------
    setting, method
        Names.
    is_recipe
        Whether the method is a recipe, not a baseline.
    n_patients, n_volumes, n_slices, n_unconverged
        What was averaged, and how many of the slices did not converge.
    mean, interval
        By the keys of `METRIC_NAMES`.
    gain, gain_interval
        PSNR minus that of the first recipe, in dB; None for that recipe.
    seconds
        Mean of a slice.
    """

    setting: str
    method: str
    is_recipe: bool
    n_patients: int
    n_volumes: int
    n_slices: int
    n_unconverged: int
    mean: Mapping[str, float]
    interval: Mapping[str, Interval | None]
    gain: float | None
    gain_interval: Interval | None
    seconds: float


@dataclass(frozen=True)
class Boxes:
    """The values of the slices of one setting: quantity -> one list for each method."""

    setting: str
    methods: tuple[str, ...]
    is_recipe: tuple[bool, ...]
    values: Mapping[str, Sequence[Sequence[float]]]


@dataclass(frozen=True, eq=False)
class WorstImage:
    """A slice with a low PSNR: what is said of it, and its images (y, x)."""

    text: str
    image: NDArray[np.float32]
    reference: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class EvaluationContent:
    """What is shown.

    Parameters
    ----------
    rows
        The table of settings and methods.
    boxes
        One for each setting.
    worst
        The worst first.
    tables
        Further tables by their heading, as texts: tuning, error proxies, volumes, slices. (columns, rows, first numeric column)
    failures, skipped, notes
        What went wrong or was left out; what a reader should know.
    compared
        How images were compared, in a sentence.
    provenance
        What the numbers depend on.
    """

    rows: Sequence[MethodRow]
    boxes: Sequence[Boxes]
    worst: Sequence[WorstImage]
    tables: Mapping[str, tuple[tuple[str, ...], Sequence[tuple[str, ...]], int]]
    failures: Sequence[str]
    skipped: Sequence[str]
    notes: Sequence[str]
    compared: str
    provenance: Facts


def with_interval(value: float, interval: Interval | None, digits: int, *, sign: bool = False) -> str:
    """``30.12 [29.50, 30.71]``; without brackets where there is no interval."""
    plus = "+" if sign else ""
    text = f"{value:{plus}.{digits}f}"
    return text if interval is None else f"{text} [{interval[0]:{plus}.{digits}f}, {interval[1]:{plus}.{digits}f}]"


def table_of(rows: Sequence[MethodRow]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Columns and cells of the table of one or several settings."""
    columns = ("setting", "method", *METRIC_NAMES.values(), "PSNR minus first recipe", "volumes", "slices", "s/slice")
    cells = []
    for row in rows:
        unconverged = f" ({row.n_unconverged} NOT CONVERGED)" if row.n_unconverged else ""
        cells.append(
            (
                row.setting,
                row.method,
                *(with_interval(row.mean[key], row.interval[key], _DIGITS[key]) for key in METRIC_NAMES),
                "" if row.gain is None else with_interval(row.gain, row.gain_interval, 2, sign=True),
                str(row.n_volumes),
                f"{row.n_slices}{unconverged}",
                f"{row.seconds:.2f}",
            )
        )
    return columns, cells


def box_plot(boxes: Boxes) -> bytes:
    """The box plots of a setting as PNG."""
    values = {METRIC_NAMES.get(name, name): lists for name, lists in boxes.values.items()}
    return figures.to_png(figures.box_figure(boxes.methods, values, boxes.is_recipe))


def csv_text(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as comma-separated values."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return buffer.getvalue()


def evaluation_report(content: EvaluationContent) -> Report:
    """The page."""
    n_unconverged = sum(row.n_unconverged for row in content.rows if row.is_recipe)
    good = bool(content.rows) and not content.failures and not n_unconverged
    sections = []
    for boxes in content.boxes:
        rows = [row for row in content.rows if row.setting == boxes.setting]
        columns, cells = table_of(rows)
        n_patients = max((row.n_patients for row in rows), default=0)
        sections.append(
            Section(
                boxes.setting,
                text=(_intervals(n_patients),),
                tables=(Table(columns[1:], tuple(line[1:] for line in cells), numeric_from=1),),
                pictures=(
                    Picture(
                        box_plot(boxes),
                        f"box plots of {boxes.setting}",
                        "Each dot is a slice. Boxes: quartiles; whiskers: the last value within 1.5 times their distance. "
                        "Green: recipes, grey: baselines.",
                    ),
                ),
            )
        )
    if content.worst:
        sections.append(Section("Worst cases", pictures=tuple(_worst(case) for case in content.worst)))
    if content.failures:
        sections.append(Section("Failures", tables=(Table(("",), tuple((line,) for line in content.failures)),)))
    if content.skipped:
        sections.append(Section("Left out", tables=(Table(("",), tuple((line,) for line in content.skipped)),)))
    for heading, (columns, lines, numeric_from) in content.tables.items():
        cut = f"The first {SHOWN_ROWS} of {len(lines)} rows." if len(lines) > SHOWN_ROWS else ""
        shown = Table(columns, tuple(lines[:SHOWN_ROWS]), caption=cut, numeric_from=numeric_from)
        sections.append(Section(heading, tables=(shown,), folded=len(lines) > 20))
    sections.append(
        Section(
            "Recipes, weights, versions", tables=(Table(("", ""), tuple(flat_rows(content.provenance))),), folded=True
        )
    )
    return Report(
        title="Evaluation",
        summary=_summary(content, n_unconverged),
        outcome="good" if good else "bad",
        notes=(content.compared, *content.notes),
        sections=tuple(sections),
        footer="Made by mrisps. This file is complete: it loads nothing from elsewhere.",
    )


def _summary(content: EvaluationContent, n_unconverged: int) -> str:
    if not content.rows:
        return "Nothing could be evaluated."
    parts = [
        f"{row.setting}: {row.method} {with_interval(row.mean['psnr'], row.interval['psnr'], 2)} dB"
        for row in content.rows
        if row.is_recipe
    ]
    text = "; ".join(parts[:6]) + ("; …" if len(parts) > 6 else "") + "."
    if n_unconverged:
        text += f" NOT CONVERGED: {n_unconverged} slices."
    if content.failures:
        text += f" FAILED: {len(content.failures)}, listed below."
    return text


def _intervals(n_patients: int) -> str:
    if n_patients < 2:
        return "Means over volumes. One patient: there are no intervals. In brackets behind a baseline: its weight."
    few = " From so few patients the intervals are too narrow." if n_patients < 10 else ""
    return (
        f"Means over volumes, with 95 % intervals in brackets from resampling the {n_patients} patients. Differences are "
        f"taken within patients, so that their intervals are narrower than those of the means.{few} In brackets behind a "
        "baseline: its weight."
    )


def _worst(case: WorstImage) -> Picture:
    white = figures.grey_limit(case.reference)
    error = np.abs(case.image - case.reference)
    limit = figures.error_limit(case.reference, [case.image])
    panels = [
        Panel("reference", case.reference, (0.0, white)),
        Panel("reconstruction", case.image, (0.0, white)),
        Panel("absolute error", error, (0.0, limit), "inferno", bar=True),
    ]
    share = 100 * limit / white if white and math.isfinite(white) else math.nan
    caption = (
        f"{case.text}. Images: white is {white:.3g} and more. Error: the brightest colour is {share:.0f} % of white."
    )
    return Picture(figures.to_png(figures.image_grid(panels, 3)), "a bad case and its error", caption)
