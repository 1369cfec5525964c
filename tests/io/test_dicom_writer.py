"""DICOM files: where the pixels lie, who they are of, what is said about them, and that other programs read them."""

import subprocess
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from clinic_files import (
    DIRECTIONS,
    NAME,
    OBLIQUE,
    PATIENT,
    clinical_header,
    errors_of,
    geometry_of,
    spots,
    tool,
    write_result,
)
from pydicom.uid import MRImageStorage, SecondaryCaptureImageStorage

import mrisps
from mrisps.errors import FileError, MrispsError
from mrisps.io.acquisition import triple
from mrisps.io.burn_in import burn_in
from mrisps.io.dicom import read_dicom_series
from mrisps.io.dicom_plane import placed
from mrisps.io.dicom_writer import MARKS

KINDS = ("reconstruction", "smooth", "sparse", "cost_map")


@pytest.mark.parametrize("shape", [(24, 16), (23, 15), (24, 15)])
@pytest.mark.parametrize("name", DIRECTIONS)
def test_every_pixel_is_where_it_was(tmp_path: Path, name: str, shape: tuple[int, int]) -> None:
    """The spots of the phantom, found in the file by their brightness, computed by DICOM's own equation (C.7.6.2.1-1)."""
    geometry = geometry_of(name)
    (path, *_) = mrisps.to_dicom(write_result(tmp_path / "r.h5", [geometry], shape=shape), tmp_path / "out")
    file = pydicom.dcmread(path)
    first = np.array(file.ImagePositionPatient, float)
    right, down = np.array(file.ImageOrientationPatient, float).reshape(2, 3)
    between_rows, between_columns = map(float, file.PixelSpacing)
    pixels = file.pixel_array * float(file.RescaleSlope)
    steps = np.array(geometry.field_of_view_mm[:2]) / shape
    expected = {
        10_000: np.array(geometry.position_mm),
        7_000: np.array(geometry.position_mm) + 3 * steps[0] * np.array(geometry.y_direction),
        5_000: np.array(geometry.position_mm) + 2 * steps[1] * np.array(geometry.x_direction),
    }
    for value, place in expected.items():
        row, column = np.argwhere(np.isclose(pixels, value, rtol=1e-3))[0]
        found = first + row * between_rows * down + column * between_columns * right
        np.testing.assert_allclose(found, place, atol=1e-4)


@pytest.mark.parametrize("name", DIRECTIONS)
def test_displayed_as_viewers_expect(name: str) -> None:
    shown = placed(spots(), geometry_of(name))
    normal = np.cross(shown.right, shown.down)
    plane = int(np.abs(normal).argmax())
    right, down = {0: ((0, 1, 0), (0, 0, -1)), 1: ((1, 0, 0), (0, 0, -1)), 2: ((1, 0, 0), (0, 1, 0))}[plane]
    assert shown.right @ np.array(right) > 0.5
    assert shown.down @ np.array(down) > 0.5


@pytest.mark.parametrize("name", DIRECTIONS)
def test_what_our_reader_reads_back(tmp_path: Path, name: str) -> None:
    source = write_result(tmp_path / "r.h5", [geometry_of(name, offset) for offset in (0.0, 6.0, 12.0)])
    mrisps.to_dicom(source, tmp_path / "out")
    volume = read_dicom_series(tmp_path / "out" / "reconstruction")
    assert len(volume.pixels) == 3
    through = np.array(geometry_of(name).slice_direction)
    places = sorted(float(through @ np.array(g.position_mm)) for g in volume.geometries if g is not None)
    assert np.diff(places) == pytest.approx([6, 6], abs=1e-3)
    assert float(volume.pixels.max()) == pytest.approx(10_000, rel=1e-4)


def test_no_place_is_invented(tmp_path: Path) -> None:
    skewed = replace(geometry_of("axial"), x_direction=(0.2, 0.97, 0.0))
    unknown = replace(geometry_of("axial"), field_of_view_mm=(0.0, 0.0, 5.0))
    for bad, why in (
        (None, "is unknown"),
        (skewed, "not orthonormal"),
        (unknown, "position or field of view are unknown"),
    ):
        source = write_result(tmp_path / "r.h5", [geometry_of("axial"), bad])
        with pytest.raises(FileError, match=f"image 1 of reconstruction.*{why}"):
            mrisps.to_dicom(source, tmp_path / "out")
        assert not (tmp_path / "out").exists()
        first, *_ = mrisps.to_dicom(source, tmp_path / "capture", secondary_capture=True, overwrite=True)
        file = pydicom.dcmread(first)
        assert file.SOPClassUID == SecondaryCaptureImageStorage
        assert not {"ImagePositionPatient", "ImageOrientationPatient", "FrameOfReferenceUID"} & set(file.dir())
        assert errors_of(first) == []


