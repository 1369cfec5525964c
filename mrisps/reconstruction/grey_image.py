"""Sources of a run: k-space, opened, or a grey image."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mrisps.io.kspace_file import KspaceFile

__all__ = ["GreyImage", "Source"]


@dataclass(frozen=True, eq=False)
class GreyImage:
    """A grey image as a source with one slice, for denoising and super-resolution.

    Parameters
    ----------
    path
        The file, or what stands for one in messages.
    pixels
        float32 (y, x).
    """

    path: Path
    pixels: NDArray[np.float32]

    def sha256(self) -> str:
        """SHA-256 of shape and pixels."""
        digest = hashlib.sha256(str(self.pixels.shape).encode())
        digest.update(np.ascontiguousarray(self.pixels).data)
        return digest.hexdigest()


Source = KspaceFile | GreyImage
"""An open source; :meth:`mrisps.reconstruction.run.Run.open` makes one from a path."""
