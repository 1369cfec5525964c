"""`mrisps evaluate`: the quality of images that there are, against references."""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mrisps.cli.common import UsageError, note, parse_size
from mrisps.cli.files import new_file
from mrisps.cli.options import Overwrite, Threads, option
from mrisps.cli.terminal import Display, print_table

if TYPE_CHECKING:
    from mrisps.quality.metrics import DataRange

__all__ = ["CompareOptions", "evaluate"]


@dataclass(frozen=True)
class CompareOptions:
    """How images are compared."""

    data_range: Annotated[
        str,
        option(
            "--data-range X|target-max",
            "Peak value for PSNR and SSIM: a number in the units of the images, or `target-max`, the maximum of each reference "
            "volume (fastMRI's rule).",
        ),
    ] = "target-max"
    crop: Annotated[
        str | None,
        option(
            "--crop HxW",
            "Compare the central H x W pixels. Default: for HDF5 the square as wide as the reference (fastMRI's rule), for "
            "images all of it.",
        ),
    ] = None
    border: Annotated[int, option("--border N", "Leave out N pixels at every edge, after cropping.", least=0)] = 0

    def peak(self) -> "DataRange":
        """A positive number, or ``target-max``; a UsageError if it is something else."""
        if self.data_range == "target-max":
            return "target-max"
        try:
            peak = float(self.data_range)
        except ValueError:
            peak = math.nan
        if not 0 < peak < math.inf:
            raise UsageError(f"--data-range: expected a positive number or target-max, got {self.data_range!r}")
        return peak

    def size(self) -> tuple[int, int] | None:
        """(y, x) of what is compared; a UsageError if it is no size."""
        return None if self.crop is None else parse_size(self.crop, "--crop")


def evaluate(
    results: Annotated[Path, typer.Argument(metavar="RESULTS", help="File, or folder of files, to be judged.")],
    references: Annotated[
        Path,
        typer.Argument(metavar="REFERENCES", help="File with the reference, or folder of files of the same names."),
    ],
    compared: CompareOptions,
    json_file: Annotated[Path | None, option("--json FILE", "Also write the numbers as JSON.")] = None,
    threads: Threads = None,
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

    peak, size, border = compared.peak(), compared.size(), compared.border
    for path in (results, references):
        if not path.exists():
            raise UsageError(f"{path}: does not exist")
    if json_file is not None:
        _check_json_file(json_file, (results, references), overwrite)
    note(f"comparing {results} with {references}")
    with Display() as display:
        scores = evaluate_files(
            results,
            references,
            data_range=peak,
            crop=size,
            border=border,
            progress=lambda done, total: display.show("files", f"{done} of {total} compared", done, total),
        )
    rows = [
        [
            score.name,
            str(score.n_slices),
            f"{score.shape[0]} x {score.shape[1]}",
            f"{score.data_range:.6g}",
            *_numbers(score.psnr, score.ssim, score.nmse),
        ]
        for score in scores.scores
    ]
    if len(rows) > 1:
        rows.append(["mean", "", "", "", *_numbers(scores.psnr, scores.ssim, scores.nmse)])
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


def _numbers(psnr: float, ssim: float, nmse: float) -> tuple[str, str, str]:
    return f"{psnr:.3f}", f"{ssim:.5f}", f"{nmse:.6f}"


def _check_json_file(path: Path, inputs: tuple[Path, Path], overwrite: bool) -> None:
    """Refuse, before anything is computed, to write the numbers over what they are about."""
    compared = [place.resolve() for place in inputs]
    if path.resolve() in compared or (path.suffix != ".json" and path.exists() and path.resolve().parent in compared):
        raise UsageError(f"--json: {path}: is compared, and would be replaced")
    new_file(path, overwrite)


def _finite(value: object) -> object:
    """JSON has no infinity, which is the PSNR of equal images."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
