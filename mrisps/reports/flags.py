"""What to look at in a batch: the verdict, the solver, and thresholds on what was measured of each image."""

import math
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np

from mrisps.errors import FileError, SettingsError
from mrisps.reports.facts import Facts, inner, measured, number, status_words, verdict_of
from mrisps.settings import NonNegative, Number, Range, from_plain, settings
from mrisps.status import finished

__all__ = ["KINDS", "Flag", "RunFile", "Thresholds", "flags_of"]

_MAX_TOML_BYTES = 1 << 20


@settings
@dataclass(frozen=True)
class Thresholds:
    """When a slice is flagged.

    Parameters
    ----------
    misfit_high
        Data misfit over what the noise alone gives: more means that structure was not fitted.
    cost_factor
        The mean of the cost map so many times above, or below, its median in the run.
    cost_low, cost_high
        A range for the mean of the cost map, for example that of the training data; None: no limit.
    edge_energy
        Mean energy at the edges of the field of view over that of the whole image: more looks like wrap-around.
    peak_over_noise
        99.9th percentile of the image over the noise standard deviation: less is an empty slice.
    peak_share
        The same percentile over that of the brightest slice of the file: less is an empty slice.

    Raises
    ------
    ValueError
        A value is not a positive number, or the range is empty.
    """

    misfit_high: NonNegative = 10.0
    cost_factor: Annotated[Number, Range(ge=1)] = 3.0
    cost_low: NonNegative | None = None
    cost_high: NonNegative | None = None
    edge_energy: NonNegative = 8.0
    peak_over_noise: NonNegative = 5.0
    peak_share: NonNegative = 0.02

    def __post_init__(self) -> None:
        if self.cost_low is not None and self.cost_high is not None and self.cost_low >= self.cost_high:
            raise ValueError(f"cost_high: expected more than cost_low = {self.cost_low}, got {self.cost_high}")

    @classmethod
    def read(cls, path: Path) -> "Thresholds":
        """From a TOML file that has some of the fields as keys.

        Raises
        ------
        FileError
            The file cannot be read or is no TOML, or a key is unknown or its value wrong: the key is named.
        """
        try:
            with path.open("rb") as stream:
                table = tomllib.loads(stream.read(_MAX_TOML_BYTES).decode("utf-8"))
        except OSError as error:
            raise FileError(path, f"cannot be read: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            raise FileError(path, f"is no valid TOML: {error}") from error
        try:
            return from_plain(cls, table)
        except SettingsError as error:
            raise FileError(path, error.message, field=error.key) from error


@dataclass(frozen=True, eq=False)
class RunFile:
    """One file of a run.

    Parameters
    ----------
    name
        Of the output.
    output
        Its path; images are read from there.
    record
        What the JSON beside it says: ``provenance`` and ``certificates``. Nothing relies on a key being there.
    seconds
        Spent on it.
    memory_bytes
        The most memory that the worker had until then.
    """

    name: str
    output: Path
    record: Facts
    seconds: float
    memory_bytes: int

    @property
    def certificates(self) -> list[Facts]:
        """One a slice."""
        listed = self.record.get("certificates")
        entries = listed if isinstance(listed, Sequence) and not isinstance(listed, str) else ()
        return [entry for entry in entries if isinstance(entry, Mapping)]

    @property
    def provenance(self) -> Facts:
        """What it was made from."""
        return inner(self.record, "provenance")

    def slice_number(self, position: int) -> int:
        """Number in the input of the slice at a position in the output."""
        numbers = self.provenance.get("slices")
        if isinstance(numbers, Sequence) and position < len(numbers) and isinstance(numbers[position], int):
            return int(numbers[position])
        return position


@dataclass(frozen=True)
class Flag:
    """Something to look at.

    Parameters
    ----------
    kind
        One of `KINDS`.
    file
        Index of the file.
    position
        Of the slice in the output.
    value
        What was measured.
    limit
        What it was compared with.
    """

    kind: str
    file: int
    position: int
    value: str
    limit: str


KINDS = (
    "unusable",
    "to be checked",
    "not converged",
    "misfit too high",
    "cost unlike the others",
    "cost out of range",
    "wrap-around",
    "empty slice",
)
"""Kinds of flags: the verdict on the image, the solver, and the thresholds."""


def flags_of(files: Sequence[RunFile], thresholds: Thresholds) -> list[Flag]:
    """Everything in a run that a verdict, the solver or a threshold catches, file by file."""
    costs = [cost for file in files for c in file.certificates if (cost := measured(inner(c, "image"), "cost_mean"))]
    median = float(np.median(costs)) if costs else math.nan
    flags: list[Flag] = []
    for index, file in enumerate(files):
        peaks = [measured(inner(certificate, "image"), "peak") for certificate in file.certificates]
        brightest = max((peak for peak in peaks if peak is not None), default=0.0)
        for position, certificate in enumerate(file.certificates):
            found = _slice_flags(certificate, thresholds, median, brightest)
            flags.extend(Flag(kind, index, position, value, limit) for kind, value, limit in found)
    return flags


def _slice_flags(
    certificate: Facts, limits: Thresholds, median: float, brightest: float
) -> Iterator[tuple[str, str, str]]:
    """(kind, value, limit) of what is unusual about a slice, beside the run's median cost and the file's brightest slice."""
    level, reasons = verdict_of(certificate)
    if level in ("check", "unusable"):
        yield "unusable" if level == "unusable" else "to be checked", "; ".join(reasons), "good"
    if not finished(certificate.get("status")):
        yield "not converged", status_words(certificate), "converged"
    image = inner(certificate, "image")
    misfit, cost, edge = (
        measured(certificate, "misfit_ratio"),
        measured(image, "cost_mean"),
        measured(image, "edge_energy"),
    )
    over_noise, peak = measured(image, "peak_over_noise"), measured(image, "peak")
    if misfit is not None and misfit > limits.misfit_high:
        yield "misfit too high", number(misfit, 3), f"at most {limits.misfit_high:g}"
    if cost is not None:
        low, high = median / limits.cost_factor, median * limits.cost_factor
        if not low <= cost <= high and math.isfinite(median):
            words = f"{low:.3g} to {high:.3g}, {limits.cost_factor:g} times around the median"
            yield "cost unlike the others", number(cost, 3), words
        low, high = limits.cost_low or 0.0, math.inf if limits.cost_high is None else limits.cost_high
        if not low <= cost <= high:
            yield "cost out of range", number(cost, 3), f"{low:g} to {high:g}"
    if edge is not None and edge > limits.edge_energy:
        yield "wrap-around", number(edge, 3), f"edge energy at most {limits.edge_energy:g}"
    if over_noise is not None and over_noise < limits.peak_over_noise:
        yield "empty slice", number(over_noise, 3), f"over noise at least {limits.peak_over_noise:g}"
    elif peak is not None and peak < limits.peak_share * brightest:
        yield "empty slice", number(peak / brightest, 3), f"of the brightest slice at least {limits.peak_share:g}"
