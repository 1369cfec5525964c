"""`mrisps verify`: make a reconstruction again and compare."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mrisps.cli.common import FAILURE, UsageError, memory_errors, note, result
from mrisps.cli.options import checked_device
from mrisps.cli.terminal import SolverProgress
from mrisps.errors import FileError, MrispsError

if TYPE_CHECKING:
    from mrisps.model import SmoothPlusSparse
    from mrisps.reconstruction.record import Record

__all__ = ["verify"]


def verify(
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="A reconstruction: DIR/NAME.h5.")],
    source: Annotated[
        Path | None,
        typer.Option("--input", metavar="FILE", help="What it was made from. Default: where the JSON beside it says."),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            "--weights",
            metavar="NAME|FILE",
            help="The weights it was made with. Default: those in the batch's folder or of the package that have the hash.",
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option("--device", metavar="cpu|cuda|cuda:N", help="Where to compute. Default: where it was made."),
    ] = None,
    tolerance: Annotated[
        float, typer.Option("--tolerance", min=0, help="Largest relative difference that is accepted.")
    ] = 0.0,
) -> None:
    """Make a reconstruction again and compare.

    The recipe is the one that the file carries; what is compared are its data sets.

    With the same input, recipe, weights and threads on the same machine they are the same, byte for byte. If not, the largest
    difference of each, relative to its largest pixel, and what changed.

    Exit code 0: the same (or within --tolerance). 1: different; the input or the weights are others; or the output was changed.
    """
    from mrisps.reconstruction.record import read_record, read_record_file, record_file, verify_file

    record = read_record(output)
    if source is None:
        beside = record_file(output)
        if not beside.is_file():
            raise UsageError(f"--input: is needed, there is no {beside} that names it")
        source = Path(str(read_record_file(beside)["input_path"]))
    if not source.is_file():
        raise UsageError(f"--input: {source}: does not exist")
    if device is None:
        device = record.text("machine", "device")
    device = checked_device(device)
    model = _weights(record, weights)
    with memory_errors(device), SolverProgress(source.name, record.recipe().solver.tolerance) as progress:
        done = verify_file(output, source, model, device=device, progress=progress.update)
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


def _weights(record: "Record", option: str | None) -> "SmoothPlusSparse":
    """The weights with the hash that the output names.

    Raises
    ------
    MrispsError
        None of those that are at hand have it.
    """
    from mrisps.model import SmoothPlusSparse

    expected = record.text("weights", "sha256")
    if option is not None:
        model = SmoothPlusSparse.load(option)
        if model.fingerprint() != expected:
            raise FileError(option, f"are not the weights of {record.path.name}: its have {expected[:12]}...")
        return model
    for candidate in _candidates(record):
        try:
            model = SmoothPlusSparse.load(candidate)
        except FileError:
            continue
        if model.fingerprint() == expected:
            return model
    raise MrispsError(
        f"{record.path}: made with the weights {record.text('weights', 'name')!r} of SHA-256 {expected[:12]}..., which are not "
        "at hand: name them with --weights"
    )


def _candidates(record: "Record") -> Iterator[Path]:
    from mrisps.campaign.batch import BATCH_FOLDER
    from mrisps.model.shipped import shipped_weights

    for parent in list(record.path.absolute().parents)[:4]:  # outputs of a manifest lie in subfolders
        yield from sorted((parent / BATCH_FOLDER).glob("weights-*.safetensors"))
    yield from shipped_weights().values()
