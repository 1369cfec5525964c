"""Single-coil knee, proton-density weighted, 4-fold undersampled columns with 8 % of them in the centre.

`mrisps tune` found beta and lam on k-space that was simulated from two reference images without noise. Everything else
is as in the recipe for 8-fold columns. It is a starting point: tune it on scans of your own.
"""

from mrisps.model import PriorUse
from mrisps.reconstruction.recipe import Card, MaskRule, Recipe, ScaleRule
from mrisps.solvers import FastSettings

recipe = Recipe(
    name="knee_pd_acc4",
    task="mri",
    beta=0.0134183,
    lam=0.000576885,
    source="mrisps tune, from the recipe knee_pd_acc8",
    weights="denoise_sigma25_ncpr",
    weights_sha256="03347a9b1c373b093bda5e65aeae17c0c7eb5447cb9d5f94eabfb1848c8ec727",
    prior=PriorUse(stride=2),
    scale=ScaleRule(percentile=99.9, reference=0.6057),
    mask=MaskRule(kind="random", acceleration=4.0, center_fraction=0.08),
    nonnegative=True,
    solver=FastSettings(
        tolerance=0.0005,
        continuation_start=32.0,
        image_change=0.025,
        levels=3,
        stop="image",
    ),
    description="single-coil knee PD, 4-fold column undersampling",
    card=Card(
        score=33.72,
        metric="PSNR",
        data=(
            "two 320 x 320 reference images (PD) of the paper's validation slices, whose Fourier transform is "
            "taken as k-space, no noise added; data range: the maximum of each"
        ),
        n_slices=2,
        date="2026-11-25",
        how=(
            "mrisps tune knee_pd_acc8 from beta 0.0189763, lam 0.0013139, method model, 14 solves, seed 0, "
            "on the central 64 rows of the same two images with every patch counted; all converged"
        ),
    ),
)
