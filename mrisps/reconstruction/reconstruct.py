"""From a record (or an image) and a recipe to a reconstruction: one path for every task.

Acquisition or image  --(recipe: mask, scale)-->  Problem: operator, y, scale, noise level
Problem + model       --(recipe: beta, lam, solver)-->  Reconstruction in the units of the input
"""

import functools
import hashlib
import json
import math
import os
import platform
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mrisps.errors import FileError, MrispsError
from mrisps.io.acquisition import Acquisition, Geometry
from mrisps.io.arrays import ArrayLayout
from mrisps.io.fastmri import JsonValue, ReconstructionWriter, sampling_from_zeros
from mrisps.io.manifest import sha256_of
from mrisps.io.volume import open_slices
from mrisps.kspace.coil_maps import SMALLEST_CALIBRATION, calibration_shape
from mrisps.kspace.preparation import Preparation, Step, prepare
from mrisps.model import SmoothPlusSparse
from mrisps.operators import (
    BlurDownsample,
    FourierSubsampling,
    Identity,
    LinearOperator,
    SamplingMask,
    Sense,
    make_mask,
    mask_from_array,
)
from mrisps.quality.metrics import center_crop
from mrisps.reconstruction.recipe import Recipe
from mrisps.solvers import Reconstruction, solve

__all__ = [
    "Problem",
    "UnusableResultError",
    "denoising_problem",
    "estimate_noise_std",
    "mask_from_zeros",
    "mri_problem",
    "reconstruct",
    "reconstruct_file",
    "super_resolution_problem",
]

Progress = Callable[[int, float], None]


class UnusableResultError(MrispsError):
    """The solver ended with NaN or infinity: there is no image to write."""


@dataclass(frozen=True, eq=False)
class Problem:
    """What a solver is given, in units where the image maximum is about 1.

    Parameters
    ----------
    operator
        A.
    y
        Measurements divided by ``scale``, (1, *operator.range_shape).
    scale
        Input units per scaled unit.
    noise_std
        Standard deviation of the noise in the real and in the imaginary part of each scaled measurement, or None.
    mask
        The mask, for MRI.
    notes
        What a user should know about how the problem was set up.
    steps
        What was done to the data beforehand; see :mod:`mrisps.kspace.preparation`.
    factor
        (1, 1, y, x) complex, what the solver's image is multiplied by: the phase that was removed, and 0 where no coil sees
        anything. None: nothing.
    """

    operator: LinearOperator
    y: Tensor
    scale: float
    noise_std: float | None
    mask: SamplingMask | None = None
    notes: tuple[str, ...] = ()
    steps: tuple[Step, ...] = ()
    factor: Tensor | None = None


