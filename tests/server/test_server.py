"""The server on the network: images, texts, places, time-outs, and a log that does not say who was measured."""

import io
import json
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from clinic_files import NAME, PATIENT, SHAPE, geometry_of
from numpy.typing import NDArray

import mrisps
from mrisps.errors import MrispsError
from mrisps.io.ismrmrd_images import read_mrd_images
from mrisps.reconstruction.verdict import Verdict
from mrisps.server import listen as listen_module
from mrisps.server import session as session_module
from mrisps.server.client import send_file
from mrisps.server.listen import EventLog, MrdServer, Times, check_server
from mrisps.server.messages import Kind, message
from mrisps.server.session import Site

from .conftest import Running, read_answer, stream_of
from .test_streams import CONFIG, MUTATIONS

Start = Callable[..., Running]


def meta_of(image: object) -> dict[str, str | list[str]]:
    return dict(image.meta)  # type: ignore[attr-defined]  # an image of ismrmrd


def test_images_come_back(run_server: Start, scan: Path, site: Site) -> None:
    """With the pixels, the place and the counters that a reconstruction of the file gives."""
    running = run_server()
    answer = running.ask(stream_of(scan))
    assert answer.closed
    assert [text.split(":")[0] for text in answer.texts] == ["2 slices, recipe tiny", "slice 1 of 2", "slice 2 of 2"]
    expected = mrisps.recon(scan, site.run("tiny").recipe, weights=site.weights)
    for index, (image, made) in enumerate(zip(answer.images, expected.slices, strict=True)):
        head, place = image.getHead(), geometry_of("oblique", 6.0 * index)  # type: ignore[attr-defined]
        np.testing.assert_allclose(image.data[0, 0].T, np.abs(made.image), rtol=1e-5, atol=1e-6)  # type: ignore[attr-defined]
        np.testing.assert_allclose(head.field_of_view, (240, 120, 5))  # reconSpace
        np.testing.assert_allclose(head.position, place.position_mm, rtol=1e-6)
        np.testing.assert_allclose(head.read_dir, place.y_direction, atol=1e-7)
        np.testing.assert_allclose(head.phase_dir, place.x_direction, atol=1e-7)
        assert (head.slice, head.contrast, head.repetition) == (index, 0, 0)
        assert (head.image_index, head.image_series_index, head.image_type) == (index + 1, 1, 1)
        assert (head.acquisition_time_stamp, head.measurement_uid) == (1000 + index, 7)
        assert tuple(head.matrix_size) == (*SHAPE, 1)
        meta = meta_of(image)
        assert meta["DataRole"] == "Image"
        assert meta["ImageProcessingHistory"] == ["mrisps", "tiny"]
        assert meta["Keep_image_geometry"] == "1"
        assert [float(value) for value in meta["ImageRowDir"]] == pytest.approx(place.y_direction, abs=1e-7)
        assert [float(value) for value in meta["ImageColumnDir"]] == pytest.approx(place.x_direction, abs=1e-7)
        assert meta["ImageComment"] == meta["ImageComments"] == f"mrisps: {made.verdict}"
        assert float(str(meta["WindowWidth"])) > 0
        assert json.loads(str(meta["mrisps_certificate"]))["verdict"]["level"] == made.verdict.level
        assert json.loads(str(meta["mrisps_provenance"]))["recipe"]["name"] == "tiny"


def test_parts_and_integers_on_request(run_server: Start, scan: Path) -> None:
    answer = run_server().ask(stream_of(scan, "default", {"parts": "all", "pixels": "short", "lam": 0.02}))
    assert len(answer.images) == 8
    kinds = [(meta_of(image)["mrisps_part"], image.image_series_index) for image in answer.images]  # type: ignore[attr-defined]
    assert kinds[:4] == kinds[4:] == [("reconstruction", 1), ("smooth", 2), ("sparse", 3), ("cost_map", 4)]
    first, *_ = answer.images
    assert first.data.dtype == np.int16  # type: ignore[attr-defined]
    assert first.data.max() == 2000  # type: ignore[attr-defined]
    slopes = {meta_of(image)["RescaleSlope"] for image in answer.images[::4]}
    assert len(slopes) == 1
    assert json.loads(str(meta_of(first)["mrisps_certificate"]))["lam"] == 0.02


