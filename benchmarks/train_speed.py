"""Seconds a training step: the trainer, backpropagation through the iterations, and the authors' recipe, side by side.

    python benchmarks/train_speed.py --data FOLDER --weights FILE [--threads N]

One batch of noisy crops (16 of 40 x 40, standard deviation 25 of 255), the same weights and the same loss for all. Each way runs in
a process of its own, so that its peak memory is its own:

    cold, warm   the step of the recipe: on a batch that is seen for the first time, and when it is its turn again
    accurate     forward until as stationary as the result of the authors' recipe, adjoint to 1e-2
    unrolled     autograd through the iterations of ``cold``
    authors      their algorithm with their arithmetic to an image change of 1e-4, from a = 0; then Broyden's method for the adjoint
                 of one of its steps, 50 steps or 1e-6. Broyden's method is written out below (the "good" one, limited memory,
                 every update kept, the best iterate returned), in our words, as is everything else.

``reference`` is ours, forward to 1e-5 and adjoint to 1e-6, or as far as the caps allow. The adjoint residual is that of the same
system for all, the symmetrised one at the point where the forward pass ended; for ours also that of the system that it solves,
whose slopes are capped at 1 (away from a minimum the other one can be indefinite). Gradients are compared by their cosine, for D, Q
and thresholds: with the one of an adjoint to 1e-6 of the system in question at the same point (is the linear system solved?), and
with the reference (is it the gradient of the minimum?). All pairs are in ``benchmarks/results/train.json``.

The step of Adam, a few milliseconds, is left out. Backpropagation is done a few crops at a time, since its memory would not fit
otherwise; what all crops at once would take is the measured peak times the number of pieces.
"""

import argparse
import json
import math
import multiprocessing
import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from mrisps.bilevel import Accuracy, AdjointSettings, Batch, Hypergradient, TrainSettings, hypergradient, image_loss
from mrisps.model import Energy, PatchTransform, SmoothPlusSparse
from mrisps.model.atoms import patch_basis
from mrisps.reconstruction.recipe import load_recipe
from mrisps.solvers import PaperSettings, minimise, solve_paper
from mrisps.solvers.image_step import ImageStep
from mrisps.training.data import CropSamples, Measurement, read_training_images
from mrisps.training.run import TrainRecipe

RESULTS = Path(__file__).parent / "results"
LOSS = "L2"
REFERENCE = Accuracy(iterations=400, tolerance=1e-5, adjoint_iterations=200, adjoint_tolerance=1e-6)
HERE = 60
"""Further iterations for the adjoint at the same point."""
COMPARED = ("raw_synthesis_atoms", "raw_free_atoms", "log_thresholds")


@dataclass(frozen=True)
class Task:
    """What a process needs to know."""

    name: str
    data: Path
    weights: Path
    threads: int
    settings: TrainSettings
    accuracy: Accuracy
    count: int
    crop: int
    piece: int
    processor_time: bool
    max_slope: float = 1.0

    def clock(self) -> float:
        """Seconds."""
        return time.process_time() if self.processor_time else time.perf_counter()


@dataclass(frozen=True)
class Outcome:
    """What it found; gradients by the name of the parameter."""

    forward: float
    backward: float
    iterations: float
    adjoint_iterations: int
    stationarity: float
    adjoint_residual: float
    own_residual: float
    here_residual: float
    peak_mib: float
    gradients: dict[str, Tensor]
    here: dict[str, Tensor]


@dataclass(frozen=True)
class Step:
    """A training step, before it is judged."""

    forward: float
    backward: float
    iterations: float
    adjoint_iterations: int
    image: Tensor
    coefficients: Tensor
    gradients: dict[str, Tensor]
    adjoint: Tensor | None


