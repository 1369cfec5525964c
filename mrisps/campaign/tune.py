"""Finding beta and lam of a recipe on reference data, or without references by acquired k-space that is held out.

    files --(recipe: mask, noise; once)-->  Case: problem and judge     the same for every candidate
    cases + (beta, lam)  --measure-->  Evaluation: dB of each slice      kept in a journal
    search  -->  the best Evaluation  -->  a new recipe with its card

Both searches work with the logarithms of beta and lam and ask for the same measurements whenever they are run, so that one that
was interrupted is run again on top of its journal:

    grid    the coarse-to-fine multiplicative grid of the paper's authors: 3 x 3 values around the best, a factor apart; when the
            best is in the middle, the factor becomes its root
    model   a quadratic in (log beta, log lam) through what was measured; its maximum in a trust region is measured next

Source: grid, A. Goujon, S. Neumayer and M. Unser, SIAM J. Imaging Sci. 17 (2024) 91-115, their public code; model, M. J. D. Powell,
Math. Program. 92 (2002) 555-582 (UOBYQA), here with least squares.
"""

import fcntl
import hashlib
import itertools
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mrisps.errors import FileError, MrispsError
from mrisps.io.acquisition import Acquisition
from mrisps.io.images import IMAGE_SUFFIXES, center_crop, read_image
from mrisps.io.open import open_slices
from mrisps.kspace.coil_maps import calibration_shape, to_image, to_kspace
from mrisps.model import SmoothPlusSparse
from mrisps.operators import BlurDownsample, FourierSubsampling, Sense
from mrisps.quality.metrics import psnr
from mrisps.reconstruction.problem import Problem, denoising_problem, mri_problem, super_resolution_problem, to_array
from mrisps.reconstruction.recipe import Recipe
from mrisps.reconstruction.reconstruct import UnusableResultError, reconstruct
from mrisps.sampling import SamplingMask

__all__ = [
    "Case",
    "Evaluation",
    "Journal",
    "Method",
    "TuneSettings",
    "Tuning",
    "digest",
    "grid_search",
    "measure",
    "model_search",
    "read_cases",
    "tune",
]

Method = Literal["model", "grid"]
Offset = tuple[float, float]
"""(log beta, log lam) relative to the recipe."""
Score = Callable[[Offset], float]

DIGITS = 6
"""Significant digits of beta and lam."""
SMALLEST_SIDE = 8
MAX_JOURNAL_BYTES = 1 << 26


@dataclass(frozen=True)
class TuneSettings:
    """What is measured, besides recipe and files.

    Parameters
    ----------
    criterion
        ``"reference"``: PSNR. ``"held-out"``: a part of the acquired k-space is kept from the reconstruction, which predicts it.
    crop
        (y, x): the centre of each image, where it is larger. k-space is cropped along its readout, and along x if it is fully
        sampled.
    border
        Pixels at every edge that do not count for the PSNR.
    held_out_fraction
        Of the acquired columns outside the calibration centre (of the samples, where whole columns are not acquired).
    seed
        Of noise, masks (added to that of the recipe's rule) and held-out columns; every slice has its own.
    """

    criterion: Literal["reference", "held-out"] = "reference"
    crop: tuple[int, int] | None = None
    border: int = 0
    held_out_fraction: float = 0.15
    seed: int = 0

    def __post_init__(self) -> None:
        if self.criterion not in ("reference", "held-out"):
            raise ValueError(f"criterion: expected 'reference' or 'held-out', got {self.criterion!r}")
        if self.crop is not None and min(self.crop) < SMALLEST_SIDE:
            raise ValueError(f"crop: expected at least {SMALLEST_SIDE} x {SMALLEST_SIDE} pixels, got {self.crop}")
        if self.border < 0:
            raise ValueError(f"border: expected a number >= 0, got {self.border}")
        if not 0 < self.held_out_fraction < 1:
            raise ValueError(f"held_out_fraction: expected a number between 0 and 1, got {self.held_out_fraction}")
        if self.seed < 0:
            raise ValueError(f"seed: expected a number >= 0, got {self.seed}")


