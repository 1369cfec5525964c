"""K-space from one format to another, and what could not be carried over."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from mrisps._version import __version__
from mrisps.atomic import atomic_path
from mrisps.errors import FileError
from mrisps.io.acquisition import Acquisition, alike
from mrisps.io.bart import write_cfl
from mrisps.io.fastmri import FASTMRI_CARRIES, write_fastmri
from mrisps.io.ismrmrd_header import IsmrmrdHeader
from mrisps.io.ismrmrd_writer import ISMRMRD_CARRIES, write_ismrmrd
from mrisps.io.json_text import JsonValue
from mrisps.io.kspace_file import KspaceFile
from mrisps.io.raw_file import RawFile

__all__ = ["KSPACE_FORMATS", "KspaceFormat", "convert_kspace"]

KspaceFormat = Literal["fastmri", "mrd", "cfl", "npy"]
KSPACE_FORMATS: Mapping[KspaceFormat, str] = {"fastmri": ".h5", "mrd": ".mrd", "cfl": ".cfl", "npy": ".npy"}
"""Formats for k-space that can be written, and their file name endings."""

# What a record has beyond k-space, by the name of the field.
_TEXTS = {
    "mask": "which samples were acquired (what was not is zero)",
    "target": "the reference images",
    "image_is_real": "that the image is real",
    "contrast": "the name of the contrast",
    "recon_shape": "the size of the crop",
    "readout_oversampling": "the readout oversampling",
    "attributes": "the attributes: ",
    "sensitivity_maps": "the coil sensitivities",
    "calibration": "the calibration lines that were measured apart",
    "noise_scan": "the noise scan",
    "labels": "the counters of the slices, beyond their order",
    "geometry": "position and orientation",
}


def convert_kspace(source: KspaceFile, destination: Path | str, to: KspaceFormat) -> tuple[str, ...]:
    """Write the k-space of a file in another format, atomically. One slice is in memory at a time; samples are not changed.

    Name, format and SHA-256 of the input, and our version, are written into the file. The result says what the new
    format could not carry, a line each. A FileError also if the destination is the source, or the source is
    three-dimensional.
    """
    path = Path(destination)
    if path.exists() and path.samefile(source.path):
        raise FileError(path, "is the input")
    if isinstance(source, RawFile) and source.n_z > 1:
        message = (
            "is three-dimensional, with {} partitions: its slices would be transformed k-space, and are not converted"
        )
        raise FileError(source.path, message.format(source.n_z))
    made_from = {"name": source.path.name, "format": source.format, "sha256": source.sha256()}
    provenance: dict[str, JsonValue] = {"made_by": f"mrisps {__version__} convert", "input": made_from}
    carries = {"fastmri": FASTMRI_CARRIES, "mrd": ISMRMRD_CARRIES}.get(to, frozenset())
    lost: dict[str, None] = {}

    def records() -> Iterator[Acquisition]:
        for record in source.slices():
            lost.update(dict.fromkeys(_not_carried(record, carries)))
            yield record

    header, text = source.header or IsmrmrdHeader.for_shape(source.shape, source.recon_shape), source.header_xml
    if to == "fastmri":
        also = write_fastmri(path, records(), text or header.to_xml(), provenance=provenance)
    elif to == "mrd":
        also = write_ismrmrd(path, records(), header, text, provenance=provenance)
    elif to == "cfl":
        also = write_cfl(path, records(), provenance=provenance)
    else:
        also = _write_npy(path, records(), provenance)
    return tuple(lost | dict.fromkeys(also))


def _write_npy(path: Path, records: Iterator[Acquisition], provenance: Mapping[str, JsonValue]) -> tuple[str, ...]:
    """Write (slice, coil, y, x) and, beside it, the statement of the axes that `mrisps.io.arrays` reads."""
    with atomic_path(path.with_name(path.name + ".toml")) as sidecar, atomic_path(path) as new:
        with new.open("wb") as stream:
            for first, record in alike(records):
                if record is first:
                    shape = (first.n_slices, *first.kspace.shape)
                    header = {"descr": "<c8", "fortran_order": False, "shape": shape}
                    np.lib.format.write_array_header_1_0(stream, header)
                stream.write(record.kspace.astype("<c8", copy=False).tobytes())
        lines = ['axes = "slice,coil,y,x"', "centred = true"]
        lines += [f"# {key}: {json.dumps(value)}" for key, value in provenance.items()]
        sidecar.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return ()


def _not_carried(record: Acquisition, carries: frozenset[str]) -> Iterator[str]:
    """What a record has beyond k-space and cannot be written."""
    has: dict[str, object] = {name: getattr(record, name) is not None for name in _TEXTS} | {
        "mask": record.mask is not None and not record.mask.all(),
        "image_is_real": record.image_is_real,
        "recon_shape": record.recon_shape not in (None, record.shape),
        "readout_oversampling": record.readout_oversampling != 1,
        "attributes": record.attributes,
        "labels": any(value for name, value in record.labels.items() if name != "slice"),
    }
    for name, text in _TEXTS.items():
        if has[name] and name not in carries:
            yield f"{name}: {text}" + (", ".join(sorted(record.attributes)) if name == "attributes" else "")
