"""The largest eigenvalue of ``A^H A`` by power iteration."""

import math
from collections.abc import Callable

import torch

from mrisps.operators.spaces import DOUBLE

# The power iteration looks at its growth over this many steps: over one step it would be rounding, or a transient.
_BLOCK = 10


def largest_eigenvalue(
    normal: Callable[[torch.Tensor], torch.Tensor],
    space: tuple[tuple[int, ...], torch.dtype, torch.device],
    tolerance: float,
    max_iterations: int,
) -> float:
    """Largest eigenvalue of a positive semi-definite map.

    The Rayleigh quotients grow towards the largest eigenvalue. The iteration stops when the rest of that growth,
    extrapolated as a geometric series over blocks of ten steps, is below the tolerance.

    Parameters
    ----------
    normal
        The map.
    space
        Shape, dtype and device of what the map takes.
    tolerance
        Relative accuracy of the square root.
    max_iterations
        Most applications of the map.

    Raises
    ------
    RuntimeError
        If `max_iterations` are not enough, or the map returns something that is not finite.
    """
    shape, dtype, device = space
    generator = torch.Generator().manual_seed(0)
    # Sums in double precision: the growth is the small difference of two of them.
    vector = torch.randn(shape, generator=generator, dtype=DOUBLE[dtype]).to(device)
    vector = vector / torch.linalg.vector_norm(vector)
    rounding = torch.finfo(dtype).eps
    eigenvalue, growth = 0.0, math.inf
    with torch.no_grad():
        for iteration in range(1, max_iterations + 1):
            image = normal(vector.to(dtype)).to(vector.dtype)
            length = float(torch.linalg.vector_norm(image))
            if not math.isfinite(length):
                raise RuntimeError("returned values that are not finite")
            if length == 0:
                return 0.0
            vector, previous_vector = image / length, vector
            if iteration % _BLOCK != 0:
                continue
            previous_eigenvalue, previous_growth = eigenvalue, growth
            eigenvalue = float(torch.linalg.vecdot(previous_vector.flatten(), image.flatten()).real)
            growth = eigenvalue - previous_eigenvalue
            ratio = growth / previous_growth if previous_growth > 0 else 0.0
            # The norm is a square root, with half the relative error of the eigenvalue: that half is for safety.
            rest = growth * ratio / (1 - ratio) if 0 <= ratio < 1 else math.inf
            if iteration > 2 * _BLOCK and (rest <= tolerance * eigenvalue or growth <= rounding * eigenvalue):
                return eigenvalue
    raise RuntimeError(f"tolerance {tolerance:g} not reached in {max_iterations} iterations")
