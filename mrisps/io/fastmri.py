"""fastMRI's HDF5 layout: raw k-space in, reconstructions out.

Axes on disk are (slice, y, x) for single-coil and (slice, coil, y, x) for multi-coil k-space. The first image axis,
here y, is the readout, which the ISMRMRD header calls x; its y is the phase-encoding direction, here x, where lines are
left out.

Source: J. Zbontar et al., *fastMRI: An Open Dataset and Benchmarks for Accelerated MRI*, arXiv 1811.08839, section 4,
and the reading code of the package ``fastmri`` 0.3.0 (``fastmri.data.mri_data``, ``fastmri.evaluate``).
"""

import contextlib
import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from mrisps.errors import FileError
from mrisps.io.acquisition import Acquisition, Scalar
from mrisps.io.hdf5 import Hdf5Reader
from mrisps.io.hdf5_writer import Hdf5Writer
from mrisps.io.ismrmrd_header import IsmrmrdHeader, header_of
from mrisps.io.json_text import JsonValue, to_json
from mrisps.io.kspace_file import KspaceFile
from mrisps.io.writers import SliceWriter

__all__ = ["FastmriFile", "KspaceWriter", "write_kspace"]

_TARGETS = ("reconstruction_esc", "reconstruction_rss")


class FastmriFile(KspaceFile):
    """A fastMRI file opened for reading; see `KspaceFile` for the common attributes.

    As in fastMRI, both sizes of ``recon_shape`` are the width where the encoded image is narrower than the crop.

    Attributes
    ----------
    multicoil : bool
        Whether the file has a coil axis.
    dtype : str
        Element type on disk.
    mask : ndarray of bool or None
        (x,) or (y, x); None if the file has no data set ``mask``.
    target_name : str or None
        The data set with the reference images.
    image_is_real : bool
        Attribute ``image_is_real``, which is ours; false if there is none.

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

    def close(self) -> None:
        """Close the file. Harmless when done twice."""
        self._file.close()

    def read_slice(self, index: int) -> Acquisition:
        """Read one slice."""
        self._check_index(index)
        kspace = self._file.read("kspace", index)
        target = None if self.target_name is None else self._file.read(self.target_name, index)
        with np.errstate(over="ignore"):  # too large for complex64 becomes infinite, which Acquisition refuses
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

    def _read_metadata(self) -> None:
        file = self._file
        self.path = file.path
        shape = file.shape("kspace")
        if len(shape) not in (3, 4):
            raise self._error("kspace", f"expected (slice, y, x) or (slice, coil, y, x), got {shape}")
        if 0 in shape:
            raise self._error("kspace", f"is empty: shape {shape}")
        if file.dtype("kspace").kind != "c":
            raise self._error("kspace", f"expected complex numbers, got {file.dtype('kspace')}")
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
        self.header, self.header_xml = header_of(file)
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

    def layout(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Shape and element type of every data set in the file."""
        return self._file.layout()

    def _read_mask(self) -> NDArray[np.bool_] | None:
        if not self._file.has("mask"):
            return None
        expected = ((self.shape[1],), self.shape)
        shape, dtype = self._file.shape("mask"), self._file.dtype("mask")
        if shape not in expected or dtype.kind not in "buif":
            message = f"expected numbers of shape {expected[0]} or {expected[1]}, got {dtype} {shape}"
            raise self._error("mask", message)
        values = self._file.read("mask")
        mask = values != 0
        if not (mask == values).all():
            raise self._error("mask", "expected only 0 and 1")
        if not mask.any():
            raise self._error("mask", "is zero everywhere: nothing was acquired")
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
                raise self._error(name, message)
        return name


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


class KspaceWriter(SliceWriter):
    """Writes raw data in fastMRI's layout, slice after slice; the file appears when the ``with`` block ends well.

    The layout has one mask and one set of attributes a file: those of the first slice. Where the masks of the slices differ, the
    file has none.

    Parameters
    ----------
    header_xml
        Written as ``ismrmrd_header``.
    multicoil
        Write a coil axis; None: if there is more than one coil.
    provenance
        Where the data come from; written as JSON into the attribute ``provenance``.

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
        super().__init__(path, n_slices)
        self._header_xml = header_xml
        self._multicoil = multicoil
        self._provenance = provenance
        self._file = Hdf5Writer(self.path)
        self._one_mask = True
        self._maximum, self._squares = 0.0, 0.0

    def _open(self, stack: contextlib.ExitStack) -> None:
        stack.enter_context(self._file)

    def _create(self, first: Acquisition) -> None:
        if self._multicoil is None:
            self._multicoil = first.n_coils > 1
        if not self._multicoil and first.n_coils > 1:
            raise ValueError(f"multicoil: {first.n_coils} coils need a coil axis")
        shape = first.kspace.shape if self._multicoil else first.kspace.shape[1:]
        self._file.create("kspace", (self.n_slices, *shape), np.dtype(np.complex64))
        if first.target is not None:
            name = _TARGETS[self._multicoil]
            self._file.create(name, (self.n_slices, *first.target.shape), np.dtype(np.float32))

    def _write(self, record: Acquisition, first: Acquisition) -> None:
        self._file.write_part("kspace", self._n_written, record.kspace if self._multicoil else record.kspace[0])
        if record.target is not None:
            self._file.write_part(_TARGETS[bool(self._multicoil)], self._n_written, record.target)
            self._maximum = max(self._maximum, float(record.target.max()))
            self._squares += float(np.sum(record.target.astype(np.float64) ** 2))
        mask, other = first.full_mask(), record.full_mask()
        same = mask is other if mask is None or other is None else np.array_equal(mask, other)
        self._one_mask = self._one_mask and same

    def _end(self, first: Acquisition) -> None:
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
            stated["provenance"] = to_json(self._provenance)
        self._file.set_attributes(stated)


def _text(value: Scalar | None) -> str | None:
    return value if isinstance(value, str) else None


def _flag(path: Path, name: str, value: Scalar) -> bool:
    if value not in (True, False):
        raise FileError(path, f"expected true or false, got {value!r}", field=f"attribute {name}")
    return bool(value)
