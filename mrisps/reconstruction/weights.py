"""Which weights a recipe is solved with."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mrisps.errors import MrispsError
from mrisps.model import SmoothPlusSparse
from mrisps.model.derived_weights import DERIVED_NOTE, derived_weights
from mrisps.model.shipped import shipped_weights
from mrisps.reconstruction.recipe import Recipe, builtin_recipes

__all__ = ["Weights", "find_weights"]

DERIVED = "derived"


@dataclass(frozen=True, eq=False)
class Weights:
    """A model and what its weights are called in results.

    Parameters
    ----------
    name
        Name of weights that the package ships, ``"derived"``, or a file name.
    model
        The model.
    note
        What a user should know about them; None where there is nothing.
    """

    name: str
    model: SmoothPlusSparse
    note: str | None = None


def find_weights(
    wanted: str | Path | SmoothPlusSparse | None,
    recipe: Recipe,
    recipe_name: str | Path,
    say: Callable[[str], None] | None = None,
) -> Weights:
    """The weights that are asked for, else those that the recipe names.

    Parameters
    ----------
    wanted
        A name (see `mrisps weights`), a file (``.safetensors``, or ``.pth`` of the authors), ``"derived"``, or a model. None: those
        of the recipe; a relative path in a recipe is relative to the recipe's file.
    recipe
        The recipe.
    recipe_name
        Its name or file.
    say
        Called with a line when deriving weights begins a step.

    Raises
    ------
    MrispsError
        No weights are named; they cannot be used; those of the recipe have another SHA-256 than it states.
    """
    if isinstance(wanted, SmoothPlusSparse):
        return Weights("a model in memory", wanted)
    shipped = shipped_weights()
    name = recipe.weights if wanted is None else str(wanted)
    if name is None:
        raise MrispsError(
            f"no weights: recipe {recipe.name} names none. Name some with --weights: {', '.join(shipped)}; a .safetensors "
            "file; one of the authors' .pth checkpoints; or derived, simple ones made from photographs that scikit-image ships"
        )
    if name == DERIVED:
        model, note = derived_weights(say), DERIVED_NOTE
    else:
        if wanted is None and name not in shipped:
            name = str(builtin_recipes().get(str(recipe_name), Path(recipe_name)).parent / name)
        model, note = SmoothPlusSparse.load(name), None
        try:
            model.prior()  # the constraints can be met
        except ValueError as error:
            raise MrispsError(f"{shipped.get(name, Path(name))}: {error}") from error
    if wanted is None:
        recipe.check_weights(model.fingerprint())
    return Weights(name if name in (DERIVED, *shipped) else Path(name).name, model, note)
