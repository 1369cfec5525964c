"""Recipes: everything a reconstruction depends on besides the data and the weights, in one frozen object.

A recipe is a short Python file that defines one :class:`Recipe` named ``recipe``. :func:`builtin_recipes` lists those that come
with the package. A recipe file is a program and is executed: use only files that you would run.
"""

import ast
import dataclasses
import runpy
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar, overload

from mrisps.errors import FileError, SettingsError
from mrisps.kspace.settings import Preparation
from mrisps.model import PriorUse
from mrisps.reconstruction.rules import BlurRule, Card, MaskRule, NoiseRule, ScaleRule
from mrisps.settings import (
    LATER,
    NonNegative,
    Positive,
    Sha256,
    Text,
    fingerprint,
    settings,
    to_plain,
    with_values,
)
from mrisps.solvers import FastSettings

__all__ = [
    "BlurRule",
    "Card",
    "MaskRule",
    "NoiseRule",
    "Recipe",
    "ScaleRule",
    "builtin_recipes",
    "certified",
    "load_recipe",
    "recipe_folder",
    "recipe_source",
    "with_overrides",
]

Task = Literal["mri", "denoise", "superres"]

DESCRIPTIVE = ("name", "source", "card", "description")
"""Keys that say something about a recipe and influence no result: not in :meth:`Recipe.sha256`."""


