"""What is lost where a recipe stops because the image has settled: PSNR at every look of a solve that goes on to a minimiser.

    python benchmarks/stopping.py run --data DATA [--battery FOLDER] [--only PATTERN]    measure what is not there yet: hours
    python benchmarks/stopping.py table [--image-change X]

DATA holds ``paper_mri_val``, ``multicoil_kspace``, ``natural/set12`` and ``paper_superres_val``; FOLDER the cases of
``battery.py make``. One line a case in ``results/stopping.jsonl``: (iteration, decibels, what remains) at each look, and where
the certified solve ended. The table applies the rule of ``solver.stop="image"`` to these paths, with the ``image_change`` of the
recipe or another one. Knees: columns of zeros count as not acquired, scale 1. Battery: decibels are -20 log10 of the NRMSE.
"""

import argparse
import fnmatch
import itertools
import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import battery
import multicoil
import numpy as np
import torch
from torch import Tensor
from validation import acquisition

from mrisps.io.images import center_crop, read_image
from mrisps.io.memory import MemoryKspace
from mrisps.operators import BlurDownsample
from mrisps.quality.metrics import psnr
from mrisps.reconstruction.problem import Problem, image_problem, mri_problem, to_array
from mrisps.reconstruction.recipe import certified, load_recipe
from mrisps.reconstruction.weights import find_weights
from mrisps.solvers import Iterate, solve
from mrisps.solvers.fast import CHECK_INTERVAL
from mrisps.solvers.outlook import FASTEST_RATE, PASSES, SLOWEST_RATE

RESULTS = Path(__file__).parent / "results" / "stopping.jsonl"
Case = tuple[str, str, Callable[[], tuple[Problem, Callable[[Tensor], float]]]]
"""Name, recipe, and what gives the problem and the decibels of its image."""


def knee(path: Path, recipe: str, acceleration: int) -> tuple[Problem, Callable[[Tensor], float]]:
    record = acquisition(path, acceleration, without_zeros=True)
    target = record.target
    assert target is not None

    def quality(image: Tensor) -> float:
        return psnr(
            np.maximum(center_crop(image[0, 0].numpy(), target.shape), 0).astype(np.float32), target, data_range=1.0
        )

    return mri_problem(record, load_recipe(recipe), scale=1.0), quality


def of_battery(path: Path) -> tuple[Problem, Callable[[Tensor], float]]:
    case = battery.load(path)
    memory = MemoryKspace(case.data.kspace, mask=case.data.mask, noise=case.data.noise)
    problem = mri_problem(memory.read_slice(0), load_recipe("multicoil"))

    def quality(image: Tensor) -> float:
        return -20 * float(np.log10(battery.score(to_array(problem.combined(image)), case.truth, case.inside)))

    return problem, quality


def brain(case: multicoil.Case, recipe: str) -> tuple[Problem, Callable[[Tensor], float]]:
    memory = MemoryKspace(case.data.kspace, mask=case.data.mask)
    problem = mri_problem(memory.read_slice(0), load_recipe(recipe))

    def quality(image: Tensor) -> float:
        found = multicoil.in_units(to_array(problem.combined(image)), case)
        return multicoil.measured(case, "", None, found, 0.0).psnr

    return problem, quality


def noisy(path: Path, recipe: str, sigma: float) -> tuple[Problem, Callable[[Tensor], float]]:
    clean = read_image(path)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(25)).numpy()
    problem = image_problem((clean + sigma / 255 * noise).astype(np.float32), load_recipe(recipe))
    return problem, lambda image: psnr(np.clip(image[0, 0].numpy(), 0, 1), clean, data_range=1.0)


def small(path: Path, recipe: str, side: int = 192, border: int = 12) -> tuple[Problem, Callable[[Tensor], float]]:
    """The central part of an image, blurred and downsampled."""
    blur = load_recipe(recipe).blur
    assert blur is not None
    clean = center_crop(read_image(path), (side, side))
    operator = BlurDownsample((side, side), blur.kernel_size, blur.sigma, blur.stride)
    low = operator.forward(torch.from_numpy(np.ascontiguousarray(clean))[None, None])
    low = low + 0.01 * torch.randn(low.shape, generator=torch.Generator().manual_seed(25))

    def quality(image: Tensor) -> float:
        found = np.clip(image[0, 0].numpy(), 0, 1)
        inner = tuple(slice(border, n - border) for n in found.shape)
        return psnr(found[inner], clean[: found.shape[0], : found.shape[1]][inner], data_range=1.0)

    return image_problem(low[0, 0].numpy(), load_recipe(recipe)), quality


