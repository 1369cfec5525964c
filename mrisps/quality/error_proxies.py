"""How wrong a reconstruction may be, without a reference: two proxies. Neither is the error.

The acquired samples outside the fully sampled centre are divided at random into parts of equal size. Each part is left out once and
the image reconstructed from the rest, with the recipe, the scale and the coil maps of all samples. Two numbers come of it:

held-out k-space error
    how well the reconstructions predict the samples that they were not given. It contains the noise of these samples, and speaks of
    high frequencies only.
spread
    how much the reconstructions differ from pixel to pixel. What all of them get wrong in the same way does not show.

Whether either follows the true error has to be measured, on data with references: `mrisps evaluate --error-proxies` does. On the
paper's validation slices, whose masks differ, neither did (docs/evaluation.md): do not sort slices by them unmeasured. The
division into parts is cross-validation, and its idea for k-space that of B. Yaman et al., Magn. Reson. Med. 84 (2020) 3172-3191.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from mrisps.errors import MrispsError
from mrisps.kspace.coil_maps import calibration_shape
from mrisps.model import SmoothPlusSparse
from mrisps.operators import FourierSubsampling, LinearOperator, Sense
from mrisps.reconstruction.problem import Problem
from mrisps.reconstruction.recipe import Recipe
from mrisps.reconstruction.reconstruct import reconstruct
from mrisps.sampling import SamplingMask

__all__ = ["ErrorProxies", "error_proxies", "held_out_parts"]

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class ErrorProxies:
    """What `error_proxies` found.

    Parameters
    ----------
    held_out_kspace_error
        |A x - y| / |y| on the samples that were left out, over all parts: 0 is perfect, 1 as bad as zeros.
    held_out_share
        |A x - y|^2 on the samples that were left out over |y|^2 of all samples: like an NMSE, it is small where
        little of the image's energy is outside the centre.
    spread
        |spread_map| / |mean image|.
    spread_map
        (y, x) float32: standard deviation of each pixel over the reconstructions, in the units of the input.
    n_parts
        Reconstructions.
    n_converged
        How many of them converged.
    """

    held_out_kspace_error: float
    held_out_share: float
    spread: float
    spread_map: NDArray[np.float32]
    n_parts: int
    n_converged: int


def held_out_parts(mask: SamplingMask, measured: Mask, n_parts: int, *, mirrored: bool, seed: int) -> list[Mask]:
    """Divide what was acquired outside the fully sampled centre into parts.

    Parameters
    ----------
    mask
        What was acquired.
    measured
        bool (y, x): where something else than zeros was measured; columns of zeros say nothing about an error.
    n_parts
        How many.
    mirrored
        Keep a sample and its mirror image at the opposite frequency together: of a real image they are the same number twice.
    seed
        Of the division.

    Returns
    -------
    list of bool arrays
        As the mask's pattern: (x,) for columns, (y, x) for others. Together they are what can be left out; none is empty.

    Raises
    ------
    MrispsError
        There are fewer lines (or samples) outside the centre than parts.
    ValueError
        Fewer than 2 parts.
    """
    if n_parts < 2:
        raise ValueError(f"n_parts: expected at least 2, got {n_parts}")
    pattern = mask.array2d() & measured
    centre = np.zeros(mask.shape, dtype=np.bool_)
    height, width = calibration_shape(mask.array2d())
    first_y, first_x = mask.shape[0] // 2 - height // 2, mask.shape[1] // 2 - width // 2
    centre[first_y : first_y + height, first_x : first_x + width] = True
    candidates: Mask = pattern & ~centre  # (y, x)
    if mask.is_columns:
        candidates = np.asarray(candidates.any(axis=0))  # (x,)
    places = np.flatnonzero(candidates)
    groups = places
    if mirrored:
        mirror = np.arange(candidates.size).reshape(candidates.shape)
        for axis, size in enumerate(candidates.shape):
            mirror = np.take(mirror, (2 * (size // 2) - np.arange(size)) % size, axis=axis)
        groups = np.minimum(places, mirror.ravel()[places])  # one number for both
    names = np.unique(groups)
    if len(names) < n_parts:
        raise MrispsError(
            f"error proxies: {len(names)} {'lines' if mask.is_columns else 'samples'} outside the fully sampled centre "
            f"cannot be divided into {n_parts} parts"
        )
    part_of = np.random.default_rng(seed).permutation(np.arange(len(names)) % n_parts)[np.searchsorted(names, groups)]
    parts = []
    for part in range(n_parts):
        chosen = np.zeros(candidates.size, dtype=np.bool_)
        chosen[places[part_of == part]] = True
        parts.append(chosen.reshape(candidates.shape))
    return parts


def error_proxies(
    problem: Problem, model: SmoothPlusSparse, recipe: Recipe, *, n_parts: int = 4, seed: int = 0
) -> ErrorProxies:
    """Both proxies of one slice, for as many reconstructions as there are parts.

    Parameters
    ----------
    problem
        Of :func:`mrisps.reconstruction.reconstruct.mri_problem`.
    model, recipe
        As for :func:`mrisps.reconstruction.reconstruct.reconstruct`.
    n_parts
        So many reconstructions, each without one of so many parts.
    seed
        Of the division.

    Raises
    ------
    MrispsError
        The problem is not undersampled MRI, or has too few lines outside the centre.
    UnusableResultError
        A reconstruction ended with NaN or infinity.
    """
    operator, mask = problem.operator, problem.mask
    if mask is None or mask.is_fully_sampled:
        raise MrispsError("error proxies: need undersampled k-space")
    measured = (problem.y[0] != 0).any(dim=0).cpu().numpy()
    mirrored = not operator.domain_dtype.is_complex and operator.range_shape[0] == 1
    images, missed, energy, n_converged = [], 0.0, 0.0, 0
    for part in held_out_parts(mask, measured, n_parts, mirrored=mirrored, seed=seed):
        left_out = torch.from_numpy(part).to(operator.device)
        rest = SamplingMask.from_array(mask.pattern & ~part, mask.shape)
        result = reconstruct(
            replace(problem, operator=_with_mask(operator, rest), y=problem.y * ~left_out, mask=rest), model, recipe
        )
        n_converged += result.converged
        images.append(result.image)
        scaled = result.image / problem.scale
        if problem.factor is not None:  # of modulus 1, or 0 where no coil sees anything
            scaled = scaled * problem.factor.conj()
        difference = (operator.forward(scaled.to(operator.domain_dtype)) - problem.y) * left_out
        missed += float(difference.abs().square().sum())
        energy += float((problem.y * left_out).abs().square().sum())
    stack = torch.cat(images)[:, 0]  # (part, y, x)
    mean = stack.mean(dim=0)
    spread_map = (stack - mean).abs().square().sum(dim=0).div(n_parts - 1).sqrt()
    return ErrorProxies(
        held_out_kspace_error=math.sqrt(missed / energy),
        held_out_share=missed / float(problem.y.abs().square().sum()),
        spread=float(spread_map.norm() / mean.abs().norm()),
        spread_map=spread_map.cpu().numpy().astype(np.float32),
        n_parts=n_parts,
        n_converged=n_converged,
    )


def _with_mask(operator: LinearOperator, mask: SamplingMask) -> LinearOperator:
    if isinstance(operator, Sense):
        return Sense(mask, operator.maps, operator.domain_dtype, operator.device)
    if isinstance(operator, FourierSubsampling):
        return FourierSubsampling(mask, mask.shape, operator.domain_dtype, operator.device)
    raise MrispsError(f"error proxies: need undersampled k-space, got {operator!r}")
