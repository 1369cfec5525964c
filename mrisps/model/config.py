"""What a model is, besides its learned numbers, and how its prior is laid over an image."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from mrisps.settings import Count, Index, Number, Range, settings

__all__ = ["ModelConfig", "PriorUse"]


@settings
@dataclass(frozen=True)
class ModelConfig:
    """The shape of a model: everything about it that is not learned.

    Parameters
    ----------
    patch_size
        Side p of a patch in pixels, an odd number.
    n_free_atoms
        Number m of free atoms, from 0 to p^2 - 2. The constant patch is free in any case.
    n_synthesis_atoms
        Number n of synthesis atoms.
    regulariser
        ``"NCPR"``: non-convex, smooth shrinkage. ``"CPR"``: convex, group soft threshold.
    exponent
        Exponent g of the smooth shrinkage, for NCPR.
    group_size
        Side of a group in pixels, for CPR.
    bjorck_iterations
        Iterations of the orthonormalisation of the free atoms.
    """

    patch_size: Annotated[int, Range(ge=3)] = 13
    n_free_atoms: Index = 120
    n_synthesis_atoms: Count = 200
    regulariser: Literal["NCPR", "CPR"] = "NCPR"
    exponent: Annotated[Number, Range(ge=1)] = 1.8
    group_size: Count = 1
    bjorck_iterations: Annotated[int, Range(ge=1, le=100)] = 15

    def __post_init__(self) -> None:
        n_pixels = self.patch_size**2
        if self.patch_size % 2 == 0:
            raise ValueError(f"patch_size: expected an odd number >= 3, got {self.patch_size}")
        if self.n_free_atoms > n_pixels - 2:
            raise ValueError(f"n_free_atoms: expected 0 to {n_pixels - 2} for this patch size, got {self.n_free_atoms}")
        object.__setattr__(self, "exponent", float(self.exponent))  # 2 and 2.0 are one model, with one fingerprint
        if self.regulariser == "NCPR" and self.group_size != 1:
            raise ValueError(f"group_size: expected 1 for NCPR, got {self.group_size}")


@settings
@dataclass(frozen=True)
class PriorUse:
    """How the prior is laid over an image. The default is the paper's model.

    Parameters
    ----------
    stride
        1: every patch counts. s: the patches count that are centred on every s-th pixel of every s-th row, each s^2 times. This
        takes 1 / s^2 of the time. Image sizes have to be multiples of s.
    modulus
        For complex images. True shrinks the modulus of a complex coefficient, so a constant phase has no effect. False shrinks its
        real and its imaginary part apart.
    """

    GONE: ClassVar = {"nonnegative": False}

    stride: Annotated[int, Range(ge=1, le=4)] = 1
    modulus: bool = False
