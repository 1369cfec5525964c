"""Our result format: reconstructed images in HDF5, with certificates, provenance and geometry. One reader and one writer.

The data set ``reconstruction`` is float32 (slice, y, x), as ``fastmri.evaluate`` reads it: the image, or its magnitude
if it is complex, which then goes whole into ``image`` as complex64. ``smooth``, ``sparse`` and ``cost_map`` are further
images of each slice; ``zero_filled``, ``reference``, ``coil_maps`` and ``mask`` let a reader judge them. The attributes
``provenance``, ``certificate`` and ``geometry`` are JSON texts.
"""

import contextlib
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from mrisps._version import __version__
from mrisps.errors import FileError
from mrisps.io.acquisition import Geometry, Scalar, misfit, shown, triple
from mrisps.io.hdf5 import Hdf5Reader
from mrisps.io.hdf5_writer import Hdf5Writer
from mrisps.io.image_volume import ImageVolume
from mrisps.io.ismrmrd_header import IsmrmrdHeader, header_of
from mrisps.io.json_text import JsonValue, from_json, to_json

__all__ = ["DATA_SETS", "ResultFile", "ResultWriter", "read_volume"]

DATA_SETS = ("reconstruction", "image", "smooth", "sparse", "cost_map", "attention")
"""The data sets of a result, as far as it has them."""

_IMAGES = ("slice", "y", "x")
_FORMAT_VERSION = 1  # attribute ``mrisps_format``
_TEXTS = ("provenance", "certificate", "geometry")


