"""What users of multi-coil data would take instead: SigPy and BART, each run as its users run it. Nothing here knows a truth.

k-space is (coil, y, x), centred, orthonormal, 0 where not acquired. Every peer calibrates its coil maps itself, on data whitened by
the noise scan where there is one; with two sets of maps the image is the root sum of squares of the two.
"""

import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from mrisps.quality import baselines

Complex = NDArray[np.complex64]
Prepared = tuple[Complex, ...]
"""What a calibration gives: k-space as the method takes it, coil maps, and perhaps more."""

N_ITERATIONS = 100


@dataclass(frozen=True, eq=False)
class Measured:
    """What a scanner hands over: k-space, the mask (y, x), and a noise scan (coil, sample) or None."""

    kspace: Complex
    mask: NDArray[np.bool_]
    noise: Complex | None = None


@dataclass(frozen=True)
class Peer:
    """A method: `calibrate` finds what all of its `weights` share; peers with the same `calibration` share that, too."""

    name: str
    calibration: str
    weights: tuple[float, ...]
    calibrate: Callable[[Measured], Prepared]
    reconstruct: Callable[[Prepared, Measured, float], Complex]

    @property
    def version(self) -> str:
        return tool_version(self.calibration.split()[0])


def cpu_seconds() -> float:
    """User and system time of this process and of the processes that it started and that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(part.ru_utime + part.ru_stime for part in used)


P = ParamSpec("P")
T = TypeVar("T")


def timed(run: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> tuple[T, float, float]:
    """The result, CPU seconds, and seconds by the clock."""
    cpu, wall = cpu_seconds(), time.perf_counter()
    result = run(*args, **kwargs)
    return result, cpu_seconds() - cpu, time.perf_counter() - wall


@cache
def tool_version(tool: str) -> str:
    if tool == "BART":
        return "bart " + subprocess.run(["bart", "version"], check=True, capture_output=True, text=True).stdout.strip()
    if tool == "SigPy":
        import sigpy

        return f"sigpy {sigpy.__version__}"
    return "1"


def ifft2c(kspace: Complex) -> Complex:
    axes = (-2, -1)
    return np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(kspace, axes), norm="ortho"), axes).astype(np.complex64)


def root_sum_of_squares(images: Complex) -> Complex:
    return np.sqrt((np.abs(images.astype(np.complex128)) ** 2).sum(axis=0)).astype(np.complex64)


def centre_width(mask: NDArray[np.bool_]) -> int:
    """Side of the largest square around the centre of k-space that is acquired completely."""
    width = 0
    while width < min(mask.shape):
        span = tuple(slice(n // 2 - (width + 1) // 2, n // 2 - (width + 1) // 2 + width + 1) for n in mask.shape)
        if not mask[span].all():
            break
        width += 1
    return width


def whitened(data: Measured) -> Complex:
    """Coils without correlation, unit variance; without a noise scan, k-space as it is."""
    if data.noise is None:
        return data.kspace
    noise = data.noise.astype(np.complex128)
    factor = np.linalg.cholesky(noise @ noise.conj().T / noise.shape[1])
    return np.asarray(np.tensordot(np.linalg.inv(factor), data.kspace, 1), dtype=np.complex64)


# ------------------------------------------------------------------------------------------------------------- SigPy


def sigpy_maps(kspace: Complex, mask: NDArray[np.bool_], width: int = 24) -> tuple[Complex, Complex]:
    """SigPy's ESPIRiT with its own settings, before the crop: maps (coil, y, x), and their eigenvalues (y, x).

    SigPy takes the central 24 x 24 samples whether they were acquired or not; so a user has to give a smaller width.
    """
    from sigpy.mri.app import EspiritCalib

    width = min(width, centre_width(mask))
    app = EspiritCalib(kspace, calib_width=width, crop=0, output_eigenvalue=True, show_pbar=False)
    maps, eigenvalues = app.run()
    eigenvalues = np.asarray(eigenvalues).reshape(kspace.shape[1:])
    return np.nan_to_num(np.asarray(maps, dtype=np.complex64)), np.nan_to_num(eigenvalues)


def _sigpy_calibration(data: Measured) -> Prepared:
    """Whitened k-space of an image of about 1, as the weights of the apps expect it; maps; eigenvalues."""
    kspace = whitened(data)
    kspace = (kspace / np.percentile(np.abs(root_sum_of_squares(ifft2c(kspace))), 99.5)).astype(np.complex64)
    return kspace, *sigpy_maps(kspace, data.mask)


def _cg_sense(prepared: Prepared, data: Measured, weight: float) -> Complex:
    kspace, maps, _ = prepared
    return baselines.cg_sense(kspace, data.mask, weight, 50, maps=maps)


def _l1_wavelet(prepared: Prepared, data: Measured, weight: float) -> Complex:
    kspace, maps, eigenvalues = prepared
    cropped = maps * (eigenvalues.real > 0.95)  # SigPy's default
    return baselines.l1_wavelet(kspace, data.mask, weight, N_ITERATIONS, maps=cropped)


# -------------------------------------------------------------------------------------------------------------- BART


def write_cfl(path: Path, array: Complex) -> None:
    """An array whose first axis is the fastest, as in BART."""
    path.with_suffix(".hdr").write_text("# Dimensions\n" + " ".join(map(str, array.shape)) + "\n")
    array.astype(np.complex64).ravel(order="F").tofile(path.with_suffix(".cfl"))


def read_cfl(path: Path) -> Complex:
    shape = tuple(int(n) for n in path.with_suffix(".hdr").read_text().split("\n")[1].split())
    return np.fromfile(path.with_suffix(".cfl"), dtype=np.complex64).reshape(shape, order="F")


def _bart(folder: Path, *arguments: str) -> None:
    done = subprocess.run(["bart", *arguments], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"bart {' '.join(arguments)}: {done.stderr.strip()[-300:]}")


def bart_maps(data: Measured, n_sets: int) -> tuple[Complex, Complex]:
    """`bart whiten` and `bart ecalib -m n_sets`, all else by default: whitened k-space, and maps (set, coil, y, x)."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_cfl(folder / "raw", data.kspace.transpose(1, 2, 0)[:, :, None])  # (y, x, 1, coil)
        if data.noise is not None:
            write_cfl(folder / "noise", data.noise.T[:, None, None])  # (sample, 1, 1, coil)
            _bart(folder, "whiten", "raw", "noise", "kspace")
        kspace = "kspace" if data.noise is not None else "raw"
        _bart(folder, "ecalib", f"-m{n_sets}", kspace, "maps")
        return _coils_first(read_cfl(folder / kspace))[0], _coils_first(read_cfl(folder / "maps"))


