"""How recipes and baselines are evaluated on files with references, and what was found: plain values."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mrisps.quality.baselines import BASELINES, Baseline
from mrisps.quality.metrics import DataRange
from mrisps.quality.scores import Setting, SliceScore

__all__ = ["EvaluationResult", "EvaluationSettings", "TunedBaseline", "WorstCase"]

Real = NDArray[np.float32]


@dataclass(frozen=True)
class EvaluationSettings:
    """How to evaluate.

    Parameters
    ----------
    data_range
        Peak for PSNR and SSIM: a number, or ``"target-max"``, the maximum of the volume's reference.
    crop, border
        (y, x) of the centre that is compared (None: fastMRI's rule, the square as wide as the reference), and the
        pixels that are left out at every edge of it.
    baselines, n_tuning_slices
        What the recipes are compared with, and the slices of each setting that decide the weight of a baseline.
    n_worst
        Images of each setting and recipe that are kept to be shown.
    slices
        (first, end) of the slices of every file; None: all.
    device
        For the recipes; baselines run on the CPU.
    """

    data_range: DataRange = "target-max"
    crop: tuple[int, int] | None = None
    border: int = 0
    baselines: tuple[Baseline, ...] = field(default=BASELINES)
    n_tuning_slices: int = 3
    n_worst: int = 2
    slices: tuple[int, int | None] | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name, low in (("border", 0), ("n_tuning_slices", 1), ("n_worst", 0)):
            if getattr(self, name) < low:
                raise ValueError(f"{name}: expected at least {low}, got {getattr(self, name)}")


@dataclass(frozen=True)
class TunedBaseline:
    """The best weight of a baseline in a setting, and how it was found.

    ``tried`` has (weight, mean PSNR of the tuning slices) in the order of the weights, ``slices`` are the tuning
    slices. ``on_evaluated``: they are among those that are evaluated, to the advantage of the baseline. ``at_edge``:
    the search ended before the PSNR fell on both sides.
    """

    setting: Setting
    method: str
    weight: float
    tried: tuple[tuple[float, float], ...]
    slices: tuple[str, ...]
    on_evaluated: bool
    at_edge: bool


@dataclass(frozen=True, eq=False)
class WorstCase:
    """The image of a slice with a low PSNR, and its reference, (y, x) as they were compared."""

    score: SliceScore
    image: Real
    reference: Real


@dataclass(frozen=True, eq=False)
class EvaluationResult:
    """All that was found.

    Parameters
    ----------
    scores
        One for each slice and method.
    methods, reference
        Of each setting: baselines and then recipes, in the order of tables, and the first recipe.
    worst
        The worst first within a setting and recipe.
    failures, skipped
        A line for each file or slice that failed, or that has no reference.
    n_computed
        Numbers that were not in the journal.
    """

    scores: tuple[SliceScore, ...]
    methods: Mapping[Setting, tuple[str, ...]]
    reference: Mapping[Setting, str]
    tuned: tuple[TunedBaseline, ...]
    worst: tuple[WorstCase, ...]
    failures: tuple[str, ...]
    skipped: tuple[str, ...]
    notes: tuple[str, ...]
    n_computed: int
