"""Many simulated acquisitions with a known truth: the recipe `multicoil`, as it is, against SigPy and BART.

    python benchmarks/battery.py make SCRIPT FOLDER --data DATA     write the cases, with the true coil maps
    python benchmarks/battery.py run FOLDER [--methods PATTERN]     measure what is not in FOLDER/results.jsonl yet
    python benchmarks/battery.py run FOLDER --weights NAME|FILE     the recipe with other weights than its own
    python benchmarks/battery.py table FOLDER [--figure FILE.png]   one table, the summary, and a figure

FOLDER holds NAME.npz with `kspace` (coil, y, x), `mask` (y, x), `noise` (coil, sample), `truth` (y, x), `object` (y, x; where there
is tissue), `about` (JSON), and perhaps `maps` (coil, y, x), the true coil sensitivities divided by their root sum of squares.
SCRIPT is the program that makes such cases: it has CASES, `make` and `coil_maps`. `--proof` makes the cases below instead of
its own: other subjects, arrays and masks, with another seed, for numbers that nothing was tuned on. `--heads` makes heads of
one subject, 8 to 16 coils, R = 4 and 6: the subject that weights for heads are not trained on.

One line a (case, method, weight): `nrmse`, CPU seconds of calibration and reconstruction, and a key: a line counts as long as the
case, the method, the weight and the program stay the same. Run with one thread (OMP_NUM_THREADS=1).
"""

import argparse
import copy
import fnmatch
import hashlib
import importlib.util
import itertools
import json
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
from battery_report import OURS, OURS_TRUE_MAPS, SCALES, figure, rows, table
from numpy.typing import NDArray
from peers import Complex, Measured, Prepared, available, timed

LARGEST_SCALED = 2**18  # samples of a case that is also run with its input times SCALES
PROOF_SEED = 7
N_HEADS = 150
PROOF: dict[str, dict[str, object]] = {
    "p_head_8ch_R3_random": {"R": 3, "index": 17},
    "p_t1_12ch_R4_equi": {"coils": 12, "kind": "equispaced", "index": 165, "shape": (256, 182), "phase": "linear"},
    "p_head_16ch_R5_random": {"coils": 16, "rows": 2, "R": 5, "index": 59},
    "p_head_24ch_R4_random": {"coils": 24, "rows": 2, "index": 111, "snr": 30.0},
    "p_head_32ch_R8_poisson": {"coils": 32, "rows": 2, "R": 8, "kind": "poisson", "index": 10},
    "p_head_10ch_R5_poisson": {"coils": 10, "R": 5, "kind": "poisson", "acs": 16, "index": 63},
    "p_knee_15ch_R4_random": {"anatomy": "knee", "shape": (320, 320), "coils": 15, "index": 60},
    "p_knee_8ch_R3_equi": {
        "anatomy": "knee",
        "shape": (320, 280),
        "R": 3,
        "kind": "equispaced",
        "index": 70,
        "snr": 20.0,
    },
    "p_t1_acs8_12ch_R4": {"acs": 8, "coils": 12, "index": 172, "shape": (256, 182), "phase": "linear"},
    "p_acs9_8ch_R3": {"acs": 9, "R": 3, "index": 20},
    "p_acs10_20ch_R5": {"acs": 10, "coils": 20, "rows": 2, "R": 5, "index": 127},
    "p_acs12_knee_15ch_R4": {"anatomy": "knee", "shape": (320, 320), "coils": 15, "acs": 12, "index": 50, "snr": 30.0},
    "p_clean_snr300": {"snr": 300.0, "R": 3, "index": 97},
    "p_t1_clean_snr500_16ch": {
        "snr": 500.0,
        "coils": 16,
        "rows": 2,
        "index": 160,
        "shape": (256, 182),
        "phase": "rough",
    },
    "p_wraps": {"fov": 0.75, "R": 2, "coils": 10, "index": 72},
    "p_fov_tight_R3": {"fov": 0.82, "R": 3, "index": 30},
    "p_coils4_R2_equi": {"coils": 4, "R": 2, "kind": "equispaced", "index": 8},
    "p_coils4_R3_close": {"coils": 4, "R": 3, "radius": 1.1, "loop": 0.7, "index": 146},
    "p_two_dead_loud": {"coils": 12, "dead": 2, "loud": 1, "R": 3, "index": 133},
    "p_small_80x72": {"shape": (80, 72), "R": 2.5, "acs": 12, "coils": 16, "rows": 2, "index": 46},
}
"""Settings that the script's own cases do not have, and slices that they do not show; from number 150 on another head, T1."""

