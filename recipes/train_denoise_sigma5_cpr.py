"""The convex prior (CPR), learned on denoising with white Gaussian noise of sigma 5 (of 255).

Starts from the weights for sigma 25, with beta and lam that were coarsely scaled to the smaller noise. Higher learning rates (those of
sigma 25) lose half a dB in the first steps and need some two hundred to win it back.
"""

from mrisps.bilevel import Accuracy, TrainSettings
from mrisps.model import ModelConfig
from mrisps.pipeline.training import TrainRecipe
from mrisps.solvers import FastSettings

recipe = TrainRecipe(
    name="denoise_sigma5_cpr",
    description="CPR from denoising, sigma 5 of 255",
    task="denoise",
    noise_std=5 / 255,
    model=ModelConfig(regulariser="CPR", group_size=2),
    start="weights",
    beta=0.4,
    lam=0.0006,
    crop=(48, 48),
    validation_crop=(96, 96),
    train=TrainSettings(
        n_steps=400,
        batch_size=6,
        learning_rate=6e-4,
        learning_rate_thresholds=5e-3,
        hold=0.4,
        loss="L2",
        start_accuracy=Accuracy(iterations=40, tolerance=1e-3, adjoint_iterations=10, adjoint_tolerance=0.1),
        end_accuracy=Accuracy(iterations=40, tolerance=1e-3, adjoint_iterations=10, adjoint_tolerance=0.05),
        warm_batches=48,
        warm_iterations=15,
        validation_interval=50,
        validation_solver=FastSettings(tolerance=1e-3, max_iterations=120, image_change=1.0, trace_interval=0),
        checkpoint_interval=400,
        seed=4,
    ),
    source="start: beta and lam from a coarse grid on training images",
)
