"""K-space in plain arrays."""

import gc
from pathlib import Path

import h5py
import numpy as np
import pytest
from raw_files import normal
from scipy.io import savemat

from mrisps.errors import FileError
from mrisps.io.arrays import ArrayFile, ArrayLayout, centered
from mrisps.io.open import open_kspace

KSPACE = normal((2, 3, 10, 8))  # (slice, coil, y, x)
LAYOUT = ArrayLayout.parse("slice, coil, y, x")


def write_mat73(path: Path, values: np.ndarray) -> None:
    """As MATLAB does: transposed, complex as a record, 512 bytes before the file."""
    with h5py.File(path, "w", userblock_size=512) as file:
        records = np.empty(values.T.shape, [("real", "<f4"), ("imag", "<f4")])
        records["real"], records["imag"] = values.T.real, values.T.imag
        file["k"] = records
    with path.open("r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file".ljust(116) + bytes(8) + b"\x00\x02IM")


@pytest.mark.parametrize("kind", ["npy", "npz", "mat", "mat73"])
def test_every_kind_of_file(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.{kind[:3]}"
    if kind == "npy":
        np.save(path, KSPACE)
    elif kind == "npz":
        np.savez_compressed(path, k=KSPACE)
    elif kind == "mat":
        savemat(path, {"k": KSPACE})
    else:
        write_mat73(path, KSPACE)
    with open_kspace(path, LAYOUT) as file:
        assert (file.n_slices, file.n_coils, file.shape) == (2, 3, (10, 8))
        for index, record in enumerate(file.slices()):
            np.testing.assert_array_equal(record.kspace, KSPACE[index])
            assert record.labels["slice"] == index
    with pytest.raises(FileError, match="is closed"):
        file.read_slice(0)


def test_axes_in_any_order(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", KSPACE.transpose(3, 1, 0, 2))
    np.testing.assert_array_equal(
        ArrayFile(tmp_path / "a.npy", ArrayLayout.parse("x,coil,slice,y")).read_slice(1).kspace, KSPACE[1]
    )
    np.save(tmp_path / "b.npy", KSPACE[0, 0].T)
    np.testing.assert_array_equal(
        ArrayFile(tmp_path / "b.npy", ArrayLayout.parse("x,y")).read_slice(0).kspace, KSPACE[0, :1]
    )


def test_stated_beside_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, other=np.zeros(2), k=KSPACE[0])
    with pytest.raises(
        FileError, match=r"a\.npz: axes: what the axes are is not stated: give --axes, or write it to a\.npz\.toml"
    ):
        open_kspace(path)
    sidecar = tmp_path / "a.npz.toml"
    sidecar.write_text('axes = "coil,y,x"\nvariable = "k"\n')
    np.testing.assert_array_equal(open_kspace(path).read_slice(0).kspace, KSPACE[0])
    for text, message in (
        ('axes = "coil,y"', "axes: .*expected y, x and others"),
        ('axes = "y,x"\ncentred = 1', "centred: expected True or False, got 1"),
        ('axis = "y,x"', "axis: unknown key; known here: axes, centred, variable"),
        ("centred = true", "axes: is missing"),
        ("=", "is no readable TOML"),
        ('axes = "coil,y,x"', r"a\.npz: variable: expected one array, the file has: other, k"),
    ):
        sidecar.write_text(text)
        with pytest.raises(FileError, match=message):
            open_kspace(path)


@pytest.mark.parametrize("shape", [(8, 6), (7, 5), (8, 5)])
def test_uncentred(tmp_path: Path, shape: tuple[int, int]) -> None:
    """The image of k-space with the zero frequency in the corner is the same array."""
    image = normal(shape).astype(np.complex128)
    np.save(tmp_path / "a.npy", np.fft.fft2(image))
    record = ArrayFile(tmp_path / "a.npy", ArrayLayout.parse("y,x", centred=False)).read_slice(0)
    back = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(record.kspace[0])))
    np.testing.assert_allclose(back, image, atol=1e-6)
    np.testing.assert_array_equal(centered(np.zeros(shape, np.complex64)), 0)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones((2, 3, 4)), "array: expected complex numbers, got float64"),
        (np.ones((3, 4), complex), r"axes: expected coil,y,x, got an array of shape \(3, 4\)"),
        (np.ones((0, 3, 4), complex), "axes: expected coil,y,x"),
        (np.array([[[1, 1e300]]], complex), "kspace: 1 of 2 samples are NaN or infinite"),
        (np.zeros((1, 3, 4), complex), "kspace: every sample is zero"),
    ],
)
def test_bad_arrays(tmp_path: Path, array: np.ndarray, message: str) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(FileError, match=message):
        ArrayFile(tmp_path / "a.npy", ArrayLayout.parse("coil,y,x")).read_slice(0)


def test_python_objects_are_refused(tmp_path: Path) -> None:
    layout = ArrayLayout.parse("y,x", variable="k")
    hostile = np.array([[{"a": 1}]], dtype=object)
    np.save(tmp_path / "a.npy", hostile, allow_pickle=True)
    np.savez(tmp_path / "a.npz", k=hostile)
    savemat(tmp_path / "a.mat", {"k": {"field": 1}})
    for kind in ("npy", "npz", "mat"):
        with pytest.raises(FileError, match=rf"a\.{kind}"):
            ArrayFile(tmp_path / f"a.{kind}", layout)


def test_a_damaged_archive_is_closed(tmp_path: Path) -> None:
    """A file that begins like a ZIP archive and is none."""
    (tmp_path / "a.npy").write_bytes(b"PK\x03\x04" + bytes(200))
    with pytest.raises(FileError, match=r"a\.npy: is no readable NPY file"):
        ArrayFile(tmp_path / "a.npy", ArrayLayout.parse("coil,y,x"))
    gc.collect()  # a file that is still open is a ResourceWarning, and that an error


def test_a_header_that_claims_more_than_there_is(tmp_path: Path) -> None:
    import io
    import zipfile

    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<c8", "fortran_order": False, "shape": (1 << 20, 1 << 14)})
    (tmp_path / "a.npy").write_bytes(stream.getvalue())
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("k.npy", stream.getvalue())
    for kind in ("npy", "npz"):
        with pytest.raises(FileError, match=rf"a\.{kind}"):
            ArrayFile(tmp_path / f"a.{kind}", ArrayLayout.parse("y,x"))


@pytest.mark.parametrize("axes", ["y", "y,y,x", "y,x,z", "coil,y,x,"])
def test_wrong_axes(axes: str) -> None:
    with pytest.raises(ValueError, match="axes: expected y, x and others of"):
        ArrayLayout.parse(axes)
