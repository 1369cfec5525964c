"""From raw data that other programs wrote to an archive: client, server, MRD images, DICOM, dciodvfy, storescu."""

import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import pydicom
import pytest
from clinic_files import DIRECTIONS, errors_of, tool
from pydicom.uid import MRImageStorage, SecondaryCaptureImageStorage

import mrisps
from mrisps.errors import FileError
from mrisps.server.client import send_file
from mrisps.server.listen import Times
from mrisps.server.session import Site

from .conftest import Running


def archived(files: tuple[Path, ...], folder: Path) -> set[str]:
    """Send DICOM files to a storescp on this machine; the UIDs of what arrived."""
    folder.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    archive = subprocess.Popen([tool("storescp"), "-od", folder, port], stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            done = subprocess.run(
                [tool("storescu"), "127.0.0.1", port, *map(str, files)], capture_output=True, timeout=60, check=False
            )
            if done.returncode == 0:
                break
            time.sleep(0.05)
    finally:
        archive.terminate()
        archive.wait(timeout=30)
    return {str(pydicom.dcmread(path).SOPInstanceUID) for path in folder.iterdir()}


def phantom(path: Path, *, n: int, coils: int, directions: str | None) -> Path:
    """The phantom of the C++ tools; they do not say where it lies, so that is written into it."""
    command = ["-m", n, "-c", coils, "-a", 2, "-w", 16, "-n", 0.005, "-C", "-o", path]
    program = tool("ismrmrd_generate_cartesian_shepp_logan")
    subprocess.run([program, *map(str, command)], capture_output=True, timeout=60, check=True)
    if directions is not None:
        with h5py.File(path, "r+") as file:
            records = file["dataset/data"][()]
            for name, value in zip(("read_dir", "phase_dir"), DIRECTIONS[directions], strict=True):
                records["head"][name] = value
            records["head"]["slice_dir"] = (0, 0, 1)
            file["dataset/data"][...] = records
    return path


@pytest.fixture
def multicoil(run_server: Callable[..., Running]) -> Running:
    """A server with a recipe of the package."""
    running = run_server(times=Times(300.0, 300.0, 600.0))
    running.server.site = Site(("multicoil",))
    return running


def test_phantom_of_the_cpp_tools(tmp_path: Path, multicoil: Running) -> None:
    source = phantom(tmp_path / "phantom.h5", n=32, coils=4, directions="axial")
    received = send_file(source, port=multicoil.server.port, config="multicoil", parameters={"parts": "all"})
    assert received.errors == []
    received.save(tmp_path / "images.mrd")
    with pytest.raises(FileError, match="PatientName"):
        mrisps.to_dicom(tmp_path / "images.mrd", tmp_path / "dicom")
    written = mrisps.to_dicom(tmp_path / "images.mrd", tmp_path / "dicom", anonymous=True, keep=True)
    files = [pydicom.dcmread(path) for path in written]
    assert {file.SOPClassUID for file in files} == {MRImageStorage}
    assert [errors_of(path) for path in written] == [[]] * len(written)
    assert files[0].ImageComments.startswith("mrisps: ")
    assert archived(written, tmp_path / "archive") == {str(file.SOPInstanceUID) for file in files}


def test_a_phantom_without_a_place(tmp_path: Path, multicoil: Running) -> None:
    source = phantom(tmp_path / "phantom.h5", n=32, coils=4, directions=None)
    received = send_file(source, port=multicoil.server.port, config="multicoil")
    received.save(tmp_path / "images.mrd")
    with pytest.raises(FileError, match="its place in the patient is unknown"):
        mrisps.to_dicom(tmp_path / "images.mrd", tmp_path / "dicom", anonymous=True)
    written = mrisps.to_dicom(tmp_path / "images.mrd", tmp_path / "dicom", anonymous=True, secondary_capture=True)
    assert {pydicom.dcmread(path).SOPClassUID for path in written} == {SecondaryCaptureImageStorage}
    assert [errors_of(path) for path in written] == [[]] * len(written)


@pytest.mark.slow
def test_phantom_of_a_scanner(tmp_path: Path, multicoil: Running, shared_data: Path) -> None:
    """14 coils, 3-fold undersampled, directions of a left-handed frame."""
    source = shared_data / "raw" / "ismrmrd_skyra_14ch_R3_phantom.h5"
    received = send_file(source, port=multicoil.server.port, parameters={"parts": "all", "pixels": "short"})
    assert received.errors == []
    received.save(tmp_path / "images.mrd")
    written = mrisps.to_dicom(tmp_path / "images.mrd", tmp_path / "dicom", anonymous=True)
    assert len(written) == 4
    assert [errors_of(path) for path in written] == [[]] * 4
    image = pydicom.dcmread(written[0])
    assert (image.Rows, image.Columns) == (144, 192)
    assert [float(value) for value in image.PixelSpacing] == pytest.approx([210 / 144, 280 / 192])
    assert image.ImageComments == "mrisps: good"
    assert len(archived(written, tmp_path / "archive")) == 4
