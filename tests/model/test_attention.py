"""The attention: what it predicts, what it refuses, how it is stored, and what a reconstruction with it says."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mrisps.bilevel import solve_with_gradient
from mrisps.errors import FileError
from mrisps.model import Attention, Energy, ModelConfig, PriorUse, SmoothPlusSparse, SmoothShrinkage
from mrisps.operators import Identity
from mrisps.solvers import FastSettings, minimise, solve, solve_paper

from .helpers import NCPR, random_model, random_tensor

N = NCPR.n_synthesis_atoms
SETTINGS = FastSettings(tolerance=1e-6, image_change=1e-6, trace_interval=0)


def attention(seed: int = 0, size: float = 0.3) -> Attention:
    return Attention(size * random_tensor(N, N, seed=seed) / N**0.5, 0.1 * random_tensor(N, seed=seed + 1))


@pytest.mark.parametrize("pairs", [False, True])
def test_the_formula(pairs: bool) -> None:
    """At one place, by hand; the neighbours wrap around."""
    a = random_tensor(2, 5, 4, N)
    own = torch.linspace(0.1, 0.5, N, dtype=torch.float64)
    made = attention()
    found = made.thresholds(a, SmoothShrinkage(own, pairs=pairs))
    assert found.shape == a.shape
    size = torch.hypot(a[0], a[1]) if pairs else a[0].abs()
    mean = sum(torch.log1p(size[(0 + i) % 5, (3 + j) % 4] / own) for i in (-1, 0, 1) for j in (-1, 0, 1)) / 9
    expected = own * torch.exp(made.weight @ mean + made.bias)
    torch.testing.assert_close(found[0, 0, 3], expected)
    if pairs:
        assert torch.equal(found[0], found[1])


def test_it_is_bounded_and_blind_to_scale() -> None:
    own, a = torch.full((N,), 0.2, dtype=torch.float64), random_tensor(1, 4, 4, N)
    wild = attention(size=100.0).thresholds(a, SmoothShrinkage(own)).detach()
    assert float(wild.max() / 0.2) == pytest.approx(20.0855, rel=1e-4)
    assert float(wild.min() / 0.2) == pytest.approx(1 / 20.0855, rel=1e-4)
    made = attention()
    one, other = made.thresholds(a, SmoothShrinkage(own)), made.thresholds(7 * a, SmoothShrinkage(7 * own))
    torch.testing.assert_close(other, 7 * one)
    assert torch.equal(Attention.zeros(N).thresholds(a, SmoothShrinkage(own)), own.expand(a.shape))


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match=r"attention: expected \(n, n\) and \(n,\), got \(3, 2\) and \(3,\)"):
        Attention(torch.zeros(3, 2), torch.zeros(3))
    with pytest.raises(ValueError, match=r"attention.weight: expected finite real numbers"):
        Attention(torch.full((2, 2), torch.nan), torch.zeros(2))
    with pytest.raises(ValueError, match=rf"attention: expected one for {N} atoms, got one for 3"):
        random_model(NCPR).with_attention(Attention.zeros(3))
    cpr = ModelConfig(patch_size=5, n_free_atoms=8, n_synthesis_atoms=N, regulariser="CPR")
    with pytest.raises(ValueError, match=r"attention: is for NCPR, not for CPR"):
        random_model(cpr).with_attention(Attention.zeros(N))
    with pytest.raises(ValueError, match=rf"attention: is for {N} atoms, got thresholds of shape \(4,\)"):
        attention().thresholds(torch.zeros(1, 4, 4, 4), SmoothShrinkage(torch.ones(4)))


def test_files(tmp_path: Path) -> None:
    model, path = random_model(NCPR).with_attention(attention()), tmp_path / "m.safetensors"
    model.save(path)
    found = SmoothPlusSparse.load(path)
    assert found.attention is not None
    assert torch.equal(found.attention.weight, attention().weight)
    assert found.fingerprint() == model.fingerprint()
    assert found.fingerprint() != model.with_attention(None).fingerprint()
    assert found.with_regularisation(beta=0.5).attention is not None
    model.with_attention(None).save(path)
    assert SmoothPlusSparse.load(path).attention is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attention.weight": torch.zeros(3, 3), "attention.bias": torch.zeros(3)}, f"expected one for {N} atoms"),
        ({"attention.weight": torch.zeros(N, 3)}, r"attention: expected \(n, n\) and \(n,\)"),
        ({"attention.bias": torch.full((N,), torch.inf)}, r"attention.bias: expected finite"),
        ({"attention.bias": None}, r"expected the tensors .*with \['attention.bias', 'attention.weight'\] or without"),
    ],
)
def test_bad_files(tmp_path: Path, change: dict[str, torch.Tensor | None], message: str) -> None:
    import json
    from dataclasses import asdict

    path = tmp_path / "m.safetensors"
    model = random_model(NCPR).with_attention(attention())
    model.save(path)
    tensors = {name: tensor for name, tensor in {**load_file(path), **change}.items() if tensor is not None}
    config = json.dumps({**asdict(model.config), "lam": model.lam})
    save_file(tensors, path, metadata={"format": "mrisps-weights", "version": "1", "config": config, "source": ""})
    with pytest.raises(FileError, match=message):
        SmoothPlusSparse.load(path)


@pytest.mark.parametrize("modulus", [False, True])
def test_a_reconstruction_with_it(modulus: bool) -> None:
    """The certificate is that of the second energy, and the map of the attention is where its thresholds are lower."""
    operator = Identity((1, 8, 12), torch.complex128)
    y, use = random_tensor(2, 1, 8, 12, dtype=torch.complex128), PriorUse(2, modulus)
    y[1] *= 3  # one image is done before the other
    plain = random_model(NCPR, lam=0.1)
    first = solve(operator, y, plain, SETTINGS, use=use, keep_coefficients=True)
    assert first.attention is None
    assert first.coefficients is not None
    model = plain.with_attention(attention())
    result = solve(operator, y, model, SETTINGS, use=use, keep_coefficients=True)
    assert result.converged
    energy = Energy(operator, y, plain.prior(torch.float64).used(use, True))
    early = minimise(energy, SETTINGS, target_iterations=SETTINGS.attention_iterations)
    assert early.at_target
    assert int(early.n_iterations.max()) < int(first.certificates[0].n_iterations)  # it looks before they are done
    second = attention().second_energy(energy, early.coefficients)
    assert result.coefficients is not None
    assert result.attention is not None
    value = second.value(result.image, result.coefficients).total
    for found, certificate in zip(value, result.certificates, strict=True):
        assert certificate.n_iterations > int(early.n_iterations[0])  # which are among them
        assert certificate.energy == pytest.approx(float(found), rel=1e-6)
        assert certificate.residual_a < 1e-5
    lam = energy.prior.regulariser.thresholds
    logs = -(second.prior.regulariser.thresholds / lam).log().sum(dim=-1).reshape(2, 2, 4, 6).mean(dim=1)
    torch.testing.assert_close(result.attention[:, 0, ::2, ::2], logs, rtol=1e-5, atol=1e-4)
    assert float((result.image - first.image).abs().max()) > 1e-3
    nothing = solve(operator, y, plain.with_attention(Attention.zeros(N)), SETTINGS, use=use)
    torch.testing.assert_close(nothing.image, first.image, rtol=0, atol=1e-4)


def test_other_ways_to_solve_refuse_it() -> None:
    model, y = random_model(NCPR).with_attention(attention()), torch.zeros(1, 1, 8, 12, dtype=torch.float64)
    for call in (solve_paper, solve_with_gradient):
        with pytest.raises(ValueError, match=r"^model: has an attention"):
            call(Identity((1, 8, 12), torch.float64), y, model)
