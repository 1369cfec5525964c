"""Single-coil knee, proton-density weighted, 4-fold undersampled columns with 8 % of them in the centre.

The weights were specialised on 8-fold columns, and beta and lam were learned with them (``train_knee``). Their
attention was learned at 4- to 24-fold (``train_knee_attention``).
"""

from mrisps.model import PriorUse
from mrisps.reconstruction.recipe import Card, MaskRule, Recipe, ScaleRule
from mrisps.solvers import FastSettings

recipe = Recipe(
    name="knee_pd_acc4",
    task="mri",
    beta=0.0133915,
    lam=0.0013139,
    source="learned with the weights at 8-fold",
    weights="knee",
    weights_sha256="34d5a83b70847f8d9b6f126923830bd1d7c9ce02a50055d78be908e50558383c",
    prior=PriorUse(stride=2),
    scale=ScaleRule(percentile=99.9, reference=0.6057),
    mask=MaskRule(kind="random", acceleration=4.0, center_fraction=0.08),
    nonnegative=True,
    solver=FastSettings(
        tolerance=0.0005,
        continuation_start=32.0,
        image_change=0.02,
        image_iterations=80,
        levels=3,
        stop="image",
    ),
    description="single-coil knee PD, 4-fold column undersampling",
    card=Card(
        score=35.09,
        metric="PSNR",
        data="ten 320 x 320 magnitude images of other knees (PD and PDFS), noise of 0.002; data range: the maximum of each",
        n_slices=10,
        date="2026-11-26",
        how="learned on other knees (train_knee, train_knee_attention), whose steps these ten chose",
    ),
)
