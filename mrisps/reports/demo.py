"""The report of the demonstration."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mrisps.reports import figures
from mrisps.reports.facts import Facts, certificate_rows, energy_trace, flat_rows, mask_rows, status_words
from mrisps.reports.figures import Compared, Image
from mrisps.reports.html import FOOTER, Picture, Report, Section, Table

__all__ = ["DemoContent", "TimedMethod", "demo_png", "demo_report"]


@dataclass(frozen=True, eq=False)
class TimedMethod(Compared):
    """A reconstruction with its quality and what it took.

    Parameters
    ----------
    nmse
        Normalised mean squared error.
    seconds
        Wall-clock time.
    """

    nmse: float
    seconds: float


@dataclass(frozen=True, eq=False)
class DemoContent:
    """What the demonstration gave.

    Parameters
    ----------
    reference
        (y, x) magnitude of what was scanned; maximum 1.
    methods
        Zero filling, total variation, ours.
    mask
        (y, x), true where acquired.
    smooth, sparse, cost_map
        (y, x) magnitudes of the parts of our reconstruction, and its cost map.
    certificate
        Of our reconstruction, with scale and mask.
    recipe
        Plain values of the recipe.
    weights
        What the weights are, in a sentence.
    weights_sha256
        Their fingerprint.
    versions
        Of the software that was used.
    """

    reference: Image
    methods: Sequence[TimedMethod]
    mask: NDArray[np.bool_]
    smooth: Image
    sparse: Image
    cost_map: Image
    certificate: Facts
    recipe: Facts
    weights: str
    weights_sha256: str
    versions: Facts


def demo_png(content: DemoContent) -> bytes:
    """The figure of the demonstration as PNG."""
    figure = figures.demo_figure(
        content.reference, content.methods, content.mask, content.smooth, content.sparse, content.cost_map
    )
    return figures.to_png(figure)


def demo_report(content: DemoContent, png: bytes) -> Report:
    """The page of the demonstration around its figure."""
    ours, others = content.methods[-1], content.methods[:-1]
    best = max(others, key=lambda method: method.psnr)
    gain = ours.psnr - best.psnr
    converged = content.certificate.get("status") == "converged"
    acceleration = content.mask.size / max(int(content.mask.sum()), 1)
    compared = f"{abs(gain):.2f} dB {'better' if gain >= 0 else 'worse'} than {best.name} ({best.psnr:.2f} dB)"
    summary = (
        f"{acceleration:.1f}-fold undersampled: the smooth-plus-sparse model reaches PSNR {ours.psnr:.2f} dB and SSIM "
        f"{ours.ssim:.3f}, {compared}. Solver: {status_words(content.certificate)}."
    )
    white = figures.grey_limit(content.reference)
    worst = figures.error_limit(content.reference, [method.image for method in content.methods])
    caption = (
        f"Top: magnitudes; black is 0, white {white:.3g} and more (the maximum of the reference is 1). Middle: absolute "
        f"difference of the magnitudes to the reference, all three on one scale from 0 to {worst:.3g} (the 99.5th percentile "
        f"of all errors; what is larger has the last colour). Bottom: which samples of k-space were acquired; the smooth "
        f"part on the scale of the images; the sparse part, what the dictionary adds to it, on its own scale; and the cost map."
    )
    rows = tuple(
        (method.name, f"{method.psnr:.2f}", f"{method.ssim:.4f}", f"{method.nmse:.5f}", f"{method.seconds:.2f}")
        for method in content.methods
    )
    mask = content.certificate.get("mask")
    trace = energy_trace(content.certificate)
    pictures: tuple[Picture, ...] = ()
    if len(trace) > 1:
        pictures = (
            Picture(
                figures.to_png(figures.energy_figure(trace)),
                "energy against iteration",
                "The energy E(x, a) with the final thresholds. While the solver still works with larger thresholds "
                "(continuation), it need not fall.",
            ),
        )
    return Report(
        title="mrisps: a real MR slice from undersampled k-space",
        summary=summary,
        outcome="good" if converged and gain >= 0 else "bad",
        notes=(f"Weights: {content.weights}",),
        sections=(
            Section("", pictures=(Picture(png, "reconstructions, error maps and parts of the image", caption),)),
            Section(
                "Quality and time",
                text=(
                    "The slice is a real head that matplotlib ships. It is given a smooth phase and noise, and most of its "
                    "k-space is left out; each method gets the same data.",
                ),
                tables=(
                    Table(
                        ("method", "PSNR (dB)", "SSIM", "NMSE", "seconds"),
                        rows,
                        "Of the magnitude, data range 1. Higher PSNR and SSIM, lower NMSE are better.",
                        emphasised=len(rows) - 1,
                        numeric_from=1,
                    ),
                ),
            ),
            Section(
                "Certificate",
                text=("What the solver reached, for data that were scaled to an image maximum of about 1.",),
                pictures=pictures,
                tables=(Table(("", "", "meaning"), tuple(certificate_rows(content.certificate))),),
            ),
            Section(
                "Sampling mask", tables=(Table(("", ""), tuple(mask_rows(mask)) if isinstance(mask, dict) else ()),)
            ),
            Section(
                "Recipe, weights, versions",
                tables=(
                    Table(("recipe", ""), tuple(flat_rows(content.recipe))),
                    Table(("weights", ""), (("what", content.weights), ("SHA-256", content.weights_sha256))),
                    Table(("software", ""), tuple(flat_rows(content.versions))),
                ),
                folded=True,
            ),
        ),
        footer=FOOTER,
    )
