"""A run over small files: the numbers are fastMRI's, it goes on where it was stopped, and failures stay where they are."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mrisps.campaign import methods
from mrisps.campaign.evaluate import open_journal, run_evaluation
from mrisps.campaign.methods import Candidate
from mrisps.campaign.sources import SourceFile
from mrisps.errors import FileError
from mrisps.io.fastmri import write_kspace
from mrisps.io.result_file import read_volume
from mrisps.journal import JournalInUseError
from mrisps.kspace.grid import to_kspace
from mrisps.model import ModelConfig, SmoothPlusSparse
from mrisps.quality.baselines import BASELINES
from mrisps.quality.evaluation import EvaluationResult, EvaluationSettings
from mrisps.quality.file_scores import evaluate_files
from mrisps.quality.scores import score_settings, score_volumes
from mrisps.reconstruction.problem import Problem
from mrisps.reconstruction.recipe import MaskRule, Recipe, ScaleRule
from mrisps.reconstruction.reconstruct import reconstruct
from mrisps.reconstruction.run import Run
from mrisps.reconstruction.weights import Weights
from mrisps.solvers import FastSettings, Reconstruction

SHAPE = (32, 24)
RECIPE = Recipe(
    "small",
    "mri",
    0.02,
    0.01,
    "a test",
    scale=ScaleRule(99.9, 0.8),
    mask=MaskRule("equispaced", 4, 0.1),
    solver=FastSettings(tolerance=1e-2, max_iterations=300),
)
ZERO_FILLED = EvaluationSettings(baselines=BASELINES[:1])
QUICK = EvaluationSettings(
    baselines=(BASELINES[0], dataclasses.replace(BASELINES[3], n_iterations=20)), n_tuning_slices=1
)


@pytest.fixture(scope="module")
def model() -> SmoothPlusSparse:
    generator = torch.Generator().manual_seed(0)
    atoms = torch.randn(14, 5, 5, generator=generator)
    config = ModelConfig(patch_size=5, n_free_atoms=6, n_synthesis_atoms=8)
    return SmoothPlusSparse(config, atoms[:6], atoms[6:], torch.zeros(8), beta=1.0, lam=0.01)


@pytest.fixture
def candidate(model: SmoothPlusSparse) -> Candidate:
    return Candidate("ours", RECIPE, model, "small")


def write(path: Path, seed: int, *, factors: tuple[float, ...] = (1.0, 2.0), contrast: str = "A") -> SourceFile:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : SHAPE[0] * 1j, -1 : 1 : SHAPE[1] * 1j]
    image = ((x**2 + y**2 < 0.5) + 0.05 * rng.normal(size=SHAPE)).astype(np.float32)
    kspace = np.stack([factor * to_kspace(image.astype(np.complex64)) for factor in factors])
    target = np.stack([factor * np.abs(image[6:26, 2:22]) for factor in factors]).astype(np.float32)
    write_kspace(path, kspace, target=target, contrast=contrast)
    return SourceFile(path, path.name, patient=f"patient {seed}")


@pytest.fixture
def files(tmp_path: Path) -> list[SourceFile]:
    (tmp_path / "data").mkdir()
    return [write(tmp_path / "data" / f"{seed}.h5", seed) for seed in (1, 2)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "out"
    path.mkdir()
    return path


def lines(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]


def test_equal_to_fastmri(files: list[SourceFile], candidate: Candidate, folder: Path, tmp_path: Path) -> None:
    """What `mrisps recon` writes, judged by fastmri.evaluate and by our comparison of files, has these very scores."""
    result = run_evaluation(files, [candidate], ZERO_FILLED, folder)
    assert not result.failures
    volumes = {volume.file: volume for volume in score_volumes(result.scores) if volume.method == "ours"}
    assert len(volumes) == 2
    pytest.importorskip("fastmri")
    from fastmri.evaluate import nmse, psnr, ssim

    for file in files:
        written = tmp_path / "recon.h5"
        Run(RECIPE, Weights("small", candidate.model), undersample=True).write(file.path, written)
        image, target = read_volume(written, ["reconstruction"]), read_volume(file.path, ["reconstruction_esc"])
        (score,) = evaluate_files(written, file.path, data_range="target-max").scores
        found = volumes[file.name]
        assert (found.psnr, found.ssim, found.nmse) == pytest.approx((score.psnr, score.ssim, score.nmse), rel=1e-9)
        theirs = [float(np.squeeze(metric(target, image))) for metric in (psnr, ssim, nmse)]
        assert (found.psnr, found.ssim, found.nmse) == pytest.approx(tuple(theirs), rel=1e-5)
        written.unlink()


def test_goes_on_where_it_was_stopped(
    files: list[SourceFile], candidate: Candidate, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_solved = 0

    def counting(problem: Problem, model: SmoothPlusSparse, recipe: Recipe) -> Reconstruction:
        nonlocal n_solved
        n_solved += 1
        if n_solved == 3:
            raise KeyboardInterrupt
        return reconstruct(problem, model, recipe)

    monkeypatch.setattr(methods, "reconstruct", counting)
    with pytest.raises(KeyboardInterrupt):
        run_evaluation(files, [candidate], ZERO_FILLED, folder)
    journal = folder / "journal.jsonl"
    with journal.open("a") as stream:
        stream.write('{"key":"torn')
    first = run_evaluation(files, [candidate], ZERO_FILLED, folder)
    assert n_solved == 5  # two before, the one that was interrupted, and the two that were missing
    before = journal.read_bytes()
    assert b"torn" not in before
    again = run_evaluation(files, [candidate], ZERO_FILLED, folder)
    assert n_solved == 5
    assert again.n_computed == 0
    assert again.scores == first.scores
    assert (
        again.notes == first.notes == ("the mask was asked for acceleration 4 and has 3.43 (1.h5, slice 0 and 3 more)",)
    )
    assert len(again.worst) == len(first.worst) == 2
    assert journal.read_bytes() == before


def test_killed_at_any_byte(files: list[SourceFile], candidate: Candidate, folder: Path) -> None:
    """Whatever a kill leaves of the journal, the next run has the same numbers."""
    whole = run_evaluation(files[:1], [candidate], ZERO_FILLED, folder)
    journal = folder / "journal.jsonl"
    content = journal.read_bytes()
    for cut in np.random.default_rng(0).integers(0, len(content), size=6):
        journal.write_bytes(content[: int(cut)])
        again = run_evaluation(files[:1], [candidate], ZERO_FILLED, folder)
        n_kept = content[: int(cut)].count(b"\n")
        assert again.n_computed == 4 - max(0, n_kept - 2)  # the first lines are the header, and the peak of the volume
        assert [dataclasses.replace(score, seconds=0.0) for score in again.scores] == [
            dataclasses.replace(score, seconds=0.0) for score in whole.scores
        ]
        assert journal.read_bytes().count(b"\n") == 6


def test_other_code_computes_again(
    files: list[SourceFile], candidate: Candidate, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A score that another version or commit has computed is never shown as one of this code; nor one of another device."""
    assert run_evaluation(files, [candidate], ZERO_FILLED, folder).n_computed == 8
    monkeypatch.setattr("mrisps.campaign.loop.software_key", lambda: "another commit")
    assert run_evaluation(files, [candidate], ZERO_FILLED, folder).n_computed == 8
    assert run_evaluation(files, [candidate], ZERO_FILLED, folder).n_computed == 0
    monkeypatch.undo()
    assert run_evaluation(files, [candidate], ZERO_FILLED, folder).n_computed == 0


