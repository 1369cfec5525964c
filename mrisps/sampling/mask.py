"""The sampling mask: which samples of a Cartesian k-space are acquired, and how that was decided."""

import base64
import binascii
import dataclasses
import hashlib
import math
import zlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mrisps.sampling.checks import EXPECTED, Json, Pattern, Seed, binary, check, is_integer

if TYPE_CHECKING:
    import matplotlib.axes
    import torch

__all__ = ["SamplingMask"]

_FORMAT = "mrisps.SamplingMask"
_FORMAT_VERSION = 1
_DRAWING_WIDTH = 100
# One coil: a column with up to this share of zeros is a column. Measured samples can be zero.
_ZEROS_OF_A_COLUMN = 0.1


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
        True where acquired; ``(x,)`` for a mask of columns, or ``(y, x)``. The zero frequency is at index
        ``size // 2``. The mask keeps a read-only copy.
    n_acs_lines
        Columns that are fully sampled in the centre; for a pattern ``(y, x)`` samples along x.
    acceleration, center_fraction, seed, offset, std, power, tolerance
        What was asked for, as in `make_mask`; None if it was not, or is unknown.
    seed_used
        The seed that drew the pattern, if `seed` itself misses the acceleration. None otherwise.

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
    seed_used: int | None = None

    def __post_init__(self) -> None:
        check("kind", self.kind)
        check("shape", self.shape)
        pattern = binary(self.pattern)
        if pattern.shape not in (self.shape, self.shape[1:]):
            raise ValueError(
                f"pattern: expected (y, x) = {self.shape}, or {self.shape[1:]} for columns, got {pattern.shape}"
            )
        if not pattern.any():
            raise ValueError("pattern: expected at least one acquired sample, got none")
        for name in EXPECTED.keys() - {"kind", "shape", "tolerance"}:
            if getattr(self, name) is not None:
                check(name, getattr(self, name))
        check("tolerance", self.tolerance)
        if not (is_integer(self.n_acs_lines) and 0 <= self.n_acs_lines <= self.shape[1]):
            raise ValueError(f"n_acs_lines: expected an integer in [0, {self.shape[1]}], got {self.n_acs_lines}")
        # On immutable memory: an array that merely has its write flag cleared could get it back.
        pattern = np.frombuffer(pattern.tobytes(), dtype=np.bool_).reshape(pattern.shape)
        object.__setattr__(self, "pattern", pattern)
        for name in ("acceleration", "center_fraction", "std", "power", "tolerance"):
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else float(value))

    @classmethod
    def from_array(cls, array: "npt.ArrayLike | torch.Tensor", shape: tuple[int, int] | None = None) -> "SamplingMask":
        """Mask of kind ``"array"`` from 0 and 1: bool or numbers, NumPy or torch, on any device.

        The array is ``(x,)`` for columns, which needs the shape ``(y, x)`` of the k-space, or ``(y, x)``; the zero
        frequency is at index ``size // 2``. ACS lines are the columns without a gap around it; for an array ``(y, x)``
        the samples on its row.
        """
        pattern = binary(array)
        if shape is None:
            if pattern.ndim != 2:
                raise ValueError(f"shape: needed for an array that is not (y, x), got array of shape {pattern.shape}")
            shape = (pattern.shape[0], pattern.shape[1])
        return cls("array", shape, pattern, _central_run(pattern))

    @classmethod
    def from_zeros(cls, kspace: Iterable[npt.NDArray[np.complex64]]) -> "SamplingMask":
        """Mask from slices of k-space ``(coil, y, x)``, one after the other: acquired is what is not zero in any coil of any.

        It is of columns if every column is acquired as a whole, else of single samples. With one coil up to 10 % of the
        samples in the acquired columns may be zero by chance.
        """
        samples: Pattern | None = None
        n_coils = 0
        for one in kspace:
            seen = (one != 0).any(axis=0)
            if samples is not None and samples.shape != seen.shape:
                raise ValueError(f"kspace: expected slices of one shape, got {samples.shape} and {seen.shape}")
            samples, n_coils = seen if samples is None else samples | seen, one.shape[0]
        if samples is None:
            raise ValueError("kspace: expected at least one slice, got none")
        columns = samples.any(axis=0)
        n_missing = int(samples.shape[0] * columns.sum() - samples.sum())
        allowed = 0.0 if n_coils > 1 else _ZEROS_OF_A_COLUMN * samples.shape[0] * float(columns.sum())
        shape = (samples.shape[0], samples.shape[1])
        return cls.from_array(samples if n_missing > allowed else columns, shape)

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
        """All columns over acquired columns, the centre included; for a pattern ``(y, x)`` samples over samples."""
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

    def _values(self) -> dict[str, Any]:
        """All fields but the pattern; without the field that only masks of a second seed have."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del values["pattern"]
        return values if self.seed_used is not None else {k: v for k, v in values.items() if k != "seed_used"}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SamplingMask):
            return NotImplemented
        return self._values() == other._values() and np.array_equal(self.pattern, other.pattern)

    def __hash__(self) -> int:
        return hash((tuple(self._values().values()), self.sha256))

    def __reduce__(self) -> tuple[type["SamplingMask"], tuple[object, ...]]:
        # Copies and pickles go through the constructor: the pattern stays read-only.
        return type(self), tuple(getattr(self, field.name) for field in dataclasses.fields(self))

    def to_record(self) -> dict[str, Json]:
        """Plain values for JSON: all fields, realised acceleration, pattern (packed bits, zlib, base64) and its SHA-256."""
        packed = zlib.compress(np.packbits(self.pattern).tobytes(), level=9)
        record = {"format": _FORMAT, "version": _FORMAT_VERSION, **self._values()} | {
            "realised_acceleration": self.realised_acceleration,
            "sha256": self.sha256,
            "pattern_shape": self.pattern.shape,
            "pattern": base64.b64encode(packed).decode("ascii"),
        }
        return {name: list(value) if isinstance(value, tuple) else value for name, value in record.items()}

    @classmethod
    def from_record(cls, record: object) -> "SamplingMask":
        """Mask from what `to_record` gave; a ValueError for other keys, or a pattern that has not the stated SHA-256."""
        if not isinstance(record, dict):
            raise ValueError(f"expected a JSON object, got {type(record).__name__}")
        for name, known in (("format", _FORMAT), ("version", _FORMAT_VERSION)):
            if record.get(name) != known:
                raise ValueError(f"{name}: expected {known!r}, got {record.get(name)!r}")
        fields = {field.name for field in dataclasses.fields(cls)}
        expected = fields | {"format", "version", "realised_acceleration", "sha256", "pattern_shape"}
        if missing := expected - record.keys() - {"seed_used"}:
            raise ValueError(f"missing keys: {', '.join(sorted(missing))}")
        if unknown := record.keys() - expected:
            raise ValueError(f"unknown keys: {', '.join(sorted(map(str, unknown)))}")
        # Any: the constructor checks every value.
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in record.items()}
        pattern = _unpacked(values["pattern"], values["pattern_shape"])
        mask = cls(**{name: value for name, value in values.items() if name in fields} | {"pattern": pattern})
        for name in ("sha256", "realised_acceleration"):
            if record[name] != getattr(mask, name):
                raise ValueError(f"{name}: {record[name]} is stated, but the pattern has {getattr(mask, name)}")
        return mask

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
        unit = "columns" if self.is_columns else "samples"
        lines = [f"{self.kind} mask, {self.shape[0]} x {self.shape[1]} (y, x)"]
        parameters = {name: getattr(self, name) for name in ("center_fraction", "seed", "offset", "std", "power")}
        given = [
            f"{name.replace('_', ' ')} {f'{value:g}' if isinstance(value, float) else value}"
            for name, value in parameters.items()
            if value is not None
        ]
        if given:
            lines.append(f"  made with     {', '.join(given)}")
        nominal = "" if self.acceleration is None else f" (nominal {self.acceleration:g})"
        realised = f"{self.realised_acceleration:.2f}"
        lines.append(f"  acceleration  {realised}{nominal}, {self.n_acquired} of {self.pattern.size} {unit}")
        lines.append(f"  centre        {self.n_acs_lines} {unit}{'' if self.is_columns else ' along x'}, fully sampled")
        lines.append(f"  sha256        {self.sha256}")
        lines.append(f"  columns       {self.drawing()}")
        if self.seed_used is not None:
            lines.append(f"  NOTE: seed {self.seed} misses the acceleration; the mask was drawn with {self.seed_used}.")
        if self.misses_nominal and self.acceleration is not None:
            deviation = self.realised_acceleration / self.acceleration - 1
            lines.append(
                f"  NOTE: the realised acceleration {realised} misses the nominal {self.acceleration:g} "
                f"by {deviation:+.0%} (tolerance {self.tolerance:.0%})."
            )
        if self.is_fully_sampled:
            lines.append("  NOTE: fully sampled, nothing is left out.")
        return "\n".join(lines)

    def drawing(self) -> str:
        """The columns in one line of at most 100 ASCII characters.

        Each character stands for equally many neighbouring columns (the last for fewer): ``.`` none acquired, ``:``
        less than half, ``|`` half or more, ``#`` all.
        """
        share = self.array2d().mean(axis=0)
        step = math.ceil(len(share) / _DRAWING_WIDTH)
        cells = [float(share[start : start + step].mean()) for start in range(0, len(share), step)]
        return "".join("." if cell == 0 else "#" if cell == 1 else "|" if cell >= 0.5 else ":" for cell in cells)

    def plot(self, ax: "matplotlib.axes.Axes | None" = None) -> "matplotlib.axes.Axes":
        """Draw the mask, white where acquired, on `ax` or on a new figure; returns the axes."""
        import matplotlib.pyplot as plt

        ax = plt.subplots()[1] if ax is None else ax
        ax.imshow(self.array2d(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        ax.set(xlabel="k-space column (x)", ylabel="k-space row (y)")
        ax.set_title(f"{self.kind}, acceleration {self.realised_acceleration:.2f}, {self.n_acs_lines} ACS columns")
        return ax


def _central_run(pattern: Pattern) -> int:
    """Columns without a gap around the zero frequency; of ``(y, x)`` the samples on the row of the zero frequency."""
    row = pattern if pattern.ndim == 1 else pattern[pattern.shape[0] // 2]
    centre = len(row) // 2
    gaps = np.flatnonzero(~np.concatenate(([False], row, [False])))  # index 0 is before the first column
    before, after = gaps[gaps <= centre + 1], gaps[gaps >= centre + 1]
    return max(int(after[0]) - int(before[-1]) - 1, 0)


def _unpacked(encoded: object, shape: object) -> Pattern:
    """The pattern from its JSON form."""
    if not isinstance(shape, tuple) or len(shape) not in (1, 2) or not all(is_integer(n) and n > 0 for n in shape):
        raise ValueError(f"pattern_shape: expected [x] or [y, x], got {shape}")
    if not isinstance(encoded, str):
        raise ValueError(f"pattern: expected a base64 string, got {type(encoded).__name__}")
    n_bytes = (math.prod(shape) + 7) // 8
    try:
        # The stated size bounds what is unpacked, whatever the text claims.
        packed = zlib.decompressobj().decompress(base64.b64decode(encoded, validate=True), n_bytes + 1)
    except (binascii.Error, zlib.error, ValueError) as error:
        raise ValueError(f"pattern: cannot be unpacked: {error}") from error
    if len(packed) != n_bytes:
        raise ValueError(f"pattern: expected {n_bytes} bytes for shape {shape}, got {len(packed)}")
    return np.unpackbits(np.frombuffer(packed, dtype=np.uint8), count=math.prod(shape)).reshape(shape).astype(np.bool_)
