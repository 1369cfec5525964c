"""How many threads to compute with, and how they wait: decided before PyTorch is loaded.

OpenMP threads that spin while they wait make a machine that does other work, too, several times slower; threads that sleep at
once cost a third of the speed of an idle one. So commands and worker processes let them spin for a short while, and start no more
than the machine gives this process. ``import mrisps`` changes nothing.
"""

import os
import platform
import sys
from functools import cache
from pathlib import Path

__all__ = ["available_cores", "prepare_threads", "processor_name"]

CGROUP = Path("/sys/fs/cgroup")

SPIN_COUNT = 10_000
"""Turns that a thread waits awake before it sleeps (GNU OpenMP, which PyTorch uses on Linux; its own default is 300,000)."""


def available_cores(cgroup: Path = CGROUP) -> int:
    """Cores that this process may use: those of its affinity mask, and no more than the quota of its container, rounded up.

    Parameters
    ----------
    cgroup
        Where the control group is mounted, version 2 or 1.
    """
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        cores = os.cpu_count() or 1
    quota = _quota(cgroup)
    return cores if quota is None else max(1, min(cores, -(-quota[0] // quota[1])))


def _quota(cgroup: Path) -> tuple[int, int] | None:
    """Microseconds of processor time in a period, and the period; None without a limit."""
    try:
        try:
            quota, period = (cgroup / "cpu.max").read_text().split()
        except FileNotFoundError:
            quota = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (cgroup / "cpu" / "cpu.cfs_period_us").read_text().strip()
        limit = int(quota), int(period)
    except (OSError, ValueError):  # no control group, or "max"
        return None
    return limit if min(limit) > 0 else None


def prepare_threads(n_threads: int | None = None) -> None:
    """Set how many threads compute, and let them sleep when they have waited for a short while.

    What the environment says (``OMP_NUM_THREADS``, ``OMP_WAIT_POLICY``, ``GOMP_SPINCOUNT``) is kept. Waiting can only be set
    before PyTorch is loaded.

    Parameters
    ----------
    n_threads
        Threads; None: what the environment says, else :func:`available_cores`.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(SPIN_COUNT))
    if n_threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(n_threads)
    else:
        os.environ.setdefault("OMP_NUM_THREADS", str(available_cores()))
    torch = sys.modules.get("torch")
    if n_threads is not None and torch is not None:
        torch.set_num_threads(n_threads)


@cache
def processor_name() -> str:
    """Name of the processor, as far as the system tells; results differ in the last digits from one kind to the next."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                key, _, value = line.partition(":")
                if key.strip() == "model name":
                    return f"{value.strip()} ({platform.machine()})"
    except OSError:  # not Linux
        pass
    return platform.processor() or platform.machine()
