"""`mrisps verify`: make a reconstruction again and compare."""

from pathlib import Path
from typing import Annotated

import typer

from mrisps.cli.common import FAILURE, UsageError, memory_errors, note, result
from mrisps.cli.options import checked_device, option
from mrisps.cli.terminal import SolverProgress

__all__ = ["verify"]


def verify(
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="A reconstruction: DIR/NAME.h5.")],
    source: Annotated[
        Path | None,
        option(
            "--input FILE",
            "What it was made from. Default: where the JSON beside it says, or a file of the same name and content near it or "
            "in the current folder.",
        ),
    ] = None,
    weights: Annotated[
        str | None,
        option(
            "--weights NAME|FILE",
            "The weights it was made with. Default: those near it or of the package that have the hash.",
        ),
    ] = None,
    device: Annotated[
        str | None, option("--device cpu|cuda|cuda:N", "Where to compute. Default: where it was made.")
    ] = None,
    threads: Annotated[
        int | None, option("--threads N", "Threads of the processor. Default: as many as made it.", least=1)
    ] = None,
    tolerance: Annotated[
        float, option("--tolerance X", "Largest relative difference that is accepted.", least=0)
    ] = 0.0,
) -> None:
    """Make a reconstruction again and compare.

    The recipe is the one that the file carries; what is compared are its data sets. It works for outputs of `mrisps recon` and of
    `mrisps batch`.

    With the same input, recipe, weights and threads on the same machine they are the same, byte for byte. If not, the largest
    difference of each, relative to its largest pixel, and what changed.

    Exit code 0: the same (or within --tolerance). 1: different; the input or the weights are others, or not found; or the output
    was changed.
    """
    from mrisps.campaign.record import read_record
    from mrisps.campaign.verify import find_input, find_made_with, verify_file

    if source is not None and not source.is_file():
        raise UsageError(f"--input: {source}: does not exist")
    record = read_record(output)
    source = find_input(record) if source is None else source
    device = checked_device(record.text("machine", "device") if device is None else device)
    made_with = find_made_with(record, weights)
    with memory_errors(device), SolverProgress(source.name, record.recipe().solver.tolerance) as progress:
        done = verify_file(record, source, made_with, device=device, threads=threads, progress=progress.update)
    for change in done.changes:
        note(f"changed: {change}")
    if done.is_identical:
        result(f"{output}: identical, {len(done.differences)} data sets")
        return
    for name, difference in done.differences.items():
        result(f"{name}: {f'relative difference {difference:.2e}' if difference else 'identical'}")
    within = done.largest <= tolerance
    why = "see what changed above" if done.changes else "nothing that is written down has changed: another machine?"
    result(f"{output}: {'within the tolerance' if within else 'DIFFERENT'}, at most {done.largest:.2e}; {why}")
    if not within:
        raise typer.Exit(FAILURE)
