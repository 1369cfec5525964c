"""Messages of the MRD streaming protocol.

The readers of the package ``ismrmrd`` trust the lengths that a message states: a head of 340 bytes may make them ask for 34 GB. So
lengths are read and checked here, and only whole messages of an allowed size are handed on.

Source: ISMRMRD, ``doc/mrd_messages.md``.
"""

import math
import struct
from collections.abc import Collection
from dataclasses import dataclass
from enum import IntEnum
from typing import BinaryIO

import numpy as np
from ismrmrd.hdf5 import (  # here, because two threads that import it at once fail
    acquisition_header_dtype,
    image_header_dtype,
)
from ismrmrd.image import dtype_mapping

from mrisps.errors import MrispsError

__all__ = ["Kind", "Limits", "MessageReader", "StreamError", "message", "text_message"]

_PIECE = 1 << 16


class StreamError(MrispsError):
    """A client breaks the protocol or a limit, or asks for what is not there. The message quotes no text of the client, so it may
    stand in a log."""


class Kind(IntEnum):
    """Numbers of the messages."""

    CONFIG_FILE = 1
    CONFIG_TEXT = 2
    HEADER = 3
    CLOSE = 4
    TEXT = 5
    ACQUISITION = 1008
    IMAGE = 1022
    WAVEFORM = 1026


@dataclass(frozen=True)
class Limits:
    """What a stream may ask for.

    Parameters
    ----------
    text_bytes
        Of a text, a header, or the Meta of an image.
    message_bytes
        Of an acquisition, a waveform, or an image.
    measurement_bytes
        Of all messages of a connection; small messages count as 1 KiB.
    kspace_bytes
        Of the k-space of one image or volume, all coils.
    pixels
        Of an image.
    """

    text_bytes: int = 1 << 20
    message_bytes: int = 1 << 26
    measurement_bytes: int = 2 << 30
    kspace_bytes: int = 1 << 30
    pixels: int = 1 << 22

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise ValueError(f"{name}: expected at least 1, got {value}")


class MessageReader:
    """Reads whole messages, none larger than the limits.

    Parameters
    ----------
    stream
        Where bytes come from.
    limits
        What is allowed.
    accepted
        Kinds of messages that are welcome here; a waveform is read and dropped if it is.
    """

    def __init__(self, stream: BinaryIO, limits: Limits, accepted: Collection[Kind]) -> None:
        self._stream, self._limits, self._accepted = stream, limits, accepted
        self.n_bytes = 0
        """Bytes that were read."""
        self._counted = 0

    def next(self) -> tuple[Kind, bytes]:
        """Kind and content of the next message; the content of a text without its length.

        Raises
        ------
        StreamError
            The stream ends, the message is unknown, not welcome, or too large.
        """
        number = struct.unpack("<H", self._read(2))[0]
        kind = next((known for known in self._accepted if known == number), None)
        if kind is None:
            raise StreamError(f"message {number} is not welcome here")
        before = self.n_bytes
        content = self._content(kind)
        self._counted += max(1024, self.n_bytes - before)
        self._check("the measurement", self._counted, self._limits.measurement_bytes)
        return kind, content

    def _content(self, kind: Kind) -> bytes:
        if kind == Kind.CLOSE:
            return b""
        if kind == Kind.CONFIG_FILE:
            return self._read(1024)
        if kind in (Kind.CONFIG_TEXT, Kind.HEADER, Kind.TEXT):
            n = struct.unpack("<I", self._read(4))[0]
            return self._read(self._check(f"the text of message {kind}", n, self._limits.text_bytes))
        if kind == Kind.ACQUISITION:
            head = self._read(acquisition_header_dtype.itemsize)
            fields = np.frombuffer(head, acquisition_header_dtype)[0]
            n_samples, n_coils = int(fields["number_of_samples"]), int(fields["active_channels"])
            n = 4 * n_samples * int(fields["trajectory_dimensions"]) + 8 * n_samples * n_coils
            return head + self._read(self._check("an acquisition", n, self._limits.message_bytes))
        if kind == Kind.WAVEFORM:
            head = self._read(40)
            n_samples, n_channels = struct.unpack_from("<HH", head, 28)
            self._skip(self._check("a waveform", 4 * n_samples * n_channels, self._limits.message_bytes))
            return b""
        return self._image()

    def _image(self) -> bytes:
        head = self._read(image_header_dtype.itemsize)
        fields = np.frombuffer(head, image_header_dtype)[0]
        kind = dtype_mapping.get(int(fields["data_type"]))
        if kind is None:
            raise StreamError(f"an image has pixels of the unknown type {int(fields['data_type'])}")
        length = self._read(8)
        n_meta = self._check("the Meta of an image", struct.unpack("<Q", length)[0], self._limits.text_bytes)
        meta = self._read(n_meta)
        n = kind.itemsize * int(fields["channels"]) * math.prod(int(size) for size in fields["matrix_size"])
        return head + length + meta + self._read(self._check("an image", n, self._limits.message_bytes))

    def _check(self, what: str, n: int, most: int) -> int:
        if n > most:
            raise StreamError(f"{what} has {n} bytes, at most {most} are accepted")
        return n

    def _read(self, n: int) -> bytes:
        content = self._stream.read(n)
        self.n_bytes += len(content)
        if len(content) < n:
            raise StreamError(
                f"the stream ended after {self.n_bytes} bytes, within a message or before the closing one"
            )
        return content

    def _skip(self, n: int) -> None:
        for start in range(0, n, _PIECE):
            self._read(min(_PIECE, n - start))


def message(kind: Kind, content: bytes = b"") -> bytes:
    """A message of content that needs no length."""
    return struct.pack("<H", kind) + content


def text_message(kind: Kind, text: bytes) -> bytes:
    """A message of a text with its length."""
    return message(kind, struct.pack("<I", len(text)) + text)