def problem(task: Task) -> tuple[Batch, SmoothPlusSparse]:
    """The same for every process."""
    images, _ = read_training_images([task.data], (task.crop, task.crop))
    samples = CropSamples(images, Measurement("denoise", 25 / 255), (task.crop, task.crop), 0, torch.device("cpu"))
    return samples.batch(0, 0, task.count), SmoothPlusSparse.load(task.weights)


def image_gradient(image: Tensor, target: Tensor) -> Tensor:
    """dL/dx."""
    image = image.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(image_loss(LOSS, image, target), image)
    return gradient


def named(gradient: Hypergradient) -> dict[str, Tensor]:
    return {name: getattr(gradient, name).detach().clone() for name in (*COMPARED, "beta")}


# --------------------------------------------------------------------------------------------------------------- ours


def ours(task: Task, batch: Batch, model: SmoothPlusSparse) -> Step:
    """The trainer's step: the functions that it is made of, in its order."""
    start = adjoint = step = None
    # "warm": what is kept from the visit before (in float16, as the trainer has it). The weights stand still in between.
    for visit in range(3 if task.name == "warm" else 1):
        accuracy = replace(task.accuracy, iterations=task.settings.warm_iterations) if visit else task.accuracy
        started = task.clock()
        energy = Energy(batch.operator, batch.y, model.prior(torch.float32))
        solver = replace(
            task.settings.solver,
            tolerance=accuracy.tolerance,
            max_iterations=accuracy.iterations,
            image_change=1.0,
            trace_interval=0,
        )
        minimum = minimise(energy, solver, start=start)
        middle = task.clock()
        gradient = hypergradient(
            energy,
            model,
            minimum.image_step,
            minimum.coefficients,
            image_gradient(minimum.image, batch.target),
            AdjointSettings(accuracy.adjoint_tolerance, accuracy.adjoint_iterations, "record", task.max_slope),
            start=adjoint,
        )
        ended = task.clock()
        step = Step(
            middle - started,
            ended - middle,
            int(minimum.n_iterations.max()),
            gradient.report.n_iterations,
            minimum.image,
            minimum.coefficients,
            named(gradient),
            gradient.adjoint,
        )
        if task.name == "warm":
            scale = float(gradient.adjoint.abs().max())
            start, adjoint = minimum.coefficients.half(), (gradient.adjoint / scale).half().float() * scale
    assert step is not None
    return step


# ----------------------------------------------------------------------------------------------------------- unrolled


def transfer_of(free: Tensor, side: int, shape: torch.Size) -> Tensor:
    """p(f) = p^2 - sum_i |DFT(q_i)|^2 - |DFT(1)|^2 / p^2: of sum_k Phat_k^T Phat_k, with a gradient for Q."""
    taken = torch.cat([free, free.new_full((1, side * side), 1 / side)]).view(-1, side, side)
    return side**2 - torch.fft.fft2(taken, s=shape[-2:]).abs().square().sum(0)


def unrolled(task: Task, batch: Batch, model: SmoothPlusSparse) -> Step:
    """Piece by piece; the gradient is the mean."""
    pieces = [
        backpropagated(task, Batch(batch.operator, y, target), model)
        for y, target in zip(batch.y.split(task.piece), batch.target.split(task.piece), strict=True)
    ]
    gradients = {
        name: sum((len(p.image) / task.count * p.gradients[name] for p in pieces), torch.zeros(()))
        for name in (*COMPARED, "beta")
    }
    return Step(
        sum(p.forward for p in pieces),
        sum(p.backward for p in pieces),
        task.accuracy.iterations,
        0,
        torch.cat([p.image for p in pieces]),
        torch.cat([p.coefficients for p in pieces]),
        gradients,
        None,
    )


