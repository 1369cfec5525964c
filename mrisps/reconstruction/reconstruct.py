"""From a record (or an image) and a recipe to a reconstruction: one path for every task.

Acquisition or image  --(recipe: mask, scale)-->  Problem: operator, y, scale, noise level
Problem + model       --(recipe: beta, lam, solver)-->  Reconstruction in the units of the input
"""

import functools
import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mrisps._version import __version__, code_commit
from mrisps.errors import MrispsError
from mrisps.io.acquisition import Acquisition, Geometry
from mrisps.io.arrays import ArrayLayout
from mrisps.io.fastmri import JsonValue, ReconstructionWriter
from mrisps.io.manifest import sha256_of
from mrisps.io.open import open_slices
from mrisps.model import SmoothPlusSparse
from mrisps.reconstruction.problem import Problem, mri_problem, to_array
from mrisps.reconstruction.recipe import Recipe
from mrisps.sampling import SamplingMask
from mrisps.solvers import Reconstruction, solve

__all__ = ["UnusableResultError", "mask_from_zeros", "reconstruct", "reconstruct_file"]

Progress = Callable[[int, float], None]


class UnusableResultError(MrispsError):
    """The solver ended with NaN or infinity: there is no image to write."""


def reconstruct(
    problem: Problem,
    model: SmoothPlusSparse,
    recipe: Recipe,
    *,
    start: Tensor | None = None,
    keep_coefficients: bool = False,
    progress: Progress | None = None,
) -> Reconstruction:
    """Solve a problem with a recipe's regularisation and return the images in the units of the input.

    The certificate refers to the scaled problem, and to the image before the recipe's ``nonnegative`` clips it; ``start`` and
    ``keep_coefficients`` are those of :func:`mrisps.solvers.solve`.

    Raises
    ------
    UnusableResultError
        The solver met NaN or infinity.
    ValueError
        Model and image do not fit together, for example an odd image size and CPR's 2 x 2 groups.
    """
    result = solve(
        problem.operator,
        problem.y,
        model.with_regularisation(beta=recipe.beta, lam=recipe.lam),
        recipe.solver,
        use=recipe.prior_for(problem.operator.domain_shape[-2:], model.config.group_size),
        noise_std=problem.noise_std,
        start=start,
        keep_coefficients=keep_coefficients,
        progress=progress,
    )
    for certificate in result.certificates:
        if certificate.status in ("nonfinite", "diverging"):
            what = "met NaN or infinity" if certificate.status == "nonfinite" else "diverged"
            raise UnusableResultError(
                f"the solver {what} after {certificate.n_iterations} iterations; no image is written"
            )
    image, smooth = result.image, result.smooth
    if recipe.nonnegative and not image.is_complex():
        image = image.clamp(min=0)
    if problem.factor is not None:
        image, smooth = image * problem.factor, smooth * problem.factor
    return replace(
        result,
        image=image * problem.scale,
        smooth=smooth * problem.scale,
        sparse=(image - smooth) * problem.scale,
    )


