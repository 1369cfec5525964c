"""Can the error of an image be told without a reference? Fits maps of the expected error to what expected_error.py made.

    python benchmarks/expected_error_report.py FOLDER [--largest 8] [--output FILE.jsonl]

A map is factor * product of powers of its inputs, with exponents >= 0. The exponents are fitted to the mean error around a pixel.
The factor is such that LEVEL of the pixels lie below the map, in the median over subjects that the exponents were not fitted to.
Counted is the share of the pixels of a new subject that lie below: the coverage. It should be LEVEL.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from expected_error import N_NEW_KNEES, random_of
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.optimize import nnls
from scipy.stats import spearmanr

Real = NDArray[np.float64]

SMOOTHING = 3.0  # pixels: sigma of the Gaussian that inputs and fitted error are averaged with
LEVEL, LOW, HIGH = 0.9, 0.85, 0.95
N_PIXELS, N_FIT = 8000, 400  # pixels of a reconstruction that are looked at, and that are fitted
FACTS = ("acceleration", "noise", "coils", "geometry")
SHAPES = ("cost", "gradient", "smooth")
MODELS: dict[str, tuple[str, ...]] = {
    "constant": (),
    "constant, by facts": FACTS,
    "gradient, facts": ("gradient", *FACTS),
    "cost map, facts": ("cost", *FACTS),
    "all, facts": (*SHAPES, *FACTS),
    "constant, by missing energy": ("missing", "noise"),
    "all, facts, missing energy": (*SHAPES, *FACTS, "missing"),
    "all, facts, missing energy of the truth": (*SHAPES, *FACTS, "missing of truth"),
}
"""Inputs of the maps. The last one knows what no scan knows, the energy of the unmeasured samples: a bound."""


@dataclass(frozen=True, eq=False)
class Scan:
    """What a regression sees of one reconstruction, at pixels drawn inside the body, and outside."""

    name: str
    subject: str
    group: str
    acceleration: int
    inputs: dict[str, Real]  # name: (pixel,); a fact of the image is the same number everywhere
    error: Real  # (pixel,)
    mean_error: Real  # (pixel,): Gaussian mean over SMOOTHING pixels
    outside: dict[str, Real]
    error_outside: Real


def spread(image: Real) -> Real:
    return np.asarray(gaussian_filter(image, SMOOTHING, mode="nearest"))


def over_rms(image: Real) -> Real:
    """Over its root mean square, so that it does not matter which weights and lam a recipe has; at least a hundredth."""
    return np.maximum(image / np.sqrt(np.mean(image**2)), 0.01)


def missing_energy(image: Real, mask: NDArray[np.bool_], truth: Real | None = None) -> float:
    """RMS of what a real image lacks: the energy that unmeasured samples should have, less most of what they have been given.

    The first is that of the truth, or is extrapolated from the measured samples of the same rows of k-space, as a power of
    the distance from the centre. If the image were the mean of what is possible, error and image would be orthogonal, and the
    difference would be the energy of the error.
    """
    corner = np.fft.ifftshift(mask)
    corner = corner | np.roll(corner[::-1, ::-1], (1, 1), (0, 1))  # a real image has the same energy at k and -k
    energy = np.square(np.abs(np.fft.fft2(image, norm="ortho")))
    filled_in = float(energy[~corner].sum())
    if truth is not None:
        expected = float(np.square(np.abs(np.fft.fft2(truth, norm="ortho")))[~corner].sum())
        return float(np.sqrt(max(expected - 0.8 * filled_in, 0.05 * expected) / energy.size))
    n_y, n_x = image.shape
    distance = np.abs(np.round(np.fft.fftfreq(n_x) * n_x)).astype(int)
    place = np.log(np.arange(distance.max() + 1) + 3.0)
    rows = np.log(np.maximum(np.abs(np.fft.fftfreq(n_y)) * n_y, 0.5) / 0.5) // np.log(1.8)
    expected = 0.0
    for there, here in ((energy[rows == band], corner[rows == band]) for band in np.unique(rows)):
        n, total, lacking = (np.bincount(distance, a.sum(axis=0)) for a in (here, there * here, ~here))
        known = n > 0
        power = np.log(total[known] / n[known] + 1e-12)
        slope = np.polyfit(place[known], power, 1, w=np.sqrt(n[known]))[0]
        apart = place[:, None] - place[known]
        weight = np.exp(-0.5 * (apart / 0.25) ** 2) * n[known] + 1e-9 * np.exp(-np.abs(apart))
        found = (weight * (power + slope * apart)).sum(axis=1) / weight.sum(axis=1)
        expected += 1.2 * float((np.exp(found) * lacking).sum())  # the mean of a logarithm is below that of the mean
    return float(np.sqrt(max(expected - 0.8 * filled_in, 0.05 * expected) / energy.size))


def read(path: Path) -> Scan:
    with np.load(path) as stored:
        facts = json.loads(str(stored["facts"]))
        truth, image, smooth, cost = (stored[n].astype(np.float64) for n in ("truth", "image", "smooth", "cost_map"))
        mask, geometry = stored["mask"], stored.get("geometry", np.ones_like(stored["truth"]))
    error = np.abs(image - truth)
    tissue = gaussian_filter(truth, 5)
    body = tissue > 0.1 * np.percentile(tissue, 99)
    single = facts["n_coils"] == 1
    numbers = {
        "acceleration": facts["realised_acceleration"],
        "noise": facts["noise_std"] or 1e-4,
        "coils": 1 / facts["n_coils"],
        "missing": missing_energy(image, mask) if single else 1.0,
        "missing of truth": missing_energy(image, mask, truth) if single else 1.0,
    }
    maps = {
        "cost": over_rms(spread(cost)),
        "gradient": over_rms(spread(np.hypot(*np.gradient(image)))),
        "smooth": over_rms(spread(smooth)),
        "geometry": 1 / np.maximum(np.sqrt(spread(geometry.astype(np.float64) ** 2)), 0.01),
    } | {name: np.full(truth.shape, number) for name, number in numbers.items()}
    random = random_of(path.stem)
    inside = random.permutation(np.flatnonzero(body))[:N_PIXELS]
    outside = random.permutation(np.flatnonzero(~body))[:N_PIXELS]
    return Scan(
        name=path.stem,
        subject=facts["subject"],
        group=path.stem.split("_")[0],
        acceleration=facts["acceleration"],
        inputs={name: a.ravel()[inside] for name, a in maps.items()},
        error=error.ravel()[inside],
        mean_error=spread(error).ravel()[inside],
        outside={name: a.ravel()[outside] for name, a in maps.items()},
        error_outside=error.ravel()[outside],
    )


@dataclass(frozen=True)
class Fit:
    """factor * product of powers of the inputs."""

    names: tuple[str, ...]
    exponents: tuple[float, ...]
    factor: float

    def map(self, inputs: dict[str, Real]) -> Real:
        logs = np.zeros_like(inputs["cost"])
        for name, exponent in zip(self.names, self.exponents, strict=True):
            logs += exponent * np.log(inputs[name])
        return self.factor * np.exp(logs)

    def coverage(self, scan: Scan) -> float:
        return float((scan.error <= self.map(scan.inputs)).mean())

    def own_factor(self, scan: Scan, error: Real) -> float:
        """What the map must be multiplied by for the coverage to be LEVEL."""
        return float(np.quantile(error / self.map(scan.inputs), LEVEL))


def fitted(scans: Sequence[Scan], calibration: Sequence[Scan], names: tuple[str, ...]) -> Fit:
    """Least squares on the logarithm of the mean error; then the factor."""
    columns = []
    for s in scans:
        one = np.ones(len(s.mean_error[:N_FIT]))  # a free constant is the difference of two that are >= 0
        columns.append(np.stack([*(np.log(s.inputs[name][:N_FIT]) for name in names), one, -one], axis=1))
    weights, _ = nnls(np.concatenate(columns), np.concatenate([np.log(s.mean_error[:N_FIT]) for s in scans]))
    first = Fit(names, tuple(float(w) for w in weights[: len(names)]), 1.0)
    return replace(first, factor=float(np.median([first.own_factor(s, s.error) for s in calibration])))


Pairs = list[tuple[Scan, Fit]]


def tested(scans: Sequence[Scan], names: tuple[str, ...]) -> Pairs:
    """Each scan of a new subject, with a map that its subject had no part in.

    Knees: the last N_NEW_KNEES are new; of the others every fourth calibrates. The paper's slices have the same map. Heads: each
    subject in turn is new, the next one calibrates, the others are fitted.
    """
    subjects = sorted({s.subject for s in scans if s.group == "knee"})
    known, new = subjects[:-N_NEW_KNEES], subjects[-N_NEW_KNEES:]
    calibrating = set(known[::4])
    fit = fitted(
        [s for s in scans if s.subject in known and s.subject not in calibrating],
        [s for s in scans if s.subject in calibrating],
        names,
    )
    found = [(s, fit) for s in scans if s.subject in new or s.group in ("pd", "pdfs")]
    people = sorted({s.subject for s in scans if s.group == "head"})
    for number, subject in enumerate(people):
        other = people[(number + 1) % len(people)]
        rest = [s for s in scans if s.group == "head" and s.subject not in (subject, other)]
        fit = fitted(rest, [s for s in scans if s.subject == other], names)
        found += [(s, fit) for s in scans if s.subject == subject]
    return found


# -------------------------------------------------------------------------------------------------------------- tables


def by(pairs: Pairs, key: Callable[[Scan], object]) -> dict[object, Pairs]:
    found: dict[object, Pairs] = {}
    for s, f in pairs:
        found.setdefault(key(s), []).append((s, f))
    return found


def coverages(pairs: Pairs) -> list[float]:
    return [f.coverage(s) for s, f in pairs]


def span(values: Sequence[float]) -> str:
    return f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def coverage_row(name: str, pairs: Pairs) -> str:
    """Coverage by acceleration; subjects; by how much the own factors differ, for the error and for its mean around a pixel."""
    cells = [span(coverages(some)) for _, some in sorted(by(pairs, lambda s: s.acceleration).items(), key=str)]
    means = [float(np.mean(coverages(some))) for some in by(pairs, lambda s: s.subject).values()]
    cells.append(f"{min(means):.3f} to {max(means):.3f}, {sum(LOW <= m <= HIGH for m in means)} of {len(means)}")
    for errors in ([s.error for s, _ in pairs], [s.mean_error for s, _ in pairs]):
        factors = np.log([f.own_factor(s, error) for (s, f), error in zip(pairs, errors, strict=True)])
        cells.append(f"{factors.std():.2f}")
    return f"| {name} | {' | '.join(cells)} |"


def sharpness_row(name: str, pairs: Pairs) -> str:
    """Mean of the map; pinball loss; mean of the map with each scan's own factor, over the best constant; coverage outside."""
    widths, losses, own = [], [], []
    for s, f in pairs:
        bound = f.map(s.inputs)
        widths.append(bound.mean())
        losses.append(np.where(s.error > bound, LEVEL * (s.error - bound), (1 - LEVEL) * (bound - s.error)).mean())
        own.append(bound.mean() * f.own_factor(s, s.error) / np.quantile(s.error, LEVEL))
    beyond = [float((s.error_outside <= f.map(s.outside)).mean()) for s, f in pairs if len(s.error_outside) > 200]
    outside = span(beyond) if beyond else "-"
    return f"| {name} | {np.mean(widths):.4f} | {1e3 * np.mean(losses):.2f} | {np.mean(own):.3f} | {outside} |"


