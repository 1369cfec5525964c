"""How many threads a process gets, and how they wait."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mrisps.threads import SPIN_COUNT, available_cores, stated_threads, thread_variables


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, 64),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 64),
        ({}, 64),
        ({"own": "0::/user/job\n", "user/cpu.max": "200000 100000\n", "user/job/cpu.max": "max 100000\n"}, 2),
        ({"own": "0::/user/job\n", "user/cpu.max": "800000 100000\n", "user/job/cpu.max": "250000 100000\n"}, 3),
        (
            {
                "own": "5:memory:/x\n4:cpu,cpuacct:/a\n",
                "cpu/a/cpu.cfs_quota_us": "100000\n",
                "cpu/a/cpu.cfs_period_us": "100000\n",
            },
            1,
        ),
        ({"own": "0::/../../outside\n", "cpu.max": "400000 100000\n"}, 4),
        ({"own": "nonsense", "cpu.max": "nonsense"}, 64),
    ],
)
def test_quota_of_a_container(
    files: dict[str, str], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(64)))
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert available_cores(tmp_path, tmp_path / "own") == expected


def test_affinity_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3})
    (tmp_path / "cpu.max").write_text("800000 100000")
    assert available_cores(tmp_path, tmp_path / "own") == 1


def shown(program: str, **environment: str) -> str:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "GOMP_"))}
    done = subprocess.run(
        [sys.executable, "-c", program], env={**kept, **environment}, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_a_command_sets_threads_before_torch_is_loaded_and_import_does_not() -> None:
    after = "import os; print(os.environ.get('GOMP_SPINCOUNT'), os.environ.get('OMP_NUM_THREADS'))"
    assert shown(f"import mrisps; {after}") == "None None"
    command = f"from mrisps.cli.main import main; main(['recipes', 'show', 'multicoil', '--json']); {after}"
    assert shown(command).splitlines()[-1] == f"{SPIN_COUNT} {available_cores()}"
    assert shown(command, OMP_NUM_THREADS="3", OMP_WAIT_POLICY="ACTIVE").splitlines()[-1] == "None 3"
    assert shown(command, OMP_NUM_THREADS="3", GOMP_SPINCOUNT="7").splitlines()[-1] == "7 3"


def test_threads_option() -> None:
    """The option counts although the environment says something else; here the command ends with a missing file."""
    program = (
        "from mrisps.cli.main import main; import os;"
        "main(['recon', 'none.h5', '--recipe', 'multicoil', '--output', 'o', '--threads', '2']);"
        "print(os.environ['OMP_NUM_THREADS'])"
    )
    assert shown(program, OMP_NUM_THREADS="7") == "2"


def test_what_the_environment_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for text, expected in (("3", 3), ("4,2", 4), ("", None), ("many", None), ("0", None), ("-1", None)):
        monkeypatch.setenv("OMP_NUM_THREADS", text)
        assert stated_threads() == expected
    # What a command has set itself is not what a user asked for: a batch shares the cores among its workers.
    program = (
        "from mrisps.threads import prepare_threads, stated_threads; prepare_threads(); print(stated_threads());"
        "prepare_threads(5); print(stated_threads())"
    )
    assert shown(program).split() == ["None", "5"]
    assert shown(program, OMP_NUM_THREADS="3").split() == ["3", "5"]


def test_the_environment_of_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    assert thread_variables(2)["GOMP_SPINCOUNT"] == "7"
    assert {thread_variables(2)[name] for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")} == {"2"}
    monkeypatch.delenv("GOMP_SPINCOUNT")
    assert thread_variables(2)["GOMP_SPINCOUNT"] == str(SPIN_COUNT)
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert "GOMP_SPINCOUNT" not in thread_variables(2)


@pytest.mark.parametrize(
    "command",
    ["recon", "denoise", "superres", "demo", "batch", "compare", "tune", "evaluate", "train", "verify"],
)
def test_every_command_that_computes_has_threads(command: str) -> None:
    import typer.main

    from mrisps.cli.main import app

    found = typer.main.get_command(app).commands[command]  # type: ignore[attr-defined]  # a group
    assert "--threads" in {name for parameter in found.params for name in parameter.opts}
