"""Workers that die, are killed with their batch, or sit in a Dask cluster."""

import json
import logging
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from batch_files import (
    RECIPE,
    Quiet,
    data_sets,
    made,
    make_job,
    partial_files,
    run,
    small_model,
    states,
    write_input,
    write_inputs,
)

from mrisps.campaign.batch_item import Entry, Item, items_of
from mrisps.campaign.batch_work import peak_memory
from mrisps.campaign.loop import Progress
from mrisps.campaign.sources import sources_of
from mrisps.campaign.workers import DaskWorkers, LocalWorkers
from mrisps.errors import MrispsError
from mrisps.io.hdf5 import Hdf5Reader
from mrisps.solvers import FastSettings

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_processes_make_the_same(tmp_path: Path, one_thread: None) -> None:
    """Two processes: the same bytes as in this one, and none is left."""
    inputs = tmp_path / "in"
    write_inputs(inputs, 2)
    (inputs / "bad.h5").write_text("bad")
    here, there = make_job(tmp_path / "here"), make_job(tmp_path / "there")
    run(inputs, here)
    workers = LocalWorkers(["cpu", "cpu"])
    result = run(inputs, there, workers=workers)
    assert sorted(made(result)) == ["v00.h5", "v01.h5"]
    assert {name: entry.error for name, entry in result.failed.items()} == {
        "bad.h5": f"{inputs / 'bad.h5'}: is not an HDF5 file"
    }
    for name in made(result):
        assert data_sets(there.folder / name) == data_sets(here.folder / name)
        with Hdf5Reader(there.folder / name) as file:
            machine = json.loads(str(file.attributes()[0]["provenance"]))["machine"]
        assert machine["threads"] == 1
    assert workers.progress() == []
    assert all(slot._process is None for slot in workers._slots)


def test_process_that_dies_takes_nothing_with_it(tmp_path: Path) -> None:
    write_inputs(tmp_path / "in", 1)
    job = make_job(tmp_path / "out")
    workers = LocalWorkers(["cpu"])
    (slot,) = workers._slots

    def kill(earlier: int | None) -> int:
        """The next process, when it is there."""
        deadline = time.monotonic() + 30
        while slot._process is None or slot._process.pid in (None, earlier):
            assert time.monotonic() < deadline
            time.sleep(0.005)
        pid = slot._process.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        return pid

    (item,) = items_of(job, sources_of([tmp_path / "in"]))
    try:
        future = workers.submit(item)
        kill(kill(None))
        error = future.exception(timeout=60)
        assert str(error) == f"{item.source.path}: the process that worked on it ended: SIGKILL, out of memory perhaps"
        future = workers.submit(item)  # and goes on: one death is forgiven
        kill(None)
        assert future.result(timeout=60)["state"] == "done"
    finally:
        workers.close(now=True)


def test_given_up_at_once(tmp_path: Path, one_thread: None) -> None:
    """As with the second Ctrl-C: nothing is waited for, no process is left, and the next run does all of it."""
    inputs = tmp_path / "in"
    write_inputs(inputs, 3)
    job = make_job(tmp_path / "out")

    class Impatient(Quiet):
        def tick(self, progress: Progress, /) -> None:
            self.stop.soon = self.stop.now = True

    listener = Impatient()
    workers = LocalWorkers(["cpu"])
    result = run(inputs, job, workers=workers, listener=listener)
    assert (len(result.entries), result.n_left) == (0, 3)
    assert all(slot._process is None or not slot._process.is_alive() for slot in workers._slots)
    assert len(made(run(inputs, job))) == 3


def write_for_cli(folder: Path, n_workers: int, n_files: int) -> list[str]:
    """Arguments of `mrisps batch` for volumes of two slices."""
    write_inputs(folder / "in", n_files, n_slices=2)
    small_model().save(folder / "small.safetensors")
    (folder / "recipe.py").write_text(
        "from mrisps.reconstruction.recipe import *\nfrom mrisps.solvers import FastSettings\n"
        "recipe = Recipe('small', 'mri', beta=0.02, lam=0.01, source='a test', scale=ScaleRule(99.9, 0.8),\n"
        "    mask=MaskRule('equispaced', 4, 0.1), solver=FastSettings(tolerance=1e-2, max_iterations=300))\n"
    )
    options = f"--recipe {folder}/recipe.py --weights {folder}/small.safetensors --workers {n_workers} --threads 1 --no-report"
    return ["batch", str(folder / "in"), *options.split(), "--output", str(folder / "out")]


