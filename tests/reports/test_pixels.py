"""Pixels on their way into a page, and what the viewer is told of them."""

import base64
import json
import zlib

import numpy as np
import pytest
from numpy.typing import NDArray

from mrisps.reports.pixels import NOT_A_NUMBER, Plane, encode
from mrisps.reports.viewer import KNOWN, Pane, Viewer, panes_of


def decode(plane: Plane) -> NDArray[np.float64]:
    """As the page does it, pixel by pixel."""
    n_y, n_x = plane.shape
    packed = zlib.decompress(base64.b64decode(plane.text))
    codes = np.zeros((n_y + 1, n_x + 1), np.int64)
    for i in range(n_y * n_x):
        y, x = i // n_x + 1, i % n_x + 1
        folded = packed[i] << 8 | packed[n_y * n_x + i]
        left, up, corner = codes[y, x - 1], codes[y - 1, x], codes[y - 1, x - 1]
        predicted = min(max(left + up - corner, min(left, up)), max(left, up))
        codes[y, x] = (predicted + ((folded >> 1) ^ -(folded & 1))) % 65536
    values = plane.offset + plane.step * codes[1:, 1:]
    values[codes[1:, 1:] == NOT_A_NUMBER] = np.nan
    return values


@pytest.mark.parametrize("levels", [1, 511, 8191, 65534])
@pytest.mark.parametrize("factor", [1.0, 1e-9, 1e30])
def test_there_and_back(levels: int, factor: float, rng: np.random.Generator) -> None:
    image = rng.normal(size=(11, 17)) * factor
    plane = encode(image, levels)
    assert np.abs(decode(plane) - image).max() <= np.ptp(image) / levels * 0.501
    assert plane.step == pytest.approx(np.ptp(image) / levels)


def test_pixels_that_are_no_number_keep_their_place(rng: np.random.Generator) -> None:
    image = rng.normal(size=(5, 7)).astype(np.float32)
    image[2, 3], image[0, 0], image[4, 6] = np.nan, np.inf, -np.inf
    values = decode(encode(image, 65534))
    np.testing.assert_array_equal(np.isnan(values), ~np.isfinite(image))
    np.testing.assert_allclose(values[np.isfinite(image)], image[np.isfinite(image)], atol=1e-3)


@pytest.mark.parametrize("value", [0.0, 3.5, np.nan])
def test_an_image_of_one_value(value: float) -> None:
    values = decode(encode(np.full((4, 4), value)))
    np.testing.assert_array_equal(values, np.full((4, 4), value))


@pytest.mark.parametrize("image", [np.zeros((2, 2, 2)), np.zeros((0, 3)), np.zeros((2, 2), complex)])
def test_what_is_no_image(image: NDArray[np.generic]) -> None:
    with pytest.raises(ValueError, match="image: expected real"):
        encode(image)


def test_smooth_images_are_small(rng: np.random.Generator) -> None:
    """Half of what the codes take, and never the result of a search for strings that noise does not have."""
    y, x = np.mgrid[:64, :64] / 64
    image = np.sin(5 * x) * np.cos(4 * y) + rng.normal(size=(64, 64)) * 1e-3
    assert len(encode(image, 8191).text) < 64 * 64 * 2 * 0.75


def test_panes_are_those_that_are_there() -> None:
    names = [pane.name for pane in panes_of(["reconstruction", "reference", "new_map", "cost_map"])]
    assert names == ["reference", "reconstruction", "error", "cost_map", "new_map"]
    assert [pane.name for pane in panes_of(["reconstruction"])] == ["reconstruction"]
    assert len({pane.name for pane in KNOWN}) == len(KNOWN)


def test_one_bad_slice_does_not_darken_the_others() -> None:
    viewer = Viewer([Pane("a", "a"), Pane("d", "d", colours="signed")])
    for k in range(30):
        scale = 1e6 if k == 7 else 1.0
        ramp = scale * np.linspace(0, 1, 100).reshape(10, 10)
        viewer.add(str(k), {"a": ramp, "d": ramp - 0.25 * scale})
    panes = json.loads(viewer.json)["panes"]
    assert 0.9 < panes[0]["window"][1] < 1.1
    assert panes[0]["window"][0] == 0
    assert panes[1]["window"][0] == -panes[1]["window"][1]


def test_panes_of_a_group_share_a_window() -> None:
    viewer = Viewer(panes_of(["reference", "reconstruction"]))
    viewer.add("0", {"reference": np.full((8, 8), 2.0), "reconstruction": np.full((8, 8), 1.0 + 0j)})
    reference, reconstruction, error = json.loads(viewer.json)["panes"]
    assert reference["window"] == reconstruction["window"] == [0, 2]
    assert error["window"] == [0, 1]
    assert error["of"] == ["reconstruction", "reference"]
    assert list(json.loads(viewer.json)["slices"][0]["planes"]) == [
        "reference",
        "reconstruction",
    ]  # the page computes the error
