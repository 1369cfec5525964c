"""The exceptions of mrisps that a command turns into one clear line and an exit code.

Arguments of Python functions that are wrong raise ``ValueError`` or ``TypeError``; these classes are for what comes from outside.
"""

from pathlib import Path

__all__ = ["FileError", "MrispsError", "SettingsError"]


class MrispsError(Exception):
    """Base of the errors whose message is meant for the person at the command line."""


class FileError(MrispsError):
    """A file cannot be read, is not what it should be, or cannot be written.

    Parameters
    ----------
    path
        The file.
    message
        What was expected and what was found.
    field
        The data set, attribute or key inside the file, where there is one.
    """

    def __init__(self, path: Path | str, message: str, field: str | None = None) -> None:
        self.path = Path(path)
        self.field = field
        self.message = message
        where = f"{self.path}: {field}" if field else f"{self.path}"
        super().__init__(f"{where}: {message}")


class SettingsError(MrispsError, ValueError):
    """Settings have an unknown key, or a value of the wrong type or range.

    Parameters
    ----------
    key
        Path of the key, for example ``"solver.tolerance"``.
    message
        What was expected and what was found.
    """

    def __init__(self, key: str, message: str) -> None:
        self.key = key
        self.message = message
        super().__init__(f"{key}: {message}")

    def __reduce__(self) -> tuple[object, ...]:  # exceptions are pickled by their arguments, as they were given
        return type(self), (self.key, self.message)
