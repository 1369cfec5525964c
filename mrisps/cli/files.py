"""Which files a command reads, which it may write, and the loop over those that it reconstructs one after the other."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from mrisps.cli.common import FAILURE, UsageError, counted, fail, named, note, one_line, result, usage_errors
from mrisps.errors import FileError, MrispsError

if TYPE_CHECKING:
    from mrisps.reconstruction.run import Run
    from mrisps.reconstruction.verdict import Verdict

__all__ = ["Done", "described", "do_each", "input_files", "make_folder", "new_file", "output_files", "show_plan"]


def make_folder(path: Path) -> None:
    """Make an output folder with its parents; it may exist. A FileError if it cannot be made."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = "it exists and is not a folder" if path.exists() else error.strerror or str(error)
        raise FileError(path, f"cannot be used as output folder: {why}") from error


def new_file(path: Path, overwrite: bool) -> None:
    """Refuse a file that exists, unless it may be overwritten."""
    if path.exists() and not overwrite:
        raise UsageError(f"{path}: exists already; use --overwrite to replace it")


def input_files(paths: Sequence[Path], suffixes: tuple[str, ...]) -> list[Path]:
    """The files, with each folder replaced by its files with one of the suffixes; see :func:`mrisps.io.files.files_in`."""
    from mrisps.io.files import files_in

    files: list[Path] = []
    for path in paths:
        if not path.exists():
            raise UsageError(f"{path}: does not exist")
        with usage_errors():
            files += files_in(path, suffixes) if path.is_dir() else [path]
    return files


def output_files(inputs: Sequence[Path], outputs: Sequence[Sequence[Path]], overwrite: bool) -> None:
    """Check that no output would replace an input, another output, or (unless allowed) a file that exists.

    Parameters
    ----------
    inputs, outputs
        Input files, and all outputs of each.
    overwrite
        Whether existing files may be replaced.

    Raises
    ------
    UsageError
        Names the file.
    """
    sources = {path.resolve() for path in inputs}
    origin: dict[Path, Path] = {}
    for source, paths in zip(inputs, outputs, strict=True):
        for path in paths:
            place = path.resolve()
            if place in sources:
                raise UsageError(f"{path}: is an input and would be replaced; choose another --output")
            if place in origin and origin[place] != source:
                raise UsageError(f"{path}: would be the output of both {origin[place]} and {source}")
            if place in origin:
                raise UsageError(f"{source}: is given twice")
            origin[place] = source
    existing = [path for paths in outputs for path in paths if path.exists()]
    if existing and not overwrite:
        others = f" (and {len(existing) - 1} more)" if len(existing) > 1 else ""
        raise UsageError(f"{existing[0]}: exists already{others}; use --overwrite to replace it")


@dataclass(frozen=True)
class Done:
    """What came of one file: a line for people, its verdict, whether the solver was done, and what a user should know."""

    line: str
    verdict: "Verdict"
    finished: bool
    notes: Sequence[str] = ()


def described(run: "Run", n_files: int, workers: str = "") -> str:
    """What a run is made of, and how many files it is for, on one line."""
    import torch

    made_of = f"recipe {run.recipe.name}, weights {run.weights.name}"
    threads = workers or counted(torch.get_num_threads(), "thread")
    return f"{counted(n_files, 'file')}, {made_of}, on {run.device} with {threads}"


def show_plan(run: "Run", sources: Sequence[Path], n_workers: int = 1, workers: str = "") -> None:
    """Print what would be done, and about how much memory it takes; nothing is computed or written.

    A note says where memory may not do: coils are counted as the file has them, and compression makes them fewer.

    Raises
    ------
    typer.Exit
        A file cannot be opened.
    """
    from mrisps.reconstruction.memory import NotEnoughMemoryError, available_memory, check_memory, left

    result(described(run, len(sources), workers))
    largest, n_failed = 0, 0
    for source in sources:
        try:
            with run.open(source) as file:
                slices, memory = run.chosen(file), run.memory(file)
        except (MrispsError, ValueError) as error:
            fail(named(source, error))
            n_failed += 1
            continue
        try:
            check_memory(memory, run.recipe, run.device)
        except NotEnoughMemoryError as error:
            note(f"note: {named(source, error)}")
        largest = max(largest, memory.total)
        of_file = f"{counted(len(slices), 'slice')}, image {' x '.join(map(str, memory.shape))}"
        if memory.together > 1 or run.slices_together not in (None, 1):
            of_file += f", {memory.together} in one solve"
        result(f"{source}: {of_file}, memory {memory}")
    total = largest * min(n_workers, len(sources))
    available = available_memory(run.device)
    room = "" if available is None else f"; {left(available, run.device)}"
    result(f"memory: about {total / 2**30:.1f} GiB, and 0.4 GiB for each process{room}")
    if n_failed:
        raise typer.Exit(FAILURE)


def do_each(run: "Run", sources: Sequence[Path], do: Callable[[Path], Done], accept_unconverged: bool) -> None:
    """Reconstruct files one after the other; one that fails does not stop the others.

    Raises
    ------
    typer.Exit
        A file failed, is unusable, or (unless accepted) did not converge.
    """
    note(described(run, len(sources)))
    failures: list[str] = []
    n_unconverged = n_unusable = 0
    for source in sources:
        try:
            done = do(source)
        except (MrispsError, ValueError) as error:
            failure = named(source, error)
            fail(failure)
            failures.append(one_line(failure))
            continue
        for line in done.notes:
            note(f"note: {source.name}: {line}")
        for line in done.verdict.reasons:
            note(f"{done.verdict.level}: {source.name}: {line}")
        n_unconverged += not done.finished
        n_unusable += done.verdict.level == "unusable"
        result(done.line)
    if len(sources) > 1:
        unconverged = f", {n_unconverged} of them did NOT CONVERGE" if n_unconverged else ""
        made = f"{len(sources) - len(failures)} of {len(sources)} files reconstructed"
        note(f"{made}{unconverged}; {len(failures)} failed")
        for line in failures:
            note(f"  failed: {line}")
    if failures or n_unusable or (n_unconverged and not accept_unconverged):
        raise typer.Exit(FAILURE)
