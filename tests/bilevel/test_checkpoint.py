"""The state of a training on disk: what is written comes back, and nothing hostile gets further than a FileError."""

import json
import math
import random
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from mrisps.bilevel import TrainingState, train
from mrisps.bilevel.checkpoint import MAX_BYTES, load_state, save_state
from mrisps.errors import FileError
from mrisps.model import SmoothPlusSparse

from .toy import SETTINGS, ToySamples, check_equal, parameters, toy_model, validation

IDENTITY: dict[str, object] = {"recipe": {"name": "toy", "crop": (16, 16), "mask": None}, "images": "abc"}
PARAMETERS = ("raw_free_atoms", "raw_synthesis_atoms", "log_thresholds", "beta")


def make_optimiser(model: SmoothPlusSparse) -> torch.optim.Adam:
    return torch.optim.Adam(model.parameters())


def trained(steps: int = 2, dtype: torch.dtype = torch.float64) -> tuple[SmoothPlusSparse, torch.optim.Adam]:
    """A model that Adam has moved."""
    model = toy_model(dtype)
    optimiser = make_optimiser(model)
    for step in range(steps):
        for k, parameter in enumerate(model.parameters()):
            parameter.grad = torch.full_like(parameter, 0.1 * (step + k + 1))
        optimiser.step()
    return model, optimiser


def some_state(model: SmoothPlusSparse) -> TrainingState:
    return TrainingState(
        step=3,
        best_parameters={name: value + 1 for name, value in parameters(model).items()},
        best_psnr=28.123456789,
        best_step=2,
        n_skipped=1,
        n_skipped_in_row=1,
        losses=[0.1, 0.2, math.nan],
        validation=[(0, 27.5), (2, 28.123456789), (3, math.nan)],
    )


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "training.checkpoint.safetensors"
    model, optimiser = trained()
    save_state(path, some_state(model), model, optimiser, IDENTITY)
    return path


