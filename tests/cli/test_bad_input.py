"""What bad input gets: an exit code, one line that names file and field, nothing half-written, earlier outputs untouched."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from mrisps.cli.terminal import SolverProgress
from mrisps.io.fastmri import write_kspace
from mrisps.model import ModelConfig, SmoothPlusSparse

from .helpers import PROJECT, SHAPE, Cli, recipe_text, to_kspace


@pytest.fixture
def run(cli: Cli, recipe: Path, weights: Path, tmp_path: Path) -> Callable[..., str]:
    """Reconstruct into a folder with an earlier output, which has to survive; give the error line."""
    output = tmp_path / "out"

    def reconstruct(code: int, *arguments: object, recipe: Path = recipe, weights: Path | None = weights) -> str:
        output.mkdir(exist_ok=True)
        (output / "knee.h5").write_bytes(b"earlier")
        options = () if weights is None else ("--weights", weights)
        assert cli("recon", *arguments, "--recipe", recipe, *options, "--output", output, "--overwrite") == code
        assert [path.name for path in output.iterdir()] == ["knee.h5"]
        assert (output / "knee.h5").read_bytes() == b"earlier"
        return cli.error()

    return reconstruct


Run = Callable[..., str]


# ------------------------------------------------------------------------------------------------ files: exit code 1


def test_truncated(run: Run, knee: Path) -> None:
    knee.write_bytes(knee.read_bytes()[: knee.stat().st_size // 2])
    assert run(1, knee).startswith(f"error: {knee}: is truncated: ")


def test_no_hdf5(run: Run, knee: Path) -> None:
    knee.write_text("kspace")
    assert run(1, knee) == f"error: {knee}: is not an HDF5 file"


def test_missing_kspace(run: Run, knee: Path) -> None:
    with h5py.File(knee, "r+") as file:
        del file["kspace"]
    assert run(1, knee).startswith(f"error: {knee}: kspace: is missing; the file has: ismrmrd_header, mask")


def test_nan_in_kspace(run: Run, knee: Path) -> None:
    with h5py.File(knee, "r+") as file:
        file["kspace"][1, 3, 12] = np.nan
    assert run(1, knee) == f"error: {knee}: kspace: 1 of 768 samples are NaN or infinite (slice 1)"


def test_wrong_mask_shape_in_the_file(run: Run, knee: Path) -> None:
    with h5py.File(knee, "r+") as file:
        del file["mask"]
        file["mask"] = np.ones(23, np.float32)
    assert f"error: {knee}: mask: expected numbers (24,) or (32, 24)" in run(1, knee)


def test_zero_mask_in_the_file(run: Run, knee: Path) -> None:
    with h5py.File(knee, "r+") as file:
        file["mask"][...] = 0
    assert run(1, knee) == f"error: {knee}: mask: is zero everywhere: nothing was acquired"


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.ones(23, np.bool_), "pattern: expected (y, x) = (32, 24), or (24,) for columns, got (23,)"),
        (np.zeros(24, np.bool_), "pattern: expected at least one acquired sample, got none"),
        (np.full(24, 0.5), "pattern: expected only 0 and 1, got other values"),
    ],
)
def test_wrong_mask_file(run: Run, full_file: Path, tmp_path: Path, mask: NDArray[np.generic], message: str) -> None:
    path = tmp_path / "mask.npy"
    np.save(path, mask)
    assert run(1, full_file, "--mask", path) == f"error: {path}: mask: {message}"


def test_mask_that_contradicts_the_file(run: Run, knee: Path, tmp_path: Path) -> None:
    path = tmp_path / "mask.npy"
    np.save(path, np.ones(24, np.bool_))
    assert run(1, knee, "--mask", path).startswith(f"error: {knee}: mask: the given mask has samples that")


def test_several_coils(run: Run, tmp_path: Path, image: NDArray[np.float32]) -> None:
    path = tmp_path / "coils.h5"
    write_kspace(path, np.stack([to_kspace(image)] * 3)[None])
    assert run(1, path).startswith(f"error: {path}: kspace: expected single-coil data, got 3 coils")


def test_undersampled_file_cannot_be_undersampled(run: Run, knee: Path) -> None:
    assert run(1, knee, "--undersample").startswith(f"error: {knee}: mask: cannot be undersampled")


def test_slices_that_the_file_does_not_have(run: Run, knee: Path) -> None:
    assert run(1, knee, "--slices", "1:3") == f"error: {knee}: slices: has the slices 0 to 1, not 1 to 2"
    assert run(1, knee, "--slices", "2") == f"error: {knee}: slices: has the slices 0 to 1, not 2"


def test_odd_size_with_groups(run: Run, tmp_path: Path, image: NDArray[np.float32]) -> None:
    config = ModelConfig(patch_size=5, n_free_atoms=6, n_synthesis_atoms=8, regulariser="CPR", group_size=2)
    generator = torch.Generator().manual_seed(0)
    atoms = (torch.randn(n, 5, 5, generator=generator) for n in (6, 8))
    weights = tmp_path / "cpr.safetensors"
    SmoothPlusSparse(config, *atoms, torch.zeros(8), beta=1.0, lam=0.01).save(weights)
    path = tmp_path / "odd.h5"
    write_kspace(path, to_kspace(image[:31])[None])
    line = run(1, path, weights=weights)
    assert line.startswith(f"error: {path}: image size: this model shrinks groups of 2 x 2 pixels")
    assert line.endswith("got 31 x 24")


def test_one_bad_file_does_not_stop_the_others(
    cli: Cli, knee: Path, full_file: Path, recipe: Path, weights: Path, tmp_path: Path
) -> None:
    bad = knee.with_name("bad.h5")
    bad.write_bytes(b"")
    output = tmp_path / "out"
    assert cli("recon", knee.parent, "--recipe", recipe, "--weights", weights, "--output", output) == 1
    assert sorted(path.name for path in output.iterdir()) == ["full.h5", "knee.h5"]
    assert cli.error() == f"error: {bad}: is empty (0 bytes)"
    assert cli.stderr.endswith(f"2 of 3 files reconstructed; 1 failed\n  failed: {bad}: is empty (0 bytes)\n")


# ------------------------------------------------------------------------------------------------ output: exit code 1


def test_output_is_a_file(cli: Cli, knee: Path, recipe: Path, weights: Path, tmp_path: Path) -> None:
    for output in (tmp_path / "file", tmp_path / "file" / "inside"):
        (tmp_path / "file").write_text("not a folder")
        assert cli("recon", knee, "--recipe", recipe, "--weights", weights, "--output", output) == 1
        assert cli.error().startswith(f"error: {output}: cannot be used as output folder: ")
        assert (tmp_path / "file").read_text() == "not a folder"


def test_output_name_is_a_folder(cli: Cli, knee: Path, recipe: Path, weights: Path, tmp_path: Path) -> None:
    (tmp_path / "out" / "knee.h5").mkdir(parents=True)
    options = ("--recipe", recipe, "--weights", weights, "--output", tmp_path / "out", "--overwrite")
    assert cli("recon", knee, *options) == 1
    assert cli.error().startswith(f"error: {tmp_path / 'out' / 'knee.h5'}: cannot be written: ")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["knee.h5"]


@pytest.mark.parametrize("n_bytes", [0, 5000, 20000])
def test_disk_full(
    run: Run, knee: Path, tmp_path: Path, small_disk: Callable[[int], AbstractContextManager[None]], n_bytes: int
) -> None:
    (tmp_path / "out").mkdir()
    earlier = tmp_path / "out" / "knee.h5"
    earlier.write_bytes(b"earlier")
    large = knee.rename(knee.with_name("large.h5"))  # so that the earlier output is not what would be replaced

    def both() -> None:
        assert run(1, large) == f"error: {tmp_path / 'out' / 'large.h5'}: cannot be written: File too large"

    with small_disk(max(n_bytes, 7)):  # 7: the earlier output is written by `run`
        both()


def test_disk_full_while_replacing(
    run: Run, knee: Path, tmp_path: Path, small_disk: Callable[[int], AbstractContextManager[None]]
) -> None:
    with small_disk(5000):
        assert run(1, knee) == f"error: {tmp_path / 'out' / 'knee.h5'}: cannot be written: File too large"


def test_interrupt(knee: Path, weights: Path, tmp_path: Path) -> None:
    """Ctrl-C in the middle of a solve."""
    recipe = tmp_path / "endless.py"
    recipe.write_text(recipe_text("mri", solver="tolerance=1e-30, max_iterations=10**9, trace_interval=0"))
    output = tmp_path / "out"
    output.mkdir()
    (output / "knee.h5").write_bytes(b"earlier")
    arguments = ["recon", knee, "--recipe", recipe, "--weights", weights, "--output", output, "--overwrite"]
    with subprocess.Popen(
        [sys.executable, "-m", "mrisps", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            give_up = time.monotonic() + 60
            while not any(output.glob(".knee.h5.*")) and time.monotonic() < give_up:  # the output has been begun
                time.sleep(0.05)
            assert any(output.glob(".knee.h5.*"))
            time.sleep(0.3)
            process.send_signal(signal.SIGINT)
            stdout, stderr = process.communicate(timeout=120)
        finally:
            process.kill()
    assert process.returncode == 130
    assert stdout == ""
    assert stderr.splitlines()[1:] == ["interrupted"]
    assert [path.name for path in output.iterdir()] == ["knee.h5"]
    assert (output / "knee.h5").read_bytes() == b"earlier"


def test_an_interrupt_that_python_drops_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when it is raised in a finaliser: the next iteration sees it."""

    class Finalised:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    earlier = signal.getsignal(signal.SIGINT)

    def work() -> None:
        with SolverProgress("knee.h5", 1e-3) as progress:
            progress.update(0, 1, 1, 1.0)
            Finalised()
            progress.update(0, 1, 2, 0.5)

    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)  # Python would print what it drops
    with pytest.raises(KeyboardInterrupt):
        work()
    assert signal.getsignal(signal.SIGINT) is earlier


