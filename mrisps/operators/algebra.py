"""Products of operators and numbers: the chains that `@`, `*`, `+` and `-` make."""

import cmath
import itertools
from typing import Protocol

import torch


class Factor(Protocol):
    """What a chain needs of an operator; see `LinearOperator`."""

    def _forward(self, x: torch.Tensor) -> torch.Tensor: ...

    def _adjoint(self, y: torch.Tensor) -> torch.Tensor: ...

    def _normal(self, x: torch.Tensor) -> torch.Tensor: ...

    def _exact_norm(self) -> float | None: ...

    @property
    def n_measurements(self) -> int:
        """Number of real measurements."""

    def normal_transfer_function(self) -> torch.Tensor | None:
        """Transfer function of ``A^H A``."""


Chain = tuple[Factor | complex, ...]
"""A product of operators and numbers, the outermost first. The identity is the empty product."""


def check_factor(factor: complex, side: str, dtype: torch.dtype) -> None:
    """ValueError for a number that no operator with that dtype on that side can be multiplied with."""
    if not cmath.isfinite(factor):
        raise ValueError(f"factor: expected a finite number, got {factor}")
    if isinstance(factor, complex) and not dtype.is_complex:
        raise ValueError(f"factor: expected a real number for an operator with real {side}, got {factor}")


def through(chain: Chain, x: torch.Tensor) -> torch.Tensor:
    """The chain applied to `x`."""
    for part in reversed(chain):
        x = part * x if isinstance(part, int | float | complex) else part._forward(x)
    return x


def back(chain: Chain, y: torch.Tensor) -> torch.Tensor:
    """The adjoint of the chain applied to `y`."""
    # Factors in their place: over a real domain the adjoint ends with a real part, with which they do not commute.
    for part in chain:
        y = part.conjugate() * y if isinstance(part, int | float | complex) else part._adjoint(y)
    return y


def parts_of(chain: Chain) -> tuple[float, Factor | None, Chain]:
    """Squared modulus of the numbers that come first, the outermost operator, and the rest of the chain."""
    weight = 1.0
    for index, part in enumerate(chain):
        if not isinstance(part, int | float | complex):
            return weight, part, chain[index + 1 :]
        weight *= abs(part) ** 2
    return weight, None, ()


def transfer_function_of(
    chain: Chain, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> torch.Tensor | None:
    """Transfer function of the chain's normal operator, if all its operators but the innermost are multiples of isometries."""
    transfer = torch.ones(shape, dtype=dtype, device=device)
    for part in chain:
        if isinstance(part, int | float | complex):
            transfer = abs(part) ** 2 * transfer
            continue
        # A^H A = c: then B^H A^H A B = c B^H B. In general two convolutions need not make one: B lies between them.
        inner = part.normal_transfer_function()
        if inner is None or not bool((transfer == transfer.flatten()[0]).all()):
            return None
        transfer = transfer.flatten()[0] * inner
    return transfer


def described(chain: Chain) -> str:
    """The chain as one would write it."""
    if not chain:
        return "Identity"
    words = [f"({part!r})" if " + " in repr(part) else repr(part) for part in chain]
    numbers = [isinstance(part, int | float | complex) for part in chain]
    text = words[0]
    for word, pair in zip(words[1:], itertools.pairwise(numbers), strict=True):
        text += f" * {word}" if any(pair) else f" @ {word}"
    return text
