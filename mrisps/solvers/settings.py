"""Settings of the solvers."""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from mrisps.settings import LATER, Count, Index, NonNegative, Number, Positive, Range, settings

__all__ = ["FastSettings", "PaperSettings"]


@settings
@dataclass(frozen=True)
class FastSettings:
    """Options of the default solver.

    Parameters
    ----------
    tolerance
        With ``stop="stationary"`` the solver goes on until the stationarity residual |a - T(a - grad f(a))| / |a| of every image is
        below this in two looks in a row, five iterations apart. The image is eliminated exactly, so its own residual is then at
        rounding level: a result counts as converged only if it is at most 10 ``image_tolerance``.
    max_iterations
        Largest number of iterations. A result that reaches it has the status ``max_iter``, never ``converged``. The continuation
        takes log(continuation_start) / -log(continuation_decay) of these iterations, before the tolerance is looked at.
    continuation_start
        Threshold multiplier at the start. 1: no continuation, which is right for well-posed problems (denoising).
    continuation_decay
        After each iteration the threshold multiplier is multiplied by this, until it is 1. Between 0 and 1.
    image_tolerance
        Relative residual of the image step, where the step needs conjugate gradients.
    trace_interval
        Iterations between two entries of the energy trace. 0: the last entry alone.
    image_change
        The solver goes on while the image would change by more than this fraction of its norm in further iterations. The estimate
        continues the last steps of the image as a geometric series. It is looked at every five iterations, and has to be met in
        two looks in a row.
    levels
        Number of resolutions. 1: the full one alone; 3: a quarter, half, and full. More than 1 has an effect where the operator can
        be restricted to a coarser grid (Cartesian MRI, denoising) and the image is large enough; the continuation then takes place
        at the coarsest level alone. For super-resolution more than 1 means every second patch first. Use 3 for undersampled columns
        of a single coil; use 1 for noise-like aliasing (Poisson disc), for noise, and for several coils.
    coarse_iterations
        Iterations of each stage on a coarser grid, after the continuation. They do not count towards ``max_iterations``.
    strided_iterations
        Iterations on the full grid with every second patch of every second row, before every patch counts. Each takes a quarter of
        the time. There are none where the prior has a stride, or where ``levels`` is 1.
    half_storage
        True keeps the coefficients in float16. This takes two thirds of the memory; the residual stays above about 3e-4.
    energy_gap
        A result of a convex prior (CPR) counts as converged only if its energy is proven to be above the minimum by at most this
        share of itself (:mod:`mrisps.solvers.duality`). At 1 % the image is as good as at the minimum. The bound was 3 to 300
        times the true share, so an energy that is proven to 1 % is usually right to 0.1 %.
    stop
        ``"stationary"``: at a minimiser, with ``tolerance``, ``image_change`` and ``energy_gap``; the status is then
        ``converged``. ``"image"``: as soon as ``image_change`` is met, whatever the coefficients still do; the status is then
        ``settled``.
    image_iterations
        With ``stop="image"``, the largest number of iterations, the continuation included. An image that would then change by at
        most three times ``image_change`` has settled, too; one that moves more has the status ``max_iter``. With
        ``stop="stationary"`` the solver goes on, and how much the image would have changed here is in the certificate
        (``late_change``). None: ``max_iterations``.
    attention_iterations
        For weights with an attention: iterations on the full grid, after the continuation, before it looks at the coefficients. The
        thresholds then change, once, and the iterations go on. An image cannot be done before that. None: it is not asked.
    """

    GONE: ClassVar = {"greedy_start": False}

    tolerance: Positive = 1e-3
    max_iterations: Count = 2000
    continuation_start: Annotated[Number, Range(ge=1)] = 1.0
    continuation_decay: Annotated[Number, Range(gt=0, lt=1)] = 0.97
    image_tolerance: Positive = 1e-5
    trace_interval: Index = 50
    image_change: Positive = 0.01
    levels: Annotated[int, Range(ge=1, le=6)] = 1
    coarse_iterations: Count = 20
    strided_iterations: Count = 20
    half_storage: bool = False
    energy_gap: Positive = field(default=1e-2, metadata=LATER)
    stop: Literal["stationary", "image"] = field(default="stationary", metadata=LATER)
    image_iterations: Count | None = field(default=None, metadata=LATER)
    attention_iterations: Count | None = field(default=20, metadata=LATER)

    @property
    def most_iterations(self) -> int:
        """Iterations on the full problem at most."""
        if self.stop != "image" or self.image_iterations is None:
            return self.max_iterations
        return min(self.max_iterations, self.image_iterations)


@settings
@dataclass(frozen=True)
class PaperSettings:
    """Options of the authors' algorithm. The defaults are those of their reconstruction.

    Parameters
    ----------
    tolerance
        The algorithm stops when |x_k - x_{k+1}| / |x_k| is below this (1e-5 in their reconstruction, 1e-4 in their training).
    max_iterations
        Largest number of iterations.
    nonnegative
        True clips the image at 0 in every step. For real images.
    step_includes_data
        True: L = 1.01 (beta max p + |A|^2). False: L = 1.01 beta max p, as in their training, where A = I.
    beta_floor
        The scale of the atoms uses max(beta, beta_floor): 0.1 in their training, 0 in their reconstruction.
    operator_norm
        |A| in L. None: the norm that the operator states. Theirs is always 1.
    factored
        True does the same iteration with the rank-r factors of the dictionary, in a third of the operations. Only rounding differs.
    trace_interval
        Iterations between two entries of the energy trace. 0: no trace.
    """

    tolerance: Positive = 1e-5
    max_iterations: Count = 10_000
    nonnegative: bool = True
    step_includes_data: bool = True
    beta_floor: NonNegative = 0.0
    operator_norm: Positive | None = None
    factored: bool = False
    trace_interval: Index = 0

    @classmethod
    def training(cls, tolerance: float = 1e-4) -> "PaperSettings":
        """What the authors do while they train: no clipping, no data term in L, beta floored at 0.1."""
        return cls(tolerance=tolerance, nonnegative=False, step_includes_data=False, beta_floor=0.1)
