"""Who was measured, when, where and how, as DICOM has it: from the ISMRMRD header, or from a reference DICOM file.

Nothing is invented: what is not known is left empty, and an exam without a name and an identity is refused.

Source: DICOM PS3.3 2024, C.7.1.1 (patient), C.7.2.1 (general study), C.8.3.1 (MR image); PS3.5, 6.2 (value representations).
"""

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mrisps.errors import FileError, MrispsError
from mrisps.io.ismrmrd_header import IsmrmrdHeader

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["decimal", "exam_of", "set_element"]

_IDENTITY = {
    "PatientName": "subjectInformation/patientName",
    "PatientBirthDate": "subjectInformation/patientBirthdate",
    "PatientSex": "subjectInformation/patientGender",
    "PatientWeight": "subjectInformation/patientWeight_kg",
    "StudyDate": "studyInformation/studyDate",
    "StudyTime": "studyInformation/studyTime",
    "StudyID": "studyInformation/studyID",
    "AccessionNumber": "studyInformation/accessionNumber",
    "ReferringPhysicianName": "studyInformation/referringPhysicianName",
    "StudyDescription": "studyInformation/studyDescription",
    "StudyInstanceUID": "studyInformation/studyInstanceUID",
    "FrameOfReferenceUID": "measurementInformation/frameOfReferenceUID",
    "InstitutionName": "acquisitionSystemInformation/institutionName",
    "StationName": "acquisitionSystemInformation/stationName",
    "DeviceSerialNumber": "acquisitionSystemInformation/deviceSerialNumber",
    "SeriesDescription": "measurementInformation/seriesDescription",
}
_TECHNICAL = {
    "Manufacturer": "acquisitionSystemInformation/systemVendor",
    "ManufacturerModelName": "acquisitionSystemInformation/systemModel",
    "BodyPartExamined": "studyInformation/bodyPartExamined",
    "RepetitionTime": "sequenceParameters/TR",
    "EchoTime": "sequenceParameters/TE",
    "InversionTime": "sequenceParameters/TI",
    "FlipAngle": "sequenceParameters/flipAngle_deg",
    "SequenceName": "sequenceParameters/sequence_type",
}
"""DICOM keyword -> element of the ISMRMRD header; those of `_IDENTITY` are left out of anonymous files."""

_FROM_REFERENCE = ("PatientID", "PatientAge", "PositionReferenceIndicator")
_TECHNICAL_FROM_REFERENCE = (
    *(
        "PatientPosition",
        "Laterality",
        "MagneticFieldStrength",
        "ImagingFrequency",
        "ScanningSequence",
        "SequenceVariant",
    ),
    *("ScanOptions", "MRAcquisitionType", "EchoTrainLength"),
)
_EMPTY = (  # type 2: has to be there, may be empty
    *(
        "PatientBirthDate",
        "PatientSex",
        "StudyDate",
        "StudyTime",
        "StudyID",
        "AccessionNumber",
        "ReferringPhysicianName",
    ),
    *("Manufacturer", "PositionReferenceIndicator", "ScanOptions", "MRAcquisitionType", "RepetitionTime", "EchoTime"),
    *("EchoTrainLength", "PatientPosition", "Laterality"),
)


