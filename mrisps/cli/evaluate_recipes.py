"""The second form of `mrisps evaluate`: recipes and baselines on files with references."""

import dataclasses
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import typer

from mrisps.cli.common import (
    FAILURE,
    UsageError,
    fail,
    make_folder,
    memory_errors,
    note,
    printable,
    result,
    usage_errors,
)
from mrisps.cli.options import checked_device, chosen_recipe, chosen_slices, chosen_weights, input_files
from mrisps.cli.recon import FOLDER_SUFFIXES
from mrisps.cli.terminal import print_table
from mrisps.errors import MrispsError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from mrisps.campaign.evaluate import Candidate, EvaluationFile, EvaluationResult
    from mrisps.quality.baselines import Baseline
    from mrisps.quality.metrics import DataRange
    from mrisps.quality.scores import Setting, SettingScore
    from mrisps.reports.evaluation import EvaluationContent, MethodRow

__all__ = ["RecipeRun", "evaluate_recipes"]

N_PROXY_PARTS = 4
PROXY_NAMES = ("held_out_kspace_error", "held_out_share", "spread")


@dataclass(frozen=True)
class RecipeRun:
    """What was asked for, as on the command line."""

    data: str
    recipe_names: tuple[str, ...]
    output: Path
    data_range: "DataRange"
    crop: tuple[int, int] | None
    border: int
    weights: str | None
    changes: tuple[str, ...]
    device: str
    root: Path | None
    split: str | None
    contrast: str | None
    include_test: bool
    slices: str | None
    baselines: str
    tune_on: str | None
    tuning_split: str | None
    n_tuning_slices: int
    tv_iterations: int
    proxies: bool
    n_worst: int
    accept_unconverged: bool


def evaluate_recipes(asked: RecipeRun) -> None:
    """Run, print the table, write the results.

    Raises
    ------
    UsageError
        The command is wrong.
    Exit
        A file failed, or a slice did not converge.
    """
    from mrisps.campaign.evaluate import EvaluationSettings, run_evaluation

    with usage_errors():
        if asked.tv_iterations < 1:
            raise UsageError(f"--tv-iterations: expected at least 1, got {asked.tv_iterations}")
        choice = chosen_slices(asked.slices)
        settings = EvaluationSettings(
            data_range=asked.data_range,
            crop=asked.crop,
            border=asked.border,
            baselines=_baselines(asked.baselines, asked.tv_iterations),
            n_tuning_slices=asked.n_tuning_slices,
            n_worst=asked.n_worst,
            n_proxy_parts=N_PROXY_PARTS if asked.proxies else 0,
            slices=None if choice is None else (choice.start, choice.stop),
            device=checked_device(asked.device),
        )
        files = _files(asked.data, asked.root, asked.split, asked.contrast, asked.include_test)
        tuning = None
        if asked.tune_on is not None:
            tuning = _files(asked.tune_on, asked.root, asked.tuning_split, asked.contrast, False)
        elif asked.tuning_split is not None:
            raise UsageError("--tuning-split: needs --tune-baselines-on, too")
        candidates = _candidates(asked)
    make_folder(asked.output)
    with memory_errors(settings.device), _Lines() as lines:
        found = run_evaluation(files, candidates, settings, asked.output, tuning_files=tuning, progress=lines.update)
    rows = _rows(found, candidates)
    content = _content(found, rows, asked, candidates)
    _write(asked.output, content, found)
    from mrisps.reports.evaluation import table_of

    columns, cells = table_of(content.rows)
    if cells:
        print_table(columns, cells, n_text_columns=2)
    for line in found.failures:
        fail(MrispsError(line))
    for line in (*found.skipped, *content.notes):
        note(f"note: {line}")
    n_unconverged = sum(row.n_unconverged for row in rows)
    result(str(asked.output / "index.html"))
    if not cells:
        raise MrispsError("nothing could be evaluated")
    if found.failures or (n_unconverged and not asked.accept_unconverged):
        raise typer.Exit(FAILURE)


# ------------------------------------------------------------------------------------------------------------ reading


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


def _files(
    data: str, root: Path | None, split: str | None, contrast: str | None, include_test: bool
) -> "list[EvaluationFile]":
    """The files of a manifest, held-out ones only if asked for; or those of a folder."""
    from mrisps.campaign.evaluate import EvaluationFile
    from mrisps.io.manifest import Manifest, builtin_manifests

    path = builtin_manifests().get(data, Path(data))
    if path.suffix == ".toml":
        manifest = Manifest.read(path).select(split=split, contrast=contrast, include_test=include_test)
        folder = path.parent if root is None else root
        return [
            EvaluationFile(folder / file.path, file.path, file.patient, file.contrast, file.acceleration, file.sha256)
            for file in manifest.files
        ]
    for option, given in (("--split", split), ("--contrast", contrast), ("--include-test", include_test or None)):
        if given is not None:
            raise UsageError(f"{option}: is for manifests, and {data} is none")
    return [EvaluationFile(file, file.name) for file in input_files([path], FOLDER_SUFFIXES)]


