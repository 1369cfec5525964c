"""Images and their place in the patient: DICOM in, NIfTI and ISMRMRD images out."""

import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from raw_files import DICOM_SHAPE, N_COILS, N_X, N_Y, header, lines_of, normal, write_dicom, write_mrd

from mrisps.errors import FileError, MrispsError
from mrisps.io.acquisition import Geometry
from mrisps.io.dicom import read_dicom_series
from mrisps.io.image_volume import ImageVolume, geometries_of
from mrisps.io.ismrmrd_header import IsmrmrdHeader
from mrisps.io.ismrmrd_writer import write_ismrmrd_images
from mrisps.io.nifti import affine_of, write_nifti
from mrisps.io.open import open_kspace

SHAPE = DICOM_SHAPE
PIXELS = np.abs(normal((3, *SHAPE))).astype(np.float32)


def rotation() -> np.ndarray:
    """Columns: the directions of y, x and slice."""
    q, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))
    return np.asarray(q)


def geometry(index: int, axes: np.ndarray, spacing: float = 4.0) -> Geometry:
    y, x, through = (tuple(float(v) for v in axes[:, k]) for k in range(3))
    position = tuple(float(v) for v in np.array([5.0, -7.0, 11.0]) + index * spacing * axes[:, 2])
    return Geometry((200.0, 120.0, 3.0), position, y, x, through)  # type: ignore[arg-type]  # tuples of three


def volume(axes: np.ndarray, spacing: float = 4.0) -> ImageVolume:
    return ImageVolume(PIXELS, tuple(geometry(index, axes, spacing) for index in range(3)), Path("x"))


# NIfTI


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_nifti_has_every_voxel_where_it_was(tmp_path: Path, name: str) -> None:
    nibabel = pytest.importorskip("nibabel")
    axes = rotation()
    assert write_nifti(tmp_path / name, volume(axes)) == ()
    image = nibabel.load(tmp_path / name)
    np.testing.assert_array_equal(np.asarray(image.dataobj), PIXELS.transpose(1, 2, 0))
    assert image.header["sform_code"] == 1
    for i, j, k in ((0, 0, 0), (5, 4, 0), (9, 2, 2)):
        position = np.array([5.0, -7.0, 11.0]) + axes @ np.array([(i - 5) * 20.0, (j - 4) * 15.0, k * 4.0])
        ras = position * (-1, -1, 1)  # from left, back, head to right, front, head
        np.testing.assert_allclose((image.affine @ (i, j, k, 1))[:3], ras, atol=1e-3)
    np.testing.assert_allclose(image.header.get_qform(), image.affine, atol=1e-3)