class ResultFile(contextlib.ExitStack):
    """A result file, opened for reading; images are read when asked for. Files without any of our attributes are read, too.

    ``names`` are those of `DATA_SETS` that the file has, ``shape`` is (y, x) of the images, and ``attributes`` has all
    scalar ones but the three JSON texts.

    Raises
    ------
    FileError
        The file cannot be read, is of a later version of the format, or has no data set ``reconstruction`` that is
        real (slice, y, x); or, when they are asked for: images are not finite, texts are damaged.
    """

    def __init__(self, path: Path | str) -> None:
        super().__init__()
        with contextlib.ExitStack() as stack:
            self._file = stack.enter_context(Hdf5Reader(path))
            self.path = self._file.path
            self.n_slices, *shape = self._file.check("reconstruction", "real", _IMAGES)
            self.shape = (shape[0], shape[1])
            attributes, _ = self._file.attributes()
            version = attributes.get("mrisps_format", _FORMAT_VERSION)
            if not isinstance(version, int) or version > _FORMAT_VERSION:
                message = f"expected at most {_FORMAT_VERSION}, got {version}: written by a later version of mrisps"
                raise FileError(self.path, message, field="attribute mrisps_format")
            self._texts = {name: attributes.pop(name) for name in _TEXTS if name in attributes}
            self.attributes: Mapping[str, Scalar] = attributes
            self.names = tuple(name for name in DATA_SETS if self._file.has(name))
            self.push(stack.pop_all())

    @staticmethod
    def is_result(path: Path | str) -> bool:
        """Whether an HDF5 file has reconstructed images and no k-space; a FileError if it cannot be read."""
        with Hdf5Reader(path) as file:
            return file.has("reconstruction") and not file.has("kspace")

    def layout(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Shape and element type of every data set in the file."""
        return self._file.layout()

    def read(
        self, name: str = "reconstruction", index: int | None = None, *, finite: bool = True
    ) -> NDArray[np.generic]:
        """Read the data set of this name, (slice, y, x), or one slice of it, (y, x); ``finite=False`` allows any pixels."""
        n_slices = (self._file.shape(name) or (0,))[0]
        if index is not None and not 0 <= index < n_slices:
            raise FileError(self.path, f"expected 0 to {n_slices - 1}, got {index}", field=f"slice of {name}")
        values = self._file.read(name, index)
        if finite and name in ("reconstruction", "image") and not np.isfinite(values).all():
            raise FileError(self.path, "has NaN or infinite pixels", field=name)
        return values

    def volume(self) -> ImageVolume:
        """Read the images with their place: complex ones if the file has them, else the magnitude."""
        images: NDArray[np.float32] | NDArray[np.complex64]
        with np.errstate(over="ignore"):  # a number too large for single precision is found by ImageVolume
            if "image" in self.names:
                self._file.check("image", "complex", _IMAGES)
                images = self.read("image").astype(np.complex64)
            else:
                images = self.read().astype(np.float32)
        texts = {name: text for name, text in self._texts.items() if name != "geometry"}
        try:
            return ImageVolume(images, self.geometries, self.path, self.header, {**self.attributes, **texts})
        except ValueError as error:
            raise FileError(self.path, str(error)) from error

    @cached_property
    def provenance(self) -> Mapping[str, JsonValue] | None:
        """How the images were made; None if the file does not say."""
        value = self._json("provenance")
        if value is not None and not isinstance(value, Mapping):
            raise FileError(self.path, "expected an object", field="attribute provenance")
        return value

    @cached_property
    def certificates(self) -> tuple[Mapping[str, JsonValue], ...]:
        """What the solver said about each slice; empty if the file does not say."""
        value = self._json("certificate")
        entries = value if isinstance(value, list) else []
        objects = tuple(entry for entry in entries if isinstance(entry, Mapping))
        if value is not None and (not isinstance(value, list) or not len(objects) == len(value) == self.n_slices):
            raise FileError(self.path, f"expected a list of {self.n_slices} objects", field="attribute certificate")
        return objects

    @cached_property
    def geometries(self) -> tuple[Geometry | None, ...]:
        """Where each image lies: pixel [n_y // 2, n_x // 2] is at ``position_mm``. None where that is unknown."""
        field = "attribute geometry"
        value = self._json("geometry")
        if value is None:
            return (None,) * self.n_slices
        if not isinstance(value, list) or len(value) != self.n_slices:
            n = f"{len(value)} entries" if isinstance(value, list) else "no list"
            raise FileError(self.path, f"has {n}, there are {self.n_slices} slices", field=field)
        try:
            return tuple(None if entry is None else _geometry(entry) for entry in value)
        except (ValueError, TypeError, KeyError) as error:
            raise FileError(self.path, f"is no list of geometries: {error}", field=field) from error

    @cached_property
    def header(self) -> IsmrmrdHeader | None:
        """The ISMRMRD header of the measurement; None if the file has none."""
        return header_of(self._file)[0]

    def digests(self) -> dict[str, str]:
        """SHA-256 of each of `names`: of element type, shape, and bytes in C order."""
        digests = {}
        for name in self.names:
            shape, dtype = self._file.shape(name), self._file.dtype(name)
            digest = hashlib.sha256(f"{dtype.str}{shape}".encode())
            for index in range(shape[0]):
                digest.update(np.ascontiguousarray(self._file.read(name, index)).tobytes())
            digests[name] = digest.hexdigest()
        return digests

    def _json(self, name: str) -> JsonValue:
        text = self._texts.get(name)
        return None if text is None else from_json(str(text), self.path, f"attribute {name}")


class ResultWriter(contextlib.ExitStack):
    """Writes results slice after slice. The file appears when the ``with`` block ends well and every slice was written.

    What is there stays until then. The attributes are those of the file, for example ``acquisition`` and ``patient_id``
    of the input; the header is written as ``ismrmrd_header``. A FileError if the file cannot be written.
    """

    def __init__(
        self,
        path: Path | str,
        n_slices: int,
        *,
        attributes: Mapping[str, Scalar] | None = None,
        provenance: Mapping[str, JsonValue] | None = None,
        header: IsmrmrdHeader | None = None,
    ) -> None:
        super().__init__()
        if n_slices < 1:
            raise ValueError(f"n_slices: expected at least 1, got {n_slices}")
        self.path, self.n_slices = Path(path), n_slices
        self._attributes, self._provenance, self._header = dict(attributes or {}), provenance, header
        self._layout: dict[str, tuple[tuple[int, ...], np.dtype[np.generic]]] = {}
        self._said: dict[int, tuple[Mapping[str, JsonValue] | None, Geometry | None]] = {}
        self._file = Hdf5Writer(self.path)

    def __enter__(self) -> Self:
        self.enter_context(self._file)
        self.push(lambda kind, *_: self._finish() if kind is None else None)
        return self

    def write_slice(
        self,
        index: int,
        image: NDArray[np.float32] | NDArray[np.complex64],
        extras: Mapping[str, NDArray[np.generic]] | None = None,
        certificate: Mapping[str, JsonValue] | None = None,
        geometry: Geometry | None = None,
    ) -> None:
        """Write one slice.

        Parameters
        ----------
        index
            From 0 to n_slices - 1; each once, in any order.
        image
            (y, x), real or complex.
        extras
            Further images of the slice by the name of their data set, such as ``smooth`` or ``cost_map``; the same
            names, shapes and types for every slice.
        certificate
            What the solver says about this slice.
        geometry
            Where this image lies: its own field of view, after any crop.

        A ValueError if an argument does not fit the above, or to the first slice; a FileError if the image or an extra
        is not finite, or the disk is full.
        """
        if not 0 <= index < self.n_slices or index in self._said:
            raise ValueError(f"index: expected 0 to {self.n_slices - 1}, each once, got {index}")
        parts = self._parts(image, extras or {})
        layout = {name: (part.shape, part.dtype) for name, part in parts.items()}
        if not self._layout:
            for name, (shape, dtype) in layout.items():
                self._file.create(name, (self.n_slices, *shape), dtype)
            self._layout = layout
        elif layout != self._layout:
            raise ValueError(f"image, extras: expected as for the first slice {self._layout}, got {layout}")
        for name, part in parts.items():
            self._file.write_part(name, index, part)
        self._said[index] = certificate, geometry

    def _parts(
        self, image: NDArray[np.float32] | NDArray[np.complex64], extras: Mapping[str, NDArray[np.generic]]
    ) -> dict[str, NDArray[np.generic]]:
        if wrong := misfit(image, "real or complex", ("y", "x")):
            raise ValueError(f"image: {wrong}")
        is_complex = image.dtype.kind == "c"
        parts: dict[str, NDArray[np.generic]] = {
            "reconstruction": np.asarray(abs(image) if is_complex else image, "f4")
        }
        if is_complex:
            parts["image"] = image.astype(np.complex64)
        for name, extra in extras.items():
            if name in parts or not name.isidentifier():
                raise ValueError(f"extras: expected names like cost_map, other than {tuple(parts)}, got {name!r}")
            if extra.size == 0 or extra.dtype.kind not in "fcbiu":
                raise ValueError(f"extras: {name}: expected an array of numbers, got {shown(extra)}")
            parts[name] = extra
        for name, part in parts.items():
            if not np.isfinite(part).all():
                raise FileError(self.path, "has NaN or infinite pixels, not written", field=name)
        return parts

    def _finish(self) -> None:
        missing = [index for index in range(self.n_slices) if index not in self._said]
        if missing:
            raise ValueError(f"slices not written: {missing}")
        attributes = {**self._attributes, "mrisps_format": _FORMAT_VERSION, "mrisps_version": __version__}
        certificates = [self._said[index][0] for index in range(self.n_slices)]
        geometries = [None if g is None else asdict(g) for _, (_, g) in sorted(self._said.items())]
        if self._provenance is not None:
            attributes["provenance"] = to_json(self._provenance)
        if any(certificate is not None for certificate in certificates):
            attributes["certificate"] = to_json(certificates)
        if any(geometry is not None for geometry in geometries):
            attributes["geometry"] = to_json(geometries)
        self._file.set_attributes(attributes)
        if self._header is not None:
            self._file.write("ismrmrd_header", self._header.to_xml())


def read_volume(path: Path | str, names: Sequence[str]) -> NDArray[np.float32]:
    """Read the images (slice, y, x) under the first of these names that an HDF5 file has: results or reference images.

    A FileError if it has none of the names, or the images are not real, three-dimensional and finite.
    """
    with Hdf5Reader(path) as file:
        name = next((name for name in names if file.has(name)), None)
        if name is None:
            raise FileError(file.path, f"is missing; the file has: {', '.join(file.names())}", field=" or ".join(names))
        file.check(name, "real", _IMAGES)
        with np.errstate(over="ignore", invalid="ignore"):
            volume = file.read(name).astype(np.float32)
        if not np.isfinite(volume).all():
            raise FileError(file.path, "has NaN or infinite pixels", field=name)
        return volume


def _geometry(entry: Mapping[str, Sequence[float]]) -> Geometry:
    return Geometry(**{name: triple(entry[name]) for name in Geometry.__dataclass_fields__})
