"""What the README and the docs show works as shown: Python blocks run, commands and their options exist, links lead somewhere."""

import re
import shlex
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import mrisps
from mrisps.cli.main import app
from mrisps.reconstruction.recipe import builtin_recipes

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), flags=re.DOTALL)


def small_model() -> mrisps.SmoothPlusSparse:
    generator = torch.Generator().manual_seed(0)
    config = mrisps.ModelConfig(patch_size=5, n_free_atoms=6, n_synthesis_atoms=12)
    free, atoms = (torch.randn(n, 5, 5, generator=generator) for n in (6, 12))
    return mrisps.SmoothPlusSparse(config, free, atoms, torch.zeros(12), beta=0.5, lam=0.02)


def test_python_blocks_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    model = small_model()
    monkeypatch.setattr(mrisps.SmoothPlusSparse, "load", lambda path: model)
    generator = torch.Generator().manual_seed(0)
    names: dict[str, object] = {
        "torch": torch,
        "kspace": torch.randn(1, 1, 32, 24, generator=generator, dtype=torch.complex64),
        "scale": 1.0,
        "keep": torch.rand(12, 10, generator=generator) > 0.3,
        "y": torch.rand(1, 1, 12, 10, generator=generator),
    }
    python = blocks(ROOT / "README.md", "python")
    assert len(python) == 2
    for code in python:
        exec(code.replace("(640, 368)", "(32, 24)"), names)
    result = names["result"]
    assert isinstance(result, mrisps.Reconstruction)
    assert result.image.shape == (1, 1, 12, 10)
    assert capsys.readouterr().out.startswith(("converged", "max_iter"))


def commands() -> list[str]:
    lines = [line for page in PAGES for block in blocks(page, "sh") for line in block.splitlines()]
    return sorted({line.split("#")[0].strip() for line in lines if line.startswith("mrisps ")})


@pytest.mark.parametrize("command", commands())
def test_commands_and_options_exist(command: str) -> None:
    words = shlex.split(command)[1:]
    path = [words[0]]
    if words[0] in ("recipes", "convert") and len(words) > 1:
        path.append(words[1])
    shown = CliRunner().invoke(app, [*path, "--help"])
    assert shown.exit_code == 0, shown.output
    for option in [word for word in words if word.startswith("--")]:
        assert re.search(rf"{option}\b", shown.output), f"{path} has no {option}"
    if "--recipe" in words:
        name = words[words.index("--recipe") + 1]
        assert name in builtin_recipes() or name.endswith(".py")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if not target.startswith("https://"):
            assert (page.parent / target).exists(), target
