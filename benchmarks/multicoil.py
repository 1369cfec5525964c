"""Real multi-coil data: two brains, undersampled afterwards, with our recipes, SigPy and BART; and raw files as they are.

    python benchmarks/multicoil.py DATA [--raw FILE ...] [--weights FILE] [--methods PATTERN] [--pictures DIR] [--output FILE.json]

DATA holds ``brain_8ch_full.{cfl,hdr}`` and ``brain_8ch_256.mat``. Undersampling: random columns (R = 4 with 24 central ones) and
Poisson disc (R = 8, centre 24 x 24). Every method finds its own coil maps from the undersampled data. The reference is the SENSE
combination of the full k-space with SigPy's maps from its central 48 x 48 samples. Compared is what SigPy's maps of the
undersampled data see (eigenvalue 0.9), after multiplication by one number, the best, as methods scale their data in their own ways.
The weight of every other method is the best one for this very image; ours have the numbers of the recipe. CPU seconds of
calibration and reconstruction; run with one thread (OMP_NUM_THREADS=1).
"""

import argparse
import dataclasses
import fnmatch
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import scipy.io
from numpy.typing import NDArray
from peers import Complex, Measured, Prepared, available, ifft2c, sigpy_maps, timed

import mrisps
from mrisps.io.bart import read_cfl
from mrisps.quality.metrics import psnr, ssim

ACS = 24
MORE_WEIGHTS = (2e-3, 4e-3)  # beside those of the battery, for wavelets and total variation


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    name: str
    recipe: str
    data: Measured
    reference: Complex  # (y, x)
    seen: NDArray[np.bool_]  # (y, x)


@dataclasses.dataclass(frozen=True)
class Row:
    case: str
    method: str
    weight: float | None
    psnr: float
    nrmse: float
    ssim: float
    cpu_seconds: float
    verdict: str = ""


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


def cases(folder: Path) -> Iterator[Case]:
    brains = {
        "brain 230 x 180": read_cfl(folder / "brain_8ch_full.cfl").squeeze(),
        "brain 256 x 256": scipy.io.loadmat(folder / "brain_8ch_256.mat")["full_kspace_data"],
    }
    for brain, array in brains.items():
        full = np.ascontiguousarray(np.moveaxis(array, int(np.argmin(array.shape)), 0), dtype=np.complex64)
        shape = (full.shape[1], full.shape[2])
        maps, eigenvalues = sigpy_maps(full, np.ones(shape, dtype=np.bool_), 48)
        reference = (maps.conj() * (eigenvalues.real > 0.9) * ifft2c(full)).sum(axis=0)
        for pattern, mask, recipe in (
            ("columns R = 4", columns(shape, 4), "brain_multicoil_acc4"),
            ("Poisson R = 8", poisson_disc(shape, 8), "brain_multicoil_poisson8"),
        ):
            _, eigenvalues = sigpy_maps(full * mask, mask, ACS)
            yield Case(f"{brain}, {pattern}", recipe, Measured(full * mask, mask), reference, eigenvalues.real > 0.9)


def measured(case: Case, method: str, weight: float | None, image: Complex, seconds: float, verdict: str = "") -> Row:
    target = np.abs(case.reference).astype(np.float64)
    found = np.abs(image * case.seen).astype(np.float64)
    top = float(target.max())
    nrmse = float(np.linalg.norm(found - target) / np.linalg.norm(target))
    scores = psnr(found, target, data_range=top), nrmse, ssim(found, target, data_range=top)
    return Row(case.name, method, weight, *scores, seconds, verdict)