def start(arguments: list[str]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "mrisps", *arguments],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def n_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def check_after_kills(folder: Path, expected: dict[str, dict[str, bytes]], n_kills: int) -> None:
    """Every output once, correct, none half-written."""
    output = folder / "out"
    assert sorted(path.name for path in output.glob("*.h5")) == sorted(expected)
    for name, content in expected.items():
        assert data_sets(output / name) == content
        assert (output / name).with_suffix(".json").is_file()
    assert partial_files(output) == []
    lines = [json.loads(line) for line in (output / "_batch" / "ledger.jsonl").read_text().splitlines()[1:]]
    seen = Counter((line["key"], line["state"]) for line in lines)
    assert all(seen[name, "done"] == 1 for name in expected)
    assert not any(state == "failed" for _, state in seen)
    assert sum(n for (_, state), n in seen.items() if state == "started") <= len(expected) + 2 * n_kills


def kill_and_resume(folder: Path, n_kills: int, n_workers: int, seed: int, n_files: int = 12) -> None:
    """Kill a batch so often at random moments of its work; begin anew when it is done too early."""
    arguments = write_for_cli(folder, n_workers, n_files)
    reference = make_job(folder / "reference")
    run(folder / "in", reference)
    expected = {path.name: data_sets(path) for path in reference.folder.glob("*.h5")}
    assert len(expected) == n_files
    moments = random.Random(seed)
    ledger = folder / "out" / "_batch" / "ledger.jsonl"
    n_done = n_here = 0
    while n_done < n_kills:
        before = n_lines(ledger)
        process = start(arguments)
        try:
            deadline = time.monotonic() + 120
            while n_lines(ledger) <= max(before, 1) and process.poll() is None:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            time.sleep(moments.uniform(0, 4))  # in workers that start, read, solve, write, or between those
        finally:
            process.kill()
            process.wait()
        n_done += 1
        n_here += 1
        if Counter(states(folder / "out").values())["done"] == len(expected) and n_done < n_kills:
            check_after_kills(folder, expected, n_here)
            for path in [ledger, *(folder / "out").glob("*.h5"), *(folder / "out").glob("*.json")]:
                path.unlink()
            n_here = 0
    assert start(arguments).wait(timeout=200) == 0
    check_after_kills(folder, expected, n_here)


def test_killed_once(tmp_path: Path, one_thread: None) -> None:
    kill_and_resume(tmp_path, 1, n_workers=1, seed=1, n_files=3)


@pytest.mark.slow
def test_killed_eight_times(tmp_path: Path, one_thread: None) -> None:
    kill_and_resume(tmp_path, 8, n_workers=2, seed=0)


def test_dask_address(tmp_path: Path, one_thread: None) -> None:
    """A scheduler somewhere else, of which only the address is known."""
    distributed = pytest.importorskip("distributed", reason="the extra batch is not installed")
    inputs = tmp_path / "in"
    write_inputs(inputs, 3)
    (inputs / "bad.h5").write_text("bad")
    job = make_job(tmp_path / "out")
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, protocol="tcp", dashboard_address=None
    ) as cluster:
        workers = DaskWorkers(cluster.scheduler_address)
        assert workers.capacity() == 2
        result = run(inputs, job, workers=workers)
    assert sorted(made(result)) == ["v00.h5", "v01.h5", "v02.h5"]
    assert [entry.error for entry in result.failed.values()] == [f"{inputs / 'bad.h5'}: is not an HDF5 file"]


