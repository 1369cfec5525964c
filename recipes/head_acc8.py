"""Single-coil head, 8-fold variable-density Poisson disc: two phase-encoding directions, as in a 3D scan.

The demonstration uses this recipe. beta and lam come from a coarse grid on one simulated T1 head, another one than the
demonstration's. Do not use it for patients.
"""

from mrisps.reconstruction.recipe import MaskRule, Recipe, ScaleRule
from mrisps.solvers import FastSettings

recipe = Recipe(
    name="head_acc8",
    description="single-coil head, 8-fold Poisson disc",
    task="mri",
    beta=0.02,
    lam=0.0005,
    source="coarse grid on a simulated T1 head",
    weights="denoise_sigma25_ncpr",
    weights_sha256="03347a9b1c373b093bda5e65aeae17c0c7eb5447cb9d5f94eabfb1848c8ec727",
    image="from_file",
    scale=ScaleRule(percentile=99.9, reference=0.46),
    mask=MaskRule(kind="poisson", acceleration=8, center_fraction=0.08, seed=0),  # used with --undersample only
    nonnegative=True,
    solver=FastSettings(
        tolerance=1e-3,
        max_iterations=1000,
        continuation_start=32.0,
        continuation_decay=0.95,
        stop="image",
    ),
)