def test_nifti_without_a_place(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    head = IsmrmrdHeader((20, 8, 1), (10, 8, 1), (400.0, 120.0, 3.0), (200.0, 120.0, 3.0))
    nowhere = ImageVolume(PIXELS.astype(np.complex64), (None,) * 3, Path("x"), head)
    (lost,) = write_nifti(tmp_path / "a.nii", nowhere)
    assert lost.startswith("position and orientation")
    image = nibabel.load(tmp_path / "a.nii")
    assert image.header["sform_code"] == 0
    np.testing.assert_allclose(image.header.get_zooms(), (20, 15, 3))
    assert image.get_data_dtype() == np.complex64
    assert len(write_nifti(tmp_path / "b.nii", replace(nowhere, header=None))) == 2
    with pytest.raises(FileError, match=r"expected a name ending in \.nii"):
        write_nifti(tmp_path / "a.img", nowhere)


def test_slices_that_are_no_stack_have_no_affine() -> None:
    axes = np.eye(3)
    stack = [geometry(index, axes) for index in range(3)]
    assert affine_of(stack, SHAPE) is not None
    assert affine_of(stack[:1], SHAPE) is not None
    for changed in (
        replace(stack[2], position_mm=(5.0, -7.0, 99.0)),
        replace(stack[2], y_direction=(0.0, 1.0, 0.0), x_direction=(1.0, 0.0, 0.0)),
        replace(stack[2], field_of_view_mm=(100.0, 120.0, 3.0)),
    ):
        assert affine_of([*stack[:2], changed], SHAPE) is None
    assert affine_of([stack[0], stack[0]], SHAPE) is None
    assert affine_of([stack[0], None], SHAPE) is None


def test_without_the_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("nibabel", "pydicom"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MrispsError, match=r"pip install 'mrisps\[nifti\]'"):
        write_nifti(tmp_path / "a.nii", volume(np.eye(3)))
    (tmp_path / "a.dcm").write_bytes(b"x")
    with pytest.raises(MrispsError, match=r"pip install 'mrisps\[dicom\]'"):
        read_dicom_series(tmp_path)


def test_the_place_of_the_raw_file(tmp_path: Path) -> None:
    lines = [
        line
        for index in range(2)
        for line in lines_of(normal((N_COILS, N_Y, N_X)), range(N_X), slice=index, head={"position": (0, 0, index)})
    ]
    with open_kspace(write_mrd(tmp_path / "a.mrd", lines, header())) as raw:
        places = geometries_of(raw, (N_Y // 2, N_X), 2)  # the central half of the rows
        assert [place.field_of_view_mm for place in places if place is not None] == [(200, 150, 5)] * 2
        with pytest.raises(FileError, match="slice: has 2 slices, the images are 3"):
            geometries_of(raw, SHAPE, 3)


# ISMRMRD images


@pytest.mark.parametrize("kind", [np.float32, np.complex64])
def test_ismrmrd_images(tmp_path: Path, kind: type) -> None:
    import ismrmrd

    places = [geometry(index, rotation()) for index in range(3)]
    write_ismrmrd_images(tmp_path / "a.mrd", PIXELS.astype(kind), places, IsmrmrdHeader.for_shape(SHAPE))
    with ismrmrd.File(tmp_path / "a.mrd", "r") as file:
        images = file["dataset"]["image_0"].images
        assert len(images) == 3
        with h5py.File(tmp_path / "a.mrd") as raw:
            data = raw["dataset/image_0/data"][...]
            head = raw["dataset/image_0/header"][...]
        values = data["real"] + 1j * data["imag"] if data.dtype.names else data
        np.testing.assert_array_equal(values[:, 0, 0].transpose(0, 2, 1), PIXELS)
        assert head["matrix_size"].tolist() == [[10, 8, 1]] * 3  # x of ISMRMRD is the readout
        np.testing.assert_allclose(head["position"][2], places[2].position_mm, rtol=1e-6)
        np.testing.assert_allclose(head["field_of_view"][0], (200, 120, 3))
    with pytest.raises(FileError, match="NaN or infinite"):
        write_ismrmrd_images(tmp_path / "b.mrd", PIXELS * np.float32(np.nan), places)
    with pytest.raises(ValueError, match="as many geometries"):
        write_ismrmrd_images(tmp_path / "b.mrd", PIXELS, places[:1])
    assert not (tmp_path / "b.mrd").exists()


# DICOM


@pytest.fixture
def series(tmp_path: Path) -> Path:
    pytest.importorskip("pydicom")
    folder = tmp_path / "dicom"
    folder.mkdir()
    for name, index in (("c", 0), ("a", 1), ("b", 2)):
        write_dicom(folder / f"{name}.dcm", index)
    (folder / "readme.txt").write_text("no image")
    return folder


def test_dicom_series(series: Path) -> None:
    read = read_dicom_series(series)
    first = np.arange(80, dtype=np.float32).reshape(SHAPE) * 2 - 10
    # the slice direction is x cross y = (-1, 0, 0): the slices come in the order of their index
    np.testing.assert_array_equal(read.pixels, np.stack([first, first + 200, first + 400]))
    place = read.geometries[0]
    assert place is not None
    assert place.field_of_view_mm == (20, 12, 3)
    assert place.x_direction == (0, 1, 0)
    assert place.y_direction == (0, 0, -1)
    assert place.position_mm == (0, 20 + 1.5 * 4, 30 - 2 * 5)  # pixel [5, 4]
    affine = affine_of(read.geometries, SHAPE)
    assert affine is not None
    np.testing.assert_allclose(affine @ (0, 0, 0, 1), (0, -20, 30, 1), atol=1e-9)  # the first pixel, in RAS
    np.testing.assert_allclose(affine @ (0, 0, 2, 1), (8, -20, 30, 1), atol=1e-9)
    single = read_dicom_series(series / "a.dcm")
    np.testing.assert_array_equal(single.pixels[0], first + 200)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ImagePositionPatient": [-4, 20, 30]}, "ImagePositionPatient: is at the position of another image"),
        ({"ImagePositionPatient": None}, "ImagePositionPatient: expected 3 numbers, got 0"),
        (
            {"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]},
            "ImageOrientationPatient: the directions are not orthonormal",
        ),
        (
            {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]},
            "ImageOrientationPatient: is not parallel to the first image",
        ),
        ({"NumberOfFrames": 2}, "PixelData: expected one grey frame, got 2 of MONOCHROME2"),
        ({"PhotometricInterpretation": "RGB"}, "PixelData: expected one grey frame, got 1 of RGB"),
        ({"Rows": 5}, "Rows: has (Rows, Columns) (5, 8), the first image (10, 8)"),
        ({"PixelData": b"\0" * 10}, "PixelData: cannot be read"),
        ({"RescaleSlope": None, "RescaleIntercept": None}, None),
    ],
)
def test_bad_dicom(series: Path, changes: dict[str, object], message: str | None) -> None:
    changes = {**changes, **({"PixelData": bytes(80)} if changes.get("Rows") == 5 else {})}
    write_dicom(series / "z.dcm", 3, **changes)
    if message is None:
        assert read_dicom_series(series).pixels[3, 0, 0] == 300
        return
    with pytest.raises(FileError) as caught:
        read_dicom_series(series)
    assert message in str(caught.value)


def test_two_series_and_none(series: Path, tmp_path: Path) -> None:
    write_dicom(series / "z.dcm", 3, series="1.2.4")
    with pytest.raises(FileError, match=r"SeriesInstanceUID: expected one series, has 2: 1\.2\.3, 1\.2\.4"):
        read_dicom_series(series)
    assert len(read_dicom_series(series, "1.2.4").pixels) == 1
    with pytest.raises(FileError, match=r"has no series 9; it has"):
        read_dicom_series(series, "9")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileError, match="has no DICOM files"):
        read_dicom_series(tmp_path / "empty")
    with pytest.raises(FileError, match="is no DICOM file"):
        read_dicom_series(series / "readme.txt")


def test_truncated_dicom(series: Path, rng: np.random.Generator) -> None:
    content = (series / "a.dcm").read_bytes()
    for n in rng.integers(1, len(content), size=40):
        (series / "a.dcm").write_bytes(content[:n])
        with pytest.raises(FileError):
            read_dicom_series(series / "a.dcm")


def test_real_series(shared_data: Path) -> None:
    pytest.importorskip("pydicom")
    read = read_dicom_series(shared_data / "dicom_t1_brain")
    assert read.pixels.shape == (37, 384, 274)
    affine = affine_of(read.geometries, (384, 274))
    assert affine is not None
    np.testing.assert_allclose(np.linalg.norm(affine[:3, :3], axis=0), (0.6667, 0.7, 3.333), rtol=1e-3)
