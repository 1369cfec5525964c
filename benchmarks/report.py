"""How large the pages are, how soon one can work with them, and how quick they are, without a graphics card.

    python benchmarks/report.py [--keep FOLDER]

A volume of 30 slices of 320 x 320 with every pane, and a batch of 1,000 files. The images are noise on smooth shapes; noise is what
makes pages large. Times in the browser need Chromium and chromedriver. The numbers of docs/lab/reports.md come from here.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from reports.browser import Browser, browser, programs

from mrisps.io.json_text import JsonValue
from mrisps.io.result_file import ResultWriter
from mrisps.reports.flags import RunFile, Thresholds
from mrisps.reports.html import render
from mrisps.reports.results import write_pages
from mrisps.reports.run import run_report

N_SLICES, SIZE, N_FILES, SECONDS = 30, 320, 1000, 4
NOISE = 0.01
"""Of the reference, over its largest pixel; the reconstruction has half of it."""


def slices(rng: np.random.Generator) -> dict[str, NDArray[np.generic]]:
    """A head-like shape with detail in a dark surrounding, and everything that a result may hold."""
    y, x = np.mgrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j]
    inside = (x / 0.75) ** 2 + (y / 0.9) ** 2 < 1
    shape = inside * (0.5 + 0.2 * np.sin(17 * x * y) * np.cos(23 * y) + 0.3 * np.exp(-((x**2 + y**2) * 3)))

    def noise(level: float) -> NDArray[np.complex128]:
        return level * (rng.normal(size=shape.shape) + 1j * rng.normal(size=shape.shape))

    image = (shape + noise(NOISE / 2)) * np.exp(1j * (x + y))
    sparse = inside * noise(NOISE)
    tile = np.exp(-((x[::4, ::4] - 0.7) ** 2 + y[::4, ::4] ** 2))
    columns = np.zeros((SIZE, SIZE), np.uint8)
    columns[:, ::4] = columns[:, 148:172] = 1
    return {
        "image": image.astype(np.complex64),
        "smooth": (image - sparse).astype(np.complex64),
        "sparse": sparse.astype(np.complex64),
        "cost_map": np.where(np.abs(sparse) > NOISE, np.abs(sparse), 0).astype(np.float32),
        "zero_filled": np.abs(image + 0.4 * np.roll(image, 80, axis=1)).astype(np.float32),
        "reference": np.abs(shape + noise(NOISE)).astype(np.float32),
        "mask": columns,
        "coil_maps": np.tile(tile, (4, 4)).astype(np.float16),
    }


def certificate(rng: np.random.Generator) -> dict[str, JsonValue]:
    level = "check" if rng.random() < 0.05 else "good"
    reasons: list[JsonValue] = ["26.0% of the energy of the image lies where k-space was not measured"]
    return {
        "status": "converged",
        "n_iterations": 50,
        "misfit_ratio": float(rng.lognormal(0, 0.1)),
        "mask": {"kind": "equispaced", "realised_acceleration": 3.4},
        "image": {"cost_mean": float(rng.lognormal()), "edge_energy": 0.1, "peak_over_noise": 50.0},
        "verdict": {"level": level, "reasons": reasons if level == "check" else [], "facts": {}},
    }


def frames(window: Browser, action: str) -> float:
    """Frames a second while something is done in every frame; a browser draws 60 at most."""
    found = window.driver.execute_async_script(
        "const [seconds, done] = arguments, root = document.querySelector('.viewer');"
        "const canvas = document.querySelector('[data-pane=reconstruction] canvas');"
        "const send = (kind, x) => canvas.dispatchEvent(new PointerEvent(kind, {clientX: x, clientY: 300, bubbles: true}));"
        "const before = Number(root.dataset.frames), start = performance.now(); let n = 0;"
        "canvas.setPointerCapture = () => {}; send('pointerdown', 500);"
        "const step = () => { n += 1; " + action + ";"
        "  if (performance.now() - start < 1000 * seconds) requestAnimationFrame(step);"
        "  else { send('pointerup', 500);"
        "    done(1000 * (Number(root.dataset.frames) - before) / (performance.now() - start)); } };"
        "requestAnimationFrame(step);",
        SECONDS,
    )
    return float(found)


def ready(window: Browser, page: Path) -> tuple[float, float]:
    """Seconds from asking for a page until it answers, and processor time of the page's thread until then."""
    window.driver.get("about:blank")
    window.driver.execute_cdp_cmd("Performance.enable", {})
    start = time.perf_counter()
    window.open(page)
    seconds = time.perf_counter() - start
    metrics = window.driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    return seconds, next(float(each["value"]) for each in metrics if each["name"] == "ThreadTime")


