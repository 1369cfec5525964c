"""Training recipes, and trainings that begin from files."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mrisps.bilevel import Accuracy, TrainSettings
from mrisps.errors import FileError, MrispsError, SettingsError
from mrisps.io.fastmri import write_kspace
from mrisps.io.files import sha256_of
from mrisps.io.images import write_image
from mrisps.io.manifest import Manifest, ManifestFile
from mrisps.model import ModelConfig, PriorUse, SmoothPlusSparse
from mrisps.model.derived_weights import localised, random_atoms
from mrisps.reconstruction.recipe import BlurRule, MaskRule, builtin_recipes, load_recipe
from mrisps.settings import with_values
from mrisps.solvers import FastSettings
from mrisps.training.run import (
    TrainRecipe,
    prepare,
    run_training,
)
from mrisps.training.scan import ScanRule

ACCURACY = Accuracy(iterations=8, tolerance=1e-3, adjoint_iterations=3, adjoint_tolerance=0.1)
TRAIN = TrainSettings(
    n_steps=2,
    batch_size=2,
    start_accuracy=ACCURACY,
    end_accuracy=ACCURACY,
    validation_interval=1,
    validation_solver=FastSettings(max_iterations=10, image_change=1.0, trace_interval=0),
)
RECIPE = TrainRecipe(
    name="tiny",
    task="denoise",
    noise_std=0.1,
    train=TRAIN,
    model=ModelConfig(patch_size=3, n_free_atoms=2, n_synthesis_atoms=4),
    start="random",
    crop=(16, 16),
    validation_crop=(16, 20),
)


def picture(seed: int, shape: tuple[int, int] = (24, 28)) -> NDArray[np.float32]:
    """A bright ellipse on a ramp, with grain."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
    inside = (y - rng.uniform(-0.3, 0.3)) ** 2 + (x - rng.uniform(-0.3, 0.3)) ** 2 < rng.uniform(0.1, 0.4)
    return (0.3 + 0.1 * x + 0.4 * inside + 0.02 * rng.random(shape)).astype(np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "images"
    path.mkdir()
    for k in range(3):
        write_image(path / f"image{k}.png", picture(k))
    return path


@pytest.fixture
def others(tmp_path: Path) -> Path:
    path = tmp_path / "validation"
    path.mkdir()
    for k in range(2):
        write_image(path / f"other{k}.png", picture(10 + k))
    return path


# -------------------------------------------------------------------------------------------------------------- recipes


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"name": ""}, "name"),
        ({"name": "two words"}, "name"),
        ({"name": "../up"}, "name"),
        ({"task": "segment"}, "task"),
        ({"noise_std": -0.1}, "noise_std"),
        ({"noise_std": math.nan}, "noise_std"),
        ({"noise_std": "0.1"}, "noise_std"),
        ({"train": None}, "train"),
        ({"model": 13}, "model"),
        ({"start": "zeros"}, "start"),
        ({"beta": None}, "beta"),
        ({"beta": 0.0}, "beta"),
        ({"lam": None}, "lam"),
        ({"lam": math.inf}, "lam"),
        ({"crop": (16, 2)}, "crop"),
        ({"crop": (16,)}, "crop"),
        ({"crop": [16, 16]}, "crop"),
        ({"crop": (16.0, 16)}, "crop"),
        ({"validation_crop": (1, 16)}, "validation_crop"),
        ({"normalise": "mean"}, "normalise"),
        ({"mask": MaskRule("random", 4, 0.1)}, "mask"),
        ({"task": "mri"}, "mask"),
        ({"task": "mri", "mask": MaskRule("random", 4, 0.1), "scan": ScanRule()}, "mask"),
        ({"scan": ScanRule()}, "mask"),
        ({"largest_noise_std": 0.05}, "largest_noise_std"),
        ({"noise_std": 0.0, "largest_noise_std": 0.05}, "largest_noise_std"),
        ({"contrast": (2.0, 1.0)}, "contrast"),
        ({"train": replace(RECIPE.train, learn="attention")}, "train.learn"),
        (
            {"train": replace(RECIPE.train, learn="both", warm_batches=3), "start": "weights"},
            "train.warm_batches",
        ),
        (
            {"train": replace(RECIPE.train, gradient="iterations"), "model": replace(RECIPE.model, regulariser="CPR")},
            "train.gradient",
        ),
        ({"blur": BlurRule()}, "blur"),
        ({"task": "superres"}, "blur"),
        ({"task": "superres", "blur": BlurRule(17, 2.0, 4)}, "crop"),
        ({"task": "superres", "blur": BlurRule(16, 2.0, 4), "validation_crop": (15, 20)}, "validation_crop"),
    ],
)
def test_recipes_are_checked(changes: dict[str, object], key: str) -> None:
    with pytest.raises(SettingsError, match=f"^{key}: ") as caught:
        replace(RECIPE, **changes)  # type: ignore[arg-type]  # wrong on purpose
    assert caught.value.key == key


