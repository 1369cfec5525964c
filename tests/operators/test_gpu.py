"""Every operator on a CUDA device."""

import pytest
import torch

from mrisps.operators import (
    BlurDownsample,
    Fourier,
    FourierSubsampling,
    Identity,
    LinearOperator,
    Sense,
    SensitivityMaps,
)
from mrisps.sampling import SamplingMask, make_mask

from .helpers import check_operator, random_tensor

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]

MASK = make_mask("random", (8, 9), 2, 0.2)
MAPS = random_tensor((2, 3, 8, 9), torch.complex128)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize(
    "make",
    [
        lambda dtype: Identity((8, 9), dtype, "cuda"),
        lambda dtype: Fourier((8, 9), torch.complex128, "cuda"),
        lambda dtype: FourierSubsampling(MASK, domain_dtype=dtype, device="cuda"),
        lambda dtype: BlurDownsample((17, 18), 5, 1.0, 2, dtype, "cuda"),
        lambda dtype: SensitivityMaps(MAPS, dtype, "cuda"),
        lambda dtype: Sense(MASK, MAPS.cuda(), dtype),
        lambda dtype: (
            2 * FourierSubsampling(MASK.tensor("cuda"), (8, 9), dtype)
            - FourierSubsampling(MASK.tensor("cuda"), (8, 9), dtype)
        ),
    ],
    ids=["identity", "fourier", "subsampling", "blur", "maps", "sense", "product"],
)
def test_operator(make: object, dtype: torch.dtype) -> None:
    assert callable(make)
    operator: LinearOperator = make(dtype)
    assert operator.device == torch.device("cuda", torch.cuda.current_device())
    check_operator(operator, exact_norm=False)
    on_cpu = operator.to("cpu")
    x = random_tensor((2, *operator.domain_shape), operator.domain_dtype)
    torch.testing.assert_close(operator(x.cuda()).cpu(), on_cpu(x), rtol=1e-12, atol=1e-12)


def test_a_mask_stays_where_it_is() -> None:
    """A mask on the GPU made an operator on the CPU."""
    on_gpu = MASK.tensor("cuda")
    assert FourierSubsampling(on_gpu, (8, 9)).device.type == "cuda"
    assert FourierSubsampling(on_gpu, (8, 9), device="cpu").device.type == "cpu"
    assert SamplingMask.from_array(on_gpu, (8, 9)).sha256 == MASK.sha256
