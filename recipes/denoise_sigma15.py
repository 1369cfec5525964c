"""Denoising of images with white Gaussian noise of sigma 15 (of 255), with the weights for sigma 25.

`mrisps tune` found beta and lam on small crops of four classical test images. They are a rough choice.
"""

from mrisps.reconstruction.recipe import Card, Recipe
from mrisps.solvers import FastSettings

recipe = Recipe(
    name="denoise_sigma15",
    task="denoise",
    beta=0.812553,
    lam=0.00683273,
    source="mrisps tune, from the recipe denoise_sigma25",
    weights="denoise_sigma25_ncpr",
    weights_sha256="03347a9b1c373b093bda5e65aeae17c0c7eb5447cb9d5f94eabfb1848c8ec727",
    noise_std=0.058823529411764705,
    solver=FastSettings(
        tolerance=0.0005,
        max_iterations=1000,
        image_change=0.006,
        stop="image",
    ),
    description="denoising of white Gaussian noise, sigma 15 of 255",
    card=Card(
        score=30.425,
        metric="PSNR",
        data=("Set12, the central 48 x 48 pixels of 4 of its images (02, 05, 08, 11), data range 1"),
        n_slices=4,
        date="2026-11-25",
        how=(
            "mrisps tune denoise_sigma25 from beta 0.6, lam 0.006 (30.25 dB), method model, 28 "
            "solves, seed 0; all converged; scored on the crops it was tuned on"
        ),
    ),
)
