"""How threads wait, idle and on a machine that does other work, too: seconds of a multi-coil slice.

    python benchmarks/threads.py                       # two cores: about five minutes
    python benchmarks/threads.py --busy 1 2 --repeat 3 --json benchmarks/results/threads.json

Each measurement is a process of its own, which sets how its threads wait before it loads PyTorch, and solves the same problem: a
phantom with 8 simulated coils, 4-fold, recipe `multicoil` with a cap on the iterations, so that every solve is the same work. Busy
is: so many other processes that compute all the time, started and ended here.

    default     what PyTorch does by itself: threads spin at barriers
    passive     OMP_WAIT_POLICY=PASSIVE: threads sleep at once
    ours        what commands set (mrisps.threads.prepare_threads): awake for a short while, then asleep
    one thread  a single thread, of any kind

"Per core that is left": with k busy processes n - k of n cores are left, or, where that is none, n^2 / (n + k), what a fair
scheduler gives n threads. The time is divided by the idle time of the same kind and by n over this number: 1 is as good as idle.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

KINDS = ("default", "passive", "ours", "one thread")
BUSY = "while True: sum(range(100000))"


def measure(size: int, iterations: int) -> dict[str, float]:
    """In a process of its own: seconds and processor time of the solver."""
    import numpy as np
    import torch

    import mrisps
    from mrisps.sampling import make_mask

    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    image = (x**2 / 0.6 + y**2 / 0.8 < 1) * (0.6 + 0.2 * np.sin(9 * x) * np.cos(7 * y)) * np.exp(0.5j * x * y)
    angles = 2 * np.pi * np.arange(8) / 8
    maps = np.stack([np.exp(-((y - np.sin(a)) ** 2 + (x - np.cos(a)) ** 2) + 1j * a) for a in angles])
    rng = np.random.default_rng(0)
    kspace = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(maps * image, axes=(1, 2)), norm="ortho"), axes=(1, 2))
    kspace += 0.005 * (rng.normal(size=kspace.shape) + 1j * rng.normal(size=kspace.shape))
    kspace *= make_mask("equispaced", (size, size), 4, 0.1, seed=0).array2d()
    solver = {"max_iterations": iterations, "tolerance": 1e-12}
    times = os.times()
    result = mrisps.recon(kspace.astype(np.complex64), solver=solver)
    spent = os.times()
    seconds = float(str(result.certificate["seconds"]))
    processor = spent.user + spent.system - times.user - times.system
    return {"seconds": seconds, "processor": processor, "threads": torch.get_num_threads()}


def environment(kind: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "MKL_"))}
    if kind == "passive":
        kept["OMP_WAIT_POLICY"] = "PASSIVE"
    if kind == "one thread":
        kept["OMP_NUM_THREADS"] = "1"
    return kept


def run(kind: str, size: int, iterations: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--measure", kind, "--size", str(size), "--iterations", str(iterations)]
    done = subprocess.run(command, env=environment(kind), capture_output=True, text=True, check=True)
    answer: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--busy", type=int, nargs="*", default=[1, 2], help="other processes that compute all the time")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--iterations", type=int, default=15)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--measure", choices=KINDS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure is not None:
        if options.measure == "ours":
            from mrisps.threads import prepare_threads

            prepare_threads()
        print(json.dumps(measure(options.size, options.iterations)))
        return

    n_cores = len(os.sched_getaffinity(0))
    numbers: dict[str, dict[str, list[dict[str, float]]]] = {}
    load = os.getloadavg()
    for n_busy in (0, *options.busy):
        others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(n_busy)]
        try:
            time.sleep(1)
            # one after the other, again and again: what else the machine does meets all kinds alike
            for _ in range(options.repeat):
                for kind in KINDS:
                    numbers.setdefault(kind, {}).setdefault(str(n_busy), []).append(
                        run(kind, options.size, options.iterations)
                    )
        finally:
            for process in others:
                process.kill()
                process.wait()
    print(f"{n_cores} cores; load before: {', '.join(f'{value:.1f}' for value in load)}; medians of {options.repeat}")
    print("| threads | busy processes | seconds | processor seconds | times the idle time | per core that is left |")
    print("|---|---|---|---|---|---|")
    for kind, by_busy in numbers.items():
        idle = statistics.median(each["seconds"] for each in by_busy["0"])
        for n_busy_text, each in by_busy.items():
            n_busy = int(n_busy_text)
            seconds = statistics.median(one["seconds"] for one in each)
            processor = statistics.median(one["processor"] for one in each)
            used = min(n_cores, int(each[0]["threads"]))
            left = min(used, n_cores - n_busy if n_busy < n_cores else n_cores * n_cores / (n_cores + n_busy))
            ratio = seconds / idle
            print(f"| {kind} | {n_busy} | {seconds:.1f} | {processor:.1f} | {ratio:.2f} | {ratio * left / used:.2f} |")
    if options.json is not None:
        content = {"cores": n_cores, "load": load, "options": vars(options) | {"json": ""}, "runs": numbers}
        options.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
