"""The model object: sizes, parameters, what it refuses, and the prior that it makes."""

import copy
import re
from dataclasses import replace

import pytest
import torch

from mrisps.model import GroupSoftThreshold, ModelConfig, SmoothPlusSparse, SmoothShrinkage

from .helpers import CONFIGS, CPR, NCPR, random_model, random_tensor


def test_number_of_parameters_of_the_paper() -> None:
    """maths.md: 200 * 169 + 120 * 169 + 200 + 1."""
    model = random_model(ModelConfig())
    assert sum(parameter.numel() for parameter in model.parameters()) == 54_281


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.regulariser)
def test_prior(config: ModelConfig) -> None:
    model = random_model(config, beta=0.7, lam=0.02)
    prior = model.prior(torch.float64)
    assert prior.beta == pytest.approx(0.7)
    torch.testing.assert_close(prior.regulariser.thresholds, 0.02 * model.log_thresholds.detach().exp())
    if config.regulariser == "NCPR":
        assert isinstance(prior.regulariser, SmoothShrinkage)
        assert prior.regulariser.exponent == config.exponent
    else:
        assert isinstance(prior.regulariser, GroupSoftThreshold)
        assert prior.regulariser.size == config.group_size
    single = model.prior()
    assert single.basis.dtype == single.regulariser.thresholds.dtype == torch.float32
    assert not single.basis.requires_grad
    torch.testing.assert_close(single.synthesis_atoms, prior.synthesis_atoms.float())


def test_beta_floor_reaches_the_atoms_only() -> None:
    model = random_model(beta=0.01)
    plain, floored = model.prior(torch.float64), model.prior(torch.float64, beta_floor=0.1)
    assert plain.beta == floored.beta == pytest.approx(0.01)
    torch.testing.assert_close(floored.synthesis_atoms, plain.synthesis_atoms * 0.1**0.5)


def test_with_regularisation_changes_a_copy() -> None:
    model = random_model(beta=0.5, lam=0.1)
    fingerprint = model.fingerprint()
    for other, beta, lam in (
        (model.with_regularisation(beta=2.0), 2.0, 0.1),
        (model.with_regularisation(lam=0.3), 0.5, 0.3),
        (model.with_regularisation(beta=2.0, lam=0.3), 2.0, 0.3),
        (model.with_regularisation(), 0.5, 0.1),
    ):
        assert float(other.beta.detach()) == beta
        assert other.lam == lam
        assert (other.fingerprint() == fingerprint) == (beta == 0.5 and lam == 0.1)
        torch.testing.assert_close(
            other.prior().synthesis_atoms * beta**0.5, model.prior().synthesis_atoms * 0.5**0.5
        )  # beta |D|_2^2 = 0.99 again
        with torch.no_grad():
            other.raw_free_atoms.zero_()  # nothing is shared
    assert model.fingerprint() == fingerprint
    with pytest.raises(ValueError, match="beta"):
        model.with_regularisation(beta=0.0)
    with pytest.raises(ValueError, match="lam"):
        model.with_regularisation(lam=-1.0)


def test_the_tensors_given_are_copied() -> None:
    raw = random_tensor(8, 5, 5)
    good = random_model()
    model = SmoothPlusSparse(NCPR, raw, good.raw_synthesis_atoms, good.log_thresholds, 0.5, 0.1)
    before = model.fingerprint()
    raw.zero_()
    assert model.fingerprint() == before


def test_fingerprint() -> None:
    """The same for the same model, another one as soon as any number of it changes."""
    model = random_model(CPR)
    reference = model.fingerprint()
    assert re.fullmatch("[0-9a-f]{64}", reference)
    assert model.fingerprint() == reference
    assert copy.deepcopy(model).fingerprint() == reference
    assert random_model(CPR).fingerprint() == reference
    seen = {reference, random_model(CPR, lam=0.1 + 1e-9).fingerprint()}
    for name, _ in model.named_parameters():
        other = copy.deepcopy(model)
        parameter = dict(other.named_parameters())[name]
        with torch.no_grad():
            last = parameter.view(-1)[-1:]
            last.copy_(torch.nextafter(last, last + 1))
        seen.add(other.fingerprint())
    for config in (replace(CPR, group_size=1), replace(CPR, bjorck_iterations=16), replace(CPR, exponent=2)):
        seen.add(random_model(config).fingerprint())
    assert len(seen) == 2 + 4 + 3
    # 2 and 2.0 are one exponent.
    assert (
        random_model(replace(NCPR, exponent=2)).fingerprint() == random_model(replace(NCPR, exponent=2.0)).fingerprint()
    )


