"""The report of one reconstructed file."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mrisps.reports import figures
from mrisps.reports.facts import (
    LEVELS,
    Facts,
    certificate_rows,
    energy_trace,
    flat_rows,
    mask_rows,
    number,
    status_words,
    verdict_of,
)
from mrisps.reports.figures import Panel, magnitude_or_signed
from mrisps.reports.html import FOOTER, Picture, Report, Section, Table

__all__ = ["ReconstructionContent", "reconstruction_report"]


@dataclass(frozen=True, eq=False)
class ReconstructionContent:
    """What is shown of one file.

    Parameters
    ----------
    name
        Of the input file.
    slice_name
        Which slice the images are of, for example ``"slice 12 of 0 to 29"``.
    image, smooth, sparse, cost_map
        (y, x) of that slice, real or complex, in the units of the input.
    zero_filled
        (y, x) magnitude, or None.
    target
        (y, x) reference image of the file, or None.
    mask
        (y, x), true where acquired, or None.
    certificates
        One for each slice, in order.
    certificate
        That of the slice that is shown.
    slices
        Numbers of the slices in the input file.
    provenance
        What the result depends on.
    notes
        What a reader should know.
    """

    name: str
    slice_name: str
    image: NDArray[np.generic]
    smooth: NDArray[np.generic]
    sparse: NDArray[np.generic]
    cost_map: NDArray[np.generic]
    zero_filled: NDArray[np.float32] | None
    target: NDArray[np.float32] | None
    mask: NDArray[np.bool_] | None
    certificates: Sequence[Facts]
    certificate: Facts
    slices: Sequence[int]
    provenance: Facts
    notes: Sequence[str] = ()


def reconstruction_report(content: ReconstructionContent) -> Report:
    """The page of one file."""
    n_converged = sum(certificate.get("status") == "converged" for certificate in content.certificates)
    n_slices = len(content.certificates)
    if n_converged == n_slices:
        summary = "The slice converged." if n_slices == 1 else f"All {n_slices} slices converged."
    else:
        summary = f"NOT CONVERGED: {n_slices - n_converged} of {n_slices} slices. Look at them before you rely on them."
    verdicts = [verdict_of(certificate) for certificate in content.certificates]
    level, reasons = max(verdicts, key=lambda verdict: LEVELS.index(verdict[0]) if verdict[0] in LEVELS else 0)
    if level:
        summary = f"Verdict: {level.upper()}. {summary}"
    mask = content.certificate.get("mask")
    facts = mask if isinstance(mask, dict) else {}
    if facts:
        realised = facts.get("realised_acceleration")
        summary += (
            " k-space is fully sampled: the reconstruction only denoises it."
            if realised == 1
            else f" Acceleration {number(realised, 3)}, {number(facts.get('acs_lines'))} lines in the centre."
        )
    picture, masks = _images(content)
    trace = energy_trace(content.certificate)
    curve = (
        (Picture(figures.to_png(figures.energy_figure(trace)), "energy against iteration", "The energy E(x, a)."),)
        if len(trace) > 1
        else ()
    )
    tables = [
        Table(
            ("slice", "verdict", "status", "iterations", "stationarity in a", "misfit over noise", "scale", "seconds"),
            tuple(
                (
                    str(index),
                    verdict_of(certificate)[0] or "–",
                    status_words(certificate),
                    number(certificate.get("n_iterations")),
                    number(certificate.get("residual_a"), 2),
                    number(certificate.get("misfit_ratio"), 3),
                    number(certificate.get("scale"), 4),
                    number(certificate.get("seconds"), 3),
                )
                for index, certificate in zip(content.slices, content.certificates, strict=True)
            ),
            numeric_from=3,
        )
    ]
    return Report(
        title=f"Reconstruction of {content.name}",
        summary=summary,
        outcome="good" if n_converged == n_slices and level in ("", "good") else "bad",
        notes=(*reasons, *content.notes),
        sections=(
            Section(f"Images of {content.slice_name}", pictures=(picture,)),
            Section("Certificates", tables=tuple(tables)),
            Section(
                f"Certificate of {content.slice_name}",
                pictures=curve,
                tables=(Table(("", "", "meaning"), tuple(certificate_rows(content.certificate))),),
            ),
            Section("Sampling mask", pictures=masks, tables=(Table(("", ""), tuple(mask_rows(facts))),)),
            Section(
                "Recipe, weights, input, versions",
                tables=(Table(("", ""), tuple(flat_rows(content.provenance))),),
                folded=True,
            ),
        ),
        footer=FOOTER,
    )


def _images(content: ReconstructionContent) -> tuple[Picture, tuple[Picture, ...]]:
    magnitude = np.abs(content.image).astype(np.float32)
    white = figures.grey_limit(magnitude)
    panels = [Panel("reconstruction", magnitude, (0.0, white), bar=True)]
    if content.zero_filled is not None:
        panels.insert(0, Panel("zero-filled", content.zero_filled, (0.0, white), bar=True))
    same_size = content.target is not None and content.target.shape == magnitude.shape
    if content.target is not None and same_size:
        limits = (0.0, figures.grey_limit(content.target))
        panels.append(Panel("reference in the file", content.target, limits, bar=True))
    n_columns = 3
    panels += [Panel("", np.full_like(magnitude, np.nan), (0.0, 1.0)) for _ in range(n_columns - len(panels))]
    sparse = magnitude_or_signed("sparse part", content.sparse)
    panels += [
        Panel("smooth part (magnitude)", np.abs(content.smooth), (0.0, white), bar=True),
        sparse,
        Panel(
            "cost map",
            content.cost_map,
            (0.0, figures.grey_limit(np.asarray(content.cost_map, np.float32))),
            "viridis",
            True,
        ),
    ]
    low, high = sparse.limits
    caption = (
        f"Magnitudes in the units of the input: black is 0, white {white:.3g} and more"
        + (" (the reference: its own 99.8th percentile)" if same_size else "")
        + f". Sparse part, what the dictionary adds to the smooth part: from {low:.3g} to {high:.3g}. Cost map: where the "
        "prior is surprised, dimensionless."
    )
    picture = Picture(
        figures.to_png(figures.image_grid(panels, n_columns)), "the reconstruction and its parts", caption
    )
    if content.mask is None:
        return picture, ()
    drawn = figures.mask_figure(content.mask, "acquired samples are white")
    return picture, (Picture(figures.to_png(drawn), "the sampling mask"),)
