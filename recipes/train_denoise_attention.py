"""The attention of denoising at sigma 25 (of 255): thresholds that follow from a first reconstruction.

Atoms, thresholds and beta stay those of the weights to start from. Each batch returns, four times in all; its first
solution, without the attention, is kept.
"""

from mrisps.bilevel import Accuracy, TrainSettings
from mrisps.model import ModelConfig
from mrisps.solvers import FastSettings
from mrisps.training.run import TrainRecipe

ACCURACY = Accuracy(iterations=40, tolerance=1e-3, adjoint_iterations=12, adjoint_tolerance=0.05)

recipe = TrainRecipe(
    name="denoise_attention",
    description="attention for denoising, sigma 25 of 255",
    task="denoise",
    noise_std=25 / 255,
    model=ModelConfig(regulariser="NCPR", exponent=1.8),
    start="weights",
    beta=None,
    lam=None,
    crop=(64, 64),
    validation_crop=(96, 96),
    train=TrainSettings(
        n_steps=480,
        batch_size=3,
        learning_rate=1e-3,
        hold=0.5,
        loss="PSNR",
        start_accuracy=ACCURACY,
        end_accuracy=ACCURACY,
        learn="attention",
        warm_batches=120,
        warm_iterations=25,
        average=0.98,
        validation_interval=80,
        validation_solver=FastSettings(tolerance=1e-3, max_iterations=40, image_change=1.0, trace_interval=0),
        checkpoint_interval=480,
        seed=5,
    ),
    source="rates and accuracies: those of train_knee_attention",
)
