"""Several receive coils: sensitivity maps, and SENSE, what a multi-coil Cartesian scanner measures."""

import math
from collections.abc import Iterator

import torch

from mrisps.operators.cartesian import FourierSubsampling, Mask
from mrisps.operators.fourier import fft2c, ifft2c
from mrisps.operators.linear import LinearOperator
from mrisps.operators.spaces import complex_dtype

__all__ = ["Sense", "SensitivityMaps"]

CHUNK_BYTES = 16 * 2**20
"""Coil images that are worked on at a time: what does not fit is done in several chunks of coils."""

CACHE_BYTES = 2**19
"""The same on a CPU, where rows can be worked on apart: what a cache holds beside the maps."""


class _Coils(LinearOperator):
    """What operators with sensitivity maps share: the two spaces, and the maps by coil."""

    def __init__(
        self,
        maps: torch.Tensor,
        domain_dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        sets = _checked_maps(maps)
        domain_dtype = sets.dtype if domain_dtype is None else domain_dtype
        n_sets, n_coils, n_y, n_x = sets.shape
        super().__init__(
            domain_shape=(n_sets, n_y, n_x),
            range_shape=(n_coils, n_y, n_x),
            domain_dtype=domain_dtype,
            range_dtype=complex_dtype(domain_dtype),
            device=sets.device if device is None else device,
        )
        by_coil = sets.movedim(0, 1).to(device=self._device, dtype=self._range_dtype, copy=True)
        self._maps_by_coil = by_coil.contiguous()  # (coil, set, y, x)
        self._conjugate_maps = self._maps_by_coil.conj().resolve_conj()

    @property
    def maps(self) -> torch.Tensor:
        """Complex, ``(set, coil, y, x)``."""
        return self._maps_by_coil.movedim(0, 1)

    def _in_domain(self, image: torch.Tensor) -> torch.Tensor:
        return image if self._domain_dtype.is_complex else image.real.clone()


class SensitivityMaps(_Coils):
    """``(S x)_c = sum_s S_sc x_s``: what each coil sees of an image, ``(batch, set, y, x)`` to ``(batch, coil, y, x)``.

    One set of maps is the usual model: the image is ``(batch, 1, y, x)``. With several sets (soft SENSE) the image has
    one component for each set. The further components hold what one set cannot explain, such as an object that is larger
    than the field of view.

    Parameters
    ----------
    maps
        Complex, ``(coil, y, x)`` for one set, or ``(set, coil, y, x)``.
    domain_dtype
        Data type of the images: complex, or real for real images. None takes that of the maps.
    device
        Device of images and coil images; None takes that of the maps.

    Raises
    ------
    TypeError
        If the maps are no tensor.
    ValueError
        If the maps are not complex, not finite, or zero everywhere, or have another number of axes.

    Source
    ------
    Pruessmann et al., Magn. Reson. Med. 42 (1999) 952-962; soft SENSE: Uecker et al., Magn. Reson. Med. 71 (2014) 990-1001.
    """

    def _forward(self, x: torch.Tensor) -> torch.Tensor:
        return _weigh(self._maps_by_coil, x)

    def _adjoint(self, y: torch.Tensor) -> torch.Tensor:
        return self._in_domain(_combine(self._conjugate_maps, y))

    def normal_transfer_function(self) -> torch.Tensor | None:
        """A constant where sum |S|^2 is one, the same at every pixel, for one set; else None."""
        power = self._maps_by_coil.abs().square().sum(dim=0)
        if power.shape[0] > 1 or not bool((power == power.flatten()[0]).all()):
            return None
        return power[0].clone()


class Sense(_Coils):
    """``A x = M F S x``: Cartesian k-space of every coil, ``(batch, set, y, x)`` to ``(batch, coil, y, x)``.

    It is `FourierSubsampling` after `SensitivityMaps`, in one piece: the coils are worked on in chunks, and where whole
    columns are acquired, ``A^H A`` needs no transforms along y.

    Parameters
    ----------
    mask
        As for `FourierSubsampling`.
    maps, domain_dtype, device
        As for `SensitivityMaps`.

    Raises
    ------
    TypeError, ValueError
        As `FourierSubsampling` and `SensitivityMaps`.

    Source
    ------
    As for `SensitivityMaps`.
    """

    def __init__(
        self,
        mask: Mask,
        maps: torch.Tensor,
        domain_dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(maps, domain_dtype, device)
        # The mask is checked, and kept, by the operator that knows about masks.
        sampling = FourierSubsampling(mask, self._range_shape, self._range_dtype, self._device)
        pattern = sampling.normal_transfer_function()
        self._mask = torch.fft.fftshift(pattern)  # (y, x), centred
        columns = bool((pattern == pattern[:1]).all())
        self._transfer_function = pattern[:1] if columns else pattern  # (1, x) or (y, x), zero frequency at [0, 0]
        self._n_acquired = int(pattern.sum())

    def _forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.empty((x.shape[0], *self._range_shape), dtype=self._range_dtype, device=self._device)
        for coils in self._chunks(x.shape[0]):
            torch.mul(fft2c(_weigh(self._maps_by_coil[coils], x)), self._mask, out=y[:, coils])
        return y

    def _adjoint(self, y: torch.Tensor) -> torch.Tensor:
        image = torch.zeros((y.shape[0], *self._domain_shape), dtype=self._range_dtype, device=self._device)
        for coils in self._chunks(y.shape[0]):
            image += _combine(self._conjugate_maps[coils], ifft2c(self._mask * y[:, coils]))
        return self._in_domain(image)

    def _normal(self, x: torch.Tensor) -> torch.Tensor:
        # F_c^H M F_c is a circular convolution: its shifts cancel, and so does the transform along y of a mask of columns.
        columns = self._transfer_function.shape[0] == 1
        axes = (-1,) if columns else (-2, -1)
        image = torch.zeros((x.shape[0], *self._domain_shape), dtype=self._range_dtype, device=self._device)
        for coils, rows in self._row_chunks(x.shape[0]) if columns else self._coil_chunks(x.shape[0]):
            seen = _weigh(self._maps_by_coil[coils, :, rows], x[..., rows, :])
            spectrum = torch.fft.fftn(seen, dim=axes).mul_(self._transfer_function)
            image[..., rows, :] += _combine(self._conjugate_maps[coils, :, rows], torch.fft.ifftn(spectrum, dim=axes))
        return self._in_domain(image)

    @property
    def mask(self) -> torch.Tensor:
        """Where k-space is acquired, bool ``(y, x)``, centred."""
        acquired: torch.Tensor = self._mask != 0
        return acquired

    def with_mask(self, mask: Mask) -> "Sense":
        """The same operator with another mask; errors as of the constructor."""
        return Sense(mask, self.maps, self._domain_dtype, self._device)

    @property
    def n_measurements(self) -> int:
        """Twice the number of acquired samples of all coils: the zeros elsewhere are no measurements."""
        return 2 * self._range_shape[0] * self._n_acquired

    def normal_circulant(self) -> torch.Tensor:
        """The circulant nearest to ``A^H A``: the mask, blurred by the power spectrum of the maps.

        The diagonal of ``F A^H A F^H`` is ``d(f) = sum_c sum_g |S_c(g)|^2 m(f + g)`` with S_c the orthonormal spectrum of a map
        over the number of pixels; one transform of each map and one convolution, no probing.
        """
        n_pixels = math.prod(self._domain_shape[-2:])
        power = torch.zeros(self._domain_shape, dtype=self._transfer_function.dtype, device=self._device)
        for coils in self._chunks(self._domain_shape[0]):
            spectrum = torch.fft.fft2(self._maps_by_coil[coils]).abs().square_()
            power += spectrum.sum(dim=0)
        full = self._transfer_function.expand(self._domain_shape[-2:])
        blurred = torch.fft.ifft2(torch.fft.fft2(power).conj() * torch.fft.fft2(full)).real
        diagonal: torch.Tensor = (blurred / n_pixels**2).clamp_(min=0)
        if not self._domain_dtype.is_complex:  # of Re A^H A: the mean of f and -f
            diagonal = 0.5 * (diagonal + diagonal.flip(-2, -1).roll((1, 1), (-2, -1)))
        return diagonal

    def restricted(self, y: torch.Tensor, shape: tuple[int, int]) -> tuple["Sense", torch.Tensor]:
        """The same measurements on a coarser grid: centre of k-space, mask and maps.

        Parameters
        ----------
        y
            ``(batch, *range_shape)``.
        shape
            ``(y, x)`` of the coarser grid, not larger than the present one.

        Returns
        -------
        tuple
            The operator on that grid, whose images have the intensities of the finer grid's, and its k-space. The highest
            frequencies of even sizes, which have no mirror image, are left out.
        """
        pattern = self._mask
        mask = _centre(pattern, shape)
        spectrum = _centre(fft2c(self._maps_by_coil), shape)  # (coil, set, y, x)
        scale = math.sqrt(math.prod(shape) / math.prod(self._domain_shape[-2:]))
        maps = (ifft2c(spectrum) * scale).movedim(0, 1)
        operator = Sense(mask > 0, maps, self._domain_dtype, self._device)
        return operator, _centre(y, shape) * operator._mask * scale

    def _chunks(self, batch: int) -> Iterator[slice]:
        """Coils that are worked on at a time."""
        step = max(1, CHUNK_BYTES // (batch * math.prod(self._domain_shape[-2:]) * self._range_dtype.itemsize))
        for first in range(0, self._range_shape[0], step):
            yield slice(first, min(first + step, self._range_shape[0]))

    def _coil_chunks(self, batch: int) -> Iterator[tuple[slice, slice]]:
        for coils in self._chunks(batch):
            yield coils, slice(None)

    def _row_chunks(self, batch: int) -> Iterator[tuple[slice, slice]]:
        n_coils, n_y, n_x = self._range_shape
        size = CACHE_BYTES if self._device.type == "cpu" else CHUNK_BYTES
        step = max(8, size // (batch * n_coils * n_x * self._range_dtype.itemsize))
        for first in range(0, n_y, step):
            yield slice(None), slice(first, first + step)

    def __repr__(self) -> str:
        acceleration = math.prod(self._domain_shape[-2:]) / self._n_acquired
        return f"{type(self).__name__}({self._maps()}, acceleration={acceleration:.3g})"


def _checked_maps(maps: torch.Tensor) -> torch.Tensor:
    """Maps as ``(set, coil, y, x)``; ValueError for what no map can be."""
    if not isinstance(maps, torch.Tensor):
        raise TypeError(f"maps: expected a torch.Tensor, got {type(maps).__name__}")
    if maps.ndim not in (3, 4) or maps.numel() == 0:
        raise ValueError(f"maps: expected (coil, y, x) or (set, coil, y, x), got {tuple(maps.shape)}")
    if not maps.is_complex():
        raise ValueError(f"maps: expected complex numbers, got {maps.dtype}")
    if not bool(torch.isfinite(torch.view_as_real(maps)).all()):
        raise ValueError("maps: expected finite numbers, got NaN or infinity")
    if not bool((maps != 0).any()):
        raise ValueError("maps: are zero everywhere: no coil sees anything")
    return maps.detach() if maps.ndim == 4 else maps.detach()[None]


def _weigh(maps: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """(coil, set, y, x), (batch, set, y, x) -> coil images (batch, coil, y, x)."""
    coil_images = maps[None, :, 0] * x[:, :1]
    for index in range(1, maps.shape[1]):
        coil_images.addcmul_(maps[None, :, index], x[:, index : index + 1])
    return coil_images


def _combine(conjugate_maps: torch.Tensor, coil_images: torch.Tensor) -> torch.Tensor:
    """(coil, set, y, x), (batch, coil, y, x) -> (batch, set, y, x)."""
    return torch.stack([(one * coil_images).sum(dim=1) for one in conjugate_maps.unbind(dim=1)], dim=1)


def _centre(spectrum: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    """The centre of a centred spectrum, without the frequency at minus half the sampling rate of an even size."""
    centred = spectrum
    for axis, size in zip((-2, -1), shape, strict=True):
        old = centred.shape[axis]
        if size > old:
            raise ValueError(f"shape: expected at most {tuple(spectrum.shape[-2:])}, got {shape}")
        first = old // 2 - size // 2
        centred = centred.narrow(axis, first, size)
        if size % 2 == 0 and size < old:
            centred = centred.clone()
            centred.narrow(axis, 0, 1).zero_()
    return centred
