"""Memory: the estimate against measured peaks, and an error before memory is full."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import mrisps
from mrisps.io.memory import MemoryKspace
from mrisps.model import ModelConfig, PriorUse
from mrisps.reconstruction import memory as module
from mrisps.reconstruction.api import run_of
from mrisps.reconstruction.grey_image import GreyImage
from mrisps.reconstruction.memory import NotEnoughMemoryError, available_memory, check_memory, estimate, of_problem
from mrisps.reconstruction.recipe import load_recipe

CONFIG = ModelConfig()
MEASURE = """
import json, sys
from dataclasses import replace
from pathlib import Path
import numpy as np
from mrisps.campaign.batch_work import peak_memory
from mrisps.io.memory import MemoryKspace
from mrisps.reconstruction.api import run_of
from mrisps.reconstruction.memory import of_problem
from mrisps.reconstruction.grey_image import GreyImage
from mrisps.model import Attention, energy
from mrisps.reconstruction import memory
from mrisps.solvers import greedy

recipe, image, size, coils, stride, attention, together, large = *sys.argv[1:3], *map(int, sys.argv[3:])
if large:  # pieces as on an accelerator
    for module in (memory, energy):
        module.CHUNK_PIXELS = energy.ACCELERATOR_CHUNK_PIXELS
    for module in (memory, greedy):
        module.CHUNK_PATCHES = greedy.ACCELERATOR_CHUNK_PATCHES
solver = {"max_iterations": 3, "trace_interval": 0, "attention_iterations": None}
overrides = {"solver": solver, "prior": {"stride": stride}}
if coils:
    overrides["image"] = image
if attention:  # it looks after the first iteration
    overrides["solver"] |= {"attention_iterations": 1, "continuation_start": 1.0}
if together > 1:  # until one image after the other has ended
    overrides["solver"] |= {"max_iterations": 150, "image_change": 0.02}
    overrides["preparation"] = {"compression": None}
run = run_of(recipe, "mri" if coils else "denoise", overrides=overrides, slices_together=together)
if attention:
    model = run.weights.model
    model = model.with_attention(Attention.zeros(model.config.n_synthesis_atoms))
    run = replace(run, weights=replace(run.weights, model=model))

