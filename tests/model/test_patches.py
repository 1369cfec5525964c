"""The paper's first experiment: patch operations as convolutions are the patch operations."""

import pytest
import torch
from torch import Tensor

from mrisps.model import PatchTransform, extract_patches, to_images, to_real_images

from .helpers import explicit_patches, patch_matrix, random_tensor, relative_error

# (image, patch side): odd and even sizes, as large as the patch, smaller than it, smaller than half of it.
CASES = [
    ((6, 8), 3),
    ((7, 5), 3),
    ((6, 7), 5),
    ((5, 5), 5),
    ((4, 9), 7),
    ((3, 4), 7),
    ((2, 3), 9),
    ((1, 5), 5),
    ((8, 6), 1),
]


@pytest.mark.parametrize(("shape", "p"), CASES)
def test_extract_patches_is_the_definition(shape: tuple[int, int], p: int) -> None:
    image = random_tensor(2, 1, *shape)
    found = extract_patches(image, p)
    assert found.shape == (2, *shape, p * p)
    for b in range(2):
        torch.testing.assert_close(found[b], explicit_patches(image[b, 0], p), rtol=0, atol=0)


@pytest.mark.parametrize(("shape", "p"), CASES)
@pytest.mark.parametrize("n_filters", [1, 4])
def test_forward_is_filters_times_patches(shape: tuple[int, int], p: int, n_filters: int) -> None:
    filters = random_tensor(n_filters, p, p, seed=1)
    image = random_tensor(2, 1, *shape)
    found = PatchTransform(filters).forward(image)
    assert found.shape == (2, *shape, n_filters)
    for b in range(2):
        expected = explicit_patches(image[b, 0], p) @ filters.flatten(1).T
        torch.testing.assert_close(found[b], expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("shape", "p"), CASES)
@pytest.mark.parametrize("n_filters", [1, 4])
def test_adjoint_is_the_transposed_matrix(shape: tuple[int, int], p: int, n_filters: int) -> None:
    filters = random_tensor(n_filters, p, p, seed=1)
    coefficients = random_tensor(2, *shape, n_filters, seed=2)
    found = PatchTransform(filters).adjoint(coefficients)
    assert found.shape == (2, 1, *shape)
    matrix = patch_matrix(shape, p)
    for b in range(2):
        patches = coefficients[b] @ filters.flatten(1)  # (y, x, p * p)
        torch.testing.assert_close(found[b, 0].flatten(), matrix.T @ patches.flatten(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("shape", "p"), CASES)
def test_adjoint_in_the_inner_product(shape: tuple[int, int], p: int) -> None:
    transform = PatchTransform(random_tensor(3, p, p, seed=1))
    image, coefficients = random_tensor(2, 1, *shape, seed=3), random_tensor(2, *shape, 3, seed=4)
    left = (transform.forward(image) * coefficients).sum()
    right = (image * transform.adjoint(coefficients)).sum()
    torch.testing.assert_close(left, right, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("shape", "p"), CASES)
def test_transfer_function(shape: tuple[int, int], p: int) -> None:
    """adjoint(forward(x)) is a convolution, whose transfer function is real, non-negative and p(f)."""
    transform = PatchTransform(random_tensor(3, p, p, seed=1))
    image = random_tensor(1, 1, *shape)
    transfer = transform.transfer_function(shape)
    assert transfer.shape == shape
    assert not transfer.is_complex()
    assert float(transfer.min()) >= 0
    filtered = torch.fft.ifft2(transfer * torch.fft.fft2(image))
    torch.testing.assert_close(filtered.real, transform.adjoint(transform.forward(image)), rtol=1e-10, atol=1e-10)
    assert float(filtered.imag.abs().max()) < 1e-10


@pytest.mark.parametrize(("shape", "p"), [((6, 8), 3), ((4, 3), 5)])
def test_transfer_function_is_the_spectrum_of_the_dense_matrix(shape: tuple[int, int], p: int) -> None:
    filters = random_tensor(2, p, p, seed=1)
    matrix = patch_matrix(shape, p).reshape(-1, p * p, shape[0] * shape[1])
    analysis = torch.einsum("rq,kqj->krj", filters.flatten(1), matrix).flatten(0, 1)
    expected = torch.linalg.eigvalsh(analysis.T @ analysis)
    found = PatchTransform(filters).transfer_function(shape).flatten().sort().values
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("shape", "p"), [((6, 8), 3), ((3, 4), 7)])
def test_gradients_go_through_both_maps(shape: tuple[int, int], p: int) -> None:
    transform = PatchTransform(random_tensor(3, p, p, seed=1))
    image = random_tensor(1, 1, *shape).requires_grad_()
    coefficients = random_tensor(1, *shape, 3, seed=2).requires_grad_()
    (found,) = torch.autograd.grad(transform.forward(image), image, coefficients.detach())
    torch.testing.assert_close(found, transform.adjoint(coefficients).detach(), rtol=1e-10, atol=1e-10)
    (found,) = torch.autograd.grad(transform.adjoint(coefficients), coefficients, image.detach())
    torch.testing.assert_close(found, transform.forward(image).detach(), rtol=1e-10, atol=1e-10)