HEADS: dict[str, dict[str, object]] = {
    f"h_{kind}_{coils}ch_R{R}_{index}": {
        "coils": coils,
        "rows": 1 if coils < 16 else 2,
        "R": R,
        "kind": kind,
        "index": index,
        "snr": snr,
    }
    for kind, coils, R, index, snr in (
        ("random", 8, 4, 121, 40.0),
        ("equispaced", 8, 4, 126, 25.0),
        ("random", 12, 4, 133, 25.0),
        ("equispaced", 12, 4, 138, 40.0),
        ("random", 16, 4, 142, 40.0),
        ("equispaced", 16, 4, 147, 25.0),
        ("random", 8, 6, 124, 25.0),
        ("equispaced", 8, 6, 129, 40.0),
        ("random", 12, 6, 131, 40.0),
        ("equispaced", 12, 6, 136, 25.0),
        ("random", 16, 6, 144, 25.0),
        ("equispaced", 16, 6, 149, 40.0),
    )
}
"""Slices of the fifth subject: axial, coronal, sagittal."""


@dataclass(frozen=True, eq=False)
class Case:
    name: str
    data: Measured
    truth: Complex  # (y, x)
    inside: NDArray[np.bool_]  # (y, x)
    maps: Complex | None  # (coil, y, x)
    sha256: str


def load(path: Path) -> Case:
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files}
    digest = hashlib.sha256()
    for name in ("kspace", "mask", "noise", "truth", "object"):  # not `maps`: adding them changes no result
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    data = Measured(arrays["kspace"], arrays["mask"], arrays["noise"])
    return Case(path.stem, data, arrays["truth"], arrays["object"], arrays.get("maps"), digest.hexdigest())


def score(image: Complex, truth: Complex, inside: NDArray[np.bool_], degree: int = 5) -> float:
    """NRMSE of |image| on the object after the best shading; infinite where the image is not finite or has another shape.

    Maps can be normalised in several ways, which multiplies the image by a smooth positive function. So |image| is first
    multiplied by the polynomial of total degree 5 in y and x, both from -1 to 1, which brings it nearest to |truth|.
    """
    if image.shape != truth.shape or not np.isfinite(image).all():
        return float("inf")
    target = np.abs(truth)[inside].astype(np.float64)
    found = np.abs(image)[inside].astype(np.float64)
    target /= np.linalg.norm(target)
    found /= max(float(np.linalg.norm(found)), np.finfo(np.float64).tiny)
    y, x = (np.linspace(-1, 1, n)[index] for n, index in zip(truth.shape, np.nonzero(inside), strict=True))
    shadings = [found * y**i * x**j for i in range(degree + 1) for j in range(degree + 1 - i)]
    design = np.stack(shadings, axis=1)
    best = design @ np.linalg.lstsq(design, target, rcond=None)[0]
    return float(np.linalg.norm(best - target))


# ------------------------------------------------------------------------------------------------------------ results


def key(case: Case, method: str, weight: float, version: str) -> str:
    return hashlib.sha256(json.dumps([case.sha256, method, weight, version]).encode()).hexdigest()[:20]


def read_results(path: Path) -> list[dict[str, object]]:
    """All whole lines, the last one of each key; a line that a crash has cut off is left out."""
    lines = path.read_text().splitlines() if path.exists() else []
    found = {}
    for line in lines:
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        found[entry["key"]] = entry
    return list(found.values())


def append(path: Path, entry: dict[str, object]) -> None:
    torn = path.exists() and path.stat().st_size and not path.read_bytes().endswith(b"\n")
    with path.open("a") as file:
        file.write(("\n" if torn else "") + json.dumps(entry) + "\n")


# --------------------------------------------------------------------------------------------------------------- runs


@cache
def our_version() -> str:
    """Package version and commit, and a digest of what is not committed."""
    import mrisps

    def git(*arguments: str) -> bytes:
        folder = Path(mrisps.__file__).parents[1]
        return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True).stdout

    parts = ("mrisps", "recipes")
    commit = git("log", "-1", "--format=%h", "--", *parts).decode().strip()
    changes = git("diff", "HEAD", "--", *parts)
    return f"mrisps {mrisps.__version__}+{commit}" + (hashlib.sha256(changes).hexdigest()[:8] if changes else "")


