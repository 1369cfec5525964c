"""NCPR specialised on 8-fold undersampled columns of real images: from the weights of denoising, on the MRI operator itself.

Every batch has another random mask. The crops are wide, because each row of an image is undersampled along its whole
length, and high enough for a coarse level. The loss is the PSNR: with the squared error the hardest crops decide
everything, and the weights became no better than the start. The learning rates are a third and a half of those for
denoising.
"""

from mrisps.bilevel import Accuracy, TrainSettings
from mrisps.model import ModelConfig
from mrisps.reconstruction.recipe import MaskRule
from mrisps.solvers import FastSettings
from mrisps.training.run import TrainRecipe

recipe = TrainRecipe(
    name="mri_acc8",
    description="NCPR from 8-fold undersampled columns, single coil, real images",
    task="mri",
    noise_std=0.002,
    model=ModelConfig(regulariser="NCPR", exponent=1.8),
    start="weights",
    beta=0.0189763,  # the authors' for PD at 8-fold, as in the recipe knee_pd_acc8
    lam=0.0013139,
    crop=(56, 320),
    validation_crop=(160, 320),
    normalise="maximum",
    mask=MaskRule(kind="random", acceleration=8, center_fraction=0.04),
    train=TrainSettings(
        n_steps=192,
        batch_size=3,
        learning_rate=5e-4,
        learning_rate_thresholds=5e-3,
        hold=0.3,
        loss="PSNR",
        start_accuracy=Accuracy(iterations=25, tolerance=1e-3, adjoint_iterations=12, adjoint_tolerance=0.1),
        end_accuracy=Accuracy(iterations=25, tolerance=1e-3, adjoint_iterations=12, adjoint_tolerance=0.05),
        solver=FastSettings(continuation_start=32.0, continuation_decay=0.97, levels=2),
        warm_batches=48,
        warm_iterations=15,
        validation_interval=48,
        validation_solver=FastSettings(
            tolerance=1e-3,
            max_iterations=60,
            continuation_start=32.0,
            continuation_decay=0.97,
            levels=2,
            image_change=1.0,
            trace_interval=0,
        ),
        checkpoint_interval=192,
        seed=2,
    ),
    source="beta, lam: the authors'; rates and accuracies: those of the denoising recipe",
)
