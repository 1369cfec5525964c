"""Energy and PSNR of the paper solver along its whole path, once and for all: the reference of ``solver_bench.py``.

    python benchmarks/paper_trace.py --data FOLDER --checkpoints FOLDER [--work pd8] [--iterations 6000]

FOLDER holds ``pd/*.npz`` and ``pdfs/*.npz``, the checkpoints are the authors'. Every 25 iterations a line of JSON goes to
``benchmarks/results/paper_<work>.jsonl``: k, E, psnr, change. The iteration is that of ``solve_paper`` with the factored
dictionary, which differs from the authors' arithmetic by rounding only; half an hour (8-fold) to an hour (16-fold) on one core.
"""

import argparse
import json
from pathlib import Path

import torch
from solver_bench import RESULTS, WORKS, problem

from mrisps.model import Energy
from mrisps.solvers import PaperSettings, solve_paper

INTERVAL = 25


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--checkpoints", type=Path, required=True)
    parser.add_argument("--work", choices=sorted(WORKS), action="append", default=[])
    parser.add_argument("--iterations", type=int, default=6000)
    parser.add_argument("--threads", type=int, default=None)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    RESULTS.mkdir(parents=True, exist_ok=True)
    for name in arguments.work or sorted(WORKS):
        operator, y, model, quality = problem(WORKS[name], arguments.data, arguments.checkpoints)
        energy = Energy(operator, y, model.prior(torch.float32, "cpu"))
        path = RESULTS / f"paper_{name}.jsonl"
        path.write_text("")
        changes: list[float] = []

        def watch(
            k: int,
            image: torch.Tensor,
            coefficients: torch.Tensor,
            energy: Energy = energy,
            changes: list[float] = changes,
            path: Path = path,
            quality: object = quality,
        ) -> None:
            if k % INTERVAL == 0:
                line = {
                    "k": k,
                    "E": float(energy.value(image, coefficients).total),
                    "psnr": quality(image),  # type: ignore[operator]  # bound late on purpose
                    "change": changes[-1] if changes else None,
                }
                with path.open("a") as stream:
                    stream.write(json.dumps(line) + "\n")

        settings = PaperSettings(max_iterations=arguments.iterations, operator_norm=1.0, factored=True)
        solve_paper(operator, y, model, settings, progress=lambda k, change, c=changes: c.append(change), monitor=watch)


if __name__ == "__main__":
    main()
