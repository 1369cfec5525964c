"""Peak memory of one 640 x 368 slice above the interpreter with the package and the data loaded, in a process of its own.

    python benchmarks/solver_memory.py --weights sigma_25_NCPR.pth [--half] [--stride 2]

The problem is random: memory does not depend on what is in the image.
"""

import argparse
import dataclasses
import resource
from pathlib import Path

import torch

from mrisps.model import PriorUse, SmoothPlusSparse
from mrisps.operators import FourierSubsampling
from mrisps.reconstruction.recipe import load_recipe
from mrisps.sampling import make_mask
from mrisps.solvers import solve


def resident() -> float:
    """Peak so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--half", action="store_true", help="coefficients in float16")
    parser.add_argument(
        "--stride", type=int, default=1, help="2: every second patch of every second row, as the recipes"
    )
    arguments = parser.parse_args()
    recipe = load_recipe("knee_pd_acc8")
    operator = FourierSubsampling(make_mask("random", (640, 368), 8, 0.04, seed=0), domain_dtype=torch.float32)
    generator = torch.Generator().manual_seed(0)
    y = operator.forward(torch.rand(1, 1, 640, 368, generator=generator))
    model = SmoothPlusSparse.load(arguments.weights).with_regularisation(beta=recipe.beta, lam=recipe.lam)
    settings = dataclasses.replace(recipe.solver, max_iterations=10, half_storage=arguments.half)
    before = resident()
    solve(operator, y, model, settings, use=PriorUse(arguments.stride))
    above = resident() - before
    array = 640 * 368 * 200 * 4 / 2**20
    print(f"{above:.0f} MiB above {before:.0f} MiB: {above / array:.2f} arrays of coefficients ({array:.0f} MiB each)")


if __name__ == "__main__":
    main()
