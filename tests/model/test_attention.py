"""The attention: what it predicts, what it refuses, how it is stored, and what a reconstruction with it says."""

import itertools
from dataclasses import replace
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
SETTINGS = FastSettings(tolerance=1e-6, image_change=1e-6, trace_interval=10)


WIDTH = 3
SHAPES = ((WIDTH, N), (WIDTH,), (2, WIDTH, WIDTH, 3, 3), (2, WIDTH), (N, WIDTH), (N,))


def attention(seed: int = 0, size: float = 0.3) -> Attention:
    return Attention(*(size * random_tensor(*shape, seed=seed + i) for i, shape in enumerate(SHAPES)))


@pytest.mark.parametrize("pairs", [False, True])
def test_the_formula(pairs: bool) -> None:
    """At one place, by hand; the neighbours wrap around."""
    a = random_tensor(2, 5, 4, N)
    own = torch.linspace(0.1, 0.5, N, dtype=torch.float64)
    made = attention()
    found = made.thresholds(a, SmoothShrinkage(own, pairs=pairs))
    assert found.shape == a.shape
    size = torch.hypot(a[0], a[1]) if pairs else a[0].abs()
    hidden = torch.log1p(size / own) @ made.entry.T + made.entry_bias  # (y, x, width)
    for weight, bias in zip(made.layers, made.layer_biases, strict=True):
        seen, heard = hidden.relu(), torch.zeros_like(hidden)
        for i, j in itertools.product((-1, 0, 1), repeat=2):
            heard += seen.roll((-i, -j), (0, 1)) @ weight[:, :, i + 1, j + 1].T
        hidden = hidden + heard + bias
    expected = own * torch.exp(made.exit @ hidden[0, 3].relu() + made.exit_bias)
    torch.testing.assert_close(found[0, 0, 3], expected)
    if pairs:
        assert torch.equal(found[0], found[1])


def test_it_is_bounded_and_blind_to_scale() -> None:
    own, a = torch.full((N,), 0.2, dtype=torch.float64), random_tensor(1, 4, 4, N)
    wild = attention(size=10.0).thresholds(a, SmoothShrinkage(own)).detach()
    assert float(wild.max() / 0.2) == pytest.approx(20.0855, rel=1e-4)
    assert float(wild.min() / 0.2) == pytest.approx(1 / 20.0855, rel=1e-4)
    made = attention()
    one, other = made.thresholds(a, SmoothShrinkage(own)), made.thresholds(7 * a, SmoothShrinkage(7 * own))
    torch.testing.assert_close(other, 7 * one)
    assert torch.equal(Attention.zeros(N).thresholds(a, SmoothShrinkage(own)), own.expand(a.shape))
    a[0, 0, 0, 0] = torch.nan  # a lost image keeps its thresholds, and says so elsewhere
    assert bool(made.thresholds(a, SmoothShrinkage(own)).isfinite().all())


def test_what_is_refused() -> None:
    good = [torch.zeros(shape) for shape in SHAPES]
    with pytest.raises(
        ValueError, match=r"attention.layers: expected the shape \(2, 3, 3, 3, 3\), got \(2, 3, 3, 5, 5\)"
    ):
        Attention(*good[:2], torch.zeros(2, WIDTH, WIDTH, 5, 5), *good[3:])
    with pytest.raises(ValueError, match=r"attention.exit_bias: expected finite real numbers"):
        Attention(*good[:5], torch.full((N,), torch.nan))
    with pytest.raises(ValueError, match=r"attention.entry: expected the shape"):
        Attention(*(torch.zeros(()) for _ in SHAPES))
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
    assert torch.equal(found.attention.layers, attention().layers)
    assert found.fingerprint() == model.fingerprint()
    assert found.fingerprint() != model.with_attention(None).fingerprint()
    assert found.with_regularisation(beta=0.5).attention is not None
    model.with_attention(None).save(path)
    assert SmoothPlusSparse.load(path).attention is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {
                "attention.entry": torch.zeros(WIDTH, 4),
                "attention.exit": torch.zeros(4, WIDTH),
                "attention.exit_bias": torch.zeros(4),
            },
            f"expected one for {N} atoms",
        ),
        ({"attention.entry": torch.zeros(WIDTH, 7)}, r"attention.entry: expected the shape"),
        ({"attention.exit_bias": torch.full((N,), torch.inf)}, r"attention.exit_bias: expected finite"),
        ({"attention.exit_bias": None}, r"expected the tensors .*with \['attention.entry', .*'\] or without"),
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
    n_before = SETTINGS.attention_iterations
    early = minimise(energy, replace(SETTINGS, max_iterations=n_before))
    assert not bool(early.finished.any())  # it looks before they are done
    second = energy.with_thresholds(attention().thresholds(early.coefficients, energy.prior.regulariser).detach())
    assert result.coefficients is not None
    assert result.attention is not None
    value = second.value(result.image, result.coefficients).total
    for found, certificate in zip(value, result.certificates, strict=True):
        assert certificate.n_iterations > n_before  # which are among them
        assert min(k for k, _ in certificate.energy_trace) >= n_before  # of the second energy alone
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


def test_an_end_before_it_looks_is_none() -> None:
    """However little an image moves, it is not done before the attention."""
    operator, y = Identity((1, 8, 12), torch.float64), random_tensor(1, 1, 8, 12)
    model = random_model(NCPR, lam=0.1).with_attention(attention())
    easy = replace(SETTINGS, stop="image", image_change=10.0, attention_iterations=30)
    assert solve(operator, y, model, easy).certificates[0].n_iterations > 30
    unasked = solve(operator, y, model, replace(easy, attention_iterations=None))
    plain = solve(operator, y, model.with_attention(None), easy)
    assert torch.equal(unasked.image, plain.image)
    assert unasked.attention is None
    short = solve(operator, y, model, replace(easy, max_iterations=25))
    assert short.certificates[0].status == "max_iter"
    assert short.attention is None