def mri_problem(
    acquisition: Acquisition,
    recipe: Recipe,
    *,
    mask: SamplingMask | None = None,
    undersample: bool = False,
    scale: float | None = None,
    device: torch.device | str = "cpu",
    maps_folder: Path | None = None,
) -> Problem:
    """The undersampled Fourier problem of one slice: SENSE with a recipe that has a preparation, else for a single coil.

    Parameters
    ----------
    acquisition
        One slice.
    recipe
        Gives image kind, preparation, scale rule and the rule for retrospective undersampling.
    mask
        Which samples were acquired; needed where the file does not say it and columns of zeros leave it open.
    undersample
        Apply the recipe's mask rule to fully sampled k-space.
    scale
        Overrides the recipe's scale rule: input units per unit of an image whose maximum is about 1.
    device
        Where to compute.
    maps_folder
        Where coil maps are kept for the next time; None keeps none.

    Raises
    ------
    FileError
        The acquisition has several coils and the recipe no preparation; its mask is unknown, or does not fit; a step of the
        preparation lacks what it needs.
    MrispsError
        The data are zero, or ``undersample`` is asked for where it makes no sense.
    """
    if recipe.task != "mri":
        raise MrispsError(f"recipe {recipe.name}: is for {recipe.task}, not for MRI")
    if acquisition.n_coils != 1 and recipe.preparation is None:
        raise FileError(
            acquisition.source,
            f"expected single-coil data, got {acquisition.n_coils} coils: take a recipe for several coils, such as `multicoil`",
            field="kspace",
        )
    notes = []
    acquired, note = _acquired(acquisition, mask)
    if note:
        notes.append(note)
    if undersample:
        acquired = _undersampled(acquisition, recipe, acquired)
    if acquired.is_fully_sampled:
        notes.append("k-space is fully sampled: the reconstruction only denoises it")
    pattern = acquired.array2d()
    silent = pattern.any(axis=0) & ~(pattern & (acquisition.kspace != 0).any(axis=0)).any(
        axis=0
    )  # (x,): acquired, and zero throughout
    if silent.any() and not acquired.is_fully_sampled:
        notes.append(
            f"{int(silent.sum())} acquired columns hold nothing but zeros: they are taken as measured, "
            "and the ratio of data misfit to noise is too small"
        )
    if recipe.mask is not None and not acquired.is_fully_sampled:
        off = acquired.realised_acceleration / recipe.mask.acceleration
        if not 0.6 <= off <= 1.6:
            notes.append(
                f"the data are {acquired.realised_acceleration:.2f}-fold undersampled, the recipe is for "
                f"{recipe.mask.acceleration:g}-fold"
            )
    if acquired.misses_nominal:
        notes.append(
            f"the mask was asked for acceleration {acquired.acceleration:g} and has {acquired.realised_acceleration:.2f}"
        )
    real = acquisition.image_is_real if recipe.image == "from_file" else recipe.image == "real"
    dtype = torch.float32 if real else torch.complex64
    if recipe.preparation is not None:
        return _sense_problem(
            acquisition, recipe, recipe.preparation, acquired, dtype, scale, device, maps_folder, notes
        )
    operator = FourierSubsampling(acquired, acquisition.shape, dtype, torch.device(device))
    y = torch.from_numpy(acquisition.kspace).to(operator.device)[None] * acquired.tensor(operator.device)
    scale = _scale(operator, y, recipe, scale)
    noise_std = recipe.noise_std
    if noise_std is None:
        estimate = estimate_noise_std(acquisition.kspace, acquired)
        noise_std = None if estimate is None else estimate / scale
    notes += _stride_note(recipe, acquisition.shape)
    return Problem(operator, y / scale, scale, noise_std, acquired, tuple(notes))


def _stride_note(recipe: Recipe, shape: tuple[int, int]) -> list[str]:
    if recipe.prior_for(shape) == recipe.prior:
        return []
    return [f"an image of {shape[0]} x {shape[1]} has no grid of stride {recipe.prior.stride}: all patches count"]


def _sense_problem(
    acquisition: Acquisition,
    recipe: Recipe,
    preparation: Preparation,
    acquired: SamplingMask,
    dtype: torch.dtype,
    scale: float | None,
    device: torch.device | str,
    maps_folder: Path | None,
    notes: list[str],
) -> Problem:
    prepared = prepare(acquisition, acquired.array2d(), preparation, maps_folder)
    notes = [*notes, *prepared.notes]
    shape = prepared.mask.shape
    sampling = acquired if acquired.shape == shape else _on_grid(acquired, prepared.mask)
    maps = torch.from_numpy(prepared.maps * prepared.phase)
    operator = Sense(sampling, maps, dtype, torch.device(device))
    y = torch.from_numpy(prepared.kspace).to(operator.device)[None]
    inner = _scale(operator, y, recipe, None if scale is None else scale / prepared.unit)
    if scale is None and recipe.scale is not None and min(calibration_shape(prepared.mask)) < SMALLEST_CALIBRATION:
        # Regular undersampling without a centre: an alias is fainter than the image by the acceleration R, R of them that lie on
        # top of each other in phase are as bright. The geometric mean is wrong by no more than the root of R.
        inner *= math.sqrt(sampling.realised_acceleration)
    noise_std, measured = recipe.noise_std, prepared.noise_std
    if noise_std is None:
        measured = estimate_noise_std(prepared.kspace, sampling) if measured is None else measured
        noise_std = None if measured is None else measured / inner
    notes += _stride_note(recipe, shape)
    seen = np.abs(prepared.maps).max(axis=0) > 0
    factor = torch.from_numpy((prepared.phase * seen).astype(np.complex64)).to(operator.device)[None, None]
    if dtype == torch.float32:
        factor = torch.from_numpy(seen.astype(np.float32)).to(operator.device)[None, None]
    return Problem(
        operator, y / inner, inner * prepared.unit, noise_std, sampling, tuple(notes), prepared.steps, factor
    )


