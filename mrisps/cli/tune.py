"""`mrisps tune`: beta and lam of a recipe, found on reference data."""

import datetime
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mrisps.cli.common import (
    FAILURE,
    UsageError,
    counted,
    memory_errors,
    note,
    parse_size,
    printable,
    result,
    usage_errors,
)
from mrisps.cli.files import new_file
from mrisps.cli.options import (
    AcceptUnconverged,
    DataOptions,
    ModelOptions,
    Overwrite,
    chosen_slices,
    option,
)
from mrisps.cli.terminal import SolverProgress, print_table

if TYPE_CHECKING:
    from mrisps.campaign.cases import Case, TuneSettings
    from mrisps.campaign.sources import SourceFile
    from mrisps.campaign.tune import Trial, Tuning
    from mrisps.model import SmoothPlusSparse
    from mrisps.reconstruction.recipe import Recipe

__all__ = ["tune"]


def tune(
    recipe_name: Annotated[str, typer.Argument(metavar="RECIPE", help="Name of a recipe, or a recipe file.")],
    data: DataOptions,
    options: ModelOptions,
    output: Annotated[Path, option("--output FILE.py", "The new recipe; FILE.png and FILE.tune.jsonl beside it.")],
    n_files: Annotated[int, option("--files N", "At most N files, spread evenly over all of them.", least=1)] = 10,
    slices: Annotated[
        str | None, option("--slices N|START:STOP", "Slices of each file. Default: the middle one.")
    ] = None,
    criterion: Annotated[
        str,
        option(
            "--criterion reference|held-out",
            "PSNR against references, or the prediction of acquired k-space that is held out.",
        ),
    ] = "reference",
    crop: Annotated[str | None, option("--crop HxW", "Only the central H x W pixels of what is reconstructed.")] = None,
    border: Annotated[int, option("--border N", "Pixels at every edge that do not count.", least=0)] = 0,
    held_out: Annotated[
        float, option("--held-out X", "Fraction of the lines outside the centre that is held out.")
    ] = 0.15,
    max_evaluations: Annotated[int, option("--max-evaluations N", "Pairs of beta and lam at most.", least=1)] = 60,
    tolerance: Annotated[float, option("--tolerance DB", "Stop where no more than this is to be gained.")] = 0.01,
    seed: Annotated[int, option("--seed N", "Of noise, masks and held-out lines.", least=0)] = 0,
    resume: Annotated[bool, option("--resume", "Go on with the journal FILE.tune.jsonl.")] = False,
    overwrite: Overwrite = False,
    accept_unconverged: AcceptUnconverged = False,
) -> None:
    """Tune beta and lam of a recipe.

    The result is a new recipe, with a card that says what was measured.

    Fully sampled k-space is undersampled with the recipe's mask rule; k-space that is undersampled needs a reference image in
    its file, or `--criterion held-out`. Clean images get the recipe's noise (and blur). Noise and masks are drawn once: all
    candidates see the same. Each candidate is measured with the recipe's own solver settings.

    Written: FILE.py, the recipe; FILE.png, a heat map; FILE.tune.jsonl, a line for every solve. `kill -9` loses the solve in work
    at most: --resume goes on. The split `test` of a manifest is never used.

    Exit code 0: tuned. 1: it failed, or the chosen candidate did not converge on every slice (the recipe is written and its
    card says so). 2: the command is wrong, nothing was done.
    """
    from mrisps.atomic import write_bytes, write_text
    from mrisps.campaign.cases import TuneSettings, read_cases
    from mrisps.campaign.sources import spread
    from mrisps.campaign.tune import open_journal
    from mrisps.campaign.tune import tune as search
    from mrisps.io.images import IMAGE_SUFFIXES
    from mrisps.reconstruction.recipe import recipe_source
    from mrisps.reports.figures import to_png, tuning_figure

    recipe = options.recipe(recipe_name)
    with usage_errors("criterion"):
        size = None if crop is None else parse_size(crop, "--crop")
        settings = TuneSettings(criterion, size, border, held_out, seed)  # type: ignore[arg-type]  # checked there
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
    choice = None if slices is None else chosen_slices(slices)
    with usage_errors():
        files = spread(data.sources(() if recipe.task == "mri" else IMAGE_SUFFIXES), n_files)
    device = options.checked_device()
    found = options.weights_of(recipe, recipe_name)
    model = found.model
    recipe = _with_weights(recipe, recipe_name, model, options.weights, found.name)

    cases = read_cases(files, recipe, settings, slices=choice, device=device)
    note(f"{recipe.name}: {len(cases)} slices or images, from beta {recipe.beta:g}, lam {recipe.lam:g}")
    n_seen = 0
    with (
        open_journal(journal_file, resume=resume) as journal,
        memory_errors(device),
        SolverProgress(output.name, recipe.solver.tolerance) as progress,
    ):

        def report(trial: "Trial") -> None:
            nonlocal n_seen
            n_seen += 1
            progress.say(
                f"{n_seen}: beta {trial.beta:.4g}, lam {trial.lam:.4g}: {trial.score:.3f} dB, "
                f"{trial.n_finished} of {len(cases)} finished, {trial.n_iterations} iterations, {trial.seconds:.1f} s"
            )

        if resume:
            note(f"{journal_file}: has {len(journal.records)} solves")
        tuning = search(
            cases,
            model,
            recipe,
            journal,
            max_evaluations=max_evaluations,
            tolerance=tolerance,
            report=report,
            progress=progress.update,
        )
    _print(tuning, len(cases))
    trials = tuning.trials
    figure = tuning_figure(
        [t.beta for t in trials], [t.lam for t in trials], [t.score for t in trials], trials.index(tuning.best)
    )
    write_bytes(picture, to_png(figure))
    write_text(output, recipe_source(_tuned(output.stem, recipe, tuning, cases, files, settings)))
    best, start = tuning.best, tuning.start
    result(
        f"{output}: beta {best.beta:g}, lam {best.lam:g}: {best.score:.3f} dB ({start.score:.3f} dB before), "
        f"{tuning.n_solves} solves"
    )
    if not best.finished:
        note(f"{len(cases) - best.n_finished} of {len(cases)} solves with these values did NOT CONVERGE")
        if not accept_unconverged:
            raise typer.Exit(FAILURE)


