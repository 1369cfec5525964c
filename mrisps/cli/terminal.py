"""Progress and tables: drawn on a terminal, plain lines anywhere else."""

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import TYPE_CHECKING

import typer

from mrisps.cli.common import note, printable

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["SolverProgress", "print_table", "steps"]


class SolverProgress:
    """How far the solver is with one file. On a terminal a bar that goes away at the end; else a line for each slice.

    Ctrl-C ends the solve after the iteration at the latest: Python drops a KeyboardInterrupt that happens to be raised inside a
    finaliser or a callback of C code, so that it came is also remembered here and looked at in every iteration.

    Parameters
    ----------
    name
        Of the file.
    tolerance
        What the residual has to come down to.
    quiet
        No lines: the caller has its own.
    """

    def __init__(self, name: str, tolerance: float, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._name = printable(name)
        self._tolerance = tolerance
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._last: tuple[int, int, int, float] | None = None
        self._started = time.perf_counter()
        self._interrupted = False
        self._earlier = signal.getsignal(signal.SIGINT)

    def __enter__(self) -> "SolverProgress":
        if threading.current_thread() is threading.main_thread():  # only there can a handler be set
            signal.signal(signal.SIGINT, self._interrupt)
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24),
                TextColumn("{task.fields[state]}", markup=False),
                TimeElapsedColumn(),
                console=Console(stderr=True),
                transient=True,
                refresh_per_second=5,
            )
            self._bar.start()
            self._task = self._bar.add_task(self._name, total=None, state="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self._earlier)
        if self._bar is not None:
            self._bar.stop()
        elif kind is None:
            self._slice_done()

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self._interrupted = True
        raise KeyboardInterrupt

    def update(self, position: int, n_slices: int, iteration: int, residual: float) -> None:
        """Take what the solver says after an iteration; ``position`` is that of the slice, from 0."""
        if self._interrupted:
            raise KeyboardInterrupt
        if self._bar is not None and self._task is not None:
            state = f"slice {position + 1}/{n_slices}  iteration {iteration}  residual {residual:.1e} -> {self._tolerance:.1e}"
            total = n_slices if n_slices > 1 else None
            self._bar.update(self._task, total=total, completed=position, state=state)
        elif self._last is not None and self._last[0] != position:
            self._slice_done()
        self._last = (position, n_slices, iteration, residual)

    def _slice_done(self) -> None:
        if self._last is None or self._quiet:
            return
        position, n_slices, iteration, residual = self._last
        seconds, self._started = time.perf_counter() - self._started, time.perf_counter()
        if n_slices > 1:  # one slice: the line of the file says it all
            note(
                f"{self._name}: slice {position + 1} of {n_slices}: {iteration} iterations, residual {residual:.1e}, "
                f"{seconds:.1f} s"
            )


@contextmanager
def steps() -> Iterator[Callable[[str], None]]:
    """Say which step is running: a spinner on a terminal, a line each anywhere else."""
    if not sys.stderr.isatty():
        yield note
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True)
    with console.status("") as status:
        yield lambda line: status.update(Text(printable(line)))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, n_text_columns: int = 1) -> None:
    """Print a table to stdout: with lines on a terminal, aligned text anywhere else.

    Parameters
    ----------
    columns
        Headings.
    rows
        Cells.
    n_text_columns
        How many of the first columns are text; the others are numbers and aligned to the right.
    """
    rows = [[printable(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=SIMPLE_HEAD)
        for index, column in enumerate(columns):
            if index < n_text_columns:
                table.add_column(column, overflow="fold")
            else:
                table.add_column(column, justify="right", no_wrap=True)
        for row in rows:
            table.add_row(*map(Text, row))
        Console().print(table)
        return
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    for row in (columns, *rows):
        cells = [
            cell.ljust(width) if index < n_text_columns else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        typer.echo("  ".join(cells).rstrip())
