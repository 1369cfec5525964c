"""The pages in a real browser: `make test-browser`. Skipped where there is no Chromium with its driver."""

from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from result_files import write_result

from mrisps.io.json_text import JsonValue
from mrisps.reports.flags import RunFile, Thresholds
from mrisps.reports.html import render
from mrisps.reports.results import write_comparison, write_pages
from mrisps.reports.run import run_report

pytest.importorskip("selenium", reason="needs the package selenium")
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from reports.browser import Browser, browser, programs

pytestmark = pytest.mark.browser

HOSTILE = "<script>window.hacked = true</script>.h5"
N = 12
SIZE = 64


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    found = programs()
    if found is None:
        pytest.skip("needs chromium and chromedriver")
    try:
        opened = browser(found, tmp_path_factory.mktemp("profile"))
        with opened as one:
            yield one
    except RuntimeError as error:
        pytest.skip(f"the browser cannot be started: {error}")


@pytest.fixture(autouse=True)
def quiet_console(window: Browser) -> Iterator[None]:
    """Whatever a test does, the page says nothing about errors, and no text of a file has run."""
    window.resize(1280, 900)
    window.errors()
    yield
    assert window.errors() == []
    assert window.run("return window.hacked === undefined")


def certificate(level: str) -> dict[str, JsonValue]:
    reasons: JsonValue = [] if level == "good" else [f"<b>{level}</b>"]
    trace: JsonValue = [[1, 3.0], [2, 2.0], [3, 1.5], [4, 1.4]]
    verdict: JsonValue = {"level": level, "reasons": reasons, "facts": {}}
    mask: JsonValue = {"kind": "random", "realised_acceleration": 4.0}
    return {"status": "converged", "n_iterations": 7, "energy_trace": trace, "verdict": verdict, "mask": mask}


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Slice k is a ramp along x from 0 to k + 1; the zero-filled image is its mirror image, the reference 1 more at one pixel."""
    path = tmp_path_factory.mktemp("result") / "ramps.h5"
    ramp = np.linspace(0, 1, SIZE, dtype=np.float32)
    images = np.stack([np.tile((k + 1) * ramp, (SIZE, 1)) for k in range(N)])
    reference = images.copy()
    reference[:, 10, 20] += 1
    images[7, 0, 0] = images[7, 5, 5]
    write_result(
        path,
        images,
        extras={
            "zero_filled": images[:, :, ::-1].copy(),
            "reference": reference,
            "mask": np.ones((N, SIZE, SIZE), np.uint8),
        },
        certificates=[certificate("unusable" if k == 7 else "good") for k in range(N)],
        provenance={"input": {"name": HOSTILE}, "slices": list(range(20, 20 + N))},
    )
    return path


@pytest.fixture(scope="module")
def page(result: Path) -> Path:
    (written,) = write_pages(result, result.with_suffix(".html"))
    return written


def state(window: Browser, key: str) -> str:
    window.settle()
    return str(window.run(f"return document.querySelector('.viewer').dataset.{key}"))


def value_at(window: Browser, pane: str, row: int, column: int) -> str:
    """Move the mouse to a pixel, and read what stands below the pane."""
    place = window.find(f"[data-pane='{pane}'] canvas")
    side = place.size["width"]
    x, y = ((n + 0.5) / SIZE * side - side / 2 for n in (column, row))
    window.actions().move_to_element_with_offset(place, round(x), round(y)).perform()
    window.settle()
    return window.find(f"[data-pane='{pane}'] .value").text


def test_the_page_opens(window: Browser, page: Path) -> None:
    window.open(page)
    assert window.find("h1").text == f"Reconstruction of {HOSTILE}"
    assert window.find(".summary").text.startswith(
        "UNUSABLE: the image is wrong (1 of 12 slices), because <b>unusable</b>."
    )
    shown = window.run("return [...document.querySelectorAll('.pane:not([hidden])')].map((e) => e.dataset.pane)")
    assert shown == ["reference", "zero_filled", "reconstruction", "error"]
    assert window.find(".viewer .place").text == "slice 26 (7 of 12)"
    assert window.run("return document.querySelectorAll('details[open]').length") == 0


def test_five_steps_of_the_wheel(window: Browser, page: Path) -> None:
    window.open(page, "#slice=20")
    assert state(window, "slice") == "0"
    window.wheel(window.find("[data-pane='reconstruction'] canvas"), 5)
    assert state(window, "slice") == "5"
    assert window.find(".viewer .place").text == "slice 25 (6 of 12)"
    assert value_at(window, "reconstruction", 3, 63) == "6"  # the end of its ramp
    window.wheel(window.find("[data-pane='reconstruction'] canvas"), -2)
    assert state(window, "slice") == "3"


def test_keys(window: Browser, page: Path) -> None:
    window.open(page, "#slice=20")
    window.find(".viewer").send_keys(Keys.ARROW_DOWN, Keys.ARROW_DOWN)
    assert state(window, "slice") == "2"
    window.find(".viewer").send_keys(Keys.END)
    assert state(window, "slice") == str(N - 1)
    window.find(".viewer").send_keys(Keys.ARROW_DOWN)
    assert state(window, "slice") == str(N - 1)
    window.find(".viewer").send_keys(Keys.HOME)
    assert state(window, "slice") == "0"
    window.find(".viewer").send_keys(Keys.SHIFT, Keys.ARROW_RIGHT, Keys.NULL)
    assert window.find(".viewer .status").text == f"row {SIZE // 2}, column {SIZE // 2 + 1}"
    field = window.find("input[aria-label='value shown white']")
    field.send_keys("a")  # keys in a field are text
    assert field.get_attribute("value").endswith("a")


def test_an_unusable_slice_is_shown_as_such(window: Browser, page: Path) -> None:
    window.open(page, "#slice=27")
    verdict = window.find(".viewer .verdict")
    assert verdict.text == "UNUSABLE: <b>unusable</b>"
    assert verdict.get_attribute("data-level") == "unusable"


def test_values_under_the_pointer(window: Browser, page: Path) -> None:
    """In all panes at once; the error is computed by the page."""
    window.open(page, "#slice=24")
    assert value_at(window, "reconstruction", 10, 20) == f"{5 * 20 / 63:.4g}"
    assert window.find("[data-pane='zero_filled'] .value").text == f"{5 * 43 / 63:.4g}"
    assert window.find("[data-pane='error'] .value").text in ("1", "0.9998", "0.9999", "1.000", "0.9997")
    assert window.find(".viewer .status").text == "row 10, column 20"
    value_at(window, "reconstruction", 11, 20)
    assert float(window.find("[data-pane='error'] .value").text) < 1e-3


def test_windowing_changes_pixels_and_comes_back(window: Browser, page: Path) -> None:
    window.open(page)
    before, error = window.pixels("reconstruction"), window.pixels("error")
    place = window.find("[data-pane='reconstruction'] canvas")
    window.actions().move_to_element(place).click_and_hold().move_by_offset(80, 40).release().perform()
    window.actions().move_to_element(window.find("h1")).perform()
    changed = window.pixels("reconstruction")
    assert changed != before
    assert max(changed) < max(before)  # a wider window, and a higher level: darker
    assert window.pixels("error") == error  # another group of panes
    low, high = map(float, state(window, "window").split())
    assert high - low > 8
    window.click("Auto")
    assert window.pixels("reconstruction") == before
    window.click("Invert")
    inverted = window.pixels("reconstruction")
    assert [255 - value for value in inverted] == before
    window.click("Auto")


def test_the_window_by_numbers(window: Browser, page: Path) -> None:
    window.open(page, "#slice=21")
    white = window.find("input[aria-label='value shown white']")
    white.send_keys(Keys.CONTROL, "a", Keys.NULL, "2\n")
    values = window.pixels("reconstruction")
    side = round(len(values) ** 0.5)
    row = values[side // 2 * side : (side // 2 + 1) * side]
    assert row[0] == 0
    assert row[-1] == 255  # the end of the ramp is 2
    assert abs(row[side // 2] - 128) < 5


def test_swipe_shows_both_images(window: Browser, page: Path) -> None:
    window.open(page)
    panes = window.run("return [...document.querySelectorAll('.pane')].map((e) => e.dataset.pane)")
    assert isinstance(panes, list)
    window.click("Swipe")
    assert window.run("return document.querySelectorAll('.pane:not([hidden])').length") == 1
    values = window.pixels("reference")
    side = round(len(values) ** 0.5)
    Select(window.find("select[aria-label='first of two']")).select_by_visible_text("zero-filled")
    Select(window.find("select[aria-label='second of two']")).select_by_visible_text("reconstruction")
    values = window.pixels("zero_filled")
    row = values[side // 2 * side : (side // 2 + 1) * side]
    # A falling ramp up to the middle, a rising one from there: a half of each image.
    half = side // 2
    assert row[5] > row[half - 5] > 0
    assert row[half + 5] < row[-5]
    assert abs(row[half - 5] - row[half + 5]) < 25
    place = window.find("[data-pane='zero_filled'] canvas")
    window.actions().move_to_element_with_offset(place, -side // 2 + 2, 0).perform()
    row = window.pixels("zero_filled")[side // 2 * side : (side // 2 + 1) * side]
    assert row[10] < row[side // 4] < row[side // 2] < row[-5]  # the second image alone
    window.click("Side by side")
    assert window.run("return document.querySelectorAll('.pane:not([hidden])').length") == 4


def test_blink_shows_one_then_the_other(window: Browser, page: Path) -> None:
    window.open(page)
    window.click("Blink")
    titles = {
        str(
            window.wait(
                f"const t = document.querySelector('.pane:not([hidden]) .title').textContent; return t === '{name}' && t"
            )
        )
        for name in ("reference", "reconstruction", "reference")
    }
    assert titles == {"reference", "reconstruction"}
    window.click("Side by side")


def test_region(window: Browser, page: Path) -> None:
    window.open(page, "#slice=20")
    place = window.find("[data-pane='reconstruction'] canvas")
    side = place.size["width"]
    window.click("Region")
    offset = round(side / 4)
    chain = window.actions().move_to_element_with_offset(place, -offset, -offset).click_and_hold()
    chain.move_by_offset(2 * offset, 2 * offset).release().perform()
    window.settle()
    mean, deviation = map(float, window.find("[data-pane='reconstruction'] .value").text.split(" ± "))
    assert mean == pytest.approx(0.5, abs=0.01)
    assert deviation == pytest.approx(0.5 / 12**0.5, abs=0.01)
    assert "region of 3" in window.find(".viewer .status").text


def test_zoom_and_pan(window: Browser, page: Path) -> None:
    window.open(page)
    before = window.pixels("reconstruction")
    window.click("1:1")
    values = window.pixels("reconstruction")
    side = round(len(values) ** 0.5)
    row = values[side // 2 * side : (side // 2 + 1) * side]
    start = (side - SIZE) // 2
    assert len({*row[start + 2 : start + SIZE - 2]}) > SIZE * 0.9  # a pixel of the image is one of the screen
    assert not any(row[: start - 2])
    window.click("Pan")
    place = window.find("[data-pane='reconstruction'] canvas")
    window.actions().move_to_element(place).click_and_hold().move_by_offset(30, 0).release().perform()
    moved = window.pixels("reconstruction")[side // 2 * side : (side // 2 + 1) * side]
    assert moved[start + 30 + SIZE - 1] == row[start + SIZE - 1]
    window.click("Fit")
    window.actions().move_to_element(window.find("h1")).perform()
    assert window.pixels("reconstruction") == before


def test_panes_come_and_go(window: Browser, page: Path) -> None:
    window.open(page)
    window.click("zero-filled")
    shown = "return [...document.querySelectorAll('.pane:not([hidden])')].map((e) => e.dataset.pane)"
    assert window.run(shown) == ["reference", "reconstruction", "error"]
    window.actions().double_click(window.find("[data-pane='error'] canvas")).perform()
    window.settle()
    assert window.run(shown) == ["error"]


def test_pixels_that_are_no_number_are_marked(window: Browser, result: Path, tmp_path: Path) -> None:
    copy = tmp_path / "nan.h5"
    copy.write_bytes(result.read_bytes())
    with h5py.File(copy, "a") as file:
        file["reconstruction"][4, 10, 20:24] = np.nan
    (page,) = write_pages(copy, tmp_path / "nan.html")
    window.open(page, "#slice=24")
    assert window.find(".viewer .verdict").text == "UNUSABLE: 4 pixels are not a number (magenta)"
    assert value_at(window, "reconstruction", 10, 21) == "not a number"
    assert window.find("[data-pane='error'] .value").text == "not a number"
    window.actions().move_to_element(window.find("h1")).perform()
    window.settle()
    colours = window.run(
        "const c = document.querySelector(`[data-pane='reconstruction'] canvas`), s = c.width / 64;"
        "return [...c.getContext('2d').getImageData(Math.round(21.5 * s), Math.round(10.5 * s), 1, 1).data]"
    )
    assert colours == [255, 0, 255, 255]


def test_damaged_data_are_said(window: Browser, page: Path, tmp_path: Path) -> None:
    """A plane that was cut, as by a mail program: the others are shown."""
    text = page.read_text(encoding="utf-8")
    start = text.index('<script type="text/plain">') + len('<script type="text/plain">')
    copy = tmp_path / "cut.html"
    copy.write_text(text[: start + 40] + text[text.index("</script>", start) :], encoding="utf-8")
    window.open(copy, "#slice=20")
    assert window.find(".viewer .failed").text.startswith("These images cannot be shown: ")
    assert value_at(window, "reconstruction", 5, 63) == "1"
    window.wheel(window.find("[data-pane='reconstruction'] canvas"), 1)
    assert state(window, "slice") == "1"


def test_comparison(window: Browser, result: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.h5"
    with h5py.File(result) as file:
        write_result(other, file["reconstruction"][...] + 0.25)
    window.open(write_comparison([result, other], tmp_path / "c.html"), "#slice=20")
    assert value_at(window, "result 2 - result 1", 40, 40) == "0.25"


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 files: one unusable, one far out, one that failed, one with a hostile name."""
    folder = tmp_path_factory.mktemp("batch")
    files = []
    for k in range(39):
        name = HOSTILE.replace("/", "_") if k == 3 else f"scan_{k:03d}.h5"
        write_result(folder / f"{k}.h5", np.full((1, 16, 16), k + 1, np.float32))
        verdict = "unusable" if k == 5 else "good"
        entry = {**certificate(verdict), "misfit_ratio": 8.0 if k == 30 else 1 + k / 1000, "image": {"cost_mean": 2.0}}
        files.append(RunFile(name, folder / f"{k}.h5", {"certificates": [entry]}, seconds=k, memory_bytes=0))
    path = folder / "report.html"
    path.write_text(render(run_report(files, [("lost.h5", "cannot be read")], "knee", Thresholds())), encoding="utf-8")
    return path


