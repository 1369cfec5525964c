"""`mrisps serve` and `mrisps send`: the reconstruction server, and a client."""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mrisps.cli.common import FAILURE, UsageError, note, result, usage_errors
from mrisps.cli.files import new_file
from mrisps.cli.options import Overwrite, WeightsOptions, option
from mrisps.cli.to_dicom import MarkLevel, checked_mark
from mrisps.errors import MrispsError

if TYPE_CHECKING:
    from mrisps.server.listen import MrdServer

__all__ = ["send", "serve"]

Host = Annotated[str, option("--host NAME", "Name or address.")]
Port = Annotated[int, option("--port N", "TCP port.", least=0)]


def serve(
    options: WeightsOptions,
    host: Host = "127.0.0.1",
    port: Port = 9002,
    recipes: Annotated[
        list[str] | None,
        option(
            "--recipe NAME|FILE",
            "A recipe that clients may ask for; the first is the default. Can be given several times. Default: all MRI recipes "
            "of the package, multicoil first.",
        ),
    ] = None,
    clients: Annotated[
        int, option("--clients N", "Clients at once; one more is told that the server is busy.", least=1)
    ] = 8,
    send_unusable: Annotated[
        bool, option("--send-unusable", "Also send images whose verdict is `unusable`; see --mark.")
    ] = False,
    mark: MarkLevel = "unusable",
    idle: Annotated[float, option("--idle SECONDS", "How long to wait for a client's next bytes.")] = 60.0,
    longest: Annotated[
        float, option("--longest SECONDS", "How long a connection may take, reconstruction included.")
    ] = 3600.0,
    megabytes: Annotated[int, option("--max-megabytes N", "Of the raw data of one connection.", least=1)] = 2048,
    log: Annotated[Path | None, option("--log FILE", "Append the log to this file. Default: stdout.")] = None,
    log_details: Annotated[
        bool, option("--log-details", "Also log what errors say, which may quote the header of a measurement.")
    ] = False,
    check: Annotated[bool, option("--check", "Ask a running server whether it answers, and exit.")] = False,
) -> None:
    """Reconstruct what scanners stream (MRD).

    A client sends a configuration (the name of a recipe), the ISMRMRD header, and acquisitions; images come back, slice by
    slice, with their verdict. The log has a line of JSON for each event, without patients. The server listens on this machine
    only, unless --host says otherwise: the protocol has no passwords and no encryption.
    """
    from mrisps.server.listen import EventLog, MrdServer, Times, check_server
    from mrisps.server.messages import Limits
    from mrisps.server.session import Site

    if check:
        result(f"{host}:{port}: {check_server(host, port)}")
        return
    with usage_errors():
        if not (idle > 0 and longest > 0):
            raise UsageError("--idle, --longest: expected numbers > 0")
        limits = Limits(measurement_bytes=megabytes << 20)
        device = options.checked_device()
        site = Site(recipes or (), options.weights, device, send_unusable, checked_mark(mark), limits)
        site.run("default")  # what is wrong with the recipe or its weights is said now
    with contextlib.ExitStack() as stack:
        stream = typer.get_text_stream("stdout")
        if log is not None:
            stream = stack.enter_context(log.open("a", encoding="utf-8"))
        server = MrdServer(
            (host, port),
            site,
            EventLog(stream, details=log_details),
            n_clients=clients,
            times=Times(idle, idle, longest),
        )
        _until_signal(server, host)


def _until_signal(server: "MrdServer", host: str) -> None:
    """Serve until SIGTERM or Ctrl-C, then let running work end."""
    import signal
    import threading

    from mrisps._version import __version__

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.2}, daemon=True)
    thread.start()
    server.log("listening", host=host, port=server.port, version=__version__, recipe=server.site.names[0])
    stop.wait()
    server.end()


def send(
    source: Annotated[Path, typer.Argument(metavar="IN", help="ISMRMRD (MRD) raw data.")],
    host: Host = "127.0.0.1",
    port: Port = 9002,
    output: Annotated[
        Path | None, option("--output FILE", "MRD file for the images. Default: IN_images.mrd here.")
    ] = None,
    config: Annotated[
        str, option("--config NAME", "Configuration; for `mrisps serve` the name of a recipe.")
    ] = "default",
    parameters: Annotated[
        list[str] | None,
        option(
            "--parameter KEY=VALUE", "For `mrisps serve`: parts=all, pixels=short, lam=..., beta=... Several times."
        ),
    ] = None,
    seconds: Annotated[float, option("--timeout SECONDS", "How long to wait for the next message.")] = 600.0,
    overwrite: Overwrite = False,
) -> None:
    """Send raw data to a reconstruction server.

    The images that come back go into an MRD file (`mrisps to-dicom` reads it); what the server says goes to stderr. Exit code
    1: the server said that something went wrong, or sent no image.
    """
    from mrisps.server.client import send_file

    if not source.is_file():
        raise UsageError(f"{source}: {'is not a regular file' if source.exists() else 'does not exist'}")
    given: dict[str, str | float | bool] = {}
    for entry in parameters or ():
        key, equals, value = entry.partition("=")
        if not equals or not key:
            raise UsageError(f"--parameter: expected KEY=VALUE, got {entry!r}")
        given[key] = value
    destination = output or Path(f"{source.stem}_images.mrd")
    new_file(destination, overwrite)
    received = send_file(source, host, port, config=config, parameters=given, seconds=seconds, say=_say)
    if received.images:
        received.save(destination)
        result(f"{destination}: {len(received.images)} image{'s' if len(received.images) > 1 else ''}")
    if received.errors:
        raise MrispsError(received.errors[0].removeprefix("error: "))
    if not received.images:
        note("no image came back")
        raise typer.Exit(FAILURE)


def _say(text: str) -> None:
    """Print what a server says; an error is printed once, at the end."""
    if not text.startswith("error: "):
        note(text)
