"""The non-convex prior (NCPR), learned on denoising with white Gaussian noise of sigma 25 (of 255): second part.

It starts from the weights of ``train_denoise_sigma25_ncpr_first``. Those were trained with 40 to 60 iterations of the
solver in a step, and are best after as many. Here the same 96 batches return in turn, and the solver starts where it
ended the last time. So training sees the minimiser.
"""

from mrisps.bilevel import Accuracy, TrainSettings
from mrisps.model import ModelConfig
from mrisps.solvers import FastSettings
from mrisps.training.run import TrainRecipe

recipe = TrainRecipe(
    name="denoise_sigma25_ncpr",
    description="NCPR from denoising, sigma 25 of 255: second part",
    task="denoise",
    noise_std=25 / 255,
    model=ModelConfig(regulariser="NCPR", exponent=1.8),
    start="weights",
    beta=None,
    lam=None,
    crop=(48, 48),
    validation_crop=(96, 96),
    train=TrainSettings(
        n_steps=768,
        batch_size=8,
        learning_rate=1.5e-3,
        learning_rate_thresholds=1e-2,
        hold=0.3,
        loss="L2",
        start_accuracy=Accuracy(iterations=80, tolerance=1e-3, adjoint_iterations=15, adjoint_tolerance=0.1),
        end_accuracy=Accuracy(iterations=80, tolerance=1e-3, adjoint_iterations=10, adjoint_tolerance=0.05),
        warm_batches=96,
        warm_iterations=15,
        validation_interval=96,
        validation_solver=FastSettings(tolerance=1e-3, max_iterations=150, image_change=1.0, trace_interval=0),
        checkpoint_interval=384,
        seed=1,
    ),
    source="learning rates, accuracies: short runs on the training images, judged by the validation images",
)
