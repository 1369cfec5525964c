"""Progress and tables: bars on a terminal; elsewhere a line every half minute, and aligned text."""

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Self

import typer

from mrisps.cli.common import note, printable

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["EVERY_SECONDS", "Display", "SolverProgress", "print_table", "steps", "time_left"]

EVERY_SECONDS = 30.0
"""Where there is no terminal: time from one line to the next."""

clock = time.monotonic


class Display:
    """What a command is at, for a ``with`` block: bars on a terminal, else a line every 30 seconds."""

    def __init__(self) -> None:
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._begun = self._said = clock()

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            columns = TextColumn("{task.description}", markup=False), BarColumn(bar_width=24)
            state = TextColumn("{task.fields[state]}", markup=False)
            console = Console(stderr=True)
            self._bars = Progress(*columns, state, TimeElapsedColumn(), console=console, transient=True)
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def seconds(self) -> float:
        """Since the beginning."""
        return clock() - self._begun

    @property
    def is_drawn(self) -> bool:
        """Whether there are bars."""
        return self._bars is not None

    def show(self, name: str, state: str, done: float = 0, total: float | None = None) -> None:
        """Say how far something is, if it is time to."""
        if self._bars is not None:
            if name not in self._tasks:
                self._tasks[name] = self._bars.add_task(printable(name), total=total, state="")
            self._bars.update(self._tasks[name], total=total, completed=done, state=printable(state))
        elif clock() - self._said >= EVERY_SECONDS:
            self._said = clock()
            note(f"{name}: {state}")

    def end(self, name: str) -> None:
        """Take a bar away."""
        if self._bars is not None and name in self._tasks:
            self._bars.remove_task(self._tasks.pop(name))

    def say(self, line: str, print_line: Callable[[str], None] = note) -> None:
        """Print a line, above the bars."""
        if self._bars is None or (print_line is not note and not sys.stdout.isatty()):
            print_line(line)
        else:
            from rich.text import Text

            self._bars.console.print(Text(printable(line)))


class SolverProgress(Display):
    """How far the solver is with one file.

    Ctrl-C ends the solve after the iteration at the latest: Python drops a KeyboardInterrupt that happens to be raised inside a
    finaliser or a callback of C code, so that it came is also remembered here and looked at in every iteration.

    Parameters
    ----------
    name
        Of the file.
    tolerance
        What the residual has to come down to.
    """

    def __init__(self, name: str, tolerance: float) -> None:
        super().__init__()
        self._name, self._tolerance = name, tolerance
        self._interrupted = False
        self._earlier = signal.getsignal(signal.SIGINT)

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # only there can a handler be set
            signal.signal(signal.SIGINT, self._interrupt)
        return super().__enter__()

    def __exit__(self, *_: object) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self._earlier)
        super().__exit__()

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self._interrupted = True
        raise KeyboardInterrupt

    def update(self, position: int, n_slices: int, iteration: int, residual: float) -> None:
        """Take what the solver says after an iteration; ``position`` is that of the slice, from 0."""
        if self._interrupted:
            raise KeyboardInterrupt
        state = (
            f"slice {position + 1}/{n_slices}  iteration {iteration}  residual {residual:.1e} -> {self._tolerance:.1e}"
        )
        left = time_left(self.seconds(), position, n_slices)
        self.show(self._name, f"{state}{left and f'  {left}'}", position, n_slices if n_slices > 1 else None)


def time_left(seconds: float, done: float, total: float) -> str:
    """How much longer, in words, when ``done`` of ``total`` took so many seconds; empty where nobody knows."""
    if not 0 < done < total:
        return ""
    left = seconds * (total - done) / done
    if left < 90:
        return f"{left:.0f} s left"
    return f"{left / 60:.0f} min left" if left < 5400 else f"{left / 3600:.1f} h left"


@contextmanager
def steps() -> Iterator[Callable[[str], None]]:
    """Say which step is running: a spinner on a terminal, a line each anywhere else."""
    if not sys.stderr.isatty():
        yield note
        return
    from rich.console import Console
    from rich.text import Text

    with Console(stderr=True).status("") as status:
        yield lambda line: status.update(Text(printable(line)))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, n_text_columns: int = 1) -> None:
    """Print a table to stdout: with lines on a terminal, aligned text anywhere else.

    Parameters
    ----------
    columns, rows
        Headings, and cells.
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
            is_text = index < n_text_columns
            table.add_column(column, justify="left" if is_text else "right", no_wrap=not is_text, overflow="fold")
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
