"""Weights that the package derives from images without training: for a demonstration, and as a start for training.

The free atoms are the leading principal components of image patches. The synthesis atoms are a sparsity-one dictionary (a
clustering of lines) of the rest of the patches. The images are photographs and micrographs that scikit-image ships. Expect less
than from trained weights.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mrisps.errors import FileError, MrispsError
from mrisps.model import ModelConfig, SmoothPlusSparse

__all__ = ["DERIVED_NOTE", "derive", "derived_weights", "localised", "random_atoms"]

DERIVED_NOTE = (
    "derived from photographs that scikit-image ships (principal components and clustered patches), not trained: "
    "expect less than from trained weights"
)
IMAGES = ("camera", "coins", "moon", "brick", "cell", "astronaut", "chelsea", "coffee", "rocket", "motorcycle_left")
CONFIG = ModelConfig(patch_size=7, n_free_atoms=2, n_synthesis_atoms=120)
"""Smaller than in the paper. Leading principal components are low-pass: 120 of 168 would leave the dictionary only the corners of
the spectrum, which do not tell an image from its aliases. Learned free atoms are not low-pass."""
PATCHES_PER_IMAGE = 6_000
N_SWEEPS = 8
SEED = 0
FLAT = 1e-12
"""A smaller variance of patches is rounding, for images whose maximum is about 1."""


def derived_weights(report: Callable[[str], None] | None = None) -> SmoothPlusSparse:
    """The derived weights, from the user's cache folder if they are there.

    Parameters
    ----------
    report
        Function that is called with a line of text when a step begins.

    Raises
    ------
    MrispsError
        scikit-image is installed without its images.
    """
    say = report or (lambda line: None)
    path = _cache_file()
    try:
        return SmoothPlusSparse.load(path)
    except FileError:
        pass  # not there yet, or damaged: made anew
    say("deriving weights from images that scikit-image ships (once, under two minutes)")
    model = derive(_images())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        model.save(path)
    except (FileError, OSError):
        say(f"the weights cannot be kept in {path}; they will be derived again next time")
    return model


def derive(
    images: list[NDArray[np.float32]],
    config: ModelConfig | None = None,
    *,
    patches_per_image: int = PATCHES_PER_IMAGE,
    n_sweeps: int = N_SWEEPS,
    seed: int = SEED,
) -> SmoothPlusSparse:
    """Principal components for Q, clustered lines for D, equal thresholds.

    Parameters
    ----------
    images
        Grey images (y, x), each larger than a patch.
    config
        Sizes. None: :data:`CONFIG`.
    patches_per_image
        Number of patches that are drawn from each image, uniformly.
    n_sweeps
        Number of sweeps of the clustering.
    seed
        Seed of the patches and of the first atoms.

    Returns
    -------
    SmoothPlusSparse
        With beta 1 and lam 0.01; a recipe sets its own.

    Source
    ------
    Free atoms: principal components analysis. Synthesis atoms: K-SVD with one coefficient a patch (Aharon, Elad and Bruckstein,
    IEEE Trans. Signal Process. 54 (2006) 4311-4322), whose update is the leading singular vector of each cluster.
    """
    config = CONFIG if config is None else config
    rng = np.random.default_rng(seed)
    patches = np.concatenate([_draw_patches(image, config.patch_size, patches_per_image, rng) for image in images])
    patches -= patches.mean(axis=1, keepdims=True)
    _, components = np.linalg.eigh(patches.T @ patches)  # ascending
    by_variance = components[:, ::-1].T
    free = by_variance[: config.n_free_atoms]
    rest = by_variance[config.n_free_atoms : config.patch_size**2 - 1]  # the constant has the eigenvalue 0, and is last
    atoms = _clustered_lines(patches @ rest.T, config.n_synthesis_atoms, n_sweeps, rng) @ rest
    return _model(config, free, atoms, beta=1.0, lam=0.01)


def localised(
    images: Sequence[NDArray[np.float32]],
    config: ModelConfig,
    *,
    beta: float = 1.0,
    lam: float = 0.008,
    width: float = 0.2,
    n_patches: int = 120_000,
    n_sweeps: int = 6,
    seed: int = 0,
) -> SmoothPlusSparse:
    """A start for training: the middle of a patch is left to the dictionary D, and D is a tight frame of patches.

    Trained models have this split: the r = p^2 - 1 - m directions that are not free cover all frequencies with the r pixels in the
    middle of the patch. (Principal components of natural patches as free atoms are low-pass, and leave the dictionary the highest
    frequencies alone.) So white noise is weighted with a Gaussian window. Its leading principal components span the directions of
    D; the others are the free atoms. The synthesis atoms are clustered lines of whitened patches, turned into a tight frame of
    equal norms, which trained atoms nearly are.

    Parameters
    ----------
    images
        Grey images (y, x) with a maximum of about 1, each at least as large as a patch.
    config
        Sizes.
    beta, lam
        Values of the model.
    width
        Standard deviation of the window as a fraction of the side of a patch.
    n_patches, n_sweeps
        Number of patches that are clustered, and of sweeps.
    seed
        Seed of the patches and of the first lines.

    Raises
    ------
    ValueError
        An image is smaller than a patch, or all are flat.

    Source
    ------
    Clustered lines: see :func:`derive`. Tight frames by alternating projection: J. A. Tropp et al., IEEE Trans. Inf. Theory 51
    (2005) 188-209.
    """
    rng = np.random.default_rng(seed)
    side, n_pixels = config.patch_size, config.patch_size**2
    rank = n_pixels - 1 - config.n_free_atoms
    axis = np.arange(side) - side // 2
    window = np.exp(-(axis[:, None] ** 2 + axis[None, :] ** 2) / (2 * (width * side) ** 2)).ravel()
    centring = np.eye(n_pixels) - 1 / n_pixels
    _, components = np.linalg.eigh(centring @ np.diag(window**2) @ centring)  # ascending; the constant comes first
    by_variance = components[:, ::-1].T[: n_pixels - 1]
    basis, free = by_variance[:rank], by_variance[rank:]
    each = -(-n_patches // len(images))
    patches = np.concatenate([_draw_patches(image, side, each, rng) for image in images])
    points = patches @ basis.T
    variances, axes = np.linalg.eigh(points.T @ points / len(points))
    if not variances[-1] > FLAT:
        raise ValueError("images: expected images with structure, these are flat wherever patches were drawn")
    whitening = axes @ np.diag(np.maximum(variances, 1e-6 * variances[-1]) ** -0.5) @ axes.T
    lines = _tightened(_clustered_lines(points @ whitening, config.n_synthesis_atoms, n_sweeps, rng))
    return _model(config, free, lines @ basis, beta, lam)


def random_atoms(
    images: Sequence[NDArray[np.float32]], config: ModelConfig, *, beta: float = 1.0, lam: float = 0.008, seed: int = 0
) -> SmoothPlusSparse:
    """A start for training with white noise for all atoms, as the authors have it. ``images`` are not used."""
    del images
    rng = np.random.default_rng(seed)
    shape = (config.n_free_atoms + config.n_synthesis_atoms, config.patch_size**2)
    atoms = rng.normal(size=shape) / config.patch_size
    return _model(config, atoms[: config.n_free_atoms], atoms[config.n_free_atoms :], beta, lam)


def _model(
    config: ModelConfig, free: NDArray[np.float64], atoms: NDArray[np.float64], beta: float, lam: float
) -> SmoothPlusSparse:
    side = config.patch_size
    raw = [
        torch.from_numpy(np.ascontiguousarray(rows.reshape(len(rows), side, side), dtype=np.float32))
        for rows in (free, atoms)
    ]
    return SmoothPlusSparse(config, raw[0], raw[1], torch.zeros(config.n_synthesis_atoms), beta=beta, lam=lam)


def _tightened(lines: NDArray[np.float64], n_rounds: int = 10) -> NDArray[np.float64]:
    """Unit vectors (n, r) near these, nearly a tight frame: the sum of their projectors is a multiple of the identity."""
    if lines.shape[0] < lines.shape[1]:
        return lines  # too few to be a frame
    for _ in range(n_rounds):
        values, axes = np.linalg.eigh(lines.T @ lines)
        lines = lines @ (axes @ np.diag(np.maximum(values, 1e-9 * values[-1]) ** -0.5) @ axes.T)
        lines = lines / np.linalg.norm(lines, axis=1, keepdims=True)
    return lines


def _clustered_lines(
    points: NDArray[np.float64], n_lines: int, n_sweeps: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Unit vectors (n_lines, d) such that each point (n, d) is near the line through one of them."""
    norms = np.linalg.norm(points, axis=1)
    points = points[norms >= np.quantile(norms, 0.5)]  # the weaker half is mostly noise and grain
    start = points[rng.choice(len(points), n_lines, replace=len(points) < n_lines)]
    start = start + 1e-6 * rng.normal(size=start.shape)
    lines: NDArray[np.float64] = start / np.linalg.norm(start, axis=1, keepdims=True)
    for _ in range(n_sweeps):
        correlation = points @ lines.T
        nearest = np.abs(correlation).argmax(axis=1)
        for line in range(n_lines):
            members = points[nearest == line]
            if len(members) == 0:  # no point is near this line: start it anew at the point that is worst represented
                worst = int((np.linalg.norm(points, axis=1) - np.abs(correlation).max(axis=1)).argmax())
                members = points[worst][None]
                correlation[worst] = np.inf
            lines[line] = np.linalg.eigh(members.T @ members)[1][:, -1]
    return lines


