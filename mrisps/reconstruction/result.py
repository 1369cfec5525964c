"""What `mrisps.recon`, `mrisps.denoise` and `mrisps.superres` return: images, their parts, and what is known about them."""

import base64
import html
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mrisps.io.acquisition import Geometry
from mrisps.io.image_volume import ImageVolume
from mrisps.io.images import write_image
from mrisps.io.ismrmrd_header import IsmrmrdHeader
from mrisps.io.json_text import JsonValue
from mrisps.io.result_file import ResultWriter
from mrisps.io.write_images import PICTURES, kind_of, write_volume
from mrisps.reconstruction.slice_result import SliceResult
from mrisps.reconstruction.verdict import Verdict, gravest
from mrisps.reports import figures
from mrisps.reports.facts import LEVELS, certificate_rows
from mrisps.reports.plot import panels_of
from mrisps.reports.results import write_pages
from mrisps.status import in_words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Result"]

Pixels = NDArray[np.float32] | NDArray[np.complex64]


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """Images in the units of the input, with their parts and certificates.

    Parameters
    ----------
    slices
        One result a slice.
    provenance
        What the result depends on: versions, recipe, weights, input, options, machine.
    name
        Of the input.
    header
        Of the measurement, where the input has one.
    attributes
        Further texts and numbers of the input.
    stacked
        The input was a stack of slices: images are (slice, y, x), not (y, x).
    """

    slices: tuple[SliceResult, ...]
    provenance: Mapping[str, JsonValue]
    name: str
    header: IsmrmrdHeader | None = None
    attributes: Mapping[str, str | float | int | bool] | None = None
    stacked: bool = False

    @property
    def image(self) -> Pixels:
        """The reconstruction, (y, x) or (slice, y, x), real or complex."""
        return self._stack([each.image for each in self.slices])

    @property
    def smooth(self) -> Pixels:
        """The smooth part: the minimiser without the dictionary. Linear in the data where there is one set of coil maps."""
        return self._stack([each.smooth for each in self.slices])

    @property
    def sparse(self) -> Pixels:
        """``image`` minus ``smooth``: what the dictionary added."""
        return self._stack([each.sparse for each in self.slices])

    @property
    def cost_map(self) -> Pixels:
        """What the sparse part costs at each pixel, real: where the prior is surprised."""
        return self._stack([each.cost_map for each in self.slices])

    @property
    def certificates(self) -> tuple[Mapping[str, JsonValue], ...]:
        """What the solver reached, one a slice."""
        return tuple(each.certificate for each in self.slices)

    @property
    def certificate(self) -> Mapping[str, JsonValue]:
        """What the solver reached, of a single slice.

        Raises
        ------
        ValueError
            There are several slices: use ``certificates``.
        """
        if len(self.slices) != 1:
            raise ValueError(f"certificate: the result has {len(self.slices)} slices, use certificates")
        return self.slices[0].certificate

    @property
    def verdict(self) -> Verdict:
        """Whether the images can be right: the gravest verdict of all slices, with its reasons."""
        return gravest([each.verdict for each in self.slices])

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know, each note once."""
        return tuple(dict.fromkeys(note for each in self.slices for note in each.problem.notes))

    @property
    def converged(self) -> bool:
        """Whether the solver found a minimiser in every slice: never with ``solver.stop="image"``."""
        return all(each.certificate["status"] == "converged" for each in self.slices)

    @property
    def finished(self) -> bool:
        """Whether the solver was done with every slice: converged or settled."""
        return all(each.finished for each in self.slices)

    def _stack(self, parts: Sequence[Pixels]) -> Pixels:
        return stacked(parts) if self.stacked else parts[0]

    # --------------------------------------------------------------------------------------------------------------- shown

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.image.shape))
        state = in_words([certificate["status"] for certificate in self.certificates])
        seconds = sum(float(str(certificate["seconds"])) for certificate in self.certificates)
        return f"Result({self.name}: {shape} {self.image.dtype}, {self.verdict.level}, {state}, {seconds:.1f} s)"

    def _repr_html_(self) -> str:
        """What a notebook shows: the verdict, a picture, and a table."""
        gravest = max(self.slices, key=lambda each: LEVELS.index(each.verdict.level))
        rows = [row[:2] for row in certificate_rows(gravest.certificate)]
        table = "".join(f"<tr><td>{html.escape(name)}</td><td>{html.escape(value)}</td></tr>" for name, value in rows)
        picture = base64.b64encode(figures.to_png(self.plot())).decode("ascii")
        return (
            f"<p><b>{html.escape(str(self.verdict))}</b><br>{html.escape(repr(self))}</p>"
            f'<img alt="the image and its parts" src="data:image/png;base64,{picture}" style="max-width: 100%">'
            f"<table><caption>slice {gravest.index}</caption>{table}</table>"
        )

    def plot(self, position: int | None = None) -> "Figure":
        """A figure of the image, what it is compared with, its parts, and its cost map.

        Parameters
        ----------
        position
            Which slice of the result, from 0; by default the middle one.
        """
        made = self.slices[len(self.slices) // 2 if position is None else position]
        panels = panels_of({"reconstruction": made.image, **made.evidence, **made.parts})
        return figures.image_grid(panels, n_columns=min(len(panels), 4))

    def report(self, path: Path | str) -> Path:
        """Write one self-contained HTML page: all images to look at in a browser, certificates, sampling, provenance.

        Raises
        ------
        FileError
            The file cannot be written.
        """
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "result.h5"
            self.save(file)
            write_pages(file, Path(path))
        return Path(path)

    # --------------------------------------------------------------------------------------------------------------- saved

    @property
    def geometries(self) -> tuple[Geometry | None, ...]:
        """Where each slice lies in the patient, as far as the input says."""
        return tuple(each.geometry for each in self.slices)

    def save(self, path: Path | str, kind: str | None = None) -> tuple[str, ...]:
        """Write the result; the ending of the file name gives the format.

        ``.h5`` holds everything: images, parts, certificates, provenance, in the layout that ``fastmri.evaluate`` reads. The other
        formats hold the images: NIfTI (``.nii``, ``.nii.gz``), MRD images (``.mrd``), and for a single slice ``.png``, ``.tif``,
        ``.npy`` (a folder of them for several slices, with ``kind``).

        Parameters
        ----------
        path
            File or folder.
        kind
            One of :data:`mrisps.io.write_images.KINDS`, where the file name does not say it.

        Returns
        -------
        tuple of str
            What the format could not carry.

        Raises
        ------
        ValueError
            The format is unknown.
        FileError
            The file cannot be written.
        """
        path = Path(path)
        if kind is None and path.suffix.lower() in (".h5", ".hdf5"):
            with ResultWriter(
                path,
                len(self.slices),
                attributes=self.attributes,
                provenance={**self.provenance, "slices": [each.index for each in self.slices]},
                header=self.header,
            ) as writer:
                for position, made in enumerate(self.slices):
                    extras = {**made.parts, **made.evidence}
                    writer.write_slice(position, made.image, extras, made.certificate, made.geometry)
            return ()
        if self.slices[0].problem.mask is None and (kind_of(path) if kind is None else kind) in PICTURES:
            write_image(path, self.slices[0].image.astype(np.float32), bits=16)  # a grey image: white stays 1
            return ()
        pixels = stacked([each.image for each in self.slices])
        volume = ImageVolume(pixels, self.geometries, Path(self.name), self.header, self.attributes)
        warning = () if self.verdict.level == "good" else (f"the verdict, {self.verdict}",)
        return (*write_volume(volume, path, kind), *warning)


def stacked(parts: Sequence[Pixels]) -> Pixels:
    """(slice, y, x) of images (y, x)."""
    return np.stack(parts)  # type: ignore[return-value]  # all of one type
