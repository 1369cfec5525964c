"""Several images in one solve: each has its own end."""

import math

import pytest
import torch
from model.helpers import random_model

from mrisps.model import ModelConfig
from mrisps.solvers import FastSettings, solve

from .helpers import CPR, NCPR, make_operator, measure


@pytest.mark.parametrize("config", [NCPR, CPR], ids=lambda config: config.regulariser)
@pytest.mark.parametrize("kind", ["complex", "blur"])
def test_images_of_a_batch_end_as_alone(kind: str, config: ModelConfig) -> None:
    """Each after its own iterations, with its own image, coefficients, energies and certificate; one of them is lost."""
    operator, model = make_operator(kind, (12, 16)), random_model(config, lam=0.02)
    y = torch.cat([measure(operator, seed=seed) for seed in range(3)])
    y[1] *= 0.05
    y[2] *= 1e200
    settings = FastSettings(tolerance=1e-5, max_iterations=1000, trace_interval=20)
    both = solve(operator, y, model, settings, keep_coefficients=True)
    assert both.coefficients is not None
    for i, rows in enumerate(both.coefficients.chunk(3)):
        alone = solve(operator, y[i : i + 1], model, settings, keep_coefficients=True)
        found, expected = both.certificates[i], alone.certificate
        assert found.status == expected.status
        assert found.n_iterations == expected.n_iterations
        if found.status != "converged":
            continue
        assert found.energy == pytest.approx(expected.energy, rel=1e-9)
        torch.testing.assert_close(both.image[i : i + 1], alone.image, rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(rows, alone.coefficients, rtol=1e-5, atol=1e-8)
        trace = both.certificates[i].energy_trace
        assert [k for k, _ in trace] == [k for k, _ in alone.certificate.energy_trace]
        assert all(math.isfinite(energy) for _, energy in trace)
    assert len({certificate.n_iterations for certificate in both.certificates}) > 1
