"""Recipes: everything a reconstruction depends on besides the data and the weights, in one frozen object.

A recipe is a short Python file that defines one :class:`Recipe` named ``recipe``. The ones that come with the package are
listed by :func:`builtin_recipes`. A recipe file is a program and is executed: use only files that you would run.
"""

import copy
import dataclasses
import datetime
import hashlib
import json
import math
import re
import runpy
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from mrisps.errors import FileError, RecipeError
from mrisps.kspace.preparation import Preparation
from mrisps.model import PriorUse
from mrisps.solvers import FastSettings

__all__ = [
    "BlurRule",
    "Card",
    "MaskRule",
    "Recipe",
    "ScaleRule",
    "builtin_recipes",
    "check_types",
    "load_recipe",
    "load_recipe_of",
    "recipe_folder",
    "recipe_source",
    "with_overrides",
]

Task = Literal["mri", "denoise", "superres"]
ImageKind = Literal["from_file", "real", "complex"]
Metric = Literal["PSNR", "held-out"]

DESCRIPTIVE = ("name", "source", "card", "description")
"""Keys that say something about a recipe and influence no result: not in :meth:`Recipe.sha256`."""


@dataclass(frozen=True)
class MaskRule:
    """How fully sampled k-space is undersampled when that is asked for (retrospectively); see :func:`mrisps.sampling.make_mask`.

    Parameters
    ----------
    kind
        One of :data:`mrisps.sampling.MASK_KINDS`.
    acceleration
        Nominal acceleration >= 1: columns over acquired columns, the centre included.
    center_fraction
        Fraction of the columns that is acquired around the zero frequency.
    seed
        Of the random choices.
    """

    kind: str
    acceleration: float
    center_fraction: float
    seed: int = 0

    def __post_init__(self) -> None:
        from mrisps.sampling import MASK_KINDS

        check_types(self, "mask.")
        if self.kind not in MASK_KINDS:
            raise RecipeError("mask.kind", f"expected one of {', '.join(MASK_KINDS)}, got {self.kind!r}")
        if not 1 <= self.acceleration < math.inf:
            raise RecipeError("mask.acceleration", f"expected a number >= 1, got {self.acceleration}")
        if self.seed < 0:
            raise RecipeError("mask.seed", f"expected an integer >= 0, got {self.seed}")
        if not 0 <= self.center_fraction <= 1:
            raise RecipeError("mask.center_fraction", f"expected a number from 0 to 1, got {self.center_fraction}")


@dataclass(frozen=True)
class ScaleRule:
    """How the scale of an image is estimated from the undersampled data, so that beta and lam mean the same everywhere.

    The image is reconstructed in units of ``percentile(|A^H y|) / reference`` and scaled back afterwards.

    Parameters
    ----------
    percentile
        Of the magnitude of the zero-filled image, 0 to 100.
    reference
        What this percentile is, on average, for images whose maximum is 1.
    """

    percentile: float
    reference: float

    def __post_init__(self) -> None:
        check_types(self, "scale.")
        if not 0 < self.percentile <= 100:
            raise RecipeError("scale.percentile", f"expected a number from 0 to 100, got {self.percentile}")
        if not 0 < self.reference < math.inf:
            raise RecipeError("scale.reference", f"expected a number > 0, got {self.reference}")


@dataclass(frozen=True)
class BlurRule:
    """The super-resolution operator; see :class:`mrisps.operators.BlurDownsample`."""

    kernel_size: int = 16
    sigma: float = 2.0
    stride: int = 4

    def __post_init__(self) -> None:
        check_types(self, "blur.")
        if self.kernel_size < 1 or self.stride < 1 or not 0 < self.sigma < math.inf:
            raise RecipeError("blur", f"expected positive numbers, got {self}")


