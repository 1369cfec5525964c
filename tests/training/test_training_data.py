"""Reading training images, and what batches depend on."""

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from mrisps.errors import FileError, MrispsError, SettingsError
from mrisps.io.fastmri import write_kspace
from mrisps.io.files import sha256_of
from mrisps.io.images import write_image
from mrisps.io.manifest import Manifest, ManifestFile
from mrisps.operators import BlurDownsample, FourierSubsampling, Identity, Sense
from mrisps.reconstruction.recipe import BlurRule, MaskRule
from mrisps.training.data import (
    CropSamples,
    Measurement,
    TrainingImage,
    digest,
    manifest_files,
    read_training_images,
    validation_batches,
)
from mrisps.training.scan import ScanRule, coil_array

CPU = torch.device("cpu")
MRI = Measurement("mri", 0.1, MaskRule("random", 4, 0.1))
DENOISE = Measurement("denoise", 0.1)
SUPERRES = Measurement("superres", 0.1, blur=BlurRule(4, 1.0, 2))


def picture(seed: int, shape: tuple[int, int] = (24, 20)) -> NDArray[np.float32]:
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


def to_kspace(image: NDArray[np.generic]) -> NDArray[np.complex64]:
    axes = (-2, -1)
    shifted = np.fft.ifftshift(image, axes=axes)
    return np.fft.fftshift(np.fft.fft2(shifted, norm="ortho"), axes=axes).astype(np.complex64)


def samples(
    measurement: Measurement, *, shape: tuple[int, int] = (64, 48), seed: int = 3, **changes: object
) -> CropSamples:
    images = [TrainingImage(f"{k}", picture(k, shape)) for k in range(3)]
    made = CropSamples(images, measurement, (16, 16), seed, CPU)
    return replace(made, **changes)  # type: ignore[arg-type]  # by name


# ------------------------------------------------------------------------------------------------------------- reading


def test_a_folder_of_everything(tmp_path: Path) -> None:
    """PNG, TIFF, NPY and k-space, also in subfolders and with capital endings; other files are not looked at."""
    (tmp_path / "b").mkdir()
    write_image(tmp_path / "b" / "c.png", picture(0), bits=16)
    write_image(tmp_path / "a.tif", picture(1))
    np.save(tmp_path / "d.npy", picture(2).astype(np.float64))
    (tmp_path / "d.npy").rename(tmp_path / "D.NPY")
    write_kspace(tmp_path / "e.h5", to_kspace(picture(3))[None], attributes={"image_is_real": True})
    (tmp_path / "notes.txt").write_text("notes")
    images, skipped = read_training_images([tmp_path], (8, 8))
    assert skipped == []
    found = {image.name: image.pixels for image in images}
    assert sorted(found) == ["D.NPY", "a.tif", "c.png", "e.h5"]
    for name, seed in (("c.png", 0), ("a.tif", 1), ("D.NPY", 2), ("e.h5", 3)):
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], picture(seed), atol=2e-5)


def test_colour_becomes_grey(tmp_path: Path) -> None:
    Image.new("RGB", (16, 12), (255, 0, 0)).save(tmp_path / "red.png")
    (image,), skipped = read_training_images([tmp_path], (8, 8))
    assert skipped == []
    assert image.pixels.shape == (12, 16)
    np.testing.assert_allclose(image.pixels, 0.299, atol=1e-6)


def test_bad_images_among_good_ones(tmp_path: Path) -> None:
    write_image(tmp_path / "good.png", picture(0))
    write_image(tmp_path / "small.png", picture(0, (7, 30)))
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    (tmp_path / "broken.h5").write_bytes(b"\x89HDF\r\n")
    np.save(tmp_path / "nan.npy", np.full((20, 20), np.nan))
    np.save(tmp_path / "objects.npy", np.array([None, {}], dtype=object), allow_pickle=True)
    images, skipped = read_training_images([tmp_path], (8, 8))
    assert [image.name for image in images] == ["good.png"]
    assert sorted(error.path.name for error in skipped) == [
        "broken.h5",
        "broken.png",
        "nan.npy",
        "objects.npy",
        "small.png",
    ]
    (small,) = (error for error in skipped if error.path.name == "small.png")
    assert "(7, 30) is smaller than the crop (8, 8)" in str(small)


