"""Images to DICOM: classic MR Image Storage, one file an image, one series a kind of image.

Nothing is invented: an image without a place is no MR Image, and what is not known is left empty. Where images lie is the matter of
`dicom_plane`, who was measured that of `dicom_exam`.

Source: DICOM PS3.3 2024, A.4 (MR Image IOD), A.8.1 (Secondary Capture), C.7.6.1.1.2 (image type), C.8.3.1 (MR image module).
"""

import hashlib
import json
import math
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from mrisps._version import __version__
from mrisps.atomic import write_together
from mrisps.errors import FileError
from mrisps.io.acquisition import Geometry
from mrisps.io.burn_in import burn_in
from mrisps.io.dicom_exam import decimal, set_element
from mrisps.io.dicom_plane import Placed, placed
from mrisps.io.json_text import JsonValue, to_json

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["LEVELS", "MARKS", "PARTS", "DicomImage", "Mark", "write_dicom"]

Real = NDArray[np.float32]
Mark = Literal["unusable", "check", "none"]
LEVELS = ("good", "check", "unusable")
"""Verdicts, the gravest last."""

MARKS = {
    "good": "mrisps: GOOD",
    "check": "mrisps: CHECK before use",
    "unusable": "mrisps: UNUSABLE, not for diagnosis",
}
"""Verdict -> the line that is burnt into pixels."""

PARTS = {
    "reconstruction": "reconstruction",
    "smooth": "smooth part: the reconstruction without the dictionary",
    "sparse": "sparse part: what the dictionary added",
    "cost_map": "cost map: where the prior is surprised",
    "attention": "attention: where the thresholds were lowered",
}
"""Kinds of images, and what they are."""

_NAMESPACE = uuid.UUID("6f2c1b62-6a0b-5d8e-9a57-0f6a3f1f8a11")
_PRIVATE_GROUP, _PRIVATE_CREATOR = 0x7731, "MRISPS 1"


@dataclass(frozen=True, eq=False)
class DicomImage:
    """One image to be written.

    Parameters
    ----------
    pixels
        float32 (y, x); y is the readout.
    geometry
        Where it lies; None where that is unknown.
    level, comment
        Verdict, and what is said about the image: ImageComments.
    certificate
        What the solver reached.
    labels
        Counters such as ``contrast`` and ``repetition``.
    """

    pixels: Real
    geometry: Geometry | None
    level: str = "check"
    comment: str = ""
    certificate: Mapping[str, JsonValue] | None = None
    labels: Mapping[str, int] = field(default_factory=dict)


def write_dicom(
    folder: Path,
    series: Mapping[str, Sequence[DicomImage]],
    exam: "Dataset",
    *,
    source: Path,
    provenance: Mapping[str, JsonValue] | None = None,
    secondary_capture: bool = False,
    mark: Mark = "unusable",
) -> tuple[Path, ...]:
    """Write images as ``folder/KIND/0001.dcm`` and so on: all files, or none.

    Stored values are unsigned 16-bit for magnitudes and signed for parts with negative pixels; each series has one rescale
    slope and one window. Small values are multiplied by a power of ten, the same for image, smooth and sparse part. All UIDs are
    functions of the content, so the same images of the same exam are the same files.

    Parameters
    ----------
    folder
        Where; made if missing.
    series
        Kind -> its images; images of one place in the lists of two kinds belong together.
    exam
        Of :func:`mrisps.io.dicom_exam.exam_of`.
    source
        What is converted, for messages.
    provenance
        What the images were made from.
    secondary_capture
        Write Secondary Capture without a place in the patient; it is what images without geometry can be.
    mark
        Burn the verdict into the pixels of images with this one or a graver one.

    Raises
    ------
    FileError
        An image has no place in the patient; a file cannot be written.
    """
    record = _public(provenance or {}, with_times="PatientIdentityRemoved" not in exam)
    digest = _digest(series, exam, record)
    exam = _with_uids(exam, digest)
    contents: dict[Path, bytes] = {}
    uids = {kind: [_uid(digest, kind, i) for i in range(len(images))] for kind, images in series.items()}
    for number, (kind, images) in enumerate(series.items(), start=1):
        prepared = [_prepared(image, source, kind, i, secondary_capture) for i, image in enumerate(images)]
        signed = any(float(p.pixels.min()) < 0 for p in prepared)
        factor = _factor(series.get("reconstruction" if kind in ("smooth", "sparse") else kind) or images)
        top = factor * max(float(np.abs(p.pixels).max()) for p in prepared) or 1.0
        window = max(1.0, factor * _window(images))
        for i, (image, shown) in enumerate(zip(images, prepared, strict=True)):
            dataset = _dataset(exam, kind, number, i, image, record, factor)
            dataset.SOPInstanceUID, dataset.SeriesInstanceUID = uids[kind][i], _uid(digest, kind, "series")
            if kind != "reconstruction" and len(uids.get("reconstruction", ())) == len(images):
                _derive(dataset, uids["reconstruction"][i], secondary_capture)
            pixels = factor * shown.pixels
            if mark != "none" and LEVELS.index(image.level) >= LEVELS.index(mark):
                pixels = burn_in(pixels, MARKS[image.level], -top if signed else 0.0, top)
            dataset.WindowCenter = 0 if signed else decimal(window / 2)
            dataset.WindowWidth = decimal(2 * window if signed else window)
            _plane(dataset, shown, image, secondary_capture)
            _pixels(dataset, pixels, decimal(top / (32767 if signed else 65535)), signed)
            contents[folder / kind / f"{i + 1:04d}.dcm"] = _written(dataset)
    for path in contents:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(path.parent, f"cannot be used as output folder: {error.strerror}") from error
    write_together(contents)
    return tuple(contents)