def test_left_handed_slice_directions_do_not_matter() -> None:
    right_handed = geometry_of("oblique")
    left = replace(right_handed, slice_direction=triple(-np.array(right_handed.slice_direction)))
    for one, other in zip(
        vars(placed(spots(), left)).values(), vars(placed(spots(), right_handed)).values(), strict=True
    ):
        np.testing.assert_array_equal(one, other)


# ------------------------------------------------------------------------------------------------------------- identity


def test_identity_uids_and_what_is_said(tmp_path: Path) -> None:
    source = write_result(tmp_path / "r.h5", [geometry_of("axial"), geometry_of("axial", 6)], level="check")
    written = mrisps.to_dicom(source, tmp_path / "out")
    assert [path.relative_to(tmp_path / "out").as_posix() for path in written] == [
        f"{kind}/000{i}.dcm" for kind in KINDS for i in (1, 2)
    ]
    files = [pydicom.dcmread(path) for path in written]
    assert {str(file.PatientName) for file in files} == {NAME}
    assert {(file.PatientID, file.PatientBirthDate, file.PatientSex) for file in files} == {(PATIENT, "19800229", "F")}
    assert {(file.StudyInstanceUID, file.FrameOfReferenceUID) for file in files} == {
        ("1.2.826.0.1.3680043.9.1", "1.2.826.0.1.3680043.9.2")
    }
    assert len({file.SeriesInstanceUID for file in files}) == len(KINDS)
    assert len({file.SOPInstanceUID for file in files}) == len(files)
    assert all(file.SOPInstanceUID.is_valid and file.SOPClassUID == MRImageStorage for file in files)
    assert {float(file.RepetitionTime) for file in files} == {219.639999}
    assert {file.MRAcquisitionType for file in files} == {"2D"}
    for kind in KINDS:  # one rescale and one window a series
        of_kind = [file for file in files if file.SeriesDescription == f"gre mrisps {kind.replace('_', ' ')}"]
        assert len(of_kind) == 2
        assert len({(f.RescaleSlope, f.RescaleIntercept, f.WindowCenter, f.WindowWidth) for f in of_kind}) == 1
    image, part = files[0], files[5]
    assert image.ImageType[:2] == ["ORIGINAL", "PRIMARY"]
    assert part.ImageType[:2] == ["DERIVED", "PRIMARY"]
    assert part.SourceImageSequence[0].ReferencedSOPInstanceUID == files[1].SOPInstanceUID
    assert "sparse part" in part.DerivationDescription
    assert "multicoil (sha256 abab" in part.DerivationDescription
    assert image.ImageComments == "mrisps: check: a test says so"
    equipment = image.ContributingEquipmentSequence[0]
    assert (equipment.Manufacturer, equipment.SoftwareVersions) == ("mrisps", "0.1.0")
    block = image.private_block(0x7731, "MRISPS 1")
    assert block[0x01].value == "check"
    assert '"a test says so"' in block[0x03].value
    signed = files[4]
    assert (signed.PixelRepresentation, image.PixelRepresentation) == (1, 0)
    assert float((signed.pixel_array * float(signed.RescaleSlope)).min()) == pytest.approx(-1000, rel=1e-3)
    again = mrisps.to_dicom(source, tmp_path / "again")
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in written]


