from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mrisps.errors import FileError
from mrisps.io import paper_slices
from mrisps.io.fastmri import FastmriFile
from mrisps.io.paper_slices import Acceleration, convert_paper_slice, convert_paper_slices, read_paper_slice

SmallDisk = Callable[[int], AbstractContextManager[None]]
Arrays = dict[str, np.ndarray]


def arrays(n_y: int = 16, n_x: int = 12) -> Arrays:
    """What an archive holds, for a random real image and masks of which the zero frequency is part."""
    rng = np.random.default_rng(n_y * n_x)
    image = rng.random((n_y, n_x))
    masks = (rng.random((2, n_x)) < 0.4).astype(np.uint8)
    masks[:, 0] = 1
    return {
        "kspace": np.fft.fft2(image, norm="ortho").astype(np.complex64),
        "target": image[2:-2, 2:-2].astype(np.float32),
        "mask_acc8": masks[0],
        "mask_acc16": masks[1],
    }


def ifft2c(kspace: NDArray[np.complex64]) -> NDArray[np.complex64]:
    return np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(kspace), norm="ortho"))


def fft2c(image: NDArray[np.complex64]) -> NDArray[np.complex64]:
    return np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(image), norm="ortho"))


@pytest.mark.parametrize(("n_y", "n_x"), [(16, 12), (15, 12), (16, 13), (15, 13)])
def test_the_image_stays_as_it_is(tmp_path: Path, n_y: int, n_x: int) -> None:
    content = arrays(n_y, n_x)
    np.savez(tmp_path / "a.npz", **content)
    image = np.fft.ifft2(content["kspace"], norm="ortho")
    record = read_paper_slice(tmp_path / "a.npz")
    assert np.abs(ifft2c(record.kspace) - image).max() < 1e-6
    assert np.abs(record.kspace - fft2c(image)).max() < 1e-6
    np.testing.assert_array_equal(record.target, content["target"])


