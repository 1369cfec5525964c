"""Single-coil knee, proton-density weighted, 8-fold undersampled columns.

The weights were specialised on 8-fold columns, and beta and lam were learned with them (``train_knee``). Their
attention was learned at 4- to 24-fold (``train_knee_attention``). For weights that were learned on denoising, the
authors of the paper tuned beta 0.0189763 and lam 0.0013139 on their validation slices.
"""

from mrisps.model import PriorUse
from mrisps.reconstruction.recipe import Card, MaskRule, Recipe, ScaleRule
from mrisps.solvers import FastSettings

recipe = Recipe(
    name="knee_pd_acc8",
    description="single-coil knee PD, 8-fold column undersampling",
    task="mri",
    beta=0.0133915,
    lam=0.0013139,
    source="learned with the weights; scale: mean over 10 slices",
    weights="knee",
    weights_sha256="34d5a83b70847f8d9b6f126923830bd1d7c9ce02a50055d78be908e50558383c",
    image="from_file",
    prior=PriorUse(stride=2),
    scale=ScaleRule(percentile=99.9, reference=0.6057),
    mask=MaskRule(kind="random", acceleration=8, center_fraction=0.04, seed=0),  # used with --undersample only
    nonnegative=True,  # once, at the end (the authors: in every step); only real images are affected
    solver=FastSettings(
        tolerance=5e-4,
        max_iterations=2000,
        continuation_start=32.0,
        continuation_decay=0.97,
        image_change=0.02,
        image_iterations=80,
        levels=3,
        stop="image",
    ),
    card=Card(
        score=29.58,
        metric="PSNR",
        data="PD validation slices of the paper, not trained on; columns of zeros not acquired; scale 1; central 320 x 320",
        n_slices=10,
        date="2026-11-26",
        how="prior and attention learned on other knees (train_knee, train_knee_attention); the stop was chosen here",
    ),
)