def test_the_end_of_a_local_cluster_is_quiet(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Dask warns when it kills a process that takes long to end, which says nothing about the files."""

    class Cluster:
        def close(self) -> None:
            logging.getLogger("distributed.nanny").warning("Worker process still alive after 4.0 seconds, killing")

    class Client:
        close = shutdown = lambda self, wait=True: None
        get_executor = lambda self, pure: self  # noqa: E731

    distributed = pytest.importorskip("distributed", reason="the extra batch is not installed")
    nanny = logging.getLogger("distributed.nanny")
    monkeypatch.setattr(nanny, "level", nanny.level)
    monkeypatch.setattr(distributed, "LocalCluster", lambda **options: Cluster())
    monkeypatch.setattr(distributed, "Client", lambda cluster, timeout: Client())
    DaskWorkers("local").close(now=False)
    assert caplog.records == []


def test_a_worker_process_is_told_how_to_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it loads PyTorch, and whatever started it; the environment here stays as it was."""
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    write_inputs(tmp_path / "in", 1)
    workers = LocalWorkers(["cpu"], threads=3)
    (slot,) = workers._slots
    before = dict(os.environ)
    try:
        (item,) = items_of(make_job(tmp_path / "out"), sources_of([tmp_path / "in"]))
        workers.submit(item).result(timeout=120)
        assert slot._process is not None
        told = Path(f"/proc/{slot._process.pid}/environ").read_bytes().split(b"\0")
    finally:
        workers.close(now=True)
    assert {b"OMP_NUM_THREADS=3", b"GOMP_SPINCOUNT=10000"} <= set(told)
    assert dict(os.environ) == before


def test_no_scheduler_there(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed", reason="the extra batch is not installed")
    with pytest.raises(MrispsError, match="--scheduler nonsense://x: no Dask scheduler answers there"):
        DaskWorkers("nonsense://x")
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MrispsError, match=r"pip install 'mrisps\[batch\]'"):
        DaskWorkers("local")


@pytest.mark.slow
def test_dask_worker_that_dies_is_replaced(tmp_path: Path, one_thread: None) -> None:
    pytest.importorskip("distributed", reason="the extra batch is not installed")
    inputs = tmp_path / "in"
    write_inputs(inputs, 8, n_slices=3)
    job = make_job(tmp_path / "out")
    workers = DaskWorkers("local", 2)
    pids = list(workers.client.run(os.getpid).values())
    assert len(pids) == 2

    class Killer(Quiet):
        def finished(self, item: Item, entry: Entry, /) -> None:
            self.names.append(item.name)
            if len(self.names) == 1:
                os.kill(pids[0], signal.SIGKILL)

    result = run(inputs, job, workers=workers, listener=Killer())
    assert not result.failed
    assert len(result.entries) == 8
    assert len(list(job.folder.glob("*.h5"))) == 8
    reference = make_job(tmp_path / "reference")
    run(inputs, reference)
    for path in reference.folder.glob("*.h5"):
        assert data_sets(job.folder / path.name) == data_sets(path)


@pytest.mark.slow
def test_many_slices_leave_nothing_in_memory(tmp_path: Path) -> None:
    """Memory of the worker and of this process is flat to 5 % after the first hundred of six hundred files."""
    inputs = tmp_path / "in"
    inputs.mkdir()
    first = write_input(inputs / "v0000.h5", 0, size=(16, 24)).read_bytes()
    for index in range(1, 600):
        (inputs / f"v{index:04}.h5").write_bytes(first)
    job = make_job(tmp_path / "out", replace(RECIPE, solver=FastSettings(tolerance=0.5, max_iterations=5)))
    here: list[int] = []

    class Meter(Quiet):
        def finished(self, item: Item, entry: Entry, /) -> None:
            here.append(peak_memory())

    result = run(inputs, job, workers=LocalWorkers(["cpu"]), listener=Meter())
    assert len(made(result)) == 600
    there = [entry.memory_bytes for entry in result.entries.values()]
    measured = [f"{n / 2**20:.1f} MiB" for n in (there[100], there[-1], here[100], here[-1])]
    sys.stderr.write(f"worker {measured[0]} -> {measured[1]}, here {measured[2]} -> {measured[3]}\n")
    assert there[-1] <= 1.05 * there[100]
    assert here[-1] <= 1.05 * here[100]
