"""Fourier transform and mask, on complex and on real images."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import mrisps.operators.cartesian as module
from mrisps.operators import BlurDownsample, FourierSubsampling, Identity, fft2c
from mrisps.sampling import SamplingMask, make_mask

from .helpers import check_operator, random_tensor

SHAPES = [(4, 6), (5, 7), (4, 7), (5, 6)]


def random_mask(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.4
    mask[..., shape[-1] // 2] = True
    return mask


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("columns", [True, False])
def test_subsampling(shape: tuple[int, int], dtype: torch.dtype, columns: bool) -> None:
    mask = random_mask(shape[1:] if columns else shape)
    check_operator(FourierSubsampling(mask, shape, dtype))


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_several_coils(dtype: torch.dtype) -> None:
    check_operator(FourierSubsampling(random_mask((6,)), (3, 5, 6), dtype))


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_is_the_centred_transform_with_zeros(dtype: torch.dtype) -> None:
    mask = random_mask((5, 6))
    image = random_tensor((2, 1, 5, 6), dtype)
    kspace = FourierSubsampling(mask, domain_dtype=dtype)(image)
    assert bool((kspace[..., ~mask] == 0).all())
    torch.testing.assert_close(kspace[..., mask], fft2c(image)[..., mask])


@pytest.mark.parametrize("shape", SHAPES)
def test_real_images_have_the_symmetrised_mask(shape: tuple[int, int]) -> None:
    mask = random_mask(shape)
    h = FourierSubsampling(mask, shape, torch.float64).normal_transfer_function()
    n_y, n_x = shape
    for row in range(n_y):
        for column in range(n_x):
            here = mask[(row + n_y // 2) % n_y, (column + n_x // 2) % n_x]
            there = mask[(-row + n_y // 2) % n_y, (-column + n_x // 2) % n_x]
            assert h[row, column] == (float(here) + float(there)) / 2


def test_full_mask_is_an_isometry() -> None:
    for dtype in (torch.float64, torch.complex128):
        operator = FourierSubsampling(torch.ones(4, 5, dtype=torch.bool), domain_dtype=dtype)
        assert operator.norm() == 1
        image = random_tensor((1, 1, 4, 5), dtype)
        torch.testing.assert_close(operator.normal(image), image)


def test_norm_over_real_images_can_be_below_one() -> None:
    mask = torch.zeros(4, 6, dtype=torch.bool)
    mask[1, 4] = True  # without its mirrored sample
    assert FourierSubsampling(mask, domain_dtype=torch.float64).norm() == math.sqrt(0.5)
    assert FourierSubsampling(mask).norm() == 1
    mask[3, 2] = True  # its mirrored sample
    assert FourierSubsampling(mask, domain_dtype=torch.float64).norm() == 1


@settings(max_examples=30, deadline=None)
@given(
    mask=hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=7)).filter(lambda m: bool(m.any())),
    real=st.booleans(),
)
def test_any_mask(mask: np.ndarray, real: bool) -> None:
    operator = FourierSubsampling(torch.from_numpy(mask), domain_dtype=torch.float64 if real else torch.complex128)
    x = random_tensor((1, *operator.domain_shape), operator.domain_dtype)
    expected = operator.adjoint(operator(x))
    torch.testing.assert_close(operator.normal(x), expected, rtol=1e-12, atol=1e-12)
    spectrum = torch.fft.fft2(x) * operator.normal_transfer_function()
    torch.testing.assert_close(torch.fft.ifft2(spectrum), expected.to(torch.complex128), rtol=1e-12, atol=1e-12)


def test_sampling_mask_brings_its_shape() -> None:
    mask = make_mask("equispaced", (10, 12), 4, 0.2)
    operator = FourierSubsampling(mask, domain_dtype=torch.complex128)
    assert operator.domain_shape == (1, 10, 12)
    image = random_tensor((1, 1, 10, 12), torch.complex128)
    for same in (mask.tensor(), mask.pattern, mask.array2d(), SamplingMask.from_array(mask.array2d())):
        assert torch.equal(FourierSubsampling(same, (10, 12), torch.complex128)(image), operator(image))
    coils = FourierSubsampling(mask, (4, 10, 12))
    assert coils.domain_shape == (4, 10, 12)


def test_a_mask_stays_on_its_device_unless_another_is_given() -> None:
    on_meta = torch.ones(6, dtype=torch.bool, device="meta")
    assert module._mask_tensor(on_meta, None).device.type == "meta"
    assert module._mask_tensor(torch.ones(6, dtype=torch.bool), "meta").device.type == "meta"
    assert module._mask_tensor(np.ones(6, dtype=bool), "meta").device.type == "meta"
    assert module._mask_tensor(make_mask("random", (4, 6), 2, 0.2), "meta").device.type == "meta"


def test_the_mask_is_copied() -> None:
    mask = random_mask((4, 6))
    operator = FourierSubsampling(mask)
    image = random_tensor((1, 1, 4, 6), torch.complex64)
    before = operator(image)
    mask.fill_(True)
    assert torch.equal(operator(image), before)


def test_wrong_mask_shape() -> None:
    expected = r"mask: expected \(y, x\) = \(640, 368\), or \(368,\) for columns, got "
    for bad in ((640,), (368, 640), (1, 368), (1, 640, 368), (368, 1)):
        with pytest.raises(ValueError, match=expected):
            FourierSubsampling(torch.ones(bad, dtype=torch.bool), (640, 368))
    mask = make_mask("random", (10, 12), 2, 0.1)
    with pytest.raises(ValueError, match=r"mask: expected \(y, x\) = \(12, 10\), got \(10, 12\)"):
        FourierSubsampling(mask, (12, 10))
    with pytest.raises(ValueError, match=r"shape: needed with a mask that is not \(y, x\), got mask \(12,\)"):
        FourierSubsampling(mask.tensor())


def test_wrong_mask_values() -> None:
    with pytest.raises(ValueError, match="mask: expected at least one acquired sample, got none"):
        FourierSubsampling(torch.zeros(4, 6, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"mask: expected dtype torch.bool, got torch.float32"):
        FourierSubsampling(torch.ones(4, 6))
    with pytest.raises(ValueError, match=r"mask: expected dtype bool, got float64"):
        FourierSubsampling(np.ones((4, 6)))
    with pytest.raises(TypeError, match="mask: expected a SamplingMask, a tensor or an array, got list"):
        FourierSubsampling([True, False])  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(ValueError, match=r"dtype: expected one of .*, got torch.float16"):
        FourierSubsampling(torch.ones(4, 6, dtype=torch.bool), domain_dtype=torch.float16)


def test_repr_has_the_acceleration() -> None:
    mask = torch.arange(8) % 2 == 0
    assert repr(FourierSubsampling(mask, (4, 8))).endswith("acceleration=2)")


def test_n_measurements_counts_the_acquired_samples_only() -> None:
    mask = torch.tensor([True, False, True, True, False, False])
    for dtype in (torch.complex64, torch.float32):
        assert FourierSubsampling(mask, (5, 6), dtype).n_measurements == 2 * 5 * 3


def test_n_measurements_of_what_is_made_of_it() -> None:
    mask = torch.tensor([True, False, True, True, False, False])
    operator = FourierSubsampling(mask, (5, 6), torch.float64)
    expected = operator.n_measurements
    assert (3 * operator).n_measurements == expected
    assert (operator * 0.5).n_measurements == expected
    factor = 2 * Identity(operator.range_shape, operator.range_dtype)
    assert (factor @ operator).n_measurements == expected
    image = Identity(operator.domain_shape, operator.domain_dtype)
    assert (operator @ (2 * image)).n_measurements == expected
    blur = BlurDownsample((12, 14), kernel_size=3, stride=2, dtype=torch.float64)  # 5 x 6 samples
    assert (operator @ blur).n_measurements == expected


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_another_mask(dtype: torch.dtype) -> None:
    one, other = torch.tensor([True, False, True, True]), torch.tensor([False, True, True, False])
    image = random_tensor((2, 1, 5, 4), dtype)
    changed = FourierSubsampling(one, (5, 4), dtype).with_mask(other)
    torch.testing.assert_close(changed(image), FourierSubsampling(other, (5, 4), dtype)(image), rtol=0, atol=0)
    assert changed.domain_dtype == dtype
    with pytest.raises(ValueError, match="mask"):
        changed.with_mask(torch.ones(5, dtype=torch.bool))