def _candidates(asked: RecipeRun) -> "list[Candidate]":
    from mrisps.campaign.evaluate import Candidate

    found: list[Candidate] = []
    for text in asked.recipe_names:
        contrast, equals, name = text.partition("=")
        if not equals:
            contrast, name = "", text
        recipe = chosen_recipe(name, asked.changes, "mri")
        weights = chosen_weights(asked.weights, recipe, name)
        label = Path(name).stem if name.endswith(".py") else name
        if any(candidate.label == label for candidate in found):
            raise UsageError(f"--recipe: {label} is there twice")
        found.append(Candidate(label, recipe, weights.model, weights.name, contrast or None))
    return found


# ------------------------------------------------------------------------------------------------------------ writing


def _rows(found: "EvaluationResult", candidates: "Sequence[Candidate]") -> "list[MethodRow]":
    from mrisps.quality.scores import complete_slices, score_settings
    from mrisps.reports.evaluation import MethodRow

    labels = {candidate.label for candidate in candidates}

    def row(score: "SettingScore") -> MethodRow:
        return MethodRow(
            setting=str(score.setting),
            method=score.method if score.weight is None else f"{score.method} ({score.weight:.3g})",
            is_recipe=score.method in labels,
            n_patients=score.n_patients,
            n_volumes=score.n_volumes,
            n_slices=score.n_slices,
            n_unconverged=score.n_unconverged,
            mean=score.mean,
            interval=score.interval,
            gain=score.gain,
            gain_interval=score.gain_interval,
            seconds=score.seconds,
        )

    complete = complete_slices(found.scores, found.methods)
    return [row(score) for score in score_settings(complete, found.methods, found.reference)]


def _content(
    found: "EvaluationResult", rows: "list[MethodRow]", asked: RecipeRun, candidates: "Sequence[Candidate]"
) -> "EvaluationContent":
    import numpy
    import torch

    from mrisps._version import __version__
    from mrisps.quality.scores import METRICS, complete_slices, score_volumes
    from mrisps.reports.evaluation import Boxes, EvaluationContent, WorstImage

    labels = {candidate.label for candidate in candidates}
    complete = complete_slices(found.scores, found.methods)
    boxes = []
    for setting, methods in found.methods.items():
        groups = [[s for s in complete if s.setting == setting and s.method == method] for method in methods]
        if any(groups):
            values = {name: [[float(getattr(s, name)) for s in group] for group in groups] for name in METRICS}
            boxes.append(Boxes(str(setting), methods, tuple(method in labels for method in methods), values))
    notes = list(found.notes)
    if len(complete) < len(found.scores):
        notes.append(
            f"{len(found.scores) - len(complete)} scores are of slices on which another method failed: they are in slices.csv, "
            "and not in the averages"
        )
    if any(tuned.on_evaluated for tuned in found.tuned):
        notes.append(
            "the weights of the baselines were tuned on slices that are evaluated here, to the baselines' advantage"
        )
    notes += [
        f"{tuned.method}, {tuned.setting}: the best weight, {tuned.weight:.3g}, is at the end of those that were tried"
        for tuned in found.tuned
        if tuned.at_edge
    ]
    tables: dict[str, tuple[tuple[str, ...], Sequence[tuple[str, ...]], int]] = {}
    if found.proxies:
        tables["Error proxies: rank correlation with the true error"] = _proxy_table(found)
    if found.tuned:
        tables["Baselines: tuning"] = (
            ("setting", "method", "weight", "tried: weight (PSNR)", "on"),
            [
                (
                    str(tuned.setting),
                    tuned.method,
                    f"{tuned.weight:.3g}",
                    ", ".join(f"{weight:.3g} ({value:.2f})" for weight, value in tuned.tried),
                    "; ".join(tuned.slices),
                )
                for tuned in found.tuned
            ],
            5,
        )
    tables["Volumes"] = (
        ("setting", "method", "file", "patient", "slices", "PSNR (dB)", "SSIM", "NMSE"),
        [
            (
                *(str(v.setting), v.method, v.file, v.patient, str(v.n_slices)),
                *(f"{v.psnr:.3f}", f"{v.ssim:.5f}", f"{v.nmse:.6f}"),
            )
            for v in score_volumes(found.scores)
        ],
        4,
    )
    tables["Slices"] = (
        ("setting", "method", "file", "slice", "R", "PSNR (dB)", "SSIM", "NMSE", "seconds", "status"),
        [
            (
                *(str(s.setting), s.method, s.file, str(s.slice_index), f"{s.realised_acceleration:.2f}"),
                *(f"{s.psnr:.3f}", f"{s.ssim:.5f}", f"{s.nmse:.6f}", f"{s.seconds:.2f}", s.status),
            )
            for s in found.scores
        ],
        3,
    )
    peak = "the maximum of each volume's reference" if asked.data_range == "target-max" else f"{asked.data_range:g}"
    crop = (
        "the central square as wide as the reference"
        if asked.crop is None
        else f"the central {asked.crop[0]} x {asked.crop[1]}"
    )
    edge = f" without {asked.border} pixels at every edge" if asked.border else ""
    return EvaluationContent(
        rows=rows,
        boxes=boxes,
        worst=[
            WorstImage(
                f"{case.score.file}, slice {case.score.slice_index}, {case.score.setting}: {case.score.method}, "
                f"PSNR {case.score.psnr:.2f} dB, SSIM {case.score.ssim:.4f}, NMSE {case.score.nmse:.5f}",
                case.image,
                case.reference,
            )
            for case in found.worst
        ],
        tables=tables,
        failures=found.failures,
        skipped=found.skipped,
        notes=notes,
        compared=f"Peak for PSNR and SSIM: {peak}. Compared: {crop}{edge}.",
        provenance={
            "software": {"mrisps": __version__, "torch": torch.__version__, "numpy": numpy.__version__},
            "data": asked.data,
            **{
                candidate.label: {
                    "recipe_sha256": candidate.recipe.sha256(),
                    "weights": candidate.weights,
                    "weights_sha256": candidate.model.fingerprint(),
                }
                for candidate in candidates
            },
        },
    )


