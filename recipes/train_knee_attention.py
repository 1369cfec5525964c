"""The attention of single-coil knees at 8-fold: thresholds that follow from a first reconstruction.

Atoms, thresholds and beta stay those of the weights to start from. Each batch is one crop under a mask of its own, and
returns, four times in all. Its first solution, without the attention, is kept; each step goes on from there with it. Every second
patch of every second row counts, as in the recipes for knees.
"""

from mrisps.bilevel import Accuracy, TrainSettings
from mrisps.model import ModelConfig, PriorUse
from mrisps.reconstruction.recipe import MaskRule
from mrisps.solvers import FastSettings
from mrisps.training.run import TrainRecipe

ACCURACY = Accuracy(iterations=40, tolerance=1e-3, adjoint_iterations=16, adjoint_tolerance=0.05)

recipe = TrainRecipe(
    name="knee_attention",
    description="attention for 8-fold undersampled columns of knees, single coil, real images",
    task="mri",
    noise_std=0.002,
    model=ModelConfig(regulariser="NCPR", exponent=1.8),
    start="weights",
    beta=None,
    lam=None,
    crop=(96, 320),
    validation_crop=(96, 320),
    normalise="maximum",
    mask=MaskRule(kind="random", acceleration=8, center_fraction=0.04),
    train=TrainSettings(
        n_steps=900,
        batch_size=1,
        learning_rate=2e-3,
        hold=0.4,
        loss="PSNR",
        start_accuracy=ACCURACY,
        end_accuracy=ACCURACY,
        solver=FastSettings(continuation_start=32.0, continuation_decay=0.97, levels=2),
        prior=PriorUse(stride=2),
        learn="attention",
        warm_batches=225,
        warm_iterations=25,
        average=0.98,
        validation_interval=100,
        validation_solver=FastSettings(
            tolerance=1e-3,
            max_iterations=60,
            continuation_start=32.0,
            continuation_decay=0.97,
            levels=2,
            image_change=1.0,
            trace_interval=0,
        ),
        checkpoint_interval=450,
        seed=3,
    ),
    source="rates and accuracies: trials on 40 crops of knees",
)
