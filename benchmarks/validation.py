"""PSNR on the paper's validation slices: zero filling, SigPy and BART (total variation, l1-wavelet), the fast and the paper solver.

    python benchmarks/validation.py --data FOLDER --weights sigma_25_NCPR.pth --method fast --output results/validation.jsonl
    python benchmarks/validation.py --output results/validation.jsonl --table

FOLDER holds ``pd/*.npz`` and ``pdfs/*.npz`` (10 slices each; not part of the project, see data_manifests/paper_mri.toml). Every
result is a line of JSON and is written as soon as it is there; what is already in the file is not computed again. The
regularisation is what the paper's authors tuned on these slices for NCPR weights, or with ``--own`` that of the weights; the images
are real and in their own units (scale 1), as in the paper. PSNR is with data range 1 on the central 320 x 320.

About a third of the columns that the paper's masks call acquired hold nothing but zeros, which the paper takes as measured. With
``--without-zeros`` they count as not acquired.
"""

import argparse
import json
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from peers import bart_pics, cpu_seconds

from mrisps.io.acquisition import Acquisition
from mrisps.io.images import center_crop
from mrisps.io.paper_slices import read_paper_slice
from mrisps.model import SmoothPlusSparse
from mrisps.quality import baselines
from mrisps.quality.metrics import psnr, ssim
from mrisps.reconstruction.problem import mri_problem, to_array
from mrisps.reconstruction.recipe import load_recipe, with_overrides
from mrisps.reconstruction.reconstruct import reconstruct, slice_certificate
from mrisps.solvers import PaperSettings, solve_paper

AUTHORS_TUNED = {
    ("pd", 8): (0.0189763, 0.0013139),
    ("pdfs", 8): (0.011783, 0.00110485),
    ("pd", 16): (0.000515129, 0.000602426),
    ("pdfs", 16): (0.015, 0.001),
}
"""beta and lam for NCPR weights, from ``best_hyperparams.txt`` of the repository StanislasDucotterd/Smooth_Plus_Sparse_Model."""
SETTINGS = list(AUTHORS_TUNED)
METHODS = ("zero-filled", "tv", "wavelet", "bart-tv", "bart-wavelet", "fast", "paper")


BART = {"bart-tv": "T", "bart-wavelet": "W"}


def acquisition(path: Path, acceleration: int, without_zeros: bool = False) -> Acquisition:
    """The undersampled slice as a record."""
    paper_slice = read_paper_slice(path)
    mask = paper_slice.masks[acceleration]
    if without_zeros:
        mask = mask & (paper_slice.kspace != 0).any(axis=0)
    return Acquisition(
        kspace=(paper_slice.kspace * mask)[None].astype(np.complex64),
        source=path,
        mask=mask,
        target=paper_slice.target,
        image_is_real=True,
    )


