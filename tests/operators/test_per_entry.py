"""One operator for each entry of a batch."""

import pytest
import torch

from mrisps.operators import FourierSubsampling, Identity, LinearOperator, PerEntry, Sense

from .helpers import random_tensor, real_inner

MASKS = [torch.tensor([True, False, True, True, False, True]), torch.tensor([False, True, True, True, True, False])]
WEIGHTS = (1.0, 0.5)


def operators(kind: str) -> list[LinearOperator]:
    if kind == "fourier":
        return [FourierSubsampling(mask, (5, 6), torch.complex128) for mask in MASKS]
    maps = [random_tensor((2, 3, 5, 6), torch.complex128, seed) for seed in range(2)]
    return [Sense(*pair) for pair in zip(MASKS, maps, strict=True)]


@pytest.mark.parametrize("kind", ["fourier", "sense"])
def test_each_entry_has_its_own(kind: str) -> None:
    parts = operators(kind)
    joined = PerEntry(parts, WEIGHTS)
    x = random_tensor((2, *joined.domain_shape), torch.complex128, 1)
    y = random_tensor((2, *joined.range_shape), torch.complex128, 2)
    for i, (one, weight) in enumerate(zip(parts, WEIGHTS, strict=True)):
        entry = slice(i, i + 1)
        torch.testing.assert_close(joined(x)[entry], weight * one(x[entry]))
        torch.testing.assert_close(joined.adjoint(y)[entry], weight * one.adjoint(y[entry]))
        torch.testing.assert_close(joined.normal(x)[entry], weight**2 * one.normal(x[entry]))
        torch.testing.assert_close(joined.take(torch.tensor([i]))(x[entry]), weight * one(x[entry]))
        known = joined.normal_transfer_function() if kind == "fourier" else joined.normal_circulant()
        own = one.normal_transfer_function() if kind == "fourier" else one.normal_circulant()
        assert known is not None
        assert own is not None
        torch.testing.assert_close(known[i], (weight**2 * own).expand(known[i].shape))
        coarse = joined.restricted(y, (3, 4))
        own_coarse = one.restricted(y[entry], (3, 4))
        assert (coarse is None) == (own_coarse is None)
        if coarse is not None and own_coarse is not None:
            torch.testing.assert_close(
                coarse[0].adjoint(coarse[1])[entry], weight * own_coarse[0].adjoint(own_coarse[1])
            )
    torch.testing.assert_close(real_inner(joined(x), y), real_inner(x, joined.adjoint(y)))
    assert joined.norm() == pytest.approx(max(w * one.norm() for one, w in zip(parts, WEIGHTS, strict=True)))
    assert joined.n_measurements == max(one.n_measurements for one in parts)
    assert joined.to(precision="single").domain_dtype == torch.complex64
    probe = x.clone().requires_grad_()
    real_inner(joined(probe), y).backward()
    torch.testing.assert_close(probe.grad, joined.adjoint(y))


def test_what_does_not_fit_is_refused() -> None:
    parts = operators("sense")
    with pytest.raises(ValueError, match="operators: expected at least one"):
        PerEntry([])
    with pytest.raises(ValueError, match="operators: number 1 has other spaces"):
        PerEntry([parts[0], Identity((5, 6), torch.complex128)])
    with pytest.raises(ValueError, match="weights: expected 2 numbers > 0"):
        PerEntry(parts, [1.0])
    with pytest.raises(ValueError, match="batch: expected 2 entries, one for each operator, got 3"):
        PerEntry(parts)(random_tensor((3, 2, 5, 6), torch.complex128))
    assert PerEntry(parts).normal_transfer_function() is None
    assert "2 x Sense" in repr(PerEntry(parts))
