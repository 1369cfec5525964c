"""Options that several commands have, each spelled once, and what they stand for: run, recipe, weights, device, inputs.

A command takes groups of options as one argument, a dataclass; :func:`spread` shows its fields to typer one by one.
"""

import functools
import inspect
import typing
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mrisps.cli.common import UsageError, note, usage_errors
from mrisps.cli.terminal import steps
from mrisps.reconstruction.choices import DEFAULT_RECIPE, FROM_ZEROS, SliceChoice
from mrisps.threads import prepare_threads

if TYPE_CHECKING:
    from mrisps.campaign.sources import SourceFile
    from mrisps.io.arrays import ArrayLayout
    from mrisps.reconstruction.recipe import Recipe
    from mrisps.reconstruction.run import Run
    from mrisps.reconstruction.weights import Weights as FoundWeights


def option(
    name: str,
    text: str,
    *,
    least: int | None = None,
    complete: Callable[[str], list[str]] | None = None,
    callback: Callable[[int | None], int | None] | None = None,
) -> object:
    """An option for ``Annotated``.

    Parameters
    ----------
    name
        ``"--name METAVAR"``, of a switch ``"--name"`` or ``"--name/--no-name"``; several names with commas between.
    text
        Its help.
    least
        Smallest number that is accepted.
    complete, callback
        See typer: what a word may become on the tab key; called with the value.
    """
    names, _, metavar = name.partition(" ")
    return typer.Option(
        *names.split(","), metavar=metavar or None, help=text, min=least, autocompletion=complete, callback=callback
    )


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """The command as typer sees it: an argument that is a dataclass of options is replaced by its fields."""
    groups: dict[str, type] = {}
    parameters: list[inspect.Parameter] = []
    for given in inspect.signature(command).parameters.values():
        kind, given = given.annotation, given.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        if not is_dataclass(kind):
            parameters.append(given)
            continue
        groups[given.name] = typing.cast(type, kind)
        hints = typing.get_type_hints(kind, include_extras=True)
        for field in fields(kind):
            default = inspect.Parameter.empty if field.default is MISSING else field.default
            parameters.append(given.replace(name=field.name, annotation=hints[field.name], default=default))

    @functools.wraps(command)
    def run(**values: object) -> None:
        made = {name: kind(**{f.name: values.pop(f.name) for f in fields(kind)}) for name, kind in groups.items()}
        command(**made, **values)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what typer reads
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def complete_weights(incomplete: str) -> list[str]:
    """The names of weights that begin like this."""
    from mrisps.model.shipped import shipped_weights

    return [name for name in (*shipped_weights(), "derived") if name.startswith(incomplete)]


def complete_recipe(incomplete: str) -> list[str]:
    """The names of recipes for reconstructions that begin like this."""
    from mrisps.reconstruction.recipe import builtin_recipes

    return [name for name in builtin_recipes() if name.startswith(incomplete)]


def complete_training(incomplete: str) -> list[str]:
    """The names of recipes for training that begin like this."""
    from mrisps.reconstruction.recipe import builtin_recipes

    return [name for name in builtin_recipes(training=True) if name.startswith(incomplete)]


def _use_threads(n_threads: int | None) -> int | None:
    prepare_threads(n_threads)
    return n_threads


Output = Annotated[Path, option("--output DIR", "Folder for the results; made if missing.")]
Weights = Annotated[
    str | None,
    option(
        "--weights NAME|FILE|derived",
        "Weights of the model: a name (see `mrisps weights`), .safetensors, one of the authors' .pth checkpoints, or "
        "`derived` for simple ones that are made from images that scikit-image ships. Wins over those of the recipe.",
        complete=complete_weights,
    ),
]
Device = Annotated[str, option("--device cpu|cuda|cuda:N", "Where to compute.")]
Threads = Annotated[
    int | None,
    option(
        "--threads N",
        "Threads of the processor, of each process. Default: OMP_NUM_THREADS, or as many cores as this process may use (a "
        "batch shares them among its workers). They change the last digits.",
        least=1,
        callback=_use_threads,
    ),
]
SetValues = Annotated[
    list[str] | None,
    option(
        "--set KEY=VALUE",
        "Change a value of the recipe, for example lam=2e-3 or solver.max_iterations=500. Can be given several times.",
    ),
]
Overwrite = Annotated[bool, option("--overwrite/--no-overwrite", "Replace outputs that exist already.")]
SliceNumbers = Annotated[
    str | None, option("--slices N|START:STOP", "Only these slices, counted from 0; STOP is not included.")
]
AcceptUnconverged = Annotated[
    bool,
    option("--accept-unconverged", "Exit with 0 although an image did not converge (it is written and marked anyway)."),
]
ManifestRoot = Annotated[
    Path | None, option("--root DIR", "Folder that the paths of a manifest are below. Default: its own.")
]
IncludeTest = Annotated[
    bool, option("--include-test", "Also the split `test`, which is held out: for the final measurement only.")
]


