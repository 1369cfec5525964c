"""Files for containers and services: they name what exists, and give no more rights than are needed."""

import base64
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main
from clinic_files import tool

from mrisps import __version__
from mrisps.cli.main import app
from mrisps.reconstruction.recipe import load_recipe
from mrisps.server.messages import Limits
from mrisps.server.session import Wishes

ROOT = Path(__file__).resolve().parents[2]
LABEL = json.loads((ROOT / "deploy" / "OpenReconLabel.json").read_text())


def instructions(path: Path) -> list[tuple[str, str]]:
    """Name and rest of every instruction, continuation lines joined."""
    text = "\n".join(line for line in path.read_text().splitlines() if not line.lstrip().startswith("#"))
    lines = re.sub(r"\\\n", " ", text).splitlines()
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in lines) if name]


def parses(arguments: list[str]) -> None:
    """A command line of ours is one that the commands take."""
    command = typer.main.get_command(app)
    name, *options = arguments
    assert command.commands[name].make_context(name, options, resilient_parsing=False)  # type: ignore[attr-defined]


def test_dockerfile() -> None:
    steps = instructions(ROOT / "Dockerfile")
    last = max(i for i, (name, _) in enumerate(steps) if name == "FROM")
    final = steps[last:]
    users = [rest for name, rest in final if name == "USER"]
    assert users == ["10001"]
    after = [name for name, _ in final[[name for name, _ in final].index("USER") :]]
    assert not {"RUN", "COPY", "ADD"} & set(after)  # nothing is done or fetched as this user
    fetching = [rest for name, rest in final if name == "RUN" and re.search(r"pip |curl|wget|git ", rest)]
    assert fetching == []
    for name, rest in steps:
        if name == "COPY" and not rest.startswith("--from"):
            *sources, _ = rest.split()
            assert all((ROOT / source).exists() for source in sources), rest
    values = dict(final)
    entry, command = json.loads(values["ENTRYPOINT"]), json.loads(values["CMD"])
    assert entry == ["mrisps"]
    parses(command)
    check = json.loads(values["HEALTHCHECK"].split("CMD ")[1])
    assert check[0] == "mrisps"
    parses(check[1:])
    assert values["EXPOSE"] == "9002"
    assert dict(steps[:2])["ARG"] == "BASE=python:3.11-slim"
    assert any(name == "ARG" and rest.startswith("TORCH_INDEX=") for name, rest in steps)


def test_what_the_image_is_built_from_is_let_in() -> None:
    lines = (ROOT / ".dockerignore").read_text().split()
    assert lines[0] == "*"
    copied = {
        source
        for name, rest in instructions(ROOT / "Dockerfile")
        if name == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
    }
    assert {line[1:] for line in lines if line.startswith("!")} == copied


def test_systemd_unit(tmp_path: Path) -> None:
    unit = (ROOT / "deploy" / "mrisps.service").read_text()
    command = re.search(r"^ExecStart=(.*)$", unit, re.MULTILINE)
    assert command is not None
    program, *arguments = shlex.split(command[1])
    assert program == "/opt/mrisps/bin/mrisps"
    parses(arguments)
    assert arguments[arguments.index("--host") + 1] == "127.0.0.1"
    for line in ("DynamicUser=yes", "NoNewPrivileges=yes", "ProtectSystem=strict", "KillSignal=SIGTERM"):
        assert line in unit
    assert Limits().measurement_bytes * 8 < 24 << 30  # MemoryMax
    verify = tool("systemd-analyze")
    (tmp_path / "mrisps.service").write_text(unit.replace(program, sys.executable))
    done = subprocess.run(
        [verify, "verify", "--man=no", tmp_path / "mrisps.service"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    complaints = [line for line in done.stderr.splitlines() if "mrisps.service" in line]
    assert complaints == []


def test_openrecon_label() -> None:
    """What the schema of OpenRecon 1.1.0 asks for, and what our server understands."""
    assert set(LABEL) == {"general", "reconstruction", "parameters"}
    assert LABEL["general"]["version"] == __version__
    assert LABEL["reconstruction"]["content_qualification_type"] == "RESEARCH"
    assert (LABEL["reconstruction"]["emitter"], LABEL["reconstruction"]["injector"]) == ("raw", "image")
    assert LABEL["reconstruction"]["port"] == 9002
    parameters = LABEL["parameters"]
    assert 0 < len(parameters) <= 14
    assert all(re.fullmatch("[A-Za-z0-9]+", entry["id"]) for entry in parameters)
    assert {entry["type"] for entry in parameters} == {"choice"}  # a number may only be a multiple of 0.1
    names: list[str] = []
    for entry in parameters:
        assert set(entry) == {"id", "label", "type", "values", "default", "information"}
        choices = [value["id"] for value in entry["values"]]
        assert entry["default"] in choices
        for choice in choices:
            if entry["id"] == "recipe":
                assert load_recipe(choice).task == "mri"
                names.append(choice)
            Wishes.of("openrecon", {entry["id"]: choice}, names)
    defaults = {entry["id"]: entry["default"] for entry in parameters}
    assert Wishes.of("openrecon", defaults, names) == Wishes("multicoil", False, "short")


def test_openrecon_container_has_the_label() -> None:
    steps = dict(instructions(ROOT / "deploy" / "openrecon.Dockerfile"))
    assert steps["FROM"] == "${BASE}"
    assert "openrecon.metadata:1.1.0" in steps["LABEL"]
    encoded = base64.b64encode((ROOT / "deploy" / "OpenReconLabel.json").read_bytes())
    assert json.loads(base64.b64decode(encoded)) == LABEL


@pytest.mark.parametrize("key", ["device_trade_name", "safety_advices"])
def test_nobody_is_told_that_this_is_a_medical_device(key: str) -> None:
    text = LABEL["general"]["regulatory_information"][key]
    assert "not a medical device" in text or "Not for diagnosis" in text
