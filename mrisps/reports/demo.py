"""The report of the demonstration."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mrisps.reports import figures
from mrisps.reports.facts import Facts, certificate_rows, energy_trace, flat_rows, mask_rows, status_words
from mrisps.reports.figures import DPI, GREEN, Image, Panel, axes_grid, error_limit, grey_limit, show
from mrisps.reports.html import FOOTER, Picture, Report, Section, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["DemoContent", "TimedMethod", "demo_figure", "demo_png", "demo_report"]


@dataclass(frozen=True, eq=False)
class TimedMethod:
    """A reconstruction with its quality and what it took.

    Parameters
    ----------
    name
        Of the method.
    image
        (y, x) magnitude.
    psnr
        In dB.
    ssim
        At most 1.
    nmse
        Normalised mean squared error.
    seconds
        Wall-clock time.
    """

    name: str
    image: Image
    psnr: float
    ssim: float
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
    figure = demo_figure(
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


def demo_figure(
    reference: Image,
    methods: Sequence[TimedMethod],
    mask: NDArray[np.bool_],
    smooth: Image,
    sparse: Image,
    cost_map: Image,
) -> "Figure":
    """The comparison of the demonstration: images, their errors on one scale, and what ours consists of.

    Parameters
    ----------
    reference
        (y, x) magnitude.
    methods
        Three of them; the last one is ours.
    mask
        (y, x), true where acquired.
    smooth, sparse, cost_map
        (y, x) magnitudes of the parts of the last reconstruction, and its cost map.

    Raises
    ------
    ValueError
        There are not three methods.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.ticker import MaxNLocator, ScalarFormatter

    if len(methods) != 3:
        raise ValueError(f"methods: expected 3, got {len(methods)}")
    white = grey_limit(reference)
    worst = error_limit(reference, [method.image for method in methods])
    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08)
    figure = Figure(figsize=(13, 10.8), dpi=DPI, layout=layout, facecolor="white")
    axes = axes_grid(figure, 3, 4)

    show(axes[0][0], Panel("reference\n(fully sampled)", reference, (0, white)))
    for index, method in enumerate(methods, start=1):
        title = f"{method.name}\nPSNR {method.psnr:.2f} dB, SSIM {method.ssim:.3f}"
        axis = axes[0][index]
        show(axis, Panel(title, method.image, (0, white)))
        error = show(axes[1][index], Panel("absolute error", np.abs(method.image - reference), (0, worst), "inferno"))
        if index == len(methods):
            _emphasise(axis)
            _emphasise(axes[1][index])
            bar = figure.colorbar(error, ax=axes[1][1:], fraction=0.05, pad=0.01, aspect=24, extend="max")
            bar.set_label("absolute error of the magnitude")
    _headline(axes[1][0], methods, mask)

    share = 100 * float(mask.mean())
    show(axes[2][0], Panel(f"k-space mask\n{share:.1f} % acquired (white)", mask, (0, 1)))
    show(axes[2][1], Panel("smooth part\n(magnitude)", smooth, (0, white)))
    parts = (
        Panel("sparse part\n(magnitude)", sparse, (0, grey_limit(sparse))),
        Panel("cost map\n(where the prior is surprised)", cost_map, (0, grey_limit(cost_map)), "viridis"),
    )
    for axis, panel in zip(axes[2][2:], parts, strict=True):
        image = show(axis, panel)
        bar = figure.colorbar(image, ax=axis, location="bottom", fraction=0.05, pad=0.02, aspect=30, extend="max")
        bar.locator = MaxNLocator(4)
        bar.formatter = ScalarFormatter()
        bar.formatter.set_powerlimits((-2, 3))
        bar.update_ticks()
    for axis in axes[2]:
        axis.set_anchor("N")  # the images of the row at one height, with and without a colour bar below
    return figure


def _emphasise(axis: "Axes") -> None:
    """A green frame around what is ours."""
    axis.set_axis_on()
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_edgecolor(GREEN)
        spine.set_linewidth(2.5)
    axis.title.set_color(GREEN)
    axis.title.set_fontweight("bold")


def _headline(axis: "Axes", methods: Sequence[TimedMethod], mask: NDArray[np.bool_]) -> None:
    """The outcome in large letters, in the place of the reference's error map."""
    axis.set_axis_off()
    axis.set_xlim(0, 1)
    axis.set_ylim(0, 1)
    ours = methods[-1]
    acceleration = mask.size / max(int(mask.sum()), 1)
    axis.text(0.5, 0.93, f"{acceleration:.1f}-fold undersampled", ha="center", va="top", fontsize=12, weight="bold")
    axis.text(0.5, 0.76, f"{ours.psnr:.1f} dB", ha="center", va="top", fontsize=28, weight="bold", color=GREEN)
    y = 0.47
    for other in methods[:-1]:
        gain = ours.psnr - other.psnr
        word = "better than" if gain >= 0 else "worse than"
        axis.text(0.5, y, f"{abs(gain):.1f} dB {word}", ha="center", va="top", fontsize=11, weight="bold")
        axis.text(0.5, y - 0.09, other.name, ha="center", va="top", fontsize=10)
        y -= 0.22
