"""Recipes and baselines side by side on files with references, slice by slice.

    files -> plans, by setting -> methods: recipes, and baselines with the weight that is best on some slices -> scores

Every number is a record of a journal. Its key is a hash of what the number depends on: the software, the input, the recipe, the
weights, the device, and how images are compared. A failing file or slice is noted and does not stop the others.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from mrisps.campaign.loop import EXPECTED_ERRORS, Computation, Here, JournalRecord, key_of, loop
from mrisps.campaign.methods import Candidate, Method
from mrisps.campaign.plans import Plan, Plans
from mrisps.campaign.references import ReferenceReader
from mrisps.campaign.score_slice import score_slice
from mrisps.campaign.search import climb
from mrisps.campaign.sources import SourceFile
from mrisps.campaign.worst_cases import WorstCases
from mrisps.errors import FileError, SettingsError
from mrisps.journal import Journal
from mrisps.quality.baselines import Baseline
from mrisps.quality.evaluation import EvaluationResult, EvaluationSettings, TunedBaseline
from mrisps.quality.scores import Setting, SliceScore
from mrisps.settings import from_plain

__all__ = ["Candidate", "open_journal", "run_evaluation"]

Say = Callable[[int, int, str], None]
"""(scores known, scores in all, what was just done)"""

_MAX_STEPS = 10  # of a search for a weight: 2^10 to either side


def open_journal(folder: Path) -> Journal:
    """The journal of an evaluation; see :class:`mrisps.journal.Journal`."""
    return Journal(folder / "journal.jsonl", "evaluate", version=2)


def run_evaluation(
    files: Sequence[SourceFile],
    candidates: Sequence[Candidate],
    settings: EvaluationSettings,
    folder: Path,
    *,
    tuning_files: Sequence[SourceFile] | None = None,
    say: Say = lambda done, total, line: None,
) -> EvaluationResult:
    """Evaluate recipes and baselines on every slice that has a reference.

    Fully sampled files are undersampled with each recipe's mask rule; others are taken with the mask that they have. The
    reference is the file's own, or, where it has none and k-space is fully sampled, the root of the sum of squares over coils.

    Parameters
    ----------
    files, candidates, settings
        What is evaluated, the recipes, and how.
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


