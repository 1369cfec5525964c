"""Sampling masks in files."""

from pathlib import Path

import numpy as np
import pytest

from mrisps.errors import FileError
from mrisps.sampling import SamplingMask, make_mask, read_mask, write_mask


@pytest.fixture
def mask() -> SamplingMask:
    return make_mask("equispaced", (640, 368), 8, 0.04, seed=1)


def test_from_npy(tmp_path: Path) -> None:
    columns = np.arange(12) % 3 == 0
    np.save(tmp_path / "columns.npy", columns.astype(np.uint8))
    np.save(tmp_path / "full.npy", np.stack((columns, ~columns)))
    mask = read_mask(tmp_path / "columns.npy", (5, 12))
    assert (mask.kind, mask.shape, mask.is_columns) == ("file", (5, 12), True)
    assert np.array_equal(mask.pattern, columns)
    assert read_mask(str(tmp_path / "full.npy")).shape == (2, 12)
    with pytest.raises(FileError, match=r"columns.npy: mask: shape: needed for an array that is not \(y, x\)"):
        read_mask(tmp_path / "columns.npy")
    with pytest.raises(FileError, match=r"columns.npy: mask: pattern: expected \(y, x\) = \(5, 13\)"):
        read_mask(tmp_path / "columns.npy", (5, 13))


def test_from_json_file(tmp_path: Path, mask: SamplingMask) -> None:
    path = tmp_path / "mask.json"
    write_mask(mask, path)
    assert read_mask(path) == mask
    assert read_mask(path, (640, 368)) == mask
    with pytest.raises(FileError, match=r"mask.json: mask: expected \(y, x\) = \(320, 320\), got \(640, 368\)"):
        read_mask(path, (320, 320))


@pytest.mark.parametrize("name", ["mask.npy", "mask.json"])
def test_broken_files(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with pytest.raises(FileError, match=f"{name}: mask: No such file"):
        read_mask(path)
    contents = [b"", b"{", b"\x93NUMPY", b"\xff\xfe", b"PK\x03\x04", b"null", b"[1]", b"[" * 100_000]
    np.save(tmp_path / "good.npy", np.ones((4, 4)))
    contents.append((tmp_path / "good.npy").read_bytes()[:-8])
    contents.append((tmp_path / "good.npy").read_bytes().replace(b"(4, 4)", b"(4, 1000000000000000)"))
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(FileError) as caught:
            read_mask(path)
        assert (caught.value.path, caught.value.field) == (path, "mask")
    path.unlink()
    path.mkdir()
    with pytest.raises(FileError):
        read_mask(path)


def test_pickled_arrays_are_not_read(tmp_path: Path) -> None:
    np.save(tmp_path / "objects.npy", np.array([[True, None]], dtype=object), allow_pickle=True)
    with pytest.raises(FileError, match="allow_pickle=False"):
        read_mask(tmp_path / "objects.npy")


def test_other_suffixes(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"expected a mask as .npy or .json, got suffix '.png'"):
        read_mask(tmp_path / "mask.png")
