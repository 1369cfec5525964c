"""An operator on a larger grid."""

import pytest
import torch

from mrisps.operators import LinearOperator, OnLargerGrid, PerEntry, Sense

from .helpers import check_operator, image_of, random_tensor


def coils(seed: int = 1, dtype: torch.dtype = torch.complex128) -> Sense:
    mask = torch.tensor([True, False, True, True, True, False, True])
    return Sense(mask, random_tensor((2, 3, 5, 7), torch.complex128, seed), dtype)


@pytest.mark.parametrize("dtype", [torch.complex128, torch.float64])
@pytest.mark.parametrize("shape", [(6, 8), (5, 8), (5, 7), (9, 14)])
def test_is_an_operator(shape: tuple[int, int], dtype: torch.dtype) -> None:
    operator = OnLargerGrid(coils(dtype=dtype), shape)
    check_operator(operator, exact_norm=False)
    x = image_of(operator)
    torch.testing.assert_close(operator(x), coils(dtype=dtype)(x[..., :5, :7].contiguous()))
    seen_not_at_all = torch.cat(
        [operator.adjoint(operator(x))[..., 5:, :].flatten(), operator.normal(x)[..., 7:].flatten()]
    )
    assert not bool(seen_not_at_all.any())
    assert operator.n_measurements == coils().n_measurements


def test_of_a_batch() -> None:
    parts = [coils(1), coils(2)]
    joined = OnLargerGrid(PerEntry(parts), (6, 8))
    x = image_of(joined)
    for i, part in enumerate(parts):
        own = OnLargerGrid(part, (6, 8))
        torch.testing.assert_close(joined(x)[i : i + 1], own(x[i : i + 1]))
        torch.testing.assert_close(joined.take(torch.tensor([i]))(x[i : i + 1]), own(x[i : i + 1]))


def test_the_circulant_is_near_to_the_nearest() -> None:
    """On the grid of the operator it is the operator's own; on a larger one it is near to the diagonal of F A^H A F^H."""
    own = OnLargerGrid(coils(), (5, 7)).normal_circulant()
    assert own is not None
    torch.testing.assert_close(own, coils().normal_circulant())
    operator = OnLargerGrid(coils(), (6, 8))
    found = operator.normal_circulant()
    assert found is not None
    assert bool((found >= 0).all())
    waves = torch.fft.ifft2(torch.eye(2 * 48, dtype=torch.complex128).reshape(-1, 2, 6, 8), norm="ortho")
    diagonal = (waves.conj() * operator.normal(waves)).real.sum(dim=(1, 2, 3)).reshape(2, 6, 8)
    assert float((found - diagonal).norm() / diagonal.norm()) < 0.15


def test_what_does_not_fit_is_refused() -> None:
    class Plain(LinearOperator):
        def _forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * x

        _adjoint = _forward

    with pytest.raises(ValueError, match=r"shape: expected at least \(y, x\) = \(5, 7\), got \(4, 8\)"):
        OnLargerGrid(coils(), (4, 8))
    plain = Plain(domain_shape=(1, 5, 7), range_shape=(1, 5, 7), domain_dtype=torch.float64, range_dtype=torch.float64)
    larger = OnLargerGrid(plain, (6, 8))
    assert larger.normal_circulant() is None
    assert larger.norm() == pytest.approx(2)
