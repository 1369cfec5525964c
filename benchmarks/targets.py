"""The recipes beside what a user would pick instead, one thread, one after the other in one run: seconds and PSNR.

    OMP_NUM_THREADS=1 python benchmarks/targets.py --data DATA --battery FOLDER [--rows 1 ...]

DATA holds ``paper_mri_val``, ``natural/set12`` and ``paper_superres_val``; FOLDER the cases of ``battery.py make``. BART has to be
installed; BM3D (package ``bm3d``, for non-commercial use) is left out where it is not. Rows:

1. PD knees, 640 x 368 and the like, 8-fold, against `bart pics -R T` (150 iterations); at most 3 times its time.
2. PDFS knees, 16-fold, against the same; at most 6 times.
3. A 16-coil head, 256 x 256, 4-fold, calibration included, against `bart ecalib -m2` and `bart pics -R W -i 100`; no slower.
4. Denoising 512 x 512, sigma 25, against BM3D: its time and at most 0.3 dB less, or more decibels.
5. Super-resolution x4 of an image to 600 x 600 in at most 30 s.

BART's weight is the best of those given for that very image; its time is that of one run. Ours: the recipes as they are,
and with ``--certify`` also to a minimiser. Seconds are those of the processor, and by the clock. Every line is appended to
``results/targets.jsonl``.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import battery
import numpy as np
import peers
import torch
from numpy.typing import NDArray
from validation import acquisition

import mrisps
from mrisps.io.images import center_crop, read_image
from mrisps.operators import BlurDownsample
from mrisps.quality.metrics import psnr

RESULTS = Path(__file__).parent / "results" / "targets.jsonl"
TV_WEIGHTS = (0.01, 0.03, 0.1)
SLICES = ("file1000073", "file1000107"), ("file1000196", "file1000247")
Line = dict[str, object]
Image = NDArray[np.float32]


def line(row: int, case: str, method: str, quality: float, seconds: tuple[float, float], **facts: object) -> Line:
    """One measurement: decibels, seconds of the processor and by the clock."""
    return {"row": row, "case": case, "method": method, "db": quality, "cpu": seconds[0], "wall": seconds[1], **facts}


def ours(
    options: argparse.Namespace,
    row: int,
    case: str,
    solve: Callable[[bool], mrisps.Result],
    quality: Callable[[mrisps.Result], float],
) -> Iterator[Line]:
    """The recipe as it is, and where it is asked for with ``certify``."""
    for certify in (False, True)[: 1 + options.certify]:
        result, *seconds = peers.timed(solve, certify)
        certificate = result.certificate
        facts = {name: certificate[name] for name in ("status", "n_iterations")}
        yield line(
            row, case, "mrisps, certified" if certify else "mrisps", quality(result), (seconds[0], seconds[1]), **facts
        )


def knees(row: int, options: argparse.Namespace) -> Iterator[Line]:
    """Rows 1 and 2."""
    contrast, acceleration = (("pd", 8), ("pdfs", 16))[row - 1]
    for name in SLICES[row - 1][: options.cases]:
        record = acquisition(
            options.data / "paper_mri_val" / contrast / f"{name}.npz", acceleration, without_zeros=True
        )
        target, mask = record.target, record.mask
        assert target is not None
        assert mask is not None
        shape = (target.shape[0], target.shape[1])

        def quality(image: NDArray[np.generic], target: Image = target, shape: tuple[int, int] = shape) -> float:
            return psnr(np.maximum(center_crop(np.real(image), shape), 0).astype(np.float32), target, data_range=1.0)

        kspace = record.kspace
        case = f"{contrast} {acceleration}-fold, {name}, {kspace.shape[1]} x {kspace.shape[2]}"
        peers.N_ITERATIONS = 150
        found = []
        for weight in TV_WEIGHTS:
            image, *seconds = peers.timed(peers.bart_pics, kspace, np.ones_like(kspace)[None], f"T:7:0:{weight:g}")
            found.append(line(row, case, "bart pics -R T", quality(image), (seconds[0], seconds[1]), weight=weight))
        yield max(found, key=lambda one: float(str(one["db"])))

        def solve(certify: bool, kspace: peers.Complex = kspace, mask: NDArray[np.bool_] = mask) -> mrisps.Result:
            recipe = f"knee_{contrast}_acc{acceleration}"
            return mrisps.recon(kspace, recipe, mask=mask, scale=1.0, image="real", certify=certify)

        yield from ours(options, row, case, solve, lambda result, quality=quality: quality(result.image))


def head(row: int, options: argparse.Namespace) -> Iterator[Line]:
    """Row 3; decibels are -20 log10 of the NRMSE on the object."""
    case = battery.load(options.battery / "head_16ch_R4_random.npz")

    def quality(image: peers.Complex) -> float:
        return -20 * float(np.log10(battery.score(image, case.truth, case.inside)))

    peers.N_ITERATIONS = 100
    name = f"{case.name}, {case.data.kspace.shape[0]} coils"
    peer = next(one for one in peers.PEERS if one.name == "BART wavelet, 2 sets")
    prepared, *calibration = peers.timed(peer.calibrate, case.data)
    found = []
    for weight in peer.weights:
        image, *seconds = peers.timed(peer.reconstruct, prepared, case.data, weight)
        both = (seconds[0] + calibration[0], seconds[1] + calibration[1])
        found.append(line(row, name, "bart ecalib -m2, pics -R W", quality(image), both, weight=weight))
    yield max(found, key=lambda one: float(str(one["db"])))
    data = case.data
    yield from ours(
        options,
        row,
        name,
        lambda certify: mrisps.recon(data.kspace, mask=data.mask, noise=data.noise, certify=certify),
        lambda result: quality(result.image),
    )


def denoising(row: int, options: argparse.Namespace) -> Iterator[Line]:
    """Row 4."""
    sigma = 25 / 255
    for path in [
        path
        for path in sorted((options.data / "natural" / "set12").glob("*.png"))
        if read_image(path).shape == (512, 512)
    ][: options.cases]:
        clean = read_image(path)
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(25)).numpy()
        noisy = (clean + sigma * noise).astype(np.float32)

        def quality(image: NDArray[np.generic], clean: Image = clean) -> float:
            return psnr(np.clip(image, 0, 1).astype(np.float32), clean, data_range=1.0)

        case = f"sigma 25, set12 {path.stem}, 512 x 512"
        try:
            from bm3d import bm3d
        except ImportError:
            print("no BM3D: pip install bm3d")
        else:
            image, *seconds = peers.timed(bm3d, noisy, sigma)
            yield line(row, case, "BM3D", quality(image), (seconds[0], seconds[1]))
        yield from ours(
            options,
            row,
            case,
            lambda certify, noisy=noisy: mrisps.denoise(noisy, sigma, certify=certify),
            lambda result, quality=quality: quality(result.image),
        )


def super_resolution(row: int, options: argparse.Namespace) -> Iterator[Line]:
    """Row 5; decibels without a border of 40 pixels, as in the paper."""
    path = options.data / "paper_superres_val" / "img_learn_material.png"
    clean = read_image(path)
    operator = BlurDownsample((clean.shape[0], clean.shape[1]))
    low = operator.forward(torch.from_numpy(clean)[None, None])
    low = low + 0.01 * torch.randn(low.shape, generator=torch.Generator().manual_seed(25))
    small = low[0, 0].numpy()

    def quality(result: mrisps.Result) -> float:
        image = np.clip(result.image, 0, 1).astype(np.float32)
        inner = tuple(slice(40, min(n, m) - 40) for n, m in zip(image.shape, clean.shape, strict=True))
        return psnr(image[inner], clean[inner], data_range=1.0)

    case = f"x4, {small.shape[0]} x {small.shape[1]} to {clean.shape[0]} x {clean.shape[1]}"
    yield from ours(options, row, case, lambda certify: mrisps.superres(small, 4, certify=certify), quality)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--battery", type=Path, help="folder of the battery's cases, for row 3")
    parser.add_argument("--rows", type=int, nargs="*", choices=range(1, 6), default=[1, 2, 3, 4, 5])
    parser.add_argument("--cases", type=int, default=2, help="knees of each kind, and images: 1 or 2")
    parser.add_argument("--certify", action="store_true", help="also go on to a minimiser")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    battery.warm_up()
    for row in arguments.rows:
        if row == 3 and arguments.battery is None:
            print("row 3 needs --battery")
            continue
        lines = (knees, knees, head, denoising, super_resolution)[row - 1](row, arguments)
        other: Line | None = None
        for one in lines:
            ratio = ""
            if not str(one["method"]).startswith("mrisps"):
                other = one
            elif other is not None:
                ratio = f"{float(str(one['cpu'])) / float(str(other['cpu'])):5.2f} times its time"
            more = "" if "status" not in one else f"{one['status']}, {one['n_iterations']} iterations"
            print(
                f"{one['row']} {one['case']:45s} {one['method']:28s} {one['db']:6.2f} dB {one['cpu']:7.1f} s of the processor, "
                f"{one['wall']:6.1f} s; {more} {ratio}",
                flush=True,
            )
            with RESULTS.open("a") as stream:
                stream.write(json.dumps(one) + "\n")


if __name__ == "__main__":
    main()
