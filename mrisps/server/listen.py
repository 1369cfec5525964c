"""The server on the network: places for clients, time-outs, a log without patients.

A connection is a thread. What goes wrong in it ends this connection with a text to the client and a line in the log, nothing else.
"""

import contextlib
import io
import json
import secrets
import select
import socket
import socketserver
import threading
import time
import traceback
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, TextIO

from ismrmrd import Image
from ismrmrd.serialization import ProtocolSerializer

from mrisps.errors import FileError, MrispsError
from mrisps.server.measurement import WELCOME, receive
from mrisps.server.messages import Kind, Limits, MessageReader, StreamError, message, text_message
from mrisps.server.session import Site, StoppedError, serve_measurement

__all__ = ["EventLog", "MrdServer", "Times", "check_server"]

_LINGER_SECONDS, _LINGER_BYTES = 5.0, 1 << 28


@dataclass(frozen=True)
class Times:
    """How long the server waits, in seconds.

    Parameters
    ----------
    idle
        For the next bytes of a client, or for a client to take some.
    start
        For configuration and header.
    connection
        For a whole connection, reconstruction included.
    """

    idle: float = 60.0
    start: float = 60.0
    connection: float = 3600.0


class EventLog:
    """Lines of JSON, one an event. Nothing of a header or an image goes in, unless details are asked for.

    Parameters
    ----------
    stream
        Where lines go.
    details
        Also write what an error says, which may quote the header of a measurement.
    """

    def __init__(self, stream: TextIO, *, details: bool = False) -> None:
        self._stream, self.details, self._lock = stream, details, threading.Lock()

    def __call__(self, event: str, level: str = "info", **facts: str | float | bool | None) -> None:
        """Write a line."""
        line = json.dumps(
            {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "level": level, "event": event, **facts}
        )
        with self._lock:
            self._stream.write(line + "\n")
            self._stream.flush()


class _SocketStream(io.RawIOBase):
    """A socket for reading, whose every wait ends at the idle time or at the deadline."""

    def __init__(self, connection: socket.socket, idle: float, deadline: float) -> None:
        super().__init__()
        self._socket, self._idle, self.deadline = connection, idle, deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # the base takes any buffer
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the connection took too long")
        self._socket.settimeout(min(self._idle, left))
        return self._socket.recv_into(buffer)


class _Connection:
    """One client: its messages, and what it is told."""

    def __init__(self, server: "MrdServer", client: socket.socket) -> None:
        self._server, self._socket = server, client
        self.id = secrets.token_hex(4)
        self._deadline = time.monotonic() + server.times.connection
        self._sending = threading.Lock()  # the thread of the connection and that of the solver both send
        self._poll = select.poll()
        self._poll.register(client, 0)  # errors and hang-ups are always reported

    def log(self, event: str, level: str = "info", **facts: str | float | bool | None) -> None:
        self._server.log(event, level, connection=self.id, **facts)

    def check(self) -> None:
        if self._server.is_ending.is_set():
            raise StoppedError("the server ends")
        if time.monotonic() > self._deadline:
            raise StoppedError(f"the connection took longer than {self._server.times.connection:g} s")
        if self._poll.poll(0):
            raise StoppedError("the client has gone")

    def send_text(self, text: str) -> None:
        self._send(text_message(Kind.TEXT, text.encode()))

    def send_image(self, image: Image) -> None:
        with io.BytesIO() as content:
            ProtocolSerializer(content).serialize(image)
            self._send(content.getvalue())

    def _send(self, content: bytes) -> None:
        with self._sending:
            self._socket.settimeout(self._server.times.idle)
            try:
                self._socket.sendall(content)
            except OSError as error:
                raise StoppedError("the client has gone, or takes no data") from error

    def serve(self) -> None:
        """Everything from the first message to the last."""
        begun = time.monotonic()
        try:
            start = begun + self._server.times.start
            stream = _SocketStream(self._socket, self._server.times.idle, start)
            reader = MessageReader(_Deadlines(stream, self._deadline), self._server.site.limits, WELCOME)
            measurement = receive(reader)
            if measurement is None:
                self.log("check")
            else:
                self.log(
                    "received",
                    n_acquisitions=len(measurement.heads),
                    n_waveforms=measurement.n_waveforms,
                    n_bytes=measurement.n_bytes,
                    seconds=round(time.monotonic() - begun, 3),
                )
                serve_measurement(measurement, self._server.site, self)
        except StoppedError as error:
            self.log("stopped", "warning", reason=str(error))
        except (StreamError, TimeoutError, OSError) as error:
            reason = str(error) if isinstance(error, StreamError) else type(error).__name__
            self._fail("refused", str(error) or reason, reason=reason)
        except (MrispsError, ValueError) as error:
            self._fail("failed", str(error), field=error.field if isinstance(error, FileError) else None, error=error)
        except MemoryError:
            self._fail("failed", "not enough memory", reason="not enough memory")
        except Exception as error:  # whatever a stream makes the libraries below raise: it is this connection that ends
            places = [
                f"{Path(entry.filename).name}:{entry.lineno}" for entry in traceback.extract_tb(error.__traceback__)
            ]
            self._fail("failed", "the server met an error of its own", error=error, where=" ".join(places[-4:]))
        finally:
            self._close()

    def _fail(
        self, event: str, told: str, *, error: BaseException | None = None, **facts: str | float | bool | None
    ) -> None:
        if error is not None:
            facts["error"] = type(error).__name__
            if self._server.log.details:
                facts["message"] = str(error)
        self.log(event, "error", **{name: value for name, value in facts.items() if value is not None})
        with contextlib.suppress(StoppedError):
            self.send_text(f"error: {told}")

    def _close(self) -> None:
        """Say goodbye, and let the client read it: what it still sends is dropped, for a while."""
        with contextlib.suppress(StoppedError, OSError):
            self._send(message(Kind.CLOSE))
            self._socket.shutdown(socket.SHUT_WR)
            end, left = time.monotonic() + _LINGER_SECONDS, _LINGER_BYTES
            while left > 0 and (seconds := end - time.monotonic()) > 0:
                self._socket.settimeout(seconds)
                n = len(self._socket.recv(1 << 16))
                left = left - n if n else 0


