"""K-space from one format to another, and what could not be carried over."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from mrisps._version import __version__
from mrisps.atomic import atomic_path
from mrisps.errors import FileError
from mrisps.io.acquisition import Acquisition
from mrisps.io.bart import CflWriter
from mrisps.io.fastmri import KspaceWriter
from mrisps.io.ismrmrd_header import IsmrmrdHeader
from mrisps.io.ismrmrd_writer import IsmrmrdWriter
from mrisps.io.json_text import JsonValue
from mrisps.io.kspace_file import KspaceFile
from mrisps.io.writers import SliceWriter

__all__ = ["KSPACE_FORMATS", "KspaceFormat", "convert_kspace"]

KspaceFormat = Literal["fastmri", "mrd", "cfl", "npy"]
KSPACE_FORMATS: Mapping[KspaceFormat, str] = {"fastmri": ".h5", "mrd": ".mrd", "cfl": ".cfl", "npy": ".npy"}
"""Formats for k-space that can be written, and their file name endings."""


def convert_kspace(source: KspaceFile, destination: Path | str, to: KspaceFormat) -> tuple[str, ...]:
    """Write the k-space of a file in another format, atomically. One slice is in memory at a time; samples are not changed.

    Name, format and SHA-256 of the input, and our version, are written into the file.

    Returns
    -------
    tuple of str
        What the new format could not carry, a line each.

    Raises
    ------
    FileError
        The source cannot be read, the destination cannot be written, or is the source.
    """
    destination = Path(destination)
    if destination.exists() and destination.samefile(source.path):
        raise FileError(destination, "is the input")
    lost: dict[str, None] = {}
    with _writer(source, destination, to, _provenance(source)) as writer:
        for record in source.slices():
            lost |= dict.fromkeys(_not_carried(record, writer.carries))
            writer.write_slice(record)
    return tuple(lost | dict.fromkeys(writer.lost))


def _writer(
    source: KspaceFile, destination: Path, to: KspaceFormat, provenance: Mapping[str, JsonValue]
) -> SliceWriter:
    header, text = source.header, source.header_xml
    if header is None:
        header = IsmrmrdHeader.for_shape(source.shape, source.recon_shape)
    if to == "fastmri":
        return KspaceWriter(destination, source.n_slices, text or header.to_xml(), provenance=provenance)
    if to == "mrd":
        return IsmrmrdWriter(destination, source.n_slices, header, text, provenance=provenance)
    if to == "cfl":
        return CflWriter(destination, source.n_slices, provenance=provenance)
    return _NpyWriter(destination, source.n_slices, provenance)


class _NpyWriter(SliceWriter):
    """Writes (slice, coil, y, x) and, beside it, the statement of the axes that `mrisps.io.arrays` reads."""

    def __init__(self, path: Path, n_slices: int, provenance: Mapping[str, JsonValue]) -> None:
        super().__init__(path, n_slices)
        self._provenance = provenance

    def _open(self, stack: contextlib.ExitStack) -> None:
        self._sidecar = stack.enter_context(atomic_path(self.path.with_name(self.path.name + ".toml")))
        self._stream = stack.enter_context(stack.enter_context(atomic_path(self.path)).open("wb"))

    def _create(self, first: Acquisition) -> None:
        header = {"descr": "<c8", "fortran_order": False, "shape": (self.n_slices, *first.kspace.shape)}
        np.lib.format.write_array_header_1_0(self._stream, header)

    def _write(self, record: Acquisition, first: Acquisition) -> None:
        self._stream.write(np.ascontiguousarray(record.kspace).astype("<c8", copy=False).tobytes())

    def _end(self, first: Acquisition) -> None:
        lines = ['axes = "slice,coil,y,x"', "centred = true"]
        lines += [f"# {key}: {json.dumps(value)}" for key, value in self._provenance.items()]
        self._sidecar.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _not_carried(record: Acquisition, carries: frozenset[str]) -> Iterator[str]:
    """What a record has beyond k-space and cannot be written."""
    names = ", ".join(sorted(record.attributes))
    partial = record.mask is not None and not record.mask.all()
    cropped = record.recon_shape not in (None, record.shape)
    counters = any(value for name, value in record.labels.items() if name != "slice")
    for name, has, text in (
        ("mask", partial, "which samples were acquired (what was not is zero)"),
        ("target", record.target is not None, "the reference images"),
        ("image_is_real", record.image_is_real, "that the image is real"),
        ("contrast", record.contrast is not None, "the name of the contrast"),
        ("recon_shape", cropped, "the size of the crop"),
        ("readout_oversampling", record.readout_oversampling != 1, "the readout oversampling"),
        ("attributes", bool(names), f"the attributes: {names}"),
        ("sensitivity_maps", record.sensitivity_maps is not None, "the coil sensitivities"),
        ("calibration", record.calibration is not None, "the calibration lines that were measured apart"),
        ("noise_scan", record.noise_scan is not None, "the noise scan"),
        ("labels", counters, "the counters of the slices, beyond their order"),
        ("geometry", record.geometry is not None, "position and orientation"),
    ):
        if has and name not in carries:
            yield f"{name}: {text}"


def _provenance(source: KspaceFile) -> dict[str, JsonValue]:

    return {
        "made_by": f"mrisps {__version__} convert",
        "input": {"name": source.path.name, "format": source.format, "sha256": source.sha256()},
    }