def test_nothing_usable(tmp_path: Path) -> None:
    with pytest.raises(MrispsError, match=r"no image in .*: expected files ending in \.png"):
        read_training_images([tmp_path], (8, 8))
    write_image(tmp_path / "small.png", picture(0, (4, 4)))
    write_kspace(tmp_path / "small.h5", to_kspace(picture(0, (4, 4)))[None].repeat(3, axis=0))
    with pytest.raises(MrispsError, match=r"no usable image in .*\(4 files or slices skipped; the first: .*small\.h5"):
        read_training_images([tmp_path], (8, 8))
    with pytest.raises(MrispsError, match="missing: does not exist"):
        read_training_images([tmp_path, tmp_path / "missing"], (2, 2))


def test_a_named_file_of_another_kind_is_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8")
    write_image(tmp_path / "good.png", picture(0))
    images, skipped = read_training_images([tmp_path / "photo.jpg", tmp_path / "good.png"], (8, 8))
    assert len(images) == 1
    assert "photo.jpg: expected a file name ending in .png" in str(skipped[0])


def test_volume(tmp_path: Path) -> None:
    """Every slice is an image: magnitudes, over the coils; a slice that is empty is left out and named."""
    rng = np.random.default_rng(0)
    coils = (rng.normal(size=(3, 2, 16, 12)) + 1j * rng.normal(size=(3, 2, 16, 12))).astype(np.complex64)
    kspace = to_kspace(coils)
    path = tmp_path / "v.h5"
    write_kspace(path, kspace)
    with h5py.File(path, "r+") as file:
        file["kspace"][1] = 0
    images, skipped = read_training_images([path], (8, 8))
    assert [image.name for image in images] == ["v.h5 slice 0", "v.h5 slice 2"]
    np.testing.assert_allclose(images[1].pixels, np.sqrt((np.abs(coils[2]) ** 2).sum(0)), rtol=1e-4)
    assert len(skipped) == 1
    assert str(skipped[0]).startswith(f"{path}: ")
    assert "slice 1: " in str(skipped[0])


def test_undersampled_kspace_is_no_training_image(tmp_path: Path) -> None:
    mask = np.ones(12, dtype=np.bool_)
    mask[3] = False
    write_kspace(tmp_path / "u.h5", to_kspace(picture(0, (16, 12)))[None] * mask, mask=mask)
    with pytest.raises(MrispsError, match=r"u\.h5: mask: expected fully sampled k-space"):
        read_training_images([tmp_path], (8, 8))


def test_the_reference_of_a_file_is_the_image(tmp_path: Path) -> None:
    """Whatever its k-space lacks."""
    mask = np.ones(12, dtype=np.bool_)
    mask[3] = False
    kspace = to_kspace(picture(0, (16, 12)))[None]
    target = picture(1, (10, 9))
    write_kspace(tmp_path / "t.h5", kspace * mask, mask=mask, target=target[None])
    images, skipped = read_training_images([tmp_path], (8, 8))
    assert not skipped
    assert [image.name for image in images] == ["t.h5"]
    np.testing.assert_array_equal(images[0].pixels, target)


