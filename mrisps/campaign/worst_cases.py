"""The images of the slices with the lowest PSNR, kept on the disk to be shown."""

import io
import zipfile
from pathlib import Path

import numpy as np

from mrisps.atomic import write_bytes
from mrisps.campaign.references import Real
from mrisps.quality.evaluation import WorstCase
from mrisps.quality.scores import Setting, SliceScore

__all__ = ["WorstCases"]


class WorstCases:
    """The images of the slices with the lowest PSNR of each setting and recipe, on the disk: at no time are there more."""

    def __init__(self, folder: Path, n_kept: int) -> None:
        self._folder, self._n_kept = folder, n_kept
        self._kept: dict[tuple[Setting, str], list[tuple[float, str, SliceScore]]] = {}

    def consider(self, key: str, score: SliceScore, images: tuple[Real, Real] | None) -> None:
        """Remember the slice if it is one of the worst so far, and keep its images where they are given."""
        group = self._kept.setdefault((score.setting, score.method), [])
        if any(known == key for _, known, _ in group):
            return
        group.append((score.psnr, key, score))
        group.sort(key=lambda entry: entry[:2])
        dropped = [known for _, known, _ in group[self._n_kept :]]
        del group[self._n_kept :]
        if images is not None and key not in dropped:
            buffer = io.BytesIO()
            np.savez_compressed(buffer, image=images[0], reference=images[1])
            self._folder.mkdir(exist_ok=True)
            write_bytes(self._path(key), buffer.getvalue())
        for known in dropped:
            self._path(known).unlink(missing_ok=True)

    def load(self, notes: dict[str, list[str]]) -> list[WorstCase]:
        """Read them; those that are not there any more are noted."""
        cases = []
        for group in self._kept.values():
            for _, key, score in group:
                try:
                    with np.load(self._path(key), allow_pickle=False) as stored:
                        image, reference = (np.asarray(stored[name], np.float32) for name in ("image", "reference"))
                except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
                    notes.setdefault("the image of a worst case is not there any more", []).append(
                        f"{score.file}, slice {score.slice_index}"
                    )
                    continue
                if image.ndim == 2 and image.shape == reference.shape and np.isfinite(image).all():
                    cases.append(WorstCase(score, image, reference))
        return cases

    def _path(self, key: str) -> Path:
        return self._folder / f"{key[:32]}.npz"
