"""Solvers: from an operator, measurements and a model to a reconstruction with its certificate."""

from typing import TYPE_CHECKING

from mrisps.lazy import lazy
from mrisps.solvers.settings import FastSettings, PaperSettings

if TYPE_CHECKING:
    from mrisps.solvers.cg import CGResult, conjugate_gradients
    from mrisps.solvers.fast import Iterate, Minimum, minimise, solve
    from mrisps.solvers.paper import solve_paper
    from mrisps.solvers.result import Certificate, Reconstruction

__all__ = [
    "CGResult",
    "Certificate",
    "FastSettings",
    "Iterate",
    "Minimum",
    "PaperSettings",
    "Reconstruction",
    "conjugate_gradients",
    "minimise",
    "solve",
    "solve_paper",
]

__getattr__ = lazy(
    __name__,
    {
        "cg": ("CGResult", "conjugate_gradients"),
        "fast": ("Iterate", "Minimum", "minimise", "solve"),
        "paper": ("solve_paper",),
        "result": ("Certificate", "Reconstruction"),
    },
)
