"""The outer loss: how far a reconstruction is from the clean image."""

from typing import Literal

from torch import Tensor

__all__ = ["LossName", "image_loss"]

LossName = Literal["L1", "L2", "PSNR"]


def image_loss(name: LossName, image: Tensor, target: Tensor) -> Tensor:
    """Mean over the batch of a loss between images, a scalar.

    Parameters
    ----------
    name
        ``"L1"``: mean absolute error, the loss of the paper. ``"L2"``: mean squared error. ``"PSNR"``: minus the PSNR in dB, with
        data range 1; images that are easy to reconstruct then count as much as hard ones.
    image, target
        (batch, 1, y, x), real or complex. The loss of complex images depends on the modulus of their difference.
    """
    difference = image - target
    if name == "L1":
        return difference.abs().mean()
    squares = difference.real.square() + difference.imag.square() if difference.is_complex() else difference.square()
    return squares.mean() if name == "L2" else 10 * squares.flatten(1).mean(dim=1).clamp(min=1e-30).log10().mean()
