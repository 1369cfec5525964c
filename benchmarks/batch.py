"""What `mrisps batch` costs: two workers against one, the machinery around the solver, memory of a worker, files a second.

    python benchmarks/batch.py                 # about two minutes on two idle cores
    taskset -c 0,1 python benchmarks/batch.py --json benchmarks/results/batch.json

Volumes are simulated (an ellipse with texture and noise, 8-fold columns); recipe `knee_pd_acc8` with the weights of the package and
a cap on the iterations, so that every volume is the same work. Wall-clock times mean little on a machine that others use: CPU times
are printed, too, and the load.
"""

import argparse
import functools
import json
import os
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from mrisps.campaign.batch import BatchResult, open_ledger, run_batch
from mrisps.campaign.batch_item import BATCH_FOLDER, Entry, Item, Job, items_of
from mrisps.campaign.loop import Progress, Stop, Workers
from mrisps.campaign.record import read_record
from mrisps.campaign.sources import SourceFile, sources_of
from mrisps.campaign.workers import DaskWorkers, LocalWorkers
from mrisps.io.fastmri import write_kspace
from mrisps.model import SmoothPlusSparse
from mrisps.reconstruction.recipe import load_recipe
from mrisps.sampling import make_mask


class Silent:
    """Says nothing."""

    def waiting(self, items: Sequence[Item], /) -> None: ...

    def finished(self, item: Item, entry: Entry, /) -> None: ...

    def tick(self, progress: Progress, /) -> None: ...


def write_volume(path: Path, seed: int, n_slices: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    image = (x**2 / 0.6 + y**2 / 0.8 < 1) * (0.6 + 0.2 * np.sin(9 * x + seed) * np.cos(7 * y))
    mask = make_mask("random", (size, size), 8, 0.04, seed=0)
    slices = [
        np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(image * (1 - 0.05 * k)), norm="ortho"))
        + 0.01 * (rng.normal(size=image.shape) + 1j * rng.normal(size=image.shape))
        for k in range(n_slices)
    ]
    write_kspace(path, (np.stack(slices) * mask.array2d()).astype(np.complex64), mask=mask.pattern)


def timed(inputs: Path, job: Job, workers: Workers[Item], n_warm: int) -> dict[str, float]:
    """One batch with warm workers: wall-clock, CPU of the workers, and what was not solving."""
    sources = sources_of([inputs])
    warm = items_of(job, sources)[0]
    for future in [workers.submit(replace(warm, name=f"warm{k}.h5")) for k in range(n_warm)]:
        future.result()
    (job.folder / BATCH_FOLDER / "ledger.jsonl").unlink(missing_ok=True)
    start, cpu = time.perf_counter(), time.process_time()
    with open_ledger(job.folder) as ledger:
        result = run_batch(sources, job, _KeptOpen(workers), ledger, Silent(), stop=Stop(), redo=True, overwrite=True)
    wall = time.perf_counter() - start
    assert not result.failed, result.failed
    return {"wall": wall, "cpu_here": time.process_time() - cpu, **parts(result, job)}


class _KeptOpen:
    """Workers that the end of a batch does not close: their processes are closed, and their CPU time read, afterwards."""

    def __init__(self, workers: Workers[Item]) -> None:
        self._workers = workers
        self.capacity, self.submit, self.progress = workers.capacity, workers.submit, workers.progress

    def close(self, *, now: bool) -> None: ...


def parts(result: BatchResult, job: Job) -> dict[str, float]:
    solver = inner = 0.0
    for name in result.entries:
        record = read_record(job.folder / name)
        solver += sum(float(str(certificate["seconds"])) for certificate in record.certificates)
        inner += float(str(record.part("times")["seconds"]))
    tasks = sum(entry.seconds for entry in result.entries.values())
    memory = max(entry.memory_bytes for entry in result.entries.values())
    return {"solver": solver, "reconstruct_file": inner, "tasks": tasks, "memory_mib": memory / 2**20}


def cpu_of_children(work: Callable[[], dict[str, float]], close: Callable[[], None]) -> dict[str, float]:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    numbers = work()
    close()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {**numbers, "cpu_workers": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime}


def rate(workers: Workers[Item], job: Job, n_tasks: int) -> float:
    """Files a second that do nothing: each fails at once, because it is not there."""
    warm, *sources = (SourceFile(job.folder.parent / f"none/{k}.h5", f"{k}.h5") for k in range(n_tasks + 1))
    workers.submit(items_of(job, [warm])[0]).result()
    start = time.perf_counter()
    with open_ledger(job.folder) as ledger:
        run_batch(sources, job, workers, ledger, Silent(), stop=Stop())
    return n_tasks / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--volumes", type=int, default=6)
    parser.add_argument("--slices", type=int, default=2)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--iterations", type=int, default=60)
    parser.add_argument("--tasks", type=int, default=300)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    recipe = load_recipe("knee_pd_acc8")
    recipe = replace(
        recipe, solver=replace(recipe.solver, max_iterations=options.iterations, tolerance=1e-9, stop="stationary")
    )
    model = SmoothPlusSparse.load("denoise_sigma25_ncpr")
    load = os.getloadavg()
    numbers: dict[str, object] = {
        "load": load,
        "cores": len(os.sched_getaffinity(0)),
        "options": vars(options) | {"json": ""},
    }
    with tempfile.TemporaryDirectory() as root:
        inputs, output = Path(root, "in"), Path(root, "out")
        inputs.mkdir()
        (output / BATCH_FOLDER / "logs").mkdir(parents=True)
        for index in range(options.volumes):
            write_volume(inputs / f"v{index}.h5", index, options.slices, options.size)
        weights = output / BATCH_FOLDER / "weights.safetensors"
        model.save(weights)
        job = Job(recipe, weights, "denoise_sigma25_ncpr", model.fingerprint(), output)
        runs = {}
        for n_workers in (1, 2):
            workers = LocalWorkers(["cpu"] * n_workers)
            runs[n_workers] = cpu_of_children(
                functools.partial(timed, inputs, job, workers, n_workers),
                functools.partial(workers.close, now=False),
            )
        one, two = runs[1], runs[2]
        numbers |= {
            "one": one,
            "two": two,
            "speedup": one["wall"] / two["wall"],
            "machinery": (one["wall"] - one["reconstruct_file"]) / one["solver"],
            "local_files_per_s": rate(LocalWorkers(["cpu"]), job, options.tasks),
            "dask_files_per_s": rate(DaskWorkers("local", 1), job, options.tasks),
        }
    print(
        f"{options.volumes} volumes of {options.slices} x {options.size}^2, {options.iterations} iterations; load {load}"
    )
    for n_workers, run in runs.items():
        print(f"{n_workers} workers, 1 thread: " + ", ".join(f"{name} {value:.2f}" for name, value in run.items()))
    print(f"two workers over one, wall-clock: {numbers['speedup']:.2f} (target 1.8)")
    print(f"machinery over solver, one worker: {100 * float(str(numbers['machinery'])):.2f} % (target < 3 %)")
    print(
        f"files a second that do nothing: {numbers['local_files_per_s']:.0f} local, {numbers['dask_files_per_s']:.0f} Dask"
    )
    if options.json:
        options.json.write_text(json.dumps(numbers, indent=1) + "\n")


if __name__ == "__main__":
    main()
