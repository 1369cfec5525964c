"""`mrisps evaluate`: image quality against a reference, of images that there are, or of recipes on files with references."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mrisps.cli.common import UsageError, new_file, note, parse_size
from mrisps.cli.evaluate_recipes import RecipeRun, evaluate_recipes
from mrisps.cli.options import AcceptUnconverged, Device, Overwrite, SetValues, Weights
from mrisps.cli.terminal import print_table

if TYPE_CHECKING:
    from mrisps.quality.metrics import DataRange

__all__ = ["evaluate"]

_RUN_ONLY = (
    *("recipe_names", "output", "weights", "changes", "device", "root", "split", "contrast", "include_test", "slices"),
    *(
        "baselines",
        "tune_on",
        "tuning_split",
        "n_tuning_slices",
        "tv_iterations",
        "proxies",
        "n_worst",
        "accept_unconverged",
    ),
)
_COMPARISON_ONLY = ("json_file", "overwrite")


def evaluate(
    context: typer.Context,
    prediction: Annotated[
        Path | None, typer.Argument(metavar="PRED", help="File, or folder of files, to be judged.", show_default=False)
    ] = None,
    target: Annotated[
        Path | None,
        typer.Argument(
            metavar="TARGET",
            help="File with the reference, or folder of files of the same names.",
            show_default=False,
        ),
    ] = None,
    data_range: Annotated[
        str,
        typer.Option(
            "--data-range",
            metavar="X|target-max",
            help="Peak value for PSNR and SSIM: a number in the units of the images, or `target-max`, the maximum of each "
            "target volume (fastMRI's rule).",
        ),
    ] = "target-max",
    crop: Annotated[
        str | None,
        typer.Option(
            "--crop",
            metavar="HxW",
            help="Compare the central H x W pixels. Default: for HDF5 the square as wide as the target (fastMRI's rule), "
            "for images all of it.",
        ),
    ] = None,
    border: Annotated[
        int, typer.Option("--border", metavar="N", help="Leave out N pixels at every edge, after cropping.")
    ] = 0,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="PRED TARGET: also write the numbers as JSON.")
    ] = None,
    overwrite: Overwrite = False,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="MANIFEST|FOLDER",
            help="Evaluate recipes on these files: a manifest (.toml, or a name, see `mrisps manifest`), or a folder.",
        ),
    ] = None,
    recipe_names: Annotated[
        list[str] | None,
        typer.Option(
            "--recipe",
            metavar="[CONTRAST=]NAME|FILE",
            help="--data: a recipe. Several are compared with each other; one with CONTRAST= is for files of that contrast.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", metavar="DIR", help="--data: folder for the results; a run goes on where it was stopped."
        ),
    ] = None,
    weights: Weights = None,
    changes: SetValues = None,
    device: Device = "cpu",
    root: Annotated[
        Path | None,
        typer.Option(
            "--root", metavar="DIR", help="--data: folder that the paths of a manifest are below. Default: its own."
        ),
    ] = None,
    split: Annotated[
        str | None, typer.Option("--split", metavar="NAME", help="--data: only this split of the manifest.")
    ] = None,
    contrast: Annotated[
        str | None, typer.Option("--contrast", metavar="NAME", help="--data: only this contrast of the manifest.")
    ] = None,
    include_test: Annotated[
        bool,
        typer.Option(
            "--include-test", help="--data: also the split `test`, which is held out: for the final measurement only."
        ),
    ] = False,
    slices: Annotated[
        str | None,
        typer.Option(
            "--slices", metavar="N|START:STOP", help="--data: only these slices of every file, counted from 0."
        ),
    ] = None,
    baselines: Annotated[
        str,
        typer.Option(
            "--baselines",
            metavar="A,B,...|none",
            help="--data: what the recipes are compared with, of zero-filled, CG-SENSE (several coils only), l1-wavelet, TV.",
        ),
    ] = "zero-filled,CG-SENSE,l1-wavelet,TV",
    tune_on: Annotated[
        str | None,
        typer.Option(
            "--tune-baselines-on",
            metavar="MANIFEST|FOLDER",
            help="--data: where the weights of the baselines are tuned, once for each contrast and acceleration. Default: on "
            "slices that are evaluated, to the baselines' advantage.",
        ),
    ] = None,
    tuning_split: Annotated[
        str | None,
        typer.Option("--tuning-split", metavar="NAME", help="--data: only this split of the manifest for tuning."),
    ] = None,
    n_tuning_slices: Annotated[
        int, typer.Option("--tuning-slices", metavar="N", help="--data: tune on so many slices.")
    ] = 3,
    tv_iterations: Annotated[
        int, typer.Option("--tv-iterations", metavar="N", help="--data: of SigPy's TV, which converges slowly.")
    ] = 1000,
    proxies: Annotated[
        bool,
        typer.Option(
            "--error-proxies",
            help="--data: also estimate the error without the reference (4 more reconstructions a slice), and report how the "
            "estimates correlate with the true error.",
        ),
    ] = False,
    n_worst: Annotated[
        int, typer.Option("--worst", metavar="N", help="--data: show so many of the worst slices of each setting.")
    ] = 2,
    accept_unconverged: AcceptUnconverged = False,
) -> None:
    """Measure image quality against references.

    PSNR (dB), SSIM and NMSE in fastMRI's definitions, in two forms.

    `mrisps evaluate PRED TARGET` compares images that there are: `reconstruction` of PRED against `reconstruction_esc` or
    `reconstruction_rss` of TARGET for HDF5 files, where a volume has one PSNR and one NMSE, and the mean SSIM of its slices;
    PNG, TIFF and NPY files are grey images. The last line is the mean over files. With the default options the numbers are
    those of fastmri.evaluate.

    `mrisps evaluate --data MANIFEST|FOLDER --recipe NAME --output DIR` reconstructs every slice that has a reference, with
    one or several recipes and with the methods of others, and compares. Fully sampled files are undersampled with the
    recipe's mask rule, others taken as they are. Written to DIR: index.html, summary.json, volumes.csv, slices.csv, box plots;
    journal.jsonl, from which a run that was stopped goes on and in which nothing is computed twice. A file that fails does not
    stop the others.

    Exit code 0: done. 1: a file failed, or a slice of a recipe did not converge. 2: the command is wrong, nothing was done.
    """
    peak: DataRange = "target-max"
    if data_range != "target-max":
        try:
            peak = float(data_range)
        except ValueError:
            peak = math.nan
        if not 0 < peak < math.inf:
            raise UsageError(f"--data-range: expected a positive number or target-max, got {data_range!r}")
    if border < 0:
        raise UsageError(f"--border: expected a number of at least 0, got {border}")
    size = None if crop is None else parse_size(crop, "--crop")
    if data is None:
        if prediction is None or target is None:
            raise UsageError("expected PRED and TARGET, or --data with --recipe and --output")
        _refuse(context, _RUN_ONLY, "is for --data")
        _compare(prediction, target, peak, size, border, json_file, overwrite)
        return
    if prediction is not None:
        raise UsageError(f"--data: reconstructs its files itself; leave out {prediction}, or --data")
    _refuse(context, _COMPARISON_ONLY, "is for PRED TARGET, not for --data")
    if not recipe_names or output is None:
        raise UsageError("--data: needs --recipe and --output, too")
    evaluate_recipes(
        RecipeRun(
            data=data,
            recipe_names=tuple(recipe_names),
            output=output,
            data_range=peak,
            crop=size,
            border=border,
            weights=weights,
            changes=tuple(changes or ()),
            device=device,
            root=root,
            split=split,
            contrast=contrast,
            include_test=include_test,
            slices=slices,
            baselines=baselines,
            tune_on=tune_on,
            tuning_split=tuning_split,
            n_tuning_slices=n_tuning_slices,
            tv_iterations=tv_iterations,
            proxies=proxies,
            n_worst=n_worst,
            accept_unconverged=accept_unconverged,
        )
    )


def _refuse(context: typer.Context, names: tuple[str, ...], why: str) -> None:
    """Refuse options of the other form."""
    options: Mapping[str | None, str] = {parameter.name: parameter.opts[0] for parameter in context.command.params}
    for name in names:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise UsageError(f"{options[name]}: {why}")


def _compare(
    prediction: Path,
    target: Path,
    peak: "DataRange",
    size: tuple[int, int] | None,
    border: int,
    json_file: Path | None,
    overwrite: bool,
) -> None:
    from mrisps.atomic import write_text
    from mrisps.quality.metrics import evaluate_files

    for path in (prediction, target):
        if not path.exists():
            raise UsageError(f"{path}: does not exist")
    if json_file is not None:
        _check_json_file(json_file, (prediction, target), overwrite)
    scores = evaluate_files(prediction, target, data_range=peak, crop=size, border=border)
    rows = [
        [
            score.name,
            str(score.n_slices),
            f"{score.shape[0]} x {score.shape[1]}",
            f"{score.data_range:.6g}",
            f"{score.psnr:.3f}",
            f"{score.ssim:.5f}",
            f"{score.nmse:.6f}",
        ]
        for score in scores.scores
    ]
    if len(rows) > 1:
        rows.append(["mean", "", "", "", f"{scores.psnr:.3f}", f"{scores.ssim:.5f}", f"{scores.nmse:.6f}"])
    print_table(["file", "slices", "compared", "data range", "PSNR (dB)", "SSIM", "NMSE"], rows)
    if json_file is not None:
        record = {
            "prediction": str(prediction),
            "target": str(target),
            "files": [{key: _finite(value) for key, value in asdict(score).items()} for score in scores.scores],
            "mean": {"psnr": _finite(scores.psnr), "ssim": scores.ssim, "nmse": scores.nmse},
        }
        write_text(json_file, json.dumps(record, indent=2, allow_nan=False) + "\n")
        note(f"numbers: {json_file}")


def _check_json_file(path: Path, inputs: tuple[Path, Path], overwrite: bool) -> None:
    """Refuse, before anything is computed, to write the numbers over what they are about."""
    compared = [place.resolve() for place in inputs]
    if path.resolve() in compared or (path.suffix != ".json" and path.exists() and path.resolve().parent in compared):
        raise UsageError(f"--json: {path}: is compared, and would be replaced")
    new_file(path, overwrite)


def _finite(value: object) -> object:
    """JSON has no infinity, which is the PSNR of equal images."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