def backpropagated(task: Task, batch: Batch, model: SmoothPlusSparse) -> Step:
    """The iterations of the fast solver, with exact image steps, recorded by autograd."""
    side = model.config.patch_size
    started = task.clock()
    theta = model.constrained()
    free, atoms, beta, thresholds = (
        value.float() for value in (theta.free_atoms, theta.synthesis_atoms, theta.beta, theta.thresholds)
    )
    # B P with B held: of its own only B^T B counts, and to first order P B^T B P changes as the projector P does.
    projector = torch.eye(side**2) - free.T @ free - 1 / side**2
    basis = patch_basis(free.detach()) @ projector
    transform = PatchTransform(basis.view(-1, side, side))
    factors = basis @ atoms.T
    regulariser = replace(model.prior(torch.float32).regulariser, thresholds=thresholds)
    denominator = 1 + beta * transfer_of(free, side, batch.y.shape)

    def image_of(prediction: Tensor) -> Tensor:
        return torch.fft.ifft2(torch.fft.fft2(batch.y + beta * transform.adjoint(prediction)) / denominator).real

    a = previous = batch.y.new_zeros(len(batch.y), *batch.y.shape[-2:], len(atoms))
    image = image_of(a @ factors.T)
    misfit = previous_misfit = transform.forward(image)
    for k in range(1, task.accuracy.iterations + 1):
        inertia = (k - 1) / (k + 2)
        extrapolated = torch.lerp(previous, a, 1 + inertia)
        slope = torch.lerp(previous_misfit, misfit, 1 + inertia)
        previous, previous_misfit = a, misfit
        a = regulariser.prox(extrapolated + beta * (slope @ factors))
        prediction = a @ factors.T
        image = image_of(prediction)
        misfit = transform.forward(image) - prediction
    middle = task.clock()
    parameters = {name: getattr(model, name) for name in (*COMPARED, "beta")}
    gradients = torch.autograd.grad(image_loss(LOSS, image, batch.target), list(parameters.values()))
    ended = task.clock()
    found = dict(zip(parameters, gradients, strict=True))
    return Step(middle - started, ended - middle, task.accuracy.iterations, 0, image.detach(), a.detach(), found, None)


# ------------------------------------------------------------------------------------------------------------ authors


def authors(task: Task, batch: Batch, model: SmoothPlusSparse) -> Step:
    """Their forward pass; then u = J^T u + (dL/dx, 0) for the Jacobian J of one step (without inertia), and u^T dstep/dtheta."""
    settings = PaperSettings.training()
    started = task.clock()
    result = solve_paper(batch.operator, batch.y, model, settings, keep_coefficients=True)
    forward = task.clock() - started  # with its certificate, which costs about one iteration
    iterations = sum(certificate.n_iterations for certificate in result.certificates) / task.count
    assert result.coefficients is not None

    started = task.clock()
    theta = model.constrained(settings.beta_floor)
    free, atoms, beta, thresholds = (
        value.float() for value in (theta.free_atoms, theta.synthesis_atoms, theta.beta, theta.thresholds)
    )
    x, a = result.image.detach().requires_grad_(), result.coefficients.detach().requires_grad_()
    held = paper_step(model, batch, free.detach(), atoms.detach(), beta.detach(), thresholds.detach(), x, a)
    loss_gradient = image_gradient(result.image, batch.target)

    def residual(u: Tensor) -> Tensor:
        u_x, u_a = split(u, x, a)
        back = torch.autograd.grad(held, (x, a), (u_x, u_a), retain_graph=True)
        return join(back[0] + loss_gradient, back[1]) - u

    u, n_steps = broyden(residual, torch.zeros_like(join(x, a)), max_steps=50, tolerance=1e-6)
    u_x, u_a = split(u.detach(), x, a)
    moved = paper_step(model, batch, free, atoms, beta, thresholds, x.detach(), a.detach())
    parameters = {name: getattr(model, name) for name in (*COMPARED, "beta")}
    gradients = torch.autograd.grad(moved, list(parameters.values()), (u_x, u_a))
    backward = task.clock() - started

    # What stands before T in u^T dstep/dtheta is the u of the system with the image eliminated; u~ = T'^1/2 u.
    with torch.no_grad():
        transform, lipschitz = dense_parts(model, free, atoms, beta, x)
        pulled = u_a + beta * transform.forward(u_x) / lipschitz
        prior = model.prior(torch.float32)
        v = a + prior.beta * (transform.forward(x) - a @ (atoms @ atoms.T))
        adjoint = prior.regulariser.derivative_root(v)(pulled)
    found = dict(zip(parameters, gradients, strict=True))
    return Step(forward, backward, iterations, n_steps, result.image, result.coefficients, found, adjoint[:, None])


