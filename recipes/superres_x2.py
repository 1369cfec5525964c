"""Super-resolution x2: 8 x 8 Gaussian blur (sigma 1), every second pixel, noise 0.01 of the maximum.

`mrisps tune` found beta and lam on one crop of one image. They are a rough choice. The other settings are those of the
recipe for x4.
"""

from mrisps.reconstruction.recipe import BlurRule, Card, Recipe
from mrisps.solvers import FastSettings

recipe = Recipe(
    name="superres_x2",
    task="superres",
    beta=0.00342803,
    lam=0.00159671,
    source="mrisps tune, from the recipe superres_x4",
    weights="denoise_sigma25_ncpr",
    weights_sha256="03347a9b1c373b093bda5e65aeae17c0c7eb5447cb9d5f94eabfb1848c8ec727",
    blur=BlurRule(kernel_size=8, sigma=1.0, stride=2),
    noise_std=0.01,
    nonnegative=True,
    solver=FastSettings(tolerance=0.001, continuation_start=32.0, continuation_decay=0.92, levels=2, stop="image"),
    description="super-resolution x2 of a blurred, downsampled image",
    card=Card(
        score=36.096,
        metric="PSNR",
        data=(
            "the central 72 x 72 pixels of one natural image (the validation image of the paper for "
            "x4), without a border of 8, data range 1"
        ),
        n_slices=1,
        date="2026-11-26",
        how=(
            "mrisps tune superres_x4 from beta 0.00258673, lam 0.000929068 (35.44 dB), method model, "
            "8 solves, seed 0; all converged; scored on the crop it was tuned on, with the present settings of the solver"
        ),
    ),
)
