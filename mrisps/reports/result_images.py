"""What a result file holds to be looked at. What it lacks, being old, damaged or of another program, becomes a note."""

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from mrisps.errors import FileError
from mrisps.io.images import center_crop
from mrisps.io.result_file import ResultFile, read_volume
from mrisps.quality.metrics import nmse, psnr, ssim
from mrisps.reports.facts import Facts, number, plural, verdict_of

__all__ = ["Quality", "ResultImages"]

Image = NDArray[np.generic]
T = TypeVar("T")
_NOT_PANES = ("image", "mask")


@dataclass(frozen=True)
class Quality:
    """Of one slice, or of a volume, in fastMRI's definitions: PSNR in dB, SSIM, NMSE."""

    psnr: float
    ssim: float
    nmse: float

    @property
    def tiles(self) -> list[tuple[str, str]]:
        """(name, value with its unit)."""
        return [("PSNR", f"{self.psnr:.2f} dB"), ("SSIM", f"{self.ssim:.4f}"), ("NMSE", number(self.nmse, 3))]


class ResultImages:
    """A result file, read slice by slice.

    Parameters
    ----------
    file
        The open file.
    reference
        A file with reference images; None: those that the result holds.

    Attributes
    ----------
    names : list of str
        Of the images of each slice, as `panes_of` takes them.
    certificates, provenance
        As in the file; empty where it has none.
    verdicts : list of (level, reasons)
        Of each slice; ``"unusable"`` where the reconstruction cannot be read or has pixels that are no number.
    notes : list of str
        What is wrong with the file.

    Raises
    ------
    FileError
        The reference cannot be read, or does not fit.
    """

    def __init__(self, file: ResultFile, reference: Path | None = None) -> None:
        self.file, self.name = file, file.path.name
        self.notes: list[str] = []
        self.provenance: Facts = self._known(lambda: file.provenance or {}) or {}
        self.certificates: Sequence[Facts] = self._known(lambda: file.certificates) or ({},) * file.n_slices
        if not any(self.certificates):
            self.notes.append(
                "The file has no certificate: nothing says whether the solver converged, or what the image rests on."
            )
        shape = (file.n_slices, *file.shape)
        layout = {
            name: s
            for name, (s, kind) in file.layout().items()
            if kind.startswith(("float", "complex", "int", "uint", "bool")) and len(s) == 3 and s[0] == shape[0]
        }
        self.names = [name for name, s in layout.items() if s == shape and name not in _NOT_PANES]
        if "image" in file.names:
            self.names.append("phase")
        self.has_mask = "mask" in layout
        self._reference: NDArray[np.float32] | None = None
        self.verdicts = [self._verdict(position) for position in range(file.n_slices)]
        if reference is not None:
            self._reference = self._volume(reference)
            self.names = [*(name for name in self.names if name != "reference"), "reference"]

    def _known(self, read: Callable[[], T]) -> T | None:
        try:
            return read()
        except FileError as error:
            self.notes.append(f"{error.field}: {error.message}")
            return None

    def _volume(self, path: Path) -> NDArray[np.float32]:
        volume = read_volume(path, ("reconstruction_esc", "reconstruction_rss", "reference", "reconstruction"))
        places = [int(text) if (text := self.number(k)).isdigit() else k for k in range(self.file.n_slices)]
        if len(volume) == self.file.n_slices:
            places = list(range(len(volume)))
        elif max(places) >= len(volume):
            raise FileError(path, f"expected at least {max(places) + 1} slices, got {len(volume)}")
        if any(n < m for n, m in zip(volume.shape[1:], self.file.shape, strict=True)):
            raise FileError(path, f"expected at least {self.file.shape} pixels, got {volume.shape[1:]}")
        return center_crop(volume[places], self.file.shape)

    def number(self, position: int) -> str:
        """Of a slice, in the input of the result."""
        numbers = self.provenance.get("slices")
        listed = (
            numbers
            if isinstance(numbers, Sequence) and len(numbers) == self.file.n_slices
            else range(self.file.n_slices)
        )
        return str(listed[position])

    def read(self, name: str, position: int) -> Image:
        """One image (y, x) of a slice, whatever its pixels."""
        if name == "phase":
            return np.asarray(np.angle(self.file.read("image", position, finite=False).astype(np.complex64)))
        if name == "reference" and self._reference is not None:
            return np.asarray(self._reference[position])
        return self.file.read(name, position, finite=False)

    def images(self, position: int) -> dict[str, Image]:
        """The images of a slice by name, as far as they can be read."""
        images = {}
        for name in self.names:
            with contextlib.suppress(FileError):
                images[name] = self.read(name, position)
        return images

    def _wrong(self, position: int) -> tuple[str, ...]:
        """Why the reconstruction of a slice cannot be used, whatever was said of it."""
        try:
            n_bad = int((~np.isfinite(self.read("reconstruction", position))).sum())
        except FileError as error:
            return (f"{error.field}: {error.message}",)
        return (f"{plural(n_bad, 'pixel is', 'pixels are')} not a number (magenta)",) if n_bad else ()

    def _verdict(self, position: int) -> tuple[str, tuple[str, ...]]:
        """Level and reasons."""
        level, reasons = verdict_of(self.certificates[position])
        wrong = self._wrong(position)
        if wrong or not level:
            return ("unusable", (*wrong, *reasons)) if wrong else ("check", ("no verdict was recorded",))
        return level, reasons

    def _finite(self, name: str, position: int) -> NDArray[np.float32] | None:
        try:
            image = self.read(name, position).astype(np.float32)
        except FileError:
            return None
        return image if np.isfinite(image).all() else None

    def quality(self) -> tuple[float, list[Quality | None], Quality | None]:
        """Data range, quality of each slice, and of the volume, in fastMRI's definitions; the slices that can be compared."""
        if "reference" not in self.names or min(self.file.shape) < 7:
            return 0.0, [], None
        references = (self._finite("reference", k) for k in range(self.file.n_slices))
        peak = max((float(each.max()) for each in references if each is not None), default=0.0)
        if peak <= 0:
            return 0.0, [], None
        found: list[Quality | None] = []
        energies: list[tuple[float, float, int]] = []
        for k in range(self.file.n_slices):
            one, other = (self._finite(name, k) for name in ("reconstruction", "reference"))
            if one is None or other is None or not other.any():
                found.append(None)
                continue
            found.append(
                Quality(psnr(one, other, data_range=peak), ssim(one, other, data_range=peak), nmse(one, other))
            )
            wide = other.astype(np.float64)
            energies.append((float(((one - wide) ** 2).sum()), float((wide**2).sum()), one.size))
        error, energy, n = (sum(each[k] for each in energies) for k in range(3))
        known = [each.ssim for each in found if each is not None]
        if not known:
            return peak, found, None
        decibel = 10 * math.log10(peak**2 * n / error) if error > 0 else math.inf
        return peak, found, Quality(decibel, sum(known) / len(known), error / energy)
