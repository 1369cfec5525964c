"""Files of images against files with references, in fastMRI's definitions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mrisps.errors import FileError
from mrisps.io.images import IMAGE_SUFFIXES, center_crop, read_image
from mrisps.io.result_file import read_volume
from mrisps.quality.metrics import DataRange, check_range, nmse, psnr, ssim

__all__ = ["FileScore", "FileScores", "evaluate_files"]

_TARGET_NAMES = ("reconstruction_esc", "reconstruction_rss", "reconstruction")


@dataclass(frozen=True)
class FileScore:
    """The scores of one file, by the name of the target; ``shape`` (y, x) is what was compared, the PSNR is in dB."""

    name: str
    n_slices: int
    shape: tuple[int, int]
    data_range: float
    psnr: float
    ssim: float
    nmse: float


@dataclass(frozen=True)
class FileScores:
    """The scores of one or several files, and their means over files (not over slices), as in ``fastmri.evaluate``."""

    scores: tuple[FileScore, ...]

    @property
    def psnr(self) -> float:
        """Mean PSNR in dB."""
        return float(np.mean([score.psnr for score in self.scores]))

    @property
    def ssim(self) -> float:
        """Mean SSIM."""
        return float(np.mean([score.ssim for score in self.scores]))

    @property
    def nmse(self) -> float:
        """Mean NMSE."""
        return float(np.mean([score.nmse for score in self.scores]))


def evaluate_files(
    prediction: Path | str,
    target: Path | str,
    *,
    data_range: DataRange,
    crop: tuple[int, int] | None = None,
    border: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> FileScores:
    """Compare a file with its reference, or each file of a folder of references with the file of that name.

    HDF5 files: the prediction is the data set ``reconstruction``, the target ``reconstruction_esc``,
    ``reconstruction_rss`` or ``reconstruction``. PNG, TIFF and NPY files are grey images.

    Parameters
    ----------
    prediction, target
        Two files, two folders, or a folder of predictions and one target file. Files in the prediction folder that have
        no target are left out.
    data_range
        A number, or ``"target-max"`` for the maximum of each cropped target volume.
    crop
        (y, x) of the centre that is compared. None: fastMRI's rule for HDF5 files, the square as wide as the target, or
        the whole image where that is higher than wide or not from an HDF5 file.
    border
        Pixels to leave out at every edge, after cropping.
    progress
        Called after each file with (files that are done, files).
    """
    if border < 0:
        raise ValueError(f"border: expected at least 0, got {border}")
    if data_range != "target-max":
        check_range(data_range)
    pairs = _pairs(Path(prediction), Path(target))
    scores = []
    for pair in pairs:
        scores.append(_score(*pair, data_range, crop, border))
        if progress is not None:
            progress(len(scores), len(pairs))
    return FileScores(tuple(scores))


def _pairs(prediction: Path, target: Path) -> list[tuple[Path, Path]]:
    for path in (prediction, target):
        if not path.exists():
            raise FileError(path, "does not exist")
    if target.is_file():
        return [(prediction / target.name if prediction.is_dir() else prediction, target)]
    if prediction.is_file():
        raise FileError(prediction, f"expected a folder, as the target {target} is one")
    kinds = {".h5", ".hdf5", *IMAGE_SUFFIXES}
    targets = sorted(path for path in target.iterdir() if path.is_file() and path.suffix.lower() in kinds)
    if not targets:
        raise FileError(target, "has no HDF5 files or images")
    missing = [path.name for path in targets if not (prediction / path.name).is_file()]
    if missing:
        listed = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise FileError(prediction, f"{len(missing)} of {len(targets)} predictions are missing: {listed}")
    return [(prediction / path.name, path) for path in targets]


def _score(
    prediction: Path, target: Path, data_range: DataRange, crop: tuple[int, int] | None, border: int
) -> FileScore:
    reference = _read(target, _TARGET_NAMES)
    image = _read(prediction, ("reconstruction",))
    if len(image) != len(reference):
        raise FileError(prediction, f"expected {len(reference)} slices as in {target}, got {len(image)}")
    if crop is None:
        n_y, n_x = reference.shape[-2:]
        crop = (n_x, n_x) if target.suffix.lower() not in IMAGE_SUFFIXES and n_y >= n_x else (n_y, n_x)
    for path, volume in ((target, reference), (prediction, image)):
        if volume.shape[-2] < crop[0] or volume.shape[-1] < crop[1]:
            raise FileError(path, f"expected at least {crop[0]} x {crop[1]} pixels, got {volume.shape[-2:]}")
    if 2 * border + 7 > min(crop):
        raise FileError(target, f"a border of {border} leaves fewer than 7 x 7 of {crop[0]} x {crop[1]} pixels")
    inner = (crop[0] - 2 * border, crop[1] - 2 * border)
    reference, image = center_crop(center_crop(reference, crop), inner), center_crop(center_crop(image, crop), inner)
    peak = float(reference.max()) if data_range == "target-max" else data_range
    if not reference.any():
        raise FileError(target, "is zero everywhere, nothing can be compared with it")
    if peak <= 0:
        raise FileError(target, f"has no positive maximum to be the data range: {peak}")
    return FileScore(
        name=target.name,
        n_slices=len(reference),
        shape=inner,
        data_range=peak,
        psnr=psnr(image, reference, data_range=peak),
        ssim=ssim(image, reference, data_range=peak),
        nmse=nmse(image, reference),
    )


def _read(path: Path, names: Sequence[str]) -> NDArray[np.float32]:
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return read_image(path)[np.newaxis]
    return read_volume(path, names)
