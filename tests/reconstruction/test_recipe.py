"""Recipes: the ones that come with the package, overrides, and what is refused."""

from pathlib import Path

import pytest

from mrisps.errors import FileError, RecipeError
from mrisps.model import SmoothPlusSparse
from mrisps.reconstruction.recipe import (
    BlurRule,
    Card,
    MaskRule,
    Recipe,
    ScaleRule,
    builtin_recipes,
    load_recipe,
    recipe_source,
    with_overrides,
)


def test_the_recipes_of_the_package() -> None:
    names = set(builtin_recipes())
    assert names >= {
        *(f"knee_{contrast}_acc{acceleration}" for contrast in ("pd", "pdfs") for acceleration in (4, 8, 16)),
        *(f"brain_multicoil_acc{acceleration}" for acceleration in (4, 8)),
        *(f"denoise_sigma{sigma}" for sigma in (5, 15, 25, 50)),
        "superres_x2",
        "superres_x4",
        "head_acc8",
    }
    recipes = {name: load_recipe(name) for name in names}
    assert all(recipe.name == name and recipe.description and recipe.source for name, recipe in recipes.items())
    assert len({recipe.sha256() for recipe in recipes.values()}) == len(names)


def test_tuned_values() -> None:
    # best_hyperparams.txt of the authors
    values = {name: (load_recipe(name).beta, load_recipe(name).lam) for name in builtin_recipes()}
    assert values["knee_pd_acc16"] == (0.000515129, 0.000602426)
    assert values["knee_pdfs_acc16"] == (0.015, 0.001)
    assert values["superres_x4"] == (0.00258673, 0.000929068)


def test_hash_depends_on_every_value() -> None:
    recipe = load_recipe("knee_pd_acc8")
    changed = with_overrides(recipe, {"solver.tolerance": "2e-4"})
    assert changed.solver.tolerance == 2e-4
    assert changed.sha256() != recipe.sha256()
    assert with_overrides(changed, {"solver.tolerance": repr(recipe.solver.tolerance)}).sha256() == recipe.sha256()
    assert recipe == load_recipe("knee_pd_acc8")  # overriding made a copy


def test_hash_is_of_what_a_result_depends_on() -> None:
    recipe = load_recipe("knee_pd_acc8")
    words = {"name": "other", "source": "elsewhere", "description": "another", "card": "none"}
    assert with_overrides(recipe, words).sha256() == recipe.sha256()
    assert with_overrides(recipe, {"weights_sha256": "0" * 64}).sha256() != recipe.sha256()


def test_the_weights_of_the_recipes_are_those_they_state() -> None:
    recipes = [load_recipe(name) for name in builtin_recipes()]
    fingerprints = {recipe.weights: SmoothPlusSparse.load(str(recipe.weights)).fingerprint() for recipe in recipes}
    for recipe in recipes:
        assert recipe.weights_sha256 is not None
        recipe.check_weights(fingerprints[recipe.weights])
    with pytest.raises(RecipeError, match="weights_sha256: knee_pd_acc8 was made for weights with SHA-256 e753"):
        load_recipe("knee_pd_acc8").check_weights("0" * 64)


def test_a_card_goes_with_what_it_is_about() -> None:
    recipe = load_recipe("knee_pd_acc8")
    assert recipe.card is not None
    assert recipe.card.summary == "28.21 dB PSNR, 5 slices"
    assert with_overrides(recipe, {"lam": "1e-3"}).card is None
    assert with_overrides(recipe, {"lam": repr(recipe.lam), "description": "the same"}).card == recipe.card
    other = with_overrides(recipe, {"weights": "denoise_sigma5_ncpr"})
    assert other.weights_sha256 is None
    both = with_overrides(recipe, {"weights": "denoise_sigma5_ncpr", "weights_sha256": "1" * 64})
    assert both.weights_sha256 == "1" * 64


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": float("nan")}, "card.score"),
        ({"score": "28"}, "card.score: expected float, got '28'"),
        ({"metric": "SSIM"}, "card.metric: expected one of 'PSNR', 'held-out'"),
        ({"n_slices": 0}, "card.n_slices"),
        ({"n_slices": 1.5}, "card.n_slices: expected int"),
        ({"date": "25.11.2026"}, "card.date"),
        ({"date": "20261125"}, "card.date: expected YYYY-MM-DD"),
        ({"data": " "}, "card.data"),
        ({"how": ""}, "card.how"),
    ],
)
def test_wrong_card(change: dict[str, object], message: str) -> None:
    right: dict[str, object] = {
        "score": 28.0,
        "metric": "PSNR",
        "data": "a test",
        "n_slices": 1,
        "date": "2026-11-25",
        "how": "guessed",
    }
    Card(**right)  # type: ignore[arg-type]  # some are wrong on purpose
    with pytest.raises(RecipeError, match=message):
        Card(**{**right, **change})  # type: ignore[arg-type]  # some are wrong on purpose


