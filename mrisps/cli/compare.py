"""`mrisps compare`: recipes and baselines side by side, on files with references."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mrisps.cli.common import (
    FAILURE,
    UsageError,
    fail,
    make_folder,
    memory_errors,
    note,
    parse_size,
    result,
    usage_errors,
)
from mrisps.cli.evaluate import Border, Crop, DataRangeText, parse_data_range
from mrisps.cli.options import (
    AcceptUnconverged,
    Device,
    Output,
    SetValues,
    SliceNumbers,
    Weights,
    checked_device,
    chosen_recipe,
    chosen_slices,
    chosen_weights,
)
from mrisps.cli.terminal import CountProgress, print_table
from mrisps.errors import MrispsError

if TYPE_CHECKING:
    from mrisps.campaign.methods import Candidate
    from mrisps.quality.baselines import Baseline

__all__ = ["Data", "ManifestContrast", "ManifestRoot", "ManifestSplit", "compare"]

Data = Annotated[
    list[str],
    typer.Option(
        "--data",
        metavar="PATH",
        help="Folder, file or manifest (.toml, or a name, see `mrisps manifest`). Can be given several times.",
    ),
]
ManifestRoot = Annotated[
    Path | None,
    typer.Option("--root", metavar="DIR", help="Folder that the paths of a manifest are below. Default: its own."),
]
ManifestSplit = Annotated[str | None, typer.Option("--split", metavar="NAME", help="Only this split of a manifest.")]
ManifestContrast = Annotated[
    str | None, typer.Option("--contrast", metavar="NAME", help="Only files of this contrast in a manifest.")
]


def compare(
    data: Data,
    recipe_names: Annotated[
        list[str],
        typer.Option(
            "--recipe",
            metavar="[CONTRAST=]NAME|FILE",
            help="A recipe. Several are compared with each other; one with CONTRAST= is for files of that contrast.",
        ),
    ],
    output: Output,
    weights: Weights = None,
    changes: SetValues = None,
    device: Device = "cpu",
    root: ManifestRoot = None,
    split: ManifestSplit = None,
    contrast: ManifestContrast = None,
    include_test: Annotated[
        bool,
        typer.Option(
            "--include-test", help="Also the split `test`, which is held out: for the final measurement only."
        ),
    ] = False,
    slices: SliceNumbers = None,
    data_range: DataRangeText = "target-max",
    crop: Crop = None,
    border: Border = 0,
    baselines: Annotated[
        str,
        typer.Option(
            "--baselines",
            metavar="A,B,...|none",
            help="What the recipes are compared with, of zero-filled, CG-SENSE (several coils only), l1-wavelet, TV.",
        ),
    ] = "zero-filled,CG-SENSE,l1-wavelet,TV",
    tune_on: Annotated[
        list[str] | None,
        typer.Option(
            "--tune-baselines-on",
            metavar="PATH",
            help="Where the weights of the baselines are tuned, once for each contrast and acceleration: as --data. Default: on "
            "slices that are evaluated, to the baselines' advantage.",
        ),
    ] = None,
    tuning_split: Annotated[
        str | None, typer.Option("--tuning-split", metavar="NAME", help="Only this split of the manifest for tuning.")
    ] = None,
    n_tuning_slices: Annotated[
        int, typer.Option("--tuning-slices", min=1, metavar="N", help="Number of slices for tuning.")
    ] = 3,
    tv_iterations: Annotated[
        int, typer.Option("--tv-iterations", min=1, metavar="N", help="Of SigPy's TV, which converges slowly.")
    ] = 1000,
    n_worst: Annotated[
        int, typer.Option("--worst", min=0, metavar="N", help="Number of worst slices of each setting to show.")
    ] = 2,
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
    from mrisps.campaign.sources import sources_of
    from mrisps.quality.evaluation import EvaluationSettings

    with usage_errors():
        choice = chosen_slices(slices)
        settings = EvaluationSettings(
            data_range=parse_data_range(data_range),
            crop=None if crop is None else parse_size(crop, "--crop"),
            border=border,
            baselines=_baselines(baselines, tv_iterations),
            n_tuning_slices=n_tuning_slices,
            n_worst=n_worst,
            slices=(choice.start, choice.stop),
            device=checked_device(device),
        )
        files = sources_of(data, root=root, split=split, contrast=contrast, include_test=include_test)
        tuning = None
        if tune_on is not None:
            tuning = sources_of(tune_on, root=root, split=tuning_split, contrast=contrast)
        elif tuning_split is not None:
            raise UsageError("--tuning-split: needs --tune-baselines-on, too")
        candidates = _candidates(recipe_names, changes, weights)
    make_folder(output)
    with memory_errors(settings.device), CountProgress("scores") as progress:
        found = run_evaluation(files, candidates, settings, output, tuning_files=tuning, say=progress.update)
    from mrisps.reports.evaluation import EvaluationReport

    report = EvaluationReport(found, settings, _provenance(data, candidates))
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
            raise UsageError(
                f"--baselines: expected some of {', '.join(b.name for b in BASELINES)}, or none, got {name!r}"
            )
    return tuple(
        dataclasses.replace(baseline, n_iterations=tv_iterations) if baseline.name == "TV" else baseline
        for name, baseline in known.items()
        if name in names
    )


def _candidates(names: Sequence[str], changes: Sequence[str] | None, chosen: str | None) -> "list[Candidate]":
    from mrisps.campaign.methods import Candidate

    found: list[Candidate] = []
    for text in names:
        contrast, equals, name = text.partition("=")
        if not equals:
            contrast, name = "", text
        recipe = chosen_recipe(name, changes, "mri")
        weights = chosen_weights(chosen, recipe, name)
        label = Path(name).stem if name.endswith(".py") else name
        if any(candidate.label == label for candidate in found):
            raise UsageError(f"--recipe: {label} is there twice")
        found.append(Candidate(label, recipe, weights.model, weights.name, contrast or None))
    return found


def _provenance(data: Sequence[str], candidates: "Sequence[Candidate]") -> dict[str, object]:
    import numpy
    import torch

    from mrisps._version import __version__, code_commit

    software = {
        "mrisps": __version__,
        "commit": code_commit(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
    }
    recipes = {
        candidate.label: {
            "recipe_sha256": candidate.recipe.sha256(),
            "weights": candidate.weights,
            "weights_sha256": candidate.model.fingerprint(),
        }
        for candidate in candidates
    }
    return {"software": software, "data": ", ".join(data), **recipes}
