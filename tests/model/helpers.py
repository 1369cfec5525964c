"""Small random models, and the patch operations spelled out pixel by pixel."""

import torch
from torch import Tensor

from mrisps.model import ModelConfig, SmoothPlusSparse

CHECKPOINTS = ("sigma_5_CPR", "sigma_5_NCPR", "sigma_25_CPR", "sigma_25_NCPR")

NCPR = ModelConfig(patch_size=5, n_free_atoms=8, n_synthesis_atoms=10, regulariser="NCPR", exponent=1.8)
CPR = ModelConfig(patch_size=5, n_free_atoms=8, n_synthesis_atoms=10, regulariser="CPR", group_size=2)
CONFIGS = (NCPR, CPR)


def random_tensor(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def random_model(
    config: ModelConfig = NCPR,
    *,
    beta: float = 0.5,
    lam: float = 0.1,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> SmoothPlusSparse:
    """Random atoms and thresholds that differ from atom to atom."""
    p, m, n = config.patch_size, config.n_free_atoms, config.n_synthesis_atoms
    return SmoothPlusSparse(
        config,
        random_tensor(m, p, p, dtype=dtype, seed=seed),
        random_tensor(n, p, p, dtype=dtype, seed=seed + 1),
        0.3 * random_tensor(n, dtype=dtype, seed=seed + 2),
        beta,
        lam,
    )


def explicit_patches(image: Tensor, p: int) -> Tensor:
    """(y, x) -> (y, x, p * p), one index at a time: pixel (i + u - p // 2, j + v - p // 2) of the periodic image."""
    height, width = image.shape
    patches = torch.empty(height, width, p * p, dtype=image.dtype)
    for i in range(height):
        for j in range(width):
            for u in range(p):
                for v in range(p):
                    patches[i, j, u * p + v] = image[(i + u - p // 2) % height, (j + v - p // 2) % width]
    return patches


def patch_matrix(shape: tuple[int, int], p: int) -> Tensor:
    """All patches of an image as one matrix, (y * x * p * p, y * x)."""
    n = shape[0] * shape[1]
    pixel_numbers = explicit_patches(torch.arange(n).reshape(shape), p).flatten()
    return torch.nn.functional.one_hot(pixel_numbers, n).double()


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float(torch.linalg.vector_norm(found - expected) / torch.linalg.vector_norm(expected))
