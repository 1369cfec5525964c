"""The example programs that convert a data set."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from raw_files import normal, write_twix

from mrisps.io.fastmri import write_kspace
from mrisps.io.open import open_kspace
from mrisps.reconstruction.recipe import builtin_recipes

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
KSPACE = normal((2, 3, 16, 12))


def run(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(RECIPES / f"{name}.py"), *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, env={"PYTHONPATH": str(RECIPES.parent)}
    )


def test_they_are_no_reconstruction_recipes() -> None:
    assert not [name for name in builtin_recipes() if name.startswith("convert")]


def test_fastmri_to_mrd(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write_kspace(tmp_path / "in" / "a.h5", KSPACE)
    (tmp_path / "in" / "b.h5").write_bytes(b"text")
    done = run("convert_fastmri_to_mrd", tmp_path / "in", tmp_path / "out")
    assert done.returncode == 1
    assert "b.h5: is not an HDF5 file" in done.stderr
    with open_kspace(tmp_path / "out" / "a.mrd") as file:
        np.testing.assert_array_equal(file.read_slice(1).kspace, KSPACE[1])
    assert run("convert_fastmri_to_mrd").returncode == 1


def test_twix_to_fastmri(tmp_path: Path) -> None:
    pytest.importorskip("twixtools")
    write_twix(tmp_path / "a.dat", KSPACE[0])
    done = run("convert_twix_to_fastmri", tmp_path / "a.dat", tmp_path / "a.h5")
    assert done.returncode == 0, done.stderr
    assert "not carried over: geometry" in done.stdout
    with open_kspace(tmp_path / "a.h5") as file:
        assert file.format == "fastMRI"
        np.testing.assert_array_equal(file.read_slice(0).kspace, KSPACE[0])


def test_paper_slices_to_fastmri(tmp_path: Path) -> None:
    (tmp_path / "val" / "pd").mkdir(parents=True)
    mask = (np.arange(12) % 3 == 0).astype(np.uint8)
    np.savez(
        tmp_path / "val" / "pd" / "a.npz",
        kspace=KSPACE[0, 0],
        target=np.ones((8, 8), np.float32),
        mask_acc8=mask,
        mask_acc16=mask,
    )
    done = run("convert_paper_slices_to_fastmri", tmp_path / "val", tmp_path / "out", "8")
    assert done.returncode == 0, done.stderr
    with open_kspace(tmp_path / "out" / "pd" / "a.h5") as file:
        assert file.contrast == "CORPD_FBK"
