"""Images of ISMRMRD (MRD), one by one with header and Meta: what reconstruction servers send, and the files that keep it.

Positions and directions are in the patient's coordinates (LPS), as in DICOM. The position is the centre of the field of view, which
is pixel [n_y // 2, n_x // 2] of a centred transform. x is the readout, our rows.

Source: ISMRMRD, ``doc/mrd_image_data.md``.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mrisps.errors import FileError
from mrisps.io.acquisition import Geometry
from mrisps.io.hdf5 import Hdf5Reader
from mrisps.io.hdf5_writer import Hdf5Writer
from mrisps.io.ismrmrd_header import IsmrmrdHeader, header_of, parse_xml

__all__ = ["COUNTERS", "MrdImage", "meta_of", "read_mrd_images", "write_mrd_images"]

COUNTERS = ("average", "slice", "contrast", "phase", "repetition", "set")
"""Counters in the header of an image."""

_MAX_IMAGES = 1 << 16
_Pixels = NDArray[np.generic]


@dataclass(frozen=True, eq=False)
class MrdImage:
    """One image.

    Parameters
    ----------
    head
        A record () of ``ismrmrd.hdf5.image_header_dtype``.
    pixels
        (y, x) of MRD: x is the readout. Transposed they are an image of ours.
    meta
        Name -> values.
    """

    head: NDArray[np.void]
    pixels: _Pixels
    meta: Mapping[str, tuple[str, ...]]

    @property
    def geometry(self) -> Geometry | None:
        """Where the image lies; None if field of view or directions are unknown or contradict each other.

        ``ImageRowDir`` and ``ImageColumnDir`` of the Meta win over the directions of the header, which stay those of the
        measurement when a server turns an image.
        """
        fov = np.asarray(self.head["field_of_view"], np.float64)
        try:
            y = np.asarray(self.meta.get("ImageRowDir", self.head["read_dir"]), np.float64)
            x = np.asarray(self.meta.get("ImageColumnDir", self.head["phase_dir"]), np.float64)
        except ValueError:
            return None
        position = np.asarray(self.head["position"], np.float64)
        if y.shape != (3,) or x.shape != (3,) or not (fov[:2] > 0).all():
            return None
        return Geometry.of(fov, position, y, x)

    @property
    def labels(self) -> dict[str, int]:
        """Counters of the image."""
        return {name: int(self.head[name]) for name in COUNTERS}


def meta_of(text: bytes) -> dict[str, tuple[str, ...]]:
    """Names and values of a Meta text; empty for an empty text.

    Raises
    ------
    ValueError
        It is larger than 1 MiB, or no XML of that kind.
    """
    text = text.strip(b"\0 \n")
    if not text:
        return {}
    found: dict[str, tuple[str, ...]] = {}
    for entry in parse_xml(text).iterfind("meta"):
        values = tuple(value.text or "" for value in entry.iterfind("value"))
        found[entry.findtext("name") or ""] = found.get(entry.findtext("name") or "", ()) + values
    return found


def write_mrd_images(
    path: Path, images: Iterable[tuple[NDArray[np.void], _Pixels, bytes]], header_xml: bytes | None
) -> None:
    """Write images as the C++ library does, a group ``dataset/image_N`` for each series index.

    Parameters
    ----------
    images
        Header record, pixels (channel, z, y, x) and Meta text of each.
    header_xml
        Header of the measurement.

    Raises
    ------
    FileError
        Images of one series differ in size or type, there is none, or the file cannot be written.
    """
    series: dict[int, list[tuple[NDArray[np.void], _Pixels, bytes]]] = {}
    for image in images:
        series.setdefault(int(image[0]["image_series_index"]), []).append(image)
    if not series:
        raise FileError(path, "there are no images to write")
    with Hdf5Writer(path) as file:
        if header_xml is not None:
            file.write_texts("dataset/xml", [header_xml])
        for index, members in series.items():
            group = f"dataset/image_{index}"
            if len({(pixels.shape, pixels.dtype) for _, pixels, _ in members}) > 1:
                raise FileError(path, "the images of the series have several sizes or types", field=group)
            file.write(f"{group}/data", np.stack([pixels for _, pixels, _ in members]))
            file.write(f"{group}/header", np.stack([head for head, _, _ in members]))
            file.write_texts(f"{group}/attributes", [text for _, _, text in members])


def read_mrd_images(path: Path | str) -> tuple[dict[str, tuple[MrdImage, ...]], IsmrmrdHeader | None]:
    """Read the images of a file: group name -> images, in the order of the names, and the header of the measurement.

    Complex pixels become their magnitude.

    Raises
    ------
    FileError
        The file cannot be read, has no images, more than 65536 in a group, or an image has several channels or partitions, is
        not finite, or its header or Meta is damaged; the group is named.
    """
    with Hdf5Reader(path) as file:
        found = {}
        header = None
        for top in file.names():
            if file.has(f"{top}/xml"):
                header, _ = header_of(file, f"{top}/xml")
            groups = sorted(name for name in file.names(top) if name.startswith("image"))
            found.update({group: tuple(_images(file, f"{top}/{group}")) for group in groups})
        if not found:
            raise FileError(file.path, "has no MRD images (groups image_0, image_1, ... with data and header)")
        return found, header


def _images(file: Hdf5Reader, group: str) -> Sequence[MrdImage]:
    from ismrmrd.hdf5 import image_header_dtype

    shape, dtype = file.shape(f"{group}/data"), file.dtype(f"{group}/data")
    is_pair = dtype.names == ("real", "imag")
    if len(shape) != 5 or shape[1:3] != (1, 1) or 0 in shape or shape[0] > _MAX_IMAGES:
        raise FileError(file.path, f"expected (image, 1, 1, y, x), got {shape}", field=f"{group}/data")
    if not is_pair and dtype.kind not in "uifc":
        raise FileError(file.path, f"expected numbers, got {dtype}", field=f"{group}/data")
    heads = file.read(f"{group}/header")
    if heads.shape != shape[:1] or heads.dtype.names != image_header_dtype.names:
        raise FileError(file.path, f"expected {shape[0]} image headers, got {heads.shape}", field=f"{group}/header")
    texts = [b""] * shape[0]
    if file.has(f"{group}/attributes"):
        for index, one in enumerate(file.read(f"{group}/attributes").reshape(-1)[: shape[0]]):
            texts[index] = one.encode() if isinstance(one, str) else one if isinstance(one, bytes) else b""
    images = []
    for index in range(shape[0]):
        values = file.read(f"{group}/data", index)[0, 0]
        with np.errstate(over="ignore", invalid="ignore"):
            if is_pair or values.dtype.kind == "c":
                values = np.abs(values["real"] + 1j * values["imag"]) if is_pair else np.abs(values)
            pixels = values.astype(np.float32)
        if not np.isfinite(pixels).all():
            raise FileError(file.path, f"image {index} has NaN or infinite pixels", field=f"{group}/data")
        try:
            meta = meta_of(texts[index])
            head = np.zeros((), image_header_dtype)
            for name in image_header_dtype.names or ():
                head[name] = heads[name][index]
            images.append(MrdImage(head, pixels, meta))
        except (ValueError, TypeError) as error:
            raise FileError(file.path, f"image {index}: {error}", field=group) from error
    return images
