"""The convex prior (CPR, groups of 2 x 2 pixels), learned on denoising with white Gaussian noise of sigma 25 (of 255).

The sizes are those of the paper (arXiv 2412.13070). The same 48 batches return in turn, and the solver starts where it
ended the last time.
"""

from mrisps.bilevel import Accuracy, TrainSettings
from mrisps.model import ModelConfig
from mrisps.solvers import FastSettings
from mrisps.training.run import TrainRecipe

recipe = TrainRecipe(
    name="denoise_sigma25_cpr",
    description="CPR from denoising, sigma 25 of 255",
    task="denoise",
    noise_std=25 / 255,
    model=ModelConfig(regulariser="CPR", group_size=2),
    start="data",
    beta=0.5,
    lam=0.004,
    crop=(48, 48),
    validation_crop=(96, 96),
    train=TrainSettings(
        n_steps=384,
        batch_size=6,
        learning_rate=4e-3,
        learning_rate_thresholds=2e-2,
        hold=0.4,
        loss="L2",
        start_accuracy=Accuracy(iterations=40, tolerance=1e-3, adjoint_iterations=10, adjoint_tolerance=0.1),
        end_accuracy=Accuracy(iterations=40, tolerance=1e-3, adjoint_iterations=10, adjoint_tolerance=0.05),
        warm_batches=48,
        warm_iterations=15,
        validation_interval=96,
        validation_solver=FastSettings(tolerance=1e-3, max_iterations=120, image_change=1.0, trace_interval=0),
        checkpoint_interval=192,
        seed=2,
    ),
    source="start: beta and lam from a coarse grid on training images; rates as for the non-convex prior",
)
