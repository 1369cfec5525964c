"""Groups of options: a command takes them whole, typer sees them one by one."""

import inspect
from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from mrisps.cli.common import UsageError, counted, usage_errors
from mrisps.cli.options import option, spread


@dataclass(frozen=True)
class Size:
    height: Annotated[int, option("--height N", "In pixels.", least=1)]
    width: Annotated[int, option("--width,--breadth N", "In pixels.")] = 3


@dataclass(frozen=True)
class Box(Size):
    depth: Annotated[int | None, option("--depth N", "In pixels.")] = None


def test_a_group_is_spread_and_given_back_whole() -> None:
    seen: list[object] = []

    def command(
        name: Annotated[str, typer.Argument()], box: Box, loud: Annotated[bool, option("--loud", "x")] = False
    ) -> None:
        """Do it."""
        seen.extend((name, box, loud))

    made = spread(command)
    assert list(inspect.signature(made).parameters) == ["name", "height", "width", "depth", "loud"]
    assert made.__doc__ == "Do it."
    app = typer.Typer()
    app.command()(made)
    runner = CliRunner()
    assert runner.invoke(app, ["a", "--height", "2", "--breadth", "5", "--loud"]).exit_code == 0
    assert seen == ["a", Box(2, 5, None), True]
    assert runner.invoke(app, ["a"]).exit_code == 2  # the height has no default
    assert runner.invoke(app, ["a", "--height", "0"]).exit_code == 2


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("scale: expected a number", "--scale: expected a number"),
        ("noise_std, scale: give one", "--noise-std, --scale: give one"),
        ("solver.tolerance: expected a number", "solver.tolerance: expected a number"),
        ("/data/a.h5: scale: no", "/data/a.h5: scale: no"),
    ],
)
def test_an_argument_that_is_an_option_gets_its_dashes(message: str, expected: str) -> None:
    with pytest.raises(UsageError) as caught, usage_errors("scale", "noise_std"):
        raise ValueError(message)
    assert str(caught.value) == expected


def test_counted() -> None:
    assert [counted(n, "file") for n in (0, 1, 2)] == ["0 files", "1 file", "2 files"]
