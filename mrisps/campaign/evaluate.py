"""A run over many files with references: recipes and baselines side by side, slice by slice; it can be stopped and go on.

Every number is a line of a journal, under a key that is a hash of what it depends on (the input, the recipe, the weights, how
images are compared), and is not computed again while that is the same. A failing file or slice is noted and does not stop the
others.
"""

import hashlib
import io
import json
import math
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from mrisps.atomic import write_bytes
from mrisps.errors import FileError, MrispsError
from mrisps.io.acquisition import Acquisition
from mrisps.io.images import center_crop
from mrisps.io.kspace_file import KspaceFile
from mrisps.io.manifest import sha256_of
from mrisps.io.open import open_slices
from mrisps.journal import Journal
from mrisps.kspace.coil_maps import to_image
from mrisps.model import SmoothPlusSparse
from mrisps.operators import Sense
from mrisps.quality.baselines import BASELINES, Baseline
from mrisps.quality.error_proxies import error_proxies
from mrisps.quality.metrics import DataRange, ssim
from mrisps.quality.scores import Setting, SliceScore
from mrisps.reconstruction.problem import Problem, mri_problem, to_array
from mrisps.reconstruction.recipe import Recipe
from mrisps.reconstruction.reconstruct import reconstruct

__all__ = [
    "Candidate",
    "EvaluationFile",
    "EvaluationResult",
    "EvaluationSettings",
    "ProxyScore",
    "TunedBaseline",
    "WorstCase",
    "run_evaluation",
]

Real = NDArray[np.float32]
_K = TypeVar("_K")
_V = TypeVar("_V")
Progress = Callable[[int, int, str], None]
"""(slices done, slices in all, what was just done)"""

AS_ACQUIRED = "as acquired"
"""The sampling of a setting whose files were undersampled when they were measured."""

_FAILURES = (MrispsError, ValueError, OSError, MemoryError)
_MAX_STEPS = 10  # of a search for a weight: 2^10 to either side


@dataclass(frozen=True)
class EvaluationFile:
    """A file to be evaluated, and what a manifest says of it.

    Parameters
    ----------
    path
        The file.
    name
        In results.
    patient
        Whose it is; None: the file is a patient of its own.
    contrast
        None: what the file says.
    acceleration
        Nominal acceleration of an undersampled file; None: what the file says.
    sha256
        What it has to be; None: anything.
    """

    path: Path
    name: str
    patient: str | None = None
    contrast: str | None = None
    acceleration: float | None = None
    sha256: str | None = None


@dataclass(frozen=True, eq=False)
class Candidate:
    """A recipe to be evaluated.

    Parameters
    ----------
    label
        In results; no two alike.
    recipe, model
        What reconstructs.
    weights
        How the weights are called.
    contrast
        Only files of this contrast; None: all.
    """

    label: str
    recipe: Recipe
    model: SmoothPlusSparse
    weights: str
    contrast: str | None = None


@dataclass(frozen=True)
class EvaluationSettings:
    """How to evaluate.

    Parameters
    ----------
    data_range
        Peak for PSNR and SSIM: a number, or ``"target-max"``, the maximum of the volume's reference.
    crop
        (y, x) of the centre that is compared; None: fastMRI's rule, the square as wide as the reference.
    border
        Pixels that are left out at every edge, after cropping.
    baselines
        Which.
    n_tuning_slices
        So many slices of each setting decide the weight of a baseline.
    n_worst
        So many images of each setting and recipe are kept to be shown.
    n_proxy_parts
        0, or the number of parts for :func:`mrisps.quality.error_proxies.error_proxies`.
    slices
        (first, end) of the slices of every file; None: all.
    device
        For the recipes; baselines run on the CPU.
    seed
        Of proxies.

    Raises
    ------
    ValueError
        A number is out of its range.
    """

    data_range: DataRange = "target-max"
    crop: tuple[int, int] | None = None
    border: int = 0
    baselines: tuple[Baseline, ...] = field(default=BASELINES)
    n_tuning_slices: int = 3
    n_worst: int = 2
    n_proxy_parts: int = 0
    slices: tuple[int, int | None] | None = None
    device: str = "cpu"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low in (("border", 0), ("n_tuning_slices", 1), ("n_worst", 0), ("n_proxy_parts", 0), ("seed", 0)):
            if getattr(self, name) < low:
                raise ValueError(f"{name}: expected at least {low}, got {getattr(self, name)}")
        if self.n_proxy_parts == 1:
            raise ValueError("n_proxy_parts: expected 0 or at least 2, got 1")