def test_crops_hold_whole_groups() -> None:
    model = replace(RECIPE.model, regulariser="CPR", group_size=5)
    with pytest.raises(
        SettingsError, match=r"^crop: expected multiples of 5 \(stride times group size\), got \(16, 16\)"
    ):
        replace(RECIPE, model=model)
    with pytest.raises(
        SettingsError, match=r"^validation_crop: expected multiples of 5 \(stride times group size\), got \(16, 20\)"
    ):
        replace(RECIPE, model=model, crop=(15, 20))
    replace(RECIPE, model=model, crop=(15, 20), validation_crop=(20, 20))


def test_weights_bring_their_own_beta_and_lam() -> None:
    recipe = replace(RECIPE, start="weights", beta=None, lam=None)
    assert recipe.beta is None


@pytest.mark.parametrize(
    ("key", "text", "attribute", "value"),
    [
        ("noise_std", "0.02", "noise_std", 0.02),
        ("crop", "32,48", "crop", (32, 48)),
        ("validation_crop", "32, 64", "validation_crop", (32, 64)),
        ("model.n_synthesis_atoms", "7", "model.n_synthesis_atoms", 7),
        ("model.exponent", "2", "model.exponent", 2.0),
        ("train.n_steps", "50", "train.n_steps", 50),
        ("train.loss", "PSNR", "train.loss", "PSNR"),
        ("train.start_accuracy.iterations", "9", "train.start_accuracy.iterations", 9),
        ("train.validation_solver.tolerance", "1e-4", "train.validation_solver.tolerance", 1e-4),
        ("train.fixed", "free_atoms", "train.fixed", "free_atoms"),
        ("train.solver.half_storage", "true", "train.solver.half_storage", True),
        ("start", "data", "start", "data"),
    ],
)
def test_changes_of_single_values(key: str, text: str, attribute: str, value: object) -> None:
    changed: object = with_values(RECIPE, {key: text})
    for part in attribute.split("."):
        changed = getattr(changed, part)
    assert changed == value
    assert type(changed) is type(value)
    assert with_values(RECIPE, {key: text}).sha256() != RECIPE.sha256()


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("crop", "32", "crop: is missing .element 1"),
        ("crop", "32,x", "crop: expected an integer, got 'x' .element 1"),
        ("crop", "-3,32", r"crop: expected an integer >= 1, got -3 \(element 0\)"),
        ("crop", "2,32", "crop: expected at least a patch"),
        ("train.n_steps", "0", r"train\.n_steps: expected an integer >= 1"),
        ("train.n_steps", "many", r"train\.n_steps: expected an integer, got 'many'"),
        ("train.loss", "L7", r"train\.loss: expected 'L1', "),
        ("train.fixed", "beta", r"train\.fixed: expected 'free_atoms', got 'beta'"),
        ("train.step", "3", r"train\.step: unknown key; known here: n_steps"),
        ("train.end_accuracy.tolerance", "-1", r"train\.end_accuracy\.tolerance: expected a number > 0"),
        ("model.patch_size", "4", r"model\.patch_size: expected an odd number"),
        ("mask.seed", "3", r"mask\.seed: mask is None"),
        ("beta", "none", "beta: expected a number"),
    ],
)
def test_wrong_changes(key: str, text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=f"^{message}"):
        with_values(RECIPE, {key: text})


