"""Fixtures shared by all tests."""

import contextlib
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

# One thread: sums are then taken in one order, and parallel test runs do not fight for cores. Before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import torch
from device.simulated import register

from mrisps.io.fastmri import write_kspace

# Autograd counts devices at its first backward pass in a process: the simulated one has to be known before. Tests of
# that device fail with the reason where torch is of another version; all others do not need it.
with contextlib.suppress(RuntimeError):
    register()


@pytest.fixture(autouse=True)
def _same_random_numbers() -> None:
    """torch's own generator starts anew in every test: what a test draws from it does not depend on the tests before."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with the paper's validation slices and checkpoints, which cannot be part of the project."""
    folder = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the paper's validation data (../shared/data) are not on this machine")
    return folder


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def kspace(rng: np.random.Generator) -> NDArray[np.complex64]:
    """Three slices of 24 x 15."""
    return (rng.normal(size=(3, 24, 15)) + 1j * rng.normal(size=(3, 24, 15))).astype(np.complex64)


@pytest.fixture
def mask() -> NDArray[np.bool_]:
    """8 of 15 columns, of which 3 in the centre."""
    mask = np.zeros(15, dtype=np.bool_)
    mask[[0, 1, 4, 6, 7, 8, 10, 13]] = True
    return mask


@pytest.fixture
def raw_file(tmp_path: Path, kspace: NDArray[np.complex64], mask: NDArray[np.bool_], rng: np.random.Generator) -> Path:
    """An undersampled fastMRI file with targets."""
    path = tmp_path / "raw.h5"
    target = np.abs(rng.normal(size=(3, 12, 12))).astype(np.float32)
    write_kspace(path, kspace * mask, target=target, mask=mask, contrast="CORPD_FBK", attributes={"patient_id": "0123"})
    return path


@pytest.fixture
def small_disk() -> Callable[[int], AbstractContextManager[None]]:
    """No file may become larger than so many bytes: what a write then gets is an OSError, as on a full disk."""

    @contextlib.contextmanager
    def limited(n_bytes: int) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limited
