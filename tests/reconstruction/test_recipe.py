"""Recipes: the ones that come with the package, overrides, and what is refused."""

import dataclasses
from pathlib import Path

import pytest

from mrisps.errors import FileError, SettingsError
from mrisps.model import SmoothPlusSparse
from mrisps.reconstruction.recipe import (
    BlurRule,
    Card,
    MaskRule,
    NoiseRule,
    Recipe,
    ScaleRule,
    builtin_recipes,
    load_recipe,
    recipe_source,
    with_overrides,
)

HASHES = {
    "denoise_sigma15": "01354816b4949c3f38043cf8c8791f82b3068988d121cbb4427d41474ed19880",
    "denoise_sigma25": "dd2d282aac44f14c8c15c75bec21aa762bafeb124324a43aa4c627f5e60bac7d",
    "denoise_sigma5": "f1b4b344977f1dacb94e3c3f50a8c433ab54ebfd7842b56bdf53de068bec3d6a",
    "denoise_sigma50": "3caad8ae4680d29129c2264c5d6f9af0b509fc4e5a55b5b01a8fbface3fff489",
    "head_acc8": "44ca5931498c56ed534e6dd72809a8bf668e3ee23ff7b54e1b1a9977a608b3d7",
    "knee_pd_acc16": "cf01baa05f8cc56d6438632f0030695f94d2aa7c03395a56a37f9c534507f3d5",
    "knee_pd_acc4": "5a4ca074ffa013f136c98a42040ed648a7c77614951579a702742ebd45547520",
    "knee_pd_acc8": "2655eefc6ecde801aa976c7fbe5f14386c7be8c2b7457cfa0b83123d960a39bf",
    "knee_pdfs_acc16": "d41682a474bfb62e5b331c0e329f2a6f28fe99d031aa7ebffc24e763369db640",
    "knee_pdfs_acc4": "030e0e18177c2490971b44036e2c260e42f00ca6afc6b3ebefb35440b12f9775",
    "knee_pdfs_acc8": "ca0d6db8b7a1e53b2202431b0423c8a94976c48bdb9e4643549fb8ac000f095d",
    "superres_x2": "51f188a62583894e5a91142aecc6f628a93e4a2f1789ca9f362338b90049669a",
    "superres_x4": "6d65dc0c3411bb61d2fd864b4e3a9aa7063720d8d5ebadd135511fae469ede3b",
}
"""A hash is in every result that a recipe made, so it stays what it is while the recipe means the same.

The recipes for several coils are not here: their calibration became another one.
"""


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


@pytest.mark.parametrize("name", HASHES)
def test_hashes_stay(name: str) -> None:
    assert load_recipe(name).sha256() == HASHES[name]


def test_tuned_values() -> None:
    # best_hyperparams.txt of the authors
    recipe = load_recipe("superres_x4")
    assert (recipe.beta, recipe.lam) == (0.00258673, 0.000929068)


def test_knees_have_what_was_learned_with_their_weights() -> None:
    model = SmoothPlusSparse.load("knee")
    for name in (name for name in builtin_recipes() if name.startswith("knee_")):
        recipe = load_recipe(name)
        assert recipe.weights == "knee"
        assert recipe.weights_sha256 == model.fingerprint()
        assert recipe.beta == pytest.approx(float(model.beta.detach()), rel=1e-4)
        assert recipe.lam == model.lam


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
    with pytest.raises(SettingsError, match="weights_sha256: knee_pd_acc8 was made for weights with SHA-256 34d5"):
        load_recipe("knee_pd_acc8").check_weights("0" * 64)


