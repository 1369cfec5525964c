"""What a reconstruction is judged by in training: the outer loss."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["SSIM_WINDOW", "LossName", "image_loss"]

LossName = Literal["L1", "L2", "PSNR", "SSIM"]

SSIM_SHARE = 0.84
"""Of the mixed loss; the rest is L1. H. Zhao et al., IEEE Trans. Comput. Imaging 3 (2017) 47-57, section III."""

SSIM_WINDOW = 7
K1, K2 = 0.01, 0.03


def image_loss(name: LossName, image: Tensor, target: Tensor) -> Tensor:
    """Mean over the batch of a loss between images, a scalar.

    Parameters
    ----------
    name
        ``"L1"``: mean absolute error (the paper's); ``"L2"``: mean squared error; ``"PSNR"``: minus the PSNR in dB, with data
        range 1: images that are easy to reconstruct count as much as hard ones; ``"SSIM"``: 0.84 (1 - SSIM) + 0.16 L1, with data
        range 1.
    image, target
        (batch, 1, y, x), real, or complex: then their difference is measured by its modulus, SSIM between the moduli.
    """
    difference = image - target
    if name in ("L2", "PSNR"):
        squares = (
            difference.real.square() + difference.imag.square() if difference.is_complex() else difference.square()
        )
        return squares.mean() if name == "L2" else 10 * squares.flatten(1).mean(dim=1).clamp(min=1e-30).log10().mean()
    l1 = difference.abs().mean()
    if name == "L1":
        return l1
    if image.is_complex():
        image, target = image.abs(), target.abs()
    return SSIM_SHARE * (1 - _ssim(image, target)) + (1 - SSIM_SHARE) * l1


def _ssim(image: Tensor, target: Tensor) -> Tensor:
    """Mean structural similarity with a uniform 7 x 7 window and data range 1, over the windows inside the image.

    Source: Z. Wang et al., IEEE Trans. Image Process. 13 (2004) 600-612; sample covariances as in scikit-image and fastMRI.
    """

    def mean(values: Tensor) -> Tensor:
        return functional.avg_pool2d(values, SSIM_WINDOW, stride=1)

    n = SSIM_WINDOW**2
    mean_x, mean_y = mean(image), mean(target)
    unbiased = n / (n - 1)
    var_x = unbiased * (mean(image.square()) - mean_x.square())
    var_y = unbiased * (mean(target.square()) - mean_y.square())
    covariance = unbiased * (mean(image * target) - mean_x * mean_y)
    c1, c2 = K1**2, K2**2
    numerator = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    denominator = (mean_x.square() + mean_y.square() + c1) * (var_x + var_y + c2)
    return torch.mean(numerator / denominator)
