"""`mrisps recipes`: list, show and copy the recipes that come with the package."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mrisps.cli.common import result, usage_errors
from mrisps.cli.files import new_file
from mrisps.cli.options import Overwrite, option
from mrisps.cli.terminal import print_table

if TYPE_CHECKING:
    from mrisps.reconstruction.recipe import Recipe
    from mrisps.training.run import TrainRecipe

__all__ = ["copy_recipe", "list_recipes", "show_recipe"]

Name = Annotated[str, typer.Argument(metavar="NAME|FILE", help="Name of a recipe, or a recipe file.")]


def _load(name: str) -> "Recipe | TrainRecipe":
    """A recipe of either kind: those for training are called ``train_*``, files too."""
    from mrisps.reconstruction.recipe import load_recipe
    from mrisps.training.run import TrainRecipe

    return load_recipe(name, TrainRecipe) if Path(name).stem.startswith("train_") else load_recipe(name)


def list_recipes(context: typer.Context) -> None:
    """List, show and copy recipes.

    A recipe is what a reconstruction depends on besides data and weights, every number explicit.

    Without a further word: the list of those that come with the package.
    """
    if context.invoked_subcommand is not None:
        return
    from mrisps.reconstruction.recipe import builtin_recipes, load_recipe

    rows = []
    for name in builtin_recipes():
        recipe = load_recipe(name)
        rows.append([name, recipe.task, recipe.description, recipe.card.summary if recipe.card else ""])
    for name in builtin_recipes(training=True):
        training = _load(name)
        rows.append([name, f"train: {training.task}", training.description, ""])
    print_table(["name", "task", "description", "measured"], rows, n_text_columns=4)


def show_recipe(
    name: Name,
    as_json: Annotated[bool, option("--json", "Print JSON: every value and the hash of all.")] = False,
) -> None:
    """Print a recipe: every value, or the same as JSON."""
    from mrisps.reports.facts import flat_rows

    with usage_errors():
        recipe = _load(name)
    if as_json:
        typer.echo(json.dumps({**recipe.to_dict(), "sha256": recipe.sha256()}, indent=2))
        return
    rows = flat_rows({**recipe.to_dict(), "sha256": recipe.sha256()})
    width = max(len(row[0]) for row in rows)
    for key, value in rows:
        result(f"{key.ljust(width)}  {value}")


def copy_recipe(
    name: Name,
    destination: Annotated[Path, typer.Argument(metavar="DEST", help="A file ending in .py, or a folder.")],
    overwrite: Overwrite = False,
) -> None:
    """Copy a recipe's file, to be edited: `mrisps recon --recipe FILE` or `mrisps train FILE` takes it."""
    from mrisps.atomic import write_bytes
    from mrisps.cli.common import UsageError
    from mrisps.reconstruction.recipe import builtin_recipes

    with usage_errors():
        _load(name)
    source = {**builtin_recipes(), **builtin_recipes(training=True)}.get(name, Path(name))
    target = destination / source.name if destination.is_dir() else destination
    if target.suffix != ".py":
        raise UsageError(f"{target}: expected a file name ending in .py, or a folder that exists")
    new_file(target, overwrite)
    write_bytes(target, source.read_bytes())
    result(str(target))
