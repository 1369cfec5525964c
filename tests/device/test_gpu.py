"""What only a graphics card can show: its transforms, its memory, its streams. Skipped where there is none."""

import numpy as np
import pytest
import torch
from model.helpers import random_model, relative_error
from numpy.typing import NDArray
from solvers.helpers import NCPR, make_operator, measure

import mrisps
from mrisps.errors import MrispsError
from mrisps.io.memory import MemoryKspace
from mrisps.model import ModelConfig
from mrisps.operators import fft2c
from mrisps.reconstruction.api import run_of
from mrisps.reconstruction.memory import available_memory, of_problem
from mrisps.solvers import FastSettings, solve

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]

SETTINGS = {"max_iterations": 30, "trace_interval": 0}


def volume(size: int, n_coils: int, n_slices: int) -> tuple[NDArray[np.complex64], NDArray[np.bool_]]:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    angles = 2 * np.pi * np.arange(n_coils) / n_coils
    maps = np.stack([np.exp(-((x - np.cos(t)) ** 2) - (y - np.sin(t)) ** 2 + 1j * t) for t in angles])
    slices = [maps * (x**2 + y**2 < 0.5 + 0.05 * number) for number in range(n_slices)]
    kspace = fft2c(torch.from_numpy(np.stack(slices))).numpy()
    kspace += 0.01 * (rng.normal(size=kspace.shape) + 1j * rng.normal(size=kspace.shape))
    mask = np.zeros(size, dtype=np.bool_)
    mask[::3] = mask[size // 2 - 12 : size // 2 + 12] = True
    return (kspace * mask).astype(np.complex64), mask


def test_a_volume() -> None:
    """The images of the CPU, slices alone and together."""
    kspace, mask = volume(96, 6, 3)
    cpu = mrisps.recon(kspace, "multicoil", mask=mask, solver=SETTINGS)
    for together in (1, 3, None):
        cuda = mrisps.recon(kspace, "multicoil", mask=mask, solver=SETTINGS, device="cuda", slices_together=together)
        assert np.linalg.norm(cuda.image - cpu.image) < 1e-2 * np.linalg.norm(cpu.image)
        assert [c["n_iterations"] for c in cuda.certificates] == [c["n_iterations"] for c in cpu.certificates]


@pytest.mark.parametrize("together", [1, 3])
def test_memory_is_as_estimated(together: int) -> None:
    kspace, mask = volume(320, 8, together)
    source = MemoryKspace(kspace, mask=mask)
    run = run_of("multicoil", "mri", overrides={"solver": SETTINGS}, device="cuda", slices_together=together)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    made = list(run.results(source))
    used = torch.cuda.max_memory_allocated()
    estimated = of_problem(made[0].problem, run.weights.model, run.recipe, together).total
    assert estimated == pytest.approx(used, rel=0.4)
    available = available_memory("cuda")
    assert available is not None
    assert available <= torch.cuda.get_device_properties(0).total_memory


def test_another_stream() -> None:
    operator, model = make_operator("complex", (33, 35), double=False), random_model(NCPR, lam=0.02)
    y, settings = measure(operator), FastSettings(tolerance=1e-3, continuation_start=2.0)
    expected = solve(operator, y, model, settings)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        found = solve(operator.to("cuda"), y.cuda(), model, settings)
    stream.synchronize()
    assert relative_error(found.image.cpu(), expected.image) < 1e-2


def test_memory_that_is_not_there_is_an_error() -> None:
    run = run_of("denoise_sigma25", "denoise", device="cuda")
    assert run.weights.model.config == ModelConfig()
    with pytest.raises(MrispsError, match=r"needs about .* GiB"):
        mrisps.denoise(np.zeros((40_000, 40_000), dtype=np.float32), 0.1, device="cuda")