@dataclass(frozen=True)
class TunedBaseline:
    """The weight of a baseline in a setting, and how it was found.

    Parameters
    ----------
    setting, method
        Where and what.
    weight
        The best of those that were tried.
    tried
        (weight, mean PSNR of the tuning slices), in the order of the weights.
    slices
        The tuning slices.
    on_evaluated
        They are among those that are evaluated: to the advantage of the baseline.
    at_edge
        The search ended before the PSNR fell on both sides.
    """

    setting: Setting
    method: str
    weight: float
    tried: tuple[tuple[float, float], ...]
    slices: tuple[str, ...]
    on_evaluated: bool
    at_edge: bool


@dataclass(frozen=True)
class ProxyScore:
    """Error estimates without a reference beside the true error of a slice; see :mod:`mrisps.quality.error_proxies`."""

    setting: Setting
    method: str
    file: str
    slice_index: int
    nmse: float
    held_out_kspace_error: float
    held_out_share: float
    spread: float


@dataclass(frozen=True, eq=False)
class WorstCase:
    """The image of a slice with a low PSNR.

    Parameters
    ----------
    score
        Which, and how bad.
    image, reference
        (y, x) as they were compared.
    """

    score: SliceScore
    image: Real
    reference: Real


@dataclass(frozen=True, eq=False)
class EvaluationResult:
    """All that a run found.

    Parameters
    ----------
    scores
        One for each slice and method.
    methods
        Of each setting, in the order of tables: baselines, then recipes.
    reference
        Of each setting, the first recipe.
    tuned, proxies, worst
        See there; the worst first within a setting and recipe.
    failures, skipped
        A line for each file or slice that failed, or that has no reference.
    notes
        What a reader should know.
    n_computed
        Numbers that were not in the journal.
    """

    scores: tuple[SliceScore, ...]
    methods: Mapping[Setting, tuple[str, ...]]
    reference: Mapping[Setting, str]
    tuned: tuple[TunedBaseline, ...]
    proxies: tuple[ProxyScore, ...]
    worst: tuple[WorstCase, ...]
    failures: tuple[str, ...]
    skipped: tuple[str, ...]
    notes: tuple[str, ...]
    n_computed: int


def run_evaluation(
    files: Sequence[EvaluationFile],
    candidates: Sequence[Candidate],
    settings: EvaluationSettings,
    folder: Path,
    *,
    tuning_files: Sequence[EvaluationFile] | None = None,
    progress: Progress | None = None,
) -> EvaluationResult:
    """Evaluate recipes and baselines on every slice that has a reference.

    Fully sampled files are undersampled with each recipe's mask rule; others are taken with the mask that they have. The
    reference is the file's own, or, where it has none and k-space is fully sampled, the root of the sum of squares over coils.

    Parameters
    ----------
    files
        What is evaluated.
    candidates
        The recipes.
    settings
        How.
    folder
        Output; exists. ``journal.jsonl`` and ``worst/`` are kept there, and used when the run is repeated.
    tuning_files
        What the baselines are tuned on; None: the evaluated slices themselves, to the baselines' advantage.
    progress
        Called after each slice, and after each step of tuning.

    Raises
    ------
    FileError
        The journal cannot be read or written.
    ValueError
        Two candidates have one label.
    """
    labels = [candidate.label for candidate in candidates] + [baseline.name for baseline in settings.baselines]
    if len(set(labels)) < len(labels):
        raise ValueError(f"candidates: expected different labels, got {', '.join(labels)}")
    with Journal(folder / "journal.jsonl") as journal:
        return _Run(files, candidates, settings, folder, journal, tuning_files, progress).all()


