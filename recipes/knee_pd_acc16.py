"""Single-coil knee, proton-density weighted, 16-fold undersampled columns.

beta and lam are what the paper's authors tuned on their validation slices for NCPR weights of the same kind
(``best_hyperparams.txt`` of the repository StanislasDucotterd/Smooth_Plus_Sparse_Model); the weights that come with the package
have their thresholds in the same unit, so that the numbers carry over. They serve the authors' own weights too.
"""

from mrisps.pipeline.recipe import Card, MaskRule, Recipe, ScaleRule
from mrisps.solvers import FastSettings

recipe = Recipe(
    name="knee_pd_acc16",
    description="single-coil knee PD, 16-fold column undersampling",
    task="mri",
    beta=0.000515129,  # MRI acc_16_cf_0.02 - PD, NCPR
    lam=0.000602426,  # MRI acc_16_cf_0.02 - PD, NCPR
    source="best_hyperparams.txt of the authors, 'MRI acc_16_cf_0.02 - PD, NCPR'; scale: mean over 10 slices",
    weights="denoise_sigma25_ncpr",
    weights_sha256="03347a9b1c373b093bda5e65aeae17c0c7eb5447cb9d5f94eabfb1848c8ec727",
    image="from_file",
    scale=ScaleRule(percentile=99.9, reference=0.4862),
    mask=MaskRule(kind="random", acceleration=16, center_fraction=0.02, seed=0),  # used with --undersample only
    nonnegative=True,  # once, at the end (the authors: in every step); only real images are affected
    solver=FastSettings(
        tolerance=5e-4,
        max_iterations=2000,
        continuation_start=32.0,
        continuation_decay=0.97,
        image_change=0.05,
        levels=3,
    ),
    card=Card(
        score=23.0,
        metric="PSNR",
        data="the paper's PD validation slices, scale 1, central 320 x 320, data range 1",
        n_slices=10,
        date="2026-11-24",
        how="beta and lam tuned by the authors on these slices; measured with the authors' weights (sigma 25), not the package's",
    ),
)

if __name__ == "__main__":
    from mrisps.cli.main import run_recipe

    raise SystemExit(run_recipe(__file__))