def run_peers(case: Case, done: set[str], pattern: str) -> Iterator[tuple[dict[str, object], Complex]]:
    calibrations: dict[str, tuple[Prepared, float]] = {}
    for peer in available():
        if not fnmatch.fnmatch(peer.name, pattern):
            continue
        for weight in peer.weights:
            identity = key(case, peer.name, weight, peer.version)
            if identity in done:
                continue
            if peer.calibration not in calibrations:
                calibrations[peer.calibration] = timed(peer.calibrate, case.data)[:2]
            prepared, seconds = calibrations[peer.calibration]
            image, more, _ = timed(peer.reconstruct, prepared, case.data, weight)
            entry = _entry(case, peer.name, weight, image, seconds + more, identity)
            yield entry | {"calibration_seconds": round(seconds, 3), "version": peer.version}, image


def run_ours(
    case: Case, done: set[str], pattern: str, weights: str | None
) -> Iterator[tuple[dict[str, object], Complex]]:
    """With nothing given but the recipe's name; with the true maps in the file; small cases with their input scaled, too."""
    runs: list[tuple[str, Complex | None, float]] = [
        (OURS if weights is None else f"{OURS}, {Path(weights).stem}", None, 1.0)
    ]
    if weights is None and case.maps is not None:
        runs.append((OURS_TRUE_MAPS, case.maps, 1.0))
    if weights is None and case.data.kspace.size <= LARGEST_SCALED:
        runs += [(f"{OURS} x {scale:g}", None, scale) for scale in SCALES]
    for method, maps, scale in runs:
        if not fnmatch.fnmatch(method, pattern) or (identity := key(case, method, 0.0, our_version())) in done:
            continue
        warm_up()
        (image, facts), seconds, _ = timed(reconstruct, case, maps, scale, weights)
        yield _entry(case, method, 0.0, image, seconds, identity) | facts | {"version": our_version()}, image


@cache
def warm_up() -> None:
    """So that no measurement has what only a first call takes: imports, threads, weights."""
    import mrisps

    random = np.random.default_rng(0)
    kspace = (random.normal(size=(2, 32, 32)) + 1j * random.normal(size=(2, 32, 32))).astype(np.complex64)
    maps = np.full((2, 32, 32), np.sqrt(0.5), dtype=np.complex64)
    mrisps.recon(kspace, mask=np.ones((32, 32), dtype=bool), maps=maps)


def reconstruct(
    case: Case, maps: Complex | None, scale: float, weights: str | None
) -> tuple[Complex, dict[str, object]]:
    import mrisps

    factor = np.complex64(scale)
    noise = None if case.data.noise is None else case.data.noise * factor
    result = mrisps.recon(case.data.kspace * factor, mask=case.data.mask, noise=noise, maps=maps, weights=weights)
    verdict, certificate = result.verdict, result.certificate
    known = {"verdict": verdict.level, "reasons": list(verdict.reasons), "facts": dict(verdict.facts)}
    known |= {name: certificate[name] for name in ("status", "n_iterations")}
    return result.image, {**known, "notes": list(result.notes)}


def _entry(case: Case, method: str, weight: float, image: Complex, seconds: float, identity: str) -> dict[str, object]:
    nrmse = score(image, case.truth, case.inside)
    entry = {"case": case.name, "method": method, "weight": weight, "nrmse": round(nrmse, 5)}
    return entry | {"cpu_seconds": round(seconds, 3), "key": identity}


def run(
    folder: Path, results: Path, methods: str, cases: str, pictures: Path | None, weights: str | None = None
) -> None:
    done = {str(entry["key"]) for entry in read_results(results)}
    for path in sorted(
        folder.glob(f"{cases}.npz"), key=lambda path: (path.stat().st_size, path.name)
    ):  # small ones first
        case = load(path)
        for entry, image in itertools.chain(run_peers(case, done, methods), run_ours(case, done, methods, weights)):
            append(results, entry)
            numbers = f"{entry['nrmse']:.4f} {entry['cpu_seconds']:7.2f} s"
            print(f"{case.name:26s} {entry['method']:20s} {entry['weight']:<6g} {numbers}", flush=True)
            if pictures is not None:
                draw(case, str(entry["method"]), image, pictures)


