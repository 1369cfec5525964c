"""The sampling mask: which samples of a Cartesian k-space are acquired, and how that was decided."""

import base64
import binascii
import dataclasses
import hashlib
import json
import math
import zlib
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import matplotlib.axes
    import torch

__all__ = ["MASK_KINDS", "SamplingMask"]

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
_FORMAT = "mrisps.SamplingMask"
_FORMAT_VERSION = 1
_DRAWING_WIDTH = 100

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
        shape = checked_shape(self.shape)
        pattern = _binary(self.pattern)
        if pattern.shape not in (shape, shape[1:]):
            raise ValueError(f"pattern: expected (y, x) = {shape}, or {shape[1:]} for columns, got {pattern.shape}")
        if not pattern.any():
            raise ValueError("pattern: expected at least one acquired sample, got none")
        if self.acceleration is not None:
            check_acceleration(self.acceleration)
        if self.center_fraction is not None:
            check_center_fraction(self.center_fraction)
        if self.seed is not None:
            check_seed(self.seed)
        if self.offset is not None:
            check_offset(self.offset)
        for name, value in (("std", self.std), ("power", self.power)):
            if value is not None:
                check_positive(name, value)
        check_tolerance(self.tolerance)
        if not (_is_integer(self.n_acs_lines) and 0 <= self.n_acs_lines <= shape[1]):
            raise ValueError(f"n_acs_lines: expected an integer in [0, {shape[1]}], got {self.n_acs_lines}")
        set_field = object.__setattr__
        set_field(self, "shape", shape)
        # On immutable memory: an array that merely has its write flag cleared could get it back.
        set_field(self, "pattern", np.frombuffer(pattern.tobytes(), dtype=np.bool_).reshape(pattern.shape))
        for name in ("acceleration", "center_fraction", "std", "power", "tolerance"):
            value = getattr(self, name)
            set_field(self, name, None if value is None else float(value))

    @classmethod
    def from_array(
        cls,
        array: "npt.ArrayLike | torch.Tensor",
        shape: tuple[int, int] | None = None,
        *,
        acceleration: float | None = None,
        center_fraction: float | None = None,
        seed: Seed | None = None,
        tolerance: float = 0.1,
    ) -> "SamplingMask":
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
        return cls(
            kind="array",
            shape=shape,
            pattern=pattern,
            n_acs_lines=_central_run(pattern),
            acceleration=acceleration,
            center_fraction=center_fraction,
            seed=seed,
            tolerance=tolerance,
        )

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

    def tensor(self, device: "torch.device | str | None" = None) -> "torch.Tensor":
        """The pattern as a new bool tensor, ``(x,)`` or ``(y, x)``; on the CPU if no device is given."""
        import torch

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


# ------------------------------------------------------------------------------------------------ checks


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def checked_shape(shape: tuple[int, int]) -> tuple[int, int]:
    if not isinstance(shape, tuple) or len(shape) != 2 or not all(_is_integer(size) and size > 0 for size in shape):
        raise ValueError(f"shape: expected (y, x), two positive integers, got {shape}")
    return shape[0], shape[1]


def check_acceleration(acceleration: float) -> None:
    if not _is_number(acceleration) or not (math.isfinite(acceleration) and acceleration >= 1):
        raise ValueError(f"acceleration: expected a number of at least 1, got {acceleration}")


def check_center_fraction(center_fraction: float) -> None:
    if not _is_number(center_fraction) or not 0 <= center_fraction <= 1:
        raise ValueError(f"center_fraction: expected a number in [0, 1], got {center_fraction}")


def check_tolerance(tolerance: float) -> None:
    if not _is_number(tolerance) or not (math.isfinite(tolerance) and tolerance >= 0):
        raise ValueError(f"tolerance: expected a number of at least 0, got {tolerance}")


def check_positive(name: str, value: float) -> None:
    if not _is_number(value) or not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name}: expected a positive number, got {value}")


def check_offset(offset: int) -> None:
    if not _is_integer(offset) or offset < 0:
        raise ValueError(f"offset: expected an integer of at least 0, got {offset}")


def check_seed(seed: Seed) -> None:
    parts = seed if isinstance(seed, tuple) else (seed,)
    if not parts or not all(_is_integer(part) and 0 <= part < 2**32 for part in parts):
        raise ValueError(f"seed: expected an integer in [0, 2^32), or a tuple of them, got {seed}")


def _binary(array: "npt.ArrayLike | torch.Tensor") -> Pattern:
    """Array of bool from anything that is binary."""
    values = array.detach().cpu().numpy() if hasattr(array, "detach") else np.asarray(array)
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
