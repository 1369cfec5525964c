"""Figures for notebooks, with matplotlib."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mrisps.quality.metrics import nmse, psnr, ssim
from mrisps.reports.figures import Panel, image_grid, limits_of
from mrisps.reports.viewer import KNOWN

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["compare", "panels_of"]


class _HasImage(Protocol):
    """Such as `mrisps.Result`."""

    @property
    def image(self) -> NDArray[np.generic]: ...


def panels_of(images: Mapping[str, NDArray[np.generic]]) -> list[Panel]:
    """Panels of the images (y, x) of one slice, in the order of the viewer; those of one kind with one grey scale.

    Parameters
    ----------
    images
        As in a result file: ``reconstruction``, ``zero_filled``, ``reference``, ``smooth``, ``sparse``, ``cost_map``.
    """
    white = limits_of(np.abs(images["reconstruction"]))
    shown = {pane.name: pane for pane in KNOWN if pane.name in images}
    panels = [
        Panel(
            pane.title,
            np.abs(images[name]) if pane.group == "image" else images[name],
            white if pane.group == "image" else None,
            "viridis" if pane.colours == "heat" else None,
        )
        for name, pane in shown.items()
    ]
    if "reference" in images:
        error = np.abs(np.abs(images["reconstruction"]) - images["reference"])
        place = 1 + list(shown).index("reconstruction")
        panels.insert(place, Panel("error", error, None, "inferno"))
    return panels


def compare(
    a: _HasImage | ArrayLike,
    b: _HasImage | ArrayLike,
    reference: ArrayLike | None = None,
    *,
    position: int | None = None,
) -> "Figure":
    """Two images side by side, with their difference; with a reference also their errors, PSNR, SSIM and NMSE.

    Parameters
    ----------
    a, b
        Results, or arrays (y, x) or (slice, y, x); of complex ones the magnitude.
    reference
        An array of the same shape. Its maximum is the data range of PSNR and SSIM.
    position
        Which slice; by default the middle one.

    Raises
    ------
    ValueError
        The shapes differ.
    """
    named = {"a": a, "b": b, **({} if reference is None else {"reference": reference})}
    volumes = {name: np.abs(np.asarray(getattr(each, "image", each))) for name, each in named.items()}
    shapes = {name: volume.shape for name, volume in volumes.items()}
    if len(set(shapes.values())) > 1 or volumes["a"].ndim not in (2, 3):
        raise ValueError(f"a, b, reference: expected one shape, (y, x) or (slice, y, x), got {shapes}")
    images = {
        name: volume if volume.ndim == 2 else volume[len(volume) // 2 if position is None else position]
        for name, volume in volumes.items()
    }
    white = limits_of(images.get("reference", images["a"]))
    difference = Panel("b - a", images["b"].astype(np.float64) - images["a"])
    if "reference" not in images:
        return image_grid([Panel("a", images["a"], white), Panel("b", images["b"], white), difference], 3)
    truth = images["reference"].astype(np.float64)
    peak = float(truth.max())
    errors = {name: np.abs(images[name] - truth) for name in "ab"}
    worst = limits_of(np.stack([*errors.values()]))
    panels = [Panel("reference", truth, white)]
    for name in "ab":
        one = images[name].astype(np.float64)
        words = f"PSNR {psnr(one, truth, data_range=peak):.2f} dB, SSIM {ssim(one, truth, data_range=peak):.4f}"
        panels.append(Panel(f"{name}: {words}", one, white))
    panels.append(difference)
    panels += [
        Panel(f"error of {name}: NMSE {nmse(images[name], truth):.3g}", errors[name], worst, "inferno") for name in "ab"
    ]
    return image_grid(panels, 3)
