"""One call from a file or an array to a result."""

import math
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from mrisps.errors import MrispsError
from mrisps.io.arrays import ArrayLayout
from mrisps.io.kspace_file import KspaceFile
from mrisps.io.memory import MemoryKspace
from mrisps.model import SmoothPlusSparse
from mrisps.reconstruction.choices import DEFAULT_RECIPE, FROM_ZEROS, SliceChoice, usable_device
from mrisps.reconstruction.grey_image import GreyImage
from mrisps.reconstruction.recipe import Recipe, certified, load_recipe, with_overrides
from mrisps.reconstruction.result import Result
from mrisps.reconstruction.run import Progress, Run
from mrisps.reconstruction.weights import find_weights
from mrisps.sampling import SamplingMask, read_mask

__all__ = ["default_device", "denoise", "denoising_recipe", "recon", "run_of", "superres", "superres_recipe"]

Setting: TypeAlias = "str | float | int | bool | tuple[int, ...] | Mapping[str, Setting] | None"
"""A value of a recipe, or several under one key: ``solver={"max_iterations": 50}``."""

Array: TypeAlias = NDArray[np.generic] | torch.Tensor

Mask: TypeAlias = SamplingMask | Literal["from-zeros"] | None

_LEVELS = (5, 15, 25, 50)
"""Noise levels, in units of 1 / 255, that the shipped recipes for denoising are made for."""


def recon(
    source: Path | str | Array,
    recipe: str | Path | Recipe = DEFAULT_RECIPE,
    *,
    mask: SamplingMask | Array | Path | str | None = None,
    maps: Array | None = None,
    noise: Array | None = None,
    weights: str | Path | SmoothPlusSparse | None = None,
    undersample: bool = False,
    scale: float | None = None,
    crop: bool = True,
    slices: str | SliceChoice | None = None,
    axes: str | ArrayLayout | None = None,
    certify: bool = False,
    device: torch.device | str | None = None,
    slices_together: int | None = None,
    progress: Progress | None = None,
    **overrides: Setting,
) -> Result:
    """Reconstruct k-space: a file of any format that `mrisps info` knows, or an array.

    Parameters
    ----------
    source
        A path, or complex k-space (coil, y, x), (y, x) or (slice, coil, y, x), NumPy or PyTorch, centred, 0 where not acquired.
    recipe
        Name of a recipe that the package ships, a recipe file, or a recipe.
    mask
        Which samples were acquired: a mask, an array (x,) or (y, x), a mask file, or ``"from-zeros"``. None: what the file
        states; of an array, the samples that are not zero.
    maps
        Coil sensitivities (coil, y, x) or (set, coil, y, x) for an array; None: those of the file, else estimated.
    noise
        Samples without signal (coil, sample) for an array: whitens the coils and gives the noise level.
    weights
        Weights other than those of the recipe: a name, a file, or a model.
    undersample
        Undersample fully sampled k-space by the recipe's mask rule first.
    scale
        Input units per unit of an image whose maximum is about 1; None: the recipe's rule.
    crop
        Cut images to the size that the file asks for.
    slices
        ``"3"``, ``"0:10"``; None: all.
    axes
        Axes of an array file, such as ``"coil,y,x"``.
    certify
        Go on to a minimiser of the energy. False: until the image has settled, where the recipe says so (``solver.stop``).
    device
        Where to compute; None: that of ``source`` if it is a tensor, else the CPU.
    slices_together
        Slices in one solve; None: one on a CPU, as many as the memory holds elsewhere.
    progress
        Called with (position of the slice, number of slices, iteration, residual).
    overrides
        Values of the recipe: ``lam=2e-3``, ``solver={"max_iterations": 50}``.

    Returns
    -------
    Result
        Images in input units, (y, x), or (slice, y, x) for several slices.

    Raises
    ------
    FileError
        Names the file and the field that is wrong.
    ValueError
        An argument does not fit.
    SettingsError
        A key or a value of the recipe is wrong.
    UnusableResultError
        The solver met NaN or infinity.

    Examples
    --------
    >>> result = mrisps.recon("scan.h5")
    >>> result = mrisps.recon(kspace, noise=noise_scan, lam=2e-3)
    >>> result.save("scan.nii.gz")
    """
    run = run_of(
        recipe,
        "mri",
        weights=weights,
        undersample=undersample,
        scale=scale,
        crop=crop,
        slices=SliceChoice()
        if slices is None
        else slices
        if isinstance(slices, SliceChoice)
        else SliceChoice.parse(slices),
        layout=ArrayLayout.parse(axes) if isinstance(axes, str) else axes,
        device=default_device(source) if device is None else str(device),
        slices_together=slices_together,
        overrides=overrides,
        certify=certify,
    )
    if isinstance(source, str | Path):
        for name, given in (("maps", maps), ("noise", noise)):
            if given is not None:
                raise ValueError(f"{name}: goes with an array; a file brings its own")
        with run.open(source) as file:
            if not isinstance(file, KspaceFile):
                raise MrispsError(f"{source}: expected k-space")
            return _result(run.with_mask(_mask_of(mask, file.shape)), file, progress, file.n_slices > 1)
    if isinstance(mask, np.ndarray | torch.Tensor):
        memory = MemoryKspace(source, mask=mask, maps=maps, noise=noise)
        return _result(run, memory, progress, source.ndim == 4)
    memory = MemoryKspace(source, maps=maps, noise=noise)
    chosen: Mask = FROM_ZEROS if mask is None and not undersample else _mask_of(mask, memory.shape)
    return _result(run.with_mask(chosen), memory, progress, source.ndim == 4)


