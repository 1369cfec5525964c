"""Several problems in one solve: slices of a volume, each with its own maps, mask, phase, noise and end.

One prior serves all, although beta and lam may follow from the noise of each slice. For slice i with beta_i and lam_i put
c = sqrt(beta / beta_i) and s = lam_i / lam. The energy of the operator c A_i and the measurements y_i / s, with beta and lam, is
1 / s^2 times that of the slice, at x / (c s) and a / s: D is scaled by 1 / sqrt(beta), and for both regularisers
R_lam(a) = s^2 R_(lam / s)(a / s). So every slice is brought into the units of the first, and its result is brought back.
"""

import functools
import logging
import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import replace

import torch

from mrisps.errors import MrispsError
from mrisps.io.acquisition import Acquisition
from mrisps.model import SmoothPlusSparse
from mrisps.operators import FourierSubsampling, LinearOperator, OnLargerGrid, PerEntry, Sense
from mrisps.reconstruction.memory import SAFETY, MemoryEstimate, available_memory, check_memory, left, of_problem
from mrisps.reconstruction.problem import Problem
from mrisps.reconstruction.recipe import Recipe
from mrisps.solvers import Certificate, Reconstruction, solve

__all__ = ["Posed", "UnusableResultError", "as_many_as_fit", "in_groups", "solve_problems", "space_of"]

MOST_TOGETHER = 32
"""Slices in one solve at most, where memory decides: beyond, an accelerator gains nothing."""

Progress = Callable[[int, float], None]
"""Called with (iteration, residual)."""

Posed = tuple[int, Problem, Acquisition | None]
"""Number of a slice, its problem, and what it comes from."""


_log = logging.getLogger("mrisps")


class UnusableResultError(MrispsError):
    """The solver ended with NaN or infinity: there is no image to write."""


def space_of(problem: Problem) -> Hashable:
    """Problems with the same one go together; two problems of which one has None never do.

    Coils after compression and sets of maps may differ from slice to slice: then shapes do not agree.
    """
    operator = problem.operator
    if not isinstance(operator, Sense | FourierSubsampling):
        return None
    return type(operator), operator.domain_shape, operator.range_shape, operator.domain_dtype, operator.device


def in_groups(
    posed: Iterable[Posed],
    n_slices: int,
    model: SmoothPlusSparse,
    recipe: Recipe,
    asked: int | None = None,
    device: torch.device | str = "cpu",
) -> Iterator[list[Posed]]:
    """Slices in order, those that go into one solve side by side: of one space (:func:`space_of`), and as many as fit.

    Parameters
    ----------
    posed, n_slices
        The slices, and their number. A slice is asked for when the group before it has been given out.
    model, recipe
        With which prior, and how.
    asked, device
        See :func:`as_many_as_fit`.

    Raises
    ------
    NotEnoughMemoryError
        A slice does not fit alone.
    """
    group: list[Posed] = []
    most = 1
    for position, one in enumerate(posed):
        space = space_of(one[1])
        if group and space != space_of(group[0][1]):
            yield group
            group = []
        if not group:
            needed = functools.partial(of_problem, one[1], model, recipe)
            check_memory(needed(1), recipe, device)
            n_left = 1 if space is None else n_slices - position
            most = as_many_as_fit(needed, asked, n_left, device).together
            if asked is not None and most < n_left:
                asked = most  # said once
        group.append(one)
        if len(group) == most:
            yield group
            group = []
    if group:
        yield group


def as_many_as_fit(
    needed: Callable[[int], MemoryEstimate], asked: int | None, n_left: int, device: torch.device | str
) -> MemoryEstimate:
    """The memory of as many slices as go into one solve, at least one. A warning says if they are fewer than were asked for.

    Parameters
    ----------
    needed
        Number of slices in one solve -> the memory that they take.
    asked
        The number that is asked for. None: one on a CPU, where more gain little; elsewhere as many as three quarters of the memory
        that is left hold, at most ``MOST_TOGETHER``.
    n_left
        Slices that are still to be done.
    device
        Where to compute.
    """
    available = available_memory(device)
    if asked is None:
        most = 1 if torch.device(device).type == "cpu" or available is None else min(MOST_TOGETHER, n_left)
        room = SAFETY * (available or 0)
    else:
        most, room = min(asked, n_left), math.inf if available is None else available
    fitting = (found for n in range(most, 1, -1) if (found := needed(n)).total <= room)
    found = next(fitting, None) or needed(1)
    if asked is not None and available is not None and found.together < most:
        what = f"{most} slices in one solve need about {needed(most)} of memory, and {left(available, device)}"
        _log.warning("%s: %d at a time", what, found.together)
    return found


