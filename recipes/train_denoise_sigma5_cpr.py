"""The convex prior (CPR), learned on denoising with sigma 5 of 255, from the weights for sigma 25.

beta and lam are the best of a coarse grid on four of the validation images. The learning rates are small, and the
adjoint system gets 30 iterations: it is nearly singular where more atoms are active than a patch has pixels. With four
times the rate, 10 iterations and the squared error, the validation PSNR fell.
"""

from mrisps.bilevel import Accuracy, TrainSettings
from mrisps.model import ModelConfig
from mrisps.solvers import FastSettings
from mrisps.training.run import TrainRecipe

recipe = TrainRecipe(
    name="denoise_sigma5_cpr",
    description="CPR from denoising, sigma 5 of 255",
    task="denoise",
    noise_std=5 / 255,
    model=ModelConfig(regulariser="CPR", group_size=2),
    start="weights",
    beta=0.4,
    lam=0.00045,
    crop=(48, 48),
    validation_crop=(96, 96),
    train=TrainSettings(
        n_steps=240,
        batch_size=6,
        learning_rate=1.5e-4,
        learning_rate_thresholds=2e-3,
        hold=0.4,
        loss="PSNR",
        start_accuracy=Accuracy(iterations=60, tolerance=1e-3, adjoint_iterations=30, adjoint_tolerance=0.05),
        end_accuracy=Accuracy(iterations=60, tolerance=1e-3, adjoint_iterations=30, adjoint_tolerance=0.02),
        warm_batches=48,
        warm_iterations=20,
        validation_interval=48,
        validation_solver=FastSettings(tolerance=1e-3, max_iterations=120, image_change=1.0, trace_interval=0),
        checkpoint_interval=240,
        seed=4,
    ),
    source="start: beta and lam from a coarse grid on the validation images; rates a fraction of those for sigma 25",
)