def denoise(
    image: Path | str | Array,
    sigma: float,
    *,
    recipe: str | Path | Recipe | None = None,
    weights: str | Path | SmoothPlusSparse | None = None,
    certify: bool = False,
    device: torch.device | str | None = None,
    progress: Progress | None = None,
    **overrides: Setting,
) -> Result:
    """Remove white Gaussian noise from a grey image.

    Parameters
    ----------
    image
        A grey image file, or an array (y, x), black 0 and white 1; uint8 is divided by 255, uint16 by 65535.
    sigma
        Standard deviation of the noise, in the units of the image (white is 1).
    recipe
        None: the shipped recipe whose noise level (5, 15, 25 or 50 over 255) is nearest to ``sigma``; the image is scaled so
        that its noise is at that level.
    weights, certify, device, progress, overrides
        As for :func:`recon`.

    Raises
    ------
    ValueError
        The image is not grey, or not finite, or sigma is not a number > 0.
    """
    nearest, scale = denoising_recipe(sigma)
    run = run_of(
        nearest if recipe is None else recipe,
        "denoise",
        weights=weights,
        noise_std=sigma,
        scale=scale if recipe is None else None,
        device=default_device(image) if device is None else str(device),
        overrides=overrides,
        certify=certify,
    )
    return _image_result(run, image, progress)


def denoising_recipe(sigma: float) -> tuple[str, float | None]:
    """The shipped recipe whose noise level is nearest to sigma, and the scale of the image that brings its noise to that level.

    Raises
    ------
    ValueError
        sigma is not a number > 0.
    """
    if not 0 < sigma < float("inf"):
        raise ValueError(f"sigma: expected a number > 0 in the units of the image (white is 1), got {sigma}")
    level = min(_LEVELS, key=lambda level: abs(math.log(level / 255 / sigma)))
    return f"denoise_sigma{level}", sigma * 255 / level if sigma != level / 255 else None


def superres(
    image: Path | str | Array,
    factor: int,
    *,
    recipe: str | Path | Recipe | None = None,
    weights: str | Path | SmoothPlusSparse | None = None,
    certify: bool = False,
    device: torch.device | str | None = None,
    progress: Progress | None = None,
    **overrides: Setting,
) -> Result:
    """Make a grey image that was blurred and downsampled larger.

    Parameters
    ----------
    image
        A grey image file, or an array (y, x), black 0 and white 1; uint8 is divided by 255, uint16 by 65535.
    factor
        2 or 4: how many times more pixels along each side, about.
    recipe
        None: the shipped recipe for this factor; it states the blur.
    weights, certify, device, progress, overrides
        As for :func:`recon`.

    Raises
    ------
    ValueError
        The image is not grey, or not finite, or there is no recipe for the factor.
    """
    run = run_of(
        superres_recipe(factor) if recipe is None else recipe,
        "superres",
        weights=weights,
        device=default_device(image) if device is None else str(device),
        overrides=overrides,
        certify=certify,
    )
    if run.recipe.blur is None or run.recipe.blur.stride != factor:
        raise ValueError(
            f"factor: recipe {run.recipe.name} is for {run.recipe.blur and run.recipe.blur.stride}, got {factor}"
        )
    return _image_result(run, image, progress)


