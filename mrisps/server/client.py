"""A client: send an ISMRMRD file to a reconstruction server, receive images."""

import contextlib
import io
import json
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from ismrmrd import Acquisition, Image
from ismrmrd.hdf5 import image_header_dtype
from ismrmrd.serialization import ConfigFile, ProtocolDeserializer, ProtocolSerializer
from numpy.typing import NDArray

from mrisps.errors import FileError, MrispsError
from mrisps.io.hdf5 import Hdf5Reader
from mrisps.io.ismrmrd import ismrmrd_groups
from mrisps.io.ismrmrd_images import write_mrd_images
from mrisps.server.messages import Kind, Limits, MessageReader, StreamError, message, text_message

__all__ = ["Received", "send_file"]

_BLOCK = 64


@dataclass(eq=False)
class Received:
    """What a server sent back.

    Parameters
    ----------
    images
        In the order of their arrival.
    texts
        What the server said.
    header_xml
        The header that was sent.
    broken
        Why the answer ended early; empty if it did not.
    """

    images: list[Image] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    header_xml: bytes = b""
    broken: str = ""

    @property
    def errors(self) -> list[str]:
        """Texts that say what went wrong."""
        return [text for text in self.texts if text.startswith("error: ")]

    def save(self, path: Path) -> None:
        """Write the images as MRD, with Meta and header.

        Raises
        ------
        FileError
            There are none, or the file cannot be written.
        """

        def parts(image: Image) -> tuple[NDArray[np.void], NDArray[np.generic], bytes]:
            head = np.frombuffer(bytes(image.getHead()), image_header_dtype)[0]
            return head, np.asarray(image.data), image.attribute_string.encode()

        write_mrd_images(path, [parts(image) for image in self.images], self.header_xml or None)


def send_file(
    path: Path | str,
    host: str = "127.0.0.1",
    port: int = 9002,
    *,
    config: str = "default",
    parameters: Mapping[str, str | float | bool] | None = None,
    seconds: float = 600.0,
    say: Callable[[str], None] | None = None,
) -> Received:
    """Send the acquisitions of an ISMRMRD file, and wait for the images.

    Parameters
    ----------
    path
        The file.
    host, port
        The server.
    config
        Configuration name; for our server the name of a recipe.
    parameters
        Sent as JSON after the header; for our server ``parts``, ``pixels``, ``lam``, ``beta``.
    seconds
        How long to wait for the next message.
    say
        Called with each text as it arrives.

    Raises
    ------
    FileError
        The file is no ISMRMRD raw data.
    MrispsError
        The server cannot be reached, or its answer breaks the protocol.
    """
    path = Path(path)
    received = Received()
    with Hdf5Reader(path) as file:
        groups = ismrmrd_groups(file)
        if len(groups) != 1:
            raise FileError(
                path, f"expected one group with acquisitions (data and xml), has: {', '.join(groups) or 'none'}"
            )
        received.header_xml = file.read_text(f"{groups[0]}/xml")
        try:
            connection = socket.create_connection((host, port), timeout=seconds)
        except OSError as error:
            raise MrispsError(f"{host}:{port}: cannot be reached: {error}") from error
        with connection:
            reader = threading.Thread(target=_receive, args=(connection, received, say), daemon=True)
            reader.start()  # a server may send while we do
            with contextlib.suppress(OSError):  # the server may end the connection: it says why
                _send(connection, file, groups[0], received.header_xml, config, parameters)
            reader.join()
    if received.broken:
        raise MrispsError(f"{host}:{port}: the answer broke off: {received.broken}")
    return received


def _send(
    connection: socket.socket,
    file: Hdf5Reader,
    group: str,
    header_xml: bytes,
    config: str,
    parameters: Mapping[str, str | float | bool] | None,
) -> None:
    with connection.makefile("wb", buffering=1 << 20) as stream:
        serializer = ProtocolSerializer(stream)
        serializer.serialize(ConfigFile(config))
        stream.write(text_message(Kind.HEADER, header_xml))
        if parameters:
            serializer.serialize(json.dumps({"parameters": dict(parameters)}))
        n = file.shape(f"{group}/data")[0]
        for start in range(0, n, _BLOCK):
            for record in file.read_records(f"{group}/data", slice(start, min(n, start + _BLOCK))):
                head = np.asarray(record["head"])
                n_coils, n_samples = int(head["active_channels"]), int(head["number_of_samples"])
                floats = np.ascontiguousarray(record["data"], np.float32)
                if floats.size != 2 * n_coils * n_samples:
                    raise FileError(
                        file.path, "an acquisition has other data than its head says", field=f"{group}/data"
                    )
                trajectory = np.asarray(record["traj"], np.float32).reshape(n_samples, -1)
                samples = floats.view(np.complex64).reshape(n_coils, n_samples)
                serializer.serialize(Acquisition(head.tobytes(), samples, trajectory))
        stream.write(message(Kind.CLOSE))


def _receive(connection: socket.socket, received: Received, say: Callable[[str], None] | None) -> None:
    """Read until the server closes."""
    limits = Limits(measurement_bytes=1 << 40, message_bytes=1 << 30)
    reader = MessageReader(connection.makefile("rb"), limits, (Kind.TEXT, Kind.IMAGE, Kind.CLOSE))
    try:
        while True:
            kind, content = reader.next()
            if kind == Kind.CLOSE:
                return
            if kind == Kind.TEXT:
                received.texts.append(content.rstrip(b"\0").decode("utf-8", "replace"))
                if say is not None:
                    say(received.texts[-1])
                continue
            whole = ProtocolDeserializer(io.BytesIO(message(kind, content)))
            image = next(whole.deserialize())
            received.images.append(image)
    except (StreamError, OSError, ValueError) as error:
        received.broken = str(error)