def draw(case: Case, method: str, image: Complex, folder: Path) -> None:
    """Truth, image and the error times 4, side by side."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    truth, found = np.abs(case.truth), np.abs(image)
    found = found * (np.vdot(found, truth) / max(np.vdot(found, found), 1e-30))
    panels = np.hstack([truth, found, 4 * np.abs(found - truth)]) / np.percentile(truth, 99.5)
    name = f"{case.name}__{method.replace(' ', '_').replace(',', '')}.png"
    Image.fromarray((np.clip(panels, 0, 1) * 255).astype(np.uint8)).save(folder / name)


# --------------------------------------------------------------------------------------------------------------- cases


def make(script: Path, folder: Path, data: Path, chosen: str) -> None:
    spec = importlib.util.spec_from_file_location("battery_cases", script)
    assert spec is not None
    assert spec.loader is not None
    source = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(source)
    with np.load(data / "head_complex" / "heads.npz") as stored:
        heads = list(stored["real"].astype(np.float32) + 1j * stored["imag"].astype(np.float32))
    heads += [read_dicom(path) for path in sorted((data / "dicom_t1_brain").glob("*.dcm"))]
    sets = {"own": source.CASES, "proof": PROOF, "heads": HEADS}
    images: Sequence[Complex] = heads if chosen == "proof" else heads[:N_HEADS]
    folder.mkdir(parents=True, exist_ok=True)
    for name, settings in sets[chosen].items():
        seed = 0 if chosen == "own" else PROOF_SEED
        arrays = with_maps(source, name, settings, images, data / "knee_magnitude", seed)
        np.savez(folder / f"{name}.npz", **arrays)
        print(name, flush=True)


def read_dicom(path: Path) -> Complex:
    import pydicom

    return pydicom.dcmread(path).pixel_array.astype(np.complex64)


def with_maps(
    source: ModuleType, name: str, settings: dict[str, object], heads: Sequence[Complex], knees: Path, seed: int
) -> dict[str, NDArray[np.generic]]:
    """The case, and its true maps: those that `coil_maps` returns, times the gains that are drawn next, dead coils faded."""
    parameters = {**source.DEFAULTS, **settings}
    original = source.coil_maps
    kept = []

    def recorded(shape: tuple[int, int], n: int, *others: object) -> Complex:
        maps = original(shape, n, *others)
        gains = np.exp(copy.deepcopy(others[-1]).normal(0, parameters["gains"], n))
        gains[: parameters["dead"]] *= 1e-4
        kept.append(maps * gains[:, None, None])
        return maps

    source.coil_maps = recorded
    try:
        arrays = source.make(name, settings, heads, knees, seed)
    finally:
        source.coil_maps = original
    maps = kept[0] / np.sqrt((np.abs(kept[0]) ** 2).sum(axis=0))
    return arrays | {"maps": maps.astype(np.complex64)}


def main(arguments: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    maker = commands.add_parser("make")
    maker.add_argument("script", type=Path)
    maker.add_argument("folder", type=Path)
    maker.add_argument("--data", type=Path, required=True, help="holds head_complex, knee_magnitude, dicom_t1_brain")
    which = maker.add_mutually_exclusive_group()
    which.add_argument("--proof", dest="chosen", action="store_const", const="proof", default="own")
    which.add_argument("--heads", dest="chosen", action="store_const", const="heads")
    runner = commands.add_parser("run")
    runner.add_argument("folder", type=Path)
    runner.add_argument("--results", type=Path, help="default: FOLDER/results.jsonl")
    runner.add_argument("--methods", default="*")
    runner.add_argument("--cases", default="*")
    runner.add_argument("--weights", help="for ours: a name or a file instead of the recipe's; without variations")
    runner.add_argument("--pictures", type=Path, help="folder for PNG files")
    reader = commands.add_parser("table")
    reader.add_argument("folder", type=Path)
    reader.add_argument("--results", type=Path, action="append", help="default: FOLDER/results.jsonl; can be repeated")
    reader.add_argument("--figure", type=Path)
    a = parser.parse_args(None if arguments is None else list(arguments))
    if a.command == "make":
        make(a.script, a.folder, a.data, a.chosen)
    elif a.command == "run":
        run(a.folder, a.results or a.folder / "results.jsonl", a.methods, a.cases, a.pictures, a.weights)
    else:
        names = {path.stem for path in a.folder.glob("*.npz")}
        files = a.results or [a.folder / "results.jsonl"]
        found = rows([entry for file in files for entry in read_results(file) if entry["case"] in names])
        print(table(found))
        if a.figure is not None:
            figure(found, a.figure)


if __name__ == "__main__":
    main()
