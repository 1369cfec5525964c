"""The patch transform: what 48 (in general r) filters say about every patch of an image.

Notation of the paper (arXiv 2412.13070): ``P_k`` takes the p x p patch centred on pixel k, with circular boundary, and
``Phat_k = (I - Q Q^T - 1 1^T / p^2) P_k`` is what is left of it when its smooth part is gone. The projector has rank
``r = p^2 - 1 - m`` for m free atoms, so with an orthonormal basis B (r x p^2) of its range ``Phat_k = B^T (B P_k)``: the
image only ever meets r filters. :class:`PatchTransform` is the map ``x -> (B P_k x)_k``.

Arrays are pixel-major: an image is (batch, 1, y, x) and its patch coefficients are (batch, y, x, r). All maps here are
real; a complex image enters as two real ones (:func:`to_real_images`).
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["PatchTransform", "extract_patches", "to_images", "to_real_images"]


def to_real_images(image: Tensor) -> Tensor:
    """Real images that carry an image: itself if it is real, its real and its imaginary part if it is complex.

    Parameters
    ----------
    image
        (batch, 1, y, x), real or complex.

    Returns
    -------
    Tensor
        (batch, 1, y, x) for a real image; (2 * batch, 1, y, x) for a complex one, in the order real part, imaginary part of
        the first image, then of the second, and so on. Both parts share the dictionary, and the inner product of the
        result is the real inner product Re<a, b> of the images.
    """
    if not image.is_complex():
        return image
    batch, _, height, width = image.shape
    return torch.view_as_real(image).movedim(-1, 1).reshape(2 * batch, 1, height, width)  # (batch, 2, 1, y, x) before


def to_images(real_images: Tensor, dtype: torch.dtype) -> Tensor:
    """Inverse of :func:`to_real_images`.

    Parameters
    ----------
    real_images
        (batch, 1, y, x), or (2 * batch, 1, y, x) for a complex ``dtype``.
    dtype
        The dtype of the images to be returned; its precision has to be that of ``real_images``.
    """
    if not dtype.is_complex:
        return real_images
    n, _, height, width = real_images.shape
    pairs = real_images.reshape(n // 2, 2, 1, height, width).movedim(1, -1)
    return torch.view_as_complex(pairs.contiguous())


def extract_patches(image: Tensor, patch_size: int) -> Tensor:
    """Every patch of an image, with circular boundary: the definition of ``P_k``, spelled out.

    Parameters
    ----------
    image
        (batch, 1, y, x), real.
    patch_size
        Odd side p of a patch.

    Returns
    -------
    Tensor
        (batch, y, x, p * p); ``[b, i, j]`` is the patch centred on pixel (i, j), row by row. It takes p^2 times the memory of
        the image: the transforms below never form it.
    """
    padded = _pad_circular(image, patch_size // 2)[:, 0]
    patches = padded.unfold(1, patch_size, 1).unfold(2, patch_size, 1)  # (batch, y, x, p, p)
    return patches.flatten(start_dim=3)


@dataclass(frozen=True, eq=False)
class PatchTransform:
    """The linear map from an image to the coefficients ``B P_k x`` of all its patches, its adjoint, and its transfer function.

    Parameters
    ----------
    filters
        (r, p, p) real filters, p odd; the rows of B as small images.
    """

    filters: Tensor

    def __post_init__(self) -> None:
        if self.filters.ndim != 3 or self.filters.shape[1] != self.filters.shape[2] or self.filters.shape[1] % 2 == 0:
            raise ValueError(f"filters: expected (r, p, p) with odd p, got {tuple(self.filters.shape)}")

    @property
    def patch_size(self) -> int:
        """Side p of a patch in pixels."""
        return self.filters.shape[1]

    @property
    def n_filters(self) -> int:
        """Number r of filters."""
        return self.filters.shape[0]

    def forward(self, image: Tensor) -> Tensor:
        """(batch, 1, y, x) real image -> (batch, y, x, r) patch coefficients, ``B P_k x``."""
        padded = _pad_circular(image, self.patch_size // 2).contiguous(memory_format=torch.channels_last)
        weight = self.filters[:, None].contiguous(memory_format=torch.channels_last)  # (r, 1, p, p)
        return functional.conv2d(padded, weight).movedim(1, -1)

    def adjoint(self, coefficients: Tensor) -> Tensor:
        """(batch, y, x, r) patch coefficients -> (batch, 1, y, x) real image, ``sum_k P_k^T B^T c_k``.

        Computed as r -> p convolutions with 1 x p kernels, one for each row of the filters, and a sum of p results rolled along
        y: a quarter of the time of the r -> 1 convolution with p x p kernels, whose single output channel starves the kernel.
        """
        p, margin, width = self.patch_size, self.patch_size // 2, coefficients.shape[2]
        if margin <= width:
            padded = torch.cat([coefficients[:, :, width - margin :], coefficients, coefficients[:, :, :margin]], dim=2)
        else:
            padded = coefficients[:, :, torch.arange(-margin, width + margin, device=coefficients.device) % width]
        weight = self.filters.flip(2).transpose(0, 1)[:, :, None, :]  # (p, r, 1, p)
        rows = functional.conv2d(
            padded.movedim(-1, 1), weight.contiguous(memory_format=torch.channels_last)
        )  # (batch, p, y, x): row i of the filters is still to go i - margin pixels down
        image = rows[:, margin]
        for i in range(p):
            if i != margin:
                image = image + rows[:, i].roll(i - margin, dims=1)
        return image[:, None]

    def transfer_function(self, shape: tuple[int, int]) -> Tensor:
        """The eigenvalues p(f) >= 0 of ``sum_k P_k^T B^T B P_k``, a circular convolution, on the ``torch.fft.fft2`` grid.

        Parameters
        ----------
        shape
            Image size (y, x); smaller than the patch is fine, patches then wrap around more than once.

        Returns
        -------
        Tensor
            (y, x) real, DC at [0, 0]: ``sum_i |DFT(b_i)(f)|^2``.
        """
        spectra: Tensor = torch.fft.fft2(self._wrapped(shape))
        return spectra.abs().square().sum(dim=0)

    def _wrapped(self, shape: tuple[int, int]) -> Tensor:
        """The filters laid on a (y, x) torus: (r, y, x)."""
        height, width = shape
        p = self.patch_size
        if height >= p and width >= p:
            return functional.pad(self.filters, (0, width - p, 0, height - p))
        wrapped = self.filters.new_zeros(self.n_filters, height, width)
        for i in range(p):
            for j in range(p):
                wrapped[:, i % height, j % width] += self.filters[:, i, j]
        return wrapped


def _pad_circular(image: Tensor, margin: int) -> Tensor:
    """Pad the last two axes of (batch, channel, y, x) periodically, also by more than a whole period."""
    height, width = image.shape[-2:]
    if margin <= min(height, width):
        return functional.pad(image, (margin,) * 4, mode="circular")
    rows = torch.arange(-margin, height + margin, device=image.device) % height
    columns = torch.arange(-margin, width + margin, device=image.device) % width
    return image[..., rows[:, None], columns]
