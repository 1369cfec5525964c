"""How long until the image is right: the default solver against the paper solver, on the hardest slices.

    python benchmarks/solver_bench.py --data FOLDER --checkpoints FOLDER [--work pd8 ...]

FOLDER holds ``pd/*.npz`` and ``pdfs/*.npz``, the checkpoints are the authors'. For every work the default solver is run here
and now and watched: the time (without the watching) from which on the energy stays within 1 % of that of the converged paper
solver *and* the PSNR no more than 0.05 dB below its PSNR. The paper solver's iteration counts come from its recorded path
(``paper_trace.py``); its seconds an iteration are measured in the same run, with the authors' arithmetic. The machine's GEMM and
copy rates, the time of one iteration against its own limit, peak memory and the cost against size are measured too. Writes
``benchmarks/results/solver.json`` and ``docs/solver.png``.
"""

import argparse
import json
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from validation import AUTHORS_TUNED

from mrisps.io.images import center_crop
from mrisps.io.paper_slices import read_paper_slice
from mrisps.model import Energy, SmoothPlusSparse
from mrisps.operators import FourierSubsampling, Identity
from mrisps.quality.metrics import psnr
from mrisps.reconstruction.recipe import load_recipe
from mrisps.sampling import SamplingMask
from mrisps.solvers import FastSettings, Iterate, PaperSettings, solve, solve_paper

RESULTS = Path(__file__).parent / "results"
FIGURE = Path(__file__).parents[1] / "docs" / "solver.png"
ROUNDS = 3
"""Measurements of one iteration, each beside the machine's rates, of which the median ratio counts, and of the time for each size,
of which the best does: the machine's speed varies."""

Quality = Callable[[Tensor], float]


@dataclass(frozen=True)
class Work:
    """One slice with its weights; beta and lam are the authors' tuned values.

    The paper solver's minimum is one under x >= 0, the default solver's is not. The settings are the recipe's but for those that
    are named here.
    """

    contrast: str
    acceleration: int
    slice_name: str
    weights: str = "sigma_25_NCPR.pth"
    beta: float | None = None
    lam: float | None = None
    iterations: int = 60
    settings: dict[str, float] = field(default_factory=dict)


WORKS = {
    "pd8": Work("pd", 8, "file1000033"),
    "pdfs8": Work("pdfs", 8, "file1000000"),
    "pd16": Work("pd", 16, "file1000033"),
    "pdfs16": Work(
        "pdfs",
        16,
        "file1000000",
        iterations=100,
        settings={"coarse_iterations": 200, "continuation_decay": 0.985, "strided_iterations": 200},
    ),
    "pd8_cpr": Work("pd", 8, "file1000033", "sigma_25_CPR.pth", 0.480868, 0.000272627),
}


def problem(work: Work, data: Path, checkpoints: Path) -> tuple[FourierSubsampling, Tensor, SmoothPlusSparse, Quality]:
    """Operator, measurements, model, and the PSNR of an image (data range 1, clipped at 0, central 320 x 320)."""
    paper_slice = read_paper_slice(data / work.contrast / f"{work.slice_name}.npz")
    mask = SamplingMask.from_array(paper_slice.masks[work.acceleration], paper_slice.kspace.shape)
    operator = FourierSubsampling(mask, domain_dtype=torch.float32)
    y = (torch.from_numpy(paper_slice.kspace) * mask.tensor())[None, None].to(torch.complex64)
    beta, lam = AUTHORS_TUNED[work.contrast, work.acceleration]
    model = SmoothPlusSparse.load(checkpoints / work.weights)
    model = model.with_regularisation(beta=work.beta or beta, lam=work.lam or lam)
    target = paper_slice.target

    def quality(image: Tensor) -> float:
        return psnr(np.maximum(center_crop(image[0, 0].numpy(), target.shape), 0), target, data_range=1.0)

    return operator, y, model, quality


def first_that_stays(path: list[dict[str, float]], energy: float, quality: float) -> int | None:
    """Index from which on energy and PSNR meet the rule to the end of the path."""
    good = [p["E"] <= 1.01 * energy and p["psnr"] >= quality - 0.05 for p in path]
    bad = [i for i, value in enumerate(good) if not value]
    first = bad[-1] + 1 if bad else 0
    return first if first < len(path) else None


