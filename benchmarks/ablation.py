"""What each part of the prior is worth: short trainings that differ in one thing each.

    python benchmarks/ablation.py --data FOLDER --validation FOLDER [--row NAME ...]
    python benchmarks/ablation.py --table --figure

Denoising with noise of standard deviation 25 (of 255). FOLDER holds grey images: those of ``--data`` are trained on, the centres of
those of ``--validation`` judge. Every row starts from the same seed and sees the same number of crops; what a row changes is in
``ROWS``. A line of JSON is appended as soon as a row is trained; what is in the file already is not trained again. These trainings
are far too short to show what a prior can reach: they show what it is worth after so many steps.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mrisps.bilevel import Accuracy, TrainSettings, train
from mrisps.model import ModelConfig, SmoothPlusSparse
from mrisps.model.derived_weights import localised, random_atoms
from mrisps.solvers import FastSettings
from mrisps.training.data import (
    CropSamples,
    Measurement,
    TrainingImage,
    read_training_images,
    validation_batches,
)

RESULTS = Path(__file__).parent / "results" / "ablation.jsonl"
FIGURE = Path(__file__).parents[1] / "docs" / "ablation.png"
MEASUREMENT = Measurement("denoise", 25 / 255)
N_PATCHES = 40_000
"""Patches that the start is clustered from, however many images there are."""


@dataclass(frozen=True)
class Row:
    """One training.

    Parameters
    ----------
    group, label
        Where it is in the table.
    config
        Sizes and regulariser.
    basis
        Of the free atoms: ``"learned"``, or ``"DCT"``: the lowest frequencies of the discrete cosine transform, kept as they are.
    start
        Of all other atoms: ``"data"`` or ``"random"``.
    n_images
        How many of the training images are used, the first ones of a shuffle that is the same for all rows.
    """

    group: str
    label: str
    config: ModelConfig
    basis: str = "learned"
    start: str = "data"
    n_images: int = 400


FULL = ModelConfig(regulariser="NCPR", exponent=1.8)
ROWS = {
    "full": Row("reference", "NCPR, 120 of 168 directions free, 200 atoms", FULL),
    "random": Row("start", "random atoms", FULL, start="random"),
    "dct120": Row("free atoms", "fixed DCT, 120", FULL, basis="DCT"),
    "dct35": Row("free atoms", "fixed DCT, 35", replace(FULL, n_free_atoms=35), basis="DCT"),
    "learned35": Row("free atoms", "learned, 35", replace(FULL, n_free_atoms=35)),
    "none": Row("free atoms", "none (m = 0)", replace(FULL, n_free_atoms=0)),
    "n50": Row("size of D", "50 atoms", replace(FULL, n_synthesis_atoms=50)),
    "n100": Row("size of D", "100 atoms", replace(FULL, n_synthesis_atoms=100)),
    "cpr": Row("regulariser", "CPR", replace(FULL, regulariser="CPR", group_size=2)),
    "images1": Row("training images", "1", FULL, n_images=1),
    "images10": Row("training images", "10", FULL, n_images=10),
    "images50": Row("training images", "50", FULL, n_images=50),
}


def dct_atoms(side: int, count: int) -> NDArray[np.float64]:
    """The lowest frequencies of the two-dimensional DCT but the constant, (count, side, side)."""
    k = np.arange(side)
    rows = np.cos(np.pi * (k[None, :] + 0.5) * k[:, None] / side)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    order = sorted(((u, v) for u in k for v in k), key=lambda f: (f[0] ** 2 + f[1] ** 2, f))
    return np.stack([np.outer(rows[u], rows[v]) for u, v in order[1 : count + 1]])


def first_model(row: Row, images: Sequence[TrainingImage], lam: float, seed: int) -> SmoothPlusSparse:
    """Where a row starts from."""
    pixels = [image.pixels for image in images]
    if row.start == "data":
        model = localised(pixels, row.config, lam=lam, n_patches=N_PATCHES, seed=seed)
    else:
        model = random_atoms(pixels, row.config, lam=lam, seed=seed)
    if row.basis == "DCT":
        side = row.config.patch_size
        with torch.no_grad():
            model.raw_free_atoms.copy_(torch.from_numpy(dct_atoms(side, row.config.n_free_atoms)))
            if (
                row.start == "data"
            ):  # atoms that were made for another complement: the axes of the new one take their place
                model.raw_synthesis_atoms.copy_(data_atoms(pixels, model, seed))
    return model


def data_atoms(images: Sequence[NDArray[np.float32]], model: SmoothPlusSparse, seed: int) -> torch.Tensor:
    """Patches of the images, (n, p, p): whitened in what the free atoms leave, so that no direction is missing."""
    rng = np.random.default_rng(seed)
    side, n = model.config.patch_size, model.config.n_synthesis_atoms
    patches = []
    for _ in range(20 * n):
        image = images[rng.integers(len(images))]
        y, x = (rng.integers(size - side + 1) for size in image.shape)
        patches.append(image[y : y + side, x : x + side].ravel().astype(np.float64))
    basis = model.prior(torch.float64).basis.numpy()
    points = np.stack(patches) @ basis.T
    values, axes = np.linalg.eigh(points.T @ points / len(points))
    points = points @ (axes @ np.diag(np.maximum(values, 1e-6 * values[-1]) ** -0.5) @ axes.T)
    strongest = np.argsort(-np.linalg.norm(points, axis=1))[:n]
    return torch.from_numpy((points[strongest] @ basis).reshape(n, side, side)).float()


def run(name: str, images: Sequence[TrainingImage], validation: Sequence[TrainingImage], a: argparse.Namespace) -> dict:
    """Train a row and say how it went."""
    row = ROWS[name]
    shuffled = [images[i] for i in np.random.default_rng(0).permutation(len(images))]
    chosen = shuffled[: row.n_images]
    model = first_model(row, chosen, a.lam, a.seed)
    accuracy = Accuracy(a.iterations, tolerance=1e-3, adjoint_iterations=a.adjoint_iterations, adjoint_tolerance=0.1)
    settings = TrainSettings(
        n_steps=a.steps,
        batch_size=a.batch,
        learning_rate=4e-3,
        learning_rate_thresholds=2e-2,
        hold=0.5,
        start_accuracy=accuracy,
        end_accuracy=accuracy,
        validation_interval=a.interval,
        validation_solver=FastSettings(
            tolerance=1e-3, max_iterations=a.validation_iterations, image_change=1.0, trace_interval=0
        ),
        fixed="free_atoms" if row.basis == "DCT" else None,
        seed=a.seed,
    )
    device = torch.device("cpu")
    samples = CropSamples(chosen, MEASUREMENT, (a.crop, a.crop), a.seed, device)
    batches = validation_batches(validation, MEASUREMENT, (a.validation_crop, a.validation_crop), a.seed, device)
    started = time.perf_counter()
    residuals: list[float] = []
    state = train(model, samples, batches, settings, on_step=lambda step: residuals.append(step.adjoint_residual))
    return {
        "name": name,
        "seed": a.seed,
        "lam": a.lam,
        "images": len(chosen),
        "validation_images": len(validation),
        "validation": state.validation,
        "best_psnr": state.best_psnr,
        "last_psnr": state.validation[-1][1],
        "skipped": state.n_skipped,
        "median_adjoint_residual": float(np.median(residuals)),
        "beta": float(model.beta.detach()),
        "seconds": time.perf_counter() - started,
        "threads": torch.get_num_threads(),
        "config": asdict(row.config),
        "steps": a.steps,
        "batch": a.batch,
        "crop": a.crop,
        "validation_crop": a.validation_crop,
        "iterations": a.iterations,
    }


def table(results: list[dict]) -> str:
    """Markdown: PSNR before and after, and the difference from the full model."""
    known = {result["name"]: result for result in results}
    reference = known.get("full")
    lines = [
        "| | | start / dB | after the last step / dB | against the reference / dB |",
        "|---|---|---|---|---|",
    ]
    for name, row in ROWS.items():
        if name not in known:
            continue
        result = known[name]
        difference = "" if reference is None else f"{result['last_psnr'] - reference['last_psnr']:+.2f}"
        lines.append(
            f"| {row.group} | {row.label} | {result['validation'][0][1]:.2f} | {result['last_psnr']:.2f} "
            f"| {'' if name == 'full' else difference} |"
        )
    return "\n".join(lines)


def figure(results: list[dict], path: Path) -> None:
    """What the start saves (validation PSNR against steps), and all rows side by side."""
    from matplotlib.figure import Figure

    known = {result["name"]: result for result in results}
    drawing = Figure(figsize=(10, 4), layout="constrained")
    left, right = drawing.subplots(1, 2)
    for name, label in (("full", "start from data"), ("random", "random atoms")):
        if name in known:
            steps, psnr = zip(*known[name]["validation"], strict=True)
            left.plot(steps, psnr, "o-", ms=4, label=label)
    left.set_xlabel("steps")
    left.set_ylabel("validation PSNR / dB")
    left.set_title("what the start saves")
    left.grid(alpha=0.3)
    left.legend()
    shown = [name for name in ROWS if name in known][::-1]
    values = [known[name]["last_psnr"] for name in shown]
    labels = ["reference" if n == "full" else f"{ROWS[n].group}: {ROWS[n].label}" for n in shown]
    colours = ["C1" if name == "full" else "C0" for name in shown]
    right.scatter(values, range(len(shown)), c=colours, zorder=3)
    if "full" in known:
        right.axvline(known["full"]["last_psnr"], color="C1", lw=0.8, ls=":")
    right.set_yticks(range(len(shown)), labels)
    right.set_xlabel("validation PSNR after the last step / dB")
    right.grid(alpha=0.3, axis="x")
    drawing.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of grey images to train on")
    parser.add_argument("--validation", type=Path, help="folder of grey images that judge")
    parser.add_argument("--row", choices=list(ROWS), action="append", default=[], help="default: all, with --data")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--interval", type=int, default=20, help="steps between two looks at the validation images")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--crop", type=int, default=40)
    parser.add_argument("--validation-crop", type=int, default=64)
    parser.add_argument("--iterations", type=int, default=40, help="of the solver in a step")
    parser.add_argument("--adjoint-iterations", type=int, default=10)
    parser.add_argument("--validation-iterations", type=int, default=60)
    parser.add_argument("--lam", type=float, default=0.008, help="unit of the thresholds at the start")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--output", type=Path, default=RESULTS, help="JSON lines, appended to")
    parser.add_argument("--table", action="store_true", help="print the table of what is in the output file")
    parser.add_argument("--figure", action="store_true", help=f"draw {FIGURE.name} of it")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    output: Path = arguments.output
    results = [json.loads(line) for line in output.read_text().splitlines()] if output.exists() else []
    if arguments.data is not None:
        if arguments.validation is None:
            parser.error("--data needs --validation")
        images, _ = read_training_images([arguments.data], (arguments.crop, arguments.crop))
        size = (arguments.validation_crop, arguments.validation_crop)
        validation, _ = read_training_images([arguments.validation], size)
        done = {(result["name"], result["seed"]) for result in results}
        output.parent.mkdir(parents=True, exist_ok=True)
        for name in arguments.row or list(ROWS):
            if (name, arguments.seed) in done:
                continue
            result = run(name, images, validation, arguments)
            with output.open("a") as stream:
                stream.write(json.dumps(result) + "\n")
            results.append(result)
            looks = ", ".join(f"{psnr:.2f} ({step})" for step, psnr in result["validation"])
            print(f"{name}: PSNR / dB (steps) {looks}; {result['seconds']:.0f} s", flush=True)
    elif arguments.row:
        parser.error("--row needs --data and --validation")
    shown = [result for result in results if result["seed"] == arguments.seed]
    if arguments.table:
        print(table(shown))
    if arguments.figure:
        figure(shown, FIGURE)


if __name__ == "__main__":
    main()
