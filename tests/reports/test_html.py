"""The page: complete, escaped, and the same whatever is in it."""

from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from mrisps.reports.html import Picture, Report, Section, Table, render
from mrisps.reports.reconstruction import ReconstructionContent, reconstruction_report

HOSTILE = "</td></style><script>alert('x')</script>\"'&{{ 7 * 7 }}"


class Checker(HTMLParser):
    """Whether tags are balanced, and what is loaded from where."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def page_of(report: Report) -> tuple[str, Checker]:
    page = render(report)
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert checker.open == []
    return page, checker


def test_every_text_is_escaped() -> None:
    section = Section(
        HOSTILE,
        text=(HOSTILE,),
        pictures=(Picture(b"png", HOSTILE, HOSTILE),),
        tables=(Table((HOSTILE, "b"), ((HOSTILE, "1"), ("x", "2")), HOSTILE, emphasised=1, numeric_from=1),),
    )
    folded = Section("more", folded=True)
    page, checker = page_of(Report(HOSTILE, HOSTILE, "bad", (section, folded), (HOSTILE,), HOSTILE))
    assert "<script" not in page
    assert "script" not in checker.tags
    assert "49" not in page
    assert page.count("&lt;script&gt;") == 12  # the title is in the head, too
    assert checker.sources == ["data:image/png;base64,cG5n"]
    assert 'class="summary bad"' in page
    assert "<details>" in page


def test_nothing_from_elsewhere() -> None:
    page, checker = page_of(Report("title", "summary", "good", ()))
    assert checker.sources == []
    assert "http://" not in page
    assert "https://" not in page
    assert "default-src 'none'" in page
    assert "prefers-color-scheme: dark" in page


def test_rows_have_to_fit() -> None:
    with pytest.raises(ValueError, match="rows: expected 2 cells in each, got 1"):
        Table(("a", "b"), (("x",),))


def content(*, real: bool, status: str = "converged", n_slices: int = 2) -> ReconstructionContent:
    rng = np.random.default_rng(0)
    part = rng.normal(size=(12, 10)).astype(np.float32)
    image = part if real else part * np.complex64(1j)
    mask = {"kind": "random", "realised_acceleration": 4.0, "acs_lines": 3, "sha256": "0" * 64}
    certificate = {
        "status": status,
        "n_iterations": 7,
        "residual_a": 1e-4,
        "energy_trace": [[1, 2.0], [7, 1.0]],
        "mask": mask,
    }
    return ReconstructionContent(
        name="<knee>.h5",
        slice_name="slice 4",
        image=image,
        smooth=image,
        sparse=image,
        cost_map=np.abs(part),
        zero_filled=np.abs(part) if real else None,
        target=np.abs(part) if real else None,
        mask=np.ones((12, 10), np.bool_) if real else None,
        certificates=[certificate] * n_slices,
        certificate=certificate,
        slices=range(3, 3 + n_slices),
        provenance={"recipe": {"name": "<b>"}},
        notes=("a <note>",),
    )


def test_reconstruction_report() -> None:
    page, checker = page_of(reconstruction_report(content(real=True)))
    assert "All 2 slices converged. Acceleration 4, 3 lines in the centre." in page
    assert "a &lt;note&gt;" in page
    assert "Reconstruction of &lt;knee&gt;.h5" in page
    assert 'class="summary good"' in page
    assert len(checker.sources) == 3  # images, energy, mask
    assert "from -" in page  # the limits of a signed part are stated
    page, checker = page_of(reconstruction_report(content(real=False)))
    assert len(checker.sources) == 2
    assert "from 0 to" in page


def test_reconstruction_report_of_a_failure() -> None:
    page, _ = page_of(reconstruction_report(content(real=True, status="max_iter", n_slices=1)))
    assert "NOT CONVERGED: 1 of 1 slices." in page
    assert 'class="summary bad"' in page


def test_reconstruction_report_says_the_verdict_first() -> None:
    """The gravest of all slices, with its reasons, beside a solver that converged."""
    good = content(real=True)
    bad = {**good.certificate, "verdict": {"level": "check", "reasons": ["<few> lines"], "facts": {}}}
    fine = {**good.certificate, "verdict": {"level": "good", "reasons": [], "facts": {}}}
    page, _ = page_of(reconstruction_report(replace(good, certificates=[bad, fine], certificate=fine)))
    assert "Verdict: CHECK. All 2 slices converged." in page
    assert "&lt;few&gt; lines" in page
    assert 'class="summary bad"' in page
    page, _ = page_of(reconstruction_report(replace(good, certificates=[fine, fine])))
    assert "Verdict: GOOD. All 2 slices converged." in page
    assert 'class="summary good"' in page
