"""Slices with their references: read once, cut for comparison, and set up as problems."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from mrisps.campaign.sources import SourceFile
from mrisps.errors import FileError, MrispsError
from mrisps.io.acquisition import Acquisition
from mrisps.io.images import center_crop
from mrisps.io.kspace_file import KspaceFile
from mrisps.io.open import open_kspace
from mrisps.kspace.grid import to_image
from mrisps.quality.scores import Setting
from mrisps.reconstruction.problem import Problem, mri_problem
from mrisps.reconstruction.recipe import Recipe

__all__ = ["AS_ACQUIRED", "Real", "ReferenceReader", "ReferenceSlice", "has_reference", "setting_of"]

Real = NDArray[np.float32]
_K = TypeVar("_K")
_V = TypeVar("_V")

AS_ACQUIRED = "as acquired"
"""The sampling of a setting whose files were undersampled when they were measured."""


@dataclass(frozen=True, eq=False)
class ReferenceSlice:
    """A slice with its reference.

    Parameters
    ----------
    acquisition
        The slice.
    reference
        (y, x) as it is compared.
    shape
        (y, x) of the reference before it was cut.
    """

    acquisition: Acquisition
    reference: Real
    shape: tuple[int, int]


class ReferenceReader:
    """Reads slices with their references, for a ``with`` block.

    The last slices and problems are kept: several methods ask for them in turn, and the search for a weight asks again for
    every weight; coil maps take longer than some reconstructions.

    Parameters
    ----------
    crop
        (y, x) of the centre that is compared; None: fastMRI's rule, the square as wide as the reference.
    border
        Pixels that are left out at every edge, after cropping.
    n_kept
        How many slices and problems are kept.
    """

    def __init__(self, crop: tuple[int, int] | None, border: int, n_kept: int) -> None:
        self._crop, self._border, self._n_kept = crop, border, n_kept
        self._file: KspaceFile | None = None
        self._slices: dict[tuple[Path, int], ReferenceSlice] = {}
        self._problems: dict[tuple[object, ...], Problem] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def open(self, path: Path) -> KspaceFile:
        """The file, open until another one is asked for: of a three-dimensional measurement it holds the whole volume."""
        if self._file is None or self._file.path != path:
            self._close()
            self._file = open_kspace(path)
        return self._file

    def read(self, path: Path, index: int) -> ReferenceSlice:
        """A slice with its reference.

        Raises
        ------
        FileError
            It cannot be read, has no reference, or is smaller than what is compared.
        """
        if (path, index) not in self._slices:
            acquisition = self.open(path).read_slice(index)
            reference = _reference(acquisition)
            shape = (int(reference.shape[0]), int(reference.shape[1]))
            self._slices[path, index] = ReferenceSlice(acquisition, self._inner(reference, shape, path), shape)
            self._forget(self._slices)
        return self._slices[path, index]

    def problem(self, path: Path, index: int, setting: Setting, recipe: Recipe, device: str) -> Problem:
        """The reconstruction problem of a slice.

        Raises
        ------
        MrispsError
            It cannot be set up with this recipe.
        """
        identity = (path, index, setting, recipe.sha256(), device)
        if identity not in self._problems:
            acquisition = self.read(path, index).acquisition
            undersample = setting.sampling != AS_ACQUIRED
            self._problems[identity] = mri_problem(acquisition, recipe, undersample=undersample, device=device)
            self._forget(self._problems)
        return self._problems[identity]

    def compared(self, image: NDArray[np.generic], of: ReferenceSlice) -> Real:
        """An image of a slice, cut as its reference is."""
        acquisition = of.acquisition
        if acquisition.recon_shape is not None:  # what a reconstruction is cut to when it is written
            image = _center(image, acquisition.recon_shape)
        return self._inner(image, of.shape, acquisition.source)

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _forget(self, kept: dict[_K, _V]) -> None:
        while len(kept) > self._n_kept:
            del kept[next(iter(kept))]

    def _inner(self, image: NDArray[np.generic], reference: tuple[int, int], path: Path) -> Real:
        n_y, n_x = reference
        crop = self._crop or ((n_x, n_x) if n_y >= n_x else (n_y, n_x))
        if image.shape[0] < crop[0] or image.shape[1] < crop[1]:
            raise FileError(
                path, f"expected at least {crop[0]} x {crop[1]} pixels, got {image.shape[0]} x {image.shape[1]}"
            )
        if 2 * self._border + 7 > min(crop):
            raise FileError(path, f"a border of {self._border} leaves fewer than 7 x 7 of {crop[0]} x {crop[1]} pixels")
        inner = center_crop(center_crop(image, crop), (crop[0] - 2 * self._border, crop[1] - 2 * self._border))
        return np.ascontiguousarray(inner, dtype=np.float32)


def has_reference(acquisition: Acquisition) -> bool:
    """Whether a slice has a reference: its own, or one from fully sampled k-space."""
    return acquisition.target is not None or _is_full(acquisition)


def setting_of(source: SourceFile, acquisition: Acquisition, contrast: str, recipe: Recipe) -> Setting:
    """What the scores of a slice are averaged with: fully sampled files are undersampled with the recipe's rule.

    Raises
    ------
    MrispsError
        The file is fully sampled, and the recipe has no rule.
    """
    mask = acquisition.mask
    if mask is None or mask.all():
        rule = recipe.mask
        if rule is None:
            raise MrispsError(
                f"k-space is fully sampled, and recipe {recipe.name} has no mask rule to undersample it with"
            )
        sampling = f"{rule.kind}, centre {rule.center_fraction:g}, seed {rule.seed}"
        return Setting(contrast, float(rule.acceleration), sampling)
    stated = acquisition.attributes.get("acceleration")
    acceleration = source.acceleration
    if acceleration is None and isinstance(stated, int | float) and 1 <= stated < 1000:
        acceleration = float(stated)
    return Setting(
        contrast, float(round(mask.size / mask.sum()) if acceleration is None else acceleration), AS_ACQUIRED
    )


def _is_full(acquisition: Acquisition) -> bool:
    return acquisition.mask is None or bool(acquisition.mask.all())


def _reference(acquisition: Acquisition) -> Real:
    """The file's own, or the root of the sum of squares over the coils of fully sampled k-space."""
    if acquisition.target is not None:
        return acquisition.target
    if not _is_full(acquisition):
        raise FileError(acquisition.source, "has no reference")
    image: Real = np.linalg.norm(to_image(acquisition.kspace), axis=0).astype(np.float32)
    return image if acquisition.recon_shape is None else _center(image, acquisition.recon_shape)


_Scalar = TypeVar("_Scalar", bound=np.generic)


def _center(image: NDArray[_Scalar], shape: tuple[int, int]) -> NDArray[_Scalar]:
    return center_crop(image, (min(shape[0], image.shape[0]), min(shape[1], image.shape[1])))
