"""What a certificate, a mask or a recipe says, as rows of text for people.

The values come from JSON in result files, which may be damaged, old or hostile: nothing here relies on a key being there.
"""

import math
from collections.abc import Mapping, Sequence

__all__ = [
    "LEVELS",
    "Facts",
    "Row",
    "certificate_rows",
    "energy_trace",
    "flat_rows",
    "inner",
    "mask_rows",
    "measured",
    "number",
    "plural",
    "status_words",
    "verdict_of",
]

Facts = Mapping[str, object]
Row = tuple[str, ...]
LEVELS = ("", "good", "check", "unusable")
"""Of verdicts, the gravest last; empty where none was recorded."""

_STATUS = {
    "converged": "converged: small changes of the image do not lower the energy, though a minimum elsewhere may be lower",
    "settled": "settled: the image no longer changes",
    "max_iter": "NOT CONVERGED: the cap on iterations came first",
    "diverging": "UNUSABLE: the image grew beyond all bounds",
    "nonfinite": "UNUSABLE: NaN or infinity appeared",
}


def number(value: object, digits: int = 4) -> str:
    """A number with this many digits, 3520 and not 3.52e+03; a dash where there is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "–" if value is None else str(value)
    if isinstance(value, int) or not math.isfinite(value):
        return str(value)
    text = f"{value:.{digits}g}"
    return f"{float(text):.0f}" if "e" in text and 1 <= abs(value) < 1e7 else text


def plural(n: int, one: str, many: str = "") -> str:
    """``1 slice``, ``3 slices``; the second word where it is not the first with an s."""
    return f"{n} {one if n == 1 else many or f'{one}s'}"


def verdict_of(certificate: Facts) -> tuple[str, tuple[str, ...]]:
    """Level and reasons of the verdict on an image; an empty level where none was recorded."""
    verdict = certificate.get("verdict")
    if not isinstance(verdict, Mapping):
        return "", ()
    reasons = verdict.get("reasons")
    listed = reasons if isinstance(reasons, Sequence) and not isinstance(reasons, str) else ()
    return str(verdict.get("level", "")), tuple(str(reason) for reason in listed)


def status_words(certificate: Facts) -> str:
    """What the solver says of its result."""
    status, gap = certificate.get("status"), certificate.get("energy_gap")
    if status == "converged" and isinstance(gap, float):
        return f"converged: the energy is proven to be at most {number(100 * gap, 2)} % above the lowest there is"
    return _STATUS.get(status, f"unknown status: {status}") if isinstance(status, str) else "unknown status"


def certificate_rows(certificate: Facts) -> list[Row]:
    """(quantity, value, what it means) of a certificate."""
    get = certificate.get
    rows: list[Row] = [
        ("status", status_words(certificate), "the solver's own test, with the tolerance below"),
        ("iterations", number(get("n_iterations")), f"of the solver {get('algorithm', '–')!s}"),
        (
            "stationarity in a",
            f"{number(get('residual_a'), 2)} (tolerance {number(get('tolerance'), 2)})",
            "|a − T(a − ∇f(a))| / |a|: how far the sparse coefficients are from a fixed point; 0 at a minimiser",
        ),
        (
            "change still to come",
            number(get("image_change"), 2),
            "estimate, as a fraction of the image's norm, of how much it would change if the solver went on",
        ),
        (
            "stationarity in x",
            number(get("residual_x"), 2),
            "|∂E/∂x| / |Aᴴy|: how far the image is from balancing data and prior; 0 at a minimiser",
        ),
        ("data misfit", number(get("data_misfit")), "|Ax − y|, in units of the scaled data"),
        ("misfit over noise", number(get("misfit_ratio"), 3), _misfit_words(get("misfit_ratio"))),
        ("energy", number(get("energy"), 6), _energy_words(certificate)),
        ("seconds", number(get("seconds"), 3), "wall-clock time of the solver"),
    ]
    gap = measured(certificate, "energy_gap")
    if gap is not None:
        rows.append(("energy above its minimum", f"at most {number(100 * gap, 2)} %", "of itself: a proven bound"))
    return rows


def mask_rows(mask: Facts) -> list[Row]:
    """(quantity, value) of what a certificate says about the mask."""
    return [
        ("kind", str(mask.get("kind", "–"))),
        ("acceleration, nominal", number(mask.get("nominal_acceleration"))),
        ("acceleration, realised (centre included)", number(mask.get("realised_acceleration"), 4)),
        ("fully sampled lines in the centre", number(mask.get("acs_lines"))),
        ("seed", number(mask.get("seed"))),
        ("SHA-256 of the pattern", str(mask.get("sha256", "–"))),
    ]


def flat_rows(facts: Facts, prefix: str = "") -> list[Row]:
    """(key path, value) of everything in nested facts."""
    rows: list[Row] = []
    for key, value in facts.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping):
            rows.extend(flat_rows(value, f"{path}."))
        elif isinstance(value, Sequence) and not isinstance(value, str):
            rows.append((path, ", ".join(map(str, value))))
        else:
            rows.append((path, "none" if value is None else number(value, 8)))
    return rows


def energy_trace(certificate: Facts) -> list[tuple[int, float]]:
    """(iteration, energy) along the way, as far as the certificate has it."""
    trace = certificate.get("energy_trace")
    points: list[tuple[int, float]] = []
    for entry in trace if isinstance(trace, Sequence) and not isinstance(trace, str) else ():
        match entry:
            case [int() as iteration, (int() | float()) as energy] if math.isfinite(energy):
                points.append((iteration, float(energy)))
    return points


def _misfit_words(ratio: object) -> str:
    if isinstance(ratio, bool) or not isinstance(ratio, int | float):
        return "the noise level is not known"
    meaning = "|Ax − y| over what the noise alone would give; "
    if ratio < 0.5:
        return meaning + "well below 1: part of the noise was fitted, too"
    if ratio > 1.5:
        return meaning + "well above 1: some structure in the data was not fitted"
    return meaning + "about 1: the data are fitted to the noise level"


def _energy_words(certificate: Facts) -> str:
    data, coupling, regularisation = (
        number(certificate.get(f"energy_{name}"), 4) for name in ("data", "coupling", "regularisation")
    )
    return f"data {data} + coupling of patches and atoms {coupling} + sparsity {regularisation}"


def inner(facts: Facts, key: str) -> Facts:
    """An object inside facts; empty where there is none."""
    value = facts.get(key)
    return value if isinstance(value, Mapping) else {}


def measured(facts: Facts, key: str) -> float | None:
    """A finite number in facts, or None."""
    value = facts.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
