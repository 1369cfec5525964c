"""Running commands, and the content of small files."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from typer.testing import CliRunner

from mrisps.cli.main import app

PROJECT = Path(__file__).resolve().parents[2]
SHAPE = (32, 24)


class Cli:
    """Runs a command in this process."""

    def __init__(self) -> None:
        self._runner = CliRunner()
        self.code = 0
        self.stdout = ""
        self.stderr = ""

    def __call__(self, *arguments: object) -> int:
        outcome = self._runner.invoke(app, [str(argument) for argument in arguments])
        if outcome.exception is not None and not isinstance(outcome.exception, SystemExit):
            raise outcome.exception
        self.code, self.stdout, self.stderr = outcome.exit_code, outcome.stdout, outcome.stderr
        return self.code

    def error(self) -> str:
        """The one line that says what went wrong."""
        lines = [line for line in self.stderr.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, self.stderr
        assert "Traceback" not in self.stderr
        return lines[0]


def recipe_text(task: str, extra: str = "", solver: str = "tolerance=1e-2, max_iterations=300") -> str:
    return (
        "from mrisps.reconstruction.recipe import BlurRule, MaskRule, Recipe, ScaleRule\n"
        "from mrisps.solvers import FastSettings\n"
        f"recipe = Recipe(name='small_{task}', task='{task}', beta=0.02, lam=0.01, source='a test', {extra}"
        f"solver=FastSettings({solver}))\n"
    )


def to_kspace(image: NDArray[np.float32]) -> NDArray[np.complex64]:
    return np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(image), norm="ortho")).astype(np.complex64)
