"""The page of one training, or of several side by side: curves, what they came to, and the atoms."""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from mrisps.atomic import write_text
from mrisps.errors import FileError, MrispsError
from mrisps.model import SmoothPlusSparse
from mrisps.reports import figures
from mrisps.reports.atoms import atoms_figure
from mrisps.reports.facts import Row, number
from mrisps.reports.html import Picture, Report, Section, Table, render

__all__ = ["write_training"]

_CURVES = (
    ("psnr", "PSNR of the batch (dB)", False),
    ("validation_psnr", "PSNR of the validation images (dB)", False),
    ("loss", "loss of the batch", True),
    ("residual", "residual of the solver", True),
    ("adjoint_residual", "residual of the adjoint system", True),
    ("seconds", "seconds a step", False),
)
"""Columns of a log: what they are, and whether their axis is logarithmic."""
_MAX_BYTES = 1 << 28

Log = Mapping[str, list[tuple[float, float]]]


def write_training(logs: Sequence[Path], page: Path) -> Path:
    """Write a page from the logs of trainings, NAME.csv, and the weights beside them, NAME.safetensors, where they are there.

    Raises
    ------
    FileError
        A log cannot be read or is none, or the page cannot be written.
    """
    runs = {(path.stem if len({p.stem for p in logs}) == len(logs) else str(path)): _read(path) for path in logs}
    curves = []
    for key, title, logarithmic in _CURVES:
        shown = {name: _thinned(run[key]) for name, run in runs.items()}
        if any(len(points) > 1 for points in shown.values()):
            drawn = figures.curves_figure(shown, "step", title, logarithmic=logarithmic)
            curves.append(Picture(f"{title} against the step", svg=figures.to_svg(drawn)))
    rows = [_row(name, run) for name, run in runs.items()]
    columns = (
        "training",
        "steps",
        "best validation PSNR",
        "at step",
        "last batch PSNR",
        "last loss",
        "steps skipped",
        "hours",
    )
    return _write(page, runs, logs, Section("", tables=[Table(columns, rows, numeric_from=1)]), curves)


def _write(
    page: Path, runs: Mapping[str, Log], logs: Sequence[Path], table: Section, curves: Sequence[Picture]
) -> Path:
    atoms, notes = [], []
    for name, path in zip(runs, logs, strict=True):
        weights = path.with_suffix(".safetensors")
        if not weights.is_file():
            continue
        try:
            drawn = figures.to_png(atoms_figure(SmoothPlusSparse.load(weights)))
        except MrispsError as error:
            notes.append(str(error))
            continue
        atoms.append(Picture(f"atoms of {name}", f"{name}: each atom on a scale of its own, grey is 0.", png=drawn))
    skipped = sum(point[1] for run in runs.values() for point in run["skipped"])
    report = Report(
        title="Training of " + " and ".join(runs),
        summary="; ".join(f"{name}: {_outcome(run)}" for name, run in runs.items()) + ".",
        level="check" if skipped or notes else "good",
        notes=notes,
        sections=[table, Section("Curves", pictures=curves), *([Section("Atoms", pictures=atoms)] if atoms else [])],
    )
    write_text(page, render(report))
    return page


def _read(path: Path) -> Log:
    """Column -> (step, value) of the lines that have one."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise FileError(path, f"is larger than {_MAX_BYTES} bytes")
        with path.open(encoding="utf-8", newline="") as stream:
            lines = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FileError(path, f"cannot be read as a log of a training: {error}") from error
    keys = ("skipped", *(key for key, *_ in _CURVES))
    missing = [key for key in ("step", *keys) if not lines or key not in lines[0]]
    if missing:
        raise FileError(path, f"is no log of a training: there is no column {missing[0]}")
    found: dict[str, list[tuple[float, float]]] = {key: [] for key in keys}
    for number_of_line, line in enumerate(lines, start=2):
        try:
            for key in keys:
                if line[key]:
                    found[key].append((float(line["step"]), float(line[key])))
        except (TypeError, ValueError) as error:
            raise FileError(path, f"line {number_of_line}: {error}", field=key) from error
    return found


def _thinned(points: Sequence[tuple[float, float]], most: int = 600) -> list[tuple[float, float]]:
    """Means of neighbours where there are more points than a plot can show."""
    n = max(1, math.ceil(len(points) / most))
    groups = [points[k : k + n] for k in range(0, len(points), n)]
    return [(group[-1][0], sum(value for _, value in group) / len(group)) for group in groups]


def _row(name: str, run: Log) -> Row:
    best = max(run["validation_psnr"], key=lambda point: point[1], default=None)
    last = {key: number(run[key][-1][1]) if run[key] else "–" for key in ("psnr", "loss")}
    return (
        name,
        number(int(run["loss"][-1][0])) if run["loss"] else "0",
        "–" if best is None else f"{best[1]:.2f} dB",
        "–" if best is None else str(int(best[0])),
        f"{last['psnr']} dB",
        last["loss"],
        str(int(sum(value for _, value in run["skipped"]))),
        f"{sum(value for _, value in run['seconds']) / 3600:.2f}",
    )


def _outcome(run: Log) -> str:
    _, steps, best, at, *_ = _row("", run)
    return f"{steps} steps" + ("" if best == "–" else f", best on the validation images {best} at step {at}")
