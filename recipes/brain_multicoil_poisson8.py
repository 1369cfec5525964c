"""Multi-coil brain, 8-fold Poisson-disc undersampling with a fully sampled centre.

beta and lam are the middle of what was best on two fully sampled brains with 8 coils (benchmarks/multicoil.py) for the authors'
NCPR weights trained at sigma 25. Every second patch of every second row counts: 0.2 dB less than all patches, in a third of the
time.
"""

from mrisps.kspace.settings import CoilCompression, CoilMaps, PhaseRemoval, Preparation
from mrisps.model import PriorUse
from mrisps.reconstruction.recipe import Card, MaskRule, Recipe, ScaleRule
from mrisps.solvers import FastSettings

recipe = Recipe(
    name="brain_multicoil_poisson8",
    description="multi-coil brain, 8-fold Poisson-disc undersampling",
    task="mri",
    beta=0.02,
    lam=0.001,
    source="grid of beta and lam on two 8-coil brains, Poisson disc R = 8, weights NCPR sigma 25",
    weights="denoise_sigma25_ncpr",
    weights_sha256="03347a9b1c373b093bda5e65aeae17c0c7eb5447cb9d5f94eabfb1848c8ec727",
    image="complex",
    scale=ScaleRule(percentile=99.5, reference=1.0),
    mask=MaskRule(kind="poisson", acceleration=8, center_fraction=24 / 180, seed=0),  # used with --undersample only
    preparation=Preparation(
        prewhiten=True,
        remove_oversampling=True,
        compression=CoilCompression(n_coils=6),
        maps=CoilMaps(),
        phase=PhaseRemoval(width=24),
    ),
    prior=PriorUse(stride=2, modulus=False),
    solver=FastSettings(
        tolerance=3e-3,
        max_iterations=400,
        continuation_start=8.0,
        continuation_decay=0.9,
        image_tolerance=1e-3,
        image_change=0.05,
        trace_interval=0,
        stop="image",
    ),
    card=Card(
        score=37.53,
        metric="PSNR",
        data="two fully sampled 8-coil brains, magnitude, data range: the maximum (36.08 and 38.98 dB)",
        n_slices=2,
        date="2026-11-26",
        how="grid of beta and lam on the same two brains with the authors' weights; measured with those of the package",
    ),
)
