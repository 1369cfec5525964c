"""Maps that mix the aliases of each frequency: what sampling on a coarser grid does to a circular convolution.

Sampling every s-th pixel makes the s^2 frequencies f + (i y / s, j x / s) aliases of each other. A map that takes every such set to
itself is one small matrix for each set; its inverse is made of their inverses. Spectra are taken apart into planes
(..., s^2, y / s, x / s), one for each shift (i, j). Of a real image half of the sets are enough.
"""

import copy

import torch
from torch import Tensor

from mrisps.model import PatchTransform
from mrisps.operators import SampledConvolution

__all__ = ["AliasFilter", "SampledInverse", "alias_inverse", "by_alias"]

LARGEST_BORDER = 6000
"""Samples of the periodic convolution that an operator may lack for an inverse in closed form: the size of a dense matrix."""


ROWS = 16
"""Rows of the coarser grid whose matrices are inverted at a time."""


class AliasFilter:
    """A map that mixes the aliases of each frequency.

    Parameters
    ----------
    matrix
        (s^2, s^2, y / s, x / s) complex, or with axes (set, ...) or (batch, set, ...) before y; for real images that of a real map,
        of which half of the columns are enough.
    shape
        (y, x) of the images.
    dtype
        Of the images.
    """

    def __init__(self, matrix: Tensor, shape: tuple[int, int], dtype: torch.dtype) -> None:
        self._real, self._shape = not dtype.is_complex, shape
        if self._real:
            matrix = matrix[..., : shape[1] // round(len(matrix) ** 0.5) // 2 + 1]
        double = dtype in (torch.float64, torch.complex128)
        self._matrix = matrix.to(torch.complex128 if double else torch.complex64)
        self._stride = round(len(matrix) ** 0.5)

    def take(self, entries: Tensor) -> "AliasFilter":
        """The filter for these entries of the batch: another one where it has a matrix for each of them."""
        if self._matrix.ndim < 6:
            return self
        taken = copy.copy(self)
        taken._matrix = self._matrix[:, :, entries]
        return taken

    def __call__(self, image: Tensor) -> Tensor:
        """(batch, set, y, x) -> the same."""
        return self.image(self.mixed(self.planes(image)))

    def planes(self, image: Tensor) -> Tensor:
        """The spectrum by alias, (s^2, batch, set, y / s, x / s), of a real image x / (2 s) + 1 of the columns."""
        s, (height, width) = self._stride, (self._shape[0] // self._stride, self._shape[1] // self._stride)
        if not self._real:
            return by_alias(torch.fft.fft2(image), s)
        half: Tensor = torch.fft.rfft2(image)
        n_columns = width // 2 + 1
        planes: Tensor = half.new_empty(s, s, *image.shape[:-2], height, n_columns)
        mirrored = _mirrored(half) if s > 1 else half
        for j in range(s):
            if 2 * j < s:
                block = half[..., j * width : j * width + n_columns]
            else:  # beyond half the sampling rate: what is at the opposite frequency
                last = (s - j) * width
                block = mirrored[..., last - n_columns + 1 : last + 1].flip(-1)
            planes[:, j] = block.reshape(*block.shape[:-2], s, height, n_columns).movedim(-3, 0)
        by_shift: Tensor = planes.flatten(0, 1)
        return by_shift

    def mixed(self, planes: Tensor) -> Tensor:
        """The map itself."""
        result = torch.empty_like(planes)
        for row, out in zip(self._matrix, result, strict=True):
            torch.mul(row[0], planes[0], out=out)
            for factor, plane in zip(row[1:], planes[1:], strict=True):
                out.addcmul_(factor, plane)
        return result

    def image(self, planes: Tensor) -> Tensor:
        """Inverse of ``planes``."""
        s, width = self._stride, self._shape[1] // self._stride
        batch = planes.shape[1:-2]
        grid = planes.reshape(s, s, *planes.shape[1:])  # (i, j, ...)
        if not self._real:
            spectrum = grid.movedim((0, 1), (-4, -2)).reshape(*batch, *self._shape)
            filtered: Tensor = torch.fft.ifft2(spectrum)
            return filtered
        n_columns = width // 2 + 1
        half = planes.new_empty(*batch, self._shape[0], self._shape[1] // 2 + 1)
        for j in range((s + 1) // 2):
            rows = grid[:, j].movedim(0, -3).flatten(-3, -2)  # (..., y, n_columns)
            half[..., j * width : j * width + n_columns] = rows
            first, last = j * width + n_columns, min((j + 1) * width, half.shape[-1])
            if first < last:  # the other columns of this block are opposite to those of another one
                opposite = _mirrored(grid[:, s - 1 - j].movedim(0, -3).flatten(-3, -2))
                above = (j + 1) * width
                half[..., first:last] = opposite[..., above - last + 1 : above - first + 1].flip(-1)
        if s % 2 == 0:  # half the sampling rate
            half[..., -1] = grid[:, s // 2, ..., 0].movedim(0, -2).flatten(-2)
        image: Tensor = torch.fft.irfft2(half, s=self._shape)
        return image


class SampledInverse:
    """(A^H A + beta sum_k P_k^T B^T B P_k)^-1 where A keeps samples of a circular convolution.

    Were all samples kept, the map would mix aliases alone: K = patches + P^H P. Those that A does not have (the periodic
    convolution mixes opposite borders of the image there) are few, W P x. So with a dense matrix of their number

        (K - P^H W^H W P)^-1 = K^-1 + K^-1 P^H W^H (1 - W P K^-1 P^H W^H)^-1 W P K^-1

    (the identity of Woodbury); P K^-1 P^H is a circular convolution on the coarser grid.

    Parameters
    ----------
    sampling
        What A is.
    transform, weight
        Which patches count, and their weight: beta times the stride squared.
    shape, dtype
        (y, x) and data type of the images.

    Attributes
    ----------
    exact
        Whether this is the inverse. It is that of K where A lacks more than ``LARGEST_BORDER`` samples.
    """

    def __init__(
        self,
        sampling: SampledConvolution,
        transform: PatchTransform,
        weight: float,
        shape: tuple[int, int],
        dtype: torch.dtype,
    ) -> None:
        s, grid = sampling.stride, (sampling.kept.shape[0], sampling.kept.shape[1])
        self._real = not dtype.is_complex
        n_columns = grid[1] // 2 + 1 if self._real else grid[1]
        transfer = by_alias(sampling.transfer, s)[..., :n_columns] / s  # (s^2, y / s, x / s)
        patches = transform.alias_transfer(shape)
        kind = torch.complex128 if dtype in (torch.float64, torch.complex128) else torch.complex64
        inverse = transfer.new_empty(s * s, *transfer.shape, dtype=kind)
        response = torch.empty_like(transfer)  # K^-1 P^H, by alias
        for first in range(
            0, grid[0], ROWS
        ):  # the matrices take s^2 times the memory of an image, in double precision more
            rows = slice(first, first + ROWS)
            here = transfer[:, rows]
            system = _coarser(patches, transform.stride, s, rows, n_columns).mul_(weight)
            system.add_(here.conj()[:, None] * here)
            block = alias_inverse(system)
            inverse[:, :, rows] = block
            response[:, rows] = (block * here.conj()).sum(dim=1)
        self._filter = AliasFilter(inverse, shape, dtype)
        lacking = ~sampling.kept
        n_lacking = int(lacking.sum())
        self.exact = n_lacking <= LARGEST_BORDER
        self._border: tuple[tuple[int, int], Tensor, Tensor] | None = (
            None  # the coarser grid, and where it lacks samples
        )
        if n_lacking == 0 or not self.exact:
            return
        spectrum = (transfer * response).sum(dim=0)  # of P K^-1 P^H
        kernel = torch.fft.irfft2(spectrum, s=grid) if self._real else torch.fft.ifft2(spectrum).real
        ys, xs = lacking.nonzero(as_tuple=True)
        dense = -kernel[(ys[:, None] - ys) % grid[0], (xs[:, None] - xs) % grid[1]]
        dense.diagonal().add_(1)
        self._factor, failed = torch.linalg.cholesky_ex(dense)
        self.exact = not bool(failed)  # what neither the samples nor the prior see is left to conjugate gradients
        if not self.exact:
            return
        self._border = grid, ys, xs
        self._transfer = (transfer / s).to(kind)[:, None, None]
        self._response = (response * s).to(kind)[:, None, None]

    def take(self, entries: Tensor) -> "SampledInverse":
        """The inverse for these entries of the batch: the same."""
        del entries
        return self

    def __call__(self, image: Tensor) -> Tensor:
        """(batch, set, y, x) -> the same."""
        planes = self._filter.mixed(self._filter.planes(image))
        if self._border is not None:
            grid, rows, columns = self._border  # indices, not a mask: an accelerator has to count a mask
            coarse = (self._transfer * planes).sum(dim=0)
            samples = torch.fft.irfft2(coarse, s=grid) if self._real else torch.fft.ifft2(coarse)
            missing = _solved(self._factor, samples[..., rows, columns])
            samples.zero_()[..., rows, columns] = missing
            coarse = torch.fft.rfft2(samples) if self._real else torch.fft.fft2(samples)
            planes.addcmul_(self._response, coarse)
        return self._filter.image(planes)


def alias_inverse(matrix: Tensor, diagonal: Tensor | None = None) -> Tensor:
    """Inverse of a map that mixes aliases, (s^2, s^2, y / s, x / s) complex128, all of whose matrices are positive semidefinite.

    To the map may be added one that does not mix them, (s^2, ..., y / s, x / s).
    """
    # Where neither data nor prior sees a frequency: the minimum-norm choice, as far as double precision can tell.
    ridge = 1e-13 * matrix.abs().max()
    system = matrix.permute(2, 3, 0, 1)
    if diagonal is None:
        system = system.clone()
        system.diagonal(dim1=-2, dim2=-1).add_(ridge)
    else:
        added = diagonal.movedim(0, -1).to(matrix.device, matrix.dtype) + ridge
        system = system + torch.diag_embed(added)
    inverse: Tensor = torch.linalg.inv(system).movedim((-2, -1), (0, 1)).contiguous()
    return inverse


def by_alias(spectrum: Tensor, stride: int) -> Tensor:
    """(..., y, x) -> (stride^2, ..., y / stride, x / stride): frequencies a whole number of grid sizes apart."""
    height, width = spectrum.shape[-2] // stride, spectrum.shape[-1] // stride
    blocks = spectrum.reshape(*spectrum.shape[:-2], stride, height, stride, width)
    return blocks.movedim((-4, -2), (0, 1)).flatten(0, 1).contiguous()


def _solved(factor: Tensor, values: Tensor) -> Tensor:
    """The system with this real Cholesky factor for (batch, set, n) right sides, real or complex, in float64."""
    parts = torch.view_as_real(values) if values.is_complex() else values[..., None]  # (batch, set, n, parts)
    right = parts.double().movedim(2, 0).flatten(1)
    solved = torch.cholesky_solve(right, factor).to(parts.dtype)
    solved = solved.reshape(-1, *parts.shape[:2], parts.shape[3]).movedim(0, 2).contiguous()
    return torch.view_as_complex(solved) if values.is_complex() else solved[..., 0]


def _coarser(matrix: Tensor, stride: int, other: int, rows: slice, n_columns: int) -> Tensor:
    """Rows and columns of a map that mixes the aliases of a stride as one that mixes those of a multiple of it.

    (y / stride, x / stride, stride^2, stride^2) -> (other^2, other^2, rows of y / other, columns of x / other).
    """
    height, width = matrix.shape[0] * stride // other, matrix.shape[1] * stride // other
    ratio = other // stride
    by_offset = matrix.reshape(
        ratio, height, ratio, width, *matrix.shape[2:]
    )  # frequency: offset, then the coarser grid's
    by_offset = by_offset[:, rows, :, :n_columns]
    result = matrix.new_zeros(other**2, other**2, by_offset.shape[1], n_columns)
    for i in range(ratio):
        for j in range(ratio):
            block = by_offset[i, :, j]  # (rows, columns, stride^2, stride^2)
            # Alias p of the stride is frequency offset + p * ratio of the other one's.
            aliases = [(p * ratio + i) * other + q * ratio + j for p in range(stride) for q in range(stride)]
            for row, a in enumerate(aliases):
                for column, b in enumerate(aliases):
                    result[a, b] = block[..., row, column]
    return result


def _mirrored(half: Tensor) -> Tensor:
    """Of a half spectrum (..., y, x / 2 + 1): the conjugate with the rows of the opposite frequencies."""
    mirrored: Tensor = half.flip(-2).roll(1, -2).conj().resolve_conj()
    return mirrored
