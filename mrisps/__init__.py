"""MR image reconstruction with a learned patch-based smooth-plus-sparse prior.

>>> import mrisps
>>> result = mrisps.recon("scan.h5", recipe="multicoil")
>>> result.image, result.smooth, result.sparse, result.cost_map, result.certificate
>>> result.save("scan.nii.gz")

The names below are loaded when they are first used: ``import mrisps`` itself is immediate.

==============  ===============================================================================================================
one call        recon, denoise, superres, Result
notebooks       plot.compare
own problems    solve, FastSettings, PriorUse, Reconstruction, Certificate, solve_paper, PaperSettings, solve_with_gradient
operators       LinearOperator, Identity, Fourier, FourierSubsampling, SensitivityMaps, Sense, BlurDownsample
sampling        SamplingMask, make_mask, read_mask, MASK_KINDS
coil maps       espirit
model           SmoothPlusSparse, ModelConfig
recipes         Recipe, load_recipe, builtin_recipes, Run, Problem, find_weights
files           open_kspace, Acquisition, MemoryKspace, ResultFile, Manifest, to_dicom
==============  ===============================================================================================================

Subpackages such as ``mrisps.operators`` need no import of their own either.
"""

import importlib
from typing import TYPE_CHECKING

from mrisps._version import __version__

if TYPE_CHECKING:
    from mrisps.bilevel import solve_with_gradient as solve_with_gradient
    from mrisps.io.acquisition import Acquisition as Acquisition
    from mrisps.io.manifest import Manifest as Manifest
    from mrisps.io.memory import MemoryKspace as MemoryKspace
    from mrisps.io.open import open_kspace as open_kspace
    from mrisps.io.result_file import ResultFile as ResultFile
    from mrisps.kspace.espirit import espirit as espirit
    from mrisps.model import ModelConfig as ModelConfig
    from mrisps.model import PriorUse as PriorUse
    from mrisps.model import SmoothPlusSparse as SmoothPlusSparse
    from mrisps.operators import BlurDownsample as BlurDownsample
    from mrisps.operators import Fourier as Fourier
    from mrisps.operators import FourierSubsampling as FourierSubsampling
    from mrisps.operators import Identity as Identity
    from mrisps.operators import LinearOperator as LinearOperator
    from mrisps.operators import Sense as Sense
    from mrisps.operators import SensitivityMaps as SensitivityMaps
    from mrisps.reconstruction.api import denoise as denoise
    from mrisps.reconstruction.api import recon as recon
    from mrisps.reconstruction.api import superres as superres
    from mrisps.reconstruction.export import to_dicom as to_dicom
    from mrisps.reconstruction.problem import Problem as Problem
    from mrisps.reconstruction.recipe import Recipe as Recipe
    from mrisps.reconstruction.recipe import builtin_recipes as builtin_recipes
    from mrisps.reconstruction.recipe import load_recipe as load_recipe
    from mrisps.reconstruction.result import Result as Result
    from mrisps.reconstruction.run import Run as Run
    from mrisps.reconstruction.weights import find_weights as find_weights
    from mrisps.reports import plot as plot
    from mrisps.sampling import MASK_KINDS as MASK_KINDS
    from mrisps.sampling import SamplingMask as SamplingMask
    from mrisps.sampling import make_mask as make_mask
    from mrisps.sampling import read_mask as read_mask
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
        "Sense",
        "SensitivityMaps",
    ),
    "mrisps.sampling": ("MASK_KINDS", "SamplingMask", "make_mask", "read_mask"),
    "mrisps.kspace.espirit": ("espirit",),
    "mrisps.model": ("ModelConfig", "PriorUse", "SmoothPlusSparse"),
    "mrisps.solvers": ("Certificate", "FastSettings", "PaperSettings", "Reconstruction", "solve", "solve_paper"),
    "mrisps.bilevel": ("solve_with_gradient",),
    "mrisps.io.acquisition": ("Acquisition",),
    "mrisps.io.manifest": ("Manifest",),
    "mrisps.io.memory": ("MemoryKspace",),
    "mrisps.io.open": ("open_kspace",),
    "mrisps.io.result_file": ("ResultFile",),
    "mrisps.reconstruction.api": ("denoise", "recon", "superres"),
    "mrisps.reconstruction.export": ("to_dicom",),
    "mrisps.reconstruction.problem": ("Problem",),
    "mrisps.reconstruction.recipe": ("Recipe", "builtin_recipes", "load_recipe"),
    "mrisps.reconstruction.result": ("Result",),
    "mrisps.reconstruction.run": ("Run",),
    "mrisps.reconstruction.weights": ("find_weights",),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}
_PACKAGES = ("bilevel", "io", "kspace", "model", "operators", "quality", "reconstruction", "sampling", "solvers")

__all__ = ["__version__", *_MODULE_OF]


def __getattr__(name: str) -> object:
    if name == "plot":
        return importlib.import_module("mrisps.reports.plot")
    if name in _PACKAGES:
        return importlib.import_module(f"mrisps.{name}")
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'mrisps' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULE_OF, *_PACKAGES, "plot"])