def visible(window: Browser) -> list[str]:
    found = window.run(
        "return [...document.querySelectorAll('table.interactive tbody tr:not([hidden])')].map((r) => r.cells[1].textContent)"
    )
    assert isinstance(found, list)
    return found


def test_the_filter_hides_rows(window: Browser, batch: Path) -> None:
    window.open(batch)
    assert len(visible(window)) == 40
    assert HOSTILE.replace("/", "_") in visible(window)
    window.click("unusable (1)")
    assert visible(window) == ["scan_005.h5"]
    window.click("failed (1)")
    assert sorted(visible(window)) == ["lost.h5", "scan_005.h5"]
    assert window.find(".count").text == "2 of 40 rows"
    window.click("Show all")
    window.find("input[type=search]").send_keys("scan_01")
    assert len(visible(window)) == 10
    window.click("Show all")
    assert len(visible(window)) == 40


def test_columns_are_sorted_as_numbers(window: Browser, batch: Path) -> None:
    window.open(batch)
    window.click("misfit over noise")
    window.click("misfit over noise")
    assert visible(window)[0] == "scan_030.h5"
    assert visible(window)[-1] == "lost.h5"  # what has no number comes last
    assert window.find("th[aria-sort]").get_attribute("aria-sort") == "descending"


def test_a_distribution_points_at_its_outliers(window: Browser, batch: Path) -> None:
    window.open(batch)
    bars = window.run("return document.querySelectorAll('.charts figure:first-child g[role=button]').length")
    assert isinstance(bars, int)
    last = f".charts figure:first-child g[role=button]:nth-of-type({bars})"
    window.find(last).click()
    assert visible(window) == ["scan_030.h5"]
    window.find(last).click()
    assert len(visible(window)) == 40


@pytest.mark.parametrize("width", [1280, 3840])
def test_nothing_wraps_inside_a_name_or_a_number(window: Browser, batch: Path, width: int) -> None:
    window.resize(width, 1000)
    window.open(batch)
    heights = window.run(
        "return [...document.querySelectorAll('tbody td:not(.prose)')].filter((c) => !c.querySelector('img'))"
        ".map((c) => { const r = document.createRange(); r.selectNodeContents(c);"
        " return new Set([...r.getClientRects()].map((b) => b.top)).size; })"
    )
    assert isinstance(heights, list)
    assert max(heights) == 1
    overflow = window.run("return document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert overflow == 0  # wide tables scroll by themselves
