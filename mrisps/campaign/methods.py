"""The methods that an evaluation puts side by side: recipes, and baselines behind the same call."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mrisps.model import SmoothPlusSparse
from mrisps.operators import Sense
from mrisps.quality.baselines import Baseline
from mrisps.reconstruction.problem import Problem, to_array
from mrisps.reconstruction.recipe import Recipe
from mrisps.reconstruction.reconstruct import reconstruct

__all__ = ["Candidate", "Method"]


@dataclass(frozen=True, eq=False)
class Candidate:
    """A recipe to be evaluated.

    Parameters
    ----------
    label
        In results; no two alike.
    recipe, model
        What reconstructs.
    weights
        How the weights are called.
    contrast
        Only files of this contrast; None: all.
    """

    label: str
    recipe: Recipe
    model: SmoothPlusSparse
    weights: str
    contrast: str | None = None


@dataclass(frozen=True, eq=False)
class Method:
    """A method with all that its images depend on."""

    name: str
    recipe: Recipe  # of a baseline: what prepares the data
    device: str
    identity: Mapping[str, object]
    model: SmoothPlusSparse | None = None
    baseline: Baseline | None = None
    weight: float | None = None

    @classmethod
    def of_recipe(cls, candidate: Candidate, device: str) -> "Method":
        """A recipe as a method."""
        identity = {"recipe": candidate.recipe.sha256(), "weights": candidate.model.fingerprint(), "device": device}
        return cls(candidate.label, candidate.recipe, device, identity, candidate.model)

    @classmethod
    def of_baseline(cls, baseline: Baseline, weight: float | None, carrier: Recipe) -> "Method":
        """A baseline as a method; the recipe prepares its data."""
        identity = {
            "baseline": baseline.name,
            "weight": weight,
            "n_iterations": baseline.n_iterations,
            "image": carrier.image,
            "nonnegative": carrier.nonnegative,
            "scale": None if carrier.scale is None else asdict(carrier.scale),
            "preparation": None if carrier.preparation is None else asdict(carrier.preparation),
        }
        return cls(baseline.name, carrier, "cpu", identity, None, baseline, weight)

    def run(self, problem: Problem) -> tuple[NDArray[np.generic], str, int]:
        """The image in the units of the input, the solver's status and its iterations."""
        if self.model is not None:
            result = reconstruct(problem, self.model, self.recipe)
            return to_array(result.image), result.certificate.status, result.certificate.n_iterations
        assert self.baseline is not None
        assert problem.mask is not None
        maps = problem.operator.maps[0].numpy() if isinstance(problem.operator, Sense) else None
        image = self.baseline.run(
            problem.y[0].numpy(), problem.mask.array2d(), self.weight or 0.0, self.baseline.n_iterations, maps
        )
        found = torch.from_numpy(np.ascontiguousarray(image))[None, None]
        if not problem.operator.domain_dtype.is_complex:
            found = found.real.clamp(min=0) if self.recipe.nonnegative else found.real
        if problem.factor is not None:  # the baselines know one set of maps: the first
            found = found * problem.factor[:, 0, :1]
        return to_array(found * problem.scale), "", 0
