"""Raw multi-coil data of a scanner, whatever the Cartesian sampling.

It needs a fully sampled centre, a reference scan or coil maps in the file. beta and lam follow from the noise of the data. For the
best image of one protocol tune them with `mrisps tune`.
"""

from mrisps.kspace.settings import CoilCompression, CoilMaps, PhaseRemoval, Preparation
from mrisps.model import PriorUse
from mrisps.reconstruction.recipe import NoiseRule, Recipe, ScaleRule
from mrisps.solvers import FastSettings

recipe = Recipe(
    name="multicoil",
    description="raw multi-coil data of any Cartesian sampling",
    task="mri",
    beta=0.01,
    lam=0.0008,
    regularisation=NoiseRule(
        beta_per_noise=1.0, smallest_beta=0.005, largest_beta=0.02, lam_per_noise=0.12, smallest_lam=0.0005
    ),
    source="43 simulated acquisitions of heads and knees, see docs/multicoil.md; beta and lam for unknown noise",
    weights="denoise_sigma25_ncpr",
    weights_sha256="03347a9b1c373b093bda5e65aeae17c0c7eb5447cb9d5f94eabfb1848c8ec727",
    image="complex",
    scale=ScaleRule(percentile=99.5, reference=1.0),
    preparation=Preparation(
        prewhiten=True,
        remove_oversampling=True,
        compression=CoilCompression(),
        maps=CoilMaps(),
        phase=PhaseRemoval(width=24),
    ),
    prior=PriorUse(stride=2, modulus=False),
    solver=FastSettings(
        tolerance=6e-3,
        max_iterations=400,
        continuation_start=32.0,
        continuation_decay=0.88,
        image_tolerance=1e-3,
        image_change=0.05,
        trace_interval=0,
        stop="image",
        image_iterations=60,
    ),
)
