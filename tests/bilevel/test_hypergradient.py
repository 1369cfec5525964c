"""The hypergradient against finite differences and against backpropagation through an independent, unrolled solver."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from model.helpers import patch_matrix, random_model, random_tensor
from solvers.helpers import KINDS, TINY_CPR, TINY_NCPR, Dense, columns, make_operator, measure, scene
from solvers.test_sense import maps
from torch import Tensor

from mrisps.bilevel import AdjointError, AdjointReport, AdjointSettings, hypergradient, solve_with_gradient
from mrisps.bilevel.hypergradient import EXACT_SOLVER
from mrisps.model import Energy, ModelConfig, PriorUse, SmoothPlusSparse
from mrisps.operators import LinearOperator, Sense
from mrisps.solvers import FastSettings, Minimum, minimise

EXACT = FastSettings(tolerance=1e-12, max_iterations=3000, image_tolerance=1e-13, image_change=1e-11, trace_interval=0)
STRIDED = replace(EXACT, tolerance=1e-9, image_change=1e-12)
"""With a stride the image step in closed form is exact to 1e-10: it has a ridge."""
EXACT_ADJOINT = AdjointSettings(tolerance=1e-12, max_iterations=5000)
PARAMETERS = ("raw_free_atoms", "raw_synthesis_atoms", "log_thresholds", "beta")

each_config = pytest.mark.parametrize("config", [TINY_NCPR, TINY_CPR], ids=["NCPR", "CPR"])


def loss_of(image: Tensor) -> Tensor:
    """Neither symmetric nor linear, and real for a complex image."""
    weights = random_tensor(*image.shape, dtype=image.dtype, seed=9)
    return (image * weights.conj()).real.sum() + 0.5 * image.abs().square().sum()


def gradients_of(
    operator: LinearOperator, y: Tensor, model: SmoothPlusSparse, use: PriorUse | None = None
) -> tuple[dict[str, Tensor], list[tuple[Minimum, AdjointReport]]]:
    reports: list[tuple[Minimum, AdjointReport]] = []
    y = y.clone().requires_grad_()
    settings = STRIDED if use else EXACT
    image = solve_with_gradient(
        operator, y, model, settings, EXACT_ADJOINT, use=use, report=lambda *pair: reports.append(pair)
    )
    loss_of(image).backward()
    found = {name: getattr(model, name).grad for name in PARAMETERS}
    assert y.grad is not None
    return {**found, "y": y.grad}, reports


def tiny_problem(
    kind: str, config: ModelConfig, use: PriorUse | None = None
) -> tuple[LinearOperator, Tensor, SmoothPlusSparse]:
    """Noisy measurements and thresholds at which the solver converges to rounding in some hundred iterations."""
    shape = (6, 8) if use is None or config is TINY_NCPR else (8, 8)  # whole groups of patches
    if kind in ("coils", "two sets"):
        operator: LinearOperator = Sense(columns(8), maps(4, shape, 1 + (kind == "two sets")), torch.complex128)
    else:
        operator = make_operator(kind, shape)
    lam = 0.1 if config is TINY_NCPR or kind == "denoising" else 0.03
    if use is not None:
        lam = 0.2 if config is TINY_NCPR else 0.06
    return operator, measure(operator, 0.3), random_model(config, beta=0.8, lam=lam)


PARTS, MODULUS = PriorUse(stride=2), PriorUse(stride=2, modulus=True)
ALL = [(kind, use) for kind in (*KINDS, "coils", "two sets") for use in (None, PARTS)]
ALL += [(kind, use) for kind in ("complex", "coils", "two sets") for use in (PriorUse(modulus=True), MODULUS)]
"""What recipes pose: operators, real and complex images, coils, sets of maps, every patch or some, parts apart or together."""
QUICK = [
    *((kind, None, config) for kind in (*KINDS, "two sets") for config in (TINY_NCPR, TINY_CPR)),
    *((kind, use, TINY_NCPR) for kind, use in (("denoising", PARTS), ("complex", MODULUS), ("two sets", MODULUS))),
]
PROBLEMS = [
    pytest.param(
        *(kind, use, config),
        marks=[] if (kind, use, config) in QUICK else pytest.mark.slow,
        id=f"{kind}-{'default' if use is None else f'{use.stride}-{use.modulus}'}-{config.regulariser}",
    )
    for kind, use in ALL
    for config in (TINY_NCPR, TINY_CPR)
]


@pytest.mark.parametrize(("kind", "use", "config"), PROBLEMS)
def test_finite_differences(kind: str, use: PriorUse | None, config: ModelConfig) -> None:
    operator, y, model = tiny_problem(kind, config, use)
    gradients, reports = gradients_of(operator, y, model, use)
    minimum, report = reports[0]
    assert bool(minimum.finished.all())
    assert report.good
    n_active = int((minimum.coefficients.abs() > 1e-3).sum())
    assert 5 < n_active < minimum.coefficients.numel() or config is TINY_NCPR  # something is sparse, and not everything
    settings = STRIDED if use else EXACT
    for number, name in enumerate([*PARAMETERS, "y"]):
        parameter = y if name == "y" else getattr(model, name)
        # Along the gradient itself the difference is largest against rounding; a random part sees errors across it too.
        gradient = gradients[name]
        other = random_tensor(*gradient.shape, dtype=gradient.dtype, seed=20 + number)
        direction = gradient / gradient.abs().max() + 0.3 * other
        if name == "y":
            direction = direction * (y != 0)  # nothing was measured elsewhere
        step = 2e-5 * float(parameter.detach().abs().max()) / float(direction.abs().max())

        def loss_at(measurements: Tensor) -> float:
            prior = model.prior(torch.float64).used(use or PriorUse(), operator.domain_dtype.is_complex)
            energy = Energy(operator, measurements, prior)
            return float(loss_of(minimise(energy, settings).image))

        def value(at: float, name: str = name, direction: Tensor = direction) -> float:
            with torch.no_grad():
                if name == "y":
                    return loss_at(y + at * direction)
                moved = getattr(model, name)
                before = moved.clone()
                moved += at * direction
                result = loss_at(y)
                moved.copy_(before)
                return result

        measured = (value(step) - value(-step)) / (2 * step)
        expected = float((gradient.conj() * direction).real.sum())
        assert measured == pytest.approx(expected, rel=1e-6), name


@pytest.mark.parametrize(("kind", "use"), [("real", PARTS), ("complex", PriorUse(modulus=True))])
def test_finite_differences_of_a_map_of_thresholds(kind: str, use: PriorUse) -> None:
    """Of the map itself, and of the thresholds of the atoms where the multiples are held."""
    operator, y, model = tiny_problem(kind, TINY_NCPR, use)
    rows = 2 if kind == "complex" else 1
    shape = (1, 6 // use.stride, 8 // use.stride, 4)
    multiples = torch.exp(0.4 * random_tensor(*shape, seed=5)).repeat(rows, 1, 1, 1)

    def energy_of(multiples: Tensor) -> Energy:
        prior = model.prior(torch.float64).used(use, operator.domain_dtype.is_complex)
        return Energy(operator, y, prior.with_thresholds(prior.regulariser.thresholds * multiples))

    def loss_at(multiples: Tensor) -> float:
        return float(loss_of(minimise(energy_of(multiples), STRIDED).image))

    energy = energy_of(multiples)
    minimum = minimise(energy, STRIDED)
    image = minimum.image.requires_grad_()
    (image_gradient,) = torch.autograd.grad(loss_of(image), image)
    found = hypergradient(energy, model, minimum.image_step, minimum.coefficients, image_gradient, EXACT_ADJOINT)
    by_multiple = found.thresholds * energy.prior.regulariser.thresholds / multiples
    direction = random_tensor(*shape, seed=6).repeat(rows, 1, 1, 1)
    measured = (loss_at(multiples + 1e-5 * direction) - loss_at(multiples - 1e-5 * direction)) / 2e-5
    assert measured == pytest.approx(float((by_multiple * direction).sum()), rel=1e-6)
    own = random_tensor(4, seed=8)  # log-thresholds
    measured = (loss_at(multiples * torch.exp(1e-5 * own)) - loss_at(multiples * torch.exp(-1e-5 * own))) / 2e-5
    assert measured == pytest.approx(float((found.log_thresholds * own).sum()), rel=1e-6)


def unrolled(
    operator: LinearOperator, y: Tensor, model: SmoothPlusSparse, n_iterations: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """x after so many plain proximal gradient steps, written with dense matrices; and the gradients through all of them."""
    theta = model.constrained()
    dense = Dense.of(operator, y, model.prior(torch.float64))
    rows, height, width = dense.shape
    n_pixels, p = height * width, model.config.patch_size
    forward = torch.from_numpy(dense.forward)
    eye = torch.eye(p * p, dtype=torch.float64)
    projector = eye - theta.free_atoms.T @ theta.free_atoms - 1 / p**2
    patches = patch_matrix((height, width), p).reshape(n_pixels, p * p, n_pixels)
    analysis = torch.einsum("qp,kpi->kqi", projector, patches).reshape(-1, n_pixels)
    analysis = torch.kron(torch.eye(rows, dtype=torch.float64), analysis)
    synthesis = torch.kron(torch.eye(rows * n_pixels, dtype=torch.float64), theta.synthesis_atoms.T.contiguous())
    measured = torch.from_numpy(dense.y)
    inverse = torch.linalg.inv(forward.T @ forward + theta.beta * analysis.T @ analysis)
    regulariser = replace(model.prior(torch.float64).regulariser, thresholds=theta.thresholds)
    couple = theta.beta * analysis.T @ synthesis
    gram = theta.beta * synthesis.T @ synthesis
    a = torch.zeros(rows * n_pixels * model.config.n_synthesis_atoms, dtype=torch.float64)
    shape = (rows, height, width, model.config.n_synthesis_atoms)
    for _ in range(n_iterations):
        x = inverse @ (forward.T @ measured + couple @ a)
        a = regulariser.prox((a + couple.T @ x - gram @ a).reshape(shape)).flatten()
    x = inverse @ (forward.T @ measured + couple @ a)
    image = x.reshape(rows, 1, 1, height, width)
    result = torch.complex(image[0], image[1]) if rows == 2 else image[0]
    gradients = torch.autograd.grad(loss_of(result), [getattr(model, name) for name in PARAMETERS])
    return result.detach(), dict(zip(PARAMETERS, gradients, strict=True))


@pytest.mark.parametrize("kind", ["denoising", "real", "complex"])
@each_config
def test_unrolled_backpropagation(kind: str, config: ModelConfig) -> None:
    operator, y, model = tiny_problem(kind, config)
    image, expected = unrolled(operator, y, model, 1500)
    gradients, _ = gradients_of(operator, y, model)
    ours = solve_with_gradient(operator, y, model, EXACT).detach()
    torch.testing.assert_close(ours, image, rtol=0, atol=1e-9)  # the same minimum
    for name in PARAMETERS:
        error = float((gradients[name] - expected[name]).norm() / expected[name].norm())
        assert error < 1e-6, name


def test_without_free_atoms() -> None:
    """The constant is all that is free."""
    operator, y, model = tiny_problem("denoising", replace(TINY_NCPR, n_free_atoms=0))
    _, expected = unrolled(operator, y, model, 1500)
    gradients, _ = gradients_of(operator, y, model)
    assert gradients["raw_free_atoms"].shape == (0, 3, 3)
    for name in PARAMETERS[1:]:
        error = float((gradients[name] - expected[name]).norm() / expected[name].norm())
        assert error < 1e-6, name


@each_config
def test_gradcheck_of_the_measurements(config: ModelConfig) -> None:
    operator, y, model = tiny_problem("denoising", config)
    y.requires_grad_()

    def image(values: Tensor) -> Tensor:
        return solve_with_gradient(operator, values, model, EXACT, EXACT_ADJOINT)

    # fast_mode: one random direction of each side instead of every element, at a twentieth of the time
    assert torch.autograd.gradcheck(image, (y,), eps=1e-5, atol=1e-7, rtol=1e-6, nondet_tol=1e-9, fast_mode=True)


def test_each_image_of_a_batch_counts_for_itself() -> None:
    operator, y, model = tiny_problem("real", TINY_NCPR)
    both = torch.cat([y, 0.5 * y.flip(-1)])
    total: dict[str, Tensor] = {}
    for single in both.split(1):
        image = solve_with_gradient(operator, single, model, EXACT, EXACT_ADJOINT)
        model.zero_grad()
        image.square().sum().backward()
        total = {name: total.get(name, 0) + getattr(model, name).grad for name in PARAMETERS}
    model.zero_grad()
    solve_with_gradient(operator, both, model, EXACT, EXACT_ADJOINT).square().sum().backward()
    for name in PARAMETERS:
        torch.testing.assert_close(getattr(model, name).grad, total[name], rtol=1e-8, atol=1e-12)


def test_the_adjoint_residual_is_what_it_says() -> None:
    """Fewer iterations give a larger residual and a gradient that is further from the exact one."""
    operator, y, model = tiny_problem("denoising", TINY_NCPR)
    energy = Energy(operator, y, model.prior(torch.float64))
    minimum = minimise(energy, EXACT)
    image_gradient = 2 * (minimum.image - y)

    def gradient(tolerance: float) -> tuple[Tensor, AdjointReport]:
        settings = AdjointSettings(tolerance, 5000)
        result = hypergradient(energy, model, minimum.image_step, minimum.coefficients, image_gradient, settings)
        return result.raw_synthesis_atoms, result.report

    exact, _ = gradient(1e-12)
    errors = []
    for tolerance in (1e-1, 1e-3, 1e-6):
        found, report = gradient(tolerance)
        assert 0 < max(report.relative_residual) <= tolerance
        errors.append(float((found - exact).norm() / exact.norm()))
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-5


def test_a_failed_adjoint_solve_raises_or_is_recorded() -> None:
    operator, y, model = tiny_problem("denoising", TINY_NCPR)
    strict = AdjointSettings(tolerance=1e-10, max_iterations=2)
    image = solve_with_gradient(operator, y, model, EXACT, strict)
    with pytest.raises(AdjointError, match=r"residual .* after 2 iterations, expected 1\.0e-10"):
        image.sum().backward()
    reports: list[AdjointReport] = []
    lenient = replace(strict, on_failure="record")
    image = solve_with_gradient(operator, y, model, EXACT, lenient, report=lambda _, report: reports.append(report))
    image.sum().backward()
    assert not reports[0].good
    assert reports[0].finite
    assert reports[0].n_iterations == 2
    assert model.beta.grad is not None


def noisy_problem() -> tuple[LinearOperator, Tensor, SmoothPlusSparse]:
    """Weights that come with the package, on an image with noise."""
    operator = make_operator("denoising", (12, 12))
    y = scene(12, 12) + 0.1 * random_tensor(1, 1, 12, 12, seed=3)
    return operator, y, SmoothPlusSparse.load("denoise_sigma25_ncpr")


def test_the_documented_call_gives_the_gradient_with_shipped_weights() -> None:
    """No settings at all; against finite differences of reconstructions that are solved more accurately."""
    operator, y, model = noisy_problem()
    y.requires_grad_()
    minima: list[Minimum] = []
    image = solve_with_gradient(operator, y, model, report=lambda minimum, _: minima.append(minimum))
    loss_of(image).backward()
    assert y.grad is not None
    direction = y.grad / y.grad.norm() + 0.1 * random_tensor(*y.shape, seed=4)

    def value(at: float) -> float:  # from the same coefficients: the energy has other minima nearby
        energy = Energy(operator, y.detach() + at * direction, model.prior(torch.float64))
        settings = replace(EXACT_SOLVER, tolerance=1e-7)
        return float(loss_of(minimise(energy, settings, start=minima[0].coefficients).image))

    measured = (value(1e-5) - value(-1e-5)) / 2e-5
    assert measured == pytest.approx(float((y.grad * direction).sum()), rel=2e-2)


def test_too_early_a_stop_says_what_to_try() -> None:
    operator, y, model = noisy_problem()
    early = FastSettings(trace_interval=0)  # the image stands still, the coefficients are not at a minimum yet
    image = solve_with_gradient(operator, y, model, early)
    with pytest.raises(AdjointError, match=r"not positive definite .*tolerance=1e-6.*max_slope=1"):
        image.sum().backward()
    reports: list[AdjointReport] = []
    image = solve_with_gradient(
        operator, y, model, early, AdjointSettings(max_slope=1.0), report=lambda _, report: reports.append(report)
    )
    image.sum().backward()
    assert reports[0].good
    assert not reports[0].indefinite


def test_a_gradient_that_is_not_finite_raises() -> None:
    operator, y, model = tiny_problem("denoising", TINY_NCPR)
    image = solve_with_gradient(operator, y, model, EXACT, EXACT_ADJOINT)
    with pytest.raises(AdjointError):
        image.backward(torch.full_like(image, torch.nan))


def test_capped_slopes_keep_the_system_definite() -> None:
    """Far from a minimum the slope of T exceeds 1 and conjugate gradients may fail; capped at 1 they cannot."""
    operator, y, model = tiny_problem("denoising", TINY_NCPR)
    energy = Energy(operator, y, model.prior(torch.float64))
    minimum = minimise(energy, replace(EXACT, max_iterations=3))
    settings = AdjointSettings(1e-8, 5000, max_slope=1.0)
    result = hypergradient(energy, model, minimum.image_step, minimum.coefficients, minimum.image - y, settings)
    assert result.report.good
    # At a minimum where no slope exceeds 1 nothing changes; CPR has none.
    operator, y, model = tiny_problem("denoising", TINY_CPR)
    plain, _ = gradients_of(operator, y, model)
    model.zero_grad()
    capped = replace(EXACT_ADJOINT, max_slope=1.0)
    loss_of(solve_with_gradient(operator, y, model, EXACT, capped)).backward()
    torch.testing.assert_close(model.raw_free_atoms.grad, plain["raw_free_atoms"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tolerance": 0.0}, "tolerance"),
        ({"tolerance": float("nan")}, "tolerance"),
        ({"max_iterations": 0}, "max_iterations"),
        ({"max_iterations": True}, "max_iterations"),
        ({"on_failure": "ignore"}, "on_failure"),
        ({"max_slope": 0.5}, "max_slope"),
    ],
)
def test_settings_are_checked(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}: expected"):
        AdjointSettings(**change)  # type: ignore[arg-type]  # wrong on purpose


PEAK = """
import resource, torch
from mrisps.bilevel import AdjointSettings, solve_with_gradient
from mrisps.model import ModelConfig, SmoothPlusSparse
from mrisps.operators import Identity
from mrisps.solvers import FastSettings
torch.manual_seed(0)
config = ModelConfig(patch_size=5, n_free_atoms=8, n_synthesis_atoms=64)
model = SmoothPlusSparse(config, torch.randn(8, 5, 5), torch.randn(64, 5, 5), torch.zeros(64), 0.5, 0.01)
settings = FastSettings(tolerance=1e-12, max_iterations={n}, trace_interval=0)
image = solve_with_gradient(Identity((96, 96)), torch.rand(1, 1, 96, 96), model, settings, AdjointSettings(1e-9, 5, "record"))
image.square().sum().backward()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_iterations() -> None:
    """One more array of coefficients for each iteration, as backpropagation keeps it, would be 2.4 MB each: 700 MB more."""

    def peak(n: int) -> int:
        run = subprocess.run(
            [sys.executable, "-c", PEAK.format(n=n)], capture_output=True, text=True, check=True, timeout=120
        )
        return int(run.stdout)

    assert peak(310) - peak(10) < 40_000  # kB
