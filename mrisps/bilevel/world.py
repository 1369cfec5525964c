"""Several processes that train one model: each takes its share of every batch, gradients are averaged."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed

__all__ = ["World", "join_world", "own_device"]


@dataclass(frozen=True)
class World:
    """This process among those that train together.

    Parameters
    ----------
    rank
        Number of this process, from 0. Process 0 alone writes files.
    size
        Number of processes.
    """

    rank: int = 0
    size: int = 1

    def average_(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor with its mean over the processes."""
        if self.size == 1:
            return
        for tensor in tensors:
            distributed.all_reduce(tensor)
            tensor /= self.size

    def copy_from_first_(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor with that of process 0."""
        if self.size == 1:
            return
        for tensor in tensors:
            distributed.broadcast(tensor, 0)

    def any(self, flag: bool, device: torch.device) -> bool:
        """True where the flag is set in any process: a step that one process skips, all skip."""
        if self.size == 1:
            return flag
        count = torch.tensor(float(flag), device=device)
        distributed.all_reduce(count)
        return bool(count > 0)


def own_device(name: str) -> torch.device:
    """The device of this process. For ``"cuda"``, each process that ``torchrun`` starts on a machine has another GPU."""
    device = torch.device(name)
    if name == "cuda" and "LOCAL_RANK" in os.environ:
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    return device


@contextmanager
def join_world(device: torch.device) -> Iterator[World]:
    """Connect the processes that ``torchrun`` started, or this one alone, until the block ends.

    ``torchrun`` gives each process its number by the environment variables RANK and WORLD_SIZE. NCCL connects CUDA devices, Gloo
    connects CPUs.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) <= 1:
        yield World()
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield World(distributed.get_rank(), distributed.get_world_size())
    finally:
        distributed.destroy_process_group()
