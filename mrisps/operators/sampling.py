"""Cartesian sampling masks: how they are made, what they acquire, and how they are written down.

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
``array``, ``file``      both from elsewhere: `mask_from_array`, `mask_from_file`
======================== ==== =======================================================================================

``equispaced`` and ``magic`` do not make up for the centre: their realised acceleration is well below the nominal one.
The fastMRI kinds are equal, bit for bit, to what ``fastmri.data.subsample`` gives for the same seed and parameters.
"""

import base64
import binascii
import dataclasses
import hashlib
import json
import math
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
import torch

from mrisps.errors import FileError

if TYPE_CHECKING:
    import matplotlib.axes

__all__ = ["MASK_KINDS", "SamplingMask", "make_mask", "mask_from_array", "mask_from_file"]

MASK_KINDS: Final = (
    "random",
    "equispaced",
    "equispaced_fraction",
    "magic",
    "magic_fraction",
    "gaussian",
    "polynomial",
    "poisson",
)
"""The kinds that `make_mask` makes."""

_OTHER_KINDS = ("array", "file")
_OFFSET_KINDS = ("equispaced", "equispaced_fraction", "magic", "magic_fraction")
_WHOLE_ACCELERATION_KINDS = ("equispaced", "magic")
_FORMAT = "mrisps.SamplingMask"
_FORMAT_VERSION = 1
_DRAWING_WIDTH = 100

# What sigpy.mri.poisson uses: rejected candidates a sample, and the error of the acceleration that ends the search.
_POISSON_ATTEMPTS = 30
_POISSON_TOLERANCE = 0.1
# The slope is then known to 1e-6 of its range, far below what changes a mask.
_POISSON_STEPS = 20
# Discs of radius one lie at an acceleration of about 1.7: below this it is worth seconds to look how densely they can.
_POISSON_DENSEST = 2.0

