"""The XML header of ISMRMRD, which MRD files and fastMRI's files have.

The package ``ismrmrd`` has classes that its schema was turned into (``ismrmrd.xsd``). They are not used for reading: their
parser expands entities (a text of 1 kB may become one of gigabytes), refuses headers with any element that the schema does not
know, and takes ``nan`` for a matrix size with a warning. They also take 0.26 s to import, and ten times as long to parse.

Source: the schema ``ismrmrd.xsd`` of ISMRMRD 1.x, https://ismrmrd.readthedocs.io.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from xml.etree import ElementTree
from xml.parsers import expat

from mrisps.errors import FileError
from mrisps.io.acquisition import Scalar
from mrisps.io.hdf5 import Hdf5Reader

__all__ = ["IsmrmrdHeader", "Limits", "header_of", "rewritten"]

Limits = tuple[int, int, int]
"""(minimum, maximum, center) of a counter."""

_NAMESPACE = "http://www.ismrm.org/ISMRMRD"
_MAX_HEADER_BYTES = 1 << 20
_STEP_1, _STEP_2 = "kspace_encoding_step_1", "kspace_encoding_step_2"
_COUNTERS = (_STEP_1, _STEP_2, "average", "slice", "contrast", "phase", "repetition", "set", "segment")
_SYSTEM, _MEASUREMENT = "acquisitionSystemInformation", "measurementInformation"
_TEXTS = {
    "subjectInformation": ("patientName", "patientWeight_kg", "patientBirthdate", "patientGender"),
    "studyInformation": (
        *("studyDate", "studyTime", "studyID", "accessionNumber", "referringPhysicianName", "studyDescription"),
        *("studyInstanceUID", "bodyPartExamined"),
    ),
    _MEASUREMENT: ("measurementID", "seriesDate", "seriesTime", "seriesDescription", "frameOfReferenceUID"),
    _SYSTEM: ("systemVendor", "systemModel", "institutionName", "stationName", "deviceSerialNumber"),
    "sequenceParameters": ("TR", "TE", "TI", "flipAngle_deg", "sequence_type"),
}
_IN_ORDER = (  # of the schema; what is not named comes after it, as it is
    *("subjectInformation", "studyInformation", _MEASUREMENT, _SYSTEM, "experimentalConditions", "encoding"),
    *("sequenceParameters", "userParameters", "measurementID", "seriesDate", "seriesTime", "patientPosition"),
    *("protocolName", "seriesDescription", "frameOfReferenceUID", "systemVendor", "systemModel"),
    *("systemFieldStrength_T", "relativeReceiverNoiseBandwidth", "receiverChannels", "institutionName"),
    *("stationName", "deviceSerialNumber"),
)


@dataclass(frozen=True)
class IsmrmrdHeader:
    """What we use of the ISMRMRD header. Triples are in the header's own order (x, y, z): x is the readout, our rows.

    Parameters
    ----------
    encoded_matrix
        Samples of the encoded space.
    recon_matrix
        Pixels of the image that is to be cut out of it.
    encoded_fov_mm, recon_fov_mm
        Fields of view in mm; None if the header has none, or zeros, which stand for unknown.
    line_limits, partition_limits
        (minimum, maximum, center) of the first and of the second phase-encoding counter.
    counter_limits
        Likewise, of the other counters: ``slice``, ``contrast``, ``average`` and so on.
    trajectory
        For example ``"cartesian"``.
    n_coils
        Receiver channels.
    field_strength_t
        In tesla.
    resonance_frequency_hz
        Of hydrogen; None if the header has 0, which stands for unknown.
    relative_receiver_noise_bandwidth
        Effective over nominal bandwidth of the noise scan.
    calibration_mode
        ``"embedded"``, ``"interleaved"``, ``"separate"``, ``"external"`` or ``"other"``.
    acceleration
        Along the first and the second phase-encoding direction.
    patient_id, patient_position, protocol_name
        As the header has them.
    user_parameters
        Names and values of the user parameters; a name that occurs twice is left out.
    n_encodings
        How many encodings the header has; this object describes one of them.
    texts
        Element, for example ``"subjectInformation/patientName"``, -> its text: who was measured, when, where and how, for DICOM.
        Of elements that the header has several times, the first.
    """

    encoded_matrix: tuple[int, int, int]
    recon_matrix: tuple[int, int, int]
    encoded_fov_mm: tuple[float, float, float] | None = None
    recon_fov_mm: tuple[float, float, float] | None = None
    line_limits: Limits | None = None
    trajectory: str | None = "cartesian"
    n_coils: int | None = None
    field_strength_t: float | None = None
    partition_limits: Limits | None = None
    counter_limits: Mapping[str, Limits] = field(default_factory=dict)
    resonance_frequency_hz: int | None = None
    relative_receiver_noise_bandwidth: float | None = None
    calibration_mode: str | None = None
    acceleration: tuple[int, int] | None = None
    patient_id: str | None = None
    patient_position: str | None = None
    protocol_name: str | None = None
    user_parameters: Mapping[str, Scalar] = field(default_factory=dict)
    n_encodings: int = 1
    texts: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "texts", MappingProxyType(dict(self.texts)))
        object.__setattr__(self, "counter_limits", MappingProxyType(dict(self.counter_limits)))
        object.__setattr__(self, "user_parameters", MappingProxyType(dict(self.user_parameters)))

    @property
    def readout_oversampling(self) -> float:
        """Encoded over reconstructed field of view along the readout; 1 where they are unknown or make no sense."""
        if self.encoded_fov_mm is None or self.recon_fov_mm is None:
            return 1.0
        ratio = self.encoded_fov_mm[0] / self.recon_fov_mm[0]
        return ratio if ratio >= 1 else 1.0

    @property
    def crop(self) -> tuple[int, int]:
        """(y, x): how many pixels of the encoded image the reconstructed field of view has, at most all of them.

        Where the fields of view are unknown, or the reconstructed pixels have the size of the encoded ones, that is the
        reconstructed matrix. A larger reconstructed matrix (interpolation) does not make the crop larger.
        """
        if self.encoded_fov_mm is None or self.recon_fov_mm is None:
            return self.recon_matrix[0], self.recon_matrix[1]
        sizes = zip(self.encoded_matrix[:2], self.recon_fov_mm[:2], self.encoded_fov_mm[:2], strict=True)
        y, x = (min(max(1, round(n * recon / encoded)) if recon < encoded else n, n) for n, recon, encoded in sizes)
        return y, x

    @classmethod
    def for_shape(cls, shape: tuple[int, int], recon_shape: tuple[int, int] | None = None) -> "IsmrmrdHeader":
        """Make the header of k-space of this size (y, x) whose fields of view are unknown."""
        recon = shape if recon_shape is None else recon_shape
        limits = (0, shape[1] - 1, shape[1] // 2)
        return cls((shape[0], shape[1], 1), (recon[0], recon[1], 1), line_limits=limits)

    @classmethod
    def from_xml(cls, text: bytes, encoding: int = 0) -> "IsmrmrdHeader":
        """Read one of the encodings of an ISMRMRD XML header.

        Raises
        ------
        ValueError
            The text is longer than 1 MiB, is no XML, declares a document type (entities could then fill the memory),
            lacks a matrix size, or has no such encoding.
        """
        root = _parse_xml(text)
        encodings = root.findall("encoding")
        if not 0 <= encoding < max(1, len(encodings)):
            raise ValueError(f"encoding: expected 0 to {max(0, len(encodings) - 1)}, got {encoding}")
        chosen = encodings[encoding] if encodings else root
        triples = {name: _limits(chosen, name) for name in _COUNTERS}
        limits = {name: triple for name, triple in triples.items() if triple is not None}
        n_coils = _number(root, f"{_SYSTEM}/receiverChannels")
        frequency = _number(root, "experimentalConditions/H1resonanceFrequency_Hz")
        factors = [_number(chosen, f"parallelImaging/accelerationFactor/{step}") for step in (_STEP_1, _STEP_2)]
        return cls(
            encoded_matrix=_matrix(chosen, "encodedSpace"),
            recon_matrix=_matrix(chosen, "reconSpace"),
            encoded_fov_mm=_field_of_view(chosen, "encodedSpace"),
            recon_fov_mm=_field_of_view(chosen, "reconSpace"),
            line_limits=limits.pop(_STEP_1, None),
            partition_limits=limits.pop(_STEP_2, None),
            counter_limits=limits,
            trajectory=_find(chosen, "trajectory"),
            n_coils=None if n_coils is None else int(n_coils),
            field_strength_t=_number(root, f"{_SYSTEM}/systemFieldStrength_T"),
            resonance_frequency_hz=int(frequency) if frequency else None,
            relative_receiver_noise_bandwidth=_number(root, f"{_SYSTEM}/relativeReceiverNoiseBandwidth"),
            calibration_mode=_find(chosen, "parallelImaging/calibrationMode"),
            acceleration=None if factors[0] is None else (int(factors[0]), int(factors[1] or 1)),
            patient_id=_find(root, "subjectInformation/patientID"),
            patient_position=_find(root, f"{_MEASUREMENT}/patientPosition"),
            protocol_name=_find(root, f"{_MEASUREMENT}/protocolName"),
            user_parameters=_user_parameters(root),
            n_encodings=max(1, len(encodings)),
            texts={
                f"{group}/{name}": value
                for group, names in _TEXTS.items()
                for name in names
                if (value := _find(root, f"{group}/{name}"))
            },
        )

    def to_xml(self) -> bytes:
        """Write a minimal header that is valid by the ISMRMRD schema; what is unknown but required is 0."""
        root = ElementTree.Element("ismrmrdHeader", {"xmlns": _NAMESPACE})
        _add(root, "subjectInformation", {"patientID": self.patient_id})
        if self.patient_position is not None:  # which the schema requires in this group, and nobody may invent
            _add(root, _MEASUREMENT, {"patientPosition": self.patient_position, "protocolName": self.protocol_name})
        system = {
            "systemFieldStrength_T": self.field_strength_t,
            "relativeReceiverNoiseBandwidth": self.relative_receiver_noise_bandwidth,
            "receiverChannels": self.n_coils,
        }
        _add(root, _SYSTEM, system)
        _add(root, "experimentalConditions", {"H1resonanceFrequency_Hz": self.resonance_frequency_hz or 0})
        encoding = ElementTree.SubElement(root, "encoding")
        spaces = (
            ("encodedSpace", self.encoded_matrix, self.encoded_fov_mm),
            ("reconSpace", self.recon_matrix, self.recon_fov_mm),
        )
        for name, matrix, fov in spaces:
            space = ElementTree.SubElement(encoding, name)
            for tag, values in (("matrixSize", matrix), ("fieldOfView_mm", fov or (0.0, 0.0, 0.0))):
                _add(space, tag, dict(zip("xyz", values, strict=True)))
        limits = ElementTree.SubElement(encoding, "encodingLimits")
        counters = {_STEP_1: self.line_limits, _STEP_2: self.partition_limits, **self.counter_limits}
        for name, triple in counters.items():
            if triple is not None:
                _add(limits, name, dict(zip(("minimum", "maximum", "center"), triple, strict=True)))
        ElementTree.SubElement(encoding, "trajectory").text = self.trajectory or "other"
        if self.acceleration is not None:
            parallel = ElementTree.SubElement(encoding, "parallelImaging")
            _add(parallel, "accelerationFactor", dict(zip((_STEP_1, _STEP_2), self.acceleration, strict=True)))
            if self.calibration_mode is not None:
                ElementTree.SubElement(parallel, "calibrationMode").text = self.calibration_mode
        if self.user_parameters:
            _append_user_parameters(root, self.user_parameters)
        _add_texts(root, self.texts)
        text: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
        return text


def header_of(file: Hdf5Reader, name: str = "ismrmrd_header") -> "tuple[IsmrmrdHeader | None, bytes | None]":
    """Read the header in a data set of an HDF5 file, and its text; None where there is none.

    Raises
    ------
    FileError
        It is damaged; see `IsmrmrdHeader.from_xml`.
    """
    if not file.has(name):
        return None, None
    text = file.read_text(name)
    try:
        return IsmrmrdHeader.from_xml(text), text
    except ValueError as error:
        raise FileError(file.path, str(error), field=name) from error


def rewritten(text: bytes, header: IsmrmrdHeader) -> bytes:
    """The header ``text`` with one encoding only, whose matrix and limits are those of ``header``; all else stays as it is.

    The number of channels becomes that of ``header``, and user parameters that ``text`` does not have are appended.

    Raises
    ------
    ValueError
        As `IsmrmrdHeader.from_xml`.
    """
    root = _parse_xml(text)  # without prefixes, because not every reader of MRD files knows about namespaces
    root.attrib.clear()
    root.set("xmlns", _NAMESPACE)
    first, *others = root.findall("encoding")
    for other in others:
        root.remove(other)
    ours = _parse_xml(header.to_xml())
    for path in ("encodedSpace/matrixSize", "encodingLimits"):
        target, source = first.find(path), ours.find(f"encoding/{path}")
        if target is not None and source is not None:
            target[:] = list(source)
    channels = root.find("acquisitionSystemInformation/receiverChannels")
    if channels is not None and header.n_coils is not None:
        channels.text = str(header.n_coils)
    _append_user_parameters(root, header.user_parameters)
    joined: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return joined


def _add_texts(root: ElementTree.Element, texts: Mapping[str, str]) -> None:
    """The elements of ``IsmrmrdHeader.texts``, in the order of the schema."""
    for path, text in texts.items():
        group, name = path.split("/")
        parent = root.find(group)
        if parent is None and group == _MEASUREMENT:  # without a patient position
            continue
        parent = ElementTree.SubElement(root, group) if parent is None else parent
        ElementTree.SubElement(parent, name).text = _xml_text(text)
    for parent in (root, *(child for child in root if child.tag in _TEXTS)):
        parent[:] = sorted(parent, key=lambda e: _IN_ORDER.index(e.tag) if e.tag in _IN_ORDER else len(_IN_ORDER))


def _append_user_parameters(root: ElementTree.Element, parameters: Mapping[str, Scalar]) -> None:
    parent = root.find("userParameters")
    if parent is None:
        parent = ElementTree.Element("userParameters")
        following = root.find("waveformInformation")
        root.insert(len(root) if following is None else list(root).index(following), parent)
    known = {element.text for element in parent.iterfind("*/name")}
    for name, value in parameters.items():
        if name not in known:
            tag = "String" if isinstance(value, str) else "Double" if isinstance(value, float) else "Long"
            shown = int(value) if isinstance(value, bool) else value
            _add(parent, f"userParameter{tag}", {"name": name, "value": shown})
    order = ("Long", "Double", "String", "Base64")  # the schema's
    parent[:] = sorted(parent, key=lambda element: order.index(element.tag.removeprefix("userParameter")))


def _parse_xml(text: bytes) -> ElementTree.Element:
    """The tree, whose tags have no namespace."""
    if len(text) > _MAX_HEADER_BYTES:
        raise ValueError(f"expected at most {_MAX_HEADER_BYTES} bytes of XML, got {len(text)}")

    def refuse(*_: object) -> None:
        raise ValueError("a document type declaration is not allowed")

    scan = expat.ParserCreate()
    scan.StartDoctypeDeclHandler = refuse
    try:
        scan.Parse(text, True)
        root = ElementTree.fromstring(text)
    except (expat.ExpatError, ElementTree.ParseError) as error:
        raise ValueError(f"is no valid XML: {error}") from error
    for element in root.iter():
        element.tag = element.tag.removeprefix(f"{{{_NAMESPACE}}}")
    return root


def _add(parent: ElementTree.Element, tag: str, values: Mapping[str, Scalar | None]) -> None:
    """An element with these children, unless all are None."""
    known = {name: value for name, value in values.items() if value is not None}
    if known:
        element = ElementTree.SubElement(parent, tag)
        for name, value in known.items():
            ElementTree.SubElement(element, name).text = _xml_text(value) if isinstance(value, str) else repr(value)


def _xml_text(text: str) -> str:
    """Without the characters that XML 1.0 cannot hold."""
    return "".join(
        c for c in text if c in "\t\n\r" or " " <= c <= "\ud7ff" or "\ue000" <= c <= "\ufffd" or c > "\uffff"
    )


def _find(root: ElementTree.Element, path: str) -> str | None:
    element = root.find(path)
    return None if element is None or element.text is None else element.text.strip()


def _number(root: ElementTree.Element, path: str) -> float | None:
    text = _find(root, path)
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{path.replace('/', '.')}: expected a number, got {text[:40]!r}")
    return value


def _triple(root: ElementTree.Element, path: str, names: Iterable[str]) -> tuple[float, float, float] | None:
    first, second, third = (_number(root, f"{path}/{name}") for name in names)
    return None if first is None or second is None or third is None else (first, second, third)


def _matrix(encoding: ElementTree.Element, space: str) -> tuple[int, int, int]:
    triple = _triple(encoding, f"{space}/matrixSize", "xyz")
    if triple is None or not all(1 <= n <= 1 << 16 for n in triple):
        raise ValueError(f"encoding.{space}.matrixSize: expected three numbers from 1 to 65536, got {triple}")
    return int(triple[0]), int(triple[1]), int(triple[2])


def _field_of_view(encoding: ElementTree.Element, space: str) -> tuple[float, float, float] | None:
    triple = _triple(encoding, f"{space}/fieldOfView_mm", "xyz")
    return None if triple is None or min(triple[:2]) <= 0 else triple


def _limits(encoding: ElementTree.Element, counter: str) -> Limits | None:
    triple = _triple(encoding, f"encodingLimits/{counter}", ("minimum", "maximum", "center"))
    return None if triple is None else (int(triple[0]), int(triple[1]), int(triple[2]))


def _user_parameters(root: ElementTree.Element) -> dict[str, Scalar]:
    parameters: dict[str, Scalar] = {}
    seen: set[str] = set()
    kinds: dict[str, Callable[[str], Scalar]] = {"Long": int, "Double": float, "String": str}
    for tag, kind in kinds.items():
        for element in root.iterfind(f"userParameters/userParameter{tag}"):
            name, text = _find(element, "name"), _find(element, "value")
            try:
                value = kind(text or "")
            except ValueError:
                continue
            if name is not None and name not in seen:
                parameters[name] = value
            elif name is not None:
                parameters.pop(name, None)
            seen.add(name or "")
    return parameters
