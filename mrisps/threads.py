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

__all__ = ["available_cores", "prepare_threads", "processor_name", "stated_threads", "thread_variables"]

CGROUP = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")

SPIN_COUNT = 10_000
"""Turns that a thread waits awake before it sleeps (GNU OpenMP, which PyTorch uses on Linux; its own default is 300,000)."""

_COUNTS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
_by_default: str | None = None  # what OMP_NUM_THREADS was set to because nobody had said anything


def available_cores(cgroup: Path = CGROUP, own: Path = OWN_CGROUP) -> int:
    """Cores that this process may use: those of its affinity mask, and no more than the quotas of its control groups, rounded up.

    Parameters
    ----------
    cgroup
        Where control groups are mounted, version 2 or 1.
    own
        The file that says in which ones this process is.
    """
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        cores = os.cpu_count() or 1
    return min([cores, *_quotas(cgroup, own)])


def _quotas(cgroup: Path, own: Path) -> list[int]:
    """Cores that the control group of this process, and those that it is in, allow; none without a limit."""
    try:
        lines = own.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    # "0::/path" in version 2, "4:cpu,cpuacct:/path" in version 1; in a container the mount itself is the group
    inside = {line.split(":", 2)[2].strip("/") for line in lines if line.startswith("0::") or ":cpu" in line}
    groups = [Path(*Path(path).parts[:depth]) for path in inside | {""} for depth in range(len(Path(path).parts) + 1)]
    found = [_quota(cgroup / group) or _quota(cgroup / "cpu" / group) for group in groups if ".." not in group.parts]
    return [cores for cores in found if cores is not None]


def _quota(group: Path) -> int | None:
    """Cores that one control group allows, rounded up."""
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        limit = int(quota), int(period)
    except (OSError, ValueError):  # no control group, or "max"
        return None
    return max(1, -(-limit[0] // limit[1])) if min(limit) > 0 else None


def stated_threads() -> int | None:
    """Threads that the environment asks for (``OMP_NUM_THREADS``); None where it does not say."""
    stated = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(stated) if stated.isdecimal() and int(stated) > 0 and stated != _by_default else None


def thread_variables(n_threads: int) -> dict[str, str]:
    """What the environment of a process with this number of threads says, for libraries that read it when they are loaded."""
    return {**dict.fromkeys(_COUNTS, str(n_threads)), **_waiting()}


def _waiting() -> dict[str, str]:
    """A short while awake, unless the environment says how threads wait."""
    if "OMP_WAIT_POLICY" in os.environ:
        return {}
    return {"GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", str(SPIN_COUNT))}


def prepare_threads(n_threads: int | None = None) -> None:
    """Set how many threads compute, and let them sleep when they have waited for a short while.

    Waiting can only be set before PyTorch is loaded; the number at any time.

    Parameters
    ----------
    n_threads
        Threads; None: what the environment says, else :func:`available_cores`.
    """
    global _by_default
    os.environ.update(_waiting())
    if n_threads is None and stated_threads() is not None:
        return
    _by_default = str(available_cores()) if n_threads is None else None
    os.environ["OMP_NUM_THREADS"] = _by_default or str(n_threads)
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