def watch_fast(
    operator: FourierSubsampling,
    y: Tensor,
    model: SmoothPlusSparse,
    quality: Quality,
    settings: FastSettings,
) -> tuple[list[dict[str, float]], dict[str, object]]:
    """The path of the default solver: seconds (without the watching), energy where there is one, PSNR."""
    energy = Energy(operator, y, model.prior(torch.float32, "cpu"))
    path: list[dict[str, float]] = []
    started, watching = time.perf_counter(), 0.0

    def monitor(point: Iterate) -> None:
        nonlocal watching
        now = time.perf_counter()
        due = point.iteration % (5 if point.coefficients is not None else 20) == 0 or point.iteration == 1
        if due:
            total = np.inf
            if point.coefficients is not None:
                total = float(energy.value(point.image, point.coefficients).total)
            path.append({"stage": point.stage, "t": now - started - watching, "E": total, "psnr": quality(point.image)})
        watching += time.perf_counter() - now

    result = solve(operator, y, model, settings, monitor=monitor)
    certificate = result.certificate
    facts: dict[str, object] = {
        "seconds": certificate.seconds - watching,
        "psnr": quality(result.image),
        "energy": certificate.energy,
        "status": certificate.status,
        "residual_a": certificate.residual_a,
        "image_change": certificate.image_change,
        "iterations": certificate.n_iterations,
    }
    return path, facts


def with_values(settings: FastSettings, values: dict[str, float]) -> FastSettings:
    """Settings with some of them replaced."""
    return replace(settings, **values)  # type: ignore[arg-type]  # of the right types, as the settings check


def seconds_an_iteration(operator: FourierSubsampling, y: Tensor, model: SmoothPlusSparse) -> float:
    """Of the paper solver with the authors' arithmetic, after warming up."""
    times: list[float] = []
    settings = PaperSettings(max_iterations=7, operator_norm=1.0)
    solve_paper(operator, y, model, settings, progress=lambda k, change: times.append(time.perf_counter()))
    return (times[-1] - times[2]) / (len(times) - 3)


def best_of(function: Callable[[], object], repeats: int = 5) -> float:
    """Seconds."""
    function()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def machine_rates() -> dict[str, float]:
    """GEMM in GF/s (2048 x 2048, float32) and copy in GB/s (bytes read plus bytes written)."""
    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    v = torch.randn(50_000_000)
    w = torch.empty_like(v)
    return {
        "gemm_gflops": 2 * 2048**3 / best_of(lambda: a @ b) / 1e9,
        "copy_gbytes": 8 * v.numel() / best_of(lambda: w.copy_(v)) / 1e9,
    }


def iteration_seconds(model: SmoothPlusSparse, shape: tuple[int, int], batch: int = 1) -> float:
    """One iteration of the full problem, from the difference of two runs."""
    operator = Identity((1, *shape), torch.float32)
    y = torch.rand(batch, 1, *shape, generator=torch.Generator().manual_seed(0))
    stamps: list[float] = []
    settings = FastSettings(max_iterations=9, tolerance=1e-9, trace_interval=0)
    solve(operator, y, model, settings, progress=lambda k, residual: stamps.append(time.perf_counter()))
    return float(np.min(np.diff(stamps)[1:]))


def iteration_against_limit(model: SmoothPlusSparse) -> dict[str, float]:
    """One iteration of a 640 x 368 slice against flops at the GEMM rate plus bytes at the copy rate, measured beside it."""
    pixels, n, r, p2 = 640 * 368, 200, 48, 169
    rates = machine_rates()
    flops, moved = 2 * pixels * (2 * r * n + 2 * r * p2), 4 * pixels * 3 * n
    limit = flops / rates["gemm_gflops"] / 1e9 + moved / rates["copy_gbytes"] / 1e9
    seconds = iteration_seconds(model, (640, 368))
    return {"seconds": seconds, "limit": limit, "ratio": seconds / limit, **rates}


