"""What comes of one slice, and of one file."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mrisps.io.acquisition import Geometry
from mrisps.io.json_text import JsonValue
from mrisps.reconstruction.problem import Problem
from mrisps.reconstruction.verdict import Verdict, gravest, verdict_of

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

    @property
    def converged(self) -> bool:
        """Whether the solver met its test."""
        return self.certificate["status"] == "converged"

    @property
    def verdict(self) -> Verdict:
        """Whether the image can be right."""
        return verdict_of(self.certificate)

    @property
    def parts(self) -> dict[str, Pixels]:
        """Name -> image of what goes into a file beside the reconstruction."""
        return {"smooth": self.smooth, "sparse": self.sparse, "cost_map": self.cost_map}

    def zero_filled(self) -> Real:
        """Magnitude (y, x) of A^H y, cropped as the image."""
        return self.problem.zero_filled(self.crop)


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
    def n_converged(self) -> int:
        """Slices that converged."""
        return sum(certificate["status"] == "converged" for certificate in self.certificates)
