"""A run: a recipe, weights and options, applied to one source. Every way to an image goes through here.

    source --open once--> slices --read once--> Problem --solve--> SliceResult --> a Result in memory, or a file

A source is a file with k-space, k-space in memory, or a grey image. Commands, notebooks, batches and evaluations differ only
in what they do with the :class:`SliceResult` of each slice.
"""

import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from mrisps._version import __version__, code_commit, software_key
from mrisps.errors import MrispsError
from mrisps.io.acquisition import Acquisition
from mrisps.io.arrays import ArrayLayout
from mrisps.io.files import sha256_of
from mrisps.io.image_volume import cropped_geometry
from mrisps.io.images import center_crop, read_image
from mrisps.io.json_text import JsonValue
from mrisps.io.kspace_file import KspaceFile
from mrisps.io.open import open_kspace
from mrisps.io.result_file import ResultWriter
from mrisps.reconstruction.choices import FROM_ZEROS, ZEROS_NOTE, SliceChoice
from mrisps.reconstruction.grey_image import GreyImage, Source
from mrisps.reconstruction.memory import MemoryEstimate, of_source
from mrisps.reconstruction.problem import Problem, image_problem, mri_problem, to_array
from mrisps.reconstruction.recipe import Recipe
from mrisps.reconstruction.reconstruct import reconstruct_together, slice_certificate
from mrisps.reconstruction.slice_result import FileResult, SliceResult
from mrisps.reconstruction.together import Posed, UnusableResultError, as_many_as_fit, in_groups
from mrisps.reconstruction.weights import Weights
from mrisps.sampling import SamplingMask, read_mask
from mrisps.solvers import Reconstruction
from mrisps.threads import processor_name

__all__ = ["Progress", "Run", "software"]

Progress = Callable[[int, int, int, float], None]
"""Called with (position of the slice, the first of those in one solve; number of slices; iteration; residual)."""

