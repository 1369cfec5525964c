"""Shapes and data types of the two sides of an operator."""

import torch

DOUBLE = {
    torch.float32: torch.float64,
    torch.float64: torch.float64,
    torch.complex64: torch.complex128,
    torch.complex128: torch.complex128,
}
"""Double precision of each dtype that an operator may have."""
SINGLE = {double: single for single, double in DOUBLE.items() if single != double}
SINGLE |= {single: single for single in tuple(SINGLE.values())}


def image_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Shape without batch axis: ``(y, x)`` is one image ``(1, y, x)``, ``(channel, y, x)`` stays.

    Raises
    ------
    ValueError
        If there are fewer than two or more than three sizes, or a size is not a positive integer.
    """
    if len(shape) not in (2, 3):
        raise ValueError(f"shape: expected (y, x) or (channel, y, x), got {tuple(shape)}")
    check_shape("shape", shape)
    return int(shape[0]) if len(shape) == 3 else 1, int(shape[-2]), int(shape[-1])


def complex_dtype(dtype: torch.dtype) -> torch.dtype:
    """Complex dtype of the same precision; ValueError for what is not single or double precision."""
    check_dtype("dtype", dtype)
    return torch.complex64 if DOUBLE[dtype] != dtype else torch.complex128


def real_dtype(dtype: torch.dtype) -> torch.dtype:
    """Real dtype of the same precision; ValueError for what is not single or double precision."""
    check_dtype("dtype", dtype)
    return torch.float32 if DOUBLE[dtype] != dtype else torch.float64


def check_shape(name: str, shape: tuple[int, ...]) -> None:
    """ValueError unless all sizes are positive integers."""
    if not shape or any(isinstance(size, bool) or not isinstance(size, int) or size < 1 for size in shape):
        raise ValueError(f"{name}: expected positive integers, got {tuple(shape)}")


def check_dtype(name: str, dtype: torch.dtype) -> None:
    """ValueError unless it is real or complex, of single or double precision."""
    if dtype not in DOUBLE:
        raise ValueError(f"{name}: expected one of {', '.join(map(str, DOUBLE))}, got {dtype}")
