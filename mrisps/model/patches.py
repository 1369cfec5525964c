"""The patch transform: what 48 (in general r) filters say about every patch of an image.

Notation of the paper (arXiv 2412.13070): ``P_k`` takes the p x p patch centred on pixel k, with circular boundary, and
``Phat_k = (I - Q Q^T - 1 1^T / p^2) P_k`` is what is left of it when its smooth part is gone. The projector has rank
``r = p^2 - 1 - m`` for m free atoms, so with an orthonormal basis B (r x p^2) of its range ``Phat_k = B^T (B P_k)``: the
image only ever meets r filters. :class:`PatchTransform` is the map ``x -> (B P_k x)_k``.

Arrays are pixel-major: an image is (batch, 1, y, x) and its patch coefficients are (batch, y, x, r). All maps here are
real; a complex image enters as two real ones (:func:`to_real_images`).
"""

import math
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
        (batch, set, y, x), real or complex.

    Returns
    -------
    Tensor
        (rows, 1, y, x): batch * n_sets rows for real images, twice that for complex ones. The set changes faster than the
        batch, and real and imaginary part of one image stand side by side. All rows share the dictionary, and the inner
        product of the result is the real inner product Re<a, b> of the images.
    """
    height, width = image.shape[-2:]
    if not image.is_complex():
        return image.reshape(-1, 1, height, width)
    return torch.view_as_real(image).movedim(-1, 2).reshape(-1, 1, height, width)  # (batch, set, 2, y, x) before


def to_images(real_images: Tensor, dtype: torch.dtype, n_sets: int = 1) -> Tensor:
    """Inverse of :func:`to_real_images`.

    Parameters
    ----------
    real_images
        (rows, 1, y, x): batch * n_sets rows, or twice that for a complex ``dtype``.
    dtype
        The dtype of the images to be returned; its precision has to be that of ``real_images``.
    n_sets
        Number of images that share one set of measurements: the size of the second axis of the result.

    Returns
    -------
    Tensor
        (batch, n_sets, y, x).
    """
    height, width = real_images.shape[-2:]
    if not dtype.is_complex:
        return real_images.reshape(-1, n_sets, height, width)
    pairs = real_images.reshape(-1, n_sets, 2, height, width).movedim(2, -1)
    return torch.view_as_complex(pairs.contiguous())


def extract_patches(image: Tensor, patch_size: int, stride: int = 1) -> Tensor:
    """The patches of an image, with circular boundary: the definition of ``P_k``, spelled out.

    Parameters
    ----------
    image
        (batch, 1, y, x), real.
    patch_size
        Odd side p of a patch.
    stride
        1: every patch. s: those centred on every s-th pixel of every s-th row, from pixel (0, 0).

    Returns
    -------
    Tensor
        (batch, y / s, x / s, p * p); ``[b, i, j]`` is the patch centred on pixel (s i, s j), row by row. With stride 1 it takes
        p^2 times the memory of the image: the transforms below never form it.
    """
    padded = _pad_circular(image, patch_size // 2, patch_size // 2)[:, 0]
    patches = padded.unfold(1, patch_size, stride).unfold(2, patch_size, stride)  # (batch, y / s, x / s, p, p)
    return patches.flatten(start_dim=3)


ADJOINT_ROWS = 64
FORWARD_ROWS = 16
"""Rows of patches that are convolved at a time, so that the work space stays small against the coefficients and in a cache."""


@dataclass(frozen=True, eq=False)
class PatchTransform:
    """The linear map from an image to the coefficients ``B P_k x`` of its patches, its adjoint, and its transfer function.

    Parameters
    ----------
    filters
        (r, p, p) real filters, p odd; the rows of B as small images.
    stride
        The patches are those centred on every ``stride``-th pixel of every ``stride``-th row, from pixel (0, 0); 1 for all.
    """

    filters: Tensor
    stride: int = 1

    def __post_init__(self) -> None:
        if self.filters.ndim != 3 or self.filters.shape[1] != self.filters.shape[2] or self.filters.shape[1] % 2 == 0:
            raise ValueError(f"filters: expected (r, p, p) with odd p, got {tuple(self.filters.shape)}")
        if self.stride < 1:
            raise ValueError(f"stride: expected an integer >= 1, got {self.stride}")
        # A filter tap d pixels away is tap floor(d / stride) of the phase d mod stride: on the grid of the patches everything is
        # an ordinary convolution from stride^2 phases of the image to r coefficients.
        s, margin = self.stride, self.patch_size // 2
        before = -(-margin // s)
        size = before + margin // s + 1
        taps = self.filters.new_zeros(self.n_filters, s, s, size, size)
        for i in range(self.patch_size):
            for j in range(self.patch_size):
                (row, y), (column, x) = divmod(i - margin, s), divmod(j - margin, s)
                taps[:, y, x, row + before, column + before] = self.filters[:, i, j]
        taps = taps.flatten(1, 2)
        rows = taps.flip(3).permute(2, 1, 0, 3).reshape(size * s * s, self.n_filters, 1, size)
        object.__setattr__(self, "_taps", taps.contiguous(memory_format=torch.channels_last))
        object.__setattr__(self, "_row_taps", rows.contiguous(memory_format=torch.channels_last))
        object.__setattr__(self, "_reach", (before, margin // s))

    @property
    def patch_size(self) -> int:
        """Side p of a patch in pixels."""
        return self.filters.shape[1]

    @property
    def n_filters(self) -> int:
        """Number r of filters."""
        return self.filters.shape[0]

    def grid_shape(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Patches along (y, x) of an image of this size.

        Raises
        ------
        ValueError
            If the stride does not divide the size: the grid would not close around the periodic boundary.
        """
        if shape[0] % self.stride or shape[1] % self.stride:
            raise ValueError(f"image size: expected multiples of the stride {self.stride}, got {shape}")
        return shape[0] // self.stride, shape[1] // self.stride

    def forward(self, image: Tensor) -> Tensor:
        """(batch, 1, y, x) real image -> (batch, y / stride, x / stride, r) patch coefficients, ``B P_k x``."""
        return functional.conv2d(self._padded_phases(image), self.__dict__["_taps"]).movedim(1, -1)

    def residual_(self, image: Tensor, prediction: Tensor) -> Tensor:
        """``prediction`` is overwritten with ``B P_k x - prediction``, block by block: no second array of its size."""
        padded, taps = self._padded_phases(image), self.__dict__["_taps"]
        height, overlap = prediction.shape[1], taps.shape[-1] - 1
        for first in range(0, height, FORWARD_ROWS):
            rows = min(FORWARD_ROWS, height - first)
            block = prediction[:, first : first + rows]
            analysed = functional.conv2d(padded[:, :, first : first + rows + overlap], taps).movedim(1, -1)
            torch.sub(analysed, block, out=block)
        return prediction

    def _padded_phases(self, image: Tensor) -> Tensor:
        self.grid_shape((image.shape[-2], image.shape[-1]))
        before, after = self.__dict__["_reach"]
        phases = functional.pixel_unshuffle(image, self.stride) if self.stride > 1 else image
        return _pad_circular(phases, before, after).contiguous(memory_format=torch.channels_last)

    def adjoint(self, coefficients: Tensor) -> Tensor:
        """(batch, y / stride, x / stride, r) patch coefficients -> (batch, 1, y, x) real image, ``sum_k P_k^T B^T c_k``.

        Computed as convolutions along x only, one output channel for each row of the filters, and a sum of these results shifted
        along y: a quarter of the time of the r -> 1 convolution with p x p kernels, whose single output channel starves the kernel.
        """
        before, after = self.__dict__["_reach"]
        weight, s = self.__dict__["_row_taps"], self.stride
        batch, height, width, _ = coefficients.shape
        n_taps = before + after + 1
        columns = torch.arange(-after, width + before, device=coefficients.device) % width
        # Row i of the filters takes a row of patches i - before rows down; what leaves the image comes in on the other side.
        image = coefficients.new_zeros(batch, s * s, height + n_taps - 1, width)
        for first in range(0, height, ADJOINT_ROWS):
            block = coefficients[:, first : first + ADJOINT_ROWS]
            if max(before, after) <= width:
                block = torch.cat([block[:, :, width - after :], block, block[:, :, :before]], dim=2)
            else:
                block = block[:, :, columns]
            n_rows = block.shape[1]
            lines = functional.conv2d(
                block.flatten(0, 1)[:, None].movedim(-1, 1), weight
            )  # a line is an image: more to share out
            by_tap = lines.view(batch, n_rows, n_taps, s * s, width).permute(2, 0, 3, 1, 4).contiguous()
            for i, shifted in enumerate(by_tap):
                image[:, :, first + i : first + i + n_rows] += shifted
        inside = image[:, :, before : before + height].clone()
        for start, part in ((-before, image[:, :, :before]), (height, image[:, :, before + height :])):
            for i in range(0, part.shape[2], height):
                piece = part[:, :, i : i + height]
                at = (start + i) % height
                head = min(piece.shape[2], height - at)
                inside[:, :, at : at + head] += piece[:, :, :head]
                inside[:, :, : piece.shape[2] - head] += piece[:, :, head:]
        return functional.pixel_shuffle(inside, s) if s > 1 else inside

    def transfer_function(self, shape: tuple[int, int]) -> Tensor:
        """The eigenvalues p(f) >= 0 of ``sum_k P_k^T B^T B P_k`` over *all* patches, on the ``torch.fft.fft2`` grid.

        Parameters
        ----------
        shape
            Image size (y, x); smaller than the patch is fine, patches then wrap around more than once.

        Returns
        -------
        Tensor
            (y, x) real, DC at [0, 0]: ``sum_i |DFT(b_i)(f)|^2``.
        """
        return self._correlation_spectrum(shape, (0, 0)).real.clamp(min=0).to(self.filters.dtype)

    def alias_transfer(self, shape: tuple[int, int]) -> Tensor:
        """``sum_k P_k^T B^T B P_k`` over the patches of the grid, in Fourier space: a small matrix for each set of aliases.

        Sampling every stride-th patch makes the frequencies f + (i y / stride, j x / stride) aliases of each other. The map takes
        such a set of stride^2 frequencies to itself, by the Hermitian matrix ``H_pq = 1 / stride^2 sum_i b_i(f_p) conj(b_i(f_q))``.

        Parameters
        ----------
        shape
            Image size (y, x), multiples of the stride and at least p.

        Returns
        -------
        Tensor
            (y / stride, x / stride, stride^2, stride^2) complex.
        """
        height, width = self.grid_shape(shape)
        s = self.stride
        shifts = [(i, j) for i in range(s) for j in range(s)]
        matrix = torch.zeros(height, width, s * s, s * s, dtype=torch.complex128, device=self.filters.device)
        for i, j in shifts:
            # conj(b(f)) b(f + shift) for all f at once: the spectrum of a correlation with the modulated filter.
            values = self._correlation_spectrum(shape, (i * height, j * width))
            for row, (p, q) in enumerate(shifts):
                column = (p + i) % s * s + (q + j) % s
                block = values[p * height : (p + 1) * height, q * width : (q + 1) * width]
                matrix[:, :, row, column] = block.conj() / s**2
        return matrix

    def _correlation_spectrum(self, shape: tuple[int, int], shift: tuple[int, int]) -> Tensor:
        """``sum_i b_i(f)^* b_i(f + shift)`` on the grid of an image, b_i(f) = DFT of filter i. (y, x), complex128.

        Its inverse transform is a kernel of (2 p - 1) x (2 p - 1) pixels, so one large transform does for all filters.
        """
        p = self.patch_size
        filters = self.filters.double()
        axes = torch.arange(p, dtype=torch.float64, device=filters.device) - p // 2  # the filters are centred
        phase = -2 * math.pi * (shift[0] / shape[0] * axes[:, None] + shift[1] / shape[1] * axes[None, :])
        size = (2 * p - 1, 2 * p - 1)
        plain = torch.fft.fft2(filters.to(torch.complex128), s=size)
        modulated = torch.fft.fft2(torch.polar(filters.abs(), phase) * filters.sign(), s=size)
        kernel = torch.fft.ifft2((plain.conj() * modulated).sum(dim=0))  # offset n at index n mod (2 p - 1)
        wrapped = kernel.new_zeros(shape)
        offsets = torch.arange(1 - p, p, device=kernel.device)
        rows = (offsets % shape[0])[:, None].expand(size)
        columns = (offsets % shape[1])[None, :].expand(size)
        wrapped.index_put_((rows, columns), kernel.roll((p - 1, p - 1), (0, 1)), accumulate=True)
        spectrum: Tensor = torch.fft.fft2(wrapped)
        return spectrum


def _pad_circular(image: Tensor, before: int, after: int) -> Tensor:
    """Pad the last two axes of (batch, channel, y, x) periodically, also by more than a whole period."""
    height, width = image.shape[-2:]
    if max(before, after) <= min(height, width):
        return functional.pad(image, (before, after, before, after), mode="circular")
    rows = torch.arange(-before, height + after, device=image.device) % height
    columns = torch.arange(-before, width + after, device=image.device) % width
    return image[..., rows[:, None], columns]