def figure(paths: dict[str, tuple[list[dict[str, float]], list[dict[str, float]], float]]) -> None:
    """PSNR and energy against seconds for the first work."""
    from matplotlib.figure import Figure

    name, (fast, paper, per_iteration) = next(iter(paths.items()))
    drawing = Figure(figsize=(9, 3.6), layout="constrained")
    axes = drawing.subplots(1, 2)
    for axis, key, label in ((axes[0], "psnr", "PSNR / dB"), (axes[1], "E", "energy")):
        points = [p for p in fast if np.isfinite(p[key])]
        axis.semilogx([p["t"] for p in points], [p[key] for p in points], "o-", ms=3, label="mrisps, coarse to fine")
        axis.semilogx([p["k"] * per_iteration for p in paper], [p[key] for p in paper], "-", label="paper solver")
        axis.set_xlabel("seconds")
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
    axes[0].legend()
    axes[1].axhline(1.01 * paper[-1]["E"], color="k", lw=0.8, ls=":")
    axes[0].axhline(paper[-1]["psnr"] - 0.05, color="k", lw=0.8, ls=":")
    axes[1].set_ylim(0.98 * paper[-1]["E"], 1.25 * paper[-1]["E"])
    drawing.suptitle(f"{name}: dotted lines are the rule (1 % of the energy, 0.05 dB)")
    drawing.savefig(FIGURE, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with pd/*.npz and pdfs/*.npz")
    parser.add_argument("--checkpoints", type=Path, required=True, help="folder with the authors' .pth files")
    parser.add_argument("--work", choices=sorted(WORKS), action="append", default=[])
    parser.add_argument(
        "--iterations", type=int, help="of the full problem, to see that the rule stays met; default: 60, pdfs16 100"
    )
    parser.add_argument("--skip-works", action="store_true", help="only the iteration and the scaling, on the terminal")
    parser.add_argument("--skip-scaling", action="store_true", help="no cost against size and batch")
    parser.add_argument("--threads", type=int, default=None)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    rates = machine_rates()
    report: dict[str, object] = {"threads": torch.get_num_threads(), **rates, "works": {}}
    print(
        f"{torch.get_num_threads()} threads, GEMM {rates['gemm_gflops']:.0f} GF/s, copy {rates['copy_gbytes']:.1f} GB/s"
    )
    print(
        "work      paper: PSNR  energy    s/it   it   s | ours: s   PSNR there  best  at the end  energy  residual | times"
    )
    paths = {}
    rows: dict[str, object] = {}
    for name in [] if arguments.skip_works else arguments.work or list(WORKS):
        recorded = RESULTS / f"paper_{name}.jsonl"
        if not recorded.exists():
            print(f"{name}: no recorded path of the paper solver ({recorded.name}); run paper_trace.py")
            continue
        paper = [json.loads(line) for line in recorded.read_text().splitlines()]
        work = WORKS[name]
        operator, y, model, quality = problem(work, arguments.data, arguments.checkpoints)
        settings = replace(load_recipe(f"knee_{work.contrast}_acc{work.acceleration}").solver, stop="stationary")
        settings = with_values(settings, work.settings)
        n_iterations = arguments.iterations or work.iterations
        settings = replace(settings, tolerance=1e-5, max_iterations=n_iterations, trace_interval=0)
        fast, facts = watch_fast(operator, y, model, quality, settings)
        per_iteration = seconds_an_iteration(operator, y, model)
        final = paper[-1]
        there, there_paper = (first_that_stays(path, final["E"], final["psnr"]) for path in (fast, paper))
        assert there_paper is not None
        ours = None if there is None else fast[there]["t"]
        theirs = paper[there_paper]["k"] * per_iteration
        best = max(p["psnr"] for p in fast)
        rows[name] = {
            "paper_iterations": paper[there_paper]["k"],
            "paper_last_iteration": final["k"],
            "paper_seconds_an_iteration": per_iteration,
            "paper_seconds": theirs,
            "paper_energy": final["E"],
            "paper_psnr": final["psnr"],
            "paper_best_psnr": max(p["psnr"] for p in paper),
            "fast_seconds": ours,
            "fast_best_psnr": best,
            "times": None if ours is None else theirs / ours,
            "fast": facts,
            "fast_path": [p if np.isfinite(p["E"]) else {**p, "E": None} for p in fast],
        }
        paths[name] = (fast, paper, per_iteration)
        reached = "not reached" if ours is None else f"{ours:6.1f} {fast[there or 0]['psnr']:8.2f}"
        times = "-" if ours is None else f"{theirs / ours:.0f}"
        print(
            f"{name:8s} {final['psnr']:9.2f} {final['E']:9.5f} {per_iteration:6.2f} {paper[there_paper]['k']:5d} {theirs:6.0f} | "
            f"{reached} {best:8.2f} {facts['psnr']:8.2f} {facts['energy']:9.5f} {facts['residual_a']:8.1e} | {times}",
            flush=True,
        )
    report["works"] = rows
    report["peak_memory_mib_above_start"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10 - base

    model = SmoothPlusSparse.load(arguments.checkpoints / "sigma_25_NCPR.pth")
    rounds = [iteration_against_limit(model) for _ in range(ROUNDS)]
    report["iteration"] = {"rounds": rounds, **sorted(rounds, key=lambda one: one["ratio"])[ROUNDS // 2]}
    for one in rounds:
        print(
            f"one iteration, 640 x 368: {one['seconds']:.3f} s, limit {one['limit']:.3f} s "
            f"({one['gemm_gflops']:.0f} GF/s, {one['copy_gbytes']:.1f} GB/s), ratio {one['ratio']:.2f}"
        )
    if not arguments.skip_scaling:
        cases = [(1, 160), (1, 320), (1, 640), (1, 1280), (4, 160), (16, 160)]
        scaling = dict.fromkeys((f"{batch} x {side}^2" for batch, side in cases), np.inf)
        for _ in range(ROUNDS):
            for batch, side in cases:
                ns = 1e9 * iteration_seconds(model, (side, side), batch) / (side**2 * batch)
                scaling[f"{batch} x {side}^2"] = min(scaling[f"{batch} x {side}^2"], ns)
        for case, ns in scaling.items():
            print(f"{case:>11s}: {ns:.0f} ns a pixel and iteration, the best of {ROUNDS}", flush=True)
        report["ns_a_pixel"] = scaling
    if arguments.skip_works:
        print(json.dumps({key: value for key, value in report.items() if key != "works"}))
        return
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "solver.json").write_text(json.dumps(report, indent=1))
    if paths:
        figure(paths)


if __name__ == "__main__":
    main()
