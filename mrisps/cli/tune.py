"""`mrisps tune`: beta and lam of a recipe, found on reference data."""

import datetime
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mrisps.cli.common import (
    FAILURE,
    UsageError,
    memory_errors,
    new_file,
    note,
    parse_size,
    printable,
    result,
    usage_errors,
)
from mrisps.cli.options import (
    AcceptUnconverged,
    Device,
    Overwrite,
    SetValues,
    Weights,
    checked_device,
    chosen_recipe,
    chosen_slices,
    chosen_weights,
)
from mrisps.cli.recon import FOLDER_SUFFIXES
from mrisps.cli.terminal import SolverProgress, print_table
from mrisps.errors import FileError

if TYPE_CHECKING:
    from mrisps.campaign.tune import Case, Evaluation, TuneSettings, Tuning
    from mrisps.model import SmoothPlusSparse
    from mrisps.reconstruction.recipe import Recipe

__all__ = ["tune"]


def tune(
    recipe_name: Annotated[str, typer.Argument(metavar="RECIPE", help="Name of a recipe, or a recipe file.")],
    data: Annotated[
        list[Path],
        typer.Option(
            "--data",
            metavar="PATH",
            help="Manifest (.toml, see `mrisps manifest`), file or folder: k-space for MRI recipes, clean images for others. "
            "Can be repeated.",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", metavar="FILE.py", help="The new recipe; FILE.png and FILE.tune.jsonl beside it."),
    ],
    root: Annotated[
        Path | None,
        typer.Option("--root", metavar="DIR", help="Folder that the paths of a manifest are below. Default: its own."),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            "--split", metavar="NAME", help="Split of a manifest. Default: all but `test`, which is never used."
        ),
    ] = None,
    contrast: Annotated[
        str | None, typer.Option("--contrast", metavar="NAME", help="Only files of this contrast in a manifest.")
    ] = None,
    files: Annotated[
        int, typer.Option("--files", min=1, metavar="N", help="So many files at most, spread evenly over all of them.")
    ] = 10,
    slices: Annotated[
        str | None,
        typer.Option("--slices", metavar="N|START:STOP", help="Slices of each file. Default: the middle one."),
    ] = None,
    criterion: Annotated[
        str,
        typer.Option(
            "--criterion",
            metavar="reference|held-out",
            help="PSNR against references, or the prediction of acquired k-space that is held out.",
        ),
    ] = "reference",
    method: Annotated[
        str,
        typer.Option(
            "--method",
            metavar="model|grid",
            help="A quadratic model of the score in a trust region, or a coarse-to-fine multiplicative grid.",
        ),
    ] = "model",
    warm_starts: Annotated[
        bool,
        typer.Option(
            "--warm-starts", help="Go on from the coefficients of the recipe's own values. Quicker, and less exact."
        ),
    ] = False,
    crop: Annotated[
        str | None,
        typer.Option("--crop", metavar="HxW", help="Only the central H x W pixels of what is reconstructed."),
    ] = None,
    border: Annotated[
        int, typer.Option("--border", min=0, metavar="N", help="Pixels at every edge that do not count.")
    ] = 0,
    held_out: Annotated[
        float,
        typer.Option("--held-out", metavar="X", help="Fraction of the lines outside the centre that is held out."),
    ] = 0.15,
    max_evaluations: Annotated[
        int, typer.Option("--max-evaluations", min=1, metavar="N", help="Pairs of beta and lam at most.")
    ] = 60,
    tolerance: Annotated[
        float, typer.Option("--tolerance", metavar="DB", help="Stop where no more than this is to be gained (model).")
    ] = 0.01,
    seed: Annotated[int, typer.Option("--seed", min=0, metavar="N", help="Of noise, masks and held-out lines.")] = 0,
    weights: Weights = None,
    device: Device = "cpu",
    changes: SetValues = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the journal FILE.tune.jsonl.")] = False,
    overwrite: Overwrite = False,
    accept_unconverged: AcceptUnconverged = False,
) -> None:
    """Tune beta and lam of a recipe.

    The result is a new recipe, with a card that says what was measured.

    Fully sampled k-space is undersampled with the recipe's mask rule; k-space that is undersampled needs a reference image in
    its file, or `--criterion held-out`. Clean images get the recipe's noise (and blur). Noise and masks are drawn once: all
    candidates see the same. Each candidate is measured with the recipe's own solver settings.

    Written: FILE.py, the recipe; FILE.png, a heat map; FILE.tune.jsonl, a line for every candidate. `kill -9` loses the
    candidate in work at most: --resume goes on.

    Exit code 0: tuned. 1: it failed, or the chosen candidate did not converge on every slice (the recipe is written and its
    card says so). 2: the command is wrong, nothing was done.
    """
    from mrisps.atomic import write_bytes, write_text
    from mrisps.campaign.tune import Journal, digest, read_cases
    from mrisps.campaign.tune import tune as search
    from mrisps.reconstruction.recipe import load_recipe, recipe_source
    from mrisps.reports.figures import to_png, tuning_figure

    with usage_errors():
        recipe = chosen_recipe(recipe_name, changes, load_recipe(recipe_name).task)
    settings = _settings(criterion, crop, border, held_out, seed)
    if method not in ("model", "grid"):
        raise UsageError(f"--method: expected model or grid, got {method!r}")
    if not 0 <= tolerance < math.inf:
        raise UsageError(f"--tolerance: expected a number >= 0, got {tolerance}")
    picture, journal_file = output.with_suffix(".png"), output.with_suffix(".tune.jsonl")
    if output.suffix != ".py":
        raise UsageError(f"{output}: expected a file name ending in .py")
    new_file(output, overwrite)
    if resume and not journal_file.exists():
        raise UsageError(f"--resume: there is no {journal_file}")
    if not resume:
        new_file(journal_file, overwrite)
        new_file(picture, overwrite)
    choice = chosen_slices(slices)
    with usage_errors():
        found = _files(data, recipe.task, root, split, contrast)
    found = _spread(found, files)
    device = checked_device(device)
    chosen = chosen_weights(weights, recipe, recipe_name)
    model, weights_name = chosen.model, chosen.name
    recipe = _with_weights(recipe, recipe_name, model, weights, weights_name)

    cases = read_cases(found, recipe, settings, slices=choice.of, device=device)
    identity = {
        "recipe": recipe.sha256(),
        "weights": model.fingerprint(),
        "data": digest(cases),
        "criterion": settings.criterion,
        "border": str(settings.border),
    }
    note(
        f"{recipe.name}: {len(cases)} slices or images of {len(found)} files, from beta {recipe.beta:g}, lam {recipe.lam:g}"
    )
    n_seen = 0

    def report(evaluation: "Evaluation") -> None:
        nonlocal n_seen
        n_seen += 1
        note(
            f"{n_seen}: beta {evaluation.beta:.4g}, lam {evaluation.lam:.4g}: {evaluation.score:.3f} dB, "
            f"{evaluation.n_converged} of {len(cases)} converged, {evaluation.n_iterations} iterations, "
            f"{evaluation.seconds:.1f} s{', warm start' if evaluation.warm else ''}"
        )

    with (
        Journal(journal_file, identity, resume=resume) as journal,
        memory_errors(device),
        SolverProgress(output.name, recipe.solver.tolerance, quiet=True) as progress,
    ):
        if resume:
            note(f"{journal_file}: {len(journal.evaluations)} candidates are known")
        tuning = search(
            cases,
            model,
            recipe,
            journal,
            method="grid" if method == "grid" else "model",
            warm=warm_starts,
            max_evaluations=max_evaluations,
            tolerance=tolerance,
            report=report,
            progress=progress.update,
        )
    _print(tuning, len(cases))
    tuned = _tuned(output.stem, recipe, tuning, cases, found, settings, method)
    shown = tuning.evaluations
    figure = tuning_figure(
        [e.beta for e in shown], [e.lam for e in shown], [e.score for e in shown], shown.index(tuning.best)
    )
    write_bytes(picture, to_png(figure))
    write_text(output, recipe_source(tuned))
    best, start = tuning.best, tuning.start
    result(
        f"{output}: beta {best.beta:g}, lam {best.lam:g}: {best.score:.3f} dB ({start.score:.3f} dB before), "
        f"{tuning.n_solves} solves"
    )
    if not best.converged:
        note(f"{len(cases) - best.n_converged} of {len(cases)} solves with these values did NOT CONVERGE")
        if not accept_unconverged:
            raise typer.Exit(FAILURE)


