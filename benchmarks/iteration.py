"""Where the time of one iteration goes: processor seconds of its parts, for a knee, a multi-coil brain and denoising.

    OMP_NUM_THREADS=1 python benchmarks/iteration.py [--iterations N]

Random data with the shapes of the recipes; weights of the package. A part is the process time between entry and exit of the
function that does it, without the parts that it calls.
"""

import argparse
import functools
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mrisps.model import Energy, PatchTransform, PriorUse, SmoothPlusSparse
from mrisps.model.shrinkage import SmoothShrinkage
from mrisps.operators import FourierSubsampling, Identity, LinearOperator, Sense
from mrisps.sampling import make_mask
from mrisps.solvers import inertial
from mrisps.solvers.aliases import AliasFilter
from mrisps.solvers.descent import DescentOptions, Stage
from mrisps.solvers.image_step import ConvolutionStep, ImageStep
from mrisps.solvers.stages import start_descent

spent: dict[str, float] = defaultdict(float)
stack: list[float] = []


def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def run(*arguments: object, **settings: object) -> object:
        started = time.process_time()
        stack.append(0.0)
        result = function(*arguments, **settings)
        elapsed = time.process_time() - started
        spent[name] += elapsed - stack.pop()
        if stack:
            stack[-1] += elapsed
        return result

    return run


def watch() -> None:
    for owner, attribute, name in (
        (torch, "lerp", "extrapolation"),
        (torch, "addmm", "GEMM to the atoms"),
        (torch, "matmul", "GEMM from the atoms"),
        (SmoothShrinkage, "prox_into", "shrinkage"),
        (PatchTransform, "residual_", "patches of the image"),
        (PatchTransform, "adjoint", "image of the patches"),
        (AliasFilter, "mixed", "alias matrices"),
        (LinearOperator, "normal", "operator"),
        (torch.fft, "fft2", "FFT"),
        (torch.fft, "ifft2", "FFT"),
        (torch.fft, "rfft2", "FFT"),
        (torch.fft, "irfft2", "FFT"),
        (ImageStep, "_iterate", "vectors of CG"),
        (ConvolutionStep, "invert", "image step, else"),
        (ImageStep, "solve", "image step, else"),
        (inertial.Inertial, "step", "rest"),
    ):
        setattr(owner, attribute, timed(name, getattr(owner, attribute)))


def problems() -> dict[str, tuple[LinearOperator, Tensor, str, int]]:
    generator = torch.Generator().manual_seed(0)

    def noise(*shape: int, dtype: torch.dtype = torch.complex64) -> Tensor:
        return 0.1 * torch.randn(shape, dtype=dtype, generator=generator)

    knee = FourierSubsampling(make_mask("random", (640, 368), 8, 0.04, seed=0), domain_dtype=torch.float32)
    maps = noise(2, 9, 256, 256)
    maps /= maps.abs().square().sum(dim=(0, 1)).sqrt()
    brain = Sense(make_mask("random", (256, 256), 4, 0.08, seed=0), maps)
    return {
        "knee 640 x 368, stride 2": (knee, noise(1, *knee.range_shape), "knee", 2),
        "brain 256 x 256, 9 coils, 2 sets, stride 2": (brain, noise(1, *brain.range_shape), "denoise_sigma25_ncpr", 2),
        "denoising 512 x 512": (
            Identity((512, 512)),
            noise(1, 1, 512, 512, dtype=torch.float32),
            "denoise_sigma25_ncpr",
            1,
        ),
    }


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=10)
    n_iterations = parser.parse_args().iterations
    watch()
    for name, (operator, y, weights, stride) in problems().items():
        model = SmoothPlusSparse.load(weights).with_regularisation(beta=0.015)
        prior = model.prior().used(PriorUse(stride=stride), operator.domain_dtype.is_complex)
        energy = Energy(operator, y, prior)
        stage = Stage(prior, prior.transform, ImageStep(energy, 1e-3), energy.image_shape)
        path = start_descent(stage, DescentOptions(1e-3, 0.9, False), energy.n_real_images, factor=1.0, inertia=0)
        path.step()
        spent.clear()
        for _ in range(n_iterations):
            path.step()
        total = sum(spent.values())
        n_patches = path.coefficients.shape[:-1].numel()
        print(f"{name}: {1e3 * total / n_iterations:.0f} ms, {1e9 * total / n_iterations / n_patches:.0f} ns a patch")
        for part, seconds in sorted(spent.items(), key=lambda item: -item[1]):
            print(f"    {part:24s} {1e3 * seconds / n_iterations:7.1f} ms {100 * seconds / total:5.1f} %")


if __name__ == "__main__":
    main()
