"""What a user chooses of a source, in plain values that load nothing heavy."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mrisps.errors import FileError

__all__ = ["DEFAULT_RECIPE", "FROM_ZEROS", "ZEROS_NOTE", "SliceChoice", "usable_device"]

FROM_ZEROS: Literal["from-zeros"] = "from-zeros"
"""A mask that is found from the samples that are not zero."""

DEFAULT_RECIPE = "multicoil"
"""What k-space is reconstructed with where no recipe is named."""

ZEROS_NOTE = "which samples were acquired was not stated: zeros are taken as not acquired"


@dataclass(frozen=True)
class SliceChoice:
    """Which slices of a source: those from ``start`` to before ``stop``, counted from 0.

    Parameters
    ----------
    start
        The first one.
    stop
        The one after the last; None: to the end.
    """

    start: int = 0
    stop: int | None = None

    @classmethod
    def parse(cls, text: str) -> "SliceChoice":
        """From ``3``, ``0:10``, ``5:`` or ``:10``.

        Raises
        ------
        ValueError
            The text is something else, or chooses nothing.
        """
        first, colon, last = (part.strip() for part in text.partition(":"))
        if not all(part == "" or (part.isascii() and part.isdigit()) for part in (first, last)) or not (colon or first):
            raise ValueError(f"slices: expected a number or START:STOP, counted from 0, got {text!r}")
        start = int(first or 0)
        stop = start + 1 if not colon else int(last) if last else None
        if stop is not None and stop <= start:
            raise ValueError(f"slices: {text!r} has no slice in it")
        return cls(start, stop)

    def of(self, path: Path, n_slices: int) -> range:
        """The slices of a source that has this number of them.

        Raises
        ------
        FileError
            The source does not have them.
        """
        stop = n_slices if self.stop is None else self.stop
        if self.start >= n_slices or stop > n_slices:
            last = "" if stop == self.start + 1 else f" to {stop - 1}"
            raise FileError(path, f"has the slices 0 to {n_slices - 1}, not {self.start}{last}", field="slices")
        return range(self.start, stop)


def usable_device(name: str) -> str:
    """The name of a device, if this machine has it and it can compute in double precision, as calibration and checks do.

    Raises
    ------
    ValueError
        It has not, or cannot.
    """
    import torch

    try:
        place = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device: expected cpu, cuda or cuda:N, got {name!r}") from error
    if place.type == "cuda":
        n_devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if n_devices == 0:
            raise ValueError(f"device: {name} was asked for, but PyTorch finds no CUDA device here; use --device cpu")
        if place.index is not None and place.index >= n_devices:
            raise ValueError(f"device: {name} was asked for, but there are only cuda:0 to cuda:{n_devices - 1}")
        return name
    try:
        torch.zeros(1, dtype=torch.float64, device=place).cpu()
    except (RuntimeError, TypeError, AssertionError) as error:
        raise ValueError(f"device: {name!r} cannot be used here: {str(error).splitlines()[0]}") from error
    return name
