"""The parts of a recipe: rules for the mask, the scale, the regularisation and the blur, and its card."""

import datetime
import math
from dataclasses import dataclass
from typing import Annotated, Literal

from mrisps.errors import SettingsError
from mrisps.sampling import MASK_KINDS
from mrisps.settings import Count, Fraction, Index, Number, Positive, Range, Text, settings

__all__ = ["BlurRule", "Card", "MaskRule", "NoiseRule", "ScaleRule"]


@settings
@dataclass(frozen=True)
class MaskRule:
    """How fully sampled k-space is undersampled, when that is asked for; see :func:`mrisps.sampling.make_mask`.

    Parameters
    ----------
    kind
        One of :data:`mrisps.sampling.MASK_KINDS`.
    acceleration
        Nominal acceleration >= 1: all columns over acquired columns, the centre included.
    center_fraction
        Fraction of the columns around the zero frequency that is acquired in any case.
    seed
        Seed of the random choices.
    """

    kind: str
    acceleration: Annotated[Number, Range(ge=1)]
    center_fraction: Fraction
    seed: Index = 0

    def __post_init__(self) -> None:
        if self.kind not in MASK_KINDS:
            raise SettingsError("kind", f"expected one of {', '.join(MASK_KINDS)}, got {self.kind!r}")


@settings
@dataclass(frozen=True)
class ScaleRule:
    """How the scale of an image is estimated from the undersampled data, so that beta and lam mean the same everywhere.

    The image is reconstructed in units of ``percentile(|A^H y|) / reference`` and scaled back afterwards.

    Parameters
    ----------
    percentile
        Percentile of the magnitude of the zero-filled image, above 0 and at most 100.
    reference
        What this percentile is, on average, for images whose maximum is 1.
    """

    percentile: Annotated[Number, Range(gt=0, le=100)]
    reference: Positive


@settings
@dataclass(frozen=True)
class NoiseRule:
    """beta and lam from the noise, instead of a recipe's numbers.

    With n, the standard deviation of the noise of a scaled measurement (images have a maximum of about 1),

        beta = beta_per_noise * n, at least smallest_beta and at most largest_beta,
        lam  = sqrt(smallest_lam^2 + (lam_per_noise * n)^2).

    Where the data are cleaner than the model of the coils is exact, the smallest values keep the image from fitting its errors.

    Parameters
    ----------
    beta_per_noise, smallest_beta, largest_beta
        Of the coupling weight.
    lam_per_noise, smallest_lam
        Of the threshold.
    """

    beta_per_noise: Positive
    smallest_beta: Positive
    largest_beta: Positive
    lam_per_noise: Positive
    smallest_lam: Positive

    def __post_init__(self) -> None:
        if self.largest_beta < self.smallest_beta:
            raise SettingsError("largest_beta", f"expected at least smallest_beta ({self.smallest_beta:g})")

    def values(self, noise_std: float) -> tuple[float, float]:
        """beta and lam for this noise."""
        beta = min(max(self.beta_per_noise * noise_std, self.smallest_beta), self.largest_beta)
        return beta, math.hypot(self.smallest_lam, self.lam_per_noise * noise_std)


@settings
@dataclass(frozen=True)
class BlurRule:
    """The super-resolution operator: side of the kernel in pixels, its sigma in pixels, and every how many pixels a sample is.

    See :class:`mrisps.operators.BlurDownsample`.
    """

    kernel_size: Count = 16
    sigma: Positive = 2.0
    stride: Count = 4


@settings
@dataclass(frozen=True)
class Card:
    """What was measured with a recipe. It influences no result.

    Parameters
    ----------
    score
        Mean over the slices, in dB.
    metric
        ``"PSNR"`` against a reference. ``"held-out"``: how well acquired k-space that was held out is predicted,
        -10 log10(|error|^2 / |measured|^2).
    data
        What was measured: files, crop, data range.
    n_slices
        Number of slices, or of images.
    date
        ``YYYY-MM-DD``.
    how
        How beta and lam were found, and what else a reader of the score has to know.
    """

    score: Number
    metric: Literal["PSNR", "held-out"]
    data: Text
    n_slices: Count
    date: str
    how: Text

    def __post_init__(self) -> None:
        try:
            if datetime.date.fromisoformat(self.date).isoformat() != self.date:
                raise ValueError
        except ValueError as error:
            raise SettingsError("date", f"expected YYYY-MM-DD, got {self.date!r}") from error

    @property
    def summary(self) -> str:
        """Score, metric and number of slices, for listings."""
        return f"{self.score:.2f} dB {self.metric}, {self.n_slices} slice{'s' if self.n_slices > 1 else ''}"
