"""Figures: what is drawn, on which scale, and that no global state is left behind."""

import math
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.collections import PathCollection
from numpy.typing import NDArray

from mrisps.reports import figures
from mrisps.reports.figures import Panel

Array = NDArray[np.float32]


def test_signed_parts_have_symmetric_limits(rng: np.random.Generator) -> None:
    part = rng.normal(size=(9, 9)) + 1
    low, high = figures.limits_of(part)
    assert low == -high < 0
    assert figures.limits_of(part * 1j)[0] == 0
    (axis, _) = figures.image_grid([Panel("complex", part * 1j)], 1).axes
    assert np.asarray(axis.images[0].get_array()).min() >= 0
    (axis, _) = figures.image_grid([Panel("signed", part)], 1).axes
    assert axis.images[0].get_cmap().name == "RdBu_r"


@pytest.mark.parametrize("shape", [(8, 8), (64, 10), (10, 64), (1, 1)])
def test_any_shape(shape: tuple[int, int]) -> None:
    zeros = np.zeros(shape, np.float32)
    panels = [Panel("a", zeros), Panel("b", zeros, (-1, 1), "RdBu_r")]
    assert figures.to_png(figures.image_grid(panels, 3))[:4] == b"\x89PNG"
    assert figures.to_png(figures.mask_figure(zeros > 0, "nothing"))[:4] == b"\x89PNG"


def test_no_panels() -> None:
    with pytest.raises(ValueError, match="panels: expected at least one"):
        figures.image_grid([], 3)


@pytest.mark.parametrize("trace", [[(1, 2.0), (5, 1.0)], [(1, 0.5), (2, -0.5)], [(1, 1.0), (2, 1.0), (3, 0.0)]])
def test_energy(trace: list[tuple[int, float]]) -> None:
    assert figures.to_svg(figures.energy_figure(trace)).startswith("<svg")


def test_the_energy_is_drawn_as_a_distance() -> None:
    """Energies that differ in the fifth digit are told apart."""
    (axis,) = figures.energy_figure([(1, 1.6976), (5, 1.69752), (9, 1.6975)]).axes
    (line,) = axis.lines
    np.testing.assert_allclose(np.asarray(line.get_ydata(), float), np.array([1e-4, 2e-5]) / 1.6975, rtol=1e-6)
    assert (axis.get_xlabel(), axis.get_yscale()) == ("iteration", "log")
    assert "energy" in axis.get_ylabel()


def test_axes_of_a_mask_are_named_by_what_they_are() -> None:
    columns = np.zeros((6, 8), np.bool_)
    columns[:, ::2] = True
    points = columns.copy()
    points[3] = False
    for mask, names in (
        (columns, ("x: phase encode", "y: readout")),
        (points, ("x: first phase encode", "y: second phase encode")),
    ):
        (axis,) = figures.mask_figure(mask, "").axes
        assert (axis.get_xlabel(), axis.get_ylabel()) == names


def test_an_svg_takes_the_colour_of_its_page() -> None:
    curves = {"a <b>": [(0.0, 1.0), (1.0, math.nan), (2.0, 3.0)], "b": [(0.0, 2.0)]}
    svg = figures.to_svg(figures.curves_figure(curves, "step", "loss"))
    assert svg == figures.to_svg(figures.curves_figure(curves, "step", "loss"))
    assert "currentColor" in svg
    assert "#000000" not in svg
    assert "<b>" not in svg
    assert ">step<" in svg


def test_no_global_state() -> None:
    program = (
        "import numpy, sys; from mrisps.reports import figures; "
        "figures.to_png(figures.mask_figure(numpy.ones((4, 4), bool), 'full')); print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "False\n"


def test_tuning_figure() -> None:
    beta, lam = [0.1, 0.2, 0.05, 0.1, 0.1], [0.01, 0.01, 0.01, 0.02, 0.005]
    score = [30.0, 29.0, 22.0, float("-inf"), 29.5]
    figure = figures.tuning_figure(beta, lam, score, 0)
    axes, bar = figure.axes
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    drawn = [points for points in axes.collections if isinstance(points, PathCollection)]
    places = [np.asarray(points.get_offsets()).tolist() for points in drawn]
    assert sorted(places[0]) == sorted([b, v] for b, v, s in zip(beta, lam, score, strict=True) if np.isfinite(s))
    assert places[1] == [[0.1, 0.02]]  # the one that broke down
    assert places[2] == [[0.1, 0.01]]  # the best is marked
    assert bar.get_ylim() == (27.0, 30.0)  # far below the best all are alike
    assert figures.to_png(figure).startswith(b"\x89PNG")
    for few in (1, 2):  # nothing to triangulate
        assert figures.to_png(figures.tuning_figure(beta[:few], lam[:few], score[:few], 0)).startswith(b"\x89PNG")
