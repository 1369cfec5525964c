"""`mrisps weights` and `mrisps atoms`; what the shipped weights have to be."""

from pathlib import Path

import numpy as np
import pytest
import torch
from model.helpers import CPR, NCPR, random_model
from PIL import Image

from mrisps.model import SmoothPlusSparse
from mrisps.model.shipped import model_card, shipped_weights
from mrisps.reports.atoms import sorted_atoms, sorted_free_atoms

from .helpers import Cli

NAMES = sorted(shipped_weights())


def test_list(cli: Cli) -> None:
    assert cli("weights") == 0
    for name in NAMES:
        assert name in cli.stdout


def test_card_of_unknown_weights(cli: Cli) -> None:
    assert cli("weights", "nothing") == 2
    assert "no such weights" in cli.stderr


@pytest.mark.parametrize("name", NAMES)
def test_shipped_weights(name: str, cli: Cli) -> None:
    """They load by name, meet the constraints, are small, and their card names them by hash and says what they are not for."""
    model = SmoothPlusSparse.load(name)
    model.prior()
    assert shipped_weights()[name].stat().st_size <= 500_000
    prior = model.with_attention(None)
    assert sum(parameter.numel() for parameter in prior.parameters()) == 54_281
    if model.attention is not None:
        assert sum(parameter.numel() for parameter in model.attention.parameters()) == 61_016
    card = model_card(name)
    assert model.fingerprint() in card
    for word in ("Data", "Recipe", "Validation", "not for diagnosis", "Licence"):
        assert word in card, word
    assert cli("weights", name) == 0
    assert model.fingerprint() in cli.stdout


@pytest.mark.parametrize("config", [NCPR, CPR])
def test_atoms(config: object, tmp_path: Path, cli: Cli) -> None:
    model = random_model(NCPR if config is NCPR else CPR)
    path = tmp_path / "w.safetensors"
    model.save(path)
    picture = tmp_path / "a.png"
    assert cli("atoms", path, "--output", picture) == 0
    pixels = np.asarray(Image.open(picture).convert("L"))
    assert pixels.std() > 20  # there is something on it
    assert cli("atoms", path, "--output", picture) == 2
    assert "--overwrite" in cli.stderr
    assert cli("atoms", path, "--output", tmp_path / "a.jpg") == 2


def test_wrong_names_are_told_the_right_ones(tmp_path: Path, cli: Cli) -> None:
    assert cli("atoms", "denoise_sigma26_ncpr", "--output", tmp_path / "b.png") == 2
    assert "no such file; the weights that come with the package are " in cli.error()
    assert all(name in cli.error() for name in NAMES)


def test_order_of_atoms() -> None:
    model = random_model(NCPR, dtype=torch.float32)
    prior = model.prior()
    norms = prior.regulariser.thresholds.sort().values
    first = prior.synthesis_atoms[int(prior.regulariser.thresholds.argmin())]
    np.testing.assert_allclose(sorted_atoms(model)[0].ravel(), first.numpy(), rtol=1e-6)
    assert norms[0] < norms[-1]
    free = torch.from_numpy(sorted_free_atoms(model)).flatten(1)
    span = prior.free_atoms.double()
    torch.testing.assert_close(free @ free.T, torch.eye(len(free), dtype=torch.float64), atol=1e-5, rtol=0)
    torch.testing.assert_close((free @ span.T) @ span, free, atol=1e-5, rtol=0)  # the same span
    roughness = (free.reshape(-1, 5, 5).diff(dim=1).square().sum((1, 2))).numpy()
    assert roughness[0] < roughness[-1]  # the smoothest, with the largest variance, comes first
