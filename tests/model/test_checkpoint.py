"""Weights on disk: what is written comes back, and nothing hostile gets further than a FileError."""

import io
import json
import os
import pickle
import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from mrisps.errors import FileError
from mrisps.model import ModelConfig, SmoothPlusSparse
from mrisps.model.checkpoint import MAX_BYTES

from .helpers import CHECKPOINTS, CONFIGS, NCPR, random_model, random_tensor

TENSORS = ("raw_free_atoms", "raw_synthesis_atoms", "log_thresholds", "beta")
METADATA = {
    "format": "mrisps-weights",
    "version": "1",
    "config": json.dumps(
        {
            "patch_size": 5,
            "n_free_atoms": 8,
            "n_synthesis_atoms": 10,
            "regulariser": "NCPR",
            "exponent": 1.8,
            "group_size": 1,
            "bjorck_iterations": 15,
            "lam": 0.1,
        }
    ),
}


def tensors() -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in random_model(NCPR).named_parameters()}


def check_refused(path: Path, *words: str) -> None:
    """A FileError whose message begins with the file and contains the words."""
    with pytest.raises(FileError) as caught:
        SmoothPlusSparse.load(path)
    assert caught.value.path == path
    assert str(caught.value).startswith(f"{path}: ")
    for word in words:
        assert word in str(caught.value)


# --------------------------------------------------------------------------------------------------------- our format


