"""What a recipe is tuned on: problems that are the same for every candidate, and how their images are judged."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mrisps.campaign.held_out import hold_out
from mrisps.campaign.references import center_at_most, root_sum_of_squares
from mrisps.campaign.sources import SourceFile, checked_sha256
from mrisps.errors import FileError, MrispsError
from mrisps.io.acquisition import Acquisition
from mrisps.io.images import IMAGE_SUFFIXES, center_crop, read_image
from mrisps.io.open import open_kspace
from mrisps.kspace.grid import to_image, to_kspace
from mrisps.operators import BlurDownsample
from mrisps.quality.metrics import psnr
from mrisps.reconstruction.choices import SliceChoice
from mrisps.reconstruction.problem import Problem, image_problem, mri_problem, to_array
from mrisps.reconstruction.recipe import Recipe
from mrisps.sampling import SamplingMask
from mrisps.settings import Index, Range, settings

__all__ = ["Case", "TuneSettings", "read_cases"]

SMALLEST_SIDE = 8
Judge = Callable[[Tensor], float]
"""Image -> dB; see `Case`."""


@settings
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
    border: Index = 0
    held_out_fraction: Annotated[float, Range(gt=0, lt=1)] = 0.15
    seed: Index = 0

    def __post_init__(self) -> None:
        if self.crop is not None and min(self.crop) < SMALLEST_SIDE:
            raise ValueError(f"crop: expected at least {SMALLEST_SIDE} x {SMALLEST_SIDE} pixels, got {self.crop}")

    def random(self, number: int) -> np.random.Generator:
        """The random choices of a slice."""
        return np.random.default_rng((self.seed, number))


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
    settings, device
        Criterion, crop, seed; where to compute.
    slices
        Which slices of each file; by default the middle one.

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
        image = center_at_most(image, settings.crop)
    clean = image
    if recipe.blur is not None:
        kernel, stride = recipe.blur.kernel_size, recipe.blur.stride
        _check_size(path, (min(image.shape) - kernel,), 0)
        n_y, n_x = ((size - kernel) // stride * stride + kernel for size in image.shape)
        image = center_crop(image, (n_y, n_x))  # what low-resolution images are made of
        operator = BlurDownsample((n_y, n_x), kernel, recipe.blur.sigma, stride, torch.float32)
        clean = operator.forward(torch.from_numpy(image.copy())[None, None])[0, 0].numpy()
    _check_size(path, image.shape, settings.border)
    measured = clean + recipe.noise_std * settings.random(number).standard_normal(clean.shape)
    problem = image_problem(measured.astype(np.float32), recipe, device=device)
    return _with_reference(problem, image, 1.0, settings.border)


def _kspace_case(
    acquisition: Acquisition, recipe: Recipe, settings: TuneSettings, number: int, device: torch.device | str
) -> tuple[Problem, Judge]:
    acquisition = _cropped(acquisition, settings.crop)
    source = acquisition.source
    problem = mri_problem(acquisition, recipe, device=device)
    target = None if acquisition.target is None else np.abs(acquisition.target)
    shape = problem.operator.domain_shape[-2:]  # fewer rows than k-space where the readout is oversampled
    if problem.mask is not None and problem.mask.is_fully_sampled:
        if target is None or recipe.preparation is not None:
            target = root_sum_of_squares(acquisition.kspace)  # not by the maps, which may be wrong
        if recipe.mask is not None:
            rule = replace(recipe.mask, seed=recipe.mask.seed + settings.seed + number)
            recipe = replace(recipe, mask=rule)
        problem = mri_problem(acquisition, recipe, undersample=True, device=device)
    if settings.criterion == "held-out":
        return hold_out(source, problem, settings.held_out_fraction, settings.random(number))
    if target is None:
        why = (
            "k-space is undersampled and the file has no reference image: take fully sampled k-space, or the criterion"
        )
        raise FileError(source, f"{why} held-out", field="target")
    target = center_at_most(target, (shape[0], shape[1]))
    _check_size(source, target.shape, settings.border)
    if not float(target.max()) > 0:
        raise FileError(source, "is zero everywhere: there is nothing to compare with", field="target")
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


def _cropped(acquisition: Acquisition, crop: tuple[int, int] | None) -> Acquisition:
    """A smaller field of view: exact along an axis that is fully sampled."""
    n_y, n_x = acquisition.shape
    size = (n_y, n_x) if crop is None else (min(crop[0], n_y), min(crop[1], n_x))
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
        if size[1] != n_x:
            why = f"columns are undersampled: it can be cropped along y only, to {size[0]}x{n_x}"
            raise FileError(acquisition.source, why, field="mask")
        axes = (-2,)
        mask = mask if mask.ndim == 1 else mask[0]
    elif mask is not None:
        mask = np.ones(size[1], dtype=np.bool_)
    kspace = to_kspace(center_crop(to_image(acquisition.kspace, axes), size), axes)
    target = acquisition.target
    return replace(
        acquisition,
        kspace=np.ascontiguousarray(kspace if mask is None else kspace * mask, dtype=np.complex64),
        mask=mask,
        target=None if target is None else np.ascontiguousarray(center_at_most(target, size)),
        recon_shape=None,
        readout_oversampling=1.0,
        geometry=None,
    )


def _check_size(path: Path, shape: tuple[int, ...], border: int) -> None:
    if min(shape) - 2 * border < SMALLEST_SIDE:
        raise FileError(path, f"{' x '.join(map(str, shape))} pixels are too few to compare with a border of {border}")
