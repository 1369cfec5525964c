"""Weights on disk: our own safetensors format, and the reading of the authors' checkpoints.

Format 1 (safetensors): tensors ``raw_free_atoms`` (m, p, p), ``raw_synthesis_atoms`` (n, p, p), ``log_thresholds`` (n,),
``beta`` (); where the weights have an attention, also the six tensors of :class:`mrisps.model.Attention`, with ``attention.``
before their names; header entries ``format`` = "mrisps-weights", ``version`` = "1", ``config`` (JSON of
:class:`~mrisps.model.config.ModelConfig` and ``lam``), ``source`` (free text).
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from mrisps.atomic import write_bytes
from mrisps.errors import FileError
from mrisps.model.config import ModelConfig

__all__ = ["StoredWeights", "read_weights", "write_weights"]

FORMAT = "mrisps-weights"
VERSION = "1"
TENSORS = ("raw_free_atoms", "raw_synthesis_atoms", "log_thresholds", "beta")
ATTENTION = tuple(
    f"attention.{name}" for name in ("entry", "entry_bias", "layers", "layer_biases", "exit", "exit_bias")
)
MAX_BYTES = 256 * 2**20


@dataclass(frozen=True, eq=False)
class StoredWeights:
    """What a file of weights holds: the configuration, lam, and the tensors by name."""

    config: ModelConfig
    lam: float
    tensors: Mapping[str, Tensor]


def write_weights(path: Path, weights: StoredWeights, source: str = "") -> None:
    """Write weights as ``.safetensors``, atomically.

    Raises
    ------
    FileError
        If the file cannot be written; an earlier file of that name is then untouched.
    """
    tensors = {name: weights.tensors[name].detach().cpu().contiguous() for name in weights.tensors}
    config = json.dumps({**asdict(weights.config), "lam": weights.lam}, sort_keys=True)
    metadata = {"format": FORMAT, "version": VERSION, "config": config, "source": source}
    write_bytes(path, save(tensors, metadata=metadata))


def read_weights(path: Path) -> StoredWeights:
    """Read weights from ``.safetensors`` or from one of the authors' ``.pth`` files.

    Raises
    ------
    FileError
        Names the file and, where there is one, the tensor or key that is wrong.
    """
    try:
        with path.open("rb") as stream:
            size = path.stat().st_size
            start = stream.read(9)
    except OSError as error:
        raise FileError(path, f"cannot read weights: {error.strerror or error}") from error
    if size > MAX_BYTES:
        raise FileError(path, f"{size} bytes are too many for weights (at most {MAX_BYTES})")
    if start[:4] == b"PK\x03\x04":
        return _load_authors(path)
    if len(start) == 9 and start[8:] == b"{":
        return _load_safetensors(path)
    raise FileError(path, "neither mrisps weights (.safetensors) nor one of the authors' checkpoints (.pth)")


def _load_safetensors(path: Path) -> StoredWeights:
    try:
        with safe_open(path, framework="pt") as stream:
            metadata = dict(stream.metadata() or {})
            names = set(stream.keys())
            if metadata.get("format") != FORMAT:
                raise FileError(path, f"expected {FORMAT!r}, got {metadata.get('format')!r}", field="format")
            if metadata.get("version") != VERSION:
                raise FileError(path, f"expected {VERSION!r}, got {metadata.get('version')!r}", field="version")
            if names not in (set(TENSORS), {*TENSORS, *ATTENTION}):
                raise FileError(
                    path,
                    f"expected the tensors {sorted(TENSORS)}, with {sorted(ATTENTION)} or without, got {sorted(names)}",
                )
            tensors: dict[str, Tensor] = {name: stream.get_tensor(name) for name in sorted(names)}
    except SafetensorError as error:
        raise FileError(path, f"damaged safetensors file: {error}") from error
    try:
        config = json.loads(metadata.get("config", ""))
    except (ValueError, RecursionError) as error:
        raise FileError(path, f"not JSON: {error}", field="config") from error
    return _build(path, config, tensors)


def _build(path: Path, config: object, tensors: Mapping[str, Tensor]) -> StoredWeights:
    if not isinstance(config, dict):
        raise FileError(path, "expected a JSON object", field="config")
    kinds = {field.name: type(field.default) for field in fields(ModelConfig)} | {"lam": float}
    if set(config) != set(kinds):
        raise FileError(path, f"expected the keys {sorted(kinds)}, got {sorted(map(str, config))}", field="config")
    for key, kind in kinds.items():
        value = config[key]
        if isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else kind):
            raise FileError(path, f"expected {kind.__name__}, got {value!r}", field=f"config.{key}")
        if isinstance(value, int) and value.bit_length() > 63:  # JSON has no limit: it would not fit into a float
            raise FileError(path, "expected a smaller number", field=f"config.{key}")
    lam = config.pop("lam")
    try:
        return StoredWeights(ModelConfig(**config), lam, tensors)
    except ValueError as error:
        raise FileError(path, str(error)) from error


def _load_authors(path: Path) -> StoredWeights:
    """``{"state_dict", "optimizer", "config"}`` as the authors' trainer saves it."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a pickle is a program: what damaged bytes make of it ends in any exception there is
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FileError(path, f"not a checkpoint that holds tensors and settings only: {reason}") from error
    sizes, prox, state = (
        _section(path, content, *keys)
        for keys in (("config", "dict_params"), ("config", "prox_params"), ("state_dict",))
    )
    prox_type = prox.get("prox_type")
    if prox_type not in ("l1norm", "l0norm"):
        raise FileError(path, f"expected 'l1norm' or 'l0norm', got {prox_type!r}", field="config.prox_params.prox_type")
    convex = prox_type == "l1norm"
    tensors = {}
    for ours, theirs in (
        ("raw_free_atoms", "free_atoms"),
        ("raw_synthesis_atoms", "atoms"),
        ("log_thresholds", "prox.scaling_lmbda"),
        ("beta", "beta"),
    ):
        tensor = state.get(theirs)
        if not isinstance(tensor, Tensor):
            raise FileError(path, "expected a tensor", field=f"state_dict.{theirs}")
        if tensor.layout is not torch.strided or tensor.device.type != "cpu" or tensor.numel() > MAX_BYTES:
            raise FileError(path, "expected an ordinary tensor of moderate size", field=f"state_dict.{theirs}")
        tensors[ours] = tensor
    config: dict[str, object] = {
        "patch_size": sizes.get("atom_size"),
        "n_free_atoms": sizes.get("nb_free_atoms"),
        "n_synthesis_atoms": sizes.get("nb_atoms"),
        "regulariser": "CPR" if convex else "NCPR",
        "exponent": prox.get("order"),
        "group_size": prox.get("groupsize") if convex else 1,
        "bjorck_iterations": 15,
        "lam": prox.get("lambda_init"),
    }
    for name in ("raw_free_atoms", "raw_synthesis_atoms"):
        if tensors[name].ndim == 4 and tensors[name].shape[1] == 1:
            tensors[name] = tensors[name][:, 0]  # (n, 1, p, p) -> (n, p, p)
    # Their convex threshold is lam exp(-s_i), their non-convex one lam exp(+s_i); ours is always lam exp(+log_threshold_i).
    tensors["log_thresholds"] = tensors["log_thresholds"].flatten() * (-1 if convex else 1)
    return _build(path, config, tensors)


def _section(path: Path, content: object, *keys: str) -> Mapping[str, object]:
    for key in keys:
        content = content.get(key) if isinstance(content, Mapping) else None
    if not isinstance(content, Mapping):
        raise FileError(path, "missing, or not a dictionary", field=".".join(keys))
    return content