Real = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Run:
    """Everything that an image depends on besides its source.

    Parameters
    ----------
    recipe, weights
        How the problem is set up and solved, and with which prior.
    mask
        Which samples were acquired: a mask, or a mask file; ``"from-zeros"``: those that are not zero in any slice (the source
        is read twice); None: what the source states.
    undersample
        Undersample fully sampled k-space by the recipe's mask rule first.
    scale
        Input units per unit of an image whose maximum is about 1; None: the recipe's rule.
    noise_std
        Noise of an image in its units, for denoising and super-resolution; None: the recipe's.
    crop
        Cut images to the size that the source asks for.
    slices
        Which slices.
    layout
        What the axes of an array file are.
    colour_to_grey
        Convert colour images instead of refusing them.
    device
        Where to compute, for example ``"cpu"`` or ``"cuda:0"``.
    maps_folder
        Where estimated coil maps are kept for the next time; None keeps none.
    slices_together
        Slices in one solve, each with its own maps, mask and end; only slices of the same shapes go together, and no more than fit
        into memory. None: one on a CPU, where more gain little, and as many as the memory holds elsewhere. Results agree to the
        solver's tolerance.
    """

    recipe: Recipe
    weights: Weights
    mask: SamplingMask | Path | Literal["from-zeros"] | None = None
    undersample: bool = False
    scale: float | None = None
    noise_std: float | None = None
    crop: bool = True
    slices: SliceChoice = field(default_factory=SliceChoice)
    layout: ArrayLayout | None = None
    colour_to_grey: bool = False
    device: str = "cpu"
    maps_folder: Path | None = None
    slices_together: int | None = None

    def __post_init__(self) -> None:
        if self.scale is not None and not 0 < self.scale < float("inf"):
            raise ValueError(f"scale: expected a number > 0, got {self.scale}")
        if self.noise_std is not None and not 0 <= self.noise_std < float("inf"):
            raise ValueError(f"noise_std: expected a number >= 0, got {self.noise_std}")
        if self.slices_together is not None and not self.slices_together >= 1:
            raise ValueError(f"slices_together: expected a number >= 1, got {self.slices_together}")
        if self.undersample and self.recipe.mask is None:
            raise MrispsError(f"undersample: recipe {self.recipe.name} has no mask rule")
        if self.undersample and self.mask is not None:
            raise ValueError("undersample, mask: give one of them, not both")

    def with_mask(self, mask: SamplingMask | Path | Literal["from-zeros"] | None) -> "Run":
        """The same run with another mask."""
        return replace(self, mask=mask)

    def options(self) -> dict[str, JsonValue]:
        """The options, as plain values for JSON."""
        given: JsonValue = "from the file or the recipe"
        if isinstance(self.mask, SamplingMask):
            given = self.mask.to_record()
        elif self.mask is not None:
            given = sha256_of(self.mask) if isinstance(self.mask, Path) else self.mask
        return {
            "undersample": self.undersample,
            "crop": self.crop,
            "mask": given,
            "scale": "from the recipe" if self.scale is None else self.scale,
            "noise_std": "from the recipe" if self.noise_std is None else self.noise_std,
            "layout": None if self.layout is None else {**asdict(self.layout), "axes": list(self.layout.axes)},
            "colour_to_grey": self.colour_to_grey,
        }

    def key(self, input_sha256: str) -> str:
        """SHA-256 of everything that the result depends on: software and its commit, recipe, weights, options, device, input."""
        facts = {
            "software": [software_key(), torch.__version__],
            "recipe": self.recipe.sha256(),
            "weights": self.weights.model.fingerprint(),
            "options": self.options(),
            "slices": [self.slices.start, self.slices.stop],
            "device": self.device.partition(":")[0],
            "input": input_sha256,
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def record(self, source: Source, *, input_sha256: str | None = None) -> dict[str, JsonValue]:
        """What a result from an open source depends on: versions, recipe, weights, input, options, machine."""
        return {
            "software": {**software()},
            "recipe": {**self.recipe.to_dict(), "sha256": self.recipe.sha256()},  # type: ignore[dict-item]  # plain values
            "weights": {"name": self.weights.name, "sha256": self.weights.model.fingerprint()},
            "input": {"name": source.path.name, "sha256": input_sha256 or source.sha256()},
            "options": self.options(),
            "machine": {
                "python": platform.python_version(),
                "system": platform.system(),
                "processor": processor_name(),
                "cores": os.cpu_count(),
                "device": self.device,
                "threads": torch.get_num_threads(),
            },
        }

    @contextmanager
    def open(self, source: Path | str | Source) -> Iterator[Source]:
        """Open a source, and close it at the end if it was opened here.

        Raises
        ------
        FileError
            It cannot be read, or is no source for the recipe's task.
        """
        if not isinstance(source, str | Path):
            yield source
        elif self.recipe.task == "mri":
            with open_kspace(Path(source), self.layout) as file:
                yield file
        else:
            yield GreyImage(Path(source), read_image(Path(source), color_to_grey=self.colour_to_grey))

    def chosen(self, source: Source) -> range:
        """The slices of an open source that this run takes."""
        return self.slices.of(source.path, source.n_slices if isinstance(source, KspaceFile) else 1)

    def memory(self, source: Source) -> MemoryEstimate:
        """The memory of one solve: of the first chosen slice, and of the others that go with it, before anything is computed."""
        chosen = self.chosen(source)
        needed = of_source(source, self.recipe, self.weights.model, chosen[0], device=self.device)
        return as_many_as_fit(needed, self.slices_together, len(chosen), self.device)

    def results(self, source: Source, *, progress: Progress | None = None) -> Iterator[SliceResult]:
        """Reconstruct the slices of an open source, in order: each is read, prepared and solved once.

        Parameters
        ----------
        source
            The open source.
        progress
            Called after every iteration.

        Raises
        ------
        FileError
            Names the file and the field that is wrong.
        UnusableResultError
            A slice ended with NaN or infinity.
        """
        chosen = self.chosen(source)
        given = self.resolved(source).mask
        mask = given if isinstance(given, SamplingMask) else None
        crop = source.recon_shape if self.crop and isinstance(source, KspaceFile) else None
        n_done = 0
        posed = self._posed(source, chosen, mask)
        for group in in_groups(posed, len(chosen), self.weights.model, self.recipe, self.slices_together, self.device):

            def report(iteration: int, residual: float, position: int = n_done) -> None:
                if progress is not None:
                    progress(position, len(chosen), iteration, residual)

            yield from self.solve(group, crop, progress=report)
            n_done += len(group)

    def _posed(self, source: Source, chosen: range, mask: SamplingMask | None) -> Iterator[Posed]:
        """The chosen slices, in order, each read and prepared when its turn comes."""
        if isinstance(source, GreyImage):
            yield 0, self.problem(source.pixels), None
            return
        for index in chosen:
            acquisition = source.read_slice(index)
            problem = self.problem(acquisition, mask)
            if self.mask == FROM_ZEROS and problem.mask is not None and not problem.mask.is_fully_sampled:
                problem = replace(problem, notes=(ZEROS_NOTE, *problem.notes))
            yield index, problem, acquisition

    def problem(self, given: Acquisition | Real, mask: SamplingMask | None = None) -> Problem:
        """The problem of one slice, or of one image.

        Parameters
        ----------
        given
            A slice, or float32 pixels (y, x).
        mask
            Which samples were acquired, where the slice does not say.
        """
        if isinstance(given, Acquisition):
            return mri_problem(
                given,
                self.recipe,
                mask=mask,
                undersample=self.undersample,
                scale=self.scale,
                device=self.device,
                maps_folder=self.maps_folder,
            )
        return image_problem(given, self.recipe, noise_std=self.noise_std, scale=self.scale, device=self.device)

    def solve(
        self,
        posed: Sequence[Posed],
        crop: tuple[int, int] | None = None,
        *,
        progress: Callable[[int, float], None] | None = None,
    ) -> Iterator[SliceResult]:
        """Solve problems of one space together; (y, x) of ``crop`` is what is kept of the images."""
        model, problems = self.weights.model, [problem for _, problem, _ in posed]
        solved = reconstruct_together(problems, model, self.recipe, progress=progress)
        for one, found in zip(posed, solved, strict=True):
            yield self._slice_result(*one, found, crop)

    def _slice_result(
        self,
        index: int,
        problem: Problem,
        acquisition: Acquisition | None,
        solved: Reconstruction,
        crop: tuple[int, int] | None,
    ) -> SliceResult:
        """In arrays; ``acquisition`` gives the reference image and the place in the patient."""
        image = to_array(solved.image, crop)
        whole = (int(solved.image.shape[-2]), int(solved.image.shape[-1]))
        target = None if acquisition is None else acquisition.target
        if target is not None:
            fits = all(n >= m for n, m in zip(target.shape, image.shape, strict=True))
            target = center_crop(target, image.shape) if fits else None
        parts = {name: to_array(getattr(solved, name), crop) for name in ("smooth", "sparse", "cost_map")}
        attention = None if solved.attention is None else to_array(solved.attention, crop).astype(np.float32)
        labels = {} if acquisition is None or not acquisition.labels else {"labels": dict(acquisition.labels)}
        for name, part in {"image": image, **parts}.items():
            if not np.isfinite(part).all():
                raise UnusableResultError(f"slice {index}: {name} is not finite in the units of the input")
        return SliceResult(
            index=index,
            image=image,
            smooth=parts["smooth"],
            sparse=parts["sparse"],
            cost_map=parts["cost_map"].astype(np.float32),
            certificate={**slice_certificate(problem, solved, self.recipe), **labels},
            problem=problem,
            target=target,
            geometry=None if acquisition is None else cropped_geometry(acquisition, whole, image.shape),
            crop=crop,
            attention=attention,
        )

    def resolved(self, source: Source) -> "Run":
        """The same run, with a mask file read, or a mask from zeros found in this source: not zero in any chosen slice."""
        if self.mask is None or isinstance(self.mask, SamplingMask):
            return self
        if isinstance(source, GreyImage):
            raise ValueError("mask: an image has none")
        if isinstance(self.mask, Path):
            return self.with_mask(read_mask(self.mask, source.shape))
        return self.with_mask(SamplingMask.from_zeros(source.read_slice(i).kspace for i in self.chosen(source)))

    def write(
        self,
        source: Path | str | Source,
        destination: Path,
        *,
        input_sha256: str | None = None,
        keep: bool = True,
        progress: Progress | None = None,
    ) -> FileResult:
        """Reconstruct a source with k-space into a file that ``fastmri.evaluate`` reads, slice by slice.

        The output appears when all slices are there; after an error, what was there before is untouched.

        Parameters
        ----------
        source, destination
            Input and output.
        input_sha256
            SHA-256 of the input, where that is known already.
        keep
            Write the output also if the verdict on a slice is ``"unusable"``.
        progress
            Called after every iteration.

        Raises
        ------
        FileError
            Names the file and the field that is wrong, or says why the output cannot be written.
        UnusableResultError
            A slice ended with NaN or infinity, or is unusable and not to be kept; nothing is written.
        """
        certificates: list[Mapping[str, JsonValue]] = []
        notes: dict[str, None] = {}
        times: dict[str, JsonValue] = {"started": datetime.now(UTC).isoformat(timespec="seconds")}
        clock = time.monotonic()
        with self.open(source) as file:
            if isinstance(file, GreyImage):
                raise MrispsError(f"{file.path}: is an image; k-space was expected")
            chosen, run = self.chosen(file), self.resolved(file)
            record = run.record(file, input_sha256=input_sha256)
            record["slices"], record["times"] = list(chosen), times
            with ResultWriter(
                destination, len(chosen), attributes=file.attributes, provenance=record, header=file.header
            ) as writer:
                for position, made in enumerate(run.results(file, progress=progress)):
                    extras = {**made.parts, **made.evidence}
                    writer.write_slice(position, made.image, extras, made.certificate, made.geometry)
                    certificates.append(made.certificate)
                    notes.update(dict.fromkeys(made.problem.notes))
                    if made.verdict.level == "unusable" and not keep:
                        reasons = "; ".join(made.verdict.reasons)
                        raise UnusableResultError(f"slice {made.index} is unusable, nothing is written: {reasons}")
                times["seconds"] = round(time.monotonic() - clock, 3)  # the writer puts the record into the file last
        return FileResult(Path(destination), tuple(certificates), tuple(notes))


def software() -> dict[str, str | None]:
    """Versions, and the commit, of what computes."""
    return {"mrisps": __version__, "commit": code_commit(), "torch": torch.__version__, "numpy": np.__version__}
