"""Pixels as they travel in a page: 16-bit codes, predicted from their neighbours, deflated, as base64 text.

A plane is an image whose values are ``offset + step * code``. Each code is predicted from its neighbours on the left, above, and
above left (the median edge detector of JPEG-LS, Weinberger et al., IEEE Trans. Image Process. 9 (2000) 1309-1324); the residual is
folded to be positive, its high bytes come before its low bytes, and zlib packs them. Nothing but the rounding to codes is lost.
"""

import base64
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["NOT_A_NUMBER", "Plane", "encode"]

NOT_A_NUMBER = 65535
"""The code of a pixel that is NaN or infinite."""


@dataclass(frozen=True)
class Plane:
    """One image of a page.

    Parameters
    ----------
    text
        Base64.
    shape
        (y, x).
    offset, step
        The value of code 0, and what one code more means, in the units of the image.
    spread
        The 0.2nd and the 99.8th percentile of the values: what a window covers by default.
    """

    text: str
    shape: tuple[int, int]
    offset: float
    step: float
    spread: tuple[float, float]


def encode(image: NDArray[np.generic], levels: int = 16383) -> Plane:
    """A real image as a plane.

    Parameters
    ----------
    image
        (y, x), real; NaN and infinity keep their place as `NOT_A_NUMBER`.
    levels
        Codes between the smallest and the largest value; at most 65534.

    Raises
    ------
    ValueError
        The image is complex, empty or of another dimension, or the levels are out of range.
    """
    if image.ndim != 2 or image.size == 0 or image.dtype.kind not in "fiub":
        raise ValueError(f"image: expected real (y, x), got {image.dtype} {image.shape}")
    if not 1 <= levels < NOT_A_NUMBER:
        raise ValueError(f"levels: expected 1 to {NOT_A_NUMBER - 1}, got {levels}")
    values = image.astype(np.float64)
    known = np.isfinite(values)
    finite = values[known] if known.any() else np.zeros(1)
    low, high = float(finite.min()), float(finite.max())
    step = (high - low) / levels or 1.0
    codes = np.full(values.shape, NOT_A_NUMBER, dtype=np.int32)
    codes[known] = np.rint((values[known] - low) / step)
    first, last = np.percentile(finite, (0.2, 99.8))
    return Plane(_packed(codes), (image.shape[0], image.shape[1]), low, step, (float(first), float(last)))


def _packed(codes: NDArray[np.int32]) -> str:
    padded = np.pad(codes, ((1, 0), (1, 0)))
    left, up, corner = padded[1:, :-1], padded[:-1, 1:], padded[:-1, :-1]
    predicted = np.clip(left + up - corner, np.minimum(left, up), np.maximum(left, up))
    residual = (codes - predicted).astype(np.int16).astype(np.int32)  # modulo 65536, from -32768 to 32767
    folded = ((residual << 1) ^ (residual >> 31)).astype(np.uint16)
    planes = (folded >> 8).astype(np.uint8).tobytes() + folded.astype(np.uint8).tobytes()
    # Runs of equal bytes, no repeated strings: smaller for noise than zlib's own search for strings, and ten times as fast.
    packer = zlib.compressobj(6, zlib.DEFLATED, 15, 9, zlib.Z_RLE)
    return base64.b64encode(packer.compress(planes) + packer.flush()).decode("ascii")
