"""`mrisps compare`: recipes and baselines side by side, on files with references."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mrisps.cli.common import FAILURE, UsageError, counted, fail, memory_errors, note, result, usage_errors
from mrisps.cli.evaluate import CompareOptions
from mrisps.cli.files import make_folder
from mrisps.cli.options import (
    AcceptUnconverged,
    DataOptions,
    IncludeTest,
    ModelOptions,
    Output,
    SliceNumbers,
    chosen_slices,
    option,
)
from mrisps.cli.terminal import Display, print_table
from mrisps.errors import MrispsError

if TYPE_CHECKING:
    from mrisps.campaign.methods import Candidate
    from mrisps.quality.baselines import Baseline

__all__ = ["compare"]


def compare(
    files: DataOptions,
    recipe_names: Annotated[
        list[str],
        option(
            "--recipe [CONTRAST=]NAME|FILE",
            "A recipe. Several are compared with each other; one with CONTRAST= is for files of that contrast.",
        ),
    ],
    output: Output,
    compared: CompareOptions,
    options: ModelOptions,
    include_test: IncludeTest = False,
    slices: SliceNumbers = None,
    baselines: Annotated[
        str,
        option(
            "--baselines A,B,...|none",
            "What the recipes are compared with, of zero-filled, CG-SENSE (several coils only), l1-wavelet, TV.",
        ),
    ] = "zero-filled,CG-SENSE,l1-wavelet,TV",
    tune_on: Annotated[
        list[str] | None,
        option(
            "--tune-baselines-on PATH",
            "Where the weights of the baselines are tuned, once for each contrast and acceleration: as --data. Default: on "
            "slices that are evaluated, to the baselines' advantage.",
        ),
    ] = None,
    tuning_split: Annotated[
        str | None, option("--tuning-split NAME", "Only this split of the manifest for tuning.")
    ] = None,
    n_tuning_slices: Annotated[int, option("--tuning-slices N", "Number of slices for tuning.", least=1)] = 3,
    tv_iterations: Annotated[
        int, option("--tv-iterations N", "Of SigPy's TV, which converges slowly.", least=1)
    ] = 1000,
    n_worst: Annotated[int, option("--worst N", "Number of worst slices of each setting to show.", least=0)] = 2,
    accept_unconverged: AcceptUnconverged = False,
) -> None:
    """Compare recipes and other methods with references.

    Every slice that has a reference is reconstructed with each recipe and each baseline, and judged by PSNR, SSIM and NMSE in
    fastMRI's definitions. Fully sampled files are undersampled with the recipe's mask rule, others taken as they are. Written to
    DIR: index.html, summary.json, volumes.csv, slices.csv, box plots; journal.jsonl, from which a run that was stopped goes on
    and in which nothing is computed twice. A file that fails does not stop the others.

    Exit code 0: done. 1: a file failed, or a slice of a recipe did not converge. 2: the command is wrong, nothing was done.
    """
    from mrisps.atomic import write_bytes
    from mrisps.campaign.evaluate import run_evaluation
    from mrisps.quality.evaluation import EvaluationSettings

    with usage_errors():
        choice = chosen_slices(slices)
        settings = EvaluationSettings(
            data_range=compared.peak(),
            crop=compared.size(),
            border=compared.border,
            baselines=_baselines(baselines, tv_iterations),
            n_tuning_slices=n_tuning_slices,
            n_worst=n_worst,
            slices=(choice.start, choice.stop),
            device=options.checked_device(),
        )
        sources = files.sources(include_test=include_test)
        tuning = None
        if tune_on is not None:
            tuning = dataclasses.replace(files, data=tune_on, split=tuning_split).sources()
        elif tuning_split is not None:
            raise UsageError("--tuning-split: needs --tune-baselines-on, too")
        candidates = _candidates(recipe_names, options)
    make_folder(output)
    names = ", ".join(candidate.label for candidate in candidates)
    note(f"{counted(len(sources), 'file')}, recipes {names}, on {settings.device}")
    with memory_errors(settings.device), Display() as display:

        def say(done: int, total: int, line: str) -> None:
            display.say(f"[{done}/{total}] {line}")
            if display.is_drawn:
                display.show("scores", f"{done} of {total}", done, total or None)

        found = run_evaluation(sources, candidates, settings, output, tuning_files=tuning, say=say)
    from mrisps.reports.evaluation import EvaluationReport

    report = EvaluationReport(found, settings, _provenance(files.data, candidates))
    for name, content in report.files().items():
        write_bytes(output / name, content)
    columns, cells = report.table()
    if cells:
        print_table(columns, cells, n_text_columns=2)
    for line in found.failures:
        fail(MrispsError(line))
    for line in (*found.skipped, *report.notes):
        note(f"note: {line}")
    result(str(output / "index.html"))
    if not cells:
        raise MrispsError("nothing could be evaluated")
    if found.failures or (report.n_unconverged and not accept_unconverged):
        raise typer.Exit(FAILURE)


def _baselines(text: str, tv_iterations: int) -> "tuple[Baseline, ...]":
    from mrisps.quality.baselines import BASELINES

    names = [] if text == "none" else [name.strip().lower() for name in text.split(",")]
    known = {baseline.name.lower(): baseline for baseline in BASELINES}
    for name in names:
        if name not in known:
            listed = ", ".join(baseline.name for baseline in BASELINES)
            raise UsageError(f"--baselines: expected some of {listed}, or none, got {name!r}")
    chosen = [baseline for name, baseline in known.items() if name in names]
    return tuple(dataclasses.replace(b, n_iterations=tv_iterations) if b.name == "TV" else b for b in chosen)


def _candidates(names: Sequence[str], options: ModelOptions) -> "list[Candidate]":
    from mrisps.campaign.methods import Candidate

    found: list[Candidate] = []
    for text in names:
        contrast, equals, name = text.partition("=")
        if not equals:
            contrast, name = "", text
        recipe = options.recipe(name, "mri")
        weights = options.weights_of(recipe, name)
        label = Path(name).stem if name.endswith(".py") else name
        if any(candidate.label == label for candidate in found):
            raise UsageError(f"--recipe: {label} is there twice")
        found.append(Candidate(label, recipe, weights.model, weights.name, contrast or None))
    return found


def _provenance(data: Sequence[str], candidates: "Sequence[Candidate]") -> dict[str, object]:
    from mrisps.reconstruction.run import software

    recipes = {
        candidate.label: {
            "recipe_sha256": candidate.recipe.sha256(),
            "weights": candidate.weights,
            "weights_sha256": candidate.model.fingerprint(),
        }
        for candidate in candidates
    }
    return {"software": software(), "data": ", ".join(data), **recipes}
