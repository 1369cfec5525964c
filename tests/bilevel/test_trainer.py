"""The outer problem: it improves, repeats and resumes bit by bit, and stops when it should."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from safetensors.torch import load_file
from solvers.helpers import columns
from solvers.test_sense import maps
from torch import Tensor

from mrisps.bilevel import (
    Accuracy,
    Batch,
    StepReport,
    TrainingError,
    TrainSettings,
    ValidationReport,
    World,
    train,
    trainer,
)
from mrisps.errors import FileError
from mrisps.model import Attention, Energy, ModelConfig, PriorUse
from mrisps.operators import FourierSubsampling, Identity, Sense
from mrisps.solvers import FastSettings, Minimum

from .toy import ACCURACY, CONFIG, SETTINGS, SIZE, ToySamples, check_equal, parameters, toy_model, validation


class KilledError(Exception):
    """As if the process had been killed."""


class NanFrom:
    """Batches whose measurements are NaN in some steps."""

    def __init__(self, *steps: int) -> None:
        self._steps = steps

    def batch(self, step: int, first: int, count: int) -> Batch:
        batch = ToySamples().batch(step, first, count)
        return replace(batch, y=batch.y * math.nan) if step in self._steps else batch


# ------------------------------------------------------------------------------------------------------------ learning


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_improves(dtype: torch.dtype) -> None:
    model = toy_model(dtype)
    start = parameters(model)
    reports: list[StepReport] = []
    looks: list[ValidationReport] = []
    settings = replace(SETTINGS, n_steps=20, batch_size=4, validation_interval=10)
    state = train(
        model,
        ToySamples(dtype),
        [validation(dtype)],
        settings,
        on_step=reports.append,
        on_validation=looks.append,
    )
    assert [step for step, _ in state.validation] == [0, 10, 20]
    assert state.validation[-1][1] > state.validation[0][1] + 0.5  # dB
    assert [(look.step, look.psnr) for look in looks] == state.validation
    assert state.best_psnr == max(psnr for _, psnr in state.validation)
    assert [report.step for report in reports] == list(range(1, 21))
    assert [report.loss for report in reports] == state.losses
    assert state.n_skipped == 0
    for name, parameter in model.named_parameters():
        assert parameter.dtype == dtype
        assert not torch.equal(parameter, start[name]), name


def test_reports_are_true() -> None:
    """Loss and PSNR of a step belong together, and the accuracy is what was asked for."""
    reports: list[StepReport] = []
    settings = replace(SETTINGS, n_steps=2, batch_size=1)
    train(toy_model(), ToySamples(), [], settings, on_step=reports.append)
    assert [report.iterations for report in reports] == [12, 20]
    assert [report.adjoint_iterations for report in reports] == [5, 5]
    for report in reports:
        assert 1e-6 < report.adjoint_residual < 1
        assert report.residual > 1e-6
        assert report.psnr == pytest.approx(-10 * math.log10(report.loss))
        assert not report.skipped
        assert report.seconds > 0


class Same:
    """The same batch in every step."""

    def batch(self, step: int, first: int, count: int) -> Batch:
        return ToySamples().batch(0, first, count)


@pytest.mark.parametrize("loss", ["L1", "L2", "PSNR"])
def test_every_loss_falls(loss: str) -> None:
    state = train(toy_model(), Same(), [], replace(SETTINGS, n_steps=10, loss=loss, end_accuracy=ACCURACY))
    assert state.losses[-1] < 0.9 * state.losses[0]


@pytest.mark.parametrize("domain", [torch.float64, torch.complex128])
def test_learns_on_subsampled_kspace(domain: torch.dtype) -> None:
    class Kspace:
        def batch(self, step: int, first: int, count: int) -> Batch:
            target = ToySamples().batch(step, first, count).target.to(domain)
            mask = torch.rand(SIZE, generator=torch.Generator().manual_seed(step)) < 0.5
            mask[SIZE // 2 - 2 : SIZE // 2 + 2] = True
            operator = FourierSubsampling(mask, (SIZE, SIZE), domain)
            return Batch(operator, operator.forward(target), target)

    config = replace(CONFIG, regulariser="CPR", group_size=2)
    model = toy_model(config=config)
    start = parameters(model)
    state = train(model, Kspace(), [Kspace().batch(99, 0, 2)], replace(SETTINGS, n_steps=3))
    assert state.n_skipped == 0
    assert all(math.isfinite(psnr) for _, psnr in state.validation)
    assert not torch.equal(model.raw_synthesis_atoms, start["raw_synthesis_atoms"])


@dataclass(frozen=True)
class Coils:
    """Undersampled complex images of four coils with two sets of maps; the second set sees nothing."""

    def batch(self, step: int, first: int, count: int) -> Batch:
        plain = ToySamples().batch(step, first, count)
        operator = Sense(columns(SIZE), maps(4, (SIZE, SIZE), n_sets=2), torch.complex128)
        image = torch.polar(plain.target, torch.linspace(0, 2, SIZE, dtype=torch.float64).expand_as(plain.target))
        target = torch.cat([image, torch.zeros_like(image)], dim=1)
        return Batch(operator, operator(target + 0.05 * (plain.y - plain.target)), target)


@pytest.mark.parametrize("modulus", [False, True])
def test_learns_on_coils_with_some_of_the_patches(modulus: bool) -> None:
    accuracy = replace(ACCURACY, iterations=10, adjoint_iterations=15)
    settings = replace(SETTINGS, n_steps=4, batch_size=1, start_accuracy=accuracy, end_accuracy=accuracy)
    settings = replace(settings, prior=PriorUse(stride=2, modulus=modulus), validation_interval=4)
    state = train(toy_model(), Coils(), [Coils().batch(999, 0, 1)], settings)
    assert state.n_skipped == 0
    assert state.validation[-1][1] > state.validation[0][1]


@pytest.mark.parametrize(
    "target", [torch.zeros(2, 1, SIZE, SIZE + 1), torch.zeros(2, 1, SIZE, SIZE, dtype=torch.complex64)]
)
def test_a_target_that_is_no_image_of_the_operator(target: Tensor) -> None:
    with pytest.raises(ValueError, match=r"^target: expected torch.float32 \(2, 1, 16, 16\), got"):
        Batch(Identity((SIZE, SIZE)), torch.zeros(2, 1, SIZE, SIZE), target)


ATTENTION = replace(
    SETTINGS,
    n_steps=12,
    learn="attention",
    prior=PriorUse(stride=2),
    learning_rate_attention=1e-3,
    solver=replace(SETTINGS.solver, attention_iterations=5),
    validation_solver=replace(SETTINGS.validation_solver, attention_iterations=5),
)


@pytest.mark.parametrize("gradient", ["minimiser", "iterations"])
def test_an_attention_is_learned_alone_and_resumes_bit_by_bit(
    gradient: Literal["minimiser", "iterations"], tmp_path: Path
) -> None:
    start, settings = toy_model(), replace(ATTENTION, gradient=gradient)
    model = start.with_attention(Attention.zeros(4))
    state = train(model, ToySamples(), [validation()], settings)
    assert state.n_skipped == 0
    assert state.validation[-1][1] > state.validation[0][1] + 0.02  # dB
    learned = parameters(model)
    for name, value in parameters(start).items():
        assert torch.equal(learned[name], value), name
    best = state.best_model(model)
    assert best.attention is not None
    assert float(best.attention.exit.detach().abs().max()) > 0
    part, checkpoint = start.with_attention(Attention.zeros(4)), tmp_path / "c.safetensors"

    def kill(state: object) -> None:
        raise KilledError

    with pytest.raises(KilledError):
        train(part, ToySamples(), [validation()], settings, checkpoint=checkpoint, on_checkpoint=kill)
    resumed = start.with_attention(Attention.zeros(4))
    train(resumed, ToySamples(), [validation()], settings, checkpoint=checkpoint, resume=True)
    check_equal(parameters(resumed), learned)


def test_what_is_learned_has_to_be_there() -> None:
    with pytest.raises(
        ValueError, match=r"^model: expected an attention exactly where one is learned, got none to learn 'attention'"
    ):
        train(toy_model(), ToySamples(), [], ATTENTION)
    with pytest.raises(
        ValueError, match=r"^model: expected an attention exactly where one is learned, got one to learn 'prior'"
    ):
        train(toy_model().with_attention(Attention.zeros(4)), ToySamples(), [], SETTINGS)
    late = replace(ATTENTION, solver=replace(ATTENTION.solver, attention_iterations=1000))
    with pytest.raises(TrainingError, match=r"end before the attention looks: allow more than 1000"):
        train(toy_model().with_attention(Attention.zeros(4)), ToySamples(), [], late)


@pytest.mark.parametrize("learn", ["prior", "both"])
def test_through_the_iterations(learn: Literal["prior", "both"]) -> None:
    """The image after exactly as many iterations becomes better, and every group of parameters moves."""
    settings = replace(ATTENTION, learn=learn, gradient="iterations", n_steps=20)
    settings = replace(
        settings, validation_solver=replace(settings.validation_solver, tolerance=1e-12, max_iterations=15)
    )
    short = replace(settings.start_accuracy, iterations=15)
    settings = replace(settings, start_accuracy=short, end_accuracy=short)
    start = toy_model() if learn == "prior" else toy_model().with_attention(Attention.zeros(4))
    before = parameters(start)
    before = {name: value.clone() for name, value in before.items()}
    state = train(start, ToySamples(), [validation()], settings)
    assert state.n_skipped == 0
    assert state.validation[-1][1] > state.validation[0][1] + 0.05  # dB
    assert not any(torch.equal(value, before[name]) for name, value in parameters(start).items())


def test_deterministic() -> None:
    one, two = toy_model(), toy_model()
    first = train(one, ToySamples(), [validation()], SETTINGS)
    second = train(two, ToySamples(), [validation()], SETTINGS)
    check_equal(parameters(one), parameters(two))
    assert first.losses == second.losses
    assert first.validation == second.validation


def test_the_best_parameters_are_kept() -> None:
    """A learning rate that destroys the model: the start stays the best."""
    model = toy_model()
    start = parameters(model)
    settings = replace(SETTINGS, learning_rate_thresholds=3.0, hold=1.0)
    looks: list[ValidationReport] = []
    state = train(model, ToySamples(), [validation()], settings, on_validation=looks.append)
    assert state.best_step == 0
    assert state.best_psnr == state.validation[0][1]
    check_equal(state.best_parameters, start)
    assert [look.is_best for look in looks] == [True, False, False]
    check_equal(parameters(state.best_model(model)), start)
    assert not torch.equal(model.log_thresholds, start["log_thresholds"])  # the model itself holds the last ones


def test_the_mean_of_the_parameters(tmp_path: Path) -> None:
    """The best is the running mean: of all steps at first, then with the decay; a training that is resumed goes on with it."""
    settings = replace(SETTINGS, n_steps=6, average=0.75, checkpoint_interval=3)
    model, passed = toy_model(), []
    expected = parameters(model)

    state = train(model, ToySamples(), [], settings, on_step=lambda report: passed.append(parameters(model)))
    for step, now in enumerate(passed, 1):
        decay = min(0.75, step / (step + 1))
        expected = {name: decay * value + (1 - decay) * now[name] for name, value in expected.items()}
    for name, value in state.best_parameters.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-12, atol=0)
        assert not torch.equal(value, passed[-1][name])
    checkpoint = tmp_path / "c.safetensors"

    def kill(state: object) -> None:
        raise KilledError

    with pytest.raises(KilledError):
        train(toy_model(), ToySamples(), [], settings, checkpoint=checkpoint, on_checkpoint=kill)
    resumed = train(toy_model(), ToySamples(), [], settings, checkpoint=checkpoint, resume=True)
    check_equal(resumed.best_parameters, state.best_parameters)


def test_without_validation_the_last_parameters_are_the_best() -> None:
    model = toy_model()
    state = train(model, ToySamples(), [], replace(SETTINGS, n_steps=4))
    assert state.validation == []
    assert state.best_psnr is None
    assert state.best_step == 4
    check_equal(state.best_parameters, parameters(model))


def test_validation_of_several_batches_is_the_mean_over_images() -> None:
    settings = replace(SETTINGS, n_steps=1)
    batches = [ToySamples().batch(999, 0, 3), ToySamples().batch(999, 3, 1)]
    together = train(toy_model(), ToySamples(), [validation()], settings)
    apart = train(toy_model(), ToySamples(), batches, settings)
    # The solver stops a batch when all of it is done, so the iterations differ a little.
    assert apart.validation[0][1] == pytest.approx(together.validation[0][1], abs=1e-3)


def test_broken_validation_is_never_the_best() -> None:
    whole = validation()
    y = whole.y.clone()
    y[1, 0, 3, 3] = math.nan
    looks: list[ValidationReport] = []
    with pytest.raises(TrainingError, match="no validation gave a finite PSNR"):
        train(toy_model(), ToySamples(), [replace(whole, y=y)], SETTINGS, on_validation=looks.append)
    assert [math.isnan(look.psnr) for look in looks] == [True] * 3
    assert not any(look.is_best for look in looks)


def test_a_finite_image_of_a_broken_solve_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """The solver hands out the last finite image where NaN appeared later: good for a look, not for learning or choosing."""
    original = trainer.minimise

    def breaking(energy: Energy, settings: FastSettings, **more: Any) -> Minimum:
        minimum = original(energy, settings, **more)
        assert bool(minimum.image.isfinite().all())
        broken = minimum.broken.clone()
        broken[-1] = True
        return replace(minimum, broken=broken)

    monkeypatch.setattr(trainer, "minimise", breaking)
    model = toy_model()
    before = parameters(model)
    reports: list[StepReport] = []
    with pytest.raises(TrainingError, match="no validation gave a finite PSNR"):
        train(model, ToySamples(), [validation()], replace(SETTINGS, n_steps=2), on_step=reports.append)
    assert [report.skipped for report in reports] == [True, True]
    check_equal(parameters(model), before)


# ------------------------------------------------------------------------------------------------------------ schedule


def test_rate() -> None:
    settings = replace(SETTINGS, n_steps=10, hold=0.4)
    assert [settings.rate(step) for step in range(10)] == pytest.approx([1] * 5 + [5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6])
    assert replace(settings, hold=1.0).rate(9) == 1
    assert replace(settings, hold=0.0).rate(5) == pytest.approx(0.5)


def test_rates_reach_the_optimiser() -> None:
    """Adam's first step is as long as the rate; with hold=0 the rates are 1, 3/4, 1/2 and 1/4 of it."""
    steps = []
    for n_steps, hold in ((1, 1.0), (4, 0.0)):
        model = toy_model()
        start = parameters(model)
        train(model, Same(), [], replace(SETTINGS, n_steps=n_steps, hold=hold))
        steps.append({name: (value - start[name]).abs() for name, value in parameters(model).items()})
    first, four = steps
    assert float(first["raw_free_atoms"].max()) == pytest.approx(3e-2, rel=1e-3)
    assert float(first["raw_synthesis_atoms"].max()) == pytest.approx(3e-2, rel=1e-3)
    assert float(first["log_thresholds"].max()) == pytest.approx(1e-1, rel=1e-3)
    assert float(first["beta"]) == pytest.approx(1e-1, rel=1e-3)
    assert float(four["log_thresholds"].max()) == pytest.approx(1e-1 * (1 + 0.75 + 0.5 + 0.25), rel=0.05)


