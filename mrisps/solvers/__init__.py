"""Solvers: from an operator, measurements and a model to a reconstruction with its certificate."""

from mrisps.solvers.cg import CGResult, conjugate_gradients
from mrisps.solvers.fast import FastSettings, Iterate, Minimum, minimise, solve
from mrisps.solvers.paper import PaperSettings, solve_paper
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