@dataclass(frozen=True)
class DeviceOptions:
    """Where to compute."""

    device: Device = "cpu"
    threads: Threads = None

    def checked_device(self) -> str:
        """The name of a device that this machine has; a UsageError if it has not."""
        return checked_device(self.device)


@dataclass(frozen=True)
class WeightsOptions(DeviceOptions):
    """Where to compute, and with which weights."""

    weights: Weights = None

    def weights_of(self, recipe: "Recipe", recipe_name: str) -> "FoundWeights":
        """The weights of ``--weights``, else those of the recipe; a UsageError if there are none, or they cannot be used."""
        from mrisps.reconstruction.weights import find_weights

        with usage_errors(), steps() as say:
            found = find_weights(self.weights, recipe, recipe_name, say)
        if found.note is not None:
            note(f"weights: {found.note}")
        return found


@dataclass(frozen=True)
class ModelOptions(WeightsOptions):
    """Where to compute, and with which weights and changes of a recipe."""

    changes: SetValues = None

    def recipe(self, name: str, task: str | None = None) -> "Recipe":
        """The recipe with the values of ``--set``; a UsageError if it is for another task, or a key or value is wrong."""
        from mrisps.reconstruction.recipe import load_recipe, with_overrides

        with usage_errors():
            recipe = load_recipe(name)
            if task not in (None, recipe.task):
                raise UsageError(f"--recipe: {name} is for the task {recipe.task!r}, not for {task!r}")
            return with_overrides(recipe, parsed_changes(self.changes))


@dataclass(frozen=True)
class RunOptions(ModelOptions):
    """How images are reconstructed."""

    recipe_name: Annotated[
        str | None,
        option(
            "--recipe NAME|FILE",
            f"Name of a recipe (see `mrisps recipes`), or a recipe file. Default: {DEFAULT_RECIPE} for k-space; for images the "
            "one that fits --sigma or --factor.",
            complete=complete_recipe,
        ),
    ] = None
    scale: Annotated[
        float | None,
        option(
            "--scale X",
            "Input units that are 1 in units of beta and lam, about the image maximum. Default: the recipe's rule.",
        ),
    ] = None
    certify: Annotated[
        bool,
        option(
            "--certify",
            "Go on to a minimiser of the energy. Default: until the image has settled, in half of the time.",
        ),
    ] = False

    def run(
        self, task: str, recipe: str | None, *, noise_std: float | None = None, scale: float | None = None
    ) -> "Run":
        """The run of --recipe, or by default of ``recipe``; ``scale`` where --scale is not given.

        Raises
        ------
        UsageError
            Names the option that is wrong.
        """
        from mrisps.reconstruction.recipe import certified
        from mrisps.reconstruction.run import Run

        name = self.recipe_name or str(recipe)
        chosen, device = self.recipe(name, task), self.checked_device()
        if self.certify:
            chosen = certified(chosen)
        with usage_errors("scale", "noise_std"):
            size = scale if self.scale is None else self.scale
            return Run(chosen, self.weights_of(chosen, name), scale=size, noise_std=noise_std, device=device)