def test_a_card_goes_with_what_it_is_about() -> None:
    recipe = load_recipe("knee_pd_acc8")
    assert recipe.card is not None
    assert recipe.card.summary == "29.58 dB PSNR, 10 slices"
    assert with_overrides(recipe, {"lam": "1e-3"}).card is None
    assert with_overrides(recipe, {"lam": repr(recipe.lam), "description": "the same"}).card == recipe.card
    other = with_overrides(recipe, {"weights": "denoise_sigma5_ncpr"})
    assert other.weights_sha256 is None
    both = with_overrides(recipe, {"weights": "denoise_sigma5_ncpr", "weights_sha256": "1" * 64})
    assert both.weights_sha256 == "1" * 64


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": float("nan")}, "score"),
        ({"score": "28"}, "score: expected a number, got '28'"),
        ({"metric": "SSIM"}, "metric: expected 'PSNR' or 'held-out', got 'SSIM'"),
        ({"n_slices": 0}, "n_slices: expected an integer >= 1, got 0"),
        ({"n_slices": 1.5}, "n_slices: expected an integer, got 1.5"),
        ({"date": "25.11.2026"}, "date: expected YYYY-MM-DD"),
        ({"date": "20261125"}, "date: expected YYYY-MM-DD"),
        ({"data": " "}, "data: expected a text"),
        ({"how": ""}, "how: expected a text"),
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
    with pytest.raises(SettingsError, match=message):
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
        ("beta", "large", "beta: expected a number, got 'large'"),
        ("beta", "0", "beta: expected a number > 0"),
        ("lam", "nan", "lam: expected a finite number, got nan"),
        ("image", "imaginary", "image: expected 'from_file', 'real' or 'complex', got 'imaginary'"),
        ("mask.acceleration", "0.5", r"mask.acceleration: expected a number >= 1"),
        ("mask.kind", "spiral", "mask.kind: expected one of random, "),
        ("mask.center_fraction", "2", "mask.center_fraction"),
        ("scale.percentile", "101", "scale.percentile"),
        ("solver.max_iterations", "-3", "solver.max_iterations: expected an integer >= 1, got -3"),
        ("solver.max_iterations", "2.5", "solver.max_iterations: expected an integer, got '2.5'"),
        ("nonnegative", "yes", "nonnegative: expected True or False, got 'yes'"),
        ("noise_std", "-1", "noise_std"),
    ],
)
def test_wrong_overrides(key: str, value: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
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
        ("lamda=1.0", "^lamda: unknown key; known here: name, "),
        ("solver=FastSettings(tol=1)", "^solver.tol: unknown key; known here: tolerance, "),
        ("beta='1'", "beta: expected a number, got '1'"),
        ("beta=True", "beta: expected a number, got True"),
        ("task='ct'", "task: expected 'mri', 'denoise' or 'superres', got 'ct'"),
        ("blur=BlurRule()", "blur: super-resolution recipes need one"),
        ("solver=3", "solver: expected FastSettings, got 3"),
        ("name=''", "name"),
        ("mask=MaskRule('random', '8', 0.04)", "mask.acceleration: expected a number, got '8'"),
        ("mask=MaskRule('random', 8, 0.04, seed=-1)", "mask.seed"),
        ("scale=ScaleRule('99', 1.0)", "scale.percentile: expected a number, got '99'"),
        ("scale=ScaleRule(99, float('inf'))", "scale.reference"),
        ("noise_std=float('inf')", "noise_std"),
        ("card='good'", "card: expected Card, got 'good'"),
        ("weights_sha256='0' * 64", "weights_sha256: is of no use without weights"),
        ("weights_sha256='ABC', weights='x'", "weights_sha256: expected a text to match pattern"),
    ],
)
def test_wrong_recipe_file(tmp_path: Path, argument: str, message: str) -> None:
    path = write(tmp_path / "wrong.py", argument)
    with pytest.raises(SettingsError, match=message) as caught:
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
    with pytest.raises(SettingsError, match="knee_pd_acc8"):
        load_recipe("knee_pd_acc9")
    with pytest.raises(FileError, match="no such recipe file"):
        load_recipe("missing.py")


def test_beta_and_lam_follow_the_noise() -> None:
    rule = NoiseRule(beta_per_noise=1, smallest_beta=0.005, largest_beta=0.02, lam_per_noise=0.1, smallest_lam=0.0003)
    recipe = dataclasses.replace(load_recipe("multicoil"), beta=0.01, lam=0.001, regularisation=rule)
    assert recipe.regularisation_for(None) == (0.01, 0.001)
    assert recipe.regularisation_for(0.0) == (0.005, 0.0003)
    assert recipe.regularisation_for(0.004) == pytest.approx((0.005, 0.0005))
    assert recipe.regularisation_for(1.0) == pytest.approx((0.02, 0.1), rel=1e-4)
    given = with_overrides(recipe, {"lam": "0.002"})
    assert given.regularisation_for(0.004) == (0.01, 0.002)
    with pytest.raises(SettingsError, match="largest_beta: expected at least smallest_beta"):
        dataclasses.replace(rule, largest_beta=0.001)


def test_rules_are_for_their_tasks() -> None:
    with pytest.raises(SettingsError, match="mask: only MRI"):
        Recipe("x", "denoise", 1.0, 1.0, "a test", mask=MaskRule("random", 4, 0.08))
    with pytest.raises(SettingsError, match="blur"):
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
    hostile = long + '"""\n\'\'\'\\"); raise SystemExit(3)  # \x00 \u2028 é'
    card = Card(1.5, "PSNR", hostile, 3, "2026-11-25", hostile)
    recipe = Recipe(hostile, "denoise", 1e-300, 1e22, hostile, weights=hostile, description=hostile, card=card)
    path = tmp_path / "hostile.py"
    path.write_text(recipe_source(recipe), encoding="utf-8")
    assert load_recipe(path) == recipe
