"""Denoising of images with white Gaussian noise of sigma 50 (of 255), with the weights for sigma 25.

beta and lam are a guess: `mrisps tune` measured eight pairs on small crops of three classical test images, and none was
better.
"""

from mrisps.reconstruction.recipe import Card, Recipe
from mrisps.solvers import FastSettings

recipe = Recipe(
    name="denoise_sigma50",
    task="denoise",
    beta=1.0,
    lam=0.02,
    source="mrisps tune, from the recipe denoise_sigma25",
    weights="denoise_sigma25_ncpr",
    weights_sha256="03347a9b1c373b093bda5e65aeae17c0c7eb5447cb9d5f94eabfb1848c8ec727",
    noise_std=0.19607843137254902,
    solver=FastSettings(
        tolerance=0.0005,
        max_iterations=1000,
        image_change=0.01,
        stop="image",
    ),
    description="denoising of white Gaussian noise, sigma 50 of 255",
    card=Card(
        score=24.455,
        metric="PSNR",
        data="Set12, the central 48 x 48 pixels of 3 of its images (03, 07, 11), data range 1",
        n_slices=3,
        date="2026-11-25",
        how=(
            "mrisps tune denoise_sigma25 from beta 1, lam 0.02 (24.45 dB), method model, 24 solves, "
            "seed 0; all converged; scored on the crops it was tuned on"
        ),
    ),
)
