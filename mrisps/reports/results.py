"""The pages of result files: one file with all its images, or several files side by side.

What a file lacks, being old or of another program, is left out or said on the page; nothing here relies on it.
"""

import contextlib
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mrisps.atomic import write_text
from mrisps.errors import FileError
from mrisps.io.result_file import ResultFile
from mrisps.reports import figures
from mrisps.reports.facts import (
    LEVELS,
    Facts,
    certificate_rows,
    energy_trace,
    flat_rows,
    inner,
    mask_rows,
    number,
    plural,
    status_words,
)
from mrisps.reports.html import Cell, Picture, Report, Section, Table, render
from mrisps.reports.result_images import Quality, ResultImages
from mrisps.reports.viewer import FINE_LEVELS, Pane, Viewer, panes_of
from mrisps.status import finished, in_words

__all__ = ["write_comparison", "write_pages"]

_PAGE_BYTES = 40e6
"""About as large a page may become: more slices go to further pages."""
_BYTES_PER_PIXEL = 1.45
"""Of all panes, measured: see docs/lab/reports.md."""
_WORDS = {
    "good": "nothing speaks against the image",
    "check": "look before you use it",
    "unusable": "the image is wrong",
}


def write_pages(result: Path, page: Path, *, reference: Path | None = None) -> tuple[Path, ...]:
    """Write the page of a result file; a volume too large for one gets further pages beside it, NAME_2.html and so on.

    Parameters
    ----------
    result
        The file.
    page
        Where the first page goes.
    reference
        A file with reference images, fastMRI's or a result; by default those that the result holds.

    Returns
    -------
    tuple of Path
        The pages.

    Raises
    ------
    FileError
        The result or the reference cannot be read or do not fit, or a page cannot be written.
    """
    with ResultFile(result) as file:
        source = ResultImages(file, reference)
        panes = panes_of(source.names)
        n_stored = sum(pane.of is None for pane in panes)
        n_slices = max(1, int(_PAGE_BYTES / (n_stored * math.prod(file.shape) * _BYTES_PER_PIXEL)))
        parts = [range(start, min(start + n_slices, file.n_slices)) for start in range(0, file.n_slices, n_slices)]
        pages = [page if k == 0 else page.with_name(f"{page.stem}_{k + 1}{page.suffix}") for k in range(len(parts))]
        links = [
            (each.name, f"slices {source.number(part[0])} to {source.number(part[-1])}")
            for each, part in zip(pages, parts, strict=True)
        ]
        peak, scores, total = source.quality()
        for k, (path, part) in enumerate(zip(pages, parts, strict=True)):
            pair = next(((a, "reconstruction") for a in ("reference", "zero_filled") if a in source.names), None)
            viewer = Viewer(panes, pair=pair, pages=links, page=k)
            for position in part:
                name, (level, reasons) = source.number(position), source.verdicts[position]
                viewer.add(f"slice {name}", source.images(position), number=name, level=level, reasons=reasons)
            write_text(path, render(_report(source, viewer, part, peak, scores, total)))
    return tuple(pages)


def _report(
    source: ResultImages,
    viewer: Viewer,
    part: range,
    peak: float,
    scores: Sequence[Quality | None],
    total: Quality | None,
) -> Report:
    certificates = source.certificates
    verdicts = source.verdicts
    gravest = max(range(len(verdicts)), key=lambda k: LEVELS.index(verdicts[k][0]) if verdicts[k][0] in LEVELS else 0)
    level, reasons = verdicts[gravest]
    n_alike = sum(each[0] == level for each in verdicts)
    shown = certificates[gravest]
    mask = inner(shown, "mask")
    summary = [
        _WORDS.get(level, level)
        + ("" if len(verdicts) == 1 or level == "good" else f" ({n_alike} of {len(verdicts)} slices)")
        + (f", because {'; '.join(reasons)}" if reasons else ""),
        *([_converged(certificates)] if any(certificates) else []),
        *([_sampling(mask)] if mask else []),
    ]
    notes = [note for each in certificates for note in _texts(each.get("notes"))]
    trace = energy_trace(shown)
    curve = (
        [Picture("energy against iteration", svg=figures.to_svg(figures.energy_figure(trace)))]
        if len(trace) > 2
        else []
    )
    which = f" of slice {source.number(gravest)}, the gravest" if len(verdicts) > 1 else ""
    folded: tuple[tuple[str, list[Picture], Table], ...] = (
        ("Slices", [], Table(*_slices(source, viewer, part, scores), numeric_from=3)),
        (f"Certificate{which}", curve, Table(("", "", "meaning"), certificate_rows(shown), prose=(2,))),
        (f"Sampling{which}", _mask(source, gravest), Table(("", ""), mask_rows(mask))),
        (f"Scale and place{which}", [], Table(("", "", "meaning"), _scale_rows(source, gravest), prose=(2,))),
        ("Provenance", [], Table(("", ""), flat_rows(source.provenance), prose=(1,))),
    )
    return Report(
        title=f"Reconstruction of {inner(source.provenance, 'input').get('name', source.name)}",
        headline=f"{level.upper()}:",
        summary=". ".join(summary) + ".",
        level=level,
        tiles=[*total.tiles, ("data range, the maximum of the reference", number(peak))] if total else (),
        notes=tuple(dict.fromkeys((*source.notes, *notes))),
        sections=[
            Section("", viewer=viewer),
            *(
                Section(title, pictures=pictures, tables=[table], folded=True)
                for title, pictures, table in folded
                if table.rows or pictures
            ),
        ],
    )


