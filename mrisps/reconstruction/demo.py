"""The demonstration: a real MR slice, undersampled 8-fold, reconstructed in three ways.

The slice is the 256 x 256 head that matplotlib ships. A smooth phase, noise and an 8-fold mask turn it into the k-space of a scan;
zero filling, SigPy's total variation and this package reconstruct the complex image from it.
"""

import gzip
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mrisps.errors import MrispsError
from mrisps.io.json_text import JsonValue
from mrisps.io.memory import MemoryKspace
from mrisps.operators import FourierSubsampling
from mrisps.quality import baselines
from mrisps.quality.metrics import nmse, psnr, ssim
from mrisps.reconstruction.recipe import Recipe, load_recipe
from mrisps.reconstruction.run import Run
from mrisps.reconstruction.slice_result import SliceResult
from mrisps.reconstruction.weights import Weights
from mrisps.sampling import SamplingMask, make_mask

__all__ = ["DemoResult", "Method", "head_slice", "run_demo", "simulate"]

NOISE_STD = 0.005
TV_LAMBDA = 0.003  # the best of 0.0015 to 0.006 on this very image, to its advantage
TV_ITERATIONS = 3000  # within 0.05 dB of 6000; after 1000 it is 1 dB short
SEED = 2412


@dataclass(frozen=True, eq=False)
class Method:
    """One reconstruction of the demonstration.

    Parameters
    ----------
    name
        For the table.
    image
        (y, x) magnitude.
    psnr, ssim, nmse
        Against the reference, with data range 1.
    seconds
        Wall-clock time.
    """

    name: str
    image: NDArray[np.float32]
    psnr: float
    ssim: float
    nmse: float
    seconds: float


@dataclass(frozen=True, eq=False)
class DemoResult:
    """Everything that the report of the demonstration shows.

    Parameters
    ----------
    reference
        (y, x) magnitude of the image that was scanned; maximum 1.
    mask
        Which columns were acquired.
    methods
        Zero filling, total variation, this package; the last one is ours.
    smooth, sparse, cost_map
        (y, x) magnitudes of the parts of our reconstruction, and its cost map.
    certificate
        What our solver reached.
    recipe
        With which regularisation.
    weights
        What the weights are.
    """

    reference: NDArray[np.float32]
    mask: SamplingMask
    methods: tuple[Method, ...]
    smooth: NDArray[np.float32]
    sparse: NDArray[np.float32]
    cost_map: NDArray[np.float32]
    certificate: Mapping[str, JsonValue]
    recipe: Recipe
    weights: str


def head_slice() -> NDArray[np.float32]:
    """The head that matplotlib ships (``s1045.ima.gz``, 256 x 256, big-endian uint16), scaled to maximum 1.

    Raises
    ------
    MrispsError
        This installation of matplotlib comes without its sample data.
    """
    from matplotlib.cbook import get_sample_data

    try:
        with gzip.open(str(get_sample_data("s1045.ima.gz", asfileobj=False))) as stream:
            pixels = np.frombuffer(stream.read(), dtype=">u2").reshape(256, 256).astype(np.float32)
    except (OSError, ValueError) as error:
        raise MrispsError(f"matplotlib's sample image s1045.ima.gz cannot be read: {error}") from error
    head: NDArray[np.float32] = pixels / pixels.max()
    return head


def simulate(
    magnitude: NDArray[np.float32], mask: SamplingMask, noise_std: float, seed: int = SEED
) -> NDArray[np.complex64]:
    """Undersampled k-space (1, y, x) of a magnitude image with a smooth phase and white noise.

    Parameters
    ----------
    magnitude
        (y, x).
    mask
        Which samples are acquired.
    noise_std
        Standard deviation of the noise in the real and in the imaginary part of each sample.
    seed
        Of the noise.
    """
    height, width = magnitude.shape
    y = np.linspace(-1, 1, height)[:, None]
    x = np.linspace(-1, 1, width)[None, :]
    phase = (
        0.6 * x - 0.4 * y + 0.9 * x * y + 0.5 * (x**2 - y**2)
    )  # rad: an off-resonance that varies slowly over the head
    image = torch.from_numpy((magnitude * np.exp(1j * phase)).astype(np.complex64))[None, None]
    operator = FourierSubsampling(mask)
    rng = np.random.default_rng(seed)
    noise = rng.normal(scale=noise_std, size=(2, height, width))
    acquired: NDArray[np.complex64] = mask.array2d() * (
        operator.forward(image)[0, 0].numpy() + (noise[0] + 1j * noise[1]).astype(np.complex64)
    )
    return acquired[None].astype(np.complex64)


def run_demo(
    weights: Weights,
    *,
    device: torch.device | str = "cpu",
    report: Callable[[str], None] | None = None,
) -> DemoResult:
    """Simulate, reconstruct in three ways, and compare.

    Parameters
    ----------
    weights
        With which the recipe ``head_acc8`` is solved.
    device
        Where our reconstruction runs.
    report
        Called with one line whenever a step begins.
    """
    say = report or (lambda line: None)
    recipe = load_recipe("head_acc8")
    rule = recipe.mask
    if rule is None:
        raise MrispsError(f"recipe {recipe.name}: has no mask rule")
    say("simulating 8-fold undersampled k-space of a real head")
    reference = head_slice()
    mask = make_mask(rule.kind, reference.shape, rule.acceleration, rule.center_fraction, seed=rule.seed)
    kspace = simulate(reference, mask, NOISE_STD)

    def method(name: str, run: Callable[[], NDArray[np.complex64]]) -> Method:
        say(name)
        started = time.perf_counter()
        image = np.abs(run()).astype(np.float32)
        seconds = time.perf_counter() - started
        return Method(
            name,
            image,
            psnr(image, reference, data_range=1.0),
            ssim(image, reference, data_range=1.0),
            nmse(image, reference),
            seconds,
        )

    run = Run(recipe, weights, mask=mask, device=str(device))
    made: list[SliceResult] = []

    def ours() -> NDArray[np.complex64]:
        made.extend(run.results(MemoryKspace(kspace, name="s1045.ima.gz")))
        return made[0].image.astype(np.complex64)

    methods = (
        method("zero-filled", lambda: baselines.zero_filled(kspace)),
        method(
            "total variation (SigPy)",
            lambda: baselines.total_variation(kspace, mask.pattern, TV_LAMBDA, TV_ITERATIONS),
        ),
        method("smooth plus sparse (mrisps)", ours),
    )
    result = made[0]
    return DemoResult(
        reference=reference,
        mask=mask,
        methods=methods,
        smooth=np.abs(result.smooth).astype(np.float32),
        sparse=np.abs(result.sparse).astype(np.float32),
        cost_map=result.cost_map,
        certificate=result.certificate,
        recipe=recipe,
        weights=weights.name if weights.note is None else weights.note,
    )