@pytest.mark.parametrize(
    ("config", "parameters", "why"),
    [
        ("nosuch", None, "configuration: expected one of tiny"),
        ("/etc/passwd", None, "configuration: expected one of tiny"),
        ("tiny", {"recipe": "../tiny.py"}, "configuration: expected one of tiny"),
        ("tiny", {"pixels": "double"}, "parameters: pixels: expected float or short"),
        ("tiny", {"parts": "some"}, "parameters: parts: expected all or none"),
        ("tiny", {"lam": NAME}, "parameters: lam: expected another value"),
        ("tiny", {"lam": -1}, "parameters: lam: expected another value"),
    ],
)
def test_wishes_that_cannot_be_met(
    run_server: Start, scan: Path, config: str, parameters: dict[str, object] | None, why: str
) -> None:
    running = run_server()
    answer = running.ask(stream_of(scan, config, parameters))
    assert answer.closed
    assert answer.images == []
    assert len(answer.texts) == 1
    assert answer.texts[0].startswith(f"error: {why}")
    assert running.events()[-1]["reason"] in answer.texts[0]


def test_the_log_does_not_say_who(run_server: Start, scan: Path) -> None:
    """Neither of a measurement that went well nor of one that failed in any way."""
    running = run_server()
    good = stream_of(scan)
    damaged = [
        good.replace(b"<z>1</z>", NAME.encode()),
        good.replace(b"2.89362", NAME.encode()[:7]),
        good.replace(b"cartesian", NAME.encode() + b"!"),
        good[:-1000],
        stream_of(scan, NAME),
        stream_of(scan, "tiny", {"lam": NAME}),
        stream_of(scan, "tiny", f"{{{NAME}"),
    ]
    for content in (good, *damaged):
        answer = running.ask(content)
        assert answer.images or answer.texts[-1].startswith("error: ")
    text = running.log.getvalue()
    for secret in ("Doe", "Jane", PATIENT, "1980-02-29", "St Elsewhere", "2024-05-17"):
        assert secret not in text
    events = running.events()
    assert [event["event"] for event in events[:4]] == ["received", "slice", "slice", "done"]
    assert sum(event["event"] in ("refused", "failed") for event in events) == len(damaged)
    detailed = run_server(details=True)
    detailed.ask(damaged[1])
    assert NAME[:7] in detailed.log.getvalue()


def test_a_bad_stream_ends_its_connection_only(run_server: Start, scan: Path) -> None:
    running = run_server()
    content, rng = stream_of(scan), np.random.default_rng(1)
    for index in range(24):
        mutated = bytearray(content)
        MUTATIONS[index % len(MUTATIONS)](mutated, rng)
        running.ask(bytes(mutated))
    for _ in range(2):
        running.ask(rng.bytes(3000))
    assert len(running.ask(content).images) == 2
    assert "Traceback" not in running.log.getvalue()
    assert all(event.get("error") in (None, "FileError", "ValueError") for event in running.events())