@dataclass(frozen=True, eq=False)
class Case:
    """One slice or image: what the solver is given, and how its image is judged.

    Parameters
    ----------
    name
        Of the file, with the slice where there are several.
    problem
        The same for every candidate: noise and mask are drawn once.
    judge
        Image (1, 1, y, x) in the units of the input -> dB.
    content
        Arrays that the score depends on, for :func:`digest`.
    """

    name: str
    problem: Problem
    judge: Callable[[Tensor], float]
    content: tuple[NDArray[np.generic], ...]


@dataclass(frozen=True)
class Evaluation:
    """What one pair of beta and lam is worth.

    Parameters
    ----------
    beta, lam
        The candidate.
    scores
        dB of each case; None where the solver met NaN or infinity.
    n_converged
        Cases whose solve converged.
    n_iterations
        Of the full problems, in all.
    seconds
        Wall clock.
    warm
        The solves went on from the coefficients of another candidate. The prior's non-convex energy has many minima, so that the
        score may differ from that of a solve from the start.
    """

    beta: float
    lam: float
    scores: tuple[float | None, ...]
    n_converged: int
    n_iterations: int
    seconds: float
    warm: bool = False

    @property
    def score(self) -> float:
        """Mean in dB; minus infinity if a case has none."""
        known = [score for score in self.scores if score is not None]
        return sum(known) / len(known) if len(known) == len(self.scores) else -math.inf

    @property
    def converged(self) -> bool:
        """Whether every case did."""
        return self.n_converged == len(self.scores)


def measure(
    cases: Sequence[Case],
    model: SmoothPlusSparse,
    recipe: Recipe,
    *,
    starts: list[Tensor | None] | None = None,
    progress: Callable[[int, int, int, float], None] | None = None,
) -> Evaluation:
    """Reconstruct every case with a recipe's beta and lam, and judge the images.

    Parameters
    ----------
    cases, model, recipe
        See :func:`mrisps.reconstruction.reconstruct.reconstruct`.
    starts
        Coefficients to start each case from, None for a cold start; replaced by those that were found, in float16.
    progress
        Called with (case, number of cases, iteration, residual).
    """
    scores: list[float | None] = []
    n_converged = n_iterations = 0
    started = perf_counter()
    for position, case in enumerate(cases):

        def report(iteration: int, residual: float, position: int = position) -> None:
            if progress is not None:
                progress(position, len(cases), iteration, residual)

        start = None if starts is None else starts[position]
        try:
            solved = reconstruct(
                case.problem, model, recipe, start=start, keep_coefficients=starts is not None, progress=report
            )
        except UnusableResultError:
            scores.append(None)
            continue
        if starts is not None and solved.coefficients is not None:
            starts[position] = solved.coefficients.half()
        score = case.judge(solved.image)
        scores.append(score if math.isfinite(score) else None)
        n_converged += solved.converged
        n_iterations += solved.certificate.n_iterations
    return Evaluation(recipe.beta, recipe.lam, tuple(scores), n_converged, n_iterations, perf_counter() - started)


# ---------------------------------------------------------------------------------------------------------------- cases