def test_missing_identity_is_refused(tmp_path: Path) -> None:
    head = clinical_header(patient_id=None, texts={})
    source = write_result(tmp_path / "r.h5", [geometry_of("axial")], head=head)
    with pytest.raises(FileError, match="PatientName and PatientID: unknown"):
        mrisps.to_dicom(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(FileError, match=r"DICOM identity: PatientName: unknown"):
        mrisps.to_dicom(
            write_result(tmp_path / "r.h5", [geometry_of("axial")], head=clinical_header(texts={})), tmp_path / "out"
        )


def test_anonymous_files_do_not_say_who(tmp_path: Path) -> None:
    source = write_result(tmp_path / "r.h5", [geometry_of("axial")])
    for path in mrisps.to_dicom(source, tmp_path / "out", anonymous=True):
        content = path.read_bytes()
        for secret in (NAME, "Doe", PATIENT, "St Elsewhere", "1980", "20240517", "2024-05-17", "3680043.9"):
            assert secret.encode() not in content, secret
        file = pydicom.dcmread(path)
        assert (str(file.PatientName), file.PatientIdentityRemoved) == ("ANONYMOUS", "YES")
        assert errors_of(path) == []


def test_reference_gives_patient_and_study(tmp_path: Path) -> None:
    head = clinical_header(patient_id=None, texts={})
    source = write_result(tmp_path / "r.h5", [geometry_of("sagittal")], head=head)
    given = pydicom.Dataset()
    given.file_meta = pydicom.dataset.FileMetaDataset()
    given.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    given.file_meta.MediaStorageSOPClassUID = given.SOPClassUID = MRImageStorage
    given.file_meta.MediaStorageSOPInstanceUID = given.SOPInstanceUID = "1.2.3"
    given.PatientName, given.PatientID, given.StudyInstanceUID = "Roe^Richard", "77", "1.2.9"
    given.FrameOfReferenceUID, given.EchoTime, given.ScanningSequence = "1.2.10", "4.5", "GR"
    with pytest.warns(UserWarning, match="Invalid value"):
        given.PatientAge = "42"  # no age that DICOM allows
    given.save_as(tmp_path / "reference.dcm", enforce_file_format=True)
    (path, *_) = mrisps.to_dicom(source, tmp_path / "out", reference=tmp_path / "reference.dcm")
    file = pydicom.dcmread(path)
    assert (str(file.PatientName), file.PatientID, file.StudyInstanceUID) == ("Roe^Richard", "77", "1.2.9")
    assert (file.FrameOfReferenceUID, float(file.EchoTime), file.ScanningSequence) == ("1.2.10", 4.5, "GR")
    assert "PatientAge" not in file
    assert errors_of(path) == []
    other = write_result(tmp_path / "other.h5", [geometry_of("sagittal")])
    with pytest.raises(FileError, match=r"PatientID: the reference .* is of another patient"):
        mrisps.to_dicom(other, tmp_path / "other", reference=tmp_path / "reference.dcm")
    (tmp_path / "reference.dcm").write_bytes(b"no DICOM")
    with pytest.raises(FileError, match=r"reference\.dcm: is no readable DICOM file"):
        mrisps.to_dicom(source, tmp_path / "third", reference=tmp_path / "reference.dcm")


def test_reference_of_a_real_exam(tmp_path: Path, shared_data: Path) -> None:
    head = clinical_header(patient_id=None, texts={})
    source = write_result(tmp_path / "r.h5", [geometry_of("axial")], head=head)
    (path, *_) = mrisps.to_dicom(source, tmp_path / "out", reference=shared_data / "dicom_t1_brain" / "N2D_0100.dcm")
    assert str(pydicom.dcmread(path).PatientName) == "Jane_Doe"
    assert errors_of(path) == []


# -------------------------------------------------------------------------------------------------------------- verdict


def test_unusable_is_refused_or_marked(tmp_path: Path) -> None:
    source = write_result(tmp_path / "r.h5", [geometry_of("axial")], level="unusable")
    with pytest.raises(MrispsError, match="image 0 is not written: mrisps: unusable: a test says so"):
        mrisps.to_dicom(source, tmp_path / "out")
    marked = pydicom.dcmread(mrisps.to_dicom(source, tmp_path / "out", keep=True)[0])
    plain = pydicom.dcmread(mrisps.to_dicom(source, tmp_path / "plain", keep=True, mark="none")[0])
    assert marked.pixel_array[:3].max() == 65535
    assert plain.pixel_array[:3].max() == 0
    np.testing.assert_array_equal(marked.pixel_array[8:], plain.pixel_array[8:])
    assert marked.ImageComments.startswith("mrisps: unusable")
    checked = write_result(tmp_path / "c.h5", [geometry_of("axial")], level="check")
    assert pydicom.dcmread(mrisps.to_dicom(checked, tmp_path / "c")[0]).pixel_array[:3].max() == 0
    assert pydicom.dcmread(mrisps.to_dicom(checked, tmp_path / "d", mark="check")[0]).pixel_array[:3].max() == 65535
    with pytest.raises(ValueError, match="mark: expected one of unusable, check, none"):
        mrisps.to_dicom(checked, tmp_path / "e", mark="all")  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(256, 256), (24, 16), (2, 3), (300, 40)])