def _gravity(level: str) -> int:
    return LEVELS.index(level) if level in LEVELS else 0


def _texts(value: object) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list | tuple) else []


def _converged(certificates: Sequence[Facts]) -> str:
    statuses = [c.get("status") for c in certificates]
    n, n_slices = sum(map(finished, statuses)), len(certificates)
    if n == n_slices:
        done = in_words(statuses)
        return f"The slice {done}" if n == 1 else f"All {n_slices} slices {done}"
    if n_slices == 1:
        return "The slice did NOT CONVERGE"
    return f"NOT CONVERGED: {n_slices - n} of {n_slices} slices"


def _sampling(mask: Facts) -> str:
    acceleration = mask.get("realised_acceleration")
    if acceleration == 1:
        return "k-space is fully sampled: the reconstruction only denoises it"
    lines = mask.get("acs_lines")
    return f"Acceleration {number(acceleration, 3)}" + (f", {lines} lines in the centre" if lines else "")


def _slices(
    source: ResultImages, viewer: Viewer, part: range, scores: Sequence[Quality | None]
) -> tuple[tuple[str, ...], list[list[str | Cell]]]:
    columns = ("slice", "verdict", "status", "iterations", "stationarity in a", "misfit over noise", "seconds")
    rows: list[list[str | Cell]] = []
    n_a_page = len(part) if viewer.page == 0 else part.start // viewer.page
    for k in range(len(source.verdicts)):
        if k not in part and source.verdicts[k][0] == "good":
            continue  # of other pages only what is to be looked at
        certificate, (level, _) = source.certificates[k], source.verdicts[k]
        score = scores[k] if scores else None
        rows.append(
            [
                Cell(
                    source.number(k),
                    href=f"{'' if k in part else viewer.pages[k // n_a_page][0]}#slice={source.number(k)}",
                ),
                Cell(level, level=level),
                status_words(certificate) if certificate else "–",
                number(certificate.get("n_iterations")),
                number(certificate.get("residual_a"), 2),
                number(certificate.get("misfit_ratio"), 3),
                number(certificate.get("seconds"), 3),
                *((value for _, value in score.tiles) if score else ("–",) * 3 * bool(scores)),
            ]
        )
    return (*columns, *(("PSNR", "SSIM", "NMSE") if scores else ())), rows


def _mask(source: ResultImages, position: int) -> list[Picture]:
    if not source.has_mask:
        return []
    mask = source.file.read("mask", position).astype(np.bool_)
    drawn = figures.mask_figure(mask, f"{mask.mean():.1%} of the samples were acquired (white)")
    return [Picture("the sampling mask", png=figures.to_png(drawn))]


def _scale_rows(source: ResultImages, position: int) -> list[tuple[str, str, str]]:
    certificate = source.certificates[position]
    rows = [
        (title, number(certificate[key], 5), meaning)
        for key, title, meaning in (
            ("scale", "scale", "input units per unit of the scaled image, whose maximum is about 1"),
            (
                "noise_std",
                "noise",
                "standard deviation of the noise in the real and in the imaginary part of each scaled sample",
            ),
            ("beta", "beta", "weight of the smooth part"),
            ("lam", "lam", "weight of the sparse part"),
        )
        if certificate.get(key) is not None
    ]
    try:
        geometry = source.file.geometries[position]
    except FileError as error:
        return [*rows, ("place", "unknown", error.message)]
    if geometry is not None:
        (along_y, along_x, through), (n_y, n_x) = geometry.field_of_view_mm, source.file.shape
        rows.append(
            ("pixel", f"{along_y / n_y:.3g} x {along_x / n_x:.3g} mm", f"y by x; the slice is {through:.3g} mm thick")
        )
        place = ", ".join(f"{each:.1f}" for each in geometry.position_mm)
        rows.append(("centre", f"{place} mm", "of the slice, towards the left, the back and the head of the patient"))
    return rows


