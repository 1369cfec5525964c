"""Small files for the commands: k-space of 32 x 24, a random model with 5 x 5 patches, images."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mrisps.io.fastmri import write_kspace
from mrisps.io.images import write_image
from mrisps.model import ModelConfig, SmoothPlusSparse

from .helpers import PROJECT, SHAPE, Cli, recipe_text, to_kspace


@pytest.fixture
def cli() -> Cli:
    return Cli()


@pytest.fixture
def process() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `mrisps` (or, with `program`, any Python arguments) as a process of its own."""

    def run(*arguments: object, program: tuple[str, ...] = ("-m", "mrisps")) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *program, *map(str, arguments)],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
            timeout=120,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def small_model() -> SmoothPlusSparse:
    generator = torch.Generator().manual_seed(0)
    config = ModelConfig(patch_size=5, n_free_atoms=6, n_synthesis_atoms=8)
    return SmoothPlusSparse(
        config,
        torch.randn(6, 5, 5, generator=generator),
        torch.randn(8, 5, 5, generator=generator),
        torch.zeros(8),
        beta=1.0,
        lam=0.01,
    )


@pytest.fixture
def weights(tmp_path: Path, small_model: SmoothPlusSparse) -> Path:
    path = tmp_path / "small.safetensors"
    small_model.save(path)
    return path


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "small_mri.py"
    extra = "mask=MaskRule('equispaced', 4, 0.1), scale=ScaleRule(99.9, 0.8), "
    path.write_text(recipe_text("mri", extra))
    return path


@pytest.fixture
def image(rng: np.random.Generator) -> NDArray[np.float32]:
    """A disc and a bar, with noise."""
    y, x = np.mgrid[-1 : 1 : SHAPE[0] * 1j, -1 : 1 : SHAPE[1] * 1j]
    shapes = 0.8 * (x**2 + y**2 < 0.5) - 0.4 * ((np.abs(x) < 0.2) & (np.abs(y) < 0.5))
    return (shapes + 0.02 * rng.normal(size=SHAPE)).astype(np.float32)


@pytest.fixture
def columns() -> NDArray[np.bool_]:
    """10 of 24 columns, 4 of them in the centre."""
    mask = np.zeros(SHAPE[1], dtype=np.bool_)
    mask[[0, 3, 6, 10, 11, 12, 13, 16, 19, 22]] = True
    return mask


@pytest.fixture
def full_file(tmp_path: Path, image: NDArray[np.float32]) -> Path:
    """Two fully sampled slices with targets of 20 x 20."""
    folder = tmp_path / "data"
    folder.mkdir(exist_ok=True)
    path = folder / "full.h5"
    kspace = np.stack([to_kspace(image), 2 * to_kspace(image)])
    target = np.abs(image[6:26, 2:22])
    write_kspace(path, kspace, target=np.stack([target, 2 * target]), contrast="CORPD_FBK")
    return path


@pytest.fixture
def knee(tmp_path: Path, image: NDArray[np.float32], columns: NDArray[np.bool_]) -> Path:
    """Two undersampled slices with mask and targets of 20 x 20."""
    folder = tmp_path / "data"
    folder.mkdir(exist_ok=True)
    path = folder / "knee.h5"
    kspace = np.stack([to_kspace(image), 2 * to_kspace(image)]) * columns
    target = np.abs(image[6:26, 2:22])
    write_kspace(path, kspace, target=np.stack([target, 2 * target]), mask=columns, contrast="CORPD_FBK")
    return path


@pytest.fixture
def picture(tmp_path: Path, image: NDArray[np.float32]) -> Path:
    path = tmp_path / "picture.png"
    write_image(path, np.clip(image, 0, 1))
    return path
