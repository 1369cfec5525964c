"""The stages of the default solver: which problems are solved one after the other, and how each is started."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from mrisps.model import Energy, PatchTransform, to_real_images
from mrisps.solvers.descent import Descent, DescentOptions, Stage, storage
from mrisps.solvers.greedy import greedy_coefficients
from mrisps.solvers.image_step import ConvolutionStep, ImageStep
from mrisps.solvers.inertial import Inertial
from mrisps.solvers.resolution import coarse_shape, restrict, restrict_transfer
from mrisps.solvers.settings import FastSettings
from mrisps.solvers.splitting import Splitting

__all__ = ["STRIDE", "coarse_stages", "start_descent"]

STRIDE = 2
"""In the stages before the last, the patches count that are centred on every second pixel of every second row."""

SPLITTING_GREED = 4.0
SPLITTING_SHRINKAGE = 0.8
"""The splitting starts from atoms that are worth at least this many thresholds, and from coefficients this much smaller: least
squares on few atoms is far from a minimum that spreads over dozens of atoms."""


def coarse_stages(energy: Energy, image_step: ImageStep, settings: FastSettings) -> list[Callable[[], Stage]]:
    """The stages before the full problem, coarsest first, each to be built when its turn comes."""
    prior, operator = energy.prior, energy.operator
    filters = prior.transform.filters
    group = prior.regulariser.group_size
    multiple = STRIDE * group

    def build(shape: tuple[int, int], stride: int) -> Stage:
        transform = PatchTransform(filters, stride)
        coarser = shape != energy.image_shape
        step: ConvolutionStep | ImageStep
        if image_step.transfer is not None:
            adjoint_y = restrict(image_step.adjoint_y, shape) if coarser else image_step.adjoint_y
            transfer = restrict_transfer(image_step.transfer, shape) if coarser else image_step.transfer
            step = ConvolutionStep(adjoint_y, transfer, prior, transform)
        else:
            restricted = operator.restricted(energy.y, shape) if coarser else None
            small = energy if restricted is None else Energy(*restricted, prior)
            step = ImageStep(small, settings.image_tolerance, transform=transform)
        return Stage(prior, transform, step, shape)

    shapes = [coarse_shape(energy.image_shape, 2**level, 2 * multiple) for level in range(settings.levels - 1, 0, -1)]
    shapes = [shape for shape in shapes if min(shape) >= 2 * prior.transform.patch_size]
    if image_step.transfer is None and (not shapes or operator.restricted(energy.y, shapes[0]) is None):
        shapes = []
    stages: list[Callable[[], Stage]] = []
    for shape in shapes:
        stages.append(functools.partial(build, shape, STRIDE))
    samples = settings.levels > 1 and image_step.transfer is None and image_step.in_closed_form
    if (stages or samples) and prior.stride == 1 and not any(size % multiple for size in energy.image_shape):
        stages.append(functools.partial(build, energy.image_shape, STRIDE))
    return stages


def start_descent(
    stage: Stage,
    options: DescentOptions,
    n_rows: int,
    *,
    factor: float,
    inertia: int,
    image: Tensor | None = None,
    known: list[Tensor] | None = None,
    given: Tensor | None = None,
) -> Descent:
    """The algorithm that suits a stage, at its start.

    Parameters
    ----------
    stage, options
        The problem, and how it is to be solved.
    n_rows
        Real images.
    factor
        Threshold multiplier of the first iteration.
    inertia
        The inertial algorithm starts with the inertia that it has after this number of iterations, unless a = 0.
    image
        The image so far, (batch, set, y, x). The coefficients to start from are found by matching pursuit of its patches. None:
        the start is a = 0.
    known
        A list that may hold coefficients of every ``STRIDE``-th patch of every ``STRIDE``-th row. They replace those of the
        pursuit. They are removed from the list, which frees their memory.
    given
        Coefficients of all patches, (rows, y / stride, x / stride, n), in any floating-point type. They are copied, and there is
        no pursuit.
    """
    prior, transform = stage.prior, stage.transform
    splitting = prior.regulariser.is_norm and stage.image_step.transfer is not None
    shape = (n_rows, *transform.grid_shape(stage.image_shape), prior.n_atoms)
    coefficients: Tensor | None = None
    if given is not None:
        coefficients = prior.basis.new_empty(shape, dtype=storage(prior, options)).copy_(given)
    elif image is not None:
        coefficients = prior.basis.new_empty(shape, dtype=storage(prior, options))
        wanted = torch.ones(shape[:-1], dtype=torch.bool, device=coefficients.device)
        if known:
            wanted[:, ::STRIDE, ::STRIDE] = False
        analysed = transform.forward(to_real_images(image))
        greedy_coefficients(
            prior, analysed, coefficients, threshold=SPLITTING_GREED if splitting else 1.0, wanted=wanted
        )
        del analysed
        if splitting:
            coefficients *= SPLITTING_SHRINKAGE
        if known:
            coefficients[:, ::STRIDE, ::STRIDE] = known.pop()
    if splitting:
        return Splitting(stage, options, factor, n_rows, coefficients, near_minimum=given is not None)
    return Inertial(stage, options, factor, n_rows, coefficients, image=image, inertia=inertia)
