"""The report of a batch: whether all is well, and what to look at if not."""

import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import fields
from pathlib import PurePosixPath
from urllib.parse import quote

import numpy as np

from mrisps.io.result_file import ResultFile
from mrisps.reports.facts import LEVELS, Facts, flat_rows, inner, measured, number, plural, verdict_of
from mrisps.reports.figures import limits_of
from mrisps.reports.flags import KINDS, Flag, RunFile, Thresholds, flags_of
from mrisps.reports.html import Cell, Report, Section, Table
from mrisps.status import finished

__all__ = ["run_report"]

_THUMBNAIL = 160
"""Pixels along the longer side."""
_ALARMS = {"unusable": "UNUSABLE", "to be checked": "to be checked", "not converged": "NOT CONVERGED"}
_COLUMNS = {
    "misfit over noise": ("", "misfit_ratio"),
    "cost": ("image", "cost_mean"),
    "edge energy": ("image", "edge_energy"),
    "peak over noise": ("image", "peak_over_noise"),
}
"""Column -> where it stands in a certificate; of the slices of a file the median."""


def run_report(
    files: Sequence[RunFile], failures: Sequence[tuple[str, str]], recipe_name: str, thresholds: Thresholds
) -> Report:
    """The page of a run.

    Parameters
    ----------
    files
        What has been reconstructed.
    failures
        (name, why) of what has not.
    recipe_name
        For the title.
    thresholds
        For the flags.

    Raises
    ------
    FileError
        An output that is shown cannot be read.
    """
    flags = flags_of(files, thresholds)
    n_slices = sum(len(file.certificates) for file in files)
    counts = Counter(flag.kind for flag in flags)
    n_flagged = len({(flag.file, flag.position) for flag in flags})
    words = [
        f"{plural(len(files), 'file')} with {plural(n_slices, 'slice')}",
        f"{len(failures)} failed" if failures else "none failed",
        *(f"{name}: {plural(counts[kind], 'slice')}" for kind, name in _ALARMS.items() if counts[kind]),
        *([] if counts["not converged"] else ["all slices finished"]),
        plural(n_flagged, "slice is flagged", "slices are flagged") if n_flagged else "no slice is flagged",
    ]
    limits = tuple(
        (name, value) for name, value in flat_rows({f.name: getattr(thresholds, f.name) for f in fields(thresholds)})
    )
    kinds = Table(("flag", "slices"), tuple((kind, str(counts[kind])) for kind in KINDS), numeric_from=1)
    return Report(
        title=f"Batch with the recipe {recipe_name}",
        summary="; ".join(words) + ".",
        level="unusable" if failures or counts["unusable"] or not files else "check" if flags else "good",
        sections=(
            Section("", tables=(_files_table(files, failures, flags),)),
            Section("Flags", tables=(kinds, Table(("threshold", "value"), limits)), folded=True),
            _numbers_section(files),
            *_provenance_sections(files),
        ),
    )


def _files_table(files: Sequence[RunFile], failures: Sequence[tuple[str, str]], flags: Sequence[Flag]) -> Table:
    """A row for each file, the most suspicious first."""
    of_file: dict[int, list[Flag]] = {}
    for flag in flags:
        of_file.setdefault(flag.file, []).append(flag)
    rows: list[tuple[str, int, list[str | Cell]]] = []
    empty: list[str | Cell] = ["–"] * (len(_COLUMNS) + 3)
    for name, why in failures:
        rows.append(("failed", 0, ["", name, Cell("failed", level="unusable"), why, *empty]))
    for index, file in enumerate(files):
        certificates = file.certificates
        levels = [verdict_of(certificate)[0] for certificate in certificates]
        level = max(levels, key=lambda each: LEVELS.index(each) if each in LEVELS else 0, default="")
        found = of_file.get(index, [])
        if found and level in ("", "good"):
            level = "check"
        where: dict[str, list[str]] = {}  # reason -> numbers of slices
        judged = {flag.position for flag in found if flag.kind in ("unusable", "to be checked")}
        for flag in found:
            if flag.kind == "not converged" and flag.position in judged:
                continue  # the verdict says so
            in_words = flag.kind in ("unusable", "to be checked", "not converged")
            words = flag.value if in_words else f"{flag.kind}: {flag.value}, expected {flag.limit}"
            where.setdefault(words, []).append(str(file.slice_number(flag.position)))
        of = "" if len(certificates) == 1 else " (slice {})"
        reasons = [
            words + of.format(", ".join(numbers[:5]) + (" …" if len(numbers) > 5 else ""))
            for words, numbers in where.items()
        ]
        n_finished = sum(finished(certificate.get("status")) for certificate in certificates)
        medians = [
            _median([inner(c, part) if part else c for c in certificates], key) for part, key in _COLUMNS.values()
        ]
        acceleration = _median([inner(c, "mask") for c in certificates], "realised_acceleration")
        cells: list[str | Cell] = [
            _thumbnail(file),
            _link(file, found),
            Cell(level or "no verdict", level=level),
            "; ".join(reasons),
            *medians,
            Cell(f"{file.seconds:.1f}", value=file.seconds),
            f"{n_finished}/{len(certificates)}",
            acceleration,
        ]
        rows.append((level or "no verdict", len(found), cells))
    order = ["failed", "unusable", "check"]
    rows.sort(key=lambda row: (order.index(row[0]) if row[0] in order else len(order), -row[1]))
    columns = ("", "file", "verdict", "reasons", *_COLUMNS, "seconds", "finished", "R")
    return Table(
        columns,
        [row[2] for row in rows],
        caption="Numbers are medians over the slices of a file; seconds are those of the worker. R: realised acceleration.",
        numeric_from=4,
        prose=(3,),
        interactive=True,
        charts=tuple(range(4, 5 + len(_COLUMNS))),
        levels=[row[0] for row in rows],
    )


