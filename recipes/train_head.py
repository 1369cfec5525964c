"""Heads with several coils: complex images without their smooth phase, as the recipe `multicoil` solves for.

Every batch has a coil array, a mask and a noise of its own. The maps are known exactly. Real and imaginary part are
shrunk apart, and every second patch of every second row counts, as in the recipe. beta and lam start at what its rule
gives for a noise of 0.008.
"""

from mrisps.bilevel import Accuracy, TrainSettings
from mrisps.model import ModelConfig, PriorUse
from mrisps.solvers import FastSettings
from mrisps.training.run import TrainRecipe
from mrisps.training.scan import ScanRule

recipe = TrainRecipe(
    name="head",
    description="NCPR from undersampled heads with several coils, complex images",
    task="mri",
    noise_std=0.004,
    largest_noise_std=0.016,
    model=ModelConfig(regulariser="NCPR", exponent=1.8),
    start="weights",
    beta=0.008,
    lam=0.00108,
    crop=(96, 256),
    validation_crop=(96, 256),
    scan=ScanRule(kinds=("random", "equispaced"), acceleration=(4.0, 6.0), center=0.36, coils=(8,)),
    train=TrainSettings(
        n_steps=400,
        batch_size=1,
        learning_rate=5e-4,
        learning_rate_thresholds=5e-3,
        hold=0.4,
        loss="PSNR",
        start_accuracy=Accuracy(iterations=30, tolerance=1e-3, adjoint_iterations=16, adjoint_tolerance=0.1),
        end_accuracy=Accuracy(iterations=30, tolerance=1e-3, adjoint_iterations=16, adjoint_tolerance=0.05),
        solver=FastSettings(continuation_start=32.0, continuation_decay=0.88),
        prior=PriorUse(stride=2, modulus=False),
        average=0.98,
        validation_interval=80,
        validation_solver=FastSettings(
            tolerance=1e-3,
            max_iterations=60,
            continuation_start=32.0,
            continuation_decay=0.88,
            image_change=1.0,
            trace_interval=0,
        ),
        checkpoint_interval=80,
        seed=4,
    ),
    source="beta, lam: the rule of the recipe multicoil; rates: those of train_knee",
)