def _draw_patches(
    image: NDArray[np.float32], patch_size: int, n_patches: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    if min(image.shape) < patch_size:
        raise ValueError(f"images: expected at least {patch_size} x {patch_size} pixels, got {image.shape}")
    windows = np.lib.stride_tricks.sliding_window_view(image, (patch_size, patch_size))
    rows = rng.integers(0, windows.shape[0], n_patches)
    columns = rng.integers(0, windows.shape[1], n_patches)
    return windows[rows, columns].reshape(n_patches, patch_size**2).astype(np.float64)


def _images() -> list[NDArray[np.float32]]:
    """Grey versions, halved in size so that edges are as sharp as the pixel grid allows; maximum 1."""
    import skimage
    from skimage.color import rgb2gray
    from skimage.io import imread

    folder = Path(skimage.__file__).parent / "data"
    images = []
    for name in IMAGES:
        found = sorted(folder.glob(f"{name}.*"))
        if not found:
            continue
        pixels = np.asarray(imread(found[0]))
        grey = np.asarray(rgb2gray(pixels[..., :3]) if pixels.ndim == 3 else pixels, dtype=np.float64)
        height, width = (size // 2 * 2 for size in grey.shape)
        halved = grey[:height, :width].reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3))
        images.append((halved / halved.max()).astype(np.float32))
    if len(images) < 4:
        raise MrispsError(f"scikit-image's images are missing from {folder}: give weights with --weights")
    return images


def _cache_file() -> Path:
    import pooch

    from mrisps._version import __version__

    return Path(pooch.os_cache("mrisps")) / f"derived-{__version__}.safetensors"