def metadata_of(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as stream:
        return dict(stream.metadata())


def rewrite(path: Path, change: Callable[[dict[str, Tensor], dict[str, str]], None]) -> None:
    tensors, metadata = load_file(path), metadata_of(path)
    change(tensors, metadata)
    path.write_bytes(save(tensors, metadata=metadata))


def rewrite_state(path: Path, **changes: object) -> None:
    def change(tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
        metadata["state"] = json.dumps({**json.loads(metadata["state"]), **changes})

    rewrite(path, change)


def check_refused(path: Path, *words: str, identity: dict[str, object] = IDENTITY) -> None:
    """A FileError whose message begins with the file and contains the words; model and optimiser stay as they were."""
    model = toy_model()
    before = parameters(model)
    optimiser = make_optimiser(model)
    with pytest.raises(FileError) as caught:
        load_state(path, model, optimiser, identity)
    assert caught.value.path == path
    assert str(caught.value).startswith(f"{path}: ")
    assert len(str(caught.value)) < 1000
    for word in words:
        assert word in str(caught.value)
    check_equal(parameters(model), before)
    assert not optimiser.state


# ---------------------------------------------------------------------------------------------------------- round trip


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_round_trip(tmp_path: Path, dtype: torch.dtype) -> None:
    path = tmp_path / "c"
    model, optimiser = trained(dtype=dtype)
    state = some_state(model)
    save_state(path, state, model, optimiser, IDENTITY)
    other = toy_model(dtype)
    fresh = make_optimiser(other)
    found = load_state(path, other, fresh, IDENTITY)
    check_equal(parameters(other), parameters(model))
    check_equal(found.best_parameters, state.best_parameters)
    assert repr(replace(found, best_parameters={})) == repr(replace(state, best_parameters={}))  # NaN is not NaN
    for (name, there), (_, here) in zip(model.named_parameters(), other.named_parameters(), strict=True):
        check_equal(fresh.state[here], optimiser.state[there])
        assert fresh.state[here]["step"].dtype == optimiser.state[there]["step"].dtype, name


def test_what_is_loaded_does_not_depend_on_the_file(good: Path) -> None:
    """The tensors are no views of a file that somebody may overwrite."""
    model = toy_model()
    optimiser = make_optimiser(model)
    state = load_state(good, model, optimiser, IDENTITY)
    before = {name: value.clone() for name, value in state.best_parameters.items()}
    moments = {name: optimiser.state[value]["exp_avg"].clone() for name, value in model.named_parameters()}
    with good.open("r+b") as stream:
        stream.write(bytes(good.stat().st_size))
    check_equal(state.best_parameters, before)
    check_equal({name: optimiser.state[value]["exp_avg"] for name, value in model.named_parameters()}, moments)


def test_before_the_first_step(tmp_path: Path) -> None:
    model = toy_model()
    save_state(tmp_path / "c", TrainingState.start(model), model, make_optimiser(model), {})
    optimiser = make_optimiser(model)
    state = load_state(tmp_path / "c", model, optimiser, {})
    assert state.step == 0
    assert not optimiser.state


def test_small_and_without_pickle(good: Path) -> None:
    n_numbers = sum(parameter.numel() for parameter in toy_model().parameters())
    assert good.stat().st_size < 8 * (4 * n_numbers + 4) + 4000
    assert metadata_of(good)["format"] == "mrisps-training"


# ----------------------------------------------------------------------------------------------------- another training


@pytest.mark.parametrize(
    ("identity", "words"),
    [
        ({**IDENTITY, "images": "xyz"}, ("images is 'abc' there and 'xyz' here",)),
        ({**IDENTITY, "recipe": {"name": "toy", "crop": (16, 8), "mask": None}}, ("recipe.crop is [16, 16] there", "[16, 8] here")),
        ({**IDENTITY, "recipe": None}, ("recipe is {", "there and None here")),
        ({**IDENTITY, "more": 1}, ("more is None there and 1 here",)),
        ({"images": "abc"}, ("recipe is {",)),
        ({"recipe": {"name": "other", "crop": 1, "mask": 3}}, ("recipe.name", "recipe.crop", "recipe.mask", "images")),
    ],
)  # fmt: skip
def test_another_training_is_refused(good: Path, identity: dict[str, object], words: tuple[str, ...]) -> None:
    check_refused(good, "identity: belongs to another training", *words, identity=identity)


def test_a_model_of_another_size_is_refused(good: Path, tmp_path: Path) -> None:
    model = toy_model(torch.float32)
    with pytest.raises(FileError, match=r"model\.\w+: expected torch.float32 .*, got torch.float64"):
        load_state(good, model, make_optimiser(model), IDENTITY)


# --------------------------------------------------------------------------------------------------------- hostile files


def test_missing_file_and_folder(tmp_path: Path) -> None:
    check_refused(tmp_path / "nothing", "cannot read the checkpoint", "No such file")
    check_refused(tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"", b"PK\x03\x04", b"{}", b"\x80\x04\x95", bytes(8), (2**63).to_bytes(8, "little") + b"{", b"\x02" + bytes(7) + b"{}"],
)  # fmt: skip
def test_no_checkpoint_at_all(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "c"
    path.write_bytes(content)
    check_refused(path)


def test_weights_are_no_checkpoint(tmp_path: Path) -> None:
    toy_model().save(tmp_path / "w.safetensors")
    check_refused(tmp_path / "w.safetensors", "format: expected 'mrisps-training', got 'mrisps-weights'")


def test_truncated_anywhere(good: Path) -> None:
    content = good.read_bytes()
    for n_bytes in (1, 7, 8, 9, 100, 1000, len(content) // 2, len(content) - 1):
        good.write_bytes(content[:n_bytes])
        check_refused(good)


def test_damaged_header_bytes(good: Path) -> None:
    """Whatever a flipped byte does, nothing but a FileError comes out: or a state, if it was a number that changed."""
    content = good.read_bytes()
    chance = random.Random(0)
    refused = 0
    for _ in range(150):
        damaged = bytearray(content)
        damaged[chance.randrange(2500)] = chance.randrange(256)
        good.write_bytes(bytes(damaged))
        model = toy_model()
        try:
            load_state(good, model, make_optimiser(model), IDENTITY)
        except FileError:
            refused += 1
    assert refused > 100


def test_too_large(tmp_path: Path) -> None:
    path = tmp_path / "c"
    with path.open("wb") as stream:
        stream.truncate(MAX_BYTES + 1)  # sparse
    check_refused(path, "too large")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("format", "other", "format: expected 'mrisps-training', got 'other'"),
        ("version", "2", "version: expected '1', got '2'"),
        ("state", "{", "state: not JSON"),
        ("state", "[" * 100_000, "state: not JSON"),
        ("state", "[1]", "state: expected a JSON object"),
        ("identity", "", "identity: not JSON"),
        ("identity", "3", "identity: expected a JSON object"),
        ("identity", json.dumps({"images": "x" * 100_000}), "identity: belongs to another training"),
    ],
)
def test_wrong_header(good: Path, key: str, value: str, words: str) -> None:
    rewrite(good, lambda _, metadata: metadata.update({key: value}))
    check_refused(good, words)


@pytest.mark.parametrize("key", ["format", "version", "state", "identity"])
def test_missing_header(good: Path, key: str) -> None:
    def change(tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
        del metadata[key]

    rewrite(good, change)
    check_refused(good, f"{key}: ")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"step": -1}, "state.step: expected an integer >= 0, got -1"),
        ({"step": 1.5}, "state.step: expected an integer"),
        ({"step": True}, "state.step"),
        ({"step": "3"}, "state.step"),
        ({"step": 2**60}, "state.step"),
        ({"step": [[["x"] * 1000] * 1000]}, "state.step"),
        ({"best_step": None}, "state.best_step"),
        ({"n_skipped": 10**400}, "state.n_skipped"),
        ({"n_skipped_in_row": -3}, "state.n_skipped_in_row"),
        ({"best_psnr": "28"}, "state.best_psnr: expected a number, got '28'"),
        ({"best_psnr": False}, "state.best_psnr"),
        ({"best_psnr": math.nan}, "state.best_psnr: expected a finite number"),
        ({"best_psnr": 10**400}, "state.best_psnr: expected a number"),
        ({"losses": None}, "state.losses"),
        ({"losses": [0.1]}, "state.losses: expected a list of 3 numbers"),
        ({"losses": [0.1, 0.2, None]}, "state.losses: expected a number, got None (element 2)"),
        ({"validation": {}}, "state.validation"),
        ({"validation": [[1]]}, "state.validation: is missing (element 1)"),
        ({"validation": [3]}, "state.validation"),
        ({"validation": [[math.nan, 28.0]]}, "state.validation"),
        ({"validation": [[0, "28"]]}, "state.validation: expected a number, got '28'"),
    ],
)
def test_wrong_state(good: Path, changes: dict[str, object], words: str) -> None:
    rewrite_state(good, **changes)
    check_refused(good, words)


