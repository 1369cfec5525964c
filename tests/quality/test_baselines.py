"""What is compared with: that maps are used, and that each method solves its problem on a small image."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mrisps.operators import Sense
from mrisps.quality.baselines import BASELINES, Baseline, cg_sense, zero_filled
from mrisps.sampling import SamplingMask

SHAPE = (24, 20)
Complex = NDArray[np.complex64]


@pytest.fixture
def coils(rng: np.random.Generator) -> tuple[Complex, NDArray[np.bool_], Complex, Complex]:
    """K-space of three coils (2-fold columns), mask, maps, image."""
    y, x = np.mgrid[-1 : 1 : SHAPE[0] * 1j, -1 : 1 : SHAPE[1] * 1j]
    image = ((x**2 + y**2 < 0.6) * np.exp(0.3j * x)).astype(np.complex64)
    maps = np.stack([np.exp(-((x - c) ** 2 + (y + c) ** 2) + 1j * c * y) for c in (-0.8, 0.0, 0.8)])
    maps = (maps / np.linalg.norm(maps, axis=0)).astype(np.complex64)
    mask = np.zeros(SHAPE[1], dtype=np.bool_)
    mask[::2] = mask[7:13] = True
    operator = Sense(SamplingMask.from_array(mask, SHAPE), torch.from_numpy(maps))
    kspace = operator.forward(torch.from_numpy(image)[None, None])[0].numpy()
    return kspace, mask, maps, image


def test_zero_filled_is_the_adjoint(coils: tuple[Complex, NDArray[np.bool_], Complex, Complex]) -> None:
    kspace, mask, maps, _ = coils
    operator = Sense(SamplingMask.from_array(mask, SHAPE), torch.from_numpy(maps))
    expected = operator.adjoint(torch.from_numpy(kspace)[None])[0, 0].numpy()
    np.testing.assert_allclose(zero_filled(kspace, maps), expected, atol=1e-5)
    assert torch.equal(operator.maps[0], torch.from_numpy(maps))


@pytest.mark.parametrize("baseline", BASELINES[1:], ids=lambda baseline: baseline.name)
def test_coils_make_up_for_what_is_missing(
    baseline: Baseline, coils: tuple[Complex, NDArray[np.bool_], Complex, Complex]
) -> None:
    kspace, mask, maps, image = coils
    found = baseline.run(kspace, mask, 1e-4, 300, maps)
    error = np.linalg.norm(found - image) / np.linalg.norm(image)
    assert error < 0.05 < np.linalg.norm(zero_filled(kspace, maps) - image) / np.linalg.norm(image)


def test_one_coil_is_zero_filling_times_a_number(coils: tuple[Complex, NDArray[np.bool_], Complex, Complex]) -> None:
    """Why CG-SENSE is left out there."""
    kspace, mask = coils[0][:1], coils[1]
    np.testing.assert_allclose(cg_sense(kspace, mask, 0.5, 30), zero_filled(kspace) / 1.5, atol=1e-5)
    assert [baseline.for_coils for baseline in BASELINES] == [False, True, False, False]