def test_burnt_in_line(shape: tuple[int, int]) -> None:
    image = np.full(shape, 0.5, np.float32)
    marked = burn_in(image, MARKS["unusable"], 0.0, 1.0)
    changed = np.flatnonzero((marked != image).any(axis=1))
    assert changed[0] == 0
    assert len(changed) <= max(3, 0.12 * shape[1])
    assert (image == 0.5).all()
    if shape[1] >= 24:
        letters = marked[changed] == 1.0
        assert 0.05 < letters.mean() < 0.7


def test_small_values_are_multiplied(tmp_path: Path) -> None:
    """By one power of ten for image and parts: DICOM has no windows below 1."""
    source = write_result(tmp_path / "r.h5", [geometry_of("axial")], scale=1e-6)
    written = mrisps.to_dicom(source, tmp_path / "out")
    image, smooth, *_ = files = [pydicom.dcmread(path) for path in written]
    assert [errors_of(path) for path in written] == [[]] * 4
    assert all(float(file.WindowWidth) >= 1 for file in files)
    assert "Pixel values are 1e+06 times those in the unit of the raw data" in image.DerivationDescription
    assert float(image.pixel_array.max() * image.RescaleSlope) == pytest.approx(10_000, rel=1e-4)
    assert float(smooth.pixel_array.max() * smooth.RescaleSlope) == pytest.approx(5_000, rel=1e-4)


def test_files_that_are_there(tmp_path: Path) -> None:
    source = write_result(tmp_path / "r.h5", [geometry_of("axial", 6 * i) for i in range(3)])
    mrisps.to_dicom(source, tmp_path / "out")
    (tmp_path / "out" / "reconstruction" / "notes.txt").write_text("mine")
    shorter = write_result(tmp_path / "s.h5", [geometry_of("axial")])
    with pytest.raises(FileError, match="has DICOM files already"):
        mrisps.to_dicom(shorter, tmp_path / "out")
    mrisps.to_dicom(shorter, tmp_path / "out", overwrite=True)
    assert sorted(path.name for path in (tmp_path / "out" / "reconstruction").iterdir()) == ["0001.dcm", "notes.txt"]


# ------------------------------------------------------------------------------------------------------- other programs


@pytest.mark.parametrize("name", DIRECTIONS)
def test_dciodvfy_finds_no_error(tmp_path: Path, name: str) -> None:
    source = write_result(tmp_path / "r.h5", [geometry_of(name, 6.0 * i) for i in range(2)])
    written = mrisps.to_dicom(source, tmp_path / "out")
    assert {path.name: errors_of(path) for path in written} == {"0001.dcm": [], "0002.dcm": []}
    assert [line for path in written for line in errors_of(path)] == []


def test_dcmdump_reads_the_files(tmp_path: Path) -> None:
    (path, *_) = mrisps.to_dicom(write_result(tmp_path / "r.h5", [geometry_of("oblique")]), tmp_path / "out")
    done = subprocess.run([tool("dcmdump"), path], capture_output=True, text=True, timeout=60, check=True)
    assert "=MRImageStorage" in done.stdout
    assert f"[{NAME}]" in done.stdout


def test_sent_to_an_archive(tmp_path: Path) -> None:
    """storescu to a storescp on this machine: what arrives is what was sent."""
    import socket

    written = mrisps.to_dicom(write_result(tmp_path / "r.h5", [geometry_of("axial")]), tmp_path / "out")
    archive = tmp_path / "archive"
    archive.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    send = [tool("storescu"), "127.0.0.1", port, *map(str, written)]
    server = subprocess.Popen([tool("storescp"), "-od", archive, port], stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            if subprocess.run(send, capture_output=True, timeout=60, check=False).returncode == 0:
                break
            time.sleep(0.05)
    finally:
        server.terminate()
        server.wait(timeout=30)
    received = {pydicom.dcmread(path).SOPInstanceUID: pydicom.dcmread(path) for path in archive.iterdir()}
    sent = [pydicom.dcmread(path) for path in written]
    assert set(received) == {file.SOPInstanceUID for file in sent}
    assert all(received[file.SOPInstanceUID].PixelData == file.PixelData for file in sent)


def test_oblique_fixture_is_a_rotation() -> None:
    np.testing.assert_allclose(OBLIQUE @ OBLIQUE.T, np.eye(3), atol=1e-12)