def _proxy_table(found: "EvaluationResult") -> tuple[tuple[str, ...], list[tuple[str, ...]], int]:
    columns = ("setting", "method", "slices", *(name.replace("_", " ") for name in PROXY_NAMES))
    return (
        columns,
        [
            (str(setting), method, str(n), *(f"{values[name]:.3f}" for name in PROXY_NAMES))
            for (setting, method), (n, values) in _correlations(found).items()
        ],
        2,
    )


def _correlations(found: "EvaluationResult") -> "dict[tuple[Setting, str], tuple[int, Mapping[str, float]]]":
    """Spearman's rank correlation of each proxy with the NMSE."""
    from mrisps.quality.scores import spearman

    groups: dict[tuple[Setting, str], list[int]] = {}
    for index, proxy in enumerate(found.proxies):
        if not math.isnan(proxy.nmse):
            groups.setdefault((proxy.setting, proxy.method), []).append(index)
    correlations: dict[tuple[Setting, str], tuple[int, Mapping[str, float]]] = {}
    for key, indices in groups.items():
        chosen = [found.proxies[index] for index in indices]
        errors = [proxy.nmse for proxy in chosen]
        correlations[key] = (
            len(chosen),
            {name: spearman([float(getattr(proxy, name)) for proxy in chosen], errors) for name in PROXY_NAMES},
        )
    return correlations


def _write(folder: Path, content: "EvaluationContent", found: "EvaluationResult") -> None:
    from mrisps.atomic import write_bytes, write_text
    from mrisps.reports.evaluation import box_plot, csv_text, evaluation_report
    from mrisps.reports.html import render

    for name in ("Volumes", "Slices"):
        columns, lines, _ = content.tables[name]
        write_text(folder / f"{name.lower()}.csv", csv_text(columns, lines))
    for number, boxes in enumerate(content.boxes, start=1):
        write_bytes(folder / f"boxplot_{number}.png", box_plot(boxes))
    summary = {
        "settings": [dataclasses.asdict(row) for row in content.rows],
        "baselines": [dataclasses.asdict(tuned) for tuned in found.tuned],
        "error_proxies": [
            {"setting": str(setting), "method": method, "n_slices": n, "spearman_with_nmse": values}
            for (setting, method), (n, values) in _correlations(found).items()
        ],
        "failures": content.failures,
        "left_out": content.skipped,
        "notes": content.notes,
        "compared": content.compared,
        "provenance": content.provenance,
    }
    write_text(folder / "summary.json", json.dumps(_finite(summary), indent=2, allow_nan=False) + "\n")
    write_text(folder / "index.html", render(evaluation_report(content)))


def _finite(value: object) -> object:
    """The same with null for numbers that are not finite, which JSON does not have."""
    if isinstance(value, Mapping):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class _Lines:
    """A line for each slice that is done; on a terminal a bar with the time that is left instead."""

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> "_Lines":
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self._bar = Progress(
                TextColumn("slices"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.description}", markup=False),
                console=Console(stderr=True),
                transient=True,
                refresh_per_second=4,
            )
            self._bar.start()
            self._task = self._bar.add_task("", total=None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, done: int, total: int, line: str) -> None:
        """Show what was just done."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, total=total or None, description=printable(line))
        else:
            note(f"[{done}/{total}] {line}")
