import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from mrisps import __version__
from mrisps.errors import FileError
from mrisps.io.fastmri import (
    FastmriFile,
    ReconstructionWriter,
    Sampling,
    read_volume,
    sampling_from_zeros,
    summarize,
    write_kspace,
    write_reconstruction,
)
from mrisps.io.ismrmrd_header import IsmrmrdHeader

KSpace = NDArray[np.complex64]
Mask = NDArray[np.bool_]
SmallDisk = Callable[[int], AbstractContextManager[None]]


def test_io_is_light() -> None:
    # `mrisps info` answers at once: nothing of io loads these, and pictures and downloads only when they are asked for
    modules = ["acquisition", "fastmri", "hdf5", "images", "manifest", "paper_slices"]
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
        assert (file.n_slices, file.n_coils, file.shape, file.multicoil) == (3, 1, (24, 15), False)
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
        assert (file.multicoil, file.n_coils, file.target_name) == (True, 2, "reconstruction_rss")
        np.testing.assert_array_equal(file.read_slice(2).kspace, coils[2])
    assert summarize(tmp_path / "a.h5").n_coils == 2


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
        assert file.summary().sampling == Sampling(int(samples.sum()), 360, columns=False, n_center=0, stated=True)


BAD = {
    "kspace: is missing; the file has: other": {"other": np.ones(3)},
    "kspace: expected (slice, y, x) or (slice, coil, y, x), got (4, 6)": {"kspace": np.ones((4, 6), np.complex64)},
    "kspace: expected complex numbers, got float64": {"kspace": np.ones((1, 4, 6))},
    "kspace: is empty: shape (0, 4, 6)": {"kspace": np.ones((0, 4, 6), np.complex64)},
    "kspace: is empty: shape (2, 4, 0)": {"kspace": np.ones((2, 4, 0), np.complex64)},
    "mask: expected numbers of shape (6,) or (4, 6), got float64 (4,)": {"mask": np.ones(4)},
    "mask: expected numbers of shape (6,) or (4, 6), got complex128 (6,)": {"mask": np.ones(6) + 0j},
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


def test_damaged_anywhere_is_a_file_error_or_read(raw_file: Path, rng: np.random.Generator) -> None:
    content = raw_file.read_bytes()
    for _ in range(150):
        damaged = bytearray(content)
        start = int(rng.integers(8, 3000))  # past the signature, mostly in the metadata
        damaged[start : start + 4] = rng.bytes(4)
        raw_file.write_bytes(damaged)
        try:
            with FastmriFile(raw_file) as file:
                list(file.slices())
                file.summary()
        except FileError:
            continue


# The header


def test_header_round_trip() -> None:
    header = IsmrmrdHeader(
        (640, 372, 1), (320, 320, 1), (280.5, 162.0, 4.5), (140.0, 140.0, 4.5), (0, 329, 165), "cartesian", 15, 2.8936
    )
    assert IsmrmrdHeader.from_xml(header.to_xml()) == header
    unknown = IsmrmrdHeader.for_shape((24, 15), (12, 12))
    assert IsmrmrdHeader.from_xml(unknown.to_xml()) == unknown
    assert unknown.recon_fov_mm is None


@pytest.mark.parametrize("header", [IsmrmrdHeader.for_shape((24, 15)), IsmrmrdHeader((2, 3, 1), (2, 3, 1), n_coils=4)])
def test_header_is_valid_ismrmrd(header: IsmrmrdHeader) -> None:
    from ismrmrd import xsd

    read = xsd.CreateFromDocument(header.to_xml())
    assert read.encoding[0].encodedSpace.matrixSize.x == header.encoded_matrix[0]
    assert read.encoding[0].trajectory.value == "cartesian"


def test_header_of_ismrmrd_is_read() -> None:
    text = b"""<?xml version="1.0"?>
<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD" xmlns:xs="http://www.w3.org/2001/XMLSchema">
  <acquisitionSystemInformation><systemFieldStrength_T>1.494</systemFieldStrength_T></acquisitionSystemInformation>
  <experimentalConditions><H1resonanceFrequency_Hz>63642459</H1resonanceFrequency_Hz></experimentalConditions>
  <encoding>
    <encodedSpace><matrixSize><x>640</x><y>368</y><z>1</z></matrixSize>
      <fieldOfView_mm><x>280</x><y>161</y><z>4.5</z></fieldOfView_mm></encodedSpace>
    <reconSpace><matrixSize><x>320</x><y>320</y><z>1</z></matrixSize>
      <fieldOfView_mm><x>140</x><y>140</y><z>4.5</z></fieldOfView_mm></reconSpace>
    <encodingLimits><kspace_encoding_step_1><minimum>0</minimum><maximum>321</maximum><center>160</center>
      </kspace_encoding_step_1></encodingLimits>
    <trajectory>cartesian</trajectory>
  </encoding>
</ismrmrdHeader>"""
    expected = IsmrmrdHeader(
        (640, 368, 1), (320, 320, 1), (280, 161, 4.5), (140, 140, 4.5), (0, 321, 160), "cartesian", None, 1.494
    )
    assert IsmrmrdHeader.from_xml(text) == replace(expected, resonance_frequency_hz=63642459)


LAUGHS = b'<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]><x>&b;</x>'
FILE = b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><x>&a;</x>'


@pytest.mark.parametrize("text", [LAUGHS, FILE, LAUGHS.decode().encode("utf-16")])
def test_header_with_entities(text: bytes) -> None:
    with pytest.raises(ValueError, match="a document type declaration is not allowed"):
        IsmrmrdHeader.from_xml(text)


def test_hostile_headers() -> None:
    valid = IsmrmrdHeader.for_shape((24, 15)).to_xml()
    with pytest.raises(ValueError, match="expected at most 1048576 bytes"):
        IsmrmrdHeader.from_xml(valid + b" " * (1 << 20))
    with pytest.raises(ValueError, match="is no valid XML"):
        IsmrmrdHeader.from_xml(valid[:-10])
    with pytest.raises(ValueError, match=r"encoding.encodedSpace.matrixSize: expected three numbers"):
        IsmrmrdHeader.from_xml(valid.replace(b"<x>24</x>", b""))
    for bad in (b"-3", b"99999999999", b"1e6"):
        with pytest.raises(ValueError, match="from 1 to 65536"):
            IsmrmrdHeader.from_xml(valid.replace(b"<x>24</x>", b"<x>" + bad + b"</x>"))
    for bad in (b"nan", b"inf", b"many"):
        with pytest.raises(ValueError, match=r"matrixSize\.x: expected a number"):
            IsmrmrdHeader.from_xml(valid.replace(b"<x>24</x>", b"<x>" + bad + b"</x>"))
    with pytest.raises(ValueError, match=r"matrixSize"):
        IsmrmrdHeader.from_xml(b"<a>" * 100_000 + b"</a>" * 100_000)


# The summary


def test_summary(raw_file: Path) -> None:
    summary = summarize(raw_file)
    assert (summary.kind, summary.n_slices, summary.n_coils, summary.shape) == ("k-space", 3, 1, (24, 15))
    assert (summary.dtype, summary.contrast, summary.target) == ("complex64", "CORPD_FBK", "reconstruction_esc")
    assert summary.sampling == Sampling(8, 15, columns=True, n_center=3, stated=True)
    assert str(summary.sampling) == (
        "8 of 15 columns are acquired (mask in the file), 3 of them around the centre: acceleration 1.88"
    )
    assert summary.datasets["kspace"] == ((3, 24, 15), "complex64")
    assert summary.n_bytes == raw_file.stat().st_size
    assert summary.notes == ()


def test_zeros_are_counted_but_give_no_mask(tmp_path: Path, kspace: KSpace, mask: Mask) -> None:
    write_kspace(tmp_path / "a.h5", kspace * mask)
    with FastmriFile(tmp_path / "a.h5") as file:
        assert file.read_slice(0).mask is None
        sampling = file.summary().sampling
    assert sampling == sampling_from_zeros((kspace * mask)[1])
    assert str(sampling) == (
        "8 of 15 columns are non-zero (no mask in the file), 3 of them around the centre: acceleration 1.88"
    )


def test_fully_sampled(tmp_path: Path, kspace: KSpace) -> None:
    write_kspace(tmp_path / "a.h5", kspace, mask=np.ones(15, np.bool_))
    sampling = summarize(tmp_path / "a.h5").sampling
    assert sampling is not None
    assert sampling.is_full
    assert str(sampling) == "15 of 15 columns are acquired (mask in the file): fully sampled"
    assert sampling_from_zeros(kspace[0]).is_full


def test_acquired_columns_of_zeros_are_noted(tmp_path: Path, kspace: KSpace, mask: Mask) -> None:
    kspace[:, :, [0, 13]] = 0
    write_kspace(tmp_path / "a.h5", kspace * mask, mask=mask)
    expected = "2 of the columns that the mask calls acquired are zero in slice 1"
    assert expected in summarize(tmp_path / "a.h5").notes


@pytest.mark.parametrize(("columns", "n_center"), [("00100", 1), ("01110", 3), ("11011", 0), ("11111", 5), ("0110", 2)])
def test_center_columns(columns: str, n_center: int) -> None:
    kspace = np.array([[int(c) for c in columns]], dtype=np.complex64)
    assert sampling_from_zeros(kspace).n_center == n_center


def test_header_that_disagrees_is_noted(tmp_path: Path, kspace: KSpace) -> None:
    write_kspace(tmp_path / "a.h5", kspace, header=IsmrmrdHeader.for_shape((24, 16)))
    assert "header says 24 x 16, k-space is 24 x 15" in summarize(tmp_path / "a.h5").notes


def test_summary_of_a_file_with_neither(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = 1.0
    with pytest.raises(FileError, match="kspace: is missing"):
        summarize(tmp_path / "a.h5")


# Writing raw data


def test_write_kspace_checks_like_reading(tmp_path: Path, kspace: KSpace, mask: Mask) -> None:
    path = tmp_path / "a.h5"
    with pytest.raises(ValueError, match="kspace: expected complex"):
        write_kspace(path, kspace[0])
    with pytest.raises(ValueError, match=r"target: expected \(3, y, x\), got shape \(2, 4, 4\)"):
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


# Writing reconstructions


def test_write_reconstruction(tmp_path: Path, kspace: KSpace) -> None:
    path = tmp_path / "out.h5"
    write_reconstruction(
        path,
        kspace,
        extras={"smooth": kspace, "cost_map": np.abs(kspace)},
        attributes={"acquisition": "CORPD_FBK", "scale": 2.5},
        provenance={"recipe": "knee", "weights": None, "numbers": [1, 2.5], "energy": float("nan")},
        certificates=[{"status": "converged", "energy_trace": [3.0, 2.0]}] * 3,
        header=IsmrmrdHeader.for_shape((24, 15)),
    )
    with h5py.File(path) as file:
        assert file["reconstruction"].dtype == np.float32
        np.testing.assert_array_equal(file["reconstruction"][()], np.abs(kspace))
        np.testing.assert_array_equal(file["image"][()], kspace)
        np.testing.assert_array_equal(file["cost_map"][()], np.abs(kspace))
    summary = summarize(path)
    assert (summary.kind, summary.n_slices, summary.shape, summary.contrast) == (
        "reconstruction",
        3,
        (24, 15),
        "CORPD_FBK",
    )
    assert summary.attributes["mrisps_version"] == __version__
    assert summary.attributes["scale"] == 2.5
    assert summary.provenance is not None
    assert json.loads(summary.provenance) == {"recipe": "knee", "weights": None, "numbers": [1, 2.5], "energy": None}
    assert summary.certificate is not None
    assert json.loads(summary.certificate) == [{"status": "converged", "energy_trace": [3.0, 2.0]}] * 3
    np.testing.assert_array_equal(read_volume(path, ("absent", "reconstruction")), np.abs(kspace))


def test_real_reconstruction_has_no_complex_image(tmp_path: Path) -> None:
    write_reconstruction(tmp_path / "out.h5", -np.ones((1, 4, 5), np.float32))
    assert summarize(tmp_path / "out.h5").datasets.keys() == {"reconstruction"}
    assert read_volume(tmp_path / "out.h5", ("reconstruction",)).max() == -1


def test_a_long_certificate(tmp_path: Path) -> None:
    trace = [float(n) / 3 for n in range(20_000)]  # attributes of more than 64 kB need a newer file format
    write_reconstruction(tmp_path / "out.h5", np.ones((1, 4, 4), np.float32), certificates=[{"energy_trace": trace}])
    certificate = summarize(tmp_path / "out.h5").certificate
    assert certificate is not None
    assert json.loads(certificate)[0]["energy_trace"] == trace


@pytest.mark.parametrize("error", [RuntimeError("x"), KeyboardInterrupt()])
def test_interrupted_between_slices(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "out.h5"
    write_reconstruction(path, np.ones((2, 4, 4), np.float32))
    before = path.read_bytes()
    with pytest.raises(type(error)), ReconstructionWriter(path, 2) as writer:  # noqa: PT012 - what fails is leaving the block
        writer.write_slice(0, np.zeros((4, 4), np.float32))
        raise error
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["out.h5"]


def test_full_disk(tmp_path: Path, small_disk: SmallDisk) -> None:
    path = tmp_path / "out.h5"
    write_reconstruction(path, np.ones((1, 4, 4), np.float32))
    before = path.read_bytes()
    with small_disk(100_000), pytest.raises(FileError, match=r"out\.h5: cannot be written: File too large"):
        write_reconstruction(path, np.ones((20, 100, 100), np.float32))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["out.h5"]


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"the folder .* does not exist"):
        write_reconstruction(tmp_path / "absent" / "out.h5", np.ones((1, 4, 4), np.float32))


def test_writer_refuses_what_does_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "out.h5"
    image = np.ones((4, 5), np.float32)
    with pytest.raises(ValueError, match="n_slices"):
        ReconstructionWriter(path, 0)
    with ReconstructionWriter(path, 2) as writer:
        writer.write_slice(1, image, {"smooth": image})
        with pytest.raises(ValueError, match="index: expected 0 to 1, each once, got 1"):
            writer.write_slice(1, image, {"smooth": image})
        with pytest.raises(ValueError, match="index: expected 0 to 1, each once, got 2"):
            writer.write_slice(2, image, {"smooth": image})
        with pytest.raises(ValueError, match="expected as for the first slice"):
            writer.write_slice(0, image)
        with pytest.raises(ValueError, match="expected as for the first slice"):
            writer.write_slice(0, image[:, :4], {"smooth": image})
        with pytest.raises(ValueError, match="extras: expected names like cost_map"):
            writer.write_slice(0, image, {"reconstruction": image})
        with pytest.raises(ValueError, match="extras: smooth: expected an array of numbers"):
            writer.write_slice(0, image, {"smooth": np.array(["a"])})  # type: ignore[dict-item]  # wrong on purpose
        with pytest.raises(ValueError, match=r"image: expected real or complex \(y, x\)"):
            writer.write_slice(0, image[0])
        with pytest.raises(FileError, match="reconstruction: has NaN or infinite pixels, not written"):
            writer.write_slice(0, image * np.nan, {"smooth": image})
        writer.write_slice(0, image, {"smooth": image})
    assert summarize(path).n_slices == 2
    with pytest.raises(ValueError, match=r"slices not written: \[0\]"), ReconstructionWriter(path, 2) as writer:
        writer.write_slice(1, image)
    assert summarize(path).datasets.keys() == {"reconstruction", "smooth"}
    with pytest.raises(ValueError, match="extras: smooth: expected 2 slices"):
        write_reconstruction(path, np.stack([image, image]), extras={"smooth": image[np.newaxis]})
    with pytest.raises(ValueError, match="certificates: expected 2, got 1"):
        write_reconstruction(path, np.stack([image, image]), certificates=[{}])


def test_read_volume_refuses(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["flat"] = np.ones((3, 4))
        file["complex"] = np.ones((1, 3, 4), np.complex64)
        file["nan"] = np.full((1, 3, 4), np.nan)
    for name, message in (("flat", "expected real"), ("complex", "expected real"), ("nan", "has NaN")):
        with pytest.raises(FileError, match=f"{name}: {message}"):
            read_volume(path, (name,))
    with pytest.raises(FileError, match="b or c: is missing; the file has: complex, flat, nan"):
        read_volume(path, ("b", "c"))
