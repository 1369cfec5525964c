"""Processor seconds of a training step with every patch, and with every second patch of every second row, side by side.

    python benchmarks/train_stride.py --data FOLDER [--start knee] [--steps 3]

FOLDER holds images of at least the crop of the recipe ``train_knee``. The same batch comes in every step: the first step
starts from nothing, the others from where the last one ended.
"""

import argparse
import itertools
import time
from dataclasses import replace
from pathlib import Path

import torch

from mrisps.bilevel import StepReport
from mrisps.model import PriorUse, SmoothPlusSparse
from mrisps.reconstruction.recipe import load_recipe
from mrisps.training.run import TrainRecipe, prepare, run_training


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--start", default="knee")
    parser.add_argument("--steps", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    recipe = load_recipe("train_knee", TrainRecipe)
    seconds: dict[int, list[float]] = {}
    for stride in (1, 2):
        settings = replace(recipe.train, n_steps=arguments.steps, warm_batches=1, prior=PriorUse(stride=stride))
        training = prepare(
            replace(recipe, train=settings), [arguments.data], [], start=SmoothPlusSparse.load(arguments.start)
        )
        times = [time.process_time()]
        iterations: list[str] = []

        def note(report: StepReport, times: list[float] = times, iterations: list[str] = iterations) -> None:
            times.append(time.process_time())
            iterations.append(f"{report.iterations}/{report.adjoint_iterations}")

        run_training(training, on_step=note)
        seconds[stride] = [after - before for before, after in itertools.pairwise(times)]
        for value, count in zip(seconds[stride], iterations, strict=True):
            print(f"stride {stride}: {value:.2f} s, iterations {count}")
    for kind, part in (("from nothing", slice(0, 1)), ("warm", slice(1, None))):
        one, two = (sum(seconds[stride][part]) for stride in (1, 2))
        if one:
            print(f"{kind}: stride 2 takes {two / one:.2f} of the time of stride 1")


if __name__ == "__main__":
    main()
