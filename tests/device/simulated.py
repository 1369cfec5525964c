"""A simulated accelerator: tensors of a device that no CPU tensor may be mixed with, and a count of what waits for the device.

PyTorch lets Python programs define a device (its key is called PrivateUse1). A tensor of this one wraps a CPU tensor. Every
operation arrives in ``__torch_dispatch__``. It is done on the CPU, unless CPU tensors were given beside those of the device: that
is the mistake that a real accelerator reports. Numbers are computed as on the CPU, so results can be compared digit for digit.

The interface is experimental, and the tests pin the versions of PyTorch that it was tried with.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.backend_registration import (
    _DummyBackendModule,
    _setup_privateuseone_for_python_backend,
)

__all__ = ["DEVICE", "Transfers", "counted_transfers", "register"]

DEVICE = "simulated:0"
TRIED = ("2.9", "2.10", "2.11", "2.12", "2.13")

aten = torch.ops.aten
WAITS = {aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default, aten.equal.default}
"""Operations that wait for the device: the host has to know a number, or how many there are."""


@dataclass
class Transfers:
    """How often the host waited for the device, and for which operations."""

    count: int = 0
    operations: list[str] = field(default_factory=list)


_counters: list[Transfers] = []


@contextmanager
def counted_transfers() -> Iterator[Transfers]:
    """Count while the block runs."""
    counter = Transfers()
    _counters.append(counter)
    try:
        yield counter
    finally:
        _counters.remove(counter)


def _waited(operation: object) -> None:
    for counter in _counters:
        counter.count += 1
        counter.operations.append(str(operation))


class SimulatedTensor(Tensor):
    """A tensor of the simulated device; ``held`` is the CPU tensor with its numbers."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "SimulatedTensor":
        tensor: SimulatedTensor = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=DEVICE,
        )
        tensor.held = held
        return tensor

    def __repr__(self, *, tensor_contents: object = None) -> str:
        del tensor_contents
        return f"SimulatedTensor({self.held})"

    @classmethod
    def __torch_dispatch__(
        cls, function: Any, types: object, arguments: tuple[Any, ...] = (), options: dict[str, Any] | None = None
    ) -> Any:
        del types
        options = dict(options or {})
        given = [value for value in tree_leaves((arguments, options)) if isinstance(value, Tensor)]
        if function in (aten._to_copy.default, aten.copy_.default):
            to_host = function is aten._to_copy.default and options.get("device", given[0].device).type == "cpu"
            to_host = to_host or not isinstance(given[0], SimulatedTensor)  # copy_ into a CPU tensor
            if to_host:
                _waited(function)
        else:
            to_host = False
            strangers = [value for value in given if not isinstance(value, SimulatedTensor) and value.ndim > 0]
            if strangers:
                raise RuntimeError(f"{function}: tensors on {DEVICE} and on {strangers[0].device}")
            by_bools = function is aten.index.Tensor and any(
                index is not None and index.dtype == torch.bool for index in arguments[1]
            )
            if function in WAITS or by_bools:
                _waited(function)
        if "device" in options:
            options["device"] = torch.device("cpu")
        plain, plain_options = tree_map_only(SimulatedTensor, lambda value: value.held, (arguments, options))
        if function is aten.copy_.default and plain[0].data_ptr() == plain[1].data_ptr():
            return given[
                0
            ]  # matmul(out=...) ends by copying its result, which is in place, onto itself in another shape
        made = function(*plain, **plain_options)
        # What was given to be written into is what comes back: the wrapper itself, not another one of the same numbers.
        known = {id(value.held): value for value in given if isinstance(value, SimulatedTensor)}
        if to_host:
            return given[0] if function is aten.copy_.default else made
        return tree_map_only(Tensor, lambda value: known[id(value)] if id(value) in known else _wrapped(value), made)


def _wrapped(held: Tensor) -> SimulatedTensor:
    # A wrapper cannot say that a conjugation or a sign is still pending: it is done at once.
    return SimulatedTensor(held.resolve_conj().resolve_neg())


class _Module(_DummyBackendModule):
    """What ``torch.manual_seed`` asks a device for."""

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None:
        del seed


def _empty(size: list[int], **options: Any) -> SimulatedTensor:
    layout = {"memory_format": options["memory_format"]} if options.get("memory_format") is not None else {}
    return SimulatedTensor(torch.empty(size, dtype=options.get("dtype"), **layout))


def _empty_strided(size: list[int], stride: list[int], **options: Any) -> SimulatedTensor:
    return SimulatedTensor(torch.empty_strided(size, stride, dtype=options.get("dtype")))


_library: list[torch.library.Library] = []


def register() -> None:
    """Make the device known to this process; nothing else changes in it. Harmless when done twice."""
    if _library:
        return
    if not torch.__version__.startswith(tuple(f"{version}." for version in TRIED)):
        raise RuntimeError(f"torch {torch.__version__}: the simulated device was tried with {', '.join(TRIED)}")
    _setup_privateuseone_for_python_backend("simulated", backend_module=_Module())
    library = torch.library.Library("aten", "IMPL")
    implementations: dict[str, Callable[..., Tensor]] = {
        "empty.memory_format": _empty,
        "empty_strided": _empty_strided,
    }
    for name, implementation in implementations.items():
        library.impl(name, implementation, "PrivateUse1")
    _library.append(library)
