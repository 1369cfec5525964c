"""Mapped files."""

import mmap

import numpy as np
from numpy.typing import NDArray

__all__ = ["release_pages"]


def release_pages(array: NDArray[np.generic]) -> None:
    """Let go of the pages of a mapped file that were read; they are read again when they are used again.

    Otherwise a program that walks through a large file has all of it in its resident memory in the end. Harmless for an array
    that is not mapped, and where the system cannot do it.
    """
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)