@pytest.mark.parametrize("prefix", ["model.{}", "best.{}", "adam.{}.exp_avg", "adam.{}.exp_avg_sq", "adam.{}.step"])
@pytest.mark.parametrize("parameter", PARAMETERS)
def test_missing_or_wrong_tensors(good: Path, prefix: str, parameter: str) -> None:
    name = prefix.format(parameter)
    tensor = load_file(good)[name]
    wrong: list[tuple[Tensor | None, str]] = [
        (None, "is missing"),
        (torch.zeros(2, 3, dtype=tensor.dtype), "got torch.float"),
        (tensor.to(torch.int64), "got torch.int64"),
        (tensor * math.nan, "expected finite numbers"),
    ]
    original = good.read_bytes()
    for value, words in wrong:

        def change(tensors: dict[str, Tensor], metadata: dict[str, str], value: Tensor | None = value) -> None:
            del tensors[name]
            if value is not None:
                tensors[name] = value

        rewrite(good, change)
        check_refused(good, f"{name}: ", words)
        good.write_bytes(original)


@pytest.mark.parametrize("kind", ["F8_E4M3", "F8_E8M0", "F4", "F6_E2M3", "C64", "U64", "BOOL", "X"])
def test_exotic_tensors(good: Path, kind: str) -> None:
    content = good.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["model.beta"]["dtype"] = kind
    text = json.dumps(header).encode()
    good.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])
    check_refused(good)


# ------------------------------------------------------------------------------------------------------------- full disk


def test_full_disk(good: Path, small_disk: Callable[[int], AbstractContextManager[None]]) -> None:
    model, optimiser = trained(5)
    before = good.read_bytes()
    with small_disk(1000), pytest.raises(FileError, match="cannot be written: File too large"):
        save_state(good, some_state(model), model, optimiser, IDENTITY)
    assert good.read_bytes() == before
    assert [path.name for path in good.parent.iterdir()] == [good.name]


def test_full_disk_while_training(tmp_path: Path, small_disk: Callable[[int], AbstractContextManager[None]]) -> None:
    """What was reached before can be resumed once there is space again."""
    path = tmp_path / "c"
    settings = replace(SETTINGS, n_steps=4)
    whole, torn = toy_model(), toy_model()
    expected = train(whole, ToySamples(), [validation()], settings, checkpoint=tmp_path / "whole")
    with ExitStack() as stack, pytest.raises(FileError, match="c: cannot be written: File too large"):
        train(
            torn,
            ToySamples(),
            [validation()],
            settings,
            checkpoint=path,
            on_step=lambda report: stack.enter_context(small_disk(1000)) if report.step == 3 else None,
        )
    resumed = toy_model()
    found = train(resumed, ToySamples(), [validation()], settings, checkpoint=path, resume=True)
    check_equal(parameters(resumed), parameters(whole))
    assert found.losses == expected.losses
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c", "whole"]