@dataclass(frozen=True, eq=False)
class _Plan:
    """A file that could be opened, and what is to be done with it."""

    file: EvaluationFile
    sha256: str
    n_coils: int
    slices: range
    groups: Mapping[Setting, Sequence[Candidate]]

    @property
    def patient(self) -> str:
        return self.file.name if self.file.patient is None else self.file.patient


@dataclass(frozen=True, eq=False)
class _Job:
    """A method with all that its result depends on."""

    name: str
    recipe: Recipe  # of a baseline: what prepares the data
    device: str
    identity: Mapping[str, object]
    candidate: Candidate | None = None
    baseline: Baseline | None = None
    weight: float | None = None

    @classmethod
    def of_recipe(cls, candidate: Candidate, device: str) -> "_Job":
        recipe, weights = candidate.recipe.sha256(), candidate.model.fingerprint()
        return cls(candidate.label, candidate.recipe, device, {"recipe": recipe, "weights": weights}, candidate)

    @classmethod
    def of_baseline(cls, baseline: Baseline, weight: float | None, carrier: Recipe) -> "_Job":
        identity = {
            "baseline": baseline.name,
            "weight": weight,
            "n_iterations": baseline.n_iterations,
            "image": carrier.image,
            "nonnegative": carrier.nonnegative,
            "scale": None if carrier.scale is None else asdict(carrier.scale),
            "preparation": None if carrier.preparation is None else asdict(carrier.preparation),
        }
        return cls(baseline.name, carrier, "cpu", identity, None, baseline, weight)

    def run(self, problem: Problem) -> tuple[NDArray[np.generic], str, int]:
        """The image in the units of the input, the solver's status and its iterations."""
        if self.candidate is not None:
            result = reconstruct(problem, self.candidate.model, self.recipe)
            return to_array(result.image), result.certificate.status, result.certificate.n_iterations
        assert self.baseline is not None
        assert problem.mask is not None
        maps = problem.operator.maps[0].numpy() if isinstance(problem.operator, Sense) else None
        image = self.baseline.run(
            problem.y[0].numpy(), problem.mask.array2d(), self.weight or 0.0, self.baseline.n_iterations, maps
        )
        found = torch.from_numpy(np.ascontiguousarray(image))[None, None]
        if not problem.operator.domain_dtype.is_complex:
            found = found.real.clamp(min=0) if self.recipe.nonnegative else found.real
        if problem.factor is not None:
            found = found * problem.factor
        return to_array(found * problem.scale), "", 0


