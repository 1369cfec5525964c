"""`mrisps info`."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from raw_files import CALIBRATION, N_COILS, N_X, N_Y, NOISE, RawLine, header, lines_of, normal, write_mrd

from mrisps.io.images import write_image
from mrisps.sampling import make_mask

from .helpers import Cli


def test_kspace(cli: Cli, knee: Path) -> None:
    with h5py.File(knee, "r+") as file:
        file.attrs["patient_id"] = "\x1b[31mred"
    assert cli("info", knee) == 0
    lines = dict(line.split(maxsplit=1) for line in cli.stdout.splitlines() if not line.startswith(" "))
    assert lines["content"] == "k-space in fastMRI's layout"
    assert lines["slices"] == "2"
    assert lines["coils"] == "1"
    assert lines["matrix"] == "32 x 24 (y: readout, x: phase encoding), complex64"
    assert lines["sampling"] == (
        "10 of 24 columns are acquired (mask in the file), 4 of them around the centre: acceleration 2.40"
    )
    assert "kspace: (2, 32, 24) complex64" in cli.stdout
    assert "20 x 20 is what the header asks for" in cli.stdout
    assert "patient_id: \\x1b[31mred" in cli.stdout
    assert cli("info", knee, "--json") == 0
    facts = json.loads(cli.stdout)
    assert facts["slices"] == 2
    assert facts["attributes"]["patient_id"] == "\x1b[31mred"


def test_our_output(cli: Cli, knee: Path, recipe: Path, weights: Path, tmp_path: Path) -> None:
    options = ("--weights", weights, "--output", tmp_path / "out", "--set", "solver.max_iterations=2")
    assert cli("recon", knee, "--recipe", recipe, *options) == 1
    path = tmp_path / "out" / "knee.h5"
    assert cli("info", path) == 0
    assert "reconstruction in fastMRI's layout" in cli.stdout
    assert "name small_mri, beta 0.02, lam 0.01" in cli.stdout
    assert "slice 1: NOT CONVERGED (max_iter), 2 iterations" in cli.stdout
    with h5py.File(path, "r+") as file:  # a damaged one says less, but does not fail
        file.attrs["certificate"] = "[[["
        file.attrs["provenance"] = '{"recipe": 3}'
    assert cli("info", path) == 0
    assert "NOT CONVERGED" not in cli.stdout


def test_weights(cli: Cli, weights: Path) -> None:
    assert cli("info", weights, "--json") == 0
    facts = json.loads(cli.stdout)
    assert facts["regulariser"] == "NCPR, exponent 1.8"
    assert facts["patch"] == "5 x 5"
    assert facts["atoms"] == "6 free, 8 synthesis"
    assert len(facts["sha256"]) == 64


def test_images_and_masks(cli: Cli, picture: Path, tmp_path: Path) -> None:
    assert cli("info", picture) == 0
    assert "32 x 24 (y, x)" in cli.stdout
    mask = make_mask("equispaced", (32, 24), 4, 0.1)
    (tmp_path / "mask.json").write_text(mask.to_json())
    assert cli("info", tmp_path / "mask.json") == 0
    assert "equispaced mask, 32 x 24 (y, x)" in cli.stdout
    np.save(tmp_path / "mask.npy", mask.pattern)
    assert cli("info", tmp_path / "mask.npy") == 0
    assert f"{mask.n_acquired} of 24 columns: acceleration {mask.realised_acceleration:.2f}" in cli.stdout
    write_image(tmp_path / "binary.npy", mask.array2d().astype(np.float32))
    assert cli("info", tmp_path / "binary.npy") == 0
    assert "of 768 samples" in cli.stdout
    np.save(tmp_path / "volume.npy", np.zeros((2, 3, 4, 5)))
    assert cli("info", tmp_path / "volume.npy") == 0
    assert "(2, 3, 4, 5)" in cli.stdout


def test_raw_files(cli: Cli, tmp_path: Path) -> None:
    kspace = normal((N_COILS, N_Y, N_X))
    lines = [RawLine(normal((N_COILS, 20)), {"flags": NOISE}), *lines_of(kspace, [0, 5, 6, 7, 9], repetition=1)]
    lines += lines_of(kspace, [5, 6], repetition=1, head={"flags": CALIBRATION})
    path = write_mrd(
        tmp_path / "a.h5", lines, header(protocol_name="gre", acceleration=(2, 1), calibration_mode="separate")
    )
    assert cli("info", path) == 0
    for line in (
        "k-space, ISMRMRD",
        "5 of 12 columns are acquired (mask in the file), 3 of them around the centre: acceleration 2.40",
        "slice 0 of the file is repetition 1",
        "2 along y",
        "20 samples a coil",
        "2 lines measured apart from the image",
        "parallel imaging 2 x 1, calibration separate",
        "readouts: 5 imaging, 2 calibration, 1 noise",
        "centre (0, 0, 0) mm, slice direction (0, 0, 1)",
    ):
        assert line in cli.stdout, line
    assert cli("info", path, "--json") == 0
    assert json.loads(cli.stdout)["coils"] == N_COILS
    np.save(tmp_path / "a.npy", kspace)
    assert cli("info", tmp_path / "a.npy", "--axes", "coil,y,x") == 0
    assert "k-space, array" in cli.stdout
    assert cli("info", tmp_path / "a.npy", "--axes", "coil,y") == 2
    assert cli("info", tmp_path / "a.npy", "--uncentred") == 2


def test_volume(cli: Cli, tmp_path: Path) -> None:
    head = header(encoded_matrix=(N_Y, N_X, 4), partition_limits=(0, 3, 2))
    assert cli("info", write_mrd(tmp_path / "a.mrd", lines_of(normal((N_COILS, N_Y, N_X)), range(N_X)), head)) == 0
    assert "16 x 12 (y: readout, x: phase encoding), complex64, 4 partitions" in cli.stdout


def test_paper_slice(cli: Cli, tmp_path: Path, rng: np.random.Generator) -> None:
    path = tmp_path / "slice.npz"
    kspace = (rng.normal(size=(16, 12)) + 1j * rng.normal(size=(16, 12))).astype(np.complex64)
    mask = (np.arange(12) % 4 == 0).astype(np.uint8)
    np.savez(path, kspace=kspace, target=np.ones((8, 8), np.float32), mask_acc8=mask, mask_acc16=mask)
    assert cli("info", path) == 0
    assert "acceleration 8: 3 of 12 columns: 4.00" in cli.stdout


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.h5", b"", "is empty (0 bytes)"),
        ("a.h5", b"text", "is not an HDF5 file"),
        ("a.pth", b"text", "neither mrisps weights (.safetensors) nor one of the authors' checkpoints (.pth)"),
        ("a.png", b"text", "is no readable PNG image"),
        ("a.npy", b"text", "is no readable NPY file"),
        ("a.npz", b"text", "is no readable NPZ archive"),
        ("a.json", b"{}", "mask: format: expected 'mrisps.SamplingMask', got None"),
        ("a.py", b"", "is a Python file; for a recipe use `mrisps recipes show`"),
        (
            "a.docx",
            b"PK",
            "is none of HDF5, twix (.dat), BART (.cfl), MAT, DICOM, PNG, TIFF, NPY, NPZ, weights (.safetensors, .pth)",
        ),
    ],
)
def test_files_that_are_none(cli: Cli, tmp_path: Path, name: str, content: bytes, expected: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert cli("info", path) == 1
    assert cli.error().startswith(f"error: {path}: ")
    assert expected in cli.error()


def test_no_file(cli: Cli, tmp_path: Path) -> None:
    assert cli("info", tmp_path / "none") == 2
    assert cli("info", tmp_path) == 2
    assert cli.error() == f"error: {tmp_path}: is not a regular file"
