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
from mrisps.campaign.loop import Computation, Here, JournalRecord, key_of, loop
from mrisps.campaign.search import Offset, model_search
from mrisps.errors import FileError, MrispsError, SettingsError
from mrisps.journal import Journal
from mrisps.model import SmoothPlusSparse
from mrisps.reconstruction.recipe import Recipe
from mrisps.reconstruction.reconstruct import reconstruct_together
from mrisps.reconstruction.together import UnusableResultError, solve_problems
from mrisps.settings import settings
from mrisps.status import FINISHED

__all__ = ["Trial", "Tuning", "measure", "open_journal", "tune"]

Progress = Callable[[int, int, int, float], None]
"""(case, number of cases, iteration, residual)"""

DIGITS = 6
"""Significant digits of beta and lam."""


def open_journal(path: Path, *, resume: bool) -> Journal:
    """The journal of a search; see :class:`mrisps.journal.Journal`."""
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
    n_finished
        Cases with which the solver was done: converged or settled.
    n_iterations
        Of the full problems, in all.
    seconds
        Wall clock of the solves.
    """

    beta: float
    lam: float
    scores: tuple[float | None, ...]
    n_finished: int
    n_iterations: int
    seconds: float

    @property
    def score(self) -> float:
        """Mean in dB; minus infinity if a case has none."""
        known = [score for score in self.scores if score is not None]
        return sum(known) / len(known) if len(known) == len(self.scores) else -math.inf

    @property
    def finished(self) -> bool:
        """Whether every case did."""
        return self.n_finished == len(self.scores)


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
        def told(iteration: int, residual: float) -> None:
            if progress is not None:
                progress(position, len(cases), iteration, residual)

        return lambda: _solve(case, model, recipe, told)

    def finished(task: Computation, record: JournalRecord | None, error: Exception | None) -> None:
        if error is not None:  # a mean over the other cases would be another score
            raise error

    tasks = [
        Computation(
            key_of("tune", case.identity, recipe.sha256(), weights, str(case.problem.operator.device)),
            case.name,
            solving(position, case),
        )
        for position, case in enumerate(cases)
    ]
    loop(tasks, journal, Here(), finished=finished)
    records = [_solved(journal, task.key) for task in tasks]
    return Trial(
        recipe.beta,
        recipe.lam,
        tuple(record.score for record in records),
        sum(record.status in FINISHED for record in records),
        sum(record.n_iterations for record in records),
        math.fsum(record.seconds for record in records),
    )


@settings
@dataclass(frozen=True)
class _Solved:
    """A record of the journal."""

    case: str
    beta: float
    lam: float
    score: float | None
    status: str
    n_iterations: int
    seconds: float


def _solved(journal: Journal, key: str) -> _Solved:
    try:
        return _Solved(**(journal.get(key) or {}))  # type: ignore[arg-type]  # checked there
    except SettingsError as error:
        raise FileError(journal.path, f"is damaged: {error}", field=f"record {key[:12]}") from error


def _solve(case: Case, model: SmoothPlusSparse, recipe: Recipe, report: Callable[[int, float], None]) -> JournalRecord:
    started = perf_counter()
    score, status, n_iterations = math.nan, "nonfinite", 0
    try:
        solver = solve_problems if case.by_prediction else reconstruct_together
        (solved,) = solver([case.problem], model, recipe, progress=report)
    except UnusableResultError:  # a bad candidate, not a failed search
        pass
    else:
        score, certificate = case.judge(solved.image), solved.certificate
        status, n_iterations = certificate.status, certificate.n_iterations
    return {
        "case": case.name,
        "beta": recipe.beta,
        "lam": recipe.lam,
        "score": score if math.isfinite(score) else None,
        "status": status,
        "n_iterations": n_iterations,
        "seconds": round(perf_counter() - started, 3),
    }


@dataclass(frozen=True)
class Tuning:
    """What was found.

    Parameters
    ----------
    trials
        In the order in which the search asked for them, those from the journal too.
    start, best
        With the recipe's own beta and lam; with the highest score.
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
        values = recipe.beta * math.exp(offset[0]), recipe.lam * math.exp(offset[1])
        beta, lam = (float(f"{value:.{DIGITS}g}") for value in values)
        if offset == (0.0, 0.0):
            beta, lam = recipe.beta, recipe.lam
        if (beta, lam) not in trials:
            candidate = replace(recipe, beta=beta, lam=lam, regularisation=None)
            trials[beta, lam] = measure(cases, model, candidate, journal, progress=progress)
            if report is not None:
                report(trials[beta, lam])
        return trials[beta, lam].score

    model_search(score, max_evaluations=max_evaluations, tolerance=tolerance)
    best = max(trials.values(), key=lambda trial: trial.score)
    if not math.isfinite(best.score):
        raise MrispsError(
            "tuning: every candidate led to NaN or infinity; start from other values (--set beta=..., lam=...)"
        )
    return Tuning(tuple(trials.values()), trials[recipe.beta, recipe.lam], best, len(trials) * len(cases))
