"""What comes of one slice, and of one file."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mrisps.io.acquisition import Geometry
from mrisps.io.images import center_crop
from mrisps.io.json_text import JsonValue
from mrisps.operators import Sense
from mrisps.reconstruction.problem import Problem
from mrisps.reconstruction.verdict import Verdict, gravest, verdict_of
from mrisps.status import finished

__all__ = ["FileResult", "SliceResult"]

Real = NDArray[np.float32]
Pixels = NDArray[np.float32] | NDArray[np.complex64]


@dataclass(frozen=True, eq=False)
class SliceResult:
    """What came of one slice, in input units. The images are cropped as the run says.

    Parameters
    ----------
    index
        Number of the slice in the source, from 0.
    image, smooth, sparse
        (y, x), real or complex: the reconstruction, its smooth part, and their difference.
    cost_map
        float32 (y, x): what the sparse part costs at each pixel.
    certificate
        What the solver reached, with mask, scale, preparation and notes; plain values.
    problem
        What was solved: operator, measurements, units, mask.
    target
        (y, x) reference image of the source, cropped to the image; None where there is none.
    geometry
        Where the image lies in the patient; None where the source does not say.
    crop
        (y, x) that the source asks for; None keeps the whole field of view.
    attention
        float32 (y, x): where an attention lowered the thresholds, summed over the atoms; None without attention.
    """

    index: int
    image: Pixels
    smooth: Pixels
    sparse: Pixels
    cost_map: Real
    certificate: Mapping[str, JsonValue]
    problem: Problem
    target: Real | None = None
    geometry: Geometry | None = None
    crop: tuple[int, int] | None = None
    attention: Real | None = None

    @property
    def finished(self) -> bool:
        """Whether the solver was done: converged or settled."""
        return finished(self.certificate["status"])

    @property
    def verdict(self) -> Verdict:
        """Whether the image can be right."""
        return verdict_of(self.certificate)

    @property
    def parts(self) -> dict[str, Pixels]:
        """Name -> image of what goes into a file beside the reconstruction."""
        found: dict[str, Pixels] = {"smooth": self.smooth, "sparse": self.sparse, "cost_map": self.cost_map}
        return found if self.attention is None else {**found, "attention": self.attention}

    @property
    def evidence(self) -> dict[str, NDArray[np.generic]]:
        """Name -> array of what goes into a file so that a reader can judge the image: each where there is one.

        ``zero_filled``: magnitude (y, x) of A^H y. ``reference``: that of the source. ``mask``: uint8 (y, x) of k-space, 1 where
        acquired. ``coil_maps``: float16 (y, x), the magnitudes of n coil maps side by side, every k-th pixel of each, k^2 >= n.
        """
        found: dict[str, NDArray[np.generic]] = {}
        if self.problem.mask is not None:
            found["zero_filled"] = self.problem.zero_filled(self.crop)
            found["mask"] = self.problem.mask.array2d().astype(np.uint8)
        if self.target is not None and self.target.shape == self.image.shape:
            found["reference"] = self.target.astype(np.float32)
        if isinstance(self.problem.operator, Sense):
            maps = self.problem.operator.maps.flatten(0, 1).abs().cpu().numpy()
            found["coil_maps"] = _side_by_side(center_crop(maps, self.image.shape))
        return found


def _side_by_side(images: NDArray[np.float32]) -> NDArray[np.float16]:
    """(n, y, x) -> (y, x): every k-th pixel of each image, row by row in a k x k grid."""
    k = math.ceil(math.sqrt(len(images)))
    _, n_y, n_x = images.shape
    height, width = n_y // k, n_x // k
    grid = np.zeros((n_y, n_x), dtype=np.float16)
    for place, image in enumerate(images):
        y, x = (place // k) * height, (place % k) * width
        grid[y : y + height, x : x + width] = image[: height * k : k, : width * k : k]
    return grid


@dataclass(frozen=True)
class FileResult:
    """What became of one file.

    Parameters
    ----------
    path
        The output.
    certificates
        One a slice.
    notes
        What a user should know, each note once.
    """

    path: Path
    certificates: tuple[Mapping[str, JsonValue], ...]
    notes: tuple[str, ...]

    @property
    def verdict(self) -> Verdict:
        """The gravest verdict of all slices, with its reasons."""
        return gravest([verdict_of(certificate) for certificate in self.certificates])

    @property
    def n_finished(self) -> int:
        """Slices with which the solver was done: converged or settled."""
        return sum(finished(certificate["status"]) for certificate in self.certificates)
