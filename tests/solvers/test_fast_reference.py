"""The default solver against the paper solver on the paper's reference problems: an energy no higher, as good an image."""

from pathlib import Path

import pytest
import torch
from model.helpers import CHECKPOINTS

from mrisps.solvers import FastSettings, PaperSettings, Reconstruction, solve, solve_paper

from .helpers import Reference, load_reference

# Energies at which the paper solver ends at tolerance 1e-6; the slow test computes them anew.
PAPER_ENERGY = {
    ("denoising", "sigma_5_CPR"): 0.911794,
    ("denoising", "sigma_5_NCPR"): 1.080467,
    ("denoising", "sigma_25_CPR"): 13.662747,
    ("denoising", "sigma_25_NCPR"): 14.170558,
    ("mri", "sigma_5_CPR"): 0.157950,
    ("mri", "sigma_5_NCPR"): 0.107451,
    ("mri", "sigma_25_CPR"): 0.308158,
    ("mri", "sigma_25_NCPR"): 0.089227,
}
PROBLEMS = [(task, name) for task in ("denoising", "mri") for name in CHECKPOINTS]
DENOISED_QUICKLY = [
    ("denoising", "sigma_5_CPR"),
    ("denoising", "sigma_25_NCPR"),
]  # their energies above were computed once
QUICK = [("denoising", "sigma_25_NCPR"), ("denoising", "sigma_5_CPR")]


def run_fast(task: str, reference: Reference) -> Reconstruction:
    if task == "mri":
        settings = FastSettings(tolerance=2e-5, continuation_start=4, energy_gap=1e-3)
        return solve(reference.mri_operator, reference.mri_y, reference.mri_model, settings)
    settings = FastSettings(tolerance=2e-5, energy_gap=1e-3)
    return solve(reference.denoising_operator, reference.noisy, reference.model, settings)


def check_fast(task: str, name: str, result: Reconstruction, reference: Reference, paper_energy: float) -> None:
    assert result.certificate.status == "converged"
    assert result.certificate.energy <= 1.001 * paper_energy
    assert result.certificate.residual_x < 1e-4
    assert result.certificate.residual_a < 3e-5
    gap = result.certificate.energy_gap
    if name.endswith("_CPR"):  # proven: the paper solver cannot be more than 0.1 % below, and is not below the bound
        assert gap is not None
        assert 0 <= gap <= 1e-3
        assert (1 - gap) * result.certificate.energy <= 1.000001 * paper_energy
    else:
        assert gap is None
    if task == "mri":
        assert reference.psnr(result.image) > reference.psnr(reference.mri_image("1e-05")) - 0.15
    else:
        loss = float((result.image - reference.image).abs().mean())
        assert loss < 1.01 * float(reference.vectors["denoise_loss"])
    theirs = (
        reference.mri_image("1e-05")
        if task == "mri"
        else torch.from_numpy(reference.vectors["denoise_image"])[None, None]
    )
    # Convex: the same minimiser. (Non-convex: one of several nearby.)
    assert float((result.image - theirs).abs().max()) < (0.02 if name.endswith("_CPR") else 0.2)


@pytest.mark.parametrize(("task", "name"), QUICK)
def test_energy_is_no_higher(shared_data: Path, task: str, name: str) -> None:
    reference = load_reference(shared_data, name)
    check_fast(task, name, run_fast(task, reference), reference, PAPER_ENERGY[task, name])


@pytest.mark.slow
@pytest.mark.parametrize(("task", "name"), [problem for problem in PROBLEMS if problem not in DENOISED_QUICKLY])
def test_energy_is_no_higher_than_the_paper_solvers(shared_data: Path, task: str, name: str) -> None:
    reference = load_reference(shared_data, name)
    if task == "mri":
        settings = PaperSettings(tolerance=1e-6, operator_norm=1.0, factored=True)
        paper = solve_paper(reference.mri_operator, reference.mri_y, reference.mri_model, settings)
    else:
        settings = PaperSettings(
            tolerance=1e-6, nonnegative=False, step_includes_data=False, beta_floor=0.1, factored=True
        )
        paper = solve_paper(reference.denoising_operator, reference.noisy, reference.model, settings)
    assert paper.certificate.status == "converged"
    check_fast(task, name, run_fast(task, reference), reference, paper.certificate.energy)
    assert paper.certificate.energy == pytest.approx(PAPER_ENERGY[task, name], rel=2e-3)
