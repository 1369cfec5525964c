"""Denoising and super-resolution on images, with given weights: PSNR, seconds, iterations.

    python benchmarks/images.py denoise --images set12/ --weights sigma_25_NCPR.pth --weights sigma_25_CPR.pth --sigma 25
    python benchmarks/images.py superres --images val/ --weights sigma_25_NCPR.pth --beta 0.00258673 --lam 0.000929068

The noise of an image depends on its size alone, so it is the same for all weights. Denoising takes beta and lam from the weights.
PSNR is with data range 1, after clipping to [0, 1]; for super-resolution a border of 40 pixels is left out, as in the paper.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from mrisps.io.images import read_image
from mrisps.model import SmoothPlusSparse
from mrisps.operators import BlurDownsample, Identity, LinearOperator
from mrisps.quality.metrics import psnr
from mrisps.reconstruction.recipe import load_recipe
from mrisps.solvers import FastSettings, solve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=("denoise", "superres"))
    parser.add_argument("--images", type=Path, required=True, help="folder of grey PNG images")
    parser.add_argument("--weights", type=Path, action="append", required=True)
    parser.add_argument(
        "--sigma", type=float, default=None, help="noise, of 255; default 25 (denoise), 2.55 (superres)"
    )
    parser.add_argument("--beta", type=float, default=None)
    parser.add_argument("--lam", type=float, default=None)
    parser.add_argument("--tolerance", type=float, default=None)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--output", type=Path, default=None, help="JSON lines, appended to")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    superres = arguments.task == "superres"
    recipe = load_recipe("superres_x4" if superres else "denoise_sigma25")
    settings: FastSettings = replace(recipe.solver, stop="stationary")
    if arguments.tolerance is not None:
        settings = replace(settings, tolerance=arguments.tolerance)
    sigma = (arguments.sigma if arguments.sigma is not None else (2.55 if superres else 25.0)) / 255
    border = 40 if superres else 0
    for weights in arguments.weights:
        model = SmoothPlusSparse.load(weights).with_regularisation(beta=arguments.beta, lam=arguments.lam)
        rows = []
        for path in sorted(arguments.images.glob("*.png")):
            clean = torch.from_numpy(read_image(path))[None, None]
            shape = (clean.shape[2], clean.shape[3])
            operator: LinearOperator = BlurDownsample(shape) if superres else Identity(shape)
            measured = operator.forward(clean)
            noise = torch.randn(measured.shape, generator=torch.Generator().manual_seed(25))
            started = time.perf_counter()
            result = solve(operator, measured + sigma * noise, model, settings, noise_std=sigma)
            seconds = time.perf_counter() - started
            inner = slice(border, -border or None)
            image = result.image[0, 0, inner, inner].clamp(0, 1).numpy()
            target = clean[0, 0, inner, inner].numpy()
            row = {
                "task": arguments.task,
                "weights": weights.stem,
                "image": path.stem,
                "shape": list(clean.shape[2:]),
                "psnr": psnr(image, target, data_range=1.0),
                "seconds": seconds,
                **result.certificate.to_dict(),
            }
            if not superres:
                noisy = (measured + sigma * noise)[0, 0].clamp(0, 1).numpy()
                row["psnr_noisy"] = psnr(noisy, target, data_range=1.0)
            rows.append(row)
            print(
                f"{weights.stem} {path.stem} {clean.shape[2]} x {clean.shape[3]}: {row['psnr']:.3f} dB, {result.certificate}"
            )
            if arguments.output is not None:
                with arguments.output.open("a") as stream:
                    stream.write(json.dumps(row) + "\n")
        mean = np.mean([row["psnr"] for row in rows])
        print(
            f"{weights.stem}: mean of {len(rows)}: {mean:.3f} dB, {np.mean([row['seconds'] for row in rows]):.1f} s an image"
        )


if __name__ == "__main__":
    main()
