"""Training recipes, and the training that one describes.

A training recipe holds everything that learned weights depend on besides the images. It is a short Python file that defines one
:class:`TrainRecipe` named ``recipe``. Those that come with the package are called ``train_*``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from mrisps.bilevel import StepReport, TrainingState, TrainSettings, ValidationReport, World, train
from mrisps.errors import FileError, MrispsError, SettingsError
from mrisps.io.manifest import Manifest
from mrisps.model import Attention, ModelConfig, SmoothPlusSparse
from mrisps.model.derived_weights import localised, random_atoms
from mrisps.reconstruction.recipe import BlurRule, MaskRule
from mrisps.settings import LATER, Count, NonNegative, Positive, fingerprint, identity, settings, to_plain
from mrisps.training.data import (
    CropSamples,
    Measurement,
    Normalisation,
    TrainingImage,
    check_one_kind,
    digest,
    manifest_files,
    read_training_images,
    validation_batches,
)
from mrisps.training.scan import ScanRule

__all__ = ["TrainRecipe", "Training", "prepare", "run_training"]


@settings
@dataclass(frozen=True)
class TrainRecipe:
    """One training with every number explicit.

    Parameters
    ----------
    name
        Short name. The weights are called NAME.safetensors.
    task
        The operator that the model is trained on: ``"denoise"``, ``"mri"`` or ``"superres"``.
    noise_std
        Standard deviation of the noise in the measurements, for images whose maximum is about 1.
    train
        How the model is trained.
    model
        Sizes and regulariser.
    start
        Where the first atoms come from. ``"data"``: localised patches of the images, see
        :func:`mrisps.model.derived_weights.localised`. ``"random"``: white noise. ``"weights"``: weights that the caller gives.
    beta, lam
        Values at the start. None keeps those of the weights to start from. beta is learned; lam is the unit of the thresholds.
    crop
        (y, x) of the pieces that are trained on, in pixels.
    validation_crop
        (y, x) of the central piece of each validation image, in pixels.
    normalise
        ``"maximum"`` divides every image by its largest pixel; ``"none"`` takes the image as it is.
    mask, blur
        Settings of the operator, see :class:`mrisps.Recipe`. The seed of the mask is not used: each step draws another one.
    largest_noise_std
        The standard deviation is drawn between ``noise_std`` and this, for each image anew. None: it is ``noise_std``.
    contrast
        (smallest, largest) number that an image is multiplied by, drawn for each image anew. lam has the unit of the
        image, so twice the contrast stands for half of the noise and half of lam. The PSNR is that of the multiplied image.
    scan
        For MRI instead of ``mask``: the ranges that masks, coil arrays and phases are drawn from in every step.
    description
        One line for listings.
    source
        Where the numbers come from.
    """

    name: str
    task: Literal["denoise", "mri", "superres"]
    noise_std: NonNegative
    train: TrainSettings
    model: ModelConfig = field(default_factory=ModelConfig)
    start: Literal["data", "random", "weights"] = "data"
    beta: Positive | None = 1.0
    lam: Positive | None = 0.008
    crop: tuple[Count, Count] = (48, 48)
    validation_crop: tuple[Count, Count] = (96, 96)
    normalise: Normalisation = "none"
    mask: MaskRule | None = None
    blur: BlurRule | None = None
    description: str = ""
    source: str = ""
    largest_noise_std: Positive | None = field(default=None, metadata=LATER)
    scan: ScanRule | None = field(default=None, metadata=LATER)
    contrast: tuple[Positive, Positive] = field(default=(1.0, 1.0), metadata=LATER)

    GONE: ClassVar = {"augment": True}

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise SettingsError("name", f"expected letters, digits and underscores, got {self.name!r}")
        if self.train.learn != "prior" and (self.start != "weights" or self.model.regulariser != "NCPR"):
            raise SettingsError("train.learn", "an attention starts from weights of NCPR (start='weights')")
        if self.train.learn != "prior" and self.train.warm_batches:
            raise SettingsError(
                "train.warm_batches", "expected 0 where an attention is learned: its batches start from 0"
            )
        if self.train.gradient == "iterations" and self.model.regulariser != "NCPR":
            raise SettingsError("train.gradient", "'iterations' is for NCPR: the solver of CPR is not differentiated")
        for key in ("beta", "lam"):
            if getattr(self, key) is None and self.start != "weights":
                raise SettingsError(key, f"expected a number > 0 with start {self.start!r}")
        if ((self.mask is not None) + (self.scan is not None)) != (self.task == "mri"):
            raise SettingsError("mask", "recipes for MRI need one, or a scan instead; others have neither")
        if self.largest_noise_std is not None and not 0 < self.noise_std <= self.largest_noise_std:
            raise SettingsError(
                "largest_noise_std", f"expected at least noise_std, and that above 0, got {self.noise_std}"
            )
        if not self.contrast[0] <= self.contrast[1]:
            raise SettingsError("contrast", f"expected (smallest, largest), got {self.contrast}")
        if (self.blur is not None) != (self.task == "superres"):
            raise SettingsError("blur", "recipes for super-resolution need one, others have none")
        multiple = self.train.prior.stride * (self.model.group_size if self.model.regulariser == "CPR" else 1)
        for key in ("crop", "validation_crop"):
            size = getattr(self, key)
            if min(size) < self.model.patch_size:
                raise SettingsError(key, f"expected at least a patch, {self.model.patch_size} pixels, got {size}")
            if any(n % multiple for n in size):
                raise SettingsError(key, f"expected multiples of {multiple} (stride times group size), got {size}")
            if self.blur is not None and (min(size) < self.blur.kernel_size):
                raise SettingsError(key, f"expected at least the kernel, {self.blur.kernel_size} pixels, got {size}")

    def to_dict(self) -> dict[str, object]:
        """Plain values, for JSON."""
        return to_plain(self)

    def sha256(self) -> str:
        """Hash of every value in the recipe."""
        return fingerprint(self)

    @property
    def measurement(self) -> Measurement:
        """How images are measured."""
        return Measurement(
            self.task, self.noise_std, self.mask, self.blur, self.largest_noise_std, self.scan, self.contrast
        )


@dataclass(frozen=True, eq=False)
class Training:
    """A training that can begin.

    Parameters
    ----------
    recipe
        The recipe.
    model
        The model to start from.
    images, validation
        The images that are trained on, and those that are not.
    skipped
        Why files or slices were left out.
    start_sha256
        Fingerprint of the weights to start from. None: the recipe makes its own start.
    """

    recipe: TrainRecipe
    model: SmoothPlusSparse
    images: tuple[TrainingImage, ...]
    validation: tuple[TrainingImage, ...]
    skipped: tuple[FileError, ...]
    start_sha256: str | None

    @property
    def identity(self) -> dict[str, object]:
        """What tells this training from another: recipe, images, and the weights to start from."""
        return {
            "recipe": identity(self.recipe),
            "training_images_sha256": digest(self.images),
            "validation_images_sha256": digest(self.validation),
            "start_sha256": self.start_sha256,  # not of the model: it changes with every step
        }


def prepare(
    recipe: TrainRecipe,
    data: Sequence[Path],
    validation: Sequence[Path],
    *,
    start: SmoothPlusSparse | None = None,
    exclude: Sequence[str] = (),
    manifest: Manifest | None = None,
    device: torch.device | str = "cpu",
) -> Training:
    """Read the images and make the model to start from.

    Parameters
    ----------
    recipe
        The recipe.
    data, validation
        Files and folders. Without validation the last parameters count as the best.
    start
        Weights to start from, for recipes with ``start="weights"``.
    exclude
        Images whose name contains one of these texts are not trained on (cross-validation).
    manifest
        Which files of the one folder in ``data`` to take: those of the split "train" for training, those of "val" for validation.
        Their checksums have to be right. ``validation`` is then empty.
    device
        Device to train on.

    Raises
    ------
    MrispsError
        There is no usable image, an image is in both sets, some images are real and others complex, or the start does not fit
        the recipe; a file of the manifest is missing or another one.
    SettingsError
        The operator cannot be made for images of the size of a crop.
    """
    for key, size in (("crop", recipe.crop), ("validation_crop", recipe.validation_crop)):
        try:
            recipe.measurement.operator(size, 0, torch.device("cpu"))
        except ValueError as error:
            raise SettingsError(key, f"there is no operator for images {size}: {error}") from error
    if manifest is not None:
        if len(data) != 1 or validation:
            raise MrispsError("manifest: expected one folder with its files, and no other images for validation")
        data, validation = manifest_files(manifest, data[0])
    phase = recipe.scan is not None
    images, skipped = read_training_images(data, recipe.crop, recipe.normalise, keep_phase=phase)
    images = [image for image in images if not any(text in image.name for text in exclude)]
    if not images:
        raise MrispsError("every training image is excluded")
    kept: list[TrainingImage] = []
    if validation:
        kept, more = read_training_images(validation, recipe.validation_crop, recipe.normalise, keep_phase=phase)
        skipped = [*skipped, *more]
        check_one_kind([*images, *kept])
        known = {digest([image]) for image in images}
        for image in kept:
            if digest([image]) in known:
                raise MrispsError(f"{image.name}: is among the training images and the validation images")
    if (recipe.start == "weights") != (start is not None):
        raise SettingsError(
            "start", f"is {recipe.start!r}: weights to start from are {'missing' if start is None else 'not used'}"
        )
    if start is not None and start.config != recipe.model:
        raise SettingsError("model", f"expected that of the weights to start from, {start.config}, got {recipe.model}")
    if start is not None:
        model = start.with_regularisation(beta=recipe.beta, lam=recipe.lam)
        if recipe.train.learn != "prior" and model.attention is None:
            model = model.with_attention(Attention.zeros(recipe.model.n_synthesis_atoms))
        if recipe.train.learn == "prior" and model.attention is not None:
            raise SettingsError(
                "train.learn", "expected 'attention' or 'both': the weights to start from have an attention"
            )
        try:
            model.prior(torch.float32, "cpu")
        except ValueError as error:
            raise MrispsError(f"the weights to start from have no admissible prior: {error}") from error
    else:
        assert recipe.beta is not None
        assert recipe.lam is not None
        make = localised if recipe.start == "data" else random_atoms
        pixels: list[NDArray[np.float32]] = [
            np.abs(image.pixels) if np.iscomplexobj(image.pixels) else image.pixels.real for image in images
        ]
        model = make(pixels, recipe.model, beta=recipe.beta, lam=recipe.lam, seed=recipe.train.seed)
    start_sha256 = None if start is None else model.fingerprint()
    return Training(recipe, model.to(device), tuple(images), tuple(kept), tuple(skipped), start_sha256)


def run_training(
    training: Training,
    *,
    checkpoint: Path | None = None,
    resume: bool = False,
    world: World | None = None,
    on_step: Callable[[StepReport], None] | None = None,
    on_validation: Callable[[ValidationReport], None] | None = None,
    on_checkpoint: Callable[[TrainingState], object] | None = None,
) -> TrainingState:
    """Train: see :func:`mrisps.bilevel.train`."""
    recipe, device = training.recipe, training.model.beta.device
    seed = recipe.train.seed
    samples = CropSamples(training.images, recipe.measurement, recipe.crop, seed, device)
    return train(
        training.model,
        samples,
        validation_batches(training.validation, recipe.measurement, recipe.validation_crop, seed, device),
        recipe.train,
        checkpoint=checkpoint,
        resume=resume,
        identity=training.identity,
        world=world,
        on_step=on_step,
        on_validation=on_validation,
        on_checkpoint=on_checkpoint,
    )