def solve_problems(
    problems: Sequence[Problem], model: SmoothPlusSparse, recipe: Recipe, *, progress: Progress | None = None
) -> list[Reconstruction]:
    """Solve problems of one space (:func:`space_of`) together, with a recipe's regularisation.

    Parameters
    ----------
    problems
        One, or several of the same space.
    model, recipe
        With which prior, and how.
    progress
        Called with (iteration, largest residual of those that are not done).

    Returns
    -------
    list of Reconstruction
        One a problem: images (1, set, y, x) in scaled units, as the solver returns them. ``seconds`` of a certificate is a share of
        the time that all took.

    Raises
    ------
    UnusableResultError
        The solver met NaN or infinity, or diverged.
    ValueError
        Model and image do not fit together, for example an odd image size and CPR's 2 x 2 groups.
    """
    weights = [recipe.regularisation_for(problem.noise_std) for problem in problems]
    beta, lam = weights[0]
    couplings = [math.sqrt(beta / own) for own, _ in weights]
    scales = [own / lam for _, own in weights]
    operator = _joined([problem.operator for problem in problems], couplings)
    _, height, width = operator.domain_shape
    grid = recipe.grid_for((height, width), model.config.group_size)
    if grid != (height, width):
        operator = OnLargerGrid(operator, (grid[0], grid[1]))
    result = solve(
        operator,
        torch.cat([problem.y / scale for problem, scale in zip(problems, scales, strict=True)]),
        model.with_regularisation(beta=beta, lam=lam),
        recipe.solver,
        use=recipe.prior_for(grid, model.config.group_size),
        progress=progress,
    )
    found = []
    for i, (problem, coupling, scale) in enumerate(zip(problems, couplings, scales, strict=True)):
        certificate = _own(result.certificates[i], problem, scale, len(problems))
        if certificate.status in ("nonfinite", "diverging"):
            what = "met NaN or infinity" if certificate.status == "nonfinite" else "diverged"
            raise UnusableResultError(
                f"the solver {what} after {certificate.n_iterations} iterations; no image is written"
            )
        entry = (slice(i, i + 1), ..., slice(height), slice(width))
        found.append(
            Reconstruction(
                image=result.image[entry] * (coupling * scale),
                smooth=result.smooth[entry] * (coupling * scale),
                sparse=result.sparse[entry] * (coupling * scale),
                cost_map=result.cost_map[entry] * scale**2,
                coefficients=None,
                certificates=(certificate,),
                attention=None if result.attention is None else result.attention[entry],
            )
        )
    return found


def _joined(operators: Sequence[LinearOperator], weights: Sequence[float]) -> LinearOperator:
    """One operator for all: the first, where they are the same, else each for its entry."""
    first = operators[0]
    same = all(one is first or _same_sampling(one, first) for one in operators)
    return first if same and len(set(weights)) == 1 else PerEntry(operators, weights)


def _same_sampling(one: LinearOperator, other: LinearOperator) -> bool:
    if isinstance(one, FourierSubsampling) and isinstance(other, FourierSubsampling):
        return torch.equal(one.mask, other.mask)
    return False


def _own(certificate: Certificate, problem: Problem, scale: float, together: int) -> Certificate:
    """The certificate in the units of the problem itself."""
    energies = ("energy", "energy_data", "energy_coupling", "energy_regularisation")
    expected = None if problem.noise_std is None else problem.noise_std * problem.operator.n_measurements**0.5
    return replace(
        certificate,
        **{name: getattr(certificate, name) * scale**2 for name in energies},
        energy_trace=tuple((k, energy * scale**2) for k, energy in certificate.energy_trace),
        data_misfit=certificate.data_misfit * scale,
        expected_misfit=expected,
        seconds=certificate.seconds / together,
    )
