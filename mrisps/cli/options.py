"""Options that several commands have, and what they stand for: recipe, weights, device, inputs."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mrisps.cli.common import UsageError, note, usage_errors
from mrisps.cli.terminal import steps
from mrisps.reconstruction.choices import FROM_ZEROS, SliceChoice
from mrisps.threads import prepare_threads

if TYPE_CHECKING:
    from mrisps.io.arrays import ArrayLayout
    from mrisps.reconstruction.recipe import Recipe
    from mrisps.reconstruction.run import Run
    from mrisps.reconstruction.weights import Weights as FoundWeights

__all__ = [
    "AcceptUnconverged",
    "ArrayAxes",
    "ArrayVariable",
    "Device",
    "Keep",
    "MaskFile",
    "NoCrop",
    "Output",
    "Overwrite",
    "RecipeName",
    "Scale",
    "SetValues",
    "SliceNumbers",
    "Threads",
    "Uncentred",
    "Undersample",
    "Weights",
    "check_mask_option",
    "checked_device",
    "chosen_layout",
    "chosen_recipe",
    "chosen_run",
    "chosen_slices",
    "chosen_weights",
    "complete_weights",
    "parsed_changes",
]


def _complete_recipe(incomplete: str) -> list[str]:
    from mrisps.reconstruction.recipe import builtin_recipes

    return [name for name in builtin_recipes() if name.startswith(incomplete)]


def complete_weights(incomplete: str) -> list[str]:
    """The names of weights that begin like this."""
    from mrisps.model.shipped import shipped_weights

    return [name for name in (*shipped_weights(), "derived") if name.startswith(incomplete)]


RecipeName = Annotated[
    str,
    typer.Option(
        "--recipe",
        metavar="NAME|FILE",
        help="Name of a recipe (see `mrisps recipes`), or a recipe file.",
        autocompletion=_complete_recipe,
    ),
]
Output = Annotated[Path, typer.Option("--output", metavar="DIR", help="Folder for the results; made if missing.")]
Weights = Annotated[
    str | None,
    typer.Option(
        "--weights",
        metavar="NAME|FILE|derived",
        help="Weights of the model: a name (see `mrisps weights`), .safetensors, one of the authors' .pth checkpoints, or "
        "`derived` for simple ones that are made from images that scikit-image ships. Wins over those of the recipe.",
        autocompletion=complete_weights,
    ),
]
Device = Annotated[str, typer.Option("--device", metavar="cpu|cuda|cuda:N", help="Where to compute.")]


def _use_threads(n_threads: int | None) -> int | None:
    prepare_threads(n_threads)
    return n_threads


Threads = Annotated[
    int | None,
    typer.Option(
        "--threads",
        metavar="N",
        min=1,
        callback=_use_threads,
        help="Threads of the processor. Default: OMP_NUM_THREADS, or as many as this process has cores.",
    ),
]
SetValues = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a value of the recipe, for example lam=2e-3 or solver.max_iterations=500. Can be given several times.",
    ),
]
Scale = Annotated[
    float | None,
    typer.Option(
        "--scale",
        metavar="X",
        help="Input units that are 1 in units of beta and lam, about the image maximum. Default: the recipe's rule.",
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite/--no-overwrite", help="Replace outputs that exist already.")]
ArrayAxes = Annotated[
    str | None,
    typer.Option(
        "--axes",
        metavar="A,B,...",
        help="Axes of k-space in a .npy, .npz or .mat file, for example `coil,y,x`; y is the readout.",
    ),
]
ArrayVariable = Annotated[
    str | None,
    typer.Option("--variable", metavar="NAME", help="Which array of a .npz or .mat file; needed if there are several."),
]
Uncentred = Annotated[
    bool, typer.Option("--uncentred", help="The zero frequency of the array is at [0, 0], not in the centre.")
]
MaskFile = Annotated[
    str | None,
    typer.Option(
        "--mask",
        metavar="FILE|from-zeros",
        help="Which samples were acquired, for files that do not say it: .npy or .json (see `mrisps mask`), or "
        "`from-zeros`: the columns of k-space that are not zero.",
    ),
]
Undersample = Annotated[
    bool, typer.Option("--undersample", help="Undersample fully sampled k-space with the recipe's mask rule first.")
]
SliceNumbers = Annotated[
    str | None,
    typer.Option("--slices", metavar="N|START:STOP", help="Only these slices, counted from 0; STOP is not included."),
]
NoCrop = Annotated[
    bool, typer.Option("--no-crop", help="Keep the whole field of view; do not cut to the size in the file's header.")
]
Keep = Annotated[
    bool,
    typer.Option("--keep", help="Write an image although the verdict on it is `unusable`; exit with 1 all the same."),
]
AcceptUnconverged = Annotated[
    bool,
    typer.Option(
        "--accept-unconverged", help="Exit with 0 although an image did not converge (it is written and marked anyway)."
    ),
]


def chosen_recipe(name: str, changes: Sequence[str] | None, task: str) -> "Recipe":
    """The recipe with the values of ``--set``.

    Raises
    ------
    UsageError
        There is no such recipe, it is for another task, or a key or value is wrong.
    """
    from mrisps.reconstruction.recipe import load_recipe, with_overrides

    with usage_errors():
        recipe = load_recipe(name)
        if recipe.task != task:
            raise UsageError(f"--recipe: {name} is for the task {recipe.task!r}, this command is for {task!r}")
        return with_overrides(recipe, parsed_changes(changes))


def parsed_changes(changes: Sequence[str] | None) -> dict[str, str]:
    """Key path -> value of ``--set KEY=VALUE``.

    Raises
    ------
    UsageError
        One is not of that form, or changes the task.
    """
    values: dict[str, str] = {}
    for change in changes or ():
        key, equals, value = change.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"--set: expected KEY=VALUE, got {change!r}")
        if key.strip() == "task":
            raise UsageError("--set: the task of a recipe cannot be changed; take another recipe")
        values[key.strip()] = value.strip()
    return values


def chosen_weights(option: str | None, recipe: "Recipe", recipe_name: str) -> "FoundWeights":
    """The weights of ``--weights``, else those of the recipe.

    Raises
    ------
    UsageError
        No weights are named, or they cannot be used, or those that the recipe names have another SHA-256 than it states.
    """
    from mrisps.reconstruction.weights import find_weights

    with usage_errors(), steps() as say:
        found = find_weights(option, recipe, recipe_name, say)
    if found.note is not None:
        note(f"weights: {found.note}")
    return found


def chosen_run(
    task: str,
    recipe_name: str,
    changes: Sequence[str] | None,
    *,
    weights: str | None,
    device: str,
    mask: str | None = None,
    undersample: bool = False,
    scale: float | None = None,
    noise_std: float | None = None,
    crop: bool = True,
    slices: str | None = None,
    axes: str | None = None,
    variable: str | None = None,
    uncentred: bool = False,
    colour_to_grey: bool = False,
    maps_folder: Path | None = None,
) -> "Run":
    """The run that the options describe; a mask file is looked at later, when the size of k-space is known.

    Raises
    ------
    UsageError
        Names the option that is wrong.
    """
    from mrisps.reconstruction.run import Run

    recipe = chosen_recipe(recipe_name, changes, task)
    if undersample and recipe.mask is None:
        raise UsageError(f"--undersample: recipe {recipe.name} has no mask rule")
    if undersample and mask is not None:
        raise UsageError("--undersample and --mask: give one of them, not both")
    for name, value, least in (("--noise-std", noise_std, "at least 0"), ("--scale", scale, "> 0")):
        if value is not None and not (0 <= value < float("inf") and (value > 0 or least != "> 0")):
            raise UsageError(f"{name}: expected a number {least}, got {value}")
    check_mask_option(mask)
    choice = chosen_slices(slices)
    with usage_errors():
        layout = chosen_layout(axes, variable, uncentred)
    device = checked_device(device)
    return Run(
        recipe=recipe,
        weights=chosen_weights(weights, recipe, recipe_name),
        mask=FROM_ZEROS if mask == FROM_ZEROS else None,
        undersample=undersample,
        scale=scale,
        noise_std=noise_std,
        crop=crop,
        slices=choice,
        layout=layout,
        colour_to_grey=colour_to_grey,
        device=device,
        maps_folder=maps_folder,
    )


def check_mask_option(mask: str | None) -> None:
    """Refuse a ``--mask`` that is neither ``from-zeros`` nor a file that may hold a mask.

    Raises
    ------
    UsageError
        Says what is wrong.
    """
    if mask is None or mask == FROM_ZEROS:
        return
    path = Path(mask)
    if path.suffix not in (".npy", ".json"):
        raise UsageError(f"--mask: expected a .npy or .json file or {FROM_ZEROS}, got {mask!r}")
    if not path.is_file():
        raise UsageError(f"--mask: {path}: {'is not a regular file' if path.exists() else 'does not exist'}")


def chosen_slices(text: str | None) -> SliceChoice:
    """What ``--slices`` says; all of them if nothing.

    Raises
    ------
    UsageError
        It is no number and no range.
    """
    try:
        return SliceChoice() if text is None else SliceChoice.parse(text)
    except ValueError as error:
        raise UsageError(f"--{error}") from error


def chosen_layout(axes: str | None, variable: str | None, uncentred: bool) -> "ArrayLayout | None":
    """What --axes, --variable and --uncentred say; None if nothing.

    Raises
    ------
    UsageError
        One of the other two without --axes.
    ValueError
        An axis is unknown.
    """
    if axes is None:
        if variable is not None or uncentred:
            raise UsageError("--variable, --uncentred: need --axes, too")
        return None
    from mrisps.io.arrays import ArrayLayout

    return ArrayLayout.parse(axes, centred=not uncentred, variable=variable)


def checked_device(name: str) -> str:
    """The name of a device that this machine has.

    Raises
    ------
    UsageError
        It does not exist here.
    """
    import torch

    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (":" in name and not (kind == "cuda" and index.isascii() and index.isdigit())):
        raise UsageError(f"--device: expected cpu, cuda or cuda:N, got {name!r}")
    if kind == "cuda":
        n_devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if n_devices == 0:
            raise UsageError(f"--device: {name} was asked for, but PyTorch finds no CUDA device here; use --device cpu")
        if index and int(index) >= n_devices:
            raise UsageError(f"--device: {name} was asked for, but there are only cuda:0 to cuda:{n_devices - 1}")
    return name
