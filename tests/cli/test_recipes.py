"""`mrisps recipes`."""

import json
from pathlib import Path

from mrisps.reconstruction.recipe import builtin_recipes, load_recipe

from .helpers import Cli, recipe_text


def test_list(cli: Cli) -> None:
    assert cli("recipes") == 0
    lines = cli.stdout.splitlines()
    assert lines[0].split() == ["name", "task", "description", "measured"]
    assert [line.split()[0] for line in lines[1:]] == [*builtin_recipes(), *builtin_recipes(training=True)]
    measured = {line.split()[0]: line for line in lines}
    assert measured["knee_pd_acc8"].endswith("  29.58 dB PSNR, 10 slices")


def test_weights_that_are_not_those_of_the_recipe(cli: Cli, knee: Path, weights: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.py"
    recipe.write_text(recipe_text("mri", f"weights='{weights.name}', weights_sha256='{'0' * 64}', "))
    arguments = ("recon", knee, "--recipe", recipe, "--output", tmp_path / "out", "--set", "solver.max_iterations=1")
    assert cli(*arguments) == 2
    assert "weights_sha256: small_mri was made for weights with SHA-256 000" in cli.error()
    assert not (tmp_path / "out").exists()
    assert cli(*arguments, "--weights", weights, "--accept-unconverged") == 0  # named by the user: not the recipe's


def test_show_and_copy_a_training_recipe(cli: Cli, tmp_path: Path) -> None:
    name = "train_denoise_sigma25_cpr"
    assert cli("recipes", "show", name) == 0
    assert "model.regulariser" in cli.stdout
    assert cli("recipes", "copy", name, tmp_path) == 0
    assert (tmp_path / f"{name}.py").read_bytes() == builtin_recipes(training=True)[name].read_bytes()


def test_show(cli: Cli) -> None:
    assert cli("recipes", "show", "knee_pd_acc8") == 0
    recipe = load_recipe("knee_pd_acc8")
    shown = dict(line.split(maxsplit=1) for line in cli.stdout.splitlines())
    assert float(shown["lam"]) == recipe.lam
    assert shown["mask.kind"] == "random"
    assert shown["weights"] == recipe.weights == "knee"
    assert shown["sha256"] == recipe.sha256()
    assert (shown["card.score"], shown["card.date"]) == ("29.58", "2026-11-26")
    assert cli("recipes", "show", "knee_pd_acc8", "--json") == 0
    record = json.loads(cli.stdout)
    assert record.pop("sha256") == recipe.sha256()
    assert record == recipe.to_dict()


def test_show_escapes(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "hostile.py"
    path.write_text(recipe_text("mri", "description='\\x1b[31mred', "))
    assert cli("recipes", "show", path) == 0
    assert "\x1b" not in cli.stdout


def test_copy(cli: Cli, tmp_path: Path) -> None:
    copy = tmp_path / "mine.py"
    assert cli("recipes", "copy", "knee_pd_acc8", copy) == 0
    assert cli.stdout == f"{copy}\n"
    assert load_recipe(copy) == load_recipe("knee_pd_acc8")
    copy.write_text("mine")
    assert cli("recipes", "copy", "knee_pd_acc8", copy) == 2
    assert copy.read_text() == "mine"
    assert cli("recipes", "copy", "superres_x4", tmp_path) == 0
    assert (tmp_path / "superres_x4.py").is_file()
    assert cli("recipes", "copy", "superres_x4", tmp_path / "no_suffix") == 2


def test_unknown(cli: Cli) -> None:
    for command in (("show", "knee"), ("copy", "knee", "x.py")):
        assert cli("recipes", *command) == 2
        assert cli.error().startswith("error: recipe: expected a .py file or one of ")
