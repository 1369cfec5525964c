"""The state of a training on disk, in one safetensors file: a training that is resumed from it gives the same bits.

Tensors: ``model.NAME`` and ``best.NAME`` for each parameter, and ``mean.NAME`` where a running mean is kept;
``adam.NAME.exp_avg``, ``adam.NAME.exp_avg_sq`` and ``adam.NAME.step`` for each parameter that is learned.
Header entries: ``format`` = "mrisps-training", ``version`` = "1", ``state`` and ``identity`` (JSON).
"""

import json
import math
import reprlib
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from mrisps.atomic import write_bytes
from mrisps.errors import FileError, SettingsError
from mrisps.model import Attention, SmoothPlusSparse
from mrisps.model.checkpoint import ATTENTION
from mrisps.settings import Number, Range, from_plain, settings

__all__ = ["TrainingState", "load_state", "save_state"]

FORMAT = "mrisps-training"
VERSION = "1"
MAX_BYTES = 2**30
ADAM = ("exp_avg", "exp_avg_sq", "step")


@dataclass
class TrainingState:
    """How far a training is. It changes from step to step.

    Parameters
    ----------
    step
        Number of steps done, skipped ones included.
    best_parameters
        Name -> parameters with the best validation PSNR so far.
    best_psnr, best_step
        That PSNR in dB, and its step. The PSNR is None without validation.
    n_skipped, n_skipped_in_row
        Number of steps without a usable gradient: all of them, and the last ones in a row.
    losses
        Loss of every step.
    validation
        (step, PSNR in dB) of every validation.
    mean_parameters
        Name -> running mean of the parameters. Empty where none is kept.
    """

    step: int
    best_parameters: dict[str, Tensor]
    best_psnr: float | None = None
    best_step: int = 0
    n_skipped: int = 0
    n_skipped_in_row: int = 0
    losses: list[float] = field(default_factory=list)
    validation: list[tuple[int, float]] = field(default_factory=list)
    mean_parameters: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def start(cls, model: SmoothPlusSparse, averaged: bool = False) -> "TrainingState":
        """Before the first step."""
        return cls(0, _copy(model), mean_parameters=_copy(model) if averaged else {})

    def average(self, model: SmoothPlusSparse, decay: float) -> None:
        """Let the running mean follow the model, whose steps it forgets with this decay; at first it is the mean of all steps."""
        decay = min(decay, self.step / (self.step + 1))
        for name, parameter in model.named_parameters():
            self.mean_parameters[name].lerp_(parameter.detach(), 1 - decay)

    def mean_model(self, model: SmoothPlusSparse) -> SmoothPlusSparse:
        """A model like ``model`` with the mean of its parameters; itself where none is kept."""
        return _with(model, self.mean_parameters) if self.mean_parameters else model

    def record(self, step: int, loss: float, skipped: bool) -> None:
        """Take note of a step."""
        self.step = step
        self.losses.append(loss)
        self.n_skipped += skipped
        self.n_skipped_in_row = self.n_skipped_in_row + 1 if skipped else 0

    def keep_best(self, model: SmoothPlusSparse, psnr: float | None) -> bool:
        """Take note of a validation. True: it is the best so far. Without a PSNR the last parameters are the best."""
        if psnr is not None:
            self.validation.append((self.step, psnr))
        better = psnr is None or (math.isfinite(psnr) and (self.best_psnr is None or psnr > self.best_psnr))
        if better:
            self.best_psnr, self.best_step, self.best_parameters = psnr, self.step, _copy(model)
        return better

    def best_model(self, model: SmoothPlusSparse) -> SmoothPlusSparse:
        """A model like ``model`` with the best parameters."""
        return _with(model, self.best_parameters)


