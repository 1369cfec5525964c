"""Denoising of images with white Gaussian noise of sigma 25 (of 255).

beta is the value that the authors' NCPR weights of sigma 25 were trained to (0.97803, in their checkpoint), lam the one that
they were trained with (``lambda_init`` of their configuration). Use them with those weights: other weights need their own.
"""

from mrisps.pipeline.recipe import Recipe
from mrisps.solvers import FastSettings

recipe = Recipe(
    name="denoise_sigma25",
    description="denoising of white Gaussian noise, sigma 25 of 255",
    task="denoise",
    beta=0.9779585,  # checkpoint sigma_25/NCPR, beta
    lam=0.0125,  # checkpoint sigma_25/NCPR, lambda_init
    source="the authors' checkpoint sigma_25/NCPR",
    noise_std=25 / 255,
    solver=FastSettings(tolerance=1e-4, max_iterations=1000, continuation_start=1.0),
)

if __name__ == "__main__":
    from mrisps.cli.main import run_recipe

    raise SystemExit(run_recipe(__file__))