def _coils_first(array: Complex) -> Complex:
    """BART's (y, x, 1, coil, set, 1, ...) as (set, coil, y, x)."""
    array = array.reshape(*array.shape[:2], array.shape[3], -1)  # (y, x, coil, set)
    return array.transpose(3, 2, 0, 1)


def bart_pics(kspace: Complex, maps: Complex, regularisation: str) -> Complex:
    """`bart pics -R ...`, 100 iterations, for maps (set, coil, y, x): the image, or the root sum of squares of the sets."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_cfl(folder / "kspace", kspace.transpose(1, 2, 0)[:, :, None])
        write_cfl(folder / "maps", maps.transpose(2, 3, 1, 0)[:, :, None])  # (y, x, 1, coil, set)
        _bart(folder, "pics", "-S", "-i", str(N_ITERATIONS), "-R", regularisation, "kspace", "maps", "image")
        image = read_cfl(folder / "image")
    image = image.reshape(*image.shape[:2], -1).transpose(2, 0, 1)  # (set, y, x)
    return image[0] if len(image) == 1 else root_sum_of_squares(image)


def _bart_peer(kind: str, letter: str, weights: tuple[float, ...], n_sets: int) -> Peer:
    prefix = {"Q": "Q:", "W": "W:7:0:", "T": "T:7:0:"}[letter]
    plural = "" if n_sets == 1 else "s"
    return Peer(
        f"BART {kind}, {n_sets} set{plural}",
        f"BART {n_sets}",
        weights,
        lambda data: bart_maps(data, n_sets),
        lambda prepared, data, weight: bart_pics(*prepared, f"{prefix}{weight:g}"),
    )


# --------------------------------------------------------------------------------------------------------------- all

ZERO_FILLED = Peer(
    "zero-filled",
    "zero-filled",
    (0.0,),
    lambda data: (data.kspace,),
    lambda prepared, data, weight: root_sum_of_squares(ifft2c(*prepared)),
)
PEERS = (
    ZERO_FILLED,
    *(_bart_peer("l2", "Q", (2e-3, 1e-2), n_sets) for n_sets in (1, 2)),
    *(_bart_peer("wavelet", "W", (1e-3, 6e-3), n_sets) for n_sets in (1, 2)),
    Peer("SigPy CG-SENSE", "SigPy", (3e-3, 1e-2, 3e-2, 1e-1), _sigpy_calibration, _cg_sense),
    *(_bart_peer("TV", "T", (2e-3, 6e-3), n_sets) for n_sets in (1, 2)),
    Peer("SigPy wavelet", "SigPy", (2e-3, 8e-3), _sigpy_calibration, _l1_wavelet),
)


def available() -> tuple[Peer, ...]:
    return PEERS if shutil.which("bart") else tuple(peer for peer in PEERS if not peer.calibration.startswith("BART"))