@dataclass(frozen=True)
class Card:
    """What was measured with a recipe. It influences no result.

    Parameters
    ----------
    score
        In dB, mean over the slices.
    metric
        ``"PSNR"`` against a reference. ``"held-out"``: how well acquired k-space that was held out is predicted,
        -10 log10(|error|^2 / |measured|^2).
    data
        What was measured: files, crop, data range.
    n_slices
        Number of slices, or of images.
    date
        ``YYYY-MM-DD``.
    how
        How beta and lam were found, and what else is to be known of the score.
    """

    score: float
    metric: Metric
    data: str
    n_slices: int
    date: str
    how: str

    def __post_init__(self) -> None:
        check_types(self, "card.")
        if not math.isfinite(self.score):
            raise RecipeError("card.score", f"expected a finite number, got {self.score}")
        if self.n_slices < 1:
            raise RecipeError("card.n_slices", f"expected an integer >= 1, got {self.n_slices}")
        for key in ("data", "how"):
            if not getattr(self, key).strip():
                raise RecipeError(f"card.{key}", "expected a text, got an empty one")
        try:
            if datetime.date.fromisoformat(self.date).isoformat() != self.date:
                raise ValueError
        except ValueError as error:
            raise RecipeError("card.date", f"expected YYYY-MM-DD, got {self.date!r}") from error

    @property
    def summary(self) -> str:
        """Score, metric and number of slices, for listings."""
        return f"{self.score:.2f} dB {self.metric}, {self.n_slices} slice{'s' if self.n_slices > 1 else ''}"


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
        Overall threshold, likewise.
    source
        Where these numbers come from.
    weights
        Path of the weights, ``"derived"`` for those that the package derives itself
        (:mod:`mrisps.model.derived_weights`), or None: the caller has to name them.
    weights_sha256
        Of configuration and parameters, as `mrisps weights` prints it (:meth:`mrisps.model.SmoothPlusSparse.fingerprint`), or None:
        any weights of that name. See :meth:`check_weights`.
    image
        ``"from_file"``: the image is real if the file states it, complex otherwise. ``"real"``, ``"complex"``: whatever the file
        says. MRI only; other images are real.
    scale
        None takes the data as they are: the image maximum is about 1 already.
    mask
        The rule for retrospective undersampling. MRI only.
    blur
        The operator. Super-resolution only.
    noise_std
        Noise standard deviation in units of the scaled data, or None: for MRI it is estimated from the border of k-space.
    nonnegative
        Clip a real image at 0 after the reconstruction. (The paper's algorithm clips in every step, which ``prior.nonnegative``
        amounts to: the minimum under x >= 0.)
    preparation
        The steps of multi-coil MRI data; None: for single-coil data.
    prior
        Which patches count, and how complex coefficients are shrunk. Where the image size is no multiple of the stride (for
        weights with groups of pixels: of stride times group), all patches count; a note and the certificate say so.
    solver
        Settings of the solver.
    description
        One line for listings.
    card
        What was measured with it, or None.
    """

    name: str
    task: Task
    beta: float
    lam: float
    source: str
    weights: str | None = None
    weights_sha256: str | None = None
    image: ImageKind = "from_file"
    scale: ScaleRule | None = None
    mask: MaskRule | None = None
    blur: BlurRule | None = None
    noise_std: float | None = None
    nonnegative: bool = False
    preparation: Preparation | None = None
    prior: PriorUse = field(default_factory=PriorUse)
    solver: FastSettings = field(default_factory=FastSettings)
    description: str = ""
    card: Card | None = None

    def __post_init__(self) -> None:
        check_types(self, "")
        if not self.name:
            raise RecipeError("name", "expected a name, got an empty text")
        for key in ("beta", "lam"):
            value = getattr(self, key)
            if not 0 < value < float("inf"):
                raise RecipeError(key, f"expected a number > 0, got {value}")
        if self.noise_std is not None and not 0 <= self.noise_std < math.inf:
            raise RecipeError("noise_std", f"expected a number >= 0, got {self.noise_std}")
        if self.weights_sha256 is not None:
            if not re.fullmatch("[0-9a-f]{64}", self.weights_sha256):
                raise RecipeError(
                    "weights_sha256", f"expected 64 hexadecimal digits in small letters, got {self.weights_sha256!r}"
                )
            if self.weights is None:
                raise RecipeError("weights_sha256", "is of no use without weights")
        if self.mask is not None and self.task != "mri":
            raise RecipeError("mask", f"only MRI recipes have one, this one is for {self.task!r}")
        if self.preparation is not None and self.task != "mri":
            raise RecipeError("preparation", f"only MRI recipes have one, this one is for {self.task!r}")
        if (self.blur is not None) != (self.task == "superres"):
            raise RecipeError("blur", "super-resolution recipes need one, others have none")

    def prior_for(self, shape: tuple[int, ...], group_size: int = 1) -> PriorUse:
        """How the prior is laid over images (y, x) of this size: with the stride, if its grid is one of whole groups (CPR)."""
        fits = all(size % (self.prior.stride * group_size) == 0 for size in shape)
        return self.prior if fits else dataclasses.replace(self.prior, stride=1)

    def to_dict(self) -> dict[str, object]:
        """Plain values, for JSON."""
        return asdict(self)

    def sha256(self) -> str:
        """Hash of every value that a result depends on: all but name, description, source and card."""
        values = {key: value for key, value in self.to_dict().items() if key not in DESCRIPTIVE}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    def check_weights(self, fingerprint: str) -> None:
        """Refuse weights that are not those the recipe was made for.

        Parameters
        ----------
        fingerprint
            Of the weights that were loaded by the recipe's ``weights``.

        Raises
        ------
        RecipeError
            The recipe states another SHA-256.
        """
        if self.weights_sha256 not in (None, fingerprint):
            raise RecipeError(
                "weights_sha256",
                f"{self.name} was made for weights with SHA-256 {self.weights_sha256}, those called {self.weights!r} have "
                f"{fingerprint}",
            )


def recipe_folder() -> Path:
    """Where the recipes of the package are: inside an installed package, beside it in a source tree."""
    inside = Path(__file__).resolve().parents[1] / "recipes"
    return inside if inside.is_dir() else Path(__file__).resolve().parents[2] / "recipes"


def builtin_recipes() -> dict[str, Path]:
    """Name -> file of every recipe for reconstructions that comes with the package; ``train_*`` and ``convert_*`` are others."""
    return {
        path.stem: path
        for path in sorted(recipe_folder().glob("[a-z]*.py"))
        if not path.stem.startswith(("train_", "convert_"))
    }


def load_recipe(name_or_path: str | Path) -> Recipe:
    """Load a recipe by the name of one that comes with the package, or from a Python file.

    Raises
    ------
    RecipeError
        If there is no recipe of that name, or a key is unknown, or a value has the wrong type or range.
    FileError
        If the file cannot be read, is no Python, or defines no ``recipe``.
    """
    return load_recipe_of(Recipe, name_or_path, builtin_recipes())


def recipe_source(recipe: Recipe) -> str:
    """A recipe as the text of a Python file, as those that come with the package: :func:`load_recipe` gives the same recipe.

    Values that are the defaults are left out. Texts are written as literals, whatever is in them.
    """
    imports: dict[str, set[str]] = {}
    text = _written(recipe, "", imports)
    lines = [f"from {module} import {', '.join(sorted(names))}" for module, names in sorted(imports.items())]
    return (
        '"""Made by `mrisps tune`: the card says what was measured."""\n\n'
        + "\n".join(lines)
        + f"\n\nrecipe = {text}\n\n"
        + 'if __name__ == "__main__":\n    from mrisps.cli.main import run_recipe\n\n'
        + "    raise SystemExit(run_recipe(__file__))\n"
    )


def _written(value: object, indent: str, imports: dict[str, set[str]]) -> str:
    """A value as a Python expression; the names that it needs are added to the imports."""
    if isinstance(value, str):
        pieces = re.findall(r".{1,88}(?:\s|\Z)|.{1,88}", value, flags=re.DOTALL)
        if len(indent) + len(value) <= 90 or "".join(pieces) != value:
            return _literal(value)
        return "(\n" + "".join(f"{indent}    {_literal(piece)}\n" for piece in pieces) + f"{indent})"
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return repr(value)
    kind = type(value)
    module = kind.__module__
    if module.startswith(("mrisps.model.", "mrisps.solvers.")):
        module = module.rpartition(".")[0]  # the package is where they are public
    imports.setdefault(module, set()).add(kind.__name__)
    arguments = []
    for entry in dataclasses.fields(value):
        content = getattr(value, entry.name)
        if entry.default is not dataclasses.MISSING:
            default: object = entry.default
        elif entry.default_factory is not dataclasses.MISSING:
            default = entry.default_factory()
        else:
            default = dataclasses.MISSING
        if content != default:
            arguments.append(f"{entry.name}={_written(content, indent + '    ', imports)}")
    line = f"{kind.__name__}({', '.join(arguments)})"
    if "\n" not in line and len(indent) + len(line) <= 90:
        return line
    return f"{kind.__name__}(\n" + "".join(f"{indent}    {argument},\n" for argument in arguments) + f"{indent})"


def _literal(text: str) -> str:
    literal = repr(text)
    return literal if '"' in literal else f'"{literal[1:-1]}"'


R = typing.TypeVar("R")


def load_recipe_of(kind: type[R], name_or_path: str | Path, builtin: Mapping[str, Path]) -> R:
    """The object named ``recipe`` that a file defines, if it is of this kind; as :func:`load_recipe`."""
    path = builtin.get(str(name_or_path), Path(name_or_path))
    if path.suffix != ".py":
        raise RecipeError("name", f"expected a .py file or one of {', '.join(builtin)}; got {str(name_or_path)!r}")
    if not path.is_file():
        raise FileError(path, "no such recipe file")
    try:
        namespace = runpy.run_path(str(path), run_name="mrisps.recipe")
    except RecipeError as error:
        raise RecipeError(error.key, f"{error.message} (in {path})") from error
    except TypeError as error:  # what a frozen dataclass says of an unknown or missing key
        raise RecipeError(_key_of(error), f"{error} (in {path})") from error
    except (Exception, SystemExit) as error:  # somebody's program: whatever it raises, it is the file that is wrong
        raise FileError(path, f"cannot be run: {type(error).__name__}: {error}") from error
    recipe = namespace.get("recipe")
    if not isinstance(recipe, kind):
        raise FileError(path, f"expected a mrisps {kind.__name__}, got {type(recipe).__name__}", field="recipe")
    return recipe


def with_overrides(recipe: R, overrides: Mapping[str, str]) -> R:
    """A copy of a recipe with single values replaced.

    Parameters
    ----------
    recipe
        The recipe.
    overrides
        Key path -> value as text, for example ``{"lam": "1e-3", "solver.tolerance": "1e-4", "image": "complex"}``; ``none`` is
        None. A card does not survive a change of what it is about, nor a ``weights_sha256`` that of ``weights``.

    Raises
    ------
    RecipeError
        If a key is unknown or a value has the wrong type or range.
    """
    if "weights" in overrides and isinstance(recipe, Recipe):
        overrides = {"weights_sha256": "none", **overrides}
    changed = recipe
    for key, text in overrides.items():
        changed = _replaced(changed, key.split("."), text, key)
    if isinstance(recipe, Recipe) and isinstance(changed, Recipe) and changed.sha256() != recipe.sha256():
        changed = _replaced(changed, ["card"], "none", "card")
    return changed


def _replaced(record: R, keys: list[str], text: str, path: str) -> R:
    hints = typing.get_type_hints(type(record))
    if keys[0] not in hints:
        raise RecipeError(path, f"unknown key; known here: {', '.join(hints)}")
    value: object
    if len(keys) > 1:
        inner = getattr(record, keys[0])
        if not dataclasses.is_dataclass(inner) or isinstance(inner, type):
            raise RecipeError(path, f"{keys[0]} is {inner!r}, it has no keys")
        value = _replaced(inner, keys[1:], text, path)
    else:
        value = _parsed(text, hints[keys[0]], path)
    try:
        changed = copy.copy(record)  # dataclasses.replace, whose keyword arguments no type checker can follow
        object.__setattr__(changed, keys[0], value)
        check: Callable[[], None] = getattr(changed, "__post_init__", lambda: None)
        check()
        return changed
    except ValueError as error:
        raise RecipeError(path, str(error).removeprefix(f"{keys[0]}: ")) from error


def _parsed(text: str, hint: object, path: str) -> object:
    kinds = _alternatives(hint)
    if text.lower() == "none" and type(None) in kinds:
        return None
    for kind in kinds:
        if kind is bool and text.lower() in ("true", "false"):
            return text.lower() == "true"
        if kind in (int, float):
            try:
                return int(text) if kind is int else float(text)
            except ValueError:
                continue
        if kind is str or typing.get_origin(kind) is Literal:
            return text
        if typing.get_origin(kind) is tuple:  # crop=48,48
            parts = text.split(",")
            if len(parts) == len(typing.get_args(kind)) and all(part.strip().isdigit() for part in parts):
                return tuple(int(part) for part in parts)
    raise RecipeError(path, f"expected {_name(hint)}, got {text!r}")


def check_types(record: object, prefix: str) -> None:
    """RecipeError if a field of a dataclass has a value that its annotation does not allow."""
    for key, hint in typing.get_type_hints(type(record)).items():
        value = getattr(record, key)
        allowed = False
        for kind in _alternatives(hint):
            if typing.get_origin(kind) is Literal:
                allowed = allowed or value in typing.get_args(kind)
            elif kind is float:
                allowed = allowed or (isinstance(value, int | float) and not isinstance(value, bool))
            elif typing.get_origin(kind) is tuple:
                allowed = allowed or (
                    isinstance(value, tuple)
                    and len(value) == len(typing.get_args(kind))
                    and all(isinstance(item, int) and not isinstance(item, bool) for item in value)
                )
            elif kind is int:
                allowed = allowed or (isinstance(value, int) and not isinstance(value, bool))
            elif isinstance(kind, type):
                allowed = allowed or isinstance(value, kind)
        if not allowed:
            raise RecipeError(f"{prefix}{key}", f"expected {_name(hint)}, got {value!r}")
        if dataclasses.is_dataclass(value):
            check_types(value, f"{prefix}{key}.")


def _alternatives(hint: object) -> tuple[object, ...]:
    # `Literal[...] | None` is a typing.Union, `int | None` a types.UnionType
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def _name(hint: object) -> str:
    names = [
        "one of " + ", ".join(map(repr, typing.get_args(kind)))
        if typing.get_origin(kind) is Literal
        else getattr(kind, "__name__", str(kind))
        for kind in _alternatives(hint)
    ]
    return " or ".join("None" if name == "NoneType" else name for name in names)


def _key_of(error: TypeError) -> str:
    """The key in "got an unexpected keyword argument 'lamda'"."""
    quoted = str(error).split("'")
    return quoted[1] if len(quoted) > 2 else "recipe"
