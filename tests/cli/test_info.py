"""`mrisps info`."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
from raw_files import CALIBRATION, N_COILS, N_X, N_Y, NOISE, RawLine, header, lines_of, normal, write_mrd

from mrisps.io.acquisition import Geometry
from mrisps.io.fastmri import write_kspace
from mrisps.io.images import write_image
from mrisps.io.result_file import ResultWriter
from mrisps.sampling import make_mask, write_mask

from .helpers import Cli, recipe_text


def test_kspace(cli: Cli, knee: Path) -> None:
    with h5py.File(knee, "r+") as file:
        file.attrs["patient_id"] = "\x1b[31mred"
    assert cli("info", knee) == 0
    lines = dict(line.split(maxsplit=1) for line in cli.stdout.splitlines() if not line.startswith(" "))
    assert lines["content"] == "k-space, fastMRI"
    assert lines["slices"] == "2"
    assert lines["coils"] == "1"
    assert lines["matrix"] == "32 x 24 (y: readout, x: phase encoding), complex64"
    assert lines["sampling"] == (
        "10 of 24 columns are acquired (mask in the file), 4 of them around the centre: acceleration 2.40"
    )
    assert "kspace: (2, 32, 24) complex64" in cli.stdout
    assert "20 x 20 is what the file asks for" in cli.stdout
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
    assert "recipe        name small_mri, sha256 " in cli.stdout
    assert "slice 1: NOT CONVERGED: the cap on iterations came first; 2 iterations, beta 0.02, lam 0.01" in cli.stdout
    assert "verdict       slice 0: check: the noise is unknown" in cli.stdout
    with h5py.File(path, "r+") as file:  # a damaged one says less, but does not fail
        file.attrs["certificate"] = "[[["
        file.attrs["provenance"] = '{"recipe": 3}'
    assert cli("info", path) == 0
    assert "NOT CONVERGED" not in cli.stdout


def test_beta_and_lam_are_those_that_were_used(cli: Cli, knee: Path, weights: Path, tmp_path: Path) -> None:
    """Not the recipe's own, where it has a rule for them."""
    recipe = tmp_path / "rule.py"
    text = recipe_text("mri", "regularisation=NoiseRule(2.0, 0.03, 5.0, 0.5, 0.02), noise_std=0.02, ")
    recipe.write_text(text.replace("import BlurRule,", "import BlurRule, NoiseRule,"))
    options = ("--weights", weights, "--output", tmp_path / "out", "--set", "solver.max_iterations=2")
    assert cli("recon", knee, "--recipe", recipe, *options) == 1
    assert cli("info", tmp_path / "out" / "knee.h5", "--json") == 0
    facts = json.loads(cli.stdout)
    with h5py.File(tmp_path / "out" / "knee.h5") as file:
        used = json.loads(file.attrs["certificate"])[0]
    assert (used["beta"], used["lam"]) != (0.02, 0.01)
    assert facts["certificate"][0].endswith(f", beta {used['beta']:.4g}, lam {used['lam']:.4g}")


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
    write_mask(mask, tmp_path / "mask.json")
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


def undersampled(mask: np.ndarray, n_coils: int = 2) -> np.ndarray:
    return (normal((1, n_coils, *mask.shape)) * mask).astype(np.complex64)


def test_acceleration_of_a_grid_and_of_single_samples(cli: Cli, tmp_path: Path) -> None:
    """Counting columns that have any sample said 1.80 for the grid and 1.01 for Poisson-disc samples."""
    grid = np.zeros((64, 48), np.bool_)
    grid[::2, ::2] = True
    grid[28:36, 20:28] = True
    poisson = make_mask("poisson", (64, 48), 8, 0.1).array2d()
    for pattern, name in ((grid, "one in 2 along y, one in 2 along x"), (poisson, "Poisson-disc samples")):
        for stated in (False, True):
            path = tmp_path / f"{name[:3]}_{stated}.h5"
            write_kspace(path, undersampled(pattern), mask=pattern if stated else None)
            assert cli("info", path, "--json") == 0
            facts = json.loads(cli.stdout)
            acceleration = pattern.size / pattern.sum()
            assert f"{pattern.sum()} of 3072 samples" in facts["sampling"]
            assert facts["sampling"].endswith(f"acceleration {acceleration:.2f}")
            assert facts["pattern"] == name


def test_columns_that_are_stated_but_zero(cli: Cli, tmp_path: Path) -> None:
    mask = np.zeros(24, np.bool_)
    mask[::3] = True
    kspace = normal((1, 16, 24)) * mask
    kspace[:, :, [0, 3]] = 0
    write_kspace(tmp_path / "a.h5", kspace.astype(np.complex64), mask=mask)
    assert cli("info", tmp_path / "a.h5") == 0
    assert "2 of the columns that the mask calls acquired are zero in slice 0" in cli.stdout
    assert "one column in 3" in cli.stdout


@pytest.mark.parametrize("name", ["a.npz", "a.mat", "b.mat"])
def test_the_variables_of_array_files(cli: Cli, tmp_path: Path, name: str) -> None:
    arrays = {"kspace": np.ones((4, 5, 6), np.complex64), "mask": np.ones((4, 5), np.uint8)}
    if name == "a.npz":
        np.savez(tmp_path / name, **arrays)
    elif name == "a.mat":
        scipy.io.savemat(tmp_path / name, {**arrays, "text": "x"}, do_compression=True)
    else:  # MATLAB's version 7.3: HDF5, with the axes turned round
        with h5py.File(tmp_path / name, "w") as file:
            for key, values in arrays.items():
                file[key] = values.T.view([("real", "<f4"), ("imag", "<f4")]) if key == "kspace" else values.T
    assert cli("info", tmp_path / name, "--json") == 0
    facts = json.loads(cli.stdout)
    assert facts["variables"].keys() == {"kspace", "mask"}
    assert facts["variables"]["kspace"].startswith("(4, 5, 6) complex")
    assert facts["variables"]["mask"] == "(4, 5) uint8"
    assert "--axes" in facts["content"]


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_nifti(cli: Cli, tmp_path: Path, name: str) -> None:
    pytest.importorskip("nibabel")
    with ResultWriter(tmp_path / "a.h5", 3) as writer:
        for index in range(3):
            place = Geometry((20.0, 18.0, 5.0), position_mm=(0.0, 0.0, 5.0 * index))
            writer.write_slice(index, normal((10, 6)), geometry=place)
    assert cli("convert", tmp_path / "a.h5", tmp_path / name) == 0
    assert "phase: the images are magnitudes" in cli.stderr
    assert cli("info", tmp_path / name) == 0
    for text in ("NIfTI", "10 x 6 x 3 voxels", "float32", "2 x 3 x 5 mm"):
        assert text in cli.stdout
    (tmp_path / name).write_bytes(b"\x5c\x01\0\0" + bytes(400))
    assert cli("info", tmp_path / name) == 1
    assert f"{name}: is no readable NIfTI file" in cli.error()


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
        ("a.npz", b"text", "is no readable NPZ file"),
        ("a.json", b"{}", "mask: format: expected 'mrisps.SamplingMask', got None"),
        ("a.py", b"", "is a Python file; for a recipe use `mrisps recipes show`"),
        (
            "a.docx",
            b"PK",
            "is none of HDF5, twix (.dat), BART (.cfl), MAT, NPY, NPZ, DICOM, NIfTI, PNG, TIFF, weights",
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
