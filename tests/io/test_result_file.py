"""The one result format: what is written is read, by us and as fastMRI's layout."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray
from result_files import write_result

from mrisps import __version__
from mrisps.errors import FileError
from mrisps.io.acquisition import Geometry
from mrisps.io.ismrmrd_header import IsmrmrdHeader
from mrisps.io.result_file import ResultFile, ResultWriter, read_volume

KSpace = NDArray[np.complex64]
SmallDisk = Callable[[int], AbstractContextManager[None]]


def test_everything_that_is_written_is_read(tmp_path: Path, kspace: KSpace) -> None:
    path = tmp_path / "out.h5"
    header = IsmrmrdHeader.for_shape((24, 15))
    write_result(
        path,
        kspace,
        extras={"smooth": kspace, "cost_map": np.abs(kspace)},
        attributes={"acquisition": "CORPD_FBK", "scale": 2.5},
        provenance={"recipe": "knee", "weights": None, "numbers": [1, 2.5], "energy": float("nan")},
        certificates=[{"status": "converged", "energy_trace": [3.0, 2.0]}] * 3,
        header=header,
    )
    with h5py.File(path) as file:  # as fastmri.evaluate has it
        assert file["reconstruction"].dtype == np.float32
        np.testing.assert_array_equal(file["reconstruction"][()], np.abs(kspace))
    with ResultFile(path) as read:
        assert (read.n_slices, read.shape) == (3, (24, 15))
        assert read.names == ("reconstruction", "image", "smooth", "cost_map")
        np.testing.assert_array_equal(read.read(index=1), np.abs(kspace)[1])
        np.testing.assert_array_equal(read.read("image"), kspace)
        np.testing.assert_array_equal(read.read("cost_map", 2), np.abs(kspace)[2])
        assert read.attributes == {
            "acquisition": "CORPD_FBK",
            "scale": 2.5,
            "mrisps_format": 1,
            "mrisps_version": __version__,
        }
        assert read.provenance == {"recipe": "knee", "weights": None, "numbers": [1, 2.5], "energy": None}
        assert read.certificates == ({"status": "converged", "energy_trace": [3.0, 2.0]},) * 3
        assert read.geometries == (None,) * 3
        assert read.header == header
        digests = read.digests()
        volume = read.volume()
        with pytest.raises(FileError, match="sparse: is missing"):
            read.read("sparse")
        for index in (-1, 3):
            with pytest.raises(FileError, match=f"slice of image: expected 0 to 2, got {index}"):
                read.read("image", index)
    np.testing.assert_array_equal(volume.pixels, kspace)
    assert digests.keys() == {"reconstruction", "image", "smooth", "cost_map"}
    assert digests["image"] == digests["smooth"] != digests["reconstruction"] == digests["cost_map"]
    np.testing.assert_array_equal(read_volume(path, ("absent", "reconstruction")), np.abs(kspace))


def test_files_of_others_are_read(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["reconstruction"] = np.ones((2, 4, 5), np.float64)
    assert ResultFile.is_result(tmp_path / "a.h5")
    with ResultFile(tmp_path / "a.h5") as read:
        assert (read.provenance, read.certificates, read.header) == (None, (), None)
        assert read.volume().pixels.dtype == np.float32
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file["kspace"] = np.ones((2, 4, 5), np.complex64)
    assert not ResultFile.is_result(tmp_path / "a.h5")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("provenance", "[1]", "attribute provenance: expected an object"),
        ("provenance", "[[[", "attribute provenance: is no valid JSON"),
        ("provenance", "[" * 100_000, "attribute provenance: is no valid JSON"),
        ("certificate", "{}", "attribute certificate: expected a list of 2 objects"),
        ("certificate", "[{}]", "attribute certificate: expected a list of 2 objects"),
        ("certificate", "[{}, 1]", "attribute certificate: expected a list of 2 objects"),
        ("geometry", "[", "attribute geometry: is no valid JSON"),
        ("geometry", "[null]", "attribute geometry: has 1 entries, there are 2 slices"),
        ("geometry", '[{"a": 1}, null]', "attribute geometry: is no list of geometries"),
        ("geometry", "[1, 2]", "attribute geometry: is no list of geometries"),
    ],
)
def test_a_damaged_text_is_named_and_the_images_are_read(tmp_path: Path, name: str, text: str, message: str) -> None:
    write_result(tmp_path / "a.h5", np.ones((2, 4, 5), np.float32), provenance={}, certificates=[{}, {}])
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file.attrs[name] = text
    with ResultFile(tmp_path / "a.h5") as read:
        assert read.read().shape == (2, 4, 5)
        with pytest.raises(FileError, match=message):
            _ = {"provenance": lambda: read.provenance, "certificate": lambda: read.certificates}.get(
                name, lambda: read.geometries
            )()


def test_a_later_version_is_refused(tmp_path: Path) -> None:
    write_result(tmp_path / "a.h5", np.ones((1, 4, 5), np.float32))
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file.attrs["mrisps_format"] = 2
    with pytest.raises(FileError, match="attribute mrisps_format: expected at most 1, got 2"):
        ResultFile(tmp_path / "a.h5")


def test_geometries(tmp_path: Path) -> None:
    place = Geometry((200.0, 120.0, 3.0), (5.0, -7.0, 11.0))
    places = (place, None, replace(place, position_mm=(5.0, -7.0, 15.0)))
    with ResultWriter(tmp_path / "a.h5", 3) as writer:
        for index in (2, 0, 1):
            writer.write_slice(index, np.ones((4, 5), np.float32), geometry=places[index])
    with ResultFile(tmp_path / "a.h5") as read:
        assert read.geometries == read.volume().geometries == places


@pytest.mark.parametrize("error", [RuntimeError("x"), KeyboardInterrupt()])
def test_interrupted_between_slices(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "out.h5"
    write_result(path, np.ones((2, 4, 4), np.float32))
    before = path.read_bytes()
    with pytest.raises(type(error)), ResultWriter(path, 2) as writer:  # noqa: PT012 - what fails is leaving the block
        writer.write_slice(0, np.zeros((4, 4), np.float32))
        raise error
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["out.h5"]


def test_full_disk(tmp_path: Path, small_disk: SmallDisk) -> None:
    path = tmp_path / "out.h5"
    write_result(path, np.ones((1, 4, 4), np.float32))
    before = path.read_bytes()
    with small_disk(100_000), pytest.raises(FileError, match=r"out\.h5: cannot be written: File too large"):
        write_result(path, np.ones((20, 100, 100), np.float32))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["out.h5"]


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"the folder .* does not exist"):
        write_result(tmp_path / "absent" / "out.h5", np.ones((1, 4, 4), np.float32))


def test_writer_refuses_what_does_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "out.h5"
    image = np.ones((4, 5), np.float32)
    with pytest.raises(ValueError, match="n_slices"):
        ResultWriter(path, 0)
    with ResultWriter(path, 2) as writer:
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
        with pytest.raises(FileError, match="smooth: has NaN or infinite pixels, not written"):
            writer.write_slice(0, image, {"smooth": image * np.inf})
        writer.write_slice(0, image, {"smooth": image})
    with pytest.raises(ValueError, match=r"slices not written: \[0\]"), ResultWriter(path, 2) as writer:
        writer.write_slice(1, image)
    with ResultFile(path) as read:
        assert (read.n_slices, read.names) == (2, ("reconstruction", "smooth"))


def test_a_long_certificate(tmp_path: Path) -> None:
    trace = [float(n) / 3 for n in range(20_000)]  # attributes of more than 64 kB need a newer file format
    write_result(tmp_path / "out.h5", -np.ones((1, 4, 4), np.float32), certificates=[{"energy_trace": trace}])
    with ResultFile(tmp_path / "out.h5") as read:
        assert read.certificates[0]["energy_trace"] == trace
        assert read.names == ("reconstruction",)  # a real image is not there twice
        assert (read.read() == -1).all()


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
