"""The same problem at a lower resolution: the centre of k-space.

A low-pass image on a coarser grid, with the same intensities, is seen by the same model: the aliasing of undersampling is worst,
and slowest to resolve, at low frequencies, where a coarse grid costs a fraction. Its solution is the start of the next finer one.
Only what the image step needs is carried over: A^H y and the transfer function of A^H A.
"""

import torch
from torch import Tensor

__all__ = ["coarse_shape", "lift", "restrict", "restrict_transfer"]


def coarse_shape(shape: tuple[int, int], factor: int, multiple: int) -> tuple[int, int]:
    """(y, x) of the grid that is about ``factor`` times coarser, both multiples of ``multiple``."""
    height, width = (max(size // factor // multiple, 1) * multiple for size in shape)
    return height, width


def restrict(image: Tensor, shape: tuple[int, int]) -> Tensor:
    """The frequencies of an image that a coarser grid carries, (batch, set, y, x) -> (batch, set, *shape), same intensities."""
    spectrum = torch.fft.fft2(image)
    kept = _transplant(spectrum, spectrum.new_zeros(*image.shape[:-2], *shape))
    return _back(kept * (shape[0] * shape[1] / (image.shape[-2] * image.shape[-1])), image)


def restrict_transfer(transfer: Tensor, shape: tuple[int, int]) -> Tensor:
    """The same of a transfer function, (..., y, x), DC at [0, 0]."""
    return _transplant(transfer, transfer.new_zeros(*transfer.shape[:-2], *shape))


def lift(coarse: Tensor, fine: Tensor) -> Tensor:
    """The image ``fine`` with the frequencies that the coarser grid carries replaced by those of ``coarse``."""
    scale = fine.shape[-2] * fine.shape[-1] / (coarse.shape[-2] * coarse.shape[-1])
    return _back(_transplant(torch.fft.fft2(coarse) * scale, torch.fft.fft2(fine)), fine)


def _transplant(source: Tensor, target: Tensor) -> Tensor:
    """Copy the frequencies that both spectra have into the target; not those at minus half the sampling rate, which even
    sizes have without their mirror image."""
    rows, columns = (
        (min(source.shape[axis], target.shape[axis]) - 1) // 2 for axis in (-2, -1)
    )  # the highest frequency that both have on both sides
    for low_y, low_x in ((True, True), (True, False), (False, True), (False, False)):
        ys = slice(0, rows + 1) if low_y else slice(-rows, None)
        xs = slice(0, columns + 1) if low_x else slice(-columns, None)
        if (low_y or rows) and (low_x or columns):
            target[..., ys, xs] = source[..., ys, xs]
    return target


def _back(spectrum: Tensor, like: Tensor) -> Tensor:
    image: Tensor = torch.fft.ifft2(spectrum)
    return image if like.is_complex() else image.real.contiguous()
