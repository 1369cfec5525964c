"""fastMRI's HDF5 layout: raw k-space in, and out.

Axes on disk are (slice, y, x) for single-coil and (slice, coil, y, x) for multi-coil k-space. The first image axis,
here y, is the readout, which the ISMRMRD header calls x; its y is the phase-encoding direction, here x, where lines are
left out.

Source: J. Zbontar et al., *fastMRI: An Open Dataset and Benchmarks for Accelerated MRI*, arXiv 1811.08839, section 4,
and the reading code of the package ``fastmri`` 0.3.0 (``fastmri.data.mri_data``, ``fastmri.evaluate``).
"""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from mrisps.io.acquisition import Acquisition, Scalar, alike, misfit
from mrisps.io.hdf5 import Hdf5Reader
from mrisps.io.hdf5_writer import Hdf5Writer
from mrisps.io.ismrmrd_header import IsmrmrdHeader, header_of
from mrisps.io.json_text import JsonValue, to_json
from mrisps.io.kspace_file import KspaceFile, complex64

__all__ = ["FASTMRI_CARRIES", "FastmriFile", "write_fastmri", "write_kspace"]

FASTMRI_CARRIES = frozenset(
    {"mask", "target", "image_is_real", "contrast", "attributes", "recon_shape", "readout_oversampling"}
)
_TARGETS = ("reconstruction_esc", "reconstruction_rss")


