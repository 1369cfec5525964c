"""Gaussian blur and downsampling."""

import math

import pytest
import torch
import torch.nn.functional as F

from mrisps.operators import BlurDownsample

from .helpers import check_operator, random_tensor


def paper_kernel() -> torch.Tensor:
    """16 x 16 samples, as the operator applies them to an image of their size."""
    return BlurDownsample((16, 16), dtype=torch.float64).adjoint(torch.ones(1, 1, 1, 1, dtype=torch.float64))[0, 0]


@pytest.mark.parametrize("shape", [(16, 16), (17, 22), (19, 20), (21, 16)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_as_in_the_paper(shape: tuple[int, int], dtype: torch.dtype) -> None:
    check_operator(BlurDownsample(shape, dtype=dtype))


@pytest.mark.parametrize(
    ("shape", "kernel_size", "sigma", "stride"),
    [((7, 8), 3, 0.7, 1), ((9, 11), 5, 1.0, 3), ((2, 8, 9), 4, 2.0, 2), ((6, 9), 2, 1.0, 5), ((4, 5), 1, 1.0, 2)],
)
def test_other_parameters(shape: tuple[int, ...], kernel_size: int, sigma: float, stride: int) -> None:
    operator = BlurDownsample(shape, kernel_size, sigma, stride, torch.float64)
    check_operator(operator)
    assert operator.normal_transfer_function() is None


@pytest.mark.parametrize("shape", [(16, 16), (19, 30), (40, 33), (3, 20, 21)])
def test_is_a_valid_strided_convolution(shape: tuple[int, ...]) -> None:
    operator = BlurDownsample(shape, dtype=torch.float64)
    kernel = paper_kernel()
    x = random_tensor((2, *operator.domain_shape), torch.float64)
    expected = F.conv2d(x.flatten(0, 1)[:, None], kernel[None, None], stride=4)
    assert operator.range_shape[1:] == tuple(expected.shape[-2:])
    torch.testing.assert_close(operator(x), expected.reshape(2, *operator.range_shape))
    # The adjoint is the transposed convolution, padded to the pixels that no output looks at.
    y = random_tensor((2, *operator.range_shape), torch.float64)
    remainder = tuple((size - 16) % 4 for size in operator.domain_shape[1:])
    expected = F.conv_transpose2d(
        y.flatten(0, 1)[:, None], kernel[None, None], stride=4, output_padding=(remainder[0], remainder[1])
    )
    torch.testing.assert_close(operator.adjoint(y), expected.reshape(2, *operator.domain_shape))


@pytest.mark.parametrize(("stride", "kernel_size", "shape"), [(4, 16, (32, 40)), (3, 12, (27, 24)), (2, 7, (16, 18))])
def test_keeps_samples_of_a_circular_convolution(stride: int, kernel_size: int, shape: tuple[int, int]) -> None:
    operator = BlurDownsample(shape, kernel_size, 1.5, stride, torch.float64)
    sampling = operator.sampled_convolution()
    assert sampling is not None
    x = random_tensor((2, *operator.domain_shape), torch.float64)
    convolved = torch.fft.ifft2(sampling.transfer * torch.fft.fft2(x)).real
    samples = convolved[..., ::stride, ::stride][..., sampling.kept]
    torch.testing.assert_close(samples, operator(x).flatten(2), rtol=1e-12, atol=1e-12)
    # Where the stride does not divide the size, the samples of the periodic image are not on a grid.
    assert BlurDownsample((shape[0] + 1, shape[1]), kernel_size, 1.5, stride).sampled_convolution() is None


def test_complex_images_are_blurred_part_by_part() -> None:
    x = random_tensor((2, 1, 20, 21), torch.complex128)
    real = BlurDownsample((20, 21), dtype=torch.float64)
    expected = torch.complex(real(x.real.clone()), real(x.imag.clone()))
    torch.testing.assert_close(BlurDownsample((20, 21), dtype=torch.complex128)(x), expected)


def test_kernel() -> None:
    kernel = paper_kernel()
    assert float(kernel.sum()) == pytest.approx(1, abs=1e-14)
    for symmetric in (kernel.mT, kernel.flip(0), kernel.flip(1)):
        torch.testing.assert_close(kernel, symmetric)
    # Between samples (0, 0) and (3, 5): Gaussian of sigma 2 about 7.5.
    ratio = math.exp(-((7.5**2 + 7.5**2) - (4.5**2 + 2.5**2)) / 8)
    assert float(kernel[0, 0] / kernel[3, 5]) == pytest.approx(ratio, rel=1e-12)


def test_constant_image_stays_constant() -> None:
    operator = BlurDownsample((40, 50))
    torch.testing.assert_close(operator(torch.ones(1, 1, 40, 50)), torch.ones(1, *operator.range_shape))


def test_another_precision_is_computed_anew() -> None:
    double = BlurDownsample((20, 21), dtype=torch.float64)
    there_and_back = double.to(precision="single").to(precision="double")
    x = random_tensor((1, 1, 20, 21), torch.float64)
    assert torch.equal(there_and_back(x), double(x))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kernel_size", 0),
        ("kernel_size", 2.5),
        ("stride", 0),
        ("stride", True),
        ("sigma", 0.0),
        ("sigma", math.nan),
        ("sigma", math.inf),
    ],
)
def test_wrong_parameters(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name}: expected a positive"):
        BlurDownsample((32, 32), **{name: value})  # type: ignore[arg-type]  # wrong on purpose


def test_image_must_be_as_large_as_the_kernel() -> None:
    with pytest.raises(
        ValueError, match=r"shape: expected at least 16 pixels, the kernel_size, got \(y, x\) = \(32, 15\)"
    ):
        BlurDownsample((32, 15))


def test_repr() -> None:
    assert repr(BlurDownsample((32, 40))) == (
        "BlurDownsample(float32[1, 32, 40] -> float32[1, 5, 7], device='cpu', kernel_size=16, sigma=2, stride=4)"
    )