def test_overrides() -> None:
    recipe = with_overrides(
        load_recipe("knee_pd_acc8"),
        {
            "beta": "1e-2",
            "image": "complex",
            "noise_std": "none",
            "nonnegative": "false",
            "mask.seed": "7",
            "scale": "none",
        },
    )
    assert (recipe.beta, recipe.image, recipe.noise_std, recipe.nonnegative) == (0.01, "complex", None, False)
    assert recipe.mask is not None
    assert recipe.mask.seed == 7
    assert recipe.scale is None


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("lamda", "1", "lamda: unknown key"),
        ("solver.tol", "1", "solver.tol: unknown key"),
        ("beta.x", "1", "beta is .*, it has no keys"),
        ("beta", "large", "beta: expected float, got 'large'"),
        ("beta", "0", "beta: expected a number > 0"),
        ("lam", "nan", "lam: expected a number > 0"),
        ("image", "imaginary", "image: expected one of 'from_file', 'real', 'complex'"),
        ("mask.acceleration", "0.5", r"mask.acceleration: expected a number >= 1"),
        ("mask.kind", "spiral", "mask.kind: expected one of random, "),
        ("mask.center_fraction", "2", "mask.center_fraction"),
        ("scale.percentile", "101", "scale.percentile"),
        ("solver.max_iterations", "0", "solver.max_iterations"),
        ("solver.max_iterations", "2.5", "solver.max_iterations: expected int"),
        ("nonnegative", "yes", "nonnegative: expected bool"),
        ("noise_std", "-1", "noise_std"),
    ],
)
def test_wrong_overrides(key: str, value: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        with_overrides(load_recipe("knee_pd_acc8"), {key: value})


def write(path: Path, *arguments: str) -> Path:
    defaults = ['name="x"', 'task="mri"', "beta=1.0", "lam=0.1", 'source="a test"']
    given = {argument.split("=")[0] for argument in arguments}
    lines = [argument for argument in defaults if argument.split("=")[0] not in given] + list(arguments)
    path.write_text(
        "from mrisps.reconstruction.recipe import *\nfrom mrisps.solvers import FastSettings\n"
        f"recipe = Recipe({', '.join(lines)})\n"
    )
    return path


def test_recipe_from_a_file(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path / "mine.py", "solver=FastSettings(max_iterations=7)"))
    assert recipe.solver.max_iterations == 7
    assert recipe.scale is None


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("lamda=1.0", "lamda"),
        ("solver=FastSettings(tol=1)", "tol"),
        ("beta='1'", "beta: expected float, got '1'"),
        ("beta=True", "beta: expected float, got True"),
        ("task='ct'", "task: expected one of 'mri', 'denoise', 'superres'"),
        ("blur=BlurRule()", "blur: super-resolution recipes need one"),
        ("solver=3", "solver: expected FastSettings, got 3"),
        ("name=''", "name"),
        ("mask=MaskRule('random', '8', 0.04)", "mask.acceleration: expected float, got '8'"),
        ("mask=MaskRule('random', 8, 0.04, seed=-1)", "mask.seed"),
        ("scale=ScaleRule('99', 1.0)", "scale.percentile: expected float, got '99'"),
        ("scale=ScaleRule(99, float('inf'))", "scale.reference"),
        ("noise_std=float('inf')", "noise_std"),
        ("card='good'", "card: expected Card or None, got 'good'"),
        ("weights_sha256='0' * 64", "weights_sha256: is of no use without weights"),
        ("weights_sha256='ABC', weights='x'", "weights_sha256: expected 64 hexadecimal digits"),
    ],
)
def test_wrong_recipe_file(tmp_path: Path, argument: str, message: str) -> None:
    path = write(tmp_path / "wrong.py", argument)
    with pytest.raises(RecipeError, match=message) as caught:
        load_recipe(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        *("", "recipe = 3", "recipe = (", "import nothing_of_that_name", "recipe = undefined", "1 / 0", "{}['a']"),
        *("raise SystemExit(0)", "raise RuntimeError", "assert False"),
    ],
)
def test_file_that_is_no_recipe(tmp_path: Path, text: str) -> None:
    path = tmp_path / "none.py"
    path.write_text(text)
    with pytest.raises(FileError) as caught:
        load_recipe(path)
    assert str(path) in str(caught.value)


def test_unknown_recipe() -> None:
    with pytest.raises(RecipeError, match="knee_pd_acc8"):
        load_recipe("knee_pd_acc9")
    with pytest.raises(FileError, match="no such recipe file"):
        load_recipe("missing.py")


def test_rules_are_for_their_tasks() -> None:
    with pytest.raises(RecipeError, match="mask: only MRI"):
        Recipe("x", "denoise", 1.0, 1.0, "a test", mask=MaskRule("random", 4, 0.08))
    with pytest.raises(RecipeError, match="blur"):
        Recipe("x", "superres", 1.0, 1.0, "a test")
    assert Recipe("x", "superres", 1.0, 1.0, "a test", blur=BlurRule(), scale=ScaleRule(99, 0.5)).task == "superres"


@pytest.mark.parametrize("name", sorted(builtin_recipes()))
def test_a_recipe_written_as_python_is_the_same(tmp_path: Path, name: str) -> None:
    recipe = load_recipe(name)
    path = tmp_path / "copy.py"
    path.write_text(recipe_source(recipe))
    assert load_recipe(path) == recipe


def test_no_text_of_a_recipe_becomes_code(tmp_path: Path) -> None:
    long = "words and  more\twords\n" * 20 + "x" * 300 + "\n\n"
    hostile = long + '"""\n\'\'\'\\"); raise SystemExit(3)  # \x00 \ud800 \u2028 é'
    card = Card(1.5, "PSNR", hostile, 3, "2026-11-25", hostile)
    recipe = Recipe(hostile, "denoise", 1e-300, 1e22, hostile, weights=hostile, description=hostile, card=card)
    path = tmp_path / "hostile.py"
    path.write_text(recipe_source(recipe), encoding="utf-8")
    assert load_recipe(path) == recipe
