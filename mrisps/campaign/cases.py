"""What a recipe is tuned on: problems that are the same for every candidate, and how their images are judged."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mrisps.campaign.sources import SourceFile, checked_sha256
from mrisps.errors import FileError, MrispsError
from mrisps.io.acquisition import Acquisition
from mrisps.io.images import IMAGE_SUFFIXES, center_crop, read_image
from mrisps.io.open import open_kspace
from mrisps.kspace.grid import calibration_shape, to_image, to_kspace
from mrisps.operators import BlurDownsample, FourierSubsampling, Sense
from mrisps.quality.metrics import psnr
from mrisps.reconstruction.choices import SliceChoice
from mrisps.reconstruction.problem import (
    Problem,
    image_problem,
    mri_problem,
    to_array,
)
from mrisps.reconstruction.recipe import Recipe
from mrisps.sampling import SamplingMask

__all__ = ["Case", "TuneSettings", "read_cases"]

SMALLEST_SIDE = 8
Judge = Callable[[Tensor], float]
"""Image -> dB; see `Case`."""


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
    identity
        Plain values that problem and judge depend on, besides the recipe: hash of the file, slice, settings.
    problem
        The same for every candidate: noise and mask are drawn once.
    judge
        Image -> dB: (1, 1, y, x) in the units of the input; of a case by prediction (1, set, y, x) as the solver returns it.
    by_prediction
        The score is how well the image predicts k-space that was held out.
    """

    name: str
    identity: tuple[object, ...]
    problem: Problem
    judge: Judge
    by_prediction: bool = False


def read_cases(
    files: Sequence[SourceFile],
    recipe: Recipe,
    settings: TuneSettings,
    *,
    slices: SliceChoice | None = None,
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
        Which slices of each file; by default the middle one.
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

    for source in files:
        path, sha256 = source.path, checked_sha256(source)
        if recipe.task != "mri":
            made = _image_case(path, recipe, settings, len(cases), device)
            cases.append(Case(path.name, (sha256, 0, len(cases), asdict(settings)), *made))
            continue
        if path.suffix.lower() in IMAGE_SUFFIXES and path.suffix.lower() != ".npy":
            raise FileError(path, f"is an image; recipe {recipe.name} is for MRI and needs k-space")
        with open_kspace(path) as file:
            n = file.n_slices
            for index in range(n // 2, n // 2 + 1) if slices is None else slices.of(path, n):
                made = _kspace_case(file.read_slice(index), recipe, settings, len(cases), device)
                name = path.name if n == 1 else f"{path.name} slice {index}"
                identity = (sha256, index, len(cases), asdict(settings))
                cases.append(Case(name, identity, *made, settings.criterion == "held-out"))
    return cases


def _image_case(
    path: Path, recipe: Recipe, settings: TuneSettings, number: int, device: torch.device | str
) -> tuple[Problem, Judge]:
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
        problem = image_problem(measured.astype(np.float32), recipe, device=device)
    else:
        blur = recipe.blur
        _check_size(path, (min(image.shape) - blur.kernel_size,), 0)
        fitting = [(size - blur.kernel_size) // blur.stride * blur.stride + blur.kernel_size for size in image.shape]
        image = center_crop(image, (fitting[0], fitting[1]))  # what low-resolution images are made of
        _check_size(path, image.shape, settings.border)
        operator = BlurDownsample((fitting[0], fitting[1]), blur.kernel_size, blur.sigma, blur.stride, torch.float32)
        clean = operator.forward(torch.from_numpy(image.copy())[None, None])[0, 0].numpy()
        measured = clean + recipe.noise_std * noise.standard_normal(clean.shape)
        problem = image_problem(measured.astype(np.float32), recipe, device=device)
    return _with_reference(problem, image, 1.0, settings.border)


def _kspace_case(
    acquisition: Acquisition, recipe: Recipe, settings: TuneSettings, number: int, device: torch.device | str
) -> tuple[Problem, Judge]:
    acquisition = _cropped(acquisition, settings.crop)
    problem = mri_problem(acquisition, recipe, device=device)
    target = None if acquisition.target is None else np.abs(acquisition.target)
    preparation = recipe.preparation
    if problem.mask is not None and problem.mask.is_fully_sampled:
        if target is None or preparation is not None:
            coils = to_image(acquisition.kspace)  # (coil, y, x); not by the maps, which may be wrong
            shape = problem.operator.domain_shape[-2:]  # fewer rows where the readout is oversampled
            target = center_crop(np.linalg.norm(coils, axis=0).astype(np.float32), (shape[0], shape[1]))
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
    if settings.criterion == "held-out":
        return _held_out(acquisition.source, problem, settings, number)
    assert target is not None
    target = center_crop(target, _smaller(target.shape, problem.operator.domain_shape[-2:]))
    _check_size(acquisition.source, target.shape, settings.border)
    if not float(target.max()) > 0:
        raise FileError(acquisition.source, "is zero everywhere: there is nothing to compare with", field="target")
    return _with_reference(problem, target, float(target.max()), settings.border)


def _with_reference(problem: Problem, target: NDArray[np.float32], peak: float, border: int) -> tuple[Problem, Judge]:
    shape = (target.shape[0], target.shape[1])
    inner = (shape[0] - 2 * border, shape[1] - 2 * border)
    reference = np.ascontiguousarray(center_crop(target, inner), dtype=np.float32)
    magnitude = problem.mask is not None

    def judge(image: Tensor) -> float:
        found = to_array(image, shape)
        real = np.abs(found) if magnitude else np.real(found)
        return psnr(center_crop(real.astype(np.float32), inner), reference, data_range=peak)

    return problem, judge


def _held_out(source: Path, problem: Problem, settings: TuneSettings, number: int) -> tuple[Problem, Judge]:
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

    def judge(images: Tensor) -> float:
        error = predictor.forward(images) - measured
        return -10 * math.log10(max(float(error.abs().square().sum()) / power, 1e-30))

    return reduced, judge


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