@pytest.mark.parametrize("beta", [0.02, 3.0])
def test_the_rate_of_beta_is_relative(beta: float) -> None:
    """It spans orders of magnitude from task to task."""
    model = toy_model().with_regularisation(beta=beta)
    train(model, Same(), [], replace(SETTINGS, n_steps=1, hold=1.0))
    assert abs(float(model.beta.detach()) / beta - 1) == pytest.approx(0.1, rel=1e-3)


def test_checkpoints_are_told(tmp_path: Path) -> None:
    steps: list[int] = []
    train(
        toy_model(),
        ToySamples(),
        [],
        replace(SETTINGS, n_steps=5, checkpoint_interval=2),
        checkpoint=tmp_path / "c",
        on_checkpoint=lambda state: steps.append(state.step),
    )
    assert steps == [2, 4, 5]


def test_accuracy_tightens_in_equal_factors() -> None:
    settings = replace(
        SETTINGS, n_steps=3, start_accuracy=Accuracy(20, 1e-1, 4, 0.4), end_accuracy=Accuracy(80, 1e-3, 16, 0.1)
    )
    first, middle, last = (settings.accuracy(step) for step in range(3))
    for found, expected in ((first, (20, 1e-1, 4, 0.4)), (middle, (40, 1e-2, 8, 0.2)), (last, (80, 1e-3, 16, 0.1))):
        assert (found.iterations, found.adjoint_iterations) == (expected[0], expected[2])
        assert (found.tolerance, found.adjoint_tolerance) == pytest.approx((expected[1], expected[3]))
    assert replace(settings, n_steps=1).accuracy(0).iterations == 20


