"""Matching pursuit of the patches: against the textbook algorithm, patch by patch."""

import numpy as np
import pytest
import torch
from model.helpers import random_model, random_tensor

from mrisps.model import Prior
from mrisps.solvers.greedy import greedy_coefficients

from .helpers import NCPR


def textbook(prior: Prior, patch: np.ndarray, max_atoms: int, threshold: float) -> np.ndarray:
    """Least squares on the chosen atoms, once more after every new one."""
    factors = prior.factors.numpy()
    bound = threshold * prior.regulariser.thresholds.numpy()
    a, chosen = np.zeros(factors.shape[1]), []
    for _ in range(max_atoms):
        gain = prior.beta * np.abs(factors.T @ (patch - factors @ a)) / bound
        best = int(np.argmax(gain))
        if gain[best] <= 1 or best in chosen:
            break
        chosen.append(best)
        a[:] = 0
        a[chosen] = np.linalg.lstsq(factors[:, chosen], patch, rcond=None)[0]
    return a


@pytest.mark.parametrize("max_atoms", [1, 3, 6])
@pytest.mark.parametrize("threshold", [0.5, 2.0])
def test_against_the_textbook(max_atoms: int, threshold: float) -> None:
    prior = random_model(NCPR, beta=0.4, lam=0.05).prior(torch.float64)
    analysed = random_tensor(2, 3, 4, prior.factors.shape[0]) * torch.logspace(-2, 0.5, 24, dtype=torch.float64).view(
        2, 3, 4, 1
    )
    out = torch.full((2, 3, 4, prior.n_atoms), torch.nan, dtype=torch.float64)
    greedy_coefficients(prior, analysed, out, max_atoms=max_atoms, threshold=threshold)
    for patch, found in zip(analysed.flatten(0, 2), out.flatten(0, 2), strict=True):
        np.testing.assert_allclose(found, textbook(prior, patch.numpy(), max_atoms, threshold), atol=1e-10)
    assert 0 < float((out != 0).sum(-1).float().mean()) <= max_atoms


def test_a_patch_of_few_atoms_is_found_again() -> None:
    prior = random_model(NCPR, beta=0.4, lam=1e-6).prior(torch.float64)
    a = torch.zeros(1, 1, prior.n_atoms, prior.n_atoms, dtype=torch.float64)
    a[0, 0] = torch.eye(prior.n_atoms)  # every atom once, alone
    out = torch.empty_like(a)
    greedy_coefficients(prior, prior.predict(a), out)
    torch.testing.assert_close(out, a)


def test_nothing_to_explain_takes_nothing() -> None:
    prior = random_model(NCPR).prior(torch.float64)
    out = torch.ones(1, 2, 2, prior.n_atoms, dtype=torch.float16)
    greedy_coefficients(prior, torch.zeros(1, 2, 2, prior.factors.shape[0], dtype=torch.float64), out)
    assert not bool(out.any())


def test_patches_that_are_not_wanted_keep_what_they_have() -> None:
    prior = random_model(NCPR, beta=0.4, lam=0.05).prior(torch.float64)
    analysed = random_tensor(2, 3, 4, prior.factors.shape[0])
    all_of_them = torch.empty(2, 3, 4, prior.n_atoms, dtype=torch.float64)
    greedy_coefficients(prior, analysed, all_of_them)
    wanted = torch.ones(2, 3, 4, dtype=torch.bool)
    wanted[:, ::2, ::2] = False
    out = torch.full_like(all_of_them, 7.0)
    greedy_coefficients(prior, analysed, out, wanted=wanted)
    torch.testing.assert_close(out[wanted], all_of_them[wanted])
    assert bool((out[~wanted] == 7.0).all())
