"""From clean images to batches of measurements, which the trainer learns from.

An entry of a batch depends on the seed, the number of the step and the number of the entry alone.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mrisps.bilevel import Batch
from mrisps.errors import FileError, MrispsError
from mrisps.io.fastmri import FastmriFile
from mrisps.io.images import IMAGE_SUFFIXES, center_crop, read_image
from mrisps.io.manifest import Manifest
from mrisps.operators import BlurDownsample, FourierSubsampling, Identity, LinearOperator, Sense, ifft2c
from mrisps.reconstruction.recipe import BlurRule, MaskRule
from mrisps.sampling import make_mask
from mrisps.training.scan import ScanRule, smooth_phase

__all__ = ["CropSamples", "Measurement", "TrainingImage", "read_training_images", "validation_batches"]

KSPACE_SUFFIXES = (".h5", ".hdf5")
TRAINING_SUFFIXES = (*IMAGE_SUFFIXES, *KSPACE_SUFFIXES)

Normalisation = Literal["none", "maximum"]


@dataclass(frozen=True, eq=False)
class TrainingImage:
    """One clean image.

    Parameters
    ----------
    name
        Name of the file, and of the slice where the file has several.
    pixels
        float32 or complex64 (y, x), maximum about 1.
    """

    name: str
    pixels: NDArray[np.float32] | NDArray[np.complex64]


def read_training_images(
    paths: Sequence[Path],
    smallest: tuple[int, int],
    normalisation: Normalisation = "none",
    *,
    keep_phase: bool = False,
) -> tuple[list[TrainingImage], list[FileError]]:
    """Read image files, and the images of fully sampled k-space.

    Parameters
    ----------
    paths
        Files and folders; of a folder all files are taken, also those in its subfolders. PNG, TIFF and NPY (colour becomes grey);
        fastMRI HDF5, where each slice is an image: the reference in the file, or else the image of its k-space. That is the real
        part where the file says that the image is real, and the root sum of squares of the coils otherwise.
    smallest
        Smaller images than (y, x) are skipped.
    normalisation
        ``"maximum"`` divides each image by its largest pixel.
    keep_phase
        True: the image of single-coil k-space without a reference is complex, unless the file says that it is real. False: it is
        the magnitude.

    Returns
    -------
    images
        The images in the order of the names of their files.
    skipped
        One error for each file or slice that could not be used. It names the file.

    Raises
    ------
    MrispsError
        There is no usable image, a path does not exist, or some images are real and others complex.
    """
    files: list[Path] = []
    for path in paths:
        if not path.exists():
            raise MrispsError(f"{path}: does not exist")
        if path.is_dir():
            files.extend(sorted(p for p in path.rglob("*") if p.suffix.lower() in TRAINING_SUFFIXES and p.is_file()))
        else:
            files.append(path)
    images: list[TrainingImage] = []
    skipped: list[FileError] = []
    for path in files:
        try:
            if path.suffix.lower() in KSPACE_SUFFIXES:
                found = _slices(path, skipped, keep_phase)
            else:
                found = [TrainingImage(path.name, read_image(path, color_to_grey=True))]
        except FileError as error:
            skipped.append(error)
            continue
        for name, pixels in ((image.name, image.pixels) for image in found):
            if pixels.shape[0] < smallest[0] or pixels.shape[1] < smallest[1]:
                skipped.append(FileError(path, f"{name}: {pixels.shape} is smaller than the crop {smallest}"))
                continue
            largest = float(np.abs(pixels).max() if np.iscomplexobj(pixels) else pixels.max())
            if normalisation == "maximum":
                if not largest > 0:
                    skipped.append(FileError(path, f"{name}: has no pixel above 0"))
                    continue
                pixels = pixels / np.float32(largest)
            images.append(TrainingImage(name, pixels))
    if not images:
        where = ", ".join(map(str, paths))
        if not files:
            raise MrispsError(f"no image in {where}: expected files ending in {', '.join(TRAINING_SUFFIXES)}")
        raise MrispsError(
            f"no usable image in {where} ({len(skipped)} files or slices skipped; the first: {skipped[0]})"
        )
    check_one_kind(images)
    return images, skipped


def check_one_kind(images: Sequence[TrainingImage]) -> None:
    """Refuse a mixture of real and complex images.

    Raises
    ------
    MrispsError
        It names one image of each kind.
    """
    kinds = {bool(np.iscomplexobj(image.pixels)): image.name for image in reversed(images)}
    if len(kinds) == 2:
        n_complex = sum(np.iscomplexobj(image.pixels) for image in images)
        raise MrispsError(
            f"training data of mixed kinds: {kinds[True]} is complex, {kinds[False]} is real ({n_complex} complex images, "
            f"{len(images) - n_complex} real ones): train on one kind"
        )


def manifest_files(manifest: Manifest, root: Path) -> tuple[list[Path], list[Path]]:
    """The files of the splits "train" and "val" below a folder, each with the right checksum.

    Raises
    ------
    MrispsError
        The manifest has no file of the split "train"; a file is missing, or is another one.
    """
    found: dict[str, list[Path]] = {"train": [], "val": []}
    for status in manifest.verify(root):
        if status.file.split in found:
            if status.state != "ok":
                raise FileError(status.path, f"{status.state}, says the manifest {manifest.name}")
            found[status.file.split].append(status.path)
    if not found["train"]:
        raise MrispsError(
            f"manifest {manifest.name}: has no file of the split 'train'; splits: {', '.join(manifest.splits)}"
        )
    return found["train"], found["val"]


def digest(images: Sequence[TrainingImage]) -> str:
    """SHA-256 of the pixels of all images."""
    total = hashlib.sha256()
    for image in images:
        total.update(repr(image.pixels.shape).encode())
        total.update(np.ascontiguousarray(image.pixels).tobytes())
    return total.hexdigest()


def _slices(path: Path, skipped: list[FileError], keep_phase: bool) -> list[TrainingImage]:
    """The images of a file. A slice that cannot be read is left out, for example an empty one at the end of a volume."""
    found: list[TrainingImage] = []
    with FastmriFile(path) as file:
        if file.target_name is None and file.mask is not None and not file.mask.all():
            raise FileError(path, "expected fully sampled k-space for training, or a reference image", field="mask")
        for index in range(file.n_slices):
            try:
                acquisition = file.read_slice(index)
            except FileError as error:
                skipped.append(FileError(path, f"slice {index}: {error.message}", field=error.field))
                continue
            name = path.name if file.n_slices == 1 else f"{path.name} slice {acquisition.slice_index}"
            if acquisition.target is not None:
                found.append(TrainingImage(name, acquisition.target))
                continue
            coils = ifft2c(torch.from_numpy(acquisition.kspace))
            single = acquisition.n_coils == 1
            if single and keep_phase and not acquisition.image_is_real:
                found.append(TrainingImage(name, coils[0].numpy().astype(np.complex64)))
                continue
            real = acquisition.image_is_real and single
            image = coils[0].real if real else coils.abs().square().sum(0).sqrt()
            found.append(TrainingImage(name, image.numpy().astype(np.float32)))
    return found


@dataclass(frozen=True)
class Measurement:
    """How an image is measured: the operator and the noise.

    Parameters
    ----------
    task
        ``"denoise"``, ``"mri"`` or ``"superres"``.
    noise_std
        Standard deviation of the noise (of real and imaginary part each, for k-space).
    mask
        Rule of the masks, for MRI of real images. Every step draws another mask.
    blur
        The operator of super-resolution.
    largest_noise_std
        The logarithm of the standard deviation is drawn with equal probability between ``noise_std`` and this, for each image.
        None: the standard deviation is ``noise_std``.
    scan
        For MRI instead of ``mask``: what else is drawn in every step.
    contrast
        Each image is multiplied by a number between these two; its logarithm is drawn with equal probability.
    """

    task: Literal["denoise", "mri", "superres"]
    noise_std: float
    mask: MaskRule | None = None
    blur: BlurRule | None = None
    largest_noise_std: float | None = None
    scan: ScanRule | None = None
    contrast: tuple[float, float] = (1.0, 1.0)

    def target(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        """The image that should come out, (y, x): with its contrast, and with a phase where the scan draws one."""
        low, high = self.contrast
        if high > low:
            pixels = pixels * (low * (high / low) ** float(torch.rand((), generator=generator, dtype=torch.float64)))
        if self.scan is None or not (self.scan.needs_complex_images or pixels.is_complex()):
            return pixels
        shape = (pixels.shape[0], pixels.shape[1])
        return pixels * smooth_phase(shape, self.scan.phase, generator)

    def operator(
        self, shape: tuple[int, int], seed: int, device: torch.device, complex_image: bool = False
    ) -> LinearOperator:
        """The operator for images of this size (y, x)."""
        if self.scan is not None:
            dtype = torch.complex64 if complex_image or self.scan.needs_complex_images else torch.float32
            return self.scan.operator(shape, torch.Generator().manual_seed(seed), dtype, device)
        if self.task == "mri" and self.mask is not None:
            mask = make_mask(
                self.mask.kind, shape, self.mask.acceleration, self.mask.center_fraction, seed=seed % 2**32
            )
            return FourierSubsampling(mask, shape, torch.float32, device)
        if self.task == "superres" and self.blur is not None:
            return BlurDownsample(
                shape, self.blur.kernel_size, self.blur.sigma, self.blur.stride, torch.float32, device
            )
        return Identity(shape, torch.float32, device)

    def measure(self, operator: LinearOperator, target: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """A x + noise, (batch, *range). Each entry has a generator for its noise."""
        clean = operator.forward(target)
        noise = torch.stack(
            [torch.randn(clean.shape[1:], dtype=clean.dtype, generator=generator) for generator in generators]
        )
        if clean.is_complex():
            noise = noise * 2**0.5  # torch's complex normal numbers have variance 1 in all
        std = torch.tensor([self._noise_std(generator) for generator in generators], dtype=torch.float32)
        noisy = clean + (std.view(-1, *(1,) * (clean.ndim - 1)) * noise).to(clean.device)
        return noisy * operator.mask if isinstance(operator, FourierSubsampling | Sense) else noisy

    def _noise_std(self, generator: torch.Generator) -> float:
        if self.largest_noise_std is None:
            return self.noise_std
        share = float(torch.rand((), generator=generator, dtype=torch.float64))
        drawn: float = self.noise_std * (self.largest_noise_std / self.noise_std) ** share
        return drawn


def seeded(seed: int, *place: int | str) -> torch.Generator:
    """A generator for one place in the training. It always gives the same numbers."""
    return torch.Generator().manual_seed(seed_of(seed, *place))


def seed_of(seed: int, *place: int | str) -> int:
    """A 63-bit seed from the training's seed and a place."""
    text = ":".join(map(str, (seed, *place)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


@dataclass(frozen=True, eq=False)
class CropSamples:
    """Random crops of the images, mirrored and turned, measured anew in every step. A :class:`mrisps.bilevel.Samples`.

    A crop has one of the eight symmetries of the square; where it is not square, one of the four that keep its axes.

    Parameters
    ----------
    images
        Images, each at least as large as the crop.
    measurement
        Operator and noise.
    crop
        (y, x) in pixels.
    seed
        Seed of crops, noise and masks.
    device
        Device of the batches.
    """

    images: Sequence[TrainingImage]
    measurement: Measurement
    crop: tuple[int, int]
    seed: int
    device: torch.device

    def batch(self, step: int, first: int, count: int) -> Batch:
        """Entries ``first`` to ``first + count - 1`` of the batch of a step."""
        generators = [seeded(self.seed, step, entry) for entry in range(first, first + count)]
        crops = [self.measurement.target(self._crop(generator), generator) for generator in generators]
        target = torch.stack(crops)[:, None].to(self.device)
        seed = seed_of(self.seed, step, "operator")
        operator = self.measurement.operator(self.crop, seed, self.device, target.is_complex())
        return Batch(operator, self.measurement.measure(operator, target, generators), target)

    def _crop(self, generator: torch.Generator) -> Tensor:
        def draw(n: int) -> int:
            return int(torch.randint(n, (1,), generator=generator))

        pixels = self.images[draw(len(self.images))].pixels
        height, width = self.crop
        y, x = draw(pixels.shape[0] - height + 1), draw(pixels.shape[1] - width + 1)
        piece = torch.from_numpy(pixels[y : y + height, x : x + width].copy())
        turns, mirror = draw(4), draw(2)
        piece = torch.rot90(piece, turns if height == width else 2 * (turns % 2), (0, 1))
        return piece.flip(0) if mirror else piece


def validation_batches(
    images: Sequence[TrainingImage],
    measurement: Measurement,
    crop: tuple[int, int],
    seed: int,
    device: torch.device,
    batch_size: int = 16,
) -> list[Batch]:
    """The centre of every image, measured once and for all. MRI: another mask for each image, as one alone can be a lucky one."""
    if measurement.task == "mri":
        batch_size = 1
    batches = []
    for first in range(0, len(images), batch_size):
        chosen = images[first : first + batch_size]
        generators = [seeded(seed, "validation", first + k) for k in range(len(chosen))]
        pieces = [torch.from_numpy(center_crop(image.pixels, crop).copy()) for image in chosen]
        pairs = zip(pieces, generators, strict=True)
        target = torch.stack([measurement.target(piece, generator) for piece, generator in pairs])[:, None].to(device)
        operator = measurement.operator(crop, seed_of(seed, "validation operator", first), device, target.is_complex())
        batches.append(Batch(operator, measurement.measure(operator, target, generators), target))
    return batches
