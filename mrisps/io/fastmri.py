"""fastMRI's HDF5 layout: raw k-space in, reconstructions out.

Axes on disk are (slice, y, x) for single-coil and (slice, coil, y, x) for multi-coil k-space. The first image axis,
here y, is the readout, which the ISMRMRD header calls x; its y is the phase-encoding direction, here x, where lines are
left out.

Source: J. Zbontar et al., *fastMRI: An Open Dataset and Benchmarks for Accelerated MRI*, arXiv 1811.08839, section 4,
and the reading code of the package ``fastmri`` 0.3.0 (``fastmri.data.mri_data``, ``fastmri.evaluate``).
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mrisps.errors import FileError
from mrisps.io.acquisition import Acquisition, Geometry, Scalar
from mrisps.io.hdf5 import Hdf5Reader, Hdf5Writer
from mrisps.io.ismrmrd_header import IsmrmrdHeader
from mrisps.io.kspace_file import KspaceFile

__all__ = [
    "FastmriFile",
    "FastmriSummary",
    "JsonValue",
    "KspaceWriter",
    "ReconstructionWriter",
    "Sampling",
    "read_volume",
    "sampling_from_zeros",
    "sampling_of",
    "summarize",
    "write_kspace",
    "write_reconstruction",
]

JsonValue: TypeAlias = "bool | int | float | str | Sequence[JsonValue] | Mapping[str, JsonValue] | None"
"""What goes into a JSON attribute. Numbers that are not finite become null."""

FORMAT_VERSION = 1
"""Version of the layout of our own output files, attribute ``mrisps_format``."""

_TARGETS = ("reconstruction_esc", "reconstruction_rss")


@dataclass(frozen=True)
class Sampling:
    """How much of k-space was acquired.

    Parameters
    ----------
    n_acquired, n_total
        Columns, or single samples where the pattern is two-dimensional.
    columns
        Whether these numbers count columns.
    n_center
        Columns without a gap around the central one (0 for a two-dimensional pattern).
    stated
        True: the file has a mask that says so. False: counted from where k-space is not zero.
    """

    n_acquired: int
    n_total: int
    columns: bool
    n_center: int
    stated: bool

    @property
    def acceleration(self) -> float:
        """Total over acquired; infinite if nothing was acquired."""
        return self.n_total / self.n_acquired if self.n_acquired else math.inf

    @property
    def is_full(self) -> bool:
        """Whether everything was acquired."""
        return self.n_acquired == self.n_total

    def __str__(self) -> str:
        unit = "columns" if self.columns else "samples"
        verb = "acquired (mask in the file)" if self.stated else "non-zero (no mask in the file)"
        center = f", {self.n_center} of them around the centre" if self.columns and not self.is_full else ""
        amount = "fully sampled" if self.is_full else f"acceleration {self.acceleration:.2f}"
        return f"{self.n_acquired} of {self.n_total} {unit} are {verb}{center}: {amount}"


def sampling_from_zeros(kspace: NDArray[np.complex64]) -> Sampling:
    """Count the columns of (..., y, x) k-space that are not zero: a description for people, never a mask.

    A column of zeros may have been left out, be outside the encoded range, or have been measured as zero.
    """
    acquired = (kspace != 0).any(axis=tuple(range(kspace.ndim - 1)))  # (x,)
    return _sampling(acquired, stated=False)


def sampling_of(record: Acquisition) -> Sampling:
    """How much of a slice was acquired: by its mask, else counted from the zeros."""
    return sampling_from_zeros(record.kspace) if record.mask is None else _sampling(record.mask, stated=True)


@dataclass(frozen=True, eq=False)
class FastmriSummary:
    """What is in a file, for people.

    Parameters
    ----------
    path, n_bytes
        The file and its size.
    kind
        ``"k-space"``, or ``"reconstruction"`` for a file with images only.
    n_slices, n_coils, shape
        Of the k-space (shape is (y, x)), or of the reconstruction (n_coils is then 0).
    dtype
        Element type on disk.
    contrast, header, recon_shape, image_is_real
        As the file states; see `Acquisition`.
    sampling
        From the mask, else counted from the zeros of the middle slice; None for a reconstruction.
    target
        Name of the reference images, or None.
    datasets
        Every data set: (shape, element type).
    attributes
        All scalar attributes but the two below.
    provenance, certificate
        The JSON texts of one of our own outputs, or None.
    notes
        What is missing or unusual.
    """

    path: Path
    n_bytes: int
    kind: str
    n_slices: int
    n_coils: int
    shape: tuple[int, int]
    dtype: str
    contrast: str | None
    header: IsmrmrdHeader | None
    recon_shape: tuple[int, int] | None
    image_is_real: bool
    sampling: Sampling | None
    target: str | None
    datasets: Mapping[str, tuple[tuple[int, ...], str]]
    attributes: Mapping[str, Scalar]
    provenance: str | None
    certificate: str | None
    notes: tuple[str, ...]


class FastmriFile(KspaceFile):
    """A fastMRI file opened for reading. Slices are read when asked for.

    Parameters
    ----------
    path
        The file.

    Attributes
    ----------
    path : Path
    n_slices, n_coils : int
    shape : tuple of int
        (y, x) of one slice.
    multicoil : bool
        Whether the file has a coil axis.
    dtype : str
        Element type on disk.
    contrast : str or None
        Attribute ``acquisition``.
    header : IsmrmrdHeader or None
    recon_shape : tuple of int or None
        (y, x) from the header. As in fastMRI, both become the width where the encoded image is narrower than the crop.
    mask : ndarray of bool or None
        (x,) or (y, x); None if the file has no data set ``mask``.
    target_name : str or None
        The data set with the reference images.
    image_is_real : bool
        Attribute ``image_is_real``, which is ours; false if there is none.
    attributes : Mapping
        All scalar attributes.
    notes : tuple of str

    Raises
    ------
    FileError
        The file is no HDF5 file or is truncated; ``kspace`` is missing, empty, not complex or has the wrong number of
        axes; the mask has the wrong length, other values than 0 and 1, or acquires nothing; the header is no valid XML.
    """

    format = "fastMRI"

    def __init__(self, path: Path | str) -> None:
        self._file = Hdf5Reader(path)
        try:
            self._read_metadata()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "FastmriFile":
        return self

    def close(self) -> None:
        """Close the file. Harmless when done twice."""
        self._file.close()

    def read_slice(self, index: int) -> Acquisition:
        """Read one slice.

        Parameters
        ----------
        index
            From 0 to n_slices - 1.

        Raises
        ------
        FileError
            There is no such slice; it cannot be read; it has NaN or infinite samples, is zero everywhere, or is not
            zero where the mask says that nothing was acquired.
        """
        self._check_index(index)
        kspace = self._file.read("kspace", index)
        target = None if self.target_name is None else self._file.read(self.target_name, index)
        with np.errstate(
            over="ignore"
        ):  # complex128 too large for complex64 becomes infinite, which Acquisition refuses
            return Acquisition(
                kspace=kspace.astype(np.complex64).reshape(self.n_coils, *self.shape),
                source=self.path,
                slice_index=index,
                n_slices=self.n_slices,
                mask=self.mask,
                target=None if target is None else target.astype(np.float32),
                image_is_real=self.image_is_real,
                contrast=self.contrast,
                recon_shape=self.recon_shape,
                attributes=self.attributes,
            )

    def summary(self) -> FastmriSummary:
        """Describe the file. Reads the middle slice, to count what is not zero."""
        index = self.n_slices // 2
        with np.errstate(over="ignore", invalid="ignore"):  # counting, not checking
            counted = sampling_from_zeros(self._file.read("kspace", index).astype(np.complex64))
        sampling, notes = counted, list(self.notes)
        if self.mask is not None:
            sampling = _sampling(self.mask, stated=True)
            n_empty = sampling.n_acquired - counted.n_acquired
            if sampling.columns and n_empty > 0:
                notes.append(f"{n_empty} of the columns that the mask calls acquired are zero in slice {index}")
        return _summary(
            self._file,
            kind="k-space",
            n_slices=self.n_slices,
            n_coils=self.n_coils,
            shape=self.shape,
            dtype=self.dtype,
            header=self.header,
            recon_shape=self.recon_shape,
            image_is_real=self.image_is_real,
            sampling=sampling,
            target=self.target_name,
            notes=tuple(notes),
        )

    def _read_metadata(self) -> None:
        file = self._file
        self.path = file.path
        shape = file.shape("kspace")
        if len(shape) not in (3, 4):
            raise FileError(self.path, f"expected (slice, y, x) or (slice, coil, y, x), got {shape}", field="kspace")
        if 0 in shape:
            raise FileError(self.path, f"is empty: shape {shape}", field="kspace")
        if file.dtype("kspace").kind != "c":
            raise FileError(self.path, f"expected complex numbers, got {file.dtype('kspace')}", field="kspace")
        self.dtype = str(file.dtype("kspace"))
        self.multicoil = len(shape) == 4
        self.n_slices = shape[0]
        self.n_coils = shape[1] if self.multicoil else 1
        self.shape = (shape[-2], shape[-1])
        self.mask = self._read_mask()
        attributes, others = file.attributes()
        self.attributes = MappingProxyType(attributes)
        self.contrast = _text(attributes.get("acquisition"))
        self.image_is_real = _flag(self.path, "image_is_real", attributes.get("image_is_real", False))
        notes = [f"attribute {name} is neither text nor a number, left out" for name in others]
        self.header_xml = _read_header_xml(file)
        self.header = _parsed_header(file.path, self.header_xml)
        if self.header is None:
            notes.append("no ismrmrd_header: encoding, field of view and crop are unknown")
        else:
            self.recon_shape = self._recon_shape(self.header)
            encoded = self.header.encoded_matrix
            if encoded[:2] != self.shape:
                notes.append(f"header says {encoded[0]} x {encoded[1]}, k-space is {self.shape[0]} x {self.shape[1]}")
        self.target_name = self._find_target()
        if self.target_name is None:
            notes.append("no reference images")
        if self.mask is None:
            notes.append("no mask")
        self.notes = tuple(notes)

    def _read_mask(self) -> NDArray[np.bool_] | None:
        if not self._file.has("mask"):
            return None
        expected = ((self.shape[1],), self.shape)
        shape, dtype = self._file.shape("mask"), self._file.dtype("mask")
        if shape not in expected or dtype.kind not in "buif":
            message = f"expected numbers of shape {expected[0]} or {expected[1]}, got {dtype} {shape}"
            raise FileError(self.path, message, field="mask")
        values = self._file.read("mask")
        mask = values != 0
        if not (mask == values).all():
            raise FileError(self.path, "expected only 0 and 1", field="mask")
        if not mask.any():
            raise FileError(self.path, "is zero everywhere: nothing was acquired", field="mask")
        return np.asarray(mask, dtype=np.bool_)

    def _recon_shape(self, header: IsmrmrdHeader) -> tuple[int, int]:
        n_x = self.shape[1]
        recon = (header.recon_matrix[0], header.recon_matrix[1])
        return (n_x, n_x) if recon[1] > n_x else recon

    def _find_target(self) -> str | None:
        order = _TARGETS[::-1] if self.multicoil else _TARGETS
        name = next((name for name in order if self._file.has(name)), None)
        if name is not None:
            shape, dtype = self._file.shape(name), self._file.dtype(name)
            if len(shape) != 3 or shape[0] != self.n_slices or 0 in shape or dtype.kind not in "fiu":
                message = f"expected real ({self.n_slices}, y, x), got {dtype} {shape}"
                raise FileError(self.path, message, field=name)
        return name


def summarize(path: Path | str) -> FastmriSummary:
    """Describe a fastMRI file, or one with reconstructions only such as our own outputs.

    Raises
    ------
    FileError
        See `FastmriFile`; there is neither ``kspace`` nor ``reconstruction``.
    """
    with Hdf5Reader(path) as file:
        if not file.has("kspace") and file.has("reconstruction"):
            shape = file.shape("reconstruction")
            if len(shape) != 3 or 0 in shape:
                raise FileError(file.path, f"expected (slice, y, x), got {shape}", field="reconstruction")
            return _summary(
                file,
                kind="reconstruction",
                n_slices=shape[0],
                n_coils=0,
                shape=(shape[1], shape[2]),
                dtype=str(file.dtype("reconstruction")),
                header=_parsed_header(file.path, _read_header_xml(file)),
                recon_shape=None,
                image_is_real=False,
                sampling=None,
                target=None,
                notes=(),
            )
    with FastmriFile(path) as fastmri_file:
        return fastmri_file.summary()


def read_volume(path: Path | str, names: Sequence[str]) -> NDArray[np.float32]:
    """Read the images (slice, y, x) under the first of these names that the file has.

    Raises
    ------
    FileError
        The file cannot be read, has none of the names, or the images are not real, three-dimensional and finite.
    """
    with Hdf5Reader(path) as file:
        name = next((name for name in names if file.has(name)), None)
        if name is None:
            raise FileError(file.path, f"is missing; the file has: {', '.join(file.names())}", field=" or ".join(names))
        shape, dtype = file.shape(name), file.dtype(name)
        if len(shape) != 3 or 0 in shape or dtype.kind not in "fiu":
            raise FileError(file.path, f"expected real (slice, y, x), got {dtype} {shape}", field=name)
        with np.errstate(over="ignore", invalid="ignore"):
            volume = file.read(name).astype(np.float32)
        if not np.isfinite(volume).all():
            raise FileError(file.path, "has NaN or infinite pixels", field=name)
        return volume


class ReconstructionWriter:
    """Writes reconstructions slice after slice, in the layout that ``fastmri.evaluate`` reads.

    The data set ``reconstruction`` is float32 (slice, y, x): the image, or its magnitude if it is complex, which then
    goes whole into ``image`` as complex64. The file appears under its name when the ``with`` block ends well and every
    slice was written; until then, and after any exception, what was there before is untouched.

    Parameters
    ----------
    path
        The file to be written.
    n_slices
        How many slices there will be.
    attributes
        Attributes of the file, for example ``acquisition``, ``max``, ``norm`` and ``patient_id`` of the input.
    provenance
        How the images were made; written as JSON into the attribute ``provenance``.
    header
        Written as ``ismrmrd_header``.

    Raises
    ------
    FileError
        The file cannot be written.
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
        if n_slices < 1:
            raise ValueError(f"n_slices: expected at least 1, got {n_slices}")
        self.path = Path(path)
        self.n_slices = n_slices
        self._attributes = dict(attributes or {})
        self._provenance = provenance
        self._header = header
        self._layout: dict[str, tuple[tuple[int, ...], np.dtype[np.generic]]] = {}
        self._certificates: dict[int, Mapping[str, JsonValue] | None] = {}
        self._geometries: dict[int, Geometry | None] = {}
        self._file = Hdf5Writer(self.path)

    def __enter__(self) -> "ReconstructionWriter":
        self._file.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        if kind is None:
            try:
                self._finish()
            except BaseException as failure:
                self._file.__exit__(type(failure), failure, failure.__traceback__)
                raise
        return self._file.__exit__(kind, error, trace)

    def write_slice(
        self,
        index: int,
        image: NDArray[np.float32] | NDArray[np.complex64],
        extras: Mapping[str, NDArray[np.float32] | NDArray[np.complex64]] | None = None,
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
            What the solver says about this slice. The attribute ``certificate`` is the JSON list of all of them.
        geometry
            Where this image lies: its own field of view, after any crop. The attribute ``geometry`` is the JSON list of all.

        Raises
        ------
        ValueError
            An argument does not fit the above, or to the first slice.
        FileError
            The image is not finite, or the disk is full.
        """
        if not 0 <= index < self.n_slices or index in self._certificates:
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
        self._certificates[index] = certificate
        self._geometries[index] = geometry

    def _parts(
        self,
        image: NDArray[np.float32] | NDArray[np.complex64],
        extras: Mapping[str, NDArray[np.float32] | NDArray[np.complex64]],
    ) -> dict[str, NDArray[np.generic]]:
        if image.ndim != 2 or image.size == 0 or image.dtype.kind not in "fc":
            raise ValueError(f"image: expected real or complex (y, x), got {image.dtype} {image.shape}")
        if not np.isfinite(image).all():
            raise FileError(self.path, "has NaN or infinite pixels, not written", field="reconstruction")
        parts: dict[str, NDArray[np.generic]] = {}
        if image.dtype.kind == "c":
            parts = {"reconstruction": np.abs(image).astype(np.float32), "image": image.astype(np.complex64)}
        else:
            parts = {"reconstruction": image.astype(np.float32)}
        for name, extra in extras.items():
            if name in parts or not name.isidentifier():
                raise ValueError(f"extras: expected names like cost_map, other than {tuple(parts)}, got {name!r}")
            if extra.size == 0 or extra.dtype.kind not in "fcbiu":
                raise ValueError(f"extras: {name}: expected an array of numbers, got {extra.dtype} {extra.shape}")
            parts[name] = extra
        return parts

    def _finish(self) -> None:
        if len(self._certificates) < self.n_slices:
            missing = [index for index in range(self.n_slices) if index not in self._certificates]
            raise ValueError(f"slices not written: {missing}")
        from mrisps._version import __version__

        self._file.set_attributes({**self._attributes, "mrisps_format": FORMAT_VERSION, "mrisps_version": __version__})
        if self._provenance is not None:
            self._file.set_attributes({"provenance": _to_json(self._provenance)})
        if any(certificate is not None for certificate in self._certificates.values()):
            in_order = [self._certificates[index] for index in range(self.n_slices)]
            self._file.set_attributes({"certificate": _to_json(in_order)})
        if any(geometry is not None for geometry in self._geometries.values()):
            geometries = [self._geometries[index] for index in range(self.n_slices)]
            self._file.set_attributes({"geometry": _to_json([None if g is None else asdict(g) for g in geometries])})
        if self._header is not None:
            self._file.write("ismrmrd_header", self._header.to_xml())


def write_reconstruction(
    path: Path | str,
    image: NDArray[np.float32] | NDArray[np.complex64],
    *,
    extras: Mapping[str, NDArray[np.float32] | NDArray[np.complex64]] | None = None,
    attributes: Mapping[str, Scalar] | None = None,
    provenance: Mapping[str, JsonValue] | None = None,
    certificates: Sequence[Mapping[str, JsonValue]] | None = None,
    header: IsmrmrdHeader | None = None,
) -> None:
    """Write a whole reconstruction at once; see `ReconstructionWriter`.

    Parameters
    ----------
    path
        The file to be written.
    image
        (slice, y, x), real or complex.
    extras
        Further images, each (slice, ...), by the name of their data set.
    attributes, provenance, header
        See `ReconstructionWriter`.
    certificates
        One a slice.

    Raises
    ------
    ValueError
        The arguments do not fit together.
    FileError
        The file cannot be written.
    """
    if image.ndim != 3 or len(image) == 0:
        raise ValueError(f"image: expected (slice, y, x), got shape {image.shape}")
    extras = extras or {}
    for name, extra in extras.items():
        if extra.ndim < 1 or len(extra) != len(image):
            raise ValueError(f"extras: {name}: expected {len(image)} slices, got shape {extra.shape}")
    if certificates is not None and len(certificates) != len(image):
        raise ValueError(f"certificates: expected {len(image)}, got {len(certificates)}")
    with ReconstructionWriter(path, len(image), attributes=attributes, provenance=provenance, header=header) as writer:
        for index in range(len(image)):
            parts = {name: extra[index] for name, extra in extras.items()}
            writer.write_slice(index, image[index], parts, None if certificates is None else certificates[index])


def write_kspace(
    path: Path | str,
    kspace: NDArray[np.complex64],
    *,
    target: NDArray[np.float32] | None = None,
    mask: NDArray[np.bool_] | None = None,
    header: IsmrmrdHeader | None = None,
    contrast: str | None = None,
    image_is_real: bool = False,
    attributes: Mapping[str, Scalar] | None = None,
) -> None:
    """Write raw data in fastMRI's layout, readable by `FastmriFile` and by ``fastmri.data.SliceDataset``.

    Parameters
    ----------
    path
        The file to be written.
    kspace
        complex64 (slice, y, x) or (slice, coil, y, x), centred, zero where nothing was acquired.
    target
        float32 (slice, y, x): reference images; their maximum and norm go into the attributes ``max`` and ``norm``.
    mask
        bool (x,) or (y, x).
    header
        Without one, it is made from the shapes, with unknown fields of view.
    contrast
        Attribute ``acquisition``.
    image_is_real
        Our own attribute of that name.
    attributes
        Further attributes, for example ``patient_id``; these win over the ones above.

    Raises
    ------
    ValueError
        An array has the wrong number of axes.
    FileError
        The content is none that `FastmriFile` would read, or the file cannot be written.
    """
    if kspace.ndim not in (3, 4) or kspace.dtype.kind != "c" or len(kspace) == 0:
        message = f"kspace: expected complex (slice, y, x) or (slice, coil, y, x), got {kspace.dtype} {kspace.shape}"
        raise ValueError(message)
    if target is not None and (target.ndim != 3 or len(target) != len(kspace)):
        raise ValueError(f"target: expected ({len(kspace)}, y, x), got shape {target.shape}")
    shape = (kspace.shape[-2], kspace.shape[-1])
    if header is None:
        header = IsmrmrdHeader.for_shape(shape, None if target is None else (target.shape[1], target.shape[2]))
    with KspaceWriter(path, len(kspace), header.to_xml(), multicoil=kspace.ndim == 4) as writer:
        for index in range(len(kspace)):
            record = Acquisition(
                kspace=kspace[index].reshape(-1, *shape).astype(np.complex64, copy=False),
                source=Path(path),
                slice_index=index,
                n_slices=len(kspace),
                mask=mask,
                target=None if target is None else target[index].astype(np.float32, copy=False),
                image_is_real=image_is_real,
                contrast=contrast,
                attributes=attributes or {},
            )
            writer.write_slice(record)


class KspaceWriter:
    """Writes raw data in fastMRI's layout, slice after slice; the file appears when the ``with`` block ends well.

    The layout has one mask and one set of attributes a file: those of the first slice. Where the masks of the slices differ, the
    file has none.

    Parameters
    ----------
    path
        The file to be written.
    n_slices
        How many slices there will be.
    header_xml
        Written as ``ismrmrd_header``.
    multicoil
        Write a coil axis; None: if there is more than one coil.
    provenance
        Where the data come from; written as JSON into the attribute ``provenance``.

    Attributes
    ----------
    lost : tuple of str
        What the layout could not carry.

    Raises
    ------
    FileError
        The file cannot be written.
    """

    carries = frozenset(
        {"mask", "target", "image_is_real", "contrast", "attributes", "recon_shape", "readout_oversampling"}
    )

    def __init__(
        self,
        path: Path | str,
        n_slices: int,
        header_xml: bytes,
        *,
        multicoil: bool | None = None,
        provenance: Mapping[str, JsonValue] | None = None,
    ) -> None:
        self.path = Path(path)
        self.n_slices = n_slices
        self._header_xml = header_xml
        self._multicoil = multicoil
        self._provenance = provenance
        self._file = Hdf5Writer(self.path)
        self._first: Acquisition | None = None
        self._n_written = 0
        self._one_mask = True
        self._maximum, self._squares = 0.0, 0.0
        self.lost: tuple[str, ...] = ()

    def __enter__(self) -> "KspaceWriter":
        self._file.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        if kind is None:
            try:
                self._finish()
            except BaseException as failure:
                self._file.__exit__(type(failure), failure, failure.__traceback__)
                raise
        return self._file.__exit__(kind, error, trace)

    def write_slice(self, record: Acquisition) -> None:
        """Write the next slice.

        Raises
        ------
        ValueError
            Its shape or that of its target is not that of the first slice, or there are more slices than were said.
        FileError
            The disk is full.
        """
        if self._first is None:
            self._create(record)
        first = self._first or record
        shapes = [None if r.target is None else r.target.shape for r in (first, record)]
        if self._n_written == self.n_slices or record.kspace.shape != first.kspace.shape or shapes[0] != shapes[1]:
            raise ValueError(
                f"slice {self._n_written} of {self.n_slices}: expected {first.kspace.shape}, got {record.kspace.shape}"
            )
        self._file.write_part("kspace", self._n_written, record.kspace if self._multicoil else record.kspace[0])
        if record.target is not None:
            self._file.write_part(_TARGETS[bool(self._multicoil)], self._n_written, record.target)
            self._maximum = max(self._maximum, float(record.target.max()))
            self._squares += float(np.sum(record.target.astype(np.float64) ** 2))
        mask, other = first.full_mask(), record.full_mask()
        same = mask is other if mask is None or other is None else np.array_equal(mask, other)
        self._one_mask = self._one_mask and same
        self._n_written += 1

    def _create(self, record: Acquisition) -> None:
        if self._multicoil is None:
            self._multicoil = record.n_coils > 1
        if not self._multicoil and record.n_coils > 1:
            raise ValueError(f"multicoil: {record.n_coils} coils need a coil axis")
        shape = record.kspace.shape if self._multicoil else record.kspace.shape[1:]
        self._file.create("kspace", (self.n_slices, *shape), np.dtype(np.complex64))
        if record.target is not None:
            name = _TARGETS[self._multicoil]
            self._file.create(name, (self.n_slices, *record.target.shape), np.dtype(np.float32))
        self._first = record

    def _finish(self) -> None:
        first = self._first
        if first is None or self._n_written < self.n_slices:
            raise ValueError(f"slices: expected {self.n_slices}, {self._n_written} were written")
        self._file.write("ismrmrd_header", self._header_xml)
        if first.mask is not None and self._one_mask:
            self._file.write("mask", first.mask.astype(np.float32))
        elif not self._one_mask:
            self.lost = ("mask: the slices have different ones, the layout has one a file; it has none now",)
        stated: dict[str, Scalar] = {"image_is_real": first.image_is_real}
        if first.contrast is not None:
            stated["acquisition"] = first.contrast
        if first.target is not None:
            stated |= {"max": self._maximum, "norm": math.sqrt(self._squares)}
        stated |= dict(first.attributes)
        if self._provenance is not None:
            stated["provenance"] = _to_json(self._provenance)
        self._file.set_attributes(stated)


def _sampling(mask: NDArray[np.bool_], *, stated: bool) -> Sampling:
    if mask.ndim == 2 and (mask == mask[0]).all():
        mask = mask[0]
    columns = mask.ndim == 1
    n_center = 0
    if columns:
        center = len(mask) // 2
        left = np.flatnonzero(~mask[:center])
        right = np.flatnonzero(~mask[center:])
        first = 0 if left.size == 0 else int(left[-1]) + 1
        last = len(mask) if right.size == 0 else center + int(right[0])
        n_center = max(0, last - first) if mask[center] else 0
    return Sampling(int(np.count_nonzero(mask)), int(mask.size), columns, n_center, stated)


def _summary(
    file: Hdf5Reader,
    *,
    kind: str,
    n_slices: int,
    n_coils: int,
    shape: tuple[int, int],
    dtype: str,
    header: IsmrmrdHeader | None,
    recon_shape: tuple[int, int] | None,
    image_is_real: bool,
    sampling: Sampling | None,
    target: str | None,
    notes: tuple[str, ...],
) -> FastmriSummary:
    attributes, _ = file.attributes()
    provenance = _text(attributes.pop("provenance", None))
    certificate = _text(attributes.pop("certificate", None))
    return FastmriSummary(
        path=file.path,
        n_bytes=file.path.stat().st_size,
        kind=kind,
        n_slices=n_slices,
        n_coils=n_coils,
        shape=shape,
        dtype=dtype,
        contrast=_text(attributes.get("acquisition")),
        header=header,
        recon_shape=recon_shape,
        image_is_real=image_is_real,
        sampling=sampling,
        target=target,
        datasets=MappingProxyType(file.layout()),
        attributes=MappingProxyType(attributes),
        provenance=provenance,
        certificate=certificate,
        notes=notes,
    )


def _read_header_xml(file: Hdf5Reader) -> bytes | None:
    return file.read_text("ismrmrd_header") if file.has("ismrmrd_header") else None


def _parsed_header(path: Path, text: bytes | None) -> IsmrmrdHeader | None:
    try:
        return None if text is None else IsmrmrdHeader.from_xml(text)
    except ValueError as error:
        raise FileError(path, str(error), field="ismrmrd_header") from error


def _text(value: Scalar | None) -> str | None:
    return value if isinstance(value, str) else None


def _flag(path: Path, name: str, value: Scalar) -> bool:
    if value not in (True, False):
        raise FileError(path, f"expected true or false, got {value!r}", field=f"attribute {name}")
    return bool(value)


def _to_json(value: JsonValue) -> str:
    return json.dumps(_finite(value), allow_nan=False, sort_keys=True)


def _finite(value: JsonValue) -> JsonValue:
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_finite(item) for item in value]
    return value
