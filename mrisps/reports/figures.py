"""Figures, drawn without pyplot: no global state, no display.

No text from files or users goes into a figure as it is: a missing glyph or a dollar sign must not spoil a report. See `plain`.
"""

import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "DPI",
    "GREEN",
    "Image",
    "Panel",
    "box_figure",
    "curves_figure",
    "energy_figure",
    "image_grid",
    "limits_of",
    "mask_figure",
    "plain",
    "to_png",
    "to_svg",
    "tuning_figure",
]

Image = NDArray[np.float32]
Colours = Literal["gray", "inferno", "viridis", "RdBu_r"]

DPI = 110
GREEN = "#2da44e"
"""The colour of what is ours."""


@dataclass(frozen=True, eq=False)
class Panel:
    """One image of a grid.

    Parameters
    ----------
    title
        Above it.
    image
        (y, x); of a complex one the magnitude is shown.
    limits
        Values of the first and of the last colour; None: `limits_of` the image.
    colours
        Name of the colour map; a symmetric one for real images with negative values, where None.
    """

    title: str
    image: NDArray[np.generic]
    limits: tuple[float, float] | None = None
    colours: Colours | None = None


def limits_of(image: NDArray[np.generic]) -> tuple[float, float]:
    """0, or minus the end if there are negative values, and the 99.8th percentile: few bright pixels do not darken the rest."""
    top = float(np.percentile(np.abs(image), 99.8)) or 1.0
    return (-top if _is_signed(image) else 0.0, top)


def _is_signed(image: NDArray[np.generic]) -> bool:
    return image.dtype.kind in "if" and float(np.real(image).min()) < 0


def image_grid(panels: Sequence[Panel], n_columns: int, inches: float = 3.4) -> "Figure":
    """Images with colour bars in a grid, row after row, each in its aspect ratio.

    Parameters
    ----------
    panels
        The images.
    n_columns
        In a row.
    inches
        Width of a column.

    Raises
    ------
    ValueError
        There is no panel.
    """
    from matplotlib.figure import Figure

    if not panels:
        raise ValueError("panels: expected at least one")
    n_rows = math.ceil(len(panels) / n_columns)
    n_y, n_x = panels[0].image.shape
    height = min(max((inches - 0.4) * n_y / n_x, inches / 2.5), 2 * inches)
    size = (inches * n_columns, (height + 0.45) * n_rows)
    figure = Figure(figsize=size, dpi=DPI, layout="constrained", facecolor="white")
    for number, panel in enumerate(panels, start=1):
        axis = figure.add_subplot(n_rows, n_columns, number)
        axis.set_axis_off()
        axis.set_title(panel.title, fontsize=10.5)
        low, high = panel.limits or limits_of(panel.image)
        image = axis.imshow(
            np.abs(panel.image) if np.iscomplexobj(panel.image) else panel.image,
            cmap=panel.colours or ("RdBu_r" if _is_signed(panel.image) else "gray"),
            vmin=low,
            vmax=high,
            interpolation="nearest" if max(panel.image.shape) < 128 else "antialiased",
        )
        figure.colorbar(image, ax=axis, fraction=0.05, pad=0.02, extend="both" if low < 0 else "max")
    return figure


def mask_figure(mask: NDArray[np.bool_], title: str) -> "Figure":
    """A mask (y, x), white where acquired. Whole columns are a readout along y; else both axes are phase encodes."""
    from matplotlib.figure import Figure

    n_y, n_x = mask.shape
    inches = 4.5 / max(n_y, n_x)
    size = (max(n_x * inches, 2.5) + 0.7, max(n_y * inches, 1.0) + 0.8)  # with room for labels and title
    figure = Figure(figsize=size, dpi=DPI, layout="constrained", facecolor="white")
    axis = figure.subplots()
    axis.imshow(mask, cmap="gray", vmin=0, vmax=1, interpolation="nearest", aspect="equal")
    whole_columns = bool((mask == mask[:1]).all())
    axis.set_xlabel("x: phase encode" if whole_columns else "x: first phase encode")
    axis.set_ylabel("y: readout" if whole_columns else "y: second phase encode")
    axis.set_title(title, fontsize=10)
    return figure


