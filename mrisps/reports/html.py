"""One HTML page that needs nothing else: images inside, no scripts, nothing from elsewhere, every text escaped."""

import base64
from dataclasses import dataclass
from typing import Literal

__all__ = ["FOOTER", "Picture", "Report", "Section", "Table", "render"]

FOOTER = "Made by mrisps. This file is complete: it loads nothing from elsewhere."


@dataclass(frozen=True)
class Picture:
    """An image in a report.

    Parameters
    ----------
    png
        Content of a PNG file.
    alt
        For those who cannot see it.
    caption
        Below it; says what the colours mean.
    """

    png: bytes
    alt: str
    caption: str = ""

    @property
    def uri(self) -> str:
        """The image as data URI."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode("ascii")


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
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""
    emphasised: int | None = None
    numeric_from: int | None = None

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"rows: expected {len(self.columns)} cells in each, got {len(row)}: {row}")


@dataclass(frozen=True)
class Section:
    """A part of a report: heading, paragraphs, then pictures and tables in order.

    Parameters
    ----------
    title
        Heading; none where it is empty.
    text
        Paragraphs.
    pictures, tables
        What to show.
    folded
        Closed until the reader opens it.
    """

    title: str
    text: tuple[str, ...] = ()
    pictures: tuple[Picture, ...] = ()
    tables: tuple[Table, ...] = ()
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
    outcome
        Whether the summary is good news: its colour.
    notes
        What a reader should know before relying on it.
    sections
        The content.
    footer
        How the page was made.
    """

    title: str
    summary: str
    outcome: Literal["good", "bad"]
    sections: tuple[Section, ...]
    notes: tuple[str, ...] = ()
    footer: str = ""


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
    return environment.get_template("report.html.jinja").render(report=report)
