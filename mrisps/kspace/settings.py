"""Settings of the steps between a raw file and the solver."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from mrisps.settings import Count, NonNegative, Number, Range, settings

__all__ = ["SMALLEST_CALIBRATION", "CoilCompression", "CoilMaps", "PhaseRemoval", "Preparation"]

SMALLEST_CALIBRATION = 8
"""Lines and samples below which maps are not estimated."""


@settings
@dataclass(frozen=True)
class CoilMaps:
    """How coil sensitivities are found: ESPIRiT.

    Parameters
    ----------
    n_sets
        Sets of maps. None: two where one cannot explain the calibration data, else one.
    calibration_width
        Side of the square of calibration samples that is used. Where one side has fewer, the other is longer, to the
        same number.
    kernel_width
        Side of the windows, at most; along an axis of n calibration samples no more than 2 n / 5, but 5 at least.
    threshold
        Singular values below this fraction of the largest are noise.
    weight, further_weight
        The maps of the first set are weighted by this power of their eigenvalue, those of further sets by that one. The
        eigenvalue is near 1 where a set is consistent with the calibration data.

    Source
    ------
    Uecker et al., Magn. Reson. Med. 71 (2014) 990-1001. The weights are ours.
    """

    n_sets: Count | None = None
    calibration_width: Annotated[int, Range(ge=SMALLEST_CALIBRATION)] = 24
    kernel_width: Annotated[int, Range(ge=2)] = 10
    threshold: Annotated[Number, Range(ge=0, lt=1)] = 0.007
    weight: NonNegative = 0.5
    further_weight: NonNegative = 4.0


@settings
@dataclass(frozen=True)
class CoilCompression:
    """Fewer, virtual coils that hold most of the signal.

    Parameters
    ----------
    kept_energy
        Share of the signal's energy that the virtual coils hold at least; noise does not count.
    per_acceleration
        Virtual coils are at least this number times the acceleration.
    n_coils
        Virtual coils at most, instead of the two rules above.
    method
        ``"svd"``: one matrix for all samples. ``"geometric"``: a matrix for each position along the fully sampled
        readout, aligned with that of its neighbour; it keeps more with the same number.

    Source
    ------
    SVD: Buehrer et al., Magn. Reson. Med. 57 (2007) 1131-1139. Geometric: Zhang et al., Magn. Reson. Med. 69 (2013)
    571-582.
    """

    kept_energy: Annotated[Number, Range(gt=0, le=1)] = 0.999
    per_acceleration: NonNegative = 2.0
    n_coils: Count | None = None
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
