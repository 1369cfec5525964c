"""Settings: what is refused and in which words, texts and JSON, and a hash that outlives changes of the classes."""

import inspect
import json
import math
import pickle
from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar, Literal

import numpy as np
import pytest

from mrisps.errors import MrispsError, SettingsError
from mrisps.settings import (
    LATER,
    Count,
    NonNegative,
    Positive,
    Range,
    Text,
    fingerprint,
    from_plain,
    settings,
    to_plain,
    with_values,
)


@settings
@dataclass(frozen=True)
class Solver:
    """How a minimum is found."""

    tolerance: Positive = 1e-3
    max_iterations: Count = 100
    levels: Annotated[int, Range(ge=1, le=6)] = 1
    half: bool = False
    size: tuple[Count, Count] = (4, 5)

    def __post_init__(self) -> None:
        if self.half and self.levels > 1:
            raise ValueError("levels: expected 1 with half")


@settings
@dataclass(frozen=True)
class Task:
    """What is done."""

    name: Text
    beta: Positive
    kind: Literal["mri", "denoise"] = "mri"
    noise: NonNegative | None = None
    solver: Solver = field(default_factory=Solver)
    coarse: Solver | None = None


TASK = Task("x", 8)
PLAIN = to_plain(TASK)

WRONG = [
    ({"solver": {"max_iterations": -3}}, "solver.max_iterations", "expected an integer >= 1, got -3"),
    ({"solver": {"levels": 9}}, "solver.levels", "expected an integer <= 6, got 9"),
    ({"solver": {"tolerance": "1"}}, "solver.tolerance", "expected a number, got '1'"),
    ({"solver": {"tolerance": True}}, "solver.tolerance", "expected a number, got True"),
    ({"solver": {"tolerance": math.nan}}, "solver.tolerance", "expected a finite number, got nan"),
    ({"solver": {"half": 1}}, "solver.half", "expected True or False, got 1"),
    ({"solver": {"half": True, "levels": 2}}, "solver.levels", "expected 1 with half"),
    ({"coarse": {"max_iterations": 2.0}}, "coarse.max_iterations", "expected an integer, got 2.0"),
    (
        {"coarse": {"max_iter": 2}},
        "coarse.max_iter",
        "unknown key; known here: tolerance, max_iterations, levels, half, size",
    ),
    ({"lamda": 2}, "lamda", "unknown key; known here: name, beta, kind, noise, solver, coarse"),
    ({"kind": "ct"}, "kind", "expected 'mri' or 'denoise', got 'ct'"),
    ({"beta": 0}, "beta", "expected a number > 0, got 0"),
    ({"noise": math.inf}, "noise", "expected a finite number, got inf"),
    ({"name": " "}, "name", r"expected a text to match pattern '\S', got ' '"),
    ({"solver": {"size": [4, 0]}}, "solver.size", "expected an integer >= 1, got 0 (element 1)"),
    ({"solver": 3}, "solver", "expected an object, got 3"),
]


