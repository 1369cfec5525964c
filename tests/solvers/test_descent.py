"""The two ways down: the same minimum where it is unique, and honest residuals on the way."""

import dataclasses

import pytest
import torch
from model.helpers import random_model, relative_error

from mrisps.model import Energy, ModelConfig, Prior, PriorUse
from mrisps.operators import PerEntry, Sense
from mrisps.solvers.descent import Descent, DescentOptions, Stage
from mrisps.solvers.image_step import ImageStep
from mrisps.solvers.inertial import Inertial
from mrisps.solvers.splitting import Splitting
from mrisps.solvers.stages import STRIDE, start_descent

from .helpers import CPR, NCPR, columns, make_operator, measure

OPTIONS = DescentOptions(decay=0.97, half_storage=False)


def problem(
    kind: str, config: ModelConfig = CPR, use: PriorUse | None = None, double: bool = True, batch: int = 1
) -> tuple[Energy, Stage]:
    operator = make_operator(kind, (12, 16), double)
    y = torch.cat([measure(operator, seed=seed) for seed in range(batch)])
    prior = random_model(config, beta=0.5, lam=0.01).prior(torch.float64 if double else torch.float32)
    prior = prior.used(PriorUse() if use is None else use, operator.domain_dtype.is_complex)
    energy = Energy(operator, y, prior)
    return energy, Stage(prior, prior.transform, ImageStep(energy, 1e-9), energy.image_shape)


