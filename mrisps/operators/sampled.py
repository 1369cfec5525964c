"""Samples of a circular convolution on a coarser grid: what a blurred and downsampled image is, up to its borders."""

from dataclasses import dataclass

import torch

__all__ = ["SampledConvolution"]


@dataclass(frozen=True, eq=False)
class SampledConvolution:
    """``A x = (g * x)[::stride, ::stride][kept]`` with a circular convolution: what a solver may know of an operator.

    Parameters
    ----------
    transfer
        Transfer function of the convolution, ``(y, x)`` complex128 in the order of `torch.fft.fft2`.
    stride
        Every how manieth sample is taken in each direction, from ``(0, 0)``; it divides y and x.
    kept
        ``(y / stride, x / stride)`` bool: the samples that the operator has. The others do not exist.
    """

    transfer: torch.Tensor
    stride: int
    kept: torch.Tensor
