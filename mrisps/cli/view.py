"""`mrisps view`: results as pages to look at in a browser."""

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from mrisps.cli.common import FAILURE, UsageError, fail, named, result
from mrisps.cli.files import make_folder, output_files
from mrisps.cli.options import Overwrite, option
from mrisps.errors import MrispsError

__all__ = ["view"]


def view(
    results: Annotated[
        list[Path],
        typer.Argument(
            metavar="RESULT", help="Result files (.h5), or folders of them; or the logs of trainings (.csv)."
        ),
    ],
    output: Annotated[Path | None, option("--output DIR", "Folder for the pages. Default: beside each result.")] = None,
    reference: Annotated[
        Path | None,
        option(
            "--reference FILE|DIR",
            "File with the reference images, such as the input; or a folder of files of the same names. Default: what the result "
            "holds.",
        ),
    ] = None,
    compare: Annotated[
        bool, option("--compare", "One page with all results side by side: DIR/comparison.html.")
    ] = False,
    show: Annotated[bool, option("--open", "Open the page in the browser.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Look at results in a browser.

    Native pixels, window and level, zoom, slices, two images swiped or blinking, values, regions.

    Every RESULT becomes NAME.html, one file that needs no network and no program but a browser. A volume too large for one page
    goes on in NAME_2.html and so on. Logs of trainings become one page with their curves and atoms.

    Exit code 0: done. 1: a file failed. 2: the command is wrong, nothing was done.
    """
    from mrisps.reports.results import write_comparison, write_pages
    from mrisps.reports.training import write_training

    missing = [path for path in (*results, *([reference] if reference else [])) if not path.exists()]
    if missing:
        raise UsageError(f"{missing[0]}: does not exist")
    files = [found for path in results for found in (sorted(path.glob("*.h5")) if path.is_dir() else [path])]
    logs = [path for path in files if path.suffix.lower() == ".csv"]
    if not files:
        raise UsageError(f"{results[0]}: has no results (.h5)")
    if logs and (len(logs) < len(files) or reference or compare):
        raise UsageError("logs of trainings (.csv) go without results, --reference and --compare")
    if compare and len(files) < 2:
        raise UsageError("--compare: needs two results or more")
    if logs or compare:
        name = f"{files[0].stem}.html" if len(files) == 1 else "comparison.html"
        pages = [(output or files[0].parent) / name]
    else:
        pages = [(output or path.parent) / f"{path.stem}.html" for path in files]
    output_files(files, [[page] for page in pages] + [[]] * (len(files) - len(pages)), overwrite)
    if output is not None:
        make_folder(output)
    written: list[Path] = []
    for path, page in zip(files, pages, strict=False):  # one page for all files, or one for each
        try:
            if logs:
                write_training(logs, page)
            elif compare:
                write_comparison(files, page, reference=reference)
            else:
                beside = reference / path.name if reference is not None and reference.is_dir() else reference
                write_pages(path, page, reference=beside)
        except (MrispsError, ValueError) as error:
            fail(named(path, error))
            continue
        result(str(page))
        written.append(page)
    if show and written:
        webbrowser.open(written[0].resolve().as_uri())
    if len(written) < len(pages):
        raise typer.Exit(FAILURE)
