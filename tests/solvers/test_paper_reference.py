"""The paper solver against what the authors' own code gave, on one 48 x 48 image.

Their loop counter starts at 1, ours counts steps. Late iterates of the non-convex iteration depend on rounding: relative
disturbances of y of 1e-7 alone spread the number of steps at tolerance 1e-5 from 537 to 582 (sigma 25; theirs is 571) and
from 577 to 643 (sigma 5; 600). So there the *median* over a few disturbances has to be near theirs.
"""

import statistics
from pathlib import Path

import pytest
import torch
from model.helpers import CHECKPOINTS, random_tensor

from mrisps.model import Energy
from mrisps.solvers import PaperSettings, Reconstruction, solve_paper

from .helpers import Reference, load_reference

CONVEX = ("sigma_5_CPR", "sigma_25_CPR")
NONCONVEX = ("sigma_5_NCPR", "sigma_25_NCPR")


def reconstruct(reference: Reference, tolerance: float, disturbance: int = 0, factored: bool = False) -> Reconstruction:
    y = reference.mri_y
    if disturbance:
        y = y * (1 + 1e-7 * random_tensor(*y.shape, dtype=torch.float32, seed=disturbance))
    settings = PaperSettings(tolerance=tolerance, operator_norm=1.0, factored=factored)
    return solve_paper(reference.mri_operator, y, reference.mri_model, settings, keep_coefficients=True)


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_early_iterates_are_theirs(shared_data: Path, name: str) -> None:
    reference = load_reference(shared_data, name)
    result = reconstruct(reference, 1e-3)
    assert float((result.image - reference.mri_image("0.001")).abs().max()) < 1e-5
    assert result.certificate.n_iterations + 1 == int(reference.vectors["mri_steps_tol0.001"])
    assert result.certificate.status == "converged"


def check_late(reference: Reference, result: Reconstruction, tolerance: str, largest: float) -> None:
    theirs = reference.mri_image(tolerance)
    assert float((result.image - theirs).abs().max()) < largest
    assert reference.psnr(result.image) == pytest.approx(reference.psnr(theirs), abs=0.02)
    assert result.certificate.status == "converged"
    if tolerance == "1e-05":  # their coefficients, (atom, y, x), are not unique; their energy is
        coefficients = (
            torch.from_numpy(reference.vectors["mri_coefficients_tol1e-05"]).permute(1, 2, 0)[None].contiguous()
        )
        energy = Energy(reference.mri_operator, reference.mri_y, reference.mri_model.prior())
        expected = float(energy.value(theirs, coefficients).total)
        assert result.certificate.energy == pytest.approx(expected, rel=2e-3)


def test_late_nonconvex_iterates(shared_data: Path) -> None:
    reference = load_reference(shared_data, "sigma_25_NCPR")
    result = reconstruct(reference, 1e-5)
    check_late(reference, result, "1e-05", 5e-3)
    theirs = int(reference.vectors["mri_steps_tol1e-05"])
    assert result.certificate.n_iterations + 1 == pytest.approx(
        theirs, rel=0.1
    )  # one run; the slow test takes the median


@pytest.mark.slow
@pytest.mark.parametrize("name", NONCONVEX)
def test_late_nonconvex_iterates_and_their_number(shared_data: Path, name: str) -> None:
    reference = load_reference(shared_data, name)
    for tolerance in ("0.0001", "1e-05"):
        results = [reconstruct(reference, float(tolerance), seed, factored=seed > 0) for seed in range(3)]
        for result in results:
            check_late(reference, result, tolerance, 5e-3)
        steps = statistics.median(result.certificate.n_iterations + 1 for result in results)
        # Rounding differs between processors: 634 on one where the authors' code had 600 on another.
        assert steps == pytest.approx(int(reference.vectors[f"mri_steps_tol{tolerance}"]), rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("name", CONVEX)
def test_late_convex_iterates(shared_data: Path, name: str) -> None:
    reference = load_reference(shared_data, name)
    for tolerance in ("0.0001", "1e-05"):
        result = reconstruct(reference, float(tolerance))
        check_late(reference, result, tolerance, 1e-3)
        theirs = int(reference.vectors[f"mri_steps_tol{tolerance}"])
        assert result.certificate.n_iterations + 1 == pytest.approx(theirs, rel=0.05)


@pytest.mark.parametrize(
    "name",
    ["sigma_5_CPR", *(pytest.param(name, marks=pytest.mark.slow) for name in CHECKPOINTS if name != "sigma_5_CPR")],
)
def test_denoising_as_they_train(shared_data: Path, name: str) -> None:
    reference = load_reference(shared_data, name)
    settings = PaperSettings.training(float(reference.vectors["denoise_tol"]))
    result = solve_paper(reference.denoising_operator, reference.noisy, reference.model, settings)
    theirs = torch.from_numpy(reference.vectors["denoise_image"])
    assert float((result.image[0, 0] - theirs).abs().max()) < 5e-3
    loss = float((result.image - reference.image).abs().mean())
    assert loss == pytest.approx(float(reference.vectors["denoise_loss"]), rel=0.005)
    assert result.certificate.status == "converged"