def test_gradient_with_respect_to_the_filters() -> None:
    """Learning the atoms needs it: against finite differences."""
    filters = random_tensor(2, 3, 3, seed=1).requires_grad_()
    image, coefficients = random_tensor(1, 1, 4, 5), random_tensor(1, 4, 5, 2, seed=2)

    def loss(f: Tensor) -> Tensor:
        transform = PatchTransform(f)
        return transform.forward(image).square().sum() + transform.adjoint(coefficients).square().sum()

    (gradient,) = torch.autograd.grad(loss(filters), filters)
    direction = random_tensor(2, 3, 3, seed=3)
    with torch.no_grad():
        difference = (loss(filters + 1e-5 * direction) - loss(filters - 1e-5 * direction)) / 2e-5
    torch.testing.assert_close((gradient * direction).sum(), difference, rtol=1e-7, atol=0)


def test_single_precision_is_as_good_as_it_can_be() -> None:
    filters = random_tensor(3, 5, 5, seed=1)
    image = random_tensor(1, 1, 9, 12)
    double = PatchTransform(filters).forward(image)
    single = PatchTransform(filters.float()).forward(image.float())
    assert single.dtype == torch.float32
    assert relative_error(single.double(), double) < 1e-6


@pytest.mark.parametrize("shape", [(3, 4, 4), (3, 3, 5), (3, 3), (3, 1, 3, 3)])
def test_filters_that_are_no_odd_squares_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="filters"):
        PatchTransform(torch.zeros(shape))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64, torch.complex128])
def test_images_survive_the_way_through_real_images(dtype: torch.dtype) -> None:
    image = random_tensor(3, 1, 4, 5, dtype=dtype)
    rows = to_real_images(image)
    assert not rows.is_complex()
    assert rows.shape[0] == (6 if dtype.is_complex else 3)
    assert torch.equal(to_images(rows, dtype), image)


def test_order_and_inner_product_of_real_images() -> None:
    a, b = (random_tensor(2, 1, 3, 4, dtype=torch.complex128, seed=seed) for seed in (1, 2))
    rows = to_real_images(a)
    for image in range(2):
        assert torch.equal(rows[2 * image], a[image].real)
        assert torch.equal(rows[2 * image + 1], a[image].imag)
    torch.testing.assert_close((rows * to_real_images(b)).sum(), (a.conj() * b).sum().real)


@pytest.mark.parametrize(
    ("side", "stride", "shape"), [(5, 2, (12, 10)), (5, 3, (12, 9)), (3, 2, (6, 8)), (13, 2, (4, 6))]
)
def test_a_stride_keeps_every_so_manieth_patch(side: int, stride: int, shape: tuple[int, int]) -> None:
    filters = random_tensor(4, side, side)
    image = random_tensor(2, 1, *shape)
    strided, full = PatchTransform(filters, stride), PatchTransform(filters)
    coefficients = strided.forward(image)
    torch.testing.assert_close(coefficients, full.forward(image)[:, ::stride, ::stride])
    other = random_tensor(*coefficients.shape, seed=1)
    spread = torch.zeros(full.forward(image).shape, dtype=other.dtype)
    spread[:, ::stride, ::stride] = other
    torch.testing.assert_close(strided.adjoint(other), full.adjoint(spread))


@pytest.mark.parametrize(
    ("side", "stride", "shape"), [(5, 2, (12, 10)), (5, 3, (12, 9)), (7, 2, (8, 14)), (5, 1, (6, 7))]
)
def test_the_strided_normal_map_in_fourier_space(side: int, stride: int, shape: tuple[int, int]) -> None:
    transform = PatchTransform(random_tensor(3, side, side), stride)
    image = random_tensor(1, 1, *shape)
    matrix = transform.alias_transfer(shape)
    height, width = transform.grid_shape(shape)
    torch.testing.assert_close(matrix, matrix.mH)
    spectrum = torch.fft.fft2(image[0, 0]).reshape(stride, height, stride, width).permute(1, 3, 0, 2)
    mapped = (matrix @ spectrum.reshape(height, width, -1, 1)).reshape(height, width, stride, stride)
    result = torch.fft.ifft2(mapped.permute(2, 0, 3, 1).reshape(shape))
    expected = transform.adjoint(transform.forward(image))[0, 0]
    torch.testing.assert_close(result.real, expected)
    torch.testing.assert_close(result.imag, torch.zeros_like(expected))


def test_a_stride_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="stride"):
        PatchTransform(random_tensor(2, 3, 3), 0)
    with pytest.raises(ValueError, match="multiples of the stride 2"):
        PatchTransform(random_tensor(2, 3, 3), 2).forward(random_tensor(1, 1, 5, 6))


@pytest.mark.parametrize("stride", [1, 2])
def test_the_residual_in_place_block_by_block(stride: int) -> None:
    transform = PatchTransform(random_tensor(3, 5, 5), stride)
    image = random_tensor(2, 1, 140 * stride, 6 * stride)  # more rows than a block, not a multiple of it
    prediction = random_tensor(*transform.forward(image).shape, seed=3)
    expected = transform.forward(image) - prediction
    assert transform.residual_(image, prediction) is prediction
    torch.testing.assert_close(prediction, expected)
