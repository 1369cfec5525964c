"""Small batches: k-space of 32 x 24, a random model with 5 x 5 patches, and workers that work at once, in this process."""

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
import torch

from mrisps.campaign.batch import BatchResult, open_ledger, run_batch
from mrisps.campaign.batch_item import BATCH_FOLDER, Entry, Item, Job
from mrisps.campaign.batch_work import reconstruct_item
from mrisps.campaign.loop import JournalRecord, Progress, Stop, Workers
from mrisps.campaign.sources import SourceFile, WatchedFolder, sources_of
from mrisps.io.fastmri import write_kspace
from mrisps.journal import Journal
from mrisps.model import ModelConfig, SmoothPlusSparse
from mrisps.reconstruction.recipe import MaskRule, Recipe, ScaleRule
from mrisps.solvers import FastSettings

COLUMNS = (0, 3, 6, 10, 11, 12, 13, 16, 19, 22)
RECIPE = Recipe(
    "small",
    "mri",
    beta=0.02,
    lam=0.01,
    source="a test",
    scale=ScaleRule(99.9, 0.8),
    mask=MaskRule("equispaced", 4, 0.1),
    solver=FastSettings(tolerance=1e-2, max_iterations=300),
)


def small_model(seed: int = 0) -> SmoothPlusSparse:
    generator = torch.Generator().manual_seed(seed)
    config = ModelConfig(patch_size=5, n_free_atoms=6, n_synthesis_atoms=8)
    atoms = (torch.randn(n, 5, 5, generator=generator) for n in (6, 8))
    return SmoothPlusSparse(config, *atoms, torch.zeros(8), beta=1.0, lam=0.01)


def write_input(path: Path, seed: int, n_slices: int = 1, size: tuple[int, int] = (32, 24)) -> Path:
    """Undersampled k-space of a disc and a bar; other seeds are other noise and another disc."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : size[0] * 1j, -1 : 1 : size[1] * 1j]
    image = 0.8 * (x**2 + y**2 < 0.3 + 0.02 * (seed % 10)) - 0.4 * ((np.abs(x) < 0.2) & (np.abs(y) < 0.5))
    image = image + 0.02 * rng.normal(size=size)
    kspace = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(image), norm="ortho")).astype(np.complex64)
    mask = np.zeros(size[1], dtype=np.bool_)
    mask[[column for column in COLUMNS if column < size[1]]] = True
    write_kspace(path, np.stack([(k + 1) * kspace for k in range(n_slices)]) * mask, mask=mask)
    return path


def write_inputs(folder: Path, n_files: int, n_slices: int = 1) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    return [write_input(folder / f"v{index:02}.h5", index, n_slices) for index in range(n_files)]


def make_job(folder: Path, recipe: Recipe = RECIPE, model: SmoothPlusSparse | None = None) -> Job:
    """A batch into a folder, which is made, with the weights in it."""
    model = small_model() if model is None else model
    (folder / BATCH_FOLDER / "logs").mkdir(parents=True, exist_ok=True)
    weights = folder / BATCH_FOLDER / f"weights-{model.fingerprint()[:16]}.safetensors"
    model.save(weights)
    return Job(recipe, weights, "small", model.fingerprint(), folder)


class Inline:
    """Works in this process, at once."""

    def capacity(self) -> int:
        return 1

    def submit(self, item: Item, /) -> "Future[JournalRecord]":
        future: Future[JournalRecord] = Future()
        future.set_result(reconstruct_item(item))
        return future

    def progress(self) -> Progress:
        return ()

    def close(self, *, now: bool) -> None:
        pass


@dataclass
class Quiet:
    """Listens, and remembers."""

    stop: Stop = field(default_factory=Stop)
    stop_after: int = 1 << 30
    names: list[str] = field(default_factory=list)

    def waiting(self, items: Sequence[Item], /) -> None:
        pass

    def finished(self, item: Item, entry: Entry, /) -> None:
        self.names.append(item.name)
        if len(self.names) >= self.stop_after:
            self.stop.soon = True

    def tick(self, progress: Progress, /) -> None:
        pass


def run(
    inputs: Path | Sequence[SourceFile],
    job: Job,
    *,
    listener: Quiet | None = None,
    workers: Workers[Item] | None = None,
    watched: WatchedFolder | None = None,
    redo: bool = False,
    overwrite: bool = False,
) -> BatchResult:
    """A batch, by default in this process."""
    sources = sources_of([inputs]) if isinstance(inputs, Path) else inputs
    listener = Quiet() if listener is None else listener
    with open_ledger(job.folder) as ledger:
        return run_batch(
            sources,
            job,
            Inline() if workers is None else workers,
            ledger,
            listener,
            stop=listener.stop,
            watched=watched,
            redo=redo,
            overwrite=overwrite,
        )


def ledger_path(job: Job) -> Path:
    return job.folder / BATCH_FOLDER / "ledger.jsonl"


def states(folder: Path) -> dict[str, str]:
    """What the ledger of a batch that may be running says of each file."""
    records = Journal.read(folder / BATCH_FOLDER / "ledger.jsonl", "batch", version=2)
    return {name: str(record["state"]) for name, record in records.items()}


def made(result: BatchResult) -> list[str]:
    """Names of what was reconstructed, not only looked at."""
    return [name for name, entry in result.entries.items() if entry.state == "done" and not entry.reused]


def data_sets(path: Path) -> dict[str, bytes]:
    with h5py.File(path) as file:
        return {name: file[name][()].tobytes() for name in ("reconstruction", "image", "smooth", "sparse", "cost_map")}


def partial_files(folder: Path) -> list[Path]:
    return list(folder.rglob("*.partial"))