def test_beta_has_a_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "BETA_MIN", 1.5)
    model = toy_model()
    train(model, ToySamples(), [], replace(SETTINGS, n_steps=1))
    assert float(model.beta.detach()) == 1.5


def test_a_basis_that_is_not_learned(tmp_path: Path) -> None:
    """Q stays as it is, all else moves; and resuming is bit-exact without Adam's moments for it."""
    settings = replace(SETTINGS, fixed="free_atoms", n_steps=4)
    whole, torn, start = toy_model(), toy_model(), parameters(toy_model())
    train(whole, ToySamples(), [], settings)
    moved = {name for name, value in parameters(whole).items() if not torch.equal(value, start[name])}
    assert moved == {"raw_synthesis_atoms", "log_thresholds", "beta"}

    def interrupt(report: StepReport) -> None:
        if report.step == 3:
            raise KilledError

    path = tmp_path / "checkpoint"
    with pytest.raises(KilledError):
        train(torn, ToySamples(), [], settings, checkpoint=path, on_step=interrupt)
    resumed = toy_model()
    train(resumed, ToySamples(), [], settings, checkpoint=path, resume=True)
    check_equal(parameters(resumed), parameters(whole))


def test_learns_without_free_atoms() -> None:
    model = toy_model(config=replace(CONFIG, n_free_atoms=0))
    state = train(model, ToySamples(), [validation()], replace(SETTINGS, n_steps=20, batch_size=4))
    assert state.validation[-1][1] > state.validation[0][1] + 0.5  # dB
    assert state.n_skipped == 0