def curves_figure(
    curves: Mapping[str, Sequence[tuple[float, float]]], x: str, y: str, *, logarithmic: bool = False
) -> "Figure":
    """Curves in one plot.

    Parameters
    ----------
    curves
        Name -> points; what is not finite is left out, and with a logarithmic axis what is not positive.
    x, y
        What the axes are, with units.
    logarithmic
        The axis of y.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 3.2), dpi=DPI, layout="constrained", facecolor="white")
    axis = figure.subplots()
    for name, points in curves.items():
        kept = [p for p in points if math.isfinite(p[1]) and (p[1] > 0 or not logarithmic)]
        axis.plot(
            [p[0] for p in kept],
            [p[1] for p in kept],
            marker="." if len(kept) < 60 else "",
            linewidth=1.3,
            label=plain(name),
        )
    if logarithmic:
        axis.set_yscale("log")
    else:
        axis.ticklabel_format(useOffset=False)
    axis.set_xlabel(x)
    axis.set_ylabel(y)
    if len(curves) > 1:
        axis.legend(fontsize=8, frameon=False)
    axis.grid(visible=True, alpha=0.25)
    return figure


def energy_figure(trace: Sequence[tuple[int, float]]) -> "Figure":
    """How far the energy is from the last one, along the iteration.

    Parameters
    ----------
    trace
        (iteration, energy); at least two.
    """
    last = trace[-1][1]
    points = [(float(k), abs(energy - last) / (abs(last) or 1.0)) for k, energy in trace[:-1]]
    return curves_figure(
        {"energy": points}, "iteration", "energy E(x, a): distance from\nthe last one, relative", logarithmic=True
    )


def tuning_figure(beta: Sequence[float], lam: Sequence[float], score: Sequence[float], best: int) -> "Figure":
    """The heat map of a search: a square for each pair of beta and lam, coloured by its score, and what lies between them.

    Parameters
    ----------
    beta, lam
        Of each pair.
    score
        In dB; what is not finite is drawn as a cross.
    best
        Index of the chosen pair, which is marked.
    """
    from matplotlib.figure import Figure
    from matplotlib.tri import Triangulation

    x, y, values = (np.asarray(each, dtype=np.float64) for each in (beta, lam, score))
    finite = np.isfinite(values)
    figure = Figure(figsize=(6.4, 5.0), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("beta")
    axes.set_ylabel("lam")
    order = np.argsort(values[finite])  # the best on top
    # Scores a few dB below the best are all alike: what matters is told apart near the top.
    lowest = max(float(values[finite].min()), float(values[finite].max()) - 3.0)
    highest = max(float(values[finite].max()), lowest + 0.01)
    places = np.stack([np.log(x[finite]), np.log(y[finite])])
    if np.linalg.matrix_rank(places - places[:, :1], tol=1e-6) == 2:  # else there is no triangle
        between = Triangulation(x[finite], y[finite], Triangulation(*places).triangles)
        levels = np.linspace(lowest, highest, 13)
        axes.tricontourf(between, values[finite].clip(lowest, highest), levels, cmap="viridis", alpha=0.6)
    drawn = axes.scatter(
        *(x[finite][order], y[finite][order]),
        c=values[finite][order],
        s=90,
        marker="s",
        cmap="viridis",
        vmin=lowest,
        vmax=highest,
        edgecolors="white",
        linewidths=0.6,
    )
    if not finite.all():
        axes.scatter(x[~finite], y[~finite], c="black", s=60, marker="x")
    axes.scatter(
        x[best : best + 1], y[best : best + 1], s=300, marker="o", facecolors="none", edgecolors="crimson", lw=2
    )
    axes.set_xlim(x.min() / 1.25, x.max() * 1.25)
    axes.set_ylim(y.min() / 1.25, y.max() * 1.25)
    figure.colorbar(drawn, ax=axes, label="score (dB)", extend="min" if lowest > values[finite].min() else "neither")
    return figure


def box_figure(
    names: Sequence[str], values: Mapping[str, Sequence[Sequence[float]]], emphasised: Sequence[bool]
) -> "Figure":
    """Box plots side by side, one axis for each quantity: quartiles, whiskers at 1.5 times their distance, every value a dot.

    Parameters
    ----------
    names
        Of the boxes, from the top.
    values
        Quantity -> values of each box; what is not finite is left out.
    emphasised
        Which boxes are ours: drawn in green.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    n = len(names)
    figure = Figure(figsize=(9.5, 0.9 + 0.42 * n), dpi=DPI, layout="constrained", facecolor="white")
    for column, (quantity, lists) in enumerate(values.items()):
        axis = figure.add_subplot(1, len(values), column + 1)
        for place, (numbers, ours) in enumerate(zip(lists, emphasised, strict=True)):
            finite = [number for number in numbers if math.isfinite(number)]
            colour = GREEN if ours else "#7d8590"
            if finite:
                low, middle, high = np.quantile(finite, [0.25, 0.5, 0.75])
                reach = 1.5 * (high - low)
                whiskers = (
                    min(number for number in finite if number >= low - reach),
                    max(number for number in finite if number <= high + reach),
                )
                y, width = n - place, 1.6 if ours else 1.1
                for first, last in ((whiskers[0], low), (high, whiskers[1])):
                    axis.plot([first, last], [y, y], color=colour, linewidth=width)
                axis.barh(y, high - low, left=low, height=0.6, fill=False, edgecolor=colour, linewidth=width)
                axis.plot([middle, middle], [y - 0.3, y + 0.3], color=colour, linewidth=2.6)
            shift = [0.36 * ((7 * i % 11) / 10 - 0.5) for i in range(len(finite))]  # apart, and the same every time
            axis.plot(
                finite, [n - place + s for s in shift], "o", markersize=2.5, color=colour, alpha=0.45, linewidth=0
            )
        axis.use_sticky_edges = False  # a box at the edge would be cut
        axis.set_ylim(0.4, n + 0.6)
        axis.set_yticks(range(n, 0, -1), labels=[plain(name) for name in names] if column == 0 else [""] * n)
        axis.set_xlabel(plain(quantity))
        axis.xaxis.set_major_locator(MaxNLocator(4))
        axis.grid(visible=True, axis="x", alpha=0.25)
    return figure


def plain(text: str, length: int = 32) -> str:
    """Text that any font can show: other characters than letters, digits and a few signs become question marks."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c in " .,:;()+-_=/") else "?" for c in text)
    return kept if len(kept) <= length else kept[: length - 3] + "..."


def to_png(figure: "Figure") -> bytes:
    """The figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def to_svg(figure: "Figure") -> str:
    """The figure as an SVG element, sharp at any size, whose black takes the colour of the text around it."""
    from matplotlib import rc_context

    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "mrisps"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    names = r' xmlns(:xlink)?="[^"]*"|<metadata>.*?</metadata>'  # which a page does not need
    inside = re.sub(names, "", text[text.index("<svg") :], flags=re.DOTALL)
    return inside.replace("#000000", "currentColor")