@pytest.mark.parametrize(
    "config",
    [*CONFIGS, ModelConfig(3, 2, 4, exponent=2), ModelConfig(3, 0, 4)],
    ids=["NCPR", "CPR", "exponent-2", "no free atom"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("as_string", [False, True])
def test_round_trip(tmp_path: Path, config: ModelConfig, dtype: torch.dtype, as_string: bool) -> None:
    model = random_model(config, beta=0.123456789, lam=0.1 + 0.2, dtype=dtype)
    path = tmp_path / "weights.safetensors"
    model.save(str(path) if as_string else path)
    loaded = SmoothPlusSparse.load(str(path) if as_string else path)
    assert loaded.config == model.config
    assert loaded.lam == model.lam
    for name, parameter in model.named_parameters():
        other = getattr(loaded, name)
        assert other.dtype == dtype
        assert torch.equal(other, parameter)
    assert loaded.fingerprint() == model.fingerprint()
    assert [file.name for file in tmp_path.iterdir()] == ["weights.safetensors"]


def test_the_layout_is_the_documented_one(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    random_model(NCPR).save(path, source="random numbers")
    assert set(load_file(path)) == set(TENSORS)
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert header["__metadata__"].keys() == {"format", "version", "config", "source"}
    assert header["__metadata__"]["source"] == "random numbers"
    assert json.loads(header["__metadata__"]["config"]) == json.loads(METADATA["config"])


def test_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    random_model(NCPR).save(tmp_path / "a.safetensors")
    (tmp_path / "b").write_text("")
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_a_file_written_by_hand_is_read(tmp_path: Path) -> None:
    """Later versions have to read version 1: this is what it looks like."""
    path = tmp_path / "a.safetensors"
    path.write_bytes(save(tensors(), metadata=METADATA))
    assert SmoothPlusSparse.load(path).fingerprint() == random_model(NCPR).fingerprint()


@pytest.mark.parametrize("kind", ["no folder", "a folder", "a file as folder"])
def test_unwritable_targets(tmp_path: Path, kind: str) -> None:
    (tmp_path / "file").write_text("text")
    (tmp_path / "folder").mkdir()
    path = {
        "no folder": tmp_path / "missing" / "a.safetensors",
        "a folder": tmp_path / "folder",
        "a file as folder": tmp_path / "file" / "a.safetensors",
    }[kind]
    with pytest.raises(FileError) as caught:
        random_model(NCPR).save(path)
    assert str(path) in str(caught.value)
    assert sorted(file.name for file in tmp_path.rglob("*")) == ["file", "folder"]
    assert (tmp_path / "file").read_text() == "text"


def test_an_existing_file_survives_a_full_disk(
    tmp_path: Path, small_disk: Callable[[int], AbstractContextManager[None]]
) -> None:
    path = tmp_path / "a.safetensors"
    random_model(NCPR).save(path)
    before = path.read_bytes()
    with pytest.raises(FileError, match=r"a\.safetensors"), small_disk(len(before) // 2):
        random_model(NCPR, seed=7).save(path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]


# ------------------------------------------------------------------------------------------------------ hostile files


def test_missing_file_and_folder(tmp_path: Path) -> None:
    check_refused(tmp_path / "missing.safetensors", "no such file; the weights that come with the package are denoise_")
    check_refused(tmp_path, "cannot read")


@pytest.mark.parametrize(
    "content", [b"", b"text", b"\x89HDF\r\n\x1a\n", b"\0" * 100, b"PK\x03\x04", b"PK\x03\x04" + b"x" * 99]
)
def test_other_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    check_refused(path)


def test_every_truncation(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    whole = save(tensors(), metadata=METADATA)
    for length in [*range(0, 1200, 7), *range(1200, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:length])
        check_refused(path)


def test_a_file_that_is_far_too_large(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(save(tensors(), metadata=METADATA))
    os.truncate(path, MAX_BYTES + 1)
    check_refused(path, "too many")


@pytest.mark.parametrize(
    ("key", "value"),
    [("format", "other-weights"), ("format", None), ("version", "2"), ("version", None), ("config", None)],
)
def test_wrong_format_or_version(tmp_path: Path, key: str, value: str | None) -> None:
    path = tmp_path / "a.safetensors"
    metadata = {k: v for k, v in {**METADATA, key: value}.items() if v is not None}
    path.write_bytes(save(tensors(), metadata=metadata))
    check_refused(path, key)


def test_no_metadata(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(save(tensors()))
    check_refused(path, "format")


@pytest.mark.parametrize("name", TENSORS)
def test_missing_tensor(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(save({key: value for key, value in tensors().items() if key != name}, metadata=METADATA))
    check_refused(path, "expected the tensors", name)


def test_extra_tensor(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(save({**tensors(), "more": torch.zeros(3)}, metadata=METADATA))
    check_refused(path, "expected the tensors", "'more'")


CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "shape": lambda t: torch.stack([t, t]),
    "empty": lambda t: t.new_zeros(0),
    "nan": lambda t: torch.where(torch.arange(t.numel()).reshape(t.shape) == t.numel() - 1, torch.nan, t),
    "infinity": lambda t: torch.full_like(t, -torch.inf),
    "integer": lambda t: t.long() + 1,
    "half": lambda t: t.half(),
    "complex": lambda t: t.to(torch.complex64),
    "bool": lambda t: t > 0,
}


@pytest.mark.parametrize("name", TENSORS)
@pytest.mark.parametrize("change", CHANGES)
def test_wrong_tensor(tmp_path: Path, name: str, change: str) -> None:
    path = tmp_path / "a.safetensors"
    changed = tensors()
    changed[name] = CHANGES[change](changed[name]).contiguous()
    path.write_bytes(save(changed, metadata=METADATA))
    check_refused(path, name)


@pytest.mark.parametrize(
    "config", ["", "{", "nonsense", "[1, 2]", "null", "3", "[" * 100_000, '{"patch_size": 5}', "9" * 5000]
)
def test_configuration_that_is_no_object(tmp_path: Path, config: str) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(save(tensors(), metadata={**METADATA, "config": config}))
    check_refused(path, "config")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("patch_size", 4),
        ("patch_size", 5.0),
        ("patch_size", "5"),
        ("patch_size", 7),
        ("patch_size", -5),
        ("n_free_atoms", True),
        ("n_free_atoms", 10**30),
        ("n_synthesis_atoms", 0),
        ("n_synthesis_atoms", None),
        ("regulariser", "l0"),
        ("regulariser", ["NCPR"]),
        ("exponent", "1.8"),
        ("exponent", 0.5),
        ("exponent", float("nan")),
        ("exponent", float("inf")),
        ("exponent", 10**400),
        ("group_size", 2),
        ("bjorck_iterations", 10**9),
        ("lam", 0),
        ("lam", -0.1),
        ("lam", float("nan")),
        ("lam", float("inf")),
        ("lam", 10**400),
        ("lam", {}),
        ("more", 1),
    ],
)
def test_wrong_configuration(tmp_path: Path, key: str, value: object) -> None:
    path = tmp_path / "a.safetensors"
    config = json.dumps({**json.loads(METADATA["config"]), key: value})
    path.write_bytes(save(tensors(), metadata={**METADATA, "config": config}))
    # 7 is a fine patch size, but not the one of these tensors.
    word = "raw_free_atoms" if value == 7 else key
    check_refused(path, word)


@pytest.mark.parametrize("key", sorted(json.loads(METADATA["config"])))
def test_missing_configuration_key(tmp_path: Path, key: str) -> None:
    path = tmp_path / "a.safetensors"
    config = json.loads(METADATA["config"])
    del config[key]
    path.write_bytes(save(tensors(), metadata={**METADATA, "config": json.dumps(config)}))
    check_refused(path, "config", key)


@pytest.mark.parametrize("kind", ["safetensors", "pth"])
def test_damaged_bytes_end_in_a_model_or_a_file_error(tmp_path: Path, kind: str) -> None:
    config = ModelConfig(patch_size=3, n_free_atoms=2, n_synthesis_atoms=3)
    path = tmp_path / "a"
    random_model(config).save(path)
    whole = path.read_bytes() if kind == "safetensors" else to_bytes(authors_checkpoint())
    generator = random.Random(0)
    for _ in range(200):
        damaged = bytearray(whole)
        for _ in range(generator.choice((1, 1, 2, 8))):
            damaged[generator.randrange(len(damaged))] = generator.randrange(256)
        path.write_bytes(damaged)
        try:
            assert isinstance(SmoothPlusSparse.load(path), SmoothPlusSparse)
        except FileError as error:
            assert str(path) in str(error)  # noqa: PT017 - both ends are right


# ----------------------------------------------------------------------------------------- the authors' checkpoints


def authors_checkpoint(convex: bool = False) -> dict[str, dict[str, object]]:
    """A small one, laid out as theirs are."""
    return {
        "state_dict": {
            "atoms": random_tensor(3, 1, 3, 3, dtype=torch.float32, seed=1),
            "free_atoms": random_tensor(2, 1, 3, 3, dtype=torch.float32, seed=2),
            "beta": torch.tensor(0.7),
            "prox.scaling_lmbda": random_tensor(1, 3, 1, 1, dtype=torch.float32, seed=3),
        },
        "config": {
            "dict_params": {"atom_size": 3, "nb_free_atoms": 2, "nb_atoms": 3},
            "prox_params": {
                "prox_type": "l1norm" if convex else "l0norm",
                "order": 1.8,
                "groupsize": 2,
                "lambda_init": 0.02,
            },
        },
        "optimizer": {},
    }


def to_bytes(content: object, **options: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("convex", [False, True])
def test_authors_checkpoint(tmp_path: Path, convex: bool) -> None:
    path = tmp_path / "sigma_7.pth"
    content = authors_checkpoint(convex)
    path.write_bytes(to_bytes(content))
    model = SmoothPlusSparse.load(path)
    assert model.config == ModelConfig(
        3, 2, 3, regulariser="CPR" if convex else "NCPR", exponent=1.8, group_size=2 if convex else 1
    )
    assert model.lam == 0.02
    state = content["state_dict"]
    assert torch.equal(model.raw_synthesis_atoms, state["atoms"][:, 0])
    assert torch.equal(model.raw_free_atoms, state["free_atoms"][:, 0])
    assert torch.equal(model.beta, state["beta"])
    # Their non-convex threshold is lam exp(s), their convex one softshrink(v e^s, lam) / e^s: lam exp(-s).
    sign = -1 if convex else 1
    expected = 0.02 * (sign * state["prox.scaling_lmbda"].flatten()).exp()
    torch.testing.assert_close(model.prior().regulariser.thresholds, expected)
    model.save(tmp_path / "converted.safetensors")
    assert SmoothPlusSparse.load(tmp_path / "converted.safetensors").fingerprint() == model.fingerprint()


def test_the_convex_prox_is_that_of_the_authors(tmp_path: Path) -> None:
    """maths.md: T(v) = softshrink(v e^s, lam) / e^s for groups of one."""
    content = authors_checkpoint(convex=True)
    content["config"]["prox_params"]["groupsize"] = 1
    path = tmp_path / "a.pth"
    path.write_bytes(to_bytes(content))
    s = content["state_dict"]["prox.scaling_lmbda"].flatten()
    v = 0.1 * random_tensor(1, 4, 4, 3, dtype=torch.float32)
    expected = torch.nn.functional.softshrink(v * s.exp(), 0.02) / s.exp()
    torch.testing.assert_close(SmoothPlusSparse.load(path).prior().regulariser.prox(v), expected)


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_authors_own_files(shared_data: Path, tmp_path: Path, name: str) -> None:
    path = shared_data / "paper_checkpoints" / f"{name}.pth"
    model = SmoothPlusSparse.load(path)
    content = torch.load(path, weights_only=True)
    convex = name.endswith("_CPR")
    assert sum(parameter.numel() for parameter in model.parameters()) == 54_281
    assert model.config == ModelConfig(
        regulariser="CPR" if convex else "NCPR",
        exponent=content["config"]["prox_params"]["order"],
        group_size=2 if convex else 1,
    )
    assert model.lam == content["config"]["prox_params"]["lambda_init"]
    state = content["state_dict"]
    s = state["prox.scaling_lmbda"].flatten() * (-1 if convex else 1)
    assert torch.equal(model.log_thresholds, s)
    assert torch.equal(model.raw_free_atoms.flatten(), state["free_atoms"].flatten())
    assert torch.equal(model.raw_synthesis_atoms.flatten(), state["atoms"].flatten())
    assert float(model.beta.detach()) == float(state["beta"])
    model.save(tmp_path / "a.safetensors")
    assert SmoothPlusSparse.load(tmp_path / "a.safetensors").fingerprint() == model.fingerprint()


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("place", ["whole", "state_dict", "config", "optimizer", "legacy", "pickle"])
def test_nothing_in_a_checkpoint_is_executed(tmp_path: Path, place: str) -> None:
    marker, path = tmp_path / "executed", tmp_path / "a.pth"
    bomb = Bomb(marker)
    if place == "pickle":
        path.write_bytes(pickle.dumps(bomb))
    elif place == "whole":
        path.write_bytes(to_bytes(bomb))
    else:
        content = authors_checkpoint()
        content[place if place in content else "config"]["more"] = bomb
        path.write_bytes(to_bytes(content, _use_new_zipfile_serialization=place != "legacy"))
    check_refused(path)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("where", "value", "word"),
    [
        (("state_dict",), None, "state_dict"),
        (("state_dict", "atoms"), None, "state_dict.atoms"),
        (("state_dict", "atoms"), [1.0], "state_dict.atoms"),
        (("state_dict", "atoms"), torch.zeros(3, 2, 3, 3), "raw_synthesis_atoms"),
        (("state_dict", "atoms"), torch.zeros(3, 0, 3, 3), "raw_synthesis_atoms"),
        (("state_dict", "atoms"), torch.eye(3).to_sparse(), "state_dict.atoms"),
        (("state_dict", "free_atoms"), torch.full((2, 1, 3, 3), torch.nan), "raw_free_atoms"),
        (("state_dict", "free_atoms"), torch.zeros(2, 1, 3, 3, dtype=torch.int32), "raw_free_atoms"),
        (("state_dict", "beta"), torch.tensor(-0.1), "beta"),
        (("state_dict", "beta"), torch.tensor([0.1, 0.2]), "beta"),
        (("state_dict", "prox.scaling_lmbda"), torch.zeros(4), "log_thresholds"),
        (("state_dict", "prox.scaling_lmbda"), torch.zeros(1).expand(10**6, 10**6), "prox.scaling_lmbda"),
        (("config",), 3, "config"),
        (("config", "dict_params"), [], "config.dict_params"),
        (("config", "dict_params", "atom_size"), 4, "patch_size"),
        (("config", "dict_params", "atom_size"), None, "patch_size"),
        (("config", "dict_params", "nb_atoms"), torch.tensor(3), "n_synthesis_atoms"),
        (("config", "prox_params", "prox_type"), "l2norm", "prox_type"),
        (("config", "prox_params", "prox_type"), ["l0norm"], "prox_type"),
        (("config", "prox_params", "order"), "two", "exponent"),
        (("config", "prox_params", "lambda_init"), None, "lam"),
        (("config", "prox_params", "lambda_init"), 0.0, "lam"),
    ],
)
def test_wrong_authors_checkpoint(tmp_path: Path, where: tuple[str, ...], value: object, word: str) -> None:
    content = authors_checkpoint()
    inner: dict[str, object] = content
    for key in where[:-1]:
        inner = inner[key]
    inner[where[-1]] = value
    path = tmp_path / "a.pth"
    path.write_bytes(to_bytes(content))
    check_refused(path, word)


def test_a_checkpoint_without_sections(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    for content in (torch.zeros(3), [1, 2], {}, {"state_dict": {}}):
        path.write_bytes(to_bytes(content))
        check_refused(path)
