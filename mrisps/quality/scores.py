"""From the scores of slices to those of volumes and settings, with intervals of confidence. Plain numbers, no files.

A volume has one PSNR and one NMSE, and the mean SSIM of its slices; a setting has the mean of its volumes:
``fastmri.evaluate``'s definitions. Intervals come from resampling patients, because the slices of a patient resemble
each other.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mrisps.settings import Count, Index, NonNegative, Number, Positive, settings
from mrisps.status import finished

__all__ = [
    "METRICS",
    "Interval",
    "Setting",
    "SettingScore",
    "SliceScore",
    "VolumeScore",
    "bootstrap_interval",
    "complete_slices",
    "score_settings",
    "score_volumes",
]

METRICS = ("psnr", "ssim", "nmse")
"""PSNR in dB, SSIM, NMSE."""

Interval = tuple[float, float]


@dataclass(frozen=True, order=True)
class Setting:
    """What is averaged over: slices of one contrast, for example ``"CORPD_FBK"``, with one nominal acceleration and sampling.

    The sampling is ``"as acquired"``, or the rule of a retrospective undersampling, such as ``"random, centre 0.04,
    seed 0"``.
    """

    contrast: str
    acceleration: float
    sampling: str

    def __str__(self) -> str:
        return f"{self.contrast}, {self.acceleration:g}-fold ({self.sampling})"


@settings
@dataclass(frozen=True)
class SliceScore:
    """One method on one slice; a line of a journal.

    Parameters
    ----------
    file, slice_index, patient
        Which slice, from 0, and whose it is.
    contrast, acceleration, sampling
        See `Setting`; ``realised_acceleration`` is that of the mask.
    method, weight
        Name of the baseline or recipe; the weight of a baseline, where it has one.
    squared_error, target_energy, n_pixels
        Sums over the compared pixels, and how many they are.
    data_range
        Peak value for PSNR and SSIM.
    seconds
        Wall-clock time.
    status, n_iterations
        Of the solver's certificate; empty and 0 for baselines.
    notes
        What a user should know of how the problem was set up, one a line.
    """

    file: str
    slice_index: Index
    patient: str
    contrast: str
    acceleration: Positive
    sampling: str
    method: str
    squared_error: NonNegative
    target_energy: Number
    n_pixels: Count
    data_range: Positive
    ssim: Number
    realised_acceleration: Positive
    seconds: NonNegative
    weight: Number | None = None
    status: str = ""
    n_iterations: int = 0
    notes: str = ""

    @property
    def setting(self) -> Setting:
        """What it belongs to."""
        return Setting(self.contrast, self.acceleration, self.sampling)

    @property
    def psnr(self) -> float:
        """In dB, with the peak of the volume; infinite for equal images."""
        return _psnr(self.squared_error, self.n_pixels, self.data_range)

    @property
    def nmse(self) -> float:
        """Of this slice; NaN where the reference is zero everywhere."""
        return _nmse(self.squared_error, self.target_energy)

    @property
    def failed_to_converge(self) -> bool:
        """Whether a solver said that it had stopped before it was done."""
        return bool(self.status) and not finished(self.status)


@dataclass(frozen=True)
class VolumeScore:
    """One method on one file. See `SliceScore`; ``n_slices`` is how many of its slices were compared."""

    file: str
    patient: str
    setting: Setting
    method: str
    n_slices: int
    psnr: float
    ssim: float
    nmse: float


@dataclass(frozen=True)
class SettingScore:
    """One method in one setting: means over volumes.

    Parameters
    ----------
    n_unconverged
        Slices whose solver said that it had stopped before it was done.
    mean, interval
        By the names in `METRICS`; no interval with one patient.
    gain, gain_interval
        PSNR minus that of the setting's reference method, in dB, and the interval of the differences within patients;
        None for that method.
    seconds
        Mean time of a slice.
    """

    setting: Setting
    method: str
    n_patients: int
    n_volumes: int
    n_slices: int
    n_unconverged: int
    mean: Mapping[str, float]
    interval: Mapping[str, Interval | None]
    gain: float | None
    gain_interval: Interval | None
    seconds: float
    weight: float | None


def bootstrap_interval(
    values: Sequence[float],
    patients: Sequence[str],
    *,
    n_resamples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval | None:
    """Percentile interval of the mean of volumes, by resampling patients with all their volumes.

    There is one value and one patient for each volume. None with one patient, or where a value is not finite. From
    fewer than about ten patients the interval is too narrow.

    Source
    ------
    B. Efron, R. Tibshirani, *An Introduction to the Bootstrap*, 1993, chapters 8 (units that are not independent) and
    13.
    """
    names = sorted(set(patients))
    if len(names) < 2 or not np.isfinite(values).all():
        return None
    place = {name: index for index, name in enumerate(names)}
    owner = np.array([place[name] for name in patients])
    sums = np.bincount(owner, weights=np.asarray(values, dtype=np.float64))  # (patient,)
    counts = np.bincount(owner)
    generator = np.random.default_rng(seed)
    means = np.empty(n_resamples)
    for first in range(0, n_resamples, 500):  # thousands of patients: not all draws in memory at once
        drawn = generator.integers(0, len(names), size=(min(500, n_resamples - first), len(names)))
        means[first : first + 500] = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def complete_slices(scores: Sequence[SliceScore], methods: Mapping[Setting, Sequence[str]]) -> list[SliceScore]:
    """Keep the slices that every method of their setting has, so that all methods are averaged over the same ones."""
    found: dict[tuple[Setting, str, int], set[str]] = {}
    for score in scores:
        found.setdefault((score.setting, score.file, score.slice_index), set()).add(score.method)
    return [
        score
        for score in scores
        if found[score.setting, score.file, score.slice_index] >= set(methods.get(score.setting, ()))
    ]


def score_volumes(scores: Sequence[SliceScore]) -> list[VolumeScore]:
    """One score for each file, setting and method, in the order in which they come."""
    groups: dict[tuple[Setting, str, str], list[SliceScore]] = {}
    for score in scores:
        groups.setdefault((score.setting, score.file, score.method), []).append(score)
    volumes = []
    for (setting, file, method), slices in groups.items():
        error = math.fsum(score.squared_error for score in slices)
        energy = math.fsum(score.target_energy for score in slices)
        n_pixels = sum(score.n_pixels for score in slices)
        psnr, ssim = _psnr(error, n_pixels, slices[0].data_range), math.fsum(s.ssim for s in slices) / len(slices)
        owner, n = slices[0].patient, len(slices)
        volumes.append(VolumeScore(file, owner, setting, method, n, psnr, ssim, _nmse(error, energy)))
    return volumes


def score_settings(
    scores: Sequence[SliceScore],
    methods: Mapping[Setting, Sequence[str]],
    reference: Mapping[Setting, str],
    seed: int = 0,
) -> list[SettingScore]:
    """The table of `complete_slices`: every method of every setting, its gain relative to the reference method."""
    volumes = score_volumes(scores)
    rows = []
    for setting in sorted(methods):
        by_method = {
            method: [v for v in volumes if v.setting == setting and v.method == method] for method in methods[setting]
        }
        base = {volume.file: volume for volume in by_method.get(reference[setting], [])}
        for method, group in by_method.items():
            if not group:
                continue
            slices = [score for score in scores if score.setting == setting and score.method == method]
            patients = [volume.patient for volume in group]
            values = {name: [float(getattr(volume, name)) for volume in group] for name in METRICS}
            gains = None
            if method != reference[setting] and all(volume.file in base for volume in group):
                gains = [volume.psnr - base[volume.file].psnr for volume in group]
            rows.append(
                SettingScore(
                    setting,
                    method,
                    len(set(patients)),
                    len(group),
                    len(slices),
                    sum(score.failed_to_converge for score in slices),
                    {name: float(np.mean(values[name])) for name in METRICS},
                    {name: bootstrap_interval(values[name], patients, seed=seed) for name in METRICS},
                    None if gains is None else float(np.mean(gains)),
                    None if gains is None else bootstrap_interval(gains, patients, seed=seed),
                    float(np.mean([score.seconds for score in slices])),
                    slices[0].weight,
                )
            )
    return rows


def _psnr(squared_error: float, n_pixels: int, data_range: float) -> float:
    return math.inf if squared_error == 0 else 10 * math.log10(data_range**2 * n_pixels / squared_error)


def _nmse(squared_error: float, target_energy: float) -> float:
    return squared_error / target_energy if target_energy > 0 else math.nan