def test_normalisation(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", 40 * picture(0))
    np.save(tmp_path / "zero.npy", np.zeros((20, 20)))
    (image,), skipped = read_training_images([tmp_path], (8, 8), "maximum")
    assert float(image.pixels.max()) == 1
    np.testing.assert_allclose(image.pixels, picture(0) / picture(0).max(), rtol=1e-6)
    assert "zero.npy: zero.npy: has no pixel above 0" in str(skipped[0])
    images, _ = read_training_images([tmp_path], (8, 8))
    assert float(images[0].pixels.max()) > 30


def test_digest() -> None:
    images = [TrainingImage("a", picture(0)), TrainingImage("b", picture(1))]
    renamed = [TrainingImage("c", picture(0)), TrainingImage("d", np.asfortranarray(picture(1)))]
    assert digest(images) == digest(renamed)
    assert digest(images) != digest(images[::-1])
    assert digest([TrainingImage("a", picture(0))]) != digest([TrainingImage("a", picture(0).reshape(20, 24))])


# ------------------------------------------------------------------------------------------------------------- batches


@pytest.mark.parametrize("measurement", [DENOISE, MRI, SUPERRES], ids=["denoise", "mri", "superres"])
def test_a_batch_depends_on_seed_step_and_entry_alone(measurement: Measurement) -> None:
    source = samples(measurement)
    whole = source.batch(5, 0, 4)
    other = samples(measurement)
    other.batch(9, 0, 2)  # what was asked before does not matter
    torch.manual_seed(17)  # nor does the global generator
    parts = [other.batch(5, 0, 1), other.batch(5, 1, 3)]
    assert torch.equal(torch.cat([part.target for part in parts]), whole.target)
    torch.testing.assert_close(torch.cat([part.y for part in parts]), whole.y, rtol=0, atol=1e-6)
    assert whole.target.shape == (4, 1, 16, 16)
    for changed in (source.batch(6, 0, 4), samples(measurement, seed=4).batch(5, 0, 4), source.batch(5, 4, 4)):
        assert not torch.equal(changed.target, whole.target)


def test_operators() -> None:
    assert isinstance(samples(DENOISE).batch(0, 0, 1).operator, Identity)
    assert isinstance(samples(MRI).batch(0, 0, 1).operator, FourierSubsampling)
    blur = samples(SUPERRES).batch(0, 0, 1)
    assert isinstance(blur.operator, BlurDownsample)
    assert blur.y.shape[1:] == blur.operator.range_shape


@pytest.mark.parametrize("measurement", [DENOISE, MRI, SUPERRES], ids=["denoise", "mri", "superres"])
def test_noise(measurement: Measurement) -> None:
    """Its standard deviation is noise_std, of the real and of the imaginary part each, and only where there are measurements."""
    batch = samples(measurement).batch(0, 0, 64)
    noise = batch.y - batch.operator.forward(batch.target)
    if isinstance(batch.operator, FourierSubsampling):
        mask = batch.operator.mask
        assert float(noise[..., ~mask].abs().max()) == 0
        assert float(batch.y[..., ~mask].abs().max()) == 0
        noise = noise[..., mask]
        for part in (noise.real, noise.imag):
            assert float(part.std()) == pytest.approx(0.1, rel=0.05)
        assert abs(float((noise.real * noise.imag).mean())) < 1e-3
    else:
        assert float(noise.std()) == pytest.approx(0.1, rel=0.05)
    assert abs(complex(noise.mean())) < 0.01
    assert not torch.equal(noise[0], noise[1])
    clean = samples(replace(measurement, noise_std=0.0)).batch(0, 0, 1)
    torch.testing.assert_close(clean.y, clean.operator.forward(clean.target))


def test_every_step_has_a_mask_of_its_own() -> None:
    masks = []
    for step in range(6):
        operator = samples(MRI).batch(step, 0, 1).operator
        assert isinstance(operator, FourierSubsampling)
        masks.append(tuple(operator.mask[0].tolist()))
        assert sum(masks[-1]) < 12
        again = samples(MRI).batch(step, 2, 2).operator
        assert isinstance(again, FourierSubsampling)
        assert tuple(again.mask[0].tolist()) == masks[-1]  # the same for all entries of a step
    assert len(set(masks)) > 3


def test_crops_are_pieces_of_the_images() -> None:
    source = samples(DENOISE)
    windows = {image.name: np.lib.stride_tricks.sliding_window_view(image.pixels, (16, 16)) for image in source.images}
    used = set()
    for target in source.batch(0, 0, 20).target[:, 0].numpy():
        turned = [np.rot90(mirrored, k) for mirrored in (target, target[::-1]) for k in range(4)]
        places = {
            name: np.argwhere(np.any([(view == piece).all(axis=(-2, -1)) for piece in turned], axis=0))
            for name, view in windows.items()
        }
        (name,) = (name for name, found in places.items() if len(found))
        used.add((name, *places[name][0]))
    assert len({name for name, *_ in used}) == 3
    assert len(used) == 20


@pytest.mark.parametrize(("crop", "n_symmetries"), [((16, 16), 8), ((12, 16), 4)])
def test_augmentation(crop: tuple[int, int], n_symmetries: int) -> None:
    """Images as large as the crop: all that can differ are the symmetries."""
    pixels = picture(0, crop)
    source = samples(DENOISE, images=[TrainingImage("a", pixels)], crop=crop)
    targets = source.batch(0, 0, 100).target[:, 0].numpy()
    assert targets.shape == (100, *crop)
    turns = range(4) if n_symmetries == 8 else (0, 2)
    allowed = {
        np.ascontiguousarray(m).tobytes() for k in turns for m in (np.rot90(pixels, k), np.rot90(pixels, k)[::-1])
    }
    assert len(allowed) == n_symmetries
    assert {target.tobytes() for target in targets} == allowed


def test_validation_batches() -> None:
    images = [TrainingImage(f"{k}", picture(k, (20 + k, 22))) for k in range(5)]
    batches = validation_batches(images, DENOISE, (16, 14), 0, CPU, batch_size=2)
    assert [len(batch.target) for batch in batches] == [2, 2, 1]
    targets = torch.cat([batch.target for batch in batches])[:, 0].numpy()
    for k, target in enumerate(targets):
        top, left = (20 + k - 16) // 2, 4
        np.testing.assert_array_equal(target, images[k].pixels[top : top + 16, left : left + 14])
    again = validation_batches(images, DENOISE, (16, 14), 0, CPU, batch_size=5)
    assert len(again) == 1
    torch.testing.assert_close(torch.cat([batch.y for batch in batches]), again[0].y, rtol=0, atol=1e-6)
    others = validation_batches(images, DENOISE, (16, 14), 1, CPU, batch_size=5)
    assert not torch.equal(others[0].y, again[0].y)
    assert validation_batches([], DENOISE, (16, 14), 0, CPU) == []


def test_validation_images_have_masks_of_their_own() -> None:
    """One mask for all may be a lucky one."""
    batches = validation_batches([TrainingImage(f"{k}", picture(0)) for k in range(3)], MRI, (16, 14), 0, CPU)
    assert [len(batch.target) for batch in batches] == [1, 1, 1]
    first, second, third = ((batch.y != 0).any(dim=-2) for batch in batches)
    assert not (torch.equal(first, second) and torch.equal(first, third))
    again = validation_batches([TrainingImage(f"{k}", picture(0)) for k in range(3)], MRI, (16, 14), 0, CPU)
    assert all(torch.equal(one.y, other.y) for one, other in zip(batches, again, strict=True))


# --------------------------------------------------------------------------------------------------------------- scans


SCAN = ScanRule(kinds=("random", "poisson"), acceleration=(2, 5), center=0.3, coils=(1, 4), phase=2.0)


@pytest.mark.parametrize("scan", [SCAN, ScanRule(acceleration=(2, 6))])
def test_scans_depend_on_seed_and_step_alone(scan: ScanRule) -> None:
    measurement = Measurement("mri", 0.01, largest_noise_std=0.1, scan=scan)
    for step in range(3):
        one = samples(measurement, crop=(32, 24)).batch(step, 0, 2)
        other = samples(measurement, crop=(32, 24)).batch(step, 0, 2)
        assert torch.equal(one.y, other.y)
        assert torch.equal(one.target, other.target)
        assert one.target.is_complex() == scan.needs_complex_images
        other = samples(measurement, crop=(32, 24), seed=4).batch(step, 0, 2)
        assert one.y.shape != other.y.shape or not torch.equal(one.y, other.y)


def test_what_scans_draw() -> None:
    """Masks of every kind and acceleration, coils of every number, phases and noise within their ranges; never the same."""
    source = samples(Measurement("mri", 0.01, largest_noise_std=0.1, scan=SCAN), crop=(32, 32))
    numbers, shares, phases, levels = set(), set(), [], []
    for step in range(24):
        batch = source.batch(step, 0, 2)
        operator = batch.operator
        assert isinstance(operator, FourierSubsampling | Sense)
        numbers.add(operator.range_shape[0])
        shares.add(float(operator.mask.double().mean()))
        phases.append(float(batch.target.angle().abs().max()))
        noise = torch.view_as_real(batch.y - operator.forward(batch.target))[0, :, operator.mask]
        levels.append(float(noise.std()))
        assert float(batch.y[..., ~operator.mask].abs().max()) == 0
    assert numbers == {1, 4}
    assert len(shares) > 8
    assert min(shares) < 0.3 < max(shares)
    assert 1 < max(phases) <= 2.0 + 1e-5
    assert 0.008 < min(levels) < 0.02 < 0.05 < max(levels) < 0.12


def test_contrasts_are_drawn_for_each_image() -> None:
    plain = samples(Measurement("denoise", 0.1), crop=(24, 28))
    source = samples(Measurement("denoise", 0.1, contrast=(0.5, 5.0)), crop=(24, 28))
    ratios = []
    for step in range(12):
        batch, same = source.batch(step, 0, 2), plain.batch(step, 0, 2)
        assert torch.equal(batch.target, source.batch(step, 0, 2).target)
        assert float((batch.y - batch.target).std()) == pytest.approx(0.1, rel=0.2)  # whatever the contrast
        ratios += [float(one.max()) for one in batch.target]
        assert not torch.equal(batch.target, same.target)
    assert max(ratios) / min(ratios) > 3
    assert 0.2 < min(ratios) < max(ratios) < 5.0


def test_validation_scans_are_fixed_and_each_its_own() -> None:
    images = [TrainingImage(f"{k}", picture(0, (32, 32))) for k in range(4)]
    first, second = (validation_batches(images, Measurement("mri", 0.01, scan=SCAN), (24, 24), 0, CPU) for _ in "ab")
    assert all(torch.equal(one.y, other.y) for one, other in zip(first, second, strict=True))
    assert len({batch.y.shape for batch in first}) > 1 or not torch.equal(first[0].y, first[1].y)


def test_maps_of_a_coil_array() -> None:
    maps = coil_array(6, (40, 60), torch.Generator().manual_seed(0))
    assert maps.shape == (6, 40, 60)
    torch.testing.assert_close(maps.abs().square().sum(0), torch.ones(40, 60))
    jumps = torch.cat([maps.diff(dim=1).abs().flatten(), maps.diff(dim=2).abs().flatten()])
    assert float(jumps.max()) < 0.2  # smooth
    strongest = maps.abs().argmax(dim=0)
    assert len(strongest.unique()) >= 5  # each coil has a region of its own


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"kinds": ()}, "kinds"),
        ({"kinds": ("spiral",)}, "kinds"),
        ({"acceleration": (8, 4)}, "acceleration"),
        ({"acceleration": (0.5, 4)}, "acceleration"),
        ({"center": 0.0}, "center"),
        ({"center": 5.0}, "center"),
        ({"coils": ()}, "coils"),
        ({"coils": (0,)}, "coils"),
        ({"phase": -1.0}, "phase"),
    ],
)
def test_scan_rules_are_checked(changes: dict[str, object], key: str) -> None:
    with pytest.raises(SettingsError) as caught:
        replace(SCAN, **changes)  # type: ignore[arg-type]  # wrong on purpose
    assert caught.value.key == key


