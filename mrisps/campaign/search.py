"""Searches for the highest score with few measurements: of two numbers, and of one.

That of two works with their logarithms: it puts a quadratic through what was measured, and measures next at its maximum in a
trust region.

Source: M. J. D. Powell, Math. Program. 92 (2002) 555-582 (UOBYQA), here with least squares.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

__all__ = ["Offset", "climb", "model_search"]

Offset = tuple[float, float]
"""(log beta, log lam) relative to the start."""
Score = Callable[[Offset], float]


def model_search(
    score: Score,
    *,
    step: float = math.log(2),
    smallest: float = math.log(1.1),
    tolerance: float = 0.01,
    max_evaluations: int = 60,
) -> None:
    """A quadratic model of the score in a trust region.

    Parameters
    ----------
    score
        dB at an offset. Calls with the same offset should cost nothing.
    step
        Of the first measurements around the start, and the first half-width of the trust region.
    smallest
        Half-width at which the search ends.
    tolerance
        Early stop: in dB, a gain that is not worth a measurement.
    max_evaluations
        Cap.
    """
    scores: dict[Offset, float] = {}

    def look(x: float, y: float) -> float:
        point = _place(x, y)
        if point not in scores and len(scores) < max_evaluations:
            scores[point] = score(point)
        return scores.get(point, -math.inf)

    middle = look(0, 0)
    signs = []
    for axis in range(2):
        ahead, behind = (look(*(side * step if k == axis else 0.0 for k in range(2))) for side in (1, -1))
        signs.append(1 if ahead >= behind else -1)
        middle = max(middle, ahead, behind)
    look(signs[0] * step, signs[1] * step)  # the sixth point: a quadratic has six coefficients
    width = step
    while width >= smallest and len(scores) < max_evaluations:
        centre = max(scores, key=lambda point: scores[point])
        place, gain = _promise(scores, centre, width)
        if place is None or gain < tolerance:
            width /= 2
            continue
        found = look(*place)
        if found > scores[centre]:
            reached = max(abs(a - b) for a, b in zip(place, centre, strict=True))
            width = min(2 * width, 2 * step) if reached > 0.9 * width else width
        else:
            width /= 2


def _promise(scores: Mapping[Offset, float], centre: Offset, width: float) -> tuple[Offset | None, float]:
    """Where in the trust region the model is highest, and by how much above the best."""
    points = np.array(list(scores))
    values = np.array(list(scores.values()))
    finite = np.isfinite(values)
    if not finite.any():
        return None, 0.0
    values = np.where(
        finite, values, values[finite].min() - 3.0
    )  # a solve that broke down: a bad place, not an infinite one
    best = scores[centre]
    shifted = (points - centre) / width
    weights = 1 / (1 + np.square(shifted).sum(axis=1))
    weights[list(scores).index(centre)] *= 10  # the model goes through the best
    system = _monomials(shifted)
    ridge = np.diag([0.0, 1e-3, 1e-3, 1e-2, 1e-2, 1e-2])
    coefficients = np.linalg.lstsq(
        np.concatenate([system * weights[:, None], ridge]),
        np.concatenate([(values - best) * weights, np.zeros(6)]),
        rcond=None,
    )[0]
    axis = np.linspace(-1, 1, 33)
    lattice = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    nearest = np.square(lattice[:, None] - shifted[None]).sum(axis=-1).min(axis=1)
    promised = np.where(nearest > 0.2**2, _monomials(lattice) @ coefficients, -np.inf)
    chosen = int(np.argmax(promised))
    place = np.asarray(centre) + width * lattice[chosen]
    return _place(float(place[0]), float(place[1])), float(promised[chosen])


def _monomials(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, 2) -> (n, 6): 1, u, v, u^2, u v, v^2."""
    u, v = points[:, 0], points[:, 1]
    return np.stack([np.ones_like(u), u, v, u * u, u * v, v * v], axis=1)


def _place(x: float, y: float) -> Offset:
    """Rounded, so that a place that is reached on two ways is one."""
    return round(x, 9) + 0.0, round(y, 9) + 0.0


def climb(score: Callable[[int], float], max_steps: int) -> dict[int, float]:
    """Scores of the steps that were tried around 0: three, 2 apart; on until the best is inside; then its neighbours.

    Parameters
    ----------
    score
        Of a step; minus infinity where there is none.
    max_steps
        How far to go to either side.
    """
    tried: dict[int, float] = {}

    def best_of(*steps: int) -> int:
        tried.update({step: score(step) for step in steps if step not in tried})
        return max(steps, key=lambda step: tried[step])

    low, high = -2, 2
    best = best_of(low, 0, high)
    while best in (low, high) and abs(best) < max_steps and math.isfinite(tried[best]):
        low, high = (best - 2, high) if best == low else (low, best + 2)
        best = best_of(low, best, high)
    if math.isfinite(tried[best]):
        best_of(best, best - 1, best + 1)
    return tried