def test_an_error_of_our_own_ends_its_connection_only(
    run_server: Start, scan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError(NAME)

    running = run_server()
    with monkeypatch.context() as patch:
        patch.setattr(listen_module, "serve_measurement", broken)
        answer = running.ask(stream_of(scan))
    assert answer.texts == ["error: the server met an error of its own"]
    (event,) = [event for event in running.events() if event["event"] == "failed"]
    assert event["error"] == "ZeroDivisionError"
    assert "test_server.py:" in str(event["where"])
    assert NAME not in running.log.getvalue()
    assert len(running.ask(stream_of(scan)).images) == 2


# -------------------------------------------------------------------------------------------------------------- verdict


@pytest.fixture
def unusable(monkeypatch: pytest.MonkeyPatch) -> None:
    from mrisps.reconstruction import reconstruct as reconstruct_module

    def judged(*_: object, **__: object) -> Verdict:
        return Verdict("unusable", ("a test says so",), {})

    monkeypatch.setattr(reconstruct_module, "judge", judged)


@pytest.mark.usefixtures("unusable")
def test_unusable_images_stay_unless_the_site_says_so(run_server: Start, scan: Path, site: Site) -> None:
    running = run_server()
    answer = running.ask(stream_of(scan))
    assert answer.images == []
    assert answer.texts[1:] == [f"slice {n} of 2: unusable: a test says so; not sent" for n in (1, 2)]
    (first, *_) = [event for event in running.events() if event["event"] == "slice"]
    assert (first["verdict"], first["sent"], first["reasons"]) == ("unusable", False, "a test says so")
    site.send_unusable, site.mark = True, "none"
    plain = pixels_of(running.ask(stream_of(scan)).images[0])
    site.mark = "unusable"
    image = running.ask(stream_of(scan)).images[0]
    marked = pixels_of(image)
    assert meta_of(image)["mrisps_verdict"] == "unusable"
    assert str(meta_of(image)["ImageComments"]).startswith("mrisps: unusable")
    assert not np.array_equal(marked[:3], plain[:3])
    np.testing.assert_array_equal(marked[4:], plain[4:])


def pixels_of(image: object) -> NDArray[np.float32]:
    """(row, column) as a client shows them."""
    return np.asarray(image.data[0, 0])  # type: ignore[attr-defined]  # an image of ismrmrd


# ------------------------------------------------------------------------------------------------------ places and time


def test_eight_at_once_and_no_more(run_server: Start, scan: Path) -> None:
    running = run_server(n_clients=8)
    waiting = [running.connect() for _ in range(8)]
    for client in waiting:
        client.sendall(CONFIG)
    assert check_server("127.0.0.1", running.server.port) == "busy"
    content = stream_of(scan)
    answers = []
    threads = [
        threading.Thread(
            target=lambda client=client: (client.sendall(content[len(CONFIG) :]), answers.append(read_answer(client)))
        )
        for client in waiting
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for client in waiting:
        client.close()
    assert [len(answer.images) for answer in answers] == [2] * 8
    wait_until(lambda: check_server("127.0.0.1", running.server.port) == "ready")


@contextmanager
def occupied(site: Site) -> Iterator[None]:
    """The solver has something else to do."""
    done = threading.Event()
    site.solver.submit(done.wait)
    try:
        yield
    finally:
        done.set()


def wait_until(done: Callable[[], bool]) -> None:
    for _ in range(400):
        if done():
            return
        time.sleep(0.01)
    raise AssertionError("it did not happen")


def test_silent_and_slow_clients_are_let_go(run_server: Start) -> None:
    running = run_server(times=Times(idle=0.1, start=0.3, connection=60.0))
    with running.connect() as silent:
        assert read_answer(silent).texts == ["error: timed out"]
    with running.connect() as slow:
        try:
            for byte in CONFIG:
                slow.sendall(bytes([byte]))
                time.sleep(0.02)
        except OSError:
            pass
    wait_until(lambda: len(running.events()) == 2)
    assert [event["reason"] for event in running.events()] == ["TimeoutError", "TimeoutError"]


def test_a_connection_that_takes_too_long_is_ended(run_server: Start, scan: Path) -> None:
    running = run_server(times=Times(idle=20.0, start=20.0, connection=1e-3))
    assert running.ask(stream_of(scan)).images == []
    assert running.events()[-1]["event"] in ("stopped", "refused")


def test_nobody_computes_for_a_client_that_has_gone(
    run_server: Start, scan: Path, monkeypatch: pytest.MonkeyPatch, site: Site
) -> None:
    monkeypatch.setattr(session_module, "_PROGRESS_SECONDS", 0.0)
    running = run_server()
    content = stream_of(scan)
    with occupied(site):  # the client waits for its turn, and goes
        client = running.connect()
        client.sendall(content)
        wait_until(lambda: any(event["event"] == "received" for event in running.events()))
        client.close()
    wait_until(lambda: running.events()[-1]["event"] in ("stopped", "done"))
    assert running.events()[-1] | {"event": "stopped"} == running.events()[-1]


def test_the_end_of_the_server_ends_what_runs(site: Site, scan: Path) -> None:
    running = Running(site, 8, Times(20.0, 20.0, 60.0))
    with occupied(site), running.connect() as client:
        client.sendall(stream_of(scan))
        wait_until(lambda: any(event["event"] == "received" for event in running.events()))
        running.end()
        assert "the server ends" in [event.get("reason") for event in running.events()]
    assert running.events()[-1]["event"] == "ended"


def test_threads_and_places_are_given_back(run_server: Start, scan: Path) -> None:
    running = run_server(n_clients=2)
    running.ask(stream_of(scan))
    before = threading.active_count()
    for _ in range(10):
        assert running.ask(message(Kind.CLOSE)).closed
        assert running.ask(b"nonsense").closed
    wait_until(lambda: threading.active_count() <= before)


def test_health(run_server: Start) -> None:
    running = run_server()
    port = running.server.port
    assert check_server("127.0.0.1", port) == "ready"
    assert running.events()[-1]["event"] == "check"
    running.end()
    with pytest.raises(MrispsError, match=f"127.0.0.1:{port}: no answer from a reconstruction server"):
        check_server("127.0.0.1", port, 0.5)


def test_a_port_that_is_taken(run_server: Start, site: Site) -> None:
    port = run_server().server.port
    with pytest.raises(MrispsError, match=f"cannot listen on 127.0.0.1:{port}"):
        MrdServer(("127.0.0.1", port), site, EventLog(io.StringIO()))


def test_all_recipes_of_the_package_by_default() -> None:
    names = Site().names
    assert names[0] == "multicoil"
    assert {"brain_multicoil_acc4", "knee_pd_acc8"} <= set(names)
    assert "denoise_sigma25" not in names


# --------------------------------------------------------------------------------------------------------------- client


def test_client_saves_what_dicom_reads(run_server: Start, scan: Path, tmp_path: Path) -> None:
    said: list[str] = []
    received = send_file(
        scan, port=run_server().server.port, config="tiny", parameters={"parts": "all"}, say=said.append
    )
    assert (len(received.images), received.errors, said) == (8, [], received.texts)
    received.save(tmp_path / "images.mrd")
    groups, header = read_mrd_images(tmp_path / "images.mrd")
    assert [len(images) for images in groups.values()] == [2, 2, 2, 2]
    assert header is not None
    assert header.patient_id == PATIENT
    written = mrisps.to_dicom(tmp_path / "images.mrd", tmp_path / "dicom")
    assert len(written) == 8
    assert {path.parent.name for path in written} == {"reconstruction", "smooth", "sparse", "cost_map"}
    import ismrmrd

    with ismrmrd.Dataset(tmp_path / "images.mrd", create_if_needed=False) as file:  # as others read it
        assert file.number_of_images("image_1") == 2
        assert np.array_equal(file.read_image("image_1", 1).data, received.images[4].data)


def test_client_errors(run_server: Start, scan: Path, tmp_path: Path, raw_file: Path) -> None:
    port = run_server().server.port
    assert send_file(scan, port=port, config="nosuch").errors[0].startswith("error: configuration")
    with pytest.raises(MrispsError, match="expected one group with acquisitions"):
        send_file(raw_file, port=port)
    with pytest.raises(MrispsError, match="cannot be reached"):
        send_file(scan, port=1)


@pytest.mark.parametrize("answer", [b"", b"\5\0", struct.pack("<HI", 5, 1 << 30), struct.pack("<H", 1008)])
def test_client_meets_a_bad_server(scan: Path, answer: bytes) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            client, _ = server.accept()
            with client:
                client.sendall(answer)
                client.shutdown(socket.SHUT_WR)
                while client.recv(1 << 16):
                    pass

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(MrispsError, match="the answer broke off"):
            send_file(scan, port=server.getsockname()[1])
        thread.join()


# --------------------------------------------------------------------------------------------------------------- plugin


class OtherServer:
    """What a module of python-ismrmrd-server gets."""

    def __init__(self, items: list[object]) -> None:
        self._items = items
        self.images: list[object] = []
        self.texts: list[str] = []
        self.n_closed = 0

    def __iter__(self) -> object:
        return iter([*self._items, None])

    def send_image(self, images: object) -> None:
        self.images.append(images)

    def send_logging(self, level: str, contents: str) -> None:
        self.texts.append(f"{level} {contents}")

    def send_close(self) -> None:
        self.n_closed += 1


def test_plugin(scan: Path, site: Site, monkeypatch: pytest.MonkeyPatch, run_server: Start) -> None:
    from ismrmrd.serialization import ProtocolDeserializer

    from mrisps.server import plugin

    monkeypatch.setattr(plugin, "_site", lambda: site)
    items = list(ProtocolDeserializer(io.BytesIO(stream_of(scan))).deserialize())
    header = next(item for item in items if "ismrmrdHeader" in type(item).__name__)
    data = [item for item in items if type(item).__name__ in ("Acquisition", "Waveform")]
    assert len(data) == 2 * SHAPE[1] + 1
    given = {"parameters": {"config": "mrisps.server.plugin", "pixels": "float"}}
    for config in ("mrisps.server.plugin", json.dumps(given), given):
        other = OtherServer(data)
        plugin.process(other, config, header)  # type: ignore[arg-type]
        assert (len(other.images), other.n_closed) == (2, 1)
    expected = run_server().ask(stream_of(scan)).images
    for ours, theirs in zip(other.images, expected, strict=True):
        np.testing.assert_array_equal(pixels_of(ours), pixels_of(theirs))
    assert other.texts[0] == "INFO     2 slices, recipe tiny"
    broken = OtherServer(data[:-2])
    plugin.process(broken, "mrisps.server.plugin", "no XML")  # type: ignore[arg-type]
    assert (broken.images, broken.n_closed) == ([], 1)
    assert broken.texts[0].startswith("ERROR    mrisps: stream: header: is no valid XML")


def test_nothing_of_ismrmrd_is_imported_by_two_threads_at_once() -> None:
    """The package imports itself in a circle: it has to be there before the first connection."""
    program = "import sys; import mrisps.server.NAME; print('ismrmrd.serialization' in sys.modules)"
    for name in ("listen", "client"):
        done = subprocess.run(
            [sys.executable, "-c", program.replace("NAME", name)],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        assert done.stdout == "True\n"