def source(size):
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    image = ((x**2 + y**2 < 0.7) + 0.3 * (abs(x) < 0.3)).astype(np.float32)
    if not coils:
        return GreyImage(Path("image"), image)
    centres = np.linspace(0, 6.28, coils, endpoint=False)
    maps = np.stack([np.exp(-((x - np.cos(t)) ** 2) - (y - np.sin(t)) ** 2 + 1j * t) for t in centres])
    kspace = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(maps * image, axes=(1, 2)), norm="ortho"), axes=(1, 2))
    noise = rng.normal(size=kspace.shape) + 1j * rng.normal(size=kspace.shape)
    mask = np.zeros(size, dtype=bool)
    mask[::4] = mask[size // 2 - 12 : size // 2 + 12] = True
    volume = [((kspace + level * noise) * mask).astype(np.complex64) for level in (0.01, 0.06, 0.2)[:together]]
    return MemoryKspace(np.stack(volume) if together > 1 else volume[0], mask=mask)

warm = list(run.results(source(64)))
given = source(size)
(before,) = [int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith("VmRSS")]
made = list(run.results(given))
used = peak_memory() - before
assert together == 1 or len({one.certificate["n_iterations"] for one in made}) == together
print(json.dumps([used, of_problem(made[0].problem, run.weights.model, run.recipe, together).total]))
"""


def case(name: str, *values: str | int, slow: bool = True, large: bool = False) -> object:
    """Recipe, kind of image, its size, coils, stride, whether there is an attention, slices in one solve.

    With ``large`` the solver works on pieces of the size that it has on an accelerator.
    """
    return pytest.param(*values, int(large), id=name, marks=pytest.mark.slow if slow else ())


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
@pytest.mark.parametrize(
    ("recipe", "image", "size", "coils", "stride", "attention", "together", "large"),
    [
        case("denoising, stride 1", "denoise_sigma25", "real", 288, 0, 1, 0, 1, slow=False),
        case("denoising", "denoise_sigma25", "real", 800, 0, 2, 0, 1),
        case("one coil, real", "knee_pd_acc8", "real", 512, 1, 2, 0, 1),
        case("one coil, real, attention", "knee_pd_acc8", "real", 400, 1, 2, 1, 1),
        case("one coil, complex", "knee_pd_acc8", "complex", 400, 1, 2, 0, 1),
        case("coils", "multicoil", "complex", 400, 8, 2, 0, 1),
        case("coils, stride 1", "multicoil", "complex", 320, 8, 1, 0, 1),
        case("coils, attention", "multicoil", "complex", 240, 8, 2, 1, 1, slow=False),
        case("denoising, large pieces", "denoise_sigma25", "real", 160, 0, 1, 0, 1, large=True),
        case("coils, large pieces, attention", "multicoil", "complex", 160, 8, 2, 1, 1, large=True, slow=False),
        case("coils, three slices", "multicoil", "complex", 160, 8, 2, 0, 3),
    ],
)
def test_the_estimate_is_right_to_a_quarter(
    recipe: str, image: str, size: int, coils: int, stride: int, attention: int, together: int, large: int
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, recipe, image, *map(str, (size, coils, stride, attention, together, large))],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": str(1 << 20)},  # freed arrays go back to the system
    )
    used, estimated = json.loads(done.stdout)
    assert used > 60 << 20, "the peak was reached before the solve"
    assert estimated == pytest.approx(used, rel=0.25)


def test_what_it_grows_with() -> None:
    recipe = load_recipe("multicoil")
    one = estimate(recipe, CONFIG, (256, 256), n_coils=8)
    assert estimate(recipe, CONFIG, (256, 256), n_coils=8, together=3).patches == 3 * one.patches
    assert estimate(recipe, CONFIG, (255, 255), n_coils=8).coefficients == one.coefficients
    knee = load_recipe("knee_pd_acc8")  # no stride there
    strided = estimate(knee, CONFIG, (256, 256)).coefficients
    assert estimate(knee, CONFIG, (255, 255)).coefficients > 3.9 * strided
    halved = replace(recipe, solver=replace(recipe.solver, half_storage=True))
    assert estimate(halved, CONFIG, (256, 256), n_coils=8).coefficients == one.coefficients // 2
    assert estimate(recipe, CONFIG, (256, 256), n_coils=16).maps == 2 * one.maps
    assert one.total == sum(one.parts.values())
    attentive = estimate(recipe, CONFIG, (256, 256), n_coils=8, attention=True)
    assert (one.thresholds, attentive.thresholds) == (0, 5 * one.coefficients // 8)
    assert one.aliases == 2 * 128 * 128 * 4 * 4 * 8  # patches and preconditioner, 4 x 4 complex numbers
    assert estimate(recipe, CONFIG, (256, 256), n_coils=8, together=3).aliases == 2 * one.aliases
    assert estimate(recipe, CONFIG, (256, 256), n_coils=8, on_cpu=False).work > 5 * one.work
    convex = replace(CONFIG, regulariser="CPR", group_size=2)
    certified = replace(recipe, solver=replace(recipe.solver, stop="stationary"))
    assert estimate(certified, convex, (256, 256)).patches == 2 * estimate(recipe, convex, (256, 256)).patches
    assert one.coefficients == 2 * 2 * 128 * 128 * 200 * 4  # two arrays, real and imaginary part


def test_a_run_knows_before_it_starts() -> None:
    """Without computing anything: of an image for super-resolution, and of k-space as of its problem."""
    run = run_of("superres_x4", "superres", overrides={"prior": {"stride": 1}})
    found = run.memory(GreyImage(Path("image"), np.zeros((597, 597), dtype=np.float32)))
    assert found.shape == (2400, 2400)
    assert found.total > 10 << 30
    rng = np.random.default_rng(0)
    kspace = (rng.normal(size=(1, 24, 20)) + 1j * rng.normal(size=(1, 24, 20))).astype(np.complex64)
    source = MemoryKspace(kspace, mask=np.ones(20, dtype=np.bool_))
    run = run_of("knee_pd_acc8", "mri")
    problem = run.problem(source.read_slice(0))
    assert run.memory(source) == of_problem(problem, run.weights.model, run.recipe)
    assert run.memory(source).thresholds > 0  # these weights have an attention
    unasked = run_of("knee_pd_acc8", "mri", overrides={"solver": {"attention_iterations": None}})
    assert unasked.memory(source).thresholds == 0
    volume = MemoryKspace(np.stack([kspace] * 3), mask=np.ones(20, dtype=np.bool_))
    for asked, expected in ((2, 2), (5, 3)):
        together = replace(run, slices_together=asked).memory(volume)
        assert together == of_problem(problem, run.weights.model, run.recipe, expected)


def test_too_large_an_image_is_an_error_that_says_what_would_help(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "available_memory", lambda device: 6 << 30)
    with pytest.raises(
        NotEnoughMemoryError, match=r"2400 x 2400 needs about 1\d GiB \(coeff.* 6 GiB are left on cpu.*"
    ) as error:
        mrisps.superres(np.zeros((597, 597), dtype=np.float32), 4, prior={"stride": 1})
    for advice in ("prior.stride=2", "solver.half_storage=true", "smaller factor"):
        assert advice in str(error.value)


def test_what_may_just_fit_is_a_warning(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    recipe = load_recipe("denoise_sigma25")
    needed = estimate(recipe, CONFIG, (512, 512), is_complex=False, n_coils=0)
    monkeypatch.setattr(module, "available_memory", lambda device: int(0.9 * needed.total))
    check_memory(needed, recipe)
    assert "an image of 512 x 512 needs about" in caplog.text
    caplog.clear()
    monkeypatch.setattr(module, "available_memory", lambda device: needed.total)
    check_memory(needed, recipe)
    monkeypatch.setattr(module, "available_memory", lambda device: None)
    check_memory(needed, recipe)
    assert caplog.text == ""
    strided = replace(recipe, prior=PriorUse(stride=2))
    monkeypatch.setattr(module, "available_memory", lambda device: 1)
    with pytest.raises(NotEnoughMemoryError) as error:
        check_memory(estimate(strided, CONFIG, (512, 512), is_complex=False), strided)
    assert "stride" not in str(error.value)


@pytest.mark.parametrize("version", [1, 2])
def test_the_limit_of_a_container_counts(tmp_path: Path, version: int) -> None:
    files = {"memory.max": "1000000", "memory.current": "700000", "memory.stat": "file 3\ninactive_file 50000\n"}
    if version == 1:
        files = {
            "memory/memory.limit_in_bytes": "1000000",
            "memory/memory.usage_in_bytes": "700000",
            "memory/memory.stat": "total_inactive_file 50000\n",
        }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert available_memory("cpu", tmp_path) == 350_000


def test_without_a_container_the_system_says(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("max\n")
    available = available_memory("cpu", tmp_path)
    assert available is None or available > 1 << 20
    assert available_memory("meta", tmp_path) is None
