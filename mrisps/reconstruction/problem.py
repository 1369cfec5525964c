"""From a slice or an image and a recipe to a problem in scaled units: operator, measurements, scale, noise level.

    Acquisition or image  --(recipe: mask, preparation, scale)-->  Problem

A :class:`Problem` owns the units: what a solver is given has an image maximum of about 1; :meth:`Problem.combined` undoes phase and
sets of maps, and ``scale`` the rest.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mrisps.errors import FileError, MrispsError
from mrisps.io.acquisition import Acquisition
from mrisps.io.images import center_crop
from mrisps.kspace.grid import calibration_shape
from mrisps.kspace.preparation import Preparation, Step, prepare
from mrisps.kspace.settings import SMALLEST_CALIBRATION
from mrisps.kspace.whiten import estimate_noise_std
from mrisps.operators import BlurDownsample, FourierSubsampling, Identity, LinearOperator, Sense
from mrisps.reconstruction.recipe import Recipe
from mrisps.sampling import SamplingMask, make_mask

__all__ = ["Problem", "image_problem", "image_size", "is_real", "mri_problem", "to_array"]


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
        (1, set, set, y, x) complex: a matrix at every pixel, applied to the solver's images of the sets. It holds the phase that
        was removed and the weights of the maps, so that the root sum of squares is that of the coil images. None: nothing.
    facts
        What the verdict looks at, from the preparation; see :data:`mrisps.reconstruction.verdict.LIMITS`.
    """

    operator: LinearOperator
    y: Tensor
    scale: float
    noise_std: float | None
    mask: SamplingMask | None = None
    notes: tuple[str, ...] = ()
    steps: tuple[Step, ...] = ()
    factor: Tensor | None = None
    facts: Mapping[str, float | None] = field(default_factory=dict)

    def combined(self, images: Tensor) -> Tensor:
        """The image of all sets of maps, with its phase, in scaled units.

        Parameters
        ----------
        images
            (batch, set, y, x), what a solver returns.

        Returns
        -------
        Tensor
            (batch, 1, y, x). One set: that image times ``factor``. Several: the root sum of squares of ``factor`` times the images,
            with the phase of the first set that is not 0 at a pixel.
        """
        parts = images if self.factor is None else (self.factor * images[:, None]).sum(dim=2)
        if parts.shape[1] == 1:
            return parts
        magnitude = torch.linalg.vector_norm(parts, dim=1, keepdim=True)
        sign = torch.zeros_like(images[:, :1])
        for index in range(images.shape[1]):
            one = images[:, index : index + 1]
            if self.factor is not None:
                weighted = one * self.factor[:, index, index : index + 1]
                one = weighted if images.is_complex() else weighted.real
            sign = torch.where(sign == 0, torch.sgn(one), sign)
        combined: Tensor = magnitude * sign
        return combined

    def zero_filled(self, crop: tuple[int, int] | None = None) -> NDArray[np.float32]:
        """Magnitude (y, x) of A^H y in input units, centrally cropped where a smaller size is asked for."""
        image = self.combined(self.operator.adjoint(self.y)) * self.scale
        return np.abs(to_array(image, crop)).astype(np.float32)


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
    acquired, note = _acquired(acquisition, mask)
    if undersample:
        acquired = _undersampled(acquisition, recipe, acquired)
    notes = [*([note] if note else []), *_sampling_notes(acquisition, recipe, acquired)]
    facts = {"silent_inside": _silent_inside(acquisition, acquired)}
    dtype = torch.float32 if is_real(acquisition, recipe) else torch.complex64
    if recipe.preparation is not None:
        return _sense_problem(
            acquisition, recipe, recipe.preparation, acquired, dtype, scale, device, maps_folder, notes, facts
        )
    for name in ("sensitivity_maps", "noise_scan"):
        if getattr(acquisition, name) is not None:
            notes.append(f"{name}: not used, the recipe has no preparation for coils")
    operator = FourierSubsampling(acquired, acquisition.shape, dtype, torch.device(device))
    y = torch.from_numpy(acquisition.kspace).to(operator.device)[None] * acquired.tensor(operator.device)
    scale = _scale(operator, y, recipe, scale)
    noise_std = recipe.noise_std
    if noise_std is None:
        estimate = estimate_noise_std(acquisition.kspace, acquired.array2d())
        noise_std = None if estimate is None else estimate / scale
    notes += _stride_note(recipe, acquisition.shape)
    return Problem(operator, y / scale, scale, noise_std, acquired, tuple(notes), facts=facts)


