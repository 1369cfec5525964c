"""Where the files of a batch are reconstructed: processes of this machine, or the workers of a Dask cluster.

Both run :func:`mrisps.campaign.batch_work.reconstruct_item` and give a `concurrent.futures.Future` for each file.
"""

import logging
import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from mrisps.campaign.batch_item import Item
from mrisps.campaign.batch_work import reconstruct_item
from mrisps.campaign.loop import JournalRecord, Progress
from mrisps.errors import MrispsError
from mrisps.threads import available_cores, stated_threads, thread_variables

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

__all__ = ["DaskWorkers", "LocalWorkers", "WorkerDiedError", "devices_of"]

_ATTEMPTS = 2
_REPORT_SECONDS = 0.2
_START = threading.Lock()  # the environment is of the whole process: one start at a time


def devices_of(
    device: str, n_workers: int | None, threads: int | None, *, on_cluster: bool = False
) -> tuple[list[str], int]:
    """Where each worker computes, and its threads; by default threads times workers are the cores.

    Parameters
    ----------
    device
        ``"cpu"``; ``"cuda"``: one worker for each GPU; ``"cuda:1"``: one worker on this GPU.
    n_workers, threads
        None: by the machine; threads first by ``OMP_NUM_THREADS``.
    on_cluster
        What the cluster's machines have is not known here.

    Raises
    ------
    ValueError
        More workers than GPUs.
    """
    n_cores, threads = available_cores(), threads or stated_threads()
    if device == "cpu" or on_cluster:
        n = n_workers or max(1, n_cores // (threads or 1))
        return [device] * n, threads or (1 if on_cluster else max(1, n_cores // n))
    if ":" in device:
        if n_workers not in (None, 1):
            raise ValueError(f"workers: one for each GPU, and {device} is one; take the device cuda for all of them")
        return [device], threads or n_cores
    import torch

    n_gpus = torch.cuda.device_count()
    if n_workers is not None and n_workers > n_gpus:
        raise ValueError(f"workers: one for each GPU, and there are {n_gpus}")
    n = n_workers or n_gpus
    return [f"cuda:{index}" for index in range(n)], threads or max(1, n_cores // n)


class WorkerDiedError(MrispsError):
    """The process that worked on a file ended without an answer: killed, out of memory, or crashed."""


class LocalWorkers:
    """Processes of this machine, one for each of ``devices``, with ``threads`` each; one file each at a time.

    A process that dies takes only its own file with it; the file is tried once more in a new process. Processes end by themselves
    when this one is killed.
    """

    def __init__(self, devices: Sequence[str], threads: int = 1) -> None:
        self._slots = [_Slot(device, threads) for device in devices]
        self._free: queue.SimpleQueue[_Slot] = queue.SimpleQueue()
        for slot in self._slots:
            self._free.put(slot)
        self._threads = ThreadPoolExecutor(len(self._slots), thread_name_prefix="batch")

    def capacity(self) -> int:
        """One file a process."""
        return len(self._slots)

    def submit(self, item: Item, /) -> "Future[JournalRecord]":
        """Hand a file to a process that is free, or to the next one that will be."""
        return self._threads.submit(self._run, item)

    def progress(self) -> Progress:
        """(name, slice, number of slices, iteration) of what is in work."""
        return [slot.state for slot in self._slots if slot.state[0]]

    def close(self, *, now: bool) -> None:
        """End the processes: when they have finished, or now."""
        if now:
            for slot in self._slots:
                slot.kill()
        self._threads.shutdown(wait=True, cancel_futures=now)
        for slot in self._slots:
            slot.end()

    def _run(self, item: Item) -> JournalRecord:
        slot = self._free.get()
        try:
            return slot.run(item)
        finally:
            self._free.put(slot)


class _Slot:
    """A process and the pipe to it."""

    def __init__(self, device: str, threads: int) -> None:
        self.state = ("", 0, 0, 0)
        self._device, self._threads = device, threads
        self._process: SpawnProcess | None = None
        self._pipe: Connection | None = None
        self._killed = False

    def run(self, item: Item) -> JournalRecord:
        """Have a file done; raises WorkerDiedError."""
        attempt = 0
        while True:
            attempt += 1
            self.state = (item.name, 0, 0, 0)
            try:
                pipe = self._ready()
                pipe.send(replace(item, job=replace(item.job, device=self._device)))
                while not isinstance(message := pipe.recv(), Mapping):
                    self.state = (item.name, *message)
                return message
            except (EOFError, OSError) as error:
                code = self.end() or 0
                name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
                why = f"{name}{', out of memory perhaps' if name == 'SIGKILL' else ''}"
                if self._killed or attempt == _ATTEMPTS:
                    raise WorkerDiedError(f"{item.source.path}: the process that worked on it ended: {why}") from error
            finally:
                self.state = ("", 0, 0, 0)

    def _ready(self) -> Connection:
        if self._process is None or self._pipe is None:
            if self._killed:
                raise EOFError
            context = multiprocessing.get_context("spawn")
            ours, theirs = context.Pipe()
            with _environment(self._threads):
                process = context.Process(target=_serve, args=(theirs,), daemon=True)
                process.start()
            theirs.close()  # so that the pipe ends when the process does
            self._process, self._pipe = process, ours
            if self._killed:  # while it was being started
                process.kill()
        return self._pipe

    def kill(self) -> None:
        """End the process at once."""
        self._killed = True
        process = self._process
        if process is not None:
            with suppress(ValueError):  # it has just been closed
                process.kill()

    def end(self) -> int | None:
        """Let the process end, which has nothing to do or is dead: its exit code."""
        process, pipe, self._process, self._pipe = self._process, self._pipe, None, None
        if pipe is not None:
            pipe.close()
        if process is None:
            return None
        process.join()
        code = process.exitcode
        process.close()
        return code


def _serve(pipe: Connection) -> None:
    """A worker process: take a file, reconstruct it, answer; until the pipe ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which says what is to be done
    last = 0.0

    def tell(position: int, n_slices: int, iteration: int, _residual: float) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _REPORT_SECONDS:
            last = now
            try:
                pipe.send((position, n_slices, iteration))
            except OSError:  # nobody is left who wants the result
                os._exit(1)

    while True:
        try:
            pipe.send(reconstruct_item(pipe.recv(), tell))
        except (EOFError, BrokenPipeError, ConnectionResetError):
            return


@contextmanager
def _environment(threads: int) -> Iterator[None]:
    """For processes that are started: libraries read how many threads they have, and how those wait, when they are loaded."""
    with _START:
        wanted = thread_variables(threads)
        before = {name: os.environ[name] for name in wanted if name in os.environ}
        os.environ.update(wanted)
        try:
            yield
        finally:
            for name in wanted.keys() - before.keys():
                del os.environ[name]
            os.environ.update(before)


class DaskWorkers:
    """The workers of a Dask cluster; see docs/many-files.md for how to start one.

    Inputs, weights and the output folder have the same path on every worker.
    Dask sends a file elsewhere if its worker dies, and gives up on a file that has killed several workers.

    Parameters
    ----------
    scheduler
        Its address, or ``"local"``: a cluster of ``n_workers`` processes on this machine, with ``threads`` each.

    Raises
    ------
    MrispsError
        Dask is not installed, or there is no scheduler at the address.
    """

    def __init__(self, scheduler: str, n_workers: int = 1, threads: int = 1) -> None:
        try:
            import distributed
        except ImportError as error:
            raise MrispsError("--scheduler needs Dask: pip install 'mrisps[batch]'") from error
        self._cluster: distributed.LocalCluster | None = None
        try:
            if scheduler == "local":
                with _environment(threads):
                    self._cluster = distributed.LocalCluster(
                        n_workers=n_workers, threads_per_worker=1, processes=True, dashboard_address=None
                    )
            self.client = distributed.Client(self._cluster or scheduler, timeout=20)
        except (OSError, ValueError, TimeoutError) as error:
            raise MrispsError(f"--scheduler {scheduler}: no Dask scheduler answers there: {error}") from error
        self._executor = self.client.get_executor(pure=False)
        self._capacity = (0.0, 0)

    def capacity(self) -> int:
        """Two files for each worker thread, so that none waits for us. Asked every few seconds: workers come and go."""
        asked, n_files = self._capacity
        now = time.monotonic()
        if n_files == 0 or now - asked > 5:
            n_files = 2 * max(1, sum(self.client.nthreads().values()))
            self._capacity = (now, n_files)
        return n_files

    def submit(self, item: Item, /) -> "Future[JournalRecord]":
        """Hand a file to the scheduler."""
        future: Future[JournalRecord] = self._executor.submit(reconstruct_item, item)
        return future

    def progress(self) -> Progress:
        """Nothing: Dask's own dashboard shows it."""
        return ()

    def close(self, *, now: bool) -> None:
        """Leave the cluster; one of our own ends. What was handed over is given up, where ``now`` is asked for."""
        self._executor.shutdown(wait=not now)
        self.client.close()
        if self._cluster is not None:
            # A process with PyTorch takes a while to end. Dask kills it after 4 seconds and warns; it has nothing to do any more.
            logging.getLogger("distributed.nanny").setLevel(logging.ERROR)
            self._cluster.close()
