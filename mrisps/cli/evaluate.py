"""`mrisps evaluate`: image quality against a reference."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from mrisps.cli.common import UsageError, new_file, note, parse_size
from mrisps.cli.options import Overwrite
from mrisps.cli.terminal import print_table

__all__ = ["evaluate"]


def evaluate(
    prediction: Annotated[Path, typer.Argument(metavar="PRED", help="File, or folder of files, to be judged.")],
    target: Annotated[
        Path, typer.Argument(metavar="TARGET", help="File with the reference, or folder of files of the same names.")
    ],
    data_range: Annotated[
        str,
        typer.Option(
            "--data-range",
            metavar="X|target-max",
            help="Peak value for PSNR and SSIM: a number in the units of the images, or `target-max`, the maximum of each "
            "target (fastMRI's rule).",
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
        Path | None, typer.Option("--json", metavar="FILE", help="Also write the numbers as JSON.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Compare reconstructions with references.

    PSNR (dB), SSIM and NMSE in fastMRI's definitions.

    HDF5 files: `reconstruction` of PRED against `reconstruction_esc` or `reconstruction_rss` of TARGET; a volume has one
    PSNR and one NMSE, and the mean SSIM of its slices. PNG, TIFF and NPY files are grey images. The last line is the mean
    over files. With the default options the numbers are those of fastmri.evaluate.
    """
    from mrisps.atomic import write_text
    from mrisps.pipeline.metrics import DataRange, evaluate_files

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
