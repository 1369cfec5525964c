"""MR image reconstruction with a learned patch-based smooth-plus-sparse prior.

>>> import mrisps
>>> model = mrisps.SmoothPlusSparse.load("weights.safetensors")
>>> operator = mrisps.FourierSubsampling(mask)
>>> recipe = mrisps.load_recipe("knee_pd_acc8")
>>> result = mrisps.solve(operator, kspace, model, recipe.solver, use=recipe.prior)
>>> result.image, result.smooth, result.sparse, result.cost_map, result.certificate

The names below are loaded when they are first used: ``import mrisps`` itself is immediate.

=============  ====================================================================================================
operators      LinearOperator, Identity, Fourier, FourierSubsampling, BlurDownsample, SamplingMask, make_mask
model          SmoothPlusSparse, ModelConfig
solvers        solve, FastSettings, solve_paper, PaperSettings, Reconstruction, Certificate
training       solve_with_gradient
files          open_kspace, FastmriFile, Acquisition, ReconstructionWriter, Manifest
reconstruction Recipe, load_recipe, mri_problem, reconstruct, reconstruct_file
=============  ====================================================================================================
"""

import importlib
from typing import TYPE_CHECKING

from mrisps._version import __version__

if TYPE_CHECKING:
    from mrisps.bilevel import solve_with_gradient as solve_with_gradient
    from mrisps.io.acquisition import Acquisition as Acquisition
    from mrisps.io.fastmri import FastmriFile as FastmriFile
    from mrisps.io.fastmri import ReconstructionWriter as ReconstructionWriter
    from mrisps.io.manifest import Manifest as Manifest
    from mrisps.io.open import open_kspace as open_kspace
    from mrisps.model import ModelConfig as ModelConfig
    from mrisps.model import SmoothPlusSparse as SmoothPlusSparse
    from mrisps.operators import BlurDownsample as BlurDownsample
    from mrisps.operators import Fourier as Fourier
    from mrisps.operators import FourierSubsampling as FourierSubsampling
    from mrisps.operators import Identity as Identity
    from mrisps.operators import LinearOperator as LinearOperator
    from mrisps.reconstruction.problem import mri_problem as mri_problem
    from mrisps.reconstruction.recipe import Recipe as Recipe
    from mrisps.reconstruction.recipe import load_recipe as load_recipe
    from mrisps.reconstruction.reconstruct import reconstruct as reconstruct
    from mrisps.reconstruction.reconstruct import reconstruct_file as reconstruct_file
    from mrisps.sampling import SamplingMask as SamplingMask
    from mrisps.sampling import make_mask as make_mask
    from mrisps.solvers import Certificate as Certificate
    from mrisps.solvers import FastSettings as FastSettings
    from mrisps.solvers import PaperSettings as PaperSettings
    from mrisps.solvers import Reconstruction as Reconstruction
    from mrisps.solvers import solve as solve
    from mrisps.solvers import solve_paper as solve_paper

_HOME = {
    "mrisps.operators": (
        "BlurDownsample",
        "Fourier",
        "FourierSubsampling",
        "Identity",
        "LinearOperator",
    ),
    "mrisps.sampling": ("SamplingMask", "make_mask"),
    "mrisps.model": ("ModelConfig", "SmoothPlusSparse"),
    "mrisps.solvers": ("Certificate", "FastSettings", "PaperSettings", "Reconstruction", "solve", "solve_paper"),
    "mrisps.bilevel": ("solve_with_gradient",),
    "mrisps.io.acquisition": ("Acquisition",),
    "mrisps.io.fastmri": ("FastmriFile", "ReconstructionWriter"),
    "mrisps.io.open": ("open_kspace",),
    "mrisps.io.manifest": ("Manifest",),
    "mrisps.reconstruction.recipe": ("Recipe", "load_recipe"),
    "mrisps.reconstruction.problem": ("mri_problem",),
    "mrisps.reconstruction.reconstruct": ("reconstruct", "reconstruct_file"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = ["__version__", *_MODULE_OF]


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'mrisps' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULE_OF])