# -------------------------------------------------------------------------------------------------------------- resume


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_resumes_bit_by_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    """Killed in step 6, after the checkpoint of step 4: parameters, Adam and history are as if nothing had happened."""
    whole, torn = toy_model(dtype), toy_model(dtype)
    settings = replace(SETTINGS, n_steps=7)
    expected = train(whole, ToySamples(dtype), [validation(dtype)], settings, checkpoint=tmp_path / "whole")

    def interrupt(report: StepReport) -> None:
        if report.step == 5:
            raise KilledError

    with pytest.raises(KilledError):
        train(torn, ToySamples(dtype), [validation(dtype)], settings, checkpoint=tmp_path / "torn", on_step=interrupt)
    resumed, steps = toy_model(dtype), []
    with torch.no_grad():
        resumed.beta.fill_(0.3)  # what the model was does not matter
    found = train(
        resumed,
        ToySamples(dtype),
        [validation(dtype)],
        settings,
        checkpoint=tmp_path / "torn",
        resume=True,
        on_step=lambda report: steps.append(report.step),
    )
    assert steps == [5, 6, 7]
    check_equal(parameters(resumed), parameters(whole))
    check_equal(found.best_parameters, expected.best_parameters)
    assert replace(found, best_parameters={}) == replace(expected, best_parameters={})
    check_equal(load_file(tmp_path / "torn"), load_file(tmp_path / "whole"))  # with Adam's moments


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_resumes_on_a_gpu(tmp_path: Path) -> None:
    """Adam's moments go where the parameters are, its step count stays in the processor's memory."""

    class OnGpu:
        def batch(self, step: int, first: int, count: int) -> Batch:
            batch = ToySamples(torch.float32).batch(step, first, count)
            operator = Identity((SIZE, SIZE), torch.float32, "cuda")
            return Batch(operator, batch.y.cuda(), batch.target.cuda())

    def interrupt(report: StepReport) -> None:
        if report.step == 5:
            raise KilledError

    whole, torn, resumed = (toy_model(torch.float32).cuda() for _ in range(3))
    looks = [OnGpu().batch(999, 0, 2)]
    expected = train(whole, OnGpu(), looks, SETTINGS)
    with pytest.raises(KilledError):
        train(torn, OnGpu(), looks, SETTINGS, checkpoint=tmp_path / "c", on_step=interrupt)
    found = train(resumed, OnGpu(), looks, SETTINGS, checkpoint=tmp_path / "c", resume=True)
    assert found.step == 6
    assert found.best_parameters["beta"].device.type == "cuda"
    assert found.losses == pytest.approx(expected.losses, rel=1e-3)


