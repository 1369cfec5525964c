"""Single-coil knee, proton-density weighted, 16-fold undersampled columns.

The authors of the paper tuned beta and lam on their validation slices for NCPR weights of sigma 25
(``best_hyperparams.txt`` of the repository StanislasDucotterd/Smooth_Plus_Sparse_Model). The weights here were
specialised on 8-fold columns. With these numbers they are better at 16-fold than the authors' weights, and than those
that the package learned on denoising.
"""

from mrisps.model import PriorUse
from mrisps.reconstruction.recipe import Card, MaskRule, Recipe, ScaleRule
from mrisps.solvers import FastSettings

recipe = Recipe(
    name="knee_pd_acc16",
    description="single-coil knee PD, 16-fold column undersampling",
    task="mri",
    beta=0.000515129,  # MRI acc_16_cf_0.02 - PD, NCPR
    lam=0.000602426,  # MRI acc_16_cf_0.02 - PD, NCPR
    source="best_hyperparams.txt of the authors, 'MRI acc_16_cf_0.02 - PD, NCPR'; scale: mean over 10 slices",
    weights="mri_acc8",
    weights_sha256="e753ed089d7e29f3e21b6381f1c4b35ff83a977401a1aa7500fa2ab8d67be105",
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
        image_change=0.015,
        levels=3,
        stop="image",
    ),
    card=Card(
        score=23.37,
        metric="PSNR",
        data="PD validation slices of the paper, not trained on; columns of zeros not acquired; scale 1; central 320 x 320",
        n_slices=5,
        date="2026-11-26",
        how="beta and lam tuned by the authors on all validation slices for weights of theirs; measured with mri_acc8",
    ),
)