def test_plain_values() -> None:
    plain = RECIPE.to_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert plain["crop"] == [16, 16]
    assert RECIPE.sha256() == replace(RECIPE).sha256()


HASHES = {
    "train_denoise": "97764431173f346361a9aa58e8d8a95dbdd1f5911f664430f9bfa0f7d1b493dc",
    "train_denoise_sigma25_cpr": "4e25d4405ed62921406cc22cbdf5e3c5304750f7598a7e7084d56943aebfe52b",
    "train_denoise_sigma25_ncpr": "69605549693bb53c238b8c8f53043214a68d46d7370feb89ddd54535f373e93f",
    "train_denoise_sigma25_ncpr_first": "eff31cc325934eb54ccbf164f7bceff6b06f6a3cdbe32628d098c4bdeb24a95b",
    "train_denoise_sigma5_cpr": "0220f46b66e85d217f046e1e1478bd3cbb8062f32667e88a88f95e109b7af277",
    "train_denoise_sigma5_ncpr": "4bffef1b2c9a41816dc5897fa8351c248792d7a4ec513ddd715888f7c9298ee3",
    "train_head": "198de13f59e333b7b8d7a6e4d6855057ba55a76dfdd8db1b5b6686b870c68614",
    "train_head_attention": "ed446bd3d9099a53686aae7d250a2bb10abbd4ecca1f7283a27217dec455e221",
    "train_knee": "ae1c9e988f27f0e659ee82b7fea7b738caabc6550d757574741700ca4f9d3170",
    "train_knee_attention": "64715288a79af262e989e418c058664dd9667eb4a812cd9b1263e4ecf8a4ab87",
}


@pytest.mark.parametrize("name", builtin_recipes(training=True))
def test_hashes_stay(name: str) -> None:
    assert load_recipe(name, TrainRecipe).sha256() == HASHES[name]


def test_builtin_recipes() -> None:
    recipes = builtin_recipes(training=True)
    assert "train_denoise_sigma25_ncpr" in recipes
    for name in recipes:
        recipe = load_recipe(name, TrainRecipe)
        assert f"train_{recipe.name}" == name
        assert recipe.description
        assert recipe.source


def test_a_recipe_of_another_kind(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"train_denoise_sigma25_ncpr.*; got 'denoise_sigma25'"):
        load_recipe("denoise_sigma25", TrainRecipe)
    path = tmp_path / "r.py"
    path.write_text("recipe = 3")
    with pytest.raises(FileError, match="recipe: expected a mrisps TrainRecipe, got int"):
        load_recipe(path, TrainRecipe)
    path.write_text(
        "from mrisps.reconstruction.recipe import Recipe\n"
        "recipe = Recipe(name='a', task='denoise', beta=1.0, lam=1.0, source='b')\n"
    )
    with pytest.raises(FileError, match="recipe: expected a mrisps TrainRecipe, got Recipe"):
        load_recipe(path, TrainRecipe)
    path.write_text("from mrisps.training.run import TrainRecipe\nrecipe = TrainRecipe(nam='a')\n")
    with pytest.raises(SettingsError, match=r"^nam: "):
        load_recipe(path, TrainRecipe)


# ------------------------------------------------------------------------------------------------------------- prepare


def test_prepare(folder: Path, others: Path) -> None:
    (folder / "bad.png").write_bytes(b"bad")
    write_image(others / "small.png", picture(5, (10, 10)))
    prepared = prepare(RECIPE, [folder], [others])
    assert [image.name for image in prepared.images] == ["image0.png", "image1.png", "image2.png"]
    assert [image.name for image in prepared.validation] == ["other0.png", "other1.png"]
    assert [error.path.name for error in prepared.skipped] == ["bad.png", "small.png"]
    assert prepared.model.config == RECIPE.model
    assert float(prepared.model.beta.detach()) == 1
    assert prepared.model.lam == 0.008


def test_exclude(folder: Path) -> None:
    prepared = prepare(RECIPE, [folder], [], exclude=["image1", "e2.p"])
    assert [image.name for image in prepared.images] == ["image0.png"]
    with pytest.raises(MrispsError, match="every training image is excluded"):
        prepare(RECIPE, [folder], [], exclude=["image"])


