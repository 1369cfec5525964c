"""The report of a batch: whether all is well, and what to look at if not."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import fields

import numpy as np

from mrisps.io.result_file import ResultFile
from mrisps.reports import figures
from mrisps.reports.facts import LEVELS, Facts, flat_rows, number, plural, span, verdict_of
from mrisps.reports.figures import Panel
from mrisps.reports.flags import KINDS, Flag, RunFile, Thresholds, flags_of, inner, measured
from mrisps.reports.html import FOOTER, Picture, Report, Section, Table

__all__ = ["run_report"]

_MAX_ROWS = 500
_N_MONTAGE = 24
_N_CASES = 3
_ALARMS = {"unusable": "UNUSABLE", "to be checked": "to be checked", "not converged": "NOT CONVERGED"}


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
        f"Reconstructed: {plural(len(files), 'file')} with {plural(n_slices, 'slice')}"
        + (f", {len(failures)} failed" if failures else ", none failed"),
        *(f"{name}: {plural(counts[kind], 'slice')}" for kind, name in _ALARMS.items() if counts[kind]),
        *([] if counts["not converged"] else ["all slices converged"]),
        plural(n_flagged, "slice is flagged", "slices are flagged") if n_flagged else "no slice is flagged",
    ]
    shown = [file for file in files if file.output.is_file() and file.certificates]
    return Report(
        title=f"Batch with the recipe {recipe_name}",
        summary="; ".join(words) + ".",
        outcome="bad" if flags or failures or not files else "good",
        sections=(
            *_failure_section(failures),
            _flag_section(files, flags, thresholds),
            *_image_sections(files, shown, flags),
            _numbers_section(files),
            _files_section(files, flags),
            *_provenance_sections(files),
        ),
        footer=FOOTER,
    )


def _failure_section(failures: Sequence[tuple[str, str]]) -> tuple[Section, ...]:
    if not failures:
        return ()
    table = Table(("file", "why"), tuple(failures[:_MAX_ROWS]), caption=_more(len(failures)))
    return (Section("Failed", tables=(table,)),)


def _flag_section(files: Sequence[RunFile], flags: Sequence[Flag], thresholds: Thresholds) -> Section:
    counts = Counter(flag.kind for flag in flags)
    limits = flat_rows({field.name: getattr(thresholds, field.name) for field in fields(thresholds)})
    rows = tuple(
        (flag.kind, files[flag.file].name, str(files[flag.file].slice_number(flag.position)), flag.value, flag.limit)
        for flag in flags[:_MAX_ROWS]
    )
    return Section(
        "Flags",
        tables=(
            Table(("flag", "slices"), tuple((kind, str(counts[kind])) for kind in KINDS), numeric_from=1),
            *([Table(("flag", "file", "slice", "value", "expected"), rows, caption=_more(len(flags)))] if rows else []),
            Table(("threshold", "value"), tuple((row[0], row[1]) for row in limits)),
        ),
    )


def _image_sections(files: Sequence[RunFile], shown: Sequence[RunFile], flags: Sequence[Flag]) -> tuple[Section, ...]:
    if not shown:
        return ()
    step = max(1, math.ceil(len(shown) / _N_MONTAGE))
    chosen = list(shown[::step])
    panels = [_panel(file, len(file.certificates) // 2, f"{index + 1}") for index, file in enumerate(chosen)]
    montage = Picture(
        figures.to_png(figures.image_grid(panels, 6, 1.9)),
        "one slice of each file",
        "The middle slice"
        + (f" of one file in {step}" if step > 1 else " of each file")
        + ", each with its own grey scale: "
        + "; ".join(f"{index + 1} {file.name}" for index, file in enumerate(chosen)),
    )
    ranked = _ranked(files, flags)
    middle = max(0, len(ranked) // 2 - _N_CASES // 2)
    sections = [Section("Montage", pictures=(montage,))]
    for title, cases, text in (
        (
            "Worst cases",
            ranked[:_N_CASES],
            "Slices with most flags, then those whose cost is furthest from the median.",
        ),
        ("Median cases", ranked[middle : middle + _N_CASES], "Slices in the middle of the same order."),
    ):
        pairs: list[Panel] = []
        names = []
        for index, (file, position) in enumerate(cases):
            pairs += [
                _panel(file, position, f"{index + 1}: image"),
                _panel(file, position, f"{index + 1}: cost map", "cost_map"),
            ]
            names.append(f"{index + 1} {file.name}, slice {file.slice_number(position)}")
        drawn = figures.to_png(figures.image_grid(pairs, 2 * _N_CASES, 2.2))
        caption = (
            "; ".join(names)
            + ". Cost map: where the prior is surprised, dimensionless, each with its own colour scale."
        )
        sections.append(Section(title, text=(text,), pictures=(Picture(drawn, title.lower(), caption),)))
    return tuple(sections)


def _ranked(files: Sequence[RunFile], flags: Sequence[Flag]) -> list[tuple[RunFile, int]]:
    """All slices, the most suspicious first."""
    counts = Counter((flag.file, flag.position) for flag in flags)
    entries = []
    for index, file in enumerate(files):
        if file.output.is_file():
            for position, certificate in enumerate(file.certificates):
                cost = measured(inner(certificate, "image"), "cost_mean") or 0.0
                entries.append((counts[index, position], math.log(max(cost, 1e-30)), file, position))
    middle = float(np.median([entry[1] for entry in entries])) if entries else 0.0
    entries.sort(key=lambda entry: (-entry[0], -abs(entry[1] - middle)))
    return [(entry[2], entry[3]) for entry in entries]


def _panel(file: RunFile, position: int, title: str, name: str = "reconstruction") -> Panel:
    with ResultFile(file.output) as reader:
        image = np.asarray(reader.read(name, position), dtype=np.float32)
    return Panel(title, image, (0.0, figures.grey_limit(image)), "viridis" if name == "cost_map" else "gray")


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
    return Section("Certificates and timing", text=(text,), tables=(Table(columns, tuple(rows), numeric_from=1),))


def _files_section(files: Sequence[RunFile], flags: Sequence[Flag]) -> Section:
    counts = Counter(flag.file for flag in flags)
    order = sorted(range(len(files)), key=lambda index: -counts[index])  # stable: by name where equal
    rows = []
    for index in order[:_MAX_ROWS]:
        file = files[index]
        certificates = file.certificates
        n_converged = sum(certificate.get("status") == "converged" for certificate in certificates)
        levels = [verdict_of(certificate)[0] for certificate in certificates]
        mask = inner(certificates[0], "mask") if certificates else {}
        scales = [scale for certificate in certificates if (scale := measured(certificate, "scale")) is not None]
        rows.append(
            (
                file.name,
                max(levels, key=lambda level: LEVELS.index(level) if level in LEVELS else 0, default="") or "–",
                str(counts[index]),
                f"{n_converged}/{len(certificates)}",
                f"{file.seconds:.1f}",
                _median(certificates, "misfit_ratio"),
                span(scales),
                str(mask.get("kind", "–")),
                number(mask.get("nominal_acceleration"), 3),
                number(mask.get("realised_acceleration"), 3),
                number(mask.get("acs_lines")),
                str(mask.get("sha256", "–"))[:12],
                str(inner(file.provenance, "input").get("sha256", "–"))[:12],
            )
        )
    columns = (
        *("file", "verdict", "flags", "converged", "seconds", "misfit over noise", "scale", "mask"),
        *("R nominal", "R realised", "centre lines", "mask SHA-256", "input SHA-256"),
    )
    return Section("Files", tables=(Table(columns, tuple(rows), caption=_more(len(files))),))


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
        Section("Versions, machine, weights", text=text, tables=(Table(("", ""), table),)),
        Section(f"Recipe of {files[-1].name}", tables=(Table(("", ""), recipe),), folded=True),
    )


def _median(certificates: Sequence[Facts], key: str) -> str:
    values = [value for certificate in certificates if (value := measured(certificate, key)) is not None]
    return number(float(np.median(values)), 3) if values else "–"


def _more(n: int) -> str:
    return f"The first {_MAX_ROWS} of {n}." if n > _MAX_ROWS else ""