def _sampling_notes(acquisition: Acquisition, recipe: Recipe, acquired: SamplingMask) -> list[str]:
    """What a user should know about the sampling."""
    realised = acquired.realised_acceleration
    notes = []
    if acquired.misses_nominal:
        notes.append(f"the mask was asked for acceleration {acquired.acceleration:g} and has {realised:.2f}")
    if acquired.is_fully_sampled:
        return [*notes, "k-space is fully sampled: the reconstruction only denoises it"]
    pattern = acquired.array2d()
    measured = pattern & (acquisition.kspace != 0).any(axis=0)
    silent = pattern.any(axis=0) & ~measured.any(axis=0)  # (x,): acquired, and zero throughout
    if silent.any():
        notes.append(
            f"{int(silent.sum())} acquired columns hold nothing but zeros: they are taken as measured, "
            "and the ratio of data misfit to noise is too small"
        )
    if recipe.mask is not None and not 0.6 <= realised / recipe.mask.acceleration <= 1.6:
        notes.append(
            f"the data are {realised:.2f}-fold undersampled, the recipe is for {recipe.mask.acceleration:g}-fold"
        )
    return notes


def _silent_inside(acquisition: Acquisition, acquired: SamplingMask) -> float:
    """Share of the acquired lines (of a two-dimensional mask: samples) that hold nothing but zeros, inside those that do not.

    Zeros outside are a zero-padded matrix. Zeros inside were not measured: the mask is not that of this slice.
    """
    pattern = acquired.array2d()
    measured = pattern & np.asarray((acquisition.kspace != 0).any(axis=0))
    if acquired.is_columns:
        pattern, measured = pattern[:1], np.asarray(measured.any(axis=0))[None]
    if not measured.any():
        return 1.0
    box = tuple(slice(where[0], where[-1] + 1) for where in (np.flatnonzero(measured.any(axis=k)) for k in (1, 0)))
    return 1 - float(measured[box].sum() / pattern[box].sum())


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
    facts: Mapping[str, float],
) -> Problem:
    prepared = prepare(acquisition, acquired.array2d(), preparation, maps_folder, device)
    notes = [*notes, *prepared.notes]
    shape = prepared.mask.shape
    sampling = acquired if acquired.shape == shape else _on_grid(acquired, prepared.mask)
    maps = torch.from_numpy(prepared.maps * prepared.phase[:, None])
    operator = Sense(sampling, maps, dtype, torch.device(device))
    y = torch.from_numpy(prepared.kspace).to(operator.device)[None]
    diagonal = np.abs(prepared.combine[0, 0])
    gain = float(
        np.median(diagonal[diagonal > 0])
    )  # units of the image over those of the k-space, which may be whitened
    inner = _scale(operator, y, recipe, None if scale is None else scale / prepared.unit / gain)
    if scale is None and recipe.scale is not None and min(calibration_shape(prepared.mask)) < SMALLEST_CALIBRATION:
        # Regular undersampling without a centre: an alias is fainter than the image by the acceleration R, R of them that lie on
        # top of each other in phase are as bright. The geometric mean is wrong by no more than the root of R.
        inner *= math.sqrt(sampling.realised_acceleration)
    noise_std, measured = recipe.noise_std, prepared.noise_std
    if noise_std is None:
        measured = estimate_noise_std(prepared.kspace, prepared.mask) if measured is None else measured
        noise_std = None if measured is None else measured / inner
    notes += _stride_note(recipe, shape)
    phase = prepared.phase if dtype.is_complex else np.ones_like(prepared.phase)
    matrix = torch.from_numpy(prepared.combine / np.float32(gain) * phase).to(operator.device)[None]
    factor = matrix.real if len(phase) == 1 and not dtype.is_complex else matrix
    return Problem(
        operator,
        y / inner,
        inner * gain * prepared.unit,
        noise_std,
        sampling,
        tuple(notes),
        prepared.steps,
        factor,
        {**facts, **prepared.facts},
    )


