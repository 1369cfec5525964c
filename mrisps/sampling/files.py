"""Sampling masks in files: ``.npy`` holds the pattern, ``.json`` everything that is known of the mask."""

import dataclasses
import io
import json
from pathlib import Path

import numpy as np

from mrisps.atomic import write_bytes, write_text
from mrisps.errors import FileError
from mrisps.sampling.mask import SamplingMask

__all__ = ["read_mask", "write_mask"]


def read_mask(path: Path | str, shape: tuple[int, int] | None = None) -> SamplingMask:
    """Mask from a file: of kind ``"file"`` from ``.npy``, as it was written from ``.json``.

    The shape ``(y, x)`` is that of the k-space; needed for columns in a ``.npy``. A ``.json`` knows its own, which must
    be the same. A FileError if the file cannot be read or is not a mask of that shape.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    try:
        if suffix == ".json":
            mask = SamplingMask.from_record(json.loads(path.read_text(encoding="utf-8")))
            if shape is not None and mask.shape != tuple(shape):
                raise ValueError(f"expected (y, x) = {tuple(shape)}, got {mask.shape}")
            return mask
        if suffix == ".npy":
            with path.open("rb") as file:
                array = np.lib.format.read_array(file, allow_pickle=False)
            return dataclasses.replace(SamplingMask.from_array(array, shape), kind="file")
    except (OSError, ValueError, EOFError, MemoryError, RecursionError) as error:
        # MemoryError: what a wrong header can ask for; RecursionError: deeply nested JSON.
        message = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise FileError(path, message, field="mask") from error
    raise FileError(path, f"expected a mask as .npy or .json, got suffix {path.suffix!r}")


def write_mask(mask: SamplingMask, path: Path | str) -> None:
    """Write a mask: ``.json`` with everything, ``.npy`` with the pattern only. A file of that name is replaced."""
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix == ".json":
        write_text(path, json.dumps(mask.to_record(), indent=2) + "\n")
    elif suffix == ".npy":
        buffer = io.BytesIO()
        np.save(buffer, mask.pattern, allow_pickle=False)
        write_bytes(path, buffer.getvalue())
    else:
        raise ValueError(f"path: expected a name ending in .json or .npy, got {path.name!r}")
