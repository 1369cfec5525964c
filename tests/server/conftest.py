"""A small server on this machine, small measurements, and a client that is made of the package ismrmrd alone."""

import io
import json
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from clinic_files import SHAPE, clinical_header
from numpy.typing import NDArray
from raw_files import lines_of, write_mrd

from mrisps.io.hdf5 import Hdf5Reader
from mrisps.model import ModelConfig, SmoothPlusSparse
from mrisps.server.listen import EventLog, MrdServer, Times
from mrisps.server.session import Site

RECIPE = """from mrisps.reconstruction.recipe import Recipe, ScaleRule
from mrisps.solvers import FastSettings
recipe = Recipe(name='tiny', task='mri', beta=0.02, lam=0.01, source='a test', scale=ScaleRule(99.9, 0.8), image='complex',
                solver=FastSettings(tolerance=1e-2, max_iterations=40))
"""


def disc(shape: tuple[int, int] = SHAPE, seed: int = 0) -> NDArray[np.complex64]:
    """K-space (1, y, x) of a disc with a spot and a little noise."""
    y, x = np.mgrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
    image = 0.8 * (x**2 + y**2 < 0.5) + 0.4 * ((x - 0.3) ** 2 + (y + 0.2) ** 2 < 0.05)
    image = image + 0.01 * np.random.default_rng(seed).normal(size=shape)
    kspace = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(image), norm="ortho"))
    return kspace.astype(np.complex64)[np.newaxis]


def write_scan(path: Path, n_slices: int = 2, **head: object) -> Path:
    """Fully sampled slices 6 mm apart in an oblique plane, with patient, study and sequence in the header."""
    from clinic_files import geometry_of

    lines = []
    for index in range(n_slices):
        place = geometry_of("oblique", 6.0 * index)
        values: dict[str, object] = {
            "position": place.position_mm,
            "read_dir": place.y_direction,
            "phase_dir": place.x_direction,
            "slice_dir": place.slice_direction,
            "acquisition_time_stamp": 1000 + index,
            "measurement_uid": 7,
            **head,
        }
        lines += lines_of(disc(seed=index), range(SHAPE[1]), head=values, slice=index)
    header = clinical_header(
        encoded_fov_mm=(240.0, 120.0, 5.0),
        recon_fov_mm=(240.0, 120.0, 5.0),
        line_limits=(0, SHAPE[1] - 1, SHAPE[1] // 2),
        n_coils=1,
    )
    return write_mrd(path, lines, header)


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    return write_scan(tmp_path / "scan.h5")


def stream_of(
    path: Path, config: str = "tiny", parameters: object = None, *, with_waveform: bool = True, as_text: bool = False
) -> bytes:
    """What a client sends, written by the classes of the package ismrmrd."""
    from ismrmrd import Acquisition, Waveform, xsd
    from ismrmrd.serialization import ConfigFile, ConfigText, ProtocolSerializer

    with io.BytesIO() as stream, Hdf5Reader(path) as file:
        serializer = ProtocolSerializer(stream)
        serializer.serialize(ConfigText(config) if as_text else ConfigFile(config))
        serializer.serialize(xsd.CreateFromDocument(file.read_text("dataset/xml")))
        if parameters is not None:
            serializer.serialize(parameters if isinstance(parameters, str) else json.dumps({"parameters": parameters}))
        if with_waveform:
            serializer.serialize(Waveform.from_array(np.arange(12, dtype=np.uint32).reshape(3, 4)))
        for record in file.read_records("dataset/data", slice(0, file.shape("dataset/data")[0])):
            head = np.asarray(record["head"])
            samples = np.asarray(record["data"], np.float32).view(np.complex64)
            acquisition = Acquisition(head.tobytes(), samples.reshape(int(head["active_channels"]), -1))
            serializer.serialize(acquisition)
        serializer.close()
        return stream.getvalue()


@pytest.fixture(scope="session")
def weights_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    generator = torch.Generator().manual_seed(0)
    config = ModelConfig(patch_size=5, n_free_atoms=6, n_synthesis_atoms=8)
    model = SmoothPlusSparse(
        config,
        torch.randn(6, 5, 5, generator=generator),
        torch.randn(8, 5, 5, generator=generator),
        torch.zeros(8),
        beta=1.0,
        lam=0.01,
    )
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    model.save(path)
    return path


@pytest.fixture
def site(tmp_path: Path, weights_file: Path) -> Site:
    (tmp_path / "tiny.py").write_text(RECIPE)
    return Site((str(tmp_path / "tiny.py"),), str(weights_file))


@dataclass
class Answer:
    """What came back, read by the classes of the package ismrmrd."""

    images: list[object] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    closed: bool = False


class Running:
    """A server in a thread, and its log."""

    def __init__(self, site: Site, n_clients: int, times: Times, *, details: bool = False) -> None:
        self.log = io.StringIO()
        self.server = MrdServer(
            ("127.0.0.1", 0), site, EventLog(self.log, details=details), n_clients=n_clients, times=times
        )
        self._thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.server.port), timeout=30)

    def ask(self, content: bytes) -> Answer:
        """Send bytes, read everything until the server closes."""
        with self.connect() as client:
            threading.Thread(target=self._send, args=(client, content), daemon=True).start()
            return read_answer(client)

    @staticmethod
    def _send(client: socket.socket, content: bytes) -> None:
        try:
            client.sendall(content)
            client.shutdown(socket.SHUT_WR)
        except OSError:  # the server ended the connection
            pass

    def events(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.log.getvalue().splitlines()]

    def end(self) -> None:
        self.server.end(5.0)
        self._thread.join()


def read_answer(client: socket.socket) -> Answer:
    from ismrmrd.serialization import ProtocolDeserializer

    answer = Answer()
    with client.makefile("rb") as stream:
        try:
            for item in ProtocolDeserializer(stream).deserialize():
                (answer.texts if isinstance(item, str) else answer.images).append(item)  # type: ignore[arg-type]
            answer.closed = True
        except EOFError:
            pass
    return answer


@pytest.fixture
def run_server(site: Site) -> Iterator[Callable[..., Running]]:
    started: list[Running] = []

    def start(n_clients: int = 8, times: Times | None = None, *, details: bool = False) -> Running:
        started.append(Running(site, n_clients, times or Times(20.0, 20.0, 60.0), details=details))
        return started[-1]

    yield start
    for running in started:
        running.end()