def volume_page(folder: Path, rng: np.random.Generator) -> Path:
    with ResultWriter(folder / "volume.h5", N_SLICES) as writer:
        for k in range(N_SLICES):
            extras = slices(rng)
            image = extras.pop("image").astype(np.complex64)
            writer.write_slice(k, image, extras, certificate(rng))
    start = time.process_time()
    (page,) = write_pages(folder / "volume.h5", folder / "volume.html")
    seconds = time.process_time() - start
    print(f"volume: {page.stat().st_size / 1e6:.1f} MB, written in {seconds:.1f} s of processor time")
    print(f"  the result file has {(folder / 'volume.h5').stat().st_size / 1e6:.1f} MB")
    return page


def batch_page(folder: Path, rng: np.random.Generator) -> Path:
    paths = []
    for k in range(8):
        paths.append(folder / f"{k}.h5")
        with h5py.File(paths[-1], "w") as file:
            file["reconstruction"] = np.abs(slices(rng)["image"])[np.newaxis].astype(np.float32)
    files = []
    for k in range(N_FILES):
        record: dict[str, JsonValue] = {"certificates": [certificate(rng)], "provenance": {"slices": [0]}}
        files.append(
            RunFile(f"subject_{k:04d}/knee_pd.h5", paths[k % 8], record, float(rng.lognormal(3, 0.2)), 1 << 29)
        )
    start = time.process_time()
    page = folder / "report.html"
    page.write_text(render(run_report(files, [("subject_x/knee.h5", "cannot be read")], "knee", Thresholds())), "utf-8")
    seconds = time.process_time() - start
    print(f"batch of {N_FILES}: {page.stat().st_size / 1e6:.1f} MB, written in {seconds:.1f} s of processor time")
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the pages here")
    keep = parser.parse_args().keep
    found = programs()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) if keep is None else keep
        folder.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(0)
        volume, batch = volume_page(folder, rng), batch_page(folder, rng)
        if found is None:
            print("no chromium with chromedriver: no times in the browser")
            return
        with browser(found, Path(temporary) / "profile") as window:
            seconds, processor = sorted(ready(window, volume) for _ in range(5))[2]
            print(f"volume: {seconds:.2f} s until it answers (median of 5), {processor:.2f} s of processor time")
            window.driver.set_script_timeout(60)
            width = "send('pointermove', 500 + 100 * Math.sin(n / 9))"
            print(f"  four panes of {window.run('return document.querySelector(`.pane canvas`).width')} pixels:")
            print(f"  {frames(window, width):.0f} frames a second while windowing")
            turn = "canvas.dispatchEvent(new WheelEvent('wheel', {deltaY: n % 58 < 29 ? 100 : -100, cancelable: true}))"
            print(f"  {frames(window, turn):.0f} a second while turning the wheel, a slice each")
            window.resize(3840, 2160)
            print(f"  {frames(window, width):.0f} while windowing in a window of 3840 x 2160")
            window.resize(1280, 900)
            seconds, processor = sorted(ready(window, batch) for _ in range(5))[2]
            print(f"batch: {seconds:.2f} s until it answers (median of 5), {processor:.2f} s of processor time")
            start = time.perf_counter()
            window.click("misfit over noise")
            print(f"  sorted in {time.perf_counter() - start:.2f} s")


if __name__ == "__main__":
    main()
