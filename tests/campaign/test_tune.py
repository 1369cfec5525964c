"""Tuning: what is measured, the search, and a search that goes on after a crash."""

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mrisps.campaign.cases import Case, TuneSettings, read_cases
from mrisps.campaign.search import Offset, model_search
from mrisps.campaign.sources import SourceFile
from mrisps.campaign.tune import Trial, measure, open_journal, tune
from mrisps.errors import FileError, MrispsError
from mrisps.io.fastmri import write_kspace
from mrisps.io.images import write_image
from mrisps.journal import Journal
from mrisps.kspace.preparation import CoilMaps, Preparation
from mrisps.model import ModelConfig, SmoothPlusSparse
from mrisps.reconstruction.choices import SliceChoice
from mrisps.reconstruction.recipe import BlurRule, MaskRule, Recipe, ScaleRule
from mrisps.reconstruction.reconstruct import reconstruct
from mrisps.reconstruction.together import solve_problems
from mrisps.solvers import FastSettings

SHAPE = (32, 24)


@pytest.fixture
def model() -> SmoothPlusSparse:
    generator = torch.Generator().manual_seed(0)
    config = ModelConfig(patch_size=5, n_free_atoms=6, n_synthesis_atoms=24)
    return SmoothPlusSparse(
        config,
        torch.randn(6, 5, 5, generator=generator),
        torch.randn(24, 5, 5, generator=generator),
        torch.zeros(24),
        beta=0.5,
        lam=0.02,
    )


SOLVER = FastSettings(tolerance=5e-2, max_iterations=60, image_change=0.5, trace_interval=0)


@pytest.fixture
def denoising() -> Recipe:
    return Recipe("test", "denoise", beta=0.5, lam=0.02, source="a test", noise_std=0.05, solver=SOLVER)


@pytest.fixture
def mri() -> Recipe:
    mask = MaskRule("random", 2, 0.2, seed=3)
    return Recipe("test", "mri", beta=0.05, lam=0.01, source="a test", mask=mask, solver=SOLVER)


@pytest.fixture
def image() -> NDArray[np.float32]:
    y, x = np.mgrid[-1 : 1 : SHAPE[0] * 1j, -1 : 1 : SHAPE[1] * 1j]
    shapes = 0.8 * (x**2 + y**2 < 0.5) - 0.4 * ((np.abs(x) < 0.2) & (np.abs(y) < 0.5)) + 0.1
    return np.asarray(shapes, dtype=np.float32)


def to_kspace(image: NDArray[np.float32]) -> NDArray[np.complex64]:
    return np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(image), norm="ortho")).astype(np.complex64)


def sources(*paths: Path) -> list[SourceFile]:
    return [SourceFile(path, path.name) for path in paths]


def columns() -> NDArray[np.bool_]:
    mask = np.zeros(SHAPE[1], dtype=np.bool_)
    mask[[0, 1, 3, 5, 7, 10, 11, 12, 13, 16, 17, 19, 22]] = True
    return mask


# --------------------------------------------------------------------------------------------------------------- search


class Surface:
    """A score with its maximum somewhere else, and a count of how often it was asked."""

    def __init__(self, top: Offset, *, skew: float = 0.0) -> None:
        self.top, self.skew = top, skew
        self.asked: list[Offset] = []

    def __call__(self, place: Offset) -> float:
        assert place not in self.asked, "asked twice for the same"
        self.asked.append(place)
        u, v = place[0] - self.top[0], place[1] - self.top[1]
        return 30 - 0.3 * u * u - 0.8 * v * v - 0.4 * u * v - self.skew * u**3

    @property
    def lost(self) -> float:
        asked, self.asked = self.asked, []
        value = 30 - max(self(place) for place in asked)
        self.asked = asked
        return value


@pytest.mark.parametrize("top", [(0.0, 0.0), (0.9, -0.5), (-1.6, 1.1), (0.3, 0.2)])
@pytest.mark.parametrize("skew", [0.0, 0.03])
def test_the_top_is_found_with_few_measurements(top: Offset, skew: float) -> None:
    surface = Surface(top, skew=skew)
    model_search(surface)
    assert surface.lost < 0.03
    assert len(surface.asked) <= 20


def test_an_early_stop() -> None:
    surface = Surface((0.0, 0.0))
    model_search(surface)
    assert len(surface.asked) <= 7  # six for a quadratic, whose top is then known
    coarse, fine = Surface((0.9, -0.7), skew=0.05), Surface((0.9, -0.7), skew=0.05)
    model_search(coarse, tolerance=0.5)
    model_search(fine, tolerance=1e-4)
    assert len(coarse.asked) < len(fine.asked)
    assert fine.lost < coarse.lost


