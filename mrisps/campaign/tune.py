"""Finding beta and lam of a recipe on reference data, or without references by acquired k-space that is held out.

    files --(recipe: mask, noise; once)-->  cases: problem and judge    the same for every candidate
    cases + (beta, lam)  --measure-->  Trial: dB of each case           each in the journal
    search  -->  the best Trial  -->  a new recipe with its card

The search asks for the same measurements whenever it is run, so that one that was interrupted goes on with its journal.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

from mrisps.campaign.cases import Case
from mrisps.campaign.loop import Computation, Here, JournalRecord, Silent, key_of, loop
from mrisps.campaign.search import Offset, model_search
from mrisps.errors import FileError, MrispsError
from mrisps.journal import Journal
from mrisps.model import SmoothPlusSparse
from mrisps.reconstruction.recipe import Recipe
from mrisps.reconstruction.reconstruct import UnusableResultError, reconstruct, solve_problem

__all__ = ["Trial", "Tuning", "measure", "open_journal", "tune"]

Progress = Callable[[int, int, int, float], None]
"""(case, number of cases, iteration, residual)"""

DIGITS = 6
"""Significant digits of beta and lam."""


def open_journal(path: Path, *, resume: bool) -> Journal:
    """The journal of a search.

    Raises
    ------
    FileError
        See :class:`mrisps.journal.Journal`.
    """
    return Journal(path, "tune", version=2, resume=resume)


@dataclass(frozen=True)
class Trial:
    """What one pair of beta and lam is worth.

    Parameters
    ----------
    beta, lam
        The candidate.
    scores
        dB of each case; None where the solver met NaN or infinity.
    n_converged
        Cases whose solve converged.
    n_iterations
        Of the full problems, in all.
    seconds
        Wall clock of the solves.
    """

    beta: float
    lam: float
    scores: tuple[float | None, ...]
    n_converged: int
    n_iterations: int
    seconds: float

    @property
    def score(self) -> float:
        """Mean in dB; minus infinity if a case has none."""
        known = [score for score in self.scores if score is not None]
        return sum(known) / len(known) if len(known) == len(self.scores) else -math.inf

    @property
    def converged(self) -> bool:
        """Whether every case did."""
        return self.n_converged == len(self.scores)


def measure(
    cases: Sequence[Case],
    model: SmoothPlusSparse,
    recipe: Recipe,
    journal: Journal,
    *,
    progress: Progress | None = None,
) -> Trial:
    """Reconstruct every case with a recipe's beta and lam, and judge the images.

    Parameters
    ----------
    cases, model, recipe
        See :func:`mrisps.reconstruction.reconstruct.reconstruct`.
    journal
        What it has is not solved again. Its keys hold the software, case, recipe, weights and device.
    progress
        Called with (case, number of cases, iteration, residual).

    Raises
    ------
    FileError
        The journal cannot be written, or a record is damaged.
    """
    recipe = replace(recipe, card=None)
    weights = model.fingerprint()

    def solving(position: int, case: Case) -> Callable[[], JournalRecord]:
        return lambda: _solve(case, model, recipe, _told(progress, position, len(cases)))

    tasks = [
        Computation(
            key_of("tune", case.identity, recipe.sha256(), weights, str(case.problem.operator.device)),
            case.name,
            solving(position, case),
        )
        for position, case in enumerate(cases)
    ]
    errors = _Errors()
    loop(tasks, journal, Here(), listener=errors)
    if errors.first is not None:
        raise errors.first
    records = [_Solved.of(journal, task.key) for task in tasks]
    return Trial(
        recipe.beta,
        recipe.lam,
        tuple(record.score for record in records),
        sum(record.status == "converged" for record in records),
        sum(record.n_iterations for record in records),
        math.fsum(record.seconds for record in records),
    )


class _Errors(Silent[Computation]):
    """Remembers why a case could not be measured: a mean over the others would be another score."""

    first: Exception | None = None

    def finished(self, task: Computation, record: JournalRecord | None, error: Exception | None, /) -> None:
        """Remember the first error."""
        self.first = self.first or error


def _told(progress: Progress | None, position: int, n_cases: int) -> Callable[[int, float], None]:
    return lambda iteration, residual: None if progress is None else progress(position, n_cases, iteration, residual)


def _solve(case: Case, model: SmoothPlusSparse, recipe: Recipe, report: Callable[[int, float], None]) -> JournalRecord:
    started = perf_counter()
    score: float | None = None
    status, n_iterations = "nonfinite", 0
    try:
        solved = (solve_problem if case.by_prediction else reconstruct)(case.problem, model, recipe, progress=report)
    except UnusableResultError:  # a bad candidate, not a failed search
        pass
    else:
        score, status, n_iterations = (
            case.judge(solved.image),
            solved.certificate.status,
            solved.certificate.n_iterations,
        )
    return {
        "case": case.name,
        "beta": recipe.beta,
        "lam": recipe.lam,
        "score": score if score is not None and math.isfinite(score) else None,
        "status": status,
        "n_iterations": n_iterations,
        "seconds": round(perf_counter() - started, 3),
    }


@dataclass(frozen=True)
class _Solved:
    """A record of the journal."""

    score: float | None
    status: str
    n_iterations: int
    seconds: float

    @classmethod
    def of(cls, journal: Journal, key: str) -> "_Solved":
        match journal.get(key):
            case {
                "score": float() | int() | None as score,
                "status": str() as status,
                "n_iterations": int() as n_iterations,
                "seconds": float() | int() as seconds,
            }:
                return cls(score, status, n_iterations, seconds)
        raise FileError(journal.path, "is damaged", field=f"record {key[:12]}")


def _values(recipe: Recipe, offset: Offset) -> tuple[float, float]:
    if offset == (0.0, 0.0):
        return recipe.beta, recipe.lam
    beta, lam = recipe.beta * math.exp(offset[0]), recipe.lam * math.exp(offset[1])
    return float(f"{beta:.{DIGITS}g}"), float(f"{lam:.{DIGITS}g}")


@dataclass(frozen=True)
class Tuning:
    """What was found.

    Parameters
    ----------
    trials
        In the order in which the search asked for them, those from the journal too.
    start
        With the recipe's own beta and lam.
    best
        The one with the highest score.
    n_solves
        Reconstructions that the search needed, those from the journal too.
    """

    trials: tuple[Trial, ...]
    start: Trial
    best: Trial
    n_solves: int


def tune(
    cases: Sequence[Case],
    model: SmoothPlusSparse,
    recipe: Recipe,
    journal: Journal,
    *,
    max_evaluations: int = 60,
    tolerance: float = 0.01,
    report: Callable[[Trial], None] | None = None,
    progress: Progress | None = None,
) -> Tuning:
    """Search for the best beta and lam.

    Parameters
    ----------
    cases, model, recipe, journal, progress
        As in :func:`measure`; the search starts at the recipe's values.
    max_evaluations
        Cap for the search.
    tolerance
        Early stop, in dB.
    report
        Called with each trial.

    Raises
    ------
    MrispsError
        Every candidate led to NaN or infinity, or a case cannot be reconstructed with this recipe.
    FileError
        The journal cannot be written.
    """
    trials: dict[tuple[float, float], Trial] = {}

    def score(offset: Offset) -> float:
        beta, lam = _values(recipe, offset)
        if (beta, lam) not in trials:
            found = measure(
                cases, model, replace(recipe, beta=beta, lam=lam, regularisation=None), journal, progress=progress
            )
            trials[beta, lam] = found
            if report is not None:
                report(found)
        return trials[beta, lam].score

    model_search(score, max_evaluations=max_evaluations, tolerance=tolerance)
    best = max(trials.values(), key=lambda trial: trial.score)
    if not math.isfinite(best.score):
        raise MrispsError(
            "tuning: every candidate led to NaN or infinity; start from other values (--set beta=..., lam=...)"
        )
    return Tuning(tuple(trials.values()), trials[recipe.beta, recipe.lam], best, len(trials) * len(cases))