def save_state(
    path: Path,
    state: TrainingState,
    model: SmoothPlusSparse,
    optimiser: torch.optim.Optimizer,
    identity: dict[str, object],
) -> None:
    """Write a checkpoint, atomically: an earlier one survives a full disk.

    Raises
    ------
    FileError
        It cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        tensors[f"model.{name}"] = parameter.detach()
        tensors[f"best.{name}"] = state.best_parameters[name]
        if state.mean_parameters:
            tensors[f"mean.{name}"] = state.mean_parameters[name]
        for key in ADAM:
            if parameter in optimiser.state:
                tensors[f"adam.{name}.{key}"] = optimiser.state[parameter][key]
    tensors = {name: tensor.cpu().contiguous().clone() for name, tensor in tensors.items()}
    plain = {key: value for key, value in asdict(state).items() if not key.endswith("_parameters")}
    metadata = {"format": FORMAT, "version": VERSION, "state": json.dumps(plain), "identity": json.dumps(identity)}
    write_bytes(path, save(tensors, metadata=metadata))


def load_state(
    path: Path,
    model: SmoothPlusSparse,
    optimiser: torch.optim.Optimizer,
    identity: dict[str, object],
    averaged: bool = False,
) -> TrainingState:
    """Read a checkpoint into a model and its optimiser; ``averaged``: with the mean of its parameters.

    Raises
    ------
    FileError
        The file cannot be read, is damaged, or belongs to another training; the message names what differs.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise FileError(path, f"too large for a checkpoint (at most {MAX_BYTES} bytes)")
        with safe_open(path, framework="pt") as stream:
            metadata = dict(stream.metadata() or {})
            if metadata.get("format") != FORMAT:
                raise FileError(path, f"expected {FORMAT!r}, got {metadata.get('format')!r}", field="format")
            if metadata.get("version") != VERSION:
                raise FileError(path, f"expected {VERSION!r}, got {metadata.get('version')!r}", field="version")
            tensors: dict[str, Tensor] = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118  # no mapping
    except SafetensorError as error:
        raise FileError(path, f"damaged checkpoint: {error}") from error
    except OSError as error:
        raise FileError(path, f"cannot read the checkpoint: {error.strerror or error}") from error
    stored = _json_object(path, metadata, "identity")
    differences = _differences(json.loads(json.dumps(identity)), stored)
    if differences:
        raise FileError(
            path,
            "belongs to another training: "
            + "; ".join(differences[:5])
            + ". To go on with other settings or images, start a new training from the weights so far (start='weights')",
            field="identity",
        )
    state = _state(path, _json_object(path, metadata, "state"))
    learned = {parameter for group in optimiser.param_groups for parameter in group["params"]}
    has_moved = state.n_skipped < state.step  # Adam has no state before its first step
    values: dict[str, Tensor] = {}
    moments: dict[str, dict[str, Tensor]] = {}
    for name, parameter in model.named_parameters():
        values[name] = _tensor(path, tensors, f"model.{name}", parameter)
        state.best_parameters[name] = _tensor(path, tensors, f"best.{name}", parameter)
        if averaged:
            state.mean_parameters[name] = _tensor(path, tensors, f"mean.{name}", parameter)
        if has_moved and parameter in learned:
            moments[name] = {
                key: _tensor(path, tensors, f"adam.{name}.{key}", torch.zeros(()) if key == "step" else parameter)
                for key in ADAM
            }
    with torch.no_grad():  # only now: what is refused leaves the model as it was
        for name, parameter in model.named_parameters():
            parameter.copy_(values[name])
            if name in moments:
                optimiser.state[parameter] = moments[name]
    return state


def _tensor(path: Path, tensors: dict[str, Tensor], name: str, like: Tensor) -> Tensor:
    tensor = tensors.get(name)
    if tensor is None:
        raise FileError(path, "is missing", field=name)
    if tensor.shape != like.shape or tensor.dtype != like.dtype:
        raise FileError(
            path, f"expected {like.dtype} {tuple(like.shape)}, got {tensor.dtype} {tuple(tensor.shape)}", field=name
        )
    if not bool(tensor.isfinite().all()):
        raise FileError(path, "expected finite numbers", field=name)
    return tensor.to(like.device, copy=True)  # what safetensors gives is mapped from the file


def _json_object(path: Path, metadata: dict[str, str], key: str) -> dict[str, object]:
    try:
        value = json.loads(metadata.get(key, ""))
    except (ValueError, RecursionError) as error:
        raise FileError(path, f"not JSON: {error}", field=key) from error
    if not isinstance(value, dict):
        raise FileError(path, "expected a JSON object", field=key)
    return value


Whole = Annotated[int, Range(ge=0, lt=2**53)]


@settings
@dataclass(frozen=True)
class _Plain:
    """The state besides its parameters, as it is in the file."""

    step: Whole
    best_psnr: Number | None
    best_step: Whole
    n_skipped: Whole
    n_skipped_in_row: Whole
    losses: tuple[float, ...]
    validation: tuple[tuple[Whole, float], ...]

    def __post_init__(self) -> None:
        if len(self.losses) != self.step:
            raise SettingsError("losses", f"expected a list of {self.step} numbers, one for each step")


def _state(path: Path, plain: dict[str, object]) -> TrainingState:
    plain.pop("n_looks_since_best", None)  # in files of earlier versions
    try:
        known = from_plain(_Plain, plain)
    except SettingsError as error:
        raise FileError(path, error.message, field=f"state.{error.key}") from error
    values = {entry.name: getattr(known, entry.name) for entry in fields(known)}
    lists = {"losses": list(known.losses), "validation": list(known.validation)}
    return TrainingState(**{**values, **lists, "best_parameters": {}})


def _differences(wanted: object, stored: object, path: str = "") -> list[str]:
    """Where two trees of plain values differ, in words."""
    if isinstance(wanted, dict) and isinstance(stored, dict):
        keys = sorted({*wanted, *stored}, key=str)
        return [
            line
            for key in keys
            for line in _differences(wanted.get(key), stored.get(key), f"{path}.{key}" if path else str(key))
        ]
    return [] if wanted == stored else [f"{path} is {reprlib.repr(stored)} there and {reprlib.repr(wanted)} here"]


def _with(model: SmoothPlusSparse, parameters: dict[str, Tensor]) -> SmoothPlusSparse:
    """A model like this one with other parameters."""
    return SmoothPlusSparse(
        model.config,
        parameters["raw_free_atoms"],
        parameters["raw_synthesis_atoms"],
        parameters["log_thresholds"],
        parameters["beta"],
        model.lam,
        model.attention and Attention(*(parameters[name] for name in ATTENTION)),
    )


def _copy(model: SmoothPlusSparse) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