def scan_rows(name: str, pairs: Pairs) -> Iterator[str]:
    """How many scans are inside LOW to HIGH; how alike the own factors of two masks of the same knee are."""
    values = coverages(pairs)
    share = np.mean([LOW <= value <= HIGH for value in values])
    yield f"{name}: {share:.2f} of {len(values)} scans inside, {min(values):.3f} to {max(values):.3f}"
    for acceleration, some in by(pairs, lambda s: s.acceleration).items():
        factors = [
            [np.log(f.own_factor(s, s.error)) for s, f in both] for both in by(some, lambda s: s.subject).values()
        ]
        if all(len(both) == 2 for both in factors):
            correlation = np.corrcoef(np.array(factors).T)[0, 1]
            yield f"{name}, {acceleration}-fold: spread {np.std(factors):.2f}, correlation of two masks {correlation:.2f}"


def report(scans: Sequence[Scan], output: Path | None) -> None:
    results = {name: tested(scans, inputs) for name, inputs in MODELS.items()}
    everything = results["constant"]
    for group in sorted({s.group for s, _ in everything}):
        here = {name: [(s, f) for s, f in pairs if s.group == group] for name, pairs in results.items()}
        for title, row in (("coverage", coverage_row), ("sharpness", sharpness_row)):
            print(f"\n{group}, {title}")
            for name, pairs in here.items():
                print(row(name, pairs))
        print(f"\n{group}, rank correlation with the mean error around a pixel")
        for name in SHAPES:
            values = [float(spearmanr(s.inputs[name], s.mean_error).statistic) for s, _ in here["constant"]]
            print(f"| {name} | {span(values)} |")
    for name in ("all, facts", "all, facts, missing energy"):
        print(f"\n{name}")
        for group, pairs in by(results[name], lambda s: "head" if s.group == "head" else "knee").items():
            exponents = dict(zip(pairs[0][1].names, np.round(pairs[0][1].exponents, 3).tolist(), strict=True))
            print(f"{group}: factor {pairs[0][1].factor:.3g}, {exponents}")
        print(
            *(row for group, pairs in by(results[name], lambda s: s.group).items() for row in scan_rows(group, pairs)),
            sep="\n",
        )
        for subject, pairs in by(results[name], lambda s: s.subject).items():
            cells = [f"{s.acceleration}: {f.coverage(s):.3f}" for s, f in pairs]
            print(f"| {subject} | {np.mean(coverages(pairs)):.3f} | {', '.join(cells)} |")
    if output is not None:
        with output.open("w") as stream:
            for number, (s, _) in enumerate(everything):
                line = {"scan": s.name, "subject": s.subject, "acceleration": s.acceleration}
                found = {name: round(pairs[number][1].coverage(s), 4) for name, pairs in results.items()}
                stream.write(json.dumps({**line, "coverage": found}) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--largest", type=float, default=np.inf, help="leave out higher accelerations")
    parser.add_argument("--output", type=Path, help="the coverage of every scan of a new subject, JSON lines")
    a = parser.parse_args()
    scans = [read(path) for path in sorted(a.folder.glob("*.npz"))]
    report([s for s in scans if s.acceleration <= a.largest], a.output)


if __name__ == "__main__":
    main()
