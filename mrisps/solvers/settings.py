"""Settings of the solvers."""

from dataclasses import dataclass
from typing import Annotated

from mrisps.settings import Count, Index, NonNegative, Number, Positive, Range, settings

__all__ = ["FastSettings", "PaperSettings"]


@settings
@dataclass(frozen=True)
class FastSettings:
    """Options of the default solver.

    Parameters
    ----------
    tolerance
        Stops when the stationarity residual |a - T(a - grad f(a))| / |a| of every image is below this in two looks in a row,
        five iterations apart. With the image eliminated exactly, the residual in x is then at rounding level; a result counts
        as converged only if it is at most 10 ``image_tolerance``.
    max_iterations
        Cap; reaching it is reported as ``max_iter``, never as converged. The continuation takes
        log(continuation_start) / -log(continuation_decay) of them before the test is looked at.
    continuation_start
        Factor on the thresholds at the start; 1 for no continuation, which is right for well-posed problems (denoising).
    continuation_decay
        Factor on that factor in every iteration, in (0, 1).
    image_tolerance
        Relative residual of the x-step where it has to be solved by conjugate gradients.
    trace_interval
        Iterations between two entries of the energy trace; 0 for none but the last.
    image_change
        A result counts as converged only if the image is estimated to change by no more than this fraction of its norm if the
        iteration went on: the last steps of the image, summed up as a geometric series of their own rate.
    levels
        Number of resolutions: 1 for the full one alone, 3 for a quarter, half and full. More than 1 applies where the
        operator can be restricted to a coarser grid (Cartesian MRI, denoising) and the image is large enough; the continuation
        then takes place at the coarsest level only. Made for undersampled columns of a single coil: with noise-like aliasing
        (Poisson disc), with noise, or with several coils, 1 is better.
    coarse_iterations
        Iterations of each stage on a coarser grid, after the continuation. They do not count towards ``max_iterations``.
    strided_iterations
        Iterations on the full grid with every second patch of every second row before every patch counts, a quarter of the work
        each. There are none where the problem itself has a stride, or ``levels`` is 1.
    half_storage
        Keep the coefficients in float16: two thirds of the memory in all, and a residual that cannot fall below about 3e-4.
    greedy_start
        Start the coarsest (or only) level from matching pursuit of the patches of A^H y instead of a = 0: for denoising, where
        A^H y is the noisy image. Meant for ``continuation_start`` 1.
    """

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
    greedy_start: bool = False


@settings
@dataclass(frozen=True)
class PaperSettings:
    """Options of the authors' algorithm; the defaults are those of their reconstruction.

    Parameters
    ----------
    tolerance
        Stops when |x_k - x_{k+1}| / |x_k| < tolerance (1e-5 in their reconstruction, 1e-4 in their training).
    max_iterations
        Cap on the steps.
    nonnegative
        Clip the image at 0 in every step. Only for real images.
    step_includes_data
        L = 1.01 (beta max p + |A|^2); without it L = 1.01 beta max p, as in their training, where A = I.
    beta_floor
        The scale of the atoms uses max(beta, beta_floor): 0.1 in their training, 0 in their reconstruction.
    operator_norm
        |A| in L, or None to have the operator say it. Theirs is always 1.
    factored
        Do the same iteration with the rank-r factors of the dictionary, a third of the operations; only rounding differs.
    trace_interval
        Iterations between two entries of the energy trace; 0 for none.
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