def test_resume_of_a_finished_training_does_nothing(tmp_path: Path) -> None:
    model = toy_model()
    done = train(model, ToySamples(), [validation()], SETTINGS, checkpoint=tmp_path / "c")
    again = toy_model()
    state = train(again, NanFrom(*range(99)), [validation()], SETTINGS, checkpoint=tmp_path / "c", resume=True)
    check_equal(parameters(again), parameters(model))
    assert state.losses == done.losses


def test_resume_without_a_checkpoint_begins(tmp_path: Path) -> None:
    state = train(toy_model(), ToySamples(), [], SETTINGS, checkpoint=tmp_path / "c", resume=True)
    assert state.step == 6
    assert (tmp_path / "c").exists()


def test_without_resume_a_checkpoint_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "c").write_text("anything")
    train(toy_model(), ToySamples(), [], replace(SETTINGS, n_steps=2), checkpoint=tmp_path / "c")
    assert "model.beta" in load_file(tmp_path / "c")


def test_resume_of_another_training_is_refused(tmp_path: Path) -> None:
    train(toy_model(), ToySamples(), [], SETTINGS, checkpoint=tmp_path / "c", identity={"recipe": {"lam": 0.1}})
    with pytest.raises(FileError, match=r"another training: recipe\.lam is 0\.1 there and 0\.2 here"):
        train(
            toy_model(),
            ToySamples(),
            [],
            SETTINGS,
            checkpoint=tmp_path / "c",
            resume=True,
            identity={"recipe": {"lam": 0.2}},
        )


