"""`mrisps evaluate`: the quality of images that there are, against references."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mrisps.cli.common import UsageError, new_file, note, parse_size
from mrisps.cli.options import Overwrite
from mrisps.cli.terminal import print_table

if TYPE_CHECKING:
    from mrisps.quality.metrics import DataRange

__all__ = ["Border", "Crop", "DataRangeText", "evaluate", "parse_data_range"]

DataRangeText = Annotated[
    str,
    typer.Option(
        "--data-range",
        metavar="X|target-max",
        help="Peak value for PSNR and SSIM: a number in the units of the images, or `target-max`, the maximum of each reference "
        "volume (fastMRI's rule).",
    ),
]
Crop = Annotated[
    str | None,
    typer.Option(
        "--crop",
        metavar="HxW",
        help="Compare the central H x W pixels. Default: for HDF5 the square as wide as the reference (fastMRI's rule), for "
        "images all of it.",
    ),
]
Border = Annotated[
    int, typer.Option("--border", min=0, metavar="N", help="Leave out N pixels at every edge, after cropping.")
]


def evaluate(
    results: Annotated[Path, typer.Argument(metavar="RESULTS", help="File, or folder of files, to be judged.")],
    references: Annotated[
        Path,
        typer.Argument(metavar="REFERENCES", help="File with the reference, or folder of files of the same names."),
    ],
    data_range: DataRangeText = "target-max",
    crop: Crop = None,
    border: Border = 0,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Also write the numbers as JSON.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Measure the quality of images against references.

    PSNR (dB), SSIM and NMSE in fastMRI's definitions: `reconstruction` of RESULTS against `reconstruction_esc` or
    `reconstruction_rss` of REFERENCES for HDF5 files, where a volume has one PSNR and one NMSE, and the mean SSIM of its slices;
    PNG, TIFF and NPY files are grey images. The last line is the mean over files. With the default options the numbers are those
    of fastmri.evaluate. To reconstruct and compare in one go there is `mrisps compare`.

    Exit code 0: done. 1: a file failed. 2: the command is wrong, nothing was done.
    """
    from mrisps.atomic import write_text
    from mrisps.quality.file_scores import evaluate_files

    peak = parse_data_range(data_range)
    size = None if crop is None else parse_size(crop, "--crop")
    for path in (results, references):
        if not path.exists():
            raise UsageError(f"{path}: does not exist")
    if json_file is not None:
        _check_json_file(json_file, (results, references), overwrite)
    scores = evaluate_files(results, references, data_range=peak, crop=size, border=border)
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
            "prediction": str(results),
            "target": str(references),
            "files": [{key: _finite(value) for key, value in asdict(score).items()} for score in scores.scores],
            "mean": {"psnr": _finite(scores.psnr), "ssim": scores.ssim, "nmse": scores.nmse},
        }
        write_text(json_file, json.dumps(record, indent=2, allow_nan=False) + "\n")
        note(f"numbers: {json_file}")


def parse_data_range(text: str) -> "DataRange":
    """A positive number, or ``target-max``.

    Raises
    ------
    UsageError
        It is something else.
    """
    if text == "target-max":
        return "target-max"
    try:
        peak = float(text)
    except ValueError:
        peak = math.nan
    if not 0 < peak < math.inf:
        raise UsageError(f"--data-range: expected a positive number or target-max, got {text!r}")
    return peak


def _check_json_file(path: Path, inputs: tuple[Path, Path], overwrite: bool) -> None:
    """Refuse, before anything is computed, to write the numbers over what they are about."""
    compared = [place.resolve() for place in inputs]
    if path.resolve() in compared or (path.suffix != ".json" and path.exists() and path.resolve().parent in compared):
        raise UsageError(f"--json: {path}: is compared, and would be replaced")
    new_file(path, overwrite)


def _finite(value: object) -> object:
    """JSON has no infinity, which is the PSNR of equal images."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
