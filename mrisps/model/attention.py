"""Thresholds that attend to the image: a map of multiples of the thresholds, predicted from a first reconstruction.

    lam_k(p) = lam_k exp(g_k(p)),        g = network( log(1 + |a_k| / lam_k) )

The network sees how active each atom is around a patch, and says for each atom whether its threshold should be lower or higher
there. The map is made once, from the coefficients of a first reconstruction, and then held: the second energy is as explicit as
the first, and certificate, hypergradient and proofs are those of any energy.

The network has few numbers: 1 x 1 patches to ``width`` channels, residual layers of 3 x 3 patches, and 1 x 1 to the atoms. Where
the last layer is 0, nothing changes; training starts there.

Source: M. Pourya, S. Neumayer and M. Unser, arXiv 2407.06608 (masks from the solution before, in a series of problems).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from mrisps.model.shrinkage import Regulariser

__all__ = ["Attention"]

WIDTH = 48
"""Channels of an attention that is made here."""

LIMIT = 3.0
"""A threshold is multiplied by exp(-LIMIT) to exp(LIMIT)."""


class Attention(nn.Module):
    """The map of multiples, for n atoms.

    Parameters
    ----------
    entry, entry_bias
        (width, n) and (width,): from the atoms to the channels.
    layers, layer_biases
        (depth, width, width, 3, 3) and (depth, width): h + W relu(h) + b, one after the other.
    exit, exit_bias
        (n, width) and (n,): from relu(h) to g.

    Raises
    ------
    ValueError
        If the shapes do not belong together, or a number is not finite.
    """

    entry: nn.Parameter
    entry_bias: nn.Parameter
    layers: nn.Parameter
    layer_biases: nn.Parameter
    exit: nn.Parameter
    exit_bias: nn.Parameter

    def __init__(
        self, entry: Tensor, entry_bias: Tensor, layers: Tensor, layer_biases: Tensor, exit: Tensor, exit_bias: Tensor
    ) -> None:
        super().__init__()
        tensors = {
            "entry": entry,
            "entry_bias": entry_bias,
            "layers": layers,
            "layer_biases": layer_biases,
            "exit": exit,
            "exit_bias": exit_bias,
        }
        n, width = tuple(exit.shape) if exit.ndim == 2 else (0, 0)
        depth = len(layers) if layers.ndim else 0
        shapes = ((width, n), (width,), (depth, width, width, 3, 3), (depth, width), (n, width), (n,))
        for (name, tensor), shape in zip(tensors.items(), shapes, strict=True):
            if tuple(tensor.shape) != shape or not n * width:
                raise ValueError(f"attention.{name}: expected the shape {shape}, got {tuple(tensor.shape)}")
            if tensor.dtype not in (torch.float32, torch.float64) or not bool(tensor.isfinite().all()):
                raise ValueError(f"attention.{name}: expected finite real numbers")
            setattr(self, name, nn.Parameter(tensor.detach().clone()))

    @classmethod
    def zeros(cls, n_atoms: int, seed: int = 0) -> "Attention":
        """One that changes nothing, to start from: its last layer is 0, the others are random."""
        generator = torch.Generator().manual_seed(seed)

        def random(*shape: int) -> Tensor:
            fan_in = shape[-1] if len(shape) == 2 else 9 * shape[2]
            return (2 * torch.rand(shape, generator=generator) - 1).div_(fan_in**0.5)

        layers = random(2, WIDTH, WIDTH, 3, 3)
        none, nothing = torch.zeros(WIDTH), torch.zeros(n_atoms)
        return cls(random(WIDTH, n_atoms), none, layers, torch.zeros(2, WIDTH), torch.zeros(n_atoms, WIDTH), nothing)

    @property
    def n_atoms(self) -> int:
        """Number n of atoms that it is for."""
        return len(self.exit_bias)

    def thresholds(self, coefficients: Tensor, regulariser: Regulariser) -> Tensor:
        """lam_k(p), differentiable in the numbers of the network.

        Parameters
        ----------
        coefficients
            Of the first reconstruction, (rows, y, x, n), held.
        regulariser
            Of the first energy: its thresholds are (n,). Where it shrinks pairs, the activity is that of their modulus.

        Returns
        -------
        Tensor
            (rows, y, x, n), for the second energy. Where the network sees NaN or infinity, the thresholds stay.

        Raises
        ------
        ValueError
            If it is for another number of atoms.
        """
        own = regulariser.thresholds
        if own.shape != (self.n_atoms,):
            raise ValueError(f"attention: is for {self.n_atoms} atoms, got thresholds of shape {tuple(own.shape)}")
        size = coefficients.detach().to(own.dtype).abs()
        if regulariser.pairs:
            size = torch.hypot(size[0::2], size[1::2])
        activity = size.div_(own).log1p_()  # in place: these are arrays of the size of the coefficients
        hidden = functional.linear(activity, self.entry.to(own), self.entry_bias.to(own)).movedim(-1, 1)
        del size, activity
        for weight, bias in zip(self.layers.to(own), self.layer_biases.to(own), strict=True):
            padded = functional.pad(functional.relu(hidden), (1, 1, 1, 1), mode="circular")
            hidden = hidden + functional.conv2d(padded, weight, bias)
        g = functional.linear(functional.relu(hidden).movedim(1, -1), self.exit.to(own), self.exit_bias.to(own))
        multiples = g.nan_to_num_(0.0, 0.0, 0.0).clamp_(-LIMIT, LIMIT).exp_()
        thresholds: Tensor = own * multiples if multiples.requires_grad else multiples.mul_(own)
        return thresholds.repeat_interleave(2, dim=0) if regulariser.pairs else thresholds