# ------------------------------------------------------------------------------------------------------- skipped steps


@pytest.mark.parametrize("gradient", ["minimiser", "iterations"])
def test_a_step_with_nan_is_skipped(gradient: Literal["minimiser", "iterations"]) -> None:
    model, settings = toy_model(), replace(SETTINGS, gradient=gradient)
    reports: list[StepReport] = []
    states = []

    def note(report: StepReport) -> None:
        reports.append(report)
        states.append(parameters(model))

    state = train(model, NanFrom(1, 2), [validation()], settings, on_step=note)
    assert [report.skipped for report in reports] == [False, True, True, False, False, False]
    check_equal(states[1], states[0])
    check_equal(states[2], states[0])
    assert not torch.equal(states[3]["beta"], states[0]["beta"])
    assert (state.n_skipped, state.n_skipped_in_row, state.step) == (2, 0, 6)
    assert [math.isnan(loss) for loss in state.losses] == [report.skipped for report in reports]


def test_resumes_after_skipped_steps(tmp_path: Path) -> None:
    """Adam has no state before its first step; NaN in the history survives the file."""
    first = train(toy_model(), NanFrom(0, 1), [], replace(SETTINGS, n_steps=2), checkpoint=tmp_path / "c")
    assert not any(name.startswith("adam") for name in load_file(tmp_path / "c"))
    resumed, whole = toy_model(), toy_model()
    settings = replace(SETTINGS, n_steps=4, hold=1.0, start_accuracy=ACCURACY, end_accuracy=ACCURACY)
    state = train(resumed, NanFrom(0, 1), [], settings, checkpoint=tmp_path / "c", resume=True)
    train(whole, NanFrom(0, 1), [], settings)
    check_equal(parameters(resumed), parameters(whole))
    assert state.n_skipped == first.n_skipped == 2


