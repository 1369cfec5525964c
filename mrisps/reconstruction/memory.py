"""How much memory a reconstruction takes, before it starts, and an error where there is not so much.

The numbers of arrays below were counted in the solver and checked against measured peaks (docs/lab/device.md): they are right to
about a quarter. What is left out is the program itself with PyTorch, about 0.4 GiB.
"""

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import torch

from mrisps.errors import MrispsError
from mrisps.model import ModelConfig, SmoothPlusSparse
from mrisps.model.energy import ACCELERATOR_CHUNK_PIXELS, CHUNK_PIXELS
from mrisps.reconstruction.grey_image import GreyImage, Source
from mrisps.reconstruction.problem import Problem, image_size, is_real
from mrisps.reconstruction.recipe import Recipe
from mrisps.solvers.aliases import LARGEST_BORDER
from mrisps.solvers.greedy import ACCELERATOR_CHUNK_PATCHES, CHUNK_PATCHES, MAX_ATOMS

__all__ = [
    "MemoryEstimate",
    "NotEnoughMemoryError",
    "available_memory",
    "check_memory",
    "estimate",
    "left",
    "of_problem",
    "of_source",
]

COEFFICIENT_ARRAYS = 2
PATCH_ARRAYS = 3
"""Arrays that the solver holds of the coefficients (n numbers a patch), and of what the filters say of the patches (r numbers).
Several slices in one solve take one more of the former: their coefficients are put in order at the end."""

GAP_ARRAYS = 3
"""More of the latter while the energy of a convex problem is bounded, which is in double precision."""

IMAGE_ARRAYS = 8
"""Arrays of the size of an image, in closed form or in conjugate gradients."""

WORK_ARRAYS, HALF_WORK_ARRAYS = 3, 4
"""Coefficients of a piece that are worked on at a time; the latter with half storage."""

POTENTIAL_ARRAYS = 8
"""The same for the energy of the result, when one array of coefficients is left."""

KSPACE_ARRAYS = 3
"""Copies of the k-space of a slice, while it is prepared and scaled."""

MAPS = 2
"""Copies of the coil maps: their conjugates are kept, too."""

CHUNK = 48 << 20
"""Most work space of all coil images; see :data:`mrisps.operators.sense.CHUNK_BYTES`."""

SAFETY = 0.75
"""There is an error where even this share of the estimate is more than there is."""

_log = logging.getLogger("mrisps")


