"""`mrisps recon` with data of several coils, in other formats than fastMRI's."""

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray
from raw_files import header, lines_of, write_mrd

from mrisps.io.arrays import ArrayFile
from mrisps.kspace import calibrate as calibrate_module
from mrisps.reconstruction import run as run_module

from .helpers import SHAPE, Cli, recipe_text, to_kspace


@pytest.fixture
def coils(image: NDArray[np.float32]) -> NDArray[np.complex64]:
    """(coil, y, x) of three smooth coils."""
    y, x = np.mgrid[-1 : 1 : SHAPE[0] * 1j, -1 : 1 : SHAPE[1] * 1j]
    maps = np.stack([np.exp(-((x - a) ** 2) - (y - b) ** 2) for a, b in ((1, 0), (-1, 0), (0, 1))])
    return np.stack([to_kspace(one * image) for one in maps])


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "small_coils.py"
    extra = "preparation=Preparation(maps=CoilMaps()), image='complex', scale=ScaleRule(99.5, 1.0), "
    text = recipe_text("mri", extra).replace(
        "from mrisps.solvers", "from mrisps.kspace.preparation import CoilMaps, Preparation\nfrom mrisps.solvers", 1
    )
    path.write_text(text)
    return path


def test_raw_file_with_oversampling(
    cli: Cli, tmp_path: Path, coils: NDArray[np.complex64], recipe: Path, weights: Path
) -> None:
    head = header(
        encoded_matrix=(*SHAPE, 1), recon_matrix=(SHAPE[0] // 2, SHAPE[1], 1), line_limits=(0, SHAPE[1] - 1, 12)
    )
    source = write_mrd(tmp_path / "raw.mrd", lines_of(coils, range(SHAPE[1])), head)
    options = ("--recipe", recipe, "--weights", weights, "--output", tmp_path / "out", "--keep-maps")
    assert cli("recon", source, *options) == 0
    with h5py.File(tmp_path / "out" / "raw.h5") as file:
        assert file["reconstruction"].shape == (1, SHAPE[0] // 2, SHAPE[1])
        (certificate,) = json.loads(file.attrs["certificate"])
        provenance = json.loads(file.attrs["provenance"])
    steps = {step["step"]: step for step in certificate["preparation"]}
    assert steps["remove_oversampling"]["rows"] == [SHAPE[0], SHAPE[0] // 2]
    assert steps["maps"]["method"] == "espirit"
    assert "cached" not in steps["maps"]
    assert provenance["recipe"]["preparation"]["compression"]["kept_energy"] == 0.999
    assert cli("recon", source, *options, "--overwrite") == 0
    with h5py.File(tmp_path / "out" / "raw.h5") as file:
        (certificate,) = json.loads(file.attrs["certificate"])
    assert any(step.get("cached") == "yes" for step in certificate["preparation"])


def test_array_with_samples_left_out(
    cli: Cli, tmp_path: Path, coils: NDArray[np.complex64], recipe: Path, weights: Path, rng: np.random.Generator
) -> None:
    pattern = rng.random(SHAPE) < 0.5
    pattern[10:22, 6:18] = True
    source = tmp_path / "kspace.npy"
    np.save(source, coils * pattern)
    options = ("--axes", "coil,y,x", "--recipe", recipe, "--weights", weights, "--output", tmp_path / "out")
    assert cli("recon", source, "--mask", "from-zeros", *options) == 0
    with h5py.File(tmp_path / "out" / "kspace.h5") as file:
        (certificate,) = json.loads(file.attrs["certificate"])
    assert certificate["mask"]["realised_acceleration"] == pytest.approx(1 / pattern.mean())


def test_no_centre_is_named(
    cli: Cli, tmp_path: Path, coils: NDArray[np.complex64], recipe: Path, weights: Path
) -> None:
    columns = np.zeros(SHAPE[1], dtype=np.bool_)
    columns[::3] = True
    source = tmp_path / "kspace.npy"
    np.save(source, coils * columns)
    options = ("--axes", "coil,y,x", "--recipe", recipe, "--weights", weights, "--output", tmp_path / "out")
    assert cli("recon", source, "--mask", "from-zeros", *options) == 1
    assert cli.error().startswith(f"error: {source}: calibration: the fully sampled centre has ")
    assert not (tmp_path / "out" / "kspace.h5").exists()


def test_a_slice_is_calibrated_once(
    cli: Cli,
    tmp_path: Path,
    coils: NDArray[np.complex64],
    recipe: Path,
    weights: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two slices with a report: one opening, two slices read, two calibrations."""
    calls: list[str] = []

    def counted(name: str, function: Callable[..., object]) -> Callable[..., object]:
        def run(*arguments: object, **options: object) -> object:
            calls.append(name)
            return function(*arguments, **options)

        return run

    monkeypatch.setattr(calibrate_module, "espirit", counted("calibrate", calibrate_module.espirit))
    monkeypatch.setattr(run_module, "open_kspace", counted("open", run_module.open_kspace))
    monkeypatch.setattr(ArrayFile, "read_slice", counted("read", ArrayFile.read_slice))
    source = tmp_path / "kspace.npy"
    np.save(source, np.stack([coils, 2 * coils]))
    options = ("--axes", "slice,coil,y,x", "--recipe", recipe, "--weights", weights, "--output", tmp_path / "out")
    cli("recon", source, *options, "--report")
    assert (tmp_path / "out" / "kspace.html").is_file(), cli.stderr
    assert sorted(calls) == ["calibrate", "calibrate", "open", "read", "read"]