def test_an_old_journal_is_refused_by_name(files: list[SourceFile], candidate: Candidate, folder: Path) -> None:
    """Its scores do not say which code has computed them."""
    (folder / "journal.jsonl").write_text('{"key":"3f","peak":1.0}\n')
    with pytest.raises(FileError, match=r"journal\.jsonl: line 1: .* an older version of mrisps has written"):
        run_evaluation(files, [candidate], ZERO_FILLED, folder)


def test_what_changed_is_computed_again(files: list[SourceFile], candidate: Candidate, folder: Path) -> None:
    first = run_evaluation(files, [candidate], ZERO_FILLED, folder)
    assert first.n_computed == 8
    other = dataclasses.replace(candidate, recipe=dataclasses.replace(RECIPE, lam=0.02))
    assert run_evaluation(files, [other], ZERO_FILLED, folder).n_computed == 4  # not the baseline
    assert run_evaluation(files, [candidate], dataclasses.replace(ZERO_FILLED, border=2), folder).n_computed == 8
    changed = write(files[0].path, 3)
    assert run_evaluation([changed, files[1]], [candidate], ZERO_FILLED, folder).n_computed == 4
    assert run_evaluation(files[1:], [candidate], ZERO_FILLED, folder).n_computed == 0


def test_baselines_are_tuned_on_what_is_given(
    files: list[SourceFile], candidate: Candidate, folder: Path, tmp_path: Path
) -> None:
    given = write(tmp_path / "tuning.h5", 5)
    result = run_evaluation(files, [candidate], QUICK, folder, tuning_files=[given])
    (tuned,) = result.tuned
    assert (tuned.method, tuned.on_evaluated, tuned.slices) == ("TV", False, ("tuning.h5, slice 1",))
    assert max(tuned.tried, key=lambda pair: pair[1])[0] == tuned.weight
    weights = [weight for weight, _ in tuned.tried]
    assert weights == sorted(weights)
    assert tuned.at_edge == (tuned.weight in (weights[0], weights[-1]))
    assert {score.weight for score in result.scores if score.method == "TV"} == {tuned.weight}
    assert {score.file for score in result.scores} == {"1.h5", "2.h5"}
    (setting,) = result.methods
    assert result.methods[setting] == ("zero-filled", "TV", "ours")
    assert str(setting) == "A, 4-fold (equispaced, centre 0.1, seed 0)"
    without = run_evaluation(files, [candidate], QUICK, folder)
    assert without.tuned[0].on_evaluated
    assert run_evaluation(files, [candidate], QUICK, folder).n_computed == 0  # tuning is in the journal, too


