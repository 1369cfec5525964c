"""What is drawn in every step of a training on k-space: mask, coil array, phase and noise."""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from mrisps.errors import SettingsError
from mrisps.operators import FourierSubsampling, LinearOperator, Sense
from mrisps.sampling import MASK_KINDS, make_mask
from mrisps.settings import Count, NonNegative, Number, Positive, Range, settings

__all__ = ["ScanRule", "coil_array", "smooth_phase"]

Acceleration = Annotated[Number, Range(ge=1)]


@settings
@dataclass(frozen=True)
class ScanRule:
    """How the scans of a training differ. Mask and coil array are drawn for each batch, the phase for each image.

    Parameters
    ----------
    kinds
        Kinds of masks, see :data:`mrisps.sampling.MASK_KINDS`; each is as likely as the others.
    acceleration
        (smallest, largest) nominal acceleration; its logarithm is drawn with equal probability. It is rounded to a whole number.
    center
        The centre is this over the acceleration, as a fraction of the columns (of both axes for ``poisson``): 0.32 is 4 % at
        8-fold, as in fastMRI.
    coils
        Numbers of receive coils; each is as likely as the others. 1 is a single coil that sees all pixels alike.
    phase
        Largest phase of the images, in rad. 0: the images keep the phase that they have.
    """

    kinds: tuple[str, ...] = ("random",)
    acceleration: tuple[Acceleration, Acceleration] = (4.0, 16.0)
    center: Positive = 0.32
    coils: tuple[Count, ...] = (1,)
    phase: NonNegative = 0.0

    def __post_init__(self) -> None:
        if not self.kinds or not set(self.kinds) <= set(MASK_KINDS):
            raise SettingsError("kinds", f"expected some of {', '.join(MASK_KINDS)}, got {self.kinds}")
        if not self.coils:
            raise SettingsError("coils", "expected one number of coils or more")
        if not self.acceleration[0] <= self.acceleration[1]:
            raise SettingsError("acceleration", f"expected (smallest, largest), got {self.acceleration}")
        if self.center > self.acceleration[0]:
            raise SettingsError("center", f"expected at most the smallest acceleration, got {self.center}")

    @property
    def needs_complex_images(self) -> bool:
        """Whether no real image fits: they have a phase, or coils see them."""
        return self.phase > 0 or max(self.coils) > 1

    def operator(
        self, shape: tuple[int, int], generator: torch.Generator, dtype: torch.dtype, device: torch.device
    ) -> LinearOperator:
        """One scan of images (y, x): Fourier subsampling for a single coil, else SENSE with one set of maps."""
        low, high = (math.log(value) for value in self.acceleration)
        share = float(torch.rand((), generator=generator, dtype=torch.float64))
        acceleration = round(math.exp(low + share * (high - low)))
        kind = self.kinds[int(torch.randint(len(self.kinds), (), generator=generator))]
        n_coils = self.coils[int(torch.randint(len(self.coils), (), generator=generator))]
        seed = int(torch.randint(2**31, (), generator=generator))
        mask = make_mask(kind, shape, acceleration, self.center / acceleration, seed=seed)
        if n_coils == 1:
            return FourierSubsampling(mask, shape, dtype, device)
        return Sense(mask, coil_array(n_coils, shape, generator), dtype, device)


def coil_array(n_coils: int, shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Maps of coils on a ring around the image, drawn at random, (coil, y, x) complex64 with sum |S|^2 = 1.

    The sensitivity falls with the distance r from the coil as (1 + r^2 / w^2)^-3/2, the field on the axis of a loop of radius w;
    the phase turns with the direction from the coil.
    """

    def draw(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float64))

    y = torch.linspace(-1, 1, shape[0], dtype=torch.float64)[:, None]
    x = torch.linspace(-1, 1, shape[1], dtype=torch.float64)[None, :]
    radius, width, first = draw(1.5, 2.0), draw(0.6, 1.2), draw(0, 2 * math.pi)
    coils = []
    for number in range(n_coils):
        angle = first + 2 * math.pi * (number + draw(-0.2, 0.2)) / n_coils
        dy, dx = y - radius * math.sin(angle), x - radius * math.cos(angle)
        size = (1 + (dy**2 + dx**2) / width**2) ** -1.5 * draw(0.7, 1.3)
        coils.append(torch.polar(size, torch.atan2(dy, dx) + draw(0, 2 * math.pi)))
    maps = torch.stack(coils)
    unit: Tensor = (maps / torch.linalg.vector_norm(maps, dim=0)).to(torch.complex64)
    return unit


def smooth_phase(shape: tuple[int, int], largest: float, generator: torch.Generator) -> Tensor:
    """exp(i phase), (y, x) complex64: a random polynomial of degree 3, whose largest absolute value is drawn up to ``largest``."""
    y = torch.linspace(-1, 1, shape[0], dtype=torch.float64)[:, None]
    x = torch.linspace(-1, 1, shape[1], dtype=torch.float64)[None, :]
    phase = torch.zeros(shape, dtype=torch.float64)
    for power_y, power_x in ((i, j) for i in range(4) for j in range(4 - i)):
        phase += torch.randn((), generator=generator, dtype=torch.float64) * y**power_y * x**power_x
    phase *= largest * torch.rand((), generator=generator, dtype=torch.float64) / phase.abs().max()
    return torch.polar(torch.ones_like(phase), phase).to(torch.complex64)