def coils(seed: int) -> Sense:
    """Three coils over 12 x 16 pixels, with maps and a mask for each seed."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, 12), torch.linspace(-1, 1, 16), indexing="ij")
    angles = seed + 2 * torch.pi * torch.arange(3) / 3
    maps = torch.stack([torch.exp(-((x - t.cos()) ** 2) - (y - t.sin()) ** 2 + 1j * t) for t in angles])
    return Sense(columns(16, seed), maps.to(torch.complex128))


def start(energy: Energy, stage: Stage, options: DescentOptions = OPTIONS, factor: float = 1.0) -> Descent:
    return start_descent(stage, options, energy.n_real_images, factor=factor, inertia=10)


def value(energy: Energy, path: Descent) -> float:
    return float(energy.value(path.final_image(), path.coefficients).total.sum())


USES = {
    "real": ("real", PriorUse(), True),
    "complex": ("complex", PriorUse(), True),
    "modulus": ("complex", PriorUse(modulus=True), True),
    "strided": ("real", PriorUse(stride=2), True),
    "denoising": ("denoising", PriorUse(), True),
    "single precision": ("denoising", PriorUse(stride=2), False),
}


@pytest.mark.parametrize("name", USES)
def test_both_end_at_the_minimum_and_splitting_does_so_first(name: str) -> None:
    kind, use, double = USES[name]
    energy, stage = problem(kind, use=use, double=double, batch=2)
    splitting = start(energy, stage)
    assert isinstance(splitting, Splitting)
    inertial = Inertial(stage, OPTIONS, 1.0, energy.n_real_images, None)
    early = {}
    for k in range(1, 1001):
        inertial.step()
        if k <= 250:
            splitting.step()
        if k == 60:
            early = {path: value(energy, path) for path in (inertial, splitting)}
    lowest = value(energy, inertial)
    assert value(energy, splitting) == pytest.approx(lowest, rel=1e-7 if double else 1e-4)
    image = splitting.final_image()
    assert relative_error(image, inertial.final_image()) < (1e-3 if double else 1e-2)
    assert early[splitting] - lowest < 0.5 * (early[inertial] - lowest)


@pytest.mark.parametrize("kind", ["real", "complex"])
def test_the_residual_on_the_way_is_that_of_the_energy_or_a_bound(kind: str) -> None:
    energy, stage = problem(kind, batch=2)
    loose, strict = start(energy, stage), start(energy, stage)
    for _ in range(12):
        loose.step(measure=True, exactly=True)
        strict.step(measure=True)
        _, exact = energy.residuals(loose.final_image(), loose.coefficients)
        rows = energy.n_real_images // len(energy.y)
        measured, bound = (
            (path.moved.view(-1, rows).sum(dim=1) / path.size.view(-1, rows).sum(dim=1)).sqrt()
            for path in (loose, strict)
        )
        torch.testing.assert_close(measured, exact, rtol=1e-6, atol=0)
        assert bool((exact <= bound).all())
    assert bool((exact > 0).all())
    strict.step(measure=True, exactly=True)
    loose.step(measure=True, exactly=True)
    torch.testing.assert_close(strict.moved, loose.moved)


def test_splitting_is_for_norms_and_convolutions() -> None:
    kinds = {
        (kind, config.regulariser): type(start(*problem(kind, config)))
        for kind in ("real", "blur")
        for config in (CPR, NCPR)
    }
    assert kinds == {
        ("real", "CPR"): Splitting,
        ("real", "NCPR"): Inertial,
        ("blur", "CPR"): Inertial,
        ("blur", "NCPR"): Inertial,
    }


@pytest.mark.parametrize("config", [NCPR, dataclasses.replace(NCPR, exponent=1.0), CPR], ids=["1.8", "1.0", "CPR"])
def test_what_is_a_norm_is_proportional_to_its_thresholds(config: ModelConfig) -> None:
    """The prox of R / rho is T with the thresholds lam / rho: a = T(v) minimises R(a) / rho + (a - v)^2 / 2."""
    regulariser = random_model(config, lam=0.02).prior(torch.float64).regulariser
    a = torch.randn(
        1, 4, 4, len(regulariser.thresholds), generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    scaled = regulariser.scaled(20.0).potential(a)
    assert regulariser.is_norm == torch.allclose(scaled, 20.0 * regulariser.potential(a), rtol=1e-6)


@pytest.mark.parametrize("kind", ["complex", "real"])
def test_a_warm_start_is_where_it_was(kind: str) -> None:
    energy, stage = problem(kind, batch=2)
    first = start(energy, stage)
    for _ in range(400):
        first.step()
    found = first.coefficients.clone()
    again = start_descent(stage, OPTIONS, energy.n_real_images, factor=1.0, inertia=10, given=found.float())
    again.step(measure=True, exactly=True)
    assert float((again.moved.sum() / again.size.sum()).sqrt()) < 1e-5
    assert relative_error(again.image, first.final_image()) < 1e-5
    with pytest.raises(RuntimeError):
        start_descent(stage, OPTIONS, energy.n_real_images, factor=1.0, inertia=10, given=found[:, :-2])


def test_an_inertial_warm_start_is_where_it_was() -> None:
    energy, stage = problem("real", NCPR, batch=2)
    first = start(energy, stage)
    for _ in range(600):
        first.step()
    found = first.coefficients.clone()
    _, stage = problem("real", NCPR, batch=2)
    again = start_descent(stage, OPTIONS, energy.n_real_images, factor=1.0, inertia=10, given=found)
    assert relative_error(again.image, first.final_image()) < 1e-5
    again.step(measure=True)
    assert float((again.moved.sum() / again.size.sum()).sqrt()) < 1e-4


def test_one_lost_image_does_not_hold_up_the_others() -> None:
    energy, stage = problem("denoising", batch=2)
    path = start(energy, stage)
    path.coefficients[0, 0, 0] = torch.nan
    assert isinstance(path, Splitting)
    path._auxiliary[0, 0, 0] = torch.nan
    path.step(measure=True, exactly=True)
    _, exact = energy.residuals(path.final_image(), path.coefficients)
    assert not bool(path.moved[0].isfinite())
    assert float((path.moved[1] / path.size[1]).sqrt()) == pytest.approx(float(exact[1]), rel=1e-6)


@pytest.mark.parametrize("config", [NCPR, CPR], ids=lambda config: config.regulariser)
def test_thresholds_come_down_to_those_of_the_prior(config: ModelConfig) -> None:
    energy, stage = problem("denoising", config)
    options = dataclasses.replace(OPTIONS, decay=0.5)
    continued, plain = start(energy, stage, options, factor=4.0), start(energy, stage, options)
    for _ in range(2):
        continued.step()
    assert (continued.factor, continued.n_at_target) == (1.0, 0)
    for _ in range(800):
        continued.step()
        plain.step()
    assert continued.n_at_target == 800
    assert value(energy, continued) == pytest.approx(value(energy, plain), rel=1e-3)


@pytest.mark.parametrize("config", [NCPR, CPR], ids=lambda config: config.regulariser)
def test_known_coefficients_are_taken_and_let_go(config: ModelConfig) -> None:
    energy, stage = problem("denoising", config)
    generator = torch.Generator().manual_seed(0)
    given = torch.randn(1, 6, 8, stage.prior.n_atoms, generator=generator, dtype=torch.float64)
    known = [given]
    noisy = energy.operator.adjoint(energy.y)
    path = start_descent(stage, OPTIONS, 1, factor=1.0, inertia=10, image=noisy, known=known)
    alone = start_descent(stage, OPTIONS, 1, factor=1.0, inertia=10, image=noisy)
    assert known == []
    assert torch.equal(path.coefficients[:, ::STRIDE, ::STRIDE], given)
    others = torch.ones(1, 12, 16, dtype=torch.bool)
    others[:, ::STRIDE, ::STRIDE] = False
    torch.testing.assert_close(path.coefficients[others], alone.coefficients[others])
    assert bool(alone.coefficients.any())


def test_splitting_with_half_storage() -> None:
    energy, stage = problem("real", double=False)
    half, single = (
        start(energy, stage, dataclasses.replace(OPTIONS, half_storage=half_storage)) for half_storage in (True, False)
    )
    for _ in range(200):
        half.step(measure=True, exactly=True)
        single.step(measure=True, exactly=True)
    assert half.coefficients.dtype == torch.float16
    assert value(energy, half) == pytest.approx(value(energy, single), rel=1e-3)
    assert relative_error(half.final_image(), single.final_image()) < 1e-2
    assert float((half.moved / half.size).sqrt()) < 5e-4


def test_pieces_of_any_size_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    energy, stage = problem("complex", use=PriorUse(modulus=True))
    images, measured = [], []
    for size in (2048, 32):
        monkeypatch.setattr("mrisps.model.energy.CHUNK_PIXELS", size)
        assert len(list(Prior.chunks(stage.prior, (2, 12, 16)))) == (1 if size == 2048 else 6)
        path = start(energy, stage)
        for _ in range(10):
            path.step(measure=True, exactly=True)
        images.append(path.image)
        measured.append(torch.stack([path.moved, path.size]))
    torch.testing.assert_close(images[0], images[1], rtol=0, atol=1e-12)
    torch.testing.assert_close(measured[0], measured[1])


@pytest.mark.parametrize("half_storage", [False, True])
@pytest.mark.parametrize(("kind", "config"), [("complex", NCPR), ("real", CPR), ("blur", NCPR)])
def test_the_others_go_on_as_before(kind: str, config: ModelConfig, half_storage: bool) -> None:
    """One image of three leaves; what it had stays, and the others end where they would have ended with it."""
    energy, stage = problem(kind, config, batch=3, double=not half_storage)
    options = dataclasses.replace(OPTIONS, half_storage=half_storage)
    together, fewer = start(energy, stage, options), start(energy, stage, options)
    for _ in range(6):
        together.step(measure=True)
        fewer.step(measure=True)
    expected = together.coefficients.chunk(3)[0].clone()
    taken = fewer.leave_out(0, torch.tensor([2, 1]))
    assert torch.equal(taken, expected)
    for _ in range(7):
        together.step(measure=True, exactly=True)
        fewer.step(measure=True, exactly=True)
    assert torch.equal(taken, expected)
    chunks = together.coefficients.chunk(3)
    torch.testing.assert_close(fewer.coefficients, torch.cat([chunks[2], chunks[1]]))
    torch.testing.assert_close(fewer.final_image(), together.final_image()[[2, 1]])
    torch.testing.assert_close(fewer.moved.view(2, -1), together.moved.view(3, -1)[[2, 1]])


@pytest.mark.parametrize("stride", [1, 2])
def test_conjugate_gradients_go_on_as_if_the_image_that_left_had_never_been_there(stride: int) -> None:
    """Exactly: a solve starts where the last one ended, and along its step, for the images that stay as for each alone."""
    operators = [coils(seed) for seed in range(3)]
    y = torch.cat([measure(operator, seed=seed) for seed, operator in enumerate(operators)])
    prior = random_model(NCPR, beta=0.5, lam=0.01).prior(torch.float64).used(PriorUse(stride), complex_image=True)

    def begun(entries: list[int]) -> Descent:
        energy = Energy(PerEntry([operators[i] for i in entries]), y[entries], prior)
        image_step = ImageStep(energy, 1e-3)
        assert not image_step.in_closed_form
        return start(energy, Stage(prior, prior.transform, image_step, energy.image_shape))

    together, alone = begun([0, 1, 2]), {entry: begun([entry]) for entry in (1, 2)}
    for path in (together, *alone.values()):
        for _ in range(6):
            path.step()
    together.leave_out(0, torch.tensor([2, 1]))
    for path in (together, *alone.values()):
        for _ in range(6):
            path.step()
    expected = torch.cat([alone[entry].image for entry in (2, 1)])
    torch.testing.assert_close(together.image, expected, rtol=0, atol=1e-12)
