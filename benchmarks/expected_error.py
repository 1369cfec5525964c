"""How large is the error of an image? Reconstructions with a known truth, to fit and to test a map of the expected error.

    python benchmarks/expected_error.py FOLDER --data DATA [--weights NAME]
    python benchmarks/expected_error_report.py FOLDER [--largest 8] [--output FILE.jsonl]

DATA holds knee_magnitude/*.png, head_complex/heads.npz and paper_mri_val/{pd,pdfs}/*.npz. Each reconstruction is an NPZ in FOLDER;
one that is there is not made again, unless recipe or weights have changed. The second program fits, and prints tables.

Knees are single-coil and real (recipes knee_*), random columns, 4-, 8- and 16-fold; heads are complex, of 8 to 16 coils whose maps
are estimated (recipe multicoil), 3- to 8-fold. All is in scaled units, in which the maximum of an image is about 1.
"""

import argparse
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

import mrisps
from mrisps.errors import MrispsError
from mrisps.io.paper_slices import read_paper_slice
from mrisps.operators import fft2c
from mrisps.reconstruction.problem import Problem, to_array
from mrisps.reconstruction.recipe import Recipe, load_recipe
from mrisps.reconstruction.weights import find_weights
from mrisps.sampling import SamplingMask, make_mask
from mrisps.solvers.cg import conjugate_gradients
from mrisps.training.scan import coil_array

Real = NDArray[np.float32]
Complex = NDArray[np.complex64]

KNEE_ACCELERATIONS = {4: 0.08, 8: 0.04, 16: 0.02}  # acceleration: fraction of the columns in the centre
KNEE_NOISE = (0.001, 0.02)
HEAD_ACCELERATIONS = (3, 4, 6, 8)
HEAD_NOISE = (0.003, 0.03)
N_NEW_KNEES = 10  # the last ones by name: no weights were trained on them, and nothing here is fitted on them
DAMPING = 0.01  # of the geometry factor
BAND = 96  # rows of a knee: each row is undersampled along its whole length


@dataclass(frozen=True, eq=False)
class Case:
    """One scan. `kspace` is (coil, y, x); `truth` the magnitude (y, x)."""

    name: str
    subject: str
    recipe: str
    acceleration: int
    kspace: Complex
    mask: SamplingMask
    truth: Real
    real: bool


def random_of(name: str) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big"))


def between(random: np.random.Generator, low: float, high: float) -> float:
    return float(low * (high / low) ** random.random())


def measured(image: Complex | Real, noise_std: float, mask: SamplingMask, random: np.random.Generator) -> Complex:
    """K-space of coil images (coil, y, x), with noise."""
    kspace = fft2c(torch.from_numpy(image.astype(np.complex64))).numpy()
    noise = random.normal(size=kspace.shape) + 1j * random.normal(size=kspace.shape)
    return ((kspace + noise_std * noise) * mask.array2d()).astype(np.complex64)


def rows(image: Real) -> Real:
    first = (len(image) - BAND) // 2
    return image[first : first + BAND]


def knee(name: str, subject: str, contrast: str, image: Real, acceleration: int) -> Case:
    random, truth = random_of(name), rows(image)
    mask = make_mask(
        "random", truth.shape, acceleration, KNEE_ACCELERATIONS[acceleration], seed=int(random.integers(2**31))
    )
    kspace = measured(truth[None], between(random, *KNEE_NOISE), mask, random)
    return Case(name, subject, f"knee_{contrast}_acc{acceleration}", acceleration, kspace, mask, truth, True)


def knees(folder: Path) -> Iterator[Case]:
    """The last knees have all accelerations and two masks of each, the others one acceleration and one mask."""
    paths = sorted(folder.glob("*.png"))
    everything = [(acceleration, again) for again in ("", "_again") for acceleration in KNEE_ACCELERATIONS]
    for number, path in reversed(list(enumerate(paths))):
        image = np.asarray(Image.open(path), dtype=np.float32) / 255
        new = number >= len(paths) - N_NEW_KNEES
        for acceleration, again in everything if new else [everything[number % len(KNEE_ACCELERATIONS)]]:
            yield knee(f"knee_{path.stem}_{acceleration}{again}", path.stem, "pd", image, acceleration)


def paper_slices(folder: Path) -> Iterator[Case]:
    """The reference images, measured like the other knees; one acceleration each."""
    for contrast in ("pd", "pdfs"):
        for number, path in enumerate(sorted((folder / contrast).glob("*.npz"))):
            acceleration = list(KNEE_ACCELERATIONS)[number % len(KNEE_ACCELERATIONS)]
            name = f"{contrast}_{path.stem}"
            yield knee(f"{name}_{acceleration}", name, contrast, read_paper_slice(path).target, acceleration)