# ------------------------------------------------------------------------------------------------ usage: exit code 2


def test_no_such_input(run: Run, tmp_path: Path) -> None:
    assert run(2, tmp_path / "none.h5") == f"error: {tmp_path / 'none.h5'}: does not exist"
    (tmp_path / "empty").mkdir()
    line = run(2, tmp_path / "empty")
    assert line.startswith(f"error: {tmp_path / 'empty'}: expected files ending in .cfl, .dat, .h5, .hdf5, .mrd")


def test_same_names(run: Run, knee: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "knee.h5"
    other.parent.mkdir()
    other.write_bytes(knee.read_bytes())
    assert "would be the output of both" in run(2, knee, other)
    assert run(2, knee, knee) == f"error: {knee}: is given twice"


def test_output_would_replace_the_input(cli: Cli, knee: Path, recipe: Path, weights: Path) -> None:
    content = knee.read_bytes()
    options = ("--recipe", recipe, "--weights", weights, "--output", knee.parent, "--overwrite")
    assert cli("recon", knee, *options) == 2
    assert cli.error() == f"error: {knee}: is an input and would be replaced; choose another --output"
    assert knee.read_bytes() == content


def test_unknown_recipe(run: Run, knee: Path, tmp_path: Path) -> None:
    line = run(2, knee, recipe=Path("knee_acc8"))
    assert line.startswith("error: recipe: expected a .py file or one of brain_multicoil_acc4, ")
    assert run(2, knee, recipe=tmp_path / "none.py") == f"error: {tmp_path / 'none.py'}: no such recipe file"


def test_recipe_for_another_task(run: Run, knee: Path) -> None:
    assert "is for the task 'denoise', not for 'mri'" in run(2, knee, recipe=Path("denoise_sigma25"))


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ("lamda=3, ", "lamda: "),
        ("mask=MaskRule('equispaced', 0.5, 0.1), ", "mask.acceleration: expected a number >= 1, got 0.5"),
        ("mask=MaskRule('equispased', 4, 0.1), ", "mask.kind: expected one of random, "),
    ],
)
def test_wrong_recipe_file(run: Run, knee: Path, tmp_path: Path, extra: str, expected: str) -> None:
    path = tmp_path / "wrong.py"
    path.write_text(recipe_text("mri", extra))
    line = run(2, knee, recipe=path)
    assert line.startswith(f"error: {expected}")
    assert str(path) in line


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("lamda=1", "lamda: unknown key; known here: name, task, beta, lam"),
        ("solver.tolerence=1", "solver.tolerence: unknown key"),
        ("lam=much", "lam: expected a number, got 'much'"),
        ("lam=-1", "lam: expected a number > 0, got -1"),
        ("mask.acceleration=0.5", "mask.acceleration: expected a number >= 1, got 0.5"),
        ("solver.max_iterations=0", "solver.max_iterations: expected an integer >= 1"),
        ("image=imaginary", "image: expected 'from_file', 'real' or 'complex', got 'imaginary'"),
        ("lam", "--set: expected KEY=VALUE, got 'lam'"),
        ("=3", "--set: expected KEY=VALUE, got '=3'"),
        ("task=denoise", "--set: the task of a recipe cannot be changed"),
    ],
)
def test_wrong_set(run: Run, knee: Path, change: str, expected: str) -> None:
    assert run(2, knee, "--set", change).startswith(f"error: {expected}")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--slices", "a"), "--slices: expected a number or START:STOP, counted from 0, got 'a'"),
        (("--slices", "-1"), "--slices: expected a number or START:STOP, counted from 0, got '-1'"),
        (("--slices", "3:3"), "--slices: '3:3' has no slice in it"),
        (("--scale", "0"), "--scale: expected a number > 0, got 0.0"),
        (("--scale", "nan"), "--scale: expected a number > 0, got nan"),
        (("--mask", "mask.txt"), "--mask: expected a .npy or .json file or from-zeros, got 'mask.txt'"),
        (("--mask", "/none.npy"), "--mask: /none.npy: does not exist"),
        (("--mask", "from-zeros", "--undersample"), "--undersample, --mask: give one of them, not both"),
        (("--device", "gpu"), "--device: expected cpu, cuda or cuda:N, got 'gpu'"),
        (("--device", "cuda:x"), "--device: expected cpu, cuda or cuda:N, got 'cuda:x'"),
    ],
)
def test_wrong_options(run: Run, knee: Path, options: tuple[str, ...], expected: str) -> None:
    assert run(2, knee, *options) == f"error: {expected}"


