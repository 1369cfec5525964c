"""Outer losses against independent ones."""

import typing

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio
from torch import Tensor

from mrisps.bilevel.losses import LossName, image_loss

LOSSES = typing.get_args(LossName)


def images(seed: int = 0, *, batch: int = 3, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    target = torch.rand(batch, 1, 12, 15, dtype=dtype, generator=generator)
    return target + 0.1 * torch.randn(target.shape, dtype=dtype, generator=generator), target


def test_l1_and_l2() -> None:
    image, target = images()
    difference = (image - target).numpy()
    assert float(image_loss("L1", image, target)) == pytest.approx(np.abs(difference).mean())
    assert float(image_loss("L2", image, target)) == pytest.approx((difference**2).mean())


def test_complex_differences_are_measured_by_their_modulus() -> None:
    image, target = images(dtype=torch.complex128)
    difference = (image - target).numpy()
    assert float(image_loss("L1", image, target)) == pytest.approx(np.abs(difference).mean())
    assert float(image_loss("L2", image, target)) == pytest.approx((np.abs(difference) ** 2).mean())


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_psnr_is_the_mean_over_images(dtype: torch.dtype) -> None:
    image, target = images(dtype=dtype)
    image[0] += 1  # a hard one
    scores = [
        peak_signal_noise_ratio(np.zeros((12, 15)), np.abs(d[0]), data_range=1.0) for d in (image - target).numpy()
    ]
    assert float(image_loss("PSNR", image, target)) == pytest.approx(-np.mean(scores))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_equal_images_have_no_loss(name: LossName, dtype: torch.dtype) -> None:
    _, target = images(dtype=dtype)
    assert float(image_loss(name, target, target)) == pytest.approx(-300 if name == "PSNR" else 0, abs=1e-6)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_gradient(name: LossName, dtype: torch.dtype) -> None:
    """Finite differences, also of the imaginary part."""
    image, target = images(batch=1, dtype=dtype)
    image = image[..., :8, :8].clone().requires_grad_()
    target = target[..., :8, :8]
    assert torch.autograd.gradcheck(lambda x: image_loss(name, x, target), (image,))  # type: ignore[no-untyped-call]  # torch has no types for it


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_gradient_is_finite_where_images_are_zero_or_equal(name: LossName, dtype: torch.dtype) -> None:
    """The modulus has no derivative at 0: outside the body this is the rule, not an exception."""
    for target in (torch.zeros(1, 1, 9, 9, dtype=dtype), torch.ones(1, 1, 9, 9, dtype=dtype)):
        image = target.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(image_loss(name, image, target), image)
        assert bool(gradient.isfinite().all())


@pytest.mark.parametrize("name", LOSSES)
def test_batch_mean(name: LossName) -> None:
    """The loss of a batch is the mean of the losses of its images: shares of a batch can be averaged."""
    image, target = images()
    each = [float(image_loss(name, image[k : k + 1], target[k : k + 1])) for k in range(len(image))]
    assert float(image_loss(name, image, target)) == pytest.approx(np.mean(each))
