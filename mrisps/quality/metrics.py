"""Image quality in fastMRI's definitions, with the data range always stated.

Source: the package ``fastmri`` 0.3.0 (``fastmri.evaluate``): PSNR and SSIM are scikit-image's, SSIM is taken slice by
slice and averaged, and both images are cropped to the centre before.
"""

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["DataRange", "Real", "check_range", "nmse", "psnr", "ssim"]

Real = NDArray[np.float32] | NDArray[np.float64]
DataRange = float | Literal["target-max"]
"""A number, or ``"target-max"``: the maximum of each file's target, which is what ``fastmri.evaluate`` takes."""


def psnr(image: Real, target: Real, *, data_range: float) -> float:
    """Peak signal-to-noise ratio in dB.

        10 log10(data_range^2 / mean((image - target)^2))

    of real arrays of one shape; infinite for equal ones. A volume has one value, not the mean over its slices. A
    ValueError if shapes differ, an array is empty, complex or not finite, or the data range is not positive.
    """
    _check(image, target, data_range)
    error = float(np.mean(np.square(np.subtract(image, target, dtype=np.float64))))
    return math.inf if error == 0 else 10 * math.log10(data_range**2 / error)


def ssim(image: Real, target: Real, *, data_range: float) -> float:
    """Structural similarity: the mean over slices of scikit-image's (7 x 7 uniform window, sample covariance).

    Images are (y, x) or (slice, y, x), at least 7 x 7 pixels, and computed in their own precision, as fastMRI does. The
    data range is that of the values that are possible. A ValueError as `psnr`.
    """
    from skimage.metrics import structural_similarity

    _check(image, target, data_range)
    if image.ndim not in (2, 3) or min(image.shape[-2:]) < 7:
        raise ValueError(f"image: expected (y, x) or (slice, y, x) of at least 7 x 7 pixels, got {image.shape}")
    slices = image.reshape(-1, *image.shape[-2:])
    references = target.reshape(slices.shape)
    pairs = zip(references, slices, strict=True)
    return float(np.mean([structural_similarity(*pair, data_range=data_range) for pair in pairs]))  # type: ignore[no-untyped-call]  # skimage: untyped


def nmse(image: Real, target: Real) -> float:
    """Normalised mean squared error, |image - target|^2 / |target|^2. A ValueError as `psnr`, and for a target of zeros."""
    _check(image, target, 1.0)
    norm = float(np.sum(np.square(target, dtype=np.float64)))
    if norm == 0:
        raise ValueError("target: is zero everywhere")
    return float(np.sum(np.square(np.subtract(image, target, dtype=np.float64)))) / norm


def _check(image: Real, target: Real, data_range: float) -> None:
    if image.shape != target.shape or image.size == 0:
        raise ValueError(f"image: expected the target's shape {target.shape}, not empty, got {image.shape}")
    for name, array in (("image", image), ("target", target)):
        if array.dtype.kind != "f" or not np.isfinite(array).all():
            raise ValueError(f"{name}: expected finite real numbers, got {array.dtype} {array.shape}")
    check_range(data_range)


def check_range(data_range: DataRange) -> None:
    """Refuse a data range that is no positive number, with a ValueError."""
    if not isinstance(data_range, int | float) or not 0 < data_range < math.inf:
        raise ValueError(f"data_range: expected a positive number, got {data_range!r}")
