"""A second net: one iteration with shapes and devices, without numbers, where a look at a value raises.

Under PyTorch's FakeTensorMode a tensor has a shape, a data type and a device, and no numbers. Two devices in one operation are an
error, and so is a look at a value, which would make the host wait for an accelerator. What looks at values while it is set up is
set up on the CPU, and its tensors are then exchanged for fake ones of the device ``meta``. (A build of PyTorch without CUDA has
fake CUDA tensors too, but refuses ``out=`` and indexing with them.)
"""

import copy
from typing import Any

import pytest
import torch
from model.helpers import random_model
from solvers.helpers import CPR, NCPR, columns, make_operator, measure
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from mrisps.model import Energy, ModelConfig, PriorUse, to_real_images
from mrisps.operators import (
    FourierSubsampling,
    Identity,
    LinearOperator,
    OnLargerGrid,
    PerEntry,
    Sense,
    SensitivityMaps,
)
from mrisps.solvers import inertial
from mrisps.solvers.descent import Descent, DescentOptions, Stage
from mrisps.solvers.image_step import ImageStep
from mrisps.solvers.stages import start_descent

DEVICE = torch.device("meta")
SHAPE = (24, 20)


def faked(thing: Any, known: dict[int, Any] | None = None) -> Any:
    """A copy of an object of ours with fake tensors of the device in place of its own, and the device in place of the CPU."""
    known = {} if known is None else known
    if id(thing) in known:
        return known[id(thing)]
    made: Any = thing
    if isinstance(thing, Tensor):
        made = torch.empty_strided(thing.shape, thing.stride(), dtype=thing.dtype, device=DEVICE)
    elif isinstance(thing, torch.device):
        made = DEVICE
    elif type(thing) in (tuple, list):
        made = type(thing)(faked(part, known) for part in thing)
    elif type(thing).__module__.startswith("mrisps."):
        made = known[id(thing)] = copy.copy(thing)
        for name, value in vars(thing).items():
            object.__setattr__(made, name, faked(value, known))
    known[id(thing)] = made
    return made


