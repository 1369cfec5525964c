"""What an evaluation does with each file: which slices, with which recipes, in which setting."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from mrisps.campaign.loop import EXPECTED_ERRORS
from mrisps.campaign.methods import Candidate
from mrisps.campaign.references import ReferenceReader, is_full
from mrisps.campaign.sources import SourceFile, checked_sha256
from mrisps.errors import FileError, MrispsError
from mrisps.io.acquisition import Acquisition
from mrisps.quality.evaluation import EvaluationSettings
from mrisps.quality.scores import Setting
from mrisps.reconstruction.recipe import Recipe

__all__ = ["AS_ACQUIRED", "Plan", "Plans"]

AS_ACQUIRED = "as acquired"
"""The sampling of a setting whose files were undersampled when they were measured."""


@dataclass(frozen=True, eq=False)
class Plan:
    """A file that could be opened, and what is to be done with it."""

    source: SourceFile
    sha256: str
    n_coils: int
    slices: range
    groups: Mapping[Setting, Sequence[Candidate]]

    @property
    def patient(self) -> str:
        """Whose the file is; by default its own."""
        return self.source.name if self.source.patient is None else self.source.patient


class Plans:
    """Plans of files, by setting; and why some files have none.

    Parameters
    ----------
    candidates, settings, reader
        See there.
    """

    def __init__(self, candidates: Sequence[Candidate], settings: EvaluationSettings, reader: ReferenceReader) -> None:
        self._candidates, self._settings, self._reader = candidates, settings, reader
        self.failures: list[str] = []
        self.skipped: list[str] = []

    def fail(self, name: str, error: BaseException) -> None:
        """Note a failure."""
        self.failures.append(f"{name}: {' '.join(str(error).split()) or type(error).__name__}")

    def by_setting(self, files: Sequence[SourceFile], purpose: str) -> dict[Setting, list[Plan]]:
        """The plans of files; those that fail, or have no reference, are noted."""
        found: dict[Setting, list[Plan]] = {}
        for file in files:
            try:
                for plan in self._of(file, purpose):
                    for setting in plan.groups:
                        found.setdefault(setting, []).append(plan)
            except EXPECTED_ERRORS as error:
                self.fail(file.name, error)
        return found

    def _of(self, file: SourceFile, purpose: str) -> Iterator[Plan]:
        """The plan of a file, or none."""
        sha256 = checked_sha256(file)
        opened = self._reader.open(file.path)
        first, end = self._settings.slices or (0, None)
        slices = range(opened.n_slices)[first:end]
        if not slices:
            raise FileError(file.path, f"has the slices 0 to {opened.n_slices - 1}, none of those asked for")
        acquisition = opened.read_slice(slices[0])
        contrast = file.contrast or acquisition.contrast or "unknown"
        if acquisition.target is None and not is_full(acquisition):
            self.skipped.append(f"{file.name} ({purpose}): has no reference")
            return
        groups: dict[Setting, list[Candidate]] = {}
        for candidate in self._candidates:
            if candidate.contrast in (None, contrast):
                groups.setdefault(_setting_of(file, acquisition, contrast, candidate.recipe), []).append(candidate)
        if groups:
            yield Plan(file, sha256, opened.n_coils, slices, groups)
        else:
            self.skipped.append(f"{file.name} ({purpose}): no recipe is for the contrast {contrast}")


def _setting_of(source: SourceFile, acquisition: Acquisition, contrast: str, recipe: Recipe) -> Setting:
    """What the scores of a slice are averaged with: fully sampled files are undersampled with the recipe's rule."""
    mask = acquisition.mask
    if mask is None or mask.all():
        rule = recipe.mask
        if rule is None:
            why = f"recipe {recipe.name} has no mask rule to undersample it with"
            raise MrispsError(f"k-space is fully sampled, and {why}")
        sampling = f"{rule.kind}, centre {rule.center_fraction:g}, seed {rule.seed}"
        return Setting(contrast, float(rule.acceleration), sampling)
    stated = acquisition.attributes.get("acceleration")
    acceleration = source.acceleration
    if acceleration is None and isinstance(stated, int | float) and 1 <= stated < 1000:
        acceleration = float(stated)
    nominal = float(round(mask.size / mask.sum()) if acceleration is None else acceleration)
    return Setting(contrast, nominal, AS_ACQUIRED)