def test_no_mask_rule(run: Run, full_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "plain.py"
    path.write_text(recipe_text("mri"))
    line = run(2, full_file, "--undersample", recipe=path)
    assert line == "error: --undersample: recipe small_mri has no mask rule"


@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_no_cuda(run: Run, knee: Path, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    line = run(2, knee, "--device", device)
    assert line == f"error: --device: {device} was asked for, but PyTorch finds no CUDA device here; use --device cpu"


def test_no_such_cuda_device(run: Run, knee: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    line = run(2, knee, "--device", "cuda:2")
    assert line == "error: --device: cuda:2 was asked for, but there are only cuda:0 to cuda:1"


def test_no_weights(run: Run, knee: Path) -> None:
    line = run(2, knee, weights=None)
    assert line.startswith("error: no weights: recipe ")
    assert "Name some with --weights" in line
    assert "derived" in line


def test_even_patch_size(run: Run, knee: Path, tmp_path: Path) -> None:
    path = tmp_path / "even.safetensors"
    config = asdict(ModelConfig(patch_size=5, n_free_atoms=6, n_synthesis_atoms=8)) | {"patch_size": 4, "lam": 0.01}
    tensors = {
        "raw_free_atoms": torch.ones(6, 4, 4),
        "raw_synthesis_atoms": torch.ones(8, 4, 4),
        "log_thresholds": torch.zeros(8),
        "beta": torch.tensor(1.0),
    }
    metadata = {"format": "mrisps-weights", "version": "1", "config": json.dumps(config), "source": ""}
    save_file(tensors, path, metadata=metadata)
    assert run(2, knee, weights=path) == f"error: {path}: patch_size: expected an odd number >= 3, got 4"


def test_wrong_weights(run: Run, knee: Path, weights: Path, tmp_path: Path) -> None:
    missing = tmp_path / "none.safetensors"
    expected = f"error: {missing}: no such file; the weights that come with the package are denoise_sigma25_cpr, "
    assert run(2, knee, weights=missing).startswith(expected)
    weights.write_bytes(weights.read_bytes()[:-9])
    assert run(2, knee, weights=weights).startswith(f"error: {weights}: damaged safetensors file")
    weights.write_text("no weights")
    assert run(2, knee, weights=weights).startswith(f"error: {weights}: neither mrisps weights")


def test_weights_that_cannot_meet_the_constraints(run: Run, knee: Path, tmp_path: Path) -> None:
    path = tmp_path / "dependent.safetensors"
    generator = torch.Generator().manual_seed(0)
    same = torch.randn(1, 5, 5, generator=generator).expand(6, 5, 5)
    atoms = torch.randn(8, 5, 5, generator=generator)
    config = ModelConfig(patch_size=5, n_free_atoms=6, n_synthesis_atoms=8)
    SmoothPlusSparse(config, same, atoms, torch.zeros(8), beta=1.0, lam=0.01).save(path)
    assert run(2, knee, weights=path).startswith(f"error: {path}: raw_free_atoms: expected orthonormal atoms")


def test_shape_of_the_files_is_what_it_is() -> None:
    assert SHAPE == (32, 24)  # the numbers in the messages above
