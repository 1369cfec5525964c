"""How sampling masks are made: columns, and variable-density Poisson discs.

A mask is centred (zero frequency at index ``size // 2``) and True where k-space is acquired. A mask of columns has
pattern ``(x,)``, any other ``(y, x)``.

======================== ==== =======================================================================================
kind                     axes what it acquires, besides ``round(x * center_fraction)`` columns in the centre
======================== ==== =======================================================================================
``random``               x    each column with the same probability (fastMRI ``RandomMaskFunc``)
``equispaced``           x    every ``acceleration``-th column (fastMRI ``EquiSpacedMaskFunc``)
``equispaced_fraction``  x    columns at a spacing that makes up for the centre (``EquispacedMaskFractionFunc``)
``magic``                x    every ``acceleration``-th column, offset on one side (fastMRI ``MagicMaskFunc``)
``magic_fraction``       x    the same at a spacing that makes up for the centre (``MagicMaskFractionFunc``)
``gaussian``             x    ``round(x / acceleration)`` columns in all, Gaussian density
``polynomial``           x    ``round(x / acceleration)`` columns in all, density ``(1 - |k|)^power``
``poisson``              y, x variable-density Poisson disc (SigPy's), centre of ``center_fraction`` on both axes
======================== ==== =======================================================================================

The first five kinds equal, bit for bit, what ``fastmri.data.subsample`` gives for the same seed and parameters. They
can miss the nominal acceleration: ``random`` by chance, ``equispaced`` and ``magic`` because they do not make up for
the centre. A mask says so (`SamplingMask.misses_nominal`). A ``poisson`` mask that misses is drawn again.
"""

import math

import numpy as np
import numpy.typing as npt

from mrisps.sampling.checks import MASK_KINDS, Pattern, Seed, check
from mrisps.sampling.mask import SamplingMask

__all__ = ["make_mask"]

_USED_BY = {
    "offset": ("equispaced", "equispaced_fraction", "magic", "magic_fraction"),
    "std": ("gaussian",),
    "power": ("polynomial",),
}

# What sigpy.mri.poisson uses: rejected candidates a sample, and the error of the acceleration that ends the search.
_POISSON_ATTEMPTS = 30
_POISSON_TOLERANCE = 0.1
# The slope is then known to 1e-6 of its range, far below what changes a mask.
_POISSON_STEPS = 20
# Discs of radius one lie at an acceleration of about 1.7: below this it is worth seconds to look how densely they can.
_POISSON_DENSEST = 2.0
_POISSON_OTHER_SEEDS = 8


