"""What a solver says of its result, in one word."""

from collections.abc import Sequence
from typing import Literal

__all__ = ["FINISHED", "Status", "finished", "in_words"]

Status = Literal["converged", "settled", "max_iter", "diverging", "nonfinite"]

FINISHED: tuple[Status, ...] = ("converged", "settled")
"""The solver stopped because it was done: at a minimiser, or where the image had stopped changing."""


def finished(status: object) -> bool:
    """Whether the solver was done; False for whatever is no status."""
    return status in FINISHED


def in_words(statuses: Sequence[object]) -> str:
    """``converged``, ``settled``, ``converged or settled``, or how many are neither."""
    missed = sum(not finished(status) for status in statuses)
    if missed:
        return f"NOT CONVERGED: {missed} of {len(statuses)}" if len(statuses) > 1 else "NOT CONVERGED"
    return " or ".join(sorted({str(status) for status in statuses}))
