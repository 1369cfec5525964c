"""Settings of the steps between a raw file and the solver."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from mrisps.settings import Count, Number, Range, settings

__all__ = ["SMALLEST_CALIBRATION", "CoilCompression", "CoilMaps", "PhaseRemoval", "Preparation"]

SMALLEST_CALIBRATION = 8
"""Lines and samples below which maps are not estimated."""


@settings
@dataclass(frozen=True)
class CoilMaps:
    """How coil sensitivities are found.

    Parameters
    ----------
    method
        ``"espirit"``: SigPy's ESPIRiT. ``"walsh"``: from a low-resolution image, by the largest eigenvector of the local
        covariance of the coils; a fraction of the time, and less exact.
    calibration_width
        At most so many lines and samples of the calibration data are used.
    kernel_width, threshold
        ESPIRiT: side of the kernels; singular values below this fraction of the largest are noise.
    crop
        ESPIRiT: maps are 0 where the largest eigenvalue is below this.
    walsh_crop
        Walsh: maps are 0 where the low-resolution image is below this fraction of its maximum.

    Source
    ------
    ESPIRiT: Uecker et al., Magn. Reson. Med. 71 (2014) 990-1001. Walsh et al., Magn. Reson. Med. 43 (2000) 682-690.
    """

    method: Literal["espirit", "walsh"] = "espirit"
    calibration_width: Annotated[int, Range(ge=SMALLEST_CALIBRATION)] = 24
    kernel_width: Annotated[int, Range(ge=2)] = 6
    threshold: Annotated[Number, Range(ge=0, lt=1)] = 0.02
    crop: Annotated[Number, Range(ge=0, lt=1)] = 0.9
    walsh_crop: Annotated[Number, Range(ge=0, lt=1)] = 0.02


@settings
@dataclass(frozen=True)
class CoilCompression:
    """Fewer, virtual coils that hold most of the signal.

    Parameters
    ----------
    n_coils
        Virtual coils at most.
    method
        ``"svd"``: one matrix for all samples. ``"geometric"``: a matrix for each position along the fully sampled readout,
        aligned with that of its neighbour; it keeps more with the same number.

    Source
    ------
    SVD: Buehrer et al., Magn. Reson. Med. 57 (2007) 1131-1139. Geometric: Zhang et al., Magn. Reson. Med. 69 (2013) 571-582.
    """

    n_coils: Count = 6
    method: Literal["svd", "geometric"] = "svd"


@settings
@dataclass(frozen=True)
class PhaseRemoval:
    """The phase of a low-resolution image becomes part of the maps; the reconstructed image gets it back.

    Parameters
    ----------
    width
        So many lines and samples around the centre of k-space, under a Hann window, make the low-resolution image.
    """

    width: Annotated[int, Range(ge=2)] = 24


@settings
@dataclass(frozen=True)
class Preparation:
    """The steps of multi-coil data; None or False leaves one out.

    Parameters
    ----------
    prewhiten
        Where the file has a noise scan.
    remove_oversampling
        Where the file says that the readout is oversampled and all of it was acquired.
    compression
        None keeps the coils.
    maps
        Not used where the file has maps.
    phase
        None leaves the phase in the image.
    """

    prewhiten: bool = True
    remove_oversampling: bool = True
    compression: CoilCompression | None = field(default_factory=CoilCompression)
    maps: CoilMaps = field(default_factory=CoilMaps)
    phase: PhaseRemoval | None = field(default_factory=PhaseRemoval)
