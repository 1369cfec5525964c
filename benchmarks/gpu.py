"""What a graphics card makes of the work: solver, calibration, slices together, and a training step, beside this machine's CPU.

    python benchmarks/gpu.py [--device cuda] [--size 320] [--coils 8] [--slices 8] [--output gpu.md]

Everything is simulated. Without a CUDA device it runs on the CPU, which shows that it runs. The first run of each kind is not
counted: it loads kernels. Waiting for the device is part of every time. Memory is the most that PyTorch held on the device.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mrisps.bilevel import AdjointSettings, hypergradient
from mrisps.io.memory import MemoryKspace
from mrisps.kspace.espirit import espirit
from mrisps.model import Energy, PriorUse, SmoothPlusSparse
from mrisps.operators import BlurDownsample, FourierSubsampling, Identity, LinearOperator, fft2c
from mrisps.reconstruction.api import run_of
from mrisps.sampling import make_mask
from mrisps.solvers import FastSettings, minimise, solve

NOISE = 0.01


def phantom(size: int, n_coils: int, n_slices: int) -> NDArray[np.complex64]:
    """Fully sampled k-space (slice, coil, y, x) of discs that grow from slice to slice, with smooth maps and noise."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    angles = 2 * np.pi * np.arange(n_coils) / n_coils
    maps = np.stack([np.exp(-((x - np.cos(t)) ** 2) - (y - np.sin(t)) ** 2 + 1j * t) for t in angles])
    maps /= np.sqrt((np.abs(maps) ** 2).sum(axis=0))
    found = []
    for number in range(n_slices):
        radius = 0.5 + 0.3 * number / max(n_slices, 2)
        image = (x**2 + y**2 < radius) * (0.6 + 0.4 * np.cos(20 * x) * np.cos(17 * y))
        kspace = fft2c(torch.from_numpy(maps * image)).numpy()
        noise = rng.normal(size=kspace.shape) + 1j * rng.normal(size=kspace.shape)
        found.append(kspace + NOISE * noise)
    return np.stack(found).astype(np.complex64)


def timed(device: torch.device, work: Callable[[], object], repeats: int) -> str:
    """Median of the seconds, with the memory on the device, or on a CPU with the seconds of the processor."""
    seconds, busy = [], []
    work()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    for _ in range(repeats):
        wait_for(device)
        started, started_busy = time.perf_counter(), time.process_time()
        work()
        wait_for(device)
        seconds.append(time.perf_counter() - started)
        busy.append(time.process_time() - started_busy)
    more = f"processor {statistics.median(busy):.3g} s"
    if device.type == "cuda":
        more = f"{torch.cuda.max_memory_allocated(device) / 2**30:.2f} GiB"
    return f"{statistics.median(seconds):.3g} s ({more})"


def wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def solver_cases(size: int, device: torch.device) -> Iterator[tuple[str, Callable[[], object]]]:
    """Fixed numbers of iterations of each operator, stride 1 and 2, both priors."""
    mask = make_mask("random", (size, size), 8, 0.04, seed=0)
    operators: dict[str, LinearOperator] = {
        "denoising": Identity((size, size), torch.float32, device),
        "one coil, complex": FourierSubsampling(mask, device=device),
        "super-resolution x4": BlurDownsample((size, size), device=device),
    }
    for weights in ("denoise_sigma25_ncpr", "denoise_sigma25_cpr"):
        model = SmoothPlusSparse.load(weights)
        for name, operator in operators.items():
            for stride in (1, 2):
                generator = torch.Generator().manual_seed(0)
                image = torch.rand(1, *operator.domain_shape, generator=generator).to(device, operator.domain_dtype)
                y = operator.forward(image)
                settings = FastSettings(tolerance=1e-9, max_iterations=50, trace_interval=0)
                use = PriorUse(stride)
                yield (
                    f"{name}, {model.config.regulariser}, stride {stride}: 50 iterations",
                    lambda operator=operator, y=y, model=model, settings=settings, use=use: solve(  # type: ignore[misc]
                        operator, y, model, settings, use=use
                    ),
                )


