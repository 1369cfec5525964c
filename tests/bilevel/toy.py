"""A tiny training: noisy images of 16 x 16 with a straight edge, models with 3 x 3 patches."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mrisps.bilevel import Accuracy, Batch, TrainSettings
from mrisps.model import ModelConfig, SmoothPlusSparse
from mrisps.operators import Identity
from mrisps.solvers import FastSettings

SIZE = 16
CONFIG = ModelConfig(patch_size=3, n_free_atoms=2, n_synthesis_atoms=4)
ACCURACY = Accuracy(iterations=12, tolerance=1e-6, adjoint_iterations=5, adjoint_tolerance=1e-6)
"""Never reached: every step does the same number of iterations."""
SETTINGS = TrainSettings(
    n_steps=6,
    batch_size=2,
    learning_rate=3e-2,
    learning_rate_thresholds=1e-1,
    start_accuracy=ACCURACY,
    end_accuracy=replace(ACCURACY, iterations=20),
    validation_interval=3,
    validation_solver=FastSettings(max_iterations=20, image_change=1.0, trace_interval=0),
    checkpoint_interval=2,
)


def toy_model(dtype: torch.dtype = torch.float64, config: ModelConfig = CONFIG) -> SmoothPlusSparse:
    generator = torch.Generator().manual_seed(0)
    p, m, n = config.patch_size, config.n_free_atoms, config.n_synthesis_atoms
    raw = torch.randn(m + n, p, p, dtype=torch.float64, generator=generator).to(dtype)
    return SmoothPlusSparse(config, raw[:m], raw[m:], torch.zeros(n, dtype=dtype), 1.0, 0.02)


@dataclass(frozen=True)
class ToySamples:
    """Each entry of each batch is drawn from a seed of its own."""

    dtype: torch.dtype = torch.float64

    def batch(self, step: int, first: int, count: int) -> Batch:
        targets, noisy = [], []
        for entry in range(first, first + count):
            generator = torch.Generator().manual_seed(1000 * step + entry)
            target = edge(generator)
            targets.append(target)
            noisy.append(target + 0.1 * torch.randn(target.shape, dtype=torch.float64, generator=generator))
        operator = Identity((SIZE, SIZE), self.dtype)
        return Batch(operator, torch.stack(noisy).to(self.dtype), torch.stack(targets).to(self.dtype))


def edge(generator: torch.Generator) -> Tensor:
    """(1, y, x): 0.5 on one side of a straight line, 0.8 on the other."""
    a, b, c = (float(value) for value in torch.rand(3, generator=generator) - 0.5)
    y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    return (0.5 + 0.3 * (y * a + x * b > 3 * c).double())[None]


def validation(dtype: torch.dtype = torch.float64, count: int = 4) -> Batch:
    return ToySamples(dtype).batch(999, 0, count)


def parameters(model: SmoothPlusSparse) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def check_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Bit for bit."""
    assert found.keys() == expected.keys()
    for name in expected:
        assert torch.equal(found[name], expected[name]), name
