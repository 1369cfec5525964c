"""What `mrisps.recon`, `mrisps.denoise` and `mrisps.superres` return: images, their parts, and what is known about them."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mrisps.atomic import write_text
from mrisps.io.acquisition import Geometry
from mrisps.io.image_volume import ImageVolume
from mrisps.io.images import write_image
from mrisps.io.ismrmrd_header import IsmrmrdHeader
from mrisps.io.json_text import JsonValue
from mrisps.io.result_file import ResultWriter
from mrisps.io.write_images import PICTURES, kind_of, write_volume
from mrisps.reconstruction.slice_result import SliceResult
from mrisps.reconstruction.verdict import Verdict, gravest
from mrisps.reports.html import render
from mrisps.reports.reconstruction import ReconstructionContent, reconstruction_report

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
        """Whether the solver met its test in every slice."""
        return all(each.converged for each in self.slices)

    def _stack(self, parts: Sequence[Pixels]) -> Pixels:
        return stacked(parts) if self.stacked else parts[0]

    # --------------------------------------------------------------------------------------------------------------- shown

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.image.shape))
        missed = sum(not each.converged for each in self.slices)
        state = "converged" if not missed else f"NOT CONVERGED ({missed} of {len(self.slices)})"
        seconds = sum(float(str(certificate["seconds"])) for certificate in self.certificates)
        return f"Result({self.name}: {shape} {self.image.dtype}, {self.verdict.level}, {state}, {seconds:.1f} s)"

    def _repr_html_(self) -> str:
        """What a notebook shows: a picture, and a line."""
        return f"<p>{html.escape(repr(self))}</p>{self._picture()}"

    def _picture(self) -> str:
        from mrisps.reports.figures import to_png
        from mrisps.reports.html import Picture

        picture = Picture(to_png(self.plot()), "the image and its parts", "")
        return f'<img alt="{picture.alt}" src="{picture.uri}" style="max-width: 100%">'

    def plot(self, position: int | None = None) -> "Figure":
        """A figure of the image, its smooth and sparse part, and its cost map.

        Parameters
        ----------
        position
            Which slice of the result, from 0; by default the middle one.
        """
        from mrisps.reports.figures import image_grid, magnitude_or_signed

        made = self.slices[len(self.slices) // 2 if position is None else position]
        shown = {"image": np.abs(made.image).astype(np.float32), **made.parts}
        return image_grid([magnitude_or_signed(name, part) for name, part in shown.items()], n_columns=4)

    def report(self, path: Path | str, position: int | None = None) -> Path:
        """Write one self-contained HTML page: images of a slice, mask, certificates, provenance.

        Parameters
        ----------
        path
            The file.
        position
            Which slice of the result is shown, from 0; by default the middle one.

        Raises
        ------
        FileError
            The file cannot be written.
        """
        where = len(self.slices) // 2 if position is None else position
        page = report_page(
            self.slices[where],
            self.certificates,
            [each.index for each in self.slices],
            self.provenance,
            self.name,
            self.notes,
        )
        write_text(Path(path), page)
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
                    writer.write_slice(position, made.image, made.parts, made.certificate, made.geometry)
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


def report_page(
    made: SliceResult,
    certificates: Sequence[Mapping[str, JsonValue]],
    slices: Sequence[int],
    provenance: Mapping[str, JsonValue],
    name: str,
    notes: Sequence[str],
) -> str:
    """The HTML page of a file: one slice in pictures, the certificates of all.

    Parameters
    ----------
    made
        The slice that is shown.
    certificates, slices
        Of all slices, and their numbers.
    provenance, name, notes
        Of the file.
    """
    mask = made.problem.mask
    return render(
        reconstruction_report(
            ReconstructionContent(
                name=name,
                slice_name=f"slice {made.index}",
                image=made.image,
                smooth=made.smooth,
                sparse=made.sparse,
                cost_map=made.cost_map,
                zero_filled=made.zero_filled(),
                target=made.target,
                mask=None if mask is None else mask.array2d(),
                certificates=certificates,
                certificate=made.certificate,
                slices=slices,
                provenance=provenance,
                notes=notes,
            )
        )
    )