def volume_cases(
    size: int, n_coils: int, n_slices: int, device: torch.device
) -> Iterator[tuple[str, Callable[[], object]]]:
    """Calibration of a slice; a volume from k-space to images with the shipped recipe, slices alone and together."""
    kspace = phantom(size, n_coils, n_slices)
    centre = torch.from_numpy(kspace[0, :, size // 2 - 12 : size // 2 + 12, size // 2 - 12 : size // 2 + 12].copy())
    yield (
        f"ESPIRiT of {n_coils} coils, {size} x {size}",
        lambda: espirit(centre.to(device), (size, size), n_sets=2, kernel=(6, 6)).vectors.cpu(),
    )
    mask = np.zeros(size, dtype=np.bool_)
    mask[::4] = mask[size // 2 - 12 : size // 2 + 12] = True
    source = MemoryKspace(kspace * mask, mask=mask)
    for together in (1, *sorted({min(4, n_slices), n_slices} - {1})):
        run = run_of("multicoil", "mri", device=str(device), slices_together=together)
        yield (
            f"`multicoil`, {n_slices} slices, {together} in one solve",
            lambda run=run: [made.image for made in run.results(source)],  # type: ignore[misc]
        )


def training_case(size: int, device: torch.device) -> tuple[str, Callable[[], object]]:
    """Solve, loss and hypergradient of a batch of noisy crops, as a training step does."""
    model = SmoothPlusSparse.load("denoise_sigma25_ncpr").to(device)
    operator = Identity((size, size), torch.float32, device)
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(4, 1, size, size, generator=generator).to(device)
    y = target + 0.1 * torch.randn(target.shape, generator=generator).to(device)
    settings = FastSettings(tolerance=1e-4, max_iterations=60, image_change=1.0, trace_interval=0)
    adjoint = AdjointSettings(tolerance=0.1, max_iterations=30, on_failure="record", max_slope=1.0)

    def step() -> object:
        energy = Energy(operator, y, model.prior(torch.float32, device))
        minimum = minimise(energy, settings)
        gradient = 2 * (minimum.image - target) / target.numel()
        return hypergradient(energy, model, minimum.image_step, minimum.coefficients, gradient, adjoint)

    return f"training step, 4 crops of {size} x {size}", step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--device", default="cuda" if torch.cuda.is_available() else "cpu", help="default: cuda if there"
    )
    parser.add_argument("--size", type=int, default=320, help="side of an image in pixels, a multiple of 4")
    parser.add_argument("--coils", type=int, default=8)
    parser.add_argument("--slices", type=int, default=8, help="of the volume")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", default="", metavar="TEXT", help="rows whose name contains this")
    parser.add_argument("--without-cpu", action="store_true", help="leave out the column of the CPU")
    parser.add_argument("--output", type=Path, help="write the table to this file, too")
    arguments = parser.parse_args()
    wanted = torch.device(arguments.device)
    devices = [wanted] if wanted.type == "cpu" or arguments.without_cpu else [wanted, torch.device("cpu")]
    rows: dict[str, list[str]] = {}
    for device in devices:
        cases = [
            *solver_cases(arguments.size, device),
            *volume_cases(arguments.size, arguments.coils, arguments.slices, device),
            training_case(arguments.size // 4, device),
        ]
        for name, work in cases:
            if arguments.only not in name:
                continue
            rows.setdefault(name, []).append(timed(device, work, arguments.repeats))
            print(f"{device}: {name}: {rows[name][-1]}", flush=True)
    names = [
        torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
        for device in devices
    ]
    lines = [
        f"PyTorch {torch.__version__}, {platform.machine()}; {arguments.size} x {arguments.size} pixels, "
        f"{arguments.coils} coils; median of {arguments.repeats} runs.",
        "",
        f"| work | {' | '.join(names)} |",
        "|---" * (1 + len(devices)) + "|",
        *(f"| {name} | {' | '.join(times)} |" for name, times in rows.items()),
    ]
    table = "\n".join(lines) + "\n"
    print(table)
    if arguments.output is not None:
        arguments.output.write_text(table, encoding="utf-8")


if __name__ == "__main__":
    main()