def _on_grid(mask: SamplingMask, pattern: NDArray[np.bool_]) -> SamplingMask:
    """The same mask for another number of rows, of whole columns."""
    return replace(mask, shape=(int(pattern.shape[0]), int(pattern.shape[1])), pattern=pattern[0])


def image_problem(
    image: NDArray[np.float32],
    recipe: Recipe,
    *,
    noise_std: float | None = None,
    scale: float | None = None,
    device: torch.device | str = "cpu",
) -> Problem:
    """Denoising (the identity as operator) or super-resolution (blur and downsampling), as the recipe says.

    Parameters
    ----------
    image
        (y, x), maximum about 1 unless the recipe has a scale rule. A valid convolution with a k x k kernel and stride s maps n
        pixels to (n - k) // s + 1; of the sizes n that fit a low-resolution image, the smallest is reconstructed.
    recipe
        Gives operator, scale rule and noise level.
    noise_std
        Noise standard deviation in the units of the image; by default that of the recipe.
    scale, device
        As in :func:`mri_problem`.

    Raises
    ------
    MrispsError
        The recipe is for k-space.
    """
    place = torch.device(device)
    if recipe.task == "denoise":
        operator: LinearOperator = Identity((1, *image.shape), torch.float32, place)
    elif recipe.blur is not None:
        blur, size = recipe.blur, image_size((image.shape[0], image.shape[1]), recipe)
        operator = BlurDownsample(size, blur.kernel_size, blur.sigma, blur.stride, torch.float32, place)
    else:
        raise MrispsError(f"recipe {recipe.name}: is for {recipe.task}, not for images")
    y = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32)).to(place)[None, None]
    scale = _scale(operator, y, recipe, scale)
    std = recipe.noise_std if noise_std is None else noise_std / scale
    return Problem(operator, y / scale, scale, std)


def is_real(acquisition: Acquisition, recipe: Recipe) -> bool:
    """Whether the image of a slice is real."""
    return acquisition.image_is_real if recipe.image == "from_file" else recipe.image == "real"


def image_size(shape: tuple[int, int], recipe: Recipe) -> tuple[int, int]:
    """(y, x) of what is reconstructed from an image (y, x): larger for super-resolution."""
    blur = recipe.blur
    if blur is None:
        return shape
    height, width = ((size - 1) * blur.stride + blur.kernel_size for size in shape)
    return height, width


def to_array(image: Tensor, crop: tuple[int, int] | None = None) -> NDArray[np.float32] | NDArray[np.complex64]:
    """(1, 1, y, x) tensor -> (y, x) array, centrally cropped where a smaller size is asked for."""
    array: NDArray[np.float32] = image[0, 0].detach().cpu().numpy()
    if crop is None:
        return array
    height, width = array.shape
    return center_crop(array, (min(crop[0], height), min(crop[1], width)))


def _scale(operator: LinearOperator, y: Tensor, recipe: Recipe, given: float | None) -> float:
    if given is not None:
        if not 0 < given < float("inf"):
            raise MrispsError(f"scale: expected a number > 0, got {given}")
        return given
    if recipe.scale is None:
        return 1.0
    magnitude = torch.linalg.vector_norm(operator.adjoint(y), dim=1).flatten().cpu().numpy()  # of all sets
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
        return SamplingMask.from_array(stated, acquisition.shape), None
    sampling = SamplingMask.from_array(acquisition.acquired(), acquisition.shape)
    everything = SamplingMask.from_array(np.ones(acquisition.shape[1], dtype=np.bool_), acquisition.shape)
    if sampling.is_fully_sampled:
        return everything, None
    if sampling.n_acs_lines == sampling.n_acquired:  # one run of columns through the centre: a zero-padded matrix
        return everything, (
            f"k-space is zero beyond its {sampling.n_acquired} central columns, and the file states no mask: "
            "taken as a fully sampled, zero-padded matrix"
        )
    raise FileError(
        acquisition.source,
        f"the file states no mask, and only {sampling.n_acquired} of {sampling.pattern.size} "
        f"{'columns' if sampling.is_columns else 'samples'} are not zero: "
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
