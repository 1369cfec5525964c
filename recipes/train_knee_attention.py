"""The attention of single-coil knees at 4- to 24-fold: thresholds that follow from a first reconstruction.

Atoms, thresholds and beta stay those of the weights to start from. Every step has a new crop, mask and noise. The gradient
goes through the 25 iterations that follow the look, because that is about where a reconstruction ends. Every second patch of
every second row counts, as in the recipes for knees. At 8-fold the paper's slices have 31 to 37 columns of 368 that hold
data, at 16-fold about half of that: they are at 11- and 22-fold in truth, so the accelerations reach that far.
"""

from mrisps.bilevel import Accuracy, TrainSettings
from mrisps.model import ModelConfig, PriorUse
from mrisps.solvers import FastSettings
from mrisps.training.run import TrainRecipe
from mrisps.training.scan import ScanRule

ACCURACY = Accuracy(iterations=45, tolerance=1e-3, adjoint_iterations=16, adjoint_tolerance=0.1)

recipe = TrainRecipe(
    name="knee_attention",
    description="attention for 4- to 24-fold undersampled columns of knees, single coil, real images",
    task="mri",
    noise_std=0.002,
    model=ModelConfig(regulariser="NCPR", exponent=1.8),
    start="weights",
    beta=None,
    lam=None,
    crop=(96, 320),
    validation_crop=(96, 320),
    normalise="maximum",
    scan=ScanRule(kinds=("random",), acceleration=(4.0, 24.0), center=0.4),
    train=TrainSettings(
        n_steps=1500,
        batch_size=1,
        learning_rate_attention=1.5e-3,
        hold=0.4,
        loss="PSNR",
        start_accuracy=ACCURACY,
        end_accuracy=ACCURACY,
        solver=FastSettings(continuation_start=32.0, continuation_decay=0.97, levels=2, attention_iterations=20),
        prior=PriorUse(stride=2),
        learn="attention",
        gradient="iterations",
        average=0.98,
        validation_interval=100,
        validation_solver=FastSettings(
            tolerance=1e-12,
            max_iterations=45,
            continuation_start=32.0,
            continuation_decay=0.97,
            levels=2,
            image_change=1.0,
            trace_interval=0,
            attention_iterations=20,
        ),
        checkpoint_interval=100,
        seed=3,
    ),
    source="rate: a trial of 600 steps",
)
