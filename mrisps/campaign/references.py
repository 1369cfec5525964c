"""Slices with their references: read once, cut for comparison, and set up as problems."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from mrisps.errors import FileError
from mrisps.io.acquisition import Acquisition
from mrisps.io.images import center_crop
from mrisps.io.kspace_file import KspaceFile
from mrisps.io.open import open_kspace
from mrisps.kspace.grid import to_image
from mrisps.reconstruction.problem import Problem, mri_problem
from mrisps.reconstruction.recipe import Recipe

__all__ = ["Real", "ReferenceReader", "ReferenceSlice", "center_at_most", "is_full", "root_sum_of_squares"]

Real = NDArray[np.float32]
_K = TypeVar("_K")
_V = TypeVar("_V")
_Scalar = TypeVar("_Scalar", bound=np.generic)


@dataclass(frozen=True, eq=False)
class ReferenceSlice:
    """A slice with its reference (y, x) as it is compared; ``shape`` is that of the reference before it was cut."""

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
        if self._file is not None:
            self._file.close()
            self._file = None

    def open(self, path: Path) -> KspaceFile:
        """The file, open until another one is asked for: of a three-dimensional measurement it holds the whole volume."""
        if self._file is None or self._file.path != path:
            self.__exit__()
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
            self._keep(
                self._slices,
                (path, index),
                ReferenceSlice(acquisition, self._inner(reference, shape, path), shape),
            )
        return self._slices[path, index]

    def problem(self, path: Path, index: int, recipe: Recipe, device: str, *, undersample: bool) -> Problem:
        """The reconstruction problem of a slice; an error of ours if it cannot be set up with this recipe."""
        identity = (path, index, undersample, recipe.sha256(), device)
        if identity not in self._problems:
            acquisition = self.read(path, index).acquisition
            problem = mri_problem(acquisition, recipe, undersample=undersample, device=device)
            self._keep(self._problems, identity, problem)
        return self._problems[identity]

    def compared(self, image: NDArray[np.generic], of: ReferenceSlice) -> Real:
        """An image of a slice, cut as its reference is."""
        acquisition = of.acquisition
        if acquisition.recon_shape is not None:  # what a reconstruction is cut to when it is written
            image = center_at_most(image, acquisition.recon_shape)
        return self._inner(image, of.shape, acquisition.source)

    def _keep(self, kept: dict[_K, _V], key: _K, value: _V) -> None:
        kept[key] = value
        while len(kept) > self._n_kept:
            del kept[next(iter(kept))]

    def _inner(self, image: NDArray[np.generic], reference: tuple[int, int], path: Path) -> Real:
        n_y, n_x = reference
        crop = self._crop or ((n_x, n_x) if n_y >= n_x else (n_y, n_x))
        if image.shape[0] < crop[0] or image.shape[1] < crop[1]:
            got = f"{image.shape[0]} x {image.shape[1]}"
            raise FileError(path, f"expected at least {crop[0]} x {crop[1]} pixels, got {got}")
        if 2 * self._border + 7 > min(crop):
            raise FileError(path, f"a border of {self._border} leaves fewer than 7 x 7 of {crop[0]} x {crop[1]} pixels")
        inner = center_crop(center_crop(image, crop), (crop[0] - 2 * self._border, crop[1] - 2 * self._border))
        return np.ascontiguousarray(inner, dtype=np.float32)


def is_full(acquisition: Acquisition) -> bool:
    """Whether the slice is fully sampled, as far as the file says."""
    return acquisition.mask is None or bool(acquisition.mask.all())


def root_sum_of_squares(kspace: NDArray[np.complex64]) -> Real:
    """(y, x) of fully sampled k-space (coil, y, x)."""
    image: Real = np.linalg.norm(to_image(kspace), axis=0).astype(np.float32)
    return image


def _reference(acquisition: Acquisition) -> Real:
    """The file's own, or the root of the sum of squares over the coils of fully sampled k-space."""
    if acquisition.target is not None:
        return acquisition.target
    if not is_full(acquisition):
        raise FileError(acquisition.source, "has no reference")
    image = root_sum_of_squares(acquisition.kspace)
    return image if acquisition.recon_shape is None else center_at_most(image, acquisition.recon_shape)


def center_at_most(image: NDArray[_Scalar], shape: tuple[int, int]) -> NDArray[_Scalar]:
    """The centre of an image, cut where it is larger."""
    return center_crop(image, (min(shape[0], image.shape[0]), min(shape[1], image.shape[1])))
