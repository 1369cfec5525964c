"""Weights that are derived without training."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mrisps.model import ModelConfig, SmoothPlusSparse
from mrisps.model import derived_weights as module
from mrisps.model.derived_weights import derive, derived_weights

CONFIG = ModelConfig(patch_size=5, n_free_atoms=6, n_synthesis_atoms=12)


def test_free_atoms_are_the_leading_principal_components() -> None:
    # Images made of 6 patterns that repeat with the period of a patch: the patterns' span is all that there is.
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:60, :60]
    waves = [np.cos(2 * np.pi * (a * y + b * x) / 5 + s) for a, b in ((0, 1), (1, 0), (1, 1)) for s in (0, np.pi / 2)]
    images = [sum(rng.normal() * wave for wave in waves).astype(np.float32) for _ in range(6)]
    images = [image + 1e-4 * rng.normal(size=image.shape).astype(np.float32) for image in images]
    model = derive(images, CONFIG, patches_per_image=400)
    free = model.prior(torch.float64).free_atoms
    for wave in waves:
        patch = torch.from_numpy(wave[:5, :5].ravel())
        torch.testing.assert_close(free.T @ (free @ patch), patch, rtol=0, atol=1e-3)


def test_atoms_find_the_lines_in_the_data() -> None:
    rng = np.random.default_rng(0)
    lines = rng.normal(size=(4, 20))
    lines /= np.linalg.norm(lines, axis=1, keepdims=True)
    points = lines[rng.integers(0, 4, 2000)] * rng.normal(size=(2000, 1))
    found = module._clustered_lines(points, 4, 30, np.random.default_rng(3))
    overlap = np.abs(found @ lines.T)
    assert (overlap.max(axis=0) > 0.99).sum() >= 3  # k-means may merge two of them
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1)


def test_deterministic_and_admissible() -> None:
    rng = np.random.default_rng(0)
    images = [rng.random((40, 30)).astype(np.float32)]
    one, two = (derive(images, CONFIG, patches_per_image=300, n_sweeps=3) for _ in range(2))
    assert one.fingerprint() == two.fingerprint()
    prior = one.prior(torch.float64)
    assert float((prior.free_atoms @ prior.synthesis_atoms.T).abs().max()) < 1e-8
    with pytest.raises(ValueError, match="at least 5 x 5"):
        derive([np.ones((4, 9), dtype=np.float32)], CONFIG)


def test_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached = tmp_path / "cache" / "weights.safetensors"
    calls = []

    def quick() -> list[np.ndarray]:
        calls.append(1)
        return [np.random.default_rng(0).random((40, 30)).astype(np.float32)]

    monkeypatch.setattr(module, "_cache_file", lambda: cached)
    monkeypatch.setattr(module, "_images", quick)
    said: list[str] = []
    first = derived_weights(said.append)
    assert "deriving" in said[0]
    assert derived_weights().fingerprint() == first.fingerprint()
    assert len(calls) == 1
    cached.write_bytes(b"damaged")
    assert derived_weights().fingerprint() == first.fingerprint()
    assert len(calls) == 2
    assert SmoothPlusSparse.load(cached).fingerprint() == first.fingerprint()
