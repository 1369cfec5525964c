"""What all commands share: errors that become one line and an exit code, and text that is safe to print."""

import functools
import logging
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

import typer

from mrisps.errors import FileError, MrispsError, SettingsError

FAILURE: Final = 1
"""Exit code: something was done, and it failed."""
USAGE: Final = 2
"""Exit code: the command cannot be done as it was given, and nothing was."""
INTERRUPTED: Final = 130
"""Exit code: Ctrl-C."""

DEBUG: ContextVar[bool] = ContextVar("debug", default=False)
"""Whether errors show where in the code they come from."""

_P = ParamSpec("_P")
_R = TypeVar("_R")


class UsageError(MrispsError):
    """The command cannot be done as it was given."""


def printable(text: str) -> str:
    """Text with control characters (of a hostile file name, of an attribute) written out, on one line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def one_line(error: BaseException) -> str:
    """What an exception says, on one line."""
    return printable(" ".join(str(error).split())) or type(error).__name__


def counted(number: int, what: str) -> str:
    """``1 file``, ``2 files``."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def note(text: str) -> None:
    """Print a line for people, to stderr."""
    typer.echo(printable(text), err=True)


def result(text: str) -> None:
    """Print a line that the command is for, to stdout."""
    typer.echo(printable(text))


def fail(error: BaseException) -> None:
    """Print an error as one line, to stderr; with --debug also where it comes from."""
    if DEBUG.get():
        typer.echo("".join(traceback.format_exception(error)), err=True, nl=False)
    typer.echo(f"error: {one_line(error)}", err=True)


class _Notes(logging.Handler):
    """Warnings of the package, as notes on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        note(f"note: {record.getMessage()}")


def show_warnings() -> None:
    """Let warnings that the package logs appear as notes."""
    logger = logging.getLogger("mrisps")
    if not any(isinstance(handler, _Notes) for handler in logger.handlers):
        logger.addHandler(_Notes())
        logger.propagate = False


def named(source: Path, error: BaseException) -> MrispsError:
    """The error with the name of the file that it is about, where it does not have one."""
    if isinstance(error, FileError):
        return error
    text = one_line(error)
    return MrispsError(text) if text.startswith(str(source)) else FileError(source, text)


def guarded(command: Callable[_P, _R]) -> Callable[_P, _R]:
    """Let a command end with one line and an exit code where it ends with one of our errors, Ctrl-C, or a full memory."""

    @functools.wraps(command)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return command(*args, **kwargs)
        except KeyboardInterrupt as error:
            if DEBUG.get():
                traceback.print_exception(error)
            typer.echo("interrupted", err=True)
            raise typer.Exit(INTERRUPTED) from error
        except BrokenPipeError:  # the reader of our output has gone, as `head` does: typer ends quietly
            raise
        except (MrispsError, ValueError, OSError) as error:
            fail(error)
            raise typer.Exit(USAGE if isinstance(error, UsageError | SettingsError) else FAILURE) from error
        except MemoryError as error:
            fail(MrispsError("not enough memory"))
            raise typer.Exit(FAILURE) from error

    return run


@contextmanager
def usage_errors(*options: str) -> Iterator[None]:
    """For the block that reads the options: whatever is wrong there is wrong with the command.

    Parameters
    ----------
    options
        Names of arguments that are options of the command: an error that begins with one gets its dashes.
    """
    try:
        yield
    except UsageError:
        raise
    except (MrispsError, ValueError) as error:
        text = one_line(error)
        subject, colon, rest = text.partition(": ")
        names = subject.split(", ")
        if colon and set(names) <= set(options):
            text = f"{', '.join('--' + name.replace('_', '-') for name in names)}: {rest}"
        raise UsageError(text) from error


@contextmanager
def memory_errors(device: str) -> Iterator[None]:
    """For the block that computes: PyTorch has its own exceptions for a full memory."""
    try:
        yield
    except MemoryError as error:
        raise MrispsError(f"not enough memory on {device}") from error
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError" and "can't allocate memory" not in str(error):
            raise
        raise MrispsError(f"not enough memory on {device}: {str(error).splitlines()[0]}") from error


def parse_size(text: str, option: str) -> tuple[int, int]:
    """Height and width from ``640x368``."""
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
        raise UsageError(f"{option}: expected HEIGHTxWIDTH in pixels, for example 640x368, got {text!r}")
    return int(parts[0]), int(parts[1])
