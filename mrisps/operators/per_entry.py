"""One operator for each entry of a batch."""

from collections.abc import Callable, Sequence

import torch

from mrisps.operators.linear import LinearOperator

__all__ = ["PerEntry"]


class PerEntry(LinearOperator):
    """``A x = (w_1 A_1 x_1, ..., w_n A_n x_n)``: entry i of a batch goes through operator i, times a weight.

    So slices with maps or masks of their own go through one solve. Batches have as many entries as there are operators.

    Parameters
    ----------
    operators
        All of the same spaces: shapes, dtypes, device.
    weights
        One a operator, > 0; None: all 1.

    Raises
    ------
    ValueError
        There are none, the spaces differ, or there is not one weight for each.
    """

    def __init__(self, operators: Sequence[LinearOperator], weights: Sequence[float] | None = None) -> None:
        if not operators:
            raise ValueError("operators: expected at least one")
        first = operators[0]
        for number, one in enumerate(operators):
            if (one._domain, one._range) != (first._domain, first._range):
                raise ValueError(f"operators: number {number} has other spaces than the first: {one!r}, {first!r}")
        super().__init__(
            domain_shape=first.domain_shape,
            range_shape=first.range_shape,
            domain_dtype=first.domain_dtype,
            range_dtype=first.range_dtype,
            device=first.device,
        )
        self._operators = tuple(operators)
        self._weights = (1.0,) * len(operators) if weights is None else tuple(weights)
        if len(self._weights) != len(operators) or not all(weight > 0 for weight in self._weights):
            raise ValueError(f"weights: expected {len(operators)} numbers > 0, got {self._weights}")

    def _forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._each(x, lambda one, entry, weight: one._forward(entry).mul_(weight))

    def _adjoint(self, y: torch.Tensor) -> torch.Tensor:
        return self._each(y, lambda one, entry, weight: one._adjoint(entry).mul_(weight))

    def _normal(self, x: torch.Tensor) -> torch.Tensor:
        return self._each(x, lambda one, entry, weight: one._normal(entry).mul_(weight**2))

    def _each(
        self, x: torch.Tensor, apply: Callable[[LinearOperator, torch.Tensor, float], torch.Tensor]
    ) -> torch.Tensor:
        if len(x) != len(self._operators):
            raise ValueError(f"batch: expected {len(self._operators)} entries, one for each operator, got {len(x)}")
        return torch.cat([apply(*entry) for entry in zip(self._operators, x[:, None], self._weights, strict=True)])

    def take(self, entries: torch.Tensor) -> "PerEntry":
        """The operators of these entries."""
        chosen = entries.cpu().tolist()
        return PerEntry([self._operators[i] for i in chosen], [self._weights[i] for i in chosen])

    @property
    def n_measurements(self) -> int:
        """The most that an entry has."""
        return max(one.n_measurements for one in self._operators)

    def normal_transfer_function(self) -> torch.Tensor | None:
        """``(batch, 1, y, x)``: one for each entry; None if an operator has none."""
        return self._stacked([one.normal_transfer_function() for one in self._operators], n_axes=4)

    def normal_circulant(self) -> torch.Tensor | None:
        """``(batch, set, y, x)``: one for each entry; None if an operator has none."""
        return self._stacked([one.normal_circulant() for one in self._operators], n_axes=4)

    def _stacked(self, functions: Sequence[torch.Tensor | None], n_axes: int) -> torch.Tensor | None:
        known = [one * weight**2 for one, weight in zip(functions, self._weights, strict=True) if one is not None]
        if len(known) < len(functions):
            return None
        stacked = torch.stack(known)
        return stacked if stacked.ndim == n_axes else stacked[:, None]

    def restricted(self, y: torch.Tensor, shape: tuple[int, int]) -> "tuple[PerEntry, torch.Tensor] | None":
        """Each operator on the coarser grid; None if one has none."""
        coarse = [one.restricted(entry, shape) for one, entry in zip(self._operators, y[:, None], strict=True)]
        known = [pair for pair in coarse if pair is not None]
        if len(known) < len(coarse):
            return None
        return PerEntry([one for one, _ in known], self._weights), torch.cat([entry for _, entry in known])

    def norm(self, tolerance: float = 1e-6) -> float:
        """The largest of the norms."""
        return max(weight * one.norm(tolerance) for one, weight in zip(self._operators, self._weights, strict=True))

    def __repr__(self) -> str:
        return f"PerEntry({len(self._operators)} x {self._operators[0]!r})"
