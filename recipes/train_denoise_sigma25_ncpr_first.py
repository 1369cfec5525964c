"""The non-convex prior (NCPR), learned on denoising with white Gaussian noise of sigma 25 (of 255): first part.

The sizes are those of the paper (arXiv 2412.13070): 13 x 13 patches, 200 synthesis atoms, 120 free atoms. The start is
made from the training images, so some hundred steps are enough. It is meant for the 400 grey images of 180 x 180 pixels
of the paper's training.
"""

from mrisps.bilevel import Accuracy, TrainSettings
from mrisps.model import ModelConfig
from mrisps.solvers import FastSettings
from mrisps.training.run import TrainRecipe

recipe = TrainRecipe(
    name="denoise_sigma25_ncpr_first",
    description="NCPR from denoising, sigma 25 of 255: first part",
    task="denoise",
    noise_std=25 / 255,
    model=ModelConfig(regulariser="NCPR", exponent=1.8),
    start="data",
    beta=1.0,
    lam=0.008,
    crop=(48, 48),
    validation_crop=(96, 96),
    train=TrainSettings(
        n_steps=800,
        batch_size=8,
        learning_rate=4e-3,
        learning_rate_thresholds=2e-2,
        hold=0.4,
        loss="L2",
        start_accuracy=Accuracy(iterations=40, tolerance=1e-3, adjoint_iterations=10, adjoint_tolerance=0.3),
        end_accuracy=Accuracy(iterations=60, tolerance=1e-3, adjoint_iterations=20, adjoint_tolerance=0.1),
        validation_interval=50,
        validation_solver=FastSettings(tolerance=1e-3, max_iterations=120, image_change=1.0, trace_interval=0),
    ),
    source="learning rates, accuracies: short runs on the training images, judged by the validation images",
)