class _Evaluation:
    """What `run_evaluation` has found so far."""

    def __init__(
        self,
        candidates: Sequence[Candidate],
        settings: EvaluationSettings,
        folder: Path,
        journal: Journal,
        reader: ReferenceReader,
        say: Say,
    ) -> None:
        self.settings, self.journal, self.reader = settings, journal, reader
        self.plans = Plans(candidates, settings, reader)
        self.worst = WorstCases(folder / "worst", settings.n_worst)
        self._say = say
        self.notes: dict[str, list[str]] = {}  # note -> the slices that it is about
        self.n_computed = self.n_done = self.n_all = 0

    def say(self, line: str) -> None:
        self._say(self.n_done, self.n_all, line)

    def of(self, files: Sequence[SourceFile], tuning_files: Sequence[SourceFile] | None) -> EvaluationResult:
        groups = self.plans.by_setting(files, "evaluated")
        tuning = {} if tuning_files is None else self.plans.by_setting(tuning_files, "for tuning")
        evaluated = {plan.sha256 for plans in groups.values() for plan in plans}
        tuned: list[TunedBaseline] = []
        methods: dict[Setting, tuple[str, ...]] = {}
        reference: dict[Setting, str] = {}
        work: list[tuple[Plan, Setting, list[Method]]] = []
        for setting, plans in sorted(groups.items()):
            weights: dict[str, float | None] = {}
            for baseline in self.settings.baselines:
                if baseline.for_coils and not any(plan.n_coils > 1 for plan in plans):
                    continue
                if baseline.start is None:
                    weights[baseline.name] = None
                    continue
                found = self._tuned(setting, baseline, baseline.start, tuning.get(setting, plans), evaluated)
                if found is not None:
                    tuned.append(found)
                    weights[baseline.name] = found.weight
            labels = tuple(dict.fromkeys(c.label for plan in plans for c in plan.groups[setting]))
            methods[setting], reference[setting] = (*weights, *labels), labels[0]
            used = [baseline for baseline in self.settings.baselines if baseline.name in weights]
            for plan in plans:
                chosen = plan.groups[setting]
                made = [Method.of_baseline(b, weights[b.name], chosen[0].recipe) for b in used]
                made += [Method.of_recipe(candidate, self.settings.device) for candidate in chosen]
                work.append((plan, setting, made))
        self.n_all = sum(len(plan.slices) * len(made) for plan, _, made in work)
        scores = [score for plan, setting, made in work for score in self._file(plan, setting, made)]
        return EvaluationResult(
            scores=tuple(scores),
            methods=methods,
            reference=reference,
            tuned=tuple(tuned),
            worst=tuple(self.worst.load(self.notes)),
            failures=tuple(self.plans.failures),
            skipped=tuple(self.plans.skipped),
            notes=tuple(_note(text, slices) for text, slices in self.notes.items()),
            n_computed=self.n_computed,
        )

    def _tuned(
        self, setting: Setting, baseline: Baseline, start: float, plans: Sequence[Plan], evaluated: set[str]
    ) -> TunedBaseline | None:
        """Climb on powers of two, by the mean PSNR of some slices."""
        every = [(plan, index) for plan in plans for index in plan.slices]
        n = min(self.settings.n_tuning_slices, len(every))
        chosen = [every[(2 * i + 1) * len(every) // (2 * n)] for i in range(n)]

        def mean_psnr(step: int) -> float:
            weight = start * 2.0**step
            found: list[float] = []
            for plan, index in chosen:
                method = Method.of_baseline(baseline, weight, plan.groups[setting][0].recipe)
                scores = self._scores(plan, setting, [(index, method)], quiet=True)
                found += [score.psnr for score in scores if math.isfinite(score.psnr)]
            mean = math.fsum(found) / len(found) if found else -math.inf
            self.say(f"tuning {baseline.name}, {setting}: weight {weight:.3g}: {mean:.2f} dB on {len(found)} slices")
            return mean

        tried = climb(mean_psnr, _MAX_STEPS)
        best = max(tried, key=lambda step: tried[step])
        if not math.isfinite(tried[best]):
            self.plans.failures.append(f"{baseline.name}, {setting}: no weight gave a result on any tuning slice")
            return None
        return TunedBaseline(
            setting,
            baseline.name,
            start * 2.0**best,
            tuple((start * 2.0**step, value) for step, value in sorted(tried.items()) if math.isfinite(value)),
            tuple(f"{plan.source.name}, slice {index}" for plan, index in chosen),
            any(plan.sha256 in evaluated for plan, _ in chosen),
            best in (min(tried), max(tried)),
        )

    def _file(self, plan: Plan, setting: Setting, methods: Sequence[Method]) -> list[SliceScore]:
        found = self._scores(plan, setting, [(index, method) for index in plan.slices for method in methods])
        for score in found:
            for text in score.notes.splitlines():
                self.notes.setdefault(text, []).append(f"{plan.source.name}, slice {score.slice_index}")
        return found

    def _scores(
        self, plan: Plan, setting: Setting, wanted: Sequence[tuple[int, Method]], *, quiet: bool = False
    ) -> list[SliceScore]:
        """The scores of methods on slices, from the journal or computed, without those that failed."""
        try:
            peak = self._data_range(plan)
        except EXPECTED_ERRORS as error:
            if not quiet:
                self.plans.fail(plan.source.name, error)
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

        def finished(task: Computation, record: JournalRecord | None, error: Exception | None) -> None:
            self.n_computed += record is not None
            if quiet:
                return
            self.n_done += 1
            if error is not None:
                self.plans.fail(task.name, error)
                self.say(f"FAILED: {self.plans.failures[-1]}")
            elif record is not None:
                score = from_plain(SliceScore, record)
                mark = " NOT CONVERGED" if score.failed_to_converge else ""
                self.say(f"{task.name}: {score.psnr:.2f} dB{mark}")

        end = loop([task for task, _ in tasks], self.journal, Here(), finished=finished)
        if end.known and not quiet:
            self.n_done += len(end.known)
            self.say(f"{plan.source.name}, {setting}: {len(end.known)} scores were in the journal")
        records = [(self.journal.get(task.key), method) for task, method in tasks]
        return [self._score(plan, method, record) for record, method in records if record is not None]

    def _score(self, plan: Plan, method: Method, record: JournalRecord) -> SliceScore:
        """The score of a record; the file may have another name by now."""
        values = {**record, "file": plan.source.name, "patient": plan.patient, "method": method.name}
        try:
            return from_plain(SliceScore, values)
        except SettingsError as error:
            raise FileError(self.journal.path, f"has a line that is not a score: {error}") from error

    def _scoring(
        self, key: str, plan: Plan, setting: Setting, index: int, method: Method, peak: float
    ) -> Callable[[], JournalRecord]:
        def compute() -> JournalRecord:
            score, images = score_slice(self.reader, plan, setting, index, method, peak)
            if method.model is not None:  # before the line: what the journal has is not computed again
                self.worst.consider(key, score, images)
            return asdict(score)

        return compute

    def _data_range(self, plan: Plan) -> float:
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


def _note(text: str, slices: Sequence[str]) -> str:
    different = list(dict.fromkeys(slices))
    others = f" and {len(different) - 1} more" if len(different) > 1 else ""
    return f"{text} ({different[0]}{others})"
