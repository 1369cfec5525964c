"""Multi-coil brain, 8-fold undersampled columns with 8 % of them in the centre.

beta and lam were found by `mrisps tune` on two fully sampled brains with 8 coils; everything else is that of the recipe for 4-fold
columns.
"""

from mrisps.kspace.settings import CoilCompression, Preparation
from mrisps.model import PriorUse
from mrisps.reconstruction.recipe import Card, MaskRule, Recipe, ScaleRule
from mrisps.solvers import FastSettings

recipe = Recipe(
    name="brain_multicoil_acc8",
    task="mri",
    beta=0.015,
    lam=0.0015,
    source="mrisps tune, from the recipe brain_multicoil_acc4",
    weights="denoise_sigma25_ncpr",
    weights_sha256="03347a9b1c373b093bda5e65aeae17c0c7eb5447cb9d5f94eabfb1848c8ec727",
    image="complex",
    scale=ScaleRule(percentile=99.5, reference=1.0),
    mask=MaskRule(kind="random", acceleration=8.0, center_fraction=0.08),
    preparation=Preparation(compression=CoilCompression(n_coils=4, method="geometric")),
    prior=PriorUse(stride=2),
    solver=FastSettings(
        tolerance=0.003,
        max_iterations=400,
        continuation_start=32.0,
        continuation_decay=0.88,
        image_tolerance=0.001,
        trace_interval=0,
        image_change=0.025,
        stop="image",
    ),
    description="multi-coil brain, 8-fold column undersampling",
    card=Card(
        score=26.44,
        metric="PSNR",
        data=(
            "two fully sampled 8-coil brains (25.79 and 27.10 dB), seed 0, magnitude, data range: the maximum, reference: the "
            "SENSE image of all of k-space with maps of its central 48 x 48 samples"
        ),
        n_slices=2,
        date="2026-11-26",
        how="beta and lam by mrisps tune on the same two brains with an earlier calibration; measured with the present one",
    ),
)
