"""Everything that takes a device, on one that no CPU tensor may be mixed with: the numbers of the CPU, and few transfers."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from bilevel.test_trainer import KilledError
from bilevel.toy import SETTINGS, ToySamples, check_equal, parameters, toy_model, validation
from cli.helpers import Cli, recipe_text
from kspace.test_espirit import SHAPE, maps_and_centre
from kspace.test_preparation import RECIPE, record
from model.helpers import random_model, relative_error
from solvers.helpers import CPR, NCPR, columns, make_operator, measure
from torch import Tensor

import mrisps
from mrisps.bilevel import AdjointSettings, Batch, StepReport, TrainSettings, solve_with_gradient, train
from mrisps.io.fastmri import write_kspace
from mrisps.kspace.espirit import espirit
from mrisps.model import Attention, ModelConfig, PriorUse, SmoothPlusSparse
from mrisps.operators import LinearOperator, Sense
from mrisps.solvers import FastSettings, solve

from .simulated import DEVICE, SimulatedTensor, counted_transfers, register

SETUP = 40
"""Transfers of a solve before its first and after its last iteration, at most."""


@pytest.fixture(autouse=True)
def device() -> None:
    register()


def sense(n_sets: int) -> Sense:
    generator = torch.Generator().manual_seed(n_sets)
    y, x = torch.meshgrid(torch.linspace(-1, 1, 24), torch.linspace(-1, 1, 20), indexing="ij")
    angles = 2 * torch.pi * torch.arange(4) / 4
    maps = torch.stack([torch.exp(-((x - t.cos()) ** 2) - (y - t.sin()) ** 2 + 1j * t) for t in angles])
    sets = maps[None] if n_sets == 1 else torch.stack([maps, 0.3 * maps.roll(9, -1)])
    noise = torch.randn(sets.shape, dtype=torch.complex64, generator=generator)
    return Sense(columns(20), sets / 2 + 0.01 * noise)


def operator_of(kind: str) -> LinearOperator:
    if kind.startswith("sense"):
        return sense(int(kind[-1]))
    return make_operator(kind, (24, 20), double=False)


def compare(
    kind: str,
    config: ModelConfig,
    use: PriorUse,
    settings: FastSettings,
    batch: int = 1,
    attention: Attention | None = None,
) -> None:
    operator, model = operator_of(kind), random_model(config, lam=0.02).with_attention(attention)
    y = torch.cat([measure(operator, seed=seed) for seed in range(batch)])
    expected = solve(operator, y, model, settings, use=use)
    with counted_transfers() as transfers:
        found = solve(operator.to(DEVICE), y.to(DEVICE), model, settings, use=use)
    for name in ("image", "smooth", "sparse", "cost_map"):
        part = getattr(found, name)
        assert isinstance(part, SimulatedTensor)
        assert relative_error(part.cpu(), getattr(expected, name)) < 1e-3
    certificates = found.certificates
    assert [c.status for c in certificates] == [c.status for c in expected.certificates]
    n_iterations = max(c.n_iterations + c.n_coarse_iterations for c in certificates)
    assert transfers.count <= n_iterations / 5 + SETUP, sorted(set(transfers.operations))


KINDS = ("denoising", "real", "complex", "blur", "sense1", "sense2")
SETTINGS_OF = {
    "plain": FastSettings(tolerance=1e-3, max_iterations=400),
    "continuation": FastSettings(tolerance=1e-3, max_iterations=400, continuation_start=8.0, continuation_decay=0.9),
    "levels": FastSettings(
        tolerance=1e-3, max_iterations=400, levels=2, continuation_start=4.0, continuation_decay=0.8
    ),
}
QUICK = [
    ("denoising", NCPR, 1, "plain"),
    ("real", CPR, 2, "plain"),
    ("complex", NCPR, 2, "levels"),
    ("blur", NCPR, 1, "continuation"),
    ("sense1", NCPR, 2, "continuation"),
    ("sense2", CPR, 1, "plain"),
]


def case(kind: str, config: ModelConfig, stride: int, settings: str) -> object:
    chosen = (kind, config, stride, settings)
    name = "-".join(map(str, (kind, config.regulariser, stride, settings)))
    return pytest.param(*chosen, id=name, marks=() if chosen in QUICK else pytest.mark.slow)


@pytest.mark.parametrize(
    ("kind", "config", "stride", "settings"),
    [
        case(kind, config, stride, settings)
        for kind in KINDS
        for config in (NCPR, CPR)
        for stride in (1, 2)
        for settings in SETTINGS_OF
    ],
)
def test_solve(kind: str, config: ModelConfig, stride: int, settings: str) -> None:
    modulus = kind in ("complex", "sense2")
    compare(kind, config, PriorUse(stride, modulus), SETTINGS_OF[settings])


@pytest.mark.parametrize("kind", ["real", pytest.param("sense2", marks=pytest.mark.slow)])
def test_attention(kind: str) -> None:
    """Of three images, which end one by one."""
    attention = Attention.zeros(NCPR.n_synthesis_atoms)
    torch.nn.init.normal_(attention.exit, std=0.3)
    settings = replace(SETTINGS_OF["continuation"], attention_iterations=5)
    compare(kind, NCPR, PriorUse(2, kind == "sense2"), settings, batch=3, attention=attention)


@pytest.mark.parametrize(("kind", "config"), [("real", CPR), pytest.param("sense1", NCPR, marks=pytest.mark.slow)])
def test_a_batch_whose_images_end_one_by_one(kind: str, config: ModelConfig) -> None:
    compare(kind, config, PriorUse(2), SETTINGS_OF["plain"], batch=3)


def test_one_transfer_in_five_iterations() -> None:
    """Twice the iterations: one more transfer for every five more."""
    for kind, config in (("sense1", NCPR), ("real", CPR)):
        operator, model = operator_of(kind).to(DEVICE), random_model(config, lam=0.02)
        y = measure(operator_of(kind)).to(DEVICE)
        counts = []
        for n in (20, 40):
            with counted_transfers() as transfers:
                solve(operator, y, model, FastSettings(tolerance=1e-9, max_iterations=n, trace_interval=0))
            counts.append(transfers.count)
        assert counts[1] - counts[0] <= 20 / 5, kind


def test_mixing_is_noticed() -> None:
    """The simulated device is one."""
    there, here = torch.ones(3, device=DEVICE), torch.ones(3)
    with pytest.raises(RuntimeError, match="tensors on simulated:0 and on cpu"):
        there + here
    assert torch.equal((there + here.to(DEVICE)).cpu(), 2 * here)
    assert torch.equal((there * 2.0)[1:].cpu(), 2 * here[1:])
    with counted_transfers() as transfers:
        assert float(there.sum()) == 3
        assert bool((there > 0).all())
        there.cpu()
        there[there > 2]
        there + there
    assert transfers.count == 4
    turned = torch.polar(there, there).conj()
    torch.testing.assert_close((turned * turned.conj()).real.cpu(), here)


# ------------------------------------------------------------------------------------------------------- from file to file


@pytest.mark.parametrize("n_sets", [1, 2])
def test_calibration(n_sets: int) -> None:
    _, _, centre = maps_and_centre(4, noise=0.01)
    expected = espirit(centre, SHAPE, n_sets=n_sets)
    found = espirit(centre.to(DEVICE), SHAPE, n_sets=n_sets)
    torch.testing.assert_close(found.vectors.cpu(), expected.vectors, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.eigenvalues.cpu(), expected.eigenvalues, rtol=1e-4, atol=1e-4)


@pytest.fixture
def model() -> SmoothPlusSparse:
    return random_model(ModelConfig(patch_size=5, n_free_atoms=6, n_synthesis_atoms=12), lam=0.02, dtype=torch.float32)


@pytest.fixture
def coil_file(tmp_path: Path) -> Path:
    """Two slices of 32 x 32 from 4 coils, every second column but the centre."""
    acquisition, _ = record((32, 32), 4, noise=0.01)
    mask = np.zeros(32, dtype=np.bool_)
    mask[::2] = True
    mask[8:24] = True
    kspace = np.stack([acquisition.kspace, 0.7 * acquisition.kspace[:, ::-1]]) * mask
    write_kspace(tmp_path / "coils.h5", kspace.astype(np.complex64), mask=mask)
    return tmp_path / "coils.h5"


def test_a_file_of_several_coils(coil_file: Path, model: SmoothPlusSparse) -> None:
    recipe = replace(RECIPE, solver=replace(RECIPE.solver, max_iterations=20))
    expected = mrisps.recon(coil_file, recipe, weights=model)
    found = mrisps.recon(coil_file, recipe, weights=model, device=DEVICE)
    assert found.image.shape == (2, 32, 32)
    assert np.linalg.norm(found.image - expected.image) < 1e-3 * np.linalg.norm(expected.image)
    assert found.verdict.level == expected.verdict.level
    found.report(coil_file.with_suffix(".html"))
    together = mrisps.recon(coil_file, recipe, weights=model, device=DEVICE, slices_together=2)
    assert np.linalg.norm(together.image - expected.image) < 1e-3 * np.linalg.norm(expected.image)


def test_the_command(coil_file: Path, model: SmoothPlusSparse, tmp_path: Path) -> None:
    model.save(tmp_path / "small.safetensors")
    extra = "preparation=Preparation(), image='complex', scale=ScaleRule(99.5, 1.0), "
    text = recipe_text("mri", extra, "max_iterations=10").replace(
        "from mrisps.solvers", "from mrisps.kspace.preparation import Preparation\nfrom mrisps.solvers", 1
    )
    (tmp_path / "small.py").write_text(text)
    options = ("--recipe", tmp_path / "small.py", "--weights", tmp_path / "small.safetensors", "--accept-unconverged")
    cli = Cli()
    for device in ("cpu", DEVICE):
        assert cli("recon", coil_file, *options, "--output", tmp_path / device, "--device", device, "--keep") == 0
    images = []
    for device in ("cpu", DEVICE):
        with h5py.File(tmp_path / device / "coils.h5") as file:
            images.append(file["reconstruction"][:])
    expected, found = images
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * float(np.abs(expected).max()))


# ---------------------------------------------------------------------------------------------------------------- training


@pytest.mark.parametrize("kind", ["complex", pytest.param("blur", marks=pytest.mark.slow)])
def test_hypergradient(kind: str) -> None:
    gradients = []
    for device in ("cpu", DEVICE):
        operator, model = make_operator(kind, (8, 8)), random_model(NCPR, lam=0.1)
        y = measure(operator).to(device).requires_grad_()
        adjoint = AdjointSettings(tolerance=1e-6, max_slope=1.0)
        settings = FastSettings(tolerance=1e-5, max_iterations=500)
        image = solve_with_gradient(operator.to(device), y, model, settings, adjoint)
        image.abs().square().sum().backward()
        assert y.grad is not None
        gradients.append([y.grad.cpu(), *(parameter.grad for parameter in model.parameters())])
    for found, expected in zip(*reversed(gradients), strict=True):
        assert found is not None
        assert relative_error(found, expected) < 1e-4


class DeviceSamples(ToySamples):
    def batch(self, step: int, first: int, count: int) -> Batch:
        return moved(super().batch(step, first, count))


def moved(batch: Batch) -> Batch:
    return Batch(batch.operator.to(DEVICE), batch.y.to(DEVICE), batch.target.to(DEVICE))


THROUGH = replace(SETTINGS, learn="both", gradient="iterations", solver=FastSettings(attention_iterations=5))


@pytest.mark.parametrize("settings", [SETTINGS, THROUGH], ids=["minimiser", "iterations"])
def test_training_and_resuming(settings: TrainSettings, tmp_path: Path) -> None:
    settings = replace(settings, n_steps=4)

    def start() -> SmoothPlusSparse:
        return toy_model() if settings.learn == "prior" else toy_model().with_attention(Attention.zeros(4))

    expected = start()
    train(expected, ToySamples(), [validation()], settings)

    def run(path: Path, resume: bool, on_step: Callable[[StepReport], None] | None = None) -> dict[str, Tensor]:
        model = start().to(DEVICE)
        batches = [moved(validation())]
        train(model, DeviceSamples(), batches, settings, checkpoint=path, resume=resume, on_step=on_step)
        assert all(isinstance(parameter.data, SimulatedTensor) for parameter in model.parameters())
        return {name: value.cpu() for name, value in parameters(model).items()}

    def interrupt(report: StepReport) -> None:
        if report.step == 3:
            raise KilledError

    whole = run(tmp_path / "whole", resume=False)
    for name, value in parameters(expected).items():
        torch.testing.assert_close(whole[name], value, rtol=1e-6, atol=1e-9)
    with pytest.raises(KilledError):
        run(tmp_path / "torn", resume=False, on_step=interrupt)
    check_equal(run(tmp_path / "torn", resume=True), whole)
