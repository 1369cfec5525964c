import struct
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mrisps.errors import FileError
from mrisps.io.images import read_image, write_image

SmallDisk = Callable[[int], AbstractContextManager[None]]


@pytest.fixture
def image(rng: np.random.Generator) -> np.ndarray:
    return rng.random((9, 7)).astype(np.float32)


@pytest.mark.parametrize(("name", "bits", "tolerance"), [
    ("a.png", 8, 0.5 / 255), ("a.PNG", 16, 0.5 / 65535), ("a.tif", 8, 0), ("a.tiff", 16, 0), ("a.npy", 8, 0),
])  # fmt: skip
def test_round_trip(tmp_path: Path, image: np.ndarray, name: str, bits: int, tolerance: float) -> None:
    write_image(tmp_path / name, image, bits=bits)  # type: ignore[arg-type]  # wrong on purpose
    read = read_image(tmp_path / name)
    assert (read.dtype, read.shape) == (np.float32, image.shape)
    assert np.abs(read - image).max() <= tolerance * 1.0001 + (6e-8 if tolerance else 0)
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("suffix", [".png", ".tif", ".npy"])
@pytest.mark.parametrize(("dtype", "top"), [(np.uint8, 255), (np.uint16, 65535)])
def test_integers_are_scaled_by_their_type(tmp_path: Path, suffix: str, dtype: type, top: int) -> None:
    pixels = np.array([[0, 1, 2], [100, top - 1, top]], dtype=dtype)
    path = tmp_path / f"a{suffix}"
    np.save(path, pixels) if suffix == ".npy" else Image.fromarray(pixels).save(path)
    np.testing.assert_array_equal(read_image(path), (pixels / top).astype(np.float32))


def test_floats_are_taken_as_they_are(tmp_path: Path) -> None:
    pixels = np.array([[-3.5, 0.0, 1200.25]], dtype=np.float64)
    np.save(tmp_path / "a.npy", pixels)
    np.testing.assert_array_equal(read_image(tmp_path / "a.npy"), pixels)
    write_image(tmp_path / "a.tif", pixels.astype(np.float32))
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), pixels)


def test_black_and_white(tmp_path: Path) -> None:
    pixels = np.array([[True, False], [False, True]])
    Image.fromarray(pixels).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), pixels)


def test_png_clips(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", np.array([[-1.0, 0.5, 2.0]], dtype=np.float32))
    np.testing.assert_allclose(read_image(tmp_path / "a.png"), [[0, 128 / 255, 1]], atol=1e-7)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "LA"])
def test_color_only_when_asked(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (5, 4), (255, 0, 51)).convert(mode).save(path)
    with pytest.raises(FileError, match=r"a\.png: is a colour image or has transparency"):
        read_image(path)
    grey = read_image(path, color_to_grey=True)
    assert grey.shape == (4, 5)
    assert np.abs(grey - (0.299 + 0.114 * 0.2)).max() < 3e-3


def test_transparent(tmp_path: Path) -> None:
    Image.new("RGBA", (5, 4), (255, 0, 51, 100)).save(tmp_path / "a.png")
    with pytest.raises(FileError, match="is partly transparent"):
        read_image(tmp_path / "a.png", color_to_grey=True)


@pytest.mark.parametrize(("pixels", "message"), [
    (np.ones((3, 4), np.int32), "expected uint8, uint16 or floating-point pixels, got int32"),
    (np.ones((3, 4), np.complex64), "expected uint8, uint16 or floating-point pixels, got complex64"),
    (np.ones(4), r"expected one grey image \(y, x\), got shape \(4,\)"),
    (np.ones((2, 9, 9)), r"expected one grey image \(y, x\), got shape \(2, 9, 9\)"),
    (np.ones((0, 4)), r"expected one grey image \(y, x\), got shape \(0, 4\)"),
    (np.array([[1.0, np.nan]]), "has NaN or infinite pixels"),
    (np.array([[1.0, 1e300]]), "has NaN or infinite pixels"),
])  # fmt: skip
def test_bad_npy_content(tmp_path: Path, pixels: np.ndarray, message: str) -> None:
    np.save(tmp_path / "a.npy", pixels)
    with pytest.raises(FileError, match=message):
        read_image(tmp_path / "a.npy")


