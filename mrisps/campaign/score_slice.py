"""The score of one method on one slice."""

import time

import numpy as np

from mrisps.campaign.methods import Method
from mrisps.campaign.plans import AS_ACQUIRED, Plan
from mrisps.campaign.references import Real, ReferenceReader
from mrisps.quality.metrics import ssim
from mrisps.quality.scores import Setting, SliceScore

__all__ = ["score_slice"]


def score_slice(
    reader: ReferenceReader, plan: Plan, setting: Setting, index: int, method: Method, peak: float
) -> tuple[SliceScore, tuple[Real, Real]]:
    """Reconstruct slice ``index`` of a plan and compare it: the score, and image and reference as they were compared.

    Parameters
    ----------
    reader, plan, setting, method
        See there.
    peak
        The data range, in the units of the reference.
    """
    path = plan.source.path
    read = reader.read(path, index)
    started = time.perf_counter()
    undersample = setting.sampling != AS_ACQUIRED
    problem = reader.problem(path, index, method.recipe, method.device, undersample=undersample)
    image, status, n_iterations = method.run(problem)
    seconds = time.perf_counter() - started
    shown = reader.compared(np.abs(image) if np.iscomplexobj(image) else image, read)
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
    return score, (shown, read.reference)
