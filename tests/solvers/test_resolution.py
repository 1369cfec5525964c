"""Lower resolutions: the same image, as far as a coarser grid carries it."""

import math

import pytest
import torch
from torch import Tensor

from mrisps.solvers.resolution import coarse_shape, lift, restrict, restrict_transfer


def wave(shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
    """A band-limited image, sampled on any grid."""
    y = torch.arange(shape[0], dtype=torch.float64)[:, None] / shape[0] * 2 * math.pi
    x = torch.arange(shape[1], dtype=torch.float64)[None, :] / shape[1] * 2 * math.pi
    real = 1 + torch.cos(2 * y + 0.3) + torch.sin(3 * x + y)
    return torch.complex(real, torch.cos(x - 2 * y))[None, None] if dtype.is_complex else real[None, None]


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
@pytest.mark.parametrize("fine", [(32, 24), (33, 25)], ids=str)
def test_a_band_limited_image_is_the_same_on_both_grids(dtype: torch.dtype, fine: tuple[int, int]) -> None:
    image, coarse = wave(fine, dtype), wave((16, 12), dtype)
    torch.testing.assert_close(restrict(image, (16, 12)), coarse)
    torch.testing.assert_close(lift(coarse, torch.zeros_like(image)), image)


def test_lifting_keeps_what_the_coarse_grid_does_not_carry() -> None:
    fine = torch.randn(1, 1, 24, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(lift(restrict(fine, (12, 8)), fine), fine)
    same = lift(fine, torch.zeros_like(fine))
    spectrum = torch.fft.fft2(same - fine)[0, 0]
    spectrum[12], spectrum[:, 10] = 0, 0  # the frequencies without a mirror image
    torch.testing.assert_close(spectrum, torch.zeros_like(spectrum))


def test_a_convolution_and_restriction_can_be_exchanged() -> None:
    generator = torch.Generator().manual_seed(0)
    kernel = torch.randn(24, 20, dtype=torch.float64, generator=generator)
    transfer = torch.fft.fft2(kernel).abs()
    image = torch.randn(1, 1, 24, 20, dtype=torch.float64, generator=generator)
    fine = torch.fft.ifft2(transfer * torch.fft.fft2(image)).real
    coarse = torch.fft.ifft2(restrict_transfer(transfer, (12, 8)) * torch.fft.fft2(restrict(image, (12, 8)))).real
    torch.testing.assert_close(restrict(fine, (12, 8)), coarse)


def test_coarse_shapes() -> None:
    assert coarse_shape((640, 372), 4, 4) == (160, 92)
    assert coarse_shape((640, 368), 2, 8) == (320, 184)
    assert coarse_shape((10, 10), 4, 4) == (4, 4)
