"""Reconstructions and MRD images to DICOM."""

from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from mrisps.errors import FileError, MrispsError
from mrisps.io.dicom_exam import exam_of
from mrisps.io.dicom_writer import PARTS, DicomImage, Mark, write_dicom
from mrisps.io.ismrmrd_header import IsmrmrdHeader
from mrisps.io.ismrmrd_images import MrdImage, read_mrd_images
from mrisps.io.json_text import JsonValue, from_json
from mrisps.io.result_file import ResultFile
from mrisps.reconstruction.verdict import Verdict, verdict_of

__all__ = ["CERTIFICATE", "PART", "PROVENANCE", "to_dicom"]

PART, CERTIFICATE, PROVENANCE = "mrisps_part", "mrisps_certificate", "mrisps_provenance"
"""Names in the Meta of MRD images."""

Series = dict[str, tuple[DicomImage, ...]]


def to_dicom(
    source: Path | str,
    folder: Path | str,
    *,
    reference: Path | str | None = None,
    anonymous: bool = False,
    keep: bool = False,
    mark: Mark = "unusable",
    secondary_capture: bool = False,
    overwrite: bool = False,
) -> tuple[Path, ...]:
    """Write a reconstruction, or images from a reconstruction server, as DICOM: all files, or none.

    Parameters
    ----------
    source
        A result of ours (``.h5``), or a file with MRD images.
    folder
        Where; a subfolder for each kind of image, a series each: reconstruction, smooth, sparse, cost_map.
    reference
        A DICOM file of the same exam, for patient and study; else the header of the measurement says them.
    anonymous
        Write files without who and when.
    keep
        Write images also if the verdict on one is ``"unusable"``.
    mark
        Burn the verdict into the pixels of images with this one (``"unusable"``, ``"check"``) or a graver one; ``"none"``: never.
    secondary_capture
        Write Secondary Capture without a place in the patient.
    overwrite
        Replace files that are there; DICOM files of ours that are there from a longer series are removed.

    Returns
    -------
    tuple of Path
        The files.

    Raises
    ------
    FileError
        The source cannot be read; patient name or identity are unknown; an image has no place in the patient; files are there
        already, or cannot be written.
    MrispsError
        An image is unusable and ``keep`` is false; the package pydicom is not installed.
    ValueError
        ``mark`` is unknown.
    """
    source, folder = Path(source), Path(folder)
    if mark not in get_args(Mark):
        raise ValueError(f"mark: expected one of {', '.join(get_args(Mark))}, got {mark!r}")
    series, header, provenance = _of_result(source) if _is_result(source) else _of_mrd(source)
    exam = exam_of(source, header, None if reference is None else Path(reference), anonymous)
    for images in series.values():
        for index, image in enumerate(images):
            if image.level == "unusable" and not keep:
                raise MrispsError(f"{source}: image {index} is not written: {image.comment}")
    before = {path for kind in series for path in (folder / kind).glob("[0-9][0-9][0-9][0-9].dcm")}
    if before and not overwrite:
        raise FileError(folder, "has DICOM files already")
    written = write_dicom(
        folder,
        series,
        exam,
        source=source,
        provenance=provenance,
        secondary_capture=secondary_capture,
        mark=mark,
    )
    for path in before.difference(written):
        path.unlink(missing_ok=True)
    return written


def _is_result(path: Path) -> bool:
    return ResultFile.is_result(path)


def _of_result(path: Path) -> tuple[Series, IsmrmrdHeader | None, Mapping[str, JsonValue] | None]:
    with ResultFile(path) as file:
        certificates = file.certificates or ({},) * file.n_slices
        series = {
            kind: tuple(
                DicomImage(
                    _real(file.read(kind, index)),
                    file.geometries[index],
                    certificate=certificates[index],
                    labels=_labels(certificates[index]),
                    **_said(verdict_of(certificates[index])),
                )
                for index in range(file.n_slices)
            )
            for kind in PARTS
            if kind in file.names
        }
        return series, file.header, file.provenance


def _of_mrd(path: Path) -> tuple[Series, IsmrmrdHeader | None, Mapping[str, JsonValue] | None]:
    groups, header = read_mrd_images(path)
    provenance: Mapping[str, JsonValue] | None = None
    series: Series = {}
    for group, images in groups.items():
        kind = images[0].meta.get(PART, (group,))[0]
        name = kind if kind in PARTS and kind not in series else group
        series[name] = tuple(_of_image(path, image) for image in images)
        found = _object(path, images[0], PROVENANCE)
        provenance = provenance or found
    return series, header, provenance


def _of_image(path: Path, image: MrdImage) -> DicomImage:
    certificate = _object(path, image, CERTIFICATE)
    return DicomImage(
        np.ascontiguousarray(_real(image.pixels).T),
        image.geometry,
        certificate=certificate,
        labels=image.labels,
        **_said(verdict_of(certificate or {})),
    )


def _object(path: Path, image: MrdImage, name: str) -> Mapping[str, JsonValue] | None:
    value = from_json(image.meta[name][0], path, f"Meta {name}") if image.meta.get(name) else None
    return value if isinstance(value, Mapping) else None


def _said(verdict: Verdict) -> dict[str, str]:
    return {"level": verdict.level, "comment": f"mrisps: {verdict}"}


def _labels(certificate: Mapping[str, JsonValue]) -> dict[str, int]:
    labels = certificate.get("labels")
    found = labels if isinstance(labels, Mapping) else {}
    return {name: value for name, value in found.items() if isinstance(value, int)}


def _real(pixels: NDArray[np.generic]) -> NDArray[np.float32]:
    """Real parts as they are, complex ones as magnitude."""
    return (np.abs(pixels) if np.iscomplexobj(pixels) else pixels).astype(np.float32)
