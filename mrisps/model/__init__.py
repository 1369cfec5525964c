"""The mathematics of the model: arXiv 2412.13070, Ducotterd, Neumayer and Unser.

=====================================================  ==============================================================
in the paper                                           here
=====================================================  ==============================================================
patches P_k, projector Phat_k                          :func:`~mrisps.model.patches.extract_patches`,
                                                       :class:`~mrisps.model.patches.PatchTransform`
constraints on Q and D                                 :mod:`mrisps.model.atoms`
regularisers (CPR, NCPR): prox, its derivative, R      :mod:`mrisps.model.shrinkage`
energy, gradients, stationarity                        :class:`~mrisps.model.energy.Energy`
thresholds that attend to the image (not the paper's)  :class:`~mrisps.model.attention.Attention`
the learned model                                      :class:`~mrisps.model.smooth_plus_sparse.SmoothPlusSparse`
=====================================================  ==============================================================

Units: images are scaled so that their maximum is about 1; beta and the thresholds refer to that scale.
"""

from typing import TYPE_CHECKING

from mrisps.lazy import lazy
from mrisps.model.config import ModelConfig, PriorUse

if TYPE_CHECKING:
    from mrisps.model.attention import Attention
    from mrisps.model.energy import Energy, EnergyTerms, Prior
    from mrisps.model.patches import PatchTransform, extract_patches, to_images, to_real_images
    from mrisps.model.shrinkage import GroupSoftThreshold, Regulariser, SmoothShrinkage
    from mrisps.model.smooth_plus_sparse import SmoothPlusSparse

__all__ = [
    "Attention",
    "Energy",
    "EnergyTerms",
    "GroupSoftThreshold",
    "ModelConfig",
    "PatchTransform",
    "Prior",
    "PriorUse",
    "Regulariser",
    "SmoothPlusSparse",
    "SmoothShrinkage",
    "extract_patches",
    "to_images",
    "to_real_images",
]

__getattr__ = lazy(
    __name__,
    {
        "attention": ("Attention",),
        "energy": ("Energy", "EnergyTerms", "Prior"),
        "patches": ("PatchTransform", "extract_patches", "to_images", "to_real_images"),
        "shrinkage": ("GroupSoftThreshold", "Regulariser", "SmoothShrinkage"),
        "smooth_plus_sparse": ("SmoothPlusSparse",),
    },
)
