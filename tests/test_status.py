"""The statuses, and what is said of several."""

import pytest

from mrisps.status import FINISHED, finished, in_words


def test_finished() -> None:
    assert [
        status
        for status in ("converged", "settled", "max_iter", "diverging", "nonfinite", "", None)
        if finished(status)
    ] == [*FINISHED]


@pytest.mark.parametrize(
    ("statuses", "words"),
    [
        (["converged"], "converged"),
        (["settled", "settled"], "settled"),
        (["settled", "converged"], "converged or settled"),
        (["max_iter"], "NOT CONVERGED"),
        (["settled", "max_iter", None], "NOT CONVERGED: 2 of 3"),
    ],
)
def test_in_words(statuses: list[object], words: str) -> None:
    assert in_words(statuses) == words