def test_repr_says_what_it_is() -> None:
    text = repr(random_model(beta=0.5, lam=0.1))
    assert "NCPR" in text
    assert "beta=0.5" in text
    assert "lam=0.1" in text


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_model_keeps_its_precision(dtype: torch.dtype) -> None:
    model = random_model(dtype=dtype)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"patch_size": 12}, "patch_size"),
        ({"patch_size": 1}, "patch_size"),
        ({"patch_size": 0}, "patch_size"),
        ({"patch_size": -3}, "patch_size"),
        ({"n_free_atoms": -1}, "n_free_atoms"),
        ({"n_free_atoms": 24}, "n_free_atoms"),
        ({"n_synthesis_atoms": 0}, "n_synthesis_atoms"),
        ({"regulariser": "l0"}, "regulariser"),
        ({"exponent": 0.9}, "exponent"),
        ({"exponent": float("nan")}, "exponent"),
        ({"exponent": float("inf")}, "exponent"),
        ({"group_size": 2}, "group_size"),
        ({"regulariser": "CPR", "group_size": 0}, "group_size"),
        ({"bjorck_iterations": 0}, "bjorck_iterations"),
        ({"bjorck_iterations": 10**9}, "bjorck_iterations"),
    ],
)
def test_configurations_that_are_refused(changes: dict[str, object], field: str) -> None:
    with pytest.raises(ValueError, match=f"^{field}: expected"):
        replace(NCPR, **changes)


def test_the_largest_number_of_free_atoms() -> None:
    prior = random_model(ModelConfig(patch_size=3, n_free_atoms=7, n_synthesis_atoms=2)).prior(torch.float64)
    assert prior.basis.shape == (1, 9)


@pytest.mark.parametrize("name", ["raw_free_atoms", "raw_synthesis_atoms", "log_thresholds", "beta"])
@pytest.mark.parametrize("fault", ["shape", "nan", "inf", "integer", "half", "complex"])
def test_tensors_that_are_refused(name: str, fault: str) -> None:
    good = random_model()
    tensors = {key: value.detach().clone() for key, value in good.named_parameters()}
    tensor = tensors[name]
    if fault == "shape":
        tensor = tensor[None]
    elif fault in ("nan", "inf"):
        tensor.view(-1)[0] = float(fault)
    else:
        tensor = tensor.to({"integer": torch.int64, "half": torch.float16, "complex": torch.complex64}[fault])
    tensors[name] = tensor
    with pytest.raises(ValueError, match=f"^{name}: expected"):
        SmoothPlusSparse(NCPR, lam=0.1, **tensors)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_weights_that_are_refused(value: float) -> None:
    good = random_model()
    for name, arguments in (("beta", {"beta": value, "lam": 0.1}), ("lam", {"beta": 0.5, "lam": value})):
        with pytest.raises(ValueError, match=name):
            SmoothPlusSparse(NCPR, good.raw_free_atoms, good.raw_synthesis_atoms, good.log_thresholds, **arguments)


@pytest.mark.parametrize("config", CONFIGS)
def test_another_unit_of_the_thresholds_is_the_same_model(config: ModelConfig) -> None:
    model = random_model(config, lam=0.1)
    other = model.with_threshold_unit(0.03)
    assert other.lam == 0.03
    ours, theirs = (m.prior(torch.float64) for m in (model, other))
    torch.testing.assert_close(theirs.regulariser.thresholds, ours.regulariser.thresholds)
    assert torch.equal(theirs.synthesis_atoms, ours.synthesis_atoms)
