"""The reconstruction server, measured: time to the first image, memory of many connections, mutated streams.

python benchmarks/serve.py latency          # a 16-coil 256 x 256 slice of ismrmrd_generate_cartesian_shepp_logan
python benchmarks/serve.py connections      # 100 in a row: memory of the server's process
python benchmarks/serve.py streams          # 5,000 mutated streams: what became of each kind
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]


@contextmanager
def server(folder: Path, *options: str) -> Iterator[tuple[int, int]]:
    """A server process: its port and its number."""
    log = folder / "log.jsonl"
    command = [sys.executable, "-m", "mrisps", "serve", "--port", "0", "--log", str(log), *options]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        while not log.exists() or "listening" not in log.read_text():
            if process.poll() is not None:
                raise SystemExit("the server did not start")
            time.sleep(0.1)
        yield json.loads(log.read_text().splitlines()[0])["port"], process.pid
    finally:
        process.terminate()
        process.wait(60)


def resident(pid: int) -> float:
    """MiB in memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def user_seconds(pid: int) -> float:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11]) / os.sysconf("SC_CLK_TCK")


def ask(port: int, content: bytes) -> tuple[float, float]:
    """Send a stream but for its end; seconds from the closing message, which follows the last acquisition, to the first image."""
    import socket

    from mrisps.server.messages import Kind, Limits, MessageReader

    with socket.create_connection(("127.0.0.1", port), timeout=600) as client:
        begun = time.monotonic()
        client.sendall(content[:-2])
        sent = time.monotonic()
        client.sendall(content[-2:])
        reader = MessageReader(client.makefile("rb"), Limits(), (Kind.TEXT, Kind.IMAGE, Kind.CLOSE))
        while (kind := reader.next()[0]) == Kind.TEXT:
            pass
        assert kind == Kind.IMAGE
        first = time.monotonic() - sent
        while reader.next()[0] != Kind.CLOSE:
            pass
        return first, sent - begun


def latency(repeats: int, matrix: int, coils: int) -> None:
    from server.conftest import stream_of

    from mrisps.io.open import open_kspace
    from mrisps.reconstruction.api import run_of

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "phantom.h5"
        program = "ismrmrd_generate_cartesian_shepp_logan"
        options = ["-m", matrix, "-c", coils, "-a", 3, "-w", 24, "-n", 0.005, "-C", "-r", 1, "-o", path]
        subprocess.run([program, *map(str, options)], check=True, stdout=subprocess.DEVNULL)
        content = stream_of(path, "multicoil", with_waveform=False)
        run = run_of("multicoil", "mri")
        rows: dict[str, list[float]] = {"alone": [], "solver": [], "server": [], "alone, user": [], "server, user": []}
        with server(folder, "--recipe", "multicoil") as (port, pid):
            for _ in range(repeats):
                before, clock = time.process_time(), time.monotonic()
                with open_kspace(path) as source:
                    n_slices = source.n_slices  # as many as the acceleration: the generator shifts the lines
                    made = next(iter(run.results(source)))
                rows["alone"].append(time.monotonic() - clock)
                rows["alone, user"].append(time.process_time() - before)
                rows["solver"].append(float(str(made.certificate["seconds"])))
                before = user_seconds(pid)
                first, _ = ask(port, content)
                rows["server"].append(first)
                rows["server, user"].append((user_seconds(pid) - before) / n_slices)
        print(f"{coils} coils, {matrix} x {matrix}, {len(content) / 2**20:.1f} MiB, median of {repeats} (all):")
        for label, values in rows.items():
            print(f"  {label:14} {statistics.median(values):7.2f} s   {', '.join(f'{value:.2f}' for value in values)}")
        ratios = [a / b for a, b in zip(rows["server, user"], rows["alone, user"], strict=True)]
        print(f"  user time of a slice, server over alone: {statistics.median(ratios):.3f}")


def connections(n: int) -> None:
    from server.conftest import RECIPE, stream_of, write_scan

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "tiny.py").write_text(RECIPE)
        content = stream_of(write_scan(folder / "scan.h5"))
        weights = "denoise_sigma25_ncpr"
        with server(folder, "--recipe", str(folder / "tiny.py"), "--weights", weights) as (port, pid):
            print(f"before the first: {resident(pid):.1f} MiB")
            for done in range(1, n + 1):
                ask(port, content)
                if done in (1, 5, 10, 25, 50, 75, n):
                    n_files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
                    n_threads = len(list(Path(f"/proc/{pid}/task").iterdir()))
                    print(f"after {done:3}: {resident(pid):.1f} MiB, {n_files} open files, {n_threads} threads")


def streams(n: int) -> None:
    from server.test_streams import fuzz

    with tempfile.TemporaryDirectory() as name:
        for kind, counts in fuzz(Path(name), n).items():
            print(f"{kind:10} " + ", ".join(f"{count} {what}" for what, count in sorted(counts.items())))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("latency", "connections", "streams"))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--matrix", type=int, default=256)
    parser.add_argument("--coils", type=int, default=16)
    given = parser.parse_args()
    if given.what == "latency":
        latency(given.repeats, given.matrix, given.coils)
    elif given.what == "connections":
        connections(100)
    else:
        streams(5000)


if __name__ == "__main__":
    main()