def make_mask(
    kind: str,
    shape: tuple[int, int],
    acceleration: float,
    center_fraction: float,
    *,
    seed: Seed = 0,
    offset: int | None = None,
    std: float | None = None,
    power: float | None = None,
    tolerance: float = 0.1,
) -> SamplingMask:
    """Make a sampling mask.

    Parameters
    ----------
    kind
        One of `MASK_KINDS`. The table at the head of this module describes them.
    shape
        ``(y, x)`` of the k-space; columns run along y.
    acceleration
        Nominal acceleration, at least 1; a whole number for ``equispaced`` and ``magic``. What it means depends on the
        kind: compare `SamplingMask.realised_acceleration`.
    center_fraction
        Fraction of the columns that is acquired in the centre, in ``[0, 1]``; for ``poisson`` of both axes.
    seed
        Seed of the random choices: an integer, or a tuple of them for the kinds of columns (fastMRI takes the
        characters of the file name, ``tuple(map(ord, name))``). A ``poisson`` mask that misses its acceleration with
        this seed is drawn with others that follow from it; `SamplingMask.seed_used` says with which.
    offset
        First column of ``equispaced``, ``equispaced_fraction``, ``magic`` and ``magic_fraction``; None draws it.
    std
        Of ``gaussian``: standard deviation of the density as a fraction of the half-width of k-space; None is 0.3.
    power
        Of ``polynomial``: exponent of the density; None is 3.
    tolerance
        Largest relative deviation of the realised acceleration from the nominal one.

    Raises
    ------
    ValueError
        If the kind is unknown, a value is out of range or not used by the kind, the centre alone has more columns
        than the acceleration allows, nothing is acquired, or no seed gives a ``poisson`` mask of that acceleration.

    Source
    ------
    fastMRI kinds: ``fastmri.data.subsample`` 0.3.0. Density ``(1 - |k|)^power``: Lustig, Donoho, Pauly, Magn. Reson.
    Med. 58 (2007) 1182. Poisson disc: ``sigpy.mri.poisson`` 0.1.27.
    """
    if kind not in MASK_KINDS:
        raise ValueError(f"kind: expected one of {', '.join(MASK_KINDS)}, got {kind!r}")
    if kind == "gaussian" and std is None:
        std = 0.3
    if kind == "polynomial" and power is None:
        power = 3.0
    optional = {"offset": offset, "std": std, "power": power}
    for name, value in optional.items():
        if value is not None and kind not in _USED_BY[name]:
            raise ValueError(f"{name}: only used by {', '.join(_USED_BY[name])}, not by {kind!r}")
    values = {"shape": shape, "acceleration": acceleration, "center_fraction": center_fraction, "seed": seed}
    values |= {name: value for name, value in optional.items() if value is not None} | {"tolerance": tolerance}
    for name, given in values.items():
        check(name, given)
    if kind in ("equispaced", "magic") and acceleration != round(acceleration):
        raise ValueError(f"acceleration: expected a whole number for kind {kind!r}, got {acceleration}")

    n_columns = shape[1]
    n_acs_lines = round(n_columns * center_fraction)
    seed_used = None
    if kind == "poisson":
        pattern, seed_used = _poisson_pattern(shape, acceleration, center_fraction, seed, tolerance)
    elif n_acs_lines == n_columns and acceleration == 1:
        pattern = np.ones(n_columns, dtype=np.bool_)
    elif kind in ("gaussian", "polynomial"):
        # Distance from the zero frequency in units of half the width, below 1 on every column so that none has density
        # zero.
        distance = np.abs(np.arange(n_columns) - n_columns // 2) / (n_columns // 2 + 1)
        log_density = -(distance**2) / (2 * std**2) if std is not None else (power or 0.0) * np.log1p(-distance)
        pattern = _density_pattern(log_density, acceleration, n_acs_lines, seed)
    else:
        pattern, n_acs_lines = _fastmri_pattern(kind, n_columns, acceleration, n_acs_lines, seed, offset)
    if not pattern.any():
        raise ValueError(
            f"acceleration: {acceleration:g} with center_fraction {center_fraction:g} acquires nothing of "
            f"{shape[0]} x {n_columns}"
        )
    return SamplingMask(
        kind=kind,
        shape=shape,
        pattern=pattern,
        n_acs_lines=n_acs_lines,
        acceleration=acceleration,
        center_fraction=center_fraction,
        seed=seed,
        offset=offset,
        std=std,
        power=power,
        tolerance=tolerance,
        seed_used=seed_used,
    )


def _fastmri_pattern(
    kind: str, n_columns: int, acceleration: float, n_acs_lines: int, seed: Seed, offset: int | None
) -> tuple[Pattern, int]:
    """Columns as ``fastmri.data.subsample`` draws them, and the number of those in the centre."""
    if kind != "magic_fraction" and n_acs_lines * acceleration > n_columns:
        raise _too_many_acs_lines(n_columns, acceleration, n_acs_lines)
    rng = np.random.RandomState(seed)  # their generator: the streams must be the same
    rng.randint(1)  # fastMRI first draws which of its pairs (center_fraction, acceleration) to use; we have one
    if kind == "random":
        probability = (n_columns / acceleration - n_acs_lines) / (n_columns - n_acs_lines)
        pattern = rng.uniform(size=n_columns) < probability
    elif kind == "equispaced":
        step = round(acceleration)
        first = int(rng.randint(0, high=step)) if offset is None else offset
        pattern = np.zeros(n_columns, dtype=np.bool_)
        pattern[first::step] = True
    elif kind == "equispaced_fraction":
        pattern = np.zeros(n_columns, dtype=np.bool_)
        if n_acs_lines * acceleration < n_columns:
            spacing = (acceleration * (n_acs_lines - n_columns)) / (n_acs_lines * acceleration - n_columns)
            first = int(rng.randint(0, high=round(spacing))) if offset is None else offset
            pattern[np.around(np.arange(first, n_columns - 1, spacing)).astype(np.int64)] = True
    elif kind == "magic":
        pattern = _magic_columns(n_columns, round(acceleration), offset, rng)
    else:  # magic_fraction
        n_wanted = round(n_columns / acceleration)
        if n_acs_lines > max(n_wanted, 1):
            raise _too_many_acs_lines(n_columns, acceleration, n_acs_lines)
        n_acs_lines = max(n_acs_lines, 1)
        n_outside = n_wanted - n_acs_lines
        if n_outside > 0:
            pattern = _magic_columns(n_columns, round(n_columns / n_outside), offset, rng)
        else:
            pattern = np.zeros(n_columns, dtype=np.bool_)
    return pattern | _centre_columns(n_columns, n_acs_lines), n_acs_lines


def _magic_columns(n_columns: int, step: int, offset: int | None, rng: np.random.RandomState) -> Pattern:
    """Every `step`-th column on both sides of the zero frequency, one side's mirrored ones between the other's.

    Source
    ------
    A. Defazio, arXiv 1912.01101.
    """
    first = int(rng.randint(0, high=step)) if offset is None else offset
    n_positive = (n_columns + 1) // 2
    positive = np.zeros(n_positive, dtype=np.bool_)
    negative = np.zeros(n_columns - n_positive, dtype=np.bool_)
    positive[first + 1 if first % 2 == 0 else first + 2 :: step] = True
    negative[first + 2 if first % 2 == 0 else first - 1 :: step] = True
    centred: Pattern = np.fft.fftshift(np.concatenate((positive, negative[::-1])))
    return centred


def _density_pattern(
    log_density: npt.NDArray[np.float64], acceleration: float, n_acs_lines: int, seed: Seed
) -> Pattern:
    """The centre, and columns outside it drawn without replacement with probability proportional to the density."""
    n_columns = len(log_density)
    n_wanted = max(round(n_columns / acceleration), 1)
    if n_acs_lines > n_wanted:
        raise _too_many_acs_lines(n_columns, acceleration, n_acs_lines)
    pattern = _centre_columns(n_columns, n_acs_lines)
    # RandomState, whose streams never change between versions of numpy, so that a seed keeps its mask.
    rng = np.random.RandomState(seed)
    # The largest of log p + Gumbel noise are a draw without replacement with probabilities p; unlike p itself, log p
    # does not underflow.
    score = np.where(pattern, -np.inf, log_density + rng.gumbel(size=n_columns))
    pattern[np.argsort(-score, kind="stable")[: n_wanted - n_acs_lines]] = True
    return pattern


def _poisson_pattern(
    shape: tuple[int, int], acceleration: float, center_fraction: float, seed: Seed, tolerance: float
) -> tuple[Pattern, int | None]:
    """SigPy's variable-density Poisson disc, and the seed that drew it if `seed` itself misses the acceleration.

    SigPy begins at a point of the whole grid. If that lies well inside the acquired centre, all candidates around it
    are taken, and the drawing ends with nothing but the centre, at any density: one seed in ``center_fraction^-2``.
    """
    if not isinstance(seed, int):
        raise ValueError(f"seed: expected one integer for kind 'poisson', got {seed}")
    if acceleration == 1:
        return np.ones(shape, dtype=np.bool_), None
    centre_y, centre_x = (round(size * center_fraction) for size in shape)
    n_wanted = math.prod(shape) / acceleration
    if centre_y * centre_x > n_wanted or centre_y >= shape[0] or centre_x >= shape[1]:
        raise ValueError(
            f"center_fraction: {centre_y} x {centre_x} samples in the centre are too many for acceleration "
            f"{acceleration:g}, which has {n_wanted:.1f} in all"
        )
    others = np.random.SeedSequence(seed).generate_state(_POISSON_OTHER_SEEDS)
    found = []
    for one in (seed, *map(int, others)):
        realised, pattern = _poisson_of_seed(shape, acceleration, (centre_y, centre_x), one)
        if abs(realised - acceleration) <= tolerance * acceleration:
            return pattern, None if one == seed else one
        found.append(realised)
    closest = min(found, key=lambda realised: abs(realised - acceleration))
    raise ValueError(
        f"acceleration: no Poisson disc of {shape[0]} x {shape[1]} with center_fraction {center_fraction:g} comes within "
        f"{tolerance:.0%} of {acceleration:g}: the closest of {len(found)} seeds has {closest:.2f}"
    )


def _poisson_of_seed(
    shape: tuple[int, int], acceleration: float, centre: tuple[int, int], seed: int
) -> tuple[float, Pattern]:
    """The mask of one seed whose acceleration is closest to what is asked for, and that acceleration.

    The density falls with the distance r from the centre as ``1 / (1 + slope r)``, and the slope is found by bisection,
    as in ``sigpy.mri.poisson``. That function itself never returns where its tolerance is out of reach (few samples, or
    denser than discs can lie), so the search is here, and ends with the closest it has seen.
    """
    from sigpy.mri.samp import _poisson

    n_y, n_x = shape
    y = np.maximum(np.abs(np.arange(n_y) - n_y / 2) - centre[0] / 2, 0)[:, None]
    x = np.maximum(np.abs(np.arange(n_x) - n_x / 2) - centre[1] / 2, 0)
    distance = np.sqrt((x / x.max()) ** 2 + (y / y.max()) ** 2)

    def draw(slope: float) -> tuple[float, Pattern]:
        radius_y, radius_x = (np.clip((1 + distance * slope) * size / max(shape), 1, None) for size in shape)
        drawn = _poisson(n_x, n_y, _POISSON_ATTEMPTS, radius_x, radius_y, centre, seed)
        pattern = (drawn != 0) & (distance < 1)
        return pattern.size / max(int(pattern.sum()), 1), pattern

    closest, pattern = math.inf, np.zeros(shape, dtype=np.bool_)
    if acceleration < _POISSON_DENSEST:
        closest, pattern = draw(0.0)
        if closest >= acceleration:
            return closest, pattern
    low, high = 0.0, float(max(shape))
    for _ in range(_POISSON_STEPS):
        slope = (low + high) / 2
        realised, candidate = draw(slope)
        if abs(realised - acceleration) < abs(closest - acceleration):
            closest, pattern = realised, candidate
        if abs(realised - acceleration) < _POISSON_TOLERANCE:
            break
        low, high = (slope, high) if realised < acceleration else (low, slope)
    return closest, pattern


def _centre_columns(n_columns: int, n_acs_lines: int) -> Pattern:
    """The centre where fastMRI puts it; it contains the zero frequency."""
    pattern = np.zeros(n_columns, dtype=np.bool_)
    first = (n_columns - n_acs_lines + 1) // 2
    pattern[first : first + n_acs_lines] = True
    return pattern


def _too_many_acs_lines(n_columns: int, acceleration: float, n_acs_lines: int) -> ValueError:
    return ValueError(
        f"center_fraction: {n_acs_lines} of {n_columns} columns in the centre are too many for acceleration "
        f"{acceleration:g}, which has {n_columns / acceleration:.1f} in all"
    )