def run(method: str, path: Path, contrast: str, acceleration: int, arguments: argparse.Namespace) -> dict[str, object]:
    """One result."""
    record = acquisition(path, acceleration, arguments.without_zeros)
    beta, lam = AUTHORS_TUNED[contrast, acceleration]
    recipe = replace(load_recipe(f"knee_{contrast}_acc{acceleration}"), beta=beta, lam=lam)
    recipe = with_overrides(
        recipe, {"prior.stride": str(arguments.stride), **dict(item.split("=", 1) for item in arguments.set)}
    )
    problem = mri_problem(record, recipe, scale=1.0)
    assert record.target is not None
    assert record.mask is not None
    started, processor_started = time.perf_counter(), cpu_seconds()
    extra: dict[str, object] = {}
    image: NDArray[np.float32]
    if method == "zero-filled":
        image = baselines.zero_filled(record.kspace).real
    elif method == "tv":
        lam = arguments.tv_lambda
        image = baselines.total_variation(record.kspace, record.mask, lam, arguments.tv_iterations).real
        extra = {"lambda": lam, "iterations": arguments.tv_iterations}
    elif method == "wavelet":
        image = baselines.l1_wavelet(record.kspace, record.mask, arguments.wavelet_lambda).real
        extra = {"lambda": arguments.wavelet_lambda}
    elif method in BART:
        kind, lam = BART[method], getattr(arguments, method.replace("-", "_") + "_lambda")
        image = bart_pics(record.kspace, np.ones_like(record.kspace)[None], f"{kind}:7:0:{lam:g}").real
        extra = {"lambda": lam}
    else:
        model = SmoothPlusSparse.load(arguments.weights)
        if arguments.without_attention or method == "paper":
            model = model.with_attention(None)
        if arguments.own:
            recipe = replace(recipe, beta=float(model.beta.detach()), lam=model.lam)
        if method == "fast":
            result = reconstruct(problem, model, recipe)
        else:
            result = solve_paper(
                problem.operator,
                problem.y,
                model.with_regularisation(beta=recipe.beta, lam=recipe.lam),
                PaperSettings(
                    tolerance=arguments.paper_tolerance,
                    max_iterations=arguments.paper_iterations,
                    operator_norm=1.0,
                    factored=True,
                    trace_interval=200,
                ),
                noise_std=problem.noise_std,
            )
        extra = {
            "weights": arguments.weights.stem,
            "beta": recipe.beta,
            "lam": recipe.lam,
            "stride": recipe.prior.stride if method == "fast" else 1,
        }
        extra |= slice_certificate(problem, result, recipe)
        image = to_array(result.image).astype(np.float32)
    seconds, processor = time.perf_counter() - started, cpu_seconds() - processor_started
    shape = (record.target.shape[0], record.target.shape[1])
    image = np.maximum(center_crop(image, shape), 0).astype(np.float32)
    return {
        "method": method,
        "contrast": contrast,
        "acceleration": acceleration,
        "slice": path.stem,
        "without_zeros": arguments.without_zeros,
        "without_attention": arguments.without_attention,
        "psnr": psnr(image, record.target, data_range=1.0),
        "ssim": ssim(image, record.target, data_range=1.0),
        "seconds": seconds,
        "processor_seconds": processor,
        "threads": torch.get_num_threads(),
        **extra,
    }


def variant(result: dict[str, object]) -> str:
    """Method, weights, whose beta and lam, patches that count, and what counts as measured."""
    tuned = AUTHORS_TUNED.get((str(result["contrast"]), int(str(result["acceleration"]))), (0.0, 0.0))
    own = "own beta" if not np.isclose(float(str(result.get("beta", tuned[0]))), tuned[0], rtol=1e-4) else ""
    zeros = "without zeros" if result.get("without_zeros") else ""
    attention = "without attention" if result.get("without_attention") else ""
    stride = f"stride {result['stride']}" if result.get("stride", 1) != 1 else ""
    return ", ".join(
        str(part) for part in (result["method"], result.get("weights", ""), own, stride, attention, zeros) if part
    )