@settings
@dataclass(frozen=True)
class Recipe:
    """One task with every number explicit.

    Parameters
    ----------
    name
        Short name.
    task
        ``"mri"``, ``"denoise"`` or ``"superres"``.
    beta
        Coupling weight, for images whose maximum is about 1.
    lam
        Overall threshold, for images whose maximum is about 1.
    source
        Where these numbers come from.
    weights
        Name of weights that come with the package, path of a file, or ``"derived"`` for the weights that the package derives itself
        (:mod:`mrisps.model.derived_weights`). None: the caller has to name weights.
    weights_sha256
        Hash of the weights, as `mrisps weights` prints it (:meth:`mrisps.model.SmoothPlusSparse.fingerprint`); other weights are
        refused. None: any weights of that name.
    image
        ``"from_file"``: the image is real if the file states it, else complex. ``"real"``, ``"complex"``: whatever the file
        says. For MRI; other images are real.
    scale
        How the scale is estimated. None takes the data as they are: the image maximum is about 1 already.
    mask
        How fully sampled k-space is undersampled, when that is asked for. For MRI.
    blur
        The operator of super-resolution.
    noise_std
        Noise standard deviation in units of the scaled data. None: unknown; for MRI it is estimated from the border of k-space.
    nonnegative
        True clips a real image at 0 after the reconstruction.
    preparation
        The steps for multi-coil MRI data. None: for single-coil data.
    prior
        Which patches count, and how complex coefficients are shrunk. Where the image size is no multiple of the stride (for weights
        with groups of pixels: of stride times group), all patches count; a note and the certificate say so. With several
        coils the solver then works on the next larger size instead.
    solver
        Settings of the solver.
    description
        One line for listings.
    card
        What was measured with the recipe. None: nothing.
    """

    name: Text
    task: Task
    beta: Positive
    lam: Positive
    source: str
    weights: str | None = None
    weights_sha256: Sha256 | None = None
    image: Literal["from_file", "real", "complex"] = "from_file"
    scale: ScaleRule | None = None
    mask: MaskRule | None = None
    blur: BlurRule | None = None
    noise_std: NonNegative | None = None
    nonnegative: bool = False
    preparation: Preparation | None = None
    prior: PriorUse = field(default_factory=PriorUse)
    solver: FastSettings = field(default_factory=FastSettings)
    description: str = ""
    card: Card | None = None
    regularisation: NoiseRule | None = field(default=None, metadata=LATER)

    def __post_init__(self) -> None:
        if self.weights_sha256 is not None and self.weights is None:
            raise SettingsError("weights_sha256", "is of no use without weights")
        for key in ("mask", "preparation"):
            if getattr(self, key) is not None and self.task != "mri":
                raise SettingsError(key, f"only MRI recipes have one, this one is for {self.task!r}")
        if (self.blur is not None) != (self.task == "superres"):
            raise SettingsError("blur", "super-resolution recipes need one, others have none")

    def regularisation_for(self, noise_std: float | None) -> tuple[float, float]:
        """beta and lam for data with this noise, in scaled units; None where it is unknown."""
        if self.regularisation is None or noise_std is None:
            return self.beta, self.lam
        return self.regularisation.values(noise_std)

    def grid_for(self, shape: tuple[int, ...], group_size: int = 1) -> tuple[int, ...]:
        """(y, x) that the solver works on: with coils a multiple of stride times group, at least the image, else the image.

        With one coil another size than that of k-space would cost the closed form of the image step, and coarser grids need the
        field of view of the image.
        """
        if self.preparation is None or self.solver.levels > 1:
            return shape
        multiple = self.prior.stride * group_size
        return tuple(-(-size // multiple) * multiple for size in shape)

    def prior_for(self, shape: tuple[int, ...], group_size: int = 1) -> PriorUse:
        """How the prior is laid over images (y, x) of this size: with the stride, if its grid is one of whole groups (CPR)."""
        fits = all(size % (self.prior.stride * group_size) == 0 for size in self.grid_for(shape, group_size))
        return self.prior if fits else dataclasses.replace(self.prior, stride=1)

    def to_dict(self) -> dict[str, object]:
        """Plain values, for JSON."""
        return to_plain(self)

    def sha256(self) -> str:
        """Hash of every value that a result depends on: all but name, description, source and card."""
        return fingerprint(self, leave_out=DESCRIPTIVE)

    def check_weights(self, fingerprint: str) -> None:
        """Refuse weights that are not those the recipe was made for.

        Parameters
        ----------
        fingerprint
            Of the weights that were loaded by the recipe's ``weights``.

        Raises
        ------
        SettingsError
            The recipe states another SHA-256.
        """
        if self.weights_sha256 not in (None, fingerprint):
            raise SettingsError(
                "weights_sha256",
                f"{self.name} was made for weights with SHA-256 {self.weights_sha256}, those called {self.weights!r} have "
                f"{fingerprint}",
            )


def recipe_folder() -> Path:
    """Where the recipes of the package are: inside an installed package, beside it in a source tree."""
    inside = Path(__file__).resolve().parents[1] / "recipes"
    return inside if inside.is_dir() else Path(__file__).resolve().parents[2] / "recipes"


def builtin_recipes(*, training: bool = False) -> dict[str, Path]:
    """Name -> file of every recipe that comes with the package: for reconstructions, or for training (``train_*``)."""
    paths = sorted(recipe_folder().glob("[a-z]*.py"))
    return {path.stem: path for path in paths if path.stem.startswith("train_") == training}


R = TypeVar("R")


@overload
def load_recipe(name_or_path: str | Path) -> Recipe: ...
@overload
def load_recipe(name_or_path: str | Path, kind: type[R]) -> R: ...
def load_recipe(name_or_path: str | Path, kind: type[object] = Recipe) -> object:
    """Load a recipe by the name of one that comes with the package, or from a Python file.

    Parameters
    ----------
    name_or_path
        Name or file.
    kind
        :class:`Recipe` or :class:`mrisps.training.run.TrainRecipe`.

    Raises
    ------
    SettingsError
        If there is no recipe of that name, or a key is unknown, or a value has the wrong type or range.
    FileError
        If the file cannot be read, is no Python, or defines no ``recipe``.
    """
    builtin = builtin_recipes(training=kind is not Recipe)
    path = builtin.get(str(name_or_path), Path(name_or_path))
    if path.suffix != ".py":
        raise SettingsError("recipe", f"expected a .py file or one of {', '.join(builtin)}; got {str(name_or_path)!r}")
    if not path.is_file():
        raise FileError(path, "no such recipe file")
    try:
        namespace = runpy.run_path(str(path), run_name="mrisps.recipe")
    except SettingsError as error:
        raise SettingsError(".".join([*_keys_to(error, path), error.key]), f"{error.message} (in {path})") from error
    except (Exception, SystemExit) as error:  # somebody's program: whatever it raises, it is the file that is wrong
        raise FileError(path, f"cannot be run: {type(error).__name__}: {error}") from error
    recipe = namespace.get("recipe")
    if not isinstance(recipe, kind):
        raise FileError(path, f"expected a mrisps {kind.__name__}, got {type(recipe).__name__}", field="recipe")
    return recipe


def _keys_to(error: SettingsError, path: Path) -> tuple[str, ...]:
    """The keys that lead to the call that failed in a recipe file: ("solver",) for ``Recipe(solver=FastSettings(...))``."""
    places = [entry for entry in traceback.extract_tb(error.__traceback__) if entry.filename == str(path)]
    wanted = [(entry.lineno, entry.colno, entry.end_lineno, entry.end_colno) for entry in places[-1:]]

    def calls(node: ast.AST, keys: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        if isinstance(node, ast.keyword) and node.arg is not None:
            keys = (*keys, node.arg)
        if (
            isinstance(node, ast.Call)
            and (node.lineno, node.col_offset, node.end_lineno, node.end_col_offset) in wanted
        ):
            yield keys
        for child in ast.iter_child_nodes(node):
            yield from calls(child, keys)

    return next(calls(ast.parse(path.read_bytes()), ()), ())


def with_overrides(recipe: Recipe, overrides: Mapping[str, str]) -> Recipe:
    """A copy of a recipe with single values replaced.

    Parameters
    ----------
    recipe
        The recipe.
    overrides
        Key path -> value as text, for example ``{"lam": "1e-3", "solver.tolerance": "1e-4", "image": "complex"}``; ``none`` is
        None. Where the hash changes, the card is dropped; where ``weights`` are replaced, so is ``weights_sha256``; where ``beta``
        or ``lam`` is given, it holds instead of the rule of ``regularisation``.

    Raises
    ------
    SettingsError
        If a key is unknown or a value has the wrong type or range.
    """
    if "weights" in overrides:
        overrides = {"weights_sha256": "none", **overrides}
    if overrides.keys() & {"beta", "lam"}:
        overrides = {"regularisation": "none", **overrides}
    changed = with_values(recipe, overrides)
    return changed if changed.sha256() == recipe.sha256() else dataclasses.replace(changed, card=None)


def certified(recipe: Recipe) -> Recipe:
    """The recipe with a solver that goes on to a minimiser of the energy."""
    return with_overrides(recipe, {"solver.stop": "stationary"})


def recipe_source(recipe: Recipe) -> str:
    """A recipe as the text of a Python file, as those that come with the package: :func:`load_recipe` gives the same recipe.

    Values that are the defaults are left out. Texts are written as literals, whatever is in them.
    """
    imports: dict[str, None] = {}
    text = _written(recipe, "", imports)
    return "\n".join(
        ['"""Made by `mrisps tune`: the card says what was measured."""\n', *sorted(imports), f"\nrecipe = {text}\n"]
    )


def _written(value: object, indent: str, imports: dict[str, None]) -> str:
    """A value as a Python expression; the imports that it needs are added to the others."""
    if not dataclasses.is_dataclass(value):
        return repr(value)
    kind, module = type(value), type(value).__module__
    if module.startswith(("mrisps.model.", "mrisps.solvers.")):
        module = module.rpartition(".")[0]  # the package is where they are public
    imports[f"from {module} import {kind.__name__}"] = None
    lines = []
    for entry in dataclasses.fields(value):
        content = getattr(value, entry.name)
        default = entry.default if entry.default_factory is dataclasses.MISSING else entry.default_factory()
        if content != default:
            lines.append(f"{indent}    {entry.name}={_written(content, indent + '    ', imports)},\n")
    return f"{kind.__name__}(\n{''.join(lines)}{indent})"
