"""What a client sent: configuration, header, parameters, acquisitions; gathered and checked before anything is computed."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from ismrmrd.hdf5 import acquisition_header_dtype
from numpy.typing import NDArray

from mrisps.errors import FileError
from mrisps.io.ismrmrd_header import IsmrmrdHeader
from mrisps.io.ismrmrd_messages import IsmrmrdMessages
from mrisps.server.messages import Kind, Limits, MessageReader, StreamError

__all__ = ["WELCOME", "Measurement", "Parameters", "parameters_of", "receive"]

WELCOME = frozenset(
    (Kind.CONFIG_FILE, Kind.CONFIG_TEXT, Kind.HEADER, Kind.CLOSE, Kind.TEXT, Kind.ACQUISITION, Kind.WAVEFORM)
)
"""Messages that a server takes."""

Parameters = Mapping[str, str | float | bool]
"""Names and values that a client gives for its reconstruction."""

_MOST_PARAMETERS = 64


@dataclass(frozen=True, eq=False)
class Measurement:
    """A measurement as it came.

    Parameters
    ----------
    config
        The name in the configuration message.
    parameters
        What the JSON text says.
    header_xml
        The header.
    heads
        Acquisition headers (acquisition,).
    samples
        Samples of each, as bytes.
    n_waveforms
        Waveforms that were dropped.
    n_bytes
        Of the whole stream.
    """

    config: str
    parameters: Parameters
    header_xml: bytes
    heads: NDArray[np.void]
    samples: tuple[bytes, ...] = field(repr=False)
    n_waveforms: int = 0
    n_bytes: int = 0

    def open(self, limits: Limits) -> IsmrmrdMessages:
        """The acquisitions sorted into slices.

        Raises
        ------
        FileError
            As `mrisps.io.ismrmrd.IsmrmrdFile`; or an image is larger than the limits.
        """
        name = "stream"
        try:
            matrix = IsmrmrdHeader.from_xml(self.header_xml).encoded_matrix
        except ValueError as error:
            raise FileError(name, str(error), field="header") from error
        n_coils = int(self.heads["active_channels"].max()) if len(self.heads) else 0
        n_bytes = 8 * n_coils * int(np.prod([int(n) for n in matrix], dtype=object))
        largest = max(matrix[0] * matrix[1], matrix[1] * matrix[2], matrix[0] * matrix[2])
        if n_bytes > limits.kspace_bytes or largest > limits.pixels:
            message = (
                f"{n_coils} coils of {' x '.join(map(str, matrix))}: at most {limits.kspace_bytes} bytes and {limits.pixels} "
                "pixels are accepted"
            )
            raise FileError(name, message, field="encodedSpace")
        return IsmrmrdMessages(self.header_xml, self.heads, self.samples, name)


def receive(reader: MessageReader) -> Measurement | None:
    """Read a whole measurement; None where the client closed without one, as a health check does.

    Raises
    ------
    StreamError
        The messages break the protocol or a limit, or the JSON of the parameters is wrong.
    """
    kind, content = reader.next()
    if kind == Kind.CLOSE:
        return None
    if kind not in (Kind.CONFIG_FILE, Kind.CONFIG_TEXT):
        raise StreamError(f"expected a configuration first, got message {kind}")
    config = _text(content)
    parameters: dict[str, str | float | bool] = {}
    if config.startswith("{"):
        parameters.update(parameters_of(config))
        config = ""
    header_xml: bytes | None = None
    heads, samples, n_waveforms = bytearray(), [], 0
    size = acquisition_header_dtype.itemsize
    while True:
        kind, content = reader.next()
        if kind == Kind.CLOSE:
            break
        if kind == Kind.HEADER and header_xml is None:
            header_xml = content.rstrip(b"\0")
        elif kind == Kind.TEXT:
            if _text(content).startswith("{"):  # other texts are remarks, which the protocol allows
                parameters.update(parameters_of(_text(content)))
        elif kind == Kind.WAVEFORM:
            n_waveforms += 1
        elif kind == Kind.ACQUISITION and header_xml is not None:
            head = np.frombuffer(content, acquisition_header_dtype, count=1)[0]
            n_trajectory = 4 * int(head["number_of_samples"]) * int(head["trajectory_dimensions"])
            heads += content[:size]
            samples.append(content[size + n_trajectory :])
        else:
            raise StreamError(f"message {kind} at a place where it is not allowed")
    if header_xml is None:
        raise StreamError("there was no header")
    records = np.frombuffer(bytes(heads), acquisition_header_dtype)
    return Measurement(config, parameters, header_xml, records, tuple(samples), n_waveforms, reader.n_bytes)


def parameters_of(given: object) -> dict[str, str | float | bool]:
    """Names and plain values of a JSON object, or of the object under its key ``parameters``.

    Parameters
    ----------
    given
        The text, or what it was read into.

    Raises
    ------
    StreamError
        It is no such object, or has more than 64 entries.
    """
    try:
        found = json.loads(given) if isinstance(given, str) else given
    except (ValueError, RecursionError) as error:
        raise StreamError("parameters: expected a JSON object") from error
    inner = found.get("parameters", found) if isinstance(found, Mapping) else None
    if not isinstance(inner, Mapping) or len(inner) > _MOST_PARAMETERS:
        raise StreamError(f"parameters: expected a JSON object of at most {_MOST_PARAMETERS} entries")
    return {str(name): value for name, value in inner.items() if isinstance(value, str | int | float | bool)}


def _text(content: bytes) -> str:
    try:
        text = content.split(b"\0")[0].decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise StreamError("a text is not UTF-8") from error
    return re.sub(r"\.xml$", "", text)
