"""Single-coil knee, proton-density weighted, 16-fold undersampled columns.

The weights were specialised on 8-fold columns, and beta and lam were learned with them (``train_knee``). They serve
at 4-, 8- and 16-fold as they are; their attention is not asked at 16-fold. For weights that were learned on
denoising, the authors of the paper tuned beta 0.000515129 and lam 0.000602426 on their validation slices.
"""

from mrisps.model import PriorUse
from mrisps.reconstruction.recipe import Card, MaskRule, Recipe, ScaleRule
from mrisps.solvers import FastSettings

recipe = Recipe(
    name="knee_pd_acc16",
    description="single-coil knee PD, 16-fold column undersampling",
    task="mri",
    beta=0.0133915,
    lam=0.0013139,
    source="learned with the weights at 8-fold; scale: mean over 10 slices",
    weights="knee",
    weights_sha256="34d5a83b70847f8d9b6f126923830bd1d7c9ce02a50055d78be908e50558383c",
    image="from_file",
    prior=PriorUse(stride=2),
    scale=ScaleRule(percentile=99.9, reference=0.4862),
    mask=MaskRule(kind="random", acceleration=16, center_fraction=0.02, seed=0),  # used with --undersample only
    nonnegative=True,  # once, at the end (the authors: in every step); only real images are affected
    solver=FastSettings(
        tolerance=5e-4,
        max_iterations=2000,
        continuation_start=32.0,
        continuation_decay=0.97,
        image_change=0.02,
        attention_iterations=None,  # 20 iterations are too few for a look at 16-fold
        levels=3,
        stop="image",
    ),
    card=Card(
        score=23.91,
        metric="PSNR",
        data="PD validation slices of the paper, not trained on; columns of zeros not acquired; scale 1; central 320 x 320",
        n_slices=10,
        date="2026-11-26",
        how="weights, beta and lam were learned at 8-fold on other knees (train_knee); nothing was tuned here",
    ),
)
