"""Whether an image can be right: a verdict beside the solver's certificate.

The certificate says whether the minimiser of the energy was found. The verdict says whether that minimiser can be the image: do the
data fit to the noise, do the coil maps explain the calibration data, was enough acquired? A verdict is never better than what was
measured; a fact that is unknown makes no reason, and no excuse.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from mrisps.status import finished

__all__ = ["LIMITS", "Level", "Limit", "Verdict", "gravest", "judge", "verdict_of"]

Level = Literal["good", "check", "unusable"]
_ORDER: tuple[Level, ...] = ("good", "check", "unusable")


@dataclass(frozen=True)
class Limit:
    """From which value on a fact is a reason.

    Parameters
    ----------
    fact
        Its name.
    check, unusable
        From these values on the image is to be checked, or of no use; infinity: never.
    words
        What is said, with ``{value}``.
    """

    fact: str
    check: float
    unusable: float
    words: str


@dataclass(frozen=True)
class Verdict:
    """Whether an image can be right.

    Parameters
    ----------
    level
        ``"good"``: nothing speaks against the image. ``"check"``: look at it before it is used. ``"unusable"``: it is wrong.
    reasons
        Why, in words and numbers, the gravest first; empty for ``"good"``.
    facts
        The numbers that were looked at.
    """

    level: Level
    reasons: tuple[str, ...]
    facts: Mapping[str, float]

    def to_dict(self) -> dict[str, object]:
        """Plain values, for JSON."""
        return {"level": self.level, "reasons": list(self.reasons), "facts": dict(self.facts)}

    def __str__(self) -> str:
        return f"{self.level}: {'; '.join(self.reasons)}" if self.reasons else self.level


LIMITS = (
    Limit(
        "misfit_share",
        0.01,
        0.1,
        "{value:.1%} of the energy of the measured samples is neither in the image nor noise",
    ),
    Limit(
        "silent_inside",
        0.01,
        float("inf"),
        "{value:.1%} of what the mask calls acquired is zero, between samples that are not: the mask may be of other data",
    ),
    Limit(
        "noise_over_misfit",
        1.5,
        float("inf"),
        "the noise was said to be {value:.1f} times what was taken out of the image",
    ),
    Limit(
        "unmeasured_energy",
        0.22,
        0.5,
        "{value:.0%} of the energy of the image lies where k-space was not measured",
    ),
    Limit(
        "late_change",
        0.15,
        float("inf"),
        "the image went on changing by {value:.0%} long after others have settled: the data hardly determine a part of it",
    ),
    Limit(
        "unexplained_energy",
        0.02,
        0.2,
        "the coil maps leave {value:.1%} of the energy of the calibration data unexplained",
    ),
    Limit(
        "signal_outside_maps",
        0.01,
        0.2,
        "{value:.1%} of the pixels with signal lie where no coil map reaches",
    ),
    Limit(
        "acceleration_of_lines",
        9.0,
        float("inf"),
        "the lines are {value:.1f}-fold undersampled along one axis: for most of the image the prior alone decides",
    ),
    Limit(
        "acceleration_over_coils",
        1.3,
        float("inf"),
        "the acceleration is {value:.1f} times the number of coils",
    ),
    Limit("dead_coils", 0.5, 1.0, "{value:.0%} of the coils have no signal above their noise"),
    Limit(
        "noise_scan_over_data",
        2.0,
        float("inf"),
        "the noise scan is {value:.1f} times as loud as the samples at the border of k-space: it may not belong to these data",
    ),
    Limit("noise_unknown", 0.5, float("inf"), "the noise is unknown: nothing says whether the image fits the data"),
    Limit("edge_energy", 8.0, float("inf"), "the object reaches the edge of the field of view: it may be folded over"),
)
"""What is looked at, and where reasons begin.

The numbers were chosen on simulated acquisitions of heads and knees with a known truth (docs/multicoil.md): images with an NRMSE
above 0.25 or 1.3 times that of the best other method have a reason, and few of the others do.
"""


def judge(facts: Mapping[str, float | None], *, status: str = "converged") -> Verdict:
    """The verdict on an image from what was measured.

    Parameters
    ----------
    facts
        Name -> number; None where a fact is unknown. The names of :data:`LIMITS` are looked at, others are kept.
    status
        Of the solver's certificate; anything but ``"converged"`` and ``"settled"`` is a reason to check.
    """
    known = {name: value for name, value in facts.items() if value is not None}
    found: list[tuple[Level, str]] = []
    for limit in LIMITS:
        value = known.get(limit.fact)
        if value is None:
            continue
        if not value < limit.unusable:  # NaN, too
            found.append(("unusable", limit.words.format(value=value)))
        elif value >= limit.check:
            found.append(("check", limit.words.format(value=value)))
    if not finished(status):
        found.append(("check", "the solver stopped before it was done"))
    found.sort(key=lambda reason: -_ORDER.index(reason[0]))
    return Verdict(found[0][0] if found else "good", tuple(words for _, words in found), known)


def gravest(verdicts: Sequence[Verdict]) -> Verdict:
    """The gravest of several verdicts; the first of equal ones, with its reasons."""
    return max(verdicts, key=lambda verdict: _ORDER.index(verdict.level), default=Verdict("good", (), {}))


def verdict_of(certificate: Mapping[str, object]) -> Verdict:
    """The verdict that stands in a certificate; ``"check"`` where none does, as in files of earlier versions."""
    stated = certificate.get("verdict")
    level = stated.get("level") if isinstance(stated, Mapping) else None
    if not isinstance(stated, Mapping) or level not in _ORDER:
        return Verdict("check", ("no verdict was recorded",), {})
    reasons, facts = stated.get("reasons"), stated.get("facts")
    return Verdict(
        level,
        tuple(map(str, reasons)) if isinstance(reasons, Sequence) else (),
        dict(facts) if isinstance(facts, Mapping) else {},
    )