def superres_recipe(factor: int) -> str:
    """The shipped recipe for a factor; a ValueError if there is none."""
    if factor not in (2, 4):
        raise ValueError(f"factor: expected 2 or 4, or a recipe for another one, got {factor}")
    return f"superres_x{factor}"


def run_of(
    recipe: str | Path | Recipe,
    task: str,
    *,
    weights: str | Path | SmoothPlusSparse | None = None,
    overrides: Mapping[str, Setting] | None = None,
    undersample: bool = False,
    scale: float | None = None,
    noise_std: float | None = None,
    crop: bool = True,
    slices: SliceChoice | None = None,
    layout: ArrayLayout | None = None,
    certify: bool = False,
    device: str = "cpu",
    slices_together: int | None = None,
) -> Run:
    """A run of a recipe by name, file or value; parameters as for :class:`Run`.

    Raises
    ------
    SettingsError
        There is no such recipe, it is for another task, or a key or value is wrong.
    MrispsError
        The weights cannot be had.
    """
    loaded = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    if loaded.task != task:
        raise MrispsError(f"recipe: {loaded.name} is for the task {loaded.task!r}, not for {task!r}")
    loaded = with_overrides(loaded, dict(_flat(overrides or {})))
    if certify:
        loaded = certified(loaded)
    name = loaded.name if isinstance(recipe, Recipe) else recipe
    return Run(
        recipe=loaded,
        weights=find_weights(weights, loaded, name),
        undersample=undersample,
        scale=scale,
        noise_std=noise_std,
        crop=crop,
        slices=SliceChoice() if slices is None else slices,
        layout=layout,
        device=usable_device(device),
        slices_together=slices_together,
    )


def default_device(source: object) -> str:
    """The device of a tensor; the CPU for anything else."""
    return str(source.device) if isinstance(source, torch.Tensor) else "cpu"


def _flat(values: Mapping[str, Setting], prefix: str = "") -> list[tuple[str, str]]:
    """Key path -> value as the text that a recipe takes."""
    pairs: list[tuple[str, str]] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            pairs += _flat(value, f"{prefix}{key}.")
        else:
            text = ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
            pairs.append((f"{prefix}{key}", text))
    return pairs


def _mask_of(mask: SamplingMask | Array | Path | str | None, shape: tuple[int, int]) -> Mask:
    if mask is None or isinstance(mask, SamplingMask):
        return mask
    if isinstance(mask, str) and mask == FROM_ZEROS:
        return FROM_ZEROS
    if isinstance(mask, str | Path):
        return read_mask(Path(mask), shape)
    return SamplingMask.from_array(mask, shape)


def _result(run: Run, source: KspaceFile, progress: Progress | None, stacked: bool) -> Result:
    made = tuple(run.results(source, progress=progress))
    return Result(made, run.record(source), source.path.name, source.header, source.attributes, stacked)


def _image_result(run: Run, image: Path | str | Array, progress: Progress | None) -> Result:
    if not isinstance(image, str | Path):
        pixels = image.detach().cpu().numpy() if isinstance(image, torch.Tensor) else np.asarray(image)
        white = {"u1": 255, "u2": 65535}.get(pixels.dtype.str[1:], 1)
        if pixels.ndim != 2 or pixels.size == 0 or (pixels.dtype.kind != "f" and white == 1):
            raise ValueError(
                f"image: expected real (y, x), uint8, uint16 or floating-point, got {pixels.dtype} {pixels.shape}"
            )
        with np.errstate(over="ignore", invalid="ignore"):
            source = GreyImage(Path("array"), np.ascontiguousarray(np.divide(pixels, white), dtype=np.float32))
        if not np.isfinite(source.pixels).all():
            raise ValueError("image: expected finite pixels, got NaN or infinity")
    with nullcontext(source) if not isinstance(image, str | Path) else run.open(image) as opened:
        made = tuple(run.results(opened, progress=progress))
        return Result(made, run.record(opened), opened.path.name)
