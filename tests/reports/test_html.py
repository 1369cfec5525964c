"""The page: complete, escaped, and the same whatever is in it."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from mrisps.reports.html import Cell, Picture, Report, Section, Table, render
from mrisps.reports.viewer import Pane, Viewer, panes_of

HOSTILE = "</td></style></script><script>alert('x')</script>\"'&{{ 7 * 7 }}"


class Checker(HTMLParser):
    """Whether tags are balanced, what scripts run, and what is loaded from where."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.scripts: list[str] = []
        self.data: list[str] = []
        self.sources: list[str] = []
        self._into: list[str] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data")]
        if tag == "script":
            self._into = self.data if dict(attrs).get("type") else self.scripts
            self._into.append("")
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_data(self, data: str) -> None:
        if self._into is not None:
            self._into[-1] += data

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self._into = None


def page_of(report: Report) -> tuple[str, Checker]:
    page = render(report)
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert checker.open == []
    return page, checker


def test_every_text_is_escaped() -> None:
    cells = ((HOSTILE, Cell(HOSTILE, href="./a%3Cb.html", value=1.0, level="good")), ("x", "2"))
    section = Section(
        HOSTILE,
        text=(HOSTILE,),
        pictures=(Picture(HOSTILE, HOSTILE, b"png"),),
        tables=(Table((HOSTILE, "b"), cells, HOSTILE, 1, 1, interactive=True, levels=(HOSTILE, "")),),
    )
    viewer = Viewer([Pane("a", HOSTILE, HOSTILE)])
    viewer.add(HOSTILE, {"a": np.ones((3, 3), np.float32)}, number=HOSTILE, level=HOSTILE, reasons=(HOSTILE,))
    sections = (section, Section("", viewer=viewer))
    report = Report(HOSTILE, HOSTILE, HOSTILE, sections, HOSTILE, ((HOSTILE, HOSTILE),), (HOSTILE,))
    page, checker = page_of(report)
    assert "<script>alert" not in page
    assert not any("alert(" in script for script in checker.scripts)
    assert "49" not in re.sub(r"'sha256-\S+", "", page.split("</style>")[1].split("<script")[0])
    assert checker.sources == ["data:image/png;base64,cG5n", "./a%3Cb.html"]
    facts, plane = checker.data
    assert json.loads(facts)["slices"][0]["label"] == HOSTILE
    assert "<" not in facts + plane


def test_only_our_scripts_run() -> None:
    viewer = Viewer(panes_of(["reconstruction"]))
    viewer.add("slice 0", {"reconstruction": np.ones((3, 3), np.float32)})
    table = Table(("a",), (("b",),), interactive=True)
    page, checker = page_of(Report("t", "s", "good", (Section("", tables=(table,), viewer=viewer),)))
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in checker.scripts]
    assert len(hashes) == 2
    allowed = policy[1].replace("&#39;", "'").replace("&#43;", "+")
    assert allowed.endswith("script-src " + " ".join(f"'sha256-{each}'" for each in hashes))
    assert "default-src 'none'" in allowed
    assert "unsafe-inline" not in allowed.partition("script-src")[2]


def test_nothing_from_elsewhere() -> None:
    page, checker = page_of(Report("title", "summary", "good"))
    assert checker.sources == []
    assert checker.scripts == []
    assert "http://" not in page
    assert "https://" not in page
    assert "prefers-color-scheme: dark" in page


def test_rows_have_to_fit() -> None:
    with pytest.raises(ValueError, match="rows: expected 2 cells in each, got 1"):
        Table(("a", "b"), (("x",),))
