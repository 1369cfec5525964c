"""Centred orthonormal Fourier transform."""

import math

import pytest
import torch

from mrisps.operators import Fourier, fft2c, ifft2c

from .helpers import check_operator, random_tensor

SHAPES = [(4, 6), (5, 7), (4, 7), (5, 6), (1, 3), (3, 1)]


@pytest.mark.parametrize("shape", [*SHAPES, (3, 4, 5)])
def test_fourier(shape: tuple[int, ...]) -> None:
    operator = Fourier(shape, torch.complex128)
    check_operator(operator)
    assert operator.norm() == 1


@pytest.mark.parametrize("shape", SHAPES)
def test_is_the_centred_sum(shape: tuple[int, int]) -> None:
    image = random_tensor((1, 1, *shape), torch.complex128)
    matrices = []
    for size in shape:
        index = torch.arange(size, dtype=torch.float64) - size // 2
        matrices.append(torch.exp(-2j * math.pi * torch.outer(index, index) / size) / math.sqrt(size))
    expected = matrices[0] @ image @ matrices[1].mT
    torch.testing.assert_close(Fourier(shape, torch.complex128)(image), expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_inverse_and_energy(shape: tuple[int, int]) -> None:
    image = random_tensor((2, 3, *shape), torch.complex128)
    kspace = fft2c(image)
    torch.testing.assert_close(ifft2c(kspace), image)
    torch.testing.assert_close(torch.linalg.vector_norm(kspace), torch.linalg.vector_norm(image))


@pytest.mark.parametrize("shape", SHAPES)
def test_origin_is_in_the_centre(shape: tuple[int, int]) -> None:
    constant = fft2c(torch.ones(shape, dtype=torch.float64))
    expected = torch.zeros(shape, dtype=torch.complex128)
    expected[shape[0] // 2, shape[1] // 2] = math.sqrt(shape[0] * shape[1])
    torch.testing.assert_close(constant, expected)
    point = torch.zeros(shape, dtype=torch.float64)
    point[shape[0] // 2, shape[1] // 2] = 1
    torch.testing.assert_close(
        fft2c(point), torch.full(shape, 1 / math.sqrt(shape[0] * shape[1]), dtype=torch.complex128)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_real_images_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match=f"dtype: expected torch.complex64 or torch.complex128, got {dtype}"):
        Fourier((4, 4), dtype)