def test_a_cap_on_measurements() -> None:
    surface = Surface((3.0, 2.0))
    model_search(surface, max_evaluations=7)
    assert len(surface.asked) == 7


def test_a_solver_that_breaks_down_in_a_corner() -> None:
    surface = Surface((-0.6, 0.4))

    def broken(place: Offset) -> float:
        value = surface(place)
        return -math.inf if place[0] > 0.3 else value

    model_search(broken)
    assert surface.lost < 0.05


# ---------------------------------------------------------------------------------------------------------------- cases


def test_noise_is_drawn_once(tmp_path: Path, image: NDArray[np.float32], denoising: Recipe) -> None:
    paths = [tmp_path / "a.npy", tmp_path / "b.npy"]
    for path in paths:
        write_image(path, image)
    first, second = (read_cases(sources(*paths), denoising, TuneSettings(seed=5)) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert one.identity == other.identity
        assert torch.equal(one.problem.y, other.problem.y)
    assert not torch.equal(first[0].problem.y, first[1].problem.y)  # each image has noise of its own
    others = read_cases(sources(*paths), denoising, TuneSettings(seed=6))
    identities = {json.dumps(case.identity) for case in (*first, *others)}
    assert len(identities) == 4
    noise = first[0].problem.y[0, 0].numpy() - image
    assert noise.std() == pytest.approx(0.05, rel=0.1)
    clean = torch.from_numpy(image)[None, None]
    assert first[0].judge(clean + 0.1) == pytest.approx(20.0, abs=1e-4)
    cropped = read_cases(sources(*paths), denoising, TuneSettings(crop=(16, 100), border=2))[0]
    assert cropped.problem.y.shape == (1, 1, 16, 24)
    part = clean[..., 8:24, :].clone()
    part[..., :2, :] += 5  # in the border
    assert cropped.judge(part + 0.1) == pytest.approx(20.0, abs=1e-4)


def test_super_resolution_takes_a_size_that_fits(tmp_path: Path, image: NDArray[np.float32]) -> None:
    path = tmp_path / "a.npy"
    write_image(path, image)
    blur = BlurRule(kernel_size=4, sigma=1.0, stride=3)
    recipe = Recipe("x", "superres", 0.05, 0.01, "a test", blur=blur, noise_std=0.01, solver=SOLVER)
    (case,) = read_cases(sources(path), recipe, TuneSettings())
    assert case.problem.operator.domain_shape == (1, 31, 22)  # (n - 4) is a multiple of 3
    exact = torch.from_numpy(image[:31, 1:23].copy())[None, None]  # the centre
    residual = case.problem.operator.forward(exact) - case.problem.y
    assert float(residual.std()) == pytest.approx(0.01, rel=0.3)
    assert case.judge(exact) == math.inf


def test_full_kspace_is_undersampled_by_the_rule(tmp_path: Path, image: NDArray[np.float32], mri: Recipe) -> None:
    path = tmp_path / "full.h5"
    write_kspace(path, np.stack([to_kspace(image)] * 3))
    (middle,) = read_cases(sources(path), mri, TuneSettings())
    assert middle.name == "full.h5 slice 1"
    both = read_cases(sources(path), mri, TuneSettings(), slices=SliceChoice(1))
    masks = [case.problem.mask for case in both]
    assert masks[0] is not None
    assert masks[0].realised_acceleration == pytest.approx(2, rel=0.2)
    assert masks[0] != masks[1]  # one seed more
    assert both[0].judge(torch.from_numpy(image)[None, None].to(torch.complex64)) > 100  # the image of all of k-space
    with pytest.raises(MrispsError, match="no mask rule"):
        read_cases(sources(path), replace(mri, mask=None), TuneSettings())


def test_undersampled_kspace_needs_a_reference(tmp_path: Path, image: NDArray[np.float32], mri: Recipe) -> None:
    path = tmp_path / "under.h5"
    write_kspace(path, to_kspace(image)[None] * columns(), mask=columns(), image_is_real=True)
    with pytest.raises(FileError, match=r"under.h5: target: .* no reference image"):
        read_cases(sources(path), mri, TuneSettings())
    write_kspace(
        path, to_kspace(image)[None] * columns(), mask=columns(), target=image[None, 6:26, 2:22], image_is_real=True
    )
    (case,) = read_cases(sources(path), mri, TuneSettings())
    assert case.judge(torch.from_numpy(image)[None, None]) == math.inf
    cut = read_cases(sources(path), mri, TuneSettings(crop=(16, 24)))[0]
    assert cut.problem.y.shape == (1, 1, 16, 24)
    # A crop along the readout is exact: the same columns of the image's central rows.
    assert torch.allclose(
        cut.problem.operator.forward(torch.from_numpy(image[8:24].copy())[None, None]), cut.problem.y, atol=1e-5
    )
    assert cut.judge(torch.from_numpy(image[8:24].copy())[None, None]) == math.inf
    with pytest.raises(FileError, match="cropped along y only, to 16x24"):
        read_cases(sources(path), mri, TuneSettings(crop=(16, 16)))


def test_several_coils(tmp_path: Path, image: NDArray[np.float32], model: SmoothPlusSparse, mri: Recipe) -> None:
    """With two sets of maps: what is predicted is what the solver's images of both sets measure."""
    ramp = np.linspace(0.3, 1, SHAPE[1])
    coils = np.stack([image * ramp, image * ramp[::-1] * 1j])
    kspace = np.stack([to_kspace(coil.real) + 1j * to_kspace(coil.imag) for coil in coils])
    path = tmp_path / "coils.h5"
    write_kspace(path, kspace[None].astype(np.complex64))
    recipe = replace(
        mri,
        image="complex",
        mask=MaskRule("random", 1.5, 0.35),
        scale=ScaleRule(99.5, 1.0),
        preparation=Preparation(compression=None, maps=CoilMaps(n_sets=2, kernel_width=5), phase=None),
    )
    for criterion in ("reference", "held-out"):
        (case,) = read_cases(sources(path), recipe, TuneSettings(criterion=criterion))
        assert case.problem.mask is not None
        assert not case.problem.mask.is_fully_sampled
        rss = np.sqrt(np.square(np.abs(coils)).sum(axis=0)).astype(np.float32)
        right, wrong = (
            torch.from_numpy(rss)[None, None].to(torch.complex64),
            torch.ones(1, 1, *SHAPE).to(torch.complex64),
        )
        if criterion == "held-out":
            solved = solve_problems([case.problem], model, recipe)[0].image
            assert solved.shape == (1, 2, *SHAPE)
            assert case.judge(solved) > 1
            assert case.judge(torch.zeros_like(solved)) == pytest.approx(0, abs=1e-6)
        else:
            assert case.judge(right) > 25 > case.judge(wrong)


@pytest.mark.parametrize("real", [True, False])
def test_held_out_kspace(tmp_path: Path, image: NDArray[np.float32], mri: Recipe, real: bool) -> None:
    path = tmp_path / "under.h5"
    mask = columns()
    kspace = to_kspace(image) * mask
    kspace[:, 22] = 0  # acquired, and silent
    write_kspace(path, kspace[None], mask=mask, image_is_real=real)
    settings = TuneSettings(criterion="held-out", held_out_fraction=0.3)
    (case,) = read_cases(sources(path), mri, settings)
    assert case.problem.mask is not None
    kept = case.problem.mask.pattern
    hidden = mask & ~kept
    assert 2 <= hidden.sum() <= 5
    assert not (kept & ~mask).any()
    assert kept[[10, 11, 12, 13]].all()  # the centre
    assert kept[22]
    assert not case.problem.y[..., torch.from_numpy(hidden)].any()
    if real:  # what is hidden is not known from its mirror image either, unless that is in the centre
        for column in np.flatnonzero(hidden):
            mirror = (2 * (SHAPE[1] // 2) - column) % SHAPE[1]
            assert hidden[mirror] or not mask[mirror] or mirror in (10, 11, 12, 13)
    dtype = torch.float32 if real else torch.complex64
    assert case.judge(torch.from_numpy(image)[None, None].to(dtype)) > 80
    assert case.judge(torch.zeros(1, 1, *SHAPE, dtype=dtype)) == pytest.approx(0, abs=1e-6)  # nothing is predicted
    (other,) = read_cases(sources(path), mri, replace(settings, seed=1))
    assert other.identity != case.identity


def test_held_out_kspace_is_for_mri(tmp_path: Path, image: NDArray[np.float32], denoising: Recipe, mri: Recipe) -> None:
    write_image(tmp_path / "a.npy", image)
    with pytest.raises(MrispsError, match="held-out k-space is for MRI, this one is for denoise"):
        read_cases(sources(tmp_path / "a.npy"), denoising, TuneSettings(criterion="held-out"))
    few = np.zeros(SHAPE[1], dtype=np.bool_)
    few[[9, 10, 11, 12, 13, 14, 20]] = True
    write_kspace(tmp_path / "few.h5", to_kspace(image)[None] * few, mask=few)
    with pytest.raises(FileError, match="has 1 acquired columns outside the centre"):
        read_cases(sources(tmp_path / "few.h5"), mri, TuneSettings(criterion="held-out"))


def test_files_of_another_task(tmp_path: Path, image: NDArray[np.float32], denoising: Recipe, mri: Recipe) -> None:
    write_image(tmp_path / "a.png", image)
    write_kspace(tmp_path / "a.h5", to_kspace(image)[None])
    with pytest.raises(FileError, match=r"a.png: is an image; recipe test is for MRI"):
        read_cases(sources(tmp_path / "a.png"), mri, TuneSettings())
    with pytest.raises(FileError, match=r"a.h5: is no image .*; recipe test is for denoise"):
        read_cases(sources(tmp_path / "a.h5"), denoising, TuneSettings())
    with pytest.raises(MrispsError, match="no files to tune on"):
        read_cases([], mri, TuneSettings())
    with pytest.raises(MrispsError, match="noise_std: needed"):
        read_cases(sources(tmp_path / "a.png"), replace(denoising, noise_std=None), TuneSettings())
    with pytest.raises(FileError, match="too few to compare with a border of 13"):
        read_cases(sources(tmp_path / "a.png"), denoising, TuneSettings(border=13))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"crop": (4, 40)}, "crop: expected at least 8 x 8"),
        ({"border": -1}, "border"),
        ({"held_out_fraction": 1.0}, "held_out_fraction"),
        ({"seed": -1}, "seed"),
        ({"criterion": "ssim"}, "criterion"),
    ],
)
def test_wrong_settings(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TuneSettings(**change)  # type: ignore[arg-type]  # wrong on purpose


# -------------------------------------------------------------------------------------------------------------- measure


@pytest.fixture
def cases(tmp_path: Path, image: NDArray[np.float32], denoising: Recipe) -> list[Case]:
    paths = [tmp_path / "a.npy", tmp_path / "b.npy"]
    write_image(paths[0], image)
    write_image(paths[1], image[::-1].copy())
    return read_cases(sources(*paths), denoising, TuneSettings(crop=(16, 16)))


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with open_journal(tmp_path / "j.tune.jsonl", resume=False) as journal:
        yield journal


def test_measure(cases: list[Case], model: SmoothPlusSparse, denoising: Recipe, journal: Journal) -> None:
    seen: list[int] = []
    trial = measure(cases, model, denoising, journal, progress=lambda case, n, iteration, residual: seen.append(case))
    assert set(seen) == {0, 1}
    assert trial.n_iterations == len(seen)
    solved = [reconstruct(case.problem, model, denoising) for case in cases]
    assert trial.scores == tuple(case.judge(one.image) for case, one in zip(cases, solved, strict=True))
    assert trial.n_finished == sum(one.finished for one in solved)
    hasty = replace(denoising, solver=replace(SOLVER, max_iterations=3))
    capped = measure(cases, model, hasty, journal)
    assert (capped.n_finished, capped.finished, capped.n_iterations) == (0, False, 6)


def test_what_is_known_is_not_solved_again(
    cases: list[Case],
    model: SmoothPlusSparse,
    denoising: Recipe,
    journal: Journal,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Known is what the same code, case, recipe and weights have given."""
    n_solved = 0

    def count(*_: object) -> None:
        nonlocal n_solved
        n_solved += 1

    def n_new(recipe: Recipe, weights: SmoothPlusSparse) -> int:
        before = len(journal.records)
        measure(cases, weights, recipe, journal, progress=count)
        return len(journal.records) - before

    first = measure(cases, model, denoising, journal)
    assert measure(cases, model, denoising, journal, progress=count) == first
    assert n_solved == 0
    assert n_new(replace(denoising, lam=0.03), model) == 2
    assert n_new(denoising, model.with_regularisation(beta=0.5, lam=0.07)) == 2
    assert n_new(replace(denoising, name="another", description="it"), model) == 0
    monkeypatch.setattr("mrisps.campaign.loop.software_key", lambda: "another commit")
    assert n_new(denoising, model) == 2


def test_infinity_is_no_score(cases: list[Case], model: SmoothPlusSparse, denoising: Recipe, journal: Journal) -> None:
    broken = [cases[0], replace(cases[1], judge=lambda image: math.nan)]
    trial = measure(broken, model, denoising, journal)
    assert trial.scores[1] is None
    assert trial.score == -math.inf


def test_a_damaged_record_is_named(
    cases: list[Case], model: SmoothPlusSparse, denoising: Recipe, journal: Journal
) -> None:
    measure(cases, model, denoising, journal)
    key = list(journal.records)[1]
    journal.append(key, {**journal.records[key], "score": "30"})
    with pytest.raises(FileError, match=f"record {key[:12]}: is damaged"):
        measure(cases, model, denoising, journal)


# ----------------------------------------------------------------------------------------------------------------- tune


def test_tuning_beats_its_start(
    cases: list[Case], model: SmoothPlusSparse, denoising: Recipe, journal: Journal
) -> None:
    weak = replace(denoising, lam=0.002)
    found = tune(cases, model, weak, journal, max_evaluations=8)
    assert found.best.score > found.start.score + 0.3
    assert found.n_solves == 2 * len(found.trials) == len(journal.records)
    best = replace(weak, beta=found.best.beta, lam=found.best.lam)
    solved = [reconstruct(case.problem, model, best) for case in cases]  # the score is that of the recipe as it runs
    assert found.best.scores == tuple(case.judge(one.image) for case, one in zip(cases, solved, strict=True))


def test_a_search_that_was_interrupted_goes_on(
    tmp_path: Path, cases: list[Case], model: SmoothPlusSparse, denoising: Recipe, journal: Journal
) -> None:
    whole = tune(cases, model, denoising, journal, max_evaluations=8)
    n_iterations = 0

    def count(case: int, n: int, iteration: int, residual: float) -> None:
        nonlocal n_iterations
        n_iterations += 1

    def stop(case: int, n: int, iteration: int, residual: float) -> None:
        if len(part.records) == 7:
            raise KeyboardInterrupt

    path = tmp_path / "part"
    with open_journal(path, resume=False) as part, pytest.raises(KeyboardInterrupt):
        tune(cases, model, denoising, part, progress=stop, max_evaluations=8)
    with open_journal(path, resume=True) as resumed:
        assert len(resumed.records) == 7
        known = sum(int(str(record["n_iterations"])) for record in resumed.records.values())
        found = tune(cases, model, denoising, resumed, progress=count, max_evaluations=8)

    def numbers(trials: tuple[Trial, ...]) -> list[Trial]:
        return [replace(trial, seconds=0.0) for trial in trials]

    assert numbers(found.trials) == numbers(whole.trials)
    assert n_iterations == sum(trial.n_iterations for trial in found.trials) - known


def test_a_case_that_fails_ends_the_search(
    cases: list[Case], model: SmoothPlusSparse, denoising: Recipe, journal: Journal
) -> None:
    """A mean over the other cases would be another score."""

    def broken(image: torch.Tensor) -> float:
        raise ValueError("no score")

    with pytest.raises(ValueError, match="no score"):
        tune([cases[0], replace(cases[1], judge=broken)], model, denoising, journal)


def test_nothing_finite(cases: list[Case], model: SmoothPlusSparse, denoising: Recipe, journal: Journal) -> None:
    broken = [replace(case, judge=lambda image: math.nan) for case in cases]
    with pytest.raises(MrispsError, match="every candidate led to NaN"):
        tune(broken, model, replace(denoising, solver=replace(SOLVER, max_iterations=2)), journal)


def test_held_out_lines_find_about_what_the_reference_finds(
    tmp_path: Path, image: NDArray[np.float32], model: SmoothPlusSparse, mri: Recipe, journal: Journal
) -> None:
    rng = np.random.default_rng(2)
    noise = 0.03 * (rng.normal(size=SHAPE) + 1j * rng.normal(size=SHAPE))
    path = tmp_path / "under.h5"
    kspace = ((to_kspace(image) + noise) * columns()).astype(np.complex64)
    write_kspace(path, kspace[None], mask=columns(), target=image[None], image_is_real=True)
    far = replace(mri, lam=0.3)  # everything is smooth
    by_reference = read_cases(sources(path), far, TuneSettings())
    by_prediction = read_cases(sources(path), far, TuneSettings(criterion="held-out", held_out_fraction=0.3))
    chosen = tune(by_prediction, model, far, journal, max_evaluations=10).best
    blind = measure(by_reference, model, replace(far, beta=chosen.beta, lam=chosen.lam), journal)
    assert blind.score > measure(by_reference, model, far, journal).score + 0.5
