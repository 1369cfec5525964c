"""The identity: what denoising measures."""

import torch

from mrisps.operators.algebra import Chain
from mrisps.operators.linear import LinearOperator
from mrisps.operators.spaces import image_shape, real_dtype

__all__ = ["Identity"]


class Identity(LinearOperator):
    """``A x = x``: denoising.

    Parameters
    ----------
    shape
        ``(y, x)`` for images ``(batch, 1, y, x)``, or ``(channel, y, x)``.
    dtype
        Data type of the images.
    device
        Device of the images.
    """

    def __init__(
        self, shape: tuple[int, ...], dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
    ) -> None:
        full = image_shape(shape)
        super().__init__(domain_shape=full, range_shape=full, domain_dtype=dtype, range_dtype=dtype, device=device)

    def _forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    def _adjoint(self, y: torch.Tensor) -> torch.Tensor:
        return y.clone()

    def _normal(self, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    def normal_transfer_function(self) -> torch.Tensor:
        """One at every frequency, shape ``(y, x)``."""
        return torch.ones(self._domain_shape[-2:], dtype=real_dtype(self._domain_dtype), device=self._device)

    @property
    def H(self) -> LinearOperator:
        """The identity is its own adjoint."""
        return self

    @property
    def _terms(self) -> tuple[Chain, ...]:
        return ((),)
