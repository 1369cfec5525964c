"""The XML header of ISMRMRD, which MRD files and fastMRI's files have.

The package ``ismrmrd`` has classes that its schema was turned into (``ismrmrd.xsd``). They are not used for reading:
their parser expands entities (a text of 1 kB may become one of gigabytes), refuses headers with any element that the
schema does not know, and takes ``nan`` for a matrix size with a warning. They also take 0.26 s to import, and ten times
as long to parse.

Source: the schema ``ismrmrd.xsd`` of ISMRMRD 1.x, https://ismrmrd.readthedocs.io.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from xml.etree import ElementTree
from xml.parsers import expat

from mrisps.errors import FileError
from mrisps.io.acquisition import Scalar
from mrisps.io.hdf5 import Hdf5Reader

__all__ = ["IsmrmrdHeader", "Limits", "header_of", "parse_xml", "parsed_header", "rewritten"]

Limits = tuple[int, int, int]
"""(minimum, maximum, center) of a counter."""

_NAMESPACE = "http://www.ismrm.org/ISMRMRD"
_MAX_HEADER_BYTES = 1 << 20
_STEPS = ("kspace_encoding_step_1", "kspace_encoding_step_2")
_COUNTERS = (*_STEPS, "average", "slice", "contrast", "phase", "repetition", "set", "segment")
_LIMITS = ("minimum", "maximum", "center")
_SYSTEM, _MEASUREMENT = "acquisitionSystemInformation", "measurementInformation"
# The elements that are used, in the order of the schema.
_SCHEMA = {
    "subjectInformation": ("patientName", "patientWeight_kg", "patientID", "patientBirthdate", "patientGender"),
    "studyInformation": (
        *("studyDate", "studyTime", "studyID", "accessionNumber", "referringPhysicianName", "studyDescription"),
        *("studyInstanceUID", "bodyPartExamined"),
    ),
    _MEASUREMENT: (
        *("measurementID", "seriesDate", "seriesTime", "patientPosition", "protocolName", "seriesDescription"),
        "frameOfReferenceUID",
    ),
    _SYSTEM: (
        *("systemVendor", "systemModel", "systemFieldStrength_T", "relativeReceiverNoiseBandwidth"),
        *("receiverChannels", "institutionName", "stationName", "deviceSerialNumber"),
    ),
    "experimentalConditions": ("H1resonanceFrequency_Hz",),
    "encoding": (),
    "sequenceParameters": ("TR", "TE", "TI", "flipAngle_deg", "sequence_type"),
}
_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class IsmrmrdHeader:
    """What we use of the ISMRMRD header. Triples are in the header's own order (x, y, z): x is the readout, our rows.

    Parameters
    ----------
    encoded_matrix, recon_matrix
        Samples of the encoded space, and pixels of the image that is to be cut out of it.
    encoded_fov_mm, recon_fov_mm
        Fields of view in mm; None if the header has none, or zeros, which stand for unknown.
    line_limits, partition_limits, counter_limits
        (minimum, maximum, center) of the first and of the second phase-encoding counter, and of the others by name.
    trajectory
        For example ``"cartesian"``.
    n_coils, field_strength_t, resonance_frequency_hz, patient_id, patient_position, protocol_name
        As the header has them; None where it does not, or has a frequency of 0.
    relative_receiver_noise_bandwidth
        Effective over nominal bandwidth of the noise scan.
    calibration_mode
        ``"embedded"``, ``"interleaved"``, ``"separate"``, ``"external"`` or ``"other"``.
    acceleration
        Along the first and the second phase-encoding direction.
    user_parameters
        Names and values of the user parameters; a name that occurs twice is left out.
    n_encodings
        How many encodings the header has; this object describes one of them.
    texts
        Element, for example ``"subjectInformation/patientName"``, -> its text: who was measured, when, where and how,
        for DICOM. Of elements that the header has several times, the first.
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
        return max(1.0, self.encoded_fov_mm[0] / self.recon_fov_mm[0])

    @property
    def crop(self) -> tuple[int, int]:
        """(y, x): how many pixels of the encoded image the reconstructed field of view has, at most all of them.

        Where the fields of view are unknown, that is the reconstructed matrix. A larger reconstructed matrix
        (interpolation) does not make the crop larger.
        """
        if self.encoded_fov_mm is None or self.recon_fov_mm is None:
            return self.recon_matrix[0], self.recon_matrix[1]
        sizes = zip(self.encoded_matrix[:2], self.recon_fov_mm[:2], self.encoded_fov_mm[:2], strict=True)
        y, x = (min(max(1, round(n * recon / encoded)) if recon < encoded else n, n) for n, recon, encoded in sizes)
        return y, x

    @classmethod
    def for_shape(cls, shape: tuple[int, int], recon_shape: tuple[int, int] | None = None) -> "IsmrmrdHeader":
        """Make the header of k-space of this size (y, x) whose fields of view are unknown."""
        return cls((*shape, 1), (*(recon_shape or shape), 1), line_limits=(0, shape[1] - 1, shape[1] // 2))

    @classmethod
    def from_xml(cls, text: bytes, encoding: int = 0) -> "IsmrmrdHeader":
        """Read one of the encodings of an ISMRMRD XML header.

        Raises
        ------
        ValueError
            The text is longer than 1 MiB, is no XML, declares a document type (entities could then fill the memory),
            lacks a matrix size, or has no such encoding.
        """
        root = parse_xml(text)
        encodings = root.findall("encoding")
        if not 0 <= encoding < max(1, len(encodings)):
            raise ValueError(f"encoding: expected 0 to {max(0, len(encodings) - 1)}, got {encoding}")
        chosen = encodings[encoding] if encodings else root
        found = {name: _numbers(chosen, f"encodingLimits/{name}", _LIMITS) for name in _COUNTERS}
        limits = {name: (int(t[0]), int(t[1]), int(t[2])) for name, t in found.items() if t is not None}
        n_coils = _number(root, f"{_SYSTEM}/receiverChannels")
        factors = [_number(chosen, f"parallelImaging/accelerationFactor/{step}") for step in _STEPS]
        header = cls(
            encoded_matrix=_matrix(chosen, "encodedSpace"),
            recon_matrix=_matrix(chosen, "reconSpace"),
            encoded_fov_mm=_field_of_view(chosen, "encodedSpace"),
            recon_fov_mm=_field_of_view(chosen, "reconSpace"),
            line_limits=limits.pop(_STEPS[0], None),
            partition_limits=limits.pop(_STEPS[1], None),
            counter_limits=limits,
            trajectory=_find(chosen, "trajectory"),
            n_coils=None if n_coils is None else int(n_coils),
            field_strength_t=_number(root, f"{_SYSTEM}/systemFieldStrength_T"),
            resonance_frequency_hz=int(_number(root, "experimentalConditions/H1resonanceFrequency_Hz") or 0) or None,
            relative_receiver_noise_bandwidth=_number(root, f"{_SYSTEM}/relativeReceiverNoiseBandwidth"),
            calibration_mode=_find(chosen, "parallelImaging/calibrationMode"),
            acceleration=None if factors[0] is None else (int(factors[0]), int(factors[1] or 1)),
            patient_id=_find(root, "subjectInformation/patientID"),
            patient_position=_find(root, f"{_MEASUREMENT}/patientPosition"),
            protocol_name=_find(root, f"{_MEASUREMENT}/protocolName"),
            user_parameters=_user_parameters(root),
            n_encodings=max(1, len(encodings)),
        )
        paths = [f"{group}/{name}" for group, names in _SCHEMA.items() for name in names]
        others = [path for path in paths if path not in header._named()]
        return replace(header, texts={path: value for path in others if (value := _find(root, path)) is not None})

    def to_xml(self) -> bytes:
        """Write a minimal header that is valid by the ISMRMRD schema; what is unknown but required is 0."""
        return _text(self._tree())

    def _tree(self) -> ElementTree.Element:
        root = ElementTree.Element("ismrmrdHeader", {"xmlns": _NAMESPACE})
        for path, value in self._leaves():
            element = root
            if value is None:
                continue
            for tag in path.split("/"):
                inner = element.find(tag)
                element = ElementTree.SubElement(element, tag) if inner is None else inner
            element.text = _shown(value)
        if self.user_parameters:
            _append_user_parameters(root, self.user_parameters)
        return root

    def _named(self) -> dict[str, Scalar | None]:
        """Elements outside the encoding that have a field."""
        return {
            "subjectInformation/patientID": self.patient_id,
            f"{_MEASUREMENT}/patientPosition": self.patient_position,
            f"{_MEASUREMENT}/protocolName": self.protocol_name,
            f"{_SYSTEM}/systemFieldStrength_T": self.field_strength_t,
            f"{_SYSTEM}/relativeReceiverNoiseBandwidth": self.relative_receiver_noise_bandwidth,
            f"{_SYSTEM}/receiverChannels": self.n_coils,
            "experimentalConditions/H1resonanceFrequency_Hz": self.resonance_frequency_hz or 0,
        }

    def _leaves(self) -> Iterator[tuple[str, Scalar | None]]:
        """Path and value of every element, in the order of the schema; None for what is not known."""
        values = {**self.texts, **self._named()}
        for group, names in _SCHEMA.items():
            # the schema requires a patient position in this group, and nobody may invent one
            if group != _MEASUREMENT or self.patient_position is not None:
                yield from ((path, values.get(path)) for name in names if (path := f"{group}/{name}"))
            if group == "encoding":
                yield from ((f"encoding/{path}", value) for path, value in self._encoding())

    def _encoding(self) -> Iterator[tuple[str, Scalar | None]]:
        def named(path: str, names: Sequence[str], values: Sequence[float]) -> Iterator[tuple[str, float]]:
            return ((f"{path}/{name}", value) for name, value in zip(names, values, strict=True))

        for space, matrix, fov in (
            ("encodedSpace", self.encoded_matrix, self.encoded_fov_mm),
            ("reconSpace", self.recon_matrix, self.recon_fov_mm),
        ):
            yield from named(f"{space}/matrixSize", "xyz", matrix)
            yield from named(f"{space}/fieldOfView_mm", "xyz", fov or (0.0, 0.0, 0.0))
        yield "encodingLimits", ""
        limits = {_STEPS[0]: self.line_limits, _STEPS[1]: self.partition_limits, **self.counter_limits}
        for counter, triple in limits.items():
            if triple is not None:
                yield from named(f"encodingLimits/{counter}", _LIMITS, triple)
        yield "trajectory", self.trajectory or "other"
        if self.acceleration is not None:
            yield from named("parallelImaging/accelerationFactor", _STEPS, self.acceleration)
            yield "parallelImaging/calibrationMode", self.calibration_mode


def header_of(
    file: Hdf5Reader, name: str = "ismrmrd_header", encoding: int = 0
) -> tuple[IsmrmrdHeader | None, bytes | None]:
    """Read the header in a data set of an HDF5 file, and its text; None where there is none. A FileError if it is damaged."""
    if not file.has(name):
        return None, None
    text = file.read_text(name)
    return parsed_header(file.path, text, name, encoding), text


def parsed_header(path: Path, text: bytes, field: str, encoding: int = 0) -> IsmrmrdHeader:
    """`IsmrmrdHeader.from_xml` for the text of a file, with a FileError."""
    try:
        return IsmrmrdHeader.from_xml(text, encoding)
    except ValueError as error:
        raise FileError(path, str(error), field=field) from error


def rewritten(text: bytes, header: IsmrmrdHeader) -> bytes:
    """The header ``text`` with one encoding only, whose matrix and limits are those of ``header``; all else stays as it is.

    The number of channels becomes that of ``header``, and user parameters that ``text`` does not have are appended.
    """
    root = parse_xml(text)  # without prefixes, because not every reader of MRD files knows about namespaces
    root.attrib.clear()
    root.set("xmlns", _NAMESPACE)
    first, *others = root.findall("encoding")
    for other in others:
        root.remove(other)
    ours = header._tree()
    for path in ("encodedSpace/matrixSize", "encodingLimits"):
        target, source = first.find(path), ours.find(f"encoding/{path}")
        if target is not None and source is not None:
            target[:] = list(source)
    channels = root.find(f"{_SYSTEM}/receiverChannels")
    if channels is not None and header.n_coils is not None:
        channels.text = str(header.n_coils)
    _append_user_parameters(root, header.user_parameters)
    return _text(root)


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
            element = ElementTree.SubElement(parent, f"userParameter{tag}")
            ElementTree.SubElement(element, "name").text = _shown(name)
            ElementTree.SubElement(element, "value").text = _shown(value)
    order = ("Long", "Double", "String", "Base64")  # the schema's
    parent[:] = sorted(parent, key=lambda element: order.index(element.tag.removeprefix("userParameter")))


def parse_xml(text: bytes) -> ElementTree.Element:
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
    except (expat.ExpatError, ElementTree.ParseError, LookupError) as error:  # the last: an unknown encoding
        raise ValueError(f"is no valid XML: {error}") from error
    for element in root.iter():
        element.tag = element.tag.removeprefix(f"{{{_NAMESPACE}}}")
    return root


def _text(root: ElementTree.Element) -> bytes:
    text: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return text


def _shown(value: Scalar) -> str:
    return (
        _NOT_IN_XML.sub("", value) if isinstance(value, str) else repr(int(value) if isinstance(value, bool) else value)
    )


def _find(root: ElementTree.Element, path: str) -> str | None:
    text = root.findtext(path)
    return text.strip() or None if text is not None else None


def _number(root: ElementTree.Element, path: str) -> float | None:
    text = _find(root, path)
    try:
        value = math.nan if text is None else float(text)
    except ValueError:
        value = math.nan
    if text is not None and not math.isfinite(value):
        raise ValueError(f"{path.replace('/', '.')}: expected a number, got {text[:40]!r}")
    return None if text is None else value


def _numbers(root: ElementTree.Element, path: str, names: Sequence[str]) -> tuple[float, ...] | None:
    found = tuple(value for name in names if (value := _number(root, f"{path}/{name}")) is not None)
    return found if len(found) == len(names) else None


def _matrix(encoding: ElementTree.Element, space: str) -> tuple[int, int, int]:
    sizes = _numbers(encoding, f"{space}/matrixSize", "xyz")
    if sizes is None or not all(1 <= n <= 1 << 16 for n in sizes):
        raise ValueError(f"encoding.{space}.matrixSize: expected three numbers from 1 to 65536, got {sizes}")
    return int(sizes[0]), int(sizes[1]), int(sizes[2])


def _field_of_view(encoding: ElementTree.Element, space: str) -> tuple[float, float, float] | None:
    sizes = _numbers(encoding, f"{space}/fieldOfView_mm", "xyz")
    return None if sizes is None or min(sizes[:2]) <= 0 else (sizes[0], sizes[1], sizes[2])


def _user_parameters(root: ElementTree.Element) -> dict[str, Scalar]:
    kinds: dict[str, Callable[[str], Scalar]] = {"Long": int, "Double": float, "String": str}
    found: list[tuple[str | None, Scalar]] = []
    for tag, kind in kinds.items():
        for element in root.iterfind(f"userParameters/userParameter{tag}"):
            try:
                found.append((_find(element, "name"), kind(_find(element, "value") or "")))
            except ValueError:
                continue
    times = Counter(name for name, _ in found)
    return {name: value for name, value in found if name is not None and times[name] == 1}
