"""The report of an evaluation: recipes and baselines on many files with references."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from mrisps.quality.evaluation import EvaluationResult, EvaluationSettings, WorstCase
from mrisps.quality.scores import (
    METRICS,
    Interval,
    Setting,
    SettingScore,
    complete_slices,
    score_settings,
    score_volumes,
)
from mrisps.reports import figures
from mrisps.reports.facts import Facts, flat_rows, plural
from mrisps.reports.html import Cell, Picture, Report, Section, Table, render
from mrisps.reports.viewer import Viewer, panes_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["EvaluationReport", "with_interval"]

_METRIC_NAMES: Mapping[str, str] = {"psnr": "PSNR (dB)", "ssim": "SSIM", "nmse": "NMSE"}
_DIGITS = {"psnr": 2, "ssim": 4, "nmse": 5}
SHOWN_ROWS = 2000
"""Longer tables are cut in the page; the CSV files have all rows."""

_Rows = list[tuple[str, ...]]


class EvaluationReport:
    """What an evaluation found, for the terminal, as files, and as one page.

    Parameters
    ----------
    found
        The result.
    settings
        How it was found.
    provenance
        What the numbers depend on, as plain values.
    """

    def __init__(self, found: EvaluationResult, settings: EvaluationSettings, provenance: Facts) -> None:
        self._found, self._settings, self._provenance = found, settings, provenance
        self._complete = complete_slices(found.scores, found.methods)
        self.rows: list[SettingScore] = score_settings(self._complete, found.methods, found.reference)
        """One for each method of each setting."""
        self._baselines = {baseline.name for baseline in settings.baselines}
        self.n_unconverged = sum(row.n_unconverged for row in self.rows)
        """Slices of recipes that did not converge."""

    @property
    def notes(self) -> list[str]:
        """What a reader should know."""
        found = self._found
        notes = list(found.notes)
        n_apart = len(found.scores) - len(self._complete)
        if n_apart:
            notes.append(
                f"{plural(n_apart, 'score is', 'scores are')} of slices on which another method failed: in slices.csv, and not in "
                "the averages"
            )
        if any(tuned.on_evaluated for tuned in found.tuned):
            notes.append(
                "the weights of the baselines were tuned on slices that are evaluated here, to the baselines' advantage"
            )
        return notes + [
            f"{tuned.method}, {tuned.setting}: the best weight, {tuned.weight:.3g}, is at the end of those that were tried"
            for tuned in found.tuned
            if tuned.at_edge
        ]

    def table(self, setting: Setting | None = None) -> tuple[tuple[str, ...], _Rows]:
        """Columns and cells of one setting, or of all with its name in the first column."""
        columns = (
            "setting",
            "method",
            *_METRIC_NAMES.values(),
            "PSNR minus first recipe",
            "volumes",
            "slices",
            "s/slice",
        )
        cells: _Rows = []
        for row in self.rows:
            if setting not in (None, row.setting):
                continue
            unconverged = f" ({row.n_unconverged} NOT CONVERGED)" if row.n_unconverged else ""
            cells.append(
                (
                    str(row.setting),
                    row.method if row.weight is None else f"{row.method} ({row.weight:.3g})",
                    *(with_interval(row.mean[key], row.interval[key], _DIGITS[key]) for key in _METRIC_NAMES),
                    "" if row.gain is None else with_interval(row.gain, row.gain_interval, 2, sign=True),
                    str(row.n_volumes),
                    f"{row.n_slices}{unconverged}",
                    f"{row.seconds:.2f}",
                )
            )
        return columns, cells

    def files(self) -> dict[str, bytes]:
        """Name -> content of everything that is written."""
        content = {
            "volumes.csv": _csv_text(*self._volumes()).encode(),
            "slices.csv": _csv_text(*self._slices()).encode(),
            "summary.json": (json.dumps(_finite(self._summary_values()), indent=2, allow_nan=False) + "\n").encode(),
        }
        for number, setting in enumerate(self._found.methods, start=1):
            content[f"boxplot_{number}.png"] = figures.to_png(self._box_plot(setting))
        return {**content, "index.html": render(self._page()).encode()}

    # ------------------------------------------------------------------------------------------------------------ parts

    def _volumes(self) -> tuple[tuple[str, ...], _Rows]:
        columns = ("setting", "method", "file", "patient", "slices", *_METRIC_NAMES.values())
        return columns, [
            (
                *(str(v.setting), v.method, v.file, v.patient, str(v.n_slices)),
                *(f"{v.psnr:.3f}", f"{v.ssim:.5f}", f"{v.nmse:.6f}"),
            )
            for v in score_volumes(self._found.scores)
        ]

    def _slices(self) -> tuple[tuple[str, ...], _Rows]:
        columns = ("setting", "method", "file", "slice", "R", *_METRIC_NAMES.values(), "seconds", "status")
        return columns, [
            (
                *(str(s.setting), s.method, s.file, str(s.slice_index), f"{s.realised_acceleration:.2f}"),
                *(f"{s.psnr:.3f}", f"{s.ssim:.5f}", f"{s.nmse:.6f}", f"{s.seconds:.2f}", s.status),
            )
            for s in self._found.scores
        ]

    def _tuning(self) -> tuple[tuple[str, ...], _Rows]:
        columns = ("setting", "method", "weight", "tried: weight (PSNR)", "on")
        return columns, [
            (
                *(str(tuned.setting), tuned.method, f"{tuned.weight:.3g}"),
                ", ".join(f"{weight:.3g} ({value:.2f})" for weight, value in tuned.tried),
                "; ".join(tuned.slices),
            )
            for tuned in self._found.tuned
        ]

    def _summary_values(self) -> Facts:
        return {
            "settings": [
                {**asdict(row), "setting": str(row.setting), "is_recipe": row.method not in self._baselines}
                for row in self.rows
            ],
            "baselines": [asdict(tuned) for tuned in self._found.tuned],
            "failures": self._found.failures,
            "left_out": self._found.skipped,
            "notes": self.notes,
            "compared": self._compared,
            "provenance": self._provenance,
        }

    @property
    def _compared(self) -> str:
        how = self._settings
        peak = "the maximum of each volume's reference" if how.data_range == "target-max" else f"{how.data_range:g}"
        square = "the central square as wide as the reference"
        crop = square if how.crop is None else f"the central {how.crop[0]} x {how.crop[1]}"
        edge = f" without {how.border} pixels at every edge" if how.border else ""
        return f"Peak for PSNR and SSIM: {peak}. Compared: {crop}{edge}."

    def _box_plot(self, setting: Setting) -> "Figure":
        methods = self._found.methods[setting]
        groups = [[s for s in self._complete if (s.setting, s.method) == (setting, method)] for method in methods]
        values = {
            _METRIC_NAMES[name]: [[float(getattr(s, name)) for s in group] for group in groups] for name in METRICS
        }
        return figures.box_figure(methods, values, [method not in self._baselines for method in methods])

    def _page(self) -> Report:
        found = self._found
        sections = [self._setting_section(setting) for setting in found.methods]
        if found.worst:
            sections.append(Section("Worst cases", viewer=_worst_cases(found.worst)))
        for title, lines in (("Failures", found.failures), ("Left out", found.skipped)):
            if lines:
                table = Table(("",), tuple((line,) for line in lines), prose=(0,))
                sections.append(Section(title, tables=(table,), folded=title == "Left out"))
        tables = (
            ("Baselines: tuning", self._tuning(), 5, ()),
            ("Volumes", self._volumes(), 4, (5, 6, 7)),
            ("Slices", self._slices(), 3, (5, 6, 7)),
        )
        for heading, (columns, cells), numeric_from, charts in tables:
            if not cells:
                continue
            cut = f"The first {SHOWN_ROWS} of {len(cells)} rows." if len(cells) > SHOWN_ROWS else ""
            rows = [
                [_sortable(cell) if k in charts else cell for k, cell in enumerate(row)] for row in cells[:SHOWN_ROWS]
            ]
            prose = () if charts else (3, 4)
            table = Table(
                columns, rows, cut, numeric_from=numeric_from, prose=prose, interactive=bool(charts), charts=charts
            )
            sections.append(Section(heading, tables=(table,), folded=True))
        provenance = Table(("", ""), flat_rows(self._provenance), prose=(1,))
        sections.append(Section("Recipes, weights, versions", tables=(provenance,), folded=True))
        good = bool(self.rows) and not found.failures and not self.n_unconverged
        return Report(
            title="Evaluation",
            summary=self._summary(),
            level="good" if good else "check",
            notes=(self._compared, *self.notes),
            sections=sections,
        )

    def _setting_section(self, setting: Setting) -> Section:
        columns, cells = self.table(setting)
        n_patients = max((row.n_patients for row in self.rows if row.setting == setting), default=0)
        caption = (
            "Each dot is a slice. Boxes: quartiles; whiskers: the last value within 1.5 times their distance. "
            "Green: recipes, grey: baselines."
        )
        return Section(
            str(setting),
            text=(_intervals(n_patients),),
            tables=(Table(columns[1:], tuple(line[1:] for line in cells), numeric_from=1),),
            pictures=(Picture(f"box plots of {setting}", caption, svg=figures.to_svg(self._box_plot(setting))),),
        )

    def _summary(self) -> str:
        if not self.rows:
            return "Nothing could be evaluated."
        parts = [
            f"{row.setting}: {row.method} {with_interval(row.mean['psnr'], row.interval['psnr'], 2)} dB"
            for row in self.rows
            if row.method not in self._baselines
        ]
        text = "; ".join(parts[:6]) + ("; …" if len(parts) > 6 else "") + "."
        if self.n_unconverged:
            text += f" NOT CONVERGED: {plural(self.n_unconverged, 'slice')}."
        if self._found.failures:
            text += f" FAILED: {len(self._found.failures)}, listed below."
        return text


def with_interval(value: float, interval: Interval | None, digits: int, *, sign: bool = False) -> str:
    """``30.12 [29.50, 30.71]``; without brackets where there is no interval."""
    plus = "+" if sign else ""
    text = f"{value:{plus}.{digits}f}"
    return text if interval is None else f"{text} [{interval[0]:{plus}.{digits}f}, {interval[1]:{plus}.{digits}f}]"


def _csv_text(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return buffer.getvalue()


def _intervals(n_patients: int) -> str:
    if n_patients < 2:
        return "Means over volumes. One patient: there are no intervals. In brackets behind a baseline: its weight."
    few = " From so few patients the intervals are too narrow." if n_patients < 10 else ""
    return (
        f"Means over volumes, with 95 % intervals in brackets from resampling the {n_patients} patients. Differences are "
        f"taken within patients, so that their intervals are narrower than those of the means.{few} In brackets behind a "
        "baseline: its weight."
    )


def _sortable(cell: str) -> Cell:
    value = float(cell)
    return Cell(cell, value=value if math.isfinite(value) else None)


def _worst_cases(cases: Sequence[WorstCase]) -> Viewer:
    viewer = Viewer(panes_of(["reference", "reconstruction"]), item="bad case", first=0)
    for number, case in enumerate(cases):
        score = case.score
        label = (
            f"{score.file}, slice {score.slice_index}, {score.setting}: {score.method}, PSNR {score.psnr:.2f} dB, "
            f"SSIM {score.ssim:.4f}, NMSE {score.nmse:.5f}"
        )
        viewer.add(label, {"reference": case.reference, "reconstruction": case.image}, number=str(number))
    return viewer


def _finite(value: object) -> object:
    """The same with null for numbers that are not finite, which JSON does not have."""
    if isinstance(value, Mapping):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