def table(results: list[dict[str, object]]) -> str:
    """Means of every setting and method, and the difference fast - paper on the slices that have both."""
    groups: dict[tuple[object, ...], list[dict[str, object]]] = defaultdict(list)
    for result in results:
        groups[result["contrast"], result["acceleration"], variant(result)].append(result)
    methods = sorted(
        {variant(result) for result in results}, key=lambda name: (METHODS.index(name.split(",")[0]), name)
    )
    width = max(len(name) for name in methods)
    lines = [f"setting    {'method':{width}s} slices   PSNR/dB    SSIM   seconds  iterations  converged"]
    for contrast, acceleration in SETTINGS:
        for method in methods:
            group = groups.get((contrast, acceleration, method))
            if not group:
                continue

            def mean(key: str, group: list[dict[str, object]] = group) -> float:
                return float(np.mean([float(str(result.get(key, "nan"))) for result in group]))

            solved = [result for result in group if "status" in result]
            converged = f"{sum(r['status'] == 'converged' for r in solved):4d}/{len(solved)}" if solved else "-"
            iterations = f"{mean('n_iterations'):10.0f}" if solved else " " * 10
            lines.append(
                f"{contrast + ' x' + str(acceleration):10s} {method:{width}s} {len(group):6d} {mean('psnr'):9.3f} "
                f"{mean('ssim'):8.4f} {mean('seconds'):8.1f} {iterations} {converged:>10s}"
            )
        here = [
            result for result in results if (result["contrast"], result["acceleration"]) == (contrast, acceleration)
        ]
        for paper in (result for result in here if result["method"] == "paper"):
            for ours in (
                r for r in here if r["slice"] == paper["slice"] and variant(r) == variant({**paper, "method": "fast"})
            ):
                gain = float(str(ours["psnr"])) - float(str(paper["psnr"]))
                energy = float(str(ours["energy"])) / float(str(paper["energy"])) - 1
                lines.append(f"{'':10s} fast - paper on {paper['slice']}: {gain:+.3f} dB, energy {100 * energy:+.3f} %")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with pd/*.npz and pdfs/*.npz")
    parser.add_argument("--weights", type=Path, help="weights for fast and paper")
    parser.add_argument("--method", choices=METHODS, action="append", default=[])
    parser.add_argument(
        "--setting", action="append", default=[], help="contrast:acceleration, e.g. pd:8; default: all four"
    )
    parser.add_argument("--slices", type=int, default=None, help="only the first so many of each contrast")
    parser.add_argument("--first", type=int, default=0, help="begin with this slice of each contrast")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a value of the recipes"
    )
    parser.add_argument(
        "--stride", type=int, default=2, help="1: every patch counts, as in the paper; 2: the recipes' choice"
    )
    parser.add_argument("--own", action="store_true", help="beta and lam of the weights instead of the recipes'")
    parser.add_argument("--without-zeros", action="store_true", help="columns of zeros count as not acquired")
    parser.add_argument("--without-attention", action="store_true", help="weights without the attention that they have")
    parser.add_argument("--tv-lambda", type=float, default=0.006, help="about what the authors tuned for TV")
    parser.add_argument("--tv-iterations", type=int, default=1000)
    parser.add_argument("--wavelet-lambda", type=float, default=0.006)
    parser.add_argument("--bart-tv-lambda", type=float, default=0.004)
    parser.add_argument("--bart-wavelet-lambda", type=float, default=0.004)
    parser.add_argument("--paper-tolerance", type=float, default=1e-5)
    parser.add_argument("--paper-iterations", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--output", type=Path, required=True, help="JSON lines, appended to")
    parser.add_argument("--table", action="store_true", help="print the table of what is in the output file")
    arguments = parser.parse_args()
    for key in ("prior.stride", "beta", "lam"):
        if any(item.startswith(f"{key}=") for item in arguments.set):
            parser.error(f"--set {key}: use --stride, or --own and weights with another {key}")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    known = (
        [json.loads(line) for line in arguments.output.read_text().splitlines()] if arguments.output.exists() else []
    )
    done = {(variant(r), r["contrast"], r["acceleration"], r["slice"]) for r in known}
    chosen = [tuple(item.split(":")) for item in arguments.setting] or [(c, str(a)) for c, a in SETTINGS]
    last = None if arguments.slices is None else arguments.first + arguments.slices
    own_beta = float(SmoothPlusSparse.load(arguments.weights).beta.detach()) if arguments.own else 0.0
    for method in arguments.method:
        for contrast, acceleration in chosen:
            for path in sorted((arguments.data / contrast).glob("*.npz"))[arguments.first : last]:
                wanted: dict[str, object] = {
                    "method": method,
                    "contrast": contrast,
                    "acceleration": acceleration,
                    "without_zeros": arguments.without_zeros,
                    "without_attention": arguments.without_attention,
                }
                if method in ("fast", "paper"):
                    wanted["weights"] = arguments.weights.stem
                    wanted["stride"] = arguments.stride if method == "fast" else 1
                    if arguments.own:
                        wanted["beta"] = own_beta
                if (variant(wanted), contrast, int(acceleration), path.stem) in done:
                    continue
                result = run(method, path, contrast, int(acceleration), arguments)
                with arguments.output.open("a") as stream:
                    stream.write(json.dumps(result) + "\n")
                known.append(result)
                print(
                    f"{method} {contrast} x{acceleration} {path.stem}: {result['psnr']:.3f} dB, {result['seconds']:.1f} s, "
                    f"{result.get('n_iterations', '-')} iterations, {result.get('status', '-')}",
                    flush=True,
                )
    if arguments.table:
        print(table(known))


if __name__ == "__main__":
    main()
