"""Denoising beside what a user would pick instead: BM3D (package `bm3d`), and scikit-image's non-local means and total variation.

    python benchmarks/denoising.py --images FOLDER [--size 512] [--sigma 25]

Every image of that size (y and x) in FOLDER gets white Gaussian noise (of 255); all methods see the same noise and are told its
level, one after the other in one run. Ours: the weights of the package, with every patch and with every second patch of every
second row (stride 2), to the tolerances that are asked for. PSNR is with data range 1 after clipping; seconds are wall-clock,
processor seconds beside them. Writes ``benchmarks/results/denoising.json``.

`pip install bm3d` (for non-commercial use only, so it is no requirement of the project); without it that row is left out.
"""

import argparse
import itertools
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.restoration import denoise_nl_means, denoise_tv_chambolle

from mrisps.io.images import read_image
from mrisps.model import PriorUse, SmoothPlusSparse
from mrisps.model.shipped import shipped_weights
from mrisps.operators import Identity
from mrisps.quality.metrics import psnr
from mrisps.reconstruction.recipe import load_recipe
from mrisps.solvers import solve

RESULTS = Path(__file__).parent / "results" / "denoising.json"
Image = NDArray[np.float32]
Denoiser = Callable[[Image, float], tuple[Image, dict[str, object]]]


def ours(weights: Path, tolerance: float, stride: int) -> Denoiser:
    model = SmoothPlusSparse.load(weights)
    settings = replace(load_recipe("denoise_sigma25").solver, stop="stationary", tolerance=tolerance, trace_interval=0)

    def denoise(noisy: Image, sigma: float) -> tuple[Image, dict[str, object]]:
        y = torch.from_numpy(noisy)[None, None]
        result = solve(Identity(noisy.shape), y, model, settings, use=PriorUse(stride), noise_std=sigma)
        certificate = result.certificate
        facts = {
            "status": certificate.status,
            "iterations": certificate.n_iterations,
            "residual": certificate.residual_a,
        }
        return result.image[0, 0].numpy(), facts

    return denoise


def non_local_means(noisy: Image, sigma: float) -> tuple[Image, dict[str, object]]:
    """With the settings of scikit-image's own example for a known noise level."""
    return denoise_nl_means(noisy, h=0.6 * sigma, sigma=sigma, fast_mode=True, patch_size=5, patch_distance=6), {}


def total_variation(noisy: Image, sigma: float) -> tuple[Image, dict[str, object]]:
    """The weight is 1.2 sigma: about the best on these images, to its advantage."""
    return denoise_tv_chambolle(noisy, weight=1.2 * sigma, max_num_iter=300), {}


def denoisers(tolerances: list[float]) -> dict[str, Denoiser]:
    found: dict[str, Denoiser] = {"non-local means": non_local_means, "total variation": total_variation}
    try:
        from bm3d import bm3d
    except ImportError:
        print("no BM3D: pip install bm3d")
    else:
        found = {"BM3D": lambda noisy, sigma: (bm3d(noisy, sigma).astype(np.float32), {}), **found}
    for name in ("denoise_sigma25_ncpr", "denoise_sigma25_cpr"):
        for stride, tolerance in itertools.product((1, 2), tolerances):
            every = ", stride 2" if stride == 2 else ""
            found[f"{name}{every}, {tolerance:g}"] = ours(shipped_weights()[name], tolerance, stride)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--sigma", type=float, default=25.0)
    parser.add_argument("--tolerance", type=float, action="append", default=[], help="default: 1e-2, 1e-3 and 1e-4")
    parser.add_argument("--limit", type=int, default=None, help="only the first so many images")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--only", help="only methods whose name has this in it; prints, writes nothing")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    images = {path.stem: read_image(path) for path in sorted(arguments.images.glob("*.png"))}
    images = {name: image for name, image in images.items() if image.shape == (arguments.size, arguments.size)}
    images = dict(list(images.items())[: arguments.limit])
    if not images:
        raise SystemExit(f"no image of {arguments.size} x {arguments.size} in {arguments.images}")
    sigma = arguments.sigma / 255
    rows = []
    for method, denoise in denoisers(arguments.tolerance or [1e-2, 1e-3, 1e-4]).items():
        if arguments.only and arguments.only not in method:
            continue
        for name, clean in images.items():
            noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(25)).numpy()
            noisy = (clean + sigma * noise).astype(np.float32)
            started, processor = time.perf_counter(), time.process_time()
            image, facts = denoise(noisy, sigma)
            seconds, processor = time.perf_counter() - started, time.process_time() - processor
            quality = psnr(np.clip(image, 0, 1).astype(np.float32), clean, data_range=1.0)
            rows.append(
                {
                    "method": method,
                    "image": name,
                    "psnr": quality,
                    "seconds": seconds,
                    "processor_seconds": processor,
                    **facts,
                }
            )
        mine = rows[-len(images) :]
        mean = {
            key: float(np.mean([float(str(row[key])) for row in mine]))
            for key in ("psnr", "seconds", "processor_seconds")
        }
        more = (
            f", {np.mean([row['iterations'] for row in mine]):.0f} iterations, {mine[0]['status']}"
            if "status" in mine[0]
            else ""
        )
        print(
            f"{method:38s} {mean['psnr']:.2f} dB, {mean['seconds']:.1f} s ({mean['processor_seconds']:.1f} s of processors){more}",
            flush=True,
        )
    if arguments.only:
        return
    RESULTS.write_text(
        json.dumps(
            {"threads": torch.get_num_threads(), "sigma": arguments.sigma, "size": arguments.size, "rows": rows},
            indent=1,
        )
        + "\n"
    )


if __name__ == "__main__":
    main()
