"""The maps of an acquisition: those of the file, or from its fully sampled centre."""

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mrisps._version import software_key
from mrisps.atomic import atomic_path
from mrisps.errors import FileError, SettingsError
from mrisps.io.acquisition import Acquisition
from mrisps.kspace.espirit import espirit
from mrisps.kspace.grid import calibration_shape, centre, low_resolution
from mrisps.kspace.settings import SMALLEST_CALIBRATION, CoilMaps
from mrisps.kspace.step import Complex, Done, error_in, mask_of
from mrisps.kspace.whiten import noise_std_of

__all__ = ["calibrate"]

Real = NDArray[np.float64]

SECOND_SET = 0.00035
"""Share of the energy of the calibration image, times the acceleration, that a second set has to explain beyond the first.

A second set halves what the data say about each pixel; the more so, the fewer there are."""

SMALLEST_KERNEL = 5
"""Side of the windows, at least."""

EXISTS = 0.5
"""A set of maps exists where its eigenvalue is above this."""

SIGNAL = 0.1
"""Pixels with signal: the low-resolution image is above this fraction of its 99th percentile."""

SMALLEST_WEIGHT = 1e-3
"""No map is set to 0 where there may be signal."""

FAINT = 0.1
"""Where all maps are weighted below this, they do not cover a pixel."""


def calibrate(
    acquisition: Acquisition, settings: CoilMaps, folder: Path | None = None, device: torch.device | str = "cpu"
) -> tuple[Acquisition, Done]:
    """Put maps (set, coil, y, x) into an acquisition, weighted by their eigenvalue; see `prepare` for the folder.

    Maps that it has are kept, scaled to sum |S|^2 = 1 where there is one set.

    Returns
    -------
    tuple
        The acquisition with maps, and the step. Its facts: ``n_sets``; ``calibration_lines``, the shorter side of the
        calibration samples; ``unexplained_by_one`` and ``unexplained_energy``, the share of the energy of the
        low-resolution calibration image, without its noise, that the first set and that all sets cannot explain;
        ``signal_outside_maps``, the share of the pixels with signal that no map covers.

    Raises
    ------
    FileError
        There are too few calibration samples.
    SettingsError
        More sets are asked for than there are.
    """
    if acquisition.sensitivity_maps is not None:
        maps = _of_unit_power(acquisition.sensitivity_maps)
        facts: dict[str, float] = {}
        if acquisition.n_coils > 1 and min(_calibration_source(acquisition)[1:]) >= SMALLEST_CALIBRATION:
            known_noise = 0.0 if acquisition.noise_scan is None else noise_std_of(acquisition) or 0.0
            facts = _quality(_calibration_region(acquisition, settings.calibration_width), maps, known_noise)
        return replace(acquisition, sensitivity_maps=maps), Done(
            {"step": "maps", "method": "from the file"}, facts=facts
        )
    shape = acquisition.shape
    if acquisition.n_coils == 1:
        ones = np.ones((1, 1, *shape), dtype=np.complex64)
        return replace(acquisition, sensitivity_maps=ones), Done({"step": "maps", "method": "one coil: ones"})
    region = _calibration_region(acquisition, settings.calibration_width)
    noise_std = noise_std_of(acquisition) or 0.0
    mask = mask_of(acquisition)
    acceleration = mask.size / int(mask.sum())
    known_noise = 0.0 if acquisition.noise_scan is None else noise_std  # an estimate is an upper bound
    step: dict[str, str | float | int | list[int]] = {
        "step": "maps",
        "method": "espirit",
        "calibration": "separate" if acquisition.calibration is not None else "from the image's k-space",
        "calibration_samples": [int(size) for size in region.shape[1:]],
    }
    facts_of_key = [software_key(), asdict(settings), shape, noise_std, known_noise, acceleration]
    key = hashlib.sha256(json.dumps(facts_of_key).encode())
    key.update(np.ascontiguousarray(region).tobytes())
    path = None if folder is None else folder / f"{key.hexdigest()[:32]}.npy"
    maps_or_none = None if path is None else _read_maps(path, (acquisition.n_coils, *shape))
    if maps_or_none is None:
        maps = _estimate(region, shape, settings, noise_std, known_noise, acceleration, device)
        if path is not None:
            _keep_maps(path, maps)
    else:
        maps = maps_or_none
        step["cached"] = "yes"
    facts = {"n_sets": float(len(maps)), "calibration_lines": float(min(region.shape[1:]))}
    facts |= _quality(region, maps, known_noise)
    notes = (
        ["two sets of maps: one cannot explain the calibration data"] if len(maps) == 2 and not settings.n_sets else []
    )
    step |= {"sets": len(maps), "unexplained": facts["unexplained_energy"]}
    return replace(acquisition, sensitivity_maps=maps), Done(step, tuple(notes), facts)


