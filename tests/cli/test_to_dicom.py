"""`mrisps to-dicom` and `mrisps recon --dicom`."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from clinic_files import clinical_header, errors_of, geometry_of, write_result
from numpy.typing import NDArray
from raw_files import lines_of, write_mrd

from .helpers import SHAPE, Cli, to_kspace


@pytest.fixture
def raw(tmp_path: Path, image: NDArray[np.float32]) -> Path:
    head = clinical_header(
        encoded_matrix=(*SHAPE, 1), recon_matrix=(*SHAPE, 1), line_limits=(0, SHAPE[1] - 1, 12), n_coils=1
    )
    return write_mrd(tmp_path / "raw.h5", lines_of(to_kspace(image)[np.newaxis], range(SHAPE[1])), head)


def test_recon_writes_dicom(cli: Cli, tmp_path: Path, raw: Path, recipe: Path, weights: Path) -> None:
    options = ("--recipe", recipe, "--weights", weights, "--output", tmp_path / "out", "--dicom", tmp_path / "dicom")
    assert cli("recon", raw, *options) == 0, cli.stderr
    assert f"{tmp_path}/dicom/raw/reconstruction: 1 image\n" in cli.stdout
    path = tmp_path / "dicom" / "raw" / "reconstruction" / "0001.dcm"
    assert str(pydicom.dcmread(path).PatientName) == "Doe^Jane"
    assert errors_of(path) == []
    assert cli("to-dicom", tmp_path / "out" / "raw.h5", tmp_path / "again") == 0
    assert (tmp_path / "again" / "reconstruction" / "0001.dcm").read_bytes() == path.read_bytes()


def test_an_unknown_patient_is_found_before_the_work(
    cli: Cli, tmp_path: Path, knee: Path, recipe: Path, weights: Path
) -> None:
    options = ("--recipe", recipe, "--weights", weights, "--output", tmp_path / "out", "--dicom", tmp_path / "dicom")
    assert cli("recon", knee, *options) == 1
    assert "PatientName and PatientID: unknown" in cli.error()
    assert list((tmp_path / "out").iterdir()) == []
    assert cli("recon", knee, *options[:-2], "--anonymous") == 2
    assert "--reference, --anonymous: need --dicom, too" in cli.error()


def test_usage(cli: Cli, tmp_path: Path) -> None:
    source = write_result(tmp_path / "r.h5", [geometry_of("axial")], level="unusable")
    assert cli("to-dicom", tmp_path / "none.h5", tmp_path / "out") == 2
    assert "none.h5: does not exist" in cli.error()
    assert cli("to-dicom", source, tmp_path / "out", "--mark", "all") == 2
    assert "--mark: expected one of unusable, check, none, got 'all'" in cli.error()
    assert cli("to-dicom", source, tmp_path / "out") == 1
    assert "unusable: a test says so" in cli.error()
    assert cli("to-dicom", source, tmp_path / "out", "--keep", "--anonymous", "--secondary-capture") == 0
    assert len(cli.stdout.splitlines()) == 4
    assert cli("to-dicom", source, tmp_path / "out", "--keep") == 1
    assert "has DICOM files already" in cli.error()