class _Run:
    def __init__(
        self,
        files: Sequence[EvaluationFile],
        candidates: Sequence[Candidate],
        settings: EvaluationSettings,
        folder: Path,
        journal: Journal,
        tuning_files: Sequence[EvaluationFile] | None,
        progress: Progress | None,
    ) -> None:
        self.files, self.candidates, self.settings = files, candidates, settings
        self.folder, self.journal, self.progress = folder, journal, progress
        self.tuning_files = tuning_files
        self.reader = _Reader(settings)
        self.failures: list[str] = []
        self.skipped: list[str] = []
        self.notes: dict[str, list[str]] = {}  # note -> the slices that it is about
        self.scores: list[SliceScore] = []
        self.proxies: list[ProxyScore] = []
        self.kept: dict[tuple[Setting, str], list[tuple[float, str, SliceScore]]] = {}
        self.n_computed = self.n_done = self.n_slices = 0

    # ------------------------------------------------------------------------------------------------------- the whole

    def all(self) -> EvaluationResult:
        try:
            return self._all()
        finally:
            self.reader.close()

    def _all(self) -> EvaluationResult:
        groups = _by_setting(self._plans(self.files, "evaluated"))
        tuning = {} if self.tuning_files is None else _by_setting(self._plans(self.tuning_files, "for tuning"))
        evaluated = {plan.sha256 for plans in groups.values() for plan in plans}
        self.n_slices = sum(len(plan.slices) for plans in groups.values() for plan in plans)
        tuned: list[TunedBaseline] = []
        methods: dict[Setting, tuple[str, ...]] = {}
        reference: dict[Setting, str] = {}
        for setting in sorted(groups):
            plans = groups[setting]
            several = any(plan.n_coils > 1 for plan in plans)
            weights: dict[str, float | None] = {}
            for baseline in self.settings.baselines:
                if baseline.for_coils and not several:
                    continue
                if baseline.start is None:
                    weights[baseline.name] = None
                    continue
                found = self._tuned(setting, baseline, tuning.get(setting, plans), evaluated)
                if found is not None:
                    tuned.append(found)
                    weights[baseline.name] = found.weight
            labels = tuple(dict.fromkeys(c.label for plan in plans for c in plan.groups[setting]))
            methods[setting] = (*weights, *labels)
            reference[setting] = labels[0]
            for plan in plans:
                self._file(plan, setting, weights)
        worst = self._worst()
        return EvaluationResult(
            scores=tuple(self.scores),
            methods=methods,
            reference=reference,
            tuned=tuple(tuned),
            proxies=tuple(self.proxies),
            worst=tuple(worst),
            failures=tuple(self.failures),
            skipped=tuple(self.skipped),
            notes=tuple(_note(text, slices) for text, slices in self.notes.items()),
            n_computed=self.n_computed,
        )

    def _fail(self, name: str, error: BaseException) -> None:
        text = " ".join(str(error).split()) or type(error).__name__
        self.failures.append(f"{name}: {text}")

    def _say(self, line: str) -> None:
        if self.progress is not None:
            self.progress(self.n_done, self.n_slices, line)

    # -------------------------------------------------------------------------------------------------------- planning

    def _plans(self, files: Sequence[EvaluationFile], purpose: str) -> list[_Plan]:
        plans = []
        for file in files:
            try:
                plan = self._plan(file, purpose)
            except _FAILURES as error:
                self._fail(file.name, error)
                continue
            if plan is not None:
                plans.append(plan)
        return plans

    def _plan(self, file: EvaluationFile, purpose: str) -> _Plan | None:
        sha256 = sha256_of(file.path)
        if file.sha256 is not None and sha256 != file.sha256:
            raise FileError(file.path, "is not the file of the manifest: its SHA-256 is another one")
        opened = self.reader.open(file.path)
        first, end = self.settings.slices or (0, None)
        slices = range(opened.n_slices)[first:end]
        if not slices:
            raise FileError(file.path, f"has the slices 0 to {opened.n_slices - 1}, none of those asked for")
        acquisition = opened.read_slice(slices[0])
        contrast = file.contrast or acquisition.contrast or "unknown"
        if acquisition.target is None and not _is_full(acquisition):
            self.skipped.append(f"{file.name} ({purpose}): has no reference")
            return None
        groups: dict[Setting, list[Candidate]] = {}
        for candidate in self.candidates:
            if candidate.contrast in (None, contrast):
                groups.setdefault(_setting(file, acquisition, contrast, candidate.recipe), []).append(candidate)
        if not groups:
            self.skipped.append(f"{file.name} ({purpose}): no recipe is for the contrast {contrast}")
            return None
        return _Plan(file, sha256, opened.n_coils, slices, groups)

    # ---------------------------------------------------------------------------------------------------------- tuning

    def _tuned(
        self, setting: Setting, baseline: Baseline, plans: Sequence[_Plan], evaluated: set[str]
    ) -> TunedBaseline | None:
        """Climb on powers of two: three weights a factor of 4 apart, on until the best is inside, then its neighbours."""
        start = baseline.start
        assert start is not None
        every = [(plan, index) for plan in plans for index in plan.slices]
        n = min(self.settings.n_tuning_slices, len(every))
        chosen = [every[(2 * i + 1) * len(every) // (2 * n)] for i in range(n)]
        tried: dict[int, float] = {}

        def mean_psnr(step: int) -> float:
            if step not in tried:
                weight = start * 2.0**step
                found: list[float] = []
                for plan, index in chosen:
                    job = _Job.of_baseline(baseline, weight, plan.groups[setting][0].recipe)
                    score = self._score(plan, setting, index, job, quiet=True)
                    if score is not None and math.isfinite(score.psnr):
                        found.append(score.psnr)
                tried[step] = math.fsum(found) / len(found) if found else -math.inf
                self._say(
                    f"tuning {baseline.name}, {setting}: weight {weight:.3g}: {tried[step]:.2f} dB on {len(found)} slices"
                )
            return tried[step]

        low, high = -2, 2
        best = max((low, 0, high), key=mean_psnr)
        while best in (low, high) and abs(best) < _MAX_STEPS and math.isfinite(tried[best]):
            low, high = (best - 2, high) if best == low else (low, best + 2)
            best = max((low, best, high), key=mean_psnr)
        if not math.isfinite(tried[best]):
            self.failures.append(f"{baseline.name}, {setting}: no weight gave a result on any tuning slice")
            return None
        best = max((best, best - 1, best + 1), key=mean_psnr)
        return TunedBaseline(
            setting,
            baseline.name,
            start * 2.0**best,
            tuple((start * 2.0**step, value) for step, value in sorted(tried.items()) if math.isfinite(value)),
            tuple(f"{plan.file.name}, slice {index}" for plan, index in chosen),
            any(plan.sha256 in evaluated for plan, _ in chosen),
            best in (min(tried), max(tried)),
        )

    # -------------------------------------------------------------------------------------------------- slice by slice

    def _file(self, plan: _Plan, setting: Setting, weights: Mapping[str, float | None]) -> None:
        candidates = plan.groups[setting]
        jobs = [
            _Job.of_baseline(baseline, weights[baseline.name], candidates[0].recipe)
            for baseline in self.settings.baselines
            if baseline.name in weights
        ]
        jobs += [_Job.of_recipe(candidate, self.settings.device) for candidate in candidates]
        for index in plan.slices:
            n_before = len(self.failures)
            parts = []
            for job in jobs:
                score = self._score(plan, setting, index, job)
                if score is None:
                    continue
                self.scores.append(score)
                for text in score.notes.splitlines():
                    self.notes.setdefault(text, []).append(f"{plan.file.name}, slice {index}")
                parts.append(f"{job.name} {score.psnr:.2f} dB" + (" NOT CONVERGED" if score.failed_to_converge else ""))
                if job.candidate is not None and self.settings.n_proxy_parts:
                    self._proxy(plan, setting, index, job, score)
            self.n_done += 1
            failed = f"; FAILED: {self.failures[n_before]}" if len(self.failures) > n_before else ""
            self._say(f"{plan.file.name}, slice {index}, {setting}: {', '.join(parts)}{failed}")

    def _score(self, plan: _Plan, setting: Setting, index: int, job: _Job, *, quiet: bool = False) -> SliceScore | None:
        """The score of a method on a slice, from the journal or computed; None if that failed."""
        where = f"{plan.file.name}, slice {index}, {job.name}"
        try:
            data_range = self._data_range(plan)
        except _FAILURES as error:
            if not quiet:
                self._fail(where, error)
            return None
        compare = [data_range, self.settings.crop, self.settings.border]
        key = _hash(["score", plan.sha256, index, asdict(setting), job.identity, compare])
        known = self.journal.get(key)
        if known is not None:
            score = _parsed(
                self.journal.path, {**known, "file": plan.file.name, "patient": plan.patient, "method": job.name}
            )
            if job.candidate is not None:
                self._keep(key, score, None)
            return score
        try:
            read = self.reader.read(plan.file.path, index)
            reference = read.reference
            started = time.perf_counter()
            problem = self.reader.problem(plan.file.path, index, setting, job.recipe, job.device)
            image, status, n_iterations = job.run(problem)
            seconds = time.perf_counter() - started
            shown = self.reader.compared(np.abs(image) if np.iscomplexobj(image) else image, read)
            assert problem.mask is not None
            score = SliceScore(
                file=plan.file.name,
                slice_index=index,
                patient=plan.patient,
                contrast=setting.contrast,
                acceleration=setting.acceleration,
                sampling=setting.sampling,
                method=job.name,
                squared_error=float(np.sum(np.square(np.subtract(shown, reference, dtype=np.float64)))),
                target_energy=float(np.sum(np.square(reference, dtype=np.float64))),
                n_pixels=int(reference.size),
                data_range=data_range,
                ssim=ssim(shown, reference, data_range=data_range),
                realised_acceleration=float(problem.mask.realised_acceleration),
                seconds=seconds,
                weight=job.weight,
                status=status,
                n_iterations=n_iterations,
                notes="\n".join(problem.notes),
            )
        except _FAILURES as error:
            if not quiet:
                self._fail(where, error)
            return None
        if job.candidate is not None:  # before the line: what the journal has is not computed again
            self._keep(key, score, (shown, reference))
        self.journal.append(key, asdict(score))
        self.n_computed += 1
        return score

    def _data_range(self, plan: _Plan) -> float:
        """The peak of a volume, over all slices that are evaluated."""
        if self.settings.data_range != "target-max":
            return self.settings.data_range
        slices = [plan.slices.start, plan.slices.stop]
        key = _hash(["peak", plan.sha256, slices, self.settings.crop, self.settings.border])
        known = (self.journal.get(key) or {}).get("peak")
        if known is None:
            known = max(float(self.reader.read(plan.file.path, index).reference.max()) for index in plan.slices)
            if known > 0:
                self.journal.append(key, {"peak": known})
        if not isinstance(known, int | float) or not 0 < known < math.inf:
            raise FileError(plan.file.path, "has no positive maximum to be the data range", field="reference")
        return float(known)

    def _proxy(self, plan: _Plan, setting: Setting, index: int, job: _Job, score: SliceScore) -> None:
        assert job.candidate is not None
        parts, seed = self.settings.n_proxy_parts, self.settings.seed
        key = _hash(["proxies", plan.sha256, index, asdict(setting), job.identity, parts, seed])
        names = ("held_out_kspace_error", "held_out_share", "spread")
        values = self.journal.get(key)
        if values is None:
            try:
                problem = self.reader.problem(plan.file.path, index, setting, job.recipe, job.device)
                found = error_proxies(problem, job.candidate.model, job.recipe, n_parts=parts, seed=seed)
                values = {name: float(getattr(found, name)) for name in names}
                if not all(math.isfinite(float(getattr(found, name))) for name in names):
                    raise MrispsError("the error proxies are not finite")
            except _FAILURES as error:
                self._fail(f"{plan.file.name}, slice {index}, {job.name}, error proxies", error)
                return
            self.journal.append(key, values)
            self.n_computed += 1
        numbers = [values.get(name) for name in names]
        if not all(isinstance(number, int | float) for number in numbers):
            raise FileError(self.journal.path, "has a line that is not one of error proxies")
        held_out, share, spread = (float(str(number)) for number in numbers)
        self.proxies.append(ProxyScore(setting, job.name, plan.file.name, index, score.nmse, held_out, share, spread))

    # ------------------------------------------------------------------------------------------------------ worst cases

    def _keep(self, key: str, score: SliceScore, images: tuple[Real, Real] | None) -> None:
        """Remember the slice if it is one of the worst so far, and keep its images: at no time are there more."""
        group = self.kept.setdefault((score.setting, score.method), [])
        if any(known == key for _, known, _ in group):
            return
        group.append((score.psnr, key, score))
        group.sort(key=lambda entry: entry[:2])
        dropped = [known for _, known, _ in group[self.settings.n_worst :]]
        del group[self.settings.n_worst :]
        if images is not None and key not in dropped:
            buffer = io.BytesIO()
            np.savez_compressed(buffer, image=images[0], reference=images[1])
            (self.folder / "worst").mkdir(exist_ok=True)
            write_bytes(self._image_path(key), buffer.getvalue())
        for known in dropped:
            self._image_path(known).unlink(missing_ok=True)

    def _image_path(self, key: str) -> Path:
        return self.folder / "worst" / f"{key[:32]}.npz"

    def _worst(self) -> list[WorstCase]:
        cases = []
        for group in self.kept.values():
            for _, key, score in group:
                try:
                    with np.load(self._image_path(key), allow_pickle=False) as stored:
                        image, reference = (np.asarray(stored[name], np.float32) for name in ("image", "reference"))
                except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
                    self.notes.setdefault("the image of a worst case is not there any more", []).append(
                        f"{score.file}, slice {score.slice_index}"
                    )
                    continue
                if image.ndim == 2 and image.shape == reference.shape and np.isfinite(image).all():
                    cases.append(WorstCase(score, image, reference))
        return cases


@dataclass(frozen=True, eq=False)
class _Slice:
    """A slice, its reference as it is compared, and how large the reference was before it was cut."""

    acquisition: Acquisition
    reference: Real
    shape: tuple[int, int]


class _Reader:
    """Reads slices with their references.

    The last few slices and problems are kept: several methods ask for them in turn, and the search for a weight asks again for
    every weight; coil maps take longer than some reconstructions.
    """

    def __init__(self, settings: EvaluationSettings) -> None:
        self._settings = settings
        self._file: KspaceFile | None = None
        self._slices: dict[tuple[Path, int], _Slice] = {}
        self._problems: dict[tuple[object, ...], Problem] = {}

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def open(self, path: Path) -> KspaceFile:
        """The file, open until another one is asked for: of a three-dimensional measurement it holds the whole volume."""
        if self._file is None or self._file.path != path:
            self.close()
            self._file = open_slices(path)
        return self._file

    def read(self, path: Path, index: int) -> _Slice:
        """A slice with its reference."""
        if (path, index) not in self._slices:
            acquisition = self.open(path).read_slice(index)
            reference = _reference(acquisition)
            shape = (int(reference.shape[0]), int(reference.shape[1]))
            self._slices[path, index] = _Slice(acquisition, self._inner(reference, shape, path), shape)
            self._forget(self._slices)
        return self._slices[path, index]

    def problem(self, path: Path, index: int, setting: Setting, recipe: Recipe, device: str) -> Problem:
        """The reconstruction problem of a slice."""
        identity = (path, index, setting, recipe.sha256(), device)
        if identity not in self._problems:
            acquisition, preparation = self.read(path, index).acquisition, recipe.preparation
            if acquisition.noise_scan is not None and preparation is not None and preparation.prewhiten:
                raise FileError(
                    path,
                    f"recipe {recipe.name} whitens the noise: its images are in units of the noise, not of the reference "
                    "(set preparation.prewhiten=false)",
                    field="noise_scan",
                )
            undersample = setting.sampling != AS_ACQUIRED
            self._problems[identity] = mri_problem(acquisition, recipe, undersample=undersample, device=device)
            self._forget(self._problems)
        return self._problems[identity]

    def compared(self, image: NDArray[np.generic], of: _Slice) -> Real:
        """An image of a slice, cut as its reference is."""
        acquisition = of.acquisition
        height, width = (int(n) for n in image.shape)
        if acquisition.recon_shape is not None:  # what a reconstruction is cut to when it is written
            rows, columns = acquisition.recon_shape
            image = center_crop(image, (min(rows, height), min(columns, width)))
        return self._inner(image, of.shape, acquisition.source)

    def _forget(self, kept: dict[_K, _V]) -> None:
        while len(kept) > self._settings.n_tuning_slices + 1:
            del kept[next(iter(kept))]

    def _inner(self, image: NDArray[np.generic], reference: tuple[int, int], path: Path) -> Real:
        n_y, n_x = reference
        crop = self._settings.crop or ((n_x, n_x) if n_y >= n_x else (n_y, n_x))
        border = self._settings.border
        if image.shape[0] < crop[0] or image.shape[1] < crop[1]:
            raise FileError(
                path, f"expected at least {crop[0]} x {crop[1]} pixels, got {image.shape[0]} x {image.shape[1]}"
            )
        if 2 * border + 7 > min(crop):
            raise FileError(path, f"a border of {border} leaves fewer than 7 x 7 of {crop[0]} x {crop[1]} pixels")
        inner = center_crop(center_crop(image, crop), (crop[0] - 2 * border, crop[1] - 2 * border))
        return np.ascontiguousarray(inner, dtype=np.float32)


def _is_full(acquisition: Acquisition) -> bool:
    return acquisition.mask is None or bool(acquisition.mask.all())


def _reference(acquisition: Acquisition) -> Real:
    """The file's own, or the root of the sum of squares over the coils of fully sampled k-space."""
    if acquisition.target is not None:
        return acquisition.target
    if not _is_full(acquisition):
        raise FileError(acquisition.source, "has no reference")
    image: Real = np.linalg.norm(to_image(acquisition.kspace), axis=0).astype(np.float32)
    if acquisition.recon_shape is None:
        return image
    return center_crop(
        image, (min(acquisition.recon_shape[0], image.shape[0]), min(acquisition.recon_shape[1], image.shape[1]))
    )


def _setting(file: EvaluationFile, acquisition: Acquisition, contrast: str, recipe: Recipe) -> Setting:
    mask = acquisition.mask
    if mask is None or mask.all():
        rule = recipe.mask
        if rule is None:
            raise MrispsError(
                f"k-space is fully sampled, and recipe {recipe.name} has no mask rule to undersample it with"
            )
        sampling = f"{rule.kind}, centre {rule.center_fraction:g}, seed {rule.seed}"
        return Setting(contrast, float(rule.acceleration), sampling)
    stated = acquisition.attributes.get("acceleration")
    acceleration = file.acceleration
    if acceleration is None and isinstance(stated, int | float) and 1 <= stated < 1000:
        acceleration = float(stated)
    return Setting(
        contrast, float(round(mask.size / mask.sum()) if acceleration is None else acceleration), AS_ACQUIRED
    )


def _by_setting(plans: Sequence[_Plan]) -> dict[Setting, list[_Plan]]:
    groups: dict[Setting, list[_Plan]] = {}
    for plan in plans:
        for setting in plan.groups:
            groups.setdefault(setting, []).append(plan)
    return groups


def _note(text: str, slices: Sequence[str]) -> str:
    different = list(dict.fromkeys(slices))
    others = f" and {len(different) - 1} more" if len(different) > 1 else ""
    return f"{text} ({different[0]}{others})"


def _parsed(path: Path, record: Mapping[str, object]) -> SliceScore:
    try:
        return SliceScore(**record)  # type: ignore[arg-type]  # SliceScore checks its fields
    except (TypeError, ValueError) as error:
        raise FileError(path, f"has a line that is not a score: {error}") from error


def _hash(parts: Sequence[object]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