def _thumbnail(file: RunFile) -> str | Cell:
    """The middle slice, small; nothing where there is no output."""
    from PIL import Image

    if not file.output.is_file():
        return ""
    with ResultFile(file.output) as reader:
        image = np.nan_to_num(np.abs(reader.read(index=reader.n_slices // 2, finite=False)), posinf=0.0)
    shades = (255 * (image / limits_of(image)[1]).clip(0, 1)).astype(np.uint8)
    picture = Image.fromarray(shades)
    picture.thumbnail((_THUMBNAIL, _THUMBNAIL))
    buffer = io.BytesIO()
    picture.save(buffer, "webp", quality=70)
    return Cell("middle slice", webp=buffer.getvalue())


def _link(file: RunFile, flags: Sequence[Flag]) -> str | Cell:
    """The name, leading to the page beside the output, where there is one: at the first slice that is flagged."""
    if not file.output.with_suffix(".html").is_file():
        return file.name
    place = f"#slice={file.slice_number(flags[0].position)}" if flags else ""
    return Cell(file.name, href="./" + quote(str(PurePosixPath(file.name).with_suffix(".html"))) + place)


def _median(parts: Sequence[Facts], key: str) -> str | Cell:
    values = [value for part in parts if (value := measured(part, key)) is not None]
    if not values:
        return "–"
    middle = float(np.median(values))
    return Cell(number(middle, 3), value=middle)


def _numbers_section(files: Sequence[RunFile]) -> Section:
    """Smallest, median and largest of everything measured, over all slices."""
    quantities = (
        ("iterations", "", "n_iterations"),
        ("stationarity in a", "", "residual_a"),
        ("misfit over noise", "", "misfit_ratio"),
        ("cost, mean of the map", "image", "cost_mean"),
        ("edge energy", "image", "edge_energy"),
        ("peak over noise", "image", "peak_over_noise"),
        ("scale, input units", "", "scale"),
        ("acceleration, realised", "mask", "realised_acceleration"),
        ("solver seconds a slice", "", "seconds"),
    )
    rows = []
    for title, part, key in quantities:
        values = [
            value
            for file in files
            for certificate in file.certificates
            if (value := measured(inner(certificate, part) if part else certificate, key)) is not None
        ]
        spread = [number(float(np.quantile(values, q)), 3) for q in (0, 0.05, 0.5, 0.95, 1)] if values else ["–"] * 5
        rows.append((title, *spread, str(len(values))))
    solver = sum(measured(certificate, "seconds") or 0.0 for file in files for certificate in file.certificates)
    total = sum(file.seconds for file in files)
    memory = max((file.memory_bytes for file in files), default=0)
    text = (
        f"Time in workers {total:.1f} s, of which the solver took {solver:.1f} s. "
        f"The largest worker had {memory / (1 << 20):.0f} MiB of memory."
    )
    columns = ("of all slices", "smallest", "5 %", "median", "95 %", "largest", "slices")
    return Section(
        "Numbers and timing", text=(text,), tables=(Table(columns, tuple(rows), numeric_from=1),), folded=True
    )


def _provenance_sections(files: Sequence[RunFile]) -> tuple[Section, ...]:
    """Everything that the outputs depend on; where it is not the same in all of them, that is said first."""
    if not files:
        return ()
    parts = ("software", "machine", "weights")
    seen: dict[str, Counter[str]] = {}
    for file in files:
        rows = [row for part in parts for row in flat_rows({part: dict(inner(file.provenance, part))})]
        rows.append(("recipe.sha256", str(inner(file.provenance, "recipe").get("sha256", "–"))))
        for key, value in rows:
            seen.setdefault(key, Counter())[value] += 1
    table = tuple(
        (
            key,
            "; ".join(
                f"{value} ({plural(n, 'file')})" if len(values) > 1 else value for value, n in values.most_common(5)
            ),
        )
        for key, values in sorted(seen.items())
    )
    mixed = [key for key, values in seen.items() if len(values) > 1]
    text = (f"NOT THE SAME IN ALL FILES: {', '.join(mixed)}.",) if mixed else ("The same in all files.",)
    recipe = tuple((row[0], row[1]) for row in flat_rows(dict(inner(files[-1].provenance, "recipe"))))
    return (
        Section(
            "Versions, machine, weights", text=text, tables=(Table(("", ""), table, prose=(1,)),), folded=not mixed
        ),
        Section(f"Recipe of {files[-1].name}", tables=(Table(("", ""), recipe, prose=(1,)),), folded=True),
    )