# ------------------------------------------------------------------------------------------------------------ one image


def _prepared(image: DicomImage, source: Path, kind: str, index: int, secondary_capture: bool) -> Placed:
    try:
        if image.geometry is None:
            raise ValueError("its place in the patient is unknown")
        return placed(image.pixels, image.geometry)
    except ValueError as error:
        if secondary_capture:
            nowhere = np.zeros(3)
            return Placed(np.ascontiguousarray(image.pixels.T), nowhere, nowhere, nowhere, (1.0, 1.0), True)
        message = f"{error}; no DICOM is written. Images without a place can only be Secondary Capture"
        raise FileError(source, message, field=f"image {index} of {kind}") from error


def _window(images: Sequence[DicomImage]) -> float:
    return max(float(np.percentile(np.abs(image.pixels), 99.8)) for image in images)


def _factor(images: Sequence[DicomImage]) -> float:
    """Power of ten, at least 1, that makes the window 1000 or wider: DICOM allows none below 1, and viewers show whole numbers."""
    window = _window(images)
    return 10.0 ** max(0, math.ceil(3 - math.log10(window))) if window > 0 else 1.0


def _dataset(
    exam: "Dataset",
    kind: str,
    number: int,
    index: int,
    image: DicomImage,
    record: Mapping[str, JsonValue],
    factor: float,
) -> "Dataset":
    from pydicom.dataset import Dataset

    dataset = Dataset()
    dataset.update(exam)
    what = PARTS.get(kind, kind)
    protocol = str(exam.get("SeriesDescription", "") or exam.get("ProtocolName", ""))
    set_element(dataset, "SeriesDescription", f"{protocol} mrisps {kind.replace('_', ' ')}".strip())
    dataset.Modality = "MR"
    dataset.SeriesNumber, dataset.InstanceNumber = 9000 + number, index + 1
    dataset.AcquisitionNumber = 1
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
    dataset.EchoNumbers = image.labels.get("contrast", 0) + 1
    if image.labels.get("contrast", 0) > 0:
        dataset.EchoTime = ""  # the header's is that of the first echo
    if "repetition" in image.labels:
        dataset.TemporalPositionIdentifier = image.labels["repetition"] + 1
    started = _started(record)
    dataset.ContentDate = "" if started is None else started.strftime("%Y%m%d")
    dataset.ContentTime = "" if started is None else started.strftime("%H%M%S")
    set_element(dataset, "ImageComments", image.comment)
    unit = "" if factor == 1 else f". Pixel values are {factor:g} times those in the unit of the raw data"
    set_element(dataset, "DerivationDescription", f"{what}. {_how(record)}{unit}")
    dataset.BurnedInAnnotation = "NO"  # of identity
    dataset.LossyImageCompression = "00"
    maker = Dataset()
    maker.PurposeOfReferenceCodeSequence = [_code("109102", "Processing Equipment")]
    maker.Manufacturer = maker.ManufacturerModelName = "mrisps"
    maker.SoftwareVersions = _version(record)
    set_element(maker, "ContributionDescription", _how(record))
    dataset.ContributingEquipmentSequence = [maker]
    block = dataset.private_block(_PRIVATE_GROUP, _PRIVATE_CREATOR, create=True)
    block.add_new(0x01, "LO", image.level)
    block.add_new(0x02, "LO", kind[:64])
    block.add_new(0x03, "UT", to_json(image.certificate or {}))
    block.add_new(0x04, "UT", to_json(record))
    return dataset


def _derive(dataset: "Dataset", uid: str, secondary_capture: bool) -> None:
    """Say of which image this one is a part."""
    from pydicom.dataset import Dataset

    source = Dataset()
    source.ReferencedSOPClassUID, source.ReferencedSOPInstanceUID = _sop_class(secondary_capture), uid
    source.PurposeOfReferenceCodeSequence = [_code("121322", "Source image for image processing operation")]
    dataset.SourceImageSequence = [source]
    dataset.ImageType = ["DERIVED", "PRIMARY", "OTHER"]