class FastmriFile(KspaceFile):
    """A fastMRI file opened for reading; see `KspaceFile` for the common attributes.

    ``dtype`` is the element type on disk, ``mask`` that of all slices, or None, and ``target_name`` the data set with
    the reference images, or None. As in fastMRI, both sizes of ``recon_shape`` are the width where the encoded image is
    narrower than the crop.

    Raises
    ------
    FileError
        The file is no HDF5 file or is truncated; ``kspace`` is missing, empty, not complex or has the wrong number of
        axes; the mask has the wrong length, other values than 0 and 1, or acquires nothing; the header is no valid XML.
    """

    format = "fastMRI"

    def __init__(self, path: Path | str) -> None:
        self._file = Hdf5Reader(path)
        self.path = self._file.path
        try:
            self._read_metadata(self._file)
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
        with np.errstate(over="ignore"):
            return Acquisition(
                kspace=complex64(kspace).reshape(self.n_coils, *self.shape),
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

    def layout(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Shape and element type of every data set in the file."""
        return self._file.layout()

    def _read_metadata(self, file: Hdf5Reader) -> None:
        shape = file.check("kspace", "complex", ("slice", "y", "x"), ("slice", "coil", "y", "x"))
        self.dtype = str(file.dtype("kspace"))
        self.n_slices, self.n_coils = shape[0], shape[1] if len(shape) == 4 else 1
        self.shape = (shape[-2], shape[-1])
        self.mask = self._read_mask()
        attributes, others = file.attributes()
        self.attributes = MappingProxyType(attributes)
        contrast, is_real = attributes.get("acquisition"), attributes.get("image_is_real", False)
        self.contrast = contrast if isinstance(contrast, str) else None
        if is_real not in (True, False):
            raise self._error("attribute image_is_real", f"expected true or false, got {is_real!r}")
        self.image_is_real = bool(is_real)
        notes = [f"attribute {name} is neither text nor a number, left out" for name in others]
        self.header, self.header_xml = header_of(file)
        if self.header is None:
            notes.append("no ismrmrd_header: encoding, field of view and crop are unknown")
        else:
            encoded, recon = self.header.encoded_matrix, self.header.recon_matrix
            self.recon_shape = (shape[-1], shape[-1]) if recon[1] > shape[-1] else recon[:2]
            if encoded[:2] != self.shape:
                notes.append(f"header says {encoded[0]} x {encoded[1]}, k-space is {shape[-2]} x {shape[-1]}")
        names = _TARGETS[::-1] if len(shape) == 4 else _TARGETS
        self.target_name = next((name for name in names if file.has(name)), None)
        if self.target_name is not None:
            file.check(self.target_name, "real", (self.n_slices, "y", "x"))
        missing = {"no reference images": self.target_name is None, "no mask": self.mask is None}
        self.notes = (*notes, *(note for note, is_missing in missing.items() if is_missing))

    def _read_mask(self) -> NDArray[np.bool_] | None:
        if not self._file.has("mask"):
            return None
        self._file.check("mask", "numbers", self.shape[1:], self.shape)
        values = self._file.read("mask")
        mask = np.asarray(values != 0, np.bool_)
        if not (mask == values).all():
            raise self._error("mask", "expected only 0 and 1")
        if not mask.any():
            raise self._error("mask", "is zero everywhere: nothing was acquired")
        return mask


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
    """Write arrays in fastMRI's layout, readable by `FastmriFile` and by ``fastmri.data.SliceDataset``.

    Parameters
    ----------
    kspace
        complex (slice, y, x) or (slice, coil, y, x), centred, zero where nothing was acquired.
    target
        (slice, y, x): reference images; their maximum and norm go into the attributes ``max`` and ``norm``.
    mask
        bool (x,) or (y, x).
    header
        Without one, it is made from the shapes, with unknown fields of view.
    contrast, image_is_real, attributes
        As in `Acquisition`; the attributes win over what else is written as one.
    """
    if wrong := misfit(kspace, "complex", ("slice", "y", "x"), ("slice", "coil", "y", "x")):
        raise ValueError(f"kspace: {wrong}")
    if target is not None and (wrong := misfit(target, "real", (len(kspace), "y", "x"))):
        raise ValueError(f"target: {wrong}")
    shape = (kspace.shape[-2], kspace.shape[-1])
    if header is None:
        header = IsmrmrdHeader.for_shape(shape, None if target is None else (target.shape[1], target.shape[2]))
    records = (
        Acquisition(
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
        for index in range(len(kspace))
    )
    write_fastmri(path, records, header.to_xml(), multicoil=kspace.ndim == 4)


def write_fastmri(
    path: Path | str,
    records: Iterable[Acquisition],
    header_xml: bytes,
    *,
    multicoil: bool | None = None,
    provenance: Mapping[str, JsonValue] | None = None,
) -> tuple[str, ...]:
    """Write slices in fastMRI's layout; the result says what it could not carry.

    The layout has one mask and one set of attributes a file: those of the first slice. Where the masks of the slices
    differ, the file has none. ``multicoil`` writes a coil axis (None: if there is more than one coil), ``provenance``
    is an attribute.
    """
    one_mask, maximum, squares = True, 0.0, 0.0
    with Hdf5Writer(path) as file:
        for first, record in alike(records):
            with_coils = first.n_coils > 1 if multicoil is None else multicoil
            kspace = record.kspace if with_coils else record.kspace[0]
            if record is first:
                file.create("kspace", (first.n_slices, *kspace.shape), kspace.dtype)
                if first.target is not None:
                    file.create(_TARGETS[with_coils], (first.n_slices, *first.target.shape), first.target.dtype)
            file.write_part("kspace", record.slice_index, kspace)
            if record.target is not None:
                file.write_part(_TARGETS[with_coils], record.slice_index, record.target)
                maximum = max(maximum, float(record.target.max()))
                squares += float(np.sum(record.target.astype(np.float64) ** 2))
            mask, other = first.full_mask(), record.full_mask()
            one_mask &= mask is other if mask is None or other is None else np.array_equal(mask, other)
        file.write("ismrmrd_header", header_xml)
        if first.mask is not None and one_mask:
            file.write("mask", first.mask.astype(np.float32))
        stated: dict[str, Scalar] = {"image_is_real": first.image_is_real}
        if first.contrast is not None:
            stated["acquisition"] = first.contrast
        if first.target is not None:
            stated |= {"max": maximum, "norm": math.sqrt(squares)}
        stated |= first.attributes
        if provenance is not None:
            stated["provenance"] = to_json(provenance)
        file.set_attributes(stated)
    return () if one_mask else ("mask: the slices have different ones, the layout has one a file; it has none now",)