@dataclass(frozen=True)
class KspaceOptions:
    """What is said of k-space."""

    mask: Annotated[
        str | None,
        option(
            "--mask FILE|from-zeros",
            "Which samples were acquired, for files that do not say it: .npy or .json (see `mrisps mask`), or `from-zeros`: "
            "the columns of k-space that are not zero.",
        ),
    ] = None
    undersample: Annotated[
        bool, option("--undersample", "Undersample fully sampled k-space with the recipe's mask rule first.")
    ] = False
    no_crop: Annotated[
        bool, option("--no-crop", "Keep the whole field of view; do not cut to the size in the file's header.")
    ] = False
    slices_together: Annotated[
        int | None,
        option(
            "--slices-together N",
            "Slices in one solve, at most; fewer where memory does not hold them. Default: 1 on a CPU, where more gain nothing; on "
            "a GPU as many as its memory holds.",
            least=1,
        ),
    ] = None

    def run(self, options: RunOptions) -> "Run":
        """The run that the options describe; a mask file is read when the size of k-space is known.

        Raises
        ------
        UsageError
            Names the option that is wrong.
        """
        mask = self._mask()
        run = options.run("mri", DEFAULT_RECIPE)
        with usage_errors("undersample", "mask"):
            return replace(
                run,
                undersample=self.undersample,
                mask=mask,
                crop=not self.no_crop,
                slices_together=self.slices_together,
            )

    def _mask(self) -> "Path | typing.Literal['from-zeros'] | None":
        if self.mask is None or self.mask == FROM_ZEROS:
            return FROM_ZEROS if self.mask else None
        path = Path(self.mask)
        if path.suffix not in (".npy", ".json"):
            raise UsageError(f"--mask: expected a .npy or .json file or {FROM_ZEROS}, got {self.mask!r}")
        if not path.is_file():
            raise UsageError(f"--mask: {path}: {'is not a regular file' if path.exists() else 'does not exist'}")
        return path.absolute()


@dataclass(frozen=True)
class ArrayOptions:
    """What the axes of k-space in an array file are."""

    axes: Annotated[
        str | None,
        option(
            "--axes A,B,...",
            "Axes of k-space in a .npy, .npz or .mat file, for example `coil,y,x`; y is the readout.",
        ),
    ] = None
    variable: Annotated[
        str | None, option("--variable NAME", "Which array of a .npz or .mat file; needed if there are several.")
    ] = None
    uncentred: Annotated[
        bool, option("--uncentred", "The zero frequency of the array is at [0, 0], not in the centre.")
    ] = False

    def layout(self) -> "ArrayLayout | None":
        """The layout; None where nothing is said. A UsageError if it is wrong."""
        if self.axes is None:
            if self.variable is not None or self.uncentred:
                raise UsageError("--variable, --uncentred: need --axes, too")
            return None
        from mrisps.io.arrays import ArrayLayout

        with usage_errors():
            return ArrayLayout.parse(self.axes, centred=not self.uncentred, variable=self.variable)


@dataclass(frozen=True)
class WriteOptions:
    """Where results go, and which of them are good enough."""

    output: Output
    keep: Annotated[
        bool, option("--keep", "Write an image although the verdict on it is `unusable`; exit with 1 all the same.")
    ] = False
    overwrite: Overwrite = False
    accept_unconverged: AcceptUnconverged = False
    dry_run: Annotated[
        bool,
        option(
            "--dry-run",
            "Print what would be done: files, slices, size, recipe, device, threads, memory. Write nothing.",
        ),
    ] = False


@dataclass(frozen=True)
class DataOptions:
    """Which files with references are taken."""

    data: Annotated[
        list[str],
        option(
            "--data PATH",
            "Folder, file or manifest (.toml, or a name, see `mrisps manifest`). Can be given several times.",
        ),
    ]
    root: ManifestRoot = None
    split: Annotated[str | None, option("--split NAME", "Only this split of a manifest.")] = None
    contrast: Annotated[str | None, option("--contrast NAME", "Only files of this contrast in a manifest.")] = None

    def sources(self, suffixes: Sequence[str] = (), *, include_test: bool = False) -> "list[SourceFile]":
        """The files, by default with k-space; an error of ours where there are none."""
        from mrisps.campaign.sources import KSPACE_SUFFIXES, sources_of

        kinds, place = suffixes or KSPACE_SUFFIXES, self.root
        return sources_of(
            self.data, kinds, root=place, split=self.split, contrast=self.contrast, include_test=include_test
        )


def parsed_changes(changes: Sequence[str] | None) -> dict[str, str]:
    """Key path -> value of ``--set KEY=VALUE``; a UsageError if one is not of that form, or changes the task."""
    values: dict[str, str] = {}
    for change in changes or ():
        key, equals, value = change.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"--set: expected KEY=VALUE, got {change!r}")
        if key.strip() == "task":
            raise UsageError("--set: the task of a recipe cannot be changed; take another recipe")
        values[key.strip()] = value.strip()
    return values


def chosen_slices(text: str | None) -> SliceChoice:
    """What ``--slices`` says; all of them if nothing. A UsageError if it is no number and no range."""
    with usage_errors("slices"):
        return SliceChoice() if text is None else SliceChoice.parse(text)


def checked_device(name: str) -> str:
    """The name of a device that this machine has; a UsageError if it has not."""
    from mrisps.reconstruction.choices import usable_device

    with usage_errors("device"):
        return usable_device(name)
