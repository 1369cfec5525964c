"""Figures: what is drawn, on which scale, and that no global state is left behind."""

import io
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.collections import PathCollection
from numpy.typing import NDArray
from PIL import Image

from mrisps.reports import demo, figures
from mrisps.reports.demo import TimedMethod
from mrisps.reports.figures import Panel

Array = NDArray[np.float32]


@pytest.fixture
def reference(rng: np.random.Generator) -> Array:
    return rng.uniform(size=(24, 20)).astype(np.float32)


def methods(reference: Array, rng: np.random.Generator) -> list[TimedMethod]:
    return [
        TimedMethod(
            name, (reference + noise * rng.normal(size=reference.shape)).astype(np.float32), psnr, 0.9, 0.1, 1.0
        )
        for name, noise, psnr in (("zero-filled", 0.3, 20.0), ("total variation", 0.2, 25.0), ("ours", 0.1, 24.0))
    ]


def demo_figure(reference: Array, rng: np.random.Generator) -> "figures.Figure":
    mask = rng.uniform(size=reference.shape) < 0.25
    return demo.demo_figure(reference, methods(reference, rng), mask, reference, 0.1 * reference, 0.01 * reference)


def test_error_maps_have_one_scale(reference: Array, rng: np.random.Generator) -> None:
    figure = demo_figure(reference, rng)
    errors = [axis.images[0] for axis in figure.axes if axis.get_title() == "absolute error"]
    assert len(errors) == 3
    assert len({image.get_clim() for image in errors}) == 1
    assert len({image.get_cmap().name for image in errors}) == 1
    images = [axis.images[0] for axis in figure.axes if "PSNR" in axis.get_title()]
    assert {image.get_clim() for image in images} == {(0, figures.grey_limit(reference))}
    np.testing.assert_allclose(
        np.asarray(errors[0].get_array()), np.abs(np.asarray(images[0].get_array()) - reference), rtol=1e-5
    )


def test_demo_figure_says_how_good_it_is(reference: Array, rng: np.random.Generator) -> None:
    figure = demo_figure(reference, rng)
    texts = [text.get_text() for axis in figure.axes for text in axis.texts]
    assert "24.0 dB" in texts
    assert "4.0 dB better than" in texts
    assert "1.0 dB worse than" in texts  # never claimed to be better where it is not
    assert any("ours\nPSNR 24.00 dB, SSIM 0.900" in axis.get_title() for axis in figure.axes)
    png = figures.to_png(figure)
    with Image.open(io.BytesIO(png)) as picture:
        assert picture.format == "PNG"


def test_demo_figure_takes_three(reference: Array, rng: np.random.Generator) -> None:
    two = methods(reference, rng)[:2]
    with pytest.raises(ValueError, match="methods: expected 3, got 2"):
        demo.demo_figure(reference, two, reference > 0.5, reference, reference, reference)


def test_signed_parts_have_symmetric_limits(rng: np.random.Generator) -> None:
    part = rng.normal(size=(9, 9)) + 1
    panel = figures.magnitude_or_signed("sparse part", part)
    assert panel.limits[0] == -panel.limits[1]
    panel = figures.magnitude_or_signed("sparse part", part * 1j)
    assert panel.title == "sparse part (magnitude)"
    assert panel.limits[0] == 0
    assert (panel.image >= 0).all()


@pytest.mark.parametrize("shape", [(8, 8), (64, 10), (10, 64), (1, 1)])
def test_any_shape(shape: tuple[int, int]) -> None:
    zeros = np.zeros(shape, np.float32)
    panels = [Panel("a", zeros, (0, figures.grey_limit(zeros)), bar=True), Panel("b", zeros, (-1, 1), "RdBu_r", True)]
    assert figures.to_png(figures.image_grid(panels, 3))[:4] == b"\x89PNG"
    assert figures.to_png(figures.mask_figure(zeros > 0, "nothing"))[:4] == b"\x89PNG"


def test_no_panels() -> None:
    with pytest.raises(ValueError, match="panels: expected at least one"):
        figures.image_grid([], 3)


@pytest.mark.parametrize("trace", [[(1, 2.0), (5, 1.0)], [(1, 0.5), (2, -0.5)], [(1, 1.0), (2, 0.0)]])
def test_energy(trace: list[tuple[int, float]]) -> None:
    assert figures.to_png(figures.energy_figure(trace))[:4] == b"\x89PNG"


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