def read_cases(
    files: Sequence[Path],
    recipe: Recipe,
    settings: TuneSettings,
    *,
    slices: Callable[[Path, int], range] | None = None,
    device: torch.device | str = "cpu",
) -> list[Case]:
    """What a recipe is tuned on.

    Parameters
    ----------
    files
        k-space for MRI recipes; grey images for the others.
    recipe
        Its mask rule undersamples k-space that is fully sampled; its noise level is added to images.
    settings
        Criterion, crop, seed.
    slices
        Which slices of a file with so many; by default the middle one.
    device
        Where to compute.

    Raises
    ------
    FileError
        A file cannot be read, is too small, or has no reference.
    MrispsError
        No file is given, or the recipe does not say how to measure.
    """
    if not files:
        raise MrispsError("no files to tune on")
    if settings.criterion == "held-out" and recipe.task != "mri":
        raise MrispsError(f"recipe {recipe.name}: held-out k-space is for MRI, this one is for {recipe.task}")
    cases: list[Case] = []
    for path in files:
        if recipe.task != "mri":
            cases.append(_image_case(path, recipe, settings, len(cases), device))
            continue
        if path.suffix.lower() in IMAGE_SUFFIXES and path.suffix.lower() != ".npy":
            raise FileError(path, f"is an image; recipe {recipe.name} is for MRI and needs k-space")
        with open_slices(path) as file:
            chosen = (
                range(file.n_slices // 2, file.n_slices // 2 + 1) if slices is None else slices(path, file.n_slices)
            )
            for index in chosen:
                cases.append(_kspace_case(file.read_slice(index), recipe, settings, len(cases), device))
    return cases


def digest(cases: Sequence[Case]) -> str:
    """SHA-256 of everything that the scores depend on besides recipe and weights."""
    total = hashlib.sha256()
    for case in cases:
        for array in case.content:
            total.update(repr((array.dtype.str, array.shape)).encode())
            total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


def _image_case(path: Path, recipe: Recipe, settings: TuneSettings, number: int, device: torch.device | str) -> Case:
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        raise FileError(path, f"is no image ({', '.join(IMAGE_SUFFIXES)}); recipe {recipe.name} is for {recipe.task}")
    if recipe.noise_std is None:
        raise MrispsError(f"recipe {recipe.name}: noise_std: needed to make noisy images for tuning")
    image = read_image(path, color_to_grey=True)
    if settings.crop is not None:
        image = center_crop(image, _smaller(settings.crop, image.shape))
    noise = np.random.default_rng((settings.seed, number))
    if recipe.blur is None:
        _check_size(path, image.shape, settings.border)
        measured = image + recipe.noise_std * noise.standard_normal(image.shape)
        problem = denoising_problem(measured.astype(np.float32), recipe, device=device)
    else:
        blur = recipe.blur
        _check_size(path, (min(image.shape) - blur.kernel_size,), 0)
        fitting = [(size - blur.kernel_size) // blur.stride * blur.stride + blur.kernel_size for size in image.shape]
        image = center_crop(image, (fitting[0], fitting[1]))  # what low-resolution images are made of
        _check_size(path, image.shape, settings.border)
        operator = BlurDownsample((fitting[0], fitting[1]), blur.kernel_size, blur.sigma, blur.stride, torch.float32)
        clean = operator.forward(torch.from_numpy(image.copy())[None, None])[0, 0].numpy()
        measured = clean + recipe.noise_std * noise.standard_normal(clean.shape)
        problem = super_resolution_problem(measured.astype(np.float32), recipe, device=device)
    return _with_reference(path.name, problem, image, 1.0, settings.border)


def _kspace_case(
    acquisition: Acquisition, recipe: Recipe, settings: TuneSettings, number: int, device: torch.device | str
) -> Case:
    name = acquisition.source.name
    if acquisition.n_slices > 1:
        name = f"{name} slice {acquisition.slice_index}"
    acquisition = _cropped(acquisition, settings.crop)
    problem = mri_problem(acquisition, recipe, device=device)
    target = None if acquisition.target is None else np.abs(acquisition.target)
    preparation = recipe.preparation
    if problem.mask is not None and problem.mask.is_fully_sampled:
        if target is None or preparation is not None:
            target = np.abs(to_array(_in_input_units(problem, problem.operator.adjoint(problem.y)))).astype(np.float32)
        seeded = recipe
        if recipe.mask is not None:
            seeded = replace(recipe, mask=replace(recipe.mask, seed=recipe.mask.seed + settings.seed + number))
        problem = mri_problem(acquisition, seeded, undersample=True, device=device)
    elif target is None and settings.criterion == "reference":
        raise FileError(
            acquisition.source,
            "k-space is undersampled and the file has no reference image: take fully sampled k-space, or the criterion "
            "held-out",
            field="target",
        )
    elif preparation is not None and preparation.prewhiten and acquisition.noise_scan is not None:
        target = None  # images have the unit of the noise, the file's reference has not
    if settings.criterion == "held-out":
        return _held_out(acquisition.source, name, problem, settings, number)
    if target is None:
        raise FileError(
            acquisition.source,
            "has not the unit of the images, which are whitened: tune with preparation.prewhiten=false",
            field="target",
        )
    target = center_crop(target, _smaller(target.shape, problem.operator.domain_shape[-2:]))
    _check_size(acquisition.source, target.shape, settings.border)
    if not float(target.max()) > 0:
        raise FileError(acquisition.source, "is zero everywhere: there is nothing to compare with", field="target")
    return _with_reference(name, problem, target, float(target.max()), settings.border)


def _with_reference(name: str, problem: Problem, target: NDArray[np.float32], peak: float, border: int) -> Case:
    shape = (target.shape[0], target.shape[1])
    inner = (shape[0] - 2 * border, shape[1] - 2 * border)
    reference = np.ascontiguousarray(center_crop(target, inner), dtype=np.float32)
    magnitude = problem.mask is not None

    def judge(image: Tensor) -> float:
        found = to_array(image, shape)
        real = np.abs(found) if magnitude else np.real(found)
        return psnr(center_crop(real.astype(np.float32), inner), reference, data_range=peak)

    return Case(name, problem, judge, (problem.y.cpu().numpy(), reference))


def _held_out(source: Path, name: str, problem: Problem, settings: TuneSettings, number: int) -> Case:
    """Keep a part of what was acquired from the solver; the score is how well its image predicts it."""
    operator, mask = problem.operator, problem.mask
    if mask is None or not isinstance(operator, FourierSubsampling | Sense):
        raise MrispsError(f"{source}: held-out k-space needs Cartesian k-space")
    acquired = mask.array2d()
    silent = ~(problem.y != 0).any(dim=1)[0].cpu().numpy()  # (y, x)
    height, width = calibration_shape(acquired)
    centre = np.zeros(acquired.shape, dtype=np.bool_)
    top, left = acquired.shape[0] // 2 - height // 2, acquired.shape[1] // 2 - width // 2
    centre[top : top + height, left : left + width] = True
    allowed = acquired & ~centre & ~silent  # a line of zeros tells nothing
    if mask.is_columns:
        allowed = allowed.any(axis=0)  # (x,)
    places = np.flatnonzero(allowed)
    if len(places) < 4:
        raise FileError(
            source,
            f"has {len(places)} acquired {'columns' if mask.is_columns else 'samples'} outside the centre: too few",
            field="mask",
        )
    random = np.random.default_rng((settings.seed, number))
    n_hidden = max(1, round(settings.held_out_fraction * len(places)))
    hidden = np.zeros(allowed.shape, dtype=np.bool_)
    hidden.flat[random.choice(places, n_hidden, replace=False)] = True
    if not operator.domain_dtype.is_complex:
        # A real image has the spectrum of f at -f, too: what is hidden must not be known from there.
        mirrored = np.flip(hidden)
        shifts = [(size + 1) % 2 for size in hidden.shape]
        hidden |= np.roll(mirrored, shifts, axis=tuple(range(hidden.ndim))) & allowed
    kept = np.array(mask.pattern & ~hidden)
    predictor = operator.with_mask(torch.from_numpy(hidden))
    measured = problem.y * torch.from_numpy(hidden).to(problem.y.device)
    power = float(measured.abs().square().sum())
    reduced = replace(
        problem,
        operator=operator.with_mask(torch.from_numpy(kept)),
        y=problem.y * torch.from_numpy(kept).to(problem.y.device),
        mask=SamplingMask.from_array(kept, mask.shape),
    )

    def judge(image: Tensor) -> float:
        error = predictor.forward(_in_solver_units(problem, image)) - measured
        return -10 * math.log10(max(float(error.abs().square().sum()) / power, 1e-30))

    return Case(name, reduced, judge, (reduced.y.cpu().numpy(), measured.cpu().numpy()))


def _in_input_units(problem: Problem, image: Tensor) -> Tensor:
    return (image if problem.factor is None else image * problem.factor) * problem.scale


def _in_solver_units(problem: Problem, image: Tensor) -> Tensor:
    """Back from what :func:`reconstruct` returns; the factor has modulus 1 wherever a coil sees anything."""
    image = image / problem.scale
    return image if problem.factor is None else image * problem.factor.conj()


def _cropped(acquisition: Acquisition, crop: tuple[int, int] | None) -> Acquisition:
    """A smaller field of view: exact along an axis that is fully sampled."""
    if crop is None:
        return acquisition
    size = _smaller(crop, acquisition.shape)
    if size == acquisition.shape:
        return acquisition
    for field in ("sensitivity_maps", "calibration"):
        if getattr(acquisition, field) is not None:
            raise FileError(acquisition.source, "cannot be cropped for tuning", field=field)
    mask = acquisition.mask
    if mask is None:
        sampling = SamplingMask.from_array(acquisition.acquired(), acquisition.shape)
        if not sampling.is_fully_sampled and sampling.n_acs_lines != sampling.n_acquired:
            return acquisition  # nobody says what was acquired: refused by name when the problem is made
    axes: tuple[int, ...] = (-2, -1)
    if mask is not None and not mask.all():
        if mask.ndim == 2 and not (mask == mask[:1]).all():
            raise FileError(acquisition.source, "a two-dimensional mask: k-space cannot be cropped", field="mask")
        if size[1] != acquisition.shape[1]:
            raise FileError(
                acquisition.source,
                f"columns are undersampled: it can be cropped along y only, to {size[0]}x{acquisition.shape[1]}",
                field="mask",
            )
        axes = (-2,)
        mask = mask if mask.ndim == 1 else mask[0]
    else:
        mask = None if mask is None else np.ones(size[1], dtype=np.bool_)
    image = center_crop(to_image(acquisition.kspace, axes), size)
    kspace = to_kspace(image, axes)
    if mask is not None:
        kspace = kspace * mask
    target = acquisition.target
    return replace(
        acquisition,
        kspace=np.ascontiguousarray(kspace, dtype=np.complex64),
        mask=mask,
        target=None if target is None else np.ascontiguousarray(center_crop(target, _smaller(size, target.shape))),
        recon_shape=None,
        readout_oversampling=1.0,
        geometry=None,
    )


def _smaller(crop: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, int]:
    return min(crop[0], shape[0]), min(crop[1], shape[1])


def _check_size(path: Path, shape: tuple[int, ...], border: int) -> None:
    if min(shape) - 2 * border < SMALLEST_SIDE:
        raise FileError(path, f"{' x '.join(map(str, shape))} pixels are too few to compare with a border of {border}")


# --------------------------------------------------------------------------------------------------------------- search


def candidate(recipe: Recipe, offset: Offset) -> Recipe:
    """The recipe with other beta and lam; its card does not hold for them."""
    beta, lam = _values(recipe, offset)
    return replace(recipe, beta=beta, lam=lam, card=None)


def _values(recipe: Recipe, offset: Offset) -> tuple[float, float]:
    if offset == (0.0, 0.0):
        return recipe.beta, recipe.lam
    beta, lam = recipe.beta * math.exp(offset[0]), recipe.lam * math.exp(offset[1])
    return float(f"{beta:.{DIGITS}g}"), float(f"{lam:.{DIGITS}g}")


def grid_search(score: Score, *, factor: float = 2.0, last_factor: float = 1.1, max_evaluations: int = 60) -> None:
    """The authors' coarse-to-fine multiplicative grid.

    Parameters
    ----------
    score
        dB at an offset. Calls with the same offset should cost nothing.
    factor
        Between neighbours at the start.
    last_factor
        Ends when the factor is below.
    max_evaluations
        Cap.
    """
    scores: dict[Offset, float] = {}
    centre: Offset = (0.0, 0.0)
    step = math.log(factor)
    while step >= math.log(last_factor):
        for i, j in sorted(itertools.product((-1, 0, 1), repeat=2), key=lambda ij: abs(ij[0]) + abs(ij[1])):
            point = _place(centre[0] + i * step, centre[1] + j * step)
            if point not in scores:
                if len(scores) == max_evaluations:
                    return
                scores[point] = score(point)
        best = max(scores, key=lambda point: scores[point])
        if best == centre:
            step /= 2
        centre = best


def model_search(
    score: Score,
    *,
    step: float = math.log(2),
    smallest: float = math.log(1.1),
    tolerance: float = 0.01,
    max_evaluations: int = 60,
) -> None:
    """A quadratic model of the score in a trust region.

    Parameters
    ----------
    score
        As in :func:`grid_search`.
    step
        Of the first measurements around the start, and the first half-width of the trust region.
    smallest
        Half-width at which the search ends.
    tolerance
        Early stop: in dB, a gain that is not worth a measurement.
    max_evaluations
        Cap.
    """
    scores: dict[Offset, float] = {}

    def look(x: float, y: float) -> float:
        point = _place(x, y)
        if point not in scores and len(scores) < max_evaluations:
            scores[point] = score(point)
        return scores.get(point, -math.inf)

    middle = look(0, 0)
    signs = []
    for axis in range(2):
        ahead, behind = (look(*(side * step if k == axis else 0.0 for k in range(2))) for side in (1, -1))
        signs.append(1 if ahead >= behind else -1)
        middle = max(middle, ahead, behind)
    look(signs[0] * step, signs[1] * step)  # the sixth point: a quadratic has six coefficients
    width = step
    while width >= smallest and len(scores) < max_evaluations:
        centre = max(scores, key=lambda point: scores[point])
        place, gain = _promise(scores, centre, width)
        if place is None or gain < tolerance:
            width /= 2
            continue
        found = look(*place)
        if found > scores[centre]:
            reached = max(abs(a - b) for a, b in zip(place, centre, strict=True))
            width = min(2 * width, 2 * step) if reached > 0.9 * width else width
        else:
            width /= 2


def _promise(scores: Mapping[Offset, float], centre: Offset, width: float) -> tuple[Offset | None, float]:
    """Where in the trust region the model is highest, and by how much above the best."""
    points = np.array(list(scores))
    values = np.array(list(scores.values()))
    finite = np.isfinite(values)
    if not finite.any():
        return None, 0.0
    values = np.where(
        finite, values, values[finite].min() - 3.0
    )  # a solve that broke down: a bad place, not an infinite one
    best = scores[centre]
    shifted = (points - centre) / width
    weights = 1 / (1 + np.square(shifted).sum(axis=1))
    weights[list(scores).index(centre)] *= 10  # the model goes through the best
    system = _monomials(shifted)
    ridge = np.diag([0.0, 1e-3, 1e-3, 1e-2, 1e-2, 1e-2])
    coefficients = np.linalg.lstsq(
        np.concatenate([system * weights[:, None], ridge]),
        np.concatenate([(values - best) * weights, np.zeros(6)]),
        rcond=None,
    )[0]
    axis = np.linspace(-1, 1, 33)
    lattice = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    nearest = np.square(lattice[:, None] - shifted[None]).sum(axis=-1).min(axis=1)
    promised = np.where(nearest > 0.2**2, _monomials(lattice) @ coefficients, -np.inf)
    chosen = int(np.argmax(promised))
    place = np.asarray(centre) + width * lattice[chosen]
    return _place(float(place[0]), float(place[1])), float(promised[chosen])


def _monomials(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, 2) -> (n, 6): 1, u, v, u^2, u v, v^2."""
    u, v = points[:, 0], points[:, 1]
    return np.stack([np.ones_like(u), u, v, u * u, u * v, v * v], axis=1)


def _place(x: float, y: float) -> Offset:
    """Rounded, so that a place that is reached on two ways is one."""
    return round(x, 9) + 0.0, round(y, 9) + 0.0


@dataclass(frozen=True)
class Tuning:
    """What was found.

    Parameters
    ----------
    evaluations
        In the order in which the search asked for them, those from the journal too.
    start
        With the recipe's own beta and lam.
    best
        The best that was solved from the start, never one of a warm start.
    n_solves
        Reconstructions that the search needed, those from the journal too.
    """

    evaluations: tuple[Evaluation, ...]
    start: Evaluation
    best: Evaluation
    n_solves: int


def tune(
    cases: Sequence[Case],
    model: SmoothPlusSparse,
    recipe: Recipe,
    journal: "Journal",
    *,
    method: Method = "model",
    warm: bool = False,
    max_evaluations: int = 60,
    tolerance: float = 0.01,
    report: Callable[[Evaluation], None] | None = None,
    progress: Callable[[int, int, int, float], None] | None = None,
) -> Tuning:
    """Search for the best beta and lam.

    Parameters
    ----------
    cases, model, recipe
        As in :func:`measure`; the search starts at the recipe's values.
    journal
        What it has is not measured again.
    method
        See the head of the module.
    warm
        Candidates go on from the coefficients that the recipe's own values lead to, kept in float16: fewer iterations. The best one
        is then solved from the start, and only wins if it is still better than the recipe's values.
    max_evaluations
        Cap for the search.
    tolerance
        Early stop of the method ``"model"``, in dB.
    report
        Called with each evaluation.
    progress
        As in :func:`measure`.

    Raises
    ------
    MrispsError
        Every candidate led to NaN or infinity.
    FileError
        The journal cannot be written, or does not fit the cases.
    """
    asked: dict[tuple[float, float, bool], Evaluation] = {}
    anchors: list[Tensor | None] = []

    def ask(beta: float, lam: float, go_on: bool) -> Evaluation:
        key = (beta, lam, go_on)
        if key in asked:
            return asked[key]
        found = journal.find(*key)
        if found is None:
            chosen = replace(recipe, beta=beta, lam=lam, card=None)
            starts: list[Tensor | None] | None = None
            if go_on:
                # D is scaled by 1 / sqrt(beta), and so are the coefficients that explain the same patch.
                factor = math.sqrt(beta / recipe.beta)
                starts = [None if a is None else a.float() * factor for a in anchor()]
            elif warm and not anchors:
                anchors.extend([None] * len(cases))
                starts = anchors
            found = replace(measure(cases, model, chosen, starts=starts, progress=progress), warm=go_on)
            journal.add(found)
        elif len(found.scores) != len(cases):
            raise FileError(journal.path, f"expected {len(cases)} scores, got {len(found.scores)}", field="scores")
        asked[key] = found
        if report is not None:
            report(found)
        return found

    def anchor() -> list[Tensor | None]:
        if not anchors:  # the journal has the score, not the coefficients
            anchors.extend([None] * len(cases))
            measure(cases, model, recipe, starts=anchors, progress=progress)
        return anchors

    def score(offset: Offset) -> float:
        chosen = candidate(recipe, offset)
        return ask(chosen.beta, chosen.lam, warm and offset != (0.0, 0.0)).score

    start = ask(*_values(recipe, (0.0, 0.0)), False)
    if method == "grid":
        grid_search(score, max_evaluations=max_evaluations)
    else:
        model_search(score, max_evaluations=max_evaluations, tolerance=tolerance)
    best = max(asked.values(), key=lambda evaluation: evaluation.score)
    if best.warm:
        best = max(start, ask(best.beta, best.lam, False), key=lambda evaluation: evaluation.score)
    if not math.isfinite(best.score):
        raise MrispsError(
            "tuning: every candidate led to NaN or infinity; start from other values (--set beta=..., lam=...)"
        )
    return Tuning(tuple(asked.values()), start, best, len(asked) * len(cases))


# -------------------------------------------------------------------------------------------------------------- journal


class Journal:
    """Evaluations in a file of JSON lines, the first of which says what they belong to. Each is on the disk before the next begins.

    Parameters
    ----------
    path
        The file.
    identity
        What the scores depend on. A journal with another one is refused.
    resume
        Go on with what is there; else the file is made anew.

    Raises
    ------
    FileError
        Another process is writing it; it belongs to something else, is damaged (a last line that was being written when the process
        died is not), or cannot be written.
    """

    def __init__(self, path: Path, identity: Mapping[str, str], *, resume: bool) -> None:
        self.path = path
        self.evaluations: list[Evaluation] = []
        header = {"format": "mrisps-tune", "version": 1, **identity}
        with _naming(path):
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            self._lock()
            n_bytes = os.fstat(self._descriptor).st_size
            if n_bytes > MAX_JOURNAL_BYTES and resume:
                raise FileError(path, f"is larger than {MAX_JOURNAL_BYTES} bytes")
            content = os.pread(self._descriptor, n_bytes, 0) if resume else b""
            whole = content[: content.rfind(b"\n") + 1]
            if resume:
                self.evaluations = list(_read_journal(path, whole, header))
            with _naming(path):
                os.ftruncate(self._descriptor, len(whole))
            if not resume:
                self._write(json.dumps(header))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let others write. Harmless when done twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _lock(self) -> None:
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # goes with the process, however that ends
        except OSError as error:
            raise FileError(self.path, "another process is tuning into this file") from error

    def _write(self, line: str) -> None:
        with _naming(self.path):
            rest = (line + "\n").encode()
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
            os.fsync(self._descriptor)

    def find(self, beta: float, lam: float, warm: bool) -> Evaluation | None:
        """What was measured there before."""
        for evaluation in self.evaluations:
            if (evaluation.beta, evaluation.lam, evaluation.warm) == (beta, lam, warm):
                return evaluation
        return None

    def add(self, evaluation: Evaluation) -> None:
        """Append an evaluation and force it to the disk."""
        self._write(json.dumps(asdict(evaluation)))
        self.evaluations.append(evaluation)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise FileError(path, f"cannot be written: {error.strerror or error}") from error


def _read_journal(path: Path, content: bytes, header: Mapping[str, object]) -> Iterator[Evaluation]:
    try:
        lines = content.decode("utf-8").split("\n")[:-1]
    except UnicodeDecodeError as error:
        raise FileError(path, f"is no journal of tuning: {error}") from error
    if not lines:
        raise FileError(path, "is no journal of tuning: it has no whole line; use --overwrite to begin anew")
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise FileError(path, f"is not JSON: {error}", field=f"line {number}") from error
        if not isinstance(record, dict):
            raise FileError(path, "expected a JSON object", field=f"line {number}")
        if number > 1:
            yield _evaluation(path, number, record)
            continue
        differing = [key for key in header if record.get(key) != header[key]]
        if differing:
            raise FileError(
                path, f"belongs to another tuning: {', '.join(differing)} differ; use --overwrite to begin anew"
            )


def _evaluation(path: Path, number: int, record: Mapping[str, object]) -> Evaluation:
    def value(key: str, kinds: type | tuple[type, ...]) -> object:
        found = record.get(key)
        if not isinstance(found, kinds) or isinstance(found, bool):
            raise FileError(path, f"expected a number, got {found!r}", field=f"line {number}.{key}")
        return found

    beta, lam, seconds = (float(str(value(key, (int, float)))) for key in ("beta", "lam", "seconds"))
    scores = value("scores", list)
    assert isinstance(scores, list)
    if not all(score is None or (isinstance(score, float) and math.isfinite(score)) for score in scores) or not scores:
        raise FileError(path, f"expected finite numbers or null, got {scores!r:.100}", field=f"line {number}.scores")
    if not (0 < beta < math.inf and 0 < lam < math.inf):
        raise FileError(path, f"expected beta and lam > 0, got {beta} and {lam}", field=f"line {number}")
    counts = [int(str(value(key, int))) for key in ("n_converged", "n_iterations")]
    return Evaluation(beta, lam, tuple(scores), counts[0], counts[1], seconds, record.get("warm") is True)
