"""Multi-coil brain, 4-fold undersampled columns with 24 central lines.

beta and lam were chosen on two fully sampled brains with 8 coils (benchmarks/multicoil.py); between beta 0.008 and 0.03 and lam
0.001 and 0.002 the PSNR changes by a few tenths of a dB. Every second patch of every second row counts: 0.2 dB less than all
patches, in a third of the time.
"""

from mrisps.kspace.settings import CoilCompression, CoilMaps, PhaseRemoval, Preparation
from mrisps.model import PriorUse
from mrisps.reconstruction.recipe import Card, MaskRule, Recipe, ScaleRule
from mrisps.solvers import FastSettings

recipe = Recipe(
    name="brain_multicoil_acc4",
    description="multi-coil brain, 4-fold column undersampling",
    task="mri",
    beta=0.015,
    lam=0.0012,
    source="grid of beta and lam on two 8-coil brains, random columns R = 4, weights NCPR sigma 25",
    weights="denoise_sigma25_ncpr",
    weights_sha256="03347a9b1c373b093bda5e65aeae17c0c7eb5447cb9d5f94eabfb1848c8ec727",
    image="complex",
    scale=ScaleRule(percentile=99.5, reference=1.0),
    mask=MaskRule(kind="random", acceleration=4, center_fraction=24 / 180, seed=0),  # used with --undersample only
    preparation=Preparation(
        prewhiten=True,
        remove_oversampling=True,
        compression=CoilCompression(n_coils=4, method="geometric"),
        maps=CoilMaps(),
        phase=PhaseRemoval(width=24),
    ),
    prior=PriorUse(stride=2, modulus=False),
    solver=FastSettings(
        tolerance=3e-3,
        max_iterations=400,
        continuation_start=32.0,
        continuation_decay=0.88,
        image_tolerance=1e-3,
        image_change=0.025,
        trace_interval=0,
        stop="image",
    ),
    card=Card(
        score=35.36,
        metric="PSNR",
        data="two fully sampled 8-coil brains, magnitude, data range: the maximum (33.70 and 37.02 dB)",
        n_slices=2,
        date="2026-11-26",
        how="beta and lam chosen on the same two brains; benchmarks/multicoil.py",
    ),
)
