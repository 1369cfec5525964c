"""The fast solver against the paper solver on one full 640 x 368 slice, 8-fold, same energy, same machine, one run.

    python benchmarks/solver_speed.py [--data SLICE.npz --weights sigma_25_NCPR.pth] [--factor 5]

The fast solver runs to its tolerance and takes T seconds. Then each form of the paper solver (the authors' arithmetic, and the same
iteration with the factored dictionary) runs for ``factor`` x T seconds; it is slower by more than that factor if its energy is then
still higher. Without --data the slice is the demonstration's head, enlarged to 640 x 368, and the weights are derived.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

from mrisps.io.images import center_crop
from mrisps.io.paper_slices import read_paper_slice
from mrisps.model import SmoothPlusSparse
from mrisps.model.derived_weights import derived_weights
from mrisps.operators import FourierSubsampling
from mrisps.quality.metrics import psnr
from mrisps.reconstruction.demo import head_slice
from mrisps.reconstruction.recipe import certified, load_recipe
from mrisps.sampling import SamplingMask, make_mask
from mrisps.solvers import PaperSettings, Reconstruction, solve, solve_paper


def problem(arguments: argparse.Namespace) -> tuple[FourierSubsampling, torch.Tensor, np.ndarray, SmoothPlusSparse]:
    """Operator, measurements, target, model."""
    mask: SamplingMask
    if arguments.data is not None:
        paper_slice = read_paper_slice(arguments.data)
        mask = SamplingMask.from_array(paper_slice.masks[8], paper_slice.kspace.shape)
        kspace, target = torch.from_numpy(paper_slice.kspace), paper_slice.target
        model = SmoothPlusSparse.load(arguments.weights)
        recipe = load_recipe("knee_pd_acc8")
    else:
        from skimage.transform import resize

        target = resize(head_slice(), (640, 368)).astype(np.float32)
        mask = make_mask("random", target.shape, 8, 0.04, seed=0)
        full = FourierSubsampling(torch.ones(368, dtype=torch.bool), (640, 368), torch.float32)
        generator = torch.Generator().manual_seed(0)
        kspace = full.forward(torch.from_numpy(target)[None, None])[0, 0]
        kspace = kspace + 0.005 * torch.randn(kspace.shape, dtype=kspace.dtype, generator=generator)
        model = derived_weights(print)
        recipe = load_recipe("head_acc8")
    operator = FourierSubsampling(mask, domain_dtype=torch.float32)
    y = (kspace * mask.tensor())[None, None].to(torch.complex64)
    return operator, y, target, model.with_regularisation(beta=recipe.beta, lam=recipe.lam)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=None, help="one of the paper's slices (npz)")
    parser.add_argument("--weights", type=Path, default=None, help="the authors' NCPR weights, with --data")
    parser.add_argument("--factor", type=float, default=5.0)
    parser.add_argument("--skip-factored", action="store_true", help="only the authors' arithmetic")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--output", type=Path, default=None, help="write the rows as JSON")
    arguments = parser.parse_args()
    if (arguments.data is None) != (arguments.weights is None):
        parser.error("--data and --weights go together")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    operator, y, target, model = problem(arguments)
    settings = certified(load_recipe("knee_pd_acc8")).solver
    rows = []

    def row(name: str, result: Reconstruction, seconds: float) -> None:
        image = np.maximum(center_crop(result.image[0, 0].numpy(), target.shape), 0)
        certificate = result.certificate
        rows.append(
            {
                "solver": name,
                "seconds": seconds,
                "iterations": certificate.n_iterations,
                "status": certificate.status,
                "energy": certificate.energy,
                "residual_a": certificate.residual_a,
                "psnr": psnr(image, target, data_range=1.0),
            }
        )
        print(
            f"{name:28s} {seconds:8.1f} s {certificate.n_iterations:6d} it {seconds / certificate.n_iterations:7.3f} s/it "
            f"energy {certificate.energy:.6f}  residual {certificate.residual_a:.1e}  PSNR {rows[-1]['psnr']:.3f} dB  "
            f"{certificate.status}",
            flush=True,
        )

    print(f"{operator!r}, {torch.get_num_threads()} threads")
    started = time.perf_counter()
    fast = solve(operator, y, model, settings)
    seconds = time.perf_counter() - started
    row("fast", fast, seconds)
    forms = [("paper (authors' arithmetic)", False), ("paper (factored)", True)]
    for name, factored in forms[: 1 if arguments.skip_factored else 2]:
        times: list[float] = []
        solve_paper(
            operator,
            y,
            model,
            PaperSettings(max_iterations=8, operator_norm=1.0, factored=factored),
            progress=lambda k, change, times=times: times.append(time.perf_counter()),
        )
        per_iteration = (times[-1] - times[2]) / (
            len(times) - 3
        )  # after warming up, without what comes before and after
        n = max(1, int(arguments.factor * seconds / per_iteration))
        started = time.perf_counter()
        paper = solve_paper(operator, y, model, PaperSettings(max_iterations=n, operator_norm=1.0, factored=factored))
        elapsed = time.perf_counter() - started
        row(name, paper, elapsed)
        excess = 100 * (paper.certificate.energy / fast.certificate.energy - 1)
        print(f"    after {elapsed / seconds:.1f} times the time of the fast solver its energy is {excess:+.2f} % off")
    if arguments.output is not None:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
