"""`mrisps convert`."""

from pathlib import Path

import numpy as np
import pytest
from raw_files import N_COILS, N_X, N_Y, lines_of, normal, write_mrd

from mrisps.io.fastmri import write_kspace
from mrisps.io.images import read_image
from mrisps.io.ismrmrd_header import IsmrmrdHeader
from mrisps.io.open import open_kspace
from mrisps.io.result_file import ResultWriter

from .helpers import Cli

KSPACE = normal((2, N_COILS, N_Y, N_X))


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    lines = [
        line
        for index in range(2)
        for line in lines_of(KSPACE[index], range(N_X), slice=index, head={"position": (0, 0, 5 * index)})
    ]
    return write_mrd(tmp_path / "raw.mrd", lines)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    path = tmp_path / "recon.h5"
    with ResultWriter(path, 2, header=IsmrmrdHeader.for_shape((8, 12))) as writer:
        for index in range(2):
            writer.write_slice(index, np.full((8, 12), index + 1, np.float32))
    return path


@pytest.mark.parametrize("name", ["out.h5", "out.mrd", "out.cfl", "out.npy"])
def test_kspace(cli: Cli, raw: Path, tmp_path: Path, name: str) -> None:
    assert cli("convert", raw, tmp_path / name) == 0
    assert cli.stdout == f"{tmp_path / name}\n"
    assert "2 slices written" in cli.stderr
    assert ("not carried over: geometry" in cli.stderr) == (name != "out.mrd")
    with open_kspace(tmp_path / name) as file:
        np.testing.assert_array_equal(file.read_slice(1).kspace, KSPACE[1])
    assert cli("convert", raw, tmp_path / name) == 2
    assert "exists already; use --overwrite" in cli.error()
    assert cli("convert", raw, tmp_path / name, "--overwrite") == 0


def test_arrays(cli: Cli, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", k=KSPACE, other=KSPACE)
    assert cli("convert", tmp_path / "a.npz", tmp_path / "a.h5", "--axes", "slice,coil,y,x", "--variable", "k") == 0
    with open_kspace(tmp_path / "a.h5") as file:
        np.testing.assert_array_equal(file.read_slice(0).kspace, KSPACE[0])
    assert cli("convert", tmp_path / "a.npz", tmp_path / "b.h5") == 1
    assert "what the axes are is not stated" in cli.error()


def test_images_to_nifti(cli: Cli, raw: Path, images: Path, tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    assert cli("convert", images, tmp_path / "a.nii.gz") == 0
    assert "not carried over: position and orientation" in cli.stderr
    assert cli("convert", images, tmp_path / "b.nii.gz", "--place-from", raw) == 0
    assert "not carried over" not in cli.stderr
    image = nibabel.load(tmp_path / "b.nii.gz")
    assert image.shape == (8, 12, 2)
    np.testing.assert_allclose(image.affine[:3, 2], (0, 0, 5), atol=1e-6)


def test_images_to_pictures_and_back(cli: Cli, images: Path, tmp_path: Path) -> None:
    assert cli("convert", images, tmp_path / "png", "--to", "png") == 0
    assert cli.stdout.splitlines() == [str(tmp_path / "png" / f"recon_00{index}.png") for index in range(2)]
    assert "65535 stands for 2, the largest value of all slices" in cli.stderr
    np.testing.assert_allclose(read_image(tmp_path / "png" / "recon_000.png"), 0.5, atol=1e-4)
    assert cli("convert", images, tmp_path / "npy", "--to", "npy") == 0
    np.testing.assert_array_equal(read_image(tmp_path / "npy" / "recon_001.npy"), 2)
    assert cli("convert", images, tmp_path / "a.mrd") == 0
    assert "position and orientation: unknown" in cli.stderr


@pytest.mark.parametrize(("part", "expected"), [(None, 5), ("magnitude", 5), ("real", 3), ("phase", np.arctan2(4, 3))])
def test_parts_of_complex_images(cli: Cli, tmp_path: Path, part: str | None, expected: float) -> None:
    """Few programs read complex NIfTI, so it has to be asked for."""
    nibabel = pytest.importorskip("nibabel")
    path = tmp_path / "complex.h5"
    with ResultWriter(path, 1) as writer:
        writer.write_slice(0, np.full((8, 12), 3 + 4j, np.complex64))
    options = () if part is None else ("--part", part)
    assert cli("convert", path, tmp_path / "a.nii", *options) == 0
    assert ("phase: the images are magnitudes" in cli.stderr) == (part is None)
    image = nibabel.load(tmp_path / "a.nii")
    assert image.get_data_dtype() == np.float32
    np.testing.assert_allclose(np.asarray(image.dataobj), expected)
    assert cli("convert", path, tmp_path / "b.nii", "--part", "complex") == 0
    assert nibabel.load(tmp_path / "b.nii").get_data_dtype() == np.complex64
    assert cli("convert", path, tmp_path / "npy", "--to", "npy", *options) == 0
    np.testing.assert_allclose(read_image(tmp_path / "npy" / "complex_000.npy"), expected)
    assert cli("convert", path, tmp_path / "png", "--to", "png", "--part", "complex") == 2
    assert "png has no complex images" in cli.error()
    assert cli("convert", path, tmp_path / "c.nii", "--part", "half") == 2


def test_dicom(cli: Cli, tmp_path: Path) -> None:
    pytest.importorskip("pydicom")
    assert cli("convert", tmp_path, tmp_path / "a.h5") == 1
    assert "has no DICOM files" in cli.error()


@pytest.mark.parametrize(
    ("source", "destination", "options", "message"),
    [
        ("raw.mrd", "a.nii", (), "expected one of fastmri, mrd, cfl, npy for k-space; give it with --to"),
        ("raw.mrd", "a.x", ("--to", "png"), "--to png: the input is k-space; images are made of it by `mrisps recon`"),
        ("raw.mrd", "a.x", ("--to", "cfl"), "expected a file name ending in .cfl"),
        ("raw.mrd", "a.x", ("--to", "word"), "--to word: expected one of fastmri"),
        ("recon.h5", "a.x", ("--to", "cfl"), "--to cfl: the input is images; k-space cannot be made of images"),
        ("none.h5", "a.mrd", (), "none.h5: does not exist"),
        ("raw.mrd", "a.h5", ("--part", "real"), "--part: only images have parts"),
        ("recon.h5", "a.nii", ("--part", "phase"), "part: expected one of magnitude, real, got 'phase'"),
        ("raw.mrd", "a.h5", ("--axes", "y,z"), "axes: expected y, x and others"),
        ("raw.mrd", "a.h5", ("--variable", "k"), "need --axes, too"),
    ],
)
def test_what_cannot_be_done(
    cli: Cli,
    raw: Path,
    images: Path,
    tmp_path: Path,
    source: str,
    destination: str,
    options: tuple[str, ...],
    message: str,
) -> None:
    assert raw.exists()
    assert images.exists()
    assert cli("convert", tmp_path / source, tmp_path / destination, *options) == 2
    assert message in cli.error()
    assert not (tmp_path / destination).exists()


def test_a_damaged_input(cli: Cli, tmp_path: Path) -> None:
    kspace = KSPACE.copy()
    write_kspace(tmp_path / "a.h5", kspace)
    content = (tmp_path / "a.h5").read_bytes()
    (tmp_path / "a.h5").write_bytes(content[: len(content) // 2])
    assert cli("convert", tmp_path / "a.h5", tmp_path / "b.mrd") == 1
    assert "a.h5: is truncated" in cli.error()
    assert not (tmp_path / "b.mrd").exists()