def _on_grid(mask: SamplingMask, pattern: NDArray[np.bool_]) -> SamplingMask:
    """The same mask for another number of rows, of whole columns."""
    return replace(mask, shape=(int(pattern.shape[0]), int(pattern.shape[1])), pattern=pattern[0])


def denoising_problem(
    image: NDArray[np.float32],
    recipe: Recipe,
    *,
    noise_std: float | None = None,
    scale: float | None = None,
    device: torch.device | str = "cpu",
) -> Problem:
    """Denoising: the identity as operator.

    Parameters
    ----------
    image
        (y, x) noisy image, maximum about 1 unless the recipe has a scale rule.
    recipe
        Gives scale rule and noise level.
    noise_std
        Noise standard deviation in the units of the image; by default that of the recipe.
    scale, device
        As in :func:`mri_problem`.
    """
    if recipe.task != "denoise":
        raise MrispsError(f"recipe {recipe.name}: is for {recipe.task}, not for denoising")
    operator = Identity((1, *image.shape), torch.float32, torch.device(device))
    return _image_problem(operator, image, recipe, noise_std, scale)


def super_resolution_problem(
    image: NDArray[np.float32],
    recipe: Recipe,
    *,
    noise_std: float | None = None,
    scale: float | None = None,
    device: torch.device | str = "cpu",
) -> Problem:
    """Super-resolution: an image that was blurred and downsampled as the recipe says.

    Parameters
    ----------
    image
        (y, x) low-resolution image. A valid convolution with a k x k kernel and stride s maps n pixels to (n - k) // s + 1; of the
        sizes n that fit, the smallest is reconstructed.
    recipe
        Gives blur, scale rule and noise level.
    noise_std, scale, device
        As in :func:`denoising_problem`.
    """
    if recipe.blur is None:
        raise MrispsError(f"recipe {recipe.name}: is for {recipe.task}, not for super-resolution")
    blur = recipe.blur
    height, width = ((size - 1) * blur.stride + blur.kernel_size for size in image.shape)
    operator = BlurDownsample(
        (height, width), blur.kernel_size, blur.sigma, blur.stride, torch.float32, torch.device(device)
    )
    return _image_problem(operator, image, recipe, noise_std, scale)


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
    from mrisps import __version__

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
def code_commit() -> str | None:
    """The commit of the source tree that this runs from, with ``-dirty`` if it was edited since; None outside a tree of its own."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():  # installed: the tree around it, if there is one, is somebody else's
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude", "*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):  # no git here, or not a tree that it accepts
        return None
    return done.stdout.strip() or None


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
        What the axes of an array file are; see :func:`mrisps.io.volume.open_slices`.
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


def to_array(image: Tensor, crop: tuple[int, int] | None = None) -> NDArray[np.float32] | NDArray[np.complex64]:
    """(1, 1, y, x) tensor -> (y, x) array, centrally cropped where a smaller size is asked for."""
    array: NDArray[np.float32] = image[0, 0].detach().cpu().numpy()
    if crop is None:
        return array
    height, width = array.shape
    return center_crop(array, (min(crop[0], height), min(crop[1], width)))


def estimate_noise_std(kspace: NDArray[np.complex64], mask: SamplingMask) -> float | None:
    """Standard deviation of the noise in each part of a k-space sample, from the outermost rows.

    The median absolute deviation of the acquired samples in the outer 5 % of the rows on each side, where little but noise is
    left; what signal there is makes it an upper bound. None if there are fewer than 100 such samples that are not zero.

    Parameters
    ----------
    kspace
        (coil, y, x) centred.
    mask
        Which samples were acquired.
    """
    n_rows = max(1, kspace.shape[1] // 20)
    outer = np.zeros(mask.shape, dtype=np.bool_)
    outer[:n_rows] = outer[-n_rows:] = True
    samples = kspace[:, outer & mask.array2d()]
    samples = samples[samples != 0]
    if samples.size < 100:
        return None
    parts = np.concatenate([samples.real, samples.imag])
    return float(1.4826 * np.median(np.abs(parts)))


def image_sha256(image: NDArray[np.float32]) -> str:
    """SHA-256 of the pixels."""
    return hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()


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
        return mask_from_array(samples if two_dimensional else columns, file.shape)


def _image_problem(
    operator: LinearOperator,
    image: NDArray[np.float32],
    recipe: Recipe,
    noise_std: float | None,
    scale: float | None,
) -> Problem:
    y = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32)).to(operator.device)[None, None]
    scale = _scale(operator, y, recipe, scale)
    std = recipe.noise_std if noise_std is None else noise_std / scale
    return Problem(operator, y / scale, scale, std)


def _scale(operator: LinearOperator, y: Tensor, recipe: Recipe, given: float | None) -> float:
    if given is not None:
        if not 0 < given < float("inf"):
            raise MrispsError(f"scale: expected a number > 0, got {given}")
        return given
    if recipe.scale is None:
        return 1.0
    magnitude = operator.adjoint(y).abs().flatten().cpu().numpy()
    if not np.isfinite(magnitude).all():
        raise MrispsError("scale: the zero-filled image is not finite in single precision; scale the data down")
    scale = float(np.percentile(magnitude.astype(np.float64), recipe.scale.percentile)) / recipe.scale.reference
    if not scale > 0:
        raise MrispsError(f"scale: percentile {recipe.scale.percentile:g} of the zero-filled image is 0; give a scale")
    return scale


def _acquired(acquisition: Acquisition, given: SamplingMask | None) -> tuple[SamplingMask, str | None]:
    """Which samples were acquired, and a note if that needed a decision."""
    stated = acquisition.mask
    if given is not None:
        if given.shape != acquisition.shape:
            raise FileError(
                acquisition.source,
                f"expected a mask for (y, x) = {acquisition.shape}, got one for {given.shape}",
                field="mask",
            )
        if stated is not None and bool((given.array2d() & ~np.broadcast_to(stated, acquisition.shape)).any()):
            raise FileError(
                acquisition.source, "the given mask has samples that the file's own mask says were not acquired", "mask"
            )
        return given, None
    if stated is not None:
        return mask_from_array(stated, acquisition.shape), None
    sampling = sampling_from_zeros(acquisition.kspace)
    everything = mask_from_array(np.ones(acquisition.shape[1], dtype=np.bool_), acquisition.shape)
    if sampling.is_full:
        return everything, None
    if sampling.n_center == sampling.n_acquired:  # one run of columns through the centre: a zero-padded matrix
        return everything, (
            f"k-space is zero beyond its {sampling.n_acquired} central columns, and the file states no mask: "
            "taken as a fully sampled, zero-padded matrix"
        )
    raise FileError(
        acquisition.source,
        f"the file states no mask, and only {sampling.n_acquired} of {sampling.n_total} columns are not zero: "
        "say which were acquired (--mask FILE, or --mask from-zeros)",
        field="mask",
    )


def _undersampled(acquisition: Acquisition, recipe: Recipe, acquired: SamplingMask) -> SamplingMask:
    if recipe.mask is None:
        raise MrispsError(f"recipe {recipe.name}: has no mask rule to undersample with")
    if not acquired.is_fully_sampled:
        raise FileError(
            acquisition.source,
            f"cannot be undersampled: its acceleration is {acquired.realised_acceleration:.2f} already",
            field="mask",
        )
    rule = recipe.mask
    try:
        return make_mask(rule.kind, acquisition.shape, rule.acceleration, rule.center_fraction, seed=rule.seed)
    except ValueError as error:
        raise MrispsError(f"recipe {recipe.name}: mask: {error}") from error
