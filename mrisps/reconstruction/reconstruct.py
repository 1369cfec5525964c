"""From a problem and a model to an image in input units, and the facts that go with it."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mrisps.io.json_text import JsonValue
from mrisps.model import SmoothPlusSparse
from mrisps.reconstruction.problem import Problem, to_array
from mrisps.reconstruction.recipe import Recipe
from mrisps.reconstruction.together import Progress, solve_problems
from mrisps.reconstruction.verdict import judge
from mrisps.solvers import Reconstruction

__all__ = [
    "image_facts",
    "reconstruct",
    "reconstruct_together",
    "slice_certificate",
    "verdict_facts",
]


def reconstruct(
    problem: Problem, model: SmoothPlusSparse, recipe: Recipe, *, progress: Progress | None = None
) -> Reconstruction:
    """One problem alone; see :func:`reconstruct_together`."""
    return reconstruct_together([problem], model, recipe, progress=progress)[0]


def reconstruct_together(
    problems: Sequence[Problem], model: SmoothPlusSparse, recipe: Recipe, *, progress: Progress | None = None
) -> list[Reconstruction]:
    """Solve problems with a recipe's regularisation and return the images in input units, one result a problem.

    A certificate refers to the scaled problem, and to the image before the recipe's ``nonnegative`` clips it. Images are
    (1, 1, y, x); several sets of maps are combined by :meth:`Problem.combined`. Parameters and errors are those of
    :func:`mrisps.reconstruction.together.solve_problems`.
    """
    results = solve_problems(problems, model, recipe, progress=progress)
    return [_in_input_units(*pair, recipe) for pair in zip(problems, results, strict=True)]


def _in_input_units(problem: Problem, result: Reconstruction, recipe: Recipe) -> Reconstruction:
    image, smooth = result.image, result.smooth
    if recipe.nonnegative and not image.is_complex():
        image = image.clamp(min=0)
    image, smooth = problem.combined(image), problem.combined(smooth)
    return replace(
        result,
        image=image * problem.scale,
        smooth=smooth * problem.scale,
        sparse=(image - smooth) * problem.scale,
    )


def slice_certificate(problem: Problem, result: Reconstruction, recipe: Recipe) -> dict[str, JsonValue]:
    """The solver's certificate with scale, beta, lam, mask and notes, as plain values for JSON."""
    beta, lam = recipe.regularisation_for(problem.noise_std)
    mask = problem.mask
    sampling: JsonValue = None
    if mask is not None:
        sampling = {
            "kind": mask.kind,
            "seed": list(mask.seed) if isinstance(mask.seed, tuple) else mask.seed,
            "nominal_acceleration": mask.acceleration,
            "realised_acceleration": mask.realised_acceleration,
            "acs_lines": mask.n_acs_lines,
            "sha256": mask.sha256,
        }
    facts = image_facts(problem, result)
    verdict = judge(
        {**verdict_facts(problem, result), "edge_energy": float(str(facts["edge_energy"])), **problem.facts},
        status=result.certificate.status,
    )
    certificate: dict[str, JsonValue] = dict(result.certificate.to_dict())  # type: ignore[arg-type]  # asdict: plain values
    return {
        **certificate,
        "scale": problem.scale,
        "noise_std": problem.noise_std,
        "beta": beta,
        "lam": lam,
        "mask": sampling,
        "notes": list(problem.notes),
        "preparation": [dict(step) for step in problem.steps],
        "image": facts,
        "verdict": verdict.to_dict(),  # type: ignore[dict-item]  # plain values
    }


def verdict_facts(problem: Problem, result: Reconstruction) -> dict[str, float | None]:
    """What the verdict looks at, of the data and of the image; None where a fact is unknown.

    Returns
    -------
    dict
        ``late_change``: how much the image would still have changed after ``image_iterations``.
        ``misfit_over_noise``: data misfit over what the noise alone would give. ``misfit_share``: the energy of the misfit without
        that of the noise, over the energy of the measurements. ``unmeasured_energy``: share of the energy of the image's k-space at
        samples that were not measured. ``noise_over_misfit``: of denoising, the stated noise over the misfit.
        ``acceleration_of_lines``: size over lines with any sample, the larger of both axes. ``noise_unknown``: 1 for k-space of
        which neither a noise scan nor its border tells the noise.
    """
    certificate = result.certificate
    found: dict[str, float | None] = {
        "misfit_over_noise": certificate.misfit_ratio,
        "late_change": certificate.late_change,
    }
    measured = float(problem.y.abs().square().sum())
    if certificate.expected_misfit is not None and measured > 0:  # a black image may be denoised
        excess = certificate.data_misfit**2 - certificate.expected_misfit**2
        found["misfit_share"] = max(excess, 0.0) / measured
    if problem.mask is None and problem.operator.domain_shape == problem.operator.range_shape:  # denoising
        found["noise_over_misfit"] = None if not certificate.misfit_ratio else 1 / certificate.misfit_ratio
    if problem.mask is not None:
        mask = problem.mask.array2d()
        spectrum = np.square(np.abs(np.fft.fft2(np.fft.ifftshift(to_array(result.image)), norm="ortho")))
        total = float(spectrum.sum())
        found["noise_unknown"] = float(certificate.expected_misfit is None)
        found["unmeasured_energy"] = float(spectrum[~np.fft.ifftshift(mask)].sum()) / total if total > 0 else 0.0
        found["acceleration_of_lines"] = max(mask.shape[axis] / int(mask.any(axis=1 - axis).sum()) for axis in (0, 1))
    return found


def image_facts(problem: Problem, result: Reconstruction) -> dict[str, JsonValue]:
    """What tells at a glance whether a slice is unusual, measured before any crop.

    Returns
    -------
    dict
        ``peak``: 99.9th percentile of the magnitude, input units. ``peak_over_noise``: the same over the noise standard deviation
        of a measurement, None where that is unknown. ``edge_energy``: mean of the squared magnitude in the outermost 2 % of the
        columns on each side, over its mean in the whole image; with a two-dimensional mask the larger of that and the same for
        rows. An object that is larger than the field of view folds over and leaves energy there. ``cost_mean``, ``cost_p99``:
        mean and 99th percentile of the cost map.
    """
    magnitude = np.abs(to_array(result.image)).astype(np.float64)
    cost = to_array(result.cost_map)
    energy = magnitude**2
    mean = float(energy.mean())
    axes = (1, 0) if problem.mask is not None and not problem.mask.is_columns else (1,)
    edges = []
    for axis in axes:
        n_edge = max(1, energy.shape[axis] // 50)
        profile = energy.mean(axis=1 - axis)
        edges.append(float(np.concatenate([profile[:n_edge], profile[-n_edge:]]).mean()))
    peak = float(np.percentile(magnitude, 99.9))
    noise = problem.noise_std
    return {
        "peak": peak,
        "peak_over_noise": peak / problem.scale / noise if noise else None,
        "edge_energy": max(edges) / mean if mean > 0 else 0.0,
        "cost_mean": float(cost.mean()),
        "cost_p99": float(np.percentile(cost, 99)),
    }
