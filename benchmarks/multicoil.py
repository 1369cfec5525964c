"""Multi-coil brains, retrospectively undersampled: our recipes against what the field uses, with the same coil maps.

    python benchmarks/multicoil.py DATA --weights sigma_25_NCPR.pth [--variants] [--pictures DIR] [--output FILE.json]

DATA holds ``brain_8ch_full.{cfl,hdr}`` and ``brain_8ch_256.mat``. Undersampling: random columns (R = 4 with 24 central ones) and
Poisson disc (R = 8, centre 24 x 24). The coil maps of all methods are SigPy's ESPIRiT from the central 24 x 24 samples; the
reference is the SENSE combination of the full k-space with ESPIRiT maps from its central 48 x 48 samples. Every other method has
its weight tuned on the very image (the best PSNR of a grid is reported); ours has the numbers of the recipe, and the best of a
grid beside it. ``bart`` is used where it is installed. Seconds: wall clock and CPU time of one
reconstruction, coil maps not included. Of every image only what the maps see is compared.
"""

import argparse
import dataclasses
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.io
import torch
from numpy.typing import NDArray

from mrisps.io.acquisition import Acquisition
from mrisps.io.bart import read_cfl
from mrisps.kspace.preparation import CoilCompression, PhaseRemoval
from mrisps.model import PriorUse, SmoothPlusSparse
from mrisps.quality import baselines
from mrisps.quality.metrics import psnr, ssim
from mrisps.reconstruction.problem import mri_problem, to_array
from mrisps.reconstruction.recipe import Recipe, load_recipe
from mrisps.reconstruction.reconstruct import reconstruct

Complex = NDArray[np.complex64]
ACS = 24


@dataclasses.dataclass(frozen=True)
class Case:
    name: str
    recipe: Recipe
    kspace: Complex  # (coil, y, x), units in which the 99.5th percentile of the zero-filled image is 1
    mask: NDArray[np.bool_]  # (y, x)
    maps: Complex
    reference: Complex
    seconds_maps: float


@dataclasses.dataclass(frozen=True)
class Row:
    case: str
    method: str
    setting: str
    psnr: float
    nrmse: float
    ssim: float
    seconds: float
    cpu_seconds: float
    status: str = ""


@dataclasses.dataclass(frozen=True)
class Clock:
    """Wall-clock time, and CPU time of this process and those it started: a busy machine lengthens the first only."""

    wall: float = dataclasses.field(default_factory=time.perf_counter)
    cpu: float = dataclasses.field(default_factory=lambda: sum(os.times()[:4]))

    def since(self) -> tuple[float, float]:
        now = Clock()
        return now.wall - self.wall, now.cpu - self.cpu


def fft2c(image: Complex) -> Complex:
    axes = (-2, -1)
    return np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(image, axes=axes), norm="ortho"), axes=axes).astype(
        np.complex64
    )


def ifft2c(kspace: Complex) -> Complex:
    axes = (-2, -1)
    shifted = np.fft.ifft2(np.fft.ifftshift(kspace, axes=axes), norm="ortho")
    return np.fft.fftshift(shifted, axes=axes).astype(np.complex64)


def espirit(kspace: Complex, width: int) -> Complex:
    from sigpy.mri.app import EspiritCalib

    return np.asarray(EspiritCalib(kspace, calib_width=width, crop=0.9, show_pbar=False).run(), dtype=np.complex64)


