"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest

# One thread: sums are then taken in one order, and parallel test runs do not fight for cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with the paper's validation slices and checkpoints, which cannot be part of the project."""
    folder = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the paper's validation data (../shared/data) are not on this machine")
    return folder