Seed = int | tuple[int, ...]
Pattern = npt.NDArray[np.bool_]


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class SamplingMask:
    """Which samples of a Cartesian k-space are acquired, and how that was decided.

    Parameters
    ----------
    kind
        One of `MASK_KINDS`, or ``"array"`` or ``"file"``.
    shape
        ``(y, x)`` of the k-space.
    pattern
        True where acquired; ``(x,)`` for a mask of columns, or ``(y, x)``; centred. Kept as a read-only copy.
    n_acs_lines
        Columns that are fully sampled in the centre; for a pattern ``(y, x)`` samples along x.
    acceleration
        Nominal acceleration: what was asked for. None where that is not known.
    center_fraction
        Fraction of the columns (2D: of each axis) that was asked for in the centre. None where that is not known.
    seed
        Seed of the random choices. None where there are none, or it is not known.
    offset
        First column, where it was given and not drawn.
    std
        Standard deviation of a Gaussian density, as a fraction of the half-width of k-space.
    power
        Exponent of a polynomial density.
    tolerance
        Relative deviation of the realised from the nominal acceleration above which the mask says so
        (`misses_nominal`).

    Raises
    ------
    ValueError
        If a value is out of its range, the pattern acquires nothing, or its shape does not fit `shape`.
    """

    kind: str
    shape: tuple[int, int]
    pattern: Pattern
    n_acs_lines: int
    acceleration: float | None = None
    center_fraction: float | None = None
    seed: Seed | None = None
    offset: int | None = None
    std: float | None = None
    power: float | None = None
    tolerance: float = 0.1

    def __post_init__(self) -> None:
        if self.kind not in MASK_KINDS + _OTHER_KINDS:
            raise ValueError(f"kind: expected one of {', '.join(MASK_KINDS + _OTHER_KINDS)}, got {self.kind!r}")
        shape = _checked_shape(self.shape)
        pattern = _binary(self.pattern)
        if pattern.shape not in (shape, shape[1:]):
            raise ValueError(f"pattern: expected (y, x) = {shape}, or {shape[1:]} for columns, got {pattern.shape}")
        if not pattern.any():
            raise ValueError("pattern: expected at least one acquired sample, got none")
        if self.acceleration is not None:
            _check_acceleration(self.acceleration)
        if self.center_fraction is not None:
            _check_center_fraction(self.center_fraction)
        if self.seed is not None:
            _check_seed(self.seed)
        if self.offset is not None:
            _check_offset(self.offset)
        for name, value in (("std", self.std), ("power", self.power)):
            if value is not None:
                _check_positive(name, value)
        _check_tolerance(self.tolerance)
        if not (_is_integer(self.n_acs_lines) and 0 <= self.n_acs_lines <= shape[1]):
            raise ValueError(f"n_acs_lines: expected an integer in [0, {shape[1]}], got {self.n_acs_lines}")
        set_field = object.__setattr__
        set_field(self, "shape", shape)
        # On immutable memory: an array that merely has its write flag cleared could get it back.
        set_field(self, "pattern", np.frombuffer(pattern.tobytes(), dtype=np.bool_).reshape(pattern.shape))
        for name in ("acceleration", "center_fraction", "std", "power", "tolerance"):
            value = getattr(self, name)
            set_field(self, name, None if value is None else float(value))

    # ------------------------------------------------------------------------------------------------ what it acquires

    @property
    def is_columns(self) -> bool:
        """Whether whole columns are acquired, so that the pattern is ``(x,)``."""
        return self.pattern.ndim == 1

    @property
    def n_acquired(self) -> int:
        """Number of acquired columns; of acquired samples for a pattern ``(y, x)``."""
        return int(self.pattern.sum())

    @property
    def realised_acceleration(self) -> float:
        """All columns over acquired ones, the centre included; samples for a pattern ``(y, x)``."""
        return self.pattern.size / self.n_acquired

    @property
    def is_fully_sampled(self) -> bool:
        """Whether everything is acquired."""
        return self.n_acquired == self.pattern.size

    @property
    def misses_nominal(self) -> bool:
        """Whether the realised acceleration deviates from the nominal one by more than `tolerance` (relative)."""
        if self.acceleration is None:
            return False
        return abs(self.realised_acceleration - self.acceleration) > self.tolerance * self.acceleration

    @property
    def sha256(self) -> str:
        """SHA-256 of the pattern, hexadecimal.

        Over its sizes in ASCII (``"368"`` or ``"640x368"``), a newline, and one byte, 0 or 1, for each sample.
        """
        sizes = "x".join(map(str, self.pattern.shape))
        return hashlib.sha256(f"{sizes}\n".encode() + self.pattern.tobytes()).hexdigest()

    def array2d(self) -> Pattern:
        """The pattern as a read-only array ``(y, x)``."""
        return np.broadcast_to(self.pattern, self.shape)

    def tensor(self, device: torch.device | str = "cpu") -> torch.Tensor:
        """The pattern as a new bool tensor, ``(x,)`` or ``(y, x)``."""
        return torch.tensor(self.pattern, device=device)

    # ------------------------------------------------------------------------------------------------ identity

    def _fields(self) -> tuple[object, ...]:
        return tuple(getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "pattern")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SamplingMask):
            return NotImplemented
        return self._fields() == other._fields() and np.array_equal(self.pattern, other.pattern)

    def __hash__(self) -> int:
        return hash((self._fields(), self.sha256))

    def __reduce__(self) -> tuple[type["SamplingMask"], tuple[object, ...]]:
        # Copies and pickles go through the constructor: the pattern stays read-only.
        return type(self), tuple(getattr(self, field.name) for field in dataclasses.fields(self))

    # ------------------------------------------------------------------------------------------------ JSON

    def to_json(self) -> str:
        """JSON object with all fields, realised acceleration, pattern (packed bits, zlib, base64) and its SHA-256."""
        packed = zlib.compress(np.packbits(self.pattern).tobytes(), level=9)
        record: dict[str, object] = {"format": _FORMAT, "version": _FORMAT_VERSION}
        record |= {
            field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "pattern"
        }
        record |= {
            "realised_acceleration": self.realised_acceleration,
            "sha256": self.sha256,
            "pattern_shape": self.pattern.shape,
            "pattern": base64.b64encode(packed).decode("ascii"),
        }
        return json.dumps(record, indent=2)

    @classmethod
    def from_json(cls, text: str) -> "SamplingMask":
        """Mask from what `to_json` wrote.

        Raises
        ------
        ValueError
            If the text is not such an object, has unknown or missing keys, or the pattern does not have the stated
            SHA-256.
        """
        try:
            record = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"not JSON: {error}") from error
        if not isinstance(record, dict):
            raise ValueError(f"expected a JSON object, got {type(record).__name__}")
        if record.get("format") != _FORMAT:
            raise ValueError(f"format: expected {_FORMAT!r}, got {record.get('format')!r}")
        if record.get("version") != _FORMAT_VERSION:
            raise ValueError(f"version: expected {_FORMAT_VERSION}, got {record.get('version')!r}")
        fields = [field.name for field in dataclasses.fields(cls)]
        expected = {*fields, "format", "version", "realised_acceleration", "sha256", "pattern_shape"}
        if missing := expected - record.keys():
            raise ValueError(f"missing keys: {', '.join(sorted(missing))}")
        if unknown := record.keys() - expected:
            raise ValueError(f"unknown keys: {', '.join(sorted(unknown))}")
        shape, pattern_shape, seed = (
            tuple(value) if isinstance(value, list) else value
            for value in (record["shape"], record["pattern_shape"], record["seed"])
        )
        mask = cls(
            kind=record["kind"],
            shape=shape,
            pattern=_unpacked(record["pattern"], pattern_shape),
            n_acs_lines=record["n_acs_lines"],
            acceleration=record["acceleration"],
            center_fraction=record["center_fraction"],
            seed=seed,
            offset=record["offset"],
            std=record["std"],
            power=record["power"],
            tolerance=record["tolerance"],
        )
        for name, found in (("sha256", mask.sha256), ("realised_acceleration", mask.realised_acceleration)):
            if record[name] != found:
                raise ValueError(f"{name}: {record[name]} is stated, but the pattern has {found}")
        return mask

    # ------------------------------------------------------------------------------------------------ for people

    def __repr__(self) -> str:
        nominal = "unknown" if self.acceleration is None else f"{self.acceleration:g}"
        return (
            f"SamplingMask({self.kind}, shape={self.shape}, acceleration={nominal}, "
            f"realised={self.realised_acceleration:.3f}, n_acs_lines={self.n_acs_lines}, seed={self.seed}, "
            f"sha256={self.sha256[:12]})"
        )

    def __str__(self) -> str:
        return self.summary()

    def summary(self) -> str:
        """Several lines for a person: what was asked for, what came out, and a drawing of the columns in one line."""
        n_y, n_x = self.shape
        unit = "columns" if self.is_columns else "samples"
        lines = [f"{self.kind} mask, {n_y} x {n_x} (y, x)"]
        parameters = {"seed": self.seed, "offset": self.offset, "std": self.std, "power": self.power}
        given = [f"{name} {value}" for name, value in parameters.items() if value is not None]
        if self.center_fraction is not None:
            given.insert(0, f"center fraction {self.center_fraction:g}")
        if given:
            lines.append(f"  made with     {', '.join(given)}")
        nominal = "" if self.acceleration is None else f" (nominal {self.acceleration:g})"
        realised = f"{self.realised_acceleration:.2f}"
        lines.append(f"  acceleration  {realised}{nominal}, {self.n_acquired} of {self.pattern.size} {unit}")
        lines.append(f"  centre        {self.n_acs_lines} {unit}{'' if self.is_columns else ' along x'}, fully sampled")
        lines.append(f"  sha256        {self.sha256}")
        lines.append(f"  columns       {self.drawing()}")
        if self.misses_nominal and self.acceleration is not None:
            deviation = self.realised_acceleration / self.acceleration - 1
            lines.append(
                f"  NOTE: the realised acceleration {realised} misses the nominal {self.acceleration:g} "
                f"by {deviation:+.0%} (tolerance {self.tolerance:.0%})."
            )
        if self.is_fully_sampled:
            lines.append("  NOTE: fully sampled, nothing is left out.")
        return "\n".join(lines)

    def drawing(self, width: int = _DRAWING_WIDTH) -> str:
        """The columns in one line of at most `width` ASCII characters.

        Each character stands for equally many neighbouring columns (the last for fewer): ``.`` none acquired, ``:``
        less than half, ``|`` half or more, ``#`` all.
        """
        if width < 1:
            raise ValueError(f"width: expected at least 1, got {width}")
        share = self.array2d().mean(axis=0)
        step = math.ceil(len(share) / width)
        cells = [float(share[start : start + step].mean()) for start in range(0, len(share), step)]
        return "".join("." if cell == 0 else "#" if cell == 1 else "|" if cell >= 0.5 else ":" for cell in cells)

    def plot(self, ax: "matplotlib.axes.Axes | None" = None) -> "matplotlib.axes.Axes":
        """Draw the mask, white where acquired.

        Parameters
        ----------
        ax
            Where to draw; None makes a new figure.

        Returns
        -------
        matplotlib.axes.Axes
            What was drawn on.
        """
        import matplotlib.pyplot as plt

        if ax is None:
            _, ax = plt.subplots()
        ax.imshow(self.array2d(), cmap="gray", vmin=0, vmax=1, interpolation="nearest", aspect="equal")
        ax.set_xlabel("k-space column (x)")
        ax.set_ylabel("k-space row (y)")
        ax.set_title(f"{self.kind}, acceleration {self.realised_acceleration:.2f}, {self.n_acs_lines} ACS columns")
        return ax