class NotEnoughMemoryError(MrispsError):
    """The problem needs more memory than there is."""


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes of the parts, at the peak.

    Parameters
    ----------
    coefficients, patches
        The solver's coefficients; what the filters say of every patch.
    thresholds
        With attention: the map of thresholds.
    images, aliases
        Images; matrices in Fourier space that the image step keeps.
    maps, kspace
        Coil maps; k-space.
    work
        Work space of the solver, which a larger image does not enlarge.
    shape
        (y, x) of the image.
    together
        Slices in one solve.
    """

    coefficients: int
    patches: int
    thresholds: int
    images: int
    aliases: int
    maps: int
    kspace: int
    work: int
    shape: tuple[int, int]
    together: int = 1

    @property
    def parts(self) -> Mapping[str, int]:
        """Name -> bytes."""
        names = [field.name for field in fields(self) if field.name not in ("shape", "together")]
        return {name: getattr(self, name) for name in names}

    @property
    def total(self) -> int:
        """Bytes of all parts."""
        return sum(self.parts.values())

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {_gib(size)}" for name, size in self.parts.items() if size > 0.01 * self.total)
        return f"{_gib(self.total)} GiB ({parts})"


def estimate(
    recipe: Recipe,
    model: ModelConfig,
    shape: tuple[int, int],
    *,
    is_complex: bool = True,
    n_coils: int = 1,
    n_sets: int = 1,
    together: int = 1,
    attention: bool = False,
    on_cpu: bool = True,
) -> MemoryEstimate:
    """Memory that images of one size take.

    Parameters
    ----------
    recipe, model
        Stride and storage of the coefficients; number of atoms.
    shape
        (y, x) of the image that is reconstructed.
    is_complex
        Whether the image is complex.
    n_coils, n_sets
        Coils and sets of maps after the preparation; 0 coils: no k-space.
    together
        Slices in one solve.
    attention
        Whether the weights have an attention.
    on_cpu
        Elsewhere the pieces that the solver works on at a time are larger.
    """
    n_pixels, solver = math.prod(recipe.grid_for(shape, model.group_size)), recipe.solver
    use = recipe.prior_for(shape, model.group_size)
    rows = together * n_sets * (2 if is_complex else 1)
    n_patches, n_atoms = rows * n_pixels // use.stride**2, model.n_synthesis_atoms
    rank = model.patch_size**2 - 1 - model.n_free_atoms
    bounded = model.regulariser == "CPR" and solver.stop == "stationary"
    coil_images = together * n_coils * n_pixels * 8

    array = n_patches * n_atoms * (2 if solver.half_storage else 4)
    coefficients = (COEFFICIENT_ARRAYS + (together > 1)) * array
    analysed = n_patches * rank * 4
    patches = (PATCH_ARRAYS + (GAP_ARRAYS if bounded else 0)) * analysed
    # The map of an attention, and truth values while it is checked; with several slices in one solve there is a second map
    # without those that are done.
    thresholds = (5 + 4 * (together > 1)) * n_patches * n_atoms if attention else 0

    pixels, chunk = (CHUNK_PIXELS, CHUNK_PATCHES) if on_cpu else (ACCELERATOR_CHUNK_PIXELS, ACCELERATOR_CHUNK_PATCHES)
    piece = min(pixels, n_patches // rows * (2 if use.modulus and is_complex else 1))
    work = (HALF_WORK_ARRAYS if solver.half_storage else WORK_ARRAYS) * piece * n_atoms * 4
    alone = POTENTIAL_ARRAYS * piece * n_atoms * 4  # before and after the iterations there is one array of either
    if solver.levels > 1:  # matching pursuit
        most = min(MAX_ATOMS, rank, n_atoms)
        alone = max(alone, min(chunk, n_patches) * (most * (rank + most + 3) + 2 * n_atoms + 6 * rank) * 4)
    work = max(work, alone + array + analysed - coefficients - patches)
    return MemoryEstimate(
        coefficients=coefficients,
        patches=patches,
        thresholds=thresholds,
        images=IMAGE_ARRAYS * rows * n_pixels * 4,
        aliases=_aliases(recipe, use.stride, shape, is_complex, n_coils, n_sets, together, bounded),
        maps=MAPS * together * n_sets * n_coils * n_pixels * 8 if n_coils > 1 else 0,
        kspace=KSPACE_ARRAYS * coil_images + min(3 * coil_images, CHUNK),
        work=work,
        shape=shape,
        together=together,
    )


def _aliases(
    recipe: Recipe,
    stride: int,
    shape: tuple[int, int],
    is_complex: bool,
    n_coils: int,
    n_sets: int,
    together: int,
    bounded: bool,
) -> int:
    """Bytes of the matrices that the image step keeps: at stride s, s^2 x s^2 complex numbers at a frequency of s^2 aliases.

    One serves all slices, but each slice that has a mask or maps of its own has one, too.
    """
    n_pixels = math.prod(shape)
    if recipe.blur is not None:  # half of the spectrum of a real image; and a dense system of the samples at the border
        grid = [size // recipe.blur.stride for size in shape]
        n_lacking = math.prod(grid) - math.prod(
            (size - recipe.blur.kernel_size) // recipe.blur.stride + 1 for size in shape
        )
        return recipe.blur.stride**2 * 4 * n_pixels + (8 * n_lacking**2 if n_lacking <= LARGEST_BORDER else 0)
    matrices = stride**2 * 8 * n_pixels
    if n_coils > 1:  # conjugate gradients: the patch term, and a preconditioner
        return matrices * (1 + n_sets * together)
    double = 4 * matrices if bounded else 0  # two in double precision
    return matrices * together // (1 if is_complex else 2) + double


def of_problem(problem: Problem, model: SmoothPlusSparse, recipe: Recipe, together: int = 1) -> MemoryEstimate:
    """:func:`estimate` of a problem that is set up."""
    operator = problem.operator
    n_sets, height, width = operator.domain_shape
    return estimate(
        recipe,
        model.config,
        (height, width),
        is_complex=operator.domain_dtype.is_complex,
        n_coils=0 if problem.mask is None else operator.range_shape[0],
        n_sets=n_sets,
        together=together,
        attention=_attends(model, recipe),
        on_cpu=operator.device.type == "cpu",
    )


def _attends(model: SmoothPlusSparse, recipe: Recipe) -> bool:
    return model.attention is not None and recipe.solver.attention_iterations is not None


def of_source(
    source: Source, recipe: Recipe, model: SmoothPlusSparse, index: int = 0, device: torch.device | str = "cpu"
) -> Callable[[int], MemoryEstimate]:
    """:func:`estimate` of so many slices of an open source, before anything is computed.

    Of k-space the slice is read, for its readout oversampling. Coils are counted as the source has them, and sets of maps as the
    recipe asks for, else one: compression makes it less, a second set up to twice as much.
    """
    is_complex, n_coils, n_sets = False, 0, 1
    if isinstance(source, GreyImage):
        height, width = source.pixels.shape
        height, width = image_size((height, width), recipe)
    else:
        acquisition, preparation = source.read_slice(index), recipe.preparation
        height, width = acquisition.shape
        is_complex, n_coils = not is_real(acquisition, recipe), acquisition.n_coils
        if preparation is not None:
            n_sets = preparation.maps.n_sets or 1
            if preparation.remove_oversampling:
                height = round(height / acquisition.readout_oversampling)
    return lambda together: estimate(
        recipe,
        model.config,
        (height, width),
        is_complex=is_complex,
        n_coils=n_coils,
        n_sets=n_sets,
        together=together,
        attention=_attends(model, recipe),
        on_cpu=torch.device(device).type == "cpu",
    )


def available_memory(device: torch.device | str = "cpu", cgroup: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Bytes that this process may still take; None where nothing tells.

    Of the processor's memory: what the system has to give, and no more than its container allows. Of another device: what is free.

    Parameters
    ----------
    device
        Where to compute.
    cgroup
        Where the control group is mounted, version 2 or 1.
    """
    place = torch.device(device)
    if place.type == "cuda":
        return (
            torch.cuda.mem_get_info(place)[0] + torch.cuda.memory_reserved(place) - torch.cuda.memory_allocated(place)
        )
    if place.type != "cpu":
        return None
    limits = [_left_in_group(cgroup)]
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines())
        limits.append(int(lines["MemAvailable"].split()[0]) << 10)
    except (OSError, KeyError, ValueError):  # not Linux
        pass
    known = [limit for limit in limits if limit is not None]
    return min(known) if known else None


