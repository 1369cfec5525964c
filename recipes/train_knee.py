"""NCPR specialised on undersampled columns of knees: from the weights of denoising, on the MRI operator itself.

Every step has new crops, each with a random 8-fold mask and noise of its own, and solves them from zero, as a
reconstruction does: with batches that return, the weights became better at the minimiser and worse where a
reconstruction ends. The crops are wide, because each row of an image is undersampled along its whole length. Every
second patch of every second row counts, as in the recipes for knees. The loss is the PSNR: with the squared error the
hardest crops decide everything. What is validated and kept is the running mean of the parameters.
"""

from mrisps.bilevel import Accuracy, TrainSettings
from mrisps.model import ModelConfig, PriorUse
from mrisps.reconstruction.recipe import MaskRule
from mrisps.solvers import FastSettings
from mrisps.training.run import TrainRecipe

recipe = TrainRecipe(
    name="knee",
    description="NCPR from undersampled columns of knees, single coil, real images",
    task="mri",
    noise_std=0.002,
    model=ModelConfig(regulariser="NCPR", exponent=1.8),
    start="weights",
    beta=0.0189763,  # the authors' for PD at 8-fold, as in the recipe knee_pd_acc8
    lam=0.0013139,
    crop=(96, 320),
    validation_crop=(96, 320),
    normalise="maximum",
    mask=MaskRule(kind="random", acceleration=8, center_fraction=0.04),
    train=TrainSettings(
        n_steps=640,
        batch_size=2,
        learning_rate=5e-4,
        learning_rate_thresholds=5e-3,
        hold=0.5,
        loss="PSNR",
        start_accuracy=Accuracy(iterations=40, tolerance=1e-3, adjoint_iterations=16, adjoint_tolerance=0.1),
        end_accuracy=Accuracy(iterations=40, tolerance=1e-3, adjoint_iterations=16, adjoint_tolerance=0.05),
        solver=FastSettings(continuation_start=32.0, continuation_decay=0.97, levels=2),
        prior=PriorUse(stride=2),
        average=0.98,
        validation_interval=80,
        validation_solver=FastSettings(
            tolerance=1e-3,
            max_iterations=60,
            continuation_start=32.0,
            continuation_decay=0.97,
            levels=2,
            image_change=1.0,
            trace_interval=0,
        ),
        checkpoint_interval=80,
        seed=3,
    ),
    source="beta, lam: the authors'; rates and accuracies: those of the denoising recipe",
)