def test_a_failed_adjoint_solve_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A residual above that of the zero vector; one that is NaN hides behind none."""
    original = trainer.hypergradient
    residuals = iter([(0.1, 1.6), (1.4, 0.1), (0.1, math.nan)])

    def worse(*arguments: object, start: object = None) -> object:
        gradient = original(*arguments, start=start)  # type: ignore[arg-type]  # passed on, or wrong on purpose
        return replace(gradient, report=replace(gradient.report, relative_residual=next(residuals)))

    monkeypatch.setattr(trainer, "hypergradient", worse)
    reports: list[StepReport] = []
    train(toy_model(), ToySamples(), [], replace(SETTINGS, n_steps=3), on_step=reports.append)
    assert [report.skipped for report in reports] == [True, False, True]
    assert reports[0].adjoint_residual == pytest.approx(1.6)


def test_stops_when_too_many_steps_are_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "MAX_SKIPPED", 3)
    model = toy_model()
    reports: list[StepReport] = []
    settings = replace(SETTINGS, n_steps=20)
    with pytest.raises(TrainingError, match="stopped at step 7: 4 steps in a row") as caught:
        train(model, NanFrom(*range(3, 20)), [], settings, checkpoint=tmp_path / "c", on_step=reports.append)
    assert "Lower the learning rates" in str(caught.value)
    assert "start_accuracy" in str(caught.value)
    assert len(reports) == 7
    assert (tmp_path / "c").exists()


def test_skipped_steps_that_are_not_in_a_row_do_not_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "MAX_SKIPPED", 1)
    state = train(toy_model(), NanFrom(0, 2, 4), [], SETTINGS)
    assert state.step == 6
    assert state.n_skipped == 3


@pytest.mark.parametrize("with_validation", [False, True])
def test_atoms_that_are_not_admissible(with_validation: bool) -> None:
    """They are never called the best, whether anybody looks at them or not."""
    model = toy_model()
    with torch.no_grad():
        model.raw_free_atoms[1] = model.raw_free_atoms[0]
    with pytest.raises(TrainingError, match="training stopped: raw_free_atoms: expected orthonormal atoms"):
        train(model, ToySamples(), [validation()] if with_validation else [], SETTINGS)


# ------------------------------------------------------------------------------------------------------------ settings


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("n_steps", 0, "integer >= 1"),
        ("n_steps", 2.0, "integer, got 2.0"),
        ("batch_size", True, "integer, got True"),
        ("validation_interval", -1, "integer >= 1"),
        ("checkpoint_interval", 0, "integer >= 1"),
        ("seed", -1, "integer >= 0"),
        ("learning_rate", 0.0, "number > 0"),
        ("learning_rate", math.nan, "finite number, got nan"),
        ("learning_rate", "1e-3", "number, got '1e-3'"),
        ("learning_rate_thresholds", math.inf, "finite number, got inf"),
        ("hold", 1.1, "number <= 1, got 1.1"),
        ("hold", math.nan, "finite number, got nan"),
        ("hold", "half", "number, got 'half'"),
        ("loss", "L3", "'L1', 'L2' or 'PSNR', got 'L3'"),
        ("fixed", "beta", "'free_atoms', got 'beta'"),
    ],
)
def test_settings_are_checked(name: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: expected .*{message}"):
        TrainSettings(**{"n_steps": 1, name: value})  # type: ignore[arg-type]  # passed on, or wrong on purpose


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("iterations", 0, "integer >= 1"),
        ("adjoint_iterations", 1.5, "integer, got 1.5"),
        ("tolerance", 0.0, "number > 0"),
        ("tolerance", None, "number, got None"),
        ("adjoint_tolerance", math.nan, "finite number, got nan"),
    ],
)
def test_accuracy_is_checked(name: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: expected .*{message}"):
        replace(ACCURACY, **{name: value})  # type: ignore[arg-type]  # passed on, or wrong on purpose


def test_iterations_that_end_before_the_continuation() -> None:
    """What would be differentiated is no minimiser of the energy."""
    solver = FastSettings(continuation_start=32.0, continuation_decay=0.9)  # 33 iterations
    for iterations in (20, 40):
        accuracy = Accuracy(iterations, 1e-3, 5, 0.1)
        settings = replace(SETTINGS, n_steps=1, solver=solver, start_accuracy=accuracy, end_accuracy=accuracy)
        if iterations == 20:
            with pytest.raises(TrainingError, match="the solver's 20 iterations end before its continuation does"):
                train(toy_model(), ToySamples(), [], settings)
        else:
            assert train(toy_model(), ToySamples(), [], settings).step == 1


def test_the_batch_is_shared_out_evenly() -> None:
    with pytest.raises(ValueError, match="batch_size: expected a multiple of the 3 processes, got 2"):
        train(toy_model(), ToySamples(), [], SETTINGS, world=World(0, 3))


def test_half_storage_is_no_obstacle() -> None:
    """The solver may keep its coefficients in float16."""
    model = toy_model(torch.float32, ModelConfig(patch_size=3, n_free_atoms=2, n_synthesis_atoms=4))
    settings = replace(SETTINGS, n_steps=2, solver=replace(SETTINGS.solver, half_storage=True))
    state = train(model, ToySamples(torch.float32), [], settings)
    assert state.n_skipped == 0


# --------------------------------------------------------------------------------------------------------- warm starts


WARM = replace(SETTINGS, n_steps=8, warm_batches=2, warm_iterations=6, checkpoint_interval=4)


def test_warm_starts_go_on_from_where_they_were() -> None:
    """With frozen parameters a batch that comes again starts at the residual it ended with, and its gradient gets more exact."""
    reports: list[StepReport] = []
    settings = replace(WARM, n_steps=12, checkpoint_interval=12, learning_rate=1e-12, learning_rate_thresholds=1e-12)
    train(toy_model(), ToySamples(), [], settings, on_step=reports.append)
    first, last = reports[0], reports[10]  # both of batch 0
    assert (first.iterations, last.iterations) == (12, 6)
    assert last.residual < 0.3 * first.residual
    assert last.adjoint_residual < 0.3 * first.adjoint_residual


def test_warm_starts_resume_bit_by_bit(tmp_path: Path) -> None:
    """What is kept is dropped at every checkpoint: the uninterrupted run does not know more than one that is resumed."""
    whole = toy_model()
    train(whole, ToySamples(), [], WARM)
    path = tmp_path / "state.safetensors"

    def stop(report: StepReport) -> None:
        if report.step == 6:
            raise KilledError

    with pytest.raises(KilledError):
        train(toy_model(), ToySamples(), [], WARM, checkpoint=path, on_step=stop)
    resumed = toy_model()
    state = train(resumed, ToySamples(), [], WARM, checkpoint=path, resume=True)
    assert state.step == 8
    check_equal(parameters(resumed), parameters(whole))


def test_a_skipped_batch_starts_from_nothing_again() -> None:
    reports: list[StepReport] = []
    train(toy_model(), NanFrom(1), [], replace(WARM, n_steps=4), on_step=reports.append)
    assert [report.skipped for report in reports] == [False, True, False, True]
    assert reports[2].iterations == 6