class _Deadlines(io.BufferedReader):
    """Once a kilobyte has come, the deadline is that of the whole connection."""

    def __init__(self, raw: _SocketStream, deadline: float) -> None:
        super().__init__(raw, 1 << 16)
        self._source, self._deadline, self._n = raw, deadline, 0

    def read(self, size: int | None = -1, /) -> bytes:
        content = super().read(size)
        self._n += len(content)
        if self._n > 2048:
            self._source.deadline = self._deadline
        return content


class MrdServer(socketserver.ThreadingTCPServer):
    """Listens, and gives each client a thread, as many as there are places.

    Parameters
    ----------
    address
        Host and port; port 0 takes a free one.
    site
        What the server does and allows.
    log
        Where events are written.
    n_clients
        Places. A client beyond them is told so, and let go.
    times
        How long the server waits.
    """

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 16

    def __init__(
        self, address: tuple[str, int], site: Site, log: EventLog, *, n_clients: int = 8, times: Times | None = None
    ) -> None:
        self.site, self.log, self.times = site, log, times or Times()
        self.is_ending = threading.Event()
        self._places = threading.BoundedSemaphore(n_clients)
        self._n_clients = n_clients
        try:
            super().__init__(address, socketserver.BaseRequestHandler)
        except (OSError, OverflowError) as error:
            raise MrispsError(f"cannot listen on {address[0]}:{address[1]}: {error}") from error

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self.socket.getsockname()[1])

    def process_request(self, request: socket.socket, client_address: object) -> None:  # type: ignore[override]  # TCP only
        """Give the client a place and a thread."""
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
            return
        self.log("busy", "warning", n_clients=self._n_clients)
        with contextlib.suppress(OSError):
            request.settimeout(1.0)
            request.sendall(text_message(Kind.TEXT, b"error: the server is busy") + message(Kind.CLOSE))
        self.shutdown_request(request)

    def process_request_thread(self, request: socket.socket, client_address: object) -> None:  # type: ignore[override]  # TCP only
        """Serve a client, and free its place."""
        try:
            _Connection(self, request).serve()
        finally:
            self.shutdown_request(request)
            self._places.release()

    def end(self, seconds: float = 10.0) -> None:
        """Stop listening, let running reconstructions end, and wait for them for some seconds."""
        self.is_ending.set()
        self.shutdown()
        self.server_close()
        until = time.monotonic() + seconds
        for _ in range(self._n_clients):
            if not self._places.acquire(timeout=max(0.0, until - time.monotonic())):
                break
        self.log("ended")


def check_server(host: str, port: int, seconds: float = 5.0) -> str:
    """Ask a server whether it answers: ``"ready"`` or ``"busy"``.

    Raises
    ------
    MrispsError
        It does not.
    """
    try:
        with socket.create_connection((host, port), timeout=seconds) as client:
            client.sendall(message(Kind.CLOSE))
            stream: BinaryIO = client.makefile("rb")
            reader = MessageReader(stream, Limits(), (Kind.TEXT, Kind.CLOSE))
            kind, _ = reader.next()
            return "ready" if kind == Kind.CLOSE else "busy"
    except (OSError, StreamError) as error:
        raise MrispsError(f"{host}:{port}: no answer from a reconstruction server: {error}") from error
