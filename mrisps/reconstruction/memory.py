"""How much memory a reconstruction takes, before it starts, and an error where there is not so much.

The numbers of arrays below were counted in the solver and checked against measured peaks (docs/lab/memory.md): they are right to
about a quarter. What is left out is the program itself with PyTorch, about 0.4 GiB.
"""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mrisps.errors import MrispsError
from mrisps.model import ModelConfig
from mrisps.reconstruction.grey_image import GreyImage, Source
from mrisps.reconstruction.problem import Problem, image_size, is_real
from mrisps.reconstruction.recipe import Recipe

if TYPE_CHECKING:
    import torch

__all__ = [
    "MemoryEstimate",
    "NotEnoughMemoryError",
    "available_memory",
    "check_memory",
    "estimate",
    "of_problem",
    "of_source",
]

COEFFICIENT_ARRAYS = 2
PATCH_ARRAYS = 3
"""Arrays that the solver holds of the coefficients (n numbers a patch), and of what the filters say of the patches (r numbers).
Several slices in one solve take one more of the former: their coefficients are put in order at the end."""

IMAGE_ARRAYS = 8
ALIAS_ARRAYS = 1
"""Arrays of the size of an image, and with a stride s of s^2 numbers a pixel in double precision."""

KSPACE_ARRAYS = 3
"""Copies of the k-space of a slice, while it is prepared and scaled."""

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
    coefficients, patches, images, maps, kspace
        The solver's coefficients; what the filters say of every patch; images and Fourier-space systems; coil maps; k-space.
    shape
        (y, x) of the image.
    """

    coefficients: int
    patches: int
    images: int
    maps: int
    kspace: int
    shape: tuple[int, int]

    @property
    def parts(self) -> Mapping[str, int]:
        """Name -> bytes."""
        return {name: getattr(self, name) for name in ("coefficients", "patches", "images", "maps", "kspace")}

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
    """
    n_pixels = math.prod(shape)
    stride = recipe.prior_for(shape, model.group_size).stride
    rows = together * n_sets * (2 if is_complex else 1)
    n_patches = rows * n_pixels // stride**2
    rank = model.patch_size**2 - 1 - model.n_free_atoms
    coil_images = together * n_coils * n_pixels * 8
    return MemoryEstimate(
        coefficients=(COEFFICIENT_ARRAYS + (together > 1))
        * n_patches
        * model.n_synthesis_atoms
        * (2 if recipe.solver.half_storage else 4),
        patches=PATCH_ARRAYS * n_patches * rank * 4,
        images=IMAGE_ARRAYS * rows * n_pixels * 4 + (ALIAS_ARRAYS * n_sets * n_pixels * 4 if stride > 1 else 0) * 16,
        maps=together * n_sets * n_coils * n_pixels * 8 if n_coils > 1 else 0,
        kspace=KSPACE_ARRAYS * coil_images + min(3 * coil_images, CHUNK),
        shape=shape,
    )


def of_problem(problem: Problem, model: ModelConfig, recipe: Recipe, together: int = 1) -> MemoryEstimate:
    """:func:`estimate` of a problem that is set up."""
    operator = problem.operator
    n_sets, height, width = operator.domain_shape
    return estimate(
        recipe,
        model,
        (height, width),
        is_complex=operator.domain_dtype.is_complex,
        n_coils=0 if problem.mask is None else operator.range_shape[0],
        n_sets=n_sets,
        together=together,
    )


def of_source(source: Source, recipe: Recipe, model: ModelConfig, index: int = 0) -> MemoryEstimate:
    """:func:`estimate` of a slice of an open source, before anything is computed.

    Of k-space the slice is read, for its readout oversampling. Coils are counted as the source has them, and sets of maps as the
    recipe asks for, else one: compression makes it less, a second set up to twice as much.
    """
    if isinstance(source, GreyImage):
        height, width = source.pixels.shape
        return estimate(recipe, model, image_size((height, width), recipe), is_complex=False, n_coils=0)
    acquisition, preparation = source.read_slice(index), recipe.preparation
    height, width = acquisition.shape
    if preparation is not None and preparation.remove_oversampling:
        height = round(height / acquisition.readout_oversampling)
    return estimate(
        recipe,
        model,
        (height, width),
        is_complex=not is_real(acquisition, recipe),
        n_coils=acquisition.n_coils,
        n_sets=(preparation.maps.n_sets if preparation is not None else None) or 1,
    )


def available_memory(device: "torch.device | str" = "cpu", cgroup: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Bytes that this process may still take; None where nothing tells.

    Of the processor's memory: what the system has to give, and no more than its container allows. Of another device: what is free.

    Parameters
    ----------
    device
        Where to compute.
    cgroup
        Where the control group is mounted, version 2 or 1.
    """
    import torch

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


def check_memory(needed: MemoryEstimate, recipe: Recipe, device: "torch.device | str" = "cpu") -> None:
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
    message = (
        f"an image of {height} x {width} needs about {needed} of memory, and {_gib(available)} GiB are left on {device}"
    )
    if SAFETY * needed.total <= available:
        _log.warning("%s", message)
        return
    raise NotEnoughMemoryError(f"{message}. What would help: {', '.join(_what_helps(recipe, needed.shape))}")


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
