"""Slices as MRD images: header, pixels, Meta.

Source: ISMRMRD, ``doc/mrd_image_data.md``. Names in the Meta that the documentation does not have (``Keep_image_geometry``,
``ImageComment``, ``SequenceDescriptionAdditional``) are those that servers in use send and scanners read.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from ismrmrd import Image, Meta
from ismrmrd.hdf5 import image_header_dtype
from numpy.typing import NDArray

from mrisps.io.burn_in import burn_in
from mrisps.io.dicom_writer import LEVELS, MARKS, Mark
from mrisps.io.ismrmrd_header import IsmrmrdHeader
from mrisps.io.ismrmrd_images import COUNTERS
from mrisps.io.json_text import JsonValue, to_json
from mrisps.reconstruction.export import CERTIFICATE, PART, PROVENANCE
from mrisps.reconstruction.slice_result import SliceResult

__all__ = ["ImageMaker", "Pixels"]

Pixels = Literal["float", "short"]

_MAGNITUDE, _REAL = 1, 3
_FLOAT, _SHORT = 5, 2
_FROM_ACQUISITION = (
    *("measurement_uid", "patient_table_position", "acquisition_time_stamp", "physiology_time_stamp"),
    *("user_int", "user_float"),
)
_SHORT_TOP = 2000.0


@dataclass(eq=False)
class ImageMaker:
    """Makes the images of a measurement; each series has one scale, that of its first image.

    Parameters
    ----------
    header
        Of the measurement.
    record
        What the images are made from: goes into the Meta.
    name
        Of the recipe.
    parts
        Also smooth part, sparse part and cost map, a series each.
    pixels
        ``"float"``: in the unit of the raw data. ``"short"``: 16-bit integers, with RescaleSlope in the Meta; the maximum of the
        first image of a series is 2000.
    mark
        Burn the verdict into the pixels of images with this one or a graver one.
    """

    header: IsmrmrdHeader | None
    record: Mapping[str, JsonValue]
    name: str
    parts: bool = False
    pixels: Pixels = "float"
    mark: Mark = "unusable"

    def __post_init__(self) -> None:
        self._scale: dict[str, float] = {}
        self._window: dict[str, float] = {}

    def images(self, made: SliceResult, position: int, acquisition: NDArray[np.void]) -> Iterator[Image]:
        """The images of a slice.

        Parameters
        ----------
        made
            The slice.
        position
            Its number in the series, from 0.
        acquisition
            Header of its first acquisition.
        """
        given = {"reconstruction": np.abs(made.image), **(made.parts if self.parts else {})}
        for number, (kind, pixels) in enumerate(given.items(), start=1):
            shown = np.ascontiguousarray(np.abs(pixels) if np.iscomplexobj(pixels) else pixels, np.float32).T
            yield self._image(kind, number, position, shown, made, acquisition)

    def _image(
        self,
        kind: str,
        number: int,
        position: int,
        pixels: NDArray[np.float32],
        made: SliceResult,
        acquisition: NDArray[np.void],
    ) -> Image:
        signed = bool((pixels < 0).any()) and kind == "sparse"
        top = float(np.abs(pixels).max()) or 1.0
        scale = self._scale.setdefault(kind, _SHORT_TOP / top if self.pixels == "short" else 1.0)
        window = self._window.setdefault(kind, float(np.percentile(np.abs(pixels), 99.8)) or top)
        verdict = made.verdict
        if self.mark != "none" and LEVELS.index(verdict.level) >= LEVELS.index(self.mark):
            pixels = burn_in(pixels, MARKS[verdict.level], -top if signed else 0.0, top)
        data = pixels.astype(np.float32)
        if self.pixels == "short":
            data = np.clip(np.rint(scale * pixels), -32768, 32767).astype(np.int16)
        labels = made.certificate.get("labels")
        counters = labels if isinstance(labels, Mapping) else {}
        head: NDArray[np.void] = np.zeros((), image_header_dtype)
        for name in _FROM_ACQUISITION:
            head[name] = acquisition[name]
        for name in COUNTERS:
            head[name] = min(int(str(counters.get(name, 0))), 0xFFFF)
        if "readout" in counters:  # a volume: its slices are positions along the readout
            head["slice"] = min(made.index, 0xFFFF)
        head["version"] = head["channels"] = 1
        head["data_type"] = _SHORT if self.pixels == "short" else _FLOAT
        head["matrix_size"] = (*data.shape[::-1], 1)
        head["image_type"] = _REAL if signed else _MAGNITUDE
        head["image_index"], head["image_series_index"] = min(position + 1, 0xFFFF), number
        geometry = made.geometry
        if geometry is not None:
            head["field_of_view"], head["position"] = geometry.field_of_view_mm, geometry.position_mm
            head["read_dir"], head["phase_dir"] = geometry.y_direction, geometry.x_direction
            head["slice_dir"] = geometry.slice_direction
        elif self.header is not None and self.header.recon_fov_mm is not None:
            head["field_of_view"] = self.header.recon_fov_mm
        image = Image(head.tobytes())
        image.data[0, 0] = data
        image.meta = Meta(self._meta(kind, scale, scale * window, signed, head, made))
        return image

    def _meta(
        self, kind: str, scale: float, window: float, signed: bool, head: NDArray[np.void], made: SliceResult
    ) -> dict[str, str | list[str]]:
        comment = f"mrisps: {made.verdict}"
        suffix = "mrisps" if kind == "reconstruction" else f"mrisps_{kind}"
        meta: dict[str, str | list[str]] = {
            "DataRole": ["Image"] if kind == "reconstruction" else ["Image", kind.upper()],
            "ImageProcessingHistory": ["mrisps", self.name],
            "ImageComment": comment,
            "ImageComments": comment,
            "SeriesDescriptionAdditional": suffix,
            "SequenceDescriptionAdditional": suffix,
            "WindowCenter": _whole(0.0 if signed else window / 2),
            "WindowWidth": _whole(2 * window if signed else window),
            PART: kind,
            "mrisps_verdict": made.verdict.level,
            CERTIFICATE: to_json(made.certificate),
            PROVENANCE: to_json(self.record),
        }
        if self.pixels == "short":
            meta |= {"RescaleSlope": repr(1 / scale), "RescaleIntercept": "0"}
        if made.geometry is not None:
            meta["Keep_image_geometry"] = "1"
            meta["ImageRowDir"] = [f"{value:.18f}" for value in head["read_dir"]]
            meta["ImageColumnDir"] = [f"{value:.18f}" for value in head["phase_dir"]]
        return meta


def _whole(value: float) -> str:
    """A whole number where that says enough, because readers expect one."""
    return str(math.ceil(value)) if abs(value) >= 10 or value == 0 else f"{value:.6g}"
