"""Gradients of linear functions: the gradient of ``A`` is ``A^H``, at any order."""

from collections.abc import Callable
from typing import cast

import torch

Function = Callable[[torch.Tensor], torch.Tensor]


def apply_linear(function: Function, adjoint: Function, value: torch.Tensor) -> torch.Tensor:
    """``function(value)``, differentiable although neither function need be.

    Parameters
    ----------
    function
        A linear function of one tensor.
    adjoint
        Its adjoint with respect to the inner product ``Re <a, b>``.
    value
        The argument.
    """
    return cast(torch.Tensor, _Linear.apply(function, adjoint, value))  # type: ignore[no-untyped-call]  # torch: untyped


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(function: Function, adjoint: Function, value: torch.Tensor) -> torch.Tensor:
        del adjoint
        return function(value)

    @staticmethod
    def setup_context(
        ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Function, Function, torch.Tensor], output: torch.Tensor
    ) -> None:
        ctx.function, ctx.adjoint, _ = inputs  # type: ignore[attr-defined]  # set here

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *gradients: torch.Tensor) -> tuple[None, None, torch.Tensor]:
        return None, None, apply_linear(ctx.adjoint, ctx.function, gradients[0])  # type: ignore[attr-defined]  # set above

    @staticmethod
    def jvp(ctx: torch.autograd.function.FunctionCtx, *tangents: torch.Tensor) -> torch.Tensor:
        return apply_linear(ctx.function, ctx.adjoint, tangents[-1])  # type: ignore[attr-defined]  # set above
