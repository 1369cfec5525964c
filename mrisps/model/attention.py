"""Thresholds that attend to the image: a map of multiples of the thresholds, predicted from a first reconstruction.

    lam_k(p) = lam_k exp(g_k(p)),        g(p) = W s(p) + b,        s_k(p) = mean over 3 x 3 patches of log(1 + |a_k| / lam_k)

s says how active each atom is around a patch. Where its neighbours tell that an atom belongs to the image, its threshold falls,
and where nothing speaks for it, the threshold rises. The map is made once, from the coefficients of a first reconstruction, and
then held: the second energy is as explicit as the first, and certificate, hypergradient and proofs are those of any energy.

W = 0 and b = 0 change nothing; training starts there.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from mrisps.model.energy import Energy
from mrisps.model.shrinkage import Regulariser

__all__ = ["Attention"]

NEIGHBOURS = 3
"""Side of the square of patches whose coefficients are looked at."""

LIMIT = 3.0
"""A threshold is multiplied by exp(-LIMIT) to exp(LIMIT)."""


class Attention(nn.Module):
    """The map of multiples, for n atoms.

    Parameters
    ----------
    weight
        W, (n, n): how the activity of atom j moves the log-threshold of atom i.
    bias
        b, (n,).

    Raises
    ------
    ValueError
        If the shapes do not belong together, or a number is not finite.
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        n = len(bias) if bias.ndim == 1 else 0
        if n == 0 or weight.shape != (n, n):
            raise ValueError(f"attention: expected (n, n) and (n,), got {tuple(weight.shape)} and {tuple(bias.shape)}")
        for name, tensor in (("weight", weight), ("bias", bias)):
            if tensor.dtype not in (torch.float32, torch.float64) or not bool(tensor.isfinite().all()):
                raise ValueError(f"attention.{name}: expected finite real numbers")
        self.weight = nn.Parameter(weight.detach().clone())
        self.bias = nn.Parameter(bias.detach().clone())

    @classmethod
    def zeros(cls, n_atoms: int) -> "Attention":
        """The one that changes nothing."""
        return cls(torch.zeros(n_atoms, n_atoms), torch.zeros(n_atoms))

    @property
    def n_atoms(self) -> int:
        """Number n of atoms that it is for."""
        return len(self.bias)

    def thresholds(self, coefficients: Tensor, regulariser: Regulariser) -> Tensor:
        """lam_k(p), differentiable in weight and bias.

        Parameters
        ----------
        coefficients
            Of the first reconstruction, (rows, y, x, n), held.
        regulariser
            Of the first energy: its thresholds are (n,). Where it shrinks pairs, the activity is that of their modulus.

        Returns
        -------
        Tensor
            (rows, y, x, n), for the second energy.

        Raises
        ------
        ValueError
            If it is for another number of atoms.
        """
        own = regulariser.thresholds
        if own.shape != (self.n_atoms,):
            raise ValueError(f"attention: is for {self.n_atoms} atoms, got thresholds of shape {tuple(own.shape)}")
        activity = self._activity(coefficients.detach(), regulariser)
        g = functional.linear(activity, self.weight.to(activity), self.bias.to(activity)).clamp(-LIMIT, LIMIT)
        thresholds = own * g.exp()
        return thresholds.repeat_interleave(2, dim=0) if regulariser.pairs else thresholds

    def second_energy(self, energy: Energy, coefficients: Tensor) -> Energy:
        """The energy with the thresholds that these coefficients give, which are held."""
        with torch.no_grad():
            thresholds = self.thresholds(coefficients, energy.prior.regulariser)
        return replace(energy, prior=energy.prior.with_thresholds(thresholds))

    def _activity(self, coefficients: Tensor, regulariser: Regulariser) -> Tensor:
        """s, (rows, y, x, n); one row for each pair."""
        size = coefficients.to(regulariser.thresholds.dtype).abs()
        if regulariser.pairs:
            size = torch.hypot(size[0::2], size[1::2])
        images = torch.log1p(size.div_(regulariser.thresholds)).movedim(-1, 1)
        margin = NEIGHBOURS // 2
        padded = functional.pad(images, (margin,) * 4, mode="circular")
        mean: Tensor = functional.avg_pool2d(padded, NEIGHBOURS, 1).movedim(1, -1)
        return mean
