"""Reading and converting k-space: MB/s against h5py copying the same bytes, and the peak memory of each conversion.

    python benchmarks/convert_speed.py [--gigabytes 1] [--folder DIR]

The file is random k-space of 16 coils, 640 x 368. Each measurement is a process of its own; the inputs are in the page cache,
and the time includes forcing the output to the disk, for h5py's copy, too.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np

from mrisps.io.acquisition import Acquisition
from mrisps.io.conversion import KSPACE_FORMATS, convert_kspace
from mrisps.io.fastmri import write_fastmri
from mrisps.io.ismrmrd_header import IsmrmrdHeader
from mrisps.io.open import open_kspace

N_COILS, N_Y, N_X = 16, 640, 368
SLICE_BYTES = 8 * N_COILS * N_Y * N_X


def make(path: Path, n_slices: int) -> None:
    """A fully sampled fastMRI file."""
    rng = np.random.default_rng(0)
    kspace = rng.standard_normal((N_COILS, N_Y, 2 * N_X), np.float32).view(np.complex64)
    records = (Acquisition(kspace, path, index, n_slices) for index in range(n_slices))
    write_fastmri(path, records, IsmrmrdHeader.for_shape((N_Y, N_X)).to_xml())


def copy(source: Path, destination: Path) -> None:
    """What h5py alone needs."""
    with h5py.File(source) as file, h5py.File(destination, "w") as output:
        kspace = file["kspace"]
        copied = output.create_dataset("kspace", kspace.shape, kspace.dtype, chunks=(1, *kspace.shape[1:]))
        for index in range(len(kspace)):
            copied[index] = kspace[index]
    with destination.open("rb") as stream:
        os.fsync(stream.fileno())


def read(source: Path) -> None:
    """All slices, with every check."""
    with open_kspace(source) as file:
        for _ in file.slices():
            pass


def peak_mebibytes() -> float:
    """Of this program alone: what getrusage says includes the process that started it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**10


def measure(job: str, source: Path, destination: Path) -> None:
    """Run one job in this process and print seconds and peak MiB."""
    before = peak_mebibytes()
    start = time.perf_counter()
    if job == "h5py copy":
        copy(source, destination)
    elif job == "read":
        read(source)
    else:
        with open_kspace(source) as file:
            convert_kspace(file, destination, next(name for name in KSPACE_FORMATS if name == job))
    seconds = time.perf_counter() - start
    print(seconds, peak_mebibytes(), peak_mebibytes() - before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--folder", type=Path, help="where to put the files; a temporary folder by default")
    parser.add_argument("--job", nargs=3, metavar=("JOB", "IN", "OUT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job is not None:
        job, source, destination = arguments.job
        measure(job, Path(source), Path(destination))
        return
    n_slices = max(1, round(arguments.gigabytes * 1e9 / SLICE_BYTES))
    megabytes = n_slices * SLICE_BYTES / 1e6
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        make(folder / "in.h5", n_slices)
        print(f"{n_slices} slices of {N_COILS} coils, {N_Y} x {N_X}: {megabytes:.0f} MB; load {os.getloadavg()[0]:.1f}")
        print(f"{'job':28} {'s':>7} {'MB/s':>7} {'of h5py':>8} {'peak MiB':>9} {'above start':>11}")
        reference = 0.0
        steps = [
            ("h5py copy", "in.h5", "copy.h5"),
            ("read", "in.h5", "-"),
            ("mrd", "in.h5", "a.mrd"),
            ("read", "a.mrd", "-"),
        ]
        steps += [
            ("fastmri", "a.mrd", "b.h5"),
            ("cfl", "a.mrd", "c.cfl"),
            ("read", "c.cfl", "-"),
            ("mrd", "c.cfl", "d.mrd"),
        ]
        steps += [("fastmri", "in.h5", "e.h5"), ("npy", "in.h5", "f.npy")]
        for job, source, destination in steps:
            (folder / source).read_bytes()  # into the page cache
            command = [sys.executable, __file__, "--job", job, str(folder / source), str(folder / destination)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            seconds, peak, above = map(float, done.stdout.split())
            rate = megabytes / seconds
            reference = reference or rate
            title = f"{source} -> {destination}" if destination != "-" else f"read {source}"
            title = job if job == "h5py copy" else title
            numbers = f"{seconds:7.2f} {rate:7.0f} {rate / reference:8.2f} {peak:9.0f} {above:11.0f}"
            print(f"{title:28} {numbers}")
            if destination not in ("a.mrd", "c.cfl", "-"):
                (folder / destination).unlink()


if __name__ == "__main__":
    main()
