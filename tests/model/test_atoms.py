"""The constraints on the dictionaries are met, whatever the raw atoms are."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from mrisps.model import ModelConfig, SmoothPlusSparse
from mrisps.model.atoms import constrain_free_atoms, constrain_synthesis_atoms, patch_basis

from .helpers import CHECKPOINTS, random_model, random_tensor

# (patch side, free atoms, synthesis atoms): few, many, more synthesis atoms than dimensions, one of each, no free atom.
SIZES = [
    (13, 120, 200),
    (13, 1, 7),
    (13, 160, 8),
    (5, 8, 10),
    (5, 23, 40),
    (3, 7, 1),
    (3, 1, 1),
    (7, 20, 300),
    (5, 0, 10),
]


def check_constraints(free: Tensor, atoms: Tensor, basis: Tensor, beta: float, tolerance: float) -> None:
    m, n_pixels = free.shape
    eye = torch.eye(n_pixels, dtype=free.dtype)
    constant = torch.full((n_pixels, n_pixels), 1 / n_pixels, dtype=free.dtype)

    def assert_zero(found: Tensor) -> None:
        torch.testing.assert_close(found, torch.zeros_like(found), rtol=0, atol=tolerance)

    assert_zero(free @ free.T - torch.eye(m, dtype=free.dtype))  # Q orthonormal
    assert_zero(free.sum(dim=1))
    scale = float(torch.linalg.vector_norm(atoms, dim=1).max())
    assert_zero(atoms @ free.T / scale)  # Q^T D = 0
    assert_zero(atoms.sum(dim=1) / scale)
    assert float(beta * torch.linalg.matrix_norm(atoms, 2) ** 2) == pytest.approx(0.99, rel=tolerance)
    lengths = torch.linalg.vector_norm(atoms, dim=1)
    torch.testing.assert_close(lengths, lengths[:1].expand_as(lengths), rtol=tolerance, atol=0)  # all scaled alike

    assert basis.shape == (n_pixels - 1 - m, n_pixels)
    assert_zero(basis @ basis.T - torch.eye(len(basis), dtype=basis.dtype))
    assert_zero(basis.T @ basis - (eye - free.T @ free - constant))  # Phat = B^T B, so B spans the complement
    assert_zero((atoms - atoms @ basis.T @ basis) / scale)  # D = C^T B


@pytest.mark.parametrize(("p", "m", "n"), SIZES)
@pytest.mark.parametrize("beta", [0.02, 1.7])
def test_constraints_of_random_raw_atoms(p: int, m: int, n: int, beta: float) -> None:
    free = constrain_free_atoms(random_tensor(m, p * p))
    atoms = constrain_synthesis_atoms(random_tensor(n, p * p, seed=1), free, torch.tensor(beta, dtype=torch.float64))
    check_constraints(free, atoms, patch_basis(free), beta, 1e-8)


@pytest.mark.parametrize(("p", "m", "n"), SIZES)
def test_constraints_in_single_precision(p: int, m: int, n: int) -> None:
    """The prior is computed in double precision and rounded."""
    config = ModelConfig(patch_size=p, n_free_atoms=m, n_synthesis_atoms=n)
    prior = random_model(config, beta=0.3, dtype=torch.float32).prior(torch.float32)
    assert prior.free_atoms.dtype == prior.synthesis_atoms.dtype == prior.basis.dtype == torch.float32
    check_constraints(prior.free_atoms, prior.synthesis_atoms, prior.basis, 0.3, 1e-5)


@pytest.mark.parametrize("name", CHECKPOINTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_constraints_of_the_authors_checkpoints(shared_data: Path, name: str, dtype: torch.dtype) -> None:
    prior = SmoothPlusSparse.load(shared_data / "paper_checkpoints" / f"{name}.pth").prior(dtype)
    assert prior.free_atoms.shape == (120, 169)
    assert prior.synthesis_atoms.shape == (200, 169)
    check_constraints(prior.free_atoms, prior.synthesis_atoms, prior.basis, prior.beta, 1e-5)


def test_free_atoms_span_what_the_raw_ones_span() -> None:
    raw = random_tensor(6, 25)
    free = constrain_free_atoms(raw)
    centred = raw - raw.mean(dim=1, keepdim=True)
    torch.testing.assert_close(centred @ free.T @ free, centred, rtol=1e-10, atol=1e-10)


def test_free_atoms_are_the_nearest_orthonormal_rows() -> None:
    """The polar factor U V^T of the centred raw atoms."""
    raw = random_tensor(6, 25)
    u, _, vh = torch.linalg.svd(raw - raw.mean(dim=1, keepdim=True), full_matrices=False)
    torch.testing.assert_close(constrain_free_atoms(raw), u @ vh, rtol=1e-10, atol=1e-10)


def test_beta_floor_only_acts_below_it() -> None:
    free = constrain_free_atoms(random_tensor(4, 25))
    raw = random_tensor(9, 25, seed=1)
    for beta, effective in ((0.01, 0.1), (0.5, 0.5)):
        atoms = constrain_synthesis_atoms(raw, free, torch.tensor(beta, dtype=torch.float64), beta_floor=0.1)
        assert float(effective * torch.linalg.matrix_norm(atoms, 2) ** 2) == pytest.approx(0.99)


def test_gradients_of_the_constraints() -> None:
    """Learning needs them: against finite differences."""
    raw_free, raw = random_tensor(3, 9), random_tensor(4, 9, seed=1)
    beta = torch.tensor(0.4, dtype=torch.float64)
    weights = random_tensor(4, 9, seed=2)

    def loss(raw_free: Tensor, raw: Tensor, beta: Tensor) -> Tensor:
        free = constrain_free_atoms(raw_free)
        return (constrain_synthesis_atoms(raw, free, beta) * weights).sum() + (free[:3] * weights[:3]).sum()

    inputs = [tensor.clone().requires_grad_() for tensor in (raw_free, raw, beta)]
    gradients = torch.autograd.grad(loss(*inputs), inputs)
    for position, gradient in enumerate(gradients):
        direction = random_tensor(*gradient.shape, seed=5 + position)
        shifted = [
            [tensor + step * direction if i == position else tensor for i, tensor in enumerate((raw_free, raw, beta))]
            for step in (1e-6, -1e-6)
        ]
        difference = (loss(*shifted[0]) - loss(*shifted[1])) / 2e-6
        torch.testing.assert_close((gradient * direction).sum(), difference, rtol=1e-6, atol=1e-9)


def test_free_atoms_that_cannot_be_made_orthonormal_are_refused() -> None:
    """15 iterations do not separate nearly dependent atoms: an error, not a prior that breaks the model's promises."""
    config = ModelConfig(patch_size=5, n_free_atoms=3, n_synthesis_atoms=4)
    good = random_model(config)
    raw = random_tensor(3, 5, 5)
    for second in (raw[0], raw[0] + 1e-6 * raw[1], torch.zeros(5, 5), torch.ones(5, 5)):
        free = torch.stack([raw[0], second, raw[2]])
        model = SmoothPlusSparse(config, free, good.raw_synthesis_atoms, good.log_thresholds, 0.5, 0.1)
        with pytest.raises(ValueError, match="raw_free_atoms"):
            model.prior(torch.float64)