def write_comparison(results: Sequence[Path], page: Path, *, reference: Path | None = None) -> Path:
    """Write one page with the reconstructions of several result files side by side, and how they differ from the first.

    Parameters
    ----------
    results
        Two or more files with the same slices.
    page, reference
        As for :func:`write_pages`.

    Raises
    ------
    ValueError
        There are fewer than two, or they differ in slices or size.
    FileError
        As for :func:`write_pages`.
    """
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(ResultFile(path)) for path in results]
        shapes = {(file.n_slices, *file.shape) for file in files}
        if len(files) < 2 or len(shapes) > 1:
            raise ValueError(
                f"results: expected two or more of the same slices and size, got (slice, y, x) = {sorted(shapes)}"
            )
        if reference is None:  # what one of them holds is for all
            reference = next((file.path for file in files if "reference" in file.layout()), None)
        sources = [ResultImages(file, reference) for file in files]
        names = _names(results)
        keys = [f"result {k + 1}" for k in range(len(names))]
        panes = [
            Pane(key, name, f"{name}: reconstruction", "image", levels=FINE_LEVELS, shown=True)
            for key, name in zip(keys, names, strict=True)
        ]
        panes += [
            Pane(
                f"{key} - {keys[0]}",
                f"{name} − {names[0]}",
                "difference",
                "difference",
                "signed",
                shown=True,
                of=(key, keys[0]),
            )
            for key, name in zip(keys[1:], names[1:], strict=True)
        ]
        rows, peak = [], 0.0
        for name, source in zip(names, sources, strict=True):
            peak, _, total = source.quality()
            level = max((each[0] for each in source.verdicts), key=_gravity)
            rows.append([name, Cell(level, level=level), *((v for _, v in total.tiles) if total else ("–",) * 3)])
        if any("reference" in source.names for source in sources):
            panes.insert(
                0, Pane("reference", "reference", "The reference image", "image", levels=FINE_LEVELS, shown=True)
            )
            panes += [
                Pane(
                    f"error {key}", f"error of {name}", f"|{name} − reference|", "error", "error", of=(key, "reference")
                )
                for key, name in zip(keys, names, strict=True)
            ]
        viewer = Viewer(panes, pair=(keys[0], keys[1]))
        for k in range(sources[0].file.n_slices):
            images = {key: source.read("reconstruction", k) for key, source in zip(keys, sources, strict=True)}
            given = next((source for source in sources if "reference" in source.names), None)
            if given is not None:
                images["reference"] = given.read("reference", k)
            viewer.add(f"slice {sources[0].number(k)}", images, number=sources[0].number(k))
        caption = f"In fastMRI's definitions; data range {number(peak)}, the maximum of the reference." if peak else ""
        levels = [str(row[1].text) for row in rows if isinstance(row[1], Cell)]
        report = Report(
            title=f"Comparison of {plural(len(names), 'result')}",
            summary=f"{' and '.join(names)}: {plural(sources[0].file.n_slices, 'slice')}.",
            level=max(levels, key=_gravity),
            notes=tuple(
                dict.fromkeys(f"{name}: {note}" for name, s in zip(names, sources, strict=True) for note in s.notes)
            ),
            sections=[
                Section(
                    "",
                    viewer=viewer,
                    tables=[Table(("result", "verdict", "PSNR", "SSIM", "NMSE"), rows, caption, numeric_from=2)],
                ),
                *(
                    Section(
                        f"Provenance of {name}",
                        tables=[Table(("", ""), flat_rows(s.provenance), prose=(1,))],
                        folded=True,
                    )
                    for name, s in zip(names, sources, strict=True)
                ),
            ],
        )
        write_text(page, render(report))
    return page


def _names(paths: Sequence[Path]) -> list[str]:
    """The shortest names that tell files apart."""
    for names in ([path.stem for path in paths], [f"{path.parent.name}/{path.stem}" for path in paths]):
        if len({*names}) == len(names):
            return names
    return [str(path) for path in paths]
