"""Figures for notebooks, and the demonstration."""

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

import mrisps
from mrisps.reports.demo import DemoContent, TimedMethod, demo_png, demo_report
from mrisps.reports.html import render
from mrisps.reports.plot import panels_of

Array = NDArray[np.float32]


@dataclass
class Something:
    image: NDArray[np.complex64]


@pytest.fixture
def reference(rng: np.random.Generator) -> Array:
    return rng.uniform(0.1, 1, size=(24, 20)).astype(np.float32)


def test_compare(reference: Array) -> None:
    a, b = Something((reference * 1j).astype(np.complex64)), 1.5 * reference
    axes = [axis for axis in mrisps.plot.compare(a, b, reference).axes if axis.get_title()]
    titles = [axis.get_title() for axis in axes]
    assert titles[0] == "reference"
    assert titles[1].startswith("a: PSNR inf dB, SSIM 1.0000")
    assert titles[3:] == ["b - a", "error of a: NMSE 0", "error of b: NMSE 0.25"]
    assert len({axis.images[0].get_clim() for axis in axes[:3]}) == 1
    assert len({axis.images[0].get_clim() for axis in axes[4:]}) == 1
    np.testing.assert_allclose(np.asarray(axes[3].images[0].get_array()), 0.5 * reference, rtol=1e-5)


def test_compare_without_reference(reference: Array) -> None:
    volume = np.stack([reference, 2 * reference, 3 * reference])
    axes = [axis for axis in mrisps.plot.compare(volume, volume, position=2).axes if axis.get_title()]
    assert [axis.get_title() for axis in axes] == ["a", "b", "b - a"]
    np.testing.assert_allclose(np.asarray(axes[0].images[0].get_array()), 3 * reference, rtol=1e-6)


def test_compare_wants_one_shape(reference: Array) -> None:
    with pytest.raises(ValueError, match="expected one shape"):
        mrisps.plot.compare(reference, reference[1:])


def test_panels_of_a_slice(reference: Array) -> None:
    panels = panels_of(
        {"reconstruction": 1j * reference, "reference": reference, "cost_map": reference, "mask": reference}
    )
    assert [panel.title for panel in panels] == ["reference", "reconstruction", "error", "cost map"]
    assert panels[0].limits == panels[1].limits
    assert not panels[2].image.any()


def demo(reference: Array, gains: tuple[float, float, float]) -> DemoContent:
    names = ("zero-filled", "total variation", "ours")
    methods = [
        TimedMethod(n, reference * (1 + k / 10), g, 0.9, 0.1, 1.0)
        for k, (n, g) in enumerate(zip(names, gains, strict=True))
    ]
    certificate = {"status": "converged", "energy_trace": [[1, 3.0], [2, 2.0], [3, 1.5]], "mask": {"kind": "random"}}
    mask = reference > 0.5
    return DemoContent(reference, methods, mask, reference, reference, reference, certificate, {}, "w", "0" * 64, {})


def test_the_demonstration_is_never_claimed_to_be_better_where_it_is_not(reference: Array) -> None:
    better, worse = (render(demo_report(demo(reference, gains))) for gains in ((20.0, 25.0, 26.0), (20.0, 25.0, 24.0)))
    assert "1.00 dB better than total variation (25.00 dB)" in better
    assert 'class="summary" data-level="good"' in better
    assert "1.00 dB worse than total variation (25.00 dB)" in worse
    assert 'class="summary" data-level="check"' in worse
    assert better.count('type="text/plain"') == 7  # reference, three methods, three parts; the page computes the errors


def test_the_picture_of_the_demonstration(reference: Array) -> None:
    assert demo_png(demo(reference, (1.0, 2.0, 3.0))).startswith(b"\x89PNG")