def test_complex_images_keep_their_phase(tmp_path: Path) -> None:
    image = (picture(0, (16, 12)) * np.exp(1j * picture(1, (16, 12)))).astype(np.complex64)
    write_kspace(tmp_path / "c.h5", to_kspace(image)[None])
    (found,), _ = read_training_images([tmp_path], (8, 8), keep_phase=True)
    np.testing.assert_allclose(found.pixels, image, atol=1e-5)
    (found,), _ = read_training_images([tmp_path], (8, 8), "maximum")
    np.testing.assert_allclose(found.pixels, np.abs(image) / np.abs(image).max(), atol=1e-5)


def test_mixed_kinds_are_named(tmp_path: Path) -> None:
    image = (picture(0, (16, 12)) * np.exp(1j * picture(1, (16, 12)))).astype(np.complex64)
    write_kspace(tmp_path / "c.h5", to_kspace(image)[None])
    write_image(tmp_path / "r.png", picture(2))
    with pytest.raises(MrispsError, match=r"mixed kinds: c\.h5 is complex, r\.png is real \(1 complex images, 1 real"):
        read_training_images([tmp_path], (8, 8), keep_phase=True)
    assert len(read_training_images([tmp_path], (8, 8))[0]) == 2


def test_the_files_of_a_manifest(tmp_path: Path) -> None:
    files = []
    for k, split in enumerate(("train", "train", "val", "test")):
        write_image(tmp_path / f"{k}.png", picture(k))
        files.append(ManifestFile(f"{k}.png", sha256_of(tmp_path / f"{k}.png"), split, patient=f"p{k}"))
    manifest = Manifest("m", "", "", "", tuple(files))
    train, val = manifest_files(manifest, tmp_path)
    assert [path.name for path in train] == ["0.png", "1.png"]
    assert [path.name for path in val] == ["2.png"]
    write_image(tmp_path / "1.png", picture(9))
    with pytest.raises(FileError, match=r"1\.png: wrong checksum, says the manifest m"):
        manifest_files(manifest, tmp_path)
    (tmp_path / "0.png").unlink()
    with pytest.raises(FileError, match=r"0\.png: missing"):
        manifest_files(manifest, tmp_path)
    with pytest.raises(MrispsError, match="no file of the split 'train'; splits: val"):
        manifest_files(Manifest("m", "", "", "", (files[2],)), tmp_path)
