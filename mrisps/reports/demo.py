"""The report of the demonstration."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mrisps.reports import figures
from mrisps.reports.facts import Facts, certificate_rows, energy_trace, flat_rows, inner, mask_rows, status_words
from mrisps.reports.figures import Image, Panel
from mrisps.reports.html import Picture, Report, Section, Table
from mrisps.reports.viewer import FINE_LEVELS, Pane, Viewer, panes_of
from mrisps.status import finished

__all__ = ["DemoContent", "TimedMethod", "demo_png", "demo_report"]


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
    """The comparison as one picture: images, their errors on one scale, and what ours consists of."""
    white = figures.limits_of(content.reference)
    errors = [np.abs(method.image - content.reference) for method in content.methods]
    worst = figures.limits_of(np.stack(errors))
    share = float(content.mask.mean())
    panels = [Panel("reference (fully sampled)", content.reference, white)]
    panels += [Panel(f"{m.name}\nPSNR {m.psnr:.2f} dB, SSIM {m.ssim:.3f}", m.image, white) for m in content.methods]
    panels.append(Panel(f"k-space mask\n{share:.1%} acquired (white)", content.mask, (0, 1)))
    panels += [Panel("absolute error", error, worst, "inferno") for error in errors]
    panels += [
        Panel("smooth part", content.smooth, white),
        Panel("sparse part", content.sparse),
        Panel("cost map", content.cost_map, None, "viridis"),
    ]
    return figures.to_png(figures.image_grid(panels, 4))


def demo_report(content: DemoContent) -> Report:
    """The page of the demonstration."""
    ours, others = content.methods[-1], content.methods[:-1]
    best = max(others, key=lambda method: method.psnr)
    gain = ours.psnr - best.psnr
    acceleration = content.mask.size / max(int(content.mask.sum()), 1)
    compared = f"{abs(gain):.2f} dB {'better' if gain >= 0 else 'worse'} than {best.name} ({best.psnr:.2f} dB)"
    rows = tuple(
        (method.name, f"{method.psnr:.2f}", f"{method.ssim:.4f}", f"{method.nmse:.5f}", f"{method.seconds:.2f}")
        for method in content.methods
    )
    trace = energy_trace(content.certificate)
    curve = (
        [Picture("energy against iteration", svg=figures.to_svg(figures.energy_figure(trace)))]
        if len(trace) > 2
        else []
    )
    mask = inner(content.certificate, "mask")
    drawn = figures.to_png(figures.mask_figure(content.mask, f"{content.mask.mean():.1%} acquired (white)"))
    return Report(
        title="mrisps: a real MR slice from undersampled k-space",
        summary=(
            f"{acceleration:.1f}-fold undersampled: the smooth-plus-sparse model reaches PSNR {ours.psnr:.2f} dB and SSIM "
            f"{ours.ssim:.3f}, {compared}. Solver: {status_words(content.certificate)}."
        ),
        level="good" if finished(content.certificate.get("status")) and gain >= 0 else "check",
        notes=(f"Weights: {content.weights}",),
        sections=(
            Section("", viewer=_viewer(content)),
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
                pictures=curve,
                tables=(Table(("", "", "meaning"), certificate_rows(content.certificate), prose=(2,)),),
                folded=True,
            ),
            Section(
                "Sampling",
                pictures=(Picture("the sampling mask", png=drawn),),
                tables=(Table(("", ""), mask_rows(mask)),),
                folded=True,
            ),
            Section(
                "Recipe, weights, versions",
                tables=(
                    Table(("recipe", ""), flat_rows(content.recipe), prose=(1,)),
                    Table(
                        ("weights", ""), (("what", content.weights), ("SHA-256", content.weights_sha256)), prose=(1,)
                    ),
                    Table(("software", ""), flat_rows(content.versions), prose=(1,)),
                ),
                folded=True,
            ),
        ),
    )


def _viewer(content: DemoContent) -> Viewer:
    images: dict[str, NDArray[np.generic]] = {"reference": content.reference}
    panes = [Pane("reference", "reference", "The slice that was scanned", "image", levels=FINE_LEVELS, shown=True)]
    errors = []
    for method in content.methods:
        images[method.name] = method.image
        panes.append(Pane(method.name, method.name, method.name, "image", levels=FINE_LEVELS, shown=True))
        about = f"|{method.name} − reference|"
        of = (method.name, "reference")
        errors.append(
            Pane(f"error of {method.name}", f"error of {method.name}", about, "error", "error", shown=True, of=of)
        )
    parts = {"smooth": content.smooth, "sparse": content.sparse, "cost_map": content.cost_map}
    viewer = Viewer([*panes, *errors, *panes_of([*parts])], pair=("reference", content.methods[-1].name))
    viewer.add("head", {**images, **parts})
    return viewer
