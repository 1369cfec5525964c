"""Arrays as a source of k-space."""

import numpy as np
import pytest
import torch

from mrisps.io.memory import ArrayOrTensor, MemoryKspace


@pytest.fixture
def kspace() -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.normal(size=(3, 2, 6, 5)) + 1j * rng.normal(size=(3, 2, 6, 5))).astype(np.complex64)


@pytest.mark.parametrize("n_axes", [2, 3, 4])
@pytest.mark.parametrize("as_tensor", [False, True])
def test_axes_and_tensors(kspace: np.ndarray, n_axes: int, as_tensor: bool) -> None:
    array = kspace[(0,) * (4 - n_axes)]
    source = MemoryKspace(torch.from_numpy(array.copy()).conj() if as_tensor else array)
    expected = array.conj() if as_tensor else array
    with source:
        assert (source.n_slices, source.n_coils, source.shape) == (
            3 if n_axes == 4 else 1,
            2 if n_axes > 2 else 1,
            (6, 5),
        )
        records = list(source.slices())
    assert np.array_equal(np.stack([record.kspace for record in records]).reshape(array.shape), expected)
    assert [record.slice_index for record in records] == list(range(source.n_slices))
    assert source.notes == ("no mask",)
    records[0].kspace[:] = 0  # a copy
    assert source.read_slice(0).kspace.any()


def test_what_belongs_to_it(kspace: np.ndarray) -> None:
    mask = np.array([1, 0, 1, 1, 1])
    maps = np.ones((3, 1, 2, 6, 5), np.complex64) * np.arange(1, 4)[:, None, None, None, None]
    noise = kspace[0, :, 0, :4]
    source = MemoryKspace(
        (kspace * mask).astype(np.complex128),
        mask=mask,
        maps=maps.astype(np.complex64),
        noise=noise,
        image_is_real=True,
    )
    record = source.read_slice(2)
    assert record.mask is not None
    assert record.mask.tolist() == [True, False, True, True, True]
    assert record.sensitivity_maps is not None
    assert (record.sensitivity_maps == 3).all()
    assert record.noise_scan is not None
    assert np.array_equal(record.noise_scan, noise)
    assert record.image_is_real
    assert source.notes == ("complex128 is rounded to complex64",)
    each = np.ones((3, 6, 5), bool)
    each[1] = False
    each[1, 2:4] = True
    per_slice = MemoryKspace(kspace * each[:, None], mask=each, maps=maps[0, 0])
    assert np.array_equal(per_slice.read_slice(1).full_mask(), each[1])
    assert per_slice.read_slice(1).sensitivity_maps.shape == (1, 2, 6, 5)


def test_uncentred_arrays_are_centred_with_their_mask() -> None:
    image = np.random.default_rng(1).normal(size=(6, 5))
    mask = np.array([1, 1, 0, 0, 1], bool)
    source = MemoryKspace(np.fft.fft2(image) * mask, mask=mask, centred=False)
    expected = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(image)) * mask)
    record = source.read_slice(0)
    np.testing.assert_allclose(record.kspace[0], expected, atol=1e-5)
    assert record.mask is not None
    assert np.array_equal(record.mask, np.fft.fftshift(mask))


def test_the_checksum_depends_on_all_arrays(kspace: np.ndarray) -> None:
    sums = {
        MemoryKspace(kspace).sha256(),
        MemoryKspace(kspace[:2]).sha256(),
        MemoryKspace(kspace * 2).sha256(),
        MemoryKspace(kspace.astype(np.complex128)).sha256(),
        MemoryKspace(kspace, centred=False).sha256(),
        MemoryKspace(kspace, mask=np.ones(5, bool)).sha256(),
        MemoryKspace(kspace, mask=np.ones((6, 5), bool)).sha256(),
        MemoryKspace(kspace, maps=kspace[0]).sha256(),
        MemoryKspace(kspace, noise=kspace[0, :, 0]).sha256(),
    }
    assert len(sums) == 9
    assert MemoryKspace(kspace.copy()).sha256() in sums
    assert MemoryKspace(torch.from_numpy(kspace)).sha256() in sums


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kspace": [1j]}, "kspace: expected a NumPy array or a PyTorch tensor, got list"),
        ({"kspace": np.ones((4, 4))}, r"kspace: expected complex .*, got float64 \(4, 4\)"),
        ({"kspace": np.ones((4, 4, 2, 1, 1), complex)}, r"kspace: expected .*, got complex128 \(4, 4, 2, 1, 1\)"),
        ({"kspace": np.ones((0, 4), complex)}, "kspace: expected"),
        ({"mask": np.ones(6, bool)}, r"mask: expected numbers \(5,\) or \(6, 5\) or \(3, 6, 5\), got bool \(6,\)"),
        ({"mask": np.full(5, 2)}, "mask: expected only 0 and 1"),
        ({"mask": np.full(5, np.nan)}, "mask: expected only 0 and 1"),
        ({"maps": np.ones((3, 6, 5), complex)}, r"maps: expected complex .*, got complex128 \(3, 6, 5\)"),
        ({"maps": np.ones((2, 6, 5))}, "maps: expected complex .*, got float64"),
        ({"maps": np.ones((2, 1, 2, 6, 5), complex)}, "maps: expected complex"),
        ({"noise": np.ones((3, 9), complex)}, r"noise: expected complex \(2, sample\), got complex128 \(3, 9\)"),
    ],
)
def test_errors_name_the_argument(kspace: np.ndarray, arguments: dict[str, ArrayOrTensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MemoryKspace(**{"kspace": kspace, **arguments})  # type: ignore[arg-type]  # wrong on purpose


def test_errors_of_a_slice(kspace: np.ndarray) -> None:
    kspace[1] = 0
    kspace[2, 0, 0, 0] = np.nan
    source = MemoryKspace(kspace)
    with pytest.raises(ValueError, match="slice: expected 0 to 2, got 3"):
        source.read_slice(3)
    with pytest.raises(ValueError, match=r"kspace: every sample is zero \(slice 1\)"):
        source.read_slice(1)
    with pytest.raises(ValueError, match="kspace: 1 of 60 samples are NaN or infinite"):
        source.read_slice(2)
    with pytest.raises(ValueError, match="not zero where the mask says"):
        MemoryKspace(kspace[0], mask=np.array([1, 0, 1, 1, 1])).read_slice(0)


def test_maps_of_sets_or_slices_have_to_be_told_apart(kspace: np.ndarray) -> None:
    """Maps of 3 slices were taken as 3 sets for every slice."""
    maps = np.ones(kspace.shape, np.complex64)
    with pytest.raises(ValueError, match=r"maps: .* may be 3 sets or one set for each of the 3 slices"):
        MemoryKspace(kspace, maps=maps)
    assert MemoryKspace(kspace, maps=maps[:, None]).read_slice(1).sensitivity_maps is not None
    assert MemoryKspace(kspace, maps=maps[:2]).read_slice(1).sensitivity_maps is not None
    assert MemoryKspace(kspace[0], maps=maps).read_slice(0).sensitivity_maps is not None
