"""The authors' hypergradients beside ours: cosine and ratio of norms, for each of their four checkpoints.

    python benchmarks/authors_gradients.py --reference FOLDER --checkpoints FOLDER

FOLDER of references: ``{sigma_5,sigma_25}_{NCPR,CPR}.npz``, what their public code gives on one 48 x 48 image (not part of the
project): the noisy image, its restoration, the mean absolute error and the gradient of that error by their implicit
differentiation (Broyden's method, 50 steps or 1e-6). Ours is computed in float64 at a minimiser to a stationarity of 1e-8 with the
adjoint system solved to 1e-6, where that can be had. The two belong to different minimisers of the non-convex energy, so this
is a comparison, and no test. Writes ``benchmarks/results/authors_gradients.json``.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from mrisps import solve_with_gradient
from mrisps.bilevel import AdjointReport, AdjointSettings
from mrisps.model import SmoothPlusSparse
from mrisps.operators import Identity
from mrisps.solvers import FastSettings

NAMES = ("sigma_25_NCPR", "sigma_5_NCPR", "sigma_25_CPR", "sigma_5_CPR")
PAIRS = {
    "raw_synthesis_atoms": "grad_atoms",
    "raw_free_atoms": "grad_free_atoms",
    "log_thresholds": "grad_prox.scaling_lmbda",
    "beta": "grad_beta",
}
RESULTS = Path(__file__).parent / "results" / "authors_gradients.json"


def compare(
    name: str, reference: Path, checkpoints: Path, iterations: int, adjoint_iterations: int
) -> dict[str, object]:
    """One checkpoint."""
    model = SmoothPlusSparse.load(checkpoints / f"{name}.pth").double()
    with np.load(reference / f"{name}.npz") as file:
        vectors = {key: torch.from_numpy(file[key]).double() for key in file.files if file[key].dtype.kind == "f"}
    reports: list[AdjointReport] = []
    image = solve_with_gradient(
        Identity((48, 48), torch.float64),
        vectors["denoise_noisy"][None, None],
        model,
        FastSettings(tolerance=1e-8, max_iterations=iterations, image_change=1e-6, trace_interval=0),
        AdjointSettings(1e-6, adjoint_iterations, "record"),
        report=lambda _, report: reports.append(report),
    )
    loss = (image - vectors["image"]).abs().mean()
    loss.backward()
    row: dict[str, object] = {
        "loss": float(loss.detach()),
        "authors_loss": float(vectors["denoise_loss"]),
        "image_difference": float((image.detach()[0, 0] - vectors["denoise_image"]).abs().max()),
        "adjoint_iterations": reports[0].n_iterations,
        "adjoint_residual": float(np.max(reports[0].relative_residual)),
    }
    convex = model.config.regulariser == "CPR"
    for ours, theirs in PAIRS.items():
        gradient = getattr(model, ours).grad
        assert gradient is not None
        a, b = gradient.flatten(), vectors[theirs].flatten()
        if ours == "log_thresholds" and convex:
            b = -b  # their convex threshold falls with this parameter
        cosine = float(torch.nn.functional.cosine_similarity(a, b, dim=0))
        row[ours] = {"cosine": cosine, "norm_ratio": float(a.norm() / b.norm())}
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, required=True)
    parser.add_argument("--checkpoints", type=Path, required=True)
    parser.add_argument("--iterations", type=int, default=3000)
    parser.add_argument("--adjoint-iterations", type=int, default=1000)
    arguments = parser.parse_args()
    rows: dict[str, object] = {}
    for name in NAMES:
        row = compare(
            name, arguments.reference, arguments.checkpoints, arguments.iterations, arguments.adjoint_iterations
        )
        rows[name] = row
        print(name, json.dumps(row), flush=True)
        RESULTS.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