def test_a_failing_file_does_not_stop_the_others(
    files: list[SourceFile], candidate: Candidate, folder: Path, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged.h5"
    damaged.write_bytes(files[0].path.read_bytes()[:3000])
    wrong = dataclasses.replace(files[0], name="wrong.h5", sha256="0" * 64)
    missing = SourceFile(tmp_path / "none.h5", "none.h5")
    said: list[tuple[int, int, str]] = []
    result = run_evaluation(
        [SourceFile(damaged, "damaged.h5"), wrong, missing, *files],
        [candidate],
        ZERO_FILLED,
        folder,
        say=lambda *line: said.append(line),
    )
    assert [failure.split(":")[0] for failure in result.failures] == ["damaged.h5", "wrong.h5", "none.h5"]
    assert "SHA-256" in result.failures[1]
    assert len(result.scores) == 8
    assert [(done, total) for done, total, _ in said] == [(n, 8) for n in range(1, 9)]
    assert "zero-filled" in said[0][2]


def test_a_failing_slice_is_named(
    files: list[SourceFile], candidate: Candidate, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(problem: Problem, model: SmoothPlusSparse, recipe: Recipe) -> Reconstruction:
        raise FileError("x", "is broken")

    monkeypatch.setattr(methods, "reconstruct", failing)
    result = run_evaluation(files[:1], [candidate], ZERO_FILLED, folder)
    setting = "A, 4-fold (equispaced, centre 0.1, seed 0)"
    assert result.failures == tuple(f"1.h5, slice {index}, {setting}, ours: x: is broken" for index in (0, 1))
    assert {score.method for score in result.scores} == {"zero-filled"}
    monkeypatch.undo()
    assert run_evaluation(files[:1], [candidate], ZERO_FILLED, folder).n_computed == 2  # failures are tried again


def test_as_acquired_and_without_reference(candidate: Candidate, folder: Path, tmp_path: Path) -> None:
    mask = np.zeros(SHAPE[1], dtype=np.bool_)
    mask[[1, 4, 7, 10, 11, 12, 13, 16, 19, 22]] = True
    image = np.ones(SHAPE, np.complex64)
    kspace = to_kspace(image)[None] * mask
    target = np.ones((1, 20, 20), np.float32)
    write_kspace(tmp_path / "a.h5", kspace, target=target, mask=mask, contrast="A")
    write_kspace(tmp_path / "b.h5", kspace, mask=mask, contrast="A")
    write_kspace(tmp_path / "c.h5", kspace, target=target, mask=mask, contrast="B", attributes={"acceleration": 3})
    files = [SourceFile(tmp_path / name, name) for name in ("a.h5", "b.h5", "c.h5")]
    only_a = dataclasses.replace(candidate, contrast="A", label="for a")
    result = run_evaluation(files, [candidate, only_a], ZERO_FILLED, folder)
    assert result.skipped == ("b.h5 (evaluated): has no reference",)
    assert [str(setting) for setting in result.methods] == ["A, 2-fold (as acquired)", "B, 3-fold (as acquired)"]
    assert list(result.methods.values()) == [("zero-filled", "ours", "for a"), ("zero-filled", "ours")]
    assert {score.realised_acceleration for score in result.scores} == {2.4}


def test_reference_from_full_kspace(candidate: Candidate, folder: Path, tmp_path: Path) -> None:
    """Without one in the file: the root of the sum of squares, which zero filling of everything meets."""
    y, x = np.mgrid[-1 : 1 : SHAPE[0] * 1j, -1 : 1 : SHAPE[1] * 1j]
    write_kspace(tmp_path / "a.h5", to_kspace((x**2 + y**2 < 0.5).astype(np.complex64))[None], contrast="A")
    recipe = dataclasses.replace(RECIPE, mask=MaskRule("equispaced", 1, 1.0))
    full = dataclasses.replace(candidate, recipe=recipe)
    result = run_evaluation([SourceFile(tmp_path / "a.h5", "a.h5")], [full], ZERO_FILLED, folder)
    assert not result.failures
    assert result.scores[0].method == "zero-filled"
    assert result.scores[0].psnr > 100


def test_worst_cases(candidate: Candidate, folder: Path, tmp_path: Path) -> None:
    """The slices with the lowest PSNR and no others have their images kept."""
    file = write(tmp_path / "a.h5", 1, factors=(0.2, 3.0, 0.5, 2.0))
    settings = dataclasses.replace(ZERO_FILLED, n_worst=2)
    result = run_evaluation([file], [candidate], settings, folder)
    assert [case.score.slice_index for case in result.worst] == [1, 3]
    assert len(list((folder / "worst").iterdir())) == 2
    case = result.worst[0]
    assert case.image.shape == case.reference.shape == (20, 20)
    assert float(np.sum((case.image.astype(float) - case.reference) ** 2)) == pytest.approx(case.score.squared_error)
    for path in (folder / "worst").iterdir():
        path.write_bytes(b"nothing")
    again = run_evaluation([file], [candidate], settings, folder)
    assert again.worst == ()
    assert "the image of a worst case is not there any more (a.h5, slice 1 and 1 more)" in again.notes


def test_several_coils(model: SmoothPlusSparse, folder: Path, tmp_path: Path) -> None:
    """CG-SENSE joins in, with the maps of the recipe's preparation."""
    from mrisps.kspace.preparation import Preparation

    y, x = np.mgrid[-1 : 1 : SHAPE[0] * 1j, -1 : 1 : SHAPE[1] * 1j]
    image = (x**2 + y**2 < 0.5).astype(np.complex64)
    maps = np.stack([np.exp(-((x - c) ** 2 + (y + c) ** 2)) for c in (-0.8, 0.0, 0.8)]).astype(np.complex64)
    kspace = to_kspace(maps * image)[None]
    target = np.linalg.norm(maps * image, axis=0)[None, 6:26, 2:22].astype(np.float32)
    write_kspace(tmp_path / "a.h5", kspace, target=target, contrast="A")
    recipe = dataclasses.replace(RECIPE, preparation=Preparation(), mask=MaskRule("equispaced", 2, 0.4))
    settings = EvaluationSettings(baselines=BASELINES[:2], n_tuning_slices=1)
    file = SourceFile(tmp_path / "a.h5", "a.h5")
    result = run_evaluation([file], [Candidate("ours", recipe, model, "small")], settings, folder)
    assert not result.failures
    assert [score.method for score in result.scores] == ["zero-filled", "CG-SENSE", "ours"]
    assert all(score.nmse < 0.2 for score in result.scores)


def test_one_run_at_a_time(files: list[SourceFile], candidate: Candidate, folder: Path) -> None:
    with open_journal(folder), pytest.raises(JournalInUseError, match="another process works with it"):
        run_evaluation(files, [candidate], ZERO_FILLED, folder)
    assert isinstance(run_evaluation(files, [candidate], ZERO_FILLED, folder), EvaluationResult)


def test_labels_must_differ(files: list[SourceFile], candidate: Candidate, folder: Path) -> None:
    with pytest.raises(ValueError, match="different labels"):
        run_evaluation(files, [candidate, candidate], ZERO_FILLED, folder)


def test_settings_are_averaged_over_the_same_slices(
    files: list[SourceFile], candidate: Candidate, folder: Path
) -> None:
    result = run_evaluation(files, [candidate], ZERO_FILLED, folder)
    rows = score_settings(result.scores, result.methods, result.reference)
    assert [(row.method, row.n_volumes, row.n_patients, row.n_slices) for row in rows] == [
        ("zero-filled", 2, 2, 4),
        ("ours", 2, 2, 4),
    ]
    assert rows[1].gain is None
    assert rows[0].gain == pytest.approx(rows[0].mean["psnr"] - rows[1].mean["psnr"])
