"""Recipes and baselines side by side on files with references, slice by slice.

Every number is a record of a journal. Its key is a hash of what the number depends on: the software, the input, the recipe, the
weights, the device, and how images are compared. A failing file or slice is noted and does not stop the others.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from mrisps.campaign.loop import EXPECTED_ERRORS, Computation, Here, JournalRecord, Silent, key_of, loop
from mrisps.campaign.methods import Candidate, Method
from mrisps.campaign.references import ReferenceReader, has_reference, setting_of
from mrisps.campaign.sources import SourceFile, checked_sha256
from mrisps.campaign.worst_cases import WorstCases
from mrisps.errors import FileError, SettingsError
from mrisps.journal import Journal
from mrisps.quality.baselines import Baseline
from mrisps.quality.evaluation import EvaluationResult, EvaluationSettings, TunedBaseline
from mrisps.quality.metrics import ssim
from mrisps.quality.scores import Setting, SliceScore
from mrisps.settings import from_plain

__all__ = [
    "Candidate",
    "open_journal",
    "run_evaluation",
]

Say = Callable[[int, int, str], None]
"""(scores known, scores in all, what was just done)"""

_MAX_STEPS = 10  # of a search for a weight: 2^10 to either side


def open_journal(folder: Path) -> Journal:
    """The journal of an evaluation.

    Raises
    ------
    FileError
        See :class:`mrisps.journal.Journal`.
    """
    return Journal(folder / "journal.jsonl", "evaluate", version=2)


def run_evaluation(
    files: Sequence[SourceFile],
    candidates: Sequence[Candidate],
    settings: EvaluationSettings,
    folder: Path,
    *,
    tuning_files: Sequence[SourceFile] | None = None,
    say: Say | None = None,
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
        Output; exists. ``journal.jsonl`` and ``worst/`` are kept there, and used when the evaluation is repeated.
    tuning_files
        What the baselines are tuned on; None: the evaluated slices themselves, to the baselines' advantage.
    say
        Told of each score, and of each step of tuning.

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
    with (
        open_journal(folder) as journal,
        ReferenceReader(settings.crop, settings.border, settings.n_tuning_slices + 1) as reader,
    ):
        return _Evaluation(candidates, settings, folder, journal, reader, say).of(files, tuning_files)


@dataclass(frozen=True, eq=False)
class _Plan:
    """A file that could be opened, and what is to be done with it."""

    source: SourceFile
    sha256: str
    n_coils: int
    slices: range
    groups: Mapping[Setting, Sequence[Candidate]]

    @property
    def patient(self) -> str:
        return self.source.name if self.source.patient is None else self.source.patient


class _Evaluation:
    """What `run_evaluation` has found so far."""

    def __init__(
        self,
        candidates: Sequence[Candidate],
        settings: EvaluationSettings,
        folder: Path,
        journal: Journal,
        reader: ReferenceReader,
        say: Say | None,
    ) -> None:
        self.candidates, self.settings, self.journal, self.reader = candidates, settings, journal, reader
        self.worst = WorstCases(folder / "worst", settings.n_worst)
        self._say = say
        self.failures: list[str] = []
        self.skipped: list[str] = []
        self.notes: dict[str, list[str]] = {}  # note -> the slices that it is about
        self.scores: list[SliceScore] = []
        self.n_computed = self.n_done = self.n_all = 0

    def of(self, files: Sequence[SourceFile], tuning_files: Sequence[SourceFile] | None) -> EvaluationResult:
        groups = _by_setting(self._plans(files, "evaluated"))
        tuning = {} if tuning_files is None else _by_setting(self._plans(tuning_files, "for tuning"))
        evaluated = {plan.sha256 for plans in groups.values() for plan in plans}
        tuned: list[TunedBaseline] = []
        methods: dict[Setting, tuple[str, ...]] = {}
        reference: dict[Setting, str] = {}
        work: list[tuple[_Plan, Setting, list[Method]]] = []
        for setting in sorted(groups):
            plans = groups[setting]
            weights: dict[str, float | None] = {}
            for baseline in self.settings.baselines:
                if baseline.for_coils and not any(plan.n_coils > 1 for plan in plans):
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
                chosen = plan.groups[setting]
                baselines = [
                    Method.of_baseline(b, weights[b.name], chosen[0].recipe)
                    for b in self.settings.baselines
                    if b.name in weights
                ]
                recipes = [Method.of_recipe(candidate, self.settings.device) for candidate in chosen]
                work.append((plan, setting, [*baselines, *recipes]))
        self.n_all = sum(len(plan.slices) * len(used) for plan, _, used in work)
        for plan, setting, used in work:
            self._file(plan, setting, used)
        worst = self.worst.load(self.notes)
        return EvaluationResult(
            scores=tuple(self.scores),
            methods=methods,
            reference=reference,
            tuned=tuple(tuned),
            worst=tuple(worst),
            failures=tuple(self.failures),
            skipped=tuple(self.skipped),
            notes=tuple(_note(text, slices) for text, slices in self.notes.items()),
            n_computed=self.n_computed,
        )

    def _plans(self, files: Sequence[SourceFile], purpose: str) -> list[_Plan]:
        plans = []
        for file in files:
            try:
                plan = self._plan(file, purpose)
            except EXPECTED_ERRORS as error:
                self.fail(file.name, error)
                continue
            if plan is not None:
                plans.append(plan)
        return plans

    def _plan(self, file: SourceFile, purpose: str) -> _Plan | None:
        sha256 = checked_sha256(file)
        opened = self.reader.open(file.path)
        first, end = self.settings.slices or (0, None)
        slices = range(opened.n_slices)[first:end]
        if not slices:
            raise FileError(file.path, f"has the slices 0 to {opened.n_slices - 1}, none of those asked for")
        acquisition = opened.read_slice(slices[0])
        contrast = file.contrast or acquisition.contrast or "unknown"
        if not has_reference(acquisition):
            self.skipped.append(f"{file.name} ({purpose}): has no reference")
            return None
        groups: dict[Setting, list[Candidate]] = {}
        for candidate in self.candidates:
            if candidate.contrast in (None, contrast):
                groups.setdefault(setting_of(file, acquisition, contrast, candidate.recipe), []).append(candidate)
        if not groups:
            self.skipped.append(f"{file.name} ({purpose}): no recipe is for the contrast {contrast}")
            return None
        return _Plan(file, sha256, opened.n_coils, slices, groups)

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
                    method = Method.of_baseline(baseline, weight, plan.groups[setting][0].recipe)
                    scores = self._scores(plan, setting, [(index, method)], quiet=True)
                    found += [score.psnr for score in scores if math.isfinite(score.psnr)]
                tried[step] = math.fsum(found) / len(found) if found else -math.inf
                self.say(
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
            tuple(f"{plan.source.name}, slice {index}" for plan, index in chosen),
            any(plan.sha256 in evaluated for plan, _ in chosen),
            best in (min(tried), max(tried)),
        )

    def _file(self, plan: _Plan, setting: Setting, methods: Sequence[Method]) -> None:
        found = self._scores(plan, setting, [(index, method) for index in plan.slices for method in methods])
        self.scores += found
        for score in found:
            for text in score.notes.splitlines():
                self.notes.setdefault(text, []).append(f"{plan.source.name}, slice {score.slice_index}")

    def _scores(
        self, plan: _Plan, setting: Setting, wanted: Sequence[tuple[int, Method]], *, quiet: bool = False
    ) -> list[SliceScore]:
        """The scores of methods on slices, from the journal or computed, without those that failed."""
        try:
            peak = self._data_range(plan)
        except EXPECTED_ERRORS as error:
            if not quiet:
                self.fail(plan.source.name, error)
            return []
        compare = [peak, self.settings.crop, self.settings.border]
        tasks: list[tuple[Computation, Method]] = []
        for index, method in wanted:
            key = key_of("score", plan.sha256, index, asdict(setting), method.identity, compare)
            name = f"{plan.source.name}, slice {index}, {setting}, {method.name}"
            compute = self._scoring(key, plan, setting, index, method, peak)
            known = self.journal.get(key)
            if known is not None and method.model is not None:
                self.worst.consider(key, self._score(plan, method, known), None)
            tasks.append((Computation(key, name, compute), method))
        listener = _Teller(self, plan, quiet=quiet)
        end = loop([task for task, _ in tasks], self.journal, Here(), listener=listener)
        if end.known and not quiet:
            self.n_done += len(end.known)
            self.say(f"{plan.source.name}, {setting}: {len(end.known)} scores were in the journal")
        records = [(self.journal.get(task.key), method) for task, method in tasks]
        return [self._score(plan, method, record) for record, method in records if record is not None]

    def _score(self, plan: _Plan, method: Method, record: JournalRecord) -> SliceScore:
        """The score of a record; the file may have another name by now."""
        values = {**record, "file": plan.source.name, "patient": plan.patient, "method": method.name}
        try:
            return from_plain(SliceScore, values)
        except SettingsError as error:
            raise FileError(self.journal.path, f"has a line that is not a score: {error}") from error

    def _scoring(
        self, key: str, plan: _Plan, setting: Setting, index: int, method: Method, peak: float
    ) -> Callable[[], JournalRecord]:
        def compute() -> JournalRecord:
            read = self.reader.read(plan.source.path, index)
            started = time.perf_counter()
            problem = self.reader.problem(plan.source.path, index, setting, method.recipe, method.device)
            image, status, n_iterations = method.run(problem)
            seconds = time.perf_counter() - started
            shown = self.reader.compared(np.abs(image) if np.iscomplexobj(image) else image, read)
            assert problem.mask is not None
            score = SliceScore(
                file=plan.source.name,
                slice_index=index,
                patient=plan.patient,
                contrast=setting.contrast,
                acceleration=setting.acceleration,
                sampling=setting.sampling,
                method=method.name,
                squared_error=float(np.sum(np.square(np.subtract(shown, read.reference, dtype=np.float64)))),
                target_energy=float(np.sum(np.square(read.reference, dtype=np.float64))),
                n_pixels=int(read.reference.size),
                data_range=peak,
                ssim=ssim(shown, read.reference, data_range=peak),
                realised_acceleration=float(problem.mask.realised_acceleration),
                seconds=seconds,
                weight=method.weight,
                status=status,
                n_iterations=n_iterations,
                notes="\n".join(problem.notes),
            )
            if method.model is not None:  # before the line: what the journal has is not computed again
                self.worst.consider(key, score, (shown, read.reference))
            return asdict(score)

        return compute

    def _data_range(self, plan: _Plan) -> float:
        """The peak of a volume, over all slices that are evaluated."""
        if self.settings.data_range != "target-max":
            return self.settings.data_range
        slices = [plan.slices.start, plan.slices.stop]
        key = key_of("peak", plan.sha256, slices, self.settings.crop, self.settings.border)
        known = (self.journal.get(key) or {}).get("peak")
        if known is None:
            known = max(float(self.reader.read(plan.source.path, index).reference.max()) for index in plan.slices)
            if known > 0:
                self.journal.append(key, {"peak": known})
        if not isinstance(known, int | float) or not 0 < known < math.inf:
            raise FileError(plan.source.path, "has no positive maximum to be the data range", field="reference")
        return float(known)

    def fail(self, name: str, error: BaseException) -> None:
        text = " ".join(str(error).split()) or type(error).__name__
        self.failures.append(f"{name}: {text}")

    def say(self, line: str) -> None:
        if self._say is not None:
            self._say(self.n_done, self.n_all, line)


class _Teller(Silent[Computation]):
    """Counts what the loop computes, and says it."""

    def __init__(self, evaluation: _Evaluation, plan: _Plan, *, quiet: bool) -> None:
        self._evaluation, self._plan, self._quiet = evaluation, plan, quiet

    def finished(self, task: Computation, record: JournalRecord | None, error: Exception | None, /) -> None:
        """One score more, or one less."""
        whole = self._evaluation
        whole.n_computed += record is not None
        if self._quiet:
            return
        whole.n_done += 1
        if error is not None:
            whole.fail(task.name, error)
            whole.say(f"FAILED: {whole.failures[-1]}")
        elif record is not None:
            mark = " NOT CONVERGED" if record["status"] not in ("", "converged") else ""
            error_energy, n, peak = (float(str(record[name])) for name in ("squared_error", "n_pixels", "data_range"))
            psnr = 10 * math.log10(peak**2 * n / error_energy) if error_energy else math.inf
            whole.say(f"{task.name}: {psnr:.2f} dB{mark}")


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