def check(tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    assert isinstance(tensor, FakeTensor)
    assert (tensor.device, tuple(tensor.shape), tensor.dtype) == (DEVICE, shape, dtype)


def coils(n_sets: int = 1, seed: int = 0) -> Sense:
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(n_sets, 4, *SHAPE, dtype=torch.complex64, generator=generator)
    return Sense(columns(SHAPE[1], seed), maps)


OPERATORS = {
    "identity": lambda: Identity(SHAPE, torch.float32),
    "real": lambda: make_operator("real", SHAPE, double=False),
    "complex": lambda: make_operator("complex", SHAPE, double=False),
    "blur": lambda: make_operator("blur", SHAPE, double=False),
    "coils": lambda: coils(),
    "coils, two sets": lambda: coils(2),
    "a mask for each": lambda: PerEntry([coils(1, 0), coils(1, 1)]),
    "coils on a larger grid": lambda: OnLargerGrid(coils(), (26, 22)),
    "maps": lambda: SensitivityMaps(coils().maps),
    "product": lambda: FourierSubsampling(columns(SHAPE[1]), (4, *SHAPE)) @ SensitivityMaps(coils().maps),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_operators(name: str) -> None:
    operator: LinearOperator = OPERATORS[name]()
    with FakeTensorMode():
        there = faked(operator)
        x = torch.empty(2, *operator.domain_shape, dtype=operator.domain_dtype, device=DEVICE)
        y = torch.empty(2, *operator.range_shape, dtype=operator.range_dtype, device=DEVICE)
        check(there.forward(x), tuple(y.shape), y.dtype)
        check(there.adjoint(y), tuple(x.shape), x.dtype)
        check(there.normal(x), tuple(x.shape), x.dtype)


USES = {
    "real": ("real", NCPR, PriorUse()),
    "real, stride 2": ("real", NCPR, PriorUse(2)),
    "complex": ("complex", NCPR, PriorUse()),
    "modulus": ("complex", NCPR, PriorUse(1, True)),
    "modulus, stride 2": ("complex", NCPR, PriorUse(2, True)),
    "blur, stride 2": ("blur", NCPR, PriorUse(2)),
    "splitting": ("real", CPR, PriorUse()),
    "splitting, stride 2": ("real", CPR, PriorUse(2)),
    "coils": ("coils", NCPR, PriorUse()),
    "coils, stride 2": ("a mask for each", NCPR, PriorUse(2, True)),
}


def begun(kind: str, config: ModelConfig, use: PriorUse, with_map: bool = False, half: bool = False) -> Descent:
    """Three iterations on the CPU: conjugate gradients then know how many steps they need, and look no more."""
    operator: LinearOperator = OPERATORS[kind]()
    y = torch.cat([measure(OPERATORS["coils" if "mask" in kind else kind](), seed=seed) for seed in range(2)])
    prior = random_model(config, lam=0.02).prior(torch.float32).used(use, operator.domain_dtype.is_complex)
    energy = Energy(operator, y, prior)
    if with_map:
        shape = (energy.n_real_images, *energy.grid_shape, prior.n_atoms)
        prior = prior.with_thresholds(prior.regulariser.thresholds.expand(shape).contiguous())
        energy = Energy(operator, y, prior)
    image_step = ImageStep(energy, 1e-5)
    stage = Stage(prior, prior.transform, image_step, energy.image_shape)
    path = start_descent(stage, DescentOptions(0.9, half), energy.n_real_images, factor=2.0, inertia=10)
    for _ in range(3):
        path.step(measure=True)
    return path


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("name", USES)
def test_an_iteration_looks_at_no_value(name: str, half: bool) -> None:
    path = begun(*USES[name], half=half)
    with torch.no_grad(), FakeTensorMode():
        there = faked(path)
        there.step(measure=True, exactly=True)
        check(there.image, tuple(path.image.shape), path.image.dtype)
        check(there.coefficients, tuple(path.coefficients.shape), path.coefficients.dtype)
        check(there.moved, tuple(path.moved.shape), torch.float64)


@pytest.mark.parametrize("name", ["real", "modulus, stride 2", "coils, stride 2"])
def test_an_iteration_with_a_map_of_thresholds(name: str) -> None:
    path = begun(*USES[name], with_map=True)
    with torch.no_grad(), FakeTensorMode():
        there = faked(path)
        there.step(measure=True)
        check(there.image, tuple(path.image.shape), path.image.dtype)


@pytest.mark.parametrize("name", ["real", "real, stride 2", "complex", "modulus, stride 2", "blur, stride 2"])
def test_the_image_step_in_closed_form(name: str) -> None:
    stage = begun(*USES[name]).stage
    assert isinstance(stage.image_step, ImageStep)
    assert stage.image_step.in_closed_form
    images = stage.image_step.adjoint_y
    with torch.no_grad(), FakeTensorMode():
        there = faked(stage)
        image = torch.empty(images.shape, dtype=images.dtype, device=DEVICE)
        prediction = there.transform.forward(to_real_images(image))
        for found in (
            there.image_step.solve(prediction),
            there.image_step.smooth_image(),
            there.image_step.invert(image),
        ):
            check(found, tuple(images.shape), images.dtype)


def test_the_net_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tensor on the wrong device, or a look at a value, ends the iteration."""
    path = begun(*USES["real"])

    def on_the_cpu(image: Tensor) -> Tensor:
        return to_real_images(image).cpu()

    def looking(image: Tensor) -> Tensor:
        return to_real_images(image) * float(image.abs().max())

    for wrong, error in ((on_the_cpu, "at least two devices, cpu and meta"), (looking, "_local_scalar_dense")):
        monkeypatch.setattr(inertial, "to_real_images", wrong)
        with torch.no_grad(), FakeTensorMode(), pytest.raises(RuntimeError, match=error):
            faked(path).step(measure=True)
