"""Which files a command reads, and which it may write."""

from collections.abc import Sequence
from pathlib import Path

from mrisps.cli.common import UsageError, usage_errors

__all__ = ["input_files", "output_files"]


def input_files(paths: Sequence[Path], suffixes: tuple[str, ...]) -> list[Path]:
    """The files, with each folder replaced by its files with one of the suffixes; see :func:`mrisps.io.files.files_in`.

    Raises
    ------
    UsageError
        A path does not exist, a folder has no such file, or two files have the same name (their outputs would, too).
    """
    from mrisps.io.files import files_in

    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            with usage_errors():
                files.extend(files_in(path, suffixes))
        elif path.exists():
            files.append(path)
        else:
            raise UsageError(f"{path}: does not exist")
    return files


def output_files(inputs: Sequence[Path], outputs: Sequence[Sequence[Path]], overwrite: bool) -> None:
    """Check that no output would replace an input, another output, or (unless allowed) a file that exists.

    Parameters
    ----------
    inputs
        Input files.
    outputs
        All outputs of each input.
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