@pytest.mark.parametrize(("change", "key", "message"), WRONG)
def test_wrong_plain_values(change: dict[str, object], key: str, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        from_plain(Task, {**PLAIN, **change})
    assert (caught.value.key, caught.value.message) == (key, message)
    assert str(caught.value) == f"{key}: {message}"


def test_missing_and_absurd_plain_values() -> None:
    with pytest.raises(SettingsError, match=r"^beta: is missing$"):
        from_plain(Task, {"name": "x"})
    with pytest.raises(SettingsError, match=r"^beta: .*got 1000"):
        from_plain(Task, {"name": "x", "beta": 10**400})
    deep: object = 1
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(SettingsError):
        from_plain(Task, {"name": deep, "beta": 1})


def test_wrong_arguments() -> None:
    """From Python the key is that of the object that is being made, whether its argument has a name or not."""
    with pytest.raises(SettingsError, match=r"^max_iterations: expected an integer >= 1, got -3$"):
        Task("x", 1.0, solver=Solver(max_iterations=-3))
    with pytest.raises(SettingsError, match=r"^beta: expected a number, got 'large'$"):
        Task("x", "large")  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(SettingsError, match=r"^solver: expected Solver, got 3$"):
        Task("x", 1.0, solver=3)  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(SettingsError, match=r"^levels: expected 1 with half$"):
        replace(Solver(levels=2), half=True)


def test_an_error_is_ours_and_a_value_error_and_crosses_processes() -> None:
    error = SettingsError("solver.tolerance", "expected a number > 0, got 0")
    assert isinstance(error, MrispsError)
    assert isinstance(error, ValueError)
    again = pickle.loads(pickle.dumps(error))
    assert (again.key, again.message, str(again)) == (error.key, error.message, str(error))


def test_there_and_back() -> None:
    assert from_plain(Task, PLAIN) == TASK
    assert json.loads(json.dumps(PLAIN)) == PLAIN
    assert pickle.loads(pickle.dumps(TASK)) == TASK
    assert hash(replace(TASK)) == hash(TASK)
    assert TASK.__doc__ == "What is done."


def test_help_is_readable() -> None:
    assert str(inspect.signature(Solver)).startswith(
        "(tolerance: float = 0.001, max_iterations: int = 100, levels: int = 1"
    )


def test_numbers_keep_their_type() -> None:
    assert type(TASK.beta) is int
    assert type(from_plain(Task, PLAIN).beta) is int
    assert type(Task("x", np.float32(2)).beta) is float


@pytest.mark.parametrize(
    ("texts", "wanted"),
    [
        ({"beta": "1e-3"}, replace(TASK, beta=1e-3)),
        ({"beta": "8.0"}, TASK),
        ({"name": "none"}, replace(TASK, name="none")),
        ({"noise": "0.1", "kind": "denoise"}, replace(TASK, noise=0.1, kind="denoise")),
        ({"noise": "None"}, TASK),
        ({"solver.size": "7, 9"}, replace(TASK, solver=Solver(size=(7, 9)))),
        ({"solver.half": "True", "solver.levels": "1"}, replace(TASK, solver=Solver(half=True))),
    ],
)
def test_values_from_texts(texts: dict[str, str], wanted: Task) -> None:
    made = with_values(TASK, texts)
    assert made == wanted
    assert fingerprint(made) == fingerprint(wanted)


def test_values_that_belong_together_are_changed_together() -> None:
    start = replace(TASK, solver=Solver(levels=2))
    assert with_values(start, {"solver.half": "true", "solver.levels": "1"}).solver == Solver(half=True)


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        ("solver.max_iterations", "-3", "expected an integer >= 1, got -3"),
        ("solver.max_iterations", "2.5", "expected an integer, got '2.5'"),
        ("solver.tol", "1", "unknown key; known here: tolerance, max_iterations, levels, half, size"),
        ("beta.x", "1", "beta is 8, it has no keys"),
        ("coarse.levels", "1", "coarse is None, it has no keys"),
        ("solver", "fast", "expected an object, got 'fast'"),
        ("beta", "none", "expected a number, got 'none'"),
        ("solver.half", "yes", "expected True or False, got 'yes'"),
        ("", "1", "unknown key; known here: name, beta, kind, noise, solver, coarse"),
    ],
)
def test_wrong_texts(path: str, text: str, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        with_values(TASK, {path: text})
    assert (caught.value.key, caught.value.message) == (path, message)


def test_a_new_field_does_not_change_a_hash_while_it_has_its_default() -> None:
    @settings
    @dataclass(frozen=True)
    class Old:
        beta: Positive = 1.0

    @settings
    @dataclass(frozen=True)
    class New:
        beta: Positive = 1.0
        sets: Count = field(default=1, metadata=LATER)
        parts: tuple[int, ...] = field(default_factory=tuple, metadata=LATER)

    assert fingerprint(New()) == fingerprint(Old())
    assert fingerprint(New(sets=2)) != fingerprint(Old())
    assert fingerprint(New(parts=(1,))) != fingerprint(Old())
    assert from_plain(New, to_plain(Old())) == New()


def test_a_field_that_is_gone_stays_in_the_hash() -> None:
    @settings
    @dataclass(frozen=True)
    class Old:
        beta: Positive = 1.0
        greedy: bool = False

    @settings
    @dataclass(frozen=True)
    class New:
        beta: Positive = 1.0
        GONE: ClassVar = {"greedy": False}

    assert fingerprint(New()) == fingerprint(Old())
    assert from_plain(New, to_plain(Old())) == New()
    with pytest.raises(SettingsError, match=r"^greedy: unknown key; known here: beta$"):
        from_plain(New, to_plain(Old(greedy=True)))


def test_what_is_left_out_of_a_hash() -> None:
    assert fingerprint(replace(TASK, name="y"), leave_out=("name",)) == fingerprint(TASK, leave_out=("name",))
    assert fingerprint(replace(TASK, name="y")) != fingerprint(TASK)