def _with_weights(
    recipe: "Recipe", recipe_name: str, model: "SmoothPlusSparse", given: str | None, weights_name: str
) -> "Recipe":
    """The recipe with the weights that it is tuned with, by a name that holds wherever the new file is put."""
    from mrisps.model.shipped import shipped_weights
    from mrisps.reconstruction.recipe import builtin_recipes

    if weights_name == "derived":  # made anew on each machine, and not to the last bit
        return replace(recipe, weights="derived", weights_sha256=None)
    name = weights_name
    if name not in shipped_weights():
        folder = builtin_recipes().get(recipe_name, Path(recipe_name)).parent
        name = str((Path(given) if given is not None else folder / str(recipe.weights)).resolve())
    return replace(recipe, weights=name, weights_sha256=model.fingerprint())


def _print(tuning: "Tuning", n_cases: int) -> None:
    rows = [
        [
            f"{trial.beta:.6g}",
            f"{trial.lam:.6g}",
            f"{trial.score:.3f}",
            f"{trial.score - tuning.best.score:+.3f}",
            f"{trial.n_finished}/{n_cases}",
            str(trial.n_iterations),
            f"{trial.seconds:.1f}",
            " ".join(word for word, which in (("start", tuning.start), ("best", tuning.best)) if trial is which),
        ]
        for trial in sorted(tuning.trials, key=lambda trial: -trial.score)
    ]
    columns = ["beta", "lam", "score (dB)", "to the best", "finished", "iterations", "seconds", ""]
    print_table(columns, rows, n_text_columns=0)


def _tuned(
    name: str,
    recipe: "Recipe",
    tuning: "Tuning",
    cases: "Sequence[Case]",
    files: "Sequence[SourceFile]",
    settings: "TuneSettings",
) -> "Recipe":
    """The new recipe, with its card."""
    from mrisps.reconstruction.recipe import Card

    best, start = tuning.best, tuning.start
    listed = ", ".join(printable(source.path.name) for source in files[:4]) + (", ..." if len(files) > 4 else "")
    shape = "x".join(map(str, cases[0].problem.operator.domain_shape[-2:]))
    details = [f"{counted(len(files), 'file')} ({listed})", f"first image {shape}"]
    if settings.crop is not None:
        details.append(f"cropped to {settings.crop[0]}x{settings.crop[1]} at most")
    if settings.border:
        details.append(f"without a border of {settings.border}")
    held_out = settings.criterion == "held-out"
    if held_out:
        details.append(f"{settings.held_out_fraction:g} of the lines outside the centre held out")
    else:
        details.append("data range: " + ("maximum of each reference" if recipe.task == "mri" else "1"))
    missed = len(cases) - best.n_finished
    state = f"{missed} of {len(cases)} did not converge" if missed else "all finished"
    before = f"beta {start.beta:g}, lam {start.lam:g} ({start.score:.2f} dB)"
    card = Card(
        score=round(best.score, 3),
        metric="held-out" if held_out else "PSNR",
        data="; ".join(details),
        n_slices=len(cases),
        date=datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        how=f"mrisps tune {recipe.name} from {before}, {tuning.n_solves} solves, seed {settings.seed}; {state}",
    )
    source = f"mrisps tune, from the recipe {recipe.name}"
    return replace(recipe, name=name, beta=best.beta, lam=best.lam, regularisation=None, source=source, card=card)
