"""Three-dimensional k-space as slices."""

from pathlib import Path

import numpy as np
import pytest
from raw_files import CALIBRATION, N_COILS, N_X, N_Y, header, lines_of, normal, write_mrd, write_twix

from mrisps.errors import FileError
from mrisps.io import raw_file
from mrisps.io.manifest_maker import SplitRule, make_manifest
from mrisps.io.open import open_kspace
from mrisps.io.raw_file import RawFile

N_Z = 6


def transform(image: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    return np.fft.fftshift(np.fft.fftn(np.fft.ifftshift(image, axes=axes), axes=axes, norm="ortho"), axes=axes)


@pytest.fixture
def image() -> np.ndarray:
    """Two volumes (volume, coil, y, x, z)."""
    return normal((2, N_COILS, N_Y, N_X, N_Z)).astype(np.complex128)


@pytest.fixture
def path(tmp_path: Path, image: np.ndarray) -> Path:
    kspace = transform(image, (2, 3, 4)).astype(np.complex64)
    lines = [
        line
        for number in range(2)
        for z in range(N_Z)
        for line in lines_of(
            kspace[number, ..., z],
            range(z % 2, N_X, 2),
            kspace_encode_step_2=z,
            repetition=number,
            head={"position": (1, 2, 3)},
        )
    ]
    lines += lines_of(kspace[0, ..., 3], [5, 6], kspace_encode_step_2=3, head={"flags": CALIBRATION})
    head = header(
        encoded_matrix=(N_Y, N_X, N_Z),
        recon_matrix=(N_Y // 2, N_X, 4),
        partition_limits=(0, N_Z - 1, N_Z // 2),
        encoded_fov_mm=(400, 150, 60),
        recon_fov_mm=(200, 150, 40),
    )
    return write_mrd(tmp_path / "a.h5", lines, head)


@pytest.mark.parametrize("limit", [1 << 30, 0])
def test_slices(path: Path, image: np.ndarray, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw_file, "_IN_MEMORY_BYTES", limit)  # 0: through a temporary file
    mask = np.add.outer(np.arange(N_Z), np.arange(N_X)) % 2 == 0
    with open_kspace(path) as file:
        assert isinstance(file, RawFile)
        assert (file.n_slices, file.shape, file.recon_shape) == (2 * N_Y // 2, (N_Z, N_X), (4, N_X))
        for index, record in enumerate(file.slices()):
            number, row = index // 8, 4 + index % 8
            assert (record.labels["repetition"], record.labels["readout"]) == (number, row)
            expected = transform(image[number, :, row].transpose(0, 2, 1), (1, 2)) * mask
            np.testing.assert_allclose(record.kspace, expected, atol=1e-6)
            np.testing.assert_array_equal(record.mask, mask)
            assert record.readout_oversampling == 1
            assert record.calibration is not None
            assert set(zip(*np.nonzero(record.calibration[0]), strict=True)) == {(3, 5), (3, 6)}
            assert record.geometry is not None
            np.testing.assert_allclose(record.geometry.position_mm, (1 + (row - 8) * 25, 2, 3))
            assert record.geometry.field_of_view_mm == (60, 150, 25)
            assert record.geometry.y_direction == (0, 0, 1)
            assert record.geometry.slice_direction == (1, 0, 0)
        with pytest.raises(FileError, match="slice: expected 0 to 15, got 16"):
            file.read_slice(16)


def test_manifests_take_volumes(path: Path) -> None:
    """They stopped at the first one: a slice of it could not be read."""
    rule = SplitRule({"train": 1.0})
    manifest = make_manifest(path.parent, name="x", description="", licence="", rule=rule)
    (file,) = manifest.files
    assert (file.n_slices, file.shape, file.acceleration) == (2 * N_Y // 2, f"{N_Z}x{N_X}", 2)


def test_partial_readouts_are_refused(tmp_path: Path) -> None:
    kspace = normal((N_COILS, N_Y, N_X))
    lines = lines_of(kspace, range(N_X), head={"discard_pre": 2})
    head = header(encoded_matrix=(N_Y, N_X, 2), partition_limits=(0, 1, 1))
    with (
        open_kspace(write_mrd(tmp_path / "a.h5", lines, head)) as file,
        pytest.raises(FileError, match="a volume needs whole ones"),
    ):
        file.read_slice(0)


def test_two_dimensional_files_stay_as_they_are(tmp_path: Path) -> None:
    kspace = normal((N_COILS, N_Y, N_X))
    with open_kspace(write_mrd(tmp_path / "a.h5", lines_of(kspace, range(N_X)))) as file:
        np.testing.assert_array_equal(file.read_slice(0).kspace, kspace)
    pytest.importorskip("twixtools")
    with open_kspace(write_twix(tmp_path / "a.dat", kspace)) as file:
        np.testing.assert_array_equal(file.read_slice(0).kspace, kspace)
