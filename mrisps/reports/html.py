"""One HTML page that needs nothing else: pixels, pictures and scripts inside, nothing from elsewhere, every text escaped.

The only scripts that run are ours: the page's policy names them by their hash.
"""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from mrisps.reports.viewer import Viewer

__all__ = ["Cell", "Picture", "Report", "Section", "Table", "render"]

_FOOTER = "Made by mrisps. This file is complete: it loads nothing from elsewhere."


def _uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}" if content else ""


@dataclass(frozen=True)
class Picture:
    """An image in a report: the content of a PNG file, or an SVG that `figures.to_svg` made.

    Parameters
    ----------
    alt
        For those who cannot see it.
    caption
        Below it; says what the colours mean.
    """

    alt: str
    caption: str = ""
    png: bytes = b""
    svg: str = ""

    @property
    def uri(self) -> str:
        """The PNG as data URI."""
        return _uri(self.png, "png")


@dataclass(frozen=True)
class Cell:
    """A cell of a table that is more than its text.

    Parameters
    ----------
    text
        What is read.
    href
        Where it leads, relative to the page.
    value
        What it is sorted by, where that is a number.
    level
        A verdict, which gives it a colour.
    webp
        A thumbnail that is shown instead of the text.
    """

    text: str
    href: str = ""
    value: float | None = None
    level: str = ""
    webp: bytes = b""

    @property
    def uri(self) -> str:
        """The thumbnail as data URI."""
        return _uri(self.webp, "webp")


@dataclass(frozen=True)
class Table:
    """A table in a report.

    Parameters
    ----------
    columns
        Headings.
    rows
        Cells, as many as headings in each row.
    caption
        Below it.
    emphasised
        Index of a row that is set in bold.
    numeric_from
        Cells from this column on are numbers and aligned to the right.
    prose
        Columns with sentences, which may wrap; nothing else does.
    interactive
        The reader can sort, search and filter it.
    charts
        Columns whose distribution is drawn above an interactive table.
    levels
        A verdict for each row, to filter by.
    """

    columns: tuple[str, ...]
    rows: Sequence[Sequence[str | Cell]]
    caption: str = ""
    emphasised: int | None = None
    numeric_from: int | None = None
    prose: tuple[int, ...] = ()
    interactive: bool = False
    charts: tuple[int, ...] = ()
    levels: Sequence[str] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"rows: expected {len(self.columns)} cells in each, got {len(row)}: {row}")

    def is_number(self, column: int) -> bool:
        """Whether a column holds numbers."""
        return self.numeric_from is not None and column >= self.numeric_from and column not in self.prose

    @property
    def cells(self) -> list[list[Cell]]:
        """The rows, every entry a cell."""
        return [[each if isinstance(each, Cell) else Cell(each) for each in row] for row in self.rows]


@dataclass(frozen=True)
class Section:
    """A part of a report: heading, paragraphs, viewer, then pictures and tables, side by side where there is room.

    Parameters
    ----------
    title
        Heading; none where it is empty.
    text
        Paragraphs.
    pictures, tables
        What to show.
    viewer
        Images to work with, before them.
    folded
        Closed until the reader opens it.
    """

    title: str
    text: Sequence[str] = ()
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()
    viewer: Viewer | None = None
    folded: bool = False


@dataclass(frozen=True)
class Report:
    """A page.

    Parameters
    ----------
    title
        Of the page.
    summary
        The outcome in one or two sentences.
    level
        ``"good"``, ``"check"`` or ``"unusable"``: the colour of the summary.
    headline
        The outcome in a word or two, before the summary.
    tiles
        (name, value) of the numbers that matter most.
    notes
        What a reader should know before relying on it.
    sections
        The content.
    """

    title: str
    summary: str
    level: str
    sections: Sequence[Section] = ()
    headline: str = ""
    tiles: Sequence[tuple[str, str]] = ()
    notes: Sequence[str] = ()


def render(report: Report) -> str:
    """The page as HTML text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("mrisps.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    folder = files("mrisps.reports") / "assets"
    names = ("viewer.js",) if any(section.viewer for section in report.sections) else ()
    if any(table.interactive for section in report.sections for table in section.tables):
        names = (*names, "page.js")
    scripts = [f"(() => {{{(folder / name).read_text(encoding='utf-8')}}})();" for name in names]
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}'" for text in scripts
    )
    return environment.get_template("report.html.jinja").render(
        report=report,
        css=(folder / "page.css").read_text(encoding="utf-8"),
        scripts=scripts,
        hashes=hashes or "'none'",
        footer=_FOOTER,
    )
