"""Magnitude images of knees, undersampled by the mask rule of a recipe: the recipe as it is, beside other weights, beta and lam.

    python benchmarks/knees.py FOLDER [--recipe NAME] [--also WEIGHTS[:BETA:LAM]] [--certify] [--images N]

FOLDER holds images (y, x) that nothing was trained on. Each is divided by its maximum, and measured with a mask and a noise of its
own. PSNR with data range 1. Without BETA and LAM, those of the weights count. ``--certify``: also what a minimiser has.
``--without-attention``: also the weights without theirs.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from mrisps.io.images import read_image
from mrisps.model import SmoothPlusSparse
from mrisps.operators import FourierSubsampling
from mrisps.quality.metrics import psnr
from mrisps.reconstruction.recipe import certified, load_recipe
from mrisps.reconstruction.weights import find_weights
from mrisps.sampling import make_mask
from mrisps.solvers import solve

NOISE = 0.002


def weights_of(text: str) -> SmoothPlusSparse:
    name, *numbers = text.split(":")
    model = SmoothPlusSparse.load(name)
    return model.with_regularisation(beta=float(numbers[0]), lam=float(numbers[1])) if numbers else model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--recipe", default="knee_pd_acc4")
    parser.add_argument("--also", action="append", default=[], metavar="WEIGHTS[:BETA:LAM]")
    parser.add_argument(
        "--without-attention", action="store_true", help="also the same weights without their attention"
    )
    parser.add_argument("--certify", action="store_true")
    parser.add_argument("--images", type=int)
    a = parser.parse_args()
    recipe = load_recipe(a.recipe)
    assert recipe.mask is not None
    own = find_weights(None, recipe, a.recipe).model.with_regularisation(beta=recipe.beta, lam=recipe.lam)
    ways = {a.recipe: (own, recipe.solver), **{text: (weights_of(text), recipe.solver) for text in a.also}}
    if a.without_attention:
        ways[f"{a.recipe}, without attention"] = own.with_attention(None), recipe.solver
    if a.certify:
        ways[f"{a.recipe}, certified"] = own, certified(recipe).solver
    found: dict[str, list[float]] = {name: [] for name in ways}
    for number, path in enumerate(sorted(a.folder.glob("*.png"))[: a.images]):
        image = read_image(path)
        image = image / image.max()
        mask = make_mask(
            recipe.mask.kind, image.shape, recipe.mask.acceleration, recipe.mask.center_fraction, seed=100 + number
        )
        operator = FourierSubsampling(mask, image.shape, torch.float32)
        clean = operator(torch.from_numpy(image)[None, None])
        noise = torch.randn(clean.shape, dtype=clean.dtype, generator=torch.Generator().manual_seed(number))
        y = (clean + 2**0.5 * NOISE * noise) * operator.mask
        for name, (model, settings) in ways.items():
            result = solve(operator, y, model, settings, use=recipe.prior, noise_std=NOISE)
            shown = np.maximum(result.image[0, 0].numpy(), 0)
            found[name].append(psnr(shown, image, data_range=1.0))
            certificate = result.certificate
            text = f"{found[name][-1]:.2f} dB, {certificate.n_iterations} iterations, {certificate.status}"
            print(f"{path.stem:14s} {name:44s} {text}", flush=True)
    for name, values in found.items():
        print(f"{'mean':14s} {name:44s} {np.mean(values):.2f} dB, worst {min(values):.2f} dB, {len(values)} images")


if __name__ == "__main__":
    main()
