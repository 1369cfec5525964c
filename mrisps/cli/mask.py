"""`mrisps mask`: sampling masks, to look at and to keep."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mrisps.cli.common import UsageError, note, parse_size, usage_errors
from mrisps.cli.files import new_file
from mrisps.cli.options import Overwrite, option

if TYPE_CHECKING:
    from mrisps.sampling import SamplingMask

__all__ = ["KINDS", "mask"]

KINDS = "random, equispaced, equispaced_fraction, magic, magic_fraction, gaussian, polynomial, poisson"
"""Written out, as `--help` must not import the operators; a test compares."""

SUFFIXES = (".json", ".npy", ".png")


def _complete_kind(incomplete: str) -> list[str]:
    return [kind for kind in KINDS.split(", ") if kind.startswith(incomplete)]


def mask(
    kind: Annotated[
        str,
        option("--kind KIND", f"One of {KINDS}.", complete=_complete_kind),
    ],
    acceleration: Annotated[
        float,
        option("--acceleration R", "Nominal acceleration, at least 1; what it means depends on the kind."),
    ],
    center_fraction: Annotated[
        float,
        option("--center-fraction F", "Fraction of the columns that is acquired in the centre, 0 to 1."),
    ],
    shape: Annotated[str, option("--shape HxW", "Rows (readout) x columns of k-space, e.g. 640x368.")],
    seed: Annotated[int, option("--seed N", "Of the random choices.")] = 0,
    offset: Annotated[int | None, option("--offset N", "First column of the equispaced and magic kinds.")] = None,
    std: Annotated[
        float | None,
        option("--std X", "Of gaussian: standard deviation in half-widths of k-space. Default: 0.3."),
    ] = None,
    power: Annotated[float | None, option("--power X", "Of polynomial: exponent of the density. Default: 3.")] = None,
    output: Annotated[
        Path | None,
        option("--output FILE", "Keep it: .json (everything), .npy (the pattern) or .png (a picture)."),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Make a sampling mask, print and draw it.

    The first five kinds are those of fastMRI, bit for bit, for the same seed. In the drawing a character stands for some
    neighbouring columns: `.` none acquired, `:` less than half, `|` half or more, `#` all.
    """
    from mrisps.sampling import make_mask

    size = parse_size(shape, "--shape")
    if output is not None:
        if output.suffix.lower() not in SUFFIXES:
            raise UsageError(f"--output: expected a file name ending in {', '.join(SUFFIXES)}, got {output.name!r}")
        new_file(output, overwrite)
    with usage_errors():
        made = make_mask(kind, size, acceleration, center_fraction, seed=seed, offset=offset, std=std, power=power)
    typer.echo(made.summary())
    if not made.is_columns:
        typer.echo(_drawing(made))
    if output is not None:
        _write(made, output)
        note(f"mask: {output}")


def _drawing(made: "SamplingMask", width: int = 64) -> str:
    """A two-dimensional mask as lines of characters, darker where less is acquired."""
    pattern = made.array2d()
    n_y, n_x = pattern.shape
    step = math.ceil(n_x / width)
    lines = []
    for top in range(0, n_y, 2 * step):  # a character is about twice as high as wide
        shares = [float(pattern[top : top + 2 * step, left : left + step].mean()) for left in range(0, n_x, step)]
        lines.append("    " + "".join(" .:-=+*#%@"[min(int(10 * share), 9)] for share in shares))
    return "\n".join(lines)


def _write(made: "SamplingMask", path: Path) -> None:
    from mrisps.sampling import write_mask

    if path.suffix.lower() != ".png":
        write_mask(made, path)
        return
    from mrisps.atomic import write_bytes
    from mrisps.reports.figures import mask_figure, to_png

    title = f"{made.kind}, acceleration {made.realised_acceleration:.2f}, {made.n_acs_lines} columns in the centre"
    write_bytes(path, to_png(mask_figure(made.array2d(), title)))
