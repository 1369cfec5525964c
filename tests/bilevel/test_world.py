"""Several processes that train one model."""

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mrisps.bilevel import Batch, World, join_world, own_device, train

from .toy import SETTINGS, ToySamples, parameters, toy_model, validation

PROJECT = Path(__file__).resolve().parents[2]


class OneBadShare(ToySamples):
    """In the second step the second half of the batch is NaN."""

    def batch(self, step: int, first: int, count: int) -> Batch:
        batch = super().batch(step, first, count)
        if step == 1:
            for row, entry in enumerate(range(first, first + count)):
                if entry >= 1:
                    batch.y[row] = float("nan")
        return batch


def run_rank(output: Path) -> None:
    """What each process does: it trains, and writes what it has then."""
    with join_world(torch.device("cpu")) as world:
        model = toy_model()
        if world.rank == 1:
            with torch.no_grad():
                model.log_thresholds.add_(0.5)  # another machine's rounding, exaggerated
        validations = [validation(), validation(count=2), validation(count=1)]
        state = train(
            model,
            OneBadShare(),
            validations,
            replace(SETTINGS, n_steps=3, validation_interval=2),
            world=world,
            checkpoint=output / f"checkpoint{world.rank}",
        )
    tensors = parameters(model)
    tensors["losses"] = torch.tensor(state.losses, dtype=torch.float64)
    tensors["validation"] = torch.tensor([psnr for _, psnr in state.validation], dtype=torch.float64)
    tensors["skipped"] = torch.tensor(state.n_skipped)
    save_file(tensors, output / f"rank{world.rank}of{world.size}.safetensors")


def environment(rank: int, size: int, port: int) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(PROJECT), str(PROJECT / "tests")]),
        "OMP_NUM_THREADS": "1",
        "RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_RANK": str(rank),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def test_two_processes_do_what_one_does_with_the_whole_batch(tmp_path: Path) -> None:
    """Also where one of them has to skip a step: then both do."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = (
        "from pathlib import Path; from bilevel.test_world import run_rank; import sys; run_rank(Path(sys.argv[1]))"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)],
            env=environment(rank, 2, port),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=90)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], outputs
    run_rank(tmp_path)
    alone = load_file(tmp_path / "rank0of1.safetensors")
    ranks = [load_file(tmp_path / f"rank{rank}of2.safetensors") for rank in range(2)]
    assert int(alone["skipped"]) == 1
    for name, expected in alone.items():
        assert torch.equal(ranks[0][name].nan_to_num(), ranks[1][name].nan_to_num()), name
        torch.testing.assert_close(ranks[0][name], expected, rtol=1e-9, atol=1e-9, equal_nan=True)
    assert not torch.equal(alone["beta"], toy_model().beta)
    assert (tmp_path / "checkpoint0").exists()
    assert not (tmp_path / "checkpoint1").exists()  # only the first writes


def test_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    with join_world(torch.device("cpu")) as world:
        assert world == World(0, 1)
        tensor = torch.tensor([1.0, 2.0])
        world.average_([tensor])
        world.copy_from_first_([tensor])
        assert tensor.tolist() == [1, 2]
        assert world.any(True, torch.device("cpu"))
        assert not world.any(False, torch.device("cpu"))
    assert not torch.distributed.is_initialized()


def test_each_process_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert own_device("cuda") == torch.device("cuda")
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert own_device("cuda") == torch.device("cuda", 3)
    assert own_device("cuda:1") == torch.device("cuda", 1)
    assert own_device("cpu") == torch.device("cpu")