def _estimate(
    region: Complex,
    shape: tuple[int, int],
    settings: CoilMaps,
    noise_std: float,
    known_noise: float,
    acceleration: float,
    device: torch.device | str,
) -> Complex:
    n_coils = region.shape[0]
    n_sets = min(2, n_coils) if settings.n_sets is None else settings.n_sets
    if n_sets > n_coils:
        message = f"{n_sets} sets of maps are asked for, and there are {n_coils} coils"
        raise SettingsError("preparation.maps.n_sets", message)
    size_y, size_x = (min(settings.kernel_width, max(SMALLEST_KERNEL, 2 * n // 5)) for n in region.shape[1:])
    found = espirit(
        torch.from_numpy(np.ascontiguousarray(region)).to(device),
        shape,
        n_sets=n_sets,
        kernel=(size_y, size_x),
        threshold=settings.threshold,
        noise_std=2**0.5 * noise_std,
    )
    largest = found.eigenvalues.flatten(1).amax(dim=1).cpu().numpy()
    exist = int((largest > EXISTS).sum())
    if settings.n_sets is not None and exist < n_sets and exist > 0:
        message = f"{n_sets} sets of maps are asked for, and the calibration data have {exist}"
        raise SettingsError("preparation.maps.n_sets", message)
    vectors = found.vectors.cpu().numpy()
    if settings.n_sets is None and n_sets == 2:
        unexplained = _unexplained(region, vectors, known_noise)
        if unexplained[0] - unexplained[1] < SECOND_SET * acceleration:
            n_sets = 1
    powers = torch.full((n_sets, 1, 1), settings.further_weight)
    powers[0] = settings.weight
    weights = found.eigenvalues[:n_sets].cpu().pow(powers).clamp(min=SMALLEST_WEIGHT).numpy()
    maps: Complex = (vectors[:n_sets] * weights[:, None]).astype(np.complex64)
    return maps


def _calibration_source(acquisition: Acquisition) -> tuple[Complex, int, int]:
    """The reference scan, or else the image's own k-space, and the size of its fully sampled centre (y, x)."""
    if acquisition.calibration is not None:
        source, mask = acquisition.calibration, (acquisition.calibration != 0).any(axis=0)
    else:
        source, mask = acquisition.kspace, mask_of(acquisition)
    return source, *calibration_shape(mask)


def _calibration_region(acquisition: Acquisition, width: int) -> Complex:
    """The fully sampled centre, (coil, y, x), of the reference scan or else of the image's own k-space."""
    source, height, columns = _calibration_source(acquisition)
    if min(height, columns) < SMALLEST_CALIBRATION:
        raise error_in(
            acquisition,
            f"the fully sampled centre has {height} x {columns} samples (y, x); at least "
            f"{SMALLEST_CALIBRATION} x {SMALLEST_CALIBRATION} are needed for coil maps. Give a file with a reference scan or with "
            "coil maps, or k-space of one coil to a recipe without a preparation",
            "calibration",
        )
    short = min(height, columns, width)
    long = width**2 // short
    return centre(
        source, (min(height, long if columns <= height else width), min(columns, long if height < columns else width))
    )


def _of_unit_power(maps: Complex) -> Complex:
    """One set: sum |S|^2 = 1 where the maps are not zero, so that beta and lam mean the same everywhere. Several: on average."""
    power = np.sqrt(np.square(np.abs(maps)).sum(axis=1, keepdims=True))  # (set, 1, y, x)
    if len(maps) > 1:
        power = np.full_like(power, np.median(power[0][power[0] > 0])) if power[0].any() else np.ones_like(power)
    return np.where(power > 0, maps / np.where(power > 0, power, 1), 0).astype(np.complex64)


def _quality(region: Complex, maps: Complex, noise_std: float) -> dict[str, float]:
    """Facts of maps (set, coil, y, x), see :func:`calibrate`."""
    weight = np.sqrt(np.square(np.abs(maps)).sum(axis=1))  # (set, y, x)
    unexplained = _unexplained(
        region, (maps / np.where(weight > 0, weight, 1)[:, None]).astype(np.complex64), noise_std
    )
    coils, _ = low_resolution(region, maps.shape[2:])
    magnitude = np.sqrt(np.square(np.abs(coils)).sum(axis=0))
    signal = magnitude > SIGNAL * np.percentile(magnitude, 99)
    outside = float((weight.max(axis=0)[signal] < FAINT).mean()) if signal.any() else 0.0
    return {
        "unexplained_by_one": float(unexplained[0]),
        "unexplained_energy": float(unexplained[-1]),
        "signal_outside_maps": outside,
    }


def _unexplained(region: Complex, vectors: Complex, noise_std: float) -> Real:
    """Share of the energy of the low-resolution image that the first 1, 2, ... orthonormal sets leave over, (set,)."""
    coils, noise = low_resolution(region, vectors.shape[2:])
    noise_energy = noise * 2 * noise_std**2 * coils[0].size  # of one coil
    total = float(np.square(np.abs(coils)).sum(dtype=np.float64)) - noise_energy * len(coils)
    explained = (
        np.square(np.abs((vectors.conj() * coils).sum(axis=1))).sum(axis=(1, 2), dtype=np.float64) - noise_energy
    )
    return np.asarray((1 - np.cumsum(explained) / max(total, 1e-300)).clip(0, 1))


def _read_maps(path: Path, shape: tuple[int, ...]) -> Complex | None:
    """Maps that were kept in this file; None if there is none. A FileError if the file holds something else."""
    if not path.is_file():
        return None
    try:
        maps: Complex = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, MemoryError) as error:
        raise FileError(path, f"is no map that was kept: {error}") from error
    if maps.shape[1:] != shape or maps.dtype != np.complex64 or not np.isfinite(maps).all():
        raise FileError(path, f"expected finite complex64 maps (set, {shape}), got {maps.dtype} {maps.shape}")
    return maps


def _keep_maps(path: Path, maps: Complex) -> None:
    """Write maps for the next time; the folder is made if missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.save(stream, maps)