def dense_parts(
    model: SmoothPlusSparse, free: Tensor, atoms: Tensor, beta: Tensor, x: Tensor
) -> tuple[PatchTransform, float]:
    side = model.config.patch_size
    largest = float((beta * transfer_of(free, side, x.shape)).detach().max())
    return PatchTransform(atoms.view(-1, side, side)), 1.01 * largest


def paper_step(
    model: SmoothPlusSparse,
    batch: Batch,
    free: Tensor,
    atoms: Tensor,
    beta: Tensor,
    thresholds: Tensor,
    x: Tensor,
    a: Tensor,
) -> tuple[Tensor, Tensor]:
    """One step of iPALM without inertia for A = I, with the n atoms themselves; L is held."""
    transform, lipschitz = dense_parts(model, free, atoms, beta, x)
    regulariser = replace(model.prior(torch.float32).regulariser, thresholds=thresholds)
    updated = regulariser.prox(a - beta * (a @ (atoms @ atoms.T) - transform.forward(x)))
    transfer = transfer_of(free, model.config.patch_size, x.shape)
    smooth = torch.fft.ifft2(transfer * torch.fft.fft2(x)).real - transform.adjoint(updated)
    return x - (x - batch.y + beta * smooth) / lipschitz, updated


def join(x: Tensor, a: Tensor) -> Tensor:
    """(batch, numbers of an image)."""
    return torch.cat([x.flatten(1), a.flatten(1)], dim=1)


