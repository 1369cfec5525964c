"""What the parameters of a mask may be."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
Seed = int | tuple[int, ...]
Pattern = npt.NDArray[np.bool_]

MASK_KINDS: Final = (
    "random",
    "equispaced",
    "equispaced_fraction",
    "magic",
    "magic_fraction",
    "gaussian",
    "polynomial",
    "poisson",
)
"""The kinds that `make_mask` makes."""

KINDS = (*MASK_KINDS, "array", "file")


def is_integer(value: object) -> bool:
    """Whether a value is an integer, and no bool."""
    return isinstance(value, int) and not isinstance(value, bool)


def _in(low: float, high: float = 1e308) -> Callable[[object], bool]:
    """Whether a value is a number in [low, high]."""
    return lambda v: isinstance(v, int | float) and not isinstance(v, bool) and low <= v <= high


def _is_seed(value: object) -> bool:
    parts = value if isinstance(value, tuple) else (value,)
    return bool(parts) and all(isinstance(part, int) and is_integer(part) and 0 <= part < 2**32 for part in parts)


def _is_shape(value: object) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(is_integer(size) and size > 0 for size in value)


_TINY = 5e-324  # the smallest positive number
EXPECTED: dict[str, tuple[str, Callable[[object], bool]]] = {
    "kind": (f"one of {', '.join(KINDS)}", lambda v: v in KINDS),
    "shape": ("(y, x), two positive integers", _is_shape),
    "acceleration": ("a number of at least 1", _in(1)),
    "center_fraction": ("a number in [0, 1]", _in(0, 1)),
    "seed": ("an integer in [0, 2^32), or a tuple of them", _is_seed),
    "offset": ("an integer of at least 0", lambda v: is_integer(v) and _in(0)(v)),
    "std": ("a positive number", _in(_TINY)),
    "power": ("a positive number", _in(_TINY)),
    "tolerance": ("a number of at least 0", _in(0)),
    "seed_used": ("an integer in [0, 2^32)", lambda v: is_integer(v) and _is_seed(v)),
}


def check(name: str, value: object) -> None:
    """ValueError that names the parameter of a mask whose value is wrong."""
    expected, is_right = EXPECTED[name]
    if not is_right(value):
        raise ValueError(f"{name}: expected {expected}, got {value!r}")


def binary(array: "npt.ArrayLike | torch.Tensor") -> Pattern:
    """Array of bool from anything that is binary."""
    values = array.detach().cpu().numpy() if hasattr(array, "detach") else np.asarray(array)
    if values.dtype != np.bool_ and values.dtype.kind not in "iuf":
        raise ValueError(f"pattern: expected bool, or numbers 0 and 1, got dtype {values.dtype}")
    if values.ndim not in (1, 2) or values.size == 0:
        raise ValueError(f"pattern: expected (x,) for columns or (y, x), got shape {values.shape}")
    pattern: Pattern = values.astype(np.bool_)
    if not np.array_equal(pattern, values):
        raise ValueError("pattern: expected only 0 and 1, got other values")
    return pattern