def _plane(dataset: "Dataset", shown: Placed, image: DicomImage, secondary_capture: bool) -> None:
    dataset.SOPClassUID = _sop_class(secondary_capture)
    if secondary_capture:
        dataset.ConversionType = "WSD"
        dataset.ImageType = [*dataset.ImageType[:2]]
        dataset.PatientOrientation = ""
        for keyword in ("FrameOfReferenceUID", "PositionReferenceIndicator", "PatientPosition"):
            if keyword in dataset:
                delattr(dataset, keyword)
        return
    assert image.geometry is not None
    thickness = image.geometry.field_of_view_mm[2]
    dataset.SliceThickness = decimal(thickness) if thickness > 0 else ""
    dataset.PixelSpacing = [decimal(step) for step in shown.spacing]
    dataset.ImagePositionPatient = [decimal(value) for value in shown.position]
    dataset.ImageOrientationPatient = [decimal(value) for value in (*shown.right, *shown.down)]
    dataset.SliceLocation = decimal(float(shown.position @ np.cross(shown.right, shown.down)))
    if dataset.MRAcquisitionType == "2D":
        dataset.InPlanePhaseEncodingDirection = "COL" if shown.is_turned else "ROW"


def _pixels(dataset: "Dataset", pixels: Real, slope: float, signed: bool) -> None:
    low, high = (-32767, 32767) if signed else (0, 65535)
    stored = np.clip(np.rint(pixels / slope), low, high).astype("<i2" if signed else "<u2")
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, int(signed)
    dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = slope, 0, "US"
    dataset.PixelData = stored.tobytes()


def _written(dataset: "Dataset") -> bytes:
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    stream = BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def _with_uids(exam: "Dataset", digest: str) -> "Dataset":
    """Study and frame of reference, where nothing says them: functions of patient and study, or of the content if anonymous."""
    from pydicom.dataset import Dataset

    made = Dataset()
    made.update(exam)
    names = ("PatientID", "PatientName", "StudyDate", "StudyTime", "StudyID", "AccessionNumber")
    of_exam = json.dumps([str(exam.get(name, "")) for name in names])
    known = digest if "PatientIdentityRemoved" in exam or not (exam.StudyDate or exam.StudyID) else of_exam
    for keyword in ("StudyInstanceUID", "FrameOfReferenceUID"):
        if not made.get(keyword):
            setattr(made, keyword, _uid(known, keyword, ""))
    return made


def _digest(series: Mapping[str, Sequence[DicomImage]], exam: "Dataset", record: Mapping[str, JsonValue]) -> str:
    digest = hashlib.sha256(exam.to_json().encode())
    digest.update(to_json(record).encode())
    for kind, images in series.items():
        for image in images:
            digest.update(f"{kind} {image.geometry} {image.comment}".encode())
            digest.update(np.ascontiguousarray(image.pixels).tobytes())
    return digest.hexdigest()


def _uid(digest: str, *parts: object) -> str:
    """A UID below 2.25, of a UUID that is a function of the content. Source: DICOM PS3.5, B.2."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, '/'.join(map(str, (digest, *parts)))).int}"


# ----------------------------------------------------------------------------------------------------------- small things


def _public(provenance: Mapping[str, JsonValue], with_times: bool) -> dict[str, JsonValue]:
    """Without names of files and of the machine, which may tell who was measured."""
    names = ("software", "recipe", "weights", "options", *(("times",) if with_times else ()))
    kept = {key: provenance[key] for key in names if key in provenance}
    given = provenance.get("input")
    if isinstance(given, Mapping):
        kept["input"] = {"sha256": given.get("sha256")}
    return kept


def _how(record: Mapping[str, JsonValue]) -> str:
    """One sentence: with what the image was made."""

    def of(key: str) -> str:
        entry = record.get(key)
        if not isinstance(entry, Mapping):
            return "unknown"
        return f"{entry.get('name')} (sha256 {str(entry.get('sha256'))[:16]})"

    return f"Reconstructed from k-space by mrisps {_version(record)}, recipe {of('recipe')}, weights {of('weights')}"


def _version(record: Mapping[str, JsonValue]) -> str:
    """Of what made the images, which may be older than what writes the files."""
    software = record.get("software")
    if not isinstance(software, Mapping):
        return __version__
    commit = f" {software['commit']}" if software.get("commit") else ""
    return f"{software.get('mrisps')}{commit}"[:64]


def _started(record: Mapping[str, JsonValue]) -> datetime | None:
    times = record.get("times")
    try:
        return datetime.fromisoformat(str(times.get("started"))) if isinstance(times, Mapping) else None
    except ValueError:
        return None


def _sop_class(secondary_capture: bool) -> str:
    from pydicom.uid import MRImageStorage, SecondaryCaptureImageStorage

    return str(SecondaryCaptureImageStorage if secondary_capture else MRImageStorage)


def _code(value: str, meaning: str) -> "Dataset":
    from pydicom.dataset import Dataset

    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, "DCM", meaning
    return code