def provenance(
    recipe: Recipe, model: SmoothPlusSparse, weights: str, source: Path, device: torch.device | str
) -> dict[str, JsonValue]:
    """What a result depends on, for its attributes: versions, recipe, weights, input, machine."""
    return {
        "software": {
            "mrisps": __version__,
            "commit": code_commit(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
        "recipe": {**recipe.to_dict(), "sha256": recipe.sha256()},  # type: ignore[dict-item]  # asdict: plain values
        "weights": {"name": weights, "sha256": model.fingerprint()},
        "input": {"name": source.name, "sha256": sha256_of(source)},
        "machine": {
            "python": platform.python_version(),
            "system": platform.system(),
            "processor": _processor(),
            "cores": os.cpu_count(),
            "device": str(device),
            "threads": torch.get_num_threads(),
        },
    }


@functools.cache
def _processor() -> str:
    """Name of the processor, as far as the system tells; results differ in the last digits from one kind to the next."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                key, _, value = line.partition(":")
                if key.strip() == "model name":
                    return f"{value.strip()} ({platform.machine()})"
    except OSError:  # not Linux
        pass
    return platform.processor() or platform.machine()


@dataclass(frozen=True)
class FileResult:
    """What became of one file.

    Parameters
    ----------
    path
        The output.
    certificates
        One a slice.
    notes
        What a user should know, each note once.
    """

    path: Path
    certificates: tuple[Mapping[str, JsonValue], ...]
    notes: tuple[str, ...]

    @property
    def n_converged(self) -> int:
        """Slices that converged."""
        return sum(certificate["status"] == "converged" for certificate in self.certificates)


def reconstruct_file(
    source: Path,
    destination: Path,
    recipe: Recipe,
    model: SmoothPlusSparse,
    *,
    weights: str,
    mask: SamplingMask | None = None,
    undersample: bool = False,
    scale: float | None = None,
    crop: bool = True,
    slices: range | None = None,
    layout: ArrayLayout | None = None,
    device: torch.device | str = "cpu",
    maps_folder: Path | None = None,
    progress: Callable[[int, int, int, float], None] | None = None,
) -> FileResult:
    """Reconstruct every slice of a file with k-space into a file that ``fastmri.evaluate`` reads.

    Slices are read, solved and written one at a time; the output appears when all of them are there.

    Parameters
    ----------
    source, destination
        Input and output.
    recipe, model
        See :func:`reconstruct`.
    weights
        How the weights are called, for the provenance.
    mask, undersample, scale, device, maps_folder
        See :func:`mri_problem`.
    layout
        What the axes of an array file are; see :func:`mrisps.io.open.open_slices`.
    crop
        Cut the images to the size that the file's header asks for.
    slices
        Which slices; by default all. The output then has these only.
    progress
        Called with (slice, number of slices, iteration, residual).

    Raises
    ------
    FileError
        Names the file and the field that is wrong, or says why the output cannot be written.
    UnusableResultError
        A slice ended with NaN or infinity; nothing is written.
    """
    certificates: list[Mapping[str, JsonValue]] = []
    notes: dict[str, None] = {}
    started, clock = datetime.now(UTC), time.monotonic()
    with open_slices(source, layout) as file:
        chosen = range(file.n_slices) if slices is None else slices
        if not chosen or chosen[0] < 0 or chosen[-1] >= file.n_slices:
            raise MrispsError(f"{source}: slices: expected some of 0 to {file.n_slices - 1}, got {chosen}")
        record = provenance(recipe, model, weights, source, device)
        record["slices"] = list(chosen)
        record["options"] = {
            "undersample": undersample,
            "crop": crop,
            "mask": "from the file or the recipe" if mask is None else json.loads(mask.to_json()),
            "scale": "from the recipe" if scale is None else scale,
            "layout": None if layout is None else {**asdict(layout), "axes": list(layout.axes)},
        }
        times: dict[str, JsonValue] = {"started": started.isoformat(timespec="seconds")}
        record["times"] = times
        with ReconstructionWriter(
            destination, len(chosen), attributes=file.attributes, provenance=record, header=file.header
        ) as writer:
            for position, index in enumerate(chosen):
                acquisition = file.read_slice(index)
                problem = mri_problem(
                    acquisition,
                    recipe,
                    mask=mask,
                    undersample=undersample,
                    scale=scale,
                    device=device,
                    maps_folder=maps_folder,
                )
                notes.update(dict.fromkeys(problem.notes))

                def report(iteration: int, residual: float, position: int = position) -> None:
                    if progress is not None:
                        progress(position, len(chosen), iteration, residual)

                result = reconstruct(problem, model, recipe, progress=report)
                certificate = slice_certificate(problem, result)
                shape = file.recon_shape if crop else None
                image = to_array(result.image, shape)
                writer.write_slice(
                    position,
                    image,
                    {
                        "smooth": to_array(result.smooth, shape),
                        "sparse": to_array(result.sparse, shape),
                        "cost_map": to_array(result.cost_map, shape),
                    },
                    certificate,
                    _geometry_of(acquisition, image.shape),
                )
                certificates.append(certificate)
            times["seconds"] = round(time.monotonic() - clock, 3)  # the writer puts the record into the file at its end
    return FileResult(destination, tuple(certificates), tuple(notes))


def _geometry_of(acquisition: Acquisition, shape: tuple[int, ...]) -> Geometry | None:
    """Where a central crop of the encoded image lies: the same centre, a smaller field of view."""
    geometry = acquisition.geometry
    if geometry is None:
        return None
    encoded = geometry.field_of_view_mm
    along_y, along_x = (encoded[i] * shape[i] / acquisition.shape[i] for i in range(2))
    return replace(geometry, field_of_view_mm=(along_y, along_x, encoded[2]))


def slice_certificate(problem: Problem, result: Reconstruction) -> dict[str, JsonValue]:
    """The solver's certificate with scale, mask and notes, as plain values for JSON."""
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
    certificate: dict[str, JsonValue] = dict(result.certificate.to_dict())  # type: ignore[arg-type]  # asdict: plain values
    return {
        **certificate,
        "scale": problem.scale,
        "noise_std": problem.noise_std,
        "mask": sampling,
        "notes": list(problem.notes),
        "preparation": [dict(step) for step in problem.steps],
        "image": image_facts(problem, result),
    }


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


def mask_from_zeros(source: Path, slices: Sequence[int], layout: ArrayLayout | None = None) -> SamplingMask:
    """The columns that have a sample that is not zero in any coil of any of the slices; of several coils, the samples.

    Raises
    ------
    FileError
        The file cannot be read.
    """
    with open_slices(source, layout) as file:
        samples = np.zeros(file.shape, dtype=np.bool_)
        for index in slices:
            samples |= (file.read_slice(index).kspace != 0).any(axis=0)
        columns = samples.any(axis=0)
        # A sample of several coils is not zero in all of them by chance.
        two_dimensional = file.n_coils > 1 and not (samples == columns).all()
        return SamplingMask.from_array(samples if two_dimensional else columns, file.shape)