def of_peers(case: Case, pattern: str) -> Iterator[tuple[Row, Complex]]:
    calibrations: dict[str, tuple[Prepared, float]] = {}
    for peer in available():
        if not fnmatch.fnmatch(peer.name, pattern):
            continue
        if peer.calibration not in calibrations:
            calibrations[peer.calibration] = timed(peer.calibrate, case.data)[:2]
        prepared, calibration_seconds = calibrations[peer.calibration]
        tried = []
        for weight in sorted({*peer.weights, *(MORE_WEIGHTS if "wavelet" in peer.name or "TV" in peer.name else ())}):
            image, seconds, _ = timed(peer.reconstruct, prepared, case.data, weight)
            image = in_units(image, case)
            tried.append((measured(case, peer.name, weight, image, calibration_seconds + seconds), image))
        yield max(tried, key=lambda pair: pair[0].psnr)


def in_units(image: Complex, case: Case) -> Complex:
    """The image times the number that brings it nearest to the reference: methods scale their data in their own ways."""
    found, target = np.abs(image * case.seen).astype(np.float64), np.abs(case.reference).astype(np.float64)
    return image * np.float32(np.vdot(found, target) / max(np.vdot(found, found), np.finfo(np.float64).tiny))


def of_ours(case: Case, recipe: str, weights: str | None, pattern: str) -> Iterator[tuple[Row, Complex]]:
    if not fnmatch.fnmatch(f"ours, {recipe}", pattern):
        return
    result, seconds, _ = timed(mrisps.recon, case.data.kspace, recipe, mask=case.data.mask, weights=weights)
    verdict = f"{result.verdict.level}, {result.certificate['n_iterations']} iterations"
    image = in_units(result.image, case)
    yield measured(case, f"ours, {recipe}", None, image, seconds, verdict), image


def show(row: Row) -> None:
    weight = "" if row.weight is None else f"{row.weight:g}"
    quality = f"{row.psnr:6.2f} dB  NRMSE {row.nrmse:.4f}  SSIM {row.ssim:.4f}"
    print(f"{row.method:32s} {weight:6s} {quality} {row.cpu_seconds:7.2f} s  {row.verdict}", flush=True)


def raw_file(path: Path) -> None:
    result, seconds, _ = timed(mrisps.recon, path)
    print(f"\n{path.name}: {seconds:.2f} s")
    for each in result.slices:
        iterations = f"{each.certificate['n_iterations']} iterations"
        print(f"  {each.verdict.level}, {each.certificate['status']}, {iterations}", *each.verdict.reasons, sep="; ")


def draw(images: dict[str, Complex], path: Path) -> None:
    import matplotlib.pyplot as plt

    target = np.abs(images["reference"])
    top = float(target.max()) * 0.7
    figure, axes = plt.subplots(2, len(images), figsize=(3.2 * len(images), 7), squeeze=False)
    for column, (name, image) in zip(axes.T, images.items(), strict=True):
        column[0].imshow(np.abs(image), cmap="gray", vmin=0, vmax=top)
        column[0].set_title(name)
        column[1].imshow(np.abs(np.abs(image) - target), cmap="gray", vmin=0, vmax=top / 8)
        for axis in column:
            axis.axis("off")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with the two brains")
    parser.add_argument("--raw", type=Path, nargs="*", default=[], help="raw files for the recipe multicoil as it is")
    parser.add_argument("--weights", help="other weights for ours")
    parser.add_argument("--methods", default="*", help="pattern; ours are 'ours, RECIPE'")
    parser.add_argument("--pictures", type=Path, help="folder for PNG files, one a case")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/multicoil.json"))
    arguments = parser.parse_args()
    rows = []
    for number, case in enumerate(cases(arguments.data)):
        print(f"\n{case.name}: R = {1 / case.data.mask.mean():.2f}")
        images = {"reference": case.reference}
        found = itertools.chain(
            of_peers(case, arguments.methods),
            *(of_ours(case, recipe, arguments.weights, arguments.methods) for recipe in (case.recipe, "multicoil")),
        )
        for row, image in found:
            rows.append(row)
            images[row.method] = image
            show(row)
        if arguments.pictures is not None:
            draw(images, arguments.pictures / f"multicoil_{number}.png")
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps([dataclasses.asdict(row) for row in rows], indent=1) + "\n")
    for path in arguments.raw:
        raw_file(path)


if __name__ == "__main__":
    main()
