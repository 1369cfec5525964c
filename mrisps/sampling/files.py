"""Sampling masks in files: ``.npy`` holds the pattern, ``.json`` everything that is known of the mask."""

import dataclasses
from pathlib import Path

import numpy as np

from mrisps.errors import FileError
from mrisps.sampling.mask import SamplingMask

__all__ = ["read_mask"]


def read_mask(path: Path | str, shape: tuple[int, int] | None = None) -> SamplingMask:
    """Mask from a file.

    Parameters
    ----------
    path
        ``.npy``: an array as for `SamplingMask.from_array`. ``.json``: what `SamplingMask.to_json` wrote.
    shape
        ``(y, x)`` of the k-space; needed for columns in a ``.npy``. A ``.json`` knows its own, which must be the same.

    Returns
    -------
    SamplingMask
        Of kind ``"file"`` from ``.npy``; as it was written from ``.json``.

    Raises
    ------
    FileError
        If the file cannot be read or is not a mask of that shape.
    """
    path = Path(path)
    try:
        if path.suffix == ".json":
            mask = SamplingMask.from_json(path.read_text(encoding="utf-8"))
            if shape is not None and mask.shape != tuple(shape):
                raise ValueError(f"expected (y, x) = {tuple(shape)}, got {mask.shape}")
            return mask
        if path.suffix == ".npy":
            with path.open("rb") as file:
                array = np.lib.format.read_array(file, allow_pickle=False)
            return dataclasses.replace(SamplingMask.from_array(array, shape), kind="file")
    except (OSError, ValueError, EOFError, MemoryError) as error:  # MemoryError: what a wrong header can ask for
        message = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise FileError(path, message, field="mask") from error
    raise FileError(path, f"expected a mask as .npy or .json, got suffix {path.suffix!r}")
