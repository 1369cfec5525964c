"""Denoising of images with white Gaussian noise of sigma 5 (of 255), with the weights for sigma 5.

`mrisps tune` found beta and lam on small crops of three classical test images. They are a rough choice. Those that were
learned with the weights are 0.1906 and 0.0017.
"""

from mrisps.reconstruction.recipe import Card, Recipe
from mrisps.solvers import FastSettings

recipe = Recipe(
    name="denoise_sigma5",
    task="denoise",
    beta=0.3812,
    lam=0.0017,
    source="mrisps tune, from the recipe denoise_sigma25",
    weights="denoise_sigma5_ncpr",
    weights_sha256="9cd3d346768f1aaf0869418984e8358bb1359af7c495afb28824219a54af4929",
    noise_std=0.0196078431372549,
    solver=FastSettings(
        tolerance=0.0005,
        max_iterations=1000,
        image_change=0.0045,
        stop="image",
    ),
    description="denoising of white Gaussian noise, sigma 5 of 255",
    card=Card(
        score=36.675,
        metric="PSNR",
        data="Set12, the central 48 x 48 pixels of 3 of its images (03, 07, 11), data range 1",
        n_slices=3,
        date="2026-11-25",
        how=(
            "mrisps tune denoise_sigma25 from beta 0.1906, lam 0.0017 (36.63 dB), method model, 18 "
            "solves, seed 0; all converged; scored on the crops it was tuned on"
        ),
    ),
)
