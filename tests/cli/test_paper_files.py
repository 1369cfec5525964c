"""`mrisps convert-paper-slices` and `mrisps convert-weights`."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mrisps.io.fastmri import FastmriFile
from mrisps.model import SmoothPlusSparse

from .helpers import Cli


@pytest.fixture
def slices(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Two archives like the paper's, in folders that say the contrast."""
    mask = (np.arange(12) % 3 == 0).astype(np.uint8)
    for name in ("pd/a.npz", "pdfs/b.npz"):
        path = tmp_path / "val" / name
        path.parent.mkdir(parents=True)
        kspace = (rng.normal(size=(16, 12)) + 1j * rng.normal(size=(16, 12))).astype(np.complex64)
        np.savez(path, kspace=kspace, target=np.ones((8, 8), np.float32), mask_acc8=mask, mask_acc16=mask)
    return tmp_path / "val"


def test_paper_slices(cli: Cli, slices: Path, tmp_path: Path) -> None:
    output = tmp_path / "h5"
    assert cli("convert-paper-slices", slices, output, "--acceleration", "8") == 0
    assert cli.stdout.splitlines() == [str(output / "pd" / "a.h5"), str(output / "pdfs" / "b.h5")]
    assert cli.stderr == "2 files written\n"
    with FastmriFile(output / "pdfs" / "b.h5") as file:
        assert file.contrast == "CORPDFS_FBK"
        assert file.mask is not None
        assert file.mask.sum() == 4
    assert cli("convert-paper-slices", slices, output, "--acceleration", "none") == 2
    assert "a.h5: exists already; use --overwrite" in cli.error()
    assert cli("convert-paper-slices", slices, output, "--acceleration", "none", "--overwrite") == 0
    with FastmriFile(output / "pdfs" / "b.h5") as file:
        assert file.mask is None


def test_recon_takes_the_folder_that_was_written(
    cli: Cli, slices: Path, recipe: Path, weights: Path, tmp_path: Path
) -> None:
    """The files are in subfolders, where recon found none."""
    assert cli("convert-paper-slices", slices, tmp_path / "h5", "--acceleration", "8") == 0
    options = ("--recipe", recipe, "--weights", weights, "--set", "solver.max_iterations=2", "--accept-unconverged")
    assert cli("recon", tmp_path / "h5", "--output", tmp_path / "out", *options) == 0
    assert sorted(path.name for path in (tmp_path / "out").glob("*.h5")) == ["a.h5", "b.h5"]


def test_wrong_slices(cli: Cli, slices: Path, tmp_path: Path) -> None:
    assert cli("convert-paper-slices", slices, tmp_path / "out", "--acceleration", "4") == 2
    assert cli.error() == "error: --acceleration: expected 8, 16 or none, got '4'"
    assert cli("convert-paper-slices", tmp_path / "none", tmp_path / "out", "--acceleration", "8") == 2
    (tmp_path / "empty").mkdir()
    assert cli("convert-paper-slices", tmp_path / "empty", tmp_path / "out", "--acceleration", "8") == 1
    assert cli.error() == f"error: {tmp_path / 'empty'}: expected files ending in .npz; the folder has: nothing"


def test_weights(cli: Cli, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    source, destination = tmp_path / "NCPR.pth", tmp_path / "NCPR.safetensors"
    content = {
        "config": {
            "dict_params": {"atom_size": 5, "nb_free_atoms": 6, "nb_atoms": 8},
            "prox_params": {"prox_type": "l0norm", "order": 1.8, "groupsize": 1, "lambda_init": 0.0125},
        },
        "state_dict": {
            "free_atoms": torch.randn(6, 1, 5, 5, generator=generator),
            "atoms": torch.randn(8, 1, 5, 5, generator=generator),
            "prox.scaling_lmbda": torch.zeros(8, 1),
            "beta": torch.tensor(1.0),
        },
    }
    torch.save(content, source)
    assert cli("convert-weights", source, destination) == 0
    assert cli.stdout.startswith(f"{destination}: NCPR, 5 x 5 patches, 6 free and 8 synthesis atoms, sha256 ")
    assert SmoothPlusSparse.load(destination).fingerprint() == SmoothPlusSparse.load(source).fingerprint()
    assert cli("convert-weights", source, destination) == 2
    assert cli("convert-weights", source, tmp_path / "x.pth") == 2
    assert cli("convert-weights", tmp_path / "none.pth", destination) == 2
    source.write_bytes(b"PK\x03\x04 damaged")
    assert cli("convert-weights", source, destination, "--overwrite") == 1
    assert cli.error().startswith(f"error: {source}: not a checkpoint that holds tensors and settings only")
    assert SmoothPlusSparse.load(destination).config.patch_size == 5
