"""The non-convex prior (NCPR), learned on denoising with white Gaussian noise of sigma 5 (of 255).

It starts from the weights of ``train_denoise_sigma25_ncpr`` with lower thresholds. The same 40 batches return in turn,
and the solver starts where it ended the last time.
"""

from mrisps.bilevel import Accuracy, TrainSettings
from mrisps.model import ModelConfig
from mrisps.solvers import FastSettings
from mrisps.training.run import TrainRecipe

recipe = TrainRecipe(
    name="denoise_sigma5_ncpr",
    description="NCPR from denoising, sigma 5 of 255",
    task="denoise",
    noise_std=5 / 255,
    model=ModelConfig(regulariser="NCPR", exponent=1.8),
    start="weights",
    beta=0.4,
    lam=0.0017,
    crop=(48, 48),
    validation_crop=(96, 96),
    train=TrainSettings(
        n_steps=400,
        batch_size=6,
        learning_rate=2e-3,
        learning_rate_thresholds=2e-2,
        hold=0.4,
        loss="L2",
        start_accuracy=Accuracy(iterations=50, tolerance=1e-3, adjoint_iterations=10, adjoint_tolerance=0.1),
        end_accuracy=Accuracy(iterations=50, tolerance=1e-3, adjoint_iterations=10, adjoint_tolerance=0.05),
        warm_batches=40,
        warm_iterations=12,
        validation_interval=80,
        validation_solver=FastSettings(tolerance=1e-3, max_iterations=100, image_change=1.0, trace_interval=0),
        checkpoint_interval=400,
        seed=3,
    ),
    source="start: beta and lam from a coarse grid on training images; rates as at sigma 25",
)
