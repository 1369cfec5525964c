import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from mrisps.errors import FileError
from mrisps.io.fastmri import FastmriFile, write_kspace
from mrisps.io.ismrmrd_header import IsmrmrdHeader

KSpace = NDArray[np.complex64]
Mask = NDArray[np.bool_]


def test_io_is_light() -> None:
    # `mrisps info` answers at once: nothing of io loads these, and pictures and downloads only when they are asked for
    modules = ["open", "memory", "result_file", "write_images", "dicom", "manifest_maker", "paper_slices", "conversion"]
    program = (
        "\n".join(f"import mrisps.io.{module}" for module in modules)
        + """
import sys
print({"torch", "scipy", "sigpy", "skimage", "matplotlib", "PIL", "pooch", "requests", "ismrmrd"} & set(sys.modules))
"""
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "set()\n"


# Reading


def test_read_slice(raw_file: Path, kspace: KSpace, mask: Mask) -> None:
    with FastmriFile(raw_file) as file:
        assert (file.n_slices, file.n_coils, file.shape) == (3, 1, (24, 15))
        records = list(file.slices())
    for index, record in enumerate(records):
        np.testing.assert_array_equal(record.kspace, (kspace * mask)[index][np.newaxis])
        np.testing.assert_array_equal(record.mask, mask)
        assert record.target is not None
        assert record.target.shape == (12, 12)
        assert (record.source, record.slice_index, record.n_slices) == (raw_file, index, 3)
        assert (record.contrast, record.recon_shape, record.image_is_real) == ("CORPD_FBK", (12, 12), False)
        assert record.attributes["patient_id"] == "0123"
    assert records[0].attributes.keys() == {"acquisition", "image_is_real", "max", "norm", "patient_id"}


def test_multicoil(tmp_path: Path, kspace: KSpace) -> None:
    coils = np.stack([kspace, 2 * kspace], axis=1)
    write_kspace(tmp_path / "a.h5", coils, target=np.ones((3, 10, 10), np.float32))
    with FastmriFile(tmp_path / "a.h5") as file:
        assert (file.n_coils, file.target_name) == (2, "reconstruction_rss")
        np.testing.assert_array_equal(file.read_slice(2).kspace, coils[2])


def test_slices_are_read_one_by_one(tmp_path: Path, kspace: KSpace) -> None:
    kspace[2, 3, 4] = np.nan
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["kspace"] = kspace
    with FastmriFile(tmp_path / "a.h5") as read:
        read.read_slice(0)
        with pytest.raises(FileError, match=r"a\.h5: kspace: 1 of 360 samples are NaN or infinite \(slice 2\)"):
            read.read_slice(2)


@pytest.mark.parametrize("index", [-1, 3])
def test_no_such_slice(raw_file: Path, index: int) -> None:
    with FastmriFile(raw_file) as file, pytest.raises(FileError, match=f"slice: expected 0 to 2, got {index}"):
        file.read_slice(index)


def test_file_with_kspace_only(tmp_path: Path, kspace: KSpace) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["kspace"] = kspace.astype(np.complex128)
    with FastmriFile(tmp_path / "a.h5") as read:
        record = read.read_slice(0)
        assert read.header is None
        assert any("ismrmrd_header" in note for note in read.notes)
    np.testing.assert_array_equal(record.kspace[0], kspace[0])
    assert (record.mask, record.target, record.recon_shape, record.contrast) == (None, None, None, None)


def test_too_large_for_complex64(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["kspace"] = np.full((1, 4, 4), 1e300 + 0j)
    with FastmriFile(tmp_path / "a.h5") as read, pytest.raises(FileError, match="16 of 16 samples are NaN or infinite"):
        read.read_slice(0)


def test_crop_wider_than_the_encoded_image(tmp_path: Path, kspace: KSpace) -> None:
    # fastMRI's data transforms take a square as wide as the image then
    write_kspace(tmp_path / "a.h5", kspace, header=IsmrmrdHeader((24, 15, 1), (20, 20, 1)))
    with FastmriFile(tmp_path / "a.h5") as file:
        assert file.recon_shape == (15, 15)


@pytest.mark.parametrize("values", [np.uint8, np.int64, np.float32, np.bool_])
def test_types_of_mask(tmp_path: Path, kspace: KSpace, mask: Mask, values: type) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["kspace"] = kspace * mask
        file["mask"] = mask.astype(values)
    with FastmriFile(tmp_path / "a.h5") as read:
        np.testing.assert_array_equal(read.read_slice(0).mask, mask)


def test_mask_of_samples(tmp_path: Path, kspace: KSpace, rng: np.random.Generator) -> None:
    samples = rng.random((24, 15)) < 0.5
    write_kspace(tmp_path / "a.h5", kspace * samples, mask=samples)
    with FastmriFile(tmp_path / "a.h5") as file:
        np.testing.assert_array_equal(file.read_slice(1).mask, samples)


BAD = {
    "kspace: is missing; the file has: other": {"other": np.ones(3)},
    "kspace: expected complex (slice, y, x) or (slice, coil, y, x), got complex64 (4, 6)": {
        "kspace": np.ones((4, 6), np.complex64)
    },
    "kspace: expected complex (slice, y, x) or (slice, coil, y, x), got float64 (1, 4, 6)": {
        "kspace": np.ones((1, 4, 6))
    },
    "kspace: expected complex (slice, y, x) or (slice, coil, y, x), got complex64 (0, 4, 6)": {
        "kspace": np.ones((0, 4, 6), np.complex64)
    },
    "kspace: expected complex (slice, y, x) or (slice, coil, y, x), got complex64 (2, 4, 0)": {
        "kspace": np.ones((2, 4, 0), np.complex64)
    },
    "mask: expected numbers (6,) or (4, 6), got float64 (4,)": {"mask": np.ones(4)},
    "mask: expected numbers (6,) or (4, 6), got complex128 (6,)": {"mask": np.ones(6) + 0j},
    "mask: expected only 0 and 1": {"mask": np.full(6, 0.5)},
    "mask: is zero everywhere: nothing was acquired": {"mask": np.zeros(6)},
    "reconstruction_esc: expected real (2, y, x), got float64 (3, 4, 4)": {"reconstruction_esc": np.ones((3, 4, 4))},
    "reconstruction_esc: expected real (2, y, x), got float64 (4, 4)": {"reconstruction_esc": np.ones((4, 4))},
    "ismrmrd_header: is no valid XML: no element found: line 1, column 0": {"ismrmrd_header": b""},
    "ismrmrd_header: expected one text, got float64 ()": {"ismrmrd_header": 1.5},
}


@pytest.mark.parametrize("message", BAD)
def test_bad_content(tmp_path: Path, message: str) -> None:
    path = tmp_path / "a.h5"
    content = {"kspace": np.ones((2, 4, 6), np.complex64)} if "kspace" not in message else {}
    with h5py.File(path, "w") as file:
        for name, values in {**content, **BAD[message]}.items():
            file[name] = values
    with pytest.raises(FileError) as caught:
        FastmriFile(path)
    assert str(caught.value) == f"{path}: {message}"


def test_bad_flag(raw_file: Path) -> None:
    with h5py.File(raw_file, "r+") as file:
        file.attrs["image_is_real"] = "perhaps"
    with pytest.raises(FileError, match="attribute image_is_real: expected true or false, got 'perhaps'"):
        FastmriFile(raw_file)


def test_samples_outside_the_mask(tmp_path: Path, kspace: KSpace, mask: Mask) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["kspace"] = kspace
        file["mask"] = mask
    with (
        FastmriFile(tmp_path / "a.h5") as read,
        pytest.raises(FileError, match="kspace: 168 samples are not zero where"),
    ):
        read.read_slice(0)


@pytest.mark.parametrize("part", [0.02, 0.5, 0.95])
def test_truncated(raw_file: Path, part: float) -> None:
    content = raw_file.read_bytes()
    raw_file.write_bytes(content[: int(part * len(content))])
    with pytest.raises(FileError, match=r"raw\.h5: is (truncated|not an HDF5 file)"):
        FastmriFile(raw_file)


# What was acquired


def test_zeros_are_counted_but_give_no_mask(tmp_path: Path, kspace: KSpace, mask: Mask) -> None:
    write_kspace(tmp_path / "a.h5", kspace * mask)
    with FastmriFile(tmp_path / "a.h5") as file:
        record = file.read_slice(0)
    assert record.mask is None
    np.testing.assert_array_equal(record.acquired(), mask)


def test_header_that_disagrees_is_noted(tmp_path: Path, kspace: KSpace) -> None:
    write_kspace(tmp_path / "a.h5", kspace, header=IsmrmrdHeader.for_shape((24, 16)))
    with FastmriFile(tmp_path / "a.h5") as file:
        assert "header says 24 x 16, k-space is 24 x 15" in file.notes


# Writing raw data


def test_write_kspace_checks_like_reading(tmp_path: Path, kspace: KSpace, mask: Mask) -> None:
    path = tmp_path / "a.h5"
    with pytest.raises(ValueError, match="kspace: expected complex"):
        write_kspace(path, kspace[0])
    with pytest.raises(ValueError, match=r"target: expected real \(3, y, x\), got float32 \(2, 4, 4\)"):
        write_kspace(path, kspace, target=np.ones((2, 4, 4), np.float32))
    with pytest.raises(FileError, match="kspace: 168 samples are not zero where the mask"):
        write_kspace(path, kspace, mask=mask)
    with pytest.raises(FileError, match="mask: is zero everywhere"):
        write_kspace(path, kspace, mask=0 * mask > 0)
    assert not path.exists()


def test_fastmri_reads_our_raw_files(raw_file: Path, kspace: KSpace, mask: Mask) -> None:
    mri_data = pytest.importorskip("fastmri.data.mri_data", reason="the extra fastmri is not installed")
    data = mri_data.SliceDataset(raw_file.parent, "singlecoil")
    assert len(data) == 3
    read_kspace, read_mask, target, attributes, name, index = data[1]
    np.testing.assert_array_equal(read_kspace, (kspace * mask)[1])
    np.testing.assert_array_equal(read_mask, mask)
    assert (target.shape, name, index) == ((12, 12), "raw.h5", 1)
    assert (attributes["recon_size"], attributes["encoding_size"]) == ((12, 12, 1), (24, 15, 1))
    assert (attributes["padding_left"], attributes["padding_right"]) == (0, 15)
    assert attributes["acquisition"] == "CORPD_FBK"
