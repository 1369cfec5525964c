"""The gradient through the iterations, against finite differences."""

from collections.abc import Callable
from typing import Literal

import pytest
import torch
from model.helpers import random_tensor
from solvers.helpers import TINY_CPR, TINY_NCPR
from torch import Tensor

from bilevel.test_hypergradient import MODULUS, PARTS, loss_of, tiny_problem
from mrisps.bilevel.trajectory import Trajectory, TrajectoryGradient, trajectory_gradient
from mrisps.model import Energy, PriorUse, SmoothPlusSparse
from mrisps.operators import LinearOperator
from mrisps.solvers import FastSettings, Minimum, minimise

PARAMETERS = ("raw_free_atoms", "raw_synthesis_atoms", "log_thresholds", "beta")
FEW = FastSettings(
    tolerance=1e-14,
    max_iterations=12,
    image_tolerance=1e-13,
    trace_interval=0,
    continuation_start=2.0,
    continuation_decay=0.8,  # four iterations
    attention_iterations=4,
)
Map = Literal["none", "late", "always"]


class Problem:
    """Twelve iterations, with a map of thresholds from the start, from the eighth iteration on, or never."""

    def __init__(self, kind: str, use: PriorUse, mapped: Map) -> None:
        self.operator: LinearOperator
        self.operator, self.y, self.model = tiny_problem(kind, TINY_NCPR, use)
        self.use, self.mapped = use, mapped
        shape = self.energy(self.model).zero_coefficients().shape
        self.multiples = random_tensor(*shape, seed=4).mul(0.3).exp()
        self.start = 0.1 * random_tensor(*shape, seed=5) if mapped == "always" else None
        if use.modulus:
            self.multiples[1::2] = self.multiples[0::2]

    def energy(self, model: SmoothPlusSparse) -> Energy:
        prior = model.prior(torch.float64).used(self.use, self.operator.domain_dtype.is_complex)
        return Energy(self.operator, self.y, prior)

    def run(self, model: SmoothPlusSparse, multiples: Tensor) -> tuple[Minimum, Trajectory]:
        energy, trajectory = self.energy(model), Trajectory()
        thresholds = multiples * energy.prior.regulariser.thresholds
        attend: Callable[[Tensor], Tensor] | None = (lambda a: thresholds) if self.mapped == "late" else None
        if self.mapped == "always":
            energy = energy.with_thresholds(thresholds)
        minimum = minimise(energy, FEW, start=self.start, attend=attend, record=trajectory)
        assert len(trajectory.images) == 13
        return minimum, trajectory

    def gradient(self, *, of_prior: bool = True) -> TrajectoryGradient:
        minimum, trajectory = self.run(self.model, self.multiples)
        image = minimum.image.clone().requires_grad_()
        (of_image,) = torch.autograd.grad(loss_of(image), image)
        model = self.model if of_prior else None
        return trajectory_gradient(minimum.energy, model, minimum.image_step, trajectory, of_image)

    def loss(self, multiples: Tensor | None = None, **moves: Tensor) -> float:
        """Where parameters are moved by so much."""
        values = {name: getattr(self.model, name).detach() + moves.get(name, 0.0) for name in PARAMETERS}
        model = SmoothPlusSparse(self.model.config, **values, lam=self.model.lam)
        return float(loss_of(self.run(model, self.multiples if multiples is None else multiples)[0].image))


@pytest.mark.parametrize("mapped", ["none", "late", "always"])
@pytest.mark.parametrize(
    ("kind", "use"),
    [("denoising", PriorUse()), ("real", PARTS), ("complex", MODULUS), ("complex", PARTS), ("two sets", MODULUS)],
)
def test_finite_differences(kind: str, use: PriorUse, mapped: Map) -> None:
    problem = Problem(kind, use, mapped)
    found, step = problem.gradient(), 1e-5
    for number, name in enumerate(PARAMETERS):
        value = getattr(problem.model, name).detach()
        direction = random_tensor(*value.shape, seed=20 + number) if value.ndim else torch.ones_like(value)
        measured = (problem.loss(**{name: step * direction}) - problem.loss(**{name: -step * direction})) / (2 * step)
        assert float((getattr(found, name) * direction).sum()) == pytest.approx(measured, rel=1e-6, abs=1e-8), name
    if mapped == "none":
        return
    direction = random_tensor(*problem.multiples.shape, seed=30)
    if use.modulus:
        direction[1::2] = direction[0::2]
    measured = problem.loss(problem.multiples + step * direction) - problem.loss(problem.multiples - step * direction)
    own = problem.energy(problem.model).prior.regulariser.thresholds
    for gradient in (found, problem.gradient(of_prior=False)):  # with and without that of the prior
        assert float((gradient.thresholds * own * direction).sum()) == pytest.approx(measured / (2 * step), rel=1e-6)
        assert gradient.finite


def test_the_start() -> None:
    problem = Problem("complex", PARTS, "always")
    found, direction, step = problem.gradient(), random_tensor(*problem.multiples.shape, seed=31), 1e-5
    assert problem.start is not None
    start, losses = problem.start, []
    for sign in (1, -1):
        problem.start = start + sign * step * direction
        losses.append(problem.loss())
    assert float((found.start * direction).sum()) == pytest.approx((losses[0] - losses[1]) / (2 * step), rel=1e-6)


def test_the_splitting_of_the_convex_prior_is_refused() -> None:
    operator, y, model = tiny_problem("denoising", TINY_CPR)
    with pytest.raises(ValueError, match=r"^trajectory: expected the inertial algorithm"):
        minimise(Energy(operator, y, model.prior(torch.float64)), FEW, record=Trajectory())