def _settings(criterion: str, crop: str | None, border: int, held_out: float, seed: int) -> "TuneSettings":
    from mrisps.campaign.tune import TuneSettings

    kinds: dict[str, Literal["reference", "held-out"]] = {"reference": "reference", "held-out": "held-out"}
    if criterion not in kinds:
        raise UsageError(f"--criterion: expected reference or held-out, got {criterion!r}")
    with usage_errors():
        size = None if crop is None else parse_size(crop, "--crop")
        return TuneSettings(kinds[criterion], size, border, held_out, seed)


def _files(paths: Sequence[Path], task: str, root: Path | None, split: str | None, contrast: str | None) -> list[Path]:
    """The files of manifests, files and folders; those of a manifest are what it says."""
    from mrisps.io.images import IMAGE_SUFFIXES
    from mrisps.io.manifest import Manifest

    suffixes = FOLDER_SUFFIXES if task == "mri" else IMAGE_SUFFIXES
    found: list[Path] = []
    manifests = [path for path in paths if path.suffix.lower() == ".toml"]
    if not manifests:
        for name, value in (("--root", root), ("--split", split), ("--contrast", contrast)):
            if value is not None:
                raise UsageError(f"{name}: is for manifests (.toml)")
    for path in paths:
        if path in manifests:
            chosen = Manifest.read(path).select(split=split, contrast=contrast)
            for status in chosen.verify(path.parent if root is None else root):
                if status.state != "ok":
                    raise FileError(status.path, f"is not what the manifest {path} says: {status.state}")
                found.append(status.path)
        elif path.is_dir():
            inside = sorted(
                child
                for child in path.rglob("*")
                if child.suffix.lower() in suffixes and child.is_file() and not child.name.startswith(".")
            )
            if not inside:
                raise UsageError(f"{path}: is a folder without files ending in {', '.join(suffixes)}")
            found.extend(inside)
        elif path.exists():
            found.append(path)
        else:
            raise UsageError(f"{path}: does not exist")
    return found


