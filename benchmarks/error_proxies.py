"""How well two error estimates without a reference follow the true error, on the paper's validation slices at 8-fold acceleration.

    python benchmarks/error_proxies.py FOLDER [--rows 96] [--parts 3] [--tolerance 3e-3] [--without-zeros] [--output FILE.json]

FOLDER holds ``pd/*.npz`` and ``pdfs/*.npz`` (10 slices each; not part of the project, see data_manifests/paper_mri.toml). Each
slice is reconstructed once from all of its columns and once without each part of those outside the centre, with the recipes
knee_{pd,pdfs}_acc8, every patch, and beta and lam as the authors tuned them for weights of this kind. To save time only the
central rows are kept (the readout is fully sampled: the image is cut there, before anything else), and the tolerance is looser
than the recipe's. Every slice is written to the output as soon as it is done, and what is in there is not computed again.
Spearman's rank correlation with the NMSE is given for each contrast and for both together; the interval is that of a bootstrap
over slices. For comparison: the number of acquired lines within 40 of the centre, which is known before anything is reconstructed.

About a third of the columns that the paper's masks call acquired hold nothing but zeros, which the paper takes as measured. With
``--without-zeros`` they count as not acquired.
"""

import argparse
import dataclasses
import json
import time
from pathlib import Path

import numpy as np
import torch
from validation import AUTHORS_TUNED

from mrisps.atomic import write_text
from mrisps.io.acquisition import Acquisition
from mrisps.io.images import center_crop
from mrisps.io.paper_slices import read_paper_slice
from mrisps.kspace.coil_maps import to_image, to_kspace
from mrisps.model import PriorUse, SmoothPlusSparse
from mrisps.quality.error_proxies import error_proxies
from mrisps.quality.metrics import nmse
from mrisps.quality.scores import spearman
from mrisps.reconstruction.problem import mri_problem, to_array
from mrisps.reconstruction.recipe import load_recipe
from mrisps.reconstruction.reconstruct import reconstruct

PROXIES = ("held_out_kspace_error", "held_out_share", "spread")
CENTRAL = 40
Row = dict[str, float | str]


def eight_fold(path: Path, without_zeros: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """K-space (y, x), mask (x,) and target of a slice."""
    paper_slice = read_paper_slice(path)
    mask = paper_slice.masks[8]
    if without_zeros:
        mask = mask & (paper_slice.kspace != 0).any(axis=0)
    return paper_slice.kspace, mask, paper_slice.target


def central_lines(path: Path, without_zeros: bool) -> int:
    """Acquired lines within 40 of the centre: what the mask alone says of a slice."""
    _, mask, _ = eight_fold(path, without_zeros)
    return int(mask[len(mask) // 2 - CENTRAL : len(mask) // 2 + CENTRAL].sum())


def measure(path: Path, contrast: str, model: SmoothPlusSparse, arguments: argparse.Namespace) -> Row:
    full, mask, target = eight_fold(path, arguments.without_zeros)
    rows = arguments.rows
    hybrid = to_image(full, (0,))  # (y, x): image along the readout
    first = hybrid.shape[0] // 2 - rows // 2
    kspace = to_kspace(hybrid[first : first + rows], (0,)) * mask
    target = center_crop(target, (rows, target.shape[1]))
    record = Acquisition(kspace[None].astype(np.complex64), path, mask=mask, image_is_real=True)
    beta, lam = AUTHORS_TUNED[contrast, 8]
    recipe = dataclasses.replace(load_recipe(f"knee_{contrast}_acc8"), beta=beta, lam=lam, prior=PriorUse())
    solver = dataclasses.replace(recipe.solver, tolerance=arguments.tolerance, image_change=0.3)
    recipe = dataclasses.replace(recipe, solver=solver)
    problem = mri_problem(record, recipe, scale=1.0)
    started, processor = time.perf_counter(), time.process_time()
    result = reconstruct(problem, model, recipe)
    found = error_proxies(problem, model, recipe, n_parts=arguments.parts)
    image = center_crop(to_array(result.image), target.shape).astype(np.float32)
    return {
        "contrast": contrast,
        "slice": path.stem,
        "nmse": nmse(image, np.ascontiguousarray(target)),
        **{name: float(getattr(found, name)) for name in PROXIES},
        "n_converged": found.n_converged + int(result.converged),
        "seconds": time.perf_counter() - started,
        "processor_seconds": time.process_time() - processor,
    }


def correlations(rows: list[Row]) -> dict[str, dict[str, list[float]]]:
    """Group -> proxy -> [rank correlation with the NMSE, low, high]."""
    found: dict[str, dict[str, list[float]]] = {}
    generator = np.random.default_rng(0)
    for group in ("pd", "pdfs", "both"):
        chosen = [row for row in rows if group in ("both", row["contrast"])]
        if len(chosen) < 3:
            continue
        errors = np.array([float(row["nmse"]) for row in chosen])
        found[group] = {}
        for name in (*PROXIES, "central_lines"):
            values = np.array([float(row[name]) for row in chosen])
            draws = generator.integers(0, len(chosen), size=(2000, len(chosen)))
            low, high = np.nanquantile([spearman(values[draw], errors[draw]) for draw in draws], [0.025, 0.975])
            found[group][name] = [round(float(value), 3) for value in (spearman(values, errors), low, high)]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with pd/*.npz and pdfs/*.npz")
    parser.add_argument("--weights", default="denoise_sigma25_ncpr")
    parser.add_argument("--rows", type=int, default=96)
    parser.add_argument("--parts", type=int, default=3)
    parser.add_argument("--tolerance", type=float, default=3e-3)
    parser.add_argument("--without-zeros", action="store_true", help="columns of zeros count as not acquired")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/error_proxies.json"))
    arguments = parser.parse_args()
    model = SmoothPlusSparse.load(arguments.weights)
    conditions = {
        "weights": arguments.weights,
        "rows": arguments.rows,
        "parts": arguments.parts,
        "tolerance": arguments.tolerance,
        "without_zeros": arguments.without_zeros,
        "threads": torch.get_num_threads(),
    }
    rows: list[Row] = []
    if arguments.output.exists():
        known = json.loads(arguments.output.read_text())
        rows = known["slices"] if known["conditions"] == conditions else []
    done = {(row["contrast"], row["slice"]) for row in rows}
    paths = [
        [(contrast, path) for path in sorted((arguments.data / contrast).glob("*.npz"))] for contrast in ("pd", "pdfs")
    ]
    for contrast, path in (pair for pairs in zip(*paths, strict=True) for pair in pairs):
        if (contrast, path.stem) not in done:
            lines = central_lines(path, arguments.without_zeros)
            rows.append({**measure(path, contrast, model, arguments), "central_lines": lines})
            print(json.dumps(rows[-1]), flush=True)
        content = {"conditions": conditions, "spearman_with_nmse": correlations(rows), "slices": rows}
        write_text(arguments.output, json.dumps(content, indent=1) + "\n")
    for group, by_name in correlations(rows).items():
        for name, (value, low, high) in by_name.items():
            print(f"{group:5s} {name:22s} {value:6.3f}  [{low:.3f}, {high:.3f}]")


if __name__ == "__main__":
    main()