def test_no_image_is_in_both_sets(folder: Path, others: Path) -> None:
    """Under whatever name."""
    (others / "renamed.png").write_bytes((folder / "image1.png").read_bytes())
    with pytest.raises(MrispsError, match=r"renamed\.png: is among the training images and the validation images"):
        prepare(RECIPE, [folder], [others])
    prepare(RECIPE, [folder], [others], exclude=["image1"])


def test_missing_or_empty_paths(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(MrispsError, match="missing: does not exist"):
        prepare(RECIPE, [tmp_path / "missing"], [])
    (tmp_path / "empty").mkdir()
    with pytest.raises(MrispsError, match=r"no image in .*empty"):
        prepare(RECIPE, [folder], [tmp_path / "empty"])


def test_start_from_weights(folder: Path) -> None:
    weights = random_atoms([], RECIPE.model, beta=0.3, lam=0.5, seed=7)
    recipe = replace(RECIPE, start="weights", beta=None, lam=None)
    prepared = prepare(recipe, [folder], [], start=weights)
    assert prepared.model.fingerprint() == weights.fingerprint()
    changed = prepare(replace(recipe, beta=2.0), [folder], [], start=weights)
    assert float(changed.model.beta.detach()) == 2
    assert changed.model.lam == 0.5
    with pytest.raises(SettingsError, match="start: is 'weights': weights to start from are missing"):
        prepare(recipe, [folder], [])
    with pytest.raises(SettingsError, match="start: is 'random': weights to start from are not used"):
        prepare(RECIPE, [folder], [], start=weights)
    with pytest.raises(SettingsError, match="model: expected that of the weights"):
        prepare(replace(recipe, model=replace(recipe.model, exponent=1.5)), [folder], [], start=weights)


def test_a_start_without_a_prior(folder: Path) -> None:
    weights = random_atoms([], RECIPE.model, beta=0.3, lam=0.5, seed=7)
    with torch.no_grad():
        weights.raw_synthesis_atoms.zero_()
    with pytest.raises(MrispsError, match="the weights to start from have no admissible prior"):
        prepare(replace(RECIPE, start="weights", beta=None, lam=None), [folder], [], start=weights)


def test_a_mask_that_does_not_fit_the_crops(folder: Path) -> None:
    """Before anything is computed."""
    mask = MaskRule(kind="random", acceleration=8, center_fraction=0.9)
    with pytest.raises(SettingsError, match=r"crop: there is no operator for images \(16, 16\)"):
        prepare(replace(RECIPE, task="mri", mask=mask), [folder], [])


def test_flat_images_are_no_start(tmp_path: Path) -> None:
    for k in range(2):
        np.save(tmp_path / f"{k}.npy", np.full((20, 20), 0.5, dtype=np.float32))
    with pytest.raises(ValueError, match="images with structure, these are flat"):
        prepare(replace(RECIPE, start="data", validation_crop=(16, 16)), [tmp_path], [])


def test_identity(folder: Path, others: Path) -> None:
    """It changes with whatever changes the result, and with nothing else; training does not change it."""
    first = prepare(RECIPE, [folder], [others])
    identity = first.identity
    assert json.loads(json.dumps(identity)) == identity
    run_training(first)
    assert first.identity == identity
    (folder / "image0.png").rename(folder / "a.png")
    assert prepare(RECIPE, [folder], [others]).identity == identity
    for changed in (
        prepare(with_values(RECIPE, {"train.seed": "1"}), [folder], [others]),
        prepare(RECIPE, [folder], [others], exclude=["image1"]),
        prepare(RECIPE, [folder], []),
    ):
        assert changed.identity != identity
    recipe = replace(RECIPE, start="weights")
    one, two = (
        prepare(recipe, [folder], [], start=random_atoms([], RECIPE.model, seed=seed)).identity for seed in range(2)
    )
    assert one != two
    started = prepare(recipe, [folder], [], start=random_atoms([], RECIPE.model))
    run_training(started)
    assert started.identity == one


# ------------------------------------------------------------------------------------------------------ the first atoms


@pytest.mark.parametrize(("m", "n", "p"), [(2, 9, 3), (6, 30, 5), (20, 8, 5), (1, 40, 5), (22, 3, 5), (0, 30, 5)])
def test_localised(m: int, n: int, p: int) -> None:
    """Orthonormal free atoms; atoms of equal norm in their complement, a tight frame if there are enough of them."""
    config = ModelConfig(patch_size=p, n_free_atoms=m, n_synthesis_atoms=n)
    images = [picture(k, (60, 70)) for k in range(3)]
    model = localised(images, config, beta=2.0, lam=0.1, n_patches=4000, n_sweeps=3)
    free = model.raw_free_atoms.detach().flatten(1).double()
    atoms = model.raw_synthesis_atoms.detach().flatten(1).double()
    torch.testing.assert_close(free @ free.T, torch.eye(m, dtype=torch.float64), rtol=0, atol=1e-6)
    torch.testing.assert_close(free.sum(dim=1), torch.zeros(m, dtype=torch.float64), rtol=0, atol=1e-5)
    torch.testing.assert_close(free @ atoms.T, torch.zeros(m, n, dtype=torch.float64), rtol=0, atol=1e-5)
    torch.testing.assert_close(atoms.norm(dim=1), torch.ones(n, dtype=torch.float64), rtol=0, atol=1e-6)
    rank = p * p - 1 - m
    if n >= rank:
        values = torch.linalg.eigvalsh(atoms.T @ atoms)[-rank:]
        assert float(values.max() / values.min()) < 1.5
        assert float(values.mean()) == pytest.approx(n / rank, rel=1e-5)
    model.prior()
    assert float(model.beta.detach()) == 2
    assert localised(images, config, beta=2.0, lam=0.1, n_patches=4000, n_sweeps=3).fingerprint() == model.fingerprint()
    other = localised(images, config, beta=2.0, lam=0.1, n_patches=4000, n_sweeps=3, seed=1)
    assert other.fingerprint() != model.fingerprint()


def test_what_is_left_to_the_dictionary_is_in_the_middle() -> None:
    config = ModelConfig(patch_size=7, n_free_atoms=24, n_synthesis_atoms=30)
    model = localised([picture(0, (60, 70))], config, n_patches=2000, n_sweeps=2)
    energy = model.raw_synthesis_atoms.detach().square().sum(0)
    assert float(energy[1:6, 1:6].sum() / energy.sum()) > 0.8


def test_random_atoms() -> None:
    config = ModelConfig(patch_size=5, n_free_atoms=6, n_synthesis_atoms=8)
    one = random_atoms([], config, beta=0.5, lam=0.02)
    assert one.fingerprint() == random_atoms([picture(0)], config, beta=0.5, lam=0.02).fingerprint()
    assert one.fingerprint() != random_atoms([], config, beta=0.5, lam=0.02, seed=1).fingerprint()
    assert float(one.raw_synthesis_atoms.detach().flatten(1).norm(dim=1).mean()) == pytest.approx(1, abs=0.15)
    one.prior()


# ------------------------------------------------------------------------------------------------------------- training


@pytest.mark.parametrize("real", [True, False])
def test_mri(tmp_path: Path, real: bool) -> None:
    """Two steps on fully sampled k-space of images that are stated to be real, or on magnitudes; masks drawn anew."""
    for name, seeds in (("train", (0, 1)), ("validation", (2,))):
        images = np.stack([picture(seed, (32, 24)) for seed in seeds])
        shifted = np.fft.ifftshift(50 * images, axes=(-2, -1))
        kspace = np.fft.fftshift(np.fft.fft2(shifted, norm="ortho"), axes=(-2, -1)).astype(np.complex64)
        write_kspace(tmp_path / f"{name}.h5", kspace, attributes={"image_is_real": real})
    recipe = replace(
        RECIPE,
        task="mri",
        noise_std=0.01,
        mask=MaskRule("random", 3, 0.2),
        normalise="maximum",
        model=replace(RECIPE.model, regulariser="CPR", group_size=2),
        start="data",
    )
    prepared = prepare(recipe, [tmp_path / "train.h5"], [tmp_path / "validation.h5"])
    assert [image.name for image in prepared.images] == ["train.h5 slice 0", "train.h5 slice 1"]
    assert all(float(image.pixels.max()) == pytest.approx(1) for image in prepared.images)
    before = prepared.model.fingerprint()
    state = run_training(prepared)
    assert state.step == 2
    assert state.n_skipped == 0
    assert [step for step, _ in state.validation] == [0, 1, 2]
    assert all(psnr > 15 for _, psnr in state.validation)
    assert prepared.model.fingerprint() != before


def test_superres(folder: Path) -> None:
    recipe = replace(RECIPE, task="superres", noise_std=0.01, blur=BlurRule(4, 1.0, 2))
    state = run_training(prepare(recipe, [folder], []))
    assert state.n_skipped == 0
    assert all(math.isfinite(loss) for loss in state.losses)


def test_resume(folder: Path, others: Path, tmp_path: Path) -> None:
    whole = prepare(RECIPE, [folder], [others])
    expected = run_training(whole, checkpoint=tmp_path / "c")
    again = prepare(RECIPE, [folder], [others])
    found = run_training(again, checkpoint=tmp_path / "c", resume=True)
    assert found.losses == expected.losses
    assert again.model.fingerprint() == whole.model.fingerprint()
    other = prepare(with_values(RECIPE, {"noise_std": "0.2"}), [folder], [others])
    with pytest.raises(FileError, match=r"another training: recipe\.noise_std is 0\.1 there and 0\.2 here"):
        run_training(other, checkpoint=tmp_path / "c", resume=True)
    write_image(folder / "image3.png", picture(3))
    with pytest.raises(FileError, match="another training: training_images_sha256 is"):
        run_training(prepare(RECIPE, [folder], [others]), checkpoint=tmp_path / "c", resume=True)


def test_the_best_model_can_be_saved(folder: Path, others: Path, tmp_path: Path) -> None:
    prepared = prepare(RECIPE, [folder], [others])
    best = run_training(prepared).best_model(prepared.model)
    best.save(tmp_path / "w.safetensors")
    assert SmoothPlusSparse.load(tmp_path / "w.safetensors").fingerprint() == best.fingerprint()


def test_a_training_on_scans_from_a_manifest_resumes_bit_by_bit(tmp_path: Path) -> None:
    """Masks, coils, phases and noise of every step, patches on a stride; stopped after one step and resumed."""
    files = []
    for k, split in enumerate(("train", "train", "val")):
        write_image(tmp_path / f"{k}.png", picture(k))
        files.append(ManifestFile(f"{k}.png", sha256_of(tmp_path / f"{k}.png"), split))
    manifest = Manifest("m", "", "", "", tuple(files))
    scan = ScanRule(acceleration=(2, 4), coils=(1, 3), phase=1.0)
    settings = replace(TRAIN, prior=PriorUse(stride=2), checkpoint_interval=1, loss="PSNR")
    recipe = replace(RECIPE, task="mri", noise_std=0.01, largest_noise_std=0.1, scan=scan, train=settings)
    whole = prepare(recipe, [tmp_path], [], manifest=manifest)
    assert [image.name for image in whole.validation] == ["2.png"]
    state = run_training(whole)
    part, checkpoint = prepare(recipe, [tmp_path], [], manifest=manifest), tmp_path / "c.safetensors"

    class StoppedError(Exception):
        pass

    def stop(_: object) -> None:
        raise StoppedError

    with pytest.raises(StoppedError):
        run_training(part, checkpoint=checkpoint, on_checkpoint=stop)
    resumed = prepare(recipe, [tmp_path], [], manifest=manifest)
    again = run_training(resumed, checkpoint=checkpoint, resume=True)
    assert again.losses == state.losses
    assert again.validation == state.validation
    for name, parameter in resumed.model.named_parameters():
        assert torch.equal(parameter, dict(whole.model.named_parameters())[name]), name
    with pytest.raises(MrispsError, match="manifest: expected one folder"):
        prepare(recipe, [tmp_path], [tmp_path], manifest=manifest)