def _spread(files: list[Path], at_most: int) -> list[Path]:
    if len(files) <= at_most:
        return files
    return [files[(2 * index + 1) * len(files) // (2 * at_most)] for index in range(at_most)]


def _with_weights(
    recipe: "Recipe", recipe_name: str, model: "SmoothPlusSparse", option: str | None, weights_name: str
) -> "Recipe":
    """The recipe with the weights that it is tuned with, by a name that holds wherever the new file is put."""
    from mrisps.model.shipped import shipped_weights
    from mrisps.reconstruction.recipe import builtin_recipes

    if weights_name == "derived":  # made anew on each machine, and not to the last bit
        return replace(recipe, weights="derived", weights_sha256=None)
    name = weights_name
    if name not in shipped_weights():
        folder = builtin_recipes().get(recipe_name, Path(recipe_name)).parent
        name = str((Path(option) if option is not None else folder / str(recipe.weights)).resolve())
    return replace(recipe, weights=name, weights_sha256=model.fingerprint())


def _print(tuning: "Tuning", n_cases: int) -> None:
    rows = [
        [
            f"{evaluation.beta:.6g}",
            f"{evaluation.lam:.6g}",
            f"{evaluation.score:.3f}",
            f"{evaluation.score - tuning.best.score:+.3f}",
            f"{evaluation.n_converged}/{n_cases}",
            str(evaluation.n_iterations),
            f"{evaluation.seconds:.1f}",
            " ".join(
                word
                for word, holds in (
                    ("warm", evaluation.warm),
                    ("start", evaluation is tuning.start),
                    ("best", evaluation is tuning.best),
                )
                if holds
            ),
        ]
        for evaluation in sorted(tuning.evaluations, key=lambda evaluation: -evaluation.score)
    ]
    columns = ["beta", "lam", "score (dB)", "to the best", "converged", "iterations", "seconds", ""]
    print_table(columns, rows, n_text_columns=0)


def _tuned(
    name: str,
    recipe: "Recipe",
    tuning: "Tuning",
    cases: Sequence["Case"],
    files: Sequence[Path],
    settings: "TuneSettings",
    method: str,
) -> "Recipe":
    from mrisps.reconstruction.recipe import Card

    best = tuning.best
    listed = ", ".join(printable(path.name) for path in files[:4]) + (", ..." if len(files) > 4 else "")
    shape = "x".join(map(str, cases[0].problem.operator.domain_shape[-2:]))
    details = [f"{len(files)} file{'s' if len(files) > 1 else ''} ({listed})", f"first image {shape}"]
    if settings.crop is not None:
        details.append(f"cropped to {settings.crop[0]}x{settings.crop[1]} at most")
    if settings.border:
        details.append(f"without a border of {settings.border}")
    held_out = settings.criterion == "held-out"
    if not held_out:
        details.append("data range: " + ("maximum of each reference" if recipe.task == "mri" else "1"))
    else:
        details.append(f"{settings.held_out_fraction:g} of the lines outside the centre held out")
    unconverged = len(cases) - best.n_converged
    how = (
        f"mrisps tune {recipe.name} from beta {tuning.start.beta:g}, lam {tuning.start.lam:g} ({tuning.start.score:.2f} dB), "
        f"method {method}, {tuning.n_solves} solves, seed {settings.seed}"
        + (f"; {unconverged} of {len(cases)} did not converge" if unconverged else "; all converged")
    )
    card = Card(
        score=round(best.score, 3),
        metric="held-out" if held_out else "PSNR",
        data="; ".join(details),
        n_slices=len(cases),
        date=datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        how=how,
    )
    return replace(
        recipe, name=name, beta=best.beta, lam=best.lam, source=f"mrisps tune, from the recipe {recipe.name}", card=card
    )
