"""`mrisps serve` as a process, and `mrisps send`."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from clinic_files import clinical_header, errors_of
from raw_files import lines_of, write_mrd

from .helpers import PROJECT, SHAPE, Cli, to_kspace


@pytest.fixture
def log(tmp_path: Path, recipe: Path, weights: Path) -> Iterator[Path]:
    """The log of a server that runs, whose first line says the port."""
    path = tmp_path / "log.jsonl"
    command = [
        sys.executable,
        "-m",
        "mrisps",
        "serve",
        "--port",
        0,
        "--recipe",
        recipe,
        "--weights",
        weights,
        "--log",
        path,
    ]
    process = subprocess.Popen([*map(str, command)], env={**os.environ, "PYTHONPATH": str(PROJECT)})
    try:
        for _ in range(1200):
            if path.exists() and "listening" in path.read_text():
                break
            assert process.poll() is None
            time.sleep(0.05)
        yield path
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
        assert json.loads(path.read_text().splitlines()[-1])["event"] == "ended"
    finally:
        process.kill()


def test_serve_check_send(cli: Cli, tmp_path: Path, log: Path, image: object) -> None:
    first = json.loads(log.read_text().splitlines()[0])
    assert (first["host"], first["recipe"]) == ("127.0.0.1", "small_mri")
    port = first["port"]
    assert cli("serve", "--check", "--port", port) == 0
    assert cli.stdout == f"127.0.0.1:{port}: ready\n"
    head = clinical_header(
        encoded_matrix=(*SHAPE, 1), recon_matrix=(*SHAPE, 1), line_limits=(0, SHAPE[1] - 1, 12), n_coils=1
    )
    kspace = to_kspace(image)[None]  # type: ignore[arg-type]
    source = write_mrd(tmp_path / "raw.h5", lines_of(kspace, range(SHAPE[1])), head)
    output = tmp_path / "images.mrd"
    options = ("--port", port, "--output", output)
    assert cli("send", source, *options, "--parameter", "parts=all") == 0
    assert cli.stdout == f"{output}: 4 images\n"
    assert "slice 1 of 1: " in cli.stderr
    assert cli("to-dicom", output, tmp_path / "dicom") == 0
    assert errors_of(tmp_path / "dicom" / "reconstruction" / "0001.dcm") == []
    assert cli("send", source, *options) == 2
    assert "exists already" in cli.error()
    assert cli("send", source, *options, "--overwrite", "--config", "nosuch") == 1
    assert "configuration: expected one of small_mri" in cli.error()
    assert "Doe" not in log.read_text()


def test_usage(cli: Cli, tmp_path: Path, recipe: Path) -> None:
    for options, why in (
        (("--recipe", "nosuch"), "nosuch"),
        (("--recipe", recipe), "no weights"),
        (("--mark", "all"), "--mark: expected one of"),
        (("--idle", 0), "--idle, --longest: expected numbers > 0"),
    ):
        assert cli("serve", *options) == 2, options
        assert why in cli.error()
    assert cli("serve", "--check", "--port", 1) == 1
    assert "no answer from a reconstruction server" in cli.error()
    assert cli("send", tmp_path / "none.h5") == 2
    assert cli("send", recipe, "--parameter", "parts") == 2
    assert "--parameter: expected KEY=VALUE, got 'parts'" in cli.error()