def exam_of(
    path: Path, header: IsmrmrdHeader | None, reference: Path | None = None, anonymous: bool = False
) -> "Dataset":
    """Patient, study, equipment and sequence for all files of an exam.

    Parameters
    ----------
    path
        What is converted, for messages.
    header
        The ISMRMRD header of the measurement.
    reference
        A DICOM file of the same exam; its values win over the header's.
    anonymous
        Leave out who and when; without it an exam has to have PatientName and PatientID.

    Raises
    ------
    FileError
        Identity is missing, or header and reference disagree on PatientID; the reference cannot be read.
    MrispsError
        The package pydicom is not installed.
    """
    try:
        from pydicom.dataset import Dataset
    except ImportError as error:
        raise MrispsError("DICOM needs the package pydicom: pip install 'mrisps[dicom]'") from error
    exam, texts = Dataset(), {} if header is None else header.texts
    given = None if reference is None else _reference(reference)
    for keyword, element in (*_TECHNICAL.items(), *(() if anonymous else _IDENTITY.items())):
        set_element(exam, keyword, texts.get(element))
    if header is not None:
        set_element(exam, "PatientPosition", header.patient_position)
        set_element(exam, "MagneticFieldStrength", header.field_strength_t)
        set_element(exam, "ImagingFrequency", header.resonance_frequency_hz and header.resonance_frequency_hz / 1e6)
        set_element(exam, "ProtocolName", header.protocol_name if not anonymous else None)
        set_element(exam, "PatientID", header.patient_id if not anonymous else None)
        exam.MRAcquisitionType = "3D" if header.encoded_matrix[2] > 1 else "2D"
    if given is not None:
        known = "" if header is None else header.patient_id or ""
        if not anonymous and known and str(given.get("PatientID", "")) != known:
            raise FileError(path, f"the reference {reference} is of another patient", field="PatientID")
        identity = () if anonymous else (*_IDENTITY, *_FROM_REFERENCE)
        for keyword in (*_TECHNICAL, *_TECHNICAL_FROM_REFERENCE, *identity):
            value = given.get(keyword)
            set_element(exam, keyword, None if value is None else list(value) if _is_list(value) else str(value))
    if anonymous:
        exam.PatientName = exam.PatientID = "ANONYMOUS"
        exam.PatientIdentityRemoved = "YES"
        exam.DeidentificationMethod = "mrisps: identity, dates and names of places were not copied"
    missing = [name for name in ("PatientName", "PatientID") if not str(exam.get(name, "") or "").strip()]
    if missing:
        message = (
            f"{' and '.join(missing)}: unknown. The ISMRMRD header of the measurement or a reference DICOM file has to say them; "
            "or write anonymous files"
        )
        raise FileError(path, message, field="DICOM identity")
    exam.setdefault("ScanningSequence", "RM")  # research mode: the raw data do not say it
    exam.setdefault("SequenceVariant", "NONE")
    if "InversionTime" in exam and "IR" not in exam.ScanningSequence:  # which DICOM allows for this sequence only
        del exam.InversionTime
    for keyword in _EMPTY:
        if keyword not in exam:
            setattr(exam, keyword, "")
    exam.SpecificCharacterSet = "ISO_IR 192"
    return exam


def _reference(path: Path) -> "Dataset":
    import pydicom
    from pydicom.errors import InvalidDicomError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # remarks on what does not conform; what is invalid is left out
            dataset = pydicom.dcmread(path, stop_before_pixels=True)
            dataset.decode()
            for element in dataset:  # values are converted when they are asked for: what is damaged shows here
                str(element.value)
    except (
        InvalidDicomError,
        OSError,
        ValueError,
        EOFError,
        TypeError,
        KeyError,
        AttributeError,
        LookupError,
    ) as error:
        raise FileError(path, f"is no readable DICOM file: {error}") from error
    return dataset


def set_element(dataset: "Dataset", keyword: str, value: object) -> None:
    """Set an element that DICOM allows; one that is unknown, or not allowed, is left as it is."""
    from pydicom import config
    from pydicom.datadict import dictionary_VR
    from pydicom.valuerep import validate_value

    if value is None or value == "":
        return
    kind = dictionary_VR(keyword)
    values = [_clean(kind, one) for one in (value if isinstance(value, list) else [value])]
    try:
        for one in values:
            validate_value(kind, one, config.RAISE)
            if kind in ("DS", "IS"):
                float(one)
    except ValueError:
        return
    setattr(dataset, keyword, values if isinstance(value, list) else values[0])


def _clean(kind: str, value: object) -> str:
    """A value as DICOM writes it: dates and times without punctuation, short enough, without control characters."""
    text = str(value).strip()
    if kind == "DS":
        return str(decimal(float(text))) if re.fullmatch(r"[-+.\deE]+", text) else text
    if kind in ("DA", "TM"):
        return re.sub(r"[-:]|[Z+].*$", "", text)
    if kind in ("UI", "PN", "CS", "IS"):
        return text
    longest = {"SH": 16, "LO": 64, "ST": 1024, "LT": 10240}.get(kind, 64)
    return re.sub(r"[\x00-\x1f\x7f\\]", " ", text)[:longest]


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def decimal(value: float) -> float:
    """The nearest number that a decimal string of DICOM (16 characters) can hold."""
    from pydicom.valuerep import format_number_as_ds

    return float(format_number_as_ds(float(value)))
