"""Coil sensitivities and SENSE."""

import pytest
import torch

import mrisps.operators.sense as module
from mrisps.operators import FourierSubsampling, Sense, SensitivityMaps, fft2c

from .helpers import check_operator, dense_matrix, random_tensor, relative_error

SHAPES = [(4, 6), (5, 7)]


def random_maps(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    """Brighter from pixel to pixel: the largest singular values are apart, and power iterations find the norm."""
    weights = torch.linspace(0.5, 2, shape[-1] * shape[-2], dtype=torch.float64).reshape(shape[-2:])
    return random_tensor(shape, torch.complex128, seed) * weights


def random_mask(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.5
    mask[..., shape[-1] // 2] = True
    return mask


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("n_sets", [1, 2])
def test_maps(shape: tuple[int, int], dtype: torch.dtype, n_sets: int) -> None:
    check_operator(SensitivityMaps(random_maps((n_sets, 3, *shape)), dtype), exact_norm=False)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("n_sets", [1, 2])
@pytest.mark.parametrize("columns", [True, False])
def test_sense(shape: tuple[int, int], dtype: torch.dtype, n_sets: int, columns: bool) -> None:
    mask = random_mask(shape[1:] if columns else shape)
    check_operator(Sense(mask, random_maps((n_sets, 3, *shape)), dtype), exact_norm=False)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("n_sets", [1, 2])
def test_sense_is_the_composition(dtype: torch.dtype, n_sets: int) -> None:
    mask, maps = random_mask((5, 6)), random_maps((n_sets, 3, 5, 6))
    sense = Sense(mask, maps, dtype)
    inner = SensitivityMaps(maps, dtype)
    composed = FourierSubsampling(mask, (3, 5, 6), torch.complex128) @ inner
    assert relative_error(dense_matrix(sense), dense_matrix(composed)) < 1e-13
    assert sense.n_measurements == composed.n_measurements == 2 * 3 * int(mask.sum())


def test_images_have_one_component_for_each_set() -> None:
    sense = Sense(random_mask((6,)), random_maps((2, 3, 5, 6)))
    assert (sense.domain_shape, sense.range_shape) == ((2, 5, 6), (3, 5, 6))
    with pytest.raises(ValueError, match=r"x: expected shape \(batch, 2, 5, 6\), got \(1, 1, 5, 6\)"):
        sense(random_tensor((1, 1, 5, 6), torch.complex128))
    first, second = (Sense(random_mask((6,)), one) for one in sense.maps)
    x = random_tensor((1, 2, 5, 6), torch.complex128)
    torch.testing.assert_close(sense(x), first(x[:, :1]) + second(x[:, 1:]))


def test_device_is_that_of_the_maps_unless_given() -> None:
    mask, maps = random_mask((6,)), random_maps((2, 4, 6))
    assert SensitivityMaps(maps).device.type == Sense(mask, maps).device.type == "cpu"
    assert SensitivityMaps(maps, device="meta").device.type == "meta"


def test_what_a_coil_sees() -> None:
    maps = random_maps((3, 5, 6))
    image = random_tensor((2, 1, 5, 6), torch.complex128, 3)
    found = Sense(torch.ones(6, dtype=torch.bool), maps)(image)
    torch.testing.assert_close(found[1, 2], fft2c(maps[2] * image[1, 0]))


def test_coils_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    sense = Sense(random_mask((5, 6)), random_maps((2, 5, 5, 6)))
    x, y = random_tensor((2, 2, 5, 6), torch.complex128, 1), random_tensor((2, 5, 5, 6), torch.complex128, 2)
    at_once = sense(x), sense.adjoint(y), sense.normal(x), sense.normal_circulant()
    monkeypatch.setattr(module, "CHUNK_BYTES", 2 * 2 * 5 * 6 * 16)  # two coils
    assert [c.stop - c.start for c in sense._chunks(2)] == [2, 2, 1]
    in_chunks = sense(x), sense.adjoint(y), sense.normal(x), sense.normal_circulant()
    for found, expected in zip(in_chunks, at_once, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("columns", [True, False])
def test_circulant_is_the_diagonal_in_fourier_space(shape: tuple[int, int], dtype: torch.dtype, columns: bool) -> None:
    sense = Sense(random_mask(shape[1:] if columns else shape), random_maps((2, 3, *shape)), dtype)
    found = sense.normal_circulant()
    assert found.shape == (2, *shape)
    for index in range(2):
        for frequency in ((0, 0), (1, 2), (shape[0] - 1, 3), (2, shape[1] // 2)):
            spectrum = torch.zeros((1, 2, *shape), dtype=torch.complex128)
            spectrum[0, index, *frequency] = 1
            wave = torch.fft.ifft2(spectrum, norm="ortho")
            if dtype.is_complex:
                quotient = torch.vdot(wave.flatten(), sense.normal(wave).flatten()).real
            else:
                parts = [part.contiguous() for part in (wave.real, wave.imag)]
                quotient = sum(torch.dot(p.flatten(), sense.normal(p).flatten()) for p in parts)
            torch.testing.assert_close(found[index, *frequency], quotient, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("fine", [(16, 20), (15, 21)])
@pytest.mark.parametrize("coarse", [(8, 10), (7, 9)])
def test_restriction_keeps_intensities(fine: tuple[int, int], coarse: tuple[int, int]) -> None:
    """Smooth maps and a smooth image: what is on the coarse grid is the image, and its data are the restricted ones."""

    def smooth(shape: tuple[int, int], frequencies: list[tuple[int, int]]) -> torch.Tensor:
        y, x = ((torch.arange(n, dtype=torch.float64) - n // 2) / n for n in shape)
        waves = [torch.exp(2j * torch.pi * (f * y[:, None] + g * x[None])) for f, g in frequencies]
        return torch.stack(waves).sum(dim=0)

    def problem(shape: tuple[int, int]) -> tuple[Sense, torch.Tensor]:
        maps = torch.stack([smooth(shape, [(0, 0), (1, 0)]), smooth(shape, [(0, 1), (-1, 1)])])
        return Sense(torch.ones(shape, dtype=torch.bool), maps), smooth(shape, [(0, 0), (0, 1), (1, -1)])[None, None]

    sense, image = problem(fine)
    expected, coarse_image = problem(coarse)
    operator, data = sense.restricted(sense(image), coarse)
    torch.testing.assert_close(operator(coarse_image), expected(coarse_image), rtol=0, atol=1e-12)
    torch.testing.assert_close(data, expected(coarse_image), rtol=0, atol=1e-12)


def test_restriction_cannot_refine() -> None:
    sense = Sense(random_mask((6,)), random_maps((2, 4, 6)))
    with pytest.raises(ValueError, match=r"shape: expected at most \(4, 6\), got \(5, 6\)"):
        sense.restricted(torch.zeros((1, 2, 4, 6), dtype=torch.complex128), (5, 6))


@pytest.mark.parametrize("make", [SensitivityMaps, lambda maps: Sense(torch.ones(4, dtype=torch.bool), maps)])
def test_bad_maps(make: type[SensitivityMaps]) -> None:
    with pytest.raises(ValueError, match=r"maps: expected \(coil, y, x\) or \(set, coil, y, x\), got \(4, 4\)"):
        make(torch.zeros((4, 4), dtype=torch.complex64))
    with pytest.raises(ValueError, match="maps: expected complex numbers"):
        make(torch.ones((2, 4, 4)))
    with pytest.raises(ValueError, match="maps: are zero everywhere"):
        make(torch.zeros((2, 4, 4), dtype=torch.complex64))
    with pytest.raises(ValueError, match="maps: expected finite"):
        make(torch.full((2, 4, 4), torch.nan, dtype=torch.complex64))
    with pytest.raises(ValueError, match=r"\(0, 4, 4\)"):
        make(torch.zeros((0, 4, 4), dtype=torch.complex64))
    with pytest.raises(TypeError, match=r"maps: expected a torch\.Tensor"):
        make([1.0])  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(ValueError, match="mask"):
        Sense(torch.ones(5, dtype=torch.bool), torch.ones((2, 4, 4), dtype=torch.complex64))


@pytest.mark.parametrize("n_sets", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_another_mask(dtype: torch.dtype, n_sets: int) -> None:
    maps = random_maps((n_sets, 3, 4, 6))
    one, other = random_mask((6,)), random_mask((6,), seed=3)
    assert not torch.equal(one, other)
    image = random_tensor((2, n_sets, 4, 6), dtype)
    changed = Sense(one, maps, dtype).with_mask(other)
    torch.testing.assert_close(changed(image), Sense(other, maps, dtype)(image), rtol=0, atol=0)
    assert changed.domain_dtype == dtype
