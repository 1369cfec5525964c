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

from mrisps.cli.common import note, printable, result

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from mrisps.campaign.batch_item import Entry, Item
    from mrisps.campaign.loop import Progress as WorkersProgress

__all__ = ["BatchProgress", "CountProgress", "SolverProgress", "print_table", "steps"]


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


class BatchProgress:
    """How far a batch is: a line for each file that is finished; on a terminal also what each worker is at, and a bar.

    The estimated end goes by the bytes of the inputs, which are better known than their times.
    """

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._n_files = self._n_finished = 0
        self._bytes_left = self._bytes_made = 0
        self._bar: Progress | None = None
        self._total: TaskID | None = None
        self._lines: dict[str, TaskID] = {}

    def __enter__(self) -> "BatchProgress":
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
                refresh_per_second=4,
            )
            self._bar.start()
            self._total = self._bar.add_task("files", total=None, state="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def waiting(self, items: "Sequence[Item]", /) -> None:
        """Count what is to be done."""
        self._n_files += len(items)
        self._bytes_left += sum(item.source.size for item in items)

    def started(self, item: "Item", /) -> None:
        """Show a file that is in work."""
        if self._bar is not None:
            self._lines[item.name] = self._bar.add_task(printable(item.name), total=None, state="")

    def finished(self, item: "Item", entry: "Entry", /) -> None:
        """Print the line of a file."""
        self._n_finished += 1
        self._bytes_left -= item.source.size
        if entry.state == "done" and not entry.reused:  # others take no time worth mentioning
            self._bytes_made += item.source.size
        line = self._n_finished, self._n_files, entry_line(item.name, entry), self.left()
        text = f"[{line[0]}/{line[1]}] {line[2]}" + (f"; {line[3]}" if line[3] else "")
        if self._bar is None or not sys.stdout.isatty():
            result(text)
        else:
            from rich.text import Text

            self._bar.console.print(Text(printable(text)))
        task = self._lines.pop(item.name, None)
        if self._bar is not None and task is not None:
            self._bar.remove_task(task)

    def tick(self, progress: "WorkersProgress", /) -> None:
        """Move the bars."""
        if self._bar is None or self._total is None:
            return
        for name, position, n_slices, iteration in progress:
            if name in self._lines and n_slices:
                state = f"slice {position + 1}/{n_slices}  iteration {iteration}"
                self._bar.update(self._lines[name], total=n_slices, completed=position, state=state)
        state = f"{self._n_finished} of {self._n_files}  {self.left()}"
        self._bar.update(self._total, total=self._n_files or None, completed=self._n_finished, state=state)

    def left(self) -> str:
        """How much longer, in words; empty where nobody knows."""
        if self._n_finished >= self._n_files or not self._bytes_made:
            return ""
        seconds = (time.monotonic() - self._begun) * self._bytes_left / self._bytes_made
        if seconds < 90:
            return f"{seconds:.0f} s left"
        return f"{seconds / 60:.0f} min left" if seconds < 5400 else f"{seconds / 3600:.1f} h left"


class CountProgress:
    """A line for each thing that is done; on a terminal a bar with the time that is left instead.

    Parameters
    ----------
    what
        Is counted, in words.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> "CountProgress":
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self._bar = Progress(
                TextColumn(self._what),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.description}", markup=False),
                console=Console(stderr=True),
                transient=True,
                refresh_per_second=4,
            )
            self._bar.start()
            self._task = self._bar.add_task("", total=None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, done: int, total: int, line: str) -> None:
        """Show what was just done."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, total=total or None, description=printable(line))
        else:
            note(f"[{done}/{total}] {line}")


def entry_line(name: str, entry: "Entry") -> str:
    """What became of a file of a batch, on one line."""
    if entry.state != "done":
        return f"{name}: FAILED: {entry.error}"
    n_missed = entry.n_slices - entry.n_converged
    slices = f"{entry.n_slices} slice{'s' if entry.n_slices > 1 else ''}"
    state = "converged" if not n_missed else f"NOT CONVERGED: {n_missed} of {entry.n_slices}"
    if entry.reused:
        return f"{name}: was up to date: {entry.verdict.upper()}: {slices} {state}"
    return f"{name}: {entry.verdict.upper()}: {slices} {state}, {entry.summary}, {entry.seconds:.1f} s"


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