def columns(shape: tuple[int, int], acceleration: float) -> NDArray[np.bool_]:
    chosen = np.zeros(shape[1], dtype=np.bool_)
    centre = shape[1] // 2
    chosen[centre - ACS // 2 : centre + ACS // 2] = True
    n_outer = round(shape[1] / acceleration) - ACS
    chosen[np.random.default_rng(0).choice(np.flatnonzero(~chosen), n_outer, replace=False)] = True
    return np.broadcast_to(chosen, shape)


def poisson_disc(shape: tuple[int, int], acceleration: float) -> NDArray[np.bool_]:
    from sigpy.mri import poisson

    pattern = poisson(shape, acceleration, calib=(ACS, ACS), seed=0, crop_corner=False)
    return np.abs(pattern) > 0.5


def cases(folder: Path) -> list[Case]:
    brains = {
        "brain 230 x 180": read_cfl(folder / "brain_8ch_full.cfl").squeeze(),
        "brain 256 x 256": scipy.io.loadmat(folder / "brain_8ch_256.mat")["full_kspace_data"],
    }
    found = []
    for brain, array in brains.items():
        axis = int(np.argmin(array.shape))
        full = np.ascontiguousarray(np.moveaxis(array, axis, 0), dtype=np.complex64)
        shape = (full.shape[1], full.shape[2])
        reference_maps = espirit(full, 48)
        for pattern, mask, recipe in (
            ("columns R = 4", columns(shape, 4), "brain_multicoil_acc4"),
            ("Poisson R = 8", poisson_disc(shape, 8), "brain_multicoil_poisson8"),
        ):
            kspace = full * mask
            started = time.perf_counter()
            maps = espirit(kspace, ACS)
            seconds = time.perf_counter() - started
            scale = np.float32(np.percentile(np.abs((maps.conj() * ifft2c(kspace)).sum(axis=0)), 99.5))
            reference = (reference_maps.conj() * ifft2c(full)).sum(axis=0) / scale
            found.append(
                Case(f"{brain}, {pattern}", load_recipe(recipe), kspace / scale, mask, maps, reference, seconds)
            )
    return found


def row(case: Case, method: str, setting: str, image: Complex, seconds: tuple[float, float], status: str = "") -> Row:
    target = np.abs(case.reference).astype(np.float64)
    seen = np.abs(case.maps).max(axis=0) > 0  # outside, a method may do what it likes: no coil sees it
    found = np.abs(image * seen).astype(np.float64)
    top = float(target.max())
    return Row(
        case.name,
        method,
        setting,
        psnr(found, target, data_range=top),
        float(np.linalg.norm(found - target) / np.linalg.norm(target)),
        ssim(found, target, data_range=top),
        *seconds,
        status,
    )


def timed(run: Callable[[], Complex]) -> tuple[Complex, tuple[float, float]]:
    clock = Clock()
    image = run()
    return image, clock.since()


# ------------------------------------------------------------------------------------------------------------ others


def bart(kspace: Complex, maps: Complex, kind: str, weight: float) -> Complex:
    """BART's ``pics`` with ``-R T`` or ``-R W``; kspace and maps are (coil, y, x). What is zero counts as not acquired."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, array in (("kspace", kspace), ("maps", maps)):
            _write_cfl(folder / file, array.transpose(1, 2, 0)[:, :, None])  # (y, x, 1, coil)
        command = ["bart", "pics", "-S", "-e", "-i", "150", "-R", f"{kind}:3:0:{weight:g}", "kspace", "maps", "image"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        shape = tuple(int(n) for n in (folder / "image.hdr").read_text().split("\n")[1].split())
        image = np.fromfile(folder / "image.cfl", dtype=np.complex64).reshape(shape, order="F")
    return image.squeeze()


def _write_cfl(path: Path, array: Complex) -> None:
    path.with_suffix(".hdr").write_text("# Dimensions\n" + " ".join(map(str, array.shape)) + "\n")
    array.astype(np.complex64).ravel(order="F").tofile(path.with_suffix(".cfl"))


# -------------------------------------------------------------------------------------------------------------- ours


def ours(case: Case, recipe: Recipe, model: SmoothPlusSparse) -> tuple[Complex, tuple[float, float], str]:
    record = Acquisition(
        kspace=case.kspace, source=Path(case.name), mask=case.mask, sensitivity_maps=case.maps[None].copy()
    )
    clock = Clock()
    result = reconstruct(mri_problem(record, recipe), model, recipe)
    image = np.asarray(to_array(result.image), dtype=np.complex64)
    certificate = result.certificate
    return image, clock.since(), f"{certificate.status}, {certificate.n_iterations} iterations"


def variants(recipe: Recipe) -> dict[str, Recipe]:
    """One thing changed at a time, but for the combinations of phase and thresholds."""
    preparation = recipe.preparation
    assert preparation is not None
    bare = dataclasses.replace(preparation, phase=None)
    modulus = PriorUse(stride=2, modulus=True)

    def compressed(n_coils: int | None, method: str = "svd") -> Recipe:
        settings = (
            None if n_coils is None else CoilCompression(n_coils, "geometric" if method == "geometric" else "svd")
        )
        return dataclasses.replace(recipe, preparation=dataclasses.replace(preparation, compression=settings))

    return {
        "parts, phase kept": dataclasses.replace(recipe, preparation=bare),
        "modulus, phase kept": dataclasses.replace(recipe, preparation=bare, prior=modulus),
        "modulus, phase removed": dataclasses.replace(recipe, prior=modulus),
        "real image, phase removed": dataclasses.replace(recipe, image="real"),
        "phase from 12 x 12": dataclasses.replace(
            recipe, preparation=dataclasses.replace(preparation, phase=PhaseRemoval(12))
        ),
        "all patches": dataclasses.replace(recipe, prior=PriorUse()),
        "all 8 coils": compressed(None),
        "6 virtual coils (SVD)": compressed(6),
        "4 virtual coils (SVD)": compressed(4),
        "image step to 1e-4": dataclasses.replace(
            recipe, solver=dataclasses.replace(recipe.solver, image_tolerance=1e-4)
        ),
    }


def others(case: Case) -> tuple[list[Row], dict[str, Complex]]:
    rows: list[Row] = []
    images: dict[str, Complex] = {}
    data = (case.kspace, case.mask)

    def best(method: str, run: Callable[[float], Complex], weights: tuple[float, ...]) -> None:
        tried = []
        for weight in weights:
            image, seconds = timed(lambda weight=weight: run(weight))  # type: ignore[misc]  # a default binds the loop variable
            tried.append((row(case, method, f"{weight:g} of {len(weights)}", image, seconds), image))
        chosen = max(tried, key=lambda pair: pair[0].psnr)
        rows.append(chosen[0])
        images[method] = chosen[1]
        print_row(rows[-1])

    zero_filled, seconds = timed(lambda: baselines.zero_filled(case.kspace, case.maps))
    rows.append(row(case, "zero-filled", "", zero_filled, seconds))
    print_row(rows[-1])
    best("CG-SENSE (SigPy)", lambda w: baselines.cg_sense(*data, w, 50, maps=case.maps), (3e-3, 1e-2, 3e-2, 1e-1))
    best("l1-wavelet (SigPy)", lambda w: baselines.l1_wavelet(*data, w, 100, maps=case.maps), (1e-3, 2e-3, 4e-3, 8e-3))
    best(
        "TV (SigPy)", lambda w: baselines.total_variation(*data, w, 200, maps=case.maps), (5e-4, 1e-3, 2e-3, 4e-3, 8e-3)
    )
    if shutil.which("bart"):
        best("l1-wavelet (BART)", lambda w: bart(case.kspace, case.maps, "W", w), (5e-4, 1e-3, 2e-3, 4e-3, 8e-3))
        best("TV (BART)", lambda w: bart(case.kspace, case.maps, "T", w), (1e-3, 2e-3, 4e-3, 8e-3))
    return rows, images


def all_of_ours(case: Case, model: SmoothPlusSparse, with_variants: bool) -> tuple[list[Row], Complex]:
    rows: list[Row] = []
    image, seconds, status = ours(case, case.recipe, model)
    reconstruction = image
    setting = f"{case.recipe.beta:g}, {case.recipe.lam:g}"
    rows.append(row(case, "NCPR, recipe", setting, image, seconds, status))
    print_row(rows[-1])
    tried = []
    for beta in (0.015, 0.03):
        for lam in (0.001, 0.002):
            image, seconds, status = ours(case, dataclasses.replace(case.recipe, beta=beta, lam=lam), model)
            tried.append(row(case, "NCPR, best of 4", f"{beta:g}, {lam:g}", image, seconds, status))
    rows.append(max(tried, key=lambda found: found.psnr))
    print_row(rows[-1])
    if with_variants:
        for name, recipe in variants(case.recipe).items():
            image, seconds, status = ours(case, recipe, model)
            rows.append(row(case, f"NCPR: {name}", setting, image, seconds, status))
            print_row(rows[-1])
    return rows, reconstruction


def print_row(found: Row) -> None:
    quality = f"{found.psnr:6.2f} dB  NRMSE {found.nrmse:.4f}  SSIM {found.ssim:.4f}"
    seconds = f"{found.seconds:6.2f} s ({found.cpu_seconds:.2f} CPU)"
    print(f"{found.method:30s} {found.setting:14s} {quality} {seconds}  {found.status}", flush=True)


def draw(images: dict[str, Complex], path: Path) -> None:
    import matplotlib.pyplot as plt

    top = float(np.abs(images["reference"]).max()) * 0.7
    figure, axes = plt.subplots(2, len(images), figsize=(3.2 * len(images), 7), squeeze=False)
    for column, (name, image) in zip(axes.T, images.items(), strict=True):
        column[0].imshow(np.abs(image), cmap="gray", vmin=0, vmax=top)
        column[0].set_title(name)
        column[1].imshow(np.abs(np.abs(image) - np.abs(images["reference"])), cmap="gray", vmin=0, vmax=top / 8)
        for axis in column:
            axis.axis("off")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with the two brains")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--variants", action="store_true", help="also what other choices of ours give")
    parser.add_argument("--ours-only", action="store_true", help="keep what the output file says of the other methods")
    parser.add_argument("--case", type=int, action="append", help="only this one of the four, from 0; can be repeated")
    parser.add_argument("--pictures", type=Path, help="folder for PNG files, one a case")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/multicoil.json"))
    arguments = parser.parse_args()
    model = SmoothPlusSparse.load(arguments.weights)
    model.prior()  # once, so that no measurement has what only a first call takes
    rows: list[Row] = []
    before: list[Row] = []
    if arguments.ours_only and arguments.output.exists():
        before = [Row(**entry) for entry in json.loads(arguments.output.read_text())]
    print(f"torch threads: {torch.get_num_threads()}")
    for number, case in enumerate(cases(arguments.data)):
        if arguments.case is not None and number not in arguments.case:
            continue
        print(f"\n{case.name}: R = {1 / case.mask.mean():.2f}, maps in {case.seconds_maps:.1f} s")
        images = {"reference": case.reference}
        if arguments.ours_only:
            rows.extend(kept for kept in before if kept.case == case.name and not kept.method.startswith("NCPR"))
        else:
            found, compared = others(case)
            rows.extend(found)
            images |= compared
        found, images["NCPR"] = all_of_ours(case, model, arguments.variants)
        rows.extend(found)
        if arguments.pictures is not None:
            arguments.pictures.mkdir(parents=True, exist_ok=True)
            draw(images, arguments.pictures / f"multicoil_{number}.png")
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps([dataclasses.asdict(found) for found in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