def _left_in_group(cgroup: Path) -> int | None:
    """Bytes between the limit of the control group and what it uses; files that can be read again do not count."""
    for limit, used, stat, name in (
        ("memory.max", "memory.current", "memory.stat", "inactive_file"),
        (
            "memory/memory.limit_in_bytes",
            "memory/memory.usage_in_bytes",
            "memory/memory.stat",
            "total_inactive_file",
        ),
    ):
        try:
            most = int((cgroup / limit).read_text())
            now = int((cgroup / used).read_text())
            facts = dict(line.split() for line in (cgroup / stat).read_text().splitlines())
            return max(0, most - now + int(facts.get(name, 0)))
        except (OSError, ValueError):  # another version, or "max"
            continue
    return None


def check_memory(needed: MemoryEstimate, recipe: Recipe, device: torch.device | str = "cpu") -> None:
    """Refuse what does not fit; warn where it may not.

    Raises
    ------
    NotEnoughMemoryError
        Even three quarters of the estimate are more than there is. The message says what would help.
    """
    available = available_memory(device)
    if available is None or needed.total <= available:
        return
    height, width = needed.shape
    message = f"an image of {height} x {width} needs about {needed} of memory, and {left(available, device)}"
    if SAFETY * needed.total <= available:
        _log.warning("%s", message)
        return
    raise NotEnoughMemoryError(f"{message}. What would help: {', '.join(_what_helps(recipe, needed.shape))}")


def left(available: int, device: torch.device | str) -> str:
    """How much memory is left, in words."""
    return f"{_gib(available)} GiB are left on {device}"


def _what_helps(recipe: Recipe, shape: tuple[int, int]) -> list[str]:
    helps = []
    if recipe.prior_for(shape).stride == 1:
        even = "" if all(size % 2 == 0 for size in shape) else " and an image with even sides"
        helps.append(f"a stride of 2{even} (prior.stride=2, a quarter of the coefficients)")
    if not recipe.solver.half_storage:
        helps.append("half storage (solver.half_storage=true, half of the coefficients)")
    if recipe.blur is not None:
        helps.append("a smaller factor, or a part of the image")
    elif recipe.task == "denoise":
        helps.append("parts of the image, one after the other")
    else:
        helps.append("fewer coils (preparation.compression)" if recipe.preparation else "a smaller matrix")
    return helps


def _gib(size: int) -> str:
    return f"{size / 2**30:.2g}" if size < 10 * 2**30 else f"{size / 2**30:.0f}"