@pytest.mark.parametrize("acceleration", [8, 16])
@pytest.mark.parametrize("n_x", [12, 13])
def test_undersampled(tmp_path: Path, n_x: int, acceleration: Acceleration) -> None:
    content = arrays(16, n_x)
    (tmp_path / "pdfs").mkdir()
    np.savez(tmp_path / "pdfs" / "file1.npz", **content)
    convert_paper_slice(tmp_path / "pdfs" / "file1.npz", tmp_path / "out.h5", acceleration=acceleration)
    with FastmriFile(tmp_path / "out.h5") as file:
        record = file.read_slice(0)
    uncentered = content[f"mask_acc{acceleration}"].astype(bool)
    assert record.mask is not None
    np.testing.assert_array_equal(np.fft.ifftshift(record.mask), uncentered)
    assert record.mask[n_x // 2]
    zero_filled = np.fft.ifft2(content["kspace"] * uncentered, norm="ortho")
    assert np.abs(ifft2c(record.kspace[0]) - zero_filled).max() < 1e-6
    assert not record.kspace[0][:, ~record.mask].any()
    assert record.image_is_real
    assert record.contrast == "CORPDFS_FBK"
    assert record.recon_shape == (12, n_x - 4)
    np.testing.assert_array_equal(record.target, content["target"])
    expected = {
        "acceleration": acceleration,
        "acquisition": "CORPDFS_FBK",
        "center_fraction": 0.04 if acceleration == 8 else 0.02,
        "converted_from": "file1.npz",
        "image_is_real": True,
        "max": pytest.approx(content["target"].max()),
        "norm": pytest.approx(np.linalg.norm(content["target"])),
        "patient_id": "file1",
    }
    assert record.attributes == expected


def test_without_acceleration_there_is_no_mask(tmp_path: Path) -> None:
    content = arrays()
    np.savez(tmp_path / "a.npz", **content)
    convert_paper_slice(tmp_path / "a.npz", tmp_path / "out.h5", acceleration=None, contrast="T1")
    with FastmriFile(tmp_path / "out.h5") as file:
        record = file.read_slice(0)
    assert record.mask is None
    assert record.contrast == "T1"
    np.testing.assert_array_equal(np.abs(np.fft.ifftshift(record.kspace[0])), np.abs(content["kspace"]))  # even sizes


def test_folders(tmp_path: Path) -> None:
    for name in ("pd/file2.npz", "pd/file1.npz", "pdfs/file3.npz"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        np.savez(tmp_path / "in" / name, **arrays())
    seen: list[tuple[int, int, str]] = []
    written = convert_paper_slices(
        tmp_path / "in",
        tmp_path / "out" / "new",
        acceleration=8,
        progress=lambda n_done, n_all, path: seen.append((n_done, n_all, path.name)),
    )
    names = ["pd/file1.h5", "pd/file2.h5", "pdfs/file3.h5"]
    assert [path.relative_to(tmp_path / "out" / "new").as_posix() for path in written] == names
    assert seen == [(1, 3, "file1.h5"), (2, 3, "file2.h5"), (3, 3, "file3.h5")]
    assert [FastmriFile(path).contrast for path in written] == ["CORPD_FBK", "CORPD_FBK", "CORPDFS_FBK"]
    assert convert_paper_slices(tmp_path / "in/pd/file1.npz", tmp_path / "one", acceleration=None) == (
        tmp_path / "one" / "file1.h5",
    )


def test_nothing_to_convert(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"expected files ending in \.npz; the folder has: nothing"):
        convert_paper_slices(tmp_path, tmp_path / "out", acceleration=8)
    with pytest.raises(FileError, match="does not exist"):
        convert_paper_slices(tmp_path / "absent", tmp_path / "out", acceleration=8)
    with pytest.raises(FileError, match="does not exist"):
        read_paper_slice(tmp_path / "absent.npz")
    with pytest.raises(ValueError, match="acceleration: expected 8, 16 or None, got 4"):
        convert_paper_slice(tmp_path / "a.npz", tmp_path / "a.h5", acceleration=4)  # type: ignore[arg-type]  # wrong on purpose


def test_destination_folder_is_a_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays())
    (tmp_path / "out").write_text("")
    with pytest.raises(FileError, match="out: cannot be made: File exists"):
        convert_paper_slices(tmp_path / "a.npz", tmp_path / "out", acceleration=8)


KSPACE = arrays()["kspace"]
BAD = {
    "kspace: is missing; the file has: target, mask_acc8, mask_acc16": {"kspace": None},
    "mask_acc16: is missing; the file has: kspace, target, mask_acc8": {"mask_acc16": None},
    "kspace: expected complex (y, x), got float64 (16, 12)": {"kspace": np.ones((16, 12))},
    "kspace: expected complex (y, x), got complex64 (2, 16, 12)": {"kspace": np.stack([KSPACE, KSPACE])},
    "kspace: has NaN or infinite values": {"kspace": np.where(KSPACE[0, 0] == KSPACE, np.inf, KSPACE)},
    "kspace: is zero everywhere": {"kspace": KSPACE * 0},
    "target: expected at most (16, 12) pixels, got (17, 12)": {"target": np.ones((17, 12))},
    "target: expected floating (y, x), got uint8 (4, 4)": {"target": np.ones((4, 4), np.uint8)},
    "target: has NaN or infinite values": {"target": np.full((4, 4), np.nan)},
    "mask_acc8: expected integers (12,), got uint8 (16,)": {"mask_acc8": np.ones(16, np.uint8)},
    "mask_acc8: expected integers (12,), got float64 (12,)": {"mask_acc8": np.ones(12)},
    "mask_acc8: expected only 0 and 1": {"mask_acc8": np.arange(12)},
    "mask_acc8: is zero everywhere": {"mask_acc8": np.zeros(12, np.uint8)},
}


@pytest.mark.parametrize("message", BAD)
def test_bad_content(tmp_path: Path, message: str) -> None:
    content = {name: array for name, array in {**arrays(), **BAD[message]}.items() if array is not None}
    np.savez(tmp_path / "a.npz", **content)
    (tmp_path / "out.h5").write_text("old")
    with pytest.raises(FileError) as caught:
        convert_paper_slice(tmp_path / "a.npz", tmp_path / "out.h5", acceleration=8)
    assert str(caught.value) == f"{tmp_path / 'a.npz'}: {message}"
    assert (tmp_path / "out.h5").read_text() == "old"


def test_hostile_archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, **{**arrays(), "target": np.array([[print]], dtype=object)})
    with pytest.raises(FileError, match="target: is no readable NPZ file: Object arrays cannot be loaded"):
        read_paper_slice(path)
    monkeypatch.setattr(paper_slices, "_MAX_ARRAY_BYTES", 1 << 16)
    np.savez_compressed(path, **{**arrays(), "kspace": np.zeros((800, 800), np.complex64)})
    assert path.stat().st_size < 10_000
    with pytest.raises(FileError, match="kspace: expected at most 65536 bytes, got 5120128"):
        read_paper_slice(path)
    path.write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(FileError, match=r"a\.npz: kspace: is no readable NPZ file"):
        read_paper_slice(path)


def test_truncated_archives_are_file_errors(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, **arrays())
    content = path.read_bytes()
    for n_bytes in (0, 10, 500, len(content) - 5):
        path.write_bytes(content[:n_bytes])
        with pytest.raises(FileError):
            read_paper_slice(path)


def test_full_disk(tmp_path: Path, small_disk: SmallDisk) -> None:
    np.savez(tmp_path / "a.npz", **arrays(160, 120))
    with small_disk(50_000), pytest.raises(FileError, match=r"out\.h5: cannot be written"):
        convert_paper_slice(tmp_path / "a.npz", tmp_path / "out.h5", acceleration=8)
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]


def test_the_papers_own_slices(tmp_path: Path, shared_data: Path) -> None:
    source = shared_data / "paper_mri_val" / "pdfs" / "file1000000.npz"
    convert_paper_slice(source, tmp_path / "out.h5", acceleration=8)
    with FastmriFile(tmp_path / "out.h5") as file:
        record = file.read_slice(0)
    with np.load(source) as archive:
        kspace, mask = archive["kspace"], archive["mask_acc8"]
    zero_filled = np.fft.ifft2(kspace * mask, norm="ortho")
    assert np.abs(ifft2c(record.kspace[0]) - zero_filled).max() < 1e-6
    assert (record.shape, record.recon_shape, record.contrast) == ((640, 368), (320, 320), "CORPDFS_FBK")
    assert record.acquired().sum() == 43
    assert ((record.kspace[0] == 0).all(axis=0) & record.acquired()).sum() == 17
