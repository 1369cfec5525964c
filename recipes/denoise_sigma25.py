"""Denoising of images with white Gaussian noise of sigma 25 (of 255).

beta and lam are those that were learned with the weights of the package. The authors' weights of the same kind have
beta 0.97796 and lam 0.0125.
"""

from mrisps.reconstruction.recipe import Card, Recipe
from mrisps.solvers import FastSettings

recipe = Recipe(
    name="denoise_sigma25",
    description="denoising of white Gaussian noise, sigma 25 of 255",
    task="denoise",
    beta=0.601664,
    lam=0.00980447,
    source="the weights themselves",
    weights="denoise_sigma25_ncpr",
    weights_sha256="03347a9b1c373b093bda5e65aeae17c0c7eb5447cb9d5f94eabfb1848c8ec727",
    noise_std=25 / 255,
    solver=FastSettings(
        tolerance=5e-4,
        max_iterations=1000,
        continuation_start=1.0,
        image_change=0.025,
        stop="image",
    ),
    card=Card(
        score=29.62,
        metric="PSNR",
        data="Set12, 12 whole images, data range 1",
        n_slices=12,
        date="2026-11-25",
        how="beta and lam as trained on other images; not tuned again",
    ),
)
