"""What the writers of files have in common: all or nothing, and k-space slice after slice."""

import contextlib
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Self

from mrisps.io.acquisition import Acquisition

__all__ = ["AtomicWriter", "SliceWriter"]


class AtomicWriter(ABC):
    """Writes files that appear under their names, complete, when the ``with`` block ends without an exception."""

    _stack: contextlib.ExitStack

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self._open(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        if kind is None:
            try:
                self._finish()
            except BaseException as failure:
                self._stack.__exit__(type(failure), failure, failure.__traceback__)
                raise
        return self._stack.__exit__(kind, error, trace)

    @abstractmethod
    def _open(self, stack: contextlib.ExitStack) -> None:
        """Open the temporary files, which the stack closes and renames, or removes after an exception."""

    def _finish(self) -> None:  # noqa: B027 - most files have nothing to finish
        """Write what is known at the end only, and raise an exception if something is missing."""


class SliceWriter(AtomicWriter):
    """Writes k-space slice after slice.

    Attributes
    ----------
    carries : frozenset of str
        Fields of `Acquisition`, besides k-space, that the format has room for.
    lost : tuple of str
        What else the format could not carry.

    Raises
    ------
    FileError
        The file cannot be written.
    """

    carries: frozenset[str] = frozenset()

    def __init__(self, path: Path | str, n_slices: int) -> None:
        self.path = Path(path)
        self.n_slices = n_slices
        self.lost: tuple[str, ...] = ()
        self._first: Acquisition | None = None
        self._n_written = 0

    def write_slice(self, record: Acquisition) -> None:
        """Write the next slice.

        Raises
        ------
        ValueError
            Its shape or that of its target is not that of the first slice, or there are more slices than were said.
        FileError
            The format cannot have this slice; the disk is full.
        """
        first = self._first or record
        shapes = [(r.kspace.shape, None if r.target is None else r.target.shape) for r in (first, record)]
        if self._n_written == self.n_slices or shapes[0] != shapes[1]:
            number = f"slice {self._n_written} of {self.n_slices}"
            raise ValueError(f"{number}: expected k-space and target {shapes[0]}, got {shapes[1]}")
        if self._first is None:
            self._create(record)
            self._first = record
        self._write(record, first)
        self._n_written += 1

    def _finish(self) -> None:
        if self._first is None or self._n_written < self.n_slices:
            raise ValueError(f"slices: expected {self.n_slices}, {self._n_written} were written")
        self._end(self._first)

    @abstractmethod
    def _create(self, first: Acquisition) -> None:
        """Prepare the file for slices like the first one."""

    @abstractmethod
    def _write(self, record: Acquisition, first: Acquisition) -> None:
        """Write a slice."""

    @abstractmethod
    def _end(self, first: Acquisition) -> None:
        """Write what is known at the end only."""
