"""BART's files."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from raw_files import normal

from mrisps.errors import FileError
from mrisps.io.acquisition import Acquisition
from mrisps.io.bart import BartFile, read_cfl, read_hdr, write_cfl
from mrisps.io.open import open_kspace

KSPACE = normal((2, 3, 10, 8))  # (slice, coil, y, x)


def write(path: Path) -> None:
    write_cfl(path, (Acquisition(KSPACE[index], path, index, 2) for index in range(2)), provenance={"input": "x"})


def test_round_trip(tmp_path: Path) -> None:
    write(tmp_path / "a.cfl")
    assert read_hdr(tmp_path / "a.hdr") == (10, 8, 1, 3, *([1] * 9), 2, 1, 1)
    for name in ("a.cfl", "a.hdr"):
        with open_kspace(tmp_path / name) as file:
            assert (file.format, file.n_slices, file.n_coils, file.shape) == ("BART", 2, 3, (10, 8))
            for index, record in enumerate(file.slices()):
                np.testing.assert_array_equal(record.kspace, KSPACE[index])
                assert record.labels["slice"] == index
    with pytest.raises(FileError, match="is closed"):
        file.read_slice(0)


def test_bart_reads_it(tmp_path: Path) -> None:
    bart = shutil.which("bart")
    if bart is None:
        pytest.skip("BART is not on this machine")
    write(tmp_path / "a.cfl")
    shown = subprocess.run(
        [bart, "show", "-m", str(tmp_path / "a")], capture_output=True, text=True, check=True, timeout=60
    )
    assert shown.stdout.split("AoD:")[1].split() == ["10", "8", "1", "3", *["1"] * 9, "2", "1", "1"]
    # and what BART writes, we read: coil 1 of slice 1
    one, two = str(tmp_path / "b"), str(tmp_path / "c")
    subprocess.run([bart, "slice", "13", "1", str(tmp_path / "a"), one], check=True, timeout=60)
    subprocess.run([bart, "slice", "3", "1", one, two], check=True, timeout=60)
    np.testing.assert_array_equal(BartFile(two).read_slice(0).kspace, KSPACE[1, 1:2])


def write_raw(path: Path, dimensions: str, n: int) -> Path:
    path.with_suffix(".hdr").write_text(f"# Dimensions\n{dimensions}\n")
    path.write_bytes(np.ones(n, np.complex64).tobytes())
    return path


def test_dimensions(tmp_path: Path) -> None:
    file = BartFile(write_raw(tmp_path / "a.cfl", "4 3 1 2 1 2 1 1 1 1 3", 4 * 3 * 2 * 2 * 3))
    assert (file.n_slices, file.shape, file.n_coils) == (6, (4, 3), 2)
    assert dict(file.read_slice(5).labels) == {"contrast": 1, "repetition": 2, "phase": 0, "slice": 0, "average": 0}
    transformed = BartFile(write_raw(tmp_path / "b.cfl", "1 4 3 2", 24))
    assert (transformed.shape, transformed.n_coils) == ((4, 3), 2)
    assert any("transformed already" in note for note in transformed.notes)


@pytest.mark.parametrize(
    ("dimensions", "n", "message"),
    [
        ("4 3 1 2", 23, r"a\.cfl: Dimensions: has 184 bytes, 4 x 3 x 1 x 2 complex numbers have 192"),
        ("4 3 2 2", 48, r"dimension 2: 2 partitions"),
        ("4 3 1 2 2", 48, r"dimension 4: has size 2; only 5, 10, 11, 13, 14"),
        ("4 0 1 2", 0, r"a\.hdr: Dimensions: expected positive numbers"),
        ("4 -3 1 2", 24, r"a\.hdr: Dimensions: expected 1 to 16 positive numbers"),
        ("", 24, r"a\.hdr: Dimensions"),
        ("1 " * 17, 1, r"a\.hdr: Dimensions"),
        ("99999999999 9999999999", 1, r"a\.hdr: Dimensions"),
    ],
)
def test_wrong_dimensions(tmp_path: Path, dimensions: str, n: int, message: str) -> None:
    with pytest.raises(FileError, match=message):
        BartFile(write_raw(tmp_path / "a.cfl", dimensions, n))


def test_missing_and_not_finite(tmp_path: Path) -> None:
    path = write_raw(tmp_path / "a.cfl", "2 2 1 1", 4)
    path.write_bytes(np.array([1, np.nan, 0, 0], np.complex64).tobytes())
    with pytest.raises(FileError, match="kspace: 1 of 4 samples are NaN or infinite"):
        BartFile(path).read_slice(0)
    path.unlink()
    with pytest.raises(FileError, match=r"a\.cfl: cannot be read"):
        read_cfl(path)
    with pytest.raises(FileError, match=r"b\.hdr: cannot be read"):
        read_cfl(tmp_path / "b")


@pytest.mark.parametrize("n_written", [0, 1])
def test_an_unfinished_file_does_not_appear(tmp_path: Path, n_written: int) -> None:
    records = [Acquisition(KSPACE[index], tmp_path, index, 2) for index in range(n_written)]
    with pytest.raises(ValueError, match="slices: expected"):
        write_cfl(tmp_path / "a.cfl", records)
    assert list(tmp_path.iterdir()) == []