def test_npy_never_unpickles(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([[print]], dtype=object), allow_pickle=True)
    with pytest.raises(FileError, match="is no readable NPY file"):
        read_image(tmp_path / "a.npy")
    np.savez(tmp_path / "b.npz", a=np.ones(3))
    (tmp_path / "b.npz").rename(tmp_path / "b.npy")
    with pytest.raises(FileError, match="is an NPZ archive"):
        read_image(tmp_path / "b.npy")


def test_npy_that_claims_more_than_it_has(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((30, 40)))
    content = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(content.replace(b"(30, 40), }      ", b"(300000, 400000),"[:17] + b"}"))
    with pytest.raises(FileError, match="is no readable NPY file"):
        read_image(tmp_path / "a.npy")


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.npy"])
@pytest.mark.parametrize("n_bytes", [0, 5, 60, 300])
def test_truncated(tmp_path: Path, rng: np.random.Generator, name: str, n_bytes: int) -> None:
    write_image(tmp_path / name, rng.random((30, 30)).astype(np.float32))
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:n_bytes])
    with pytest.raises(FileError, match=f"{name}: is no readable"):
        read_image(tmp_path / name)


def test_damaged_pictures_are_file_errors(tmp_path: Path, rng: np.random.Generator) -> None:
    for name in ("a.png", "a.tif", "a.npy"):
        path = tmp_path / name
        write_image(path, rng.random((12, 12)).astype(np.float32))
        content = path.read_bytes()
        for _ in range(150):
            damaged = bytearray(content)
            start = int(rng.integers(0, len(content)))
            damaged[start : start + 3] = rng.bytes(3)
            path.write_bytes(damaged)
            try:
                read_image(path)
            except FileError:
                continue


def test_a_bomb(tmp_path: Path) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(bytes(60_000)))
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + data + chunk(b"IEND", b""))
    with pytest.raises(FileError, match="claims too many pixels"):
        read_image(tmp_path / "a.png")


def test_several_pages(tmp_path: Path) -> None:
    page = Image.new("L", (5, 4))
    page.save(tmp_path / "a.tif", save_all=True, append_images=[page])
    with pytest.raises(FileError, match="expected one image, got 2"):
        read_image(tmp_path / "a.tif")


def test_content_must_fit_the_name(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", np.ones((4, 4), np.float32))
    (tmp_path / "a.png").rename(tmp_path / "a.tif")
    with pytest.raises(FileError, match="is no readable TIFF image"):
        read_image(tmp_path / "a.tif")


def test_names(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"expected a file name ending in \.png, \.tif, \.tiff, \.npy, got '\.jpg'"):
        read_image(tmp_path / "a.jpg")
    with pytest.raises(FileError, match="does not exist"):
        read_image(tmp_path / "a.png")
    (tmp_path / "b.png").mkdir()
    with pytest.raises(FileError, match="is not a regular file"):
        read_image(tmp_path / "b.png")
    with pytest.raises(ValueError, match="path: expected a name ending in"):
        write_image(tmp_path / "a.jpg", np.ones((4, 4), np.float32))


@pytest.mark.parametrize(
    "bad", [np.ones((2, 2, 2)), np.ones((2, 2), np.uint8), np.full((2, 2), np.nan), np.ones((0, 2))]
)
def test_write_refuses(tmp_path: Path, bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="image: "):
        write_image(tmp_path / "a.png", bad)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.npy"])
def test_full_disk(tmp_path: Path, rng: np.random.Generator, small_disk: SmallDisk, name: str) -> None:
    write_image(tmp_path / name, np.ones((4, 4), np.float32))
    before = (tmp_path / name).read_bytes()
    with small_disk(1000), pytest.raises(FileError, match=f"{name}: cannot be written: File too large"):
        write_image(tmp_path / name, rng.random((100, 100)).astype(np.float32))
    assert (tmp_path / name).read_bytes() == before