def test_more_iterations_do_separate_them() -> None:
    raw = random_tensor(3, 5, 5)
    free = torch.stack([raw[0], raw[0] + 1e-6 * raw[1], raw[2]])
    config = ModelConfig(patch_size=5, n_free_atoms=3, n_synthesis_atoms=4, bjorck_iterations=60)
    good = random_model(config)
    prior = SmoothPlusSparse(config, free, good.raw_synthesis_atoms, good.log_thresholds, 0.5, 0.1).prior(torch.float64)
    check_constraints(prior.free_atoms, prior.synthesis_atoms, prior.basis, 0.5, 1e-8)


@pytest.mark.parametrize("kind", ["zero", "constant", "free"])
def test_a_synthesis_atom_with_nothing_of_its_own_is_refused(kind: str) -> None:
    good = random_model(ModelConfig(patch_size=5, n_free_atoms=3, n_synthesis_atoms=4))
    raw = good.raw_synthesis_atoms.detach().clone()
    raw[2] = {"zero": 0 * raw[2], "constant": 1 + 0 * raw[2], "free": good.raw_free_atoms[1].detach()}[kind]
    model = SmoothPlusSparse(good.config, good.raw_free_atoms, raw, good.log_thresholds, 0.5, 0.1)
    with pytest.raises(ValueError, match="raw_synthesis_atoms"):
        model.prior(torch.float64)