def cases(data: Path, folder: Path | None) -> Iterator[Case]:
    for contrast, acceleration in itertools.product(("pd", "pdfs"), (8, 16)):
        recipe = f"knee_{contrast}_acc{acceleration}"
        for path in sorted((data / "paper_mri_val" / contrast).glob("*.npz")):
            yield path.stem, recipe, lambda path=path, recipe=recipe, r=acceleration: knee(path, recipe, r)
    for case in multicoil.cases(data / "multicoil_kspace"):
        for recipe in (case.recipe, "multicoil"):
            yield case.name, recipe, lambda case=case, recipe=recipe: brain(case, recipe)
    for path in [] if folder is None else sorted(folder.glob("*.npz")):
        yield path.stem, "multicoil", lambda path=path: of_battery(path)
    pictures = sorted((data / "natural" / "set12").glob("*.png"))
    for path, sigma in itertools.product(pictures, (25, 5, 50, 15)):
        recipe = f"denoise_sigma{sigma}"
        yield path.stem, recipe, lambda path=path, recipe=recipe, sigma=sigma: noisy(path, recipe, sigma)
    for path, factor in itertools.product([*(data / "paper_superres_val").glob("*.png"), *pictures[:7]], (4, 2)):
        yield path.stem, f"superres_x{factor}", lambda path=path, factor=factor: small(path, f"superres_x{factor}")


def path_of(case: Case) -> dict[str, object]:
    """A certified solve, watched."""
    name, recipe_name, build = case
    recipe = certified(load_recipe(recipe_name))
    problem, quality = build()
    model = find_weights(None, recipe, recipe_name).model
    beta, lam = recipe.regularisation_for(problem.noise_std)
    looks: list[tuple[int, float, float | None]] = []
    images: list[Tensor] = []

    def monitor(point: Iterate) -> None:
        if point.stage < point.n_stages or point.iteration % CHECK_INTERVAL:
            return
        images.append(point.image.clone())
        del images[:-3]
        remains = None
        if len(images) == 3:
            before, last = (float(torch.linalg.vector_norm(b - a)) for a, b in itertools.pairwise(images))
            rate = min(max(last / max(before, 1e-300), FASTEST_RATE), SLOWEST_RATE)
            remains = last * rate / (1 - rate) / float(torch.linalg.vector_norm(point.image))
        looks.append((point.iteration, quality(point.image), remains))

    result = solve(
        problem.operator,
        problem.y,
        model.with_regularisation(beta=beta, lam=lam),
        recipe.solver,
        use=recipe.prior_for(problem.operator.domain_shape[-2:], model.config.group_size),
        noise_std=problem.noise_std,
        monitor=monitor,
    )
    certificate = result.certificate
    start = recipe.solver.continuation_start if certificate.n_coarse_iterations == 0 else 1.0
    first = int(np.ceil(np.log(start) / -np.log(recipe.solver.continuation_decay))) + 1
    facts = {"status": certificate.status, "iterations": certificate.n_iterations, "decibels": quality(result.image)}
    return {"case": name, "recipe": recipe_name, **facts, "at_target": first, "looks": looks}


def settled(path: dict[str, object], image_change: float) -> tuple[int, float]:
    """Iterations and decibels where ``stop="image"`` ends; where the certified solve did if that comes first."""
    looks, in_a_row = path["looks"], 0
    assert isinstance(looks, list)
    for iteration, decibels, remains in looks:
        good = remains is not None and remains <= image_change and iteration >= int(str(path["at_target"]))
        in_a_row = in_a_row + 1 if good else 0
        if in_a_row == PASSES:
            return iteration, decibels
    return int(str(path["iterations"])), float(str(path["decibels"]))


def table(paths: list[dict[str, object]], image_change: float | None) -> str:
    groups: dict[str, list[dict[str, object]]] = defaultdict(list)
    for path in paths:
        groups[str(path["recipe"])].append(path)
    lines = []
    for recipe, group in groups.items():
        limit = image_change or load_recipe(recipe).solver.image_change
        losses, shares = [], []
        lines.append(f"{recipe}, image_change {limit:g}")
        for path in group:
            iteration, decibels = settled(path, limit)
            losses.append(float(str(path["decibels"])) - decibels)
            shares.append(iteration / int(str(path["iterations"])))
            lines.append(
                f"  {path['case']!s:40s} {path['decibels']:6.2f} dB after {path['iterations']:4d} it., settled "
                f"{decibels:6.2f} dB after {iteration:4d} it., lost {losses[-1]:+.2f} dB"
            )
        lines.append(
            f"  mean loss {np.mean(losses):+.3f} dB, largest {max(losses):+.2f} dB, {np.mean(shares):.0%} of the iterations"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("run", "table"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--battery", type=Path)
    parser.add_argument("--only", default="*", help="pattern of RECIPE/CASE")
    parser.add_argument("--image-change", type=float)
    arguments = parser.parse_args()
    paths = [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []
    if arguments.command == "table":
        print(table(paths, arguments.image_change))
        return
    done = {(path["recipe"], path["case"]) for path in paths}
    for case in cases(arguments.data, arguments.battery):
        if (case[1], case[0]) in done or not fnmatch.fnmatch(f"{case[1]}/{case[0]}", arguments.only):
            continue
        path = path_of(case)
        with RESULTS.open("a") as stream:
            stream.write(json.dumps(path) + "\n")
        print(f"{case[1]}/{case[0]}: {path['decibels']:.2f} dB after {path['iterations']} iterations", flush=True)


if __name__ == "__main__":
    main()