# ---------------------------------------------------------------------------------------------------- making masks


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
        One of `MASK_KINDS`; the table at the head of the module says what they are.
    shape
        ``(y, x)`` of the k-space; columns run along y.
    acceleration
        Nominal acceleration, at least 1; a whole number for ``equispaced`` and ``magic``. What it means is up to the
        kind: compare `SamplingMask.realised_acceleration`.
    center_fraction
        Fraction of the columns that is acquired in the centre, in ``[0, 1]``; for ``poisson`` of both axes.
    seed
        Seed of the random choices: an integer, or a tuple of them for the one-dimensional kinds (fastMRI takes the
        characters of the file name, ``tuple(map(ord, name))``).
    offset
        First column of ``equispaced``, ``equispaced_fraction``, ``magic`` and ``magic_fraction``; None draws it.
    std
        Of ``gaussian``: standard deviation of the density as a fraction of the half-width of k-space; None is 0.3.
    power
        Of ``polynomial``: exponent of the density; None is 3.
    tolerance
        Relative deviation from the nominal acceleration above which the mask says so.

    Returns
    -------
    SamplingMask
        The mask.

    Raises
    ------
    ValueError
        If the kind is not known, a value is out of range or not used by the kind, or the centre alone has more columns
        than the acceleration allows.

    Source
    ------
    fastMRI kinds: ``fastmri.data.subsample`` 0.3.0. Density ``(1 - |k|)^power``: Lustig, Donoho, Pauly, Magn. Reson.
    Med. 58 (2007) 1182. Poisson disc: ``sigpy.mri.poisson`` 0.1.27.
    """
    if kind not in MASK_KINDS:
        raise ValueError(f"kind: expected one of {', '.join(MASK_KINDS)}, got {kind!r}")
    shape = _checked_shape(shape)
    _check_acceleration(acceleration)
    _check_center_fraction(center_fraction)
    _check_seed(seed)
    _check_tolerance(tolerance)
    used = {"offset": _OFFSET_KINDS, "std": ("gaussian",), "power": ("polynomial",)}
    for name, value in (("offset", offset), ("std", std), ("power", power)):
        if value is not None and kind not in used[name]:
            raise ValueError(f"{name}: only used by {', '.join(used[name])}, not by {kind!r}")
    if offset is not None:
        _check_offset(offset)
    if kind == "gaussian":
        std = 0.3 if std is None else std
        _check_positive("std", std)
    if kind == "polynomial":
        power = 3.0 if power is None else power
        _check_positive("power", power)

    n_columns = shape[1]
    n_acs_lines = round(n_columns * center_fraction)
    if kind in _WHOLE_ACCELERATION_KINDS and acceleration != round(acceleration):
        raise ValueError(f"acceleration: expected a whole number for kind {kind!r}, got {acceleration}")
    if kind == "poisson":
        pattern = _poisson_pattern(shape, acceleration, center_fraction, seed)
    elif n_acs_lines == n_columns:
        pattern = np.ones(n_columns, dtype=np.bool_)
    elif kind in ("gaussian", "polynomial"):
        # Distance from the zero frequency in units of half the width, below 1 on every column so that none has density
        # zero.
        distance = np.abs(np.arange(n_columns) - n_columns // 2) / (n_columns // 2 + 1)
        if kind == "gaussian" and std is not None:
            log_density = -(distance**2) / (2 * std**2)
        else:
            assert power is not None
            log_density = power * np.log1p(-distance)
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
    )


def _fastmri_pattern(
    kind: str, n_columns: int, acceleration: float, n_acs_lines: int, seed: Seed, offset: int | None
) -> tuple[Pattern, int]:
    """Columns as ``fastmri.data.subsample`` draws them, and the number of those in the centre."""
    rng = np.random.RandomState(seed)  # their generator: the streams must be the same
    rng.randint(1)  # fastMRI first draws which of its pairs (center_fraction, acceleration) to use; we have one
    if kind == "random":
        if n_acs_lines > n_columns / acceleration:
            raise _too_many_acs_lines(n_columns, acceleration, n_acs_lines)
        probability = (n_columns / acceleration - n_acs_lines) / (n_columns - n_acs_lines)
        pattern = rng.uniform(size=n_columns) < probability
    elif kind == "equispaced":
        step = round(acceleration)
        first = int(rng.randint(0, high=step)) if offset is None else offset
        pattern = np.zeros(n_columns, dtype=np.bool_)
        pattern[first::step] = True
    elif kind == "equispaced_fraction":
        if n_acs_lines * acceleration > n_columns:
            raise _too_many_acs_lines(n_columns, acceleration, n_acs_lines)
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


def _magic_columns(
    n_columns: int,
    step: int,
    offset: int | None,
    rng: np.random.RandomState,
) -> Pattern:
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


def _poisson_pattern(shape: tuple[int, int], acceleration: float, center_fraction: float, seed: Seed) -> Pattern:
    """SigPy's variable-density Poisson disc.

    The density falls with the distance r from the centre as ``1 / (1 + slope r)``, and the slope is found by bisection,
    as in ``sigpy.mri.poisson``. That function itself never returns where its tolerance is out of reach (few samples, or
    denser than discs can lie), so the search is here, and ends with the closest it has seen.
    """
    if not isinstance(seed, int):
        raise ValueError(f"seed: expected one integer for kind 'poisson', got {seed}")
    if acceleration == 1:
        return np.ones(shape, dtype=np.bool_)
    n_y, n_x = shape
    centre_y, centre_x = (round(size * center_fraction) for size in shape)
    if centre_y * centre_x * acceleration > n_y * n_x or centre_y >= n_y or centre_x >= n_x:
        raise ValueError(
            f"center_fraction: {centre_y} x {centre_x} samples in the centre are too many for acceleration "
            f"{acceleration:g}, which has {n_y * n_x / acceleration:.1f} in all"
        )
    from sigpy.mri.samp import _poisson

    y = np.maximum(np.abs(np.arange(n_y) - n_y / 2) - centre_y / 2, 0)[:, None]
    x = np.maximum(np.abs(np.arange(n_x) - n_x / 2) - centre_x / 2, 0)
    distance = np.sqrt((x / x.max()) ** 2 + (y / y.max()) ** 2)

    def draw(slope: float) -> tuple[float, Pattern]:
        radius_y, radius_x = (np.clip((1 + distance * slope) * size / max(shape), 1, None) for size in shape)
        drawn = _poisson(n_x, n_y, _POISSON_ATTEMPTS, radius_x, radius_y, (centre_y, centre_x), seed)
        pattern = (drawn != 0) & (distance < 1)
        return pattern.size / max(int(pattern.sum()), 1), pattern

    closest, pattern = math.inf, np.zeros(shape, dtype=np.bool_)
    if acceleration < _POISSON_DENSEST:
        closest, pattern = draw(0.0)
        if closest >= acceleration:
            return pattern
    low, high = 0.0, float(max(shape))
    for _ in range(_POISSON_STEPS):
        slope = (low + high) / 2
        realised, candidate = draw(slope)
        if abs(realised - acceleration) < abs(closest - acceleration):
            closest, pattern = realised, candidate
        if abs(realised - acceleration) < _POISSON_TOLERANCE:
            break
        low, high = (slope, high) if realised < acceleration else (low, slope)
    return pattern


def _centre_columns(n_columns: int, n_acs_lines: int) -> Pattern:
    """The centre where fastMRI puts it; it contains the zero frequency."""
    pattern = np.zeros(n_columns, dtype=np.bool_)
    first = (n_columns - n_acs_lines + 1) // 2
    pattern[first : first + n_acs_lines] = True
    return pattern


def mask_from_array(
    array: npt.ArrayLike | torch.Tensor,
    shape: tuple[int, int] | None = None,
    *,
    acceleration: float | None = None,
    center_fraction: float | None = None,
    seed: Seed | None = None,
    tolerance: float = 0.1,
) -> SamplingMask:
    """Mask from an array of 0 and 1.

    Parameters
    ----------
    array
        bool, or numbers that are 0 or 1; centred; ``(x,)`` for columns, or ``(y, x)``.
    shape
        ``(y, x)`` of the k-space; needed for columns.
    acceleration, center_fraction, seed
        What is known of how the mask was made.
    tolerance
        See `SamplingMask`.

    Returns
    -------
    SamplingMask
        Of kind ``"array"``; its ACS lines are the acquired run of columns through the zero frequency (for an array
        ``(y, x)``: of samples on the row of the zero frequency).

    Raises
    ------
    ValueError
        If the array is not binary, all zero, or of the wrong shape.
    """
    pattern = _binary(array)
    if shape is None:
        if pattern.ndim != 2:
            raise ValueError(f"shape: needed for an array that is not (y, x), got array of shape {pattern.shape}")
        shape = (pattern.shape[0], pattern.shape[1])
    return SamplingMask(
        kind="array",
        shape=shape,
        pattern=pattern,
        n_acs_lines=_central_run(pattern),
        acceleration=acceleration,
        center_fraction=center_fraction,
        seed=seed,
        tolerance=tolerance,
    )


def mask_from_file(path: Path | str, shape: tuple[int, int] | None = None) -> SamplingMask:
    """Mask from a file.

    Parameters
    ----------
    path
        ``.npy``: an array as for `mask_from_array`. ``.json``: what `SamplingMask.to_json` wrote.
    shape
        ``(y, x)`` of the k-space; needed for columns in a ``.npy``. A ``.json`` knows its own, which must be the same.

    Returns
    -------
    SamplingMask
        Of kind ``"file"`` from ``.npy``; as it was written from ``.json``.

    Raises
    ------
    FileError
        If the file cannot be read or is not a mask of that shape.
    """
    path = Path(path)
    try:
        if path.suffix == ".json":
            mask = SamplingMask.from_json(path.read_text(encoding="utf-8"))
            if shape is not None and mask.shape != tuple(shape):
                raise ValueError(f"expected (y, x) = {tuple(shape)}, got {mask.shape}")
            return mask
        if path.suffix == ".npy":
            with path.open("rb") as file:
                array = np.lib.format.read_array(file, allow_pickle=False)
            return dataclasses.replace(mask_from_array(array, shape), kind="file")
    except (OSError, ValueError, EOFError, MemoryError) as error:  # MemoryError: what a wrong header can ask for
        message = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise FileError(path, message, field="mask") from error
    raise FileError(path, f"expected a mask as .npy or .json, got suffix {path.suffix!r}")


# ---------------------------------------------------------------------------------------------------- checks


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _checked_shape(shape: tuple[int, int]) -> tuple[int, int]:
    if not isinstance(shape, tuple) or len(shape) != 2 or not all(_is_integer(size) and size > 0 for size in shape):
        raise ValueError(f"shape: expected (y, x), two positive integers, got {shape}")
    return shape[0], shape[1]


def _check_acceleration(acceleration: float) -> None:
    if not _is_number(acceleration) or not (math.isfinite(acceleration) and acceleration >= 1):
        raise ValueError(f"acceleration: expected a number of at least 1, got {acceleration}")


def _check_center_fraction(center_fraction: float) -> None:
    if not _is_number(center_fraction) or not 0 <= center_fraction <= 1:
        raise ValueError(f"center_fraction: expected a number in [0, 1], got {center_fraction}")


def _check_tolerance(tolerance: float) -> None:
    if not _is_number(tolerance) or not (math.isfinite(tolerance) and tolerance >= 0):
        raise ValueError(f"tolerance: expected a number of at least 0, got {tolerance}")


def _check_positive(name: str, value: float) -> None:
    if not _is_number(value) or not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name}: expected a positive number, got {value}")


def _check_offset(offset: int) -> None:
    if not _is_integer(offset) or offset < 0:
        raise ValueError(f"offset: expected an integer of at least 0, got {offset}")


def _check_seed(seed: Seed) -> None:
    parts = seed if isinstance(seed, tuple) else (seed,)
    if not parts or not all(_is_integer(part) and 0 <= part < 2**32 for part in parts):
        raise ValueError(f"seed: expected an integer in [0, 2^32), or a tuple of them, got {seed}")


def _too_many_acs_lines(n_columns: int, acceleration: float, n_acs_lines: int) -> ValueError:
    return ValueError(
        f"center_fraction: {n_acs_lines} of {n_columns} columns in the centre are too many for acceleration "
        f"{acceleration:g}, which has {n_columns / acceleration:.1f} in all"
    )


def _binary(array: npt.ArrayLike | torch.Tensor) -> Pattern:
    """Array of bool from anything that is binary."""
    values = array.detach().cpu().numpy() if isinstance(array, torch.Tensor) else np.asarray(array)
    if values.dtype != np.bool_ and values.dtype.kind not in "iuf":
        raise ValueError(f"pattern: expected bool, or numbers 0 and 1, got dtype {values.dtype}")
    if values.ndim not in (1, 2) or values.size == 0:
        raise ValueError(f"pattern: expected (x,) for columns or (y, x), got shape {values.shape}")
    pattern = values.astype(np.bool_)
    if not np.array_equal(pattern, values):
        raise ValueError("pattern: expected only 0 and 1, got other values")
    return pattern


def _central_run(pattern: Pattern) -> int:
    """Length of the acquired run of columns, or of samples on the central row, through the zero frequency."""
    row = pattern if pattern.ndim == 1 else pattern[pattern.shape[0] // 2]
    centre = len(row) // 2
    if not row[centre]:
        return 0
    gaps = np.flatnonzero(~row)
    before, after = gaps[gaps < centre], gaps[gaps > centre]
    first = int(before[-1]) + 1 if before.size else 0
    stop = int(after[0]) if after.size else len(row)
    return stop - first


def _unpacked(encoded: object, shape: object) -> Pattern:
    """The pattern from its JSON form."""
    if not isinstance(shape, tuple) or len(shape) not in (1, 2) or not all(_is_integer(n) and n > 0 for n in shape):
        raise ValueError(f"pattern_shape: expected [x] or [y, x], got {shape}")
    if not isinstance(encoded, str):
        raise ValueError(f"pattern: expected a base64 string, got {type(encoded).__name__}")
    n_bytes = (math.prod(shape) + 7) // 8
    try:
        decompressor = zlib.decompressobj()
        # The stated size bounds what is unpacked, whatever the text claims.
        packed = decompressor.decompress(base64.b64decode(encoded, validate=True), n_bytes + 1)
    except (binascii.Error, zlib.error) as error:
        raise ValueError(f"pattern: cannot be unpacked: {error}") from error
    if len(packed) != n_bytes:
        raise ValueError(f"pattern: expected {n_bytes} bytes for shape {shape}, got {len(packed)}")
    return np.unpackbits(np.frombuffer(packed, dtype=np.uint8), count=math.prod(shape)).reshape(shape).astype(np.bool_)
