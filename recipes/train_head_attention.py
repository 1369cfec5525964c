"""The attention of heads with several coils. What it learned gains nothing on acquisitions whose maps are estimated.

As ``train_head``; the gradient goes through the iterations that follow the look, which comes five iterations after the
continuation has ended. No weights of this recipe ship.
"""

from mrisps.bilevel import Accuracy, TrainSettings
from mrisps.model import ModelConfig, PriorUse
from mrisps.solvers import FastSettings
from mrisps.training.run import TrainRecipe
from mrisps.training.scan import ScanRule

ACCURACY = Accuracy(iterations=50, tolerance=1e-3, adjoint_iterations=16, adjoint_tolerance=0.1)

recipe = TrainRecipe(
    name="head_attention",
    description="attention for undersampled heads with several coils, complex images",
    task="mri",
    noise_std=0.004,
    largest_noise_std=0.016,
    model=ModelConfig(regulariser="NCPR", exponent=1.8),
    start="weights",
    beta=None,
    lam=None,
    crop=(96, 256),
    validation_crop=(96, 256),
    scan=ScanRule(kinds=("random", "equispaced"), acceleration=(4.0, 6.0), center=0.36, coils=(8,)),
    train=TrainSettings(
        n_steps=320,
        batch_size=1,
        learning_rate_attention=1.5e-3,
        hold=0.4,
        loss="PSNR",
        start_accuracy=ACCURACY,
        end_accuracy=ACCURACY,
        solver=FastSettings(
            continuation_start=32.0, continuation_decay=0.88, image_tolerance=1e-4, attention_iterations=5
        ),
        prior=PriorUse(stride=2, modulus=False),
        learn="attention",
        gradient="iterations",
        average=0.97,
        validation_interval=50,
        validation_solver=FastSettings(
            tolerance=1e-12,
            max_iterations=50,
            continuation_start=32.0,
            continuation_decay=0.88,
            image_change=1.0,
            trace_interval=0,
            attention_iterations=5,
        ),
        checkpoint_interval=50,
        seed=4,
    ),
    source="rates: those of train_knee_attention",
)
