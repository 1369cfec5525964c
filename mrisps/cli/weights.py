"""`mrisps weights` and `mrisps atoms`: what comes with the package, and what weights look like."""

from pathlib import Path
from typing import Annotated

import typer

from mrisps.cli.common import UsageError, result, usage_errors
from mrisps.cli.files import new_file
from mrisps.cli.options import Overwrite, complete_weights, option
from mrisps.cli.terminal import print_table

__all__ = ["atoms", "weights"]


def weights(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]", help="Print the model card of these weights.", autocompletion=complete_weights
        ),
    ] = None,
) -> None:
    """List the trained weights, or print a model card.

    Trained weights come with the package. Their names can be used wherever a command takes --weights.
    """
    from mrisps.model import SmoothPlusSparse
    from mrisps.model.shipped import model_card, shipped_weights

    shipped = shipped_weights()
    if name is not None:
        if name not in shipped:
            raise UsageError(f"{name}: no such weights; there are {', '.join(shipped) or 'none'}")
        typer.echo(model_card(name))
        return
    rows = []
    for key, path in shipped.items():
        model = SmoothPlusSparse.load(path)
        config = model.config
        title = model_card(key).splitlines()[0].lstrip("# ")
        sizes = f"{config.patch_size} x {config.patch_size}, {config.n_free_atoms} + {config.n_synthesis_atoms}"
        rows.append([key, config.regulariser, sizes, title, model.fingerprint()[:12]])
    print_table(["name", "prior", "patch, free + synthesis atoms", "trained on", "sha256"], rows, n_text_columns=5)


def atoms(
    source: Annotated[
        str,
        typer.Argument(
            metavar="WEIGHTS",
            help="Name of weights (see `mrisps weights`), or a file.",
            autocompletion=complete_weights,
        ),
    ],
    output: Annotated[Path | None, option("--output FILE", "PNG file. Default: NAME_atoms.png here.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Draw the dictionaries of a model to a PNG.

    On the left are the free atoms, which cost nothing, as principal components (the model uses their span alone). On the right are
    the synthesis atoms, the one with the lowest threshold first. Each atom is scaled apart; grey is 0.
    """
    from mrisps.atomic import write_bytes
    from mrisps.model import SmoothPlusSparse
    from mrisps.reports.atoms import atoms_figure
    from mrisps.reports.figures import to_png

    path = Path(f"{Path(source).stem}_atoms.png") if output is None else output
    if path.suffix.lower() != ".png":
        raise UsageError(f"{path}: expected a file name ending in .png")
    with usage_errors():
        model = SmoothPlusSparse.load(source)
        model.prior()
    new_file(path, overwrite)
    write_bytes(path, to_png(atoms_figure(model)))
    result(str(path))
