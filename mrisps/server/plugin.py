"""The reconstruction as a module of python-ismrmrd-server, the Python server of many scanners.

Install mrisps beside that server, and name ``mrisps.server.plugin`` as configuration. The recipe is ``recipe`` in the JSON
parameters, by default ``multicoil``; ``parts``, ``pixels``, ``lam`` and ``beta`` are as for our own server.
"""

from collections.abc import Iterator
from functools import cache
from typing import Protocol

import numpy as np
from ismrmrd import Acquisition, Image
from ismrmrd.hdf5 import acquisition_header_dtype

from mrisps.errors import MrispsError
from mrisps.server.measurement import Measurement, parameters_of
from mrisps.server.session import Site, serve_measurement

__all__ = ["process"]


class _Server(Protocol):
    """What is used of that server's connection."""

    def __iter__(self) -> Iterator[object]: ...
    def send_image(self, images: object) -> None: ...
    def send_logging(self, level: str, contents: str) -> None: ...
    def send_close(self) -> None: ...


class _Peer:
    def __init__(self, connection: _Server) -> None:
        self._connection = connection

    def send_image(self, image: Image) -> None:
        self._connection.send_image(image)

    def send_text(self, text: str) -> None:
        self._connection.send_logging("INFO    ", text)

    def check(self) -> None: ...

    def log(self, event: str, level: str = "info", **facts: str | float | bool | None) -> None: ...


@cache
def _site() -> Site:
    return Site()


def process(connection: _Server, config: object, header: object) -> None:
    """Reconstruct what a connection of python-ismrmrd-server brings, and send the images back.

    Parameters
    ----------
    connection
        Iterates over acquisitions, images and waveforms, and ends with None.
    config
        Parameters, as JSON or read from it; or the name of the configuration.
    header
        Header of the measurement: an object of ``ismrmrd.xsd``, or XML.
    """
    try:
        heads, samples, n_bytes = bytearray(), [], 0
        for item in connection:
            if item is None:
                break
            if isinstance(item, Acquisition):
                heads += bytes(item.getHead())
                samples.append(np.ascontiguousarray(item.data, np.complex64).tobytes())
                n_bytes += len(samples[-1])
                if n_bytes > _site().limits.measurement_bytes:
                    raise MrispsError(f"the measurement has more than {_site().limits.measurement_bytes} bytes")
        is_name = isinstance(config, str) and not config.lstrip().startswith("{")
        parameters = {} if is_name else parameters_of(config)
        parameters = {"recipe": _site().names[0], **parameters}
        parameters.pop("config", None)  # the name of this module
        to_xml = getattr(header, "toXML", None)
        xml = str(header if to_xml is None else to_xml()).encode()
        records = np.frombuffer(bytes(heads), acquisition_header_dtype)
        serve_measurement(Measurement("", parameters, xml, records, tuple(samples)), _site(), _Peer(connection))
    except (MrispsError, ValueError) as error:
        connection.send_logging("ERROR   ", f"mrisps: {error}")
    finally:
        connection.send_close()