def heads(path: Path) -> Iterator[Case]:
    with np.load(path) as stored:
        images = stored["real"].astype(np.float32) + 1j * stored["imag"].astype(np.float32)
        subjects = stored["subject"]
    for subject in np.unique(subjects):
        for acceleration in HEAD_ACCELERATIONS:
            name = f"head_{subject}_{acceleration}"
            random = random_of(name)
            image = images[random.choice(np.flatnonzero(subjects == subject))]
            kind = str(random.choice(["random", "equispaced", "poisson"]))
            n_coils, seed = int(random.integers(8, 17)), int(random.integers(2**31))
            mask = make_mask(kind, image.shape, acceleration, 24 / image.shape[1], seed=seed)
            coils = image * coil_array(n_coils, image.shape, torch.Generator().manual_seed(seed)).numpy()
            kspace = measured(coils, between(random, *HEAD_NOISE), mask, random)
            truth = np.abs(image).astype(np.float32)
            yield Case(name, f"head_{subject}", "multicoil", acceleration, kspace, mask, truth, False)


def make(folder: Path, data: Path, weights: str | None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    keys: dict[str, str] = {}
    for source in (
        heads(data / "head_complex" / "heads.npz"),
        paper_slices(data / "paper_mri_val"),
        knees(data / "knee_magnitude"),
    ):
        for case in source:
            recipe = load_recipe(case.recipe)
            given = None if case.recipe == "multicoil" else weights
            if case.recipe not in keys:
                keys[case.recipe] = key_of(recipe, given)
            path = folder / f"{case.name}.npz"
            if stored_key(path) != keys[case.recipe]:
                save(path, case, recipe, given, keys[case.recipe])


def key_of(recipe: Recipe, weights: str | None) -> str:
    return recipe.sha256() + find_weights(weights, recipe, recipe.name).model.fingerprint()


def stored_key(path: Path) -> str | None:
    if not path.exists():
        return None
    with np.load(path) as stored:
        return str(json.loads(str(stored["facts"]))["key"])


def save(path: Path, case: Case, recipe: Recipe, weights: str | None, key: str) -> None:
    try:
        result = mrisps.recon(
            case.kspace, recipe, mask=case.mask, weights=weights, image="real" if case.real else "complex"
        )
    except MrispsError as error:
        print(f"{case.name}: {error}", flush=True)
        return
    certificate, scale = result.certificate, np.float32(result.certificate["scale"])
    error = np.abs(np.abs(result.image) - case.truth)
    facts = {
        "key": key,
        "subject": case.subject,
        "recipe": case.recipe,
        "acceleration": case.acceleration,
        "realised_acceleration": case.mask.realised_acceleration,
        "n_coils": len(case.kspace),
        "noise_std": certificate["noise_std"],
        "beta": certificate["beta"],
        "lam": certificate["lam"],
        "scale": certificate["scale"],
        "status": certificate["status"],
        "verdict": result.verdict.level,
        "facts": dict(result.verdict.facts),
        "seconds": certificate["seconds"],
        "nrmse": float(np.linalg.norm(error) / np.linalg.norm(case.truth)),
    }
    problem = result.slices[0].problem
    partial = path.with_suffix(".partial")
    with partial.open("wb") as stream:
        np.savez(
            stream,
            facts=np.array(json.dumps(facts)),
            truth=case.truth / scale,
            image=(np.abs(result.image) / scale).astype(np.float32),
            smooth=(np.abs(result.smooth) / scale).astype(np.float32),
            cost_map=result.cost_map,
            mask=case.mask.array2d(),
            geometry=np.ones_like(case.truth) if case.real else geometry(problem),
        )
    partial.rename(path)
    print(f"{case.name}: NRMSE {facts['nrmse']:.4f}, {facts['verdict']}, {facts['seconds']:.1f} s", flush=True)


def geometry(problem: Problem) -> Real:
    """How much of white noise in the samples comes into a damped SENSE image, (y, x): |(A^H A + DAMPING)^-1 A^H n|, one draw of n.

    It is small where mask and coils cannot tell pixels apart, as the damping then takes the image away.
    """
    operator, generator = problem.operator, torch.Generator().manual_seed(0)
    noise = torch.randn((1, *operator.range_shape), dtype=torch.complex64, generator=generator) * 2**0.5
    right_side = operator.adjoint(noise)
    solved = conjugate_gradients(
        lambda x: operator.normal(x) + DAMPING * x,
        right_side,
        start=torch.zeros_like(right_side),
        precondition=torch.clone,
        tolerance=1e-2,
        max_iterations=50,
        look_every=5,
    )
    return np.abs(to_array(problem.combined(solved.solution))).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", help="weights for the knees, instead of their recipes'")
    a = parser.parse_args()
    make(a.folder, a.data, a.weights)


if __name__ == "__main__":
    main()
