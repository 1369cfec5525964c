"""Denoising from sigma 5 to 50 (of 255) with one set of weights: prior and attention together.

Noise and image have one scale: an image of twice the contrast is an image of half the noise, with half of lam. So every
crop has the noise of sigma 25, and a contrast of its own from 0.5 (sigma 50) to 5 (sigma 5). The gradient goes through
all 40 iterations that a reconstruction takes; the attention looks after 20.
"""

from mrisps.bilevel import Accuracy, TrainSettings
from mrisps.model import ModelConfig
from mrisps.solvers import FastSettings
from mrisps.training.run import TrainRecipe

ACCURACY = Accuracy(iterations=40, tolerance=1e-3, adjoint_iterations=16, adjoint_tolerance=0.1)

recipe = TrainRecipe(
    name="denoise",
    description="denoising at sigma 5 to 50 of 255, NCPR with attention",
    task="denoise",
    noise_std=25 / 255,
    contrast=(0.5, 5.0),
    model=ModelConfig(regulariser="NCPR", exponent=1.8),
    start="weights",
    beta=None,
    lam=None,
    crop=(64, 64),
    validation_crop=(96, 96),
    train=TrainSettings(
        n_steps=900,
        batch_size=2,
        learning_rate=1e-4,
        learning_rate_thresholds=2e-3,
        learning_rate_attention=1e-3,
        hold=0.4,
        loss="PSNR",
        start_accuracy=ACCURACY,
        end_accuracy=ACCURACY,
        learn="both",
        gradient="iterations",
        average=0.98,
        validation_interval=60,
        validation_solver=FastSettings(tolerance=1e-12, max_iterations=40, image_change=1.0, trace_interval=0),
        checkpoint_interval=60,
        seed=5,
    ),
    source="rates: those of train_knee_attention, and a fifth of those of train_knee for the prior",
)