def split(u: Tensor, x: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    n = x[0].numel()
    return u[:, :n].view(x.shape), u[:, n:].view(a.shape)


def broyden(
    function: Callable[[Tensor], Tensor], start: Tensor, max_steps: int, tolerance: float
) -> tuple[Tensor, int]:
    """A root of a function, each entry of the batch on its own, from the inverse Jacobian -I; the best iterate of all.

    Source: C. G. Broyden, Math. Comp. 19 (1965) 577-593; inverse kept as rank-one updates.
    """
    n_entries, n = start.shape
    lefts, rights = (start.new_empty(n_entries, max_steps, n) for _ in range(2))
    count = 0

    def updated_by(first: Tensor, second: Tensor, g: Tensor) -> Tensor:
        """-g + sum of first <second, g>; one entry after the other, since batched products are several times slower."""
        if count == 0:
            return -g
        out = torch.empty_like(g)
        for entry in range(n_entries):
            weights = second[entry, :count].mv(g[entry])
            torch.addmv(g[entry], first[entry, :count].T, weights, beta=-1, out=out[entry])
        return out

    def dot(p: Tensor, q: Tensor) -> Tensor:
        return (p * q).sum(dim=1, keepdim=True)

    u = best = start
    g = function(u)
    lowest = math.inf
    for step in range(1, max_steps + 1):
        change = -updated_by(lefts, rights, g)
        u = u + change
        updated = function(u)
        size = float(torch.linalg.vector_norm(updated))
        if size < lowest:
            lowest, best = size, u
        if size <= tolerance * float(torch.linalg.vector_norm(updated + u)):
            return best, step
        difference = updated - g
        right = updated_by(rights, lefts, change)
        left = (change - updated_by(lefts, rights, difference)) / dot(right, difference)
        lefts[:, count] = torch.where(left.isfinite(), left, 0.0)
        rights[:, count] = right
        count += 1
        g = updated
    return best, max_steps


# ------------------------------------------------------------------------------------------------------------ judging


def run(task: Task) -> Outcome:
    """One way, in a process of its own."""
    torch.set_num_threads(task.threads)
    batch, model = problem(task)
    functional.conv2d(torch.rand(1, 1, 40, 40), torch.rand(8, 1, 13, 13))  # libraries are loaded now
    torch.fft.rfft2(torch.rand(40, 40))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ways = {"unrolled": unrolled, "authors": authors}
    step = ways.get(task.name, ours)(task, batch, model)
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10
    if task.name == "unrolled":
        peak *= task.count / min(task.count, task.piece)

    energy = Energy(batch.operator, batch.y, model.prior(torch.float32))
    _, stationarity = energy.residuals(step.image, step.coefficients)
    gradient = image_gradient(step.image, batch.target)
    image_step = ImageStep(energy)

    def solved(settings: AdjointSettings, start: Tensor | None) -> Hypergradient:
        return hypergradient(energy, model, image_step, step.coefficients, gradient, settings, start=start)

    residual = own_residual = here_residual = math.nan
    here = step.gradients
    own_slope = math.inf if task.name == "authors" else task.max_slope
    if step.adjoint is not None:  # an adjoint solve that is content with anything only looks at the residual
        content = AdjointSettings(1e30, 1, "record")
        residual = max(solved(content, step.adjoint).report.relative_residual)
        own_residual = max(solved(replace(content, max_slope=own_slope), step.adjoint).report.relative_residual)
    if task.name not in ("reference", "unrolled"):
        accurate = AdjointSettings(REFERENCE.adjoint_tolerance, HERE, "record", own_slope)
        better = solved(accurate, step.adjoint)
        here, here_residual = named(better), max(better.report.relative_residual)
    return Outcome(
        step.forward,
        step.backward,
        step.iterations,
        step.adjoint_iterations,
        float(stationarity.max()),
        residual,
        own_residual,
        here_residual,
        peak,
        step.gradients,
        here,
    )


def cosine(one: Tensor, other: Tensor) -> float:
    return float(functional.cosine_similarity(one.flatten().double(), other.flatten().double(), dim=0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of grey images")
    parser.add_argument("--weights", type=Path, required=True, help="start weights, .safetensors or .pth")
    parser.add_argument(
        "--recipe", default="train_denoise_sigma25_ncpr", help="whose accuracies are those of cold, warm"
    )
    parser.add_argument("--way", action="append", default=[], help="only these (default: all)")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--crop", type=int, default=40)
    parser.add_argument("--piece", type=int, default=4, help="crops at a time in backpropagation")
    parser.add_argument(
        "--processor-time", action="store_true", help="not wall-clock time: for one thread on a machine that is busy"
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--output", type=Path, default=RESULTS / "train.json")
    arguments = parser.parse_args()
    settings = load_recipe(arguments.recipe, TrainRecipe).train
    base = Task(
        "",
        arguments.data,
        arguments.weights,
        arguments.threads,
        settings,
        settings.accuracy(settings.n_steps // 2),
        arguments.batch,
        arguments.crop,
        arguments.piece,
        arguments.processor_time,
    )
    outcomes: dict[str, Outcome] = {}
    for name in ("authors", "cold", "warm", "accurate", "unrolled", "reference"):
        if arguments.way and name not in arguments.way:
            continue
        task = replace(base, name=name)
        if name == "reference":
            task = replace(task, accuracy=REFERENCE, max_slope=math.inf)
        if name == "accurate":
            target = outcomes["authors"].stationarity if "authors" in outcomes else 1e-3
            task = replace(task, accuracy=Accuracy(1000, target, 300, 1e-2))
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            outcomes[name] = pool.submit(run, task).result()
        report(outcomes, arguments, settings)  # as far as it is


def report(outcomes: dict[str, Outcome], arguments: argparse.Namespace, settings: TrainSettings) -> None:
    """The table, and the same as JSON."""
    theirs = outcomes.get("authors")
    rows: dict[str, dict[str, float]] = {}
    pairs: dict[str, dict[str, list[float]]] = {}
    print(
        f"\n{arguments.batch} crops of {arguments.crop} x {arguments.crop}, threads: {arguments.threads}, "
        f"{'processor' if arguments.processor_time else 'wall-clock'} time"
    )
    print("           seconds                   iterations         stationary  adjoint residual     peak   times")
    print("           forward backward  total   forward adjoint    to          of all      own       MiB   quicker")
    for name, outcome in outcomes.items():
        total = outcome.forward + outcome.backward
        times = math.nan if theirs is None else (theirs.forward + theirs.backward) / total
        rows[name] = {
            "forward_seconds": outcome.forward,
            "backward_seconds": outcome.backward,
            "total_seconds": total,
            "iterations": outcome.iterations,
            "adjoint_iterations": outcome.adjoint_iterations,
            "stationarity": outcome.stationarity,
            "adjoint_residual": outcome.adjoint_residual,
            "adjoint_residual_own": outcome.own_residual,
            "adjoint_residual_of_the_comparison": outcome.here_residual,
            "peak_mib": outcome.peak_mib,
            "times_quicker_than_authors": times,
        }
        print(
            f"{name:10s} {outcome.forward:7.2f} {outcome.backward:8.2f} {total:6.2f} {outcome.iterations:9.0f} "
            f"{outcome.adjoint_iterations:7d} {outcome.stationarity:10.1e} {outcome.adjoint_residual:10.1e} "
            f"{outcome.own_residual:10.1e} {outcome.peak_mib:8.0f} {times:7.1f}"
        )
    print("\ncosine of the gradients of D, Q, thresholds")
    print("           adjoint to 1e-6 here (it reached)   reference              unrolled               authors")
    for name, outcome in outcomes.items():
        compared = {"here": outcome.here, **{other: outcomes[other].gradients for other in outcomes}}
        pairs[name] = {
            other: [cosine(outcome.gradients[key], gradients[key]) for key in COMPARED]
            for other, gradients in compared.items()
        }
        shown = [
            " ".join(f"{value:6.3f}" for value in pairs[name][other]) if other in pairs[name] else " " * 20
            for other in ("here", "reference", "unrolled", "authors")
        ]
        if not outcome.here_residual < 0.1:  # not positive definite there, or far from solved: nothing to compare with
            shown[0] = " " * 20
        print(f"{name:10s} {shown[0]} ({outcome.here_residual:7.1e})      " + "   ".join(shown[1:]))
    plain: dict[str, object] = {
        "threads": arguments.threads,
        "processor_time": arguments.processor_time,
        "batch": arguments.batch,
        "crop": arguments.crop,
        "recipe": arguments.recipe,
        "weights": SmoothPlusSparse.load(arguments.weights).fingerprint(),
        "cosines_of": COMPARED,
        "cosines": pairs,
        "ways": {
            name: {key: value if math.isfinite(value) else None for key, value in row.items()}
            for name, row in rows.items()
        },
    }
    if "cold" in rows and "warm" in rows and settings.warm_batches:
        rounds = math.ceil(settings.n_steps / settings.checkpoint_interval)
        share = rounds * min(settings.warm_batches, settings.checkpoint_interval) / settings.n_steps
        mean = share * rows["cold"]["total_seconds"] + (1 - share) * rows["warm"]["total_seconds"]
        plain["recipe_mean_seconds"] = mean
        print(f"mean of the recipe ({100 * share:.0f} % of its steps are cold): {mean:.2f} s a step", end="")
        if theirs is not None:
            times = (theirs.forward + theirs.backward) / mean
            plain["recipe_times_quicker"] = times
            print(f", {times:.1f} times quicker than the authors' recipe", end="")
        print()
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(plain, indent=1) + "\n")


if __name__ == "__main__":
    main()
